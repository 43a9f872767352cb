//! Peers in a program of their own: one that is missing or crashes is reported, never a win.
//!
//! The program here is a script: the adapters have tests of their own in `bench/peers/`.

use crate::{bench, document, row};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[test]
fn a_program_of_peers_that_is_not_there_is_named_with_the_command_that_builds_it() {
    for arguments in [&["latency", "--peer", "aeron"][..], &["load", "--peer", "zeromq", "--peers-program", "/nowhere"]]
    {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(talk.contains("cargo build --release --manifest-path bench/peers/Cargo.toml"), "{talk}");
    }
}

/// A program of peers whose ends run this script once they are ready.
fn program(folder: &Path, script: &str) -> PathBuf {
    let program = folder.join("bourdon-peers");
    std::fs::write(&program, format!("#!/bin/sh\nread spec\necho '\"Ready\"'\n{script}\n")).expect("it can be written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it can be made a program");
    program
}

#[test]
fn a_far_end_that_fails_is_named_and_not_the_near_end_that_waits_for_it() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let near = "read begin; echo '{\"Broken\":\"no reply\"}'";
    let far = "echo '{\"Broken\":\"its driver is gone\"}'";
    let script = format!("case $spec in *Echo*) {far};; *) {near};; esac");
    let program = program(folder.path(), &script);
    let program = program.to_str().expect("the path is text");
    let output = bench(&["latency", "--rounds", "1", "--count", "50", "--peer", "aeron", "--peers-program", program]);
    assert_eq!(output.status.code(), Some(1));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("aeron's echo: its driver is gone"), "{talk}");
}

#[test]
fn a_peer_that_crashes_is_no_win() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let program = program(folder.path(), "kill -SEGV $$");
    let program = program.to_str().expect("the path is text");
    let load = ["load", "--rounds", "1", "--warm-up", "0", "--iterations", "1", "--seconds", "0.2", "--rate", "100"];
    let arguments = [&load[..], &["--idle", "yield", "--peer", "aeron", "--peers-program", program, "--json"]].concat();
    let shown = document(&bench(&arguments));
    let theirs = row(&shown, "aeron");
    assert_eq!(theirs["valid"], false, "{theirs}");
    assert!(theirs["error"].as_str().is_some_and(|why| why.contains("aeron") && why.contains("signal 11")), "{theirs}");
    assert!(shown["ratios"].as_array().into_iter().flatten().all(|ratio| ratio["median"].is_null()), "{shown}");
    let output = bench(&["latency", "--rounds", "1", "--count", "50", "--peer", "aeron", "--peers-program", program]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("crashed (signal 11)"));
}
