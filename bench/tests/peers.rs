//! Peers in a program of their own: one that is missing or crashes is reported, never a win.
//!
//! The program here is a script: the adapters have tests of their own in `bench/peers/`.

use crate::{bench, document, row};
use std::os::unix::fs::PermissionsExt;

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

#[test]
fn a_peer_that_crashes_is_no_win() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let program = folder.path().join("bourdon-peers");
    // It reports that it is ready, and crashes.
    std::fs::write(&program, "#!/bin/sh\nread spec\necho '\"Ready\"'\nkill -SEGV $$\n").expect("it can be written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it can be made a program");
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
