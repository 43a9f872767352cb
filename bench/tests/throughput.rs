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
