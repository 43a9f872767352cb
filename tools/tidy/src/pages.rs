//! Pages that exist, agree with the code, and have working links.

use crate::{File, Tree};
use std::collections::BTreeSet;

/// The folder of the protocols: one protocol, one file, one page.
const PROTOCOLS: &str = "engine/protocol/src/";
/// Files beside the protocols that are not protocols: the parts they share, and the places where they are joined.
const NO_PROTOCOL: &[&str] = &[
    "bucket",
    "clients/delivered",
    "clients/fragments",
    "cursor",
    "epoch_state",
    "log",
    "loose",
    "ordering",
    "own_stream",
    "pipeline",
    "publish",
    "stream",
];
/// The page of formats.
const WIRE: &str = "docs/wire.md";
/// The list of pages.
const PAGES: &str = "docs/README.md";
/// The command that runs all tests, for people and for the gate.
const TEST_COMMAND: &str = ".ci/test";
/// Pieces of words that no text of the project has, each in two parts so that this file has none of them.
const UNWANTED: &[(&str, &str)] =
    &[("/wor", "k/"), ("/roo", "t/"), ("/hom", "e/"), ("/tmp/tar", "get"), ("TO", "DO"), ("FIX", "ME"), ("XX", "X")];

/// Protocols without a page, and pages without a protocol.
pub fn protocols(tree: &Tree) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for plane in ["data/", "control/"] {
        let files = tree.files.iter().filter_map(|file| file.path.strip_prefix(PROTOCOLS)?.strip_prefix(plane));
        names.extend(files.filter_map(|name| name.strip_suffix(".rs")).filter(|name| !NO_PROTOCOL.contains(name)));
    }
    let page = |name: &str| format!("docs/protocols/{name}.md");
    let unwritten = names.iter().filter(|name| tree.file(&page(name)).is_none());
    let mut violations: Vec<_> = unwritten.map(|name| format!("{name}.rs has no page {}", page(name))).collect();
    for file in &tree.files {
        let name = file.path.strip_prefix("docs/protocols/").and_then(|name| name.strip_suffix(".md"));
        if name.is_some_and(|name| name != "README" && !names.contains(&name)) {
            violations.push(format!("{} is the page of no protocol", file.path));
        }
    }
    violations
}

/// Frame kinds and records that the page of formats does not name.
pub fn wire(tree: &Tree) -> Vec<String> {
    let text = |path: &str| tree.file(path).map_or("", |file| file.text.as_str());
    let (frame, records, page) = (text("engine/wire/src/frame.rs"), text("engine/wire/src/records.rs"), text(WIRE));
    let kinds =
        frame.split_once("pub enum Kind {").and_then(|(_, rest)| rest.split_once('}')).map_or("", |(kinds, _)| kinds);
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in kinds.lines().filter(|line| !line.trim_start().starts_with("//")) {
        if let Some((name, number)) = line.trim().trim_end_matches(',').split_once(" = ") {
            rows.push((name.to_owned(), format!("| {number} | `{name}` |")));
        }
    }
    for line in records.lines() {
        // A record's first line: its name, and how many bytes it has.
        if let Some((name, bytes)) = line.trim().strip_suffix(" {").and_then(|line| line.split_once(", "))
            && line.starts_with("    ")
            && bytes.bytes().all(|byte| byte.is_ascii_digit())
        {
            rows.push((name.to_owned(), format!("`{name}`, {bytes} bytes")));
        }
    }
    if rows.len() < 2 {
        return vec![
            "no frame kinds were found in engine/wire/src: teach tools/tidy/src/pages.rs where they are".to_owned(),
        ];
    }
    rows.iter()
        .filter(|(_, row)| !page.contains(row))
        .map(|(name, row)| format!("{name}: {WIRE} has no \"{row}\""))
        .collect()
}

/// Pages that the list of pages does not name.
pub fn unlisted(tree: &Tree) -> Vec<String> {
    let list = tree.file(PAGES).map_or("", |file| &file.text);
    let pages =
        tree.files.iter().filter_map(|file| file.path.strip_prefix("docs/")).filter(|page| page.ends_with(".md"));
    let missing = pages.filter(|page| !PAGES.ends_with(page) && !list.contains(&format!("]({page})")));
    missing.map(|page| format!("{PAGES} has no link to {page}")).collect()
}

/// Tests, plans and bugs to plant that a page names under "Held by" and that are not there.
pub fn held_by(tree: &Tree) -> Vec<String> {
    let names: BTreeSet<&str> = tree.rust().flat_map(|file| words(&file.code)).collect();
    let mutants = tree.file("engine/protocol/src/mutant.rs").map_or("", |file| &file.text);
    let is_there = |name: &str| {
        if name.contains('/') || name.ends_with(".rs") {
            tree.has(name) || tree.rust().any(|file| file.path.ends_with(&format!("/{name}")))
        } else if name.contains('_') {
            names.contains(name)
        } else {
            !name.contains('-') || mutants.contains(&format!("\"{name}\""))
        }
    };
    let mut missing = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for rest in file.text.split("**Held by**").skip(1) {
            let paragraph = rest.split("\n\n").next().unwrap_or_default();
            let quoted = paragraph.split('`').skip(1).step_by(2).filter(|name| !name.contains(' '));
            missing.extend(quoted.filter(|name| !is_there(name)).map(|name| {
                format!("{} names `{name}` under \"Held by\", and there is no such test, file or bug", file.path)
            }));
        }
    }
    missing
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| word.contains('_'))
}

/// Links that lead to no file, in pages and in comments. A page among sources is part of rustdoc, which checks its
/// links to items.
pub fn links(tree: &Tree) -> Vec<String> {
    tree.files.iter().flat_map(|file| links_in(tree, file)).collect()
}

