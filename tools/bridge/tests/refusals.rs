//! What a bridge refuses, with what the user must do, and what it waits for instead.

use crate::common::{Bridge, Group, Server, fails, until};
use bourdon::Topic;

/// A group of one member, its archive with one message, and a server with the stream.
struct World {
    group: Group,
    server: Server,
}

impl World {
    #[track_caller]
    fn new(subjects: &[&str]) -> Option<Self> {
        let mut group = Group::new(1);
        let server = Server::start(group.path())?;
        server.create(subjects);
        group.join();
        group.record(1);
        let mut publication = group.members[0].publication().expect("a member has one");
        let topic = Topic::<[u8]>::new("md.es").expect("a name");
        publication.publish(&topic, b"price", crate::common::PATIENCE).expect("the group takes it");
        until("the recorder records", || bourdon_archive::Archive::open(&group.archive()).is_ok());
        Some(Self { group, server })
    }

    fn instance(&self) -> String {
        format!("{:016x}", bourdon_archive::Archive::open(&self.group.archive()).expect("it is there").instance())
    }

    /// The arguments of a bridge from the group, but for one option.
    fn out(&self, option: &str, value: &str) -> Vec<String> {
        let (config, archive) = (self.group.configuration(1, 0), self.group.archive().display().to_string());
        let mut options = [
            ("--config", config.as_str()),
            ("--history", archive.as_str()),
            ("--nats", &self.server.url()),
            ("--stream", "PRICES"),
        ]
        .map(|(name, value)| [name.to_owned(), value.to_owned()]);
        options.iter_mut().filter(|[name, _]| name == option).for_each(|pair| pair[1] = value.to_owned());
        ["out", "prices", "**"].map(str::to_owned).into_iter().chain(options.into_iter().flatten()).collect()
    }
}

/// A configuration with one line changed.
fn changed(group: &Group, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(group.configuration(2, 1)).expect("it was written");
    let path = group.path().join("changed.toml");
    std::fs::write(&path, text.replace(from, to)).expect("it can be written");
    path.display().to_string()
}

#[test]
fn bad_arguments_are_refused() {
    let out = ["out", "prices", "**", "--stream", "S", "--history", "nowhere"];
    for (arguments, expected) in [
        (&["out"][..], "<GROUP>"),
        (&["out", "prices", "--stream", "S", "--history", "nowhere"], "<PATTERN>"),
        (&["out", "prices", "**", "--history", "nowhere"], "--stream"),
        (&["out", "prices", "**", "--stream", "S"], "--history"),
        (&["out", "prices", "a..b", "--stream", "S", "--history", "nowhere"], "a..b"),
        (&["in", "prices", "--stream", "S"], "--history"),
        (&["in", "prices", "--stream", "S", "--from-sequence", "x"], "--from-sequence"),
        (&[&out[..], &["--nats", "nats://host:port"]].concat(), "nats://host:port"),
        (&[&out[..], &["--config", "nowhere.toml"]].concat(), "nowhere.toml"),
        (&[&out[..], &["--group-address", "239.78.1.1:9", "--peers", "127.0.0.1:9"]].concat(), "--group-address"),
    ] {
        fails(arguments, expected);
    }
}

#[test]
fn a_group_that_can_not_be_carried_is_refused() {
    let group = Group::new(2);
    for (direction, from, to, expected) in [
        (
            "out",
            "[process]",
            "order = \"fifo\"\n[process]",
            "a bridge needs group.order = \"total\": the group has fifo",
        ),
        ("in", "[process]", "order = \"fifo\"\n[process]", "a bridge needs group.order = \"total\""),
        ("out", "\"uniform\"", "\"best-effort\"", "a bridge needs group.reliability = \"reliable\" or above"),
        ("out", "\"prices\"", "\"other\"", "is about group \"other\", not \"prices\""),
        ("in", "[process]", "[process]\nrole = \"observer\"", "a bridge into a group is one of its members"),
    ] {
        let config = changed(&group, from, to);
        let patterns: &[&str] = if direction == "out" { &["**"] } else { &[] };
        let options = ["--stream", "S", "--history", "nowhere", "--config", &config];
        fails(&[&[direction, "prices"], patterns, &options].concat(), expected);
    }
    let config = group.configuration(2, 1);
    fails(&["in", "prices", "--stream", "a b", "--from-sequence", "1", "--config", &config], "can't name a topic");
}

