//! Checks that the library can be compiled without the daemon: what src/lib.rs compiles always uses nothing of what it compiles with the
//! feature `daemon` alone.

use std::collections::BTreeSet;
use std::fs;

use super::{root, sources, word};

const GATE: &str = "#[cfg(feature = \"daemon\")]";

/// The rooms under [`GATE`] in src/lib.rs, and the package that belongs to them.
fn gated() -> BTreeSet<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("there is one");
    let mut rooms = BTreeSet::from(["listener".to_owned()]);
    let mut is_gated = false;
    for line in lib.lines() {
        let room = line.trim_start_matches("pub ").strip_prefix("mod ").and_then(word);
        rooms.extend(room.filter(|_| is_gated));
        is_gated = line == GATE || (is_gated && line.starts_with("#["));
    }
    rooms
}

#[test]
fn no_room_that_is_always_there_uses_one_of_the_daemon() {
    let gated = gated();
    assert!(gated.contains("command") && gated.contains("mcp") && !gated.contains("broker"), "{gated:?}");
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test() && !matches!(source.room(), "lib" | "main")) {
        let (room, known) = (source.room(), source.knows());
        if !gated.contains(room) {
            wrong.extend(known.intersection(&gated).map(|below| format!("{} uses {below}", source.path)));
        }
        if source.text.contains("feature = \"") {
            wrong.push(format!("{} asks for a feature: whole rooms are gated, in src/lib.rs", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
