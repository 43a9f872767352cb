//! What the application asks of a process: to publish, to place a barrier, to leave, to hand the order over.
//!
//! Each call is taken or refused at once, and a refusal leaves nothing behind. What this process published
//! and the cut left out, it publishes again before any new message.

use super::{Process, Standing};
use crate::config::Role;
use crate::control::agreement::ToAgreement;
use crate::control::detector::Judgement;
use crate::counters::Counter;
use crate::data::barrier::ASKED_MAX;
use crate::data::flow::HeldBy;
use crate::data::pack::{Claim, Outgoing};
use crate::ranks::Ranks;
use crate::refusal::Refusal;
use bourdon_wire::records::{self};
use bourdon_wire::{Epoch, Incarnation, Instant, Rank, Sequence, TopicId};

/// How long the last member waits for a joiner: the time of several snapshots and rejoin delays. A leaver also answers
/// for so long the processes that may not know of its leave.
pub(super) const LEAVE_WAIT_NS: u64 = 5_000_000_000;

/// What the application wants of the group.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) leave: Option<Leave>,
}

/// The application wants to leave.
#[derive(Debug)]
pub(super) struct Leave {
    /// Until when this process waits for a joiner, if no other member would be left.
    by: Instant,
    /// When the last member leaves.
    pub(super) closes_at: Option<Instant>,
}

impl Wishes {
    /// Until when a leaver waits for a joiner, if no other member would be left.
    pub(super) fn leave_by(&self) -> Instant {
        self.leave.as_ref().map_or(Instant::NEVER, |leave| leave.by)
    }
}

impl Process {
    /// Publishes a message.
    ///
    /// # Errors
    /// The reason why the message can't be accepted now; nothing of it was sent.
    #[inline]
    pub fn try_publish(&mut self, now: Instant, outgoing: &Outgoing, payload: &[u8]) -> Result<Sequence, Refusal> {
        if outgoing.is_plain()
            && let Some(sequence) = self.append(outgoing.topic, payload)
        {
            return Ok(sequence);
        }
        self.admit(now, outgoing, payload.len(), false)?;
        let wall_ns = self.cx.wall(now);
        self.data.publish(wall_ns, outgoing, payload, &mut self.cx.counters).ok_or(Refusal::Role)
    }

    /// Publishes a plain message if it goes into the datagram that is open, or begins one: the common cases. `None`
    /// leaves no trace; [`Process::try_publish`] takes the message then, or gives the reason why not.
    #[inline(always)] // a call costs a message in a full datagram a tenth of its instructions
    pub fn append(&mut self, topic: TopicId, payload: &[u8]) -> Option<Sequence> {
        if !self.unsettled.is_empty() || !self.state.has_majority() {
            return None;
        }
        let sequence = self.data.append(topic, payload)?;
        self.cx.count(Counter::Published);
        Some(sequence)
    }

