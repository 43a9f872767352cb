//! Messages that name a message of another group: they wait for it, and for nothing else, and not for ever.

use crate::common::{self, Bench, FrameParts, GROUP, MS, MTU, Step, Value, data, message, piece, run};
use bourdon_protocol::{Counter, Order, Outgoing, Standing};
use bourdon_wire::records::ballot_steps;
use bourdon_wire::{Epoch, GroupId, Incarnation, InstanceId, MessageName, Rank, Sequence, flags};
use zerocopy::IntoBytes;

const OTHER: GroupId = GroupId::of("bench/other");

fn name(epoch: u64, rank: u16, sequence: u64) -> MessageName {
    MessageName::new(OTHER, (InstanceId(1), Epoch(epoch)), (Rank(rank), Incarnation(1)), Sequence(sequence))
}

/// A message that comes after another of the other group.
fn tied(first: MessageName, payload: &[u8]) -> FrameParts {
    (flags::WHOLE | flags::AFTER, [first.as_bytes(), payload].concat())
}

/// A member of the other group, in its first view, beside rank 0.
fn other() -> Bench {
    let mut config = Bench::config(Order::Fifo, 2, bourdon_protocol::Role::Member(Rank(1)));
    config.group = OTHER;
    Bench::with(config)
}

/// A datagram of the other group.
fn elsewhere(datagram: &[u8]) -> Vec<u8> {
    common::altered(datagram, 8, &OTHER.0.to_le_bytes())
}

/// What is delivered in the present state of the other group.
fn delivered(bench: &mut Bench, other: &Bench) -> Vec<String> {
    delivered_if(bench, &|name| other.process.has_passed(name))
}

fn delivered_if(bench: &mut Bench, passed: &dyn Fn(&MessageName) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    while bench.process.poll_event().is_some() {}
    bench.process.deliver_after(bench.now, usize::MAX, passed, |delivery| {
        names.push(format!("{}:{}", delivery.sender, delivery.sequence));
    });
    names
}

/// In each order: not before the named message, in its place after it, and nothing of its sender overtakes it.
#[test]
fn it_is_delivered_after_the_message_it_names() {
    for order in [Order::Fifo, Order::Causal, Order::Total, Order::Unordered] {
        let (mut bench, mut other) = (Bench::member(order, 3, 2).formed(), other());
        bench.take(&data(0, 0, 0, 0, &[message(b"a"), tied(name(1, 0, 1), b"b"), message(b"c")]));
        assert_eq!(delivered(&mut bench, &other), ["0:0"], "{order:?}");
        assert!(bench.process.waits_elsewhere());
        other.take(&elsewhere(&data(0, 0, 0, 0, &[message(b"x")])));
        assert_eq!(delivered_if(&mut other, &|_| true), ["0:0"]);
        assert_eq!(delivered(&mut bench, &other), [""; 0], "{order:?}: the message before is not enough");
        other.take(&elsewhere(&data(0, 1, 1, 0, &[message(b"y")])));
        assert_eq!(delivered(&mut bench, &other), [""; 0], "{order:?}: received is not delivered");
        assert_eq!(delivered_if(&mut other, &|_| true), ["0:1"]);
        assert_eq!(delivered(&mut bench, &other), ["0:1", "0:2"], "{order:?}");
        assert!(!bench.process.waits_elsewhere());
    }
}

#[test]
fn others_streams_go_on_where_the_order_lets_them() {
    for (order, goes_on) in
        [(Order::Fifo, true), (Order::Causal, true), (Order::Unordered, true), (Order::Total, false)]
    {
        let (mut bench, other) = (Bench::member(order, 3, 2).formed(), other());
        bench.take(&data(0, 0, 0, 0, &[run(1, 0, 1), message(b"behind")]));
        bench.take(&data(1, 0, 0, 0, &[tied(name(1, 0, 0), b"waits")]));
        let expected: &[&str] = if goes_on { &["0:0"] } else { &[] };
        assert_eq!(delivered(&mut bench, &other), expected, "{order:?}");
        let mut rest = delivered_if(&mut bench, &|_| true);
        rest.splice(0..0, expected.iter().map(|name| (*name).to_owned()));
        let all = if goes_on { ["0:0", "1:0"] } else { ["1:0", "0:0"] };
        assert_eq!(rest, all, "{order:?}");
    }
}

#[test]
fn causal_followers_wait_too() {
    let (mut bench, other) = (Bench::member(Order::Causal, 3, 2).formed(), other());
    bench.take(&data(1, 0, 0, 0, &[common::after(&[(0, 1)], b"answer")]));
    bench.take(&data(0, 0, 0, 0, &[tied(name(1, 0, 0), b"question")]));
    assert_eq!(delivered(&mut bench, &other), [""; 0]);
    assert_eq!(delivered_if(&mut bench, &|_| true), ["0:0", "1:0"]);
}

#[test]
fn unordered_does_not_run_ahead_of_another_group() {
    let (mut bench, other) = (Bench::member(Order::Unordered, 2, 1).formed(), other());
    bench.take(&data(0, 1, 1, 0, &[message(b"b"), tied(name(1, 0, 0), b"c")]));
    bench.take(&data(0, 2, 3, 0, &[message(b"d")]));
    assert_eq!(delivered(&mut bench, &other), ["0:3"]);
    bench.take(&data(0, 0, 0, 0, &[message(b"a")]));
    assert_eq!(delivered(&mut bench, &other), ["0:0", "0:1"]);
    assert_eq!(delivered_if(&mut bench, &|_| true), ["0:2"]);
}

