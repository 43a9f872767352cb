//! Order by the time of sending, case by case.

use crate::common::net::Net;
use crate::common::{Bench, MS};
use bourdon_protocol::{Order, Refusal};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const HOUR_NS: u64 = 3_600_000_000_000;
const US: u64 = 1_000;

/// Three members whose clocks are hours apart, the first of which is the reference, and an observer.
fn net() -> Net {
    let mut net = Net::new(3, 1, |config| {
        config.order = Order::RealTime;
        config.wall_offset_ns = [5, 2, 9, 0][config.rank().map_or(3, |rank| rank.index())] * HOUR_NS;
    });
    run(&mut net, 300 * MS);
    net
}

/// Lets time pass on a network that needs a twentieth of a millisecond at most.
fn run(net: &mut Net, ns: u64) {
    (0..ns / (50 * US)).for_each(|_| net.run(50 * US));
}

/// A datagram under way: its receiver, and its bytes.
type HeldBack = Rc<RefCell<Vec<(usize, Vec<u8>)>>>;

/// From now on everything that one process sends is held, as long as the switch is on.
fn hold(net: &mut Net, sender: usize) -> (HeldBack, Rc<Cell<bool>>) {
    let (held, holds) = (HeldBack::default(), Rc::new(Cell::new(true)));
    let (into, until) = (held.clone(), holds.clone());
    net.alter = Box::new(move |from, to, datagram| {
        if from == sender && until.get() {
            into.borrow_mut().push((to, datagram.clone()));
            return 0;
        }
        1
    });
    (held, holds)
}

/// Member 1 sends first and its datagrams come last; the receivers deliver what each sent in the order of sending.
#[test]
fn what_was_sent_first_is_delivered_first_whatever_clocks_and_network_do() {
    for (first, second) in [(1, 2), (2, 1), (0, 1), (1, 0)] {
        let mut net = net();
        let (held, holds) = hold(&mut net, first);
        net.publish(first, b"first").unwrap();
        net.pump();
        run(&mut net, 100 * US);
        net.publish(second, b"second").unwrap();
        net.pump();
        run(&mut net, 100 * US);
        let late_one = 3 - first - second;
        assert_eq!(net.messages(late_one), [], "the second message is here, and held");
        holds.set(false);
        let now = net.now;
        for (to, datagram) in held.borrow_mut().drain(..) {
            net.process(to).on_datagram(now, &datagram, None);
        }
        run(&mut net, 20 * MS);
        for index in 0..4 {
            assert_eq!(net.messages(index), [(first as u16, 0), (second as u16, 0)], "at {index}");
            assert_eq!(net.processes[index].late, [], "at {index}");
        }
    }
}

#[test]
fn what_comes_later_than_the_hold_is_delivered_and_flagged() {
    let mut net = net();
    let (_, holds) = hold(&mut net, 1);
    net.publish(1, b"first").unwrap();
    net.pump();
    run(&mut net, 100 * US);
    net.publish(2, b"second").unwrap();
    run(&mut net, 5 * MS);
    assert_eq!(net.messages(0), [(2, 0)], "no member waits for a message that it has not heard of");
    holds.set(false);
    run(&mut net, 50 * MS);
    for index in [0, 2, 3] {
        assert_eq!(net.messages(index), [(2, 0), (1, 0)], "at {index}");
        assert_eq!(net.processes[index].late, [(1, 0)], "at {index}");
    }
    assert_eq!(net.messages(1), [(1, 0), (2, 0)], "at its sender it was not late");
    assert_eq!(net.processes[1].late, []);
}

/// A late repair makes the hold longer, for a while.
#[test]
fn the_hold_follows_what_is_seen() {
    let mut net = net();
    let hold_ns = |net: &mut Net| {
        let now = net.now;
        net.process(0).real_time_bounds(now).unwrap().1
    };
    let before = hold_ns(&mut net);
    let (_, holds) = hold(&mut net, 1);
    net.publish(1, b"delayed").unwrap();
    run(&mut net, 5 * MS);
    holds.set(false);
    run(&mut net, 10 * MS);
    let after = hold_ns(&mut net);
    assert!(after >= 6 * MS && after > before, "a quarter more than the 5 ms it was late: {before} {after}");
    for _ in 0..4 {
        net.publish(1, b"in time").unwrap();
        run(&mut net, 100 * MS);
    }
    let later = hold_ns(&mut net);
    assert!(later < MS, "{later}");
}

#[test]
fn a_member_without_the_time_publishes_nothing_and_announces_no_bound() {
    let mut bench = Bench::member(Order::RealTime, 3, 1).formed();
    let (bound_ns, _) = bench.process.real_time_bounds(bench.now).unwrap();
    assert_eq!(bound_ns, None);
    let refused = bench.process.try_publish(bench.now, &bourdon_protocol::Outgoing::default(), b"x");
    assert!(matches!(refused, Err(Refusal::Forming { .. })), "{refused:?}");
    let bench = Bench::member(Order::Total, 3, 1).formed();
    assert_eq!(bench.process.real_time_bounds(bench.now), None, "this group has another order");
}

#[test]
fn each_member_publishes_how_far_it_may_be_off() {
    let mut net = net();
    let now = net.now;
    for index in 0..4 {
        let (bound_ns, hold_ns) = net.process(index).real_time_bounds(now).unwrap();
        let bound_ns = bound_ns.expect("it knows the time");
        assert!(bound_ns < 200 * US && hold_ns >= bound_ns, "at {index}: {bound_ns} {hold_ns}");
        assert_eq!(bound_ns == 0, index == 0, "the reference is never off, the others may be");
    }
}