    /// Claims space for a message in the log itself, so that the caller writes it in place: for messages that fit one
    /// datagram.
    ///
    /// # Errors
    /// As [`Process::try_publish`]; `TooLarge` if it does not fit one datagram.
    #[inline]
    pub fn try_claim(&mut self, now: Instant, outgoing: &Outgoing, length: usize) -> Result<Claim<'_>, Refusal> {
        self.admit(now, outgoing, length, true)?;
        let wall_ns = self.cx.wall(now);
        self.data.claim(wall_ns, outgoing, length, &mut self.cx.counters).ok_or(Refusal::Role)
    }

    #[inline]
    pub(super) fn admit(
        &mut self,
        now: Instant,
        outgoing: &Outgoing,
        length: usize,
        whole: bool,
    ) -> Result<(), Refusal> {
        if self.standing() == Standing::Member
            && self.unsettled.is_empty()
            && !self.state.lacks_majority()
            && self.announces_time()
        {
            return self.data.admit(outgoing, length, whole).map_err(|refusal| self.refused(now, refusal));
        }
        let refusal = match self.standing() {
            _ if matches!(self.cx.config.role, Role::Observer) => Refusal::Role,
            Standing::Member if self.announces_time() => self.unavailable().unwrap_or(Refusal::ViewChange),
            Standing::Member if !self.state.lacks_majority() => self.forming(),
            _ => self.unavailable().unwrap_or(Refusal::Outside),
        };
        self.cx.count(Counter::RefusedOther);
        Err(refusal)
    }

    /// Why this process can't publish for as long as an outage lasts, if there is one: it is in no view, or reaches no
    /// majority of it.
    #[inline]
    pub fn unavailable(&self) -> Option<Refusal> {
        if self.state.has_majority() { None } else { Some(self.outage()) }
    }

    #[cold]
    fn outage(&self) -> Refusal {
        match self.standing() {
            _ if matches!(self.cx.config.role, Role::Observer) => Refusal::Role,
            Standing::Forming => self.forming(),
            Standing::Member => {
                Refusal::NoMajority { missing: Ranks(self.data.view.bits() & self.detector.suspects()) }
            }
            Standing::Gone => Refusal::Closed,
            Standing::Outside | Standing::Following => Refusal::Outside,
        }
    }

    fn forming(&self) -> Refusal {
        Refusal::Forming { missing: self.missing().collect() }
    }

    #[cold]
    pub(super) fn refused(&mut self, now: Instant, refusal: Refusal) -> Refusal {
        if matches!(refusal, Refusal::Window { .. }) {
            if self.is_paced() {
                return Refusal::Paced;
            }
            self.cx.count(Counter::RefusedWindow);
            self.heartbeat.hasten(now, &self.cx.config.timing);
            // While a member's window is not known, the group is not ready for messages.
            if !self.cx.presence.missing(&self.data.view).is_empty() && self.data.view.epoch == Epoch(1) {
                return self.forming();
            }
            let slowest = match self.window() {
                Some((.., Some(HeldBy::Member(rank)))) => Some(rank),
                _ => None,
            };
            return Refusal::Window { slowest };
        }
        self.cx.count(Counter::RefusedOther);
        refusal
    }

    /// Requests a barrier: once [`Event::Synced`] arrives, everything that any member sent before has been delivered
    /// everywhere. A `payload` of at most one datagram is delivered at every process between the messages before the
    /// barrier and those after it.
    ///
    /// # Errors
    /// If this process is not a member, too many barriers wait, or the payload is too long.
    pub fn sync(&mut self, now: Instant, payload: Option<&[u8]>) -> Result<(), Refusal> {
        if self.standing() != Standing::Member {
            return Err(self.outage());
        }
        let limit_bytes =
            self.cx.config.limits.frame_bytes() - bourdon_wire::FRAME_HEADER_BYTES - records::Marker::BYTES;
        if payload.is_some_and(|payload| payload.len() > limit_bytes) {
            return Err(Refusal::TooLarge { limit_bytes });
        }
        if !self.data.barrier.ask(payload) {
            return Err(Refusal::TooMany { limit: ASKED_MAX });
        }
        self.heartbeat.hasten(now, &self.cx.config.timing);
        Ok(())
    }

    /// Leaves the group: the next view is without this process. [`Event::Left`] reports when it begins. A process that
    /// is no member goes without a view, at once or once no view can admit it any more, and reports it as well.
    pub fn leave(&mut self, now: Instant) {
        if self.standing() == Standing::Gone {
            return;
        }
        self.wishes.leave.get_or_insert(Leave { by: now + LEAVE_WAIT_NS, closes_at: None });
        self.heartbeat.due = now;
        self.look_due = now;
        let may_be_admitted = self.may_be_in_the_first_view() || self.may_be_in_the_next_view();
        if self.standing() != Standing::Member && !may_be_admitted {
            self.go();
        }
    }

    /// Makes another member the sequencer, for instance the member that publishes most: a view change with the same
    /// members. Only the oldest member acts on it; call it there or everywhere.
    pub fn hand_over(&mut self, now: Instant, to: Rank) {
        self.report_to_agreement(now, ToAgreement::HandOver(to));
        self.look_due = now;
    }

    /// Hard evidence from outside: this incarnation of a process has ended, its connections were reset.
    pub fn on_evidence(&mut self, now: Instant, rank: Rank, incarnation: Incarnation) {
        if self.standing() == Standing::Member && self.data.view.incarnation(rank) == Some(incarnation) {
            self.detector.evidence(rank, now);
            self.look_due = now;
        }
    }

    /// The detectors of the group that this is a channel of report what they suspect, by the ranks of this channel.
    pub fn judge(&mut self, now: Instant, judgement: Judgement) {
        self.detector.judge(now, judgement);
    }

    /// Orders what has been received, so that the sequencer can deliver it before it sends the order. An application
    /// that replies to a delivery then waits for one send less. Optional: [`Process::transmit`] orders as well.
    #[inline]
    pub fn order(&mut self, now: Instant) {
        if self.data.has_order_to_give() {
            let wall_ns = self.cx.wall(now);
            self.data.refresh_flow();
            self.data.sequence(wall_ns, &mut self.cx.counters);
            self.data.close_early(wall_ns);
        }
    }

    /// Publishes what an earlier view did not deliver again, before anything new.
    pub(super) fn resubmit(&mut self, now: Instant) {
        if !self.data.end.is_open() || self.standing() != Standing::Member {
            return;
        }
        let wall_ns = self.cx.wall(now);
        while let Some(front) = self.unsettled.front() {
            if self.data.admit(&front.outgoing, front.payload.len(), false).is_err() {
                self.heartbeat.hasten(now, &self.cx.config.timing);
                return;
            }
            let Some(sequence) = self.data.publish(wall_ns, &front.outgoing, &front.payload, &mut self.cx.counters)
            else {
                return;
            };
            self.cx.count(Counter::Resubmitted);
            if let (Some(tag), Some(outbound)) = (front.outgoing.client, &self.data.outbound) {
                self.clients.published(tag.client(), tag.sequence(), outbound.packer.open);
            }
            debug_assert!(sequence >= self.data.beginning.first[self.data.own().map_or(0, Rank::index)]);
            self.unsettled.pop_front();
        }
    }
}
