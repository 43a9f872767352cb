//! Barriers, case by case.

use crate::common::net::{Net, Output};
use crate::common::{self, Bench, Effect, MS, MTU, data, deliver, marker, message, row_at, sends};
use bourdon_protocol::{Counter, Event, Order, Outgoing, Ranks, Refusal, Role, Start};
use bourdon_wire::Rank;

fn synced(phase: u64, asked: bool) -> Effect {
    Effect::Event(Event::Synced { phase, asked })
}

#[test]
fn a_member_publishes_again_once_all_have_reached_its_marker() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.publish(b"before");
    bench.process.sync(bench.now, None).unwrap();
    assert_eq!(bench.news(), [sends(0, &["6 bytes", "marker 0"]), deliver("0:0")]);
    assert_eq!(bench.process.try_publish(bench.now, &Outgoing::default(), b"x"), Err(Refusal::Barrier));
    bench.take(&data(1, 0, 0, 0, &[message(b"x"), marker(0, 1, None)]));
    assert_eq!(bench.news(), [deliver("1:0")], "everything is here, but it may not be at the other member");
    bench.take(&row_at(1, 1, &[(1, 0), (1, 0)]));
    assert_eq!(bench.news(), [synced(1, true)]);
    bench.publish(b"after");
    assert_eq!(bench.news(), [sends(1, &["5 bytes"]), deliver("0:1")]);
}

#[test]
fn a_member_that_receives_a_marker_sets_its_own() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.take(&data(1, 0, 0, 0, &[marker(0, 0, None)]));
    assert_eq!(bench.news(), [sends(0, &["marker 0"])]);
    // The other member's row was lost, but that member has gone on: so every member had reached the barrier.
    bench.take(&data(1, 1, 0, 0, &[message(b"after")]));
    assert_eq!(bench.news(), [synced(1, false), Effect::Deliver("1:0".to_owned(), None)]);
}

#[test]
fn the_sequencer_ends_its_phase_after_all_that_it_has_to_order() {
    let mut bench = Bench::member(Order::Total, 2, 0).formed();
    bench.process.sync(bench.now, None).unwrap();
    // What 1 has sent before is not known yet: nothing ends here, but 1 gets a request for its marker.
    assert_eq!(bench.news(), [sends(0, &["asks for marker 0"])]);
    assert_eq!(bench.news(), [], "once");
    bench.take(&data(1, 0, 0, 0, &[message(b"x"), marker(0, 1, None)]));
    assert_eq!(bench.news()[0], sends(1, &["run 1:0x1", "marker 0"]));
}

/// In total order no run led across an acknowledgement that preceded a marker.
#[test]
fn issue_a_row_in_front_of_a_marker_holds_the_barrier_up() {
    let mut bench = Bench::member(Order::Total, 2, 0).formed();
    let row = (bourdon_wire::Kind::Row as u16, vec![0; 32 + 2 * 16]);
    bench.take(&data(1, 0, 0, 0, &[row, marker(0, 0, None)]));
    bench.take(&row_at(1, 1, &[(1, 0), (1, 0)]));
    let news: Vec<_> = (0..3).flat_map(|_| bench.news()).collect();
    assert!(news.contains(&synced(1, false)), "{news:?}");
}

/// Nor across the marker before, where nothing was published between the two.
#[test]
fn issue_two_barriers_with_nothing_between_them_never_end() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    for phase in 1..=3 {
        let now = net.now;
        net.process(1).sync(now, None).unwrap();
        net.run(20 * MS);
        for index in 0..4 {
            assert!(
                net.processes[index].shown.contains(&Output::Synced(phase)),
                "{index}: {:?}",
                net.processes[index].shown
            );
        }
    }
}

/// The sequencer waited for markers that it had not requested from any member.
#[test]
fn issue_a_barrier_of_the_sequencers_own_never_ends() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    net.publish(1, b"before").unwrap();
    let now = net.now;
    net.process(0).sync(now, None).unwrap();
    net.run(20 * MS);
    for index in 0..4 {
        assert!(net.processes[index].shown.contains(&Output::Synced(1)), "{:?}", net.processes[index].shown);
    }
}

#[test]
fn a_barrier_has_a_message_that_stands_between_the_phases() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.take(&data(1, 0, 0, 0, &[message(b"x"), marker(0, 1, Some(b"between"))]));
    bench.news();
    bench.take(&row_at(1, 1, &[(1, 0), (1, 0)]));
    let mut shown = Vec::new();
    bench.process.deliver(bench.now, usize::MAX, |d| shown.push((d.barrier, d.sender, d.payload.to_vec())));
    assert_eq!(shown, [(Some(0), Rank(1), b"between".to_vec())]);
}

#[test]
fn a_request_that_cannot_be_met_is_refused_with_its_reason() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    let most = MTU - 64 - 8 - 24;
    let large = bench.process.sync(bench.now, Some(&vec![0; most + 1]));
    assert_eq!(large, Err(Refusal::TooLarge { limit_bytes: most }));
    (0..64).for_each(|_| bench.process.sync(bench.now, Some(&vec![0; most])).unwrap());
    assert_eq!(bench.process.sync(bench.now, None), Err(Refusal::TooMany { limit: 64 }));
    let mut observer = Bench::new(Order::Fifo, 2, Role::Observer);
    assert_eq!(observer.process.sync(observer.now, None), Err(Refusal::Role));
    let mut config = Bench::config(Order::Fifo, 2, Role::Member(Rank(0)));
    config.view = None;
    let mut forming = Bench::with(config);
    assert_eq!(forming.process.sync(forming.now, None), Err(Refusal::Forming { missing: Ranks(0b10) }));
}

