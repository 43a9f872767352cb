//! `node`, `stat`, `publish` and `subscribe` as their users run them: processes, sockets, signals, exit codes.

use crate::common::{self, Running, World, bourdon, fails, next, next_of_all, output, run, signal};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdout, Command, Stdio};

/// Starts a subscriber to the one topic and waits until it observes the group.
fn subscribe(arguments: &[&str]) -> Running {
    let (subscriber, mut talk) = common::subscribe(&[&["prices", "es"], arguments].concat());
    std::thread::spawn(move || std::io::copy(&mut talk, &mut std::io::sink()));
    subscriber
}

#[test]
fn what_is_published_is_what_subscribers_get() {
    let world = World::new();
    let configs = [0, 1].map(|rank| world.configure(&format!("{rank}.toml"), 2, rank, ""));
    let (_first, mut events, _) = world.node(&configs[0]);
    let (_second, ..) = world.node(&configs[1]);
    assert_eq!(next(&mut events)["members"], serde_json::json!([0, 1]));
    let lines: String = (0..1000).map(|number| format!("line {number} {}\n", "x".repeat(number % 200))).collect();
    let place = ["--group-address", &world.address, "--interface", "lo"];
    let by_config = ["--config", &configs[0], "--count", "1000"];
    // One subscriber knows the configuration, the other learns it from the members.
    let mut informed = subscribe(&by_config);
    let mut learned = subscribe(&[&place[..], &["--count", "1000"]].concat());
    let mut framed = subscribe(&[&by_config[..], &["--frames"]].concat());
    let mut rows = subscribe(&[&by_config[..], &["--json"]].concat());
    let published = run(&[&["publish", "prices", "es", "--json"], &place[..]].concat(), lines.as_bytes());
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let report: Value = serde_json::from_slice(&published.stdout).expect("one object");
    assert_eq!(report["messages"], 1000);
    assert!(output(&mut informed) == lines.as_bytes(), "lines differ");
    assert!(output(&mut learned) == lines.as_bytes(), "lines differ");
    let framed = output(&mut framed);
    let expected: Vec<u8> =
        lines.lines().flat_map(|line| [&(line.len() as u32).to_le_bytes(), line.as_bytes()].concat()).collect();
    assert!(framed == expected, "frames differ");
    let rows = String::from_utf8(output(&mut rows)).expect("text");
    for (number, (row, line)) in rows.lines().zip(lines.lines()).enumerate() {
        let row: Value = serde_json::from_str(row).expect("an object a line");
        assert_eq!((&row["payload"], &row["order"]), (&line.into(), &number.into()));
    }
    // Frames in, another topic: subscribers of the first see nothing of it.
    let published = run(&[&["publish", "prices", "nq", "--frames"], &place[..]].concat(), &framed);
    assert!(published.status.success());
}

#[test]
fn lines_longer_than_a_datagram_arrive_whole() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (_node, ..) = world.node(&config);
    let mut subscriber = subscribe(&["--config", &config, "--count", "3"]);
    let line = |first: u8, length: usize| (0..length).map(|at| (first + (at % 26) as u8) as char).collect::<String>();
    let lines = [line(b'a', 5000), "short".to_owned(), line(b'A', 20_000), String::new()].join("\n");
    let place = ["publish", "prices", "es", "--group-address", &world.address];
    let published = run(&place, lines.as_bytes());
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    assert!(output(&mut subscriber) == lines.as_bytes(), "lines differ");
}

/// Starts a node that publishes what its stdin gives, and reads its events up to the first.
fn publisher(config: &str) -> (Running, BufReader<ChildStdout>) {
    let mut child = bourdon(&["node", "--config", config, "--json", "--publish", "es"]).spawn().expect("it runs");
    let mut events = BufReader::new(child.stdout.take().expect("piped"));
    let node = Running(child);
    assert_eq!(next(&mut events)["event"], "started");
    (node, events)
}