fn links_in(tree: &Tree, file: &File) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut dead = Vec::new();
    let mut check = |target: &str, path: String| {
        if !tree.has(&path) {
            dead.push(format!("{} leads to {target}, which is not there", file.path));
        }
    };
    if file.path.ends_with(".md") && !file.path.contains("/src/") {
        for rest in file.text.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                check(target, format!("{folder}/{target}").trim_start_matches('/').to_owned());
            }
        }
    }
    if file.is_rust() && !file.path.starts_with("tools/tidy/") {
        for (start, _) in file.text.match_indices("docs/") {
            let rest = &file.text[start..];
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"/-_.".contains(c)).unwrap_or(rest.len());
            let target = rest[..length].trim_end_matches('.');
            let begins = !file.text[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || "./-".contains(c));
            if begins && target.ends_with(".md") {
                check(target, target.to_owned());
            }
        }
    }
    dead
}

/// Paths of a particular machine, and notes that work was left undone.
pub fn unwanted(tree: &Tree) -> Vec<String> {
    tree.files.iter().flat_map(unwanted_in).collect()
}

fn unwanted_in(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for word in UNWANTED.iter().map(|(head, tail)| format!("{head}{tail}")) {
            // Inside a longer path or word it is something else.
            let alone = line.match_indices(&word).any(|(start, _)| {
                let before = line[..start].chars().next_back();
                let after = line[start + word.len()..].chars().next();
                let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !part(before) && (word.starts_with('/') || !part(after))
            });
            if alone {
                found.push(format!("{}:{} has {word}", file.path, number + 1));
            }
        }
    }
    found
}

/// Whether people and the gate run the same tests.
pub fn test_command(tree: &Tree) -> Vec<String> {
    let lacks_it = |path: &str| {
        let file = tree.file(path);
        let found =
            file.is_some_and(|file| file.text.lines().any(|line| line.trim().trim_matches('`') == TEST_COMMAND));
        (!found).then(|| format!("{path} has no line that is `{TEST_COMMAND}` and nothing else"))
    };
    ["README.md", ".ci/run"].into_iter().filter_map(lacks_it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree { files: files.iter().map(|(path, text)| File::new(path, text)).collect(), ..Tree::read() }
    }

    #[test]
    fn planted_gaps_between_pages_and_code_are_found() {
        let code = ("engine/protocol/src/data/fifo.rs", "");
        assert_eq!(protocols(&tree(&[code])).len(), 1);
        assert_eq!(protocols(&tree(&[code, ("docs/protocols/fifo.md", "")])).len(), 0);
        assert_eq!(protocols(&tree(&[("docs/protocols/lifo.md", "")])).len(), 1);
    }

    #[test]
    fn planted_frames_without_a_row_are_found() {
        let frame = ("engine/wire/src/frame.rs", "pub enum Kind {\n    /// A.\n    Data = 0,\n    Nak = 4,\n}\n");
        let records = ("engine/wire/src/records.rs", "record!(\n    /// Asks.\n    Nak, 24 {\n");
        let page = "| 0 | `Data` | x |\n| 4 | `Nak` | x |\n## `Nak`, 24 bytes\n";
        assert_eq!(wire(&tree(&[frame, records, (WIRE, page)])), [""; 0]);
        assert_eq!(wire(&tree(&[frame, records, (WIRE, "| 0 | `Data` |")])).len(), 2);
        assert_eq!(wire(&Tree::default()).len(), 1);
    }

    #[test]
    fn planted_links_to_nowhere_are_found() {
        let page = "[a](architecture.md) [b](https://example.org/x) [c](nowhere.md#there)";
        assert_eq!(links(&tree(&[("docs/page.md", page)])).len(), 1);
        assert_eq!(links(&tree(&[("a/src/page.md", "[`b`](b::C)")])).len(), 0, "rustdoc looks for it");
        assert_eq!(links(&tree(&[("a/src/b.rs", "//! See docs/architecture.md and `docs/nowhere.md`.")])).len(), 1);
    }

    #[test]
    fn planted_machine_paths_are_found() {
        let path = format!("cd {}x", UNWANTED[0].0.to_owned() + UNWANTED[0].1);
        assert_eq!(unwanted(&tree(&[("a.sh", &path), ("b.rs", "// a fair network/ and work/ and XXXL")])).len(), 1);
    }

    #[test]
    fn a_test_command_that_differs_is_found() {
        let good = "# x\n\n    .ci/test\n";
        assert_eq!(test_command(&tree(&[("README.md", good), (".ci/run", good)])), [""; 0]);
        assert_eq!(test_command(&tree(&[("README.md", good), (".ci/run", ".ci/test --release")])).len(), 1);
    }

    #[test]
    fn a_page_that_is_not_listed_is_found() {
        let files = [("docs/README.md", "[a](a.md)"), ("docs/a.md", ""), ("docs/b/c.md", "")];
        let files = files.iter().map(|(path, text)| File::new(path, text)).collect();
        assert_eq!(unlisted(&Tree { files, ..Tree::default() }), ["docs/README.md has no link to b/c.md"]);
    }

    #[test]
    fn a_test_that_is_gone_is_missed() {
        let page = "**Held by** `a_b` and\n`c_d`, `engine/x.rs`; the bug `e-f`.\n\n`g_h` is no test.";
        let files =
            [("docs/a.md", page), ("a/tests/b.rs", "fn a_b() {}"), ("engine/protocol/src/mutant.rs", "\"x-y\"")];
        let files = files.iter().map(|(path, text)| File::new(path, text)).collect();
        assert_eq!(held_by(&Tree { files, ..Tree::default() }).len(), 3);
    }
}
