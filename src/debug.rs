//! `debug!`: a line of our own log at level debug, written as with `tracing::debug!`. It touches nothing but the log.
//!
//! The released file leaves out the debug lines of all dependencies (`packaging/release/build`): they would never be seen, because
//! dependencies log at warn, and they cost 170 KB. That switch works in the macros of `tracing` and is for the whole program. So
//! our lines are made with the types of `tracing-core` instead.

use tracing_core::callsite::{Callsite, DefaultCallsite};
use tracing_core::field::{Field, Value};
use tracing_core::{Event, dispatcher};

/// Logs at debug: `debug!(host = %name, status, "words")`, where `%` is for `Display` and `?` for `Debug`.
macro_rules! debug {
    (@line [$($name:expr, $value:expr;)*] % $field:ident, $($rest:tt)+) => {
        debug!(@line [$($name, $value;)* stringify!($field), tracing_core::field::display(&$field);] $($rest)+)
    };
    (@line [$($name:expr, $value:expr;)*] ? $field:ident, $($rest:tt)+) => {
        debug!(@line [$($name, $value;)* stringify!($field), tracing_core::field::debug(&$field);] $($rest)+)
    };
    (@line [$($name:expr, $value:expr;)*] $field:ident = % $of:expr, $($rest:tt)+) => {
        debug!(@line [$($name, $value;)* stringify!($field), tracing_core::field::display(&$of);] $($rest)+)
    };
    (@line [$($name:expr, $value:expr;)*] $field:ident = ? $of:expr, $($rest:tt)+) => {
        debug!(@line [$($name, $value;)* stringify!($field), tracing_core::field::debug(&$of);] $($rest)+)
    };
    (@line [$($name:expr, $value:expr;)*] $field:ident = $of:expr, $($rest:tt)+) => {
        debug!(@line [$($name, $value;)* stringify!($field), $of;] $($rest)+)
    };
    (@line [$($name:expr, $value:expr;)*] $field:ident, $($rest:tt)+) => {
        debug!(@line [$($name, $value;)* stringify!($field), $field;] $($rest)+)
    };
    (@line [$($name:expr, $value:expr;)*] $words:literal) => {
        if tracing_core::LevelFilter::current() >= tracing_core::LevelFilter::DEBUG {
            static LINE: tracing_core::Metadata<'static> = tracing_core::metadata! {
                name: "debug",
                target: module_path!(),
                level: tracing_core::Level::DEBUG,
                fields: &["message", $($name),*],
                callsite: &SITE,
                kind: tracing_core::Kind::EVENT,
            };
            static SITE: tracing_core::callsite::DefaultCallsite = tracing_core::callsite::DefaultCallsite::new(&LINE);
            crate::debug::log(&SITE, [&format_args!($words), $(&$value),*]);
        }
    };
    ($($line:tt)+) => { debug!(@line [] $($line)+) };
}

/// Hands a line to the log, if anybody wants it. `values` are those of the fields of the line, in their order.
pub(crate) fn log<const N: usize>(site: &'static DefaultCallsite, values: [&dyn Value; N]) {
    let (line, interest) = (site.metadata(), site.interest());
    let is_wanted = interest.is_always() || !interest.is_never() && dispatcher::get_default(|log| log.enabled(line));
    if !is_wanted {
        return;
    }
    let fields: Vec<Field> = line.fields().iter().collect();
    let pairs = std::array::from_fn::<_, N, _>(|at| (&fields[at], Some(values[at])));
    Event::dispatch(line, &line.fields().value_set(&pairs));
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use tracing_subscriber::fmt;

    fn logged(at: tracing::Level) -> String {
        let seen = Arc::new(tempfile::tempfile().expect("a file"));
        let log = fmt().with_max_level(at).without_time().with_ansi(false).with_writer(Arc::clone(&seen)).finish();
        tracing::subscriber::with_default(log, || {
            let (name, tried, why) = ("a b", 3, Some("c"));
            debug!(%name, ?why, tried, left = tried * 2, host = %"x".repeat(2), kept = ?why, "words of {name}");
            debug!("words alone");
        });
        let mut text = String::new();
        (&*seen).rewind().expect("a file");
        (&*seen).read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn a_line_has_its_level_its_place_its_words_and_its_fields_in_order() {
        let fields = r#"name=a b why=Some("c") tried=3 left=6 host=xx kept=Some("c")"#;
        let place = "DEBUG safeconduct::debug::tests";
        let all = format!("{place}: words of a b {fields}\n{place}: words alone\n");
        assert_eq!(logged(tracing::Level::DEBUG), all);
        assert_eq!(logged(tracing::Level::INFO), "");
    }
}
