//! `subscribe --archive` and `bourdon archive` as their users run them.

use crate::common::{Running, World, fails, next, output, run, signal, subscribe};
use bourdon_log::{Directory, Log, Settings};
use serde_json::Value;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

const COUNT: usize = 500;
/// Longer than anything here takes on a loaded host; reached only by failing tests.
const PATIENCE: Duration = Duration::from_secs(90);

fn line(number: usize) -> String {
    format!("line {number} {}", "x".repeat(number % 90))
}

/// A directory with what a subscriber recorded, and the lines of its two topics.
fn recorded(world: &World) -> (PathBuf, String, String) {
    let config = world.configure("node.toml", 1, 0, "");
    let (_node, mut events, _) = world.node(&config);
    next(&mut events); // the view
    let directory = world.path().join("archive");
    let (count, path) = ((2 * COUNT).to_string(), directory.display().to_string());
    let arguments = ["prices", "md.**", "--config", &config, "--count", &count, "--archive", &path];
    let (mut subscriber, mut talk) = subscribe(&arguments);
    std::thread::spawn(move || std::io::copy(&mut talk, &mut std::io::sink()));
    let lines = [0, COUNT].map(|from| (from..from + COUNT).map(|number| line(number) + "\n").collect::<String>());
    for (topic, lines) in [("md.es", &lines[0]), ("md.nq", &lines[1]), ("other", &lines[0])] {
        let published = run(&["publish", "prices", topic, "--config", &config], lines.as_bytes());
        assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    }
    assert!(output(&mut subscriber) == lines.concat().as_bytes(), "recording changes nothing of the output");
    let [first, second] = lines;
    (directory, first, second)
}

fn archive(arguments: &[&str], directory: &Path) -> Output {
    run(&[&["archive", arguments[0], &directory.display().to_string()], &arguments[1..]].concat(), b"")
}

fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn what_was_recorded_is_replayed() {
    let world = World::new();
    let (directory, first, second) = recorded(&world);
    let described = object(&archive(&["describe", "--json"], &directory));
    assert_eq!((&described["group"], &described["messages"]), (&"prices".into(), &(2 * COUNT).into()));
    assert_eq!(described["topics"], serde_json::json!({ "md.es": COUNT, "md.nq": COUNT }));
    assert_eq!((&described["lost"], &described["damaged"]), (&0.into(), &0.into()));
    let verified = archive(&["verify", "--json"], &directory);
    assert!(verified.status.success() && object(&verified)["ok"] == true, "{verified:?}");
    let replayed = |arguments: &[&str]| archive(&[&["replay"], arguments].concat(), &directory).stdout;
    assert!(replayed(&[]) == (first.clone() + &second).as_bytes(), "all lines");
    assert!(replayed(&["md.nq"]) == second.as_bytes(), "by topic");
    assert!(replayed(&["*.es", "--rate", "x1000"]) == first.as_bytes(), "at a pace");
    // Position 0 is where the recorder began.
    assert_eq!(replayed(&["--from", "1", "--to", "3"]), (line(0) + "\n" + &line(1) + "\n").as_bytes());
    assert_eq!(replayed(&["--count", "1", "--frames"]), [&[7, 0, 0, 0], line(0).as_bytes()].concat());
    let rows = String::from_utf8(replayed(&["--json"])).expect("text");
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).expect("an object")).collect();
    for (number, row) in rows.iter().enumerate() {
        let expected = (&Value::from(line(number)), &Value::from(number), &Value::from(number + 1));
        assert_eq!((&row["payload"], &row["order"], &row["position"]), expected);
    }
    let since = rows[COUNT]["send_time_ns"].to_string();
    assert!(replayed(&["--since", &since]).ends_with(second.as_bytes()), "by time");
    assert!(!replayed(&["--until", &since]).ends_with(second.as_bytes()), "by time");
    let file = world.path().join("export.json").display().to_string();
    assert!(archive(&["export", "--output", &file], &directory).status.success());
    assert_eq!(std::fs::read_to_string(&file).expect("written").lines().count(), 2 * COUNT + 1);
    fails(&["archive", "export", &directory.display().to_string(), "--output", &file], b"", 2, "does not exist");
    let pruned = object(&archive(&["prune", "--bytes", "0", "--json"], &directory));
    assert_eq!((&pruned["removed"], &pruned["segments"]), (&0.into(), &1.into()), "the last segment stays");
}

