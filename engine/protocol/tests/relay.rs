//! Relay, case by case: each member forwards what it receives for the first time.

use crate::common::net::Net;
use crate::common::{Bench, Effect, MS, To, data, deliver, message};
use bourdon_protocol::{Config, Counter, Order, Role};
use bourdon_wire::Rank;

fn bench(role: Role) -> Bench {
    let mut config = Bench::config(Order::Fifo, 3, role);
    config.relay = true;
    Bench::with(config).formed()
}

#[test]
fn what_comes_for_the_first_time_is_sent_on_once() {
    let mut bench = bench(Role::Member(Rank(1)));
    let datagram = data(0, 0, 0, 0, &[message(b"x")]);
    bench.take(&datagram);
    assert_eq!(bench.news(), [Effect::Repair(0, 0, To::All), deliver("0:0")]);
    // From the third member, which forwards it as well.
    let mut relayed = datagram.clone();
    bourdon_wire::mark_retransmitted(&mut relayed);
    bench.take(&relayed);
    bench.take(&datagram);
    assert_eq!(bench.news(), []);
    // The relayed copy may come first.
    let mut relayed = data(0, 1, 1, 0, &[message(b"y")]);
    bourdon_wire::mark_retransmitted(&mut relayed);
    bench.take(&relayed);
    assert_eq!(bench.news(), [Effect::Repair(0, 1, To::All), deliver("0:1")]);
    assert_eq!(bench.process.counters().get(Counter::Relayed), 2);
}

#[test]
fn observers_and_members_not_asked_relay_nothing() {
    let mut observer = bench(Role::Observer);
    let mut plain = Bench::member(Order::Fifo, 3, 1).formed();
    for bench in [&mut observer, &mut plain] {
        bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
        assert_eq!(bench.news(), [deliver("0:0")]);
    }
}

/// A group in which member 2 hears nothing of member 0, which dies right after it has sent; what member 2 then receives
/// before any member has had time to suspect it.
fn after_a_death(configure: fn(&mut Config)) -> (Vec<(u16, u64)>, u64) {
    let mut net = Net::new(3, 0, configure);
    net.run(200 * MS);
    net.lose = Box::new(|from, to| (from, to) == (0, 2));
    net.publish(0, b"last words").unwrap();
    net.pump();
    net.kill(0);
    assert_eq!((net.messages(1).len(), net.messages(2).len()), (1, 0));
    net.pump();
    let asked = net.process(2).counters().get(Counter::NaksSent);
    (net.messages(2), asked)
}

#[test]
fn a_member_that_missed_the_original_gets_it_though_its_sender_died() {
    let relays = |config: &mut Config| (config.order, config.relay) = (Order::Fifo, true);
    assert_eq!(after_a_death(relays), (vec![(0, 0)], 0), "without a request");
    let without = |config: &mut Config| config.order = Order::Fifo;
    assert_eq!(after_a_death(without), (vec![], 0), "otherwise only when the view changes");
}
