//! A short run of `bourdon-bench lock`: every system excludes, and reports the requested figures.
//!
//! Figures are not checked: on a busy host any of them may be bad. A test that needs a peer that is not installed
//! reports that it is skipped.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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
            crate::skipped::report(String::from_utf8_lossy(&output.stderr));
            continue;
        }
        let rows: Vec<Value> = rows(&output).into_iter().filter(|row| row["system"] == peer).collect();
        let whats: Vec<&str> = rows.iter().filter_map(|row| row["what"].as_str()).collect();
        assert_eq!(whats, ["uncontended", "contended"]);
        for (row, clients) in rows.iter().zip([1, 3]) {
            assert_eq!((&row["algorithm"], &row["members"]), (&algorithm.into(), &members.into()), "{row}");
            assert_eq!((&row["messages_per_entry"], &row["settings"]["clients"]), (&Value::Null, &clients.into()));
            // Fewer than were requested if the time was over before.
            assert!(row["count"].as_u64() > Some(0) && row["count"].as_u64() <= Some(6), "{row}");
            assert!(row["acquire_ns"]["p50"].as_u64() > Some(0) && row["max_overtaken"].is_u64(), "{row}");
        }
        assert_eq!(rows[0]["max_overtaken"], 0, "no client overtakes a single client");
    }
}

#[test]
fn bourdons_algorithms_cost_what_the_textbook_states() {
    let output = bench(&["--no-peer", "--count", "30", "--rounds", "1", "--json"]);
    let rows = rows(&output);
    for (algorithm, messages) in [("central", 3.0), ("lamport", 6.0), ("ricart-agrawala", 4.0)] {
        let of = |what: &str| rows.iter().find(|row| row["what"] == what && row["algorithm"] == algorithm);
        let (alone, together) = (of("uncontended").expect("it was measured"), of("contended").expect("and this"));
        assert_eq!((&alone["system"], &alone["members"]), (&"bourdon".into(), &3.into()));
        assert_eq!(alone["messages_per_entry"], messages, "{alone}");
        assert_eq!((&alone["max_overtaken"], &together["settings"]["clients"]), (&0.into(), &3.into()));
        assert!(together["count"].as_u64() > Some(0), "{together}");
    }
    let names = rows.iter().filter(|row| row["what"] == "uncontended").map(|row| row["algorithm"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["replicated", "central", "lamport", "ricart-agrawala", "token-ring"]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for arguments in [&["--peer", "redis", "--no-peer"][..], &["--peer", "raw"], &["--members", "0"]] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}

/// On a host without a peer: the error for a requested peer states how to install it.
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

/// Waits until a condition holds; a busy host may need a while.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never came to pass: {what}");
        std::thread::yield_now();
    }
}

/// Processes whose arguments name a folder, except those that are still about to become another.
fn processes_in(folder: &Path) -> usize {
    let folder = folder.to_string_lossy();
    let processes = std::fs::read_dir("/proc").expect("there are processes").flatten();
    let commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).into_owned());
    commands.filter(|command| command.contains(&*folder) && !command.starts_with("setpriv")).count()
}

#[test]
fn nothing_is_left_of_a_measurement_that_is_killed() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
    command.args(["lock", "--peer", "etcd"]).env("TMPDIR", folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut measurement = command.spawn().expect("the bench starts");
    // Three servers, and the process that removes their files.
    let (mut ended, mut begun) = (false, false);
    while !ended && !begun {
        (ended, begun) = (measurement.try_wait().expect("it can be asked").is_some(), processes_in(folder.path()) == 4);
        std::thread::yield_now();
    }
    let _ = measurement.kill(); // it may have ended
    measurement.wait().expect("it ends");
    if ended {
        crate::skipped::report(
            "etcd is not installed or not built in, or the folder for temporary files is on no disk",
        );
        return;
    }
    wait_until("its servers are gone", || processes_in(folder.path()) == 0);
    wait_until("its files are gone", || folder.path().read_dir().is_ok_and(|mut files| files.next().is_none()));
}
