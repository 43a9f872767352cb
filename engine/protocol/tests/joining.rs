//! Joining, leaving and coming back, with everything that can go wrong: each case has a named outcome.

use crate::common::net::{Net, address, ballot_step};
use crate::common::{Bench, Effect, GROUP, MS, altered, as_incarnation};
use bourdon_protocol::{Counter, Event, Order, Ranks, Refusal, Reliability, Role, Standing};
use bourdon_wire::records::ballot_steps::{DECIDE, PREPARE, PROPOSE};
use bourdon_wire::{Datagram, Epoch, Incarnation, Kind, Rank};
use std::cell::Cell;
use std::rc::Rc;

fn hears_conflict(net: &Net, index: usize) -> bool {
    net.processes[index].events.iter().any(|event| matches!(event, Event::IdentityConflict { rank: Rank(1), .. }))
}

fn hears_difference(net: &Net, index: usize, rank: u16) -> bool {
    let is_of = |event: &Event| matches!(event, Event::ConfigurationDiffers(of, _) if of.0 == rank);
    net.processes[index].events.iter().any(is_of)
}

#[test]
fn a_second_process_of_a_members_rank_stays_out_and_knows_why() {
    let mut net = Net::new(2, 1, |_| {});
    net.run(100 * MS);
    net.start_as(2, 9, Role::Member(Rank(1)));
    net.run(8_000 * MS);
    assert!(net.heard(1, Event::RankClaimed(Rank(1))) && !hears_conflict(&net, 1));
    assert_eq!(net.process(1).standing(), Standing::Member);
    assert!(hears_conflict(&net, 2), "{:?}", net.processes[2].events);
    let (address, instance) = (address(1), net.process(1).view().instance);
    assert!(net.heard(2, Event::IdentityConflict { rank: Rank(1), address, instance }), "it names the process");
    assert_ne!(net.process(2).standing(), Standing::Member);
    // The rank is free once its process has ended.
    net.kill(1);
    net.run(1_000 * MS);
    assert_eq!(net.process(2).standing(), Standing::Member);
}

#[test]
fn a_rank_whose_process_has_ended_is_in_no_use() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    net.kill(1);
    net.kill(2);
    net.run(20 * MS);
    // Without a quorum the view still lists the process that has ended, and its next incarnation waits.
    net.start(1, 2);
    net.run(8_000 * MS);
    assert_ne!(net.process(1).standing(), Standing::Member);
    assert!(!hears_conflict(&net, 1), "{:?}", net.processes[1].events);
}

/// The members still hear the process that has ended, as far as they know, and will for a while.
#[test]
fn a_rank_is_in_no_use_while_the_members_have_not_had_the_time_to_suspect_its_process() {
    let mut net = Net::new(3, 0, |config| {
        let detector = &mut config.timing.detector;
        (detector.suspect_after_ns, detector.pull_after_ns) = (20_000 * MS, 20_000 * MS);
        detector.phi = false;
    });
    net.run(100 * MS);
    net.kill(1);
    net.run(20 * MS);
    net.start(1, 2);
    net.run(19_000 * MS);
    assert_ne!(net.process(1).standing(), Standing::Member);
    net.run(6_000 * MS);
    assert_eq!(net.process(1).standing(), Standing::Member);
    assert!(!hears_conflict(&net, 1), "{:?}", net.processes[1].events);
}

#[test]
fn two_processes_with_one_identity_are_named() {
    let mut config = Bench::config(Order::Fifo, 2, Role::Member(Rank(0)));
    config.wall_offset_ns = 1_000 * MS;
    let mut bench = Bench::with(config).formed();
    let sent_later = |datagram: &[u8]| altered(datagram, 56, &(2_000 * MS).to_le_bytes());
    let twin = sent_later(&as_incarnation(&bench.heartbeat(0, |_| {}), 9));
    bench.take(&twin);
    bench.take(&twin);
    assert_eq!(bench.news(), [Effect::Event(Event::RankClaimed(Rank(0)))]);
    // Datagrams of an earlier incarnation of this process may still be under way.
    bench.take(&as_incarnation(&bench.heartbeat(0, |_| {}), 8));
    assert_eq!(bench.news(), []);
}

#[test]
fn another_version_is_named_once_and_taken_for_nothing() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    let old = altered(&bench.heartbeat(1, |beat| beat.next_number = 9.into()), 2, &[1]);
    bench.take(&old);
    bench.take(&old);
    bench.timers();
    assert_eq!(bench.news(), [Effect::Event(Event::OtherVersion(1))]);
    assert_eq!(bench.process.counters().get(Counter::DiscardedVersion), 2);
}

