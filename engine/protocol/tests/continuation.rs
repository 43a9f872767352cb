//! Rule 26: the members that continue into the next view are a quorum of the view before. Suspicion alone leaves out no
//! member that replies; a value that breaks the rule changes nothing where it is received.

use crate::common::net::Net;
use crate::common::{Bench, Effect, MS, Step, To, Value, port, sends_control};
use bourdon_protocol::{Config, Counter, Event, Order, Quorum, Refusal, Reliability, Standing};
use bourdon_wire::Epoch;
use bourdon_wire::records::ballot_steps::{ACCEPT, DECIDE, PREPARE, PROPOSE};

const PATIENCE_MS: u64 = 4 * 50;

/// A member that was descheduled hears no heartbeats: it suspects all other members, takes the ballot over, and they
/// reply.
#[test]
fn a_takeover_keeps_the_members_that_the_proposer_suspects() {
    let mut bench = Bench::one_of_three(1);
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    bench.news();
    bench.wait(1000 * MS); // it hears nothing for a second
    let news: Vec<Effect> = (0..40)
        .flat_map(|_| {
            bench.wait(10 * MS);
            bench.news()
        })
        .collect();
    assert!(news.contains(&sends_control("prepare 2.1", To::All)), "{news:?}");
    assert_eq!(bench.process.suspects(), 0b101);
    let ballot = bench.process.counters().get(Counter::Ballots);
    bench.take(&Step::state((1 + ballot, 1), &[0, 0, 0]).from(0));
    let news = bench.news();
    let proposal = format!("propose {}.1 view 01 led by 0 cut 0,0,0", 1 + ballot);
    assert!(news.contains(&sends_control(&proposal, To::All)), "the member that replied is in: {news:?}");
}

#[test]
fn a_value_without_a_quorum_of_the_view_is_not_accepted() {
    let mut bench = Bench::one_of_three(1);
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    bench.news();
    bench.take(&Step::with(PROPOSE, (1, 0), Value(&[0], 0, &[0, 0, 0])).from(0));
    assert_eq!(bench.news(), [], "one of three is no quorum");
    assert_eq!(bench.process.counters().get(Counter::DiscardedImplausible), 1);
    // A process that never requested to leave does not complete the quorum either, if it is in the view as well.
    let both = Step { leavers: 0b011, ..Step::with(PROPOSE, (1, 0), Value(&[0], 0, &[0, 0, 0])) };
    bench.take(&both.from(0));
    assert_eq!(bench.news(), []);
    let leaver = Step { leavers: 0b100, ..Step::with(PROPOSE, (1, 0), Value(&[0], 0, &[0, 0, 0])) };
    bench.take(&leaver.from(0));
    assert_eq!(bench.news(), [sends_control("accept 1.0", To::Port(port(0)))], "with the leaver it is");
}

#[test]
fn a_decision_without_a_quorum_of_the_view_changes_nothing() {
    let mut bench = Bench::one_of_three(1);
    bench.take(&Step::with(DECIDE, (1, 0), Value(&[0], 0, &[0, 0, 0])).from(0));
    assert_eq!(bench.news(), []);
    assert_eq!((bench.process.standing(), bench.process.view().epoch), (Standing::Member, Epoch(1)));
    assert!(!bench.process.is_wedged());
    let mut observer = Bench::new(Order::Fifo, 3, bourdon_protocol::Role::Observer).formed();
    observer.take(&Step::with(DECIDE, (1, 0), Value(&[0], 0, &[0, 0, 0])).from(0));
    observer.timers();
    assert_eq!(observer.process.counters().get(Counter::DiscardedImplausible), 1);
    assert!(!observer.process.is_wedged());
}

#[test]
fn an_accepted_value_that_breaks_the_rule_is_not_adopted() {
    let mut bench = Bench::one_of_three(1);
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    for _ in 0..(2 + PATIENCE_MS / 10) * 2 {
        bench.take(&bench.heartbeat(2, |beat| beat.heard_from = 0b110.into()));
        bench.wait(10 * MS);
    }
    let ballot = 1 + bench.process.counters().get(Counter::Ballots);
    bench.news();
    let small =
        Step { accepted: (1, 0), value: Some(Value(&[2], 2, &[0, 0, 0])), ..Step::state((ballot, 1), &[0, 0, 0]) };
    bench.take(&small.from(2));
    assert_eq!(bench.news(), []);
    bench.take(&Step::of(ACCEPT, (ballot, 1)).from(2));
    bench.take(&Step::state((ballot, 1), &[0, 0, 0]).from(2));
    let news = bench.news();
    let proposal = format!("propose {ballot}.1 view 12 led by 1 cut 0,0,0");
    assert!(news.contains(&sends_control(&proposal, To::All)), "{news:?}");
    let decides = |line: &&_| format!("{line:?}").contains("decide");
    assert_eq!(news.iter().find(decides), None, "an ACCEPT that came before the value does not count");
}

/// Members crash one after the other: with `quorum = members` the group stops at the majority of the configured
/// members.
#[test]
fn a_view_never_shrinks_below_the_configured_majority() {
    let of_view: fn(&mut Config) = |config| config.reliability = Reliability::Uniform;
    let of_members: fn(&mut Config) = |config| {
        (config.quorum, config.reliability) = (Quorum::Members, Reliability::Uniform);
    };
    for (quorum, configure, last) in [(Quorum::View, of_view, 1), (Quorum::Members, of_members, 3)] {
        let mut net = Net::new(5, 0, configure);
        net.run(100 * MS);
        for index in [4, 3, 2, 1] {
            net.kill(index);
            net.run(1500 * MS);
        }
        assert_eq!(net.process(0).view().members.len(), last, "{quorum:?}: {:?}", net.processes[0].events);
        let stopped = net.processes[0].events.contains(&Event::NoMajority);
        assert_eq!(stopped, quorum == Quorum::Members, "{:?}", net.processes[0].events);
        assert_eq!(net.publish(0, b"x").is_err_and(|refusal| matches!(refusal, Refusal::NoMajority { .. })), stopped);
    }
}
