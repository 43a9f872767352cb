//! `bourdon-bench targets`: its lines have verdicts, and what can't run here is skipped with the reason.

use crate::bench;
use serde_json::Value;

#[test]
fn every_promise_gets_a_verdict() {
    let output = bench(&["targets", "--quick", "--only", "rtt-p50-raw,rtt-p99-raw,rtt-p50-aeron", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    let rows = shown["rows"].as_array().expect("there are rows");
    let names: Vec<&Value> = rows.iter().map(|row| &row["what"]).collect();
    assert_eq!(names, ["rtt-p50-raw", "rtt-p50-raw-step", "rtt-p99-raw", "rtt-p50-aeron"]);
    for row in &rows[..3] {
        assert!(row["met"].is_boolean() && row["ratio"].as_f64() > Some(0.0) && row["spread"].is_array(), "{row}");
    }
    let aeron = &rows[3];
    assert!(
        aeron["met"].is_null() && aeron["skipped"].as_str().is_some_and(|why| why.contains("cargo build")),
        "{aeron}"
    );
}

#[test]
fn the_list_has_every_command_and_measures_nothing() {
    let output = bench(&["targets", "--list"]);
    assert!(output.status.success());
    let list = String::from_utf8_lossy(&output.stdout);
    for name in ["rtt-no-hang", "overload-paced", "total-order-p50", "detect-kill-p99", "lock-contended", "elect-p50"] {
        assert!(list.contains(name), "{list}");
    }
}

#[test]
fn an_unknown_promise_is_refused() {
    let output = bench(&["targets", "--only", "perpetual-motion"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--list"));
}
