//! The rooms of `src/` and the arrows between them: no two files use each other, also not by a way round, and a room uses
//! only the rooms that it may (`docs/architecture.md`).
//!
//! It reads the source: every path that begins with `crate`, `super`, `self` or a folder's own file, outside comments and
//! unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The rooms, the highest first, each with the rooms that it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("cli", &["run", "config", "app", "webhooks", "mail", "outbox", "accounts", "tokens", "keys", "audit", "base"]),
    (
        "run",
        &[
            "config",
            "api",
            "http",
            "app",
            "store",
            "webhooks",
            "mail",
            "outbox",
            "accounts",
            "tokens",
            "keys",
            "audit",
            "statistics",
            "memory",
            "base",
        ],
    ),
    (
        "config",
        &["http", "store", "webhooks", "mail", "outbox", "accounts", "tokens", "keys", "audit", "memory", "base"],
    ),
    (
        "api",
        &[
            "http",
            "guard",
            "app",
            "webhooks",
            "mail",
            "outbox",
            "accounts",
            "tokens",
            "keys",
            "audit",
            "statistics",
            "memory",
            "base",
        ],
    ),
    ("http", &["guard", "app", "accounts", "keys", "audit", "memory", "base"]),
    ("guard", &["app", "accounts", "tokens", "keys", "audit", "memory", "base"]),
    ("app", &["webhooks", "mail", "outbox", "accounts", "tokens", "keys", "audit", "statistics", "memory", "base"]),
    ("store", &["webhooks", "mail", "outbox", "accounts", "tokens", "keys", "audit", "statistics", "memory", "base"]),
    ("webhooks", &["outbox", "accounts", "keys", "audit", "memory", "base"]),
    ("mail", &["outbox", "accounts", "keys", "audit", "memory", "base"]),
    ("accounts", &["outbox", "tokens", "keys", "audit", "statistics", "memory", "base"]),
    ("outbox", &["audit", "memory", "base"]),
    ("tokens", &["keys", "memory", "base"]),
    ("statistics", &["keys", "base"]),
    ("keys", &["audit", "memory", "base"]),
    ("audit", &["memory", "base"]),
    ("memory", &["base"]),
    ("base", &[]),
];

/// A module's path below the crate: `keys::usage`.
type Module = String;

#[test]
fn no_file_uses_itself_by_a_way_round() {
    let uses = uses();
    let mut circles = Vec::new();
    for start in uses.keys() {
        if let Some(way) = way_back(&uses, start) {
            circles.push(way.join(" → "));
        }
    }
    assert_eq!(circles, [""; 0], "these files use each other");
}

#[test]
fn a_room_uses_only_what_it_may() {
    let mut forbidden = Vec::new();
    for (from, uses) in uses() {
        let room = room(&from);
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            // The crate's own files: what starts it.
            continue;
        };
        let wrong = uses.iter().filter(|to| self::room(to) != room && !allowed.contains(&self::room(to)));
        forbidden.extend(wrong.map(|to| format!("{from} uses {to}")));
    }
    assert_eq!(forbidden, [""; 0], "these arrows are not in the table of rooms");
}

#[test]
fn the_table_names_every_room_and_has_no_circle() {
    let rooms: BTreeSet<String> = sources().keys().map(|module| room(module).to_string()).collect();
    let known: BTreeSet<String> = ROOMS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(
        rooms.into_iter().filter(|room| !["lib", "main"].contains(&room.as_str())).collect::<BTreeSet<_>>(),
        known
    );
    for (index, (name, allowed)) in ROOMS.iter().enumerate() {
        let is_below = |room: &&str| ROOMS[index + 1..].iter().any(|(below, _)| below == room);
        assert!(allowed.iter().all(is_below), "{name} may use a room that is not below it");
    }
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

/// The shortest way from a module over others back to it.
fn way_back(uses: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> Option<Vec<Module>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in uses.get(way.last()?).into_iter().flatten() {
                let way: Vec<Module> = way.iter().chain([next]).cloned().collect();
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

/// Which modules each module uses.
fn uses() -> BTreeMap<Module, BTreeSet<Module>> {
    let sources = sources();
    let mut uses = BTreeMap::new();
    for (module, (text, is_folder)) in &sources {
        // Names that paths may begin with, and what they stand for.
        let mut roots = vec![("crate".to_string(), String::new()), ("self".to_string(), module.clone())];
        let mut above = module.as_str();
        for depth in 1..=module.matches("::").count() + 1 {
            above = above.rsplit_once("::").map_or("", |(parent, _)| parent);
            roots.push((vec!["super"; depth].join("::"), above.to_string()));
        }
        if *is_folder {
            let children = sources.keys().filter_map(|child| child.strip_prefix(module)?.strip_prefix("::"));
            let children = children.filter(|child| !child.contains("::"));
            roots.extend(children.map(|child| (child.to_string(), format!("{module}::{child}"))));
        }
        let mut used = BTreeSet::new();
        let imported: Vec<(String, String)> = whole_paths(text, &roots);
        // A module that is imported may be followed by a path of its own.
        let modules: Vec<(String, String)> =
            imported.iter().filter(|(_, path)| sources.contains_key(path)).cloned().collect();
        for (_, path) in imported.into_iter().chain(whole_paths(text, &modules)) {
            used.extend(defined_in(&sources, &path).filter(|to| to != module));
        }
        uses.insert(module.clone(), used);
    }
    uses
}

/// The paths in a text that begin with one of these names: the name that each has here, and the path from the crate on.
fn whole_paths(text: &str, roots: &[(String, String)]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (root, base) in roots {
        for tree in paths(text, root) {
            for (path, name) in expand(&tree) {
                let whole = [base, &path].into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>();
                found.push((name, whole.join("::")));
            }
        }
    }
    found
}

/// The longest beginning of a path that is a module.
fn defined_in(sources: &BTreeMap<Module, (String, bool)>, path: &str) -> Option<Module> {
    let segments: Vec<&str> = path.split("::").collect();
    (1..=segments.len()).rev().map(|length| segments[..length].join("::")).find(|module| sources.contains_key(module))
}

/// What follows a name and `::` in a text, braces and all.
fn paths(text: &str, root: &str) -> Vec<String> {
    let mark = format!("{root}::");
    let at = text
        .match_indices(&mark)
        .filter(|(at, _)| !text[..*at].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before)));
    at.map(|(at, _)| tree(&text[at + mark.len()..])).filter(|tree| !tree.starts_with("super::")).collect()
}

/// As much of a text as belongs to the path that it begins with: names, and at the end what stands in braces.
fn tree(text: &str) -> String {
    let (mut tree, mut depth) = (String::new(), 0);
    for character in text.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth > 0 || character.is_alphanumeric() || "_:*".contains(character) => {}
            _ => break,
        }
        if depth < 0 {
            break;
        }
        tree.push(if character.is_whitespace() { ' ' } else { character });
        if character == '}' && depth == 0 {
            break;
        }
    }
    tree
}

