//! Observers that publishers wait for.

use crate::common::net::{Net, Output, address};
use crate::common::{self, Bench, control};
use bourdon_protocol::{Config, Counter, Event, Flow, HeldBy, Order, Refusal, Role};
use bourdon_wire::records::Progress;
use bourdon_wire::{Kind, Rank};
use zerocopy::IntoBytes;

const PAYLOAD: [u8; 1000] = [7; 1000];
/// More than any log of these tests holds.
const MANY: u64 = 20_000;

fn gating(config: &mut Config) {
    (config.flow, config.snapshots) = (Flow::Gating, false);
    config.limits.window_bytes = 1 << 17;
}

/// Only the observers ask; the members grant nothing.
fn not_granted(config: &mut Config) {
    gating(config);
    if matches!(config.role, Role::Member(_)) {
        config.flow = Flow::Free;
    }
}

/// Publishes as fast as it is let, in steps of so many nanoseconds, until so many messages were taken or time is over.
fn publish(net: &mut Net, count: u64, step_ns: u64, steps: usize) -> u64 {
    let mut taken = 0;
    for _ in 0..steps {
        while taken < count && net.publish(0, &PAYLOAD).is_ok() {
            taken += 1;
        }
        net.run(step_ns);
        if taken == count {
            break;
        }
    }
    taken
}

fn received(net: &Net, index: usize) -> Vec<u64> {
    let sequence = |output: &Output| if let Output::Message(_, sequence, _) = output { Some(*sequence) } else { None };
    net.processes[index].shown.iter().filter_map(sequence).collect()
}

fn gates(net: &mut Net) -> u64 {
    net.process(0).counters().get(Counter::GatingObservers)
}

#[test]
fn a_publisher_without_other_members_waits_for_its_observers() {
    let mut net = Net::new(1, 3, gating);
    net.run(100_000_000);
    assert_eq!(gates(&mut net), 3);
    // Nothing is received for a while: no more than a window is sent.
    net.lose = Box::new(|from, _| from == 0);
    let taken = publish(&mut net, MANY, 1_000_000, 20);
    let (open, limit, slowest) = net.process(0).window().unwrap();
    assert!(taken < 200 && open <= limit, "{taken} {open:?} {limit:?} {slowest:?}");
    assert!(matches!(slowest, Some(HeldBy::Observer(_))), "{slowest:?}");
    assert_eq!(net.publish(0, &PAYLOAD), Err(Refusal::Window { slowest: None }));
    // Then the loss ends, and every observer receives everything.
    net.lose = Box::new(|_, _| false);
    let more = publish(&mut net, MANY, 200_000, 20_000);
    assert_eq!(more, MANY);
    net.run(100_000_000);
    for observer in 1..4 {
        assert_eq!(received(&net, observer), (0..taken + more).collect::<Vec<_>>(), "observer {observer}");
    }
    assert_eq!(gates(&mut net), 3);
}

#[test]
fn an_observer_that_crashes_holds_the_publisher_up_for_the_timeout_only() {
    let mut net = Net::new(1, 2, gating);
    net.run(100_000_000);
    net.kill(1);
    let timeout_ns = net.process(0).config().timing.gating_timeout_ns;
    assert!(publish(&mut net, MANY, 1_000_000, 500) < MANY, "it is waited for");
    net.run(timeout_ns);
    assert!(net.heard(0, Event::GateDropped(address(1))));
    assert_eq!(gates(&mut net), 1);
    assert_eq!(publish(&mut net, MANY, 200_000, 20_000), MANY);
    net.run(100_000_000);
    let received = received(&net, 2);
    assert_eq!(received, (0..received.len() as u64).collect::<Vec<_>>(), "the other missed nothing");
}

/// An observer whose reports arrive and whose data does not is dropped, hears of it, and comes back.
#[test]
fn an_observer_that_crawls_is_dropped_and_let_in_again() {
    let mut net = Net::new(1, 2, gating);
    net.run(100_000_000);
    let timeout_ns = net.process(0).config().timing.gating_timeout_ns;
    net.alter = Box::new(|from, to, datagram| usize::from(!(from == 0 && to == 1 && datagram.len() > 600)));
    publish(&mut net, MANY, 1_000_000, 3 * timeout_ns as usize / 1_000_000);
    assert!(net.heard(0, Event::GateDropped(address(1))) && !net.heard(0, Event::GateDropped(address(2))));
    assert!(net.heard(1, Event::GateEnded(Rank(0))));
    net.alter = Box::new(|_, _, _| 1);
    for _ in 0..12 {
        net.run(timeout_ns);
    }
    assert_eq!(gates(&mut net), 2, "it has caught up");
}

