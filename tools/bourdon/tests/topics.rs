//! Patterns of topics, and channels, as their users see them.

use crate::common::{Running, World, bourdon, fails, next, output, run, signal, subscribe};
use bourdon::id::TopicId;
use bourdon::settings::Role;
use bourdon::{Deadline, Node, Settings, Topic};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdout;

/// Publishes lines, and returns once a majority has them.
fn publish(place: &[&str], topic: &str, lines: &str) {
    let published = run(&[&["publish", place[0], topic], &place[1..]].concat(), lines.as_bytes());
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
}

/// Starts a subscriber whose stderr no process reads.
fn quiet(arguments: &[&str]) -> Running {
    let (subscriber, mut talk) = subscribe(arguments);
    std::thread::spawn(move || std::io::copy(&mut talk, &mut std::io::sink()));
    subscriber
}

/// Reads events until the wanted one comes.
fn until(events: &mut BufReader<ChildStdout>, is_wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let event = next(events);
        if is_wanted(&event) {
            return event;
        }
    }
}

#[test]
fn patterns_choose_by_name_for_late_subscribers_too() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let uniform = std::fs::read_to_string(&config)
        .expect("readable")
        .replace("[process]", "reliability = \"uniform\"\n[process]");
    std::fs::write(&config, uniform).expect("it can be written");
    let (_node, ..) = world.node(&config);
    // Members, order and reliability are learned from the members.
    let place = ["prices", "--group-address", &world.address];
    let subscribers = |count: usize, patterns: &[&str], json: bool| {
        let count = count.to_string();
        let more = if json { &["--json"][..] } else { &[] };
        quiet(&[&["prices"], patterns, &place[1..], &["--count", &count], more].concat())
    };
    let mut exact = subscribers(2, &["md.es.trades"], false);
    let mut prefix = subscribers(5, &["md.**"], false);
    let mut wild = subscribers(3, &["md.*.trades"], true);
    let mut several = subscribers(3, &["news", "md.es.*"], false);
    publish(&place, "md.es.trades", "1\n");
    publish(&place, "md.nq.trades", "2\n");
    publish(&place, "md", "3\n");
    publish(&place, "md.es.quotes.level1", "4\n");
    publish(&place, "news", "5\n");
    let mut late = subscribers(2, &["md.*.*"], false);
    publish(&place, "news.sports", "6\n");
    publish(&place, "md.es.quotes", "7\n");
    publish(&place, "md.es.trades", "8\n");
    assert_eq!(output(&mut exact), b"1\n8\n");
    assert_eq!(output(&mut prefix), b"1\n2\n4\n7\n8\n");
    assert_eq!(output(&mut several), b"1\n5\n7\n");
    assert_eq!(output(&mut late), b"7\n8\n");
    let rows = String::from_utf8(output(&mut wild)).expect("text");
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).expect("an object a line")).collect();
    let topics: Vec<_> =
        rows.iter().map(|row| (&row["topic"], &row["payload"], &row["sequence"], &row["sender"])).collect();
    let row = |topic: &str, payload: &str, sequence: u64| (json!(topic), json!(payload), json!(sequence), json!(0));
    let expected = [row("md.es.trades", "1", 0), row("md.nq.trades", "2", 1), row("md.es.trades", "8", 7)];
    let expected: Vec<_> = expected.iter().map(|(a, b, c, d)| (a, b, c, d)).collect();
    assert_eq!(topics, expected);
}

