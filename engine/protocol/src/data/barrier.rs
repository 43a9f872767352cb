//! Barriers: what was sent before is delivered everywhere before anything that is sent after.
//!
//! Orders say in which sequence messages are delivered, not that everybody has got so far. A barrier does: each member
//! ends the phase of its own stream with a *marker* and publishes nothing more; who has delivered every stream up to its
//! marker says so in its row; when all members have, the phase goes up and everybody goes on. Nothing is dropped and no
//! view changes: it is a flush that waits.
//!
//! A marker stands in the stream like a message, so it is repaired and retained like one, and delivery stops at it by
//! itself: there the walk waits until the phase goes up. Observers have no say, and wait for the members like a member: one
//! that went on as soon as it had every marker would be ahead of a cut that leaves one out. Who hears data from beyond
//! another's marker knows that everybody has reached it; who missed a row hears the same with the next heartbeat. A marker may carry a message, delivered between the phases: ISIS's GBCAST, ordered against everything.
//!
//! An observer may lose a marker in a hole that no member can fill any more. The phase in the header of the datagram behind
//! the hole tells it so; the stream counts as ended there, and is read on once the barrier is complete.
//!
//! The sequencer of a total order sets its marker last: the order of what the others sent before stands in its stream.
//! Where it is the one that wants a barrier, it asks the others for their markers first, in its stream as well.
//!
//! If a view change comes in between and the cut has every marker, all complete the barrier at the cut; if not, nobody had
//! completed it, and the markers are set again in the next view. Who completed it may be gone: then every member had
//! reached it, one of any quorum among them, and the cut has what that one held.
//!
//! Invariant 16. Sources: Birman and Joseph, "Exploiting virtual synchrony" (1987); JGroups' FLUSH.

use super::stream::Stream;
use crate::mutant::Mutant;
use crate::view::{View, bit, ranks};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{DatagramNumber, Rank};

/// Barriers asked for and not complete: an application that asks faster than the group answers is refused.
const ASKED_MAX: usize = 64;

/// Where this process stands at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Some stream has not been delivered up to its marker.
    Before,
    /// It has just got there.
    Reached,
    /// It is there, and waits for the others.
    Waits,
}

/// Where the group stands between its barriers.
#[derive(Debug)]
pub(crate) struct Barrier {
    /// How many are complete.
    pub(crate) phase: u64,
    /// Markers of all phases below this have been heard.
    heard: u64,
    /// By stream: the last marker that came, and in which datagram.
    markers: Vec<Option<(u64, DatagramNumber)>>,
    /// By member: every barrier below was reached, by its rows.
    reached: Vec<u64>,
    /// By this process.
    own_reached: u64,
    /// Up to where this process has set its markers.
    placed: u64,
    /// Up to where it has asked the others for theirs, as the sequencer.
    asked_others: u64,
    /// What the application asked for: the payload of each, if it has one.
    asked: VecDeque<Option<Vec<u8>>>,
    /// Whether the first of them stands in the marker that was set.
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

    /// The application wants one; false if too many wait.
    pub(crate) fn ask(&mut self, payload: Option<&[u8]>) -> bool {
        let room = self.asked.len() < ASKED_MAX;
        if room {
            self.asked.push_back(payload.map(Vec::from));
        }
        room
    }

    /// What was asked for and is not complete, for the next view.
    pub(crate) fn take_asked(&mut self) -> VecDeque<Option<Vec<u8>>> {
        core::mem::take(&mut self.asked)
    }

    /// Goes on asking in the next view.
    pub(crate) fn ask_again(&mut self, asked: VecDeque<Option<Vec<u8>>>) {
        self.asked = asked;
    }

    /// Whether a marker has been set and the phase has not gone up: nothing may be published.
    #[inline]
    pub(crate) fn is_placed(&self) -> bool {
        self.placed > self.phase
    }

