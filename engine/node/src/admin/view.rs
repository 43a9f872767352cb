//! The view, as the admin socket reports it: taken by the engine's thread, written as JSON by the admin thread.

use crate::transport::NodePort;
use bourdon_engine::{Engine, StoreState};
use bourdon_protocol::{Reach, Standing, View};
use bourdon_wire::{OrderNumber, Rank};
use serde_json::{Value, json};
use std::net::SocketAddr;

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
    reach: Option<Reach>,
    network_lost: bool,
    storage: Option<StoreState>,
    /// By rank: where the member is reached, if that is known.
    addresses: Vec<Option<SocketAddr>>,
    /// By rank: how the member is reached, where that can change; none for this process.
    ways: Vec<Option<&'static str>>,
    /// When the view was installed here, and by rank when a member was last seen to be missing: in nanoseconds since
    /// the UNIX epoch, 0 if it never was.
    since: Since,
}

/// Since when the view is as it is, by the wall clock.
#[derive(Clone, Debug)]
pub(crate) struct Since {
    members: u64,
    installed_ns: u64,
    absent_ns: [u64; 64],
}

impl Since {
    pub(crate) const NEVER: Self = Self { members: 0, installed_ns: 0, absent_ns: [0; 64] };

    /// A view with these members, as bits, was installed.
    pub(crate) fn note(&mut self, members: u64, wall_ns: u64) {
        let gone = self.members & !members;
        (self.members, self.installed_ns) = (members, wall_ns);
        for (rank, absent_ns) in self.absent_ns.iter_mut().enumerate() {
            if gone >> rank & 1 == 1 {
                *absent_ns = wall_ns;
            } else if members >> rank & 1 == 1 {
                *absent_ns = 0;
            }
        }
    }
}

impl ViewReport {
    /// The view as the process knows it now.
    pub(crate) fn of(engine: &Engine<NodePort>, since: &Since) -> Self {
        let (process, now, transport) = (engine.process(), engine.now(), engine.port().transport());
        let (members, view) = (process.config().members, process.view());
        let all = u64::MAX >> (64 - u32::from(members.clamp(1, 64)));
        let way = |rank: Rank| {
            let address = process.address(rank).filter(|_| process.config().rank() != Some(rank));
            address.and_then(|address| transport.way_to(address.into()))
        };
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
            reach: transport.reach(),
            network_lost: transport.is_cut_off(),
            storage: engine.storage(),
            addresses: (0..members).map(|rank| process.address(Rank(rank)).map(SocketAddr::from)).collect(),
            ways: (0..members).map(|rank| way(Rank(rank))).collect(),
            since: since.clone(),
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
            "quorate": !self.lacks_majority && !self.view.members.is_empty(),
            "reach": self.reach.map(reach_as_json),
            "network_lost": self.network_lost,
            "storage": self.storage.map(storage_as_json),
            "installed_ns": some(self.since.installed_ns),
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
            "address": self.addresses[usize::from(rank.0)],
            "in_view": place.is_some(),
            "absent_since_ns": some(self.since.absent_ns[usize::from(rank.0 % 64)]),
            "seniority": place,
            "incarnation": place.map(|place| self.view.members[place].incarnation.0),
            "heard": is(self.heard),
            "reached_by": place.and(self.ways[usize::from(rank.0)]),
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

fn reach_as_json(reach: Reach) -> Value {
    json!({ "by_multicast": reach.by_multicast, "by_tcp": reach.by_mesh, "by_shm": reach.by_shm })
}

fn storage_as_json(storage: StoreState) -> Value {
    let StoreState { set_aside, waited_ns, is_full } = storage;
    json!({ "damaged": set_aside, "waited_ns": waited_ns, "full": is_full })
}

/// A point in time, if there was one.
fn some(wall_ns: u64) -> Option<u64> {
    (wall_ns != 0).then_some(wall_ns)
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
