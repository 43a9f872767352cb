//! Observers and joiners that are views behind: they go through every view, and lose only what no member retains.

use crate::common::net::{Net, ballot_step};
use crate::common::{GROUP, MS};
use bourdon_protocol::{Config, Event, Order, Reliability, Standing};
use bourdon_wire::records::ballot_steps::DECIDE;
use bourdon_wire::records::{Heartbeat, heartbeat_flags};
use bourdon_wire::{CONTROL_CHANNEL, Datagram, Kind, Rank};
use std::cell::Cell;
use std::rc::Rc;

/// The state of the network.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Whole,
    /// One process receives nothing.
    Deaf(usize),
}

struct World {
    net: Net,
    network: Rc<Cell<Network>>,
}

impl World {
    fn new(members: u16, observers: u16, configure: fn(&mut Config)) -> Self {
        let mut net = Net::new(members, observers, configure);
        let network = Rc::new(Cell::new(Network::Whole));
        let seen = Rc::clone(&network);
        net.lose = Box::new(move |_, to| seen.get() == Network::Deaf(to));
        net.run(100 * MS);
        Self { net, network }
    }

    /// Five members with small logs, and an observer that hears nothing more after their first messages.
    fn with_a_deaf_observer() -> Self {
        let mut world = Self::new(5, 1, |config| {
            config.order = Order::Fifo;
            config.limits.log_bytes = 128 << 10;
            config.limits.receive_log_bytes = 128 << 10;
            config.limits.window_bytes = 32 << 10;
        });
        world.publish(&[0, 1, 2, 3, 4], 10, 8);
        world.network.set(Network::Deaf(5));
        world
    }

    /// Each of these members publishes so many messages of `bytes` bytes, paced.
    fn publish(&mut self, members: &[usize], count: u32, bytes: usize) {
        for i in 0..count {
            for member in members {
                let mut payload = i.to_le_bytes().to_vec();
                payload.resize(bytes, 0);
                self.net.publish(*member, &payload).unwrap();
            }
            self.net.run(200_000);
        }
    }

    fn kill(&mut self, member: usize) {
        self.net.kill(member);
        self.net.run(300 * MS);
    }

    fn gaps(&self, index: usize) -> Vec<(u16, u64, u64)> {
        let gap = |event: &Event| match event {
            Event::Gap { sender, from, to } => Some((sender.0, from.0, to.0)),
            _ => None,
        };
        self.net.processes[index].events.iter().filter_map(gap).collect()
    }
}

const ORDERS: [fn(&mut Config); 4] = [
    |config| config.order = Order::Fifo,
    |config| config.order = Order::Causal,
    |config| (config.order, config.reliability) = (Order::Total, Reliability::Uniform),
    |config| (config.order, config.reliability) = (Order::Unordered, Reliability::Stable),
];

/// An observer that heard nothing while the group went through `views` views, some of them without a common member.
fn misses(views: usize, configure: fn(&mut Config)) {
    let mut world = World::new(5, 1, configure);
    world.publish(&[0, 1, 2, 3, 4], 10, 8);
    world.network.set(Network::Deaf(5));
    let mut members: Vec<usize> = (0..5).collect();
    for view in 0..views {
        world.publish(&members, 60, 8);
        let victim = members.remove(if view == 0 { 1 } else { 0 });
        world.kill(victim);
    }
    world.publish(&members, 20, 8);
    world.network.set(Network::Whole);
    world.net.run(2500 * MS);
    let survivor = members[0];
    let epochs: Vec<u64> = world.net.views(5).iter().map(|view| view.0).collect();
    assert_eq!(world.gaps(5), [], "{views} views: {epochs:?}");
    assert_eq!(epochs, (1..=views as u64 + 1).collect::<Vec<_>>());
    let (mut seen, mut expected) = (world.net.messages(5), world.net.messages(survivor));
    seen.sort_unstable();
    expected.sort_unstable();
    assert!(seen == expected, "{} of {} messages", seen.len(), expected.len());
}

#[test]
fn an_observer_that_missed_two_views_delivers_everything() {
    ORDERS.into_iter().for_each(|configure| misses(2, configure));
}

#[test]
fn an_observer_that_missed_three_views_delivers_everything() {
    ORDERS.into_iter().for_each(|configure| misses(3, configure));
}

