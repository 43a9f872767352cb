//! Settings from code, text and file: what rustdoc shows is what the code does, and refusals name what is wrong.

use bourdon::Settings;
use bourdon::settings::ChannelSettings;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[test]
fn a_node_refuses_a_level_that_it_can_not_keep() {
    let mut settings = Settings::default();
    settings.group.reliability = bourdon::settings::Reliability::Durable;
    let refusal = settings.check().unwrap_err().to_string();
    assert!(refusal.contains("storage.directory is not set"), "{refusal}");
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The sources of the sections, each of which shows its section's text in rustdoc.
fn sources() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let files = std::fs::read_dir(directory).expect("the sections are there");
    let text = |file: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(file?.path());
    files.map(|file| text(file).expect("a source can be read")).collect()
}

/// The TOML of the sections' rustdoc, in one text.
fn shown() -> String {
    let lines = |source: String| {
        let docs: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("/// ")).map(str::to_owned).collect();
        let toml = docs.split(|line| line == "```toml").skip(1);
        toml.flat_map(|rest| rest.iter().take_while(|line| *line != "```").cloned()).collect::<Vec<_>>()
    };
    sources().into_iter().flat_map(lines).fold(String::new(), |text, line| text + &line + "\n")
}

/// The same with the keys that have no value by default, which stand in comments, and where all of them have an effect.
fn shown_whole() -> String {
    let whole = shown().lines().fold(String::new(), |text, line| text + line.strip_prefix("# ").unwrap_or(line) + "\n");
    whole.replace("mode = \"free\"", "mode = \"paced\"").replace("transport = \"udp\"", "transport = \"auto\"")
}

/// Every key of the settings, and whether it has a value by default.
fn keys() -> BTreeMap<String, bool> {
    let mut all = Settings::default();
    all.channels = vec![ChannelSettings::new("trades", all.group.address)];
    let Ok(Value::Object(mut sections)) = serde_json::to_value(all) else { panic!("settings are sections") };
    sections["channel"] = sections["channel"][0].take();
    let keys = |(section, keys): (String, Value)| {
        let Value::Object(keys) = keys else { panic!("{section} is a section") };
        keys.into_iter().map(move |(key, value)| (format!("{section}.{key}"), !value.is_null()))
    };
    sections.into_iter().flat_map(keys).collect()
}

#[test]
fn rustdoc_shows_every_key_with_its_default() {
    let settings: Settings = shown().parse().expect("what rustdoc shows is a configuration");
    let mut defaults = Settings::default();
    let address = settings.channels.first().expect("it shows a channel").address;
    defaults.channels = vec![ChannelSettings::new("trades", address)];
    assert_eq!(settings, defaults);
    let sections = |text: &str| {
        let table: toml::Table = text.parse().expect("it is TOML");
        let keys = |(section, keys): (String, toml::Value)| {
            let keys = keys.as_table().or_else(|| keys[0].as_table()).expect("it is a section").clone();
            keys.into_iter().map(move |(key, _)| format!("{section}.{key}"))
        };
        table.into_iter().flat_map(keys).collect::<Vec<_>>()
    };
    let (given, all) = (sections(&shown()), sections(&shown_whole()));
    let shown: BTreeMap<String, bool> = all.into_iter().map(|key| (key.clone(), given.contains(&key))).collect();
    assert_eq!(shown, keys());
    let whole = shown_whole().parse::<Settings>();
    whole.expect("the values of keys without a default are valid");
}

#[test]
fn rustdoc_gives_the_default_of_every_field() {
    let mut fields = 0;
    for source in sources() {
        let (mut docs, mut is_settings) = (String::new(), false);
        for line in source.lines().map(str::trim_start) {
            match line.strip_prefix("///") {
                Some(text) => docs = docs + text + "\n",
                None if line.starts_with("#[") => {}
                None => {
                    is_settings = is_settings && line != "}" || line.starts_with("pub struct");
                    if is_settings && line.starts_with("pub ") && line.ends_with(',') {
                        let is_given = ["Default", "Required"].iter().any(|word| docs.contains(word));
                        assert!(is_given, "{line}: no default in {docs:?}");
                        fields += 1;
                    }
                    docs.clear();
                }
            }
        }
    }
    assert_eq!(fields, keys().len());
}

#[test]
fn defaults_are_valid_and_survive_being_written_and_read() {
    let mut settings = Settings::default();
    settings.check().expect("each default is in its own range");
    let text = toml::to_string(&settings).expect("settings are plain data");
    assert_eq!(text.parse::<Settings>().expect("they are valid"), settings);
    assert_eq!("".parse::<Settings>().expect("all may be left out"), settings);
    // And with all that has no value by default.
    settings = shown_whole().parse().expect("it is valid");
    let text = toml::to_string(&settings).expect("settings are plain data");
    assert_eq!(text.parse::<Settings>().expect("they are valid"), settings);
}

