//! Short runs of `bourdon-bench fanout`: every gate gets every message, and rows carry what was offered.
//!
//! Figures are not checked: on a busy host any of them may be bad.

use crate::{bench, document, row};

const SHORT: &[&str] = &["fanout", "--rounds", "1", "--count", "20000", "--idle", "park", "--observers", "2", "--json"];

#[test]
fn every_gate_gets_every_message() {
    let shown = document(&bench(SHORT));
    let row = row(&shown, "bourdon");
    assert_eq!((&row["count"], &row["lost"], &row["out_of_order"]), (&40_000.into(), &0.into(), &0.into()), "{row}");
    assert_eq!((&row["settings"]["flow"], &row["settings"]["observers"]), (&"gating".into(), &2.into()), "{row}");
    assert!(row["settings"]["offered_per_s"].is_null(), "{row}");
}

#[test]
fn a_rate_that_is_offered_is_kept() {
    let shown = document(&bench(&[SHORT, &["--flow", "free", "--offered", "20000"]].concat()));
    let row = row(&shown, "bourdon");
    assert_eq!(
        (&row["settings"]["flow"], &row["settings"]["offered_per_s"]),
        (&"free".into(), &20_000.into()),
        "{row}"
    );
    // 20,000 messages are due over a second: no observer can get them sooner.
    assert!(row["rate_per_s"].as_u64() < Some(30_000), "{row}");
}

#[test]
fn an_unknown_flow_is_refused_with_the_known_ones() {
    let output = bench(&["fanout", "--flow", "sometimes"]);
    assert_eq!(output.status.code(), Some(2));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("free") && talk.contains("gating"), "{talk}");
}

#[test]
fn a_rate_of_zero_is_refused() {
    assert_eq!(bench(&["fanout", "--offered", "0"]).status.code(), Some(2));
}

/// Each end is on a host of its own, so each can bypass the stack.
#[test]
fn every_gate_past_the_stack_gets_every_message() {
    let arguments = [SHORT, &["--over", "veth", "--transport", "xdp", "--also", "udp"]].concat();
    let output = bench(&arguments);
    let talk = String::from_utf8_lossy(&output.stderr);
    if talk.contains("can't make a network namespace") {
        return crate::skipped::report(talk);
    }
    let shown = document(&output);
    for (system, transport) in [("bourdon", "xdp"), ("bourdon-udp", "udp")] {
        let row = row(&shown, system);
        assert_eq!((&row["count"], &row["lost"], &row["transport"]), (&40_000.into(), &0.into(), &transport.into()));
        assert_eq!(row["settings"]["over"], "veth", "{row}");
    }
}

#[test]
fn shared_memory_is_not_measured_between_hosts() {
    let output = bench(&["fanout", "--over", "veth", "--transport", "shm", "--count", "10"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
