//! What is known of the messages that this process has published: which of them are safe without this process.
//!
//! The application must learn two things: whether a message is acknowledged, and whether the process may end without
//! losing one. Both are questions about a prefix of the own stream, so each is one number, and nothing is kept for a
//! message.
//!
//! It is not enough that every member holds a message. In causal and total order the messages that were delivered
//! before it come first: if a view change loses one of those, the message can't be delivered. And in total order it
//! needs its place, which the sequencer alone knows at first. So there a message counts once it was delivered here, and
//! once every member holds all that had been delivered by then. One such mark is under way at a time: the next one is
//! made when every member holds what the last one names.
//!
//! Invariant: what is acknowledged from the level `reliable` on is delivered by every member that goes on, in this
//! instance of the group.

use super::{Process, Standing};
use crate::config::{Order, Reliability};
use crate::data::epoch_state::EpochState;
use crate::data::stability::Enough;
use crate::mutant::Mutant;
use alloc::vec::Vec;
use bourdon_wire::{DatagramNumber, Epoch, Incarnation, InstanceId, Rank, Sequence};
use core::ops::Range;

/// How far the own messages are safe, where what was delivered before them matters.
#[derive(Debug, Default)]
pub(super) struct OwnMark {
    /// The view that the rest is about.
    view: (InstanceId, Epoch),
    /// All own messages below this are safe.
    safe: Sequence,
    /// All own messages below this have been delivered, and will be safe.
    delivered: Sequence,
    /// By rank: every datagram that holds a message delivered by then is below this.
    marks: Vec<DatagramNumber>,
}

/// What this process had not seen acknowledged when it last ceased to be a member, and its incarnation until then.
pub(super) type Behind = Option<(Incarnation, Range<Sequence>)>;

impl Process {
    /// Every message of this process below this is acknowledged: at the levels `unreliable` and `best-effort` it was
    /// given to the network; at `reliable` every member of the view holds it and, in causal and total order, all that
    /// was delivered here up to it; from `uniform` on it was delivered here. `None` while this process is no
    /// member: its messages are in doubt.
    pub fn own_acknowledged(&mut self) -> Option<Sequence> {
        let own = self.data.own()?;
        let first = self.data.beginning.first_of(own);
        let held = match self.cx.config.reliability {
            _ if self.cx.config.mutant == Some(Mutant::OwnAcknowledgedWhenSent) => self.own_sent(),
            Reliability::Unreliable | Reliability::BestEffort => self.own_sent(),
            Reliability::Reliable if matches!(self.cx.config.order, Order::Causal | Order::Total) => {
                return Some(self.advance_own_mark(own).max(first));
            }
            Reliability::Reliable => self.held_by_all(own).min(self.own_sent()),
            Reliability::Uniform | Reliability::Stable | Reliability::Durable => {
                return Some(self.data.streams[own.index()].delivered);
            }
        };
        let last = held.0.checked_sub(1).map(DatagramNumber);
        let after = last.and_then(|last| self.data.streams[own.index()].sequence_after(last));
        Some(after.map_or(first, |after| after.max(first)))
    }

    /// The sequence of the next message that the application publishes: those that an earlier view did not deliver, and
    /// that this process publishes again, come before it.
    pub fn own_next(&self) -> Sequence {
        let next = self.data.outbound.as_ref().map(|outbound| outbound.packer.next_sequence);
        next.unwrap_or_default() + self.unsettled.len() as u64
    }

    /// The messages that were not acknowledged when this process last ceased to be a member, and the incarnation that
    /// published them. [`Event::Settled`](crate::Event::Settled) takes off those that were delivered. `None` if it has
    /// never ceased to be one.
    pub fn own_left_behind(&self) -> Option<(Incarnation, Range<Sequence>)> {
        self.own_behind.clone()
    }

    /// Remembers which own messages are not acknowledged, now that this process ceases to be a member.
    pub(super) fn leave_own_behind(&mut self) {
        let Some(acknowledged) = self.own_acknowledged() else { return };
        let next = self.own_next();
        self.own_behind = Some((self.cx.config.incarnation, acknowledged.min(next)..next));
    }

    /// The members go on without this process, and deliver all that the decision names.
    pub(super) fn settle_decided(&mut self) {
        let is_decided = matches!(self.data.end, EpochState::Decided(_)) && !self.data.is_lossy();
        if let Some(own) = self.data.own().filter(|_| is_decided) {
            self.settle_own(self.cx.config.incarnation, self.data.next_beginning().first_of(own));
        }
    }

    /// All messages of that incarnation below this were delivered.
    pub(super) fn settle_own(&mut self, incarnation: Incarnation, delivered: Sequence) {
        if let Some((_, behind)) = self.own_behind.as_mut().filter(|(of, _)| *of == incarnation) {
            behind.start = behind.start.max(delivered).min(behind.end);
        }
    }

    /// Whether this process has something to do for its messages before it may end: to send one, or to wait until it is
    /// acknowledged and every member of the view holds it.
    pub fn owes_own(&mut self) -> bool {
        let Some(outbound) = &self.data.outbound else { return false };
        let (own, open, next) = (outbound.rank, outbound.packer.open, outbound.packer.next_sequence);
        self.standing() == Standing::Member
            && (!self.unsettled.is_empty()
                || self.data.outbound.as_ref().is_some_and(|outbound| outbound.packer.is_open())
                || self.held_by_all(own).min(self.own_sent()) < open
                || self.own_acknowledged() < Some(next))
    }

    /// Whether the members could go on without this process: those that are left are as many as `quorum` asks for, or
    /// this process is the last one. A process that is no member may always leave.
    pub fn may_leave(&self) -> bool {
        let members = self.data.view.members.len();
        self.standing() != Standing::Member || members == 1 || members > self.cx.config.members_min()
    }

    /// Every own datagram below this has been sent.
    fn own_sent(&self) -> DatagramNumber {
        self.data.outbound.as_ref().map_or(DatagramNumber(0), |outbound| outbound.packer.sent)
    }

    /// Every member of the view has received every datagram of a stream below this.
    fn held_by_all(&self, stream: Rank) -> DatagramNumber {
        let here = self.data.streams[stream.index()].held();
        self.data.stability.held_by_enough(stream, here, &self.data.view, Enough::AllBut(0))
    }

    /// Looks how far the own messages are safe, and makes the next mark where the last one is.
    fn advance_own_mark(&mut self, own: Rank) -> Sequence {
        let view = (self.data.view.instance, self.data.view.epoch);
        let delivered = self.data.streams[own.index()].delivered;
        if self.own_mark.view != view {
            self.own_mark.view = view; // datagrams are numbered from 0 again
            (self.own_mark.safe, self.own_mark.delivered) = (self.data.beginning.first_of(own), Sequence(0));
        }
        for _ in 0..2 {
            if self.own_mark.delivered <= self.own_mark.safe {
                if delivered <= self.own_mark.safe {
                    break;
                }
                self.own_mark.delivered = delivered;
                self.own_mark.marks.clear();
                self.own_mark.marks.extend(self.data.streams.iter().map(|stream| stream.cursor.mark()));
            }
            let marks = self.own_mark.marks.iter().enumerate();
            if { marks }.any(|(rank, mark)| self.held_by_all(Rank(rank as u16)) < *mark) {
                break;
            }
            self.own_mark.safe = self.own_mark.delivered;
        }
        self.own_mark.safe
    }
}
