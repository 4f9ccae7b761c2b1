//! The table of requirements in `tests/README.md`: every line names tests that exist and bear its id,
//! and every id that a test bears has its line.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether this is an id such as `S-FWD-1`.
fn is_id(text: &str) -> bool {
    let mut parts = text.split('-');
    parts.next() == Some("S")
        && parts.next().is_some_and(|area| {
            !area.is_empty() && area.bytes().all(|byte| byte.is_ascii_uppercase())
        })
        && parts.next().is_some_and(|n| n.parse::<u8>().is_ok())
        && parts.next().is_none()
}

/// Each line's id, with file and name of its tests.
fn table() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let readme = fs::read_to_string(root().join("tests/README.md")).unwrap();
    let mut table = BTreeMap::new();
    for line in readme.lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, id, _, tests, modes, _] = columns[..] else {
            continue;
        };
        if !is_id(id) {
            continue;
        }
        assert!(!modes.is_empty(), "{id} says no modes");
        let tests = tests.split(", ").map(|test| {
            let mut quoted = test.split('`').skip(1).step_by(2);
            let (file, name) = (quoted.next().unwrap(), quoted.next().unwrap());
            (place(file), name.to_owned())
        });
        let first = table.insert(id.to_owned(), tests.collect());
        assert_eq!(first, None, "{id} stands twice");
    }
    table
}

/// `e2e/…` and `packets/…` are below `tests/tests`, others below a crate's `src`.
fn place(file: &str) -> PathBuf {
    let (first, rest) = file.split_once('/').unwrap();
    match first {
        "e2e" | "packets" | "lab" => root().join("tests/tests").join(file),
        _ => root().join(first).join("src").join(rest),
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_line_names_tests_that_bear_its_id() {
    let table = table();
    assert!(table.len() >= 35, "{} lines", table.len());
    for (id, tests) in &table {
        assert!(!tests.is_empty(), "{id} names no test");
        for (file, name) in tests {
            let text = fs::read_to_string(file)
                .unwrap_or_else(|error| panic!("{id}: {}: {error}", file.display()));
            let declared = format!("fn {name}(");
            assert!(
                text.contains(&declared),
                "{id}: {} has no {name}",
                file.display()
            );
            let bears = text
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .any(|word| word == id);
            assert!(bears, "{} does not name {id}", file.display());
        }
    }
}

#[test]
fn every_id_has_its_line() {
    let table = table();
    let mut files = Vec::new();
    for directory in ["lb-common", "lb-ebpf", "lb-userspace", "tests", "xtask"] {
        sources(&root().join(directory), &mut files);
    }
    let mut unknown = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let ids = words.filter(|word| is_id(word));
        unknown.extend(ids.filter(|id| !table.contains_key(*id)).map(str::to_owned));
    }
    assert_eq!(unknown, BTreeSet::new());
}
