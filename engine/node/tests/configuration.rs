//! `docs/configuration.md` lists every key with its default, and the example is a configuration.

use bourdon::Settings;
use bourdon::settings::ChannelSettings;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// Every key of the settings with its default as it would stand in a file.
fn defaults() -> BTreeMap<String, String> {
    // A channel has no default: a missing required value is reported.
    let channel = ChannelSettings::new("required", ([0, 0, 0, 0], 0).into());
    let mut settings = serde_json::to_value(Settings::default()).expect("settings are plain data");
    assert_eq!(settings["channel"], Value::Array(Vec::new()));
    settings["channel"] = serde_json::to_value(channel).expect("settings are plain data");
    settings["channel"]["address"] = "required".into();
    let Value::Object(sections) = settings else { panic!("settings are sections") };
    let section = |(section, keys): (String, Value)| {
        let Value::Object(keys) = keys else { panic!("{section} is a section") };
        let text = |value: Value| match value {
            Value::Null => "none".to_owned(),
            Value::String(text) if text == "required" => text,
            value => value.to_string(),
        };
        keys.into_iter().map(move |(key, value)| (format!("{section}.{key}"), text(value))).collect::<Vec<_>>()
    };
    sections.into_iter().flat_map(section).collect()
}

/// The keys and defaults of the page's tables.
fn documented() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(docs().join("configuration.md")).expect("the page is there");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.splitn(3, " | ");
        let key = cells.next()?.strip_suffix('`')?.to_owned();
        let default = cells.next()?.trim_matches('`').to_owned();
        assert!(cells.next().is_some_and(|meaning| meaning.len() > 10), "{key} is explained");
        Some((key, default))
    };
    page.lines().filter_map(row).collect()
}

#[test]
fn the_page_lists_every_key_and_its_default() {
    assert_eq!(documented(), defaults());
}

#[test]
fn the_example_is_a_configuration() {
    let settings = Settings::load(&docs().join("examples/bourdon.toml")).expect("the example works");
    assert_eq!((settings.group.name.as_str(), settings.group.members), ("prices", 3));
    assert_eq!(settings.for_channel("trades").expect("it has one").group.name, "prices/trades");
}

/// The refusal of a configuration with this text.
fn refused(text: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("bourdon.toml");
    std::fs::write(&path, text).expect("it can be written");
    Settings::load(&path).map(|_| ()).expect_err(text).to_string()
}

#[test]
fn a_size_that_cannot_be_allocated_is_refused_with_its_bound() {
    let huge = 99_999_999_999_999_u64;
    for (section, key) in [
        ("limits", "log_bytes"),
        ("limits", "receive_log_bytes"),
        ("limits", "max_snapshot_bytes"),
        ("limits", "max_message_bytes"),
        ("network", "receive_buffer_bytes"),
        ("threads", "publication_ring_bytes"),
        ("threads", "subscription_ring_bytes"),
    ] {
        let why = refused(&format!("[{section}]\n{key} = {huge}\n"));
        assert!(why.contains(&format!("{section}.{key} is {huge} bytes")), "{why}");
        assert!(why.contains("must be"), "{why}");
    }
}

#[test]
fn a_count_or_time_outside_its_range_is_refused_with_the_range() {
    let hour_ns = 3_600_000_000_000_u64;
    let [heartbeat, time] = [format!("100000 to {hour_ns}"), format!("to {hour_ns}")];
    for (section, key, value, range) in [
        ("network", "ttl", 0, "1 to 255"),
        ("network", "ttl", 256, "1 to 255"),
        ("limits", "max_message_bytes", 0, "1 to "),
        ("limits", "max_snapshot_bytes", 0, "1 to "),
        ("limits", "receivers", 0, "1 to "),
        ("limits", "repairs_per_s", 0, "1 to "),
        ("flow", "rate_limit_bytes_per_s", 0, "100000 to "),
        ("flow", "rate_floor_bytes_per_s", 0, "100000 to "),
        ("threads", "data_agents", 0, "1 to 64"),
        ("threads", "data_agents", 65, "1 to 64"),
        ("timing", "heartbeat_min_ns", 0, &heartbeat),
        ("timing", "heartbeat_min_ns", 99_999, &heartbeat),
        ("timing", "heartbeat_max_ns", 0, &heartbeat),
        ("timing", "heartbeat_max_ns", hour_ns + 1, &heartbeat),
        ("timing", "ack_delay_ns", hour_ns + 1, &time),
        ("timing", "nak_retry_min_ns", 0, &time),
        ("timing", "nak_retry_max_ns", i64::MAX as u64, &time),
        ("timing", "reorder_grace_ns", hour_ns + 1, &time),
    ] {
        let why = refused(&format!("[{section}]\n{key} = {value}\n"));
        assert!(why.contains(&format!("{section}.{key} is {value};")) && why.contains(range), "{why}");
    }
}

#[test]
fn a_group_without_a_name_is_refused() {
    for name in ["", "  "] {
        let why = refused(&format!("[group]\nname = \"{name}\"\n"));
        assert!(why.contains("group.name") && why.contains("give it one"), "{why}");
    }
}
