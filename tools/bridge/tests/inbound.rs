//! From a stream into a group.

use crate::common::{Bridge, Group, Server, Size, until};
use std::sync::{Arc, Mutex};

fn payload(sequence: u64) -> Vec<u8> {
    format!("message {sequence}{}", " ".repeat((sequence % 50) as usize)).into_bytes()
}

fn topic(sequence: u64) -> String {
    format!("md.{}", sequence % 3)
}

/// A group of two members, of which the bridge is a third; an archive and a server.
struct World {
    server: Server,
    deliveries: Arc<Mutex<Vec<(String, Vec<u8>)>>>,
    /// Sequences in the stream, without those that were removed.
    stream: Vec<u64>,
    config: String,
    archive: String,
    group: Group,
}

impl World {
    #[track_caller]
    fn new() -> Option<Self> {
        let mut group = Group::new(3, true);
        let server = Server::start(group.path())?;
        server.create(&["in.>"]);
        let deliveries = group.deliveries(0);
        group.join();
        let (config, archive) = (group.configuration(3, 2), group.archive().display().to_string());
        group.record_once_formed(3);
        Some(Self { server, deliveries, stream: Vec::new(), config, archive, group })
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

    fn arguments(&self) -> Vec<String> {
        let (config, archive, url) = (self.config.clone(), self.archive.clone(), self.server.url());
        let words = ["in", "prices", "--stream", "PRICES", "--subject-prefix", "in", "--json"].map(str::to_owned);
        let places = ["--config".to_owned(), config, "--history".to_owned(), archive, "--nats".to_owned(), url];
        words.into_iter().chain(places).collect()
    }

    fn bridge(&self) -> Bridge {
        Bridge::start(&self.arguments().iter().map(String::as_str).collect::<Vec<_>>())
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
    world.publish(size.messages);
    for hole in 1..=5 {
        world.remove(hole * size.messages / 7);
    }
    let mut bridge = Some(world.bridge());
    let step = size.messages / (size.kills + 1);
    for kill in 0..size.kills {
        world.until_carried(kill * step + step / 2);
        match kill % 4 {
            0 | 2 => {
                bridge.take().expect("it runs").kill();
                bridge = Some(world.bridge());
            }
            1 => {
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
    let counted = bridge.take().expect("it runs").end();
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
    assert_eq!(world.group.members.len(), 2);
}
