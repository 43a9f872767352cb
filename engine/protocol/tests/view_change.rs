//! The change of a view, step by step: what each process sends, and what it no longer does.

use crate::common::{
    Bench, Effect, MS, Step, To, Value, altered, as_incarnation, data, deliver, in_epoch, message, ordered, port, row,
    run, sends, sends_control,
};
use bourdon_protocol::{Counter, Event, Order, Outgoing, Ranks, Refusal, Role};
use bourdon_wire::records::ballot_steps::{ACCEPT, DECIDE, PREPARE, PROPOSE, REFUSE};
use bourdon_wire::{Epoch, Incarnation, Rank};

const AFTER_ZERO: Value<'static> = Value(&[1, 2], 1, &[2, 0, 0]);

fn x(rank: u16, number: u64) -> Vec<u8> {
    data(rank, number, number, 0, &[message(b"x")])
}

fn view(epoch: u64, members: u64, sequencer: u16) -> Effect {
    let failed = Ranks(if epoch == 1 { 0 } else { 0b111 & !members });
    let (epoch, members, sequencer) = (Epoch(epoch), Ranks(members), Rank(sequencer));
    Effect::Event(Event::View { epoch, members, sequencer, left: Ranks::default(), failed })
}

/// Rank 1's bench, which suspects rank 0 for good and has begun a ballot.
fn proposer() -> Bench {
    let mut bench = Bench::one_of_three(1);
    bench.take(&x(0, 0));
    assert_eq!(bench.news(), [deliver("0:0")]);
    bench.process.on_evidence(bench.now, Rank(0), Incarnation(1));
    bench.take(&bench.heartbeat(2, |beat| beat.heard_from = 0b110.into()));
    bench.wait(10 * MS);
    bench.wait(MS);
    let news = bench.news();
    assert!(news.contains(&sends_control("prepare 1.1", To::All)), "{news:?}");
    bench
}

#[test]
fn a_promise_ends_everything_in_this_epoch() {
    let mut bench = Bench::one_of_three(1);
    bench.publish(b"packed and not sent");
    bench.take(&x(0, 0));
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    // What was received and not delivered waits; what was packed counts as held, and is not sent.
    assert_eq!(bench.news(), [sends_control("state 1.0 holds 1,1,0", To::Port(port(0)))]);
    assert_eq!(bench.process.try_publish(bench.now, &Outgoing::default(), b"x"), Err(Refusal::ViewChange));
    assert!(bench.process.is_wedged());
    bench.take(&x(0, 1));
    bench.take(&bench.heartbeat(0, |beat| beat.flags = 3.into()));
    bench.wait(MS);
    let acknowledges = |effect: &Effect| matches!(effect, Effect::Control(what, _) if what == "row");
    assert!(!bench.effects().iter().any(acknowledges), "no acknowledgement after a promise");
    assert_eq!(bench.news(), []);
}

#[test]
fn a_promised_sequencer_gives_no_order() {
    let mut bench = Bench::member(Order::Total, 3, 0).formed();
    bench.take(&x(1, 0));
    bench.take(&Step::of(PREPARE, (1, 2)).from(2));
    assert_eq!(bench.news(), [sends_control("state 1.2 holds 0,1,0", To::Port(port(2)))]);
    bench.process.order(bench.now);
    assert_eq!(bench.news(), []);
}

#[test]
fn a_value_is_accepted_once_the_whole_cut_is_here() {
    let mut bench = Bench::one_of_three(1);
    bench.take(&x(0, 0));
    bench.take(&Step::of(PREPARE, (1, 2)).from(2));
    bench.news();
    bench.take(&Step::with(PROPOSE, (1, 2), AFTER_ZERO).from(2));
    bench.timers();
    assert_eq!(bench.news(), [sends_control("nak 0 1x1", To::Port(port(2)))], "from a live member");
    bench.take(&x(0, 1));
    assert_eq!(bench.news(), [sends_control("accept 1.2", To::Port(port(2)))]);
    bench.take(&Step::with(DECIDE, (1, 2), AFTER_ZERO).from(2));
    assert_eq!(bench.news(), [deliver("0:0"), deliver("0:1"), view(2, 0b110, 1)]);
}

