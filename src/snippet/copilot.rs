//! Copilot CLI: the bridge. It reads headers once. The coding agent takes the same entry in the repository's settings, after a
//! setup step that starts the daemon.

use super::form::word;
use super::{ALONE, Facts, Page, entry, list, table};

pub(super) fn page(facts: &Facts) -> Page {
    let kind = ("type".into(), word("local"));
    let tools = ("tools".into(), list([word("*")]));
    let server = table([kind].into_iter().chain(facts.command_and_args()).chain([tools]));
    Page::new(entry("mcpServers", entry(facts.key(), server)).json(), facts.bridge_note(ALONE))
}
