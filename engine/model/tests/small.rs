//! Every state of small groups; and every planted bug that is found quickly.

use bourdon_model::budget::Budget;
use bourdon_model::group::Group;
use bourdon_model::plan;
use bourdon_model::reach::reach;
use bourdon_model::search::search;
use std::time::Duration;

/// Far beyond what any of these takes: a bound, so that a mistake does not run for ever.
const LIMIT: Duration = Duration::from_secs(600);

fn whole(group: &Group) -> usize {
    let found = search(group, Budget::of(LIMIT), false);
    assert!(found.broken.is_none(), "{:?}", found.broken);
    assert!(found.exhausted);
    found.states
}

#[test]
fn two_ballots_without_data_hold_in_every_state() {
    let states = whole(&Group { datagrams: 0, suspects: false, ..Group::small() });
    assert!(states > 5_000, "only {states} states: some action no longer happens");
}

#[test]
fn one_ballot_over_two_streams_holds_in_every_state() {
    let states = whole(&Group { ballots: 1, suspects: false, ..Group::small() });
    assert!(states > 5_000, "only {states} states: some action no longer happens");
}

#[test]
fn two_changes_hold_in_every_state() {
    whole(&Group { ballots: 1, datagrams: 0, changes: 2, crashes: 0, suspects: false, ..Group::small() });
}

#[test]
fn orders_that_are_obeyed_late_hold_in_every_state() {
    let inline = Group { ballots: 1, crashes: 0, suspects: false, ..Group::small() };
    let apart = Group { apart: true, ..inline.clone() };
    assert!(whole(&apart) > 2 * whole(&inline), "no order waits");
    whole(&Group { datagrams: 0, ballots: 2, ..apart });
}

#[test]
fn a_joiner_holds_in_every_state() {
    whole(&Group { ballots: 1, datagrams: 0, joiners: 1, ..Group::small() });
}

#[test]
fn from_every_state_there_is_a_way_on() {
    let found = reach(&Group { datagrams: 0, suspects: false, ..Group::small() }, Budget::of(LIMIT));
    assert!(found.exhausted && found.judged > 100, "{found:?}");
    assert!(found.stuck.is_none(), "{:?}", found.stuck);
}

/// The bugs with few states before them; `bourdon-model --mutate all` searches for the rest.
#[test]
fn planted_bugs_are_caught() {
    let is_quick = |group: &Group| group.apart || group.ballots == 1 && group.changes == 1;
    for planted in plan::planted().iter().filter(|planted| is_quick(&planted.group)) {
        assert!(planted.look(LIMIT).is_some(), "{} was not caught", planted.mutant.name());
    }
}

#[test]
fn bugs_that_block_are_caught() {
    let blocks = plan::planted().into_iter().filter(|planted| planted.blocks && planted.group.datagrams == 0);
    for planted in blocks {
        assert_eq!(planted.look(LIMIT).map(|caught| caught.by), Some(plan::STUCK), "{}", planted.mutant.name());
    }
}
