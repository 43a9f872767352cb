//! Causal order, case by case.

use crate::common::{Bench, Effect, after, data, deliver, message, sends};
use bourdon_protocol::{Order, Outgoing};

/// The textbook's case: process 1 replies to a message of process 0, and the reply arrives first: (1,1,0) waits for
/// (1,0,0).
#[test]
fn an_answer_waits_for_its_question() {
    let mut bench = Bench::member(Order::Causal, 3, 2).formed();
    bench.take(&data(1, 0, 0, 0, &[after(&[(0, 1)], b"answer")]));
    assert_eq!(bench.news(), []);
    bench.take(&data(0, 0, 0, 0, &[message(b"question")]));
    assert_eq!(bench.news(), [deliver("0:0"), deliver("1:0")]);
}

#[test]
fn concurrent_messages_do_not_wait_for_each_other() {
    let mut bench = Bench::member(Order::Causal, 3, 2).formed();
    bench.take(&data(1, 0, 0, 0, &[message(b"b")]));
    assert_eq!(bench.news(), [deliver("1:0")]);
    bench.take(&data(0, 0, 0, 0, &[message(b"a")]));
    assert_eq!(bench.news(), [deliver("0:0")]);
}

#[test]
fn a_chain_unwinds_in_its_order() {
    let mut bench = Bench::member(Order::Causal, 4, 3).formed();
    bench.take(&data(2, 0, 0, 0, &[after(&[(1, 1)], b"third"), message(b"fourth")]));
    bench.take(&data(1, 0, 0, 0, &[after(&[(0, 2)], b"second")]));
    bench.take(&data(0, 0, 0, 0, &[message(b"zeroth")]));
    assert_eq!(bench.news(), [deliver("0:0")]);
    bench.take(&data(0, 1, 1, 0, &[message(b"first")]));
    assert_eq!(bench.news(), [deliver("0:1"), deliver("1:0"), deliver("2:0"), deliver("2:1")]);
}

#[test]
fn vectors_give_what_changed_and_all_once_a_datagram() {
    let mut bench = Bench::member(Order::Causal, 3, 2).formed();
    bench.take(&data(0, 0, 0, 0, &[message(b"a")]));
    bench.settle();
    bench.publish(b"x");
    bench.publish(b"y");
    bench.take(&data(1, 0, 0, 0, &[message(b"b")]));
    bench.process.deliver(bench.now, usize::MAX, |_| {});
    bench.publish(b"z");
    let own: Vec<Effect> = bench.news().into_iter().filter(|effect| matches!(effect, Effect::Data(..))).collect();
    assert_eq!(own, [sends(0, &["1 bytes after 0=1", "1 bytes", "1 bytes after 1=1"])]);
    bench.publish(b"w");
    assert_eq!(bench.news()[0], sends(1, &["1 bytes after 0=1,1=1"]));
}

#[test]
fn a_dropped_claim_sends_nothing_and_a_committed_one_is_sent_once() {
    let mut bench = Bench::member(Order::Causal, 2, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[message(b"a")]));
    bench.settle();
    let outgoing = Outgoing::default();
    drop(bench.process.try_claim(bench.now, &outgoing, 3).unwrap());
    for _ in 0..2 {
        let mut claim = bench.process.try_claim(bench.now, &outgoing, 3).unwrap();
        claim.copy_from_slice(b"xyz");
        claim.commit();
    }
    assert_eq!(bench.news()[0], sends(0, &["3 bytes after 0=1", "3 bytes"]));
}

#[test]
fn a_rank_outside_the_view_is_not_waited_for() {
    let mut bench = Bench::member(Order::Causal, 2, 1).formed();
    bench.take(&data(0, 0, 0, 0, &[after(&[(77, 5)], b"a")]));
    assert_eq!(bench.news(), [deliver("0:0")]);
}
