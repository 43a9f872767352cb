//! Groups beside each other on real sockets: several data agents, one control thread, one judgement of what is alive.

use crate::common::{self, PATIENCE, Started, TOPIC, World, cell, fresh_address, joined, next_event, read, until};
use bourdon::event::Why;
use bourdon::settings::{ChannelDetector, ChannelSettings, IdleStrategy};
use bourdon::{Event, Node, Settings, Subscription};

const CHANNELS: [&str; 3] = ["trades", "quotes", "news"];

/// A group and its channels at one process.
struct Host {
    nodes: Vec<Started>,
    events: Vec<(Subscription, Vec<Event>)>,
}

/// A group of three with three channels, all of which lean on its detectors. In `quotes` ranks are others.
fn settings(world: &World, channels: &[ChannelSettings], rank: u16) -> Settings {
    let mut settings = world.member(rank);
    settings.threads.data_agents = 2;
    settings.channels = channels.to_vec();
    settings
}

fn channels() -> Vec<ChannelSettings> {
    let channel = |name: &&str| {
        let mut channel = ChannelSettings::new(name, fresh_address());
        channel.members = (*name == "quotes").then(|| vec![2, 0, 1]);
        channel.detector = ChannelDetector::Group;
        channel
    };
    CHANNELS.iter().map(channel).collect()
}

impl Host {
    fn start(settings: &Settings) -> Self {
        let group = Node::open(settings).expect("it opens");
        let channels: Vec<_> = CHANNELS.iter().map(|name| group.channel(name).expect("it opens")).collect();
        let (mut nodes, mut events) = (Vec::new(), Vec::new());
        for node in [group].into_iter().chain(channels) {
            events.push((common::events(&node), Vec::new()));
            nodes.push(joined(Ok(node)).expect("it joins"));
        }
        Self { nodes, events }
    }

    fn take_events(&mut self) {
        for (subscription, events) in &mut self.events {
            events.extend(std::iter::from_fn(|| next_event(subscription)));
        }
    }

    /// Whether every group has had a view of so many members.
    fn has_views_of(&mut self, count: u32) -> bool {
        self.take_events();
        let is_it = |event: &Event| matches!(event, Event::View { members, .. } if members.len() == count);
        self.events.iter().all(|(_, events)| events.iter().any(is_it))
    }
}

fn hosts(world: &World, idle: IdleStrategy) -> Vec<Host> {
    let channels = channels();
    let start = |rank| {
        let mut settings = settings(world, &channels, rank);
        settings.threads.idle = idle;
        Host::start(&settings)
    };
    let mut hosts: Vec<_> = (0..3).map(start).collect();
    until("all groups to form", || hosts.iter_mut().all(|host| host.has_views_of(3)));
    hosts
}

#[test]
fn four_groups_share_two_agents_and_one_control_thread() {
    for idle in [IdleStrategy::Park, IdleStrategy::Backoff, IdleStrategy::Yield] {
        let world = World::new(3);
        let mut hosts = hosts(&world, idle);
        // Each message finds agents that may sleep in all their ports.
        for group in 0..4 {
            for number in 0..20_u64 {
                let from = &mut hosts[number as usize % 3].nodes[group].1;
                until("room", || from.try_publish(&TOPIC, &number.to_le_bytes()).is_ok());
            }
            let delivered = read(&mut hosts[0].nodes[group].2, 20);
            assert!(hosts[1..].iter_mut().all(|host| read(&mut host.nodes[group].2, 20) == delivered), "{idle:?}");
            drop(hosts[group % 3].nodes[group].0.lock("one", PATIENCE).expect("it is granted"));
        }
        // What ends one group ends no other, and the other agent's groups do not notice.
        for host in &mut hosts {
            let (ended, ..) = host.nodes.remove(1);
            ended.close(PATIENCE).expect("it ends well");
        }
        for group in 0..3 {
            let from = &mut hosts[2].nodes[group].1;
            until("room", || from.try_publish(&TOPIC, b"more").is_ok());
            hosts.iter_mut().for_each(|host| assert_eq!(read(&mut host.nodes[group].2, 1)[0].3, b"more"));
        }
        drop(hosts);
        assert_eq!(world.names(), Vec::<String>::new());
    }
}

#[test]
fn channels_learn_of_a_crash_from_their_groups_detectors() {
    let world = World::new(3);
    let mut hosts = hosts(&world, IdleStrategy::Park);
    let beats = |host: &Host, group: usize| cell(&world, &host.nodes[group].0, "control_sent");
    let before: Vec<_> = (0..4).map(|group| beats(&hosts[0], group)).collect();
    until("some heartbeats", || beats(&hosts[0], 0) > before[0] + 300);
    let sent = |group: usize| beats(&hosts[0], group) - before[group];
    assert!((1..4).all(|channel| sent(channel) < sent(0) / 4), "a channel that leans sends little");
    drop(hosts.remove(1));
    until("views without it", || hosts.iter_mut().all(|host| host.has_views_of(2)));
    for host in &hosts {
        for (channel, rank) in [(1, 1), (2, 2), (3, 1)] {
            let by_group = |event: &Event| matches!(event, Event::Suspected(rank_, Why::Group) if rank_.0 == rank);
            let events = &host.events[channel].1;
            assert!(events.iter().any(by_group), "{channel}: {events:?}");
        }
    }
}

#[test]
fn a_channel_that_leans_is_refused_without_its_group() {
    let world = World::new(1);
    let mut group = settings(&world, &channels(), 0);
    group.channels[1].members = None;
    let channel = group.for_channel("trades").expect("there is one");
    let alone = Node::open(&channel).expect_err("its group is not here");
    assert!(alone.to_string().contains("run it beside the group"), "{alone}");
    let mut other = group.clone();
    (other.group.name, other.group.address) = ("other".to_owned(), fresh_address());
    let other = Node::open(&other).expect("it opens");
    let beside_another = other.open_beside(&channel).expect_err("this is another group");
    assert!(beside_another.to_string().contains("\"trades\""), "{beside_another}");
    let group = other.open_beside(&group).expect("any group may run beside any");
    group.open_beside(&channel).expect("this is its group");
}
