//! Presence: what each process last said of itself: which life it lives, where it is, whom it hears, what it wants.
//!
//! Views say who belongs; they say nothing of addresses, windows or wishes, which change without anybody's decision. All
//! of that comes with heartbeats and is only ever as good as the last one, so it is kept apart from what was agreed.
//!
//! Invariants: nothing here decides anything; a rank has one life at a time here, the one heard last.

use crate::view::{Member, View, bit};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{Heartbeat, heartbeat_flags};
use bourdon_wire::{Address, Epoch, Incarnation, Instant, Rank};

/// What one process said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    /// Which life of it spoke last.
    pub(crate) incarnation: Option<Incarnation>,
    /// In which epoch it was then.
    pub(crate) epoch: Epoch,
    pub(crate) address: Option<Address>,
    pub(crate) link_port: u16,
    pub(crate) window_bytes: u32,
    /// Whom it heard.
    pub(crate) heard_from: u64,
    /// Bits of [`heartbeat_flags`].
    pub(crate) flags: u16,
    pub(crate) said_at: Instant,
    /// It has said where it is, and that it is configured as we are.
    pub(crate) introduced: bool,
    pub(crate) differs: bool,
    /// The life of a rank of the view that is not the view's, once reported.
    refused: Option<Incarnation>,
}

/// What every process said.
#[derive(Debug)]
pub(crate) struct Presence {
    own: Option<Rank>,
    peers: Vec<Peer>,
}

impl Presence {
    pub(crate) fn new(own: Option<Rank>, members: usize) -> Self {
        Self { own, peers: vec![Peer::default(); members] }
    }

    pub(crate) fn get(&self, rank: Rank) -> Option<&Peer> {
        self.peers.get(rank.index())
    }

    /// Takes in what a process says of itself. True if this is another life than the one heard before.
    pub(crate) fn hear(&mut self, now: Instant, from: Member, epoch: Epoch, said: &Heartbeat) -> bool {
        let Some(peer) = self.peers.get_mut(from.rank.index()) else { return false };
        let other = peer.incarnation != Some(from.incarnation);
        if other {
            *peer = Peer { refused: peer.refused, ..Peer::default() };
        }
        peer.incarnation = Some(from.incarnation);
        peer.epoch = epoch;
        peer.address = Some(said.address).filter(Address::is_reachable);
        peer.link_port = said.link_port.get();
        peer.window_bytes = said.window_bytes.get();
        peer.heard_from = said.heard_from.get();
        peer.flags = said.flags.get();
        (peer.said_at, peer.introduced) = (now, true);
        other
    }

    /// Notes whether a process is configured otherwise; true the first time it is seen to be.
    pub(crate) fn note_differs(&mut self, rank: Rank, differs: bool) -> bool {
        let Some(peer) = self.peers.get_mut(rank.index()) else { return false };
        differs && !core::mem::replace(&mut peer.differs, differs)
    }

    /// Another life of a member than the view's spoke: true the first time.
    pub(crate) fn refuse(&mut self, from: Member) -> bool {
        let Some(peer) = self.peers.get_mut(from.rank.index()) else { return false };
        peer.refused.replace(from.incarnation) != Some(from.incarnation)
    }

    pub(crate) fn any_differs(&self) -> bool {
        self.peers.iter().any(|peer| peer.differs)
    }

    pub(crate) fn address(&self, rank: Rank) -> Option<Address> {
        self.get(rank).and_then(|peer| peer.address)
    }

    /// Whether this life of it is the one heard last, and is known well enough to talk to.
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

    /// Those outside the view that have caught up and want to come in, heard lately.
    pub(crate) fn joiners(&self, now: Instant, view: &View, fresh_ns: u64) -> Vec<Member> {
        let ready = |(rank, peer): (usize, &Peer)| {
            let rank = Rank(rank as u16);
            let wants = peer.flags & heartbeat_flags::READY != 0 && peer.epoch == view.epoch;
            let fresh = peer.introduced && !peer.differs && now.since(peer.said_at) < fresh_ns;
            let member = Member { rank, incarnation: peer.incarnation? };
            (wants && fresh && view.incarnation(rank).is_none()).then_some(member)
        };
        self.peers.iter().enumerate().filter_map(ready).collect()
    }

    /// Whether somebody is about to come in, and has not caught up yet.
    pub(crate) fn learns(&self, now: Instant, fresh_ns: u64) -> bool {
        let learns = |peer: &Peer| peer.flags & heartbeat_flags::LEARNER != 0 && !peer.differs;
        self.peers.iter().any(|peer| peer.introduced && learns(peer) && now.since(peer.said_at) < fresh_ns)
    }

    /// The members that want to be left out.
    pub(crate) fn leavers(&self, view: &View) -> u64 {
        let leaves = |member: &&Member| {
            self.knows(**member) && self.get(member.rank).is_some_and(|peer| peer.flags & heartbeat_flags::LEAVING != 0)
        };
        view.members.iter().filter(leaves).fold(0, |bits, member| bits | bit(member.rank))
    }
}
