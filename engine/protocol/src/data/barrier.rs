//! Barriers: what was sent before is delivered everywhere before anything that is sent after.
//!
//! Orders define in which sequence messages are delivered, not that all members have delivered them. A barrier does the
//! latter: each member ends the phase of its own stream with a *marker* and publishes nothing more; a member that has
//! delivered every stream up to its marker reports that in its row; when all members have, the phase goes up and all
//! members continue. Nothing is dropped and no view changes.
//!
//! A marker is in the stream like a message, so it is repaired and retained like one, and delivery stops at it by
//! itself: the walk waits there until the phase goes up. Observers have no vote, and wait for the members as a member
//! does: an observer that went on as soon as it had every marker would be ahead of a cut that leaves a marker out. A
//! member that receives data from beyond another member's marker knows that all members have reached the marker; a
//! member that missed a row learns it from the next heartbeat. A marker may carry a message, which is delivered between
//! the phases and so in the same place for all: ISIS's GBCAST.
//!
//! An observer may lose a marker in a hole that no member can fill any more, or begin behind it. The phase in the
//! header of the datagram behind the hole shows that, and so does the phase that a heartbeat announces with the end of
//! the stream; the stream counts as ended there, and delivery continues once the barrier is complete.
//!
//! The sequencer of a total order sets its marker last: its stream holds the order of what the other members sent
//! before. Where the sequencer itself requests a barrier, it first requests the other members' markers, in its stream
//! as well.
//!
//! If a view change comes in between and the cut has every marker, all members complete the barrier at the cut. If the
//! cut lacks a marker, no member had completed the barrier, and the markers are set again in the next view. A member
//! that completed it may be gone: then every member had reached it, at least one member of any quorum among them, and
//! the cut has what that member held.
//!
//! Invariants: no message crosses a barrier; the barriers of one process complete in the order in which it requested
//! them. Sources: Birman and Joseph, "Exploiting virtual synchrony" (1987); JGroups' FLUSH.

use super::stream::Stream;
use crate::mutant::Mutant;
use crate::view::{View, bit, ranks};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{DatagramNumber, Rank};

/// Barriers requested and not complete: an application that requests them faster than the group completes them is
/// refused.
pub(crate) const ASKED_MAX: usize = 64;

/// The state of this process at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierProgress {
    /// Some stream has not been delivered up to its marker.
    Before,
    /// It has just reached all markers.
    Reached,
    /// It has reached all markers, and waits for the other members.
    Waits,
}

/// The state of the group between its barriers.
#[derive(Debug)]
pub(crate) struct Barrier {
    /// How many are complete.
    pub(crate) phase: u64,
    /// Markers of all phases below this have been received.
    heard: u64,
    /// By stream: the last marker that came, and in which datagram.
    markers: Vec<Option<(u64, DatagramNumber)>>,
    /// By member: every barrier below was reached, by its rows.
    reached: Vec<u64>,
    /// The same, by this process.
    own_reached: u64,
    /// Up to where this process has set its markers.
    placed: u64,
    /// Up to where it has requested the other members' markers, as the sequencer.
    asked_others: u64,
    /// The barriers that the application requested: the payload of each, if it has one.
    asked: VecDeque<Option<Vec<u8>>>,
    /// Whether the marker that was set carries the first of them.
    carried: bool,
}

impl Barrier {
    pub(crate) fn new(phase: u64, members: usize) -> Self {
        Self {
            phase,
            heard: phase,
            markers: vec![None; members],
            reached: vec![0; members],
            own_reached: phase,
            placed: phase,
            asked_others: phase,
            asked: VecDeque::new(),
            carried: false,
        }
    }

    /// The application requests a barrier; false if too many wait.
    pub(crate) fn ask(&mut self, payload: Option<&[u8]>) -> bool {
        let room = self.asked.len() < ASKED_MAX;
        if room {
            self.asked.push_back(payload.map(Vec::from));
        }
        room
    }

    /// The requested barriers that are not complete, for the next view.
    pub(crate) fn take_asked(&mut self) -> VecDeque<Option<Vec<u8>>> {
        core::mem::take(&mut self.asked)
    }

    /// Requests them again in the next view.
    pub(crate) fn ask_again(&mut self, asked: VecDeque<Option<Vec<u8>>>) {
        assert!(self.asked.is_empty() && asked.len() <= ASKED_MAX, "{} requests for barriers", asked.len());
        self.asked = asked;
    }

    /// Whether a marker has been set and the phase has not gone up: nothing may be published.
    #[inline]
    pub(crate) fn is_placed(&self) -> bool {
        self.placed > self.phase
    }

    /// Whether a member can have sent a marker of this phase: no member gets further ahead than the phase that this
    /// process, whose row counts, has reached.
    pub(crate) fn is_plausible(&self, phase: u64) -> bool {
        phase <= self.phase + 1
    }

    /// The phase that a member announced, as far as it can be in it. A member waits for this process if that is a
    /// member as well, and so is at most one phase ahead.
    pub(crate) fn plausible(&self, phase: u64, is_member: bool) -> u64 {
        if is_member { phase.min(self.phase + 1) } else { phase }
    }

