//! Delivery at a quorum and at all members, case by case.

use crate::common::{self, Bench, data, deliver, message, ordered, row, run, sends};
use bourdon_protocol::{Event, Order, Reliability, Role, Start};
use bourdon_wire::{Incarnation, Rank};

fn bench(reliability: Reliability, order: Order, members: u16, role: Role) -> Bench {
    let mut config = Bench::config(order, members, role);
    config.reliability = reliability;
    config.start = Start::Oldest;
    Bench::with(config).formed()
}

fn member(reliability: Reliability, order: Order, members: u16) -> Bench {
    bench(reliability, order, members, Role::Member(Rank(1)))
}

#[test]
fn a_message_is_due_when_a_quorum_holds_it() {
    let mut bench = member(Reliability::Uniform, Order::Fifo, 5);
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    assert_eq!(bench.delivered(), [""; 0], "its sender and this process are two of five");
    bench.take(&row(0, &[(1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]));
    assert_eq!(bench.delivered(), [""; 0], "its sender counts once");
    bench.take(&row(2, &[(1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]));
    assert_eq!(bench.delivered(), ["0:0"]);
}

#[test]
fn an_own_message_waits_for_the_others() {
    let mut bench = member(Reliability::Uniform, Order::Fifo, 3);
    bench.publish(b"x");
    assert_eq!(bench.news(), [sends(0, &["1 bytes"])]);
    bench.take(&row(2, &[(0, 0), (1, 0), (0, 0)]));
    assert_eq!(bench.delivered(), ["1:0"]);
}

#[test]
fn half_is_enough_with_the_first_member_only() {
    let entries = |n: u64| [(0, 0), (0, 0), (n, 0), (0, 0)];
    let mut bench = member(Reliability::Uniform, Order::Fifo, 4);
    bench.take(&data(2, 0, 0, 0, &[message(b"x")]));
    assert_eq!(bench.delivered(), [""; 0], "1 and 2 are half");
    bench.take(&row(0, &entries(1)));
    assert_eq!(bench.delivered(), ["2:0"]);
    let mut bench = member(Reliability::Uniform, Order::Fifo, 4);
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    assert_eq!(bench.delivered(), ["0:0"], "0 and 1 are half, with the first");
}

#[test]
fn in_total_order_the_order_must_be_held_as_well() {
    let mut bench = member(Reliability::Uniform, Order::Total, 5);
    bench.take(&data(2, 0, 0, 0, &[message(b"x")]));
    bench.take(&data(0, 0, 0, 0, &[run(2, 0, 1)]));
    let row_of = |from: u16, of_0: u64, of_2: u64| row(from, &[(of_0, 0), (0, 0), (of_2, 0), (0, 0), (0, 0)]);
    bench.take(&row_of(3, 0, 1));
    assert_eq!(bench.news(), [], "a quorum holds the message but not its place");
    bench.take(&row_of(4, 1, 0));
    assert_eq!(bench.news(), [ordered("2:0", 0)], "each by a quorum of its own");
}

#[test]
fn stable_means_all_members_suspected_or_not() {
    let mut bench = member(Reliability::Stable, Order::Fifo, 3);
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    bench.process.on_evidence(bench.now, Rank(2), Incarnation(1));
    bench.wait(1000);
    assert_eq!(bench.delivered(), [""; 0]);
    bench.take(&row(2, &[(1, 0), (0, 0), (0, 0)]));
    assert_eq!(bench.delivered(), ["0:0"]);
}

#[test]
fn an_observer_waits_for_what_the_members_announce() {
    let mut bench = bench(Reliability::Uniform, Order::Fifo, 3, Role::Observer);
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    assert_eq!(bench.news(), [], "it does not count itself");
    bench.take(&row(1, &[(1, 0), (0, 0), (0, 0)]));
    assert_eq!(bench.news(), [deliver("0:0")]);
}

#[test]
fn every_burst_is_acknowledged_at_once() {
    let mut bench = member(Reliability::Uniform, Order::Fifo, 3);
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    bench.timers();
    assert!(bench.effects().contains(&common::sends_control("row", common::To::All)));
}

#[test]
fn a_late_row_takes_nothing_back() {
    let mut bench = member(Reliability::Uniform, Order::Fifo, 5);
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    bench.take(&row(2, &[(1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]));
    bench.take(&row(2, &[(0, 0); 5]));
    bench.take(&data(0, 1, 1, 0, &[message(b"y")]));
    assert_eq!(bench.delivered(), ["0:0"]);
    assert!(!std::iter::from_fn(|| bench.process.poll_event()).any(|event| matches!(event, Event::Retracted { .. })));
}
