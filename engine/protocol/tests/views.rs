//! Groups that lose and gain members, in one thread on a clock that is a number: what each process delivers and hears.

use crate::common::net::{Net, Output, ballot_step};
use crate::common::{GROUP, MS};
use bourdon_protocol::{Config, Event, Order, Ranks, Refusal, Reliability, Standing};
use bourdon_wire::records::{Heartbeat, heartbeat_flags};
use bourdon_wire::{Datagram, Epoch, Kind};

fn uniform(config: &mut Config) {
    config.reliability = Reliability::Uniform;
}

#[test]
fn a_group_forms_and_delivers() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    for index in 0..4 {
        assert_eq!(net.views(index), [(1, 0b111)], "{index}");
    }
    for i in 0..3 {
        net.publish(i, b"x").unwrap();
    }
    net.run(20 * MS);
    for index in 0..4 {
        assert_eq!(net.messages(index).len(), 3, "{index}");
        assert_eq!(net.processes[index].shown, net.processes[0].shown);
    }
}

#[test]
fn the_survivors_of_a_crash_deliver_the_same_and_go_on() {
    for victim in 0..3 {
        for configure in [(|_: &mut Config| {}) as fn(&mut Config), uniform] {
            let mut net = Net::new(3, 2, configure);
            net.run(100 * MS);
            let mut dice = fastrand::Rng::with_seed(7);
            net.lose = Box::new(move |_, _| dice.u32(0..9) == 0);
            for i in 0..60u32 {
                for member in 0..3 {
                    net.publish(member, &i.to_le_bytes()).unwrap();
                }
                net.run(100_000);
            }
            net.kill(victim);
            let survivors: Vec<usize> = (0..3).filter(|i| *i != victim).collect();
            let mut published = [60u64; 3];
            for i in 0..6000 {
                net.run(100_000);
                for member in &survivors {
                    if i % 10 == 0 && published[*member] < 120 && net.publish(*member, b"again").is_ok() {
                        published[*member] += 1;
                    }
                }
            }
            net.run(500 * MS);
            let views = net.views(survivors[0]);
            assert_eq!(
                views.last(),
                Some(&(2, 0b111 & !(1 << victim))),
                "{victim}: {:?}",
                net.processes[survivors[0]].events
            );
            let first = net.processes[survivors[0]].shown.clone();
            for index in survivors.iter().copied().chain([3, 4]) {
                assert!(net.processes[index].shown == first, "{victim}: process {index} delivered something else");
                for member in &survivors {
                    let count = net.messages(index).iter().filter(|name| name.0 == *member as u16).count();
                    assert_eq!(count as u64, published[*member], "{victim}: of {member} at {index}");
                }
            }
        }
    }
}

#[test]
fn one_that_restarts_takes_the_state_over_and_comes_back() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    for i in 0..50u32 {
        net.publish(0, &i.to_le_bytes()).unwrap();
        net.publish(1, &i.to_le_bytes()).unwrap();
        net.run(MS);
    }
    net.kill(1);
    net.run(300 * MS);
    for i in 0..50u32 {
        net.publish(0, &i.to_le_bytes()).unwrap();
        net.run(MS);
    }
    net.start(1, 2);
    for i in 0..500u32 {
        net.publish(0, &i.to_le_bytes()).ok();
        net.run(MS);
    }
    net.run(500 * MS);
    assert_eq!(
        net.process(1).standing(),
        Standing::Member,
        "{:?} {:?}",
        net.processes[1].events,
        net.processes[0].events
    );
    assert_eq!(net.views(0).last(), Some(&(3, 0b111)));
    assert!(net.processes[1].state == net.processes[0].state && net.processes[2].state == net.processes[0].state);
    let number = net.publish(1, b"back").unwrap();
    assert_eq!(number, 50, "its messages continue the numbering");
    net.run(20 * MS);
    assert!(net.processes[1].state == net.processes[0].state);
}

#[test]
fn a_donor_whose_asker_has_joined_serves_the_next_at_once() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    // Rank 0 is the sequencer, so each request goes to rank 1.
    for incarnation in 2..5u32 {
        net.publish(0, &incarnation.to_le_bytes()).unwrap();
        net.kill(2);
        net.run(200 * MS);
        net.start(2, incarnation);
        net.run(200 * MS);
        assert!(
            net.agree(&[0, 1, 2], 3),
            "life {incarnation}: {:?} {:?}",
            net.processes[2].events,
            net.processes[0].events
        );
    }
}

