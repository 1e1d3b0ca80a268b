//! Checks that no files use each other in a circle, by their `use` lines and by paths in their code.
//!
//! A room's main file and the files in its folder may use each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources};

/// Known circles, each with all its files. Do not add to this list.
const KNOWN: &[&[&str]] = &[];

type Modules = BTreeMap<String, Module>;

struct Module {
    /// Every path in the file, as written.
    named: Vec<String>,
    /// Re-exports: after `pub use a::B`, `B` means `a::B`.
    handed_on: BTreeMap<String, String>,
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let known: BTreeSet<Vec<String>> =
        KNOWN.iter().map(|circle| circle.iter().map(|&one| one.to_owned()).collect()).collect();
    assert_eq!(circles(&modules(&sources())), known, "circles in src, and those that are known");
}

#[test]
fn a_circle_through_a_re_export_is_found() {
    let file = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let all = [
        file("src/a/mod.rs", "mod b;\nmod c;\npub(crate) use b::B;\n"),
        file("src/a/b.rs", "use super::c::{self, C};\n"),
        file("src/a/c.rs", "use super::B;\n"),
        file("src/d.rs", "use crate::a::B;\n"),
    ];
    let found = circles(&modules(&all));
    assert_eq!(found, BTreeSet::from([vec!["a::b".to_owned(), "a::c".to_owned()]]));
}

/// The files by their module path, without tests.
fn modules(sources: &[Source]) -> Modules {
    let product = sources.iter().filter(|source| !source.is_test() && !matches!(source.room(), "lib" | "main"));
    product.map(|source| (module_path(&source.path), module(source))).collect()
}

fn module_path(path: &str) -> String {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
    inside.strip_suffix("::mod").map(str::to_owned).unwrap_or(inside)
}

fn module(source: &Source) -> Module {
    let text = source.product();
    let (mut named, mut handed_on) = (Vec::new(), BTreeMap::new());
    let mut rest = String::new();
    for (i, piece) in text.split("use ").enumerate() {
        // The first piece comes before any `use`; elsewhere a list ends with its semicolon.
        let (list, code) = if i == 0 { ("", piece) } else { piece.split_once(';').unwrap_or((piece, "")) };
        for path in flat("", list) {
            let short = path.trim_end_matches("::self").rsplit("::").next().unwrap_or_default().to_owned();
            handed_on.insert(short, path.clone());
            named.push(path);
        }
        rest.push_str(code);
    }
    named.extend(["crate::", "super::"].iter().flat_map(|start| inline(&rest, start)));
    Module { named, handed_on }
}

/// `a::{b, c::D}` gives `a::b` and `a::c::D`.
fn flat(before: &str, list: &str) -> Vec<String> {
    let list = list.trim();
    let Some((head, body)) = list.split_once('{') else {
        let path = list.split(" as ").next().unwrap_or_default().trim();
        return if path.is_empty() { Vec::new() } else { vec![format!("{before}{path}")] };
    };
    let body = body.rsplit_once('}').map_or(body, |(body, _)| body);
    let mut depth = 0;
    let parts = body.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.flat_map(|part| flat(&format!("{before}{}", head.trim()), part)).collect()
}

/// Paths in code, such as `crate::a::B`.
fn inline(text: &str, start: &str) -> Vec<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let after = text.split(start).skip(1);
    after.map(|rest| format!("{start}{}", rest.chars().take_while(|c| is_path(*c)).collect::<String>())).collect()
}

/// The path from the crate's root that `path` means in the module `inside`.
fn absolute(inside: &str, path: &str) -> String {
    if let Some(path) = path.strip_prefix("crate::") {
        return path.to_owned();
    }
    let (mut base, mut path) = (inside, path);
    while let Some(up) = path.strip_prefix("super::") {
        (base, path) = (base.rsplit_once("::").map_or("", |(base, _)| base), up);
    }
    if base.is_empty() { path.to_owned() } else { format!("{base}::{path}") }
}

/// The file that defines the item at a path, through re-exports.
fn file_of(modules: &Modules, path: &str, steps: u8) -> Option<String> {
    let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty() && *part != "self").collect();
    let longest = (1..=parts.len()).rev().find(|&length| modules.contains_key(&parts[..length].join("::")))?;
    let file = parts[..longest].join("::");
    let handed_on = parts.get(longest).and_then(|item| modules[&file].handed_on.get(*item));
    let further = handed_on.filter(|_| steps > 0).and_then(|path| {
        let is_ours = path.starts_with("crate::") || path.starts_with("super::");
        let child = modules.contains_key(&format!("{file}::{}", path.split("::").next().unwrap_or_default()));
        (is_ours || child).then(|| file_of(modules, &absolute(&file, path), steps - 1)).flatten()
    });
    further.or(Some(file))
}

/// Whether one contains the other.
fn are_one_room(one: &str, other: &str) -> bool {
    one.starts_with(&format!("{other}::")) || other.starts_with(&format!("{one}::"))
}

fn arrows(modules: &Modules) -> BTreeMap<&str, BTreeSet<String>> {
    let of = |(path, module): (&String, &Module)| -> BTreeSet<String> {
        let leads = module.named.iter().filter_map(|named| file_of(modules, &absolute(path, named), 6));
        leads.filter(|file| file != path && !are_one_room(file, path)).collect()
    };
    modules.iter().map(|entry| (entry.0.as_str(), of(entry))).collect()
}

/// Files that reach each other, each group in order.
fn circles(modules: &Modules) -> BTreeSet<Vec<String>> {
    let arrows = arrows(modules);
    let reached: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|from| (*from, reach(&arrows, from))).collect();
    let circle_of = |from: &&str| -> Vec<String> {
        let both = reached[from].iter().filter(|to| reached.get(**to).is_some_and(|back| back.contains(from)));
        both.map(|one| (*one).to_owned()).collect()
    };
    reached.keys().filter(|from| reached[**from].contains(**from)).map(circle_of).collect()
}

fn reach<'a>(arrows: &'a BTreeMap<&str, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut pending: Vec<&str> = arrows[from].iter().map(String::as_str).collect();
    while let Some(one) = pending.pop() {
        if found.insert(one) {
            pending.extend(arrows.get(one).into_iter().flatten().map(String::as_str));
        }
    }
    found
}