#[test]
fn what_can_not_be_recorded_or_read_is_refused() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let path = world.path().join("archive");
    let name = path.display().to_string();
    let locked = Directory::lock(&path).expect("it is ours");
    let arguments = ["subscribe", "prices", "**", "--config", &config, "--archive", &name];
    fails(&arguments, b"", 2, "another process writes to it");
    drop(locked);
    fails(&["archive", "verify", &name], b"", 2, "there is no log in this directory");
    fails(&["archive", "describe", "/no/such"], b"", 2, "name a directory");
    fails(&["archive", "prune", &name], b"", 2, "--bytes");
    fails(&["archive", "prune", &format!("{name}/none"), "--bytes", "0"], b"", 2, "name a directory");
    // Another instance's archive is refused, and unchanged.
    let mut log = Log::open(Directory::lock(&path).expect("ours"), Settings::new(7)).expect("it opens");
    log.append(0, 0, b"not an entry").expect("it takes it");
    log.close().expect("it closes");
    let unknown = archive(&["verify", "--json"], &path);
    assert_eq!((unknown.status.code(), &object(&unknown)["unknown"]), (Some(1), &1.into()));
    let (_node, mut events, _) = world.node(&config);
    next(&mut events);
    let (mut subscriber, mut talk) = subscribe(&arguments[1..]);
    assert!(run(&["publish", "prices", "es", "--config", &config], b"one\n").status.success());
    assert_eq!(subscriber.0.wait().expect("it ends").code(), Some(2));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut talk, &mut text).expect("readable");
    assert!(text.contains("name an empty directory for this instance"), "{text}");
}

#[test]
fn a_recorder_that_was_killed_goes_on_in_its_archive() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (_node, mut events, _) = world.node(&config);
    next(&mut events);
    let directory = world.path().join("archive");
    let path = directory.display().to_string();
    let arguments = ["prices", "es", "--config", &config, "--archive", &path];
    let lines = [0, COUNT].map(|from| (from..from + COUNT).map(|number| line(number) + "\n").collect::<String>());
    let publish = |lines: &String| {
        assert!(run(&["publish", "prices", "es", "--config", &config], lines.as_bytes()).status.success());
    };
    let (mut first, mut talk) = subscribe(&arguments);
    std::thread::spawn(move || std::io::copy(&mut talk, &mut std::io::sink()));
    let mut stdout = first.0.stdout.take().expect("piped");
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    publish(&lines[0]);
    // Once a reader sees them they are in the kernel's pages, and survive the process.
    let is_recorded = || {
        let described = archive(&["describe", "--json"], &directory);
        described.status.success() && object(&described)["messages"] == COUNT
    };
    assert!((0..2000).any(|_| is_recorded()), "all messages are recorded");
    first.0.kill().expect("it runs");
    first.0.wait().expect("it ends");
    let count = COUNT.to_string();
    let (mut second, mut talk) = subscribe(&[&arguments[..], &["--count", &count]].concat());
    std::thread::spawn(move || std::io::copy(&mut talk, &mut std::io::sink()));
    publish(&lines[1]);
    // A free observer that comes late may first get what is still retained.
    output(&mut second);
    let replayed = String::from_utf8(archive(&["replay"], &directory).stdout).expect("text");
    assert!(replayed.starts_with(&lines[0]) && replayed.lines().count() == 2 * COUNT);
    assert_eq!(object(&archive(&["describe", "--json"], &directory))["recordings"], 2);
}