    /// Whether there is anything to do about barriers.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.heard > self.phase || !self.asked.is_empty() || self.placed > self.phase
    }

    /// A marker came in this datagram of a stream, or in none where it only requests this process's marker.
    pub(crate) fn note_marker(&mut self, stream: Rank, phase: u64, number: Option<DatagramNumber>) {
        self.heard = self.heard.max(phase.saturating_add(1));
        if let (Some(marker), Some(number)) = (self.markers.get_mut(stream.index()), number) {
            *marker = Some((phase, number));
        }
    }

    /// Whether the other members' markers must be requested: only the sequencer's application requests this barrier.
    pub(crate) fn must_ask(&self) -> bool {
        self.heard <= self.phase && self.asked_others <= self.phase
    }

    /// They were requested.
    pub(crate) fn has_asked(&mut self) {
        debug_assert!(self.asked_others <= self.phase, "it requests the others' markers once a phase: {self:?}");
        self.asked_others = self.phase + 1;
    }

    /// Whether the other members' streams are complete up to their markers: in total order, what they sent before must
    /// be put in order ahead of the sequencer's own marker.
    pub(crate) fn others_have_ended(&self, streams: &[Stream], view: &View, own: Rank) -> bool {
        let ended = |stream: &Stream| {
            let marker = self.markers.get(stream.rank.index()).copied().flatten();
            marker.is_some_and(|(phase, number)| phase >= self.phase && number < stream.window.next)
        };
        let others = streams.iter().filter(|stream| stream.rank != own && view.bits() & bit(stream.rank) != 0);
        { others }.all(ended)
    }

    /// What this process's marker should carry, if one is to be set now.
    pub(crate) fn to_place(&self) -> Option<Option<&[u8]>> {
        let wanted = (self.heard > self.phase || !self.asked.is_empty()) && !self.is_placed();
        wanted.then(|| self.asked.front().and_then(|payload| payload.as_deref()))
    }

    /// The marker was set.
    pub(crate) fn set(&mut self) {
        debug_assert!(!self.is_placed(), "one marker a phase");
        self.placed = self.phase + 1;
        self.carried = !self.asked.is_empty();
    }

    /// Whether this process has reached a barrier that is not complete.
    pub(crate) fn has_reached(&self) -> bool {
        self.own_reached > self.phase
    }

    /// What this process reports in its row.
    pub(crate) fn own_reached(&self) -> u64 {
        self.own_reached
    }

    /// A member's row or heartbeat came.
    pub(crate) fn note_row(&mut self, from: Rank, reached_phase: u64) {
        if let Some(reached) = self.reached.get_mut(from.index()) {
            *reached = (*reached).max(reached_phase);
        }
    }

    /// Whether every stream of the view stands at its marker. Returns [`BarrierProgress::Reached`] once: when this
    /// process has just reached them all.
    pub(crate) fn look(&mut self, streams: &mut [Stream], view: &View) -> BarrierProgress {
        let present = streams.iter_mut().filter(|stream| view.bits() & bit(stream.rank) != 0);
        let mut phases = present.map(Stream::ending_phase);
        // An observer may have begun after some barriers, and in some streams before one more barrier: the earliest
        // comes first.
        let earliest = phases.try_fold(u64::MAX, |earliest, phase| phase.map(|phase| phase.min(earliest)));
        let Some(phase) = earliest.filter(|phase| *phase >= self.phase && *phase != u64::MAX) else {
            return BarrierProgress::Before;
        };
        if phase > self.phase {
            (self.phase, self.own_reached, self.placed) = (phase, phase, self.placed.max(phase));
            streams.iter_mut().for_each(|stream| stream.enter_phase(phase));
        }
        debug_assert!(self.own_reached <= self.phase + 1 && self.placed <= self.phase + 1, "{self:?}");
        if self.own_reached == phase {
            self.own_reached = phase + 1;
            return BarrierProgress::Reached;
        }
        BarrierProgress::Waits
    }

    /// Whether the phase may go up, now that this process has reached all markers. `own` is none at an observer.
    pub(crate) fn may_pass(&self, streams: &[Stream], view: &View, own: Option<Rank>, mutant: Option<Mutant>) -> bool {
        if mutant == Some(Mutant::MarkerIgnored) {
            return true;
        }
        let announced = |rank: Rank| Some(rank) == own || self.reached[rank.index()] > self.phase;
        let others = || streams.iter().filter(|stream| Some(stream.rank) != own);
        ranks(view.bits()).all(announced) || others().any(Stream::has_beyond_marker)
    }

    /// Whether a barrier is under way that this process has not reached: the other members must hear of it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_active() && self.own_reached == self.phase
    }

    /// The phase goes up; returns whether a barrier that the application requested is complete.
    pub(crate) fn pass(&mut self, streams: &mut [Stream]) -> bool {
        self.phase += 1;
        (self.own_reached, self.placed) = (self.own_reached.max(self.phase), self.placed.max(self.phase));
        debug_assert!(self.own_reached <= self.phase + 1 && self.placed <= self.phase + 1, "{self:?}");
        streams.iter_mut().for_each(|stream| stream.enter_phase(self.phase));
        let asked = core::mem::take(&mut self.carried);
        if asked {
            self.asked.pop_front();
        }
        asked
    }
}