#[test]
fn a_process_configured_otherwise_never_joins_and_all_know_why() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    net.kill(2);
    net.run(300 * MS);
    net.configure = |config| config.reliability = Reliability::Uniform;
    net.start(2, 2);
    net.run(1000 * MS);
    assert_eq!(net.process(2).standing(), Standing::Forming);
    assert!(hears_difference(&net, 0, 2) && hears_difference(&net, 2, 0));
    assert_eq!(net.publish(2, b"x"), Err(Refusal::Forming { missing: Ranks(0b11) }));
    assert!(net.agree(&[0, 1], 2));
    net.configure = |_| {};
    net.start(2, 3);
    net.run(1000 * MS);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[2].events);
}

#[test]
fn issue_a_process_configured_otherwise_kept_a_member_of_its_rank_out() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    net.configure = |config| config.reliability = Reliability::Uniform;
    net.start_as(3, 9, Role::Member(Rank(2)));
    net.run(100 * MS);
    assert!(hears_difference(&net, 0, 2));
    net.configure = |_| {};
    net.kill(2);
    net.run(300 * MS);
    net.start(2, 2);
    net.run(2_000 * MS);
    assert_eq!(net.process(2).standing(), Standing::Member, "{:?}", net.processes[2].events);
    let reports =
        net.processes[0].events.iter().filter(|event| matches!(event, Event::ConfigurationDiffers(..))).count();
    assert_eq!(reports, 1, "it is reported once");
}

#[test]
fn a_process_that_restarts_before_it_was_missed_joins_as_another_incarnation() {
    for victim in 0..3 {
        let mut net = Net::new(3, 0, |_| {});
        net.run(100 * MS);
        for i in 0..20u32 {
            net.publish(victim, &i.to_le_bytes()).unwrap();
            net.run(MS / 2);
        }
        net.kill(victim);
        net.run(5 * MS);
        net.start(victim, 2);
        net.run(1500 * MS);
        assert!(
            net.agree(&[0, 1, 2], 3),
            "{victim}: {:?} {:?}",
            net.processes[victim].events,
            net.processes[(victim + 1) % 3].events
        );
        let restarted = Event::Restarted { rank: Rank(victim as u16), incarnation: Incarnation(2) };
        assert!(net.heard((victim + 1) % 3, restarted));
        assert_eq!(net.publish(victim, b"on").unwrap(), 20, "its messages continue the numbering");
    }
}

/// A member was paused and removed, and came back in another incarnation while a process that lost the decision was
/// still in the view before: that process took it for one that was restarted.
#[test]
fn issue_a_member_that_came_back_after_a_pause_was_reported_as_restarted() {
    for behind in [2, 3] {
        let mut net = Net::new(3, 1, |_| {});
        net.run(100 * MS);
        let is_paused = Rc::new(Cell::new(true));
        let pause = is_paused.clone();
        net.lose = Box::new(move |from, to| pause.get() && (from == 1) != (to == 1));
        // The process that is behind accepts the next view, and learns nothing of its decision.
        net.alter = Box::new(move |_, to, datagram| {
            let decides = ballot_step(datagram).is_some_and(|(step, _)| step == DECIDE);
            let is_view = Datagram::parse(datagram, GROUP)
                .is_ok_and(|datagram| datagram.frames().any(|frame| frame.kind() == Some(Kind::View)));
            usize::from(to != behind || !decides && !is_view)
        });
        net.run(500 * MS);
        is_paused.set(false);
        net.run(500 * MS);
        assert!(net.processes[1].events.iter().any(|event| matches!(event, Event::Removed(_))), "{behind}");
        let events = &net.processes[behind].events;
        assert!(!events.iter().any(|event| matches!(event, Event::Restarted { .. })), "{behind}: {events:?}");
        net.alter = Box::new(|_, _, _| 1);
        net.run(1500 * MS);
        assert!(net.agree(&[0, 1, 2], 3), "{behind}: {:?}", net.processes[1].events);
    }
}

