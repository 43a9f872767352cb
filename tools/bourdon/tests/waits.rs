//! States in which a process waits: what it prints, to people and in JSON, and that it does so within two seconds.
//! `docs/waits.md` lists them all.

use crate::common::{Running, World, bourdon, next, next_of_all, run, signal};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Output;

/// No wait is reported later: by the process's own clock, so that a busy host changes nothing.
const REPORTED_WITHIN_NS: u64 = 2_000_000_000;

fn waits(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
    report["waits"].as_array().expect("a list").clone()
}

/// What a publisher of one line reports that can't publish: its exit code, and the first wait in its report.
fn blocked(arguments: &[&str], class: &str) -> Option<i32> {
    let output = run(&[&["publish", "prices", "es", "--json"], arguments].concat(), b"one\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let waits = waits(&output);
    assert_eq!(waits.first().map(|wait| &wait["class"]), Some(&class.into()), "{stderr}");
    assert!(waits[0]["waited_ns"].as_u64().is_some_and(|ns| ns < REPORTED_WITHIN_NS), "{waits:?}");
    assert!(stderr.contains("no message has been taken for 1."), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((&report["read"], &report["acknowledged"]), (&1.into(), &0.into()), "{report}");
    let gave_up = stderr.contains("gave up");
    assert_eq!(gave_up, stderr.contains("of 1 line read, 0 were accepted here and 0 acknowledged"), "{stderr}");
    output.status.code()
}

#[test]
fn a_member_that_hears_no_other_names_its_interface() {
    let world = World::new();
    let config = world.configure("0.toml", 3, 0, "");
    let (_node, mut events, _) = world.node(&config);
    let waiting = next_of_all(&mut events);
    assert_eq!((&waiting["event"], &waiting["hears_no_other"]), (&"waiting".into(), &true.into()), "{waiting}");
    let text = waiting["text"].as_str().unwrap_or_default();
    assert!(text.contains("no other process of the group is heard"), "{text}");
    assert!(waiting["waited_ns"].as_u64().is_some_and(|ns| ns < REPORTED_WITHIN_NS), "{waiting}");
}

#[test]
fn a_publisher_reports_what_it_waits_for_and_gives_up_when_it_was_asked_to() {
    let world = World::new();
    let place = ["--group-address", &world.address, "--interface", "lo"];
    assert_eq!(blocked(&place, "no_member_heard"), Some(2), "it ends by itself: there may be no such group");
    let patient = [&place[..], &["--timeout", "1.7"]].concat();
    let configs = [0, 1, 2].map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, ""));
    let (_first, mut events, _) = world.node(&configs[0]);
    assert_eq!(blocked(&patient, "forming"), Some(3));
    let others = [world.node(&configs[1]), world.node(&configs[2])];
    while next(&mut events)["event"] != "view" {}
    others.iter().for_each(|(node, ..)| signal(&node.0, "STOP"));
    while next(&mut events)["event"] != "no_majority" {}
    assert_eq!(blocked(&patient, "no_majority"), Some(3));
    others.iter().for_each(|(node, ..)| signal(&node.0, "CONT"));
    let published = run(&[&["publish", "prices", "es", "--json"], &place[..]].concat(), b"one\n");
    assert_eq!(published.status.code(), Some(0), "{}", String::from_utf8_lossy(&published.stderr));
}

#[test]
fn issue_a_view_of_a_stopped_node_took_five_seconds_and_showed_nothing_of_it() {
    let world = World::new();
    let (node, mut events, _) = world.node(&world.configure("0.toml", 1, 0, ""));
    while next(&mut events)["event"] != "view" {}
    signal(&node.0, "STOP");
    let at = ["view", "--directory", &world.runtime()];
    let output = run(&at, b"");
    let (text, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("NO ANSWER: it worked") && text.contains("ago, in view 1, 1 of 1 members"), "{text}");
    assert!(why.contains("did not answer within 1.5 s"), "{why}");
    signal(&node.0, "CONT");
}

#[test]
fn a_subscriber_reports_that_its_group_is_gone() {
    let world = World::new();
    let config = world.configure("0.toml", 1, 0, "");
    let (mut node, ..) = world.node(&config);
    let mut child = bourdon(&["subscribe", "prices", "**", "--json", "--config", &config]).spawn().expect("it runs");
    let mut talk = BufReader::new(child.stderr.take().expect("piped"));
    let mut events = BufReader::new(child.stdout.take().expect("piped"));
    let _subscriber = Running(child);
    let mut text = String::new();
    while !text.contains("observing") {
        text.clear();
        talk.read_line(&mut text).expect("readable");
    }
    node.0.kill().expect("it runs");
    let waiting = next_of_all(&mut events);
    assert_eq!((&waiting["event"], &waiting["majority"]), (&"waiting".into(), &false.into()), "{waiting}");
    // It has heard none for a second when the wait begins.
    assert!(waiting["waited_ns"].as_u64().is_some_and(|ns| ns < REPORTED_WITHIN_NS / 2), "{waiting}");
    while !text.contains("no majority") {
        text.clear();
        assert!(talk.read_line(&mut text).expect("readable") > 0, "people read it as well");
    }
}
