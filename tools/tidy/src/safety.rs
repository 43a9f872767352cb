//! Raw atomics and unsafe code stay in the files that are reviewed for them.
//!
//! No model checker has seen an atomic outside the rings, and no reviewer looks for a proof outside the few crates that
//! need unsafe code. Where unsafe code is allowed, the compiler's lint requires a comment, and this rule requires it
//! right there: a distant proof is not read when the line below it changes.

use crate::tree::lines_with;
use crate::{File, Tree};

/// Where raw atomics may be named. `buffers.rs` and the transports' `ring.rs` share words with the kernel, which no
/// model checker can play.
const ATOMICS_IN: &[&str] = &["engine/ring/", "transports/udp/src/buffers.rs", "transports/xdp/src/ring.rs"];
/// Where unsafe code may stand. `environment.rs` forbids itself system calls, as a container would; `cpg.rs` calls a
/// peer's client library.
const UNSAFE_IN: &[&str] = &[
    "engine/ring/",
    "transports/",
    "engine/node/src/placement.rs",
    "engine/node/tests/environment.rs",
    "bench/src/corosync/cpg.rs",
];
/// How many lines of code may stand between a proof and what it proves.
const PROOF_WITHIN: usize = 3;

/// Raw atomics outside the rings. Tests may use them.
pub fn atomics(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| !allowed(file, ATOMICS_IN))
        .flat_map(|file| places(file, file.shipped(), "sync::atomic"))
        .collect()
}

/// Unsafe code outside its files, tests included.
pub fn unsafe_code(tree: &Tree) -> Vec<String> {
    tree.rust().filter(|file| !allowed(file, UNSAFE_IN)).flat_map(|file| places(file, &file.code, "unsafe")).collect()
}

/// Unsafe blocks and implementations without a proof in front.
pub fn unproved(tree: &Tree) -> Vec<String> {
    tree.rust().flat_map(unproved_in).collect()
}

fn allowed(file: &File, folders: &[&str]) -> bool {
    folders.iter().any(|folder| file.path.starts_with(folder))
}

fn places(file: &File, code: &str, word: &str) -> Vec<String> {
    lines_with(code, word).map(|(line, _)| format!("{}:{line} names {word}", file.path)).collect()
}

fn unproved_in(file: &File) -> Vec<String> {
    let text: Vec<&str> = file.text.lines().collect();
    let mut violations = Vec::new();
    for (number, line) in lines_with(&file.code, "unsafe") {
        let rest = line.split("unsafe").nth(1).unwrap_or_default().trim_start();
        if rest.starts_with("fn") || rest.starts_with("extern") {
            continue; // a declaration; its caller's duties are under `# Safety`
        }
        if !has_proof(&text[..number]) {
            violations.push(format!("{}:{number} has no SAFETY comment in front of it", file.path));
        }
    }
    violations
}

/// Whether a proof ends within a few lines of code above the last of these lines, or stands in it.
fn has_proof(lines: &[&str]) -> bool {
    let mut code_lines = 0;
    for line in lines.iter().rev() {
        if line.contains("SAFETY:") {
            return true;
        }
        code_lines += usize::from(!line.trim_start().starts_with("//"));
        if code_lines > PROOF_WITHIN {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree { files: vec![File::new(path, text)], ..Tree::default() }
    }

    #[test]
    fn planted_atomics_are_found() {
        let text = "use std::sync::atomic::AtomicU64;\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(atomics(&tree("engine/node/src/agent.rs", text)).len(), 1);
        assert_eq!(atomics(&tree("engine/ring/src/sync.rs", text)).len(), 0);
        assert_eq!(atomics(&tree("engine/node/tests/agent.rs", text)).len(), 0);
        assert_eq!(atomics(&tree("transports/port/src/faults.rs", text)).len(), 1);
    }

    #[test]
    fn planted_unsafe_code_is_found() {
        let bare = "fn f() {\n    unsafe { g() }\n}\n";
        let proved =
            "fn f() {\n    // SAFETY: g asks for nothing,\n    // really.\n    let x =\n        unsafe { g() };\n}\n";
        assert_eq!(unsafe_code(&tree("engine/node/src/agent.rs", bare)).len(), 1);
        assert_eq!(unsafe_code(&tree("transports/udp/src/ring.rs", bare)).len(), 0);
        assert_eq!(unproved(&tree("transports/udp/src/ring.rs", bare)).len(), 1);
        assert_eq!(unproved(&tree("transports/udp/src/ring.rs", proved)).len(), 0);
        assert_eq!(unproved(&tree("transports/udp/src/ring.rs", "/// # Safety\nunsafe fn f() {}\n")).len(), 0);
    }
}