#[test]
fn a_barrier_stands_between_the_same_messages_everywhere() {
    for order in [Order::Fifo, Order::Total, Order::Causal, Order::Unordered] {
        let mut net = Net::new(3, 2, |_| {});
        net.configure = match order {
            Order::Fifo => |config| config.order = Order::Fifo,
            Order::Total => |config| config.order = Order::Total,
            Order::RealTime => |config| config.order = Order::RealTime,
            Order::Causal => |config| config.order = Order::Causal,
            Order::Unordered => |config| config.order = Order::Unordered,
            other => unreachable!("{other:?} is not in the list"),
        };
        (0..5).for_each(|index| net.start(index, 1));
        net.run(100 * MS);
        let mut dice = fastrand::Rng::with_seed(7);
        net.lose = Box::new(move |_, _| dice.u32(0..7) == 0);
        for i in 0..200u32 {
            for member in 0..3 {
                net.publish(member, &i.to_le_bytes()).ok();
            }
            if i % 50 == 20 {
                let now = net.now;
                net.process(1).sync(now, (i == 20).then_some(b"between".as_slice())).unwrap();
            }
            net.run(200_000);
        }
        net.run(500 * MS);
        let parts = |index: usize| {
            let synced = |shown: &Output| matches!(shown, Output::Synced(_));
            let parts = net.processes[index].shown.split(synced).map(|part| {
                let mut names: Vec<_> = part.iter().map(|shown| format!("{shown:?}")).collect();
                names.sort();
                names
            });
            parts.collect::<Vec<_>>()
        };
        for index in 0..5 {
            let shown = &net.processes[index].shown;
            assert_eq!(
                parts(index).len(),
                5,
                "{order:?} {index} {:?} {:?}",
                net.processes[index].events,
                &shown[shown.len() - 5..]
            );
            assert!(parts(index) == parts(0), "{order:?}: {index} crossed a barrier");
        }
        assert!(net.processes[4].shown.contains(&Output::Barrier(0, b"between".to_vec())), "{order:?}");
    }
}

#[test]
fn no_member_misses_a_leaver() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    net.publish(0, b"last words").unwrap();
    let now = net.now;
    net.process(0).leave(now);
    net.run(50 * MS);
    assert_eq!(net.process(0).standing(), Standing::Gone, "{:?}", net.processes[0].events);
    assert_eq!(net.views(1), [(1, 0b111), (2, 0b110)]);
    let last = net.processes[1].events.last().map(ToString::to_string).unwrap_or_default();
    assert!(last.ends_with("members 1, 2, sequencer 1; member 0 left"), "{last}");
    assert_eq!(net.messages(2), [(0, 0)]);
    net.publish(2, b"on").unwrap();
    net.run(20 * MS);
    assert_eq!(net.messages(1), [(0, 0), (2, 0)]);
}

#[test]
fn all_leave_at_once() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    let now = net.now;
    (0..3).for_each(|index| net.process(index).leave(now));
    net.run(300 * MS);
    for index in 0..3 {
        assert_eq!(net.process(index).standing(), Standing::Gone, "{index} {:?}", net.processes[index].events);
    }
}

/// The member that is to go on alone has crashed: the leaver stays until it is evicted, and is the last to go.
#[test]
fn a_member_that_leaves_as_the_only_other_one_crashes_gets_away() {
    let mut net = Net::new(2, 0, |_| {});
    net.run(100 * MS);
    net.kill(1);
    let now = net.now;
    net.process(0).leave(now);
    net.run(2000 * MS);
    assert_eq!(net.views(0), [(1, 0b11), (2, 0b01)], "{:?}", net.processes[0].events);
    assert_eq!(net.process(0).standing(), Standing::Gone);
}

/// A ballot's proposer waits for a member that replies to pings and to no ballots, and another member would take over
/// before the proposer has waited long enough, and wait as well.
#[test]
fn a_member_that_is_heard_and_answers_no_ballot_is_left_out_in_the_end() {
    let mut net = Net::new(5, 0, |_| {});
    net.run(100 * MS);
    net.alter = Box::new(|_, to, datagram| usize::from(to != 4 || ballot_step(datagram).is_none()));
    let now = net.now;
    net.process(0).leave(now);
    net.run(1000 * MS);
    for index in 1..4 {
        assert_eq!(net.views(index).get(1), Some(&(2, 0b01110)), "{index}: {:?}", net.processes[index].events);
    }
}

/// Whether a datagram announces that a joiner is ready.
fn announces_ready(datagram: &[u8]) -> bool {
    let datagram = Datagram::parse(datagram, GROUP).unwrap();
    let mut heartbeats = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Heartbeat));
    heartbeats.any(|frame| Heartbeat::read(frame.body).unwrap().0.flags.get() & heartbeat_flags::READY != 0)
}

