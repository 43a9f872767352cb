//! Wrong set-ups that the settings show by themselves: refused from a file, a text and a builder alike.

use bourdon::error::SettingsError;
use bourdon::settings::{Flow, MutexKind, Order, Reliability, Transport};
use bourdon::topics::Pattern;
use bourdon::{Node, Settings, Topic};
use std::path::Path;

fn load(bytes: &[u8]) -> Result<Settings, SettingsError> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("bourdon.toml");
    std::fs::write(&path, bytes).expect("it can be written");
    Settings::load(&path)
}

fn refusal(bytes: &[u8]) -> String {
    let outcome = load(bytes).map(|settings| format!("{settings:?}"));
    outcome.expect_err(&String::from_utf8_lossy(bytes)).to_string()
}

/// The example, whole: every key that a cut can fall into.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/bourdon.toml");
    std::fs::read_to_string(path).expect("it is there")
}

#[test]
fn a_file_that_sets_nothing_is_refused() {
    for (text, what) in [
        (&b""[..], "bourdon.toml sets nothing (0 bytes)"),
        (b" \n\n", "bourdon.toml sets nothing (only blanks and comments)"),
        (b"# the group of the desk\n", "bourdon.toml sets nothing (only blanks and comments)"),
        (&[0; 4096], "it has 4096 zero bytes and nothing else"),
        (b"[group]\nname = \"prices\"\n\0\0\0", "byte 24 is zero"),
    ] {
        let why = refusal(text);
        assert!(why.contains(what) && why.contains("restore"), "{why}");
    }
    // A program that gives an empty text means the defaults.
    assert_eq!("".parse::<Settings>().expect("all may be left out"), Settings::default());
}

#[test]
fn a_file_that_is_cut_off_is_refused_with_its_last_line() {
    for (text, line, rest) in [
        ("[group]\nname = \"prices\"\n[proc", 3, "[proc"),
        ("[group]\nname = \"pri", 2, "name = \"pri"),
        ("[group]\nname", 2, "name"),
        ("[group]\nname =", 2, "name ="),
        ("[group]\nname = \"prices\"\nmembers = ", 3, "members ="),
        ("[group]\ntopics = [\"es\",\n  \"nq\"", 3, "  \"nq\""),
        ("[[channel", 1, "[[channel"),
        ("[group]\nname = \"prices\"\nrelay = tr", 3, "relay = tr"),
    ] {
        let why = refusal(text.as_bytes());
        assert!(why.contains(&format!("ends in the middle of line {line}, {rest:?}: it is truncated")), "{why}");
        let in_text = text.parse::<Settings>().expect_err(text).to_string();
        assert!(in_text.starts_with("the text ends in the middle"), "{in_text}");
    }
    // A mistake further up is no cut.
    let why = refusal(b"[group]\nname \"prices\"\nmembers = 3\n");
    assert!(why.contains("not a usable configuration"), "{why}");
}

#[test]
fn no_cut_of_the_example_is_taken_for_another_group() {
    let (whole, settings) = (example(), load(example().as_bytes()).expect("the example works"));
    for cut in 0..whole.len() {
        if let Ok(short) = load(&whole.as_bytes()[..cut]) {
            assert!(whole.as_bytes()[..cut].len() > 1, "an empty file");
            // What was kept is what stands there; a value is never read in part.
            assert!(
                [settings.group.name.as_str(), "default"].contains(&short.group.name.as_str()),
                "{}",
                &whole[..cut]
            );
        }
    }
}