#[test]
fn a_node_publishes_what_its_stdin_gives_and_goes_on() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (mut node, mut events) = publisher(&config);
    let mut subscriber = subscribe(&["--config", &config, "--count", "1001"]);
    let lines: String = (0..1000).map(|number| format!("{number} {}\n", "x".repeat(number * 2))).collect();
    let mut stdin = node.0.stdin.take().expect("piped");
    stdin.write_all(lines.as_bytes()).expect("the node reads it");
    drop(stdin);
    let published = loop {
        let event = next(&mut events);
        if event["event"] == "published" {
            break event;
        }
    };
    assert_eq!((&published["messages"], &published["bytes"]), (&1000.into(), &(lines.len() - 1000).into()));
    let last = run(&["publish", "prices", "es", "--config", &config], b"last\n");
    assert!(last.status.success(), "the node serves clients on");
    assert!(output(&mut subscriber) == (lines + "last\n").as_bytes(), "lines differ");
    signal(&node.0, "TERM");
    assert!(node.0.wait().expect("it ends").success());
    fails(&["node", "--config", &config, "--publish", "es", "--frames"], &[9, 0, 0, 0, 1], 2, "ends within a frame");
}

#[test]
fn a_node_that_can_not_publish_yet_reports_it() {
    let world = World::new();
    let (mut node, mut events) = publisher(&world.configure("node.toml", 2, 0, ""));
    node.0.stdin.as_mut().expect("piped").write_all(b"line\n").expect("the node reads it");
    loop {
        let event = next_of_all(&mut events);
        if event["event"] == "publishing_waits" {
            assert_eq!(event["class"], "forming", "{event}");
            break;
        }
    }
}

/// Each is a client of its own that sends a goodbye.
#[test]
fn each_of_many_publishers_of_one_line_is_served() {
    let world = World::new();
    let configs = [0, 1, 2].map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, ""));
    let mut nodes: Vec<_> = configs.iter().map(|config| world.node(config)).collect();
    assert_eq!(next(&mut nodes[0].1)["members"], serde_json::json!([0, 1, 2]));
    let mut subscriber = subscribe(&["--config", &configs[0], "--count", "60"]);
    let publish = &|number: usize| {
        let published =
            run(&["publish", "prices", "es", "--config", &configs[number % 3]], format!("{number}\n").as_bytes());
        assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    };
    std::thread::scope(|scope| {
        (0..6).for_each(|worker| drop(scope.spawn(move || (0..10).for_each(|turn| publish(10 * worker + turn)))));
    });
    let text = String::from_utf8(output(&mut subscriber)).expect("text");
    let mut delivered: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
    delivered.sort_unstable();
    assert_eq!(delivered, (0..60).collect::<Vec<_>>());
}

#[test]
fn a_group_over_tcp_is_found_by_its_members_addresses() {
    let world = World::new();
    // Ports that the kernel gives to no socket by itself: it draws those from 32,768 on.
    let first = 10_000 + std::process::id() % 10_000 * 2;
    let peers = [first, first + 1].map(|port| format!("127.0.0.1:{port}"));
    let more = format!("[network]\ntransport = \"tcp\"\npeers = {peers:?}\n");
    let configs = [0, 1].map(|rank| world.configure(&format!("{rank}.toml"), 2, rank, &more));
    let (_first, mut events, started) = world.node(&configs[0]);
    assert_eq!(started["address"], peers[0]);
    let (_second, ..) = world.node(&configs[1]);
    assert_eq!(next(&mut events)["members"], serde_json::json!([0, 1]));
    fails(&["subscribe", "prices", "es", "--peers", &peers[0]], b"", 2, "list all 2 members");
    let mut informed = subscribe(&["--config", &configs[0], "--count", "3"]);
    let mut learned = subscribe(&["--peers", &peers.join(","), "--count", "3"]);
    let published = run(&["publish", "prices", "es", "--peers", &peers[1]], b"one\ntwo\n");
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let published = run(&["publish", "prices", "es", "--config", &configs[1]], b"three\n");
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    for subscriber in [&mut informed, &mut learned] {
        assert_eq!(String::from_utf8_lossy(&output(subscriber)), "one\ntwo\nthree\n");
    }
}

