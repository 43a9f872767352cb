//! The members that a client hears: by their heartbeats only, since it is in no view and follows no view.

use crate::control::direct::caller::{Health, Target};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{Heartbeat, heartbeat_flags};
use bourdon_wire::{Address, DatagramHeader, Incarnation, Instant, Rank};

/// A member that was not heard for so long counts as absent: a member sends every 10 ms, at the worst every 100 ms.
const SILENT_NS: u64 = 300_000_000;

/// A member, as its heartbeats describe it.
#[derive(Clone, Copy, Debug)]
struct Known {
    incarnation: Incarnation,
    address: Address,
    heard_at: Instant,
}

impl Known {
    fn is_there(&self, now: Instant) -> bool {
        now.since(self.heard_at) < SILENT_NS
    }
}

/// Whether the sender of a heartbeat is in a view.
pub(super) fn is_formed(heartbeat: &Heartbeat) -> bool {
    heartbeat.flags.get() & heartbeat_flags::FORMED != 0
}

/// By rank: the members in a view.
#[derive(Debug)]
pub(super) struct Roster(Vec<Option<Known>>);

impl Roster {
    pub(super) fn new() -> Self {
        Self(vec![None; Rank::MAX.index() + 1])
    }

    pub(super) fn on_heartbeat(&mut self, now: Instant, header: &DatagramHeader, heartbeat: &Heartbeat) {
        let (incarnation, address) = (header.incarnation(), heartbeat.address);
        if let Some(known) = self.0.get_mut(header.rank().index())
            && is_formed(heartbeat)
            && address.is_reachable()
        {
            *known = Some(Known { incarnation, address, heard_at: now });
        }
    }

    /// The members heard lately.
    pub(super) fn members(&self, now: Instant) -> impl Iterator<Item = Rank> {
        let is_there = move |(rank, known): (usize, &Option<Known>)| {
            known.as_ref().filter(|known| known.is_there(now)).map(|_| Rank(rank as u16))
        };
        self.0.iter().enumerate().filter_map(is_there)
    }

    /// Where a member is, if it was ever heard.
    pub(super) fn target(&self, rank: Rank) -> Option<Target> {
        let known = self.0.get(rank.index())?.as_ref()?;
        let member = Some((rank, Some(known.incarnation)));
        Some(Target { member, address: known.address, is_proven: false, rtt_ns: None })
    }

    pub(super) fn health(&self, now: Instant, target: &Target) -> Health {
        let Some((rank, incarnation)) = target.member else { return Health::Well };
        match self.0.get(rank.index()).and_then(Option::as_ref) {
            Some(known) if Some(known.incarnation) != incarnation => Health::Gone,
            Some(known) if known.is_there(now) => Health::Well,
            _ => Health::Suspected,
        }
    }
}
