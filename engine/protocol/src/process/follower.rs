//! Follows the group through every view, however far it is behind.
//!
//! A follower that was descheduled while the group went through three views hears only heartbeats of the last. If it
//! went on there, it would lose all that lies between, though every member has it. So it asks the members in turn how
//! *its* view ended; they retain the chain of decisions and the datagrams of earlier epochs (`retention.rs`). With the
//! decision it fetches the cut, delivers it, enters the next view, and asks again, until it has caught up.
//!
//! It gives up only what no member can supply: it skips views when every member of the newest one has answered that it
//! does not retain the decision, or when none has answered with it for [`CHAIN_WAIT_NS`]; it gives up a part of a cut
//! when no datagram of it has come for [`CUT_WAIT_NS`]. An observer counts only time in which it hears every member
//! that could answer: one connection over a network that loses packets may stall for seconds.
//!
//! If no member sends the view that comes next, and the whole cut is here, the follower computes it as the members do.

use super::search::Search;
use super::standing::Following;
use super::{Process, Standing};
use crate::config::{Order, Reliability, Role, Start};
use crate::control::agreement::FRESH;
use crate::control::view_change::{Ballot, Step, Value};
use crate::counters::Counter;
use crate::data::epoch_state::EpochState;
use crate::data::loss::CUT_WAIT_NS;
use crate::event::Event;
use crate::outbox::Destination;
use crate::values::cut::Cut;
use crate::view::{Beginning, Member, View, bit};
use bourdon_wire::records::heartbeat_flags;
use bourdon_wire::{Address, Epoch, Instant, Kind, OrderNumber, Rank, Sequence};

/// How long a follower waits for a decision that no member answers with before it skips views.
const CHAIN_WAIT_NS: u64 = 2_000_000_000;
/// How long an observer waits while it does not hear every member that could answer: over TCP with 10 % loss a
/// connection stalls for up to 7 s in all but one of 1,000 cases.
const STALL_WAIT_NS: u64 = 10_000_000_000;
/// Even if every member has answered that it lacks the decision: an answer may have overtaken another.
const ANSWERS_WAIT_NS: u64 = 50_000_000;
/// How long a follower waits for the next view's announcement before it computes that view.
const NEXT_WAIT_NS: u64 = 50_000_000;
/// For how many suspicion times a ballot may still admit a joiner that has ceased to announce that it is ready: members
/// count its last announcement for [`FRESH`], and one later their heartbeats show a ballot that has begun.
const COUNTS: u64 = FRESH + 1;

impl Process {
    /// Whether this process follows a view and has heard no member of it for too long.
    pub(super) fn has_lost_view(&self, now: Instant) -> bool {
        let heard_at = self.state.following().map(|following| following.heard_at);
        heard_at.is_some_and(|heard_at| now.since(heard_at) > super::discovery::LOST_NS)
    }

    /// A member answers with a view beyond the next: unless it also sends the decision that ended this view, it does
    /// not retain that decision.
    pub(super) fn hear_later_view(&mut self, now: Instant, from: Rank, view: View, beginning: Beginning) {
        if self.data.is_lossy() || self.data.view.members.is_empty() {
            return self.leap(now, view, beginning); // members retain nothing for a follower that may lose messages
        }
        let Some(following) = self.state.following_mut() else { return };
        let chain = &mut following.chain;
        if following.decision.is_none() {
            chain.lacking |= bit(from);
        }
        match &chain.newest {
            Some((newest, _)) if newest.epoch > view.epoch => {}
            Some(_) => chain.newest = Some((view, beginning)),
            None => {
                (chain.newest, chain.behind_since) = (Some((view, beginning)), now);
                chain.seen_at = now;
            }
        }
        let seen_at = chain.seen_at;
        let is_silent = self.awaits_silent(now, seen_at);
        if let Some(following) = self.state.following_mut().filter(|_| is_silent) {
            following.chain.behind_since = now;
        }
        self.consider_leap(now);
    }

    /// A member announces the view that comes after the followed view.
    pub(super) fn note_next_view(&mut self, view: View, beginning: Beginning) {
        if let Some(following) = self.state.following_mut() {
            following.next = Some((view, beginning));
            self.look_due = Instant(0);
        }
    }

