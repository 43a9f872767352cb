//! A short run of `bourdon-bench total-order`: it makes its measurements, and every member delivers the same.
//!
//! Figures are not checked: on a busy host any of them may be bad. A test that needs root, network namespaces or
//! Corosync reports that it is skipped without them.

use serde_json::Value;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
    command.args(["total-order", "--json", "--rounds", "1", "--seconds", "1"]).args(arguments);
    command.output().expect("the bench starts")
}

/// The rows of a run that worked, after a check of the fields that every row must have.
fn rows(output: &Output) -> Vec<Value> {
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    let rows = shown["rows"].as_array().expect("there are rows").clone();
    for row in &rows {
        assert!(row["count"].as_u64() > Some(0), "{row}");
        assert_eq!((&row["lost"], &row["out_of_order"]), (&0.into(), &0.into()), "{row}");
        assert_eq!(row["rtt_ns"]["p50"].is_u64(), row["what"] == "latency", "{row}");
    }
    rows
}

fn whats<'a>(rows: &'a [Value], system: &str) -> Vec<&'a str> {
    rows.iter().filter(|row| row["system"] == system).filter_map(|row| row["what"].as_str()).collect()
}

const WHATS: [&str; 3] = ["throughput-all-send", "throughput-one-sends", "latency"];

#[test]
fn bourdon_alone() {
    let rows = rows(&bench(&["--no-peer"]));
    assert_eq!(whats(&rows, "bourdon"), WHATS);
    assert_eq!(whats(&rows, "corosync"), [""; 0]);
}

#[test]
fn beside_corosync() {
    let output = bench(&["--peer", "corosync"]);
    // On a busy host Corosync fails an assertion of its own: nothing was measured.
    let peer_failed = String::from_utf8_lossy(&output.stderr).contains("QUEUE_RTR_ITEMS_SIZE_MAX' failed");
    if output.status.code() == Some(2) || peer_failed {
        crate::skipped::report(String::from_utf8_lossy(&output.stderr));
        return;
    }
    let rows = rows(&output);
    assert_eq!(whats(&rows, "bourdon"), WHATS);
    assert_eq!(whats(&rows, "corosync"), WHATS);
    assert!(rows.iter().filter(|row| row["system"] == "corosync").all(|row| row["settings"]["uniform"] == false));
}

#[test]
fn a_peer_of_another_measurement_is_refused() {
    let output = bench(&["--peer", "raw"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--peer corosync"), "the error states what to do");
}
