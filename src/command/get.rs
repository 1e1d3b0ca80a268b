//! `safeconduct get`: the Bazel and EngFlow credential helper protocol.
//!
//! `{"uri":…}` on stdin, `{"headers":{…},"expires":…}` on stdout. A URI of an unconfigured server gets
//! `{}`, exit 0, no network.

use std::io::Read;

use serde::Deserialize;

use super::obtain::{self, Obtained, Purpose, Question, Unconfigured, Wanted};
use super::{Context, Failure, Printable, print};
use crate::cli::Get;
use crate::oauth::ServerUrl;

/// The limit of stdin, which holds one small object.
const CAP: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Input {
    uri: String,
}

pub(super) fn run(context: &Context<'_>, verb: &Get) -> Result<(), Failure> {
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .take(CAP)
        .read_to_end(&mut text)
        .map_err(|error| Failure::asked(format!("stdin cannot be read: {error}")))?;
    let input: Input =
        serde_json::from_slice(&text).map_err(|_| Failure::asked("stdin is not {\"uri\":\"https://…\"}"))?;
    let Ok(url) = ServerUrl::parse(&input.uri) else { return print(&Printable::own("{}\n")) };
    let wanted = Wanted { name: None, url: Some(url) };
    let (wishes, purpose) = (&verb.wishes, Purpose::Headers);
    match obtain::obtain(context, Question { wanted: &wanted, wishes, purpose, unconfigured: Unconfigured::Leave })? {
        Obtained::NotServed => print(&Printable::own("{}\n")),
        Obtained::Token(handed) => {
            let mut text = handed.listed_headers();
            text.push('\n');
            print(&Printable::credential(text, context.env)?)
        }
    }
}