    /// Skips views if nothing else is left.
    fn consider_leap(&mut self, now: Instant) {
        let Some(Following { chain, decision: None, .. }) = self.state.following() else { return };
        let Some((view, _)) = &chain.newest else { return };
        let waited_ns = now.since(chain.behind_since);
        let all_lack = view.bits() & !chain.lacking == 0 && waited_ns >= ANSWERS_WAIT_NS;
        if all_lack || waited_ns >= CHAIN_WAIT_NS {
            self.leap_to_newest(now);
        }
    }

    fn leap_to_newest(&mut self, now: Instant) {
        if let Some((view, beginning)) = self.take_newest() {
            self.leap(now, view, beginning);
        }
    }

    /// A follower hears a member of a later view: it asks that member how its own view ended, unless it knows all of it
    /// or the member has answered already.
    pub(super) fn request_chain(&mut self, now: Instant, from: Rank, address: Address) {
        self.consider_leap(now);
        let Some(Following { chain, decision, next, .. }) = self.state.following() else { return };
        let unasked = chain.newest.as_ref().map_or(0, |(view, _)| view.bits() & !chain.lacking);
        let knows_all = decision.is_some() && next.is_some();
        if !knows_all && (chain.lacking & bit(from) == 0 || unasked == 0) {
            self.request_view(now, from, address);
        }
    }

    /// The next view has been entered; the newest known view lies beyond it.
    pub(super) fn continue_chain(&mut self, now: Instant, newest: Option<(View, Beginning)>) {
        let later = newest.filter(|(view, _)| view.epoch > self.data.view.epoch.next());
        let Some((view, beginning)) = later else { return };
        let Some(Following { chain, .. }) = self.state.following_mut() else { return };
        let known = |member: &Member| Some((member.rank, self.cx.presence.address(member.rank)?));
        let peer = view.members.iter().find_map(known);
        (chain.newest, chain.behind_since, chain.seen_at) = (Some((view, beginning)), now, now);
        if let Some((rank, address)) = peer {
            self.request_view(now, rank, address);
        }
    }

    /// The newest view that is known, to be carried over into the next.
    pub(super) fn take_newest(&mut self) -> Option<(View, Beginning)> {
        self.state.following_mut()?.chain.newest.take()
    }

    /// Whether a member that could supply what this observer lacks is silent, and may only be hard to reach.
    fn awaits_silent(&self, now: Instant, since: Instant) -> bool {
        let Some(Following { chain, next, decision, .. }) = self.state.following() else { return false };
        let newest = chain.newest.as_ref().or(next.as_ref()).map(|(view, _)| &*view.members);
        let members = newest.or(decision.as_ref().map(|value| &*value.members)).unwrap_or_default();
        let is_silent = |member: &Member| {
            let heard_at = self.cx.presence.get(member.rank).map_or(Instant(0), |peer| peer.heard_at);
            now.since(heard_at) > super::discovery::LOST_NS
        };
        self.cx.config.role == Role::Observer && now.since(since) < STALL_WAIT_NS && members.iter().any(is_silent)
    }

    /// As long as datagrams of the cut arrive, the follower waits for it.
    pub(super) fn note_progress(&mut self, now: Instant) {
        let decided_at = self.state.following().map_or(Instant(0), |following| following.decided_at);
        let is_silent = self.awaits_silent(now, decided_at);
        let received = self.cx.counters.get(Counter::DatagramsReceived);
        let Some(following) = self.state.following_mut() else { return };
        let is_closer = core::mem::replace(&mut following.chain.received, received) != received;
        if is_closer || is_silent {
            following.since = now;
        }
        if is_closer {
            self.data.widen(now);
        }
    }

    /// The view ends and the next has not been announced: computes it if that is possible, or skips it at last.
    pub(super) fn seek_next(&mut self, now: Instant, holds: bool) {
        let Some(following @ Following { next: None, .. }) = self.state.following() else { return };
        if following.chain.newest.is_none() {
            return;
        }
        let waited_ns = now.since(following.since);
        let next = following.decision.as_ref().filter(|_| holds && waited_ns >= NEXT_WAIT_NS);
        let next = next.and_then(|value| self.compute_next(value, following.chain.is_whole));
        if next.is_none() && waited_ns >= CUT_WAIT_NS {
            self.leap_to_newest(now);
        } else if let Some(following) = self.state.following_mut() {
            following.next = next;
        }
    }