    /// Whether a member can have sent a marker of this phase: nobody gets further ahead than this process, who has a say,
    /// has reached.
    pub(crate) fn is_plausible(&self, phase: u64) -> bool {
        phase <= self.phase + 1
    }

    /// Whether anything is to be done about barriers at all.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.heard > self.phase || !self.asked.is_empty() || self.placed > self.phase
    }

    /// A marker came in this datagram of a stream, or in none where it only asks for ours.
    pub(crate) fn note_marker(&mut self, stream: Rank, phase: u64, number: Option<DatagramNumber>) {
        self.heard = self.heard.max(phase.saturating_add(1));
        if let (Some(marker), Some(number)) = (self.markers.get_mut(stream.index()), number) {
            *marker = Some((phase, number));
        }
    }

    /// Whether the others have to be asked for their markers: only the sequencer's application wants this barrier.
    pub(crate) fn must_ask(&self) -> bool {
        self.heard <= self.phase && self.asked_others <= self.phase
    }

    /// They were asked.
    pub(crate) fn has_asked(&mut self) {
        self.asked_others = self.phase + 1;
    }

    /// Whether the others' streams are complete up to their markers: in total order, what they sent before has to be put
    /// in order ahead of the sequencer's own marker.
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
        self.placed = self.phase + 1;
        self.carried = !self.asked.is_empty();
    }

    /// What this process says in its row.
    pub(crate) fn own_reached(&self) -> u64 {
        self.own_reached
    }

    /// A member's row or heartbeat came.
    pub(crate) fn note_row(&mut self, from: Rank, reached_phase: u64) {
        if let Some(reached) = self.reached.get_mut(from.index()) {
            *reached = (*reached).max(reached_phase);
        }
    }

    /// Whether every stream of the view stands at its marker. Says once that this process has just got there.
    pub(crate) fn look(&mut self, streams: &mut [Stream], view: &View) -> Standing {
        let present = streams.iter_mut().filter(|stream| view.bits() & bit(stream.rank) != 0);
        let mut phases = present.map(Stream::ending_phase);
        // An observer may have begun after some barriers, and in some streams before one more: the earliest comes first.
        let earliest = phases.try_fold(u64::MAX, |earliest, phase| phase.map(|phase| phase.min(earliest)));
        let Some(phase) = earliest.filter(|phase| *phase >= self.phase && *phase != u64::MAX) else {
            return Standing::Before;
        };
        if phase > self.phase {
            (self.phase, self.own_reached, self.placed) = (phase, phase, self.placed.max(phase));
            streams.iter_mut().for_each(|stream| stream.enter_phase(phase));
        }
        if self.own_reached == phase {
            self.own_reached = phase + 1;
            return Standing::Reached;
        }
        Standing::Waits
    }

    /// Whether the phase may go up, now that this process has got there. `own` is none at an observer.
    pub(crate) fn may_pass(&self, streams: &[Stream], view: &View, own: Option<Rank>, mutant: Option<Mutant>) -> bool {
        if mutant == Some(Mutant::MarkerIgnored) {
            return true;
        }
        let said = |rank: Rank| Some(rank) == own || self.reached[rank.index()] > self.phase;
        let others = || streams.iter().filter(|stream| Some(stream.rank) != own);
        ranks(view.bits()).all(said) || others().any(Stream::has_beyond_marker)
    }

    /// Whether a barrier is under way that this process has not got to: the others must hear of it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_active() && self.own_reached == self.phase
    }

    /// The phase goes up; whether one that the application asked for is complete.
    pub(crate) fn pass(&mut self, streams: &mut [Stream]) -> bool {
        self.phase += 1;
        (self.own_reached, self.placed) = (self.own_reached.max(self.phase), self.placed.max(self.phase));
        streams.iter_mut().for_each(|stream| stream.enter_phase(self.phase));
        let asked = core::mem::take(&mut self.carried);
        if asked {
            self.asked.pop_front();
        }
        asked
    }
}