#[test]
fn a_node_shows_itself_and_leaves_nothing() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    for name in ["TERM", "INT", "HUP"] {
        let (mut node, mut events, started) = world.node(&config);
        assert_eq!((&started["event"], &started["rank"]), (&"started".into(), &0.into()));
        let stat = run(&["stat", "--json", "--directory", &world.runtime()], b"");
        let stat: Value = serde_json::from_slice(&stat.stdout).expect("one object");
        let shown = &stat["nodes"][0];
        assert_eq!((&shown["group"], &shown["pid"]), (&"prices".into(), &node.0.id().into()));
        assert!(shown["counters"]["delivered"].is_u64() && shown["admin_socket"] == started["admin_socket"]);
        let table = run(&["stat", "--all", "--directory", &world.runtime()], b"");
        assert!(String::from_utf8_lossy(&table.stdout).contains("longest_cycle_ns"));
        assert_eq!(next(&mut events)["event"], "view");
        let summary = run(&["stat", "--directory", &world.runtime()], b"");
        let summary = String::from_utf8_lossy(&summary.stdout).into_owned();
        assert!(summary.contains("healthy: view 1, 1 of 1 members"), "{summary}");
        let view = run(&["view", "--directory", &world.runtime()], b"");
        let view = String::from_utf8_lossy(&view.stdout).into_owned();
        assert!(view.contains("1 of 1 members, quorate"), "{view}");
        signal(&node.0, name);
        assert_eq!(next(&mut events)["event"], "stopped");
        assert_eq!(node.0.wait().expect("it ends").code(), Some(0));
        assert_eq!(world.names(), Vec::<String>::new());
    }
    let (mut node, ..) = world.node(&config);
    node.0.kill().expect("it runs");
    node.0.wait().expect("it ends");
    assert_eq!(world.names().len(), 2, "a killed node can't clear away");
    let stat = run(&["stat", "--json", "--directory", &world.runtime()], b"");
    assert_eq!(String::from_utf8_lossy(&stat.stdout), "{\"nodes\":[]}\n");
    assert_eq!(stat.status.code(), Some(2), "as `bourdon view`: none runs here");
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn an_administrator_stops_a_node() {
    let world = World::new();
    let (mut node, mut events, started) = world.node(&world.configure("node.toml", 1, 0, ""));
    let path = started["admin_socket"].as_str().expect("a path");
    let mut socket = std::os::unix::net::UnixStream::connect(path).expect("it listens");
    assert_eq!(next(&mut events)["event"], "view");
    socket.write_all(b"{\"request\":\"stop\"}\n").expect("it is read");
    assert_eq!(next(&mut events)["event"], "stopped");
    assert!(node.0.wait().expect("it ends").success());
}

#[test]
fn a_member_that_waits_for_the_first_view_names_the_members_it_waits_for() {
    let world = World::new();
    let configs = [0, 1].map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, ""));
    let (_first, mut events, _) = world.node(&configs[0]);
    let waiting = next_of_all(&mut events);
    assert_eq!((&waiting["event"], &waiting["missing"]), (&"waiting".into(), &serde_json::json!([1, 2])));
    assert!(waiting["waited_ns"].as_u64().is_some_and(|ns| ns >= 1_000_000_000), "{waiting}");
    let text = waiting["text"].as_str().unwrap_or_default();
    assert!(text.contains("not heard yet: 1, 2 (of 3 configured members)"), "{text}");
    let (_second, ..) = world.node(&configs[1]);
    while next_of_all(&mut events)["missing"] != serde_json::json!([2]) {}
    let at = ["view", "prices", "--directory", &world.runtime()];
    let view: Value = serde_json::from_slice(&run(&[&at[..], &["--json"]].concat(), b"").stdout).expect("one object");
    assert_eq!(view["nodes"][0]["view"]["missing"], serde_json::json!([2]));
    let text = String::from_utf8(run(&at, b"").stdout).expect("text");
    assert!(text.contains("waits for members 2") && text.contains("member 2  not heard yet"), "{text}");
}

