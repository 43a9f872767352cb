//! A group that has lost its majority for good is made again by hand, at one survivor: see `control/recovery.rs`.

use crate::instance::World;
use bourdon_protocol::{Event, Obstacle, Quorum, Standing, View};
use bourdon_wire::{Epoch, InstanceId, Rank, Sequence};

const SECOND: u64 = 1_000_000_000;

/// Three members that have delivered five messages; the last two are frozen, and nothing was heard of them for so long.
fn lost(world: &mut World, silent_ns: u64) -> [usize; 3] {
    let all = world.start(0, 0);
    world.run(SECOND);
    assert!(world.are_members(&all));
    world.publish(all[0], 5);
    world.run(SECOND);
    all[1..].iter().for_each(|index| world.processes[*index].is_paused = true);
    world.run(silent_ns);
    all
}

#[test]
fn a_survivor_founds_a_younger_instance_and_the_others_join_it_when_they_come_back() {
    let mut world = World::new(None);
    let all = lost(&mut world, 3 * SECOND);
    let before = world.processes[all[0]].process.view().clone();
    let incarnation = world.processes[all[0]].process.incarnation();
    let now = world.now;
    let recovery = world.processes[all[0]].process.recover(now).expect("the others are silent");
    assert_eq!((recovery.survivors, recovery.silent, recovery.epoch), (0, 0b110, Epoch(1)));
    assert_eq!((recovery.unacknowledged, recovery.undelivered), (0, 0));
    let view = world.processes[all[0]].process.view().clone();
    assert!(view.birth > before.birth && view.instance != before.instance && view.instance != InstanceId::NONE);
    assert_eq!((view.epoch, view.members.len(), view.sequencer), (Epoch(1), 1, Rank(0)));
    assert_ne!(world.processes[all[0]].process.incarnation(), incarnation);
    world.run(SECOND);
    assert!(world.heard(all[0], |event| *event == Event::Recovered { instance: view.instance }));
    world.publish(all[0], 7);
    world.run(SECOND);
    assert_eq!(world.processes[all[0]].delivered.iter().filter(|shown| shown.0 == view.instance).count(), 7);
    all[1..].iter().for_each(|index| world.processes[*index].is_paused = false);
    world.run(4 * SECOND);
    assert!(world.are_members(&all) && world.instance(all[0]) == view.instance);
    for index in &all[1..] {
        assert!(world.heard(*index, |event| *event == Event::Superseded { instance: view.instance }));
    }
}

#[test]
fn a_survivor_that_comes_back_when_the_younger_instance_is_at_a_higher_epoch_joins_it() {
    let mut world = World::new(None);
    let all = lost(&mut world, 3 * SECOND);
    let now = world.now;
    world.processes[all[0]].process.recover(now).expect("the others are silent");
    world.processes[all[1]].is_paused = false;
    world.run(3 * SECOND);
    assert_eq!(world.processes[all[0]].process.view().epoch, Epoch(2));
    assert_eq!(world.processes[all[2]].process.view().epoch, Epoch(1), "of the older instance");
    world.processes[all[2]].is_paused = false;
    world.run(3 * SECOND);
    assert!(world.are_members(&all), "{:?}", world.processes[all[2]].events);
}

#[test]
fn while_a_member_hears_or_announces_a_majority_nothing_is_recovered() {
    let mut world = World::new(None);
    let all = lost(&mut world, SECOND);
    let now = world.now;
    let process = &mut world.processes[all[0]].process;
    let obstacle = process.recover(now).expect_err("a member was heard lately").obstacle;
    assert!(matches!(obstacle, Some(Obstacle::HearsMajority { rank: Rank(1), .. })), "{obstacle:?}");
    assert_eq!((process.view().epoch, process.standing()), (Epoch(1), Standing::Member), "nothing has changed");
    world.processes[all[1]].is_paused = false;
    world.run(SECOND);
    let now = world.now;
    let obstacle = world.processes[all[0]].process.recover(now).expect_err("two of three are there").obstacle;
    assert_eq!(obstacle, Some(Obstacle::Majority));
    let observer = world.observe(7);
    world.run(SECOND);
    let obstacle = world.processes[observer].process.recover(world.now).expect_err("it observes").obstacle;
    assert_eq!(obstacle, Some(Obstacle::Role));
}

#[test]
fn a_majority_that_was_only_cut_off_goes_on_and_both_instances_are_reported() {
    let mut world = World::new(None);
    let all = world.start(0, 0);
    world.run(SECOND);
    world.processes[all[0]].is_cut_off = true;
    world.run(3 * SECOND);
    world.publish(all[1], 3);
    world.run(SECOND);
    assert_eq!(world.processes[all[1]].delivered.len(), 3, "the majority works");
    let now = world.now;
    world.processes[all[0]].process.recover(now).expect("it hears no member");
    let instance = world.instance(all[0]);
    world.run(SECOND);
    world.processes[all[0]].is_cut_off = false;
    world.run(5 * SECOND);
    let older = world.instance(all[1]);
    assert!(older != instance && world.instance(all[0]) == instance, "none takes the other's members away");
    assert!(world.processes[all[0]].delivered.is_empty(), "what the older instance did since is not known here");
    for (index, own, other) in [(all[0], instance, older), (all[1], older, instance), (all[2], older, instance)] {
        let reports =
            |event: &Event| matches!(event, Event::OtherInstance { own: a, other: b, .. } if (*a, *b) == (own, other));
        assert!(world.heard(index, reports), "{index}");
    }
}