/// Each of 200 damages is found, with its position: one byte of a record is changed each time.
#[test]
fn verify_finds_each_of_200_damages() {
    let world = World::new();
    let path = world.path().join("archive");
    let settings = Settings::new(7);
    let settings = Settings { segment_bytes: 65_536, ..settings };
    let mut log = Log::open(Directory::lock(&path).expect("ours"), settings).expect("it opens");
    let payload = |position: u64| [(position % 255) as u8 + 1; 700];
    let mut places = Vec::new();
    for position in 0..400_u64 {
        log.append(1, position, &payload(position)).expect("it takes it");
        if position % 3 == 0 {
            log.sync().expect("it syncs");
        }
        places.push(log.segments().len());
    }
    log.close().expect("it closes");
    let mut rng = fastrand::Rng::with_seed(5);
    for damage in 0..200_u64 {
        let position = rng.u64(..400);
        let segment = path.join(format!("{:016x}.segment", places[position as usize]));
        let whole = std::fs::read(&segment).expect("readable");
        let found = whole
            .windows(700)
            .enumerate()
            .find(|(at, bytes)| *bytes == payload(position) && whole[at - 32..at - 24] == position.to_le_bytes());
        let start = found.expect("the record is in its segment").0 - 48;
        let mut damaged = whole.clone();
        damaged[start + rng.usize(..748)] ^= 1 << (damage % 8);
        std::fs::write(&segment, &damaged).expect("it can be written");
        let verified = archive(&["verify", "--json"], &path);
        assert_eq!(verified.status.code(), Some(1));
        let found = &object(&verified)["damage"];
        assert_eq!(found.as_array().map(Vec::len), Some(1), "position {position}, byte {start}: {found}");
        assert_eq!((&found[0]["from"], &found[0]["to"]), (&position.into(), &(position + 1).into()));
        std::fs::write(&segment, &whole).expect("it can be written");
    }
}

/// A node, and a recorder of all that is published there.
struct Recorded {
    world: World,
    config: String,
    directory: PathBuf,
    _node: Running,
    recorder: Running,
    published: usize,
}

impl Recorded {
    fn new(old: &str, new: &str) -> Self {
        let world = World::new();
        let config = world.configure("node.toml", 1, 0, "");
        let text = std::fs::read_to_string(&config).expect("readable");
        std::fs::write(&config, text.replace(old, new)).expect("it can be written");
        let (node, mut events, _) = world.node(&config);
        next(&mut events); // the view
        let directory = world.path().join("archive");
        let path = directory.display().to_string();
        let (mut recorder, talk) = subscribe(&["prices", "**", "--config", &config, "--archive", &path]);
        discard(recorder.0.stdout.take().expect("piped"));
        discard(talk);
        Self { world, config, directory, _node: node, recorder, published: 0 }
    }

    /// Publishes so many numbered lines of this topic, as long as a datagram, and waits until they are recorded.
    fn publish(&mut self, topic: &str, count: usize) -> String {
        let lines = self.send(topic, count);
        let begun = Instant::now();
        loop {
            let described = archive(&["describe", "--json"], &self.directory);
            if described.status.success() && object(&described)["messages"] == self.published {
                return lines;
            }
            assert!(begun.elapsed() < PATIENCE, "{described:?}");
        }
    }

    fn send(&mut self, topic: &str, count: usize) -> String {
        let number = |number| format!("{number} {}\n", "x".repeat(1_000));
        let lines: String = (self.published..self.published + count).map(number).collect();
        let published = run(&["publish", "prices", topic, "--config", &self.config], lines.as_bytes());
        assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
        self.published += count;
        lines
    }

    fn subscribe(&self, arguments: &[&str]) -> (Running, impl BufRead + Send + use<>) {
        let path = self.directory.display().to_string();
        subscribe(&[&["prices", "md.**", "--config", &self.config, "--history", &path], arguments].concat())
    }
}

fn discard(mut from: impl Read + Send + 'static) {
    std::thread::spawn(move || std::io::copy(&mut from, &mut std::io::sink()));
}

#[test]
fn a_subscription_goes_on_from_the_archive_to_live_and_from_its_position_without_gap_or_duplicate() {
    let mut recorded = Recorded::new("", "");
    let file = recorded.world.path().join("position").display().to_string();
    let mut lines = recorded.publish("md.es", 200);
    recorded.publish("other", 50);
    let (mut first, talk) = recorded.subscribe(&["--position", &file, "--count", "300"]);
    discard(talk);
    lines += &recorded.publish("md.es", 200);
    let mut written = String::from_utf8(output(&mut first)).expect("text");
    // What was published while no subscriber ran is in the archive.
    lines += &recorded.publish("md.nq", 100);
    let (mut second, talk) = recorded.subscribe(&["--position", &file, "--count", "300"]);
    discard(talk);
    lines += &recorded.publish("md.es", 100);
    written += &String::from_utf8(output(&mut second)).expect("text");
    assert!(written == lines, "{} of {} lines", written.lines().count(), lines.lines().count());
    let from = |place: &str, count: &str| {
        let (mut subscriber, talk) = recorded.subscribe(&["--from", place, "--count", count]);
        discard(talk);
        String::from_utf8(output(&mut subscriber)).expect("text")
    };
    // Position 0 is where the recorder began.
    assert!(lines.ends_with(&from("position:251", "400")), "of the archive, whatever was published on other topics");
    let rows = String::from_utf8(archive(&["replay", "--json"], &recorded.directory).stdout).expect("text");
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).expect("an object")).collect();
    let last = &rows[rows.len() - 1]["send_time_ns"];
    let count = rows.iter().filter(|row| row["send_time_ns"] == *last).count().to_string();
    assert!(lines.ends_with(&from(&format!("time:{last}"), &count)));
}

