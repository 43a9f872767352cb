//! The end of a node: what it accepted arrives, or is reported, within a bound.

use crate::common::{PATIENCE, TOPIC, World, poll_until, read, until};
use bourdon::settings::IdleStrategy;
use bourdon::{Node, ThreadedNode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const COUNT: u64 = 20;

/// Longer than a test takes, so that only an acknowledgement ends a node; or so short that only the bound does.
fn patient() -> u64 {
    PATIENCE.as_nanos() as u64
}
const SHORT_NS: u64 = 200_000_000;

/// Two members of a group that have entered its view.
fn formed(world: &World, drop_timeout_ns: u64) -> [Node; 2] {
    let mut nodes = [0, 1].map(|rank| {
        let mut settings = world.member(rank);
        settings.threads.drop_timeout_ns = drop_timeout_ns;
        settings.threads.idle = IdleStrategy::Spin; // an io_uring stays with the thread that polled it first
        Node::join(&settings).expect("it joins")
    });
    let [first, second] = &mut nodes;
    poll_until(first, "both to be members", |first| {
        second.poll(|_| {}).expect("the port works");
        [&*first, second].iter().all(|node| node.process().is_formed())
    });
    nodes
}

fn publish(node: &mut Node) {
    for number in 0..COUNT {
        poll_until(node, "room", |node| node.try_publish(TOPIC, &number.to_le_bytes()).is_ok());
    }
}

/// Sums up the messages of which warnings report that they are not acknowledged.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicU64>);

impl Visit for Warnings {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if ["unsent", "unacknowledged"].contains(&field.name()) {
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
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// How many messages the drop of a value warned of.
fn warned_of<T>(dropped: T) -> u64 {
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || drop(dropped));
    warnings.0.load(Ordering::Relaxed)
}

#[test]
fn issue_0_of_20_messages_arrived_that_were_published_before_the_first_view() {
    let world = World::new(2);
    let mut settings = world.member(0);
    settings.threads.drop_timeout_ns = patient();
    let (node, mut publication, _subscription) = ThreadedNode::start(&settings).expect("it starts");
    for number in 0..COUNT {
        publication.try_publish(TOPIC, &number.to_le_bytes()).expect("there is room");
    }
    drop(publication); // it still sends what it accepted
    let ending = std::thread::spawn(move || drop(node));
    let (_other, _publication, mut subscription) = ThreadedNode::start(&world.member(1)).expect("it starts");
    let delivered = read(&mut subscription, COUNT as usize);
    assert!(delivered.iter().zip(0..COUNT).all(|((.., payload), number)| *payload == number.to_le_bytes()));
    ending.join().expect("no panic");
}

#[test]
fn an_inline_node_that_is_dropped_sends_what_it_accepted() {
    let [mut first, mut second] = formed(&World::new(2), patient());
    publish(&mut first);
    let ending = std::thread::spawn(move || warned_of(first));
    let mut next = 0u64;
    until("all messages, and the end of the other node", || {
        let polled = second.poll(|message| {
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

    let mut settings = World::new(2).member(0);
    settings.threads.drop_timeout_ns = SHORT_NS;
    settings.faults.drop_percent = 100.0;
    let (node, mut publication, _subscription) = ThreadedNode::start(&settings).expect("it starts");
    publication.try_publish(TOPIC, b"unheard").expect("there is room");
    drop(node);
}

#[test]
fn a_node_that_a_panic_drops_does_not_wait() {
    let [mut first, _second] = formed(&World::new(2), patient());
    publish(&mut first);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _dropped_by_the_panic = first;
            std::panic::resume_unwind(Box::new(()));
        }));
        sender.send(()).expect("the test waits");
    });
    receiver.recv_timeout(PATIENCE / 2).expect("it does not wait for an acknowledgement");
}
