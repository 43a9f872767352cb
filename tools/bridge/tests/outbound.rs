//! From a group into a stream.

use crate::common::{Bridge, Group, Proxy, Server, Size, until};
use bourdon::{Publication, Topic};

/// The topics, in turn.
const TOPICS: [&str; 3] = ["md.es", "md.nq", "news"];

fn payload(number: u64) -> Vec<u8> {
    format!("message {number}{}", " ".repeat((number % 50) as usize)).into_bytes()
}

/// A group of one member, an archive and a server.
struct World {
    group: Group,
    server: Server,
    publication: Publication,
    published: u64,
    config: String,
    archive: String,
}

impl World {
    #[track_caller]
    fn new() -> Option<Self> {
        let mut group = Group::new(1);
        let server = Server::start(group.path())?;
        server.create(&["bourdon.>"]);
        let publication = group.members[0].publication().expect("a member has one");
        group.join();
        group.record(1);
        let (config, archive) = (group.configuration(1, 0), group.archive().display().to_string());
        let mut world = Self { group, server, publication, published: 0, config, archive };
        world.publish(1);
        until("the recorder records", || bourdon_archive::Archive::open(&world.group.archive()).is_ok());
        Some(world)
    }

    /// Publishes so many more.
    fn publish(&mut self, count: u64) {
        for number in self.published..self.published + count {
            let topic = Topic::new(TOPICS[number as usize % TOPICS.len()]).expect("a name");
            let bytes = payload(number);
            self.publication.publish(&topic, &bytes[..], crate::common::PATIENCE).expect("the group takes it");
        }
        self.published += count;
    }

    fn bridge(&self, url: &str) -> Bridge {
        Bridge::start(&self.arguments(url))
    }

    fn arguments<'a>(&'a self, url: &'a str) -> [&'a str; 13] {
        let (config, archive) = (self.config.as_str(), self.archive.as_str());
        [
            "out",
            "prices",
            "**",
            "--config",
            config,
            "--history",
            archive,
            "--nats",
            url,
            "--stream",
            "PRICES",
            "--json",
            "--subject-prefix=bourdon.prices",
        ]
    }

    fn until_carried(&self, count: u64) {
        until(&format!("{count} messages are carried"), || self.server.last().is_some_and(|last| last >= count));
    }

    /// Each message once, in the order, with its place.
    fn judge(&self) {
        let messages = self.server.messages();
        let mut before = None;
        for (number, (sequence, subject, headers, bytes)) in messages.iter().enumerate() {
            let number = number as u64;
            assert_eq!((*sequence, bytes.as_slice()), (number + 1, payload(number).as_slice()), "in the order, once");
            assert_eq!(*subject, format!("bourdon.prices.{}", TOPICS[number as usize % TOPICS.len()]));
            let order = headers.get("Bourdon-Order").and_then(|order| order.as_str().parse::<u64>().ok());
            assert!(order > before, "order numbers rise");
            before = order;
        }
        assert_eq!(messages.len() as u64, self.published);
    }
}

#[test]
fn each_message_is_in_the_stream_once_though_bridge_and_server_are_killed() {
    let Some(mut world) = World::new() else { return };
    let size = Size::of_test();
    let url = world.server.url();
    let mut bridge = Some(world.bridge(&url));
    let step = size.messages / (size.kills + 1);
    for kill in 0..size.kills {
        world.publish(step);
        world.until_carried(kill * step + step / 2); // there is something under way
        match kill % 4 {
            0 | 2 => {
                bridge.take().expect("it runs").kill();
                if kill == 2 {
                    // Longer than the server remembers what it has seen.
                    std::thread::sleep(std::time::Duration::from_millis(1_500));
                }
                bridge = Some(world.bridge(&url));
            }
            1 => {
                crate::common::fails(&world.arguments(&url), "another bridge");
                world.server.kill();
                world.server.run();
            }
            _ => {
                world.server.kill();
                bridge.take().expect("it runs").kill();
                world.server.run();
                bridge = Some(world.bridge(&url));
            }
        }
    }
    world.publish(size.messages - step * size.kills - 1);
    world.until_carried(world.published);
    let bridge = bridge.take().expect("it runs");
    bridge.until_begun();
    let counted = bridge.end();
    assert_eq!(counted["sequence"], world.published);
    world.judge();
    println!("out: {} messages, {} kills: {counted}", world.published, size.kills);
}

#[test]
fn a_publish_with_a_lost_acknowledgement_is_not_published_again() {
    let Some(mut world) = World::new() else { return };
    let proxy = Proxy::start(world.server.port);
    let bridge = world.bridge(&proxy.url());
    world.until_carried(1);
    for round in 1..=3 {
        proxy.mute();
        let before = proxy.swallowed();
        world.publish(300);
        world.until_carried(round * 300 - 100);
        until("acknowledgements are lost", || proxy.swallowed() > before);
        proxy.cut();
        world.until_carried(world.published);
        world.judge();
    }
    let counted = bridge.end();
    world.judge();
    assert!(counted["unacknowledged"].as_u64() > Some(0), "{counted}");
}

#[test]
fn what_was_published_while_no_bridge_ran_comes_from_the_archive() {
    let Some(mut world) = World::new() else { return };
    let url = world.server.url();
    world.publish(500);
    let bridge = world.bridge(&url);
    world.until_carried(world.published);
    bridge.end();
    world.publish(2_000);
    let bridge = world.bridge(&url);
    world.until_carried(world.published);
    world.publish(500);
    world.until_carried(world.published);
    let counted = bridge.end();
    assert_eq!((&counted["acknowledged"], &counted["missing"]), (&2_500.into(), &0.into()), "{counted}");
    world.judge();
}

#[test]
fn a_second_bridge_is_refused_and_one_that_was_stopped_ends() {
    let Some(mut world) = World::new() else { return };
    let url = world.server.url();
    let mut first = world.bridge(&url);
    world.until_carried(1);
    crate::common::fails(&world.arguments(&url), "another bridge");
    // A bridge that is stopped does not answer, and another takes over.
    crate::common::signal(first.pid(), "STOP");
    let second = world.bridge(&url);
    world.publish(500);
    world.until_carried(world.published);
    crate::common::signal(first.pid(), "CONT");
    world.publish(500);
    assert_eq!(first.wait(), Some(2), "{}", first.talk());
    assert!(first.talk().contains("has taken over"), "{}", first.talk());
    world.until_carried(world.published);
    second.end();
    world.judge();
}

#[test]
fn an_archive_without_its_recorder_is_waited_for() {
    let Some(mut world) = World::new() else { return };
    world.group.stop_recorder();
    world.publish(1); // it is in no archive
    let bridge = world.bridge(&world.server.url());
    world.until_carried(1);
    until("the wait is reported", || {
        world.publish(1);
        bridge.talk().contains("is its recorder running?")
    });
    assert_eq!(world.server.last(), Some(1), "nothing is left out");
    assert_eq!(bridge.end()["missing"], 0);
}
