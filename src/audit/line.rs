//! Writes a decision as a line. Lines are pure ASCII: text of other parties is escaped, so that no reader, terminal or CI
//! runner interprets it. Every text has a limit, so every line has one.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::chain::{Head, Torn, push_hex, seal};
use crate::caller::Caller;
use crate::clock::rfc3339_millis;
use crate::oauth::Scopes;
use crate::token::{Digest, Hop, Token};

/// The limit of names and codes. A caller's text is already cut at 200 characters.
const SHORT: usize = 1_024;
/// The limit of the names of tools.
const TOOL: usize = 128;
/// The limit of URLs and claims.
const LONG: usize = 2_048;
/// The limit of lists of scopes.
const LIST: usize = 8_192;
/// The limit of identities. No chain has more links.
const HOPS: usize = 8;

/// The requested action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Get the bare token.
    Token,
    /// Get headers with a token.
    Headers,
    /// Relay a request to the server, with headers that the caller does not see.
    Call,
    /// Report a token that a server refused.
    Reject,
    /// Revoke the tokens for a server.
    Revoke,
    /// Fetch a token in advance and wait for readiness.
    Ready,
    /// Show the daemon's status.
    Status,
    /// End the daemon.
    Stop,
    /// Read the configuration again.
    Reload,
    /// Connect. The request was refused before its route was known.
    Gate,
    /// A call has ended. It is no decision, but the second line about one.
    Done,
}

impl Action {
    /// Is the answer header fields, or a request that carries them?
    pub(crate) fn hands_out_fields(self) -> bool {
        matches!(self, Self::Headers | Self::Call)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Headers => "headers",
            Self::Call => "call",
            Self::Reject => "reject",
            Self::Revoke => "revoke",
            Self::Ready => "ready",
            Self::Status => "status",
            Self::Stop => "stop",
            Self::Reload => "reload",
            Self::Gate => "gate",
            Self::Done => "done",
        }
    }
}

/// The outcome of a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    Served,
    /// At the end of a call: the answer passed to its end.
    Passed,
    /// At the end of a call: the answer broke off, or its client left.
    Cut,
    Refused {
        class: &'static str,
        error: &'a str,
    },
    /// So many further refusals of a user within a second.
    RefusedOften {
        more: u64,
    },
}

/// One decision.
#[derive(Clone, Debug)]
pub(crate) struct Decision<'a> {
    pub time: SystemTime,
    pub action: Action,
    pub outcome: Outcome<'a>,
    pub caller: &'a Caller,
    /// A helper asked, not the client itself.
    pub helper: bool,
    /// The server's configured name. For an unknown server, the cleaned text of the request.
    pub server: Option<&'a str>,
    pub asked: Option<&'a Scopes>,
    pub token: Option<&'a Token>,
    /// The token for the front door before the server.
    pub outer: Option<&'a Token>,
    /// The rejected token, by the digest that its caller gave.
    pub rejected: Option<&'a Digest>,
    /// The call on the data path.
    pub call: Option<CallSubject<'a>>,
    /// What there is to say at its end.
    pub done: Option<Done<'a>>,
}

/// A call on the data path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallSubject<'a> {
    /// What its lines have in common.
    pub id: &'a str,
    /// The tool to call.
    pub tool: Option<&'a str>,
}

/// The end of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done<'a> {
    pub lasted: Duration,
    /// How many bytes of the answer's body passed.
    pub bytes: u64,
    /// The token that it had at last.
    pub token: &'a Digest,
    /// The token's own name for itself.
    pub jti: Option<&'a str>,
}

