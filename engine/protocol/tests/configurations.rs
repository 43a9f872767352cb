//! Processes that are configured otherwise: which of them ends, and what keeps a process from being ended by mistake or
//! by forged datagrams.

use crate::common::net::Net;
use crate::common::{Bench, Effect, MS, To, as_incarnation, in_instance};
use bourdon_protocol::{Config, Difference, Event, Obstacle, Order, Reliability, Role, SettingValue};
use bourdon_wire::Rank;
use bourdon_wire::records::heartbeat_flags;

fn outvoted(net: &Net, index: usize) -> Option<(Rank, Difference)> {
    let of =
        |event: &Event| if let Event::Outvoted(rank, difference) = event { Some((*rank, *difference)) } else { None };
    net.processes[index].events.iter().find_map(of)
}

fn otherwise(config: &mut Config) {
    config.reliability = Reliability::Uniform;
}

/// A group of three whose rank 2 is configured otherwise; it runs if it has formed before.
fn wrong_in_three(has_formed: bool) -> Net {
    let mut net = Net::new(3, 0, |_| {});
    if has_formed {
        net.run(100 * MS);
    }
    net.kill(2);
    net.run(300 * MS);
    net.configure = otherwise;
    net.start(2, 2);
    net
}

#[test]
fn a_group_that_runs_outvotes_a_process_that_is_configured_otherwise() {
    for has_formed in [true, false] {
        let mut net = wrong_in_three(has_formed);
        net.run(900 * MS);
        assert_eq!(outvoted(&net, 2), None, "not at once");
        net.run(2_000 * MS);
        let (rank, difference) = outvoted(&net, 2).expect("a majority has decided");
        assert!(rank.0 < 2);
        let settings: Vec<_> = difference.settings().collect();
        let (here, there) = (SettingValue::Name("uniform"), SettingValue::Name("reliable"));
        assert_eq!(settings, [("group.reliability", here, there)]);
        for index in 0..2 {
            assert_eq!(outvoted(&net, index), None, "{index}");
        }
        assert_eq!(net.processes[2].events.iter().filter(|event| matches!(event, Event::Outvoted(..))).count(), 1);
        // The right process takes its place.
        net.configure = |_| {};
        net.start(2, 3);
        net.run(2_000 * MS);
        assert!(net.agree(&[0, 1, 2], 3));
    }
}

/// Its operator was led to found a second group beside the one that works.
#[test]
fn issue_a_process_that_is_configured_otherwise_founded_a_second_group() {
    let mut net = wrong_in_three(true);
    net.run(900 * MS);
    let now = net.now;
    let refused = net.process(2).recover(now).expect_err("the others are heard");
    assert_eq!((refused.obstacle, refused.silent), (Some(Obstacle::Configured(Rank(0))), 0));
}

/// The wrong process starts first and waits; then the others form around it.
#[test]
fn the_first_of_all_may_be_the_wrong_one() {
    let mut net = Net::new(3, 0, |_| {});
    (0..3).for_each(|index| net.kill(index));
    net.configure = otherwise;
    net.start(1, 2);
    net.run(5_000 * MS);
    assert_eq!(outvoted(&net, 1), None);
    net.configure = |_| {};
    net.start(0, 2);
    net.run(3_000 * MS);
    assert!(outvoted(&net, 0).is_none() && outvoted(&net, 1).is_none(), "one against one decides nothing");
    net.start(2, 2);
    net.run(3_000 * MS);
    assert!(outvoted(&net, 1).is_some() && outvoted(&net, 0).is_none() && outvoted(&net, 2).is_none());
    net.start(1, 3);
    net.run(1_000 * MS);
    assert!(net.agree(&[0, 1, 2], 3));
}

#[test]
fn a_process_of_a_smaller_group_hears_members_whose_ranks_it_has_not() {
    let mut net = Net::new(5, 1, |_| {});
    net.run(100 * MS);
    net.configure = |config| config.members = 2;
    net.start_as(5, 9, Role::Member(Rank(1)));
    net.run(3_000 * MS);
    let (_, difference) = outvoted(&net, 5).expect("four of five have another number of members");
    let members = difference.settings().next().map(|(key, here, there)| (key, here.to_string(), there.to_string()));
    assert_eq!(members, Some(("group.members", "2".to_owned(), "5".to_owned())));
    assert!((0..5).all(|index| outvoted(&net, index).is_none()));
}

