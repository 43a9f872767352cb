//! The end of a node: what it accepted arrives, or is reported, within a bound.

use crate::common::{PATIENCE, TOPIC, World, cell, events, next_event, poll_until, read, start, until};
use bourdon::error::NotAcknowledged;
use bourdon::settings::IdleStrategy;
use bourdon::{Event, InlineNode, Node, Refusal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

const COUNT: u64 = 20;

/// Longer than a test takes, so that only an acknowledgement ends a node; or so short that only the bound does.
fn patient() -> u64 {
    PATIENCE.as_nanos() as u64
}
const SHORT_NS: u64 = 200_000_000;

/// Two members of a group that have entered its view.
fn formed(world: &World, drop_timeout_ns: u64) -> [InlineNode; 2] {
    let mut nodes = [0, 1].map(|rank| {
        let mut settings = world.member(rank);
        settings.threads.drop_timeout_ns = drop_timeout_ns;
        settings.threads.idle = IdleStrategy::Spin; // an io_uring stays with the thread that polled it first
        InlineNode::join(&settings).expect("it joins")
    });
    let [first, second] = &mut nodes;
    poll_until(first, "both to be members", |first| {
        second.poll(usize::MAX, |_| {}).expect("the port works");
        [&*first, second].iter().all(|node| node.is_formed())
    });
    nodes
}

fn publish(node: &mut InlineNode) {
    for number in 0..COUNT {
        poll_until(node, "room", |node| node.try_publish(&TOPIC, &number.to_le_bytes()).is_ok());
    }
}

/// Sums up the messages of which warnings report that they are not acknowledged.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicU64>);

impl Visit for Warnings {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if ["dropped", "unacknowledged"].contains(&field.name()) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// While there is one subscriber only, a thread without it switches off for all what it is the first to report.
static SECOND: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(Warnings::default()));

/// How many messages the drop of a value warned of.
fn warned_of<T>(dropped: T) -> u64 {
    LazyLock::force(&SECOND);
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || drop(dropped));
    warnings.0.load(Ordering::Relaxed)
}

#[test]
fn issue_0_of_20_messages_arrived_that_were_published_before_a_node_was_dropped() {
    let world = World::new(2);
    let mut settings = world.member(0);
    settings.threads.drop_timeout_ns = patient();
    let (node, mut publication, _subscription) = start(&settings);
    let publishing = std::thread::spawn(move || {
        for number in 0..COUNT {
            publication.publish(&TOPIC, &number.to_le_bytes(), PATIENCE).expect("the group forms");
        }
        drop(publication); // it still sends what it accepted
        drop(node);
    });
    let (_other, _publication, mut subscription) = start(&world.member(1));
    let delivered = read(&mut subscription, COUNT as usize);
    assert!(delivered.iter().zip(0..COUNT).all(|((.., payload), number)| *payload == number.to_le_bytes()));
    publishing.join().expect("no panic");
}

#[test]
fn an_inline_node_that_is_dropped_sends_what_it_accepted() {
    let [mut first, mut second] = formed(&World::new(2), patient());
    publish(&mut first);
    let ending = std::thread::spawn(move || warned_of(first));
    let mut next = 0u64;
    until("all messages, and the end of the other node", || {
        let polled = second.poll(usize::MAX, |delivery| {
            let Some(message) = delivery.message() else { return };
            assert_eq!(message.payload, next.to_le_bytes());
            next += 1;
        });
        polled.expect("the port works");
        next == COUNT && ending.is_finished()
    });
    assert_eq!(ending.join().expect("no panic"), 0);
}

#[test]
fn a_dropped_node_reports_what_the_network_does_not_carry() {
    let [first, mut second] = formed(&World::new(2), SHORT_NS); // the first is half of the view, and so a quorum
    publish(&mut second);
    assert_eq!(warned_of(second), COUNT, "the other member does not receive");
    assert_eq!(warned_of(first), 0, "it has published nothing, so it ends at once");
}

#[test]
fn a_node_that_a_panic_drops_does_not_wait() {
    let [_first, mut second] = formed(&World::new(2), patient());
    publish(&mut second);
    drops_at_once(second);

    let world = World::new(2);
    let mut other = InlineNode::join(&world.member(0)).expect("it joins");
    let mut settings = world.member(1);
    settings.threads.drop_timeout_ns = patient();
    let (node, mut publication, _own) = start(&settings);
    poll_until(&mut other, "the view", |_| publication.try_publish(&TOPIC, b"first").is_ok());
    publication.publish(&TOPIC, b"more", PATIENCE).expect("there is room");
    drops_at_once(node);
}