/// `a::{b, c::{self, D as E}}` → `a::b` named `b`, `a::c` named `c`, `a::c::D` named `E`.
fn expand(tree: &str) -> Vec<(String, String)> {
    let Some((before, rest)) = tree.split_once('{') else {
        let (path, name) = tree.trim().split_once(" as ").unwrap_or((tree.trim(), ""));
        let path = path.trim().trim_end_matches(':');
        let last = path.rsplit("::").next().unwrap_or_default();
        return vec![(path.to_string(), if name.is_empty() { last } else { name.trim() }.to_string())];
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for character in inner.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    parts.push(part);
    let before = before.trim();
    let folder = before.trim_end_matches(':');
    let own = folder.rsplit("::").next().unwrap_or_default();
    let parts = parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| expand(part));
    parts
        .map(|(path, name)| match path.as_str() {
            "self" if name == "self" => (folder.to_string(), own.to_string()),
            "self" => (folder.to_string(), name),
            _ => (format!("{before}{path}"), name),
        })
        .collect()
}

/// Each module with its code (without comments and unit tests), and whether it is a folder's `mod.rs`.
fn sources() -> BTreeMap<Module, (String, bool)> {
    let mut sources = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut sources);
    sources
}

fn read(folder: &Path, module: &str, sources: &mut BTreeMap<Module, (String, bool)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let below = if module.is_empty() { name.to_string() } else { format!("{module}::{name}") };
        if path.is_dir() {
            read(&path, &below, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_folder = name == "mod";
            let text = std::fs::read_to_string(&path).unwrap();
            sources.insert(if is_folder { module.to_string() } else { below }, (code(&text), is_folder));
        }
    }
}

fn code(text: &str) -> String {
    let (mut code, mut in_tests) = (String::new(), false);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        in_tests |= line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod "));
        if !in_tests {
            let comment = if line.trim_start().starts_with("//") { Some(0) } else { line.find(" //") };
            code.push_str(&line[..comment.unwrap_or(line.len())]);
            code.push('\n');
        }
        in_tests &= line != "}";
    }
    code
}

#[test]
fn nothing_hides_where_a_name_comes_from() {
    for (module, (text, _)) in sources() {
        let hides = ["extern crate", "macro_export", "use crate::*"].into_iter().find(|hides| text.contains(hides));
        assert_eq!(hides, None, "{module}");
        if module == "lib" {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let others: Vec<&str> = lines.filter(|line| !line.starts_with("pub mod ")).collect();
            assert_eq!(others, [""; 0], "lib.rs has nothing but the rooms");
        }
    }
}

#[test]
fn paths_are_found_and_expanded() {
    let text = "use crate::a::{b, c::{self, D as E}};\nuse super::super::e;\nlet x = crate::f::g(1); my_crate::h; }";
    let roots = [("crate", ""), ("super", "one"), ("super::super", "two")];
    let found = whole_paths(text, &roots.map(|(root, base)| (root.to_string(), base.to_string())));
    let found: Vec<String> = found.into_iter().map(|(name, path)| format!("{path} as {name}")).collect();
    assert_eq!(found, ["a::b as b", "a::c as c", "a::c::D as E", "f::g as g", "two::e as e"]);
}