#[test]
fn a_stream_or_an_archive_that_does_not_fit_is_refused_on_the_way_out() {
    let Some(world) = World::new(&["bourdon.prices.>"]) else { return };
    fails(&world.out("--stream", "OTHER"), "there is no stream \"OTHER\": create it first");
    fails(&world.out("--history", "/nowhere/archive"), "/nowhere/archive");
    let elsewhere = [world.out("", ""), vec!["--subject-prefix=elsewhere".to_owned()]].concat();
    fails(&elsewhere, "stream \"PRICES\" takes the subjects bourdon.prices.>, and messages would have \"elsewhere.>\"");
    // Nothing was published in it so far.
    assert_eq!(world.server.last(), Some(0));
    world.server.publish_with("bourdon.prices.md.es", &[]);
    fails(&world.out("", ""), "is no bridge's: nothing else may publish in it");
    let place = |instance| [("Bourdon-Instance", instance), ("Bourdon-Epoch", "1"), ("Bourdon-Order", "7")];
    world.server.publish_with("bourdon.prices.md.es", &place("00000000000000ab"));
    fails(&world.out("", ""), "ends with instance 00000000000000ab of the group");
    world.server.publish_with("bourdon.prices.md.es", &place("00000000000000ab"));
    world.server.remove(3);
    fails(&world.out("", ""), "has no message 3, its last: it was removed");
    // The option begins with the archive's oldest message.
    world.server.publish_with("bourdon.prices.md.es", &place("00000000000000ab"));
    let bridge = Bridge::start(&[world.out("", ""), ["--new-instance", "--json"].map(str::to_owned).to_vec()].concat());
    until("the message is carried", || world.server.last() == Some(5));
    assert_eq!(bridge.end()["last"]["instance"], world.instance());
}

#[test]
fn a_server_that_can_not_be_reached_is_waited_for() {
    let Some(world) = World::new(&["bourdon.prices.>"]) else { return };
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("nats://{}", unused.local_addr().expect("it has one"));
    drop(unused);
    let bridge = Bridge::start(&[world.out("--nats", &url), vec!["--json".to_owned()]].concat());
    until("it reports its wait", || bridge.talk().contains("no server answers at 127.0.0.1:"));
    let counted = bridge.end();
    assert_eq!(counted["waits"][0]["for"], "server", "{counted}");
}

#[test]
fn a_stream_or_an_archive_that_does_not_fit_is_refused_on_the_way_in() {
    let mut group = Group::new(4);
    let Some(server) = Server::start(group.path()) else { return };
    server.create(&["bourdon.prices.>", "other.>"]);
    group.join();
    group.record(4);
    group.leave(1);
    let (config, archive, url) = (group.configuration(4, 3), group.archive().display().to_string(), server.url());
    let into = |history: [&str; 2], more: &[&str]| {
        let words = ["in", "prices", "--config", &config, "--nats", &url, "--stream", "PRICES"];
        [&words[..], &history, more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    fails(&into(["--history", "/nowhere/archive"], &[]), "/nowhere/archive");
    let other = World::new(&["other.>"]).expect("there is a server");
    fails(&into(["--history", &other.group.archive().display().to_string()], &[]), "and the group is instance");
    fails(&into(["--history", &archive], &["--from-sequence", "5"]), "ends at sequence 0, and");
    server.publish_with("other.md.es", &[]);
    fails(&into(["--history", &archive], &[]), "subject \"other.md.es\": it does not begin with \"bourdon.prices\"");
    server.remove(1);
    let instance = bourdon_archive::Archive::open(&group.archive()).expect("it has positions").instance();
    server.publish_with("bourdon.prices.md.es", &[("Bourdon-Instance", &format!("{instance:016x}"))]);
    fails(&into(["--history", &archive], &[]), "it comes from this very group: carry it into another group");
    server.delete();
    server.create(&["bourdon.prices.>"]);
    fails(&into(["--history", &archive], &[]), "was created again on");
}