/// One epoch's worth of bytes is retained: the third epoch takes all of it, and the first is evicted.
#[test]
fn the_oldest_epoch_is_evicted_by_bytes_and_the_observer_reports_what_it_lost() {
    let mut world = World::with_a_deaf_observer();
    world.publish(&[0, 1, 2, 3, 4], 30, 600); // epoch 1
    world.kill(1);
    world.publish(&[0, 2, 3, 4], 300, 1200); // epoch 2 fills its logs
    world.kill(0);
    world.publish(&[2, 3, 4], 5, 8);
    let retained = world.net.process(2).memory_use().retained_bytes;
    assert!(retained > 0 && retained <= 5 * (128 << 10) + (32 << 10), "{retained}");
    world.network.set(Network::Whole);
    world.net.run(8000 * MS);
    let survivor: Vec<_> = world.net.messages(2);
    let (seen, gaps) = (world.net.messages(5), world.gaps(5));
    assert!(!gaps.is_empty());
    for (sender, sequence) in survivor {
        let lost = gaps.iter().filter(|(of, from, to)| *of == sender && (*from..*to).contains(&sequence)).count();
        let shown = seen.iter().filter(|name| **name == (sender, sequence)).count();
        assert_eq!(lost + shown, 1, "{sender}:{sequence} was delivered {shown} times and reported lost {lost} times");
    }
    assert!(world.net.views(5).last().is_some_and(|view| view.0 == 3), "{:?}", world.net.views(5));
}

/// A barrier's own message has no number, so no numbered message is missing in its stream when it is lost.
#[test]
fn an_observer_reports_a_barrier_that_it_gave_up() {
    let mut world = World::with_a_deaf_observer();
    world.publish(&[1, 2, 3, 4], 100, 1200); // epoch 1 fills its logs
    let now = world.net.now;
    world.net.process(0).sync(now, Some(b"barrier")).unwrap();
    world.net.run(50 * MS);
    assert!(world.net.heard(2, Event::Synced { phase: 1, asked: false }));
    world.kill(1);
    world.publish(&[2, 3, 4], 300, 1200); // epoch 2 fills its logs
    world.kill(4);
    world.publish(&[2, 3], 5, 8);
    world.network.set(Network::Whole);
    world.net.run(8000 * MS);
    assert!(!world.net.heard(5, Event::Synced { phase: 1, asked: false }), "the barrier was retained");
    assert!(world.gaps(5).contains(&(0, 10, 10)), "{:?}", world.gaps(5));
    assert!(world.net.views(5).last().is_some_and(|view| view.0 == 3), "{:?}", world.net.views(5));
}

/// The connections to the members that could answer stall for seconds, as over TCP where packets are lost.
#[test]
fn issue_an_observer_gave_up_a_cut_while_its_links_stalled() {
    let mut world = World::new(3, 1, |config| config.order = Order::Fifo);
    world.publish(&[0, 1, 2], 5, 8);
    let repairs = Rc::new(Cell::new(false));
    let seen = Rc::clone(&repairs);
    world.net.alter = Box::new(move |_, to, bytes| {
        let has_data = Datagram::parse(bytes, GROUP).is_ok_and(|datagram| datagram.header.channel() != CONTROL_CHANNEL);
        usize::from(seen.get() || to != 3 || !has_data)
    });
    world.publish(&[0, 1, 2], 20, 8);
    world.kill(0);
    world.network.set(Network::Deaf(3));
    world.net.run(4_000 * MS);
    repairs.set(true);
    world.network.set(Network::Whole);
    world.net.run(3_000 * MS);
    assert_eq!(world.gaps(3), []);
    let (mut seen, mut expected) = (world.net.messages(3), world.net.messages(1));
    seen.sort_unstable();
    expected.sort_unstable();
    assert!(seen == expected, "{} of {} messages", seen.len(), expected.len());
}

/// Whether a datagram announces that its sender is ready to become a member.
fn is_ready(bytes: &[u8]) -> bool {
    let Ok(datagram) = Datagram::parse(bytes, GROUP) else { return false };
    datagram.frames().filter(|frame| frame.kind() == Some(Kind::Heartbeat)).any(|frame| {
        Heartbeat::read(frame.body).is_some_and(|(record, _)| record.flags.get() & heartbeat_flags::READY != 0)
    })
}

