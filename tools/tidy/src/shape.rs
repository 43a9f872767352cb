//! Files that can be read in one sitting, state first what they are for, and check what they state.

use crate::{File, Tree};

/// A file longer than this has more than one purpose.
const FILE_LINES: usize = 800;
/// A longer line is cut off where two files are displayed side by side.
const LINE_CHARACTERS: usize = 120;
/// Half of all files are shorter than this.
const MEDIAN_LINES: usize = 350;
/// A function longer than this does not fit a screen.
const FUNCTION_LINES: usize = 70;
/// Where each invariant that a header states is also an assert: prose is not checked when the code changes.
const ASSERTING: &str = "engine/protocol/src/";
/// In 1,000 lines, comments included.
const ASSERTS: usize = 10;

/// Sources that do not begin with what they are for.
pub fn without_header(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("{} does not begin with //!", file.path))
        .collect()
}

/// Sources that are too long, and a median that is.
pub fn too_long(tree: &Tree) -> Vec<String> {
    let lines = |file: &File| file.text.lines().count();
    let mut violations: Vec<_> = tree
        .rust()
        .filter(|file| lines(file) > FILE_LINES)
        .map(|file| format!("{} has {} lines, more than {FILE_LINES}", file.path, lines(file)))
        .collect();
    let mut all: Vec<_> = tree.rust().map(lines).collect();
    all.sort_unstable();
    let median = all.get(all.len() / 2).copied().unwrap_or(0);
    if median >= MEDIAN_LINES {
        violations.push(format!("half of all sources have {median} lines or more; it should be under {MEDIAN_LINES}"));
    }
    violations
}

/// Lines of sources that are too long.
pub fn long_lines(tree: &Tree) -> Vec<String> {
    let mut violations = Vec::new();
    for file in tree.rust() {
        let lines = file.text.lines().enumerate().filter(|(_, line)| line.chars().count() > LINE_CHARACTERS);
        violations.extend(lines.map(|(index, _)| format!("{}:{} is too long", file.path, index + 1)));
    }
    violations
}

/// Functions that are too long.
pub fn long_functions(tree: &Tree) -> Vec<String> {
    tree.rust().flat_map(long_functions_in).collect()
}

