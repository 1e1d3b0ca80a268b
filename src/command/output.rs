//! The way out for everything that commands write: [`print`] and [`tell`] take a [`Printable`] only, and each kind of text has
//! its own way to become one.
//!
//! Text for people loses the characters that are not seen. In CI a runner reads commands from the output of steps, so text of
//! another party is changed so that no runner takes it for one, and a token that a runner would read is not printed.

use std::io::Write;

use zeroize::Zeroizing;

use super::Failure;
use super::whole::{READER_LIMIT, write_whole};
use crate::broker::Class;
use crate::env::Env;
use crate::log;
use crate::oauth::words;
use crate::runner;

/// Text that may be written to stdout or stderr.
pub(super) struct Printable(Zeroizing<String>);

impl Printable {
    /// Text for people.
    pub(super) fn text(text: &str, env: &Env) -> Self {
        Self::of(for_runner(words::lines(text), Quoting::Blanks, env))
    }

    /// Text for people, in the colours that we use.
    pub(super) fn coloured(text: &str, env: &Env) -> Self {
        Self::of(for_runner(coloured(text), Quoting::Blanks, env))
    }

    /// JSON, which keeps its meaning.
    pub(super) fn json(text: &str, env: &Env) -> Self {
        Self::of(for_runner(words::json(text), Quoting::Escapes, env))
    }

    /// JSON that contains a token, which is visible ASCII. What else it contains keeps its meaning.
    pub(super) fn json_credential(text: &str, env: &Env) -> Result<Self, Failure> {
        Self::credential(Zeroizing::new(words::json(text)), env)
    }

    /// A token, or a text that contains one. It is not changed. Fails in CI if a runner would read a part of it as a command.
    pub(super) fn credential(text: Zeroizing<String>, env: &Env) -> Result<Self, Failure> {
        let harmless = Zeroizing::new(for_runner(text.to_string(), Quoting::Blanks, env));
        if *harmless != *text {
            let what =
                "the token has characters that a CI runner could read as a command (`::` or `##`); it is not printed";
            return Err(Failure::new(Class::Refused, what)
                .hint("the authorization server should issue b64tokens (RFC 6750 section 2.1)"));
        }
        Ok(Self(text))
    }

    /// A text of this program alone, as it is.
    pub(super) fn own(text: impl Into<String>) -> Self {
        Self::of(text.into())
    }

    /// This, then another.
    pub(super) fn then(mut self, next: &Self) -> Self {
        self.0.push_str(&next.0);
        self
    }

