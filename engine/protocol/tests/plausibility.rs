//! Numbers that no honest process can have sent: each is discarded, counted, and changes nothing.

use crate::common::{self, Bench, Effect, MS, MTU, Step, To, Value, control, data, message, ordered, run};
use bourdon_protocol::{Counter, Order, Role, Standing, Start};
use bourdon_wire::records::ballot_steps::{DECIDE, PREPARE, PROPOSE, REFUSE};
use bourdon_wire::records::{ViewEntry, ViewInfo, heartbeat_flags};
use bourdon_wire::{Epoch, Kind, Rank};
use zerocopy::IntoBytes;

/// The largest round that a ballot has room for.
const FAR: u64 = (1 << 47) - 1;
const LOG: u64 = 64;

fn member() -> Bench {
    let mut bench = Bench::member(Order::Total, 3, 1).formed();
    for _ in 0..4 {
        bench.publish(&[1; MTU - 72]);
    }
    bench.settle();
    bench
}

fn count(bench: &Bench, counter: Counter) -> u64 {
    bench.process.counters().get(counter)
}

/// Whether the process still sends what it publishes: it has promised no ballot.
fn is_open(bench: &mut Bench) -> bool {
    bench.process.try_publish(bench.now, &Default::default(), b"on").is_ok()
}

fn answers(bench: &mut Bench) -> Vec<String> {
    let word = |effect| match effect {
        Effect::Control(what, To::Port(_)) if !what.starts_with("ping") => Some(what),
        _ => None,
    };
    bench.news().into_iter().filter_map(word).collect()
}

#[test]
fn one_ballot_with_the_largest_round_stops_no_group() {
    for step in [PREPARE, REFUSE] {
        let mut bench = member();
        bench.take(&Step::of(step, (FAR, 2)).from(2));
        assert_eq!((count(&bench, Counter::DiscardedBallot), is_open(&mut bench)), (1, true));
    }
    let mut bench = member();
    bench.take(&Step::with(PROPOSE, (FAR, 2), Value(&[0, 1, 2], 0, &[0, 4, 0])).from(2));
    assert_eq!((count(&bench, Counter::DiscardedBallot), is_open(&mut bench)), (1, true));
    // Nor a round in a reply to a ballot that is under way.
    bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    bench.take(&Step::of(REFUSE, (FAR, 2)).from(2));
    bench.take(&Step::of(PREPARE, (2, 0)).from(0));
    assert_eq!(answers(&mut bench).last().map(String::as_str), Some("state 2.0 holds 0,5,0"));
}

/// The bound grows with time, as fast as 64 members that take over from each other could need.
#[test]
fn rounds_may_rise_with_time() {
    let mut bench = member();
    bench.take(&Step::of(PREPARE, (1025, 2)).from(2));
    assert_eq!((count(&bench, Counter::DiscardedBallot), is_open(&mut bench)), (1, true));
    bench.take(&Step::of(PREPARE, (1024, 2)).from(2));
    assert!(!is_open(&mut bench));
    bench.settle();
    bench.now = bench.now + 100 * MS; // two takeovers
    bench.take(&Step::of(PREPARE, (1024 + 129, 2)).from(2));
    assert_eq!(count(&bench, Counter::DiscardedBallot), 2);
    bench.take(&Step::of(PREPARE, (1024 + 128, 2)).from(2));
    assert_eq!(answers(&mut bench).last().map(String::as_str), Some("state 1152.2 holds 0,5,0"));
}

#[test]
fn a_cut_beyond_what_was_sent_is_not_fetched() {
    let far: [&[u64]; 4] = [&[0, 6, 0], &[LOG + 1, 4, 0], &[0, 4, 1 << 47], &[(1 << 48) - 1, 4, 0]];
    for cut in far {
        let mut bench = member();
        bench.take(&Step::with(DECIDE, (1, 2), Value(&[0, 1, 2], 0, cut)).from(2));
        bench.take(&Step::with(PROPOSE, (1, 2), Value(&[0, 1, 2], 0, cut)).from(2));
        assert_eq!((count(&bench, Counter::DiscardedCut), is_open(&mut bench)), (2, true), "{cut:?}");
    }
    // A plausible cut is accepted.
    let mut bench = member();
    bench.take(&Step::with(PROPOSE, (1, 2), Value(&[0, 1, 2], 0, &[LOG, 4, 0])).from(2));
    assert_eq!((count(&bench, Counter::DiscardedCut), is_open(&mut bench)), (0, false));
}

#[test]
fn a_state_beyond_what_was_sent_makes_no_cut() {
    let mut bench = member();
    bench.process.hand_over(bench.now, Rank(1));
    bench.process.on_evidence(bench.now, Rank(0), bourdon_wire::Incarnation(1));
    bench.wait(200 * MS);
    let before = count(&bench, Counter::Ballots);
    assert!(before > 0, "a ballot is under way");
    let round = before;
    bench.effects();
    bench.take(&Step::state((round, 1), &[1 << 47, 4, 0]).from(2));
    assert_eq!(count(&bench, Counter::DiscardedCut), 1);
}

