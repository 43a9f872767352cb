//! Total order, case by case.

use crate::common::{Bench, Effect, data, message, ordered, run, sends};
use bourdon_protocol::{Counter, Order};

#[test]
fn anothers_message_waits_for_its_number() {
    let mut bench = Bench::member(Order::Total, 3, 1).formed();
    bench.take(&data(2, 0, 0, 0, &[message(b"x"), message(b"y")]));
    assert_eq!(bench.news(), []);
    bench.take(&data(0, 0, 0, 0, &[message(b"own"), run(2, 0, 1), message(b"more")]));
    assert_eq!(bench.news(), [ordered("0:0", 0), ordered("2:0", 1), ordered("0:1", 2)]);
    bench.take(&data(0, 1, 2, 3, &[run(2, 1, 1)]));
    assert_eq!(bench.news(), [ordered("2:1", 3)]);
}

#[test]
fn everything_behind_a_missing_message_waits() {
    let mut bench = Bench::member(Order::Total, 3, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[run(2, 0, 2), message(b"own")]));
    bench.take(&data(2, 1, 1, 0, &[message(b"second")]));
    assert!(!bench.news().iter().any(|effect| matches!(effect, Effect::Deliver(..))));
    bench.take(&data(2, 0, 0, 0, &[message(b"first")]));
    assert_eq!(bench.news(), [ordered("2:0", 0), ordered("2:1", 1), ordered("0:0", 2)]);
}

#[test]
fn a_publisher_is_shown_its_own_message_only_in_turn() {
    let mut bench = Bench::member(Order::Total, 2, 1).formed();
    bench.publish(b"mine");
    assert_eq!(bench.news(), [sends(0, &["4 bytes"])]);
    bench.take(&data(0, 0, 0, 0, &[message(b"theirs"), run(1, 0, 1)]));
    assert_eq!(bench.news(), [ordered("0:0", 0), ordered("1:0", 1)]);
}

#[test]
fn a_burst_makes_one_run_a_sender_and_own_messages_none() {
    let mut bench = Bench::member(Order::Total, 3, 0).formed();
    bench.take(&data(2, 0, 0, 0, &[message(b"x"), message(b"y")]));
    bench.take(&data(1, 0, 0, 0, &[message(b"z")]));
    bench.publish(b"own");
    let effects = bench.news();
    assert_eq!(effects[0], sends(0, &["3 bytes", "run 1:0x1", "run 2:0x2"]));
    assert_eq!(effects[1..], [ordered("0:0", 0), ordered("1:0", 1), ordered("2:0", 2), ordered("2:1", 3)]);
}

/// Never k+1 before k: a message behind a gap gets no number.
#[test]
fn the_sequencer_orders_only_what_is_complete() {
    let mut bench = Bench::member(Order::Total, 2, 0).formed();
    bench.take(&data(1, 1, 1, 0, &[message(b"late")]));
    assert!(!bench.news().iter().any(|effect| matches!(effect, Effect::Data(..))));
    bench.take(&data(1, 0, 0, 0, &[message(b"early")]));
    assert_eq!(bench.news(), [sends(0, &["run 1:0x2"]), ordered("1:0", 0), ordered("1:1", 1)]);
}

#[test]
fn a_message_ordered_twice_is_delivered_once_and_counted() {
    let mut bench = Bench::member(Order::Total, 3, 1).formed();
    bench.take(&data(2, 0, 0, 0, &[message(b"x"), message(b"y")]));
    bench.take(&data(0, 0, 0, 0, &[run(2, 0, 1), run(2, 0, 2)]));
    assert_eq!(bench.news(), [ordered("2:0", 0), ordered("2:1", 2)]);
    assert_eq!(bench.process.counters().get(Counter::OrderFaults), 1);
}

/// A datagram with such a run does not come from an honest sequencer: nothing of it is taken, and the real datagram
/// still is.
#[test]
fn runs_of_no_member_and_of_nothing_are_discarded() {
    let mut bench = Bench::member(Order::Total, 2, 1).formed();
    for (count, forged) in [run(77, 0, 5), run(0, 0, 5), run(1, 0, 0)].into_iter().enumerate() {
        bench.take(&data(0, 0, 0, 0, &[forged, message(b"forged")]));
        assert_eq!(bench.news(), []);
        assert_eq!(bench.process.counters().get(Counter::DiscardedRun), 1 + count as u64);
    }
    bench.take(&data(0, 0, 0, 0, &[message(b"own")]));
    assert_eq!(bench.news(), [ordered("0:0", 0)]);
}