#[test]
fn a_decision_needs_no_promise_and_nothing_beyond_the_cut_is_delivered() {
    let mut bench = Bench::one_of_three(1);
    (0..4).for_each(|number| bench.take(&x(0, number)));
    bench.take(&Step::with(DECIDE, (7, 2), AFTER_ZERO).from(2));
    assert_eq!(bench.news(), [deliver("0:0"), deliver("0:1"), view(2, 0b110, 1)]);
    bench.take(&x(0, 4));
    assert_eq!(bench.news(), [], "its epoch is over");
}

#[test]
fn a_proposer_unites_what_the_answers_hold_and_decides_with_a_quorum_of_both_views() {
    let mut bench = proposer();
    bench.take(&Step::state((1, 1), &[3, 0, 0]).from(2));
    bench.timers();
    let news = bench.news();
    assert_eq!(news[0], sends_control("propose 1.1 view 12 led by 1 cut 3,0,0", To::All));
    assert_eq!(news[1..], [sends_control("nak 0 1x2", To::Port(port(2)))]);
    bench.take(&Step::of(ACCEPT, (1, 1)).from(2));
    assert_eq!(bench.news(), [], "its own is missing");
    bench.take(&x(0, 2));
    bench.take(&x(0, 1));
    let news = bench.news();
    assert_eq!(
        news[..3],
        [sends_control("decide view 12 led by 1 cut 3,0,0", To::All), deliver("0:1"), deliver("0:2")]
    );
    assert_eq!(news[3..], [view(2, 0b110, 1)]);
}

#[test]
fn an_accepted_value_is_adopted_unchanged() {
    let mut bench = proposer();
    let value = Value(&[0, 1, 2], 2, &[1, 0, 0]);
    let state = Step { accepted: (1, 0), value: Some(value), ..Step::state((1, 1), &[3, 0, 0]) };
    bench.take(&state.from(2));
    assert_eq!(bench.news()[0], sends_control("propose 1.1 view 012 led by 2 cut 1,0,0", To::All));
}

#[test]
fn the_next_proposer_learns_what_was_accepted() {
    let mut bench = Bench::one_of_three(1);
    (0..2).for_each(|number| bench.take(&x(0, number)));
    bench.news();
    bench.take(&Step::of(PREPARE, (1, 2)).from(2));
    bench.take(&Step::with(PROPOSE, (1, 2), AFTER_ZERO).from(2));
    bench.take(&Step::of(PREPARE, (2, 0)).from(0));
    let news = bench.news();
    assert_eq!(news[1], sends_control("accept 1.2", To::Port(port(2))));
    let state = "state 2.0 holds 2,0,0 accepted 1.2 view 12 led by 1 cut 2,0,0";
    assert_eq!(news[2], sends_control(state, To::Port(port(0))));
}

#[test]
fn lower_ballots_are_refused_by_the_name_of_the_higher() {
    let mut bench = Bench::one_of_three(1);
    bench.take(&Step::of(PREPARE, (2, 2)).from(2));
    bench.news();
    bench.take(&Step::of(PREPARE, (2, 0)).from(0));
    bench.take(&Step::with(PROPOSE, (1, 0), AFTER_ZERO).from(0));
    let refusal = sends_control("refuse 2.2", To::Port(port(0)));
    assert_eq!(bench.news(), [refusal.clone(), refusal]);
}

