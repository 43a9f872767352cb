//! Wrong set-ups as their users meet them: a process that can't work ends by itself, with 2, and names what is wrong.

use crate::common::{World, bourdon, fails, next, next_of_all, run};
use crate::skipped;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[test]
fn a_configuration_that_is_empty_cut_or_no_text_is_refused() {
    let world = World::new();
    let path = world.path().join("bourdon.toml");
    let config = path.display().to_string();
    for (text, what) in [
        (&b""[..], "bourdon.toml sets nothing (0 bytes)"),
        (b"[group]\nname = \"prices\"\n[proc", "ends in the middle of line 3, \"[proc\": it is truncated"),
        (b"[group]\nname = \"prices\"\nmem", "ends in the middle of line 3, \"mem\": it is truncated"),
        (b"[group]\nname = \"prices\xe2\x80\x8b\"\n", "character 7 of the name is U+200B"),
        (b"[group]\norder = \"fifo\"\nmutex = \"replicated\"\n", "group.mutex is \"replicated\", which needs"),
        (b"[limits]\nlog_bytes = 7\n", "limits.log_bytes is 7 bytes"),
        (b"[group]\naddress = \"10.0.0.1:7401\"\n", "group.address is 10.0.0.1:7401, not a multicast address"),
    ] {
        std::fs::write(&path, text).expect("it can be written");
        fails(&["node", "--config", &config], b"", 2, what);
        fails(&["subscribe", "default", "es", "--config", &config], b"", 2, "");
    }
    fails(&["publish", "prices", "or\u{202e}sred", "--group-address", &world.address], b"", 2, "U+202E");
}

/// Starts a node in a mount namespace whose /dev/shm is prepared by these commands, and returns its first event.
fn started_with_shm(world: &World, prepare: &str) -> Option<(Value, String)> {
    let config = world.path().join("node.toml");
    let address = &world.address;
    std::fs::write(&config, format!("[group]\nname = \"prices\"\naddress = \"{address}\"\n")).expect("there is room");
    let script =
        format!("{prepare} && mount -t tmpfs tmpfs /tmp && exec \"$0\" node --json --config /proc/self/fd/9 9<&0");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_bourdon")]).env_remove("XDG_RUNTIME_DIR");
    command.stdin(std::fs::File::open(&config).expect("it is there")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare(1) is there");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
    let _ = child.kill();
    let mut text = String::new();
    let _ = child.stderr.take().expect("piped").read_to_string(&mut text);
    let _ = child.wait();
    serde_json::from_str(&line).ok().map(|event| (event, text.clone())).or_else(|| panic!("{line:?}: {text}"))
}

#[test]
fn a_shared_memory_without_room_is_passed_over_and_named() {
    let can = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        return skipped::report("no right to make a mount namespace");
    }
    let full = "mount -t tmpfs -o size=4k tmpfs /dev/shm && { head -c 9999 /dev/zero > /dev/shm/full || true; }";
    let read_only = "mount -t tmpfs -o ro tmpfs /dev/shm";
    let no_inodes = "mount -t tmpfs -o nr_inodes=3 tmpfs /dev/shm";
    for (prepare, why) in [(full, "No space left"), (read_only, "Read-only file system"), (no_inodes, "No space left")]
    {
        let world = World::new();
        let Some((started, text)) = started_with_shm(&world, prepare) else { continue };
        let note = started["fallback"].as_str().unwrap_or_default();
        assert!(note.contains("can't use /dev/shm/bourdon-") && note.contains(why), "{started}: {text}");
        assert!(note.contains("are in /tmp/bourdon-") && text.contains("are in /tmp/bourdon-"), "{started}: {text}");
        assert!(started["counters"].as_str().is_some_and(|path| path.starts_with("/tmp/bourdon-")), "{started}");
    }
}

/// The events that a node wrote before it ended by itself, and what it wrote for people; it must end with 2.
fn ends(config: &str) -> (Vec<Value>, String) {
    let output = run(&["node", "--config", config, "--json"], b"");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let events = String::from_utf8_lossy(&output.stdout);
    (events.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect(), text)
}

fn named<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}: {events:?}"))
}

#[test]
fn a_node_that_is_configured_otherwise_ends_and_names_the_key_and_both_values() {
    let world = World::new();
    let right = [0, 1, 2].map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, ""));
    let wrong = world.configure("wrong.toml", 3, 2, "");
    let text = std::fs::read_to_string(&wrong).expect("it is there").replace("members", "order = \"fifo\"\nmembers");
    std::fs::write(&wrong, text).expect("it can be written");
    let (_first, mut events, _) = world.node(&right[0]);
    let (_second, ..) = world.node(&right[1]);
    // No view exists yet: two of three are the majority. Then a view exists.
    for has_view in [false, true] {
        let (reported, text) = ends(&wrong);
        let outvoted = named(&reported, "outvoted");
        let differs = serde_json::json!([{ "key": "group.order", "here": "fifo", "there": "total" }]);
        assert_eq!(outvoted["differences"], differs, "{outvoted}");
        assert!(text.contains("group.order is fifo here and total at member "), "{text}");
        if !has_view {
            let (mut third, ..) = world.node(&right[2]);
            while next(&mut events)["members"] != serde_json::json!([0, 1, 2]) {}
            third.0.kill().expect("it runs");
            third.0.wait().expect("it ends");
        }
    }
}