/// Adds the text of a line, which is what stands in it between its place in the chain and its hash.
pub(super) fn text(texts: &mut Vec<u8>, decision: &Decision<'_>) {
    let mut json = begin(texts, decision.time, decision.action.as_str());
    match decision.outcome {
        Outcome::Served => json.text("outcome", "served", SHORT),
        Outcome::Passed => json.text("outcome", "passed", SHORT),
        Outcome::Cut => json.text("outcome", "cut", SHORT),
        Outcome::Refused { class, error } => {
            json.text("outcome", "refused", SHORT);
            json.text("class", class, SHORT);
            json.text("error", error, SHORT);
        }
        Outcome::RefusedOften { more } => {
            json.text("outcome", "refused", SHORT);
            json.text("class", "denied", SHORT);
            json.text("error", "repeated", SHORT);
            json.number("more", more);
        }
    }
    json.caller(decision.caller);
    if decision.helper {
        json.key("helper");
        json.0.extend_from_slice(b"true");
    }
    json.text_maybe("server", decision.server, SHORT);
    if let Some(call) = decision.call {
        json.text("request_id", call.id, SHORT);
        json.text_maybe("tool", call.tool, TOOL);
    }
    json.scopes("asked", decision.asked);
    if let Some(digest) = decision.rejected {
        json.digest("sha256", digest);
    }
    if let Some(token) = decision.token {
        json.token(token);
    }
    if let Some(done) = decision.done {
        json.number("milliseconds", u64::try_from(done.lasted.as_millis()).unwrap_or(u64::MAX));
        json.number("bytes", done.bytes);
        json.digest("sha256", done.token);
        json.text_maybe("jti", done.jti, SHORT);
    }
    if let Some(token) = decision.outer {
        json.open("outer", b'{');
        json.token(token);
        json.0.push(b'}');
    }
}

/// Adds the line with this text that comes after `head`, and returns the new head.
pub(super) fn chained(lines: &mut Vec<u8>, head: &Head, text: &[u8]) -> Head {
    let from = lines.len();
    lines.push(b'{');
    let mut json = Json(lines);
    json.digest("prev", &head.hash);
    json.number("seq", head.seq + 1);
    lines.extend_from_slice(text);
    lines.push(b'}');
    Head { seq: head.seq + 1, hash: seal(lines, from) }
}

/// Adds the first line of a new file, which continues the chain of the last one.
pub(super) fn carried_on(lines: &mut Vec<u8>, head: &Head, time: SystemTime) -> Head {
    let mut text = Vec::new();
    begin(&mut text, time, "continue");
    chained(lines, head, &text)
}

/// Adds the line after bytes that are no whole line.
pub(super) fn repair(lines: &mut Vec<u8>, head: &Head, time: SystemTime, torn: &Torn) -> Head {
    let mut text = Vec::new();
    let mut json = begin(&mut text, time, "repair");
    json.open("torn", b'{');
    json.number("bytes", torn.bytes);
    json.digest("sha256", &torn.sha256);
    json.0.push(b'}');
    chained(lines, head, &text)
}

fn begin<'a>(texts: &'a mut Vec<u8>, time: SystemTime, action: &str) -> Json<'a> {
    // Each text begins with a comma: it follows its place in the chain.
    let mut json = Json(texts);
    json.text("time", &rfc3339_millis(time), SHORT);
    json.text("action", action, SHORT);
    json
}

/// A JSON writer. serde_json would build a value for each line, and does not escape non-ASCII characters.
struct Json<'a>(&'a mut Vec<u8>);

