//! Observers that come late, case by case.

use crate::common::net::Net;
use crate::common::{
    Bench, Effect, MTU, Step, To, Value, control, data, deliver, in_epoch, message, ordered, port, run, sends_control,
    unavailable,
};
use bourdon_protocol::{Event, Order, Ranks, Role, Start};
use bourdon_wire::records::{ViewEntry, ViewInfo, ballot_steps};
use bourdon_wire::{DatagramNumber, Epoch, Kind, Rank, Sequence};
use zerocopy::IntoBytes;

fn observer(order: Order, members: u16, start: Start) -> Bench {
    let mut config = Bench::config(order, members, Role::Observer);
    config.start = start;
    Bench::with(config)
}

fn view(members: u64) -> Event {
    let [members, none] = [members, 0].map(Ranks);
    Event::View { epoch: Epoch(1), members, sequencer: Rank(0), left: none, failed: none }
}

fn beat(bench: &mut Bench, rank: u16, oldest: u64, next: u64, sequence: u64) {
    bench.take(&bench.heartbeat(rank, |heartbeat| {
        heartbeat.oldest_number = oldest.into();
        heartbeat.next_number = next.into();
        heartbeat.next_sequence = sequence.into();
    }));
    bench.timers();
}

#[test]
fn live_begins_with_what_comes_next() {
    let mut bench = observer(Order::Fifo, 1, Start::Live);
    beat(&mut bench, 0, 3, 10, 40);
    assert_eq!(
        bench.news(),
        [sends_control("which view", To::Port(port(0))), Effect::Event(view(0b1))],
        "and so a cookie"
    );
    bench.take(&data(0, 9, 39, 0, &[message(b"old")]));
    bench.take(&data(0, 10, 40, 0, &[message(b"new")]));
    assert_eq!(bench.news(), [deliver("0:40")]);
}

#[test]
fn oldest_waits_for_the_heartbeat_and_fetches_the_past() {
    let mut bench = observer(Order::Fifo, 1, Start::Oldest);
    bench.take(&data(0, 9, 39, 0, &[message(b"first heard")]));
    assert_eq!(bench.news(), [Effect::Event(view(0b1))]);
    beat(&mut bench, 0, 8, 10, 40);
    let cookie = sends_control("which view", To::Port(port(0)));
    assert_eq!(bench.news(), [cookie, sends_control("nak 0 8x2", To::Port(port(0)))]);
    bench.take(&data(0, 8, 37, 0, &[message(b"a"), message(b"b")]));
    assert_eq!(bench.news(), [deliver("0:37"), deliver("0:38")]);
}

/// The order's oldest run names messages whose datagrams are gone: they are passed over, and no other message takes
/// their numbers.
#[test]
fn oldest_in_total_order_takes_no_message_for_another() {
    let mut bench = observer(Order::Total, 2, Start::Oldest);
    beat(&mut bench, 0, 4, 5, 0);
    beat(&mut bench, 1, 6, 7, 50);
    bench.take(&data(0, 4, 0, 70, &[run(1, 46, 6)]));
    assert!(!bench.news().iter().any(|effect| matches!(effect, Effect::Deliver(..))), "where 1 begins is not known");
    bench.take(&data(1, 6, 50, 0, &[message(b"50"), message(b"51")]));
    assert_eq!(bench.news(), [ordered("1:50", 74), ordered("1:51", 75)]);
}

#[test]
fn what_was_lost_while_fetching_is_a_gap_from_when_we_came() {
    let mut bench = observer(Order::Fifo, 1, Start::Oldest);
    beat(&mut bench, 0, 8, 10, 40);
    beat(&mut bench, 0, 12, 14, 60);
    bench.take(&unavailable(0, 0, 12));
    bench.take(&data(0, 12, 55, 0, &[message(b"x")]));
    let gap = Event::Gap { sender: Rank(0), from: Sequence(40), to: Sequence(55) };
    let news = bench.news();
    assert!(news.contains(&Effect::Event(gap)) && news.contains(&deliver("0:55")), "{news:?}");
}

#[test]
fn a_hole_as_wide_as_the_log_is_crossed() {
    let mut config = Bench::config(Order::Fifo, 1, Role::Observer);
    config.limits.receive_log_bytes = 16 * MTU;
    let mut bench = Bench::with(config);
    beat(&mut bench, 0, 0, 0, 0);
    beat(&mut bench, 0, 900, 1000, 1000);
    for step in 1..=57 {
        bench.take(&unavailable(0, 0, 900));
        beat(&mut bench, 0, 900, 1000, 1000);
        assert!(bench.process.received(Rank(0)).0 <= 16 * (step + 1), "no false end costs more than a log at a time");
    }
    assert_eq!(bench.process.received(Rank(0)), DatagramNumber(900));
    bench.take(&data(0, 900, 900, 0, &[message(b"x")]));
    let gap = Event::Gap { sender: Rank(0), from: Sequence(0), to: Sequence(900) };
    let news = bench.news();
    assert!(news.contains(&deliver("0:900")) && news.contains(&Effect::Event(gap)), "{news:?}");
}