#[test]
fn a_second_node_of_a_rank_ends_and_names_the_first() {
    let world = World::new();
    let configs = [0, 1].map(|rank| world.configure(&format!("{rank}.toml"), 2, rank, ""));
    let (_first, mut events, started) = world.node(&configs[0]);
    let (mut other, ..) = world.node(&configs[1]);
    assert_eq!(next(&mut events)["members"], serde_json::json!([0, 1]));
    let (reported, text) = ends(&configs[0]);
    let conflict = named(&reported, "identity_conflict");
    assert_eq!((&conflict["rank"], &conflict["address"]), (&0.into(), &started["address"]), "{conflict}");
    assert!(text.contains(started["address"].as_str().expect("an address")), "{text}");
    assert!(other.0.try_wait().expect("it can be asked").is_none(), "the others go on");
}

/// Neither has the rank while no view exists; the view decides.
#[test]
fn of_two_nodes_of_one_rank_that_start_at_once_one_ends() {
    let world = World::new();
    let configs = [0, 1].map(|rank| world.configure(&format!("{rank}.toml"), 2, rank, ""));
    let mut twins = [0, 0].map(|_| bourdon(&["node", "--config", &configs[0]]).spawn().expect("it runs"));
    let (_other, mut events, _) = world.node(&configs[1]);
    while next(&mut events)["event"] != "view" {}
    // The stdout of a process that ends has an end.
    let (sender, receiver) = std::sync::mpsc::channel();
    for (index, twin) in twins.iter_mut().enumerate() {
        let (mut stdout, sender) = (twin.stdout.take().expect("piped"), sender.clone());
        std::thread::spawn(move || {
            let _ = stdout.read_to_end(&mut Vec::new());
            let _ = sender.send(index);
        });
    }
    let ended = receiver.recv().expect("a twin ends");
    let code = twins[ended].wait().expect("it ends").code();
    let goes_on = twins[1 - ended].try_wait().expect("it can be asked").is_none();
    for twin in &mut twins {
        let _ = twin.kill();
        let _ = twin.wait();
    }
    assert_eq!((code, goes_on), (Some(2), true));
}

#[test]
fn a_second_team_of_the_same_name_and_port_is_refused_with_both_instances() {
    let world = World::new();
    let config = world.configure("first.toml", 1, 0, "");
    let (mut first, mut events, started) = world.node(&config);
    assert_eq!(next(&mut events)["event"], "view");
    fails(&["node", "--config", &config], b"", 2, "a group \"prices\" runs already: member 0 of its instance ");
    let text = String::from_utf8_lossy(&run(&["node", "--config", &config], b"").stderr).into_owned();
    assert!(text.contains(started["address"].as_str().expect("an address")), "{text}");
    assert!(text.contains("would form instance ") && !text.contains("here and"), "{text}");
    // A team of another size hears what differs. It is larger than the group of one, which may be the mistake.
    let (_second, mut events, _) = world.node(&world.configure("second.toml", 3, 1, ""));
    let differs = loop {
        let event = next(&mut events);
        if event["event"] == "configuration_differs" {
            break event;
        }
    };
    assert_eq!(differs["differences"][0]["key"], "group.members", "{differs}");
    assert!(first.0.try_wait().expect("it can be asked").is_none(), "the first goes on");
}

#[test]
fn the_default_name_is_no_silent_choice() {
    let world = World::new();
    let config = world.path().join("bourdon.toml");
    let (address, runtime) = (&world.address, world.runtime());
    let text = format!("[group]\naddress = \"{address}\"\n[threads]\ndirectory = \"{runtime}\"\n");
    std::fs::write(&config, text).expect("it can be written");
    let mut node = bourdon(&["node", "--json", "--config", &config.display().to_string()]).spawn().expect("it runs");
    let mut events = BufReader::new(node.stdout.take().expect("piped"));
    assert_eq!(next_of_all(&mut events)["is_default_name"], true);
    assert_eq!(next(&mut events)["event"], "view");
    let _ = node.kill();
    let mut text = String::new();
    node.stderr.take().expect("piped").read_to_string(&mut text).expect("readable");
    node.wait().expect("it ends");
    assert!(text.contains("group.name is the default") && text.contains("is instance "), "{text}");
}
