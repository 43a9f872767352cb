//! Follows the group through every view, however far it is behind.
//!
//! A follower that was descheduled while the group went through three views hears only heartbeats of the last. If it
//! went on there, it would lose all that lies between, though every member has it. So it asks the members in turn how
//! *its* view ended; they retain the chain of decisions and the datagrams of earlier epochs (`retention.rs`). With the
//! decision it fetches the cut, delivers it, enters the next view, and asks again, until it has caught up.
//!
//! It gives up only what no member can supply: it skips views when every member of the newest one has answered that it
//! does not retain the decision, or when none has answered with it for [`CHAIN_WAIT_NS`]; it gives up a part of a cut
//! when no datagram of it has come for [`CUT_WAIT_NS`].
//!
//! If no member sends the view that comes next, and the whole cut is here, the follower computes it as the members do.

use super::{Process, Standing};
use crate::config::Role;
use crate::counters::Counter;
use crate::view::{Beginning, Member, View, bit};
use bourdon_wire::{Address, Epoch, Instant, Rank};

/// How long a follower waits for a datagram of the cut before it gives up what is missing.
pub(super) const CUT_WAIT_NS: u64 = 2_000_000_000;
/// How long a follower waits for a decision that no member answers with before it skips views.
const CHAIN_WAIT_NS: u64 = 2_000_000_000;
/// Even if every member has answered that it lacks the decision: an answer may have overtaken another.
const ANSWERS_WAIT_NS: u64 = 50_000_000;
/// How long a follower waits for the next view's announcement before it computes that view.
const NEXT_WAIT_NS: u64 = 50_000_000;

/// What a follower knows of the views between its own and the newest.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The newest view beyond the next one, and where it begins for a process that enters it there.
    newest: Option<(View, Beginning)>,
    /// Since when this process knows that there is such a view.
    behind_since: Instant,
    /// The members that have answered without the decision.
    lacking: u64,
    /// Datagrams received when the cut last came closer.
    received: u64,
    /// Every stream of this view was received from its first datagram, and none was given up.
    pub(super) is_whole: bool,
}

impl Process {
    /// A member answers with a view beyond the next: unless it also sends the decision that ended this view, it does
    /// not retain that decision.
    pub(super) fn hear_later_view(&mut self, now: Instant, from: Rank, view: View, beginning: Beginning) {
        if self.data.is_lossy() || self.data.view.members.is_empty() {
            return self.leap(now, view, beginning); // members retain nothing for a follower that may lose messages
        }
        let chain = &mut self.search.chain;
        if self.search.decision.is_none() {
            chain.lacking |= bit(from);
        }
        match &chain.newest {
            Some((newest, _)) if newest.epoch > view.epoch => {}
            Some(_) => chain.newest = Some((view, beginning)),
            None => (chain.newest, chain.behind_since) = (Some((view, beginning)), now),
        }
        self.consider_leap(now);
    }

    /// Skips views if nothing else is left.
    fn consider_leap(&mut self, now: Instant) {
        let chain = &self.search.chain;
        let Some((view, _)) = chain.newest.as_ref().filter(|_| self.search.decision.is_none()) else { return };
        let waited_ns = now.since(chain.behind_since);
        let all_lack = view.bits() & !chain.lacking == 0 && waited_ns >= ANSWERS_WAIT_NS;
        if all_lack || waited_ns >= CHAIN_WAIT_NS {
            self.leap_to_newest(now);
        }
    }

    fn leap_to_newest(&mut self, now: Instant) {
        if let Some((view, beginning)) = self.search.chain.newest.take() {
            self.leap(now, view, beginning);
        }
    }

    /// A follower hears a member of a later view: it asks that member how its own view ended, unless it knows all of it
    /// or the member has answered already.
    pub(super) fn ask_for_chain(&mut self, now: Instant, from: Rank, address: Address) {
        self.consider_leap(now);
        let chain = &self.search.chain;
        let unasked = chain.newest.as_ref().map_or(0, |(view, _)| view.bits() & !chain.lacking);
        let knows_all = self.search.decision.is_some() && self.search.next.is_some();
        if !knows_all && (chain.lacking & bit(from) == 0 || unasked == 0) {
            self.ask_for_view(now, from, address);
        }
    }

    /// The next view has been entered; the newest known view lies beyond it.
    pub(super) fn continue_chain(&mut self, now: Instant, newest: Option<(View, Beginning)>) {
        let later = newest.filter(|(view, _)| view.epoch > self.data.view.epoch.next());
        let Some((view, beginning)) = later.filter(|_| self.standing == Standing::Following) else { return };
        let known = |member: &Member| Some((member.rank, self.presence.address(member.rank)?));
        let peer = view.members.iter().find_map(known);
        let chain = &mut self.search.chain;
        (chain.newest, chain.behind_since) = (Some((view, beginning)), now);
        if let Some((rank, address)) = peer {
            self.ask_for_view(now, rank, address);
        }
    }

    /// The newest view that is known, to be carried over into the next.
    pub(super) fn take_newest(&mut self) -> Option<(View, Beginning)> {
        self.search.chain.newest.take()
    }

    /// As long as datagrams of the cut arrive, the follower waits for it.
    pub(super) fn note_progress(&mut self, now: Instant) {
        let received = self.counters.get(Counter::DatagramsReceived);
        if core::mem::replace(&mut self.search.chain.received, received) == received {
            return;
        }
        self.search.since = now;
        self.data.widen(now);
    }

    /// The view ends and the next has not been announced: computes it if that is possible, or skips it at last.
    pub(super) fn seek_next(&mut self, now: Instant, holds: bool) {
        if self.search.next.is_some() || self.search.chain.newest.is_none() {
            return;
        }
        let waited_ns = now.since(self.search.since);
        if holds && waited_ns >= NEXT_WAIT_NS {
            self.search.next = self.compute_next();
        }
        if self.search.next.is_none() && waited_ns >= CUT_WAIT_NS {
            self.leap_to_newest(now);
        }
    }

    /// The next view as its members compute it; `None` if this process does not have all that they had.
    fn compute_next(&self) -> Option<(View, Beginning)> {
        let value = self.search.decision.as_ref()?;
        let exact = |member: &Member| {
            let stream = &self.data.streams[member.rank.index()];
            let void = self.data.void(member.rank);
            stream.hole.is_none() && void.runs.is_empty() && !void.nameless
        };
        let whole = self.search.chain.is_whole && !self.data.order_lost && !self.data.barrier.is_active();
        if !whole || !self.data.view.members.iter().all(exact) {
            return None;
        }
        Some((value.view(self.data.view.epoch.next()), self.data.next_beginning()))
    }

    /// A wedged member of the followed view does not know how that view ended: a joiner answers in its own name, any
    /// other follower forwards what it received.
    pub(super) fn pass_decision_on(&mut self, now: Instant, epoch: Epoch, to: Address) {
        let Some(value) = &self.search.decision else { return };
        let named = self.own_member().is_some_and(|own| value.members.contains(&own));
        if named && matches!(self.config.role, Role::Member(_)) {
            let (header, value) = (super::header(&self.config, self.data.view.instance, epoch), value.clone());
            self.say_decision(now, header, to, value);
        } else {
            self.forward_decision(now, epoch, to);
        }
    }
}