#[test]
fn a_text_and_a_file_have_the_same_errors_but_for_the_place() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("bourdon.toml");
    for text in ["[group\n", "[group]\nmembers = \"three\"\n", "[group]\nmembres = 3\n", "[group]\nmembers = 65\n"] {
        std::fs::write(&path, text).expect("it can be written");
        let in_file = Settings::load(&path).expect_err(text).to_string();
        let in_text = text.parse::<Settings>().expect_err(text).to_string();
        assert_eq!(in_text, in_file.replace(&path.display().to_string(), "the text"));
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_section_and_the_nearest_key() {
    for (text, line, what) in [
        ("\n[group]\nmembres = 3\n", 3, "section [group] has no key membres: did you mean members?"),
        ("[flow]\nrate_limit = 3\n", 2, "section [flow] has no key rate_limit: did you mean rate_limit_bytes_per_s?"),
        ("[group]\nmembers = 3\nrank = 0\n", 3, "section [group] has no key rank: it is a key of section [process]"),
        ("[faults]\ncolour = 0\n", 2, "its keys are drop_percent, duplicate_percent, reorder_percent, seed"),
        ("network.interfaces = \"lo\"\n", 1, "section [network] has no key interfaces: did you mean interface?"),
        ("network = { \"time\" = 1 }\n", 1, "section [network] has no key time: its keys are interface, links"),
        (
            "[[channel]]\nname = \"a\"\naddress = \"239.1.1.1:1\"\n[[channel]]\nnam = \"b\"\n",
            5,
            "section [channel] has no key nam: did you mean name?",
        ),
        ("[thread]\nidle = \"spin\"\n", 1, "there is no section thread: did you mean [threads]?"),
        ("members = 3\n", 1, "there is no section members: it is a key of section"),
        ("[colour]\n", 1, "there is no section colour: the sections are archive, channel, detector, "),
        ("[group]\nrank = 0\n[process]\nrank = 0\n", 2, "section [group] has no key rank"),
    ] {
        let why = text.parse::<Settings>().expect_err(text).to_string();
        assert!(why.starts_with(&format!("the text, line {line}: ")) && why.contains(what), "{why}");
    }
}

#[test]
fn the_example_is_a_configuration() {
    let settings = Settings::load(&docs().join("examples/bourdon.toml")).expect("the example works");
    assert_eq!((settings.group.name.as_str(), settings.group.members), ("prices", 3));
    assert_eq!(settings.for_channel("trades").expect("it has one").group.name, "prices/trades");
}

/// The refusal of a configuration with this text.
fn refused(text: &str) -> String {
    text.parse::<Settings>().expect_err(text).to_string()
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
        ("group", "members", 0, "1 to 64"),
        ("group", "members", 65, "1 to 64"),
        ("group", "sequencer", 1, "0 to 0"),
        ("group", "deadline_ns", hour_ns + 1, &time),
        ("process", "rank", 1, "0 to 0"),
        ("network", "ttl", 0, "1 to 255"),
        ("network", "ttl", 256, "1 to 255"),
        ("limits", "mtu_bytes", 1_279, "1280 to 65507"),
        ("limits", "mtu_bytes", 65_508, "1280 to 65507"),
        ("limits", "max_message_bytes", 0, "1 to "),
        ("limits", "max_snapshot_bytes", 0, "1 to "),
        ("storage", "view_bytes", 0, "1048576 to "),
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

#[test]
fn what_an_archive_keeps_has_no_effect_without_a_directory() {
    let refusal = |text: &str| text.parse::<Settings>().err().map(|error| error.to_string()).unwrap_or_default();
    for key in ["max_bytes = 5", "max_age_s = 5", "delivery_waits = true"] {
        let refused = refusal(&format!("[archive]\n{key}\n"));
        assert!(refused.contains("set archive.directory, or remove it"), "{refused}");
        assert_eq!(refusal(&format!("[archive]\ndirectory = \"a\"\n{key}\n")), "");
    }
    let text = "[archive]\ndirectory = \"a\"\n[[channel]]\nname = \"c\"\naddress = \"239.1.2.3:4000\"\n";
    let settings: Settings = text.parse().expect("it is one");
    let channel = settings.for_channel("c").expect("there is one");
    assert_eq!(channel.archive.directory.as_deref(), Some("a/c".as_ref()), "an archive has one group");
}
