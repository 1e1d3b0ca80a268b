//! opencode: the bridge, as one list of words. It reads headers and `{file:…}` once.

use super::form::{Node, word};
use super::{ALONE, Facts, Page, entry, list, table, text};

pub(super) fn page(facts: &Facts) -> Page {
    let words = facts.words("stdio").into_iter().map(Node::Text);
    let server = table([
        ("type".into(), word("local")),
        ("command".into(), list([text(&facts.program)].into_iter().chain(words))),
        ("enabled".into(), Node::Flag(true)),
    ]);
    let document = table([
        ("$schema".into(), word("https://opencode.ai/config.json")),
        ("mcp".into(), entry(facts.key(), server)),
    ]);
    Page::new(document.json(), facts.bridge_note(ALONE))
}
