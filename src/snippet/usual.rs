//! The shape that most clients share: `mcpServers` with `command` and `args`. Cursor, Windsurf and Cline read headers once, at
//! their start, so the bridge is all that renews a token for them; Gemini CLI too.

use super::{ALONE, Facts, Page, entry, table};

pub(super) fn page(facts: &Facts) -> Page {
    Page::new(servers(facts), facts.bridge_note(ALONE))
}

pub(super) fn gemini(facts: &Facts) -> Page {
    let note = facts.bridge_note(
        "Gemini CLI keeps back variables that look like a credential: name those of the job's identity in `env`, or start \
        `safeconduct run` first",
    );
    Page::new(servers(facts), note)
}

/// `mcpServers` with the bridge.
pub(super) fn servers(facts: &Facts) -> String {
    entry("mcpServers", entry(facts.key(), table(facts.command_and_args()))).json()
}