/// Members 0 and 1 hear no member, and are asked to found the group at the same moment. Later they hear each other.
fn founded_twice(apart_ns: u64) -> (World, [usize; 3], [View; 2]) {
    let mut world = World::new(None);
    let all = world.start(0, 0);
    world.run(SECOND);
    all.iter().for_each(|index| world.processes[*index].is_cut_off = true);
    world.run(3 * SECOND);
    let now = world.now;
    let views = [all[0], all[1]].map(|index| {
        world.processes[index].process.recover(now).expect("it hears no member");
        world.processes[index].process.view().clone()
    });
    world.run(apart_ns);
    all.iter().for_each(|index| world.processes[*index].is_cut_off = false);
    world.run(6 * SECOND);
    (world, all, views)
}

#[test]
fn of_two_survivors_that_found_at_the_same_time_the_older_instance_gives_way() {
    let (world, all, [first, second]) = founded_twice(5 * SECOND);
    assert_ne!(first.birth, second.birth, "their fencing tokens would repeat");
    let newer = if first.birth > second.birth { first.instance } else { second.instance };
    assert!(world.are_members(&all) && world.instance(all[0]) == newer);
    let gave_way = all[usize::from(newer == first.instance)];
    assert!(world.heard(gave_way, |event| *event == Event::Superseded { instance: newer }));
}

#[test]
fn survivors_that_have_each_gone_on_for_long_stay_apart_and_report_each_other() {
    let (world, all, [first, second]) = founded_twice(11 * SECOND);
    for (index, here, there) in [(all[0], first.instance, second.instance), (all[1], second.instance, first.instance)] {
        assert_eq!(world.instance(index), here);
        let is_report =
            |event: &Event| matches!(event, Event::OtherInstance { own, other, .. } if (*own, *other) == (here, there));
        assert!(world.heard(index, is_report), "{index}");
    }
}

/// The view after the founder's was decided, and its application had not taken all that the decision names. What it had
/// taken, the founder counted as delivered by the members that go on, and none go on.
#[test]
fn messages_of_a_decision_that_the_founder_did_not_carry_out_are_in_doubt() {
    let mut world = World::new(None);
    let all = world.start(0, 0);
    world.run(SECOND);
    world.processes[all[0]].takes = 0;
    world.processes[all[2]].is_paused = true;
    for _ in 0..5 {
        world.publish(all[0], 1);
        world.run(SECOND / 200);
    }
    world.run(3 * SECOND);
    world.processes[all[0]].takes = 3;
    world.run(SECOND);
    assert_eq!([0, 1].map(|index| world.processes[all[index]].delivered.len()), [3, 5]);
    assert_eq!([0, 1].map(|index| world.processes[all[index]].process.view().epoch), [Epoch(1), Epoch(2)]);
    world.processes[all[1]].is_paused = true;
    world.run(3 * SECOND);
    let (now, incarnation) = (world.now, world.processes[all[0]].process.incarnation());
    let recovery = world.processes[all[0]].process.recover(now).expect("the others are silent");
    assert_eq!(recovery.unacknowledged, 5);
    let behind = world.processes[all[0]].process.own_left_behind();
    assert_eq!(behind, Some((incarnation, Sequence(0)..Sequence(5))));
}

#[test]
fn a_group_whose_member_never_comes_is_formed_by_hand_without_it() {
    let mut world = World::new(None);
    let some = [0, 1].map(|rank| {
        let config = world.config(Some(rank), rank.into());
        world.add(config, rank.into())
    });
    world.run(3 * SECOND);
    assert_eq!(world.processes[some[0]].process.standing(), Standing::Forming);
    let now = world.now;
    let recovery = world.processes[some[0]].process.recover(now).expect("member 2 never came");
    assert_eq!((recovery.survivors, recovery.silent, recovery.epoch), (0b010, 0b100, Epoch(0)));
    world.run(SECOND);
    let view = world.processes[some[1]].process.view();
    assert_eq!((view.members.len(), view.instance), (2, world.instance(some[0])));
    let now = world.now;
    let obstacle = world.processes[some[1]].process.recover(now).expect_err("it has formed").obstacle;
    assert_eq!(obstacle, Some(Obstacle::Majority));
}

#[test]
fn where_the_configured_majority_is_asked_for_a_recovered_view_may_begin_with_less_and_grow() {
    let mut world = World::new(None);
    let all = [0, 1, 2].map(|rank| {
        let mut config = world.config(Some(rank), rank.into());
        config.quorum = Quorum::Members;
        world.add(config, rank.into())
    });
    world.run(SECOND);
    all[1..].iter().for_each(|index| world.processes[*index].is_paused = true);
    world.run(3 * SECOND);
    let now = world.now;
    world.processes[all[0]].process.recover(now).expect("the others are silent");
    all[1..].iter().for_each(|index| world.processes[*index].is_paused = false);
    world.run(4 * SECOND);
    assert!(world.are_members(&all));
}
