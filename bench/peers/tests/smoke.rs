//! A short round of each peer through the bench: every message arrives once and in order, both ways.
//!
//! Figures are not checked: on a busy host any of them may be bad. A peer that this build or this host lacks is
//! reported as skipped.

use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Messages that a stream has.
const COUNT: u64 = 20_000;
/// Round trips, each of which may take several turns of the scheduler.
const TRIPS: u64 = 2_000;
/// How long a bench may take to begin, and its files to be removed.
const PATIENCE: Duration = Duration::from_secs(60);

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peers-bench"));
    command.args(arguments).args(["--rounds", "1", "--json", "--idle", "yield"]);
    command.args(["--peers-program", env!("CARGO_BIN_EXE_bourdon-peers")]);
    command
}

/// The peer's row, or none if this build or this host lacks the peer.
fn row(peer: &str, count: u64, arguments: &[&str]) -> Option<Value> {
    let output =
        bench(arguments).args(["--peer", peer, "--count", &count.to_string()]).output().expect("the bench starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && lacks(&output) {
        crate::skipped::report(errors);
        return None;
    }
    assert!(output.status.success(), "{peer}: {errors}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    let rows = shown["rows"].as_array().expect("there are rows");
    Some(rows.iter().find(|row| row["system"] == peer).unwrap_or_else(|| panic!("{peer} has no row: {shown}")).clone())
}

/// Whether the bench reported that something is not built or not installed, rather than that it does not work.
fn lacks(output: &Output) -> bool {
    let errors = String::from_utf8_lossy(&output.stderr);
    errors.contains("was built without") || errors.contains("is not installed")
}

fn streams(peer: &str, arguments: &[&str], receivers: u64) {
    let Some(row) = row(peer, COUNT, arguments) else { return };
    assert_eq!((&row["lost"], &row["out_of_order"]), (&0.into(), &0.into()), "{row}");
    assert_eq!(row["count"], COUNT * receivers, "{row}");
    assert!(row["rate_per_s"].as_u64() > Some(0), "{row}");
}

#[test]
fn a_stream_to_one_receiver_is_whole() {
    for peer in ["aeron", "aeron-ipc", "iceoryx2", "zeromq", "nats"] {
        for size in ["64", "1024", "3000"] {
            streams(peer, &["throughput", "--size", size], 1);
        }
    }
}

#[test]
fn a_stream_to_three_receivers_is_whole_at_each() {
    for peer in ["aeron", "aeron-ipc", "iceoryx2", "zeromq", "nats"] {
        streams(peer, &["fanout", "--observers", "3"], 3);
    }
}

#[test]
fn every_reply_comes_back() {
    for peer in ["aeron", "aeron-ipc", "iceoryx2", "zeromq", "nats"] {
        let Some(row) = row(peer, TRIPS, &["latency", "--over", "lo"]) else { continue };
        assert_eq!((&row["count"], &row["lost"]), (&TRIPS.into(), &0.into()), "{row}");
        assert!(row["rtt_ns"]["p50"].as_u64() > Some(0), "{row}");
    }
}

#[test]
fn the_rings_lose_nothing() {
    for peer in ["crossbeam", "rtrb", "disruptor"] {
        for size in ["64", "1000"] {
            streams(peer, &["ring", "--size", size], 1);
        }
    }
}

#[test]
fn jetstream_acknowledges_every_message() {
    let mut command = bench(&["durable", "--peer", "jetstream", "--count", "100"]);
    let output = command.output().expect("the bench starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    let rows = shown["rows"].as_array().expect("there are rows");
    for system in ["jetstream", "jetstream-synced"] {
        let rows: Vec<_> = rows.iter().filter(|row| row["system"] == system).collect();
        if rows.is_empty() && errors.contains(&format!("{system} is left out: ")) {
            crate::skipped::report(&errors);
            continue;
        }
        assert_eq!(rows.len(), 4, "two figures at two sizes: {shown}");
        for row in rows {
            assert_eq!((&row["lost"], row["publish_to_ack_ns"]["p50"].as_u64() > Some(0)), (&0.into(), true), "{row}");
        }
    }
}

/// Files in shared memory of the bench that has this process id.
fn files(process: u32) -> Vec<String> {
    let prefix = format!("bench-{}-", process.wrapping_mul(0x9E37_79B9));
    let entries = std::fs::read_dir("/dev/shm").expect("there is shared memory").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

#[test]
fn a_bench_that_is_killed_leaves_no_files() {
    for peer in ["aeron", "aeron-ipc", "iceoryx2"] {
        if row(peer, 1, &["latency", "--over", "lo"]).is_none() {
            continue;
        }
        // Two seconds of Bourdon, then two of the peer, whose files exist that long.
        let mut command = bench(&["latency", "--over", "lo", "--peer", peer, "--count", "2000", "--rate", "1000"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the bench starts");
        let (id, began) = (child.id(), Instant::now());
        while files(id).is_empty() {
            let ended = child.try_wait().expect("it can be asked");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "{peer}: no files were made; the bench: {ended:?}");
            std::thread::yield_now();
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        while !files(id).is_empty() {
            assert!(began.elapsed() < PATIENCE, "{peer}: files are left: {:?}", files(id));
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_peer_that_crashes_is_reported_as_crashed() {
    for (peer, victim) in [("aeron", 0), ("aeron", 1), ("nats", 0), ("iceoryx2", 0), ("iceoryx2", 1), ("zeromq", 0)] {
        if row(peer, 1, &["latency", "--over", "lo"]).is_none() {
            continue;
        }
        let mut command = bench(&["latency", "--over", "lo", "--peer", peer, "--count", "2000", "--rate", "1000"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the bench starts");
        let began = Instant::now();
        let victim = loop {
            if let [first, second] = peers(child.id())[..] {
                break [first, second][victim];
            }
            assert!(began.elapsed() < PATIENCE, "{peer} does not start");
            std::thread::yield_now();
        };
        Command::new("kill").args(["-KILL", &victim.to_string()]).status().expect("it is killed");
        let output = child.wait_with_output().expect("the bench ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains("crashed (signal 9)"), "{peer}: {errors}");
    }
}

/// The processes of `bourdon-peers` that the bench with this process id has started.
fn peers(bench: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{bench}/task/{bench}/children")).unwrap_or_default();
    let is_peer = |process: &u32| {
        std::fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim() == "bourdon-peers")
    };
    children.split_whitespace().filter_map(|process| process.parse().ok()).filter(is_peer).collect()
}