#[test]
fn bad_configurations_end_with_2_and_say_why() {
    let world = World::new();
    for (more, expected) in [
        ("colour = \"red\"\n", "colour"),
        ("[faults]\ndrop_percent = 101.0\n", "faults.drop_percent is 101 %; it must be 0 to 100"),
        ("idle = \"sleepy\"\n", "sleepy"),
        ("core = 4711\n", "threads.core is 4711"),
        ("[network]\ninterface = \"10.0.0.1\"\n", "network.interface is \"10.0.0.1\", an address: give the name"),
        ("[limits]\nmtu_bytes = 100\n", "limits.mtu_bytes is 100; it must be 1280 to 65507"),
        ("subscription_ring_bytes = 4096\n", "threads.subscription_ring_bytes is 4096"),
    ] {
        fails(&["node", "--config", &world.configure("bad.toml", 1, 0, more)], b"", 2, expected);
    }
    fails(
        &["node", "--config", &world.configure("bad.toml", 2, 2, "")],
        b"",
        2,
        "process.rank is 2; it must be 0 to 1",
    );
    fails(&["node", "--config", "/nowhere.toml"], b"", 2, "name the file with --config");
    let config = world.configure("good.toml", 1, 0, "");
    // No file may have a byte, as on a full disk.
    let full = format!("ulimit -f 0; trap '' XFSZ; exec {} node --config {config}", env!("CARGO_BIN_EXE_bourdon"));
    let output = Command::new("sh").args(["-c", &full]).output().expect("sh is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let directory = world.runtime();
    assert!(stderr.contains(&format!("can't use {directory} for counters")), "{stderr}");
    assert!(stderr.contains("threads.directory"), "{stderr}");
    fails(&["publish", "other", "es", "--config", &config], b"", 2, "is about group \"prices\"");
    fails(&["publish", "prices", "es", "--group-address", "10.0.0.1:7000"], b"", 2, "not a multicast address");
    fails(&["subscribe", "prices", "es", "--interface", "lo"], b"", 2, "--group-address");
    // Each hint names an option that the command has.
    for command in [&["publish", "prices", "es"][..], &["subscribe", "prices", "es"], &["send", "prices", "--to", "0"]]
    {
        let place = ["--group-address", &world.address, "--interface", "no-such-if"];
        fails(&[command, &place].concat(), b"", 2, "--interface names one");
    }
    fails(&["stat", "--directory", "/nowhere"], b"", 2, "/nowhere");
}

#[test]
fn feedback_is_counted_by_loss_and_mode() {
    let counted = run(&["sim", "--feedback", "--observers", "20", "--json"], b"");
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    let report: Value = serde_json::from_slice(&counted.stdout).expect("one object");
    let rows = report["rows"].as_array().expect("a list");
    let named: Vec<_> = rows.iter().map(|row| [&row["loss"], &row["mode"]]).collect();
    assert_eq!(named.len(), 7, "{named:?}");
    assert_eq!((&named[5][0], &named[5][1]), (&&"correlated".into(), &&"nak-suppressed".into()));
    assert!(rows[..6].iter().all(|row| row["delivered"] == row["expected"] && row["expected"] == 40_000), "{rows:?}");
    // Publishers pace for the few slowest, whose requests and reports are a small part of the data.
    assert_eq!((&named[6][0], &named[6][1]), (&&"overload".into(), &&"nak-suppressed".into()));
    let number = |key: &str| rows[6][key].as_u64().expect("a number");
    assert_eq!(number("delivered") + number("reported_lost"), number("expected"));
    assert!(number("reports") > 0 && number("feedback_bytes") * 100 < number("data_bytes"), "{}", rows[6]);
    fails(&["sim", "--feedback", "--loss", "21"], b"", 2, "it must be 0 to 20");
    fails(&["sim", "--observers", "20"], b"", 2, "--feedback");
}

#[test]
fn clients_report_what_is_wrong() {
    let world = World::new();
    let place = ["prices", "es", "--group-address", &world.address];
    // No member is there for either command; they run at once, and each waits its five seconds.
    std::thread::scope(|scope| {
        for command in ["publish", "subscribe"] {
            let (place, address) = (&place, &world.address);
            scope.spawn(move || fails(&[&[command], &place[..]].concat(), b"x\n", 2, &format!("heard on {address}")));
        }
    });
    let (_node, ..) = world.node(&world.configure("node.toml", 1, 0, ""));
    let long = vec![b'x'; (1 << 20) + 1];
    fails(&[&["publish"], &place[..]].concat(), &long, 2, "line 1 is longer than");
    fails(&[&["publish", "--frames"], &place[..]].concat(), &[9, 0, 0, 0, 1], 2, "ends within a frame");
    let small = world.configure("other.toml", 1, 0, "[limits]\nmtu_bytes = 1300\n");
    let mut other = world.path().join("other");
    std::fs::create_dir(&other).expect("it can be made");
    other.push("bourdon.toml");
    std::fs::copy(small, &other).expect("it can be copied");
    let output = bourdon(&["subscribe", "prices", "es"]).current_dir(other.parent().expect("a directory")).output();
    let output = output.expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("configured otherwise"), "{text}");
}

#[test]
fn a_subscriber_ends_when_its_reader_has_gone() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (_node, ..) = world.node(&config);
    let mut subscriber = subscribe(&["--config", &config]);
    drop(subscriber.0.stdout.take());
    assert!(subscriber.0.wait().expect("it ends").success(), "a closed pipe is a good end");
    let subscriber = &mut subscribe(&["--config", &config]);
    signal(&subscriber.0, "TERM");
    assert!(subscriber.0.wait().expect("it ends").success());
}

