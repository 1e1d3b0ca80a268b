//! VS Code: the daemon's proxy on its Unix socket, whose permissions say who may use it. Without a daemon the bridge.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::form::word;
use super::{ALONE, Facts, Page, entry, table, text};

/// What would end the path in a URL, or change it.
const IN_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'?').add(b'<').add(b'>').add(b'\\');

pub(super) fn page(facts: &Facts) -> Page {
    let (server, note) = match facts.direct() {
        Some(daemon) => {
            let url = format!("unix://{}#{}", utf8_percent_encode(&daemon.socket, IN_PATH), facts.proxy_path());
            (
                table([("type".into(), word("http")), ("url".into(), text(&url))]),
                "VS Code dials the daemon's socket; the daemon adds the token to each request",
            )
        }
        None => {
            let kind = ("type".into(), word("stdio"));
            (table([kind].into_iter().chain(facts.command_and_args())), facts.bridge_note(ALONE))
        }
    };
    Page::new(entry("servers", entry(facts.key(), server)).json(), note)
}
