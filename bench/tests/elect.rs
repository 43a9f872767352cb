//! A short run of `bourdon-bench elect`: leaders die and are followed by others.
//!
//! Figures are not checked: on a busy host any of them may be bad. A test that needs a peer that is not installed
//! reports that it is skipped.

use serde_json::Value;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
    command.arg("elect").args(arguments).output().expect("the bench starts")
}

#[test]
fn a_peers_leader_is_followed_by_another() {
    let output = bench(&["--peer", "etcd-tuned", "--count", "2", "--rounds", "1", "--json"]);
    let talk = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) {
        crate::skipped::report(talk);
        return;
    }
    assert!(output.status.success(), "{talk}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    let rows = shown["rows"].as_array().expect("there are rows");
    let row = rows.iter().find(|row| row["system"] == "etcd-tuned").expect("it has a row");
    assert_eq!((&row["what"], &row["algorithm"]), (&"fail-over".into(), &"raft".into()));
    assert_eq!((&row["members"], &row["count"], &row["messages"]), (&3.into(), &2.into(), &Value::Null));
    // A killed leader is missed for longer than its heartbeat interval, or no member was without a leader.
    let heartbeat_ns = row["settings"]["heartbeat_ms"].as_u64().map(|ms| ms * 1_000_000);
    assert!(row["fault_to_leader_ns"]["max"].as_u64() > heartbeat_ns, "{row}");
    assert!(shown["ratios"].is_array());
}

#[test]
fn bourdons_leaders_are_followed_by_others() {
    let output = bench(&["--no-peer", "--count", "2", "--rounds", "1", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    let rows = shown["rows"].as_array().expect("there are rows");
    let algorithms: Vec<&Value> = rows.iter().map(|row| &row["algorithm"]).collect();
    assert_eq!(algorithms, ["bully", "ring"]);
    for row in rows {
        assert_eq!((&row["system"], &row["count"]), (&"bourdon".into(), &2.into()), "{row}");
        assert!(row["messages"].as_u64() > Some(0) && row["fault_to_leader_ns"]["p50"].as_u64() > Some(0), "{row}");
    }
}

#[test]
fn a_group_that_none_can_lead_after_a_death_is_refused() {
    for members in ["1", "2"] {
        let output = bench(&["--members", members]);
        assert_eq!(output.status.code(), Some(2));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}