/// Drops it by a panic, which must not wait for the other member: that does not run.
fn drops_at_once(node: impl Send + 'static) {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _dropped_by_the_panic = node;
            std::panic::resume_unwind(Box::new(()));
        }));
        sender.send(()).expect("the test waits");
    });
    receiver.recv_timeout(PATIENCE / 2).expect("it does not wait for an acknowledgement");
}

#[test]
fn a_node_that_is_closed_accepts_no_more_sends_the_rest_and_leaves_the_view() {
    let world = World::new(3);
    let start = |rank| start(&world.member(rank));
    let [(node, mut publication, _), (second, ..), (_third, ..)] = [0, 1, 2].map(start); // none reads
    publication.publish(&TOPIC, b"first", PATIENCE).expect("there is room");
    publication.wait_acknowledged(1, PATIENCE).expect("the group forms");
    let publishing = std::thread::spawn(move || {
        let refused = std::iter::repeat_with(|| publication.publish(&TOPIC, b"more", PATIENCE)).find_map(Result::err);
        (publication, refused)
    });
    until("some messages", || cell(&world, &second, "delivered") >= 100);
    let report = node.close(PATIENCE).expect("it ends well");
    let (mut publication, refused) = publishing.join().expect("no panic");
    assert_eq!(refused, Some(Refusal::Closed), "whether it published or waited for room");
    assert!(report.is_clean(), "{report:?}");
    // A claim that was committed after the last look at the ring is not in the report, and not acknowledged.
    let acknowledged = publication.acknowledged();
    assert!(acknowledged >= 100 && acknowledged <= publication.published(), "{acknowledged}");
    until("the others to go on", || cell(&world, &second, "views") == 2);
}

