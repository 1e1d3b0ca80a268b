//! Continue: the bridge, in a file of its own. It reads headers once.

use super::form::word;
use super::{ALONE, Facts, Page, list, table, text};

pub(super) fn page(facts: &Facts) -> Page {
    let name = ("name".into(), text(&facts.key()));
    let server = table([name].into_iter().chain(facts.command_and_args()));
    let document = table([
        ("name".into(), text(&facts.key())),
        ("version".into(), word("0.0.1")),
        ("schema".into(), word("v1")),
        ("mcpServers".into(), list([server])),
    ]);
    Page::new(document.yaml(), facts.bridge_note(ALONE))
}