/// A joiner that misses two views goes through them instead of requesting another snapshot.
#[test]
fn a_member_to_be_goes_through_every_view() {
    let mut world = World::new(5, 0, |config| config.order = Order::Total);
    world.publish(&[0, 1, 2, 3, 4], 10, 8);
    world.kill(4);
    // As long as it is not announced as ready, it is not taken in.
    let hidden = Rc::new(Cell::new(true));
    let seen = Rc::clone(&hidden);
    world.net.alter = Box::new(move |from, _, bytes| usize::from(!(from == 4 && seen.get() && is_ready(bytes))));
    world.net.start(4, 2);
    let mut steps = 0;
    while world.net.process(4).standing() != Standing::Following {
        world.net.run(MS);
        steps += 1;
        assert!(steps < 2000);
    }
    world.network.set(Network::Deaf(4));
    for victim in [1, 0] {
        let members: Vec<usize> = (0..4).filter(|member| world.net.processes[*member].process.is_some()).collect();
        world.publish(&members, 20, 8);
        world.kill(victim);
    }
    world.network.set(Network::Whole);
    hidden.set(false);
    world.net.run(3000 * MS);
    assert!(world.net.agree(&[2, 3, 4], 3), "{:?}", world.net.processes[4].events);
    assert_eq!(world.net.processes[4].snapshots, 1, "{:?}", world.net.processes[4].events);
}

/// The proposer's decision reaches an observer only; then the proposer and the leaver crash.
#[test]
fn a_decision_that_only_an_observer_knows_reaches_the_member() {
    let mut net = Net::new(3, 1, |config| config.order = Order::Fifo);
    net.run(100 * MS);
    net.publish(0, b"before").unwrap();
    net.run(20 * MS);
    // Only the observer hears the decision; its sender crashes at once.
    let decided = Rc::new(Cell::new(false));
    let seen = Rc::clone(&decided);
    net.alter = Box::new(move |_, to, bytes| {
        let decides = ballot_step(bytes).is_some_and(|(step, _)| step == DECIDE);
        let is_first = decides && !seen.get();
        if decides && to == 3 {
            seen.set(true);
            return 1;
        }
        usize::from(!is_first)
    });
    let now = net.now;
    net.process(2).leave(now);
    let mut waited = 0;
    while !decided.get() {
        net.run(20_000);
        waited += 1;
        assert!(waited < 100_000);
    }
    let proposer = (0..3).find(|index| net.process(*index).view().epoch.0 == 2).unwrap();
    net.kill(proposer);
    net.kill(2);
    let last = (0..3).find(|index| net.processes[*index].process.is_some()).unwrap();
    net.run(200 * MS);
    // One of three: without the decision it could not go on.
    let learned = net.process(last).view().clone();
    assert_eq!(learned.epoch.0, 2, "{:?}", net.processes[last].events);
    assert!(learned.incarnation(Rank(2)).is_none());
}

/// The decision reaches neither of the two that go on, and they do not hear each other: only the leaver can end that.
#[test]
fn a_leaver_answers_until_the_others_have_gone_on() {
    let mut net = Net::new(3, 0, |config| config.order = Order::Fifo);
    net.run(100 * MS);
    let cut = Rc::new(Cell::new(false));
    let (seen, too) = (Rc::clone(&cut), Rc::clone(&cut));
    net.alter = Box::new(move |_, _, bytes| {
        let decides = ballot_step(bytes).is_some_and(|(step, _)| step == DECIDE);
        if decides && !seen.get() {
            seen.set(true); // this one is lost, and so is everything between the two from now on
        }
        usize::from(!(decides && seen.get()))
    });
    net.lose = Box::new(move |from, to| too.get() && from != 0 && to != 0);
    let now = net.now;
    net.process(0).leave(now);
    let left = |net: &Net| net.processes[0].events.iter().any(|event| matches!(event, Event::Left(_)));
    net.run(2000 * MS);
    assert_eq!(net.process(0).standing(), Standing::Gone, "{:?}", net.processes[0].events);
    assert!(!left(&net) && cut.get(), "it still replies");
    assert_eq!((net.process(1).view().epoch.0, net.process(2).view().epoch.0), (1, 1));
    net.alter = Box::new(|_, _, _| 1);
    net.run(50 * MS);
    assert!(left(&net), "{:?}", net.processes[0].events);
    // They still don't hear each other, so one of them may have gone on without the other since.
    let epochs = [1, 2].map(|index| net.process(index).view().epoch.0);
    assert!(epochs.iter().all(|epoch| *epoch >= 2), "{epochs:?}");
}
