//! `bourdon-bench lock` for a moment: every system excludes, and says what it was asked for.
//!
//! Figures are not looked at: on a busy host any of them may be bad. What needs a peer that is not installed says so and
//! is left out.

use serde_json::Value;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
    command.arg("lock").args(arguments).output().expect("the bench starts")
}

fn rows(output: &Output) -> Vec<Value> {
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    assert!(shown["ratios"].is_array(), "{shown}");
    shown["rows"].as_array().expect("there are rows").clone()
}

#[test]
fn every_peer_has_its_rows() {
    for (peer, algorithm, members) in [("etcd", "raft", 3), ("etcd-tmpfs", "raft", 3), ("redis", "central", 1)] {
        let output = bench(&["--peer", peer, "--count", "6", "--rounds", "1", "--json"]);
        if output.status.code() == Some(2) {
            eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
            continue;
        }
        let rows: Vec<Value> = rows(&output).into_iter().filter(|row| row["system"] == peer).collect();
        let whats: Vec<&str> = rows.iter().filter_map(|row| row["what"].as_str()).collect();
        assert_eq!(whats, ["uncontended", "contended"]);
        for (row, clients) in rows.iter().zip([1, 3]) {
            assert_eq!((&row["algorithm"], &row["members"]), (&algorithm.into(), &members.into()), "{row}");
            assert_eq!((&row["messages_per_entry"], &row["settings"]["clients"]), (&Value::Null, &clients.into()));
            // Fewer than were asked for if the time was over before.
            assert!(row["count"].as_u64() > Some(0) && row["count"].as_u64() <= Some(6), "{row}");
            assert!(row["acquire_ns"]["p50"].as_u64() > Some(0) && row["max_overtaken"].is_u64(), "{row}");
        }
        assert_eq!(rows[0]["max_overtaken"], 0, "one client is overtaken by nobody");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    for arguments in [&["--peer", "redis", "--no-peer"][..], &["--peer", "raw"], &["--members", "0"]] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}

/// On a host without a peer: who asks for it is told how to get it.
#[test]
fn a_peer_that_is_not_installed_is_named_with_its_package() {
    for (subcommand, peer, package) in
        [("lock", "etcd", "etcd-server"), ("lock", "redis", "redis-server"), ("elect", "etcd", "etcd-server")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
        let output = command.args([subcommand, "--peer", peer]).env("PATH", "/nonexistent").output();
        let output = output.expect("the bench starts");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(talk.contains(&format!("apt-get install {package}")) && output.stdout.is_empty(), "{talk}");
    }
}