/// What came live follows a gap until the recorder has recorded what lies between.
#[test]
fn a_subscription_waits_for_a_recorder_that_lags() {
    let mut recorded = Recorded::new("", "");
    let mut lines = recorded.publish("md.es", 50);
    signal(&recorded.recorder.0, "STOP");
    lines += &recorded.send("md.es", 50);
    let (mut subscriber, talk) = recorded.subscribe(&["--count", "150"]);
    discard(talk);
    lines += &recorded.send("md.es", 50);
    recorded.send("md.es", 50); // were there a gap, it would still end
    signal(&recorded.recorder.0, "CONT");
    let written = String::from_utf8(output(&mut subscriber)).expect("text");
    assert!(written == lines, "{} of {} lines", written.lines().count(), lines.lines().count());
}

/// It is stopped for so long that its members no longer have what it lacks.
#[test]
fn a_subscription_that_fell_behind_returns_to_the_archive() {
    let short = "[limits]\nlog_bytes = 1048576\nreceive_log_bytes = 1048576\n[network]\n\
                 receive_buffer_bytes = 262144\n[threads]";
    let mut recorded = Recorded::new("[threads]", short);
    let mut lines = recorded.publish("md.es", 100);
    let (mut subscriber, mut talk) = recorded.subscribe(&["--count", "5200"]);
    let reader = subscriber.0.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(reader).expect("text"));
    lines += &recorded.publish("md.es", 100);
    let mut says = |what: &str| {
        let mut text = String::new();
        while !text.contains(what) {
            assert!(talk.read_line(&mut text).expect("readable") > 0, "{text}");
        }
    };
    says("live from order number");
    signal(&subscriber.0, "STOP");
    for _ in 0..10 {
        lines += &recorded.publish("md.es", 500); // the members' log has room for so much, and the recorder keeps up
    }
    signal(&subscriber.0, "CONT");
    says("has lost messages, and reads the archive");
    discard(talk);
    let written = reader.join().expect("it ends");
    assert!(written == lines, "{} of {} lines", written.lines().count(), lines.lines().count());
}

#[test]
fn a_subscription_that_can_not_go_on_is_refused() {
    let mut recorded = Recorded::new("members = 1", "members = 1\norder = \"fifo\"");
    let (mut subscriber, mut talk) = recorded.subscribe(&["--from", "live"]);
    recorded.publish("md.es", 1);
    assert_eq!(subscriber.0.wait().expect("it ends").code(), Some(2));
    let mut text = String::new();
    talk.read_to_string(&mut text).expect("text");
    assert!(text.contains("an archive needs a group in total order"), "{text}");
    let path = recorded.world.path().join("position");
    let (file, directory) = (path.display().to_string(), recorded.directory.display().to_string());
    let place = ["subscribe", "prices", "**", "--config", &recorded.config];
    let with = |more: &[&str], expected: &str| fails(&[&place, more].concat(), b"", 2, expected);
    with(&["--history", "/no/such"], "/no/such");
    with(&["--position", &file], "--history");
    with(&["--history", &directory, "--from", "soon"], "oldest, live, position:N or time:NS");
    std::fs::write(&path, "nonsense").expect("it can be written");
    with(&["--history", &directory, "--position", &file], "is no position of a subscription");
    std::fs::write(&path, r#"{"instance":1,"order":5,"archive":0}"#).expect("it can be written");
    with(&["--history", &directory, "--position", &file], "the position is of instance 0000000000000001");
}
