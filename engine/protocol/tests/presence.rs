//! What each process reports of itself, case by case.

use crate::common::{self, Bench, Effect, MS, as_incarnation, data, message};
use bourdon_protocol::control::detector::Why;
use bourdon_protocol::{Counter, Difference, Event, Order, Outgoing, Ranks, Refusal, Role};
use bourdon_wire::records::heartbeat_flags;
use bourdon_wire::{Incarnation, Rank};

fn events(bench: &mut Bench) -> Vec<Event> {
    let event = |effect| if let Effect::Event(event) = effect { Some(event) } else { None };
    bench.effects().into_iter().filter_map(event).collect()
}

#[test]
fn a_member_counts_once_it_has_announced_the_same_configuration() {
    let mut bench = Bench::member(Order::Fifo, 3, 0);
    bench.effects();
    bench.take(&bench.heartbeat(1, |_| {}));
    bench.take(&data(2, 0, 0, 0, &[message(b"x")]));
    bench.take(&bench.heartbeat(1, |_| {}));
    assert_eq!(events(&mut bench), []);
    bench.take(&bench.heartbeat(2, |heartbeat| heartbeat.configuration = 1.into()));
    let difference = Difference { own: bench.process.config().fingerprint(), other: 1 };
    assert_eq!(events(&mut bench), [Event::ConfigurationDiffers(Rank(2), difference)]);
    assert_eq!(bench.process.missing().collect::<Vec<_>>(), [Rank(2)]);
    assert_eq!(
        bench.process.try_publish(bench.now, &Outgoing::default(), b"x"),
        Err(Refusal::Forming { missing: Ranks(0b100) })
    );
    bench.take(&bench.heartbeat(2, |_| {}));
    assert!(bench.process.is_formed());
    bench.publish(b"x");
}

/// It named a member that is configured otherwise, and a second later reported that no other process was heard.
#[test]
fn issue_a_process_that_is_configured_otherwise_was_counted_as_none() {
    let mut bench = Bench::member(Order::Fifo, 2, 0);
    assert!(bench.process.waiting(bench.now, MS).hears_no_other);
    bench.take(&bench.heartbeat(1, |heartbeat| heartbeat.configuration = 1.into()));
    let waiting = bench.process.waiting(bench.now, MS);
    assert!(!waiting.hears_no_other && waiting.missing == Ranks(0b10), "{waiting:?}");
    let text = waiting.to_string();
    assert!(
        text.ends_with("; heard, but configured otherwise: 1: give all processes the same configuration"),
        "{text}"
    );
}

/// A member started with the wrong configuration, stopped, and started again with the right one was refused as
/// restarted.
#[test]
fn issue_wrong_configuration_poisons_the_rank() {
    let mut bench = Bench::member(Order::Fifo, 2, 0);
    bench.effects();
    let wrong = bench.heartbeat(1, |heartbeat| heartbeat.configuration = 1.into());
    bench.take(&as_incarnation(&wrong, 9));
    bench.take(&bench.heartbeat(1, |_| {}));
    let difference = Difference { own: bench.process.config().fingerprint(), other: 1 };
    assert_eq!(events(&mut bench), [Event::ConfigurationDiffers(Rank(1), difference)]);
    assert!(bench.process.is_formed());
}

#[test]
fn another_incarnation_of_a_member_is_reported_once_and_nothing_of_it_is_taken() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    let restarted = as_incarnation(&data(1, 0, 0, 0, &[message(b"x")]), 9);
    bench.take(&restarted);
    bench.take(&restarted);
    assert_eq!(bench.process.counters().get(Counter::DiscardedSender), 2);
    assert_eq!(events(&mut bench), []);
    let beat = bench.heartbeat(1, |heartbeat| heartbeat.next_number = 7.into());
    let learns = bench.heartbeat(1, |heartbeat| heartbeat.flags = heartbeat_flags::LEARNER.into());
    bench.take(&as_incarnation(&learns, 9));
    bench.take(&as_incarnation(&learns, 9));
    assert_eq!(events(&mut bench), [Event::Restarted { rank: Rank(1), incarnation: Incarnation(9) }]);
    bench.timers();
    assert_eq!(bench.news(), [], "what another incarnation has sent is not requested");
    // An earlier incarnation, which was a member, is not reported either: a datagram of it was late.
    bench.take(&as_incarnation(&beat, 7));
    assert_eq!(events(&mut bench), []);
}

#[test]
fn silence_is_suspected_and_revoked() {
    let mut config = Bench::config(Order::Fifo, 3, Role::Member(Rank(0)));
    (config.timing.detector.pull, config.timing.detector.phi) = (false, false);
    let mut bench = Bench::with(config).formed();
    let mut reported = Vec::new();
    for _ in 0..40 {
        bench.wait(10 * MS);
        bench.take(&bench.heartbeat(2, |_| {}));
        reported.extend(events(&mut bench));
        if !reported.is_empty() {
            break;
        }
    }
    assert_eq!(reported, [Event::Suspected(Rank(1), Why::Push)]);
    assert!(bench.now.0 <= 100 * MS, "eight heartbeats missed");
    assert_eq!(bench.process.suspects(), 0b10);
    bench.take(&bench.heartbeat(1, |_| {}));
    bench.wait(MS);
    assert_eq!(events(&mut bench), [Event::Trusted(Rank(1))]);
    assert_eq!(bench.process.suspects(), 0);
}

#[test]
fn a_member_that_was_stopped_itself_suspects_no_other() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.wait(60_000_000_000);
    assert_eq!(events(&mut bench), []);
}

#[test]
fn an_address_that_cannot_be_sent_to_is_not_taken() {
    let mut bench = Bench::member(Order::Fifo, 2, 1);
    bench.take(&bench.heartbeat(0, |heartbeat| heartbeat.address = Default::default()));
    bench.settle();
    bench.take(&data(0, 1, 1, 0, &[message(b"x")]));
    bench.timers();
    assert_eq!(bench.news(), [common::sends_control("nak 0 0x1", common::To::All)], "to the group: no better address");
}

#[test]
fn a_heartbeat_with_another_address_is_discarded() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    bench.take(&bench.heartbeat(0, |heartbeat| heartbeat.address = common::address(7)));
    assert_eq!(bench.process.counters().get(Counter::DiscardedAddress), 1);
    bench.take(&data(0, 1, 1, 0, &[message(b"x")]));
    bench.timers();
    assert_eq!(bench.news(), [common::sends_control("nak 0 0x1", common::To::Port(common::port(0)))]);
}
