//! Codex: `http_headers_helper`, which it runs again after a 401 or 403. Without a daemon the bridge. Codex clears the environment
//! of both; for the bridge alone `env_vars` can hand on variables.

use super::form::Node;
use super::{Facts, Page, entry, table, text};

pub(super) fn page(facts: &Facts) -> Page {
    // Else `codex exec` does not wait for a server that takes a second to answer.
    let required = ("required".into(), Node::Flag(true));
    let (server, note) = match facts.direct() {
        Some(daemon) => (
            table([
                ("url".into(), text(&daemon.url)),
                ("http_headers_helper".into(), text(&facts.shell("headers"))),
                required,
            ]),
            "for Codex 0.150 and later: before, and for tokens that are bound to a key, use `--bridge`; add no \
            `http_headers` beside the helper",
        ),
        None => (
            table(facts.command_and_args().into_iter().chain([required])),
            facts.bridge_note(
                "Codex clears the environment: name the variables of the job's identity in `env_vars`, or start \
                `safeconduct run` first",
            ),
        ),
    };
    Page::new(entry("mcp_servers", entry(facts.key(), server)).toml(), note)
}
