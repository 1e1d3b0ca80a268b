//! `safeconduct get`: the Bazel and EngFlow credential helper protocol.
//!
//! `{"uri":…}` on stdin, `{"headers":{…},"expires":…}` on stdout. A URI of an unconfigured server gets
//! `{}`, exit 0, no network.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;
use serde::Deserialize;

use super::obtain::{self, Obtained, Purpose, Question, Unconfigured, Wanted};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::{Get, Wishes};
use crate::oauth::ServerUrl;

/// The limit of stdin, which holds one small object.
const CAP: usize = 64 * 1024;

#[derive(Deserialize)]
struct Input {
    uri: String,
}

pub(super) fn run(context: &Context<'_>, verb: &Get) -> Result<(), Failure> {
    let clock = context.clock();
    let begun = clock.boot();
    let left = || verb.wishes.timeout.saturating_sub(clock.boot().since(begun));
    let text = request(left)?;
    let input: Input =
        serde_json::from_slice(&text).map_err(|_| Failure::asked("stdin is not {\"uri\":\"https://…\"}"))?;
    // The time limit holds for everything together.
    let wishes = &Wishes { timeout: left().max(Duration::from_millis(1)), ..verb.wishes.clone() };
    let Ok(url) = ServerUrl::parse(&input.uri) else { return print(&Printable::own("{}\n")) };
    let wanted = Wanted { name: None, url: Some(url) };
    let purpose = Purpose::Headers;
    match obtain::obtain(context, Question { wanted: &wanted, wishes, purpose, unconfigured: Unconfigured::Leave })? {
        Obtained::NotServed => print(&Printable::own("{}\n")),
        Obtained::Token(handed) => {
            let mut text = handed.listed_headers();
            text.push('\n');
            print(&Printable::json_credential(&text, context.env)?)
        }
    }
}

/// Reads stdin until it holds one whole request, or ends. Some clients leave it open.
fn request(left: impl Fn() -> Duration) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: Errno| Failure::asked(format!("stdin cannot be read: {error}"));
    let stdin = std::io::stdin();
    let mut text = Vec::new();
    let mut chunk = [0; 4 * 1024];
    while text.len() < CAP && serde_json::from_slice::<Input>(&text).is_err() {
        let limit = PollTimeout::try_from(left()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], limit) {
            Ok(0) => {
                return Err(Failure::new(Class::Temporary, "stdin holds no whole request yet, and the time is over")
                    .hint("write {\"uri\":\"https://…\"} to it; `--timeout` gives it longer"));
            }
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(unreadable(error)),
        }
        match read(&stdin, &mut chunk) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(text)
}
