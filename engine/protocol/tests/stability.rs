//! Acknowledgements, case by case.

use crate::common::{self, Bench, Effect, data, message, row};
use bourdon_protocol::{Counter, Order};
use bourdon_wire::records::heartbeat_flags;
use bourdon_wire::{DatagramNumber, Rank};

fn rows(bench: &mut Bench) -> usize {
    bench.effects().iter().filter(|effect| matches!(effect, Effect::Control(what, _) if what == "row")).count()
}

#[test]
fn a_late_row_changes_nothing() {
    let mut bench = Bench::member(Order::Fifo, 3, 0).formed();
    for _ in 0..9 {
        bench.publish(b"x");
    }
    bench.settle();
    bench.publish(b"y");
    bench.settle();
    bench.take(&row(1, &[(2, 1), (7, 6), (5, 4)]));
    bench.take(&row(1, &[(1, 1), (6, 6), (4, 4)]));
    let acknowledged = [0, 1, 2].map(|stream| bench.process.acknowledged(Rank(1), Rank(stream)));
    assert_eq!(acknowledged, [DatagramNumber(2), DatagramNumber(7), DatagramNumber(5)]);
    assert_eq!(bench.process.acknowledged(Rank(2), Rank(0)), DatagramNumber(0), "a row counts for its sender");
}

#[test]
fn a_datagram_is_acknowledged_after_the_delay_and_not_before() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    bench.wait(30_000_000);
    bench.effects();
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    bench.wait(199_999);
    assert_eq!(rows(&mut bench), 0);
    bench.wait(1);
    assert_eq!(rows(&mut bench), 1);
}

#[test]
fn an_eighth_of_a_window_is_acknowledged_at_once() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    for number in 0..3 {
        bench.take(&data(0, number, number, 0, &[message(b"x")]));
    }
    bench.timers();
    assert_eq!(rows(&mut bench), 0);
    bench.take(&data(0, 3, 3, 0, &[message(b"x")]));
    bench.timers();
    assert_eq!(rows(&mut bench), 1);
}

#[test]
fn a_request_for_a_row_is_answered_at_once() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    bench.take(&bench.heartbeat(0, |heartbeat| heartbeat.flags = heartbeat_flags::SOLICIT.into()));
    bench.timers();
    assert_eq!(rows(&mut bench), 1);
}

#[test]
fn an_acknowledgement_nearly_due_goes_along_with_data() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[message(b"x")]));
    bench.publish(b"early");
    assert_eq!(bench.news()[0], common::sends(0, &["5 bytes"]));
    bench.wait(100_000);
    bench.publish(b"later");
    assert_eq!(bench.news()[0], common::sends(1, &["5 bytes", "row"]));
    bench.wait(150_000);
    assert_eq!(rows(&mut bench), 0, "acknowledged already");
    assert_eq!(bench.process.counters().get(Counter::RowsSent), 2);
}
