//! Claude Code: `headersHelper`, which it runs again after a 401 or 403 and then replays the call. Without a daemon the bridge:
//! the helper of a project gets no variable that looks like a credential, and a failure of it is silent.

use super::form::word;
use super::{Facts, Page, entry, table, text, usual};

pub(super) fn page(facts: &Facts) -> Page {
    let Some(daemon) = facts.direct() else { return usual::page(facts) };
    let server = table([
        ("type".into(), word("http")),
        ("url".into(), text(&daemon.url)),
        ("headersHelper".into(), text(&facts.shell("headers"))),
    ]);
    Page::new(
        entry("mcpServers", entry(facts.key(), server)).json(),
        "for Claude Code 2.1.250 and later: before, and for tokens that are bound to a key, use `--bridge`; add no `headers` \
        beside the helper",
    )
}