#[test]
fn a_smaller_receive_buffer_than_asked_is_a_warning() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "[network]\nreceive_buffer_bytes = 500000000\n");
    // Without this capability no process gets more than net.core.rmem_max, root included.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", env!("CARGO_BIN_EXE_bourdon")]);
    command.args(["node", "--config", &config]).stderr(Stdio::piped());
    let Ok(child) = command.spawn() else { return crate::skipped::report("setpriv(1) is not installed") };
    let mut node = Running(child);
    let mut talk = BufReader::new(node.0.stderr.take().expect("piped"));
    let mut text = String::new();
    while !text.contains("member 0 of 1") {
        if talk.read_line(&mut text).expect("readable") == 0 {
            assert!(text.contains("setpriv"), "it ended early: {text}");
            return crate::skipped::report(text);
        }
    }
    assert!(text.contains("net.core.rmem_max=500000000"), "{text}");
    assert!(text.contains("the group is open"), "{text}");
    signal(&node.0, "TERM");
    assert!(node.0.wait().expect("it ends").success());
}

#[test]
fn a_view_is_shown_a_barrier_waited_for_and_a_dead_member_missed() {
    let world = World::new();
    let configs = [0, 1, 2].map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, ""));
    let (_first, mut events, _) = world.node(&configs[0]);
    let (_second, ..) = world.node(&configs[1]);
    let (mut third, ..) = world.node(&configs[2]);
    assert_eq!(next(&mut events)["members"], serde_json::json!([0, 1, 2]));
    let directory = ["--directory", &world.runtime()];
    for phase in 1..=2 {
        let synced = run(&[&["sync", "prices", "--json"], &directory[..]].concat(), b"");
        let synced: Value = serde_json::from_slice(&synced.stdout).expect("one object");
        assert_eq!((&synced["phase"], &synced["rank"]), (&phase.into(), &0.into()));
        while next(&mut events)["event"] != "synced" {} // on a loaded host a member may be suspected meanwhile
    }
    third.0.kill().expect("it runs");
    third.0.wait().expect("it ends");
    let mut view_event = Value::Null;
    while view_event["event"] != "view" {
        view_event = next(&mut events);
    }
    assert_eq!((&view_event["epoch"], &view_event["members"]), (&2.into(), &serde_json::json!([0, 1])));
    let view = run(&[&["view", "prices", "--json"], &directory[..]].concat(), b"");
    let view: Value = serde_json::from_slice(&view.stdout).expect("one object");
    let nodes = view["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 2);
    for node in nodes {
        assert_eq!((&node["view"]["epoch"], &node["view"]["majority"]), (&2.into(), &true.into()), "{node}");
        let present: Vec<_> = (0..3).map(|rank| node["view"]["members"][rank]["in_view"] == true).collect();
        assert_eq!(present, [true, true, false], "{node}");
    }
    let absent = run(&[&["view", "absent"], &directory[..]].concat(), b"");
    assert_eq!(absent.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("bourdon node"));
}