impl Json<'_> {
    fn caller(&mut self, caller: &Caller) {
        self.open("caller", b'{');
        if caller.is_known() {
            self.number("uid", caller.uid.into());
        }
        if let Some(gid) = caller.gid {
            self.number("gid", gid.into());
        }
        if let Some(pid) = caller.pid.and_then(|pid| u64::try_from(pid).ok()) {
            self.number("pid", pid);
        }
        let (exe, unit) = caller.hints();
        self.text_maybe("exe", exe, SHORT);
        self.text_maybe("unit", unit, SHORT);
        self.0.push(b'}');
    }

    /// Every call has lines about the same few tokens.
    fn token(&mut self, token: &Token) {
        self.comma();
        let text = token.in_audit.get_or_init(|| {
            let mut text = vec![b'{'];
            Json(&mut text).token_anew(token);
            text.split_off(1).into()
        });
        self.0.extend_from_slice(text);
    }

    fn token_anew(&mut self, token: &Token) {
        self.scopes("scopes", Some(&token.scopes));
        self.open("identity", b'[');
        for hop in token.hops.iter().take(HOPS) {
            self.hop(hop);
        }
        self.0.push(b']');
        self.digest("sha256", &token.digest);
        self.text_maybe("jti", token.jti.as_deref(), SHORT);
        self.text("issuer", token.issuer.as_str(), LONG);
        self.text("resource", token.resource.as_str(), LONG);
        self.text("expires_at", &token.expires_at, SHORT);
    }

    fn hop(&mut self, hop: &Hop) {
        self.comma();
        self.0.push(b'{');
        self.text("source", hop.source, SHORT);
        self.text_maybe("iss", hop.iss.as_deref(), LONG);
        self.text_maybe("sub", hop.sub.as_deref(), LONG);
        self.0.push(b'}');
    }

    /// As OAuth writes scopes: one text, separated by blanks.
    fn scopes(&mut self, key: &str, scopes: Option<&Scopes>) {
        let Some(scopes) = scopes else { return };
        self.key(key);
        self.0.push(b'"');
        let from = self.0.len();
        for (i, scope) in scopes.iter().enumerate() {
            if i > 0 {
                self.0.push(b' ');
            }
            if !self.escaped(scope, from, LIST) {
                break;
            }
        }
        self.0.push(b'"');
    }

    fn text_maybe(&mut self, key: &str, text: Option<&str>, cap: usize) {
        if let Some(text) = text {
            self.text(key, text, cap);
        }
    }

    fn text(&mut self, key: &str, text: &str, cap: usize) {
        self.key(key);
        self.0.push(b'"');
        let from = self.0.len();
        self.escaped(text, from, cap);
        self.0.push(b'"');
    }

    /// Writes a text until `cap` bytes were written since `from`, then an ellipsis. True if the whole text fits.
    fn escaped(&mut self, text: &str, from: usize, cap: usize) -> bool {
        // Nearly every text needs no escape at all.
        if text.len() <= cap.saturating_sub(self.0.len() - from) && are_plain(text.as_bytes()) {
            self.0.extend_from_slice(text.as_bytes());
            return true;
        }
        let mut rest = text;
        loop {
            let room = cap.saturating_sub(self.0.len() - from);
            let plain =
                rest.bytes().take(room).position(|byte| !is_plain(byte)).unwrap_or_else(|| room.min(rest.len()));
            let (as_it_is, special) = rest.split_at(plain);
            self.0.extend_from_slice(as_it_is.as_bytes());
            let mut chars = special.chars();
            let Some(c) = chars.next() else { return true };
            if plain == room {
                self.0.extend_from_slice(b"\\u2026");
                return false;
            }
            match c {
                '"' | '\\' => self.0.extend_from_slice(&[b'\\', c as u8]),
                _ => self.unicode(c),
            }
            rest = chars.as_str();
        }
    }

    fn unicode(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a vector cannot fail.
            drop(write!(self.0, "\\u{unit:04x}"));
        }
    }

    fn digest(&mut self, key: &str, digest: &Digest) {
        self.key(key);
        self.0.push(b'"');
        push_hex(self.0, digest);
        self.0.push(b'"');
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        drop(write!(self.0, "{number}"));
    }

    fn open(&mut self, key: &str, bracket: u8) {
        self.key(key);
        self.0.push(bracket);
    }

    fn key(&mut self, key: &str) {
        self.comma();
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn comma(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }
}

/// Eight bytes at a time.
fn are_plain(text: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // Is there a byte below this one? Said only of bytes that are ASCII.
    let below = |word: u64, byte: u64| word.wrapping_sub(ONES * byte) & !word & HIGH;
    let has = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = text.as_chunks::<8>();
    let is_word_plain = |bytes: &[u8; 8]| {
        let word = u64::from_ne_bytes(*bytes);
        (word & HIGH) | below(word, 0x20) | has(word, 0x7f) | has(word, b'"') | has(word, b'\\') == 0
    };
    words.iter().all(is_word_plain) && rest.iter().copied().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_are_plain_if_each_of_them_is() {
        for byte in 0..=255 {
            for at in 0..11 {
                let mut text = *b"plain~ text";
                text[at] = byte;
                assert_eq!(are_plain(&text), is_plain(byte), "{byte} at {at}");
            }
        }
    }
}