/// An observer that came after two barriers waited at the third for ever: it took it for a barrier of a later phase.
#[test]
fn issue_an_observer_that_comes_after_a_barrier_stops_at_the_next() {
    let mut config = Bench::config(Order::Fifo, 2, Role::Observer);
    config.start = Start::Live;
    let mut bench = Bench::with(config);
    // Of rank 0 it begins before the third marker, of rank 1 after it.
    bench.take(&data(0, 5, 5, 0, &[message(b"x"), marker(2, 6, None)]));
    bench.take(&data(1, 8, 8, 0, &[message(b"y")]));
    bench.effects();
    bench.take(&data(0, 6, 6, 0, &[message(b"y"), marker(3, 7, None)]));
    assert_eq!(bench.news(), [], "a marker of the next phase, in one stream");
    bench.take(&data(1, 9, 9, 0, &[marker(3, 9, None)]));
    let news: Vec<_> = (0..4).flat_map(|_| bench.news()).collect();
    assert_eq!(news, [synced(3, false), deliver("0:6")]);
    bench.take(&row_at(0, 4, &[(7, 7), (10, 10)]));
    assert_eq!(bench.news(), [], "the other member may not have got there");
    // Its row was lost: its heartbeat gives the same.
    bench.take(&bench.heartbeat(1, |heartbeat| heartbeat.reached_phase = 4.into()));
    let cookie = common::sends_control("which view", common::To::Port(common::port(1)));
    assert_eq!(bench.news(), [cookie, synced(4, false)]);
}

/// An observer that began behind one member's marker and before another's waited for the next barrier, which no member
/// needed to request.
#[test]
fn issue_an_observer_that_begins_behind_a_marker_waits_for_the_next_barrier() {
    let mut config = Bench::config(Order::Fifo, 2, Role::Observer);
    config.start = Start::Live;
    let mut bench = Bench::with(config);
    bench.take(&data(0, 5, 5, 0, &[message(b"x"), marker(0, 6, None)]));
    bench
        .take(&bench.heartbeat(1, |heartbeat| (heartbeat.next_number, heartbeat.next_sequence) = (9.into(), 9.into())));
    bench.take(&data(0, 6, 6, 0, &[message(b"y")]));
    assert_eq!(bench.delivered(), ["0:5"], "the other member may be before its marker");
    bench.take(&bench.heartbeat(1, |heartbeat| {
        (heartbeat.next_number, heartbeat.next_sequence, heartbeat.reached_phase) = (9.into(), 9.into(), 1.into());
    }));
    let news: Vec<_> = (0..4).flat_map(|_| bench.news()).collect();
    assert!(news.ends_with(&[synced(1, false), deliver("0:6")]), "{news:?}");
}

/// A marker of an impossible phase made every member run through barriers until it was reached.
#[test]
fn issue_a_marker_from_the_future_starts_barriers_without_end() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.take(&data(1, 0, 0, 0, &[marker(1 << 62, 0, None)]));
    assert_eq!(bench.news(), []);
    assert_eq!(bench.process.counters().get(Counter::DiscardedMalformed), 1);
    // A member that learns last of a barrier receives a marker one phase ahead: this is normal.
    bench.take(&data(1, 0, 0, 0, &[marker(0, 0, None)]));
    bench.take(&data(1, 1, 0, 0, &[message(b"x"), marker(1, 1, None)]));
    let news: Vec<_> = (0..4).flat_map(|_| bench.news()).collect();
    assert!(news.contains(&synced(1, false)), "{news:?}");
}

#[test]
fn a_barrier_that_a_view_change_meets_is_completed_after_it() {
    for at_us in [0, 200, 400, 600, 1000] {
        for victim in 0..3 {
            let mut net = Net::new(3, 1, |_| {});
            net.run(100 * MS);
            let requester = (victim + 1) % 3;
            for member in 0..3 {
                net.publish(member, b"before").unwrap();
            }
            let now = net.now;
            net.process(requester).sync(now, Some(b"between")).unwrap();
            net.run(at_us * 1000);
            net.kill(victim);
            net.run(400 * MS);
            let survivors = [(victim + 1) % 3, (victim + 2) % 3];
            for member in survivors {
                net.publish(member, b"after").unwrap();
            }
            net.run(50 * MS);
            for index in [survivors[0], survivors[1], 3] {
                assert_eq!(
                    net.processes[index].shown, net.processes[requester].shown,
                    "{victim} after {at_us} us: {index}"
                );
            }
            let shown = &net.processes[requester].shown;
            let count = shown.iter().filter(|shown| matches!(shown, Output::Synced(_))).count();
            assert!(count >= 1, "{victim} after {at_us} us: {shown:?}");
            assert!(
                shown.contains(&Output::Barrier(0, b"between".to_vec()))
                    || shown.contains(&Output::Barrier(1, b"between".to_vec())),
                "{shown:?}"
            );
        }
    }
}