#[test]
fn a_message_without_a_name_goes_by_its_id_and_patterns_report_what_they_cannot_match() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (_node, ..) = world.node(&config);
    let mut exact = quiet(&["prices", "md.es", "--config", &config, "--count", "1", "--json"]);
    let (mut wild, mut talk) = subscribe(&["prices", "md.*", "--config", &config, "--count", "1"]);
    // An application that publishes by id.
    let mut settings = Settings::load(config.as_ref()).expect("it is good");
    settings.process.role = Role::Client;
    let client = Node::open(&settings).expect("it opens");
    let mut publication = client.publication().expect("there is room");
    client.join().expect("it begins");
    let number = publication
        .publish(&Topic::of_id(TopicId::of("md.es")), b"nameless", Deadline::NEVER)
        .expect("a member takes it");
    publication.wait_acknowledged(number, Deadline::NEVER).expect("it is taken");
    publish(&["prices", "--config", &config], "md.nq", "named\n");
    let row: Value = serde_json::from_slice(&output(&mut exact)).expect("one object");
    assert_eq!((&row["payload"], &row["topic"]), (&json!("nameless"), &json!("md.es")));
    assert_eq!(output(&mut wild), b"named\n");
    let mut text = String::new();
    while !text.contains("carry no name") {
        assert_ne!(talk.read_line(&mut text).expect("readable"), 0, "no warning: {text}");
    }
}

/// One node with a stale file, or one forged heartbeat, ended every subscriber of the group.
#[test]
fn issue_a_subscriber_that_came_late_did_not_report_where_it_began() {
    let world = World::new();
    let config = world.configure("0.toml", 1, 0, "");
    let (_node, mut events, _) = world.node(&config);
    while next(&mut events)["event"] != "view" {}
    let publish = |lines: &[u8]| run(&["publish", "prices", "md.es", "--config", &config], lines);
    assert!(publish(b"one\ntwo\n").status.success());
    let (mut subscriber, mut talk) = subscribe(&["prices", "md.es", "--config", &config, "--count", "1", "--json"]);
    assert!(publish(b"three\n").status.success());
    let mut text = String::new();
    while !text.contains("begins with message 2 of member 0") {
        assert_ne!(talk.read_line(&mut text).expect("readable"), 0, "it ended early: {text}");
    }
    let lines = String::from_utf8(output(&mut subscriber)).expect("text");
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["sequence"]), (&"begins".into(), &2.into()), "{lines:?}");
    assert_eq!(lines[1]["payload"], "three");
}

#[test]
fn a_process_configured_otherwise_ends_no_subscriber() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (_node, ..) = world.node(&config);
    let (mut subscriber, mut talk) = subscribe(&["prices", "**", "--config", &config, "--count", "1"]);
    let other = world.configure("other.toml", 2, 0, ""); // a group of one does not start beside another
    let fifo = std::fs::read_to_string(&other).expect("readable").replace("[process]", "order = \"fifo\"\n[process]");
    std::fs::write(&other, fifo).expect("it can be written");
    let (other, ..) = world.node(&other);
    let mut text = String::new();
    while !text.contains("must be the same everywhere") {
        assert_ne!(talk.read_line(&mut text).expect("readable"), 0, "it ended: {text}");
    }
    std::thread::spawn(move || std::io::copy(&mut talk, &mut std::io::sink()));
    drop(other); // a client would publish in the group of the member that it hears first
    publish(&["prices", "--config", &config], "md", "1\n");
    assert_eq!(output(&mut subscriber), b"1\n");
}

#[test]
fn names_and_patterns_that_are_none_are_refused() {
    let world = World::new();
    let channel = |address: &str| format!("[[channel]]\nname = \"trades\"\naddress = \"{address}\"\n");
    let config = world.configure("good.toml", 1, 0, &channel("239.1.2.3:7500"));
    fails(&["publish", "prices", "md..es", "--config", &config], b"", 2, "no part is empty");
    fails(&["publish", "prices", "md.*", "--config", &config], b"", 2, "can't stand in a name");
    fails(&["subscribe", "prices", "md.>", "--config", &config], b"", 2, "write `**`");
    fails(&["subscribe", "prices", "--config", &config], b"", 2, "<PATTERN>");
    fails(&["subscribe", "prices/quotes", "**", "--config", &config], b"", 2, "the configuration names trades");
    fails(&["node", "--channel", "quotes", "--config", &config], b"", 2, "the configuration names trades");
    let same = world.configure("same.toml", 1, 0, &channel(&world.address));
    fails(&["node", "--config", &same], b"", 2, "is the group itself's address");
    let unknown = world.configure("unknown.toml", 1, 0, &(channel("239.1.2.3:7500") + "colour = \"red\"\n"));
    fails(&["node", "--config", &unknown], b"", 2, "colour");
    let topics = std::fs::read_to_string(&config).expect("readable").replace("members", "topics = [\"a b\"]\nmembers");
    std::fs::write(&config, topics).expect("it can be written");
    fails(&["node", "--config", &config], b"", 2, "group.topics: \"a b\"");
}

