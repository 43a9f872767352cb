//! A short run of `bourdon-bench throughput`: nothing is lost one way.
//!
//! Figures are not checked: on a busy host any of them may be bad.

use crate::{bench, document, row};

#[test]
fn nothing_is_lost_one_way() {
    let shown = document(&bench(&["throughput", "--rounds", "1", "--count", "50000", "--idle", "yield", "--json"]));
    let ours = row(&shown, "bourdon");
    assert_eq!(
        (&ours["count"], &ours["lost"], &ours["out_of_order"]),
        (&50_000.into(), &0.into(), &0.into()),
        "{ours}"
    );
    assert!(ours["one_way_ns"]["p50"].as_u64() > Some(0), "{ours}");
    assert!(row(&shown, "raw-packed")["count"].as_u64() > Some(0));
    assert_eq!(shown["ratios"][0]["what"], "rate over raw");
}

#[test]
fn one_data_agent_and_two_take_every_message() {
    let shown = document(&bench(&["agents", "--rounds", "1", "--count", "20000", "--idle", "yield", "--json"]));
    let rows = shown["rows"].as_array().expect("there are rows");
    let counts: Vec<_> = rows.iter().map(|row| (row["what"].as_str(), row["count"].as_u64())).collect();
    let expected = [("1-agent-1-group", 20_000), ("1-agent-2-groups", 40_000), ("2-agents-2-groups", 40_000)];
    assert_eq!(counts, expected.map(|(what, count)| (Some(what), Some(count))));
    assert!(rows.iter().all(|row| row["cpu_ns_per_message"].as_u64() > Some(0)), "the agents are found: {shown}");
}
