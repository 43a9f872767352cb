//! From a stream into a group.

use crate::common::{Bridge, Deliveries, Group, Server, Size, until};

/// Messages that are removed from the stream.
const HOLES: u64 = 5;

fn payload(sequence: u64) -> Vec<u8> {
    format!("message {sequence}{}", " ".repeat((sequence % 50) as usize)).into_bytes()
}

fn topic(sequence: u64) -> String {
    format!("md.{}", sequence % 3)
}

/// A group of five members, of which three run here, and bridges have the places of two; an archive and a server.
struct World {
    server: Server,
    deliveries: Deliveries,
    /// Sequences in the stream, without those that were removed.
    stream: Vec<u64>,
    /// Of the members that may be bridges.
    configs: [String; 2],
    archive: String,
    /// It ends with this.
    _group: Group,
}

impl World {
    #[track_caller]
    fn new() -> Option<Self> {
        let mut group = Group::new(5);
        let server = Server::start(group.path())?;
        server.create(&["in.>"]);
        let deliveries = group.deliveries(0);
        group.join();
        let configs = [3, 4].map(|rank| group.configuration(5, rank));
        let archive = group.archive().display().to_string();
        group.record(5);
        group.leave(2);
        Some(Self { server, deliveries, stream: Vec::new(), configs, archive, _group: group })
    }

    /// Publishes so many more into the stream.
    fn publish(&mut self, count: u64) {
        let next = self.server.last().expect("the server answers") + 1;
        let sequences = next..next + count;
        self.stream.extend(sequences.clone());
        self.server.publish(sequences.map(|sequence| (format!("in.{}", topic(sequence)), payload(sequence))));
    }

    /// Removes a message from the stream.
    fn remove(&mut self, sequence: u64) {
        self.server.remove(sequence);
        self.stream.retain(|other| *other != sequence);
    }

    fn arguments(&self, bridge: usize) -> Vec<String> {
        let (config, archive, url) = (self.configs[bridge].clone(), self.archive.clone(), self.server.url());
        let words = ["in", "prices", "--stream", "PRICES", "--subject-prefix", "in", "--json"].map(str::to_owned);
        let places = ["--config".to_owned(), config, "--history".to_owned(), archive, "--nats".to_owned(), url];
        words.into_iter().chain(places).collect()
    }

    fn bridge(&self) -> Bridge {
        Bridge::start(&self.arguments(0))
    }

    fn until_carried(&self, count: u64) {
        let has = || self.deliveries.lock().expect("whole").len() as u64;
        until(&format!("{count} messages are delivered"), || has() >= count);
    }

    /// A member has delivered each message once, in the stream's order.
    fn judge(&self) {
        let deliveries = self.deliveries.lock().expect("whole");
        for (index, (sequence, delivered)) in self.stream.iter().zip(deliveries.iter()).enumerate() {
            let expected = (topic(*sequence), payload(*sequence));
            assert_eq!(*delivered, expected, "delivery {index}: in the order, once");
        }
        assert_eq!(deliveries.len(), self.stream.len());
    }
}

#[test]
fn each_message_is_in_the_group_once_though_bridge_and_server_are_killed() {
    let Some(mut world) = World::new() else { return };
    let size = Size::of_test();
    let step = size.messages / (size.kills + 1);
    world.publish(size.messages - step * size.kills);
    for hole in 1..=HOLES {
        world.remove(hole * step / (HOLES + 2));
    }
    let mut bridge = Some(world.bridge());
    for kill in 0..size.kills {
        world.publish(step);
        world.until_carried(kill * step + step / 2); // there is something under way
        match kill % 4 {
            0 | 2 => {
                bridge.take().expect("it runs").kill();
                bridge = Some(world.bridge());
            }
            1 => {
                if kill % 8 == 5 {
                    crate::common::fails(&world.arguments(1), "another bridge"); // it takes 5 s: in the long form
                }
                world.server.kill();
                world.server.run();
            }
            _ => {
                world.server.kill();
                bridge.take().expect("it runs").kill();
                world.server.run();
                bridge = Some(world.bridge());
            }
        }
    }
    world.until_carried(world.stream.len() as u64);
    let bridge = bridge.take().expect("it runs");
    bridge.until_begun();
    let counted = bridge.end();
    assert_eq!(counted["next_sequence"], size.messages + 1);
    world.judge();
    println!("in: {} messages, {} kills: {counted}", world.stream.len(), size.kills);
}

#[test]
fn what_comes_while_no_bridge_runs_and_from_clients_is_no_matter() {
    let Some(mut world) = World::new() else { return };
    world.publish(100);
    let bridge = world.bridge();
    world.until_carried(100);
    bridge.end();
    world.publish(100);
    let bridge = world.bridge();
    world.until_carried(200);
    world.publish(50);
    world.until_carried(250);
    let counted = bridge.end();
    assert_eq!((&counted["from_sequence"], &counted["published"]), (&101.into(), &150.into()), "{counted}");
    world.judge();
}

#[test]
fn a_bridge_that_was_stopped_ends_beside_the_next_one() {
    let Some(mut world) = World::new() else { return };
    world.publish(300);
    let mut first = world.bridge();
    world.until_carried(100); // there is something under way
    crate::common::signal(first.pid(), "STOP");
    let second = Bridge::start(&world.arguments(1));
    world.publish(300);
    world.until_carried(600);
    crate::common::signal(first.pid(), "CONT");
    world.publish(300);
    assert_eq!(first.wait(), Some(2), "{}", first.talk());
    assert!(first.talk().contains("another bridge carries stream"), "{}", first.talk());
    world.until_carried(900);
    second.end();
    world.judge();
}
