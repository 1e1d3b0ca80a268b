//! How the fields of a line stand in the text log: a value that a reader could take for more than one value is quoted.
//!
//! Callers and other parties choose some of the values. Without the quotes one of them could pretend to be further fields, or
//! another line.

use std::fmt;

use tracing_subscriber::field::{MakeVisitor, VisitFmt, VisitOutput};
use tracing_subscriber::fmt::format::Writer;

/// Writes the fields of a line in text.
pub(crate) struct Fields;

impl<'a> MakeVisitor<Writer<'a>> for Fields {
    type Visitor = Visitor<'a>;

    fn make_visitor(&self, writer: Writer<'a>) -> Visitor<'a> {
        Visitor { writer, is_first: true, result: Ok(()) }
    }
}

/// Writes one line's fields, with blanks between them.
pub(crate) struct Visitor<'a> {
    writer: Writer<'a>,
    is_first: bool,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        let text = format!("{value:?}");
        if name == MESSAGE {
            return self.writer.write_str(&text);
        }
        let (name_on, name_off, equals_on, equals_off) = if self.writer.has_ansi_escapes() {
            ("\x1b[3m", "\x1b[0m", "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        write!(self.writer, "{name_on}{name}{name_off}{equals_on}={equals_off}")?;
        if is_one_value(&text) { self.writer.write_str(&text) } else { write!(self.writer, "{text:?}") }
    }
}

/// The field with the words of the line itself. They are ours.
const MESSAGE: &str = "message";

impl tracing::field::Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = self.write(field.name(), value);
        }
    }
}

impl VisitOutput<fmt::Result> for Visitor<'_> {
    fn finish(self) -> fmt::Result {
        self.result
    }
}

impl VisitFmt for Visitor<'_> {
    fn writer(&mut self) -> &mut dyn fmt::Write {
        &mut self.writer
    }
}

/// Can a reader tell where this value ends? It has no blank, quote, `=` or control character, or it is quoted already.
fn is_one_value(text: &str) -> bool {
    let splits = |one: char| one.is_whitespace() || one.is_control() || matches!(one, '"' | '\'' | '=' | '\\');
    !text.is_empty() && !text.contains(splits) || is_quoted(text)
}

/// One pair of quotes around everything, and none that is not escaped within.
fn is_quoted(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut is_escaped = false;
    for one in inside.chars() {
        match one {
            _ if one.is_control() => return false,
            '"' if !is_escaped => return false,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    !is_escaped
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use super::*;

    /// What the text log shows of a line, without its beginning.
    fn logged(is_coloured: bool, say: impl FnOnce()) -> String {
        let lines = Arc::new(tempfile::tempfile().expect("a file"));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Arc::clone(&lines))
            .with_ansi(is_coloured)
            .without_time()
            .with_level(false)
            .with_target(false)
            .fmt_fields(Fields)
            .finish();
        tracing::subscriber::with_default(subscriber, say);
        let mut text = String::new();
        (&*lines).rewind().expect("a file");
        (&*lines).read_to_string(&mut text).expect("UTF-8");
        text.strip_suffix('\n').expect("a line").to_owned()
    }

    #[test]
    fn a_value_that_pretends_to_be_fields_or_lines_is_one_quoted_value() {
        for forged in [
            "x caller=uid 0",
            "a=b",
            "say \"x\"",
            "\"x\" caller=uid 0 y=\"z\"",
            "x\n2026 WARN not served",
            "x\tcaller=0",
            "\u{1b}[2mx",
            "x\u{2028}caller=0",
            "\"x\\\" caller=0\"y\"",
            "\\",
            "",
        ] {
            for text in [
                logged(false, || tracing::warn!(server = %forged, count = 7, "not served")),
                logged(false, || tracing::warn!(server = forged, count = 7, "not served")),
            ] {
                assert_eq!(text, format!("not served server={forged:?} count=7"));
            }
        }
    }

    #[test]
    fn a_plain_value_stands_as_it_is() {
        let say =
            || tracing::warn!(url = %"https://a.example/mcp", known = true, path = ?"/a", none = ?None::<u8>, "said");
        assert_eq!(logged(false, say), "said url=https://a.example/mcp known=true path=\"/a\" none=None");
        let coloured = logged(true, || tracing::warn!(url = %"a b", "said"));
        assert_eq!(coloured, "said \x1b[3murl\x1b[0m\x1b[2m=\x1b[0m\"a b\"");
    }

    #[test]
    fn only_one_whole_pair_of_quotes_is_a_quoted_value() {
        for (text, is) in [
            ("\"a b\"", true),
            ("\"a \\\" b\"", true),
            ("\"\"", true),
            ("\"", false),
            ("\"a\" b=\"c\"", false),
            ("\"a\\\"", false),
            ("\"a\nb\"", false),
        ] {
            assert_eq!(is_quoted(text), is, "{text}");
        }
    }
}
