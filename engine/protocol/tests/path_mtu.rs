//! Paths that carry short datagrams only.

use crate::common::net::Net;
use crate::common::{Bench, control};
use bourdon_protocol::{Config, Counter, Event, Order};
use bourdon_wire::records::PathReport;
use bourdon_wire::{Epoch, Kind, Rank};
use zerocopy::IntoBytes;

const LONG: [u8; 1300] = [7; 1300];
const SHORT: [u8; 100] = [7; 100];
const SECOND_NS: u64 = 1_000_000_000;
/// Heartbeats and rows are shorter, data is longer.
const PASSES_BYTES: usize = 700;

fn fifo(config: &mut Config) {
    config.order = Order::Fifo;
}

/// The first member publishes, as far as it is let, for so long.
fn publish(net: &mut Net, payload: &[u8], ns: u64) -> u64 {
    let mut taken = 0;
    for _ in 0..ns / 10_000_000 {
        taken += u64::from(net.publish(0, payload).is_ok());
        net.run(10_000_000);
    }
    taken
}

/// Long datagrams vanish between these processes: from, to.
fn narrow(net: &mut Net, is_narrow: impl Fn(usize, usize) -> bool + 'static) {
    net.alter = Box::new(move |from, to, datagram| usize::from(datagram.len() <= PASSES_BYTES || !is_narrow(from, to)));
}

fn mend(net: &mut Net) {
    net.alter = Box::new(|_, _, _| 1);
}

/// Whether a process reports that long datagrams from one member do not come to another.
fn names(net: &Net, index: usize, receiver: Option<u16>, sender: u16) -> bool {
    let (at, sender) = (receiver.map(Rank), Rank(sender));
    net.processes[index].events.iter().any(|event| match event {
        Event::LongDatagramsLost { at: named, from, bytes } => *named == at && *from == sender && *bytes > 1300,
        _ => false,
    })
}

fn count(net: &mut Net, counter: Counter) -> u64 {
    (0..net.processes.len()).map(|index| net.process(index).counters().get(counter)).sum()
}

fn group() -> Net {
    let mut net = Net::new(3, 1, fifo);
    net.run(SECOND_NS / 2);
    assert!(net.agree(&[0, 1, 2], 3));
    net
}

#[test]
fn a_member_that_gets_short_datagrams_only_is_named_and_left_out_and_comes_back_once_the_path_is_mended() {
    let mut net = group();
    narrow(&mut net, |_, to| to == 1);
    publish(&mut net, &LONG, 4 * SECOND_NS);
    for index in 0..3 {
        assert!(names(&net, index, Some(1), 0) && names(&net, index, Some(1), 2), "at {index}");
    }
    assert!(net.heard(1, Event::NoMajority));
    assert!(net.agree(&[0, 2], 2), "the others go on without it");
    // It does not come back meanwhile, however long that lasts.
    let views = net.views(0).len();
    assert!(publish(&mut net, &LONG, 20 * SECOND_NS) > 1_900, "the others are not held up");
    assert_eq!(net.views(0).len(), views);
    mend(&mut net);
    publish(&mut net, &LONG, 12 * SECOND_NS);
    assert!(net.agree(&[0, 1, 2], 3), "it is back");
}

#[test]
fn a_member_whose_long_datagrams_reach_no_other_is_left_out() {
    let mut net = group();
    narrow(&mut net, |from, _| from == 0);
    publish(&mut net, &LONG, 4 * SECOND_NS);
    assert!(names(&net, 1, Some(1), 0) && names(&net, 2, Some(2), 0) && names(&net, 3, None, 0));
    assert!(net.agree(&[1, 2], 2), "the others go on without it");
    mend(&mut net);
    net.run(12 * SECOND_NS);
    assert!(net.agree(&[0, 1, 2], 3), "it is back");
}

/// A switch port with a smaller MTU: both ways.
#[test]
fn a_member_behind_a_narrow_port_and_the_others_report_each_other() {
    let mut net = group();
    narrow(&mut net, |from, to| from == 2 || to == 2);
    publish(&mut net, &LONG, 4 * SECOND_NS);
    assert!(net.agree(&[0, 1], 2), "the others go on without it");
    net.run(2 * SECOND_NS);
    assert!(net.heard(2, Event::Removed(Epoch(2))), "it knows, though what its view ended with never reaches it");
    for index in 0..3 {
        let pairs = [(2, 0), (2, 1), (0, 2), (1, 2)];
        assert!(pairs.iter().all(|&(at, from)| names(&net, index, Some(at), from)), "at {index}");
    }
}

/// One direction between two of three: all others hear both.
#[test]
fn of_two_members_with_one_broken_direction_one_is_left_out() {
    let mut net = group();
    narrow(&mut net, |from, to| from == 0 && to == 2);
    publish(&mut net, &LONG, 4 * SECOND_NS);
    assert!(names(&net, 2, Some(2), 0) && !names(&net, 1, Some(1), 0));
    assert!(net.agree(&[0, 1], 2), "the older stays");
    let views = net.views(0).len();
    publish(&mut net, &LONG, 5 * SECOND_NS);
    assert_eq!(net.views(0).len(), views, "it does not come and go");
}

