//! Flow control, case by case.

use crate::common::{Bench, Effect, MTU, data, message, row, sends};
use bourdon_protocol::{Counter, Destination, HeldBy, Order, Outgoing, Ranks, Refusal};
use bourdon_wire::{CONTROL_CHANNEL, DatagramHeader, DatagramNumber, Rank};

/// Publishes whole datagrams until refused; returns how many were taken.
fn fill(bench: &mut Bench) -> u64 {
    let mut taken = 0;
    loop {
        match bench.process.try_publish(bench.now, &Outgoing::default(), &[7; MTU - 72]) {
            Ok(_) => taken += 1,
            Err(refusal) => {
                assert!(matches!(refusal, Refusal::Window { .. }), "{refusal:?}");
                return taken;
            }
        }
    }
}

#[test]
fn exactly_a_window_may_be_under_way() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    assert_eq!(fill(&mut bench), 32);
    assert_eq!(bench.process.window(), Some((DatagramNumber(32), DatagramNumber(32), Some(HeldBy::Member(Rank(1))))));
    bench.settle();
    bench.take(&row(1, &[(5, 3), (0, 0)]));
    assert_eq!(fill(&mut bench), 3, "what was delivered counts, not what was received");
    assert_eq!(bench.process.counters().get(Counter::RefusedWindow), 2);
}

#[test]
fn the_slowest_member_holds_all_back() {
    let mut bench = Bench::member(Order::Fifo, 3, 0).formed();
    fill(&mut bench);
    bench.settle();
    bench.take(&row(1, &[(32, 32), (0, 0), (0, 0)]));
    assert_eq!(fill(&mut bench), 0);
    bench.take(&row(2, &[(32, 1), (0, 0), (0, 0)]));
    assert_eq!(fill(&mut bench), 1);
}

#[test]
fn nothing_is_opened_before_every_window_is_known() {
    let mut bench = Bench::member(Order::Fifo, 3, 0);
    bench.take(&bench.heartbeat(1, |_| {}));
    let refusal = bench.process.try_publish(bench.now, &Outgoing::default(), b"x");
    assert_eq!(refusal, Err(Refusal::Forming { missing: Ranks(0b100) }));
    assert_eq!(bench.process.window().unwrap().1, DatagramNumber(0));
    bench.take(&bench.heartbeat(2, |heartbeat| heartbeat.window_bytes = (20 * MTU as u32).into()));
    bench.settle();
    assert_eq!(fill(&mut bench), 20, "the smallest window counts");
}

#[test]
fn a_window_too_small_for_anything_counts_as_sixteen() {
    let mut bench = Bench::member(Order::Fifo, 2, 0);
    bench.take(&bench.heartbeat(1, |heartbeat| heartbeat.window_bytes = 1.into()));
    bench.settle();
    assert_eq!(fill(&mut bench), 16);
}

#[test]
fn a_row_that_claims_everything_opens_one_window() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    fill(&mut bench);
    bench.settle();
    bench.take(&row(1, &[(u64::MAX, u64::MAX), (0, 0)]));
    assert_eq!(bench.process.acknowledged(Rank(1), Rank(0)), DatagramNumber(32));
    assert_eq!(fill(&mut bench), 32);
    assert_eq!(fill(&mut bench), 0);
}

#[test]
fn the_sequencer_keeps_room_for_the_others_order() {
    let mut bench = Bench::member(Order::Total, 2, 0).formed();
    assert_eq!(fill(&mut bench), 30);
    bench.settle();
    bench.take(&data(1, 0, 0, 0, &[message(b"x")]));
    assert_eq!(bench.news()[0], sends(30, &["run 1:0x1"]));
}

#[test]
fn a_full_window_asks_for_rows_soon() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    fill(&mut bench);
    bench.settle();
    let before = bench.now;
    let is_beat = |effect: &Effect| matches!(effect, Effect::Control(what, _) if what.starts_with("heartbeat"));
    while !bench.effects().iter().any(is_beat) {
        bench.now = bench.process.next_deadline();
        bench.timers();
    }
    assert!(bench.now.since(before) <= 1_000_000);
}

#[test]
fn a_group_of_one_has_only_its_log_to_fill() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    assert_eq!(fill(&mut bench), 64);
    bench.settle();
    bench.settle();
    assert_eq!(fill(&mut bench), 64, "delivered here is delivered everywhere");
}

/// The only member of a group delivered its messages before the network took them, and wrote new ones over them.
#[test]
fn issue_a_lone_member_overwrites_what_the_network_has_not_taken() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    let mut published = 0;
    for _ in 0..200 {
        let taken = bench.process.try_publish(bench.now, &Outgoing::default(), &[1; MTU - 72]);
        published += u64::from(taken.is_ok());
        bench.process.transmit(bench.now, |_, _, _| 0);
        while bench.process.deliver(bench.now, usize::MAX, |_| {}) > 0 {}
    }
    assert!(published < 200, "the log has 64 datagrams");
    let mut numbers = Vec::new();
    bench.process.transmit(bench.now, |to, bytes, segment_bytes| {
        let chunks = bytes.chunks(segment_bytes);
        let count = chunks.len();
        if to == Destination::Group {
            numbers.extend(chunks.map(DatagramHeader::of_checked).map(|header| (header.channel(), header.number().0)));
        }
        count
    });
    let sent: Vec<u64> =
        numbers.iter().filter(|(channel, _)| *channel != CONTROL_CHANNEL).map(|(_, number)| *number).collect();
    assert_eq!(sent, (0..sent.len() as u64).collect::<Vec<_>>());
    bench.settle();
    bench.publish(b"there is room again");
}
