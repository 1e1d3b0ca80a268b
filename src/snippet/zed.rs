//! Zed: the bridge. It reads headers once.

use super::{ALONE, Facts, Page, entry, table};

pub(super) fn page(facts: &Facts) -> Page {
    let env = ("env".into(), table([]));
    let server = table(facts.command_and_args().into_iter().chain([env]));
    Page::new(entry("context_servers", entry(facts.key(), server)).json(), facts.bridge_note(ALONE))
}
