//! How a test reports that it did not run, and why; each program of tests that may skip some includes this file.
//!
//! The test harness drops what a passing test prints with `println!`, and a skipped test passes. So the line goes to
//! stderr itself, and, if `BOURDON_SKIPPED` names a file, to its end: `.ci/test` prints that file when all tests are
//! over.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::Location;

/// Reports that the calling test is skipped.
#[track_caller]
pub(crate) fn report(why: impl Display) {
    let caller = Location::caller();
    // One test a thread; a thread that a test has started has no name.
    let test = std::thread::current().name().map_or_else(|| caller.file().to_owned(), str::to_owned);
    let line = format!("skipped: {test}: {}\n", why.to_string().trim().replace('\n', " "));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("BOURDON_SKIPPED") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("BOURDON_SKIPPED can be written");
        file.write_all(line.as_bytes()).expect("BOURDON_SKIPPED can be written");
    }
}