/// Two members of a group and of its channel; the second leaves the channel and comes back while messages flow.
#[test]
fn a_channel_is_left_and_joined_while_the_node_runs() {
    let world = World::new();
    let (ip, port) = world.address.split_once(':').expect("it has a port");
    let ip = ip.replacen("239.77", "239.78", 1);
    let channel = format!("[[channel]]\nname = \"trades\"\naddress = \"{ip}:{port}\"\nreliability = \"uniform\"\n");
    let configs = [0, 1].map(|rank| world.configure(&format!("{rank}.toml"), 2, rank, &channel));
    let (_first, mut events, _) = world.node(&configs[0]);
    let (second, mut others, _) = world.node(&configs[1]);
    let of_channel = |event: &Value| event["channel"] == "trades";
    until(&mut events, |event| of_channel(event) && event["members"] == json!([0, 1]));
    until(&mut others, |event| of_channel(event) && event["members"] == json!([0, 1]));
    const COUNT: usize = 30;
    let count = COUNT.to_string();
    let mut subscriber = quiet(&["prices/trades", "**", "--config", &configs[0], "--count", &count]);
    // The group's own stream hears nothing of the channel, and the other way round.
    let mut own = quiet(&["prices", "**", "--config", &configs[0], "--count", "1"]);
    let mut client = bourdon(&["publish", "prices/trades", "md.es", "--config", &configs[0]]).spawn().expect("it runs");
    let mut lines = client.stdin.take().expect("piped");
    let mut client = Running(client);
    let mut some = |from: usize| {
        (from..from + COUNT / 3).for_each(|number| writeln!(lines, "{number}").expect("it reads"));
    };
    some(0);
    world.configure("1.toml", 2, 1, "");
    signal(&second.0, "USR1");
    let left = until(&mut others, |event| event["event"] == "left");
    assert!(of_channel(&left), "{left}");
    assert!(of_channel(&until(&mut others, |event| event["event"] == "stopped")));
    until(&mut events, |event| of_channel(event) && event["members"] == json!([0]));
    some(COUNT / 3);
    let view = run(&["view", "prices", "--json", "--directory", &world.runtime()], b"");
    let view: Value = serde_json::from_slice(&view.stdout).expect("one object");
    let mut groups: Vec<_> =
        view["nodes"].as_array().expect("a list").iter().map(|node| node["group"].clone()).collect();
    groups.sort_by_key(Value::to_string);
    assert_eq!(groups, ["prices", "prices", "prices/trades"], "a process that left the channel is still in the group");
    world.configure("1.toml", 2, 1, &channel);
    signal(&second.0, "USR1");
    until(&mut events, |event| of_channel(event) && event["members"] == json!([0, 1]));
    until(&mut others, |event| of_channel(event) && event["members"] == json!([0, 1]));
    some(COUNT / 3 * 2);
    drop(lines);
    assert!(client.0.wait().expect("it ends").success());
    publish(&["prices", "--config", &configs[0]], "md.es", "own\n");
    let expected: String = (0..COUNT).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&output(&mut subscriber)), expected);
    assert_eq!(output(&mut own), b"own\n");
    // A barrier of the channel is the channel's.
    let synced = run(&["sync", "prices/trades", "--json", "--directory", &world.runtime()], b"");
    let synced: Value = serde_json::from_slice(&synced.stdout).expect("one object");
    assert_eq!((&synced["group"], &synced["phase"]), (&json!("prices/trades"), &json!(1)));
    assert!(of_channel(&until(&mut events, |event| event["event"] == "synced")));
}