/// A process that was stopped for so long that two views have come and gone.
#[test]
fn one_that_slept_through_two_views_finds_out_and_comes_back() {
    let mut net = Net::new(5, 0, |_| {});
    net.run(100 * MS);
    let cut_off = Rc::new(Cell::new(true));
    let off = cut_off.clone();
    net.lose = Box::new(move |from, to| off.get() && (from == 4) != (to == 4));
    net.run(400 * MS);
    net.kill(3);
    net.run(400 * MS);
    assert_eq!(net.views(0).last(), Some(&(3, 0b00111)));
    cut_off.set(false);
    net.run(2000 * MS);
    let removed = |event: &Event| matches!(event, Event::Removed(_));
    assert!(net.processes[4].events.iter().any(removed), "{:?}", net.processes[4].events);
    assert!(net.agree(&[0, 1, 2, 4], 4), "{:?}", net.processes[4].events);
}

#[test]
fn a_majority_lost_for_good_is_reported_and_nothing_is_decided_without_it() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    net.kill(1);
    net.kill(2);
    net.run(1000 * MS);
    assert!(net.heard(0, Event::NoMajority), "{:?}", net.processes[0].events);
    assert_eq!(net.publish(0, b"x"), Err(Refusal::NoMajority { missing: Ranks(0b110) }));
    assert_eq!(net.views(0), [(1, 0b111)]);
    // They come back as other members, which can't decide for their earlier incarnations: the group waits for one of
    // the incarnations that it knows.
    net.start(1, 2);
    net.start(2, 2);
    net.run(1000 * MS);
    assert_eq!(net.views(0), [(1, 0b111)]);
    assert_eq!(net.publish(0, b"x"), Err(Refusal::NoMajority { missing: Ranks(0b110) }));
    // A restart of the remaining members as well forms another group.
    net.start(0, 2);
    net.run(3000 * MS);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[0].events);
}

#[test]
fn a_group_whose_members_all_restart_at_once_forms_again_and_observers_follow() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    net.publish(0, b"x").unwrap();
    net.run(20 * MS);
    (0..3).for_each(|index| net.start(index, 2));
    net.run(3000 * MS);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[0].events);
    net.publish(1, b"y").unwrap();
    net.run(20 * MS);
    let last = |net: &Net, index: usize| net.messages(index).last().copied();
    assert_eq!((last(&net, 0), last(&net, 3)), (Some((1, 0)), Some((1, 0))), "{:?}", net.processes[3].events);
}

/// In each phase of a view change the proposer dies after it has sent a step to one member only, or to no member.
#[test]
fn a_proposer_killed_in_any_phase_leaves_one_view_behind() {
    for step in [PREPARE, PROPOSE, DECIDE] {
        for sent_to in [None, Some(1), Some(3)] {
            for reliability in [Reliability::Reliable, Reliability::Uniform] {
                let mut net = Net::new(5, 1, |_| {});
                if reliability == Reliability::Uniform {
                    net.configure = |config| config.reliability = Reliability::Uniform;
                    (0..6).for_each(|index| net.start(index, 1));
                }
                net.run(100 * MS);
                let dead = Rc::new(Cell::new(false));
                let dies = dead.clone();
                net.alter = Box::new(move |from, to, datagram| {
                    if from == 0 && ballot_step(datagram).is_some_and(|(of, _)| of == step) {
                        dies.set(true);
                        return usize::from(Some(to) == sent_to);
                    }
                    usize::from(!dies.get() || from != 0 && to != 0)
                });
                for i in 0..20u32 {
                    for member in 0..5 {
                        net.publish(member, &i.to_le_bytes()).ok();
                    }
                    net.run(MS / 5);
                }
                net.kill(4);
                for _ in 0..2000 {
                    net.run(MS / 5);
                    if dead.get() && net.processes[0].process.is_some() {
                        net.kill(0);
                    }
                }
                net.run(1000 * MS);
                assert!(dead.get(), "step {step} was never sent");
                let case = format!("step {step} sent to {sent_to:?}, {reliability:?}: {:?}", net.processes[1].events);
                assert!(net.agree(&[1, 2, 3], 3), "{case}");
                for index in [2, 3, 5] {
                    assert_eq!(net.processes[index].shown, net.processes[1].shown, "{case}");
                }
                net.publish(1, b"on").unwrap();
                net.run(50 * MS);
                assert_eq!(net.messages(3).last(), net.messages(1).last(), "{case}");
            }
        }
    }
}

#[test]
fn a_member_hands_the_order_over_and_leaves() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    let now = net.now;
    net.process(0).hand_over(now, Rank(2));
    net.run(50 * MS);
    assert_eq!(net.process(1).view().sequencer, Rank(2));
    let now = net.now;
    net.process(2).leave(now);
    net.run(100 * MS);
    assert!(net.heard(2, Event::Left(Epoch(3))), "{:?}", net.processes[2].events);
    assert_eq!(net.publish(2, b"x"), Err(Refusal::Closed));
    assert!(net.agree(&[0, 1], 2));
    // No member is left to suspect or to wait for.
    let suspected = |event: &Event| matches!(event, Event::Suspected(..));
    assert!(!net.processes[0].events.iter().any(suspected), "{:?}", net.processes[0].events);
}

