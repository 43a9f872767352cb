//! The view, as the admin socket reports it: taken by the engine's thread, written as JSON by the admin thread.

use bourdon_protocol::{Process, Standing, View};
use bourdon_wire::{Instant, OrderNumber, Rank};
use serde_json::{Value, json};

/// The view and what this process knows of its members.
#[derive(Debug)]
pub(crate) struct ViewReport {
    view: View,
    /// How many members are configured.
    members: u16,
    standing: Standing,
    /// Bit r: rank r is heard: of a view lately, before the first view at all.
    heard: u64,
    /// By place in the view: for how long the member has not been heard; none if it never was.
    silences_ns: Vec<Option<u64>>,
    /// Bit r: rank r is suspected.
    suspected: u64,
    /// By place in the view: how suspect the member is; 1 and more is suspected.
    levels: Vec<f64>,
    phase: u64,
    delivered_order: OrderNumber,
    is_formed: bool,
    differs: bool,
    is_wedged: bool,
    lacks_majority: bool,
}

impl ViewReport {
    /// The view as the process knows it now.
    pub(crate) fn of(process: &Process, now: Instant) -> Self {
        let (members, view) = (process.config().members, process.view());
        let all = u64::MAX >> (64 - u32::from(members.clamp(1, 64)));
        let known = process.missing().fold(all, |heard, rank| heard & !(1 << rank.0));
        Self {
            view: view.clone(),
            members,
            standing: process.standing(),
            heard: if view.members.is_empty() { known } else { process.heard_lately(now) },
            silences_ns: view.members.iter().map(|member| process.silence_ns(*member, now)).collect(),
            suspected: process.suspects(),
            levels: view.members.iter().map(|member| process.suspicion(member.rank, now)).collect(),
            phase: process.phase(),
            delivered_order: process.delivered_order(),
            is_formed: process.is_formed(),
            differs: process.configuration_differs(),
            is_wedged: process.is_wedged(),
            lacks_majority: process.lacks_majority() || process.observes_no_majority(now),
        }
    }

    /// The answer: every rank that the configuration names, in the view or not.
    pub(crate) fn answer(&self) -> Value {
        let (instance, birth) = (self.view.instance.0, self.view.birth);
        json!({ "view": {
            "instance": (instance != 0).then(|| format!("{instance:016x}")),
            "birth": (birth != 0).then_some(birth),
            "epoch": self.view.epoch.0,
            "standing": standing_name(self.standing),
            "formed": self.is_formed,
            "changing": self.is_wedged,
            "majority": !self.lacks_majority,
            "sequencer": self.view.sequencer.0,
            "phase": self.phase,
            "delivered_order": self.delivered_order.0,
            "configuration_differs": self.differs,
            "missing": self.missing(),
            "members": (0..self.members).map(|rank| self.member(Rank(rank))).collect::<Vec<_>>(),
        }})
    }

    fn member(&self, rank: Rank) -> Value {
        let is = |bits: u64| bits >> rank.0 & 1 == 1;
        let place = self.view.members.iter().position(|member| member.rank == rank);
        json!({
            "rank": rank.0,
            "in_view": place.is_some(),
            "seniority": place,
            "incarnation": place.map(|place| self.view.members[place].incarnation.0),
            "heard": is(self.heard),
            "silence_ns": place.and_then(|place| self.silences_ns[place]),
            "suspected": is(self.suspected),
            "suspicion": place.map(|place| (self.levels[place] * 1000.0).round() / 1000.0),
        })
    }

    /// The configured members that the view lacks; before there is a view, those that have not been heard.
    fn missing(&self) -> Vec<u16> {
        let there = if self.view.members.is_empty() { self.heard } else { self.view.bits() };
        (0..self.members).filter(|rank| there >> rank & 1 == 0).collect()
    }
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Forming => "forming",
        Standing::Outside => "outside",
        Standing::Following => "following",
        Standing::Member => "member",
        Standing::Gone => "gone",
    }
}
