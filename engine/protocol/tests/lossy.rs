//! Levels at which messages may be lost, case by case: what is given up, when, and that it is reported.

use crate::common::net::Net;
use crate::common::{
    Bench, Effect, MS, Step, To, Value, data, deliver, message, ordered, piece, port, run, sends_control,
};
use bourdon_protocol::{Config, Counter, Event, Order, Reliability, Role};
use bourdon_wire::records::ballot_steps::{PREPARE, PROPOSE};
use bourdon_wire::{Rank, Sequence};

const ORDERS: [Order; 3] = [Order::Unordered, Order::Fifo, Order::Causal];

fn bench(reliability: Reliability, order: Order, change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = Bench::config(order, 2, Role::Member(Rank(1)));
    config.reliability = reliability;
    change(&mut config);
    Bench::with(config).formed()
}

/// Member 0's messages from one up to another are lost.
fn gap(from: u64, to: u64) -> Effect {
    Effect::Event(Event::Gap { sender: Rank(0), from: Sequence(from), to: Sequence(to) })
}

fn one(number: u64) -> Vec<u8> {
    data(0, number, number, 0, &[message(b"x")])
}

/// A gap and what follows it: reported first, except where what follows does not wait for the gap.
fn around(order: Order, gap: Effect, next: Effect) -> [Effect; 2] {
    if order == Order::Unordered { [next, gap] } else { [gap, next] }
}

#[test]
fn unreliable_skips_a_gap_at_once_and_reports_it() {
    for order in ORDERS {
        let mut bench = bench(Reliability::Unreliable, order, |_| {});
        bench.take(&one(0));
        assert_eq!(bench.news(), [deliver("0:0")]);
        bench.take(&one(3));
        assert_eq!(bench.news(), around(order, gap(1, 3), deliver("0:3")), "{order:?}");
        bench.take(&one(4));
        assert_eq!(bench.news(), [deliver("0:4")], "{order:?}: reported once");
        assert_eq!(bench.process.counters().get(Counter::Gaps), 2);
    }
}

#[test]
fn nothing_is_asked_for_at_unreliable() {
    let asked = |reliability| {
        let mut bench = bench(reliability, Order::Fifo, |_| {});
        bench.take(&bench.heartbeat(0, |heartbeat| heartbeat.next_number = 2.into()));
        bench.take(&one(3));
        bench.process.on_timer(bench.now);
        bench.effects();
        bench.wait(40 * MS);
        bench.process.counters().get(Counter::NaksSent)
    };
    assert_eq!(asked(Reliability::Unreliable), 0);
    assert!(asked(Reliability::BestEffort) > 1, "the same is requested where it is repaired");
}

#[test]
fn best_effort_waits_for_a_repair() {
    let mut bench = bench(Reliability::BestEffort, Order::Fifo, |_| {});
    bench.take(&one(0));
    bench.take(&one(2));
    bench.timers();
    assert_eq!(bench.news(), [sends_control("nak 0 1x1", To::Port(100)), deliver("0:0")]);
    bench.wait(50 * MS);
    assert!(!bench.effects().contains(&deliver("0:2")), "its sender lives");
    bench.take(&one(1));
    assert_eq!(bench.news(), [deliver("0:1"), deliver("0:2")]);
    assert_eq!(bench.process.counters().get(Counter::Gaps), 0);
}

#[test]
fn best_effort_gives_up_when_the_deadline_has_passed() {
    let mut bench = bench(Reliability::BestEffort, Order::Fifo, |config| config.deadline_ns = 5 * MS);
    bench.take(&one(1));
    assert_eq!(bench.news(), []);
    let due = bench.process.delivery_due();
    assert_eq!(due, bench.now + 5 * MS);
    bench.now = bench.now + (5 * MS - 1);
    assert_eq!(bench.news(), []);
    bench.now = due;
    assert_eq!(bench.news(), [gap(0, 1), deliver("0:1")]);
}

/// A second gap is given up behind the first, which delivery has not reached when the view ends: the member neither
/// requests it nor delivers up to it before the decision.
#[test]
fn a_cut_with_what_was_given_up_is_accepted() {
    let mut bench = bench(Reliability::BestEffort, Order::Total, |config| {
        (config.members, config.role, config.deadline_ns) = (3, Role::Member(Rank(2)), 5 * MS);
        config.view = Bench::config(Order::Total, 3, Role::Observer).view;
    });
    for number in [0, 2, 4] {
        bench.take(&data(1, number, number, 0, &[message(b"waits")]));
    }
    for _ in 0..3 {
        bench.news();
        bench.now = bench.now + 5 * MS; // one gap a stream is timed at a time
    }
    bench.news();
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    assert_eq!(bench.news(), [sends_control("state 1.0 holds 0,3,0", To::Port(port(0)))]);
    bench.take(&Step::with(PROPOSE, (1, 0), Value(&[0, 1, 2], 0, &[0, 5, 0])).from(0));
    assert_eq!(bench.news(), [], "the gap is given up when messages are delivered");
    assert_eq!(bench.news(), [sends_control("accept 1.0", To::Port(port(0)))]);
}

