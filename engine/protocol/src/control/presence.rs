//! Presence: who has been heard, where they can be reached, and who has fallen silent.
//!
//! With a static view a silent member stops the group, so the least the others owe their applications is its name.
//! Any datagram that a member sent itself counts as a sign of life; a repair of its datagrams by another does not. A
//! process that was itself stopped for a while hears nobody at first: its own stall is not held against the others.
//!
//! Invariants: the first incarnation heard at a rank is the one in this view; another is refused and reported.

use crate::config::Timing;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{Address, Incarnation, Instant, Rank};

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    incarnation: Option<Incarnation>,
    /// The incarnation last refused, so that it is reported once.
    refused: Option<Incarnation>,
    heard_at: Instant,
    address: Option<Address>,
    /// It has said where it is and that it is configured as we are.
    introduced: bool,
    silent: bool,
    differs: bool,
}

#[derive(Debug)]
pub(crate) struct Presence {
    own: Option<Rank>,
    peers: Vec<Peer>,
    formed: bool,
    /// The lowest silent rank: asked on every publication, so kept at hand.
    silent: Option<Rank>,
    pub(crate) due: Instant,
    looked_at: Instant,
}

/// Whether a sender is the one this view knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    /// It was silent until now.
    Back,
    No,
    /// Another life of it, not seen before.
    Restarted,
}

impl Presence {
    pub(crate) fn new(now: Instant, own: Option<Rank>, members: usize, timing: &Timing) -> Self {
        let peer = Peer { heard_at: now, ..Peer::default() };
        let formed = members == 1 && own.is_some();
        let due = now + timing.silent_after_ns / 4;
        Self { own, peers: vec![peer; members], formed, silent: None, due, looked_at: now }
    }

    /// A datagram of a member came; `alive` if it sent the datagram itself.
    #[inline]
    pub(crate) fn heard(&mut self, rank: Rank, incarnation: Incarnation, now: Instant, alive: bool) -> Known {
        let peer = &mut self.peers[rank.index()];
        if peer.incarnation != Some(incarnation) {
            if peer.incarnation.is_some() {
                let again = peer.refused.replace(incarnation) == Some(incarnation);
                return if again { Known::No } else { Known::Restarted };
            }
            peer.incarnation = Some(incarnation);
        }
        if alive {
            peer.heard_at = now;
            if peer.silent {
                peer.silent = false;
                self.silent = self.first_silent();
                return Known::Back;
            }
        }
        Known::Yes
    }

    /// Where a member says it is; says whether that completes the group.
    pub(crate) fn introduce(&mut self, rank: Rank, address: Address) -> bool {
        let peer = &mut self.peers[rank.index()];
        (peer.address, peer.introduced) = (Some(address).filter(Address::is_reachable), true);
        let own = self.own.map(Rank::index);
        let all = self.peers.iter().enumerate().all(|(i, peer)| Some(i) == own || peer.introduced);
        let formed_now = all && !self.formed;
        self.formed |= all;
        formed_now
    }

    /// Says whether this is the first time a member's configuration is seen to differ.
    pub(crate) fn note_differs(&mut self, rank: Rank, differs: bool) -> bool {
        let peer = &mut self.peers[rank.index()];
        let first = differs && !peer.differs;
        peer.differs = differs;
        if differs && !peer.introduced {
            // It never belonged to the group; the right one may still come to this rank.
            (peer.incarnation, peer.refused) = (None, None);
        }
        first
    }

    pub(crate) fn any_differs(&self) -> bool {
        self.peers.iter().any(|peer| peer.differs)
    }

    pub(crate) fn is_formed(&self) -> bool {
        self.formed
    }

    pub(crate) fn address(&self, rank: Rank) -> Option<Address> {
        self.peers.get(rank.index()).and_then(|peer| peer.address)
    }

    /// The members not heard yet.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Rank> {
        let own = self.own.map(Rank::index);
        let unheard = move |(i, peer): (usize, &Peer)| (Some(i) != own && !peer.introduced).then_some(i);
        self.peers.iter().enumerate().filter_map(unheard).map(|i| Rank(i as u16))
    }

    /// A member that has been silent too long, if any.
    #[inline]
    pub(crate) fn silent(&self) -> Option<Rank> {
        self.silent
    }

    fn first_silent(&self) -> Option<Rank> {
        self.peers.iter().position(|peer| peer.silent).map(|i| Rank(i as u16))
    }

    /// Bit r: rank r was heard of late.
    pub(crate) fn heard_from(&self, now: Instant, timing: &Timing) -> u64 {
        let heard = |peer: &Peer| peer.incarnation.is_some() && now.since(peer.heard_at) < timing.silent_after_ns;
        self.peers.iter().enumerate().filter(|(_, peer)| heard(peer)).fold(0, |bits, (i, _)| bits | 1 << i)
    }

    /// Looks who has fallen silent since the last look.
    pub(crate) fn look(&mut self, now: Instant, timing: &Timing, mut newly_silent: impl FnMut(Rank)) {
        let interval_ns = timing.silent_after_ns / 4;
        let own_stall_ns = now.since(self.looked_at).saturating_sub(2 * interval_ns);
        (self.looked_at, self.due) = (now, now + interval_ns);
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if Some(index) == self.own.map(Rank::index) {
                continue;
            }
            peer.heard_at = (peer.heard_at + own_stall_ns).min(now);
            if !peer.silent && now.since(peer.heard_at) >= timing.silent_after_ns {
                peer.silent = true;
                newly_silent(Rank(index as u16));
            }
        }
        self.silent = self.first_silent();
    }
}