    fn of(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Writes to stdout. Fails if the reader has closed it.
pub(super) fn print(text: &Printable) -> Result<(), Failure> {
    write_whole(std::io::stdout(), text.0.as_bytes(), READER_LIMIT)
        .map_err(|error| Failure::new(Class::Temporary, format!("stdout cannot be written: {error}")))
}

/// Writes to stderr, in a daemon without waiting for it.
pub(super) fn tell(text: &Printable) {
    if !log::queue(text.0.as_bytes()) {
        drop(write_whole(std::io::stderr(), text.0.as_bytes(), READER_LIMIT));
    }
}

/// Writes commands to a CI runner on stderr, which runners read too: stdout is for data.
pub(super) fn tell_runner(commands: &str) -> Result<(), Failure> {
    write_whole(std::io::stderr(), commands.as_bytes(), READER_LIMIT)
        .map_err(|error| Failure::new(Class::Temporary, format!("the runner cannot be told: {error}")))
}

/// The form of the log.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text,
    Coloured,
    Json,
}

/// Writes log lines to stderr.
pub(super) struct Log {
    env: Env,
    form: Form,
}

impl Log {
    pub(super) fn new(env: &Env, form: Form) -> Self {
        Self { env: env.clone(), form }
    }
}

pub(super) struct Line<'a>(&'a Log);

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // The subscriber writes whole lines, so no runner command is split over two writes.
        let (text, env) = (String::from_utf8_lossy(line), &self.0.env);
        // A line feed within it comes from a value, and what follows would look like a line of our own.
        let text = format!("{}\n", text.trim_end_matches('\n').replace('\n', " "));
        tell(&match self.0.form {
            Form::Text => Printable::text(&text, env),
            Form::Coloured => Printable::coloured(&text, env),
            Form::Json => Printable::json(&text, env),
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The escape sequences for colours that this program and its log use. No other passes.
const COLOURS: [&str; 11] = [
    "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m",
    "\x1b[37m",
];

/// Text for people, with its colours.
fn coloured(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\x1b') {
        let colour = COLOURS.iter().find(|colour| rest[at..].starts_with(*colour));
        out.push_str(&words::lines(&rest[..at]));
        out.push_str(colour.unwrap_or(&" "));
        rest = &rest[at + colour.map_or(1, |colour| colour.len())..];
    }
    out.push_str(&words::lines(rest));
    out
}

/// How a pair of marks is kept apart.
#[derive(Clone, Copy)]
enum Quoting {
    /// With blanks, for people.
    Blanks,
    /// With the escapes of JSON. Outside of strings JSON has no such pair.
    Escapes,
}

/// Changes what a CI runner would take for a command: `##`, and `::` but within an ARN or an IPv6 address, which do not begin the
/// line. A runner reads `::` at the beginning of a line alone.
fn for_runner(text: String, quoting: Quoting, env: &Env) -> String {
    if !runner::is_ci(env) || !(text.contains("::") || text.contains("##")) {
        return text;
    }
    text.split_inclusive('\n').map(|line| line_for_runner(line, quoting)).collect()
}

fn line_for_runner(line: &str, quoting: Quoting) -> String {
    let (mut out, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(one) = rest.chars().next() {
        let is_mark = one == ':' || one == '#';
        let length = if is_mark { rest.len() - rest.trim_start_matches(one).len() } else { one.len_utf8() };
        let is_command = is_mark && length > 1 && (one == '#' || !belongs_there(&out, rest));
        match quoting {
            _ if !is_command => out.push_str(&rest[..length]),
            Quoting::Blanks => out.push_str(&vec![one.to_string(); length].join(" ")),
            Quoting::Escapes => {
                out.push(one);
                out.push_str(&format!("\\u{:04x}", u32::from(one)).repeat(length - 1));
            }
        }
        rest = &rest[length..];
    }
    out
}

/// Does a pair of colons belong to an ARN or an IPv6 address? `before` is the line up to it.
fn belongs_there(before: &str, rest: &str) -> bool {
    if before.trim_start().is_empty() {
        return false;
    }
    let word = before.rsplit(|one: char| one.is_whitespace() || "\"'`(".contains(one)).next().unwrap_or_default();
    if word.starts_with("arn:") {
        return true;
    }
    let is_of_address = |one: char| one.is_ascii_hexdigit() || one == ':' || one == '.';
    let head = &before[before.trim_end_matches(is_of_address).len()..];
    let tail = &rest[..rest.find(|one| !is_of_address(one)).unwrap_or(rest.len())];
    let is_word = |one: char| one.is_alphanumeric() || "-_=".contains(one);
    let stands_alone =
        !before[..before.len() - head.len()].ends_with(is_word) && !rest[tail.len()..].starts_with(is_word);
    let address = format!("{head}{tail}");
    stands_alone && address.strip_suffix([':', '.']).unwrap_or(&address).parse::<std::net::Ipv6Addr>().is_ok()
}

impl Failure {
    pub(super) fn show(&self, env: &Env) {
        if let Some(json) = &self.json {
            return tell(&Printable::json(&format!("{json}\n"), env));
        }
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        tell(&Printable::text(&if is_terminal { self.folded() } else { self.as_text() }, env));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ci() -> Env {
        Env::from_vars([("GITHUB_ACTIONS".to_owned(), "true".to_owned())])
    }

    fn text(text: &str, env: &Env) -> String {
        Printable::text(text, env).0.to_string()
    }

    #[test]
    fn commands_of_runners_are_neutralised_in_ci_alone() {
        assert_eq!(text("a ::set-env x ##vso[b] ##[c]", &ci()), "a : :set-env x # #vso[b] # #[c]");
        assert_eq!(text(":::x\n  ::y\n###[z", &ci()), ": : :x\n  : :y\n# # #[z");
        assert_eq!(text("\u{feff}::x\r::y", &ci()), " : :x : :y", "what is not seen hides no command");
        assert_eq!(text("a ::b", &Env::from_vars([])), "a ::b");
    }

    #[test]
    fn what_is_no_command_stays_as_it_is() {
        for fine in [
            "listens at [::1]:7878",
            "http://[::1]:80/ and [2001:db8::1]",
            "no route to ::1: refused",
            "arn:aws:iam::ACCOUNT:oidc-provider/x arn:aws:s3:::bucket",
            "a: b # c",
        ] {
            assert_eq!(text(fine, &ci()), fine);
        }
        for (bad, harmless) in [
            ("[::error::x]", "[: :error: :x]"),
            ("\"::x::\"", "\": :x: :\""),
            ("::1 x", ": :1 x"),
            ("name=x::y, ::add::x", "name=x: :y, : :add: :x"),
        ] {
            assert_eq!(text(bad, &ci()), harmless);
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let said = ":::x ##vso[b] ##[c] arn:aws:iam::1 \u{202e}";
        let out = Printable::json(&serde_json::json!({ "a": said }).to_string(), &ci()).0;
        assert!(!out.contains("\":::") && !out.contains("##") && out.is_ascii() && out.contains("iam::1"), "{}", *out);
        let read: serde_json::Value = serde_json::from_str(&out).expect("still JSON");
        assert_eq!(read["a"], said);
    }

    #[test]
    fn a_token_that_a_runner_would_read_is_not_printed_in_ci() {
        let printed = |token: &str, env: &Env| Printable::credential(Zeroizing::new(token.to_owned()), env).is_ok();
        for token in ["##[x].PAYLOAD.y", "::x::.PAYLOAD.y", "##vso[task.x]y", "a##teamcity[x]"] {
            assert!(!printed(token, &ci()), "{token}");
            assert!(printed(token, &Env::from_vars([])), "{token}");
        }
        assert!(printed("a.b-c_d~e+f/g==", &ci()));
        assert!(printed("{\"access_token\":\"a.b.c\",\"issuer\":\"http://[::1]:8080\"}", &ci()));
    }

    #[test]
    fn json_with_a_token_shows_nothing_unseen_of_another_party() {
        let text = serde_json::json!({ "access_token": "a.b.c", "scope": "x\u{9b}2J\u{202e}y" }).to_string();
        let Ok(out) = Printable::json_credential(&text, &Env::from_vars([])) else { panic!("it is harmless") };
        assert!(out.0.is_ascii(), "{}", *out.0);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&out.0).expect("still JSON")["scope"],
            "x\u{9b}2J\u{202e}y"
        );
    }

    #[test]
    fn our_colours_pass_and_no_other_sequence() {
        let env = Env::from_vars([]);
        let shown = |text: &str| Printable::coloured(text, &env).0.to_string();
        assert_eq!(shown("\x1b[32m✓\x1b[0m a\n"), "\x1b[32m✓\x1b[0m a\n");
        assert_eq!(shown("\x1b[8mhidden\x1b]0;title\u{9b}2J"), " [8mhidden ]0;title 2J");
        assert_eq!(Printable::text("\x1b[32mx", &env).0.as_str(), " [32mx");
    }
}