/// Whether more than half of the newest view are left without this process.
fn spares(net: &mut Net, index: usize) -> bool {
    let members = net.processes.iter().filter_map(|one| one.process.as_ref());
    let members: Vec<_> = members.filter(|process| process.standing() == Standing::Member).collect();
    let Some(newest) = members.iter().map(|process| process.view()).max_by_key(|view| view.epoch) else { return false };
    let left = members.iter().filter(|process| {
        let rank = process.config().rank().unwrap();
        process.view() == newest
            && usize::from(rank.0) != index
            && newest.incarnation(rank) == Some(process.incarnation())
    });
    2 * left.count() > newest.members.len()
}

/// Members die and come back at random on a network that loses datagrams, with barriers in between; then all is quiet,
/// and every member is there with the same state.
#[test]
fn whatever_has_happened_all_are_back_once_it_is_quiet() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    for seed in 0..seeds {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut net = Net::new(5, 1, |_| {});
        if seed % 2 == 1 {
            net.configure = |config| config.reliability = Reliability::Uniform;
            (0..6).for_each(|index| net.start(index, 1));
        }
        net.run(100 * MS);
        let mut loss = fastrand::Rng::with_seed(seed + 1000);
        net.lose = Box::new(move |_, _| loss.u32(0..20) == 0);
        let mut incarnation = [1u32; 5];
        for _ in 0..60 {
            let index = dice.usize(0..5);
            let down = net.processes.iter().filter(|one| one.process.is_none()).count();
            let is_up = net.processes[index].process.is_some();
            match dice.u32(0..3) {
                0 if is_up && down < 2 && spares(&mut net, index) => net.kill(index),
                1 if !is_up => {
                    // An incarnation beyond any that the process may have gone through by itself.
                    incarnation[index] += 1000;
                    net.start(index, incarnation[index]);
                }
                2 if is_up => {
                    let now = net.now;
                    net.process(index).sync(now, None).ok();
                }
                _ => {}
            }
            for _ in 0..20 {
                let member = dice.usize(0..5);
                if net.processes[member].process.is_some() {
                    net.publish(member, b"x").ok();
                }
                net.run(dice.u64(1..4) * MS);
            }
        }
        net.lose = Box::new(|_, _| false);
        let up: Vec<bool> = net.processes.iter().map(|one| one.process.is_some()).collect();
        for (index, incarnation) in incarnation.iter().enumerate().filter(|(index, _)| !up[*index]) {
            net.start(index, incarnation + 1000);
        }
        let mut waited = 0;
        while !net.agree(&[0, 1, 2, 3, 4], 5) && waited < 400 {
            net.run(50 * MS);
            waited += 1;
        }
        let standings: Vec<_> = (0..5).map(|i| (net.process(i).standing(), net.process(i).view().clone())).collect();
        assert!(waited < 400, "seed {seed}: {standings:?}");
        net.run(200 * MS); // a barrier that a view change had put off may still be under way
        assert!(net.publish(1, b"on").is_ok(), "seed {seed}: {:?}", net.publish(1, b"on"));
        net.run(50 * MS);
        assert!(net.agree(&[0, 1, 2, 3, 4], 5), "seed {seed}");
        let last = net.messages(0).last().copied();
        assert_eq!(net.messages(5).last().copied(), last, "seed {seed}: the observer");
    }
}

/// The leaver decides that it leaves, and no other member hears the decision: the members that stay are no quorum
/// without it.
#[test]
fn issue_a_leaver_alone_knows_that_it_left() {
    let mut net = Net::new(2, 0, |_| {});
    net.run(100 * MS);
    let now = net.now;
    net.process(0).leave(now);
    let mut lost = 0;
    net.alter = Box::new(move |from, _, datagram| {
        let decides = from == 0 && ballot_step(datagram).is_some_and(|(step, _)| step == DECIDE);
        lost += u32::from(decides);
        usize::from(!decides || lost > 1)
    });
    net.run(300 * MS);
    assert_eq!(net.views(1).last(), Some(&(2, 0b10)), "{:?}", net.processes[1].events);
    assert!(net.heard(0, Event::Left(Epoch(2))), "{:?}", net.processes[0].events);
}