#[test]
fn what_an_editor_of_another_system_saves_is_read_or_named() {
    let text = "[group]\r\nname = \"prices\"\r\nmembers = 3\r\n";
    let with_mark = [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let settings = load(&with_mark).expect("a byte order mark is no part of the text");
    assert_eq!((settings.group.name.as_str(), settings.group.members), ("prices", 3));
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert!(refusal(&wide).contains("it is UTF-16; save it as UTF-8"), "{}", refusal(&wide));
    assert!(refusal(b"[group]\nname = \"Gr\xf6\xdfe\"\n").ends_with("is no text in UTF-8: save it as UTF-8"));
}

#[test]
fn names_that_look_alike_are_refused_with_the_character_and_its_place() {
    for (name, place) in [
        ("orders\u{200b}", "character 7 of the name is U+200B"),
        ("\u{feff}orders", "character 1 of the name is U+FEFF"),
        ("or\u{202e}sred", "character 3 of the name is U+202E"),
        ("or\u{2066}ders", "character 3 of the name is U+2066"),
        ("orders\u{ad}", "character 7 of the name is U+00AD"),
        ("orders\u{3164}", "character 7 of the name is U+3164"),
        ("orders\u{fe0f}", "character 7 of the name is U+FE0F"),
        ("orders\u{e0041}", "character 7 of the name is U+E0041"),
        ("or\u{7}ders", "character 3 of the name is U+0007"),
        ("Größe\u{85}", "character 6 of the name is U+0085"),
    ] {
        let why = Topic::new(name).map(drop).expect_err(name).to_string();
        assert!(why.contains(place), "{why}");
        let why = Pattern::new(name).map(drop).expect_err(name).to_string();
        assert!(why.contains(place), "{why}");
        let why = Node::builder().group(name).open().map(drop).expect_err(name).to_string();
        assert!(why.starts_with("group.name: ") && why.contains(place), "{why}");
        let mut settings = Settings::default();
        settings.group.topics = vec![name.to_owned()];
        assert!(settings.check().expect_err(name).to_string().contains(place));
    }
    for name in ["orders", "Größe", "注文", "заказы", "naïve", "आदेश"] {
        assert!(Topic::new(name).is_ok(), "{name}");
    }
}

/// The text of the refusal of settings that a text, a file and a builder make alike.
fn refused_alike(text: &str, change: impl Fn(&mut Settings)) -> String {
    let in_text = text.parse::<Settings>().expect_err(text).to_string();
    assert_eq!(refusal(text.as_bytes()), in_text);
    let by_builder = Node::builder().with(change).open().map(drop).expect_err(text).to_string();
    assert_eq!(by_builder, in_text);
    in_text
}

#[test]
fn locks_that_need_the_total_order_are_refused_without_it() {
    for order in ["unordered", "fifo", "causal", "realtime"] {
        let text = format!("[group]\norder = {order:?}\nmutex = \"replicated\"\n");
        let why = text.parse::<Settings>().expect_err(&text).to_string();
        assert!(why.starts_with("group.mutex is \"replicated\", which needs group.order = \"total\""), "{why}");
        // A default adapts: locks are refused one by one.
        assert!(format!("[group]\norder = {order:?}\n").parse::<Settings>().is_ok());
        assert!(format!("[group]\norder = {order:?}\nmutex = \"central\"\n").parse::<Settings>().is_ok());
    }
    refused_alike("[group]\norder = \"fifo\"\nmutex = \"replicated\"\n", |settings| {
        (settings.group.order, settings.group.mutex) = (Order::Fifo, Some(MutexKind::Replicated));
    });
    refused_alike("[group]\nreliability = \"best-effort\"\nmutex = \"replicated\"\n", |settings| {
        (settings.group.reliability, settings.group.mutex) = (Reliability::BestEffort, Some(MutexKind::Replicated));
    });
    assert!("[group]\nmutex = \"replicated\"\n".parse::<Settings>().is_ok());
}

#[test]
fn a_channel_of_another_order_does_not_inherit_what_cannot_work_there() {
    let channel = "[[channel]]\nname = \"quotes\"\naddress = \"239.1.1.1:7000\"\norder = \"fifo\"\n";
    let text = format!("[group]\nmutex = \"replicated\"\n{channel}");
    let settings: Settings = text.parse().expect("the group's algorithm is the group's");
    assert_eq!(settings.for_channel("quotes").expect("it is there").group.mutex, None);
    let why = format!("{text}mutex = \"replicated\"\n").parse::<Settings>().expect_err("its own").to_string();
    assert!(why.starts_with("channel \"quotes\": group.mutex is \"replicated\""), "{why}");
}

#[test]
fn a_value_that_has_no_effect_beside_another_is_refused() {
    for (text, key) in [
        ("[detector]\npull = false\npull_after_ns = 70000000", "detector.pull_after_ns is 70000000, and"),
        ("[detector]\npull = false\nping_interval_ns = 70000000", "detector.ping_interval_ns is 70000000, and"),
        ("[detector]\nphi = false\nphi_threshold = 8.0", "detector.phi_threshold is 8.0, and detector.phi is off"),
        ("[timing]\nnak_retry_min_ns = 30000000", "timing.nak_retry_min_ns is 30000000, more than"),
        ("[timing]\nheartbeat_min_ns = 30000000", "timing.heartbeat_min_ns is 30000000, more than"),
        ("[flow]\ngating_timeout_ns = 300000000", "flow.gating_timeout_ns is 300000000, and no publisher"),
        ("[flow]\nrate_floor_bytes_per_s = 300000", "flow.rate_floor_bytes_per_s is 300000, and"),
        ("[network]\npeers = [\"10.0.0.1:7402\"]", "network.peers is [\"10.0.0.1:7402\"], which is for connections"),
        ("[network]\nlisten = \"10.0.0.1:7402\"", "network.listen is \"10.0.0.1:7402\", which is for"),
        ("[network]\ntransport = \"tcp\"\npeers = [\"10.0.0.1:7402\"]\nttl = 3", "network.ttl is 3, which is for"),
        ("[group]\ndeadline_ns = 5", "group.deadline_ns is set, which is for group.reliability = \"best-effort\""),
    ] {
        let why = text.parse::<Settings>().expect_err(text).to_string();
        assert!(why.starts_with(key), "{why}");
    }
    refused_alike("[network]\nlisten = \"10.0.0.1:7402\"", |settings| {
        settings.network.listen = "10.0.0.1:7402".parse().ok();
    });
    // With an effect somewhere they are taken.
    let mut settings = Settings::default();
    (settings.flow.mode, settings.flow.gating_timeout_ns) = (Flow::Gating, 300_000_000);
    settings.flow.rate_floor_bytes_per_s = Some(300_000);
    settings.network.transport = Transport::Auto;
    settings.network.peers = vec!["10.0.0.1:7402".parse().expect("an address")];
    settings.check().expect("each has an effect");
}

#[test]
fn refusals_name_the_key_with_its_section() {
    for (text, key) in [
        ("[limits]\nlog_bytes = 100", "limits.log_bytes is 100 bytes"),
        ("[limits]\nreceive_log_bytes = 100", "limits.receive_log_bytes is 100 bytes"),
        ("[limits]\nmtu_bytes = 100", "limits.mtu_bytes is 100"),
    ] {
        let why = text.parse::<Settings>().expect_err(text).to_string();
        assert!(why.starts_with(key), "{why}");
    }
    let open = |text: &str| {
        let settings: Settings = text.parse().expect(text);
        Node::open(&settings).map(drop).expect_err(text).to_string()
    };
    let why = open("[group]\naddress = \"10.0.0.1:7401\"");
    assert!(why.starts_with("group.address is 10.0.0.1:7401, not a multicast address"), "{why}");
    let why = open("[group]\naddress = \"232.1.1.1:7401\"");
    assert!(why.starts_with("group.address is 232.1.1.1:7401, a source-specific address"), "{why}");
    let why = open("[network]\ninterface = \"nope0\"");
    assert!(why.contains("network.interface"), "{why}");
}