/// The other members know that there was a second message: its sender's heartbeat gave it. Their requests did not reach
/// it.
#[test]
fn best_effort_gives_up_what_went_with_its_sender() {
    let mut net = Net::new(3, 0, |config| {
        (config.order, config.reliability) = (Order::Fifo, Reliability::BestEffort);
    });
    net.run(200 * MS);
    net.publish(0, b"before").unwrap();
    net.run(10 * MS);
    net.lose = Box::new(|from, _| from == 0);
    net.publish(0, b"lost").unwrap();
    net.pump();
    net.lose = Box::new(|_, to| to == 0);
    net.run(20 * MS);
    let lost = Event::Gap { sender: Rank(0), from: Sequence(1), to: Sequence(2) };
    for survivor in [1, 2] {
        assert!(!net.heard(survivor, lost), "it may yet come");
        assert!(net.process(survivor).counters().get(Counter::NaksSent) > 0);
    }
    net.kill(0);
    net.run(500 * MS);
    for survivor in [1, 2] {
        assert_eq!(net.messages(survivor), [(0, 0)]);
        assert!(net.heard(survivor, lost));
        assert_eq!(net.views(survivor).last(), Some(&(2, 0b110)));
    }
}

#[test]
fn the_heartbeat_announces_a_lost_tail() {
    for order in ORDERS {
        let mut bench = bench(Reliability::Unreliable, order, |_| {});
        bench.take(&one(0));
        let ends = |bench: &mut Bench| {
            let heartbeat = bench.heartbeat(0, |heartbeat| {
                (heartbeat.next_number, heartbeat.next_sequence) = (3.into(), 5.into());
            });
            bench.take(&heartbeat);
        };
        ends(&mut bench);
        assert_eq!(bench.news(), [deliver("0:0"), gap(1, 5)], "{order:?}");
        ends(&mut bench);
        assert_eq!(bench.news(), [], "{order:?}: reported once");
        bench.take(&data(0, 3, 5, 0, &[message(b"next")]));
        assert_eq!(bench.news(), [deliver("0:5")], "{order:?}");
    }
}

#[test]
fn what_comes_after_it_was_given_up_is_not_delivered() {
    for order in ORDERS {
        let mut bench = bench(Reliability::Unreliable, order, |_| {});
        bench.take(&one(2));
        assert_eq!(bench.news(), around(order, gap(0, 2), deliver("0:2")), "{order:?}");
        for number in [1, 0, 2, 1] {
            bench.take(&one(number));
        }
        assert_eq!(bench.news(), [], "{order:?}");
        bench.take(&one(3));
        assert_eq!(bench.news(), [deliver("0:3")], "{order:?}");
    }
}

#[test]
fn a_message_that_began_in_a_gap_is_lost_whole() {
    let mut bench = bench(Reliability::Unreliable, Order::Fifo, |_| {});
    bench.take(&one(0));
    bench.take(&data(0, 2, 1, 0, &[piece(8, 4, b"rest"), message(b"whole")]));
    assert_eq!(bench.news(), [deliver("0:0"), gap(1, 2), deliver("0:2")]);
}

/// No process can assign the place any more: the run that named the message was lost with the sequencer's datagram.
#[test]
fn what_waits_for_a_lost_order_is_given_up_after_a_few_heartbeats() {
    let mut bench = bench(Reliability::Unreliable, Order::Total, |config| {
        (config.members, config.role) = (3, Role::Member(Rank(2)));
        config.view = Bench::config(Order::Total, 3, Role::Observer).view;
    });
    bench.take(&data(1, 0, 0, 0, &[message(b"waits")]));
    bench.take(&data(0, 1, 0, 1, &[message(b"ordered")]));
    assert_eq!(bench.news(), [ordered("0:0", 1)], "its order may be under way");
    let lost = Effect::Event(Event::Gap { sender: Rank(1), from: Sequence(0), to: Sequence(1) });
    let beat = |bench: &mut Bench| {
        let heartbeat = bench.heartbeat(0, |heartbeat| {
            (heartbeat.next_number, heartbeat.next_sequence, heartbeat.next_order) = (2.into(), 1.into(), 2.into());
        });
        bench.take(&heartbeat);
        bench.news().contains(&lost)
    };
    let reported: Vec<_> = (0..6).map(|_| beat(&mut bench)).collect();
    assert_eq!(reported, [false, false, false, true, false, false], "three heartbeats pass over it");
    bench.take(&data(0, 2, 1, 2, &[run(1, 0, 1), message(b"next")]));
    let news = bench.news();
    assert!(!news.iter().any(|effect| matches!(effect, Effect::Deliver(name, _) if name == "1:0")), "{news:?}");
    assert!(news.contains(&ordered("0:1", 3)), "{news:?}");
}
