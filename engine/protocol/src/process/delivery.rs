//! Delivery: messages leave the data plane in their order and reach the application.
//!
//! The group's own commands (locks) travel in the streams as well and are taken out here. Where an epoch ends, delivery
//! goes up to its cut and the next view begins.

use super::context::Context;
use super::control_end::ControlEnd;
use super::coordinate::Coordinating;
use super::{Process, Standing};
use crate::control::clients::Clients;
use crate::counters::Counter;
use crate::data::after::{self, Satisfied};
use crate::data::epoch_state::EpochState;
use crate::event::{Event, Message};
use crate::mutant::Mutant;
use bourdon_wire::{Instant, Rank, Sequence};

/// The parts that a message may be for besides the application.
pub(super) type Own<'a> = (&'a mut Clients, &'a mut Coordinating, &'a mut ControlEnd);

impl Process {
    /// Delivers the messages that are due, at most `limit` (give or take one datagram's); returns how many. It stops
    /// where an event has its place ([`Event::is_ordered`]), and delivers nothing until [`Process::poll_event`] has
    /// given that event; then it returns at least 1. 0: nothing is due.
    #[inline]
    pub fn deliver(&mut self, now: Instant, limit: usize, emit: impl FnMut(&Message<'_>)) -> usize {
        self.deliver_after(now, limit, &after::always, emit)
    }

    /// As [`Process::deliver`], but holds back messages that come after a message of another group that has not
    /// `passed` there: see [`Process::has_passed`], and `data/after.rs` for what releases them.
    #[inline]
    pub fn deliver_after(
        &mut self,
        now: Instant,
        limit: usize,
        passed: Satisfied<'_>,
        mut emit: impl FnMut(&Message<'_>),
    ) -> usize {
        if self.transfer.holds_back() {
            return 0;
        }
        if self.stops_for_event() {
            self.pass_reports(now); // the event is shown once the control plane knows what was reported with it
            return 1;
        }
        self.set_clock(now);
        let Self { clients, coordination, control, data, cx, .. } = self;
        let mut count = data.deliver(now, limit, passed, &mut cx.counters, &mut |delivery| {
            show((clients, coordination, control), delivery, &mut emit);
        });
        if count > 0 {
            self.settle_clients(now); // a quorum may hold a message that has its order now
            self.note_commands(now);
        }
        // Messages behind a hole are due as soon as the hole has been crossed.
        while self.crosses(now) {
            if self.stops_for_event() {
                self.pass_reports(now);
                return count.max(1);
            }
            if count >= limit {
                break;
            }
            let Self { clients, coordination, control, data, cx, .. } = self;
            let emit = &mut |delivery: &Message<'_>| show((clients, coordination, control), delivery, &mut emit);
            count += data.deliver(now, limit - count, passed, &mut cx.counters, emit);
        }
        if !self.data.end.is_open() || self.data.barrier.is_active() {
            count += self.deliver_ends(now, count == 0 && limit > 0, &mut emit);
        }
        if self.control.has_reports() {
            self.pass_reports(now);
        }
        count
    }

    /// Whether an event waits that has its place before what would be delivered next.
    #[inline]
    pub(super) fn stops_for_event(&self) -> bool {
        self.cx.has_ordered() && self.cx.config.mutant != Some(Mutant::EventsLate)
    }

    /// Delivers what is due at a barrier or at the end of an epoch.
    #[cold]
    pub(super) fn deliver_ends(&mut self, now: Instant, is_all: bool, emit: &mut impl FnMut(&Message<'_>)) -> usize {
        let mut count = 0;
        let completes = self.data.agreed_barrier() == Some(true);
        if completes && !is_all {
            return 0; // the remaining messages first
        }
        if self.data.barrier.is_active() || completes {
            count += self.pass_barrier(now, is_all, emit);
        }
        if matches!(self.data.end, EpochState::Decided(_)) {
            if count == 0 && is_all {
                count += self.deliver_rest(now, emit);
            }
            // A call that has delivered may have left something: only a call that finds nothing ends the epoch.
            let is_awaited = count == 0 && is_all;
            if is_awaited && !self.entry.is_awaited {
                self.look_due = now; // the next step of time ends it
            }
            self.entry.is_awaited = is_awaited;
        }
        count
    }

    /// Delivers what a decided epoch has beyond gaps, where its cut names it; returns how many messages.
    fn deliver_rest(&mut self, now: Instant, emit: &mut impl FnMut(&Message<'_>)) -> usize {
        if !self.holds_end() {
            return 0;
        }
        let follows = self.standing() == Standing::Following;
        let (clients, coordination, control) = (&mut self.clients, &mut self.coordination, &mut self.control);
        let mut emit = |delivery: &Message<'_>| show((clients, coordination, control), delivery, emit);
        let mut count = self.data.deliver_ranges(now, &mut emit);
        if count == 0 && !follows && matches!(self.cx.config.mutant, Some(Mutant::AppendUnordered | Mutant::SkipAtCut))
        {
            count = self.data.deliver_beyond_order(now, &mut emit);
        }
        self.cx.counters.add(Counter::Delivered, count as u64);
        count
    }

    /// Whether this process holds all that the decided epoch ends with.
    pub(super) fn holds_end(&self) -> bool {
        let EpochState::Decided(cut) = &self.data.end else { return false };
        self.data.holds_cut(cut)
            || self.standing() != Standing::Following && self.cx.config.mutant == Some(Mutant::InstallWithHole)
    }

    /// Crosses all holes; returns whether there were any. A member has none, unless messages may be lost.
    #[inline]
    pub(super) fn crosses(&mut self, now: Instant) -> bool {
        let is_lossy = self.data.is_lossy();
        let any_over = is_lossy && self.data.give_up(now);
        if any_over && matches!(self.data.end, EpochState::Fetching(..)) {
            self.note_fetched(now);
        }
        (self.standing() == Standing::Following || is_lossy) && self.cross_holes() || any_over
    }

    /// Reports what was given up, before anything is delivered beyond it.
    #[cold]
    pub(super) fn report_lost(&mut self) {
        let (is_lossy, mutant) = (self.data.is_lossy(), self.cx.config.mutant);
        let cx = &mut self.cx;
        let any = self.data.take_lost(|sender, from, to| report(cx, is_lossy, mutant, (sender, from, to)));
        if let Some(following) = self.state.following_mut() {
            following.chain.is_whole &= !any;
        }
    }

    pub(super) fn cross_holes(&mut self) -> bool {
        let (is_lossy, mutant) = (self.data.is_lossy(), self.cx.config.mutant);
        let cx = &mut self.cx;
        let any = self.data.cross_holes(|sender, from, to| report(cx, is_lossy, mutant, (sender, from, to)));
        if let Some(following) = self.state.following_mut() {
            following.chain.is_whole &= !any;
            if any {
                self.bound_order();
            }
        }
        any
    }
}

/// Reports messages as lost.
fn report(cx: &mut Context, is_lossy: bool, mutant: Option<Mutant>, (sender, from, to): (Rank, Sequence, Sequence)) {
    if is_lossy && (from == to || mutant == Some(Mutant::GapUnreported)) {
        return; // only records stood there
    }
    cx.counters.add(Counter::Gaps, to.since(from));
    cx.event(Event::Gap { sender, from, to });
}

/// Delivers a message to the application, unless it is the group's own, or a client's that was delivered before through
/// another member.
#[inline]
pub(super) fn show(
    (clients, coordination, control): Own<'_>,
    delivery: &Message<'_>,
    emit: &mut impl FnMut(&Message<'_>),
) {
    if let Some(tag) = delivery.client
        && (coordination.takes(tag, delivery, control) || !clients.deliver(tag))
    {
        return;
    }
    emit(delivery);
}
