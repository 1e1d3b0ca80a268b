//! The manual pages in `packaging/man` are what the command line says. `UPDATE_DOCS=1 cargo test --test all manual` writes them again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The text of each page by its file name: one for the program, one for each of its commands.
fn generated() -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clap_mangen::generate_to(safeconduct::command::command_line(), folder.path()).expect("pages of every command");
    read(folder.path())
}

fn read(folder: &Path) -> BTreeMap<String, String> {
    let page = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("our own names");
        (name, fs::read_to_string(entry.path()).expect("text"))
    };
    fs::read_dir(folder).expect("the folder exists").map(|entry| page(entry.expect("readable"))).collect()
}

#[test]
fn manual_pages_are_what_the_command_line_says() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man");
    let pages = generated();
    assert!(pages.contains_key("safeconduct.1") && pages.contains_key("safeconduct-token.1"), "{:?}", pages.keys());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let _ = fs::remove_dir_all(&committed);
        fs::create_dir_all(&committed).expect("a folder of the tree");
        for (name, text) in &pages {
            fs::write(committed.join(name), text).expect("writable");
        }
    }
    let kept = read(&committed);
    let differing: Vec<_> =
        pages.keys().chain(kept.keys()).filter(|name| pages.get(*name) != kept.get(*name)).collect();
    assert!(differing.is_empty(), "run `UPDATE_DOCS=1 cargo test --test all manual`; other text: {differing:?}");
}
