//! A short run of `bourdon-bench durable`: every message is acknowledged, beside the disk, which is named.
//!
//! Figures are not checked: on a busy host any of them may be bad.

use crate::{bench, document, row};

#[test]
fn every_message_is_acknowledged() {
    let shown = document(&bench(&["durable", "--rounds", "1", "--count", "50", "--peer", "jetstream", "--json"]));
    let rows = shown["rows"].as_array().expect("there are rows");
    let found: Vec<_> = rows.iter().map(|row| (row["what"].as_str(), row["system"].as_str(), &row["size"])).collect();
    let of_size = |size: u64| {
        [("publish-to-ack", "bourdon"), ("publish-to-ack", "disk"), ("throughput", "bourdon")].map(|row| (row, size))
    };
    let expected: Vec<_> = [64, 1024].into_iter().flat_map(of_size).collect();
    assert_eq!(found.len(), expected.len(), "a peer that is not built is left out: {shown}");
    for (((what, system, size), ((its_what, its_system), its_size)), row) in found.into_iter().zip(expected).zip(rows) {
        assert_eq!((what, system, size), (Some(its_what), Some(its_system), &its_size.into()));
        assert_eq!((&row["lost"], &row["out_of_order"]), (&0.into(), &0.into()), "{row}");
        assert!(row["count"].as_u64() > Some(0) && row["publish_to_ack_ns"]["p50"].as_u64() > Some(0), "{row}");
        assert!(row["settings"]["file_system"].as_str().is_some_and(|name| name.contains(" on ")), "{row}");
    }
    assert_eq!(row(&shown, "bourdon")["settings"]["reliability"], "durable");
    assert_eq!(shown["ratios"][0]["what"], "publish-to-ack p50 over disk, 64 B");
}

#[test]
fn a_directory_where_nothing_is_synced_is_refused() {
    let output = bench(&["durable", "--directory", "/dev/shm"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("name a folder on a disk"));
}