#[test]
fn in_real_time_order_it_waits_as_well() {
    let mut config = Bench::config(Order::RealTime, 1, bourdon_protocol::Role::Member(Rank(0)));
    config.view = None;
    let mut bench = Bench::with(config);
    bench.settle();
    let tied = Outgoing { after: Some(name(1, 0, 0)), ..Outgoing::default() };
    bench.process.try_publish(bench.now, &tied, b"a").unwrap();
    bench.process.transmit(bench.now, |_, bytes, segment| bytes.len().div_ceil(segment));
    bench.wait(100 * MS);
    assert_eq!(delivered_if(&mut bench, &|_| false), [""; 0]);
    assert!(bench.process.waits_elsewhere());
    assert_eq!(delivered_if(&mut bench, &|_| true), ["0:0"]);
}

#[test]
fn a_message_in_pieces_waits_with_its_first() {
    let (mut bench, other) = (Bench::member(Order::Fifo, 2, 1).formed(), other());
    let (flag, body) = piece(4, 0, b"he");
    let body = [&body[..8], name(1, 0, 0).as_bytes(), &body[8..]].concat();
    bench.take(&data(0, 0, 0, 0, &[(flag | flags::AFTER, body)]));
    bench.take(&data(0, 1, 0, 0, &[piece(4, 2, b"re"), message(b"next")]));
    assert_eq!(delivered(&mut bench, &other), [""; 0]);
    assert_eq!(delivered_if(&mut bench, &|_| true), ["0:0", "0:1"]);
}

/// Sent by the protocol itself, whole and in fragments, with every other extension that may precede the payload.
#[test]
fn what_is_published_carries_the_name() {
    for length in [3, 2 * MTU] {
        let mut sender = Bench::member(Order::Fifo, 2, 0).formed();
        let mut receiver = Bench::member(Order::Fifo, 2, 1).formed();
        let topic = bourdon_wire::TopicName::new("md.es").unwrap();
        let outgoing = Outgoing { after: Some(name(1, 0, 4)), intended_send_ns: Some(9), ..Outgoing::named(topic) };
        sender.process.try_publish(sender.now, &outgoing, &vec![b'x'; length]).unwrap();
        sender.process.transmit(sender.now, |_, bytes, segment| {
            bytes.chunks(segment).for_each(|datagram| receiver.take(&common::as_incarnation(datagram, 1)));
            bytes.len().div_ceil(segment)
        });
        let asked = std::cell::Cell::new(None);
        let refuse = |name: &MessageName| {
            asked.set(Some(*name));
            false
        };
        assert_eq!(delivered_if(&mut receiver, &refuse), [""; 0]);
        assert_eq!(asked.get(), Some(name(1, 0, 4)));
        let own = MessageName::new(GROUP, (InstanceId(1), Epoch(1)), (Rank(0), Incarnation(1)), Sequence(0));
        receiver.process.deliver_after(receiver.now, usize::MAX, &|_| true, |delivery| {
            assert_eq!((delivery.name, delivery.payload.len()), (Some("md.es"), length));
            assert_eq!(delivery.message_name(GROUP), own);
        });
        assert_eq!(receiver.process.counters().get(Counter::Delivered), 1);
    }
}

#[test]
fn what_cannot_come_has_passed() {
    let other = other();
    let passed = |name: MessageName| other.process.has_passed(&name);
    assert!(!passed(name(1, 0, 0)));
    assert!(!passed(name(2, 0, 0)), "a view that has not begun here");
    assert!(passed(name(0, 0, 0)), "a view that is over");
    assert!(passed(name(1, 7, 0)), "no member of that rank");
    let other_group = MessageName::new(GROUP, (InstanceId(1), Epoch(1)), (Rank(0), Incarnation(1)), Sequence(0));
    assert!(passed(other_group), "another group");
    let mut config = Bench::config(Order::Fifo, 2, bourdon_protocol::Role::Observer);
    (config.group, config.view) = (OTHER, None);
    let outside = Bench::with(config);
    assert_eq!(outside.process.standing(), Standing::Outside);
    assert!(outside.process.has_passed(&name(1, 0, 0)), "it takes no part");
}

/// The end of a view waits for no other group: the cut is delivered as it was agreed on.
#[test]
fn a_view_change_releases_it() {
    let mut bench = Bench::member(Order::Fifo, 3, 2).formed();
    bench.take(&data(0, 0, 0, 0, &[message(b"a"), tied(name(1, 0, 0), b"b")]));
    assert_eq!(delivered_if(&mut bench, &|_| false), ["0:0"]);
    let value = Value(&[0, 2], 0, &[1, 0, 0]);
    bench.take(&Step::with(ballot_steps::DECIDE, (1, 0), value).from(0));
    assert_eq!(delivered_if(&mut bench, &|_| false), ["0:1"]);
    assert!(!bench.process.waits_elsewhere());
    delivered_if(&mut bench, &|_| false);
    assert_eq!(bench.process.view().epoch, Epoch(1), "delivery only delivers");
    bench.end_epoch();
    assert_eq!(bench.process.view().epoch, Epoch(2));
}