/// The sequencer's datagrams are gone, and with them the place of another member's messages: they are lost, and
/// reported.
#[test]
fn messages_whose_order_was_lost_are_reported() {
    let mut bench = observer(Order::Total, 2, Start::Live).formed();
    bench.take(&data(1, 0, 0, 0, &[message(b"0"), message(b"1"), message(b"2")]));
    bench.take(&data(0, 0, 0, 0, &[message(b"own")]));
    bench.take(&data(0, 2, 1, 3, &[run(1, 2, 1)]));
    bench.take(&unavailable(0, 0, 2));
    let news = bench.effects();
    let lost = Event::Gap { sender: Rank(1), from: Sequence(0), to: Sequence(2) };
    assert!(news.contains(&ordered("0:0", 0)) && news.contains(&ordered("1:2", 3)), "{news:?}");
    bench.process.deliver(bench.now, usize::MAX, |_| {});
    let reported =
        bench.process.poll_event().map(Effect::Event).into_iter().chain(news).any(|e| e == Effect::Event(lost));
    assert!(reported);
}

/// The cut delivers 0 and 3 of five messages of a sender that died; the observer has delivered all five.
#[test]
fn what_ran_ahead_of_a_cut_with_gaps_is_retracted() {
    let mut bench = observer(Order::Unordered, 3, Start::Oldest).formed();
    for number in 0..5 {
        bench.take(&data(1, number, number, 0, &[message(b"x")]));
    }
    assert_eq!(bench.delivered(), ["1:0", "1:1", "1:2", "1:3", "1:4"]);
    let decided =
        Step { ranges: &[(1, 3, 1)], ..Step::with(ballot_steps::DECIDE, (1, 0), Value(&[0, 2], 0, &[0, 1, 0])) };
    bench.take(&decided.from(0));
    let entry = |rank: u16, first: u64| ViewEntry {
        rank: rank.into(),
        incarnation: u32::from(rank != 1).into(),
        first_sequence: first.into(),
    };
    let info = ViewInfo {
        entries: 3.into(),
        members: 2.into(),
        sequencer: 0.into(),
        barriers: 0.into(),
        first_order: 0.into(),
        phase: 0.into(),
        configuration: bench.process.config().fingerprint().into(),
        birth: 1.into(),
        nonce: 0.into(),
    };
    let entries = [entry(0, 0), entry(2, 0), entry(1, 4)];
    bench.take(&in_epoch(&control(0, Kind::View, &[info.as_bytes(), entries.as_bytes()]), 2));
    bench.timers();
    let news = bench.news();
    let retracted = |from: u64, to: u64| {
        Effect::Event(Event::Retracted { sender: Rank(1), from: Sequence(from), to: Sequence(to) })
    };
    assert_eq!(news.iter().filter(|effect| matches!(effect, Effect::Deliver(..))).count(), 0, "{news:?}");
    let events: Vec<_> = news.into_iter().filter(|effect| matches!(effect, Effect::Event(_))).collect();
    let [members, left, failed] = [0b101, 0, 0b10].map(Ranks);
    let next = Event::View { epoch: Epoch(2), members, sequencer: Rank(0), left, failed };
    assert_eq!(events, [retracted(1, 3), retracted(4, 5), Effect::Event(next)]);
}

/// The sequencer's datagrams do not reach the observer, and its members see no fault: the view stays.
#[test]
fn issue_an_observer_that_a_single_member_did_not_reach_reported_nothing() {
    let mut net = Net::new(3, 1, |config| config.start = Start::Live);
    net.run(200_000_000);
    let unheard = |net: &mut Net| {
        let now = net.now;
        net.process(3).unheard(now)
    };
    assert!(unheard(&mut net).is_empty());
    net.alter = Box::new(|from, to, _| usize::from((from, to) != (0, 3)));
    net.run(1_100_000_000);
    assert_eq!(unheard(&mut net), Ranks(1));
    let now = net.now;
    assert!(!net.process(3).observes_no_majority(now));
    let text = net.process(3).waiting(now, 0).to_string();
    assert!(text.contains("2 of 3 members of view 1 are heard; not heard now: 0"), "{text}");
    net.alter = Box::new(|_, _, _| 1);
    net.run(100_000_000);
    assert!(unheard(&mut net).is_empty());
}