fn long_functions_in(file: &File) -> Vec<String> {
    let mut violations = Vec::new();
    for (start, _) in file.code.match_indices("fn ") {
        let before = &file.code[..start];
        if before.chars().next_back().is_some_and(|c| !c.is_whitespace() && c != '(') {
            continue;
        }
        let rest = &file.code[start..];
        let Some(length) = body_end(rest) else { continue };
        let lines = rest[..length].lines().count();
        if lines > FUNCTION_LINES {
            let name: String = rest[3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
            violations.push(format!("{}:{line} fn {name} has {lines} lines, more than {FUNCTION_LINES}", file.path));
        }
    }
    violations
}

/// Where the body of the function in front ends; `None` for one without a body.
fn body_end(code: &str) -> Option<usize> {
    let (mut depth, mut nested) = (0, 0);
    for (index, c) in code.char_indices() {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested -= 1,
            ';' if depth == 0 && nested == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth <= 0 {
                    return (depth == 0).then_some(index + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// A protocol crate that asserts too little of what is known to be true.
pub fn too_few_asserts(tree: &Tree) -> Vec<String> {
    let files: Vec<_> = tree.rust().filter(|file| file.path.starts_with(ASSERTING)).collect();
    let lines: usize = files.iter().map(|file| file.shipped().lines().count()).sum();
    let count = |macros: &str| files.iter().map(|file| file.shipped().matches(macros).count()).sum::<usize>();
    let asserts: usize = ["assert!(", "assert_eq!(", "assert_ne!("].into_iter().map(count).sum();
    let found = format!("{ASSERTING} has {asserts} asserts in {lines} lines, less than {ASSERTS} in 1,000");
    if 1000 * asserts < ASSERTS * lines { vec![found] } else { Vec::new() }
}

/// Crates that neither inherit the workspace's lints nor repeat them all.
pub fn without_lints(tree: &Tree) -> Vec<String> {
    let Some(top) = tree.file("Cargo.toml") else { return vec!["there is no Cargo.toml at the top".to_owned()] };
    let wanted = lints(&top.text, "workspace.lints.");
    let manifests = tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    let mut violations = Vec::new();
    for manifest in manifests.filter(|file| !file.path.starts_with("engine/fuzz/")) {
        if manifest.text.contains("[lints]\nworkspace = true") {
            continue;
        }
        let own = lints(&manifest.text, "lints.");
        let missing: Vec<_> = wanted.iter().filter(|lint| !own.contains(lint)).cloned().collect();
        if !missing.is_empty() {
            violations.push(format!(
                "{} neither inherits the workspace's lints nor sets {}",
                manifest.path,
                missing.join(", ")
            ));
        }
    }
    violations
}

/// Files of tests that no program holds: where `tests/all.rs` names the files, cargo takes no other.
pub fn forgotten_tests(tree: &Tree) -> Vec<String> {
    let mut forgotten = Vec::new();
    for all in tree.files.iter().filter(|file| file.path.ends_with("/tests/all.rs")) {
        let folder = all.path.trim_end_matches("all.rs");
        let manifest = folder.trim_end_matches("tests/").to_owned() + "Cargo.toml";
        let manifest = tree.file(&manifest).map_or("", |file| &file.text);
        for file in tree.rust().filter(|file| file.path != all.path) {
            let Some(name) = file.path.strip_prefix(folder).and_then(|rest| rest.strip_suffix(".rs")) else { continue };
            let is_a_program = manifest.contains(&format!("path = \"tests/{name}.rs\""));
            if !name.contains('/') && !is_a_program && !all.text.contains(&format!("mod {name};")) {
                forgotten.push(format!("{} is in no program of tests", file.path));
            }
        }
    }
    forgotten
}

/// The names of the lints that a manifest sets in tables whose names begin with this.
fn lints(manifest: &str, prefix: &str) -> Vec<String> {
    let (mut names, mut within) = (Vec::new(), false);
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            within = table.starts_with(prefix);
        } else if within && let Some((name, _)) = line.split_once('=') {
            names.push(name.trim().to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree { files: files.iter().map(|(path, text)| File::new(path, text)).collect(), ..Tree::default() }
    }

    #[test]
    fn planted_shapes_are_found() {
        let long = format!("fn short() {{}}\npub(crate) fn long(a: [u8; 2]) {{\n{}}}\n", "    f();\n".repeat(70));
        assert_eq!(without_header(&tree(&[("a.rs", "use x;"), ("b.rs", "//! B.")])).len(), 1);
        assert_eq!(long_functions(&tree(&[("a.rs", &long)])), ["a.rs:2 fn long has 72 lines, more than 70"]);
        assert_eq!(too_long(&tree(&[("a.rs", &"\n".repeat(801)), ("b.rs", ""), ("c.rs", "")])).len(), 1);
        assert_eq!(too_long(&tree(&[("a.rs", &"\n".repeat(350))])).len(), 1);
        assert_eq!(long_lines(&tree(&[("a.rs", &format!("// {}", "x".repeat(118)))])).len(), 1);
    }

    #[test]
    fn a_crate_without_asserts_is_found() {
        let asserts = |count: usize, tests: &str| {
            let text =
                format!("{}{}{tests}", "// assert!(true)\n".repeat(200 - count), "debug_assert!(a);\n".repeat(count));
            too_few_asserts(&tree(&[("engine/protocol/src/a.rs", &text), ("b.rs", "//! B.")])).len()
        };
        assert_eq!([asserts(0, ""), asserts(1, ""), asserts(2, "")], [1, 1, 0]);
        assert_eq!(asserts(1, "#[cfg(test)]\nmod tests {\nassert_eq!(a, b);\n}"), 1, "those of tests don't count");
    }

    #[test]
    fn a_forgotten_test_is_found() {
        let manifest = ("a/Cargo.toml", "path = \"tests/alone.rs\"");
        let files = [manifest, ("a/tests/all.rs", "mod b;"), ("a/tests/b.rs", ""), ("a/tests/alone.rs", "")];
        assert_eq!(forgotten_tests(&tree(&files)), [""; 0]);
        let files = [&files[..], &[("a/tests/c.rs", ""), ("a/tests/common/mod.rs", "")]].concat();
        assert_eq!(forgotten_tests(&tree(&files)), ["a/tests/c.rs is in no program of tests"]);
    }

    #[test]
    fn lints_are_inherited_or_repeated() {
        let top = ("Cargo.toml", "[workspace.lints.rust]\nunsafe_code = \"deny\"\n");
        let found = |text: &str| without_lints(&tree(&[top, ("a/Cargo.toml", text)])).len();
        assert_eq!(found("[package]\n"), 1);
        assert_eq!(found("[lints]\nworkspace = true\n"), 0);
        assert_eq!(found("[lints.rust]\nunsafe_code = \"allow\"\n"), 0);
    }
}