#[test]
fn a_refused_proposer_goes_beyond() {
    let mut bench = proposer();
    bench.take(&Step::of(REFUSE, (5, 2)).from(2));
    assert_eq!(bench.news(), []);
    for _ in 0..15 {
        bench.take(&bench.heartbeat(2, |beat| beat.heard_from = 0b110.into()));
        bench.wait(10 * MS);
    }
    let news = bench.news();
    assert!(news.contains(&sends_control("prepare 6.1", To::All)), "{news:?}");
}

#[test]
fn a_proposer_that_dies_is_replaced_by_the_next_in_line() {
    let mut bench = Bench::one_of_three(1);
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    bench.news();
    let mut at_ms = 0;
    while !bench.news().contains(&sends_control("prepare 2.1", To::All)) {
        bench.take(&bench.heartbeat(2, |beat| beat.heard_from = 0b111.into()));
        bench.wait(5 * MS);
        at_ms += 5;
        assert!(at_ms < 200, "the promise binds for ever");
    }
    assert!(at_ms >= 50, "the proposer was given its time: {at_ms} ms");
}

#[test]
fn steps_are_repeated_until_they_are_answered_and_no_longer() {
    let mut bench = proposer();
    let mut count = 0;
    for _ in 0..20 {
        bench.wait(MS);
        count += bench.news().iter().filter(|effect| **effect == sends_control("prepare 1.1", To::All)).count();
    }
    assert!((3..=4).contains(&count), "{count} times in 20 ms");
    // Another proposer's higher ballot: no step of this process is due any more.
    bench.take(&Step::of(PREPARE, (2, 2)).from(2));
    for _ in 0..20 {
        bench.wait(MS);
        assert!(!bench.news().contains(&sends_control("prepare 1.1", To::All)));
    }
}

#[test]
fn what_the_cut_does_not_order_is_published_again_under_its_name() {
    let mut bench = Bench::member(Order::Total, 3, 1).formed();
    bench.publish(b"ordered");
    bench.settle();
    bench.publish(b"not ordered");
    assert_eq!(bench.news(), [sends(1, &["11 bytes"])]);
    bench.take(&data(0, 0, 0, 0, &[run(1, 0, 1)]));
    bench.take(&Step::with(DECIDE, (1, 2), Value(&[1, 2], 1, &[1, 2, 0])).from(2));
    assert_eq!(bench.news(), [ordered("1:0", 0), view(2, 0b110, 1)]);
    bench.take(&in_epoch(&bench.heartbeat(2, |_| {}), 2));
    // The datagrams of the new view count from 0, the messages go on: 1:1 is the second in total order. It is sent with
    // the time at which it was first published: 8 bytes before the payload.
    let news = bench.news();
    assert_eq!(news, [sends(0, &["11 bytes"]), ordered("1:1", 1)]);
    assert_eq!(bench.process.counters().get(Counter::Resubmitted), 1);
}

#[test]
fn a_member_left_out_learns_it_and_is_another_incarnation_from_then_on() {
    let mut bench = Bench::one_of_three(1);
    bench.publish(b"x");
    bench.take(&Step::with(DECIDE, (1, 0), Value(&[0, 2], 0, &[0, 0, 0])).from(0));
    bench.news();
    let standing = bench.process.standing();
    assert_eq!(standing, bourdon_protocol::Standing::Outside);
    assert_eq!(bench.process.try_publish(bench.now, &Outgoing::default(), b"x"), Err(Refusal::Outside));
    assert_ne!(bench.process.incarnation(), Incarnation(1));
}