    /// The next view as its members compute it; `None` if this process does not have all that they had.
    fn compute_next(&self, value: &Value, is_whole: bool) -> Option<(View, Beginning)> {
        let exact = |member: &Member| {
            let stream = &self.data.streams[member.rank.index()];
            let void = self.data.void(member.rank);
            stream.hole.is_none() && void.runs.is_empty() && !void.nameless
        };
        let whole = is_whole && self.has_walked() && !self.data.barrier.is_active();
        if !whole || !self.data.view.members.iter().all(exact) {
            return None;
        }
        Some((value.view(self.data.view.epoch.next()), self.data.next_beginning()))
    }

    /// Whether this process has the order of the followed view from its first number on.
    fn has_walked(&self) -> bool {
        let sequencer = self.data.view.sequencer;
        let began = self.data.streams[sequencer.index()].began;
        !self.data.order_lost && began == self.data.beginning.first_of(sequencer)
    }

    /// A wedged member of the followed view does not know how that view ended: a joiner answers in its own name, any
    /// other follower forwards what it received.
    pub(super) fn pass_decision_on(&mut self, now: Instant, epoch: Epoch, to: Address) {
        let Some(value) = self.state.followed_decision() else { return };
        let named = self.cx.own_member().is_some_and(|own| value.members.contains(&own));
        if named && matches!(self.cx.config.role, Role::Member(_)) {
            let (header, value) = (self.cx.header(self.data.view.instance, epoch), value.clone());
            self.announce_decision(now, header, to, value);
        } else {
            self.forward_decision(now, epoch, to);
        }
    }
}

impl Process {
    /// Enters a view as a follower.
    pub(super) fn follow(&mut self, now: Instant, view: View, beginning: &Beginning) {
        self.search = Search { formed_at: now, ..Search::default() };
        self.enter(now, view, beginning);
        self.begin_following(now);
    }

    fn begin_following(&mut self, now: Instant) {
        if let Some(following) = self.state.following_mut() {
            (following.since, following.heard_at) = (now, now);
        }
    }

    /// Receives ballot steps from members of the followed view about its end.
    pub(super) fn follow_step(&mut self, now: Instant, from: Member, ballot: Ballot, step: Step) {
        let is_announced = matches!(&step, Step::Decide(value) if self.goes_on(from, value));
        if !self.data.view.contains(from) && !is_announced {
            return self.cx.count(Counter::DiscardedSender);
        }
        if matches!(&step, Step::Decide(value) | Step::Propose(value) if !self.may_follow(value)) {
            return self.cx.count(Counter::DiscardedImplausible);
        }
        match step {
            Step::Decide(value) => self.follow_decision(now, value),
            Step::Propose(value) if ballot.proposer() == from.rank && self.is_among(&value.members) => {
                let stay = self.stay(&value);
                self.data.request_cut(now, &value.cut, stay);
                if let Some(following) = self.state.following_mut() {
                    following.invitation = Some((ballot, value.cut));
                }
                self.accept_invitation(now);
            }
            _ => {}
        }
    }

    pub(super) fn is_among(&self, members: &[Member]) -> bool {
        let own = self.cx.config.rank().map(|rank| Member { rank, incarnation: self.cx.config.incarnation });
        own.is_some_and(|own| members.contains(&own))
    }

    /// A joiner accepts the view that adds it, once it holds the cut as its members do.
    pub(super) fn accept_invitation(&mut self, now: Instant) {
        let Some(Following { invitation: Some((ballot, invited)), .. }) = self.state.following() else { return };
        let ballot = *ballot;
        // A joiner that ran ahead of the cut will start again in another incarnation, and the ballot must not count on
        // it.
        let is_void = |cut: &Cut, rank: Rank| {
            let void = self.data.beyond(cut, rank);
            !self.data.is_lossy() && (void.nameless || !void.runs.is_empty())
        };
        let fits = |cut: &Cut| {
            let mut present = self.data.view.members.iter();
            self.data.holds_cut(cut) && !present.any(|member| is_void(cut, member.rank))
        };
        if !self.data.end.is_open() || !fits(invited) {
            return;
        }
        if let Some(following) = self.state.following_mut() {
            following.invitation = None;
        }
        if let Some(address) = self.cx.presence.address(ballot.proposer()) {
            let header = self.cx.header(self.data.view.instance, self.data.view.epoch);
            let bytes = super::steps::encode(ballot, &Step::Accept);
            let to = Destination::Peer(address);
            self.cx.send_as(header, now, to, Kind::Ballot, [&bytes, &[]]);
        }
    }

