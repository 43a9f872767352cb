//! A short run of `bourdon-bench latency`: every message is answered, beside raw sockets and through threads.
//!
//! Figures are not checked: on a busy host any of them may be bad.

use crate::{bench, document, row};

#[test]
fn bourdon_and_raw_sockets_answer_in_turn() {
    let arguments = ["latency", "--over", "lo", "--rounds", "2", "--count", "300", "--idle", "yield", "--json"];
    let output = bench(&arguments);
    let shown = document(&output);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("round 1 of 2: bourdon") && talk.contains("round 2 of 2: raw"), "{talk}");
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

/// Without root there are rows of `lo` only, and stderr has the reason.
#[test]
fn ends_are_on_two_hosts_where_root_allows() {
    let output = bench(&["latency", "--rounds", "1", "--count", "300", "--idle", "yield", "--json"]);
    let (shown, rows_of_veth) = (document(&output), |row: &&serde_json::Value| row["what"] == "latency-veth");
    let rows = shown["rows"].as_array().expect("there are rows");
    let over_veth: Vec<_> = rows.iter().filter(rows_of_veth).collect();
    assert_eq!(rows.len() - over_veth.len(), 2, "{shown}");
    if over_veth.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(why.contains("measured on lo only: "), "{why}");
        return crate::skipped::report(why);
    }
    let systems: Vec<_> = over_veth.iter().map(|row| row["system"].as_str().expect("a name")).collect();
    assert_eq!(systems, ["bourdon", "raw-spin"]);
    assert!(over_veth.iter().all(|row| row["settings"]["interface"] == "bd0" && row["count"] == 300), "{shown}");
    let names = shown["ratios"].as_array().into_iter().flatten().filter_map(|ratio| ratio["what"].as_str());
    assert_eq!(names.filter(|name| name.ends_with(", veth")).count(), 2);
}

/// Two transports of Bourdon and both floors take turns over one cable; on `lo` none of them bypasses the stack.
#[test]
fn past_the_stack_beside_its_own_floor() {
    let arguments = ["latency", "--transport", "xdp", "--also", "udp", "--peer", "raw-xdp,raw", "--idle", "yield"];
    let output = bench(&[&arguments[..], &["--rounds", "1", "--count", "300", "--json"]].concat());
    let talk = String::from_utf8_lossy(&output.stderr);
    if talk.contains("measured on lo only: ") {
        return crate::skipped::report(talk);
    }
    let shown = document(&output);
    let rows = shown["rows"].as_array().expect("there are rows").iter();
    let measured: Vec<_> =
        rows.map(|row| (row["what"].as_str(), row["system"].as_str(), row["count"].as_u64())).collect();
    let veth = ["bourdon", "bourdon-udp", "raw-xdp", "raw-spin"].map(|system| (Some("latency-veth"), system));
    let lo = ["bourdon-udp", "raw-spin"].map(|system| (Some("latency"), system));
    let expected = veth.into_iter().chain(lo).map(|(what, system)| (what, Some(system), Some(300)));
    assert_eq!(measured, expected.collect::<Vec<_>>(), "{shown}");
    assert_eq!(row(&shown, "raw-xdp")["settings"]["peer"]["io"], "af_xdp-native");
    assert!(talk.contains("raw-xdp can't be measured on lo"), "{talk}");
    let ratios = shown["ratios"].as_array().into_iter().flatten().filter_map(|ratio| ratio["what"].as_str());
    let p50: Vec<_> = ratios.filter(|what| what.contains("p50")).collect();
    let over_veth = ["rtt p50 over bourdon-udp, veth", "rtt p50 over raw-xdp, veth", "rtt p50 over raw, veth"];
    assert_eq!(p50, [&over_veth[..], &["bourdon-udp rtt p50 over raw"]].concat());
}

#[test]
fn a_bypass_that_falls_back_is_no_figure() {
    let output = bench(&["latency", "--transport", "xdp", "--over", "lo", "--no-peer", "--count", "10"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't be measured on lo"), "{output:?}");
}

#[test]
fn issue_a_count_of_0_printed_no_number() {
    for subcommand in ["latency", "throughput"] {
        let output = bench(&[subcommand, "--count", "0"]);
        assert_eq!(output.status.code(), Some(2), "{subcommand}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("0 is not in 1.."), "{subcommand}");
    }
}

#[test]
fn threaded_nodes_answer() {
    let arguments = [
        "latency",
        "--over",
        "lo",
        "--mode",
        "threaded",
        "--idle",
        "park",
        "--no-peer",
        "--rounds",
        "1",
        "--count",
        "50",
    ];
    let shown = document(&bench(&[&arguments[..], &["--json"]].concat()));
    assert_eq!(row(&shown, "bourdon")["settings"]["mode"], "threaded");
}
