//! Goose: the daemon's proxy on its Unix socket (`socket`; `uri` gives host and path). Without a daemon the bridge.

use super::form::{Key, Node, word};
use super::{ALONE, Facts, Page, entry, table, text};

/// Goose gives up a call after so many seconds.
const TIMEOUT: u16 = 300;

pub(super) fn page(facts: &Facts) -> Page {
    let (way, note): ([(Key, Node); 3], _) = match facts.direct() {
        Some(daemon) => (
            [
                ("type".into(), word("streamable_http")),
                ("uri".into(), text(&format!("http://localhost{}", facts.proxy_path()))),
                ("socket".into(), text(&daemon.socket)),
            ],
            "Goose dials the daemon's socket; the daemon adds the token to each request",
        ),
        None => {
            let [(_, program), (_, words)] = facts.command_and_args();
            let kind = ("type".into(), word("stdio"));
            ([kind, ("cmd".into(), program), ("args".into(), words)], facts.bridge_note(ALONE))
        }
    };
    let usual = [
        ("name".into(), text(&facts.key())),
        ("description".into(), word("an MCP server, by safeconduct")),
        ("enabled".into(), Node::Flag(true)),
        ("timeout".into(), Node::Number(TIMEOUT)),
    ];
    Page::new(entry("extensions", entry(facts.key(), table(way.into_iter().chain(usual)))).yaml(), note)
}
