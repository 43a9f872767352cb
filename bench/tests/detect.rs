//! A short run of `bourdon-bench detect`: it makes its measurements, and no healthy member is evicted.
//!
//! Figures are not checked: on a busy host any of them may be bad. A test that needs root or network namespaces reports
//! that it is skipped without them.

use serde_json::Value;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
    command.arg("detect").args(arguments).output().expect("the bench starts")
}

fn rows(output: &Output) -> Vec<Value> {
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    shown["rows"].as_array().expect("there are rows").clone()
}

#[test]
fn every_fault_has_its_rows() {
    for (fault, detector, mode) in [
        ("kill", "evidence", "inline"),
        ("stop", "push", "inline"),
        ("cut", "pull", "inline"),
        ("cut-one-way", "phi", "inline"),
        ("kill", "evidence", "threaded"),
        ("stop", "push", "threaded"),
    ] {
        let only = ["--fault", fault, "--detector", detector, "--profile", "fast", "--mode", mode];
        let output = bench(&[&only[..], &["--count", "2", "--json"]].concat());
        if output.status.code() == Some(2) {
            crate::skipped::report(String::from_utf8_lossy(&output.stderr));
            continue;
        }
        let rows = rows(&output);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((&row["what"], &row["system"]), (&"detect".into(), &"bourdon".into()));
        assert_eq!(
            (&row["fault"], &row["detector"], &row["profile"]),
            (&fault.into(), &detector.into(), &"fast".into())
        );
        assert_eq!((&row["count"], &row["settings"]["mode"]), (&2.into(), &mode.into()));
        for figure in ["fault_to_view_ns", "outage_ns"] {
            assert!(row[figure]["p50"].as_u64() > Some(0) && row[figure]["max"].as_u64() > Some(0), "{row}");
        }
        assert!(row["false_evictions"].is_u64() && row["settings"].is_object(), "{row}");
    }
}

#[test]
fn a_loaded_host_is_watched() {
    let rows = rows(&bench(&["--load", "1", "--json"]));
    assert_eq!((rows.len(), &rows[0]["what"]), (1, &"false-evictions".into()));
    assert!(rows[0]["false_evictions"].is_u64() && rows[0]["rate_per_s"].as_u64() > Some(0), "{}", rows[0]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for arguments in [["--fault", "kill", "--detector", "phi"], ["--load", "1", "--fault", "stop"]] {
        let output = bench(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}