/// Its members hear each other at once, and count the votes of the group that runs only after a second. If they start
/// together they hear each other before they hear that group.
#[test]
fn a_second_team_forms_no_group_beside_one_that_runs() {
    for apart_ns in [30 * MS, 0] {
        let mut net = Net::new(3, 2, |_| {});
        net.run(1_000 * MS);
        let team = [(3, 0), (4, 1)];
        let before = team.map(|(index, _)| net.views(index).len());
        net.configure = |config| config.members = 2;
        for (index, rank) in team {
            net.start_as(index, 9, Role::Member(Rank(rank)));
            net.run(apart_ns);
        }
        net.run(3_000 * MS);
        assert_eq!(team.map(|(index, _)| net.views(index).len()), before, "it forms none");
        assert!(team.iter().all(|(index, _)| outvoted(&net, *index).is_some()));
        assert!((0..3).all(|index| outvoted(&net, index).is_none()) && net.agree(&[0, 1, 2], 3));
    }
}

#[test]
fn an_observer_that_is_configured_otherwise_is_outvoted_and_others_go_on() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    net.kill(3);
    net.configure = otherwise;
    net.start(3, 2);
    net.run(3_000 * MS);
    assert!(outvoted(&net, 3).is_some());
    assert!((0..3).all(|index| outvoted(&net, index).is_none()) && net.agree(&[0, 1, 2], 3));
}

/// A process that formed a group of one by mistake is a group with a view, and is not the group of the others.
#[test]
fn a_group_of_one_by_mistake_ends_no_majority() {
    let mut net = Net::new(3, 0, |_| {});
    (0..3).for_each(|index| net.kill(index));
    net.configure = |config| config.members = 1;
    net.start(0, 2);
    net.run(100 * MS);
    net.configure = |_| {};
    net.start(1, 2);
    net.start(2, 2);
    net.run(5_000 * MS);
    assert!((0..3).all(|index| outvoted(&net, index).is_none()));
    for index in [1, 2] {
        let named = |event: &Event| matches!(event, Event::ConfigurationDiffers(Rank(0), _));
        assert!(net.processes[index].events.iter().any(named), "{index} hears what differs");
    }
}

/// Heartbeats of ranks 1 and 2 of a view, 200 of each in 4 s; returns whether the process was outvoted, and how many
/// datagrams it sent to the addresses that they announce.
fn forge(bench: &mut Bench, incarnation: fn(u32) -> u32) -> (bool, usize) {
    let (mut is_outvoted, mut sent) = (false, 0);
    for turn in 0..200 {
        for rank in [1, 2] {
            let bytes = bench.heartbeat(rank, |heartbeat| {
                heartbeat.configuration = 1.into();
                heartbeat.flags = heartbeat_flags::FORMED.into();
                (heartbeat.members, heartbeat.birth) = (0b111.into(), 5.into());
            });
            bench.take(&in_instance(&as_incarnation(&bytes, incarnation(turn)), 77));
        }
        bench.wait(20 * MS);
        for effect in bench.effects() {
            match effect {
                Effect::Event(Event::Outvoted(..)) => is_outvoted = true,
                Effect::Control(what, To::Port(_)) if what == "which view" => sent += 1,
                _ => {}
            }
        }
    }
    (is_outvoted, sent)
}

#[test]
fn heartbeats_of_addresses_that_do_not_answer_end_no_process() {
    for incarnation in [|_| 7, |turn| turn + 1] {
        let config = Config { view: None, ..Bench::config(Order::Total, 3, Role::Member(Rank(0))) };
        let mut bench = Bench::with(config);
        bench.effects();
        let (is_outvoted, sent) = forge(&mut bench, incarnation);
        assert!(!is_outvoted);
        assert!((1..=400).contains(&sent), "one short question for a heartbeat at most, not {sent}");
    }
}

#[test]
fn a_process_that_was_in_a_view_asks_and_ends_for_none() {
    let mut bench = Bench::member(Order::Total, 3, 0).formed();
    bench.effects();
    assert_eq!(forge(&mut bench, |_| 7), (false, 0));
}
