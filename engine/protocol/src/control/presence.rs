//! Presence: what each process last announced of itself: its incarnation, its address, the members it hears, its
//! requests.
//!
//! A view names its members; it has no addresses, windows or requests, which change without a decision. All of those
//! come with heartbeats and may be out of date, so they are kept apart from what was agreed.
//!
//! Invariants: nothing here decides anything; a rank has one incarnation at a time here, the one heard last.

use crate::view::{Member, View, bit};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{Heartbeat, heartbeat_flags};
use bourdon_wire::{Address, Epoch, Incarnation, Instant, Rank};

/// What one process announced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    /// Its incarnation that was heard last.
    pub(crate) incarnation: Option<Incarnation>,
    /// The epoch that it was in then.
    pub(crate) epoch: Epoch,
    pub(crate) address: Option<Address>,
    pub(crate) link_port: u16,
    pub(crate) window_bytes: u32,
    /// The members that it heard.
    pub(crate) heard_from: u64,
    /// Bits of [`heartbeat_flags`].
    pub(crate) flags: u16,
    pub(crate) heard_at: Instant,
    /// It has announced its address, and that it is configured as we are.
    pub(crate) introduced: bool,
    /// When it last announced that it is configured otherwise, if that is the last that it announced.
    pub(crate) differs_at: Option<Instant>,
    /// For a rank of the view: another incarnation than the view's, once reported.
    refused: Option<Incarnation>,
}

/// What every process announced.
#[derive(Debug)]
pub(crate) struct Presence {
    own: Option<Rank>,
    peers: Vec<Peer>,
}

impl Presence {
    pub(crate) fn new(own: Option<Rank>, members: usize) -> Self {
        assert!(own.is_none_or(|own| own.index() < members), "the configuration was checked");
        Self { own, peers: vec![Peer::default(); members] }
    }

    pub(crate) fn get(&self, rank: Rank) -> Option<&Peer> {
        self.peers.get(rank.index())
    }

    /// Notes what a process announces of itself. True if this is another incarnation than the one heard before.
    pub(crate) fn hear(&mut self, now: Instant, from: Member, epoch: Epoch, heartbeat: &Heartbeat) -> bool {
        let Some(peer) = self.peers.get_mut(from.rank.index()) else { return false };
        let other = peer.incarnation != Some(from.incarnation);
        if other {
            *peer = Peer { refused: peer.refused, ..Peer::default() };
        }
        peer.incarnation = Some(from.incarnation);
        peer.epoch = epoch;
        peer.address = Some(heartbeat.address).filter(Address::is_reachable);
        peer.link_port = heartbeat.link_port.get();
        peer.window_bytes = heartbeat.window_bytes.get();
        peer.heard_from = heartbeat.heard_from.get();
        peer.flags = heartbeat.flags.get();
        (peer.heard_at, peer.introduced) = (now, true);
        debug_assert!(self.knows(from), "a rank has the incarnation that was heard last");
        other
    }

    /// Notes whether a process is configured otherwise. Another incarnation than the one that introduced itself keeps
    /// no process out, and a later heartbeat corrects an earlier one.
    pub(crate) fn note_differs(&mut self, from: Member, differs_at: Option<Instant>) {
        let Some(peer) = self.peers.get_mut(from.rank.index()) else { return };
        if peer.incarnation.is_none_or(|incarnation| incarnation == from.incarnation) {
            peer.differs_at = differs_at;
        }
    }

    /// Another incarnation of a member than the view's was heard: true the first time.
    pub(crate) fn refuse(&mut self, from: Member) -> bool {
        let Some(peer) = self.peers.get_mut(from.rank.index()) else { return false };
        peer.refused.replace(from.incarnation) != Some(from.incarnation)
    }

    /// The process of this rank is reached at another address, as it has proved.
    pub(crate) fn relocate(&mut self, rank: Rank, address: Address) {
        if let Some(peer) = self.peers.get_mut(rank.index()) {
            peer.address = Some(address);
        }
    }

    pub(crate) fn any_differs(&self) -> bool {
        self.peers.iter().any(|peer| peer.differs_at.is_some())
    }

    /// The ranks of processes that are configured otherwise and were heard within this time, as bits.
    pub(crate) fn differing(&self, now: Instant, within_ns: u64) -> u64 {
        let is_heard = |peer: &Peer| peer.differs_at.is_some_and(|at| now.since(at) < within_ns);
        let ranks = self.peers.iter().enumerate().filter(|(_, peer)| is_heard(peer));
        ranks.fold(0, |all, (index, _)| all | 1 << index)
    }

    pub(crate) fn address(&self, rank: Rank) -> Option<Address> {
        self.get(rank).and_then(|peer| peer.address)
    }

    /// Whether this incarnation is the one heard last, and its address and configuration are known.
    pub(crate) fn knows(&self, member: Member) -> bool {
        self.get(member.rank).is_some_and(|peer| peer.introduced && peer.incarnation == Some(member.incarnation))
    }

    /// The members of a view that have not introduced themselves.
    pub(crate) fn missing(&self, view: &View) -> Vec<Rank> {
        let forming = view.epoch == Epoch(0);
        let unheard = |member: &&Member| {
            let introduced = self.get(member.rank).is_some_and(|peer| peer.introduced);
            Some(member.rank) != self.own && if forming { !introduced } else { !self.knows(**member) }
        };
        view.members.iter().filter(unheard).map(|member| member.rank).collect()
    }

    /// The processes outside the view that have caught up, want to join, and were heard recently.
    pub(crate) fn joiners(&self, now: Instant, view: &View, fresh_ns: u64) -> Vec<Member> {
        let ready = |(rank, peer): (usize, &Peer)| {
            let rank = Rank(rank as u16);
            let wants = peer.flags & heartbeat_flags::READY != 0 && peer.epoch == view.epoch;
            let fresh = peer.introduced && peer.differs_at.is_none() && now.since(peer.heard_at) < fresh_ns;
            let member = Member { rank, incarnation: peer.incarnation? };
            (wants && fresh && view.incarnation(rank).is_none()).then_some(member)
        };
        self.peers.iter().enumerate().filter_map(ready).collect()
    }

    /// Whether a joiner is about to come in, and has not caught up yet.
    pub(crate) fn learns(&self, now: Instant, fresh_ns: u64) -> bool {
        let learns = |peer: &Peer| peer.flags & heartbeat_flags::LEARNER != 0 && peer.differs_at.is_none();
        self.peers.iter().any(|peer| peer.introduced && learns(peer) && now.since(peer.heard_at) < fresh_ns)
    }

    /// The members that want to leave.
    pub(crate) fn leavers(&self, view: &View) -> u64 {
        let leaves = |member: &&Member| {
            self.knows(**member) && self.get(member.rank).is_some_and(|peer| peer.flags & heartbeat_flags::LEAVING != 0)
        };
        view.members.iter().filter(leaves).fold(0, |bits, member| bits | bit(member.rank))
    }
}