/// A group of three has evicted its third member, and has begun to admit it again.
fn admitting() -> Net {
    let mut net = Net::new(3, 0, |config| {
        let detector = &mut config.timing.detector;
        (detector.push, detector.pull, detector.phi) = (false, true, false);
    });
    net.run(100 * MS);
    net.kill(2);
    net.run(300 * MS);
    net.start(2, 2);
    while !(net.process(0).is_wedged() && net.process(2).standing() == Standing::Following) {
        net.run(MS / 50);
        assert!(net.now.0 < 3000 * MS, "{:?}", net.processes[2].events);
    }
    net
}

/// It is admitted while it leaves: it becomes a member, and leaves as members do.
#[test]
fn a_joiner_that_leaves_while_it_is_admitted_leaves_as_a_member() {
    let mut net = admitting();
    let now = net.now;
    net.process(2).leave(now);
    net.run(500 * MS);
    assert_eq!(net.process(2).standing(), Standing::Gone);
    assert!(net.heard(2, Event::Left(Epoch(4))), "{:?}", net.processes[2].events);
    assert_eq!(net.views(0), [(1, 0b111), (2, 0b011), (3, 0b111), (4, 0b011)]);
    assert!(net.agree(&[0, 1], 2), "{:?}", net.processes[0].events);
}

/// The view that admits it keeps a quorum of existing members when another member crashes.
#[test]
fn a_crash_beside_a_joiner_that_leaves_does_not_stop_the_group() {
    let mut net = admitting();
    let now = net.now;
    net.process(2).leave(now);
    while net.process(0).view().epoch != Epoch(3) {
        net.run(MS / 50);
        assert!(net.now.0 < now.0 + 500 * MS, "{:?}", net.processes[0].events);
    }
    net.kill(1);
    net.run(1000 * MS);
    assert!(net.agree(&[0], 1), "{:?}", net.processes[0].events);
    assert_eq!(net.process(2).standing(), Standing::Gone);
}

/// The members do not hear that it is ready: it goes once they can no longer count on that.
#[test]
fn a_joiner_that_leaves_and_is_not_admitted_goes_soon() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    net.kill(2);
    net.run(300 * MS);
    net.start(2, 2);
    net.alter = Box::new(|from, _, datagram| usize::from(from != 2 || !announces_ready(datagram)));
    net.run(500 * MS);
    assert_eq!(net.process(2).standing(), Standing::Following);
    let now = net.now;
    net.process(2).leave(now);
    assert_eq!(net.process(2).standing(), Standing::Following, "a member may have heard that it is ready");
    net.run(500 * MS);
    assert_eq!(net.process(2).standing(), Standing::Gone);
    assert_eq!(net.views(0), [(1, 0b111), (2, 0b011)]);
    assert!(net.heard(2, Event::Left(Epoch(2))), "{:?}", net.processes[2].events);
}

/// A caller waits for the event, whatever its process was.
#[test]
fn a_process_that_was_in_no_view_reports_once_that_it_left() {
    let mut net = Net::new(3, 0, |_| {});
    for _ in 0..2 {
        let now = net.now;
        net.process(0).leave(now);
        net.run(100 * MS);
    }
    assert_eq!(net.process(0).standing(), Standing::Gone);
    let left: Vec<_> = net.processes[0].events.iter().filter(|event| matches!(event, Event::Left(_))).collect();
    assert_eq!(left, [&Event::Left(Epoch(0))]);
}

#[test]
fn a_minority_stops_and_reports_it_and_comes_back() {
    let mut net = Net::new(5, 0, |_| {});
    net.run(100 * MS);
    net.lose = Box::new(|from, to| (from < 2) != (to < 2));
    net.run(500 * MS);
    assert_eq!(
        net.publish(0, b"lost"),
        Err(Refusal::NoMajority { missing: Ranks(0b11100) }),
        "{:?}",
        net.processes[0].events
    );
    assert_eq!(net.views(2).last(), Some(&(2, 0b11100)));
    net.publish(3, b"on").unwrap();
    net.run(20 * MS);
    net.lose = Box::new(|_, _| false);
    net.run(1500 * MS);
    for index in 0..5 {
        assert_eq!(net.process(index).standing(), Standing::Member, "{index} {:?}", net.processes[index].events);
        assert_eq!(net.process(index).view().bits(), 0b11111, "{index}");
        assert!(net.processes[index].state == net.processes[3].state, "{index}");
    }
}