    /// Receives the decision that ends the followed view.
    pub(super) fn follow_decision(&mut self, now: Instant, value: Value) {
        if !matches!(self.data.end, EpochState::Decided(_)) {
            let stay = self.stay(&value);
            self.data.conclude(now, &value.cut, stay);
            if let Some(following) = self.state.following_mut() {
                following.decision = Some(value);
                (following.since, following.decided_at) = (now, now);
            }
            self.bound_order();
        }
    }

    /// Members may have stopped in the middle of the cut, where none of them had the next message of the order. A
    /// follower that has not walked the order from the view's beginning may never meet that place: it learns from the
    /// next view's beginning where they stopped, and delivers nothing before.
    pub(super) fn bound_order(&mut self) {
        let promises = self.cx.config.order == Order::Total && self.cx.config.reliability > Reliability::Reliable;
        let Some(following) = self.state.following().filter(|_| promises) else { return };
        if !matches!(self.data.end, EpochState::Decided(_)) {
            return;
        }
        let end = match &following.next {
            _ if following.chain.is_whole && self.has_walked() => OrderNumber(u64::MAX),
            Some((_, beginning)) => beginning.order,
            None => OrderNumber(0),
        };
        self.data.ordering.end_at(end);
    }

    /// The followed view has been delivered as far as it can be: goes on with the next if that is due.
    pub(super) fn follow_on(&mut self, now: Instant, holds: bool) {
        self.note_progress(now);
        self.seek_next(now, holds);
        let held_back = self.data.ordering.end();
        self.bound_order();
        if self.data.ordering.end() > held_back {
            self.entry.is_awaited = false; // what lies before it is delivered first
            return;
        }
        let Some(Following { next: Some((_, beginning)), since, .. }) = self.state.following() else { return };
        let present = self.data.view.members.iter().map(|member| member.rank);
        let behind = |rank: &Rank| self.data.streams[rank.index()].delivered < beginning.first[rank.index()];
        let joins = matches!(self.cx.config.role, Role::Member(_));
        // A barrier's own messages have no numbers: they are missing as long as the barrier is.
        let at_barrier = self.data.barrier.phase < beginning.phase;
        let waits = joins || at_barrier || present.clone().any(|rank| behind(&rank));
        if waits && !holds && now.since(*since) < CUT_WAIT_NS {
            return;
        }
        let next = self.state.following_mut().and_then(|following| following.next.take());
        let Some((view, mut beginning)) = next else { return };
        let void = |rank: Rank| self.data.void(rank);
        // A joiner that ran ahead of the cut, or lacks a part of it, has a state that no member has.
        let differs = |rank: Rank| {
            let void = void(rank);
            let first = beginning.first[rank.index()];
            self.data.streams[rank.index()].delivered != first || void.nameless || !void.runs.is_empty()
        };
        // The same holds if a barrier that it completed with a marker beyond the cut is set again.
        let past_barrier = self.data.barrier.phase > beginning.phase;
        let starts_over = if self.data.is_lossy() {
            false // no two processes have the same state
        } else if joins {
            !holds || past_barrier || present.clone().any(differs)
        } else {
            self.cx.config.start == Start::Snapshot && present.clone().any(|rank| void(rank).nameless)
        };
        debug_assert!(view.epoch == self.data.view.epoch.next(), "a follower enters every view");
        if starts_over {
            self.lose_view();
            self.found(now, view, beginning);
            return;
        }
        self.reconcile(&mut beginning, holds);
        beginning.phase = beginning.phase.max(self.data.barrier.phase);
        // A joiner holds the cut, and may be asked for it and for the decision like any other member.
        let decision = self.state.following_mut().and_then(|following| following.decision.take());
        let newest = self.take_newest();
        self.retire(now, decision);
        self.enter_from_start(now, view, &beginning);
        self.continue_chain(now, newest);
    }

    /// Enters the next view, in which every stream is received from its first datagram.
    pub(super) fn enter_from_start(&mut self, now: Instant, view: View, beginning: &Beginning) {
        self.search = Search { formed_at: now, ..Search::default() };
        self.enter(now, view, beginning);
        self.data.streams.iter_mut().for_each(|stream| stream.window.started = true);
        self.begin_following(now);
        if let Some(following) = self.state.following_mut() {
            following.chain.is_whole = true;
        }
        self.receive_ahead(now);
    }

