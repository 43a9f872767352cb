//! Nodes that record what they deliver, and subscriptions over an archive.

use crate::common::{PATIENCE, TOPIC, World, free_addresses, start, until};
use bourdon::archive::{Mode, Notice};
use bourdon::settings::{Order, Transport};
use bourdon::{Delivery, Event, History, HistorySubscription, InlineNode, Node, Overrun, Settings, StartAt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const COUNT: u64 = 3_000;

fn settings(world: &World, rank: u16) -> Settings {
    let mut settings = world.member(rank);
    settings.group.order = Order::Total;
    settings.archive.directory = (rank == 0).then(|| archive(world));
    settings
}

fn archive(world: &World) -> PathBuf {
    world.path().join("archive")
}

fn observer(world: &World) -> Settings {
    let mut settings = world.observer();
    settings.group.order = Order::Total;
    settings
}

/// Numbers as payloads.
fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"))
}

/// What a subscription has handed out.
#[derive(Default)]
struct Got {
    numbers: Vec<u64>,
    notices: Vec<Notice>,
}

impl Got {
    fn take(&mut self, delivery: &Delivery<'_>) {
        match delivery {
            Delivery::Message(message) => self.numbers.push(number(message.payload)),
            Delivery::Notice(notice) => self.notices.push(*notice),
            _ => {}
        }
    }

    fn is_whole(&self) -> bool {
        self.numbers.iter().copied().eq(0..self.numbers.len() as u64)
    }
}

fn read<L: bourdon::archive::Live>(subscription: &mut HistorySubscription<L>, got: &mut Got, until_count: u64) {
    let end = Instant::now() + PATIENCE;
    while (got.numbers.len() as u64) < until_count {
        assert!(Instant::now() < end, "{} of {until_count}: {:?}", got.numbers.len(), subscription.progress());
        let left = until_count as usize - got.numbers.len();
        if subscription.poll(left, |delivery| got.take(&delivery)).expect("it reads") == 0 {
            subscription.wait(Duration::from_millis(5)).expect("it runs");
        }
    }
    assert!(got.is_whole(), "{:?}", got.notices);
}

fn subscribe(world: &World, history: History) -> HistorySubscription<InlineNode> {
    let settings = observer(world);
    let node = InlineNode::join(&settings).expect("it joins");
    history.follow(node, &settings, &[]).expect("the archive is there")
}

fn goes_on_from_archive_to_live(world: &World) {
    let (node, mut publication, mut own) = start(&settings(world, 0));
    let mut publish = |from: u64, to: u64| {
        for number in from..to {
            publication.publish(&TOPIC, &number.to_le_bytes()[..], PATIENCE).expect("it is taken");
        }
    };
    publish(0, COUNT);
    let mut delivered = 0;
    until("the member has delivered all", || {
        own.poll(256, |delivery| delivered += u64::from(delivery.message().is_some())).expect("it runs");
        delivered == COUNT
    });
    let mut got = Got::default();
    let mut inline = subscribe(world, History::at(archive(world)));
    read(&mut inline, &mut got, COUNT);
    publish(COUNT, 2 * COUNT);
    read(&mut inline, &mut got, COUNT + COUNT / 2);
    let position = inline.position();
    drop(inline);
    // Another one goes on there, with threads of its own.
    let opened = Node::open(&observer(world)).expect("it opens");
    let mut threaded = opened.subscribe_history(History::at(archive(world)).resume(position), &[]).expect("it reads");
    opened.join().expect("it joins");
    read(&mut threaded, &mut got, 2 * COUNT);
    publish(2 * COUNT, 2 * COUNT + 10);
    read(&mut threaded, &mut got, 2 * COUNT + 10);
    assert_eq!(threaded.progress().lost, 0);
    drop((threaded, opened, node));
}

#[test]
fn a_subscription_over_shared_memory_goes_on_from_archive_to_live() {
    goes_on_from_archive_to_live(&World::new(1).over(Transport::Shm, Vec::new()));
}

#[test]
fn a_subscription_over_multicast_goes_on_from_archive_to_live() {
    goes_on_from_archive_to_live(&World::new(1));
}

#[test]
fn a_subscription_over_tcp_goes_on_from_archive_to_live() {
    goes_on_from_archive_to_live(&World::new(1).over(Transport::Tcp, free_addresses(1, "127.0.0.1")));
}

/// The application reads nothing until its ring has overrun; then each choice does what it is for.
#[test]
fn an_overrun_is_replayed_skipped_or_only_the_latest_is_handed_out() {
    let world = World::new(1);
    let (node, mut publication, mut own) = start(&settings(&world, 0));
    let payload = |number: u64| [&number.to_le_bytes()[..], &[0; 1_000]].concat();
    let mut small = observer(&world);
    small.threads.subscription_ring_bytes = 1 << 18;
    let opened = Node::open(&small).expect("it opens");
    let with = |overrun| {
        let history = History::at(archive(&world)).overrun(overrun).from(StartAt::Oldest);
        opened.subscribe_history(history, &[]).expect("the archive is there")
    };
    let (mut replay, mut skip, mut latest) = (with(Overrun::Replay), with(Overrun::Skip), with(Overrun::Latest));
    assert!(opened.subscribe_history(History::at(archive(&world)).overrun(Overrun::Hold), &[]).is_err());
    opened.join().expect("it joins");
    let mut publish = |from: u64, to: u64| {
        for number in from..to {
            publication.publish(&TOPIC, &payload(number)[..], PATIENCE).expect("it is taken");
            while own.poll(256, |_| {}).expect("it runs") > 0 {}
        }
    };
    publish(0, 10);
    let (mut replayed, mut skipped) = (Got::default(), Got::default());
    read(&mut replay, &mut replayed, 10);
    read(&mut skip, &mut skipped, 10);
    let mut next = 10;
    let is_live = |mode| mode == Mode::Live;
    while ![replay.progress().mode, skip.progress().mode].into_iter().all(is_live) {
        publish(next, next + 1);
        next += 1;
        read(&mut replay, &mut replayed, next);
        read(&mut skip, &mut skipped, next);
        assert!(next < COUNT / 2, "{:?} {:?}", replay.progress(), skip.progress());
    }
    publish(next, COUNT);
    read(&mut replay, &mut replayed, COUNT);
    assert!(replay.progress().switches > 0, "{:?}", replay.progress());
    let mut reported = 0;
    until("the rest is skipped", || {
        skip.poll(256, |delivery| match delivery {
            Delivery::Skipped(count) => reported += count,
            Delivery::Event(Event::Gap { from, to, .. }) => reported += to.0 - from.0, // lost on the way to the node
            other => skipped.take(&other),
        })
        .expect("it reads");
        skipped.numbers.len() as u64 + reported == COUNT
    });
    assert!(reported > 0 && skip.progress().lost == reported, "{reported}: {:?}", skip.progress());
    let (mut last, mut count) = (0, 0);
    until("the latest comes", || {
        let take = |delivery: Delivery<'_>| {
            if let Delivery::Message(message) = delivery {
                (last, count) = (number(message.payload), count + 1);
            }
        };
        latest.poll(usize::MAX, take).expect("it reads");
        last == COUNT - 1
    });
    assert!(count < COUNT / 2 && latest.progress().replaced + count == COUNT, "{count}: {:?}", latest.progress());
    drop((replay, skip, latest, opened, node));
}