#[test]
fn no_other_process_has_a_vote() {
    let mut bench = Bench::one_of_three(1);
    let prepare = Step::of(PREPARE, (1, 0)).from(0);
    let rank_at = 24;
    for stranger in [
        as_incarnation(&prepare, 2),                     // another incarnation of a member
        in_epoch(&prepare, 2),                           // of an epoch that is not this one
        altered(&prepare, rank_at, &9u16.to_le_bytes()), // no rank of this group
        Step::of(PREPARE, (1, 2)).from(0),               // in another member's name
        Step::of(PREPARE, (0, 0)).from(0),               // in no ballot at all
        Step::of(17, (1, 0)).from(0),                    // an unknown step
        Step::with(PROPOSE, (1, 0), Value(&[1, 1, 2], 1, &[0, 0, 0])).from(0), // a member twice
        Step::with(PROPOSE, (1, 0), Value(&[1, 2], 0, &[0, 0, 0])).from(0), // a sequencer that is not a member
        Step::with(PROPOSE, (1, 0), Value(&[1, 9], 1, &[0, 0, 0])).from(0), // an impossible member
        Step::with(PROPOSE, (1, 0), Value(&[1, 2], 1, &[0, 0])).from(0), // a cut that leaves a stream out
    ] {
        bench.take(&stranger);
        assert_eq!(bench.news(), []);
        assert!(!bench.process.is_wedged());
    }
    bench.publish(b"on");
    assert_eq!(bench.news(), [sends(0, &["2 bytes"]), deliver("1:0")]);
}

/// A cut beyond what any member can hold is fetched within bounds, never accepted, and replaced by the next ballot.
#[test]
fn a_cut_out_of_reach_blocks_no_member() {
    let mut bench = Bench::one_of_three(1);
    let most = (1 << 48) - 1;
    bench.take(&Step::with(PROPOSE, (1, 0), Value(&[1, 2], 1, &[most; 3])).from(0));
    for _ in 0..10 {
        bench.wait(MS);
        assert!(
            !bench.news().iter().any(|effect| matches!(effect, Effect::Control(what, _) if what.contains("accept")))
        );
    }
    bench.take(&Step::of(PREPARE, (2, 2)).from(2));
    assert!(bench.news().contains(&sends_control("state 2.2 holds 0,0,0", To::Port(port(2)))));
    bench.take(&Step::with(PROPOSE, (2, 2), Value(&[1, 2], 1, &[0, 0, 0])).from(2));
    bench.take(&row(0, &[(0, 0); 3]));
    assert!(bench.news().contains(&sends_control("accept 2.2", To::Port(port(2)))));
}

/// A member that was still in the view before, with a cut to fetch, was suspected as soon as the next view began.
#[test]
fn issue_a_member_that_is_late_into_the_next_view_is_suspected() {
    let mut config = Bench::config(Order::Fifo, 3, Role::Member(Rank(1)));
    (config.timing.detector.pull, config.timing.detector.phi) = (false, false);
    let mut bench = Bench::with(config).formed();
    bench.now = bench.now + 60_000 * MS;
    for rank in [0, 2] {
        bench.take(&bench.heartbeat(rank, |_| {}));
    }
    bench.settle();
    let late = bench.heartbeat(0, |_| {});
    bench.take(&Step::with(DECIDE, (1, 2), Value(&[0, 1, 2], 1, &[0, 0, 0])).from(2));
    bench.settle();
    assert_eq!(bench.process.view().epoch, Epoch(2));
    let suspect_after_ns = bench.process.config().timing.detector.suspect_after_ns;
    for _ in 0..20 {
        bench.wait(suspect_after_ns / 4);
        bench.take(&late);
        bench.take(&in_epoch(&bench.heartbeat(2, |_| {}), 2));
    }
    assert_eq!(bench.process.suspects(), 0);
}

#[test]
fn issue_a_member_whose_ballot_lost_its_quorum_waited_in_silence() {
    let mut bench = proposer();
    bench.process.on_evidence(bench.now, Rank(2), Incarnation(1));
    bench.wait(MS);
    for _ in 0..100 {
        bench.wait(10 * MS);
    }
    let news = bench.news();
    assert!(news.contains(&Effect::Event(Event::NoMajority)), "{news:?}");
    let refused = bench.process.try_publish(bench.now, &Outgoing::default(), b"x");
    assert_eq!(refused, Err(Refusal::NoMajority { missing: Ranks(0b101) }));
}