    /// Reports what was delivered or given up beyond where the next view begins, and, unless the whole cut is here,
    /// what was not delivered before it.
    pub(super) fn reconcile(&mut self, beginning: &mut Beginning, all: bool) {
        if self.data.is_lossy() {
            // It goes on at its position; the next view's headers show what it has missed.
            return beginning.first = self.data.passed();
        }
        for (index, passed) in self.data.passed().into_iter().enumerate() {
            let first = beginning.first.get(index).copied().unwrap_or(passed);
            let sender = Rank(index as u16);
            let void = self.data.void(sender).runs;
            let below = void.iter().map(|(from, to)| (*from, (*to).min(first)));
            let beyond = core::iter::once((first, passed));
            // Some of it may have run ahead of a gap.
            let early = void.iter().map(|(from, to)| ((*from).max(first).max(passed), *to));
            // Messages from before this process began do not concern it, unless it took another process's state.
            let began = if self.takes_state() { Sequence(0) } else { self.data.streams[index].began };
            let own = |(from, to): (Sequence, Sequence)| (from.max(began), to);
            for (from, to) in { below }.chain(beyond).chain(early).map(own).filter(|(from, to)| from < to) {
                self.cx.counters.add(Counter::Retracted, to.since(from));
                self.cx.event(Event::Retracted { sender, from, to });
            }
            // With the whole cut here, messages may still lack their order, which was in a hole that was given up.
            // Where they need no order, the next view begins beyond what ran ahead of a gap.
            let lacks = !all || self.cx.config.order != Order::Unordered;
            let owed = self.data.streams[index].owed_from().filter(|owed| lacks && *owed < first);
            // A barrier's own message has no number: an empty gap reports it.
            let at_barrier = self.data.loses_at_barrier(sender, beginning.phase).then_some(first);
            if let Some(from) = owed.or(at_barrier) {
                self.cx.counters.add(Counter::Gaps, first.since(from));
                self.cx.event(Event::Gap { sender, from, to: first });
            }
        }
    }

    /// The group is more than a view ahead of a follower: the follower loses what lies between.
    pub(super) fn leap(&mut self, now: Instant, view: View, mut beginning: Beginning) {
        // A snapshot that the application has not taken yet would be mistaken for a later one.
        if matches!(self.cx.config.role, Role::Member(_)) || self.transfer.holds_back() {
            self.lose_view();
            return self.found(now, view, beginning);
        }
        self.reconcile(&mut beginning, false);
        self.retire(now, None);
        self.enter_from_start(now, view, &beginning);
    }

    /// Whether the next view may name this joiner: it has announced that it is ready. A joiner that left at once would
    /// be a member that no longer exists, and a view of three members with one such member does not survive a crash.
    pub(super) fn may_be_in_the_next_view(&self) -> bool {
        self.state.following().is_some_and(|following| following.ready_at.is_some())
    }

    /// A joiner that leaves no longer announces that it is ready. It goes once no member counts it any more and no
    /// ballot is under way, or once the next view is without it; a view that names it makes it a member, which leaves
    /// as members do.
    pub(super) fn tend_leaving_joiner(&mut self, now: Instant) {
        let ready_at = self.state.following().and_then(|following| following.ready_at);
        let ends = |member: &Member| {
            let peer = self.cx.presence.get(member.rank);
            peer.is_some_and(|peer| peer.flags & heartbeat_flags::WEDGED != 0 || peer.epoch > self.data.view.epoch)
        };
        let is_open = self.data.end.is_open() && !self.data.view.members.iter().any(ends);
        let counts_ns = COUNTS * self.cx.config.timing.detector.suspect_after_ns;
        let goes_at = match ready_at {
            None => now,
            Some(ready_at) if is_open => self.wishes.leave_by().min(ready_at + counts_ns),
            Some(_) => self.wishes.leave_by(),
        };
        if now >= goes_at {
            return self.go();
        }
        self.look_due = self.look_due.min(goes_at);
    }

    /// Whether a joiner has nearly everything that the members have, and a quorum of them holds all that it has: the
    /// donor may have delivered what the cut will not contain.
    pub(super) fn is_caught_up(&self) -> bool {
        let near = crate::data::flow::own_window(&self.cx.config) / 4;
        let members = self.data.view.members.iter().map(|member| &self.data.streams[member.rank.index()]);
        self.standing() == Standing::Following
            && !self.transfer.holds_back()
            && self.data.end.is_open()
            && { members }.all(|stream| stream.window.started && stream.window.known_end.since(stream.floor()) <= near)
            && self.data.is_held_by_quorum()
    }
}
