//! The planted bugs, and for each the smallest group that shows it.
//!
//! A model that finds nothing may be unable to. Each bug of the ballots that the model knows, and each bug of the
//! process around them, must break a property in the group named here, or leave the group stuck.

use crate::budget::Budget;
use crate::group::{Action, Group};
use crate::reach;
use crate::search;
use bourdon_protocol::Mutant;
use std::time::Duration;

/// A bug and the group that shows it.
#[derive(Clone, Debug)]
pub struct Planted {
    /// The bug.
    pub mutant: Mutant,
    /// The group.
    pub group: Group,
    /// Whether it breaks no property and blocks the group.
    pub blocks: bool,
}

/// How a bug was caught.
#[derive(Debug)]
pub struct Caught {
    /// The property it breaks.
    pub by: &'static str,
    /// How many states were visited until then; all, if it blocks the group.
    pub states: usize,
    /// The shortest trace to it.
    pub trace: Vec<Action>,
}

/// The property that a stuck group breaks.
pub const STUCK: &str = "20 a way on";

impl Planted {
    /// Searches for the bug.
    pub fn look(&self, limit: Duration) -> Option<Caught> {
        if self.blocks {
            let found = reach::reach(&self.group, Budget::of(limit));
            return found.stuck.map(|trace| Caught { by: STUCK, states: found.states, trace });
        }
        let found = search::search(&self.group, Budget::of(limit), false);
        found.broken.map(|(property, trace)| Caught { by: property.name(), states: found.states, trace })
    }
}

/// All bugs that the model can show.
pub fn planted() -> Vec<Planted> {
    let bare = Group { datagrams: 0, crashes: 0, ..Group::small() }; // ballots only
    let data = Group { ballots: 1, crashes: 0, ..Group::small() }; // one ballot, two streams
    let late = Group { late: true, ..data.clone() };
    let apart = Group { apart: true, senders: 1, suspects: false, ..data.clone() }; // orders to the data plane wait
    let one = Group { senders: 1, crashes: 1, suspects: false, ..Group::small() }; // one stream, one crash
    let three = Group { ballots: 3, suspects: false, ..bare.clone() };
    let leaves = Group { leavers: 2, suspects: false, ..bare.clone() }; // two of three ask to leave
    let breaks = [
        (Mutant::CutIntersection, data.clone()),
        (Mutant::CutLongestHolder, data.clone()),
        (Mutant::ViewBeyondResponders, data.clone()),
        (Mutant::AcceptedNotAdopted, bare.clone()),
        (Mutant::LowestBallotAdopted, three.clone()),
        (Mutant::CutRecomputed, Group { crashes: 0, ..one.clone() }),
        (Mutant::AcceptBelowPromise, bare.clone()),
        (Mutant::StaleState, three),
        (Mutant::StateFromAny, data.clone()),
        (Mutant::AcceptFromAny, bare.clone()),
        (Mutant::HalfIsQuorum, Group { members: 4, ..bare.clone() }),
        (Mutant::JoinerCounted, Group { joiners: 1, ..bare.clone() }),
        (Mutant::InstallWithHole, data.clone()),
        (Mutant::Amnesia, Group { crashes: 1, ..bare.clone() }),
        (Mutant::AckAfterPromise, late.clone()),
        (Mutant::DeliverAfterPromise, late.clone()),
        (Mutant::SendAfterPromise, late),
        (Mutant::ResubmitAll, Group { senders: 1, changes: 2, ..data.clone() }),
        (Mutant::UniformAtOne, data.clone()),
        (Mutant::TakeoverAlone, Group { ballots: 2, datagrams: 0, suspects: false, ..data.clone() }),
        (Mutant::RespondersLeftOut, Group { datagrams: 0, suspects: false, ..data.clone() }),
        (Mutant::SmallView, Group { datagrams: 0, suspects: false, ..data }),
        (Mutant::PromiseBeforeWedged, apart.clone()),
        (Mutant::HeldBeforeWedged, apart.clone()),
        (Mutant::StaleCutHeld, Group { ballots: 2, ..apart }),
    ];
    let blocks = [
        (Mutant::DecideByAll, Group { crashes: 1, suspects: false, ..bare }),
        (Mutant::AcceptBeforeFetch, one.clone()),
        (Mutant::CutNotRetained, one),
        (Mutant::DecisionForgotten, leaves),
    ];
    let plant =
        |blocks| move |(mutant, group)| Planted { mutant, group: Group { mutant: Some(mutant), ..group }, blocks };
    breaks.into_iter().map(plant(false)).chain(blocks.into_iter().map(plant(true))).collect()
}