/// The only gate ends, and is let in again as well.
#[test]
fn issue_the_last_gate_to_end_never_came_back() {
    let mut net = Net::new(1, 1, gating);
    net.run(100_000_000);
    let timeout_ns = net.process(0).config().timing.gating_timeout_ns;
    net.alter = Box::new(|from, to, datagram| usize::from(!(from == 0 && to == 1 && datagram.len() > 600)));
    publish(&mut net, MANY, 1_000_000, 3 * timeout_ns as usize / 1_000_000);
    assert_eq!(gates(&mut net), 0);
    net.alter = Box::new(|_, _, _| 1);
    for _ in 0..12 {
        net.run(timeout_ns);
    }
    assert_eq!(gates(&mut net), 1);
}

/// An observer starts again at its address, is too far behind to be waited for, and ends.
#[test]
fn issue_a_gate_that_started_again_held_the_publisher_up_for_ever() {
    let mut net = Net::new(1, 1, gating);
    net.run(100_000_000);
    assert_eq!(publish(&mut net, 1_000, 200_000, 20_000), 1_000);
    net.kill(1);
    net.start(1, 2);
    net.alter = Box::new(|from, _, datagram| usize::from(from != 0 || datagram.len() < 600));
    net.run(200_000_000);
    net.kill(1);
    let timeout_ns = net.process(0).config().timing.gating_timeout_ns;
    net.run(2 * timeout_ns);
    assert_eq!((gates(&mut net), publish(&mut net, MANY, 1_000_000, 1_000)), (0, MANY));
}

#[test]
fn a_member_that_grants_nothing_waits_for_no_observer() {
    let mut net = Net::new(1, 1, not_granted);
    net.run(100_000_000);
    assert_eq!(gates(&mut net), 0);
    net.lose = Box::new(|from, _| from == 0);
    assert_eq!(publish(&mut net, MANY, 1_000_000, 1000), MANY);
}

/// Each view begins every stream again: the publisher goes on waiting for the same observers.
#[test]
fn gates_outlast_a_view_change() {
    let mut net = Net::new(3, 2, gating);
    net.run(100_000_000);
    assert_eq!(gates(&mut net), 2);
    net.kill(2);
    net.run(1_000_000_000);
    assert_eq!(net.process(0).view().members.len(), 2);
    assert_eq!(gates(&mut net), 2);
    let taken = publish(&mut net, MANY, 200_000, 20_000);
    net.run(100_000_000);
    assert_eq!(received(&net, 3), (0..taken).collect::<Vec<_>>());
    assert_eq!(received(&net, 4), (0..taken).collect::<Vec<_>>());
}

/// A report from an address that has not proved that it receives opens no gate.
#[test]
fn a_forged_report_opens_no_gate() {
    let mut bench = Bench::with(Config { flow: Flow::Gating, ..Bench::config(Order::Fifo, 1, Role::Member(Rank(0))) });
    let report = |cookie: u64| Progress {
        reply_to: common::address(9),
        cookie: cookie.into(),
        delivered: 0.into(),
        window: 100.into(),
        rank: 0.into(),
        flags: 0.into(),
    };
    bench.take(&control(0xFFFF, Kind::Progress, &[report(1).as_bytes()]));
    assert_eq!(bench.process.counters().get(Counter::GatingObservers), 0);
    assert_eq!(bench.process.counters().get(Counter::ChallengesSent), 1);
    bench.effects();
    let cookie = bench.cookie(9);
    bench.take(&control(0xFFFF, Kind::Progress, &[report(cookie).as_bytes()]));
    assert_eq!(bench.process.counters().get(Counter::GatingObservers), 1);
}

/// Any process can name a member's address: a report needs the cookie of that address all the same.
#[test]
fn issue_a_report_that_named_a_member_opened_a_gate_without_a_cookie() {
    let config = Config { flow: Flow::Gating, ..Bench::config(Order::Fifo, 2, Role::Member(Rank(0))) };
    let mut bench = Bench::with(config).formed();
    let report = Progress {
        reply_to: common::address(common::port(1)),
        cookie: 1.into(),
        delivered: 0.into(),
        window: 100.into(),
        rank: 0.into(),
        flags: 0.into(),
    };
    bench.take(&control(0xFFFF, Kind::Progress, &[report.as_bytes()]));
    let counters = bench.process.counters();
    assert_eq!((counters.get(Counter::GatingObservers), counters.get(Counter::ChallengesSent)), (0, 1));
}
