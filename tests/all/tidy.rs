//! Checks of the source tree: which room may use which, that every file has a module doc, that docs/exchanges.md lists every
//! exchange and every client proof, that every source has its cases and every exchange its example.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

mod circles;
mod gated;
mod pages;

/// Which other rooms a room may use. A room never uses one that comes before it in this table.
const MAY_KNOW: &[(&str, &str)] = &[
    ("main", "command"),
    (
        "command",
        "app assembly audit blocking bridge broker caller cli clock config descriptors door env frontend identity log oauth outbound platform process runner snippet sockets supervisor token trust",
    ),
    ("embed", "assembly broker caller clock config env oauth"),
    ("app", "assembly audit blocking broker clock config descriptors env frontend identity outbound relay sockets"),
    ("cli", "bridge clock snippet trust"),
    ("snippet", ""),
    ("supervisor", "child env"),
    // What is written for a runner; the caller writes it.
    ("runner", "env"),
    // It has no secret and makes no credential.
    ("bridge", "door jitter mcp"),
    // The broker with what it stands on.
    ("assembly", "audit broker clock config env identity metrics outbound store"),
    // `config` makes the `Config` structs of these rooms and checks names against their tables.
    ("config", "audit broker clock digest env exchange identity oauth outbound policy setting"),
    ("frontend", "blocking broker caller clock env listener metrics oauth process relay token"),
    ("relay", "broker caller clock jitter mcp metrics oauth outbound token"),
    (
        "broker",
        "audit aws bucket cache caller clock digest discovery dpop env exchange identity jitter metrics oauth outbound platform policy sigv4 store token urgency",
    ),
    // A package of its own.
    ("listener", ""),
    ("log", "metrics"),
    ("metrics", "cache"),
    ("audit", "caller clock env oauth token"),
    ("cache", "bucket clock jitter token urgency"),
    ("discovery", "clock oauth outbound"),
    ("exchange", "aws bucket clock digest dpop env google oauth outbound setting sigv4 store token urgency"),
    ("identity", "aws child clock env google oauth outbound platform setting token"),
    ("aws", "clock oauth outbound sigv4 token"),
    ("google", "clock oauth outbound token"),
    ("policy", "caller digest oauth"),
    ("outbound", "address blocking clock env jitter oauth token"),
    ("store", "blocking token"),
    ("token", "clock digest dpop oauth sigv4"),
    ("trust", "address platform"),
    ("address", ""),
    ("platform", ""),
    ("setting", ""),
    ("dpop", ""),
    ("sigv4", ""),
    ("bucket", "clock"),
    ("oauth", ""),
    ("mcp", ""),
    ("process", "blocking caller digest env"),
    ("caller", "digest"),
    ("jitter", ""),
    ("urgency", ""),
    ("door", "clock env sockets"),
    ("sockets", "env"),
    ("child", ""),
    ("env", "blocking"),
    ("clock", ""),
    ("blocking", ""),
    ("digest", ""),
    ("descriptors", ""),
    ("debug", ""),
];

/// The commands that may know `identity`: `whoami` describes identities.
const SEE_IDENTITY: [&str; 2] = ["src/command/whoami.rs", "src/command/whoami/report.rs"];

struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src`, in order of its path.
fn sources() -> Vec<Source> {
    let mut found = rust_files("src");
    assert!(found.len() > 40, "the sources are not where they were");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file below a folder of the tree.
fn rust_files(folder: &str) -> Vec<Source> {
    let mut pending = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("readable").map(|entry| entry.expect("readable").path());
            pending.extend(entries.filter(|path| !path.ends_with("node_modules")));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source { text: fs::read_to_string(&path).expect("UTF-8"), path: relative(&path) });
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").display().to_string()
}

impl Source {
    /// `src/identity/file.rs` and `src/identity.rs` are both of the room `identity`.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").expect("it is in src");
        inside.split(['/', '.']).next().expect("a first part")
    }

    /// The product code: without the tests at the end, and without comments.
    fn product(&self) -> String {
        let text = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The rooms that the file names: after `crate::`, and in `use crate::{a, b::c}`.
    fn knows(&self) -> BTreeSet<String> {
        let mut rooms = BTreeSet::new();
        for rest in self.product().split("crate::").skip(1) {
            match rest.strip_prefix('{') {
                Some(list) => rooms.extend(first_names(list)),
                None => rooms.extend(word(rest)),
            }
        }
        if self.text.contains("safeconduct_listener") {
            rooms.insert("listener".to_owned());
        }
        rooms.remove(self.room());
        rooms
    }
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// `a, b::{c, d}}` gives a and b.
fn first_names(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => names.last_mut().expect("never empty").push(c),
            _ => {}
        }
    }
    names.iter().filter_map(|name| word(name.trim())).collect()
}

#[test]
fn the_table_itself_points_down_only() {
    let order: Vec<&str> = MAY_KNOW.iter().map(|(room, _)| *room).collect();
    for (at, (room, known)) in MAY_KNOW.iter().enumerate() {
        for below in known.split_whitespace() {
            let place = order.iter().position(|other| *other == below);
            assert!(place.is_some_and(|place| place > at), "{room} -> {below}");
        }
    }
}

#[test]
fn rooms_know_only_what_lies_below_them() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_KNOW.iter().map(|(room, known)| (*room, known.split_whitespace().collect())).collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test() && source.room() != "lib") {
        let room = source.room();
        let Some(allowed) = allowed.get(room) else {
            wrong.push(format!("{}: the room {room} is not in the table", source.path));
            continue;
        };
        let foreign = source.knows().into_iter().filter(|known| !allowed.contains(known.as_str()));
        wrong.extend(foreign.map(|known| format!("{} knows {known}", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every entry of the table is used.
#[test]
fn the_table_has_no_arrow_too_many() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        used.entry(source.room().to_owned()).or_default().extend(source.knows());
    }
    for (room, known) in MAY_KNOW.iter().filter(|(room, _)| *room != "main") {
        for below in known.split_whitespace() {
            assert!(used.get(*room).is_some_and(|used| used.contains(below)), "{room} -> {below} is used nowhere");
        }
    }
}

#[test]
fn front_ends_and_commands_do_not_use_the_rooms_behind_the_broker() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        let known = source.knows();
        let has = |room: &str| known.contains(room);
        let path = source.path.as_str();
        match source.room() {
            "frontend" => {
                for room in ["identity", "exchange", "cache", "discovery", "config", "command", "app"] {
                    assert!(!has(room), "{path} sees {room}");
                }
            }
            "command" => {
                assert!(
                    !has("exchange") && !has("discovery") && !has("cache"),
                    "{path} sees what is behind the broker"
                );
                assert!(!has("identity") || SEE_IDENTITY.contains(&path), "{path} sees identity");
            }
            "identity" => assert!(!has("exchange"), "{path}: a source never sees an exchange"),
            "exchange" => assert!(!has("identity"), "{path}: an exchange never sees a source"),
            "policy" => assert!(!has("env") && !has("outbound"), "{path}: policy is pure"),
            _ => {}
        }
        let reads_config = ["main", "command", "embed", "app", "assembly", "config", "lib"].contains(&source.room());
        assert!(!has("config") || reads_config, "{path}: rooms get their own small Config");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 20, "{} does not begin with its module doc", source.path);
    }
}

#[test]
fn no_test_is_left_out() {
    let mark = concat!("#[", "ignore");
    for file in ["src", "tests", "examples", "benches"].iter().flat_map(|folder| rust_files(folder)) {
        assert!(!file.text.contains(mark), "{} leaves a test out", file.path);
    }
}

/// `cargo install`, a distribution and the release script build the same program.
#[test]
fn nothing_but_the_manifest_decides_how_it_is_built() {
    for file in [".cargo", "build.rs", "packaging/glibc/.cargo", "packaging/glibc/build.rs", "src/listener/build.rs"] {
        assert!(!root().join(file).exists(), "{file} changes the build for those who build in this directory");
    }
    for manifest in ["Cargo.toml", "packaging/glibc/Cargo.toml", "src/listener/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).expect("there is one");
        let keys = text.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key.trim());
        let unusual: Vec<&str> =
            keys.filter(|key| ["build", "links", "rustflags", "cargo-features"].contains(key)).collect();
        assert!(unusual.is_empty(), "{manifest} has {unusual:?}");
    }
}

/// `name: "…"` of every row of a table in a folder of `src`.
fn built(folder: &str) -> BTreeSet<String> {
    let prefix = format!("src/{folder}/");
    let mut names = BTreeSet::new();
    for source in sources().iter().filter(|source| source.path.starts_with(&prefix)) {
        for rest in source.product().split(": Descriptor =").skip(1) {
            let name = rest.split("name: \"").nth(1).and_then(|rest| rest.split('"').next());
            names.insert(name.unwrap_or_else(|| panic!("{}: no name", source.path)).to_owned());
        }
    }
    assert!(!names.is_empty(), "no row in {prefix}");
    names
}

/// The first column, in backticks, of the table under this heading.
fn rows(readme: &str, heading: &str) -> BTreeSet<String> {
    let is_heading = |line: &&str| line.trim_start_matches('#').trim().eq_ignore_ascii_case(heading);
    let after = readme.lines().skip_while(|line| !(line.starts_with('#') && is_heading(line))).skip(1);
    let section = after.take_while(|line| !line.starts_with('#'));
    // The head of the table ends with its dashes.
    section
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .filter_map(|line| line.trim().strip_prefix('|'))
        .filter_map(|row| row.split('|').next()?.trim().strip_prefix('`')?.split('`').next().map(str::to_owned))
        .collect()
}

#[test]
fn the_page_about_exchanges_names_what_is_built_and_nothing_else() {
    let page = fs::read_to_string(root().join("docs/exchanges.md")).expect("there is one");
    assert_eq!(rows(&page, "Exchanges"), built("exchange"), "rows and what src/exchange has");
    assert_eq!(rows(&page, "Client proofs"), client_proofs(), "rows and what src/exchange/client_auth.rs has");
}

/// `src/identity/tests/table.rs` compares the content of the rows. This test checks that docs/sources.md has every source.
#[test]
fn every_source_is_in_the_table_that_the_documentation_is_written_from() {
    let docs = fs::read_to_string(root().join("docs/sources.md")).expect("there is one");
    assert_eq!(rows(&docs, "Identity sources"), built("identity"), "rows and what src/identity has");
}

/// The names in the table of `ClientAuth`.
fn client_proofs() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("src/exchange/client_auth.rs")).expect("there is one");
    let table = text.split("pub const ALL").nth(1).and_then(|rest| rest.split("];").next()).expect("the table");
    let names: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next().map(str::to_owned))
        .collect();
    assert!(names.len() > 3, "the table is not where it was");
    names
}

/// Every source has at least the case `tests/sources/SOURCE/ok/`, and no folder is left of a removed source.
#[test]
fn every_source_has_its_cases() {
    let folder = root().join("tests/sources");
    let entries = fs::read_dir(&folder).expect("it is there").map(|entry| entry.expect("readable").file_name());
    let found: BTreeSet<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(found, built("identity"), "the folders of tests/sources and what src/identity has");
    for source in found {
        assert!(folder.join(&source).join("ok/expect.toml").is_file(), "{source} has no case `ok`");
    }
}

/// The texts of `examples/config/`, by name.
fn examples() -> BTreeMap<String, String> {
    let entries = fs::read_dir(root().join("examples/config")).expect("it is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let named = |path: std::path::PathBuf| {
        assert!(path.extension().is_some_and(|extension| extension == "toml"), "{} is no example", relative(&path));
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("UTF-8"))
    };
    paths.map(named).collect()
}

#[test]
fn every_exchange_and_every_client_proof_has_an_example() {
    let all: Vec<String> = examples().into_values().collect();
    let shown = |key: &str, name: &String| {
        let line = format!("{key} = \"{name}\"");
        all.iter().any(|text| text.lines().any(|shown| shown.trim_start().starts_with(&line)))
    };
    for exchange in built("exchange") {
        assert!(shown("exchange", &exchange), "no example in examples/config has the exchange {exchange}");
    }
    for proof in client_proofs() {
        assert!(shown("client_auth", &proof), "no example in examples/config has the client_auth {proof}");
    }
}

#[test]
fn every_example_is_tried() {
    let tests = rust_files("tests/all");
    for name in examples().into_keys() {
        let used = tests.iter().any(|file| file.text.contains(&format!("\"{name}\"")));
        assert!(used, "no file of tests/ uses {name}.toml");
    }
}