#[test]
fn the_last_member_and_an_observer_leave_too() {
    let world = World::new(1);
    let (member, mut publication, _own) = start(&world.member(0));
    let (observer, _unused, _subscription) = start(&world.observer());
    let inline = InlineNode::join(&world.observer()).expect("it joins");
    publication.publish(&TOPIC, b"alone", PATIENCE).expect("there is room");
    assert!(observer.close(PATIENCE).expect("it ends well").is_clean());
    assert!(inline.close(PATIENCE).expect("it ends well").is_clean());
    assert!(member.close(PATIENCE).expect("it ends well").is_clean());
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn a_close_reports_the_numbers_that_are_not_acknowledged() {
    let short = Duration::from_nanos(SHORT_NS);
    let world = World::new(2);
    let mut other = InlineNode::join(&world.member(0)).expect("it joins");
    let (node, mut publication, _own) = start(&world.member(1));
    poll_until(&mut other, "the view", |_| publication.try_publish(&TOPIC, b"first").is_ok());
    poll_until(&mut other, "the first message", |_| publication.acknowledged() == 1);
    for _ in 0..COUNT {
        publication.publish(&TOPIC, b"more", PATIENCE).expect("there is room");
    }
    drop(node.publication().expect("it runs"));
    let mut third = node.publication().expect("it runs"); // a place is given once
    third.publish(&TOPIC, b"one", PATIENCE).expect("there is room");
    let report = node.close(short).expect("it ends well"); // the other member does not run
    assert_eq!((&report.unacknowledged[..], report.has_left), (&[(0, 2..=COUNT + 1), (2, 1..=1)][..], false));
    assert!(!report.is_clean() && report.unacknowledged_count() == COUNT + 1);

    let [_first, mut second] = formed(&World::new(2), 0);
    publish(&mut second);
    let report = second.close(short).expect("it ends well");
    assert_eq!((&report.unacknowledged[..], report.has_left), (&[(0, 0..=COUNT - 1)][..], false));
}

#[test]
fn an_inline_node_is_closed_by_polling_it() {
    let [mut first, mut second] = formed(&World::new(2), 0);
    publish(&mut first);
    let closing = std::thread::spawn(move || first.close(PATIENCE));
    let mut count = 0u64;
    until("the end of the other node", || {
        let polled = second.poll(usize::MAX, |delivery| {
            count += u64::from(delivery.message().is_some());
            assert!(!matches!(delivery.event(), Some(bourdon::Event::Suspected(..))), "it was suspected first");
        });
        polled.expect("the port works");
        closing.is_finished()
    });
    assert!(closing.join().expect("no panic").expect("the port works").is_clean());
    assert_eq!((count, second.view().members.len()), (COUNT, 1));
}

/// A subscriber that reads nothing holds delivery up: what is not delivered here is not acknowledged in total order,
/// and the view does not end.
#[test]
fn a_close_is_bounded_though_a_subscriber_reads_nothing() {
    let world = World::new(2);
    let mut settings = world.member(1);
    settings.threads.subscription_ring_bytes = 1 << 18;
    let (node, mut publication, unread) = start(&settings);
    let (_other, _unused, mut subscription) = start(&world.member(0));
    let messages = 600; // 500 bytes each: more than the ring holds, and less than a window
    for _ in 0..messages {
        publication.publish(&TOPIC, &[7; 500], PATIENCE).expect("there is room");
    }
    read(&mut subscription, messages);
    let report = node.close(Duration::from_nanos(SHORT_NS)).expect("it ends well");
    let acknowledged = publication.acknowledged();
    assert_eq!(report.unacknowledged, [(0, acknowledged + 1..=messages as u64)]);
    assert!((1..messages as u64).contains(&acknowledged) && !report.has_left, "{report:?}");
    drop(unread);
}

/// Three members, of which the last publishes, does not run for so long that the others go on without it, and learns
/// that.
fn removed_with_messages(world: &World) -> InlineNode {
    let mut nodes = [0, 1, 2].map(|rank| {
        let mut settings = world.member(rank);
        settings.threads.drop_timeout_ns = patient();
        settings.threads.idle = IdleStrategy::Spin;
        Some(InlineNode::join(&settings).expect("it joins"))
    });
    let poll = |node: &mut Option<InlineNode>| {
        let mut is_removed = false;
        let polled = node.as_mut().expect("it runs").poll(usize::MAX, |delivery| {
            is_removed |= matches!(delivery.event(), Some(bourdon::Event::Removed(_)));
        });
        polled.expect("the port works");
        is_removed
    };
    until("all to be members", || {
        nodes.iter_mut().for_each(|node| _ = poll(node));
        nodes.iter().flatten().all(|node| node.is_formed())
    });
    for number in 0..COUNT {
        nodes[2].as_mut().expect("it runs").try_publish(&TOPIC, &number.to_le_bytes()).expect("there is room");
    }
    until("the others to go on", || {
        nodes[..2].iter_mut().for_each(|node| _ = poll(node));
        nodes[..2].iter().flatten().all(|node| node.view().members.len() == 2)
    });
    until("the removal", || {
        nodes[..2].iter_mut().for_each(|node| _ = poll(node));
        poll(&mut nodes[2])
    });
    nodes[2].take().expect("it runs")
}

#[test]
fn issue_a_removed_node_was_closed_and_dropped_as_if_it_had_lost_nothing() {
    let report = removed_with_messages(&World::new(3)).close(Duration::ZERO).expect("it ends well");
    assert_eq!((report.unacknowledged_count(), report.is_clean()), (COUNT, false), "{report:?}");
    assert_eq!(warned_of(removed_with_messages(&World::new(3))), COUNT);
}

#[test]
fn issue_a_close_was_clean_though_a_message_had_been_dropped() {
    let world = World::new(2);
    let mut settings = world.member(0);
    let (node, mut publication, _own) = start(&settings);
    settings.process.rank = 1;
    settings.network.receive_buffer_bytes = 64 << 10; // a quarter of its window is shorter than the message
    let (_other, _unused, _subscription) = start(&settings);
    publication.publish(&TOPIC, b"short", PATIENCE).expect("there is room");
    publication.wait_acknowledged(1, PATIENCE).expect("both run");
    assert_eq!(publication.publish(&TOPIC, &[7; 60_000], PATIENCE), Ok(2));
    let report = node.close(PATIENCE).expect("it ends well");
    assert!(report.has_left && report.unacknowledged_count() == 0 && !report.is_clean(), "{report:?}");
    assert_eq!(report.dropped, [(0, 2..=2)]);
}

/// A process that has left learns nothing more of its messages.
#[test]
fn messages_that_a_node_had_accepted_when_it_left_have_an_outcome() {
    let world = World::new(1);
    let node = Node::open(&world.member(0)).expect("it opens");
    let (mut publication, mut events) = (node.publication().expect("it is open"), events(&node));
    node.join().expect("it joins");
    publication.publish(&TOPIC, b"first", PATIENCE).expect("there is room");
    let publishing = std::thread::spawn(move || {
        let refused = std::iter::repeat_with(|| publication.publish(&TOPIC, b"more", PATIENCE)).find_map(Result::err);
        (publication, refused)
    });
    node.leave().expect("it runs");
    let (mut publication, refused) = publishing.join().expect("no panic");
    assert_eq!(refused, Some(Refusal::Closed));
    let published = publication.published();
    let outcome = publication.wait_acknowledged(published, PATIENCE);
    let has_outcome = matches!(outcome, Ok(()) | Err(NotAcknowledged::Dropped { .. } | NotAcknowledged::Closed { .. }));
    assert!(has_outcome, "{outcome:?}");
    let acknowledged = publication.acknowledged();
    let mut dropped = 0;
    until("the outcome of every message", || {
        while let Some(event) = next_event(&mut events) {
            let Event::Dropped { last, .. } = event else { continue };
            dropped = last;
        }
        acknowledged.max(dropped) == published
    });
}
