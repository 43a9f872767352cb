//! Who is there, case by case.

mod common;

use bourdon_protocol::{Counter, Event, Order};
use bourdon_wire::{Incarnation, Rank};
use common::{Bench, Effect, data, message};

fn events(bench: &mut Bench) -> Vec<Event> {
    let event = |effect| if let Effect::Event(event) = effect { Some(event) } else { None };
    bench.effects().into_iter().filter_map(event).collect()
}

#[test]
fn a_member_counts_once_it_has_said_that_it_is_configured_alike() {
    let mut bench = Bench::member(Order::Fifo, 3, 0);
    bench.take(&bench.heartbeat(1, |_| {}));
    bench.take(&data(2, 0, 0, 0, &[message(b"x")]));
    bench.take(&bench.heartbeat(1, |_| {}));
    assert_eq!(events(&mut bench), []);
    bench.take(&bench.heartbeat(2, |heartbeat| heartbeat.configuration = 1.into()));
    assert_eq!(events(&mut bench), [Event::ConfigurationDiffers(Rank(2))]);
    assert_eq!(bench.process.missing().collect::<Vec<_>>(), [Rank(2)]);
    bench.take(&bench.heartbeat(2, |_| {}));
    assert_eq!(events(&mut bench), [Event::Formed]);
}

/// A member started with the wrong configuration, stopped, and started again with the right one was refused as restarted.
#[test]
fn issue_wrong_configuration_poisons_the_rank() {
    let mut bench = Bench::member(Order::Fifo, 2, 0);
    let mut wrong = bench.heartbeat(1, |heartbeat| heartbeat.configuration = 1.into());
    wrong[28] = 9;
    let sum = bourdon_wire::checksum(&wrong);
    wrong[4..8].copy_from_slice(&sum.to_le_bytes());
    bench.take(&wrong);
    bench.take(&bench.heartbeat(1, |_| {}));
    assert_eq!(events(&mut bench), [Event::ConfigurationDiffers(Rank(1)), Event::Formed]);
}

#[test]
fn another_life_is_refused_and_reported_once() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    let mut restarted = data(1, 0, 0, 0, &[message(b"x")]);
    restarted[28] = 9;
    let sum = bourdon_wire::checksum(&restarted);
    restarted[4..8].copy_from_slice(&sum.to_le_bytes());
    bench.take(&restarted);
    bench.take(&restarted);
    assert_eq!(events(&mut bench), [Event::Restarted { rank: Rank(1), incarnation: Incarnation(9) }]);
    assert_eq!(bench.process.counters().get(Counter::DiscardedSender), 2);
}

#[test]
fn silence_is_named_and_revoked() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    let mut told = Vec::new();
    for _ in 0..40 {
        bench.wait(100_000_000);
        told.extend(events(&mut bench));
    }
    assert_eq!(told, [Event::MemberSilent(Rank(1))]);
    bench.take(&bench.heartbeat(1, |_| {}));
    assert_eq!(events(&mut bench), [Event::MemberHeard(Rank(1))]);
}

#[test]
fn who_was_stopped_itself_does_not_hold_it_against_the_others() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.wait(60_000_000_000);
    assert_eq!(events(&mut bench), []);
}
