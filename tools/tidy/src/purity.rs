//! No clock, thread, socket, file or randomness in code that takes time and bytes as input.
//!
//! One forgotten `Instant::now` in a protocol, and a simulated run can't be repeated any more. `#![no_std]` keeps the
//! standard library out of the protocols by itself, unless a file has `extern crate std`. The simulator needs the
//! standard library, and threads to run many seeds at once, but never a clock or an interface to the outside world.

use crate::tree::lines_with;
use crate::{File, Tree};

/// Folders whose shipped code is pure to the letter.
const PURE: &[&str] = &["engine/wire/src/", "engine/protocol/src/"];
/// The crates whose roots must declare it.
const ROOTS: &[&str] = &["engine/wire/src/lib.rs", "engine/protocol/src/lib.rs"];
/// The folder whose shipped code may use the standard library but not reach the world.
const SIMULATOR: &str = "engine/sim/src/";

/// The standard library, by any name; `core` and `alloc` have all that is pure.
const STANDARD: &[&str] = &["std", "thread_local", "rand", "tokio"];
/// Names that read the time, move bytes or draw real randomness.
const WORLD: &[&str] = &[
    "std::time",
    "std::fs",
    "std::process",
    "std::os",
    "std::env",
    "std::io",
    "Instant::now",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "thread::sleep",
    "thread_rng",
    "getrandom",
    "RandomState",
    "fastrand::Rng::new",
    "socket2",
    "mio",
    "io_uring",
    "rustix",
    "libc",
];

/// Places in the pure crates that reach the world.
pub fn reaching_out(tree: &Tree) -> Vec<String> {
    tree.rust().flat_map(reaching_out_in).collect()
}

fn reaching_out_in(file: &File) -> Vec<String> {
    let words: Vec<&str> = if PURE.iter().any(|folder| file.path.starts_with(folder)) {
        [STANDARD, WORLD].concat()
    } else if file.path.starts_with(SIMULATOR) {
        WORLD.to_vec()
    } else {
        return Vec::new();
    };
    let found = words.iter().flat_map(|word| {
        lines_with(file.shipped(), word).map(move |(line, _)| format!("{}:{line} names {word}", file.path))
    });
    found.collect()
}

/// Pure crates that do not declare it to the compiler.
pub fn unsaid(tree: &Tree) -> Vec<String> {
    let mut violations = Vec::new();
    for path in ROOTS {
        let text = tree.file(path).map_or("", |file| &file.code);
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            if !text.lines().any(|line| line == attribute) {
                violations.push(format!("{path} lacks {attribute}"));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_clocks_and_sockets_are_found() {
        let found = |path: &str, text: &str| reaching_out_in(&File::new(path, text)).len();
        assert_eq!(found("engine/protocol/src/data/fifo.rs", "use std::collections::HashMap;"), 1);
        assert_eq!(found("engine/protocol/src/data/fifo.rs", "let now = Instant::now();"), 1);
        assert_eq!(found("engine/wire/src/ids.rs", "extern crate std;"), 1);
        assert_eq!(found("engine/sim/src/world.rs", "std::thread::sleep(pause)"), 1);
        assert_eq!(found("engine/sim/src/world.rs", "let now = std::time::Instant::now();"), 2);
        assert_eq!(found("engine/sim/src/runner.rs", "std::thread::scope(|scope| ())"), 0);
        assert_eq!(found("engine/wire/src/address.rs", "use core::net::IpAddr; // not std::net"), 0);
        assert_eq!(found("engine/node/src/clock.rs", "std::time::Instant::now()"), 0);
    }

    #[test]
    fn a_crate_that_does_not_forbid_is_found() {
        assert_eq!(unsaid(&Tree::default()).len(), 4);
    }
}