/// The path is bad from the start, and nothing shows it until there is long data.
#[test]
fn a_group_that_was_idle_finds_the_path_when_long_data_begins() {
    let mut net = group();
    narrow(&mut net, |_, to| to == 1);
    publish(&mut net, &SHORT, 5 * SECOND_NS);
    net.run(5 * SECOND_NS);
    assert!(net.agree(&[0, 1, 2], 3), "short data passes");
    assert_eq!(count(&mut net, Counter::HeartbeatsPadded), 0, "nothing is padded for it");
    // A single message is enough.
    net.publish(0, &LONG).unwrap();
    net.run(4 * SECOND_NS);
    assert!(names(&net, 0, Some(1), 0) && net.agree(&[0, 2], 2));
}

#[test]
fn where_long_datagrams_die_everywhere_the_group_reports_it_and_stays() {
    let mut net = group();
    narrow(&mut net, |_, _| true);
    publish(&mut net, &LONG, 5 * SECOND_NS);
    assert!((0..3).all(|index| names(&net, index, Some(1), 0) && names(&net, index, Some(2), 0)));
    assert!(names(&net, 3, None, 0), "an observer reports it as well");
    assert!((0..3).all(|index| net.views(index).len() == 1 && !net.heard(index, Event::NoMajority)));
    mend(&mut net);
    net.run(2 * SECOND_NS);
    assert!(net.agree(&[0, 1, 2], 3));
    assert!(net.messages(2).len() > 10 && net.messages(1) == net.messages(2), "all of it arrives");
}

#[test]
fn repairs_do_not_flood_a_path_that_can_t_carry_them() {
    let mut net = group();
    narrow(&mut net, |_, _| true);
    publish(&mut net, &LONG, 5 * SECOND_NS);
    let before = count(&mut net, Counter::RepairsSent);
    net.run(10 * SECOND_NS);
    let repairs = count(&mut net, Counter::RepairsSent);
    assert!(before < 500 && repairs - before < 100, "{before}, then {}", repairs - before);
}

/// Padded heartbeats are few, and end a while after the last long datagram.
#[test]
fn padding_is_bounded_and_ends() {
    let mut net = group();
    publish(&mut net, &LONG, 5 * SECOND_NS);
    let padded = count(&mut net, Counter::HeartbeatsPadded);
    assert!((100..=160).contains(&padded), "ten a second at each of three members: {padded}");
    net.run(2 * SECOND_NS);
    let ended = count(&mut net, Counter::HeartbeatsPadded);
    net.run(5 * SECOND_NS);
    assert_eq!(count(&mut net, Counter::HeartbeatsPadded), ended);
}

/// Datagrams of the greatest length, at as many members as a test takes: 48 MB/s before there was a bound.
#[test]
fn padding_takes_a_bounded_rate_at_any_length() {
    const MTU_BYTES: usize = 65_507;
    let mut net = Net::new(16, 0, |config| {
        fifo(config);
        config.limits.mtu_bytes = MTU_BYTES;
        config.limits.max_message_bytes = MTU_BYTES / 2;
        config.limits.window_bytes = 16 * MTU_BYTES;
        (config.limits.log_bytes, config.limits.receive_log_bytes) = (64 * MTU_BYTES, 64 * MTU_BYTES);
    });
    net.run(SECOND_NS / 2);
    let before = count(&mut net, Counter::HeartbeatsPadded);
    publish(&mut net, &[7; MTU_BYTES / 2], 4 * SECOND_NS);
    let padded = count(&mut net, Counter::HeartbeatsPadded) - before;
    assert!(padded >= 2 * 16 && padded * MTU_BYTES as u64 <= 5 * 1_250_000, "{padded} in 4 s");
}

#[test]
fn a_report_that_no_process_can_send_changes_nothing() {
    let mut bench = Bench::member(Order::Fifo, 3, 1).formed();
    let honest = PathReport {
        padded: 1.into(),
        missing: 0.into(),
        padded_bytes: 1408.into(),
        data_bytes: 1408.into(),
        missing_bytes: 0.into(),
        reserved: 0.into(),
    };
    let implausible = [
        PathReport { padded_bytes: 1409.into(), ..honest },
        PathReport { data_bytes: 548.into(), ..honest },
        PathReport { missing: 1.into(), missing_bytes: 1408.into(), ..honest },
        PathReport { missing: (1 << 3).into(), missing_bytes: 1408.into(), ..honest },
        PathReport { missing: 4.into(), ..honest },
        PathReport { missing_bytes: 1408.into(), ..honest },
    ];
    for (count, report) in (1..).zip(implausible) {
        bench.take(&control(0, Kind::PathReport, &[report.as_bytes()]));
        assert_eq!(bench.process.counters().get(Counter::DiscardedImplausible), count, "{report:?}");
    }
    // Padded heartbeats that jump ahead or back are no misses.
    for padded in [1, 1_000, 3, u64::MAX, 5, 1 << 40, 7, 1 << 50, 9, 1 << 60, 11] {
        bench.wait(100_000_000);
        bench.take(&control(0, Kind::PathReport, &[PathReport { padded: padded.into(), ..honest }.as_bytes()]));
    }
    assert_eq!(bench.process.counters().get(Counter::NarrowPaths), 0);
}
