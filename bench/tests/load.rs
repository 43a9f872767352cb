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

#[test]
fn a_storm_of_locks_and_elections_is_measured_beside_the_undisturbed_load() {
    let threaded = ["--mode", "threaded", "--rate", "1000", "--locks", "200", "--elections", "50", "--json"];
    let shown = document(&bench(&[SHORT, &threaded].concat()));
    let [undisturbed, storm] = ["bourdon", "bourdon-storm"].map(|system| row(&shown, system));
    assert_eq!(shown["rows"].as_array().map(Vec::len), Some(2), "there is no peer by default: {shown}");
    for row in [undisturbed, storm] {
        assert_eq!(row["settings"]["mode"], "threaded", "{row}");
        let [measured, ever] = ["longest_cycle_ns", "longest_cycle_ever_ns"].map(|key| row[key].as_u64());
        assert!(Some(0) < measured && measured <= ever && row["control_full"].is_u64(), "{row}");
    }
    assert!(undisturbed["locks"].is_null() && undisturbed["elections"].is_null(), "{undisturbed}");
    assert_eq!((&storm["settings"]["locks"], &storm["settings"]["elections"]), (&200.into(), &50.into()), "{storm}");
    for (kind, rate) in [("locks", 200), ("elections", 50)] {
        let [offered, granted] = ["offered_per_s", "granted_per_s"].map(|key| storm[kind][key].as_u64());
        assert!(offered > Some(0) && offered <= Some(2 * rate) && granted > Some(0), "{storm}");
        assert_eq!((&storm[kind]["refused"], storm[kind]["late"].is_u64()), (&0.into(), true), "{storm}");
    }
    let ratio = |what: &str| {
        let ratios = shown["ratios"].as_array().expect("there are ratios");
        ratios.iter().find(|ratio| ratio["what"] == what).unwrap_or_else(|| panic!("{what}: {shown}"))
    };
    let p999 = |row: &serde_json::Value| row["rtt_ns"]["p999"].as_u64().expect("replies came") as f64;
    let rounds = ratio("load rtt p99.9 of bourdon-storm over bourdon")["rounds"].as_array().expect("it has rounds");
    assert_eq!(rounds.len(), usize::from(undisturbed["valid"] == true && storm["valid"] == true), "{shown}");
    for round in rounds {
        let expected = p999(storm) / p999(undisturbed);
        assert!((round.as_f64().expect("a number") / expected - 1.0).abs() < 1e-9, "{round} {expected}");
    }
    ratio("load longest cycle of bourdon-storm over bourdon");
}

#[test]
fn members_join_and_leave_beside_the_load() {
    let joins = ["--mode", "threaded", "--rate", "1000", "--joins", "5", "--no-peer", "--json"];
    let shown = document(&bench(&[SHORT, &joins].concat()));
    let (undisturbed, storm) = (row(&shown, "bourdon"), row(&shown, "bourdon-storm"));
    assert_eq!((&undisturbed["settings"]["members"], &storm["settings"]["members"]), (&2.into(), &3.into()), "{shown}");
    assert!(undisturbed["joins"].is_null() && storm["joins"]["granted_per_s"].as_u64() > Some(0), "{storm}");
    assert_eq!((&storm["settings"]["joins"], &storm["locks"].is_null()), (&5.into(), &true), "{storm}");
}

#[test]
fn a_storm_without_locks_to_ask_for_is_refused() {
    for (arguments, advice) in [
        (&["--locks", "100"][..], "add --mode threaded"),
        (&["--elections", "10", "--mode", "inline"], "add --mode threaded"),
        (&["--locks", "100", "--mode", "threaded", "--peer", "raw"], "raw has no locks"),
        (&["--elections", "0", "--mode", "threaded"], "0 is not in"),
    ] {
        let output = bench(&[&["load"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(advice), "{arguments:?}: {stderr}");
    }
}