#[test]
fn direct_messages_reach_one_the_nearest_and_all() {
    let world = World::new();
    let configs: Vec<_> = (0..3).map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, "")).collect();
    let mut nodes: Vec<_> = configs.iter().map(|config| world.node(config)).collect();
    // Finds a member's line of stdout with this text; other lines come in between.
    let shows = |node: &mut (Running, BufReader<ChildStdout>, Value), text: &str| {
        loop {
            let line = next(&mut node.1);
            if line["event"] == "direct" {
                assert_eq!(line["payload"], text);
                return line;
            }
        }
    };
    let place = ["--group-address", &world.address];
    let send = |receivers: &[&str], stdin: &[u8]| {
        let output = run(&[&["send", "prices", "--json"], &place[..], receivers].concat(), stdin);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows =
            text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect::<Vec<Value>>();
        (output.status.code(), rows, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, rows, talk) = send(&["--to", "1", "hello"], b"");
    assert_eq!((code, rows.len()), (Some(0), 1), "{talk}");
    assert_eq!((&rows[0]["taken_by"], &rows[0]["failed"]), (&Value::from(1), &Value::Null));
    assert!(rows[0]["rtt_ns"].as_u64() > Some(0) && rows[0]["attempts"].as_u64() > Some(0), "{rows:?}");
    let shown = shows(&mut nodes[1], "hello");
    assert_eq!((&shown["broadcast"], &shown["rank"]), (&Value::from(false), &Value::Null));
    let (code, rows, talk) = send(&["--all-hosts"], b"one\ntwo\n");
    assert_eq!((code, rows.len()), (Some(0), 2), "{talk}");
    for node in &mut nodes {
        assert_eq!(shows(node, "one")["broadcast"], true);
        shows(node, "two");
    }
    // The nearest member takes the message, and the next nearest when the first ends in the middle.
    let mut child = bourdon(&[&["send", "prices", "--json", "--any"], &place[..]].concat()).spawn().expect("it runs");
    let mut rows = BufReader::new(child.stdout.take().expect("piped"));
    let mut stdin = child.stdin.take().expect("piped");
    writeln!(stdin, "first").expect("it reads");
    let nearest = next(&mut rows)["taken_by"].as_u64().expect("a member took it");
    signal(&nodes[nearest as usize].0.0, "KILL");
    writeln!(stdin, "second").expect("it reads");
    let second = next(&mut rows)["taken_by"].as_u64().expect("a member took it");
    assert_ne!(second, nearest);
    shows(&mut nodes[second as usize], "second");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
    let long = "x".repeat(1285);
    let at = ["send", "prices", "--group-address", &world.address];
    fails(&[&at[..], &["--any", &long]].concat(), b"", 2, "at most 1284 bytes");
    fails(&[&at[..], &["hello"]].concat(), b"", 2, "--all-hosts");
    fails(&[&at[..], &["--to", "9", "hello"]].concat(), b"", 2, "member 9 was not heard");
}

#[test]
fn a_source_specific_group_is_joined_by_source() {
    let mut world = World::new();
    world.address = world.address.replacen("239", "232", 1);
    let config = world.configure("node.toml", 1, 0, "[network]\nsources = [\"127.0.0.1\"]\n");
    let _node = world.node(&config);
    let place = ["--group-address", &world.address, "--source", "127.0.0.1"];
    let mut subscriber = subscribe(&[&place[..], &["--count", "2"]].concat());
    let published = run(&[&["publish", "prices", "es"], &place[..]].concat(), b"one\ntwo\n");
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let mut text = String::new();
    subscriber.0.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    assert_eq!(text, "one\ntwo\n");
    let at = ["subscribe", "prices", "es", "--group-address", &world.address];
    fails(&at, b"", 2, "--source");
    fails(&[&at[..], &["--source", "127.0.0.2"]].concat(), b"", 2, "no member of group");
}

#[test]
fn issue_an_observer_reported_nothing_after_every_member_was_killed() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (member, mut member_events, _) = world.node(&config);
    while next(&mut member_events)["event"] != "view" {}
    let text = std::fs::read_to_string(&config).expect("readable").replace("rank = 0", "role = \"observer\"");
    let observing = world.path().join("observer.toml");
    std::fs::write(&observing, text).expect("it can be written");
    let (_observer, mut events, _) = world.node(&observing.display().to_string());
    while next(&mut events)["event"] != "view" {}
    let directory = world.runtime();
    let seen = || -> Value {
        let view = run(&["view", "prices", "--json", "--directory", &directory], b"");
        let view: Value = serde_json::from_slice(&view.stdout).expect("one object");
        let nodes = view["nodes"].as_array().expect("a list");
        nodes.iter().find(|node| node["role"] == "observer").expect("it runs")["view"].clone()
    };
    let view = seen();
    assert_eq!((&view["majority"], &view["members"][0]["heard"]), (&true.into(), &true.into()), "{view}");
    drop(member); // SIGKILL
    let mut waiting = next_of_all(&mut events);
    while waiting["event"] != "waiting" {
        waiting = next_of_all(&mut events);
    }
    assert!(
        waiting["text"].as_str().is_some_and(|text| text.contains("0 of 1 members of view 1 are heard")),
        "{waiting}"
    );
    assert_eq!(waiting["missing"], serde_json::json!([0]), "{waiting}");
    let view = seen();
    assert_eq!((&view["majority"], &view["members"][0]["heard"]), (&false.into(), &false.into()), "{view}");
    assert!(view["members"][0]["silence_ns"].as_u64() >= Some(1_000_000_000), "{view}");
}