#[test]
fn order_runs_for_messages_that_cannot_exist_hold_nothing_up() {
    let most = LOG * ((MTU - 64) as u64 / 8);
    let forged = [run(2, 0, u32::MAX), run(2, most, 1), run(2, (1 << 63) - 1, 1), run(2, u64::MAX, 7), run(9, 0, 1)];
    let mut bench = member();
    for (turn, forged) in forged.into_iter().enumerate() {
        bench.take(&data(0, 0, 0, 0, &[forged]));
        assert_eq!(count(&bench, Counter::DiscardedRun), 1 + turn as u64);
    }
    bench.take(&data(2, 0, 0, 0, &[message(b"x")]));
    bench.take(&data(0, 0, 0, 0, &[run(2, 0, 1), message(b"y")]));
    assert_eq!(bench.news(), [ordered("2:0", 0), ordered("0:0", 1)]);
}

fn in_epoch(datagram: &[u8], epoch: u64) -> Vec<u8> {
    common::in_epoch(datagram, u32::try_from(epoch).unwrap())
}

fn view(bench: &Bench, epoch: u64, members: &[u16]) -> Vec<u8> {
    let entry = |rank: u16| ViewEntry { rank: rank.into(), incarnation: 1.into(), first_sequence: 0.into() };
    let others = (0..3).filter(|rank| !members.contains(rank));
    let entries: Vec<_> = members.iter().copied().chain(others).map(entry).collect();
    let info = ViewInfo {
        entries: 3.into(),
        members: (members.len() as u16).into(),
        sequencer: members[0].into(),
        barriers: 0.into(),
        first_order: 0.into(),
        phase: 0.into(),
        configuration: bench.process.config().fingerprint().into(),
        birth: 1.into(),
        nonce: 0.into(),
    };
    in_epoch(&control(members[0], Kind::View, &[info.as_bytes(), entries.as_bytes()]), epoch)
}

#[test]
fn an_observer_follows_no_view_that_its_members_have_not_announced() {
    let mut config = Bench::config(Order::Total, 3, Role::Observer);
    config.start = Start::Live;
    let mut bench = Bench::with(config);
    for rank in 0..3 {
        bench.take(&bench.heartbeat(rank, |_| {}));
    }
    for epoch in [9, 1 << 20] {
        bench.take(&view(&bench, epoch, &[0, 1, 2]));
        assert_eq!(bench.process.view().epoch, Epoch(1));
    }
    assert_eq!(count(&bench, Counter::DiscardedView), 2);
    // A heartbeat of one of the three is no majority; heartbeats of two are. It skips the views between once no member
    // can send them: as member 2 is silent, after 10 s.
    for (ranks, epoch) in [(&[0][..], 1), (&[0, 1], 9)] {
        for _ in 0..130 {
            for rank in ranks {
                bench.take(&in_epoch(
                    &bench.heartbeat(*rank, |heartbeat| heartbeat.flags = heartbeat_flags::FORMED.into()),
                    9,
                ));
            }
            bench.take(&view(&bench, 9, &[0, 1, 2]));
            bench.wait(100 * MS);
        }
        assert_eq!(bench.process.view().epoch, Epoch(epoch), "after the heartbeats of {ranks:?}");
    }
}

#[test]
fn a_member_is_not_removed_by_a_view_that_its_members_have_not_announced() {
    let mut bench = member();
    bench.take(&view(&bench, 9, &[0, 2]));
    assert_eq!((bench.process.standing(), count(&bench, Counter::DiscardedView)), (Standing::Member, 1));
    for rank in [0, 2] {
        bench.take(&in_epoch(&bench.heartbeat(rank, |_| {}), 9));
    }
    bench.take(&view(&bench, 9, &[0, 2]));
    assert_eq!(bench.process.standing(), Standing::Outside);
}

/// A decision with a far cut reaches an observer too; it knows only what heartbeats announced.
#[test]
fn an_observer_believes_no_cut_beyond_what_time_allows() {
    let mut config = Bench::config(Order::Total, 3, Role::Observer);
    config.start = Start::Live;
    let mut bench = Bench::with(config);
    for rank in 0..3 {
        bench.take(&bench.heartbeat(rank, |_| {}));
    }
    bench.take(&Step::with(DECIDE, (1, 0), Value(&[0, 1, 2], 0, &[0, 1 << 40, 0])).from(0));
    assert_eq!(count(&bench, Counter::DiscardedCut), 1);
    // It may have heard nothing for a second, in which much can be sent.
    bench.now = bench.now + 1_000 * MS;
    bench.take(&Step::with(DECIDE, (1, 0), Value(&[0, 1, 2], 0, &[0, 10_000_000, 0])).from(0));
    assert_eq!(count(&bench, Counter::DiscardedCut), 1);
}

/// A forged heartbeat announced datagrams that no member had sent: the member requested them 50 times a second until
/// the view changed.
#[test]
fn issue_requests_for_what_a_forged_heartbeat_announced_never_end() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.take(&bench.heartbeat(1, |heartbeat| heartbeat.next_number = 1_000.into()));
    bench.wait(10 * MS);
    let requests = |bench: &Bench| bench.process.counters().get(Counter::NaksSent);
    let before = requests(&bench);
    assert!(before > 0, "the heartbeat may be true");
    bench.take(&bench.heartbeat(1, |_| {}));
    bench.wait(1_000 * MS);
    assert_eq!(requests(&bench), before, "the next heartbeat announces the true end");
    bench.take(&data(1, 0, 0, 0, &[message(b"x")]));
    assert_eq!(bench.delivered(), ["1:0"]);
}
