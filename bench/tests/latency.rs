//! A short run of `bourdon-bench latency`: every message is answered, beside raw sockets and through threads.
//!
//! Figures are not checked: on a busy host any of them may be bad.

use crate::{bench, document, row};

#[test]
fn bourdon_and_raw_sockets_answer_in_turn() {
    let shown = document(&bench(&["latency", "--rounds", "2", "--count", "300", "--idle", "yield", "--json"]));
    for system in ["bourdon", "raw-spin"] {
        let row = row(&shown, system);
        assert_eq!((&row["what"], &row["count"], &row["lost"]), (&"latency".into(), &600.into(), &0.into()), "{row}");
        assert!(row["rtt_ns"]["p50"].as_u64() > Some(0), "{row}");
        let percentiles = row["percentiles"].as_array().expect("there are some");
        assert_eq!(percentiles.last().expect("at least one")[0], 100.0, "{row}");
        assert_eq!(percentiles.last().expect("at least one")[1], row["rtt_ns"]["max"], "{row}");
    }
    let names: Vec<_> = shown["ratios"].as_array().into_iter().flatten().map(|ratio| &ratio["what"]).collect();
    assert_eq!(names, ["rtt p50 over raw", "rtt p99 over raw"]);
    assert!(shown["machine"]["cores"].as_u64() > Some(0), "{shown}");
}

#[test]
fn threaded_nodes_answer() {
    let arguments = ["latency", "--mode", "threaded", "--idle", "park", "--no-peer", "--rounds", "1", "--count", "50"];
    let shown = document(&bench(&[&arguments[..], &["--json"]].concat()));
    assert_eq!(row(&shown, "bourdon")["settings"]["mode"], "threaded");
}
