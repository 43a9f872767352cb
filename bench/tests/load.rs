//! Short runs of `bourdon-bench load`: a rate that is kept is a result, one that is missed is refused.
//!
//! Times are not checked: on a busy host any of them may be bad.

use crate::{bench, document, row};

const SHORT: &[&str] =
    &["load", "--rounds", "1", "--warm-up", "0.1", "--iterations", "2", "--seconds", "0.3", "--idle", "yield"];

#[test]
fn a_rate_is_kept_beside_raw_sockets() {
    let shown = document(&bench(&[SHORT, &["--rate", "1000", "--burst", "10", "--json"]].concat()));
    for system in ["bourdon", "raw-spin"] {
        let row = row(&shown, system);
        assert_eq!((&row["what"], &row["lost"], &row["out_of_order"]), (&"load".into(), &0.into(), &0.into()), "{row}");
        assert_eq!((&row["settings"]["rate"], &row["settings"]["burst"]), (&1_000.into(), &10.into()), "{row}");
        assert_eq!((&row["due"], row["iterations"].as_array().map(Vec::len)), (&600.into(), Some(2)), "{row}");
        assert!(row["rtt_ns"]["p50"].as_u64() > Some(0) && row["count"].as_u64() > Some(0), "{row}");
        assert_eq!(row["valid"] == true, row["error"].is_null(), "{row}");
    }
}

#[test]
fn a_rate_that_no_system_keeps_is_refused_as_a_result() {
    let arguments = [SHORT, &["--rate", "100000000", "--no-peer"]].concat();
    let output = bench(&arguments);
    assert_eq!(output.status.code(), Some(1), "without --json the exit code reports it");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the rate was missed"));
    let shown = document(&bench(&[&arguments[..], &["--json"]].concat()));
    let row = row(&shown, "bourdon");
    assert_eq!(row["valid"], false, "{row}");
    assert!(row["sent"].as_u64() < row["due"].as_u64(), "{row}");
}

#[test]
fn an_iteration_without_a_whole_burst_is_refused() {
    let output = bench(&["load", "--rate", "10", "--burst", "100"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lower --burst"));
    assert_eq!(bench(&["load", "--rate", "0"]).status.code(), Some(2));
}
