//! Retains the epochs that have ended: their datagrams, and the chain of decisions that leads from each to the next.
//!
//! A process that follows the group may be several views behind: it was descheduled while two members crashed. If
//! members retained a fixed number of epochs, it would lose market data exactly when the market moves. So earlier
//! epochs are retained as datagrams within an epoch are: by bytes, and for a time. A log that is mostly empty moves
//! into a smaller one when its epoch ends, so that a short epoch costs what it holds and its large logs serve the next
//! epoch at once. There is no smallest log: where views change quickly, epochs that hold hardly anything would
//! otherwise evict an earlier epoch that an observer still fetches.
//!
//! Decisions are small and are retained longer than datagrams: for each, the view that it ended, the view that it
//! began, and where that view began. A process that learned a decision, and neither took part in it nor is named by it,
//! forwards the `DECIDE` datagram that it received, byte for byte: an observer may be the last process that knows it.
//!
//! Invariants: the epoch before the current one is always retained; all others together with it fit into
//! [`Retention::bytes_max`].

use super::context::Context;
use super::{Process, Standing};
use crate::config::{Config, Limits, Role};
use crate::control::view_change::Value;
use crate::counters::Counter;
use crate::data::log::Log;
use crate::data::pipeline::Pipeline;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::{Beginning, Member, View};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{BallotStep, ViewAsk, ballot_steps};
use bourdon_wire::{Address, Datagram, Epoch, Frame, Incarnation, InstanceId, Instant, Rank};

/// The number of decisions retained, at some kilobytes each: a process that comes back without a snapshot misses fewer
/// views. The datagrams of at most as many epochs are retained: without the decision no follower asks for them.
const DECISIONS_MAX: usize = 64;
/// Datagrams of an epoch are retained for so long after its end: a follower that has not asked for them by then has
/// been stopped for longer than any pause that a host survives unnoticed.
const RETAIN_NS: u64 = 60_000_000_000;
/// A process that took no part in decisions forwards them at most this often: a wedged member repeats its heartbeat,
/// and its peers answer first.
const FORWARD_NS: u64 = 20_000_000;

/// The datagrams of an epoch that has ended.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) data: Pipeline,
    ended_at: Instant,
}

/// How an epoch ended.
#[derive(Debug)]
struct Decision {
    /// The view that ended.
    view: View,
    value: Value,
    /// The view that began, and where it began, if this process entered it.
    next: Option<(View, Beginning)>,
    /// The incarnation in which this process was a member of the view that ended or of the one that began.
    took_part: Option<Incarnation>,
    /// The `DECIDE` datagram, if it was received.
    datagram: Vec<u8>,
}

/// What is retained.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// The oldest first.
    epochs: VecDeque<Past>,
    decisions: VecDeque<Decision>,
    /// The `DECIDE` datagram of the current epoch.
    received: Option<(Epoch, Vec<u8>)>,
    forwarded_at: Instant,
    /// Logs of earlier views, to be reused.
    pub(super) spare: Vec<Log>,
}

impl Retention {
    /// The logs of one epoch: as much as the current epoch may hold.
    pub(super) fn bytes_max(config: &Config) -> usize {
        let others = usize::from(config.members.saturating_sub(1));
        let limits = &config.limits;
        let with_slots = |bytes: usize| bytes + Log::slot_bytes(limits.slots(bytes));
        with_slots(limits.log_bytes) + others * with_slots(limits.receive_log_bytes)
    }

    /// The datagrams of an epoch, if they are retained.
    pub(super) fn data_of(&mut self, epoch: Epoch) -> Option<&mut Pipeline> {
        self.epochs.iter_mut().map(|past| &mut past.data).find(|data| data.view.epoch == epoch)
    }

    fn decision(&self, epoch: Epoch) -> Option<&Decision> {
        self.decisions.iter().rev().find(|decision| decision.view.epoch == epoch)
    }

    /// How an epoch ended, if that is retained.
    pub(super) fn value_of(&self, epoch: Epoch) -> Option<&Value> {
        self.decision(epoch).map(|decision| &decision.value)
    }

    /// Whether a process is a member of an epoch whose end is retained.
    pub(super) fn is_of(&self, epoch: Epoch, member: Member) -> bool {
        self.decision(epoch).is_some_and(|decision| decision.view.contains(member))
    }

    /// Whether what is retained is of this instance.
    pub(super) fn is_of_instance(&self, instance: InstanceId) -> bool {
        self.decisions.iter().any(|decision| decision.value.instance == instance)
    }

    /// The members of the views whose end is retained.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.decisions.iter().flat_map(|decision| &decision.view.members)
    }

    /// The bytes of all epochs retained.
    pub(super) fn bytes(&self) -> usize {
        self.epochs.iter().map(|past| past.data.retained_bytes()).sum()
    }

    /// The members of the view of this epoch, if the decision taken last led to it.
    pub(super) fn members_decided(&self, epoch: Epoch) -> Option<&[Member]> {
        let last = self.decisions.back().filter(|last| last.view.epoch.next() == epoch)?;
        Some(&last.value.members)
    }

    /// How many epochs' datagrams and how many decisions are retained.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.epochs.len(), self.decisions.len())
    }

    /// The view that the last decision names has begun.
    pub(super) fn note_next(&mut self, view: &View, beginning: &Beginning) {
        if let Some(last) = self.decisions.back_mut().filter(|last| last.view.epoch.next() == view.epoch) {
            last.next = Some((view.clone(), beginning.clone()));
        }
    }

    fn push(&mut self, decision: Decision) {
        if self.decisions.len() == DECISIONS_MAX {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
    }

    /// An epoch has ended: retains its datagrams and its decision.
    fn retire(&mut self, now: Instant, mut data: Pipeline, value: Option<Value>, cx: &Context) {
        let epoch = data.view.epoch;
        let received = self.received.take();
        let value = value.filter(|_| cx.config.mutant != Some(Mutant::CutNotRetained));
        match value {
            Some(value) => {
                let datagram = received.filter(|(of, _)| *of == epoch).map(|(_, datagram)| datagram);
                let named = cx.own_member().filter(|own| data.view.contains(*own) || value.members.contains(own));
                self.push(Decision {
                    view: data.view.clone(),
                    value,
                    next: None,
                    took_part: named.map(|own| own.incarnation),
                    datagram: datagram.unwrap_or_default(),
                });
                // Observers answer no requests for repair.
                if matches!(cx.config.role, Role::Member(_)) && !data.view.members.is_empty() {
                    data.refit(&mut self.spare);
                    self.epochs.push_back(Past { data, ended_at: now });
                } else {
                    data.into_logs(&mut self.spare);
                }
            }
            None => data.into_logs(&mut self.spare),
        }
        self.tend(now, &cx.config);
    }

    /// Evicts what has been retained for long enough, and of the unused logs all but those that another view can use:
    /// the logs of one epoch.
    pub(super) fn tend(&mut self, now: Instant, config: &Config) {
        self.evict(now, Self::bytes_max(config));
        let limits = &config.limits;
        let regular = |bytes: usize| limits.slots(bytes) as u64;
        let sizes = [regular(limits.log_bytes), regular(limits.receive_log_bytes)];
        self.spare.retain(|log| log.capacity() > Limits::SLOTS_MIN as u64 && sizes.contains(&log.capacity()));
        self.spare.truncate(2 * usize::from(config.members));
    }

    /// Forgets the epochs and decisions of another instance.
    pub(super) fn forget(&mut self) {
        *self = Self { spare: core::mem::take(&mut self.spare), ..Self::default() };
    }

    /// Evicts the oldest epochs beyond the bounds, never the newest.
    fn evict(&mut self, now: Instant, bytes_max: usize) {
        let mut bytes = self.bytes();
        debug_assert!(self.decisions.len() <= DECISIONS_MAX);
        while self.epochs.len() > 1 {
            let is_old = self.epochs.front().is_some_and(|past| now.since(past.ended_at) > RETAIN_NS);
            if bytes <= bytes_max && !is_old && self.epochs.len() <= DECISIONS_MAX {
                return;
            }
            let Some(past) = self.epochs.pop_front() else { return };
            bytes -= past.data.retained_bytes();
            past.data.into_logs(&mut self.spare);
        }
    }
}

impl Process {
    /// The current epoch ends: its datagrams and its decision are retained, because other processes may need them.
    pub(super) fn retire(&mut self, now: Instant, value: Option<Value>) {
        let epoch = self.data.view.epoch;
        let data = core::mem::replace(&mut self.data, Pipeline::idle(self.cx.config.clone(), epoch));
        self.past.retire(now, data, value, &self.cx);
    }

    // ---- decisions: receiving and forwarding ----------------------------------------------------------------------

    /// Receives a ballot's step, and keeps the datagram that carried the decision of this epoch.
    pub(super) fn on_ballot_datagram(&mut self, now: Instant, datagram: &Datagram<'_>, frame: &Frame<'_>) {
        let epoch = datagram.header.epoch();
        let knew = self.knows_decision(epoch);
        self.on_ballot(now, datagram.header, frame.body);
        let decides = BallotStep::read_all(frame.body).is_some_and(|(step, _)| step.step == ballot_steps::DECIDE);
        if decides && !knew && self.knows_decision(epoch) {
            self.past.received = Some((epoch, datagram.bytes.to_vec()));
        }
    }

    fn knows_decision(&self, epoch: Epoch) -> bool {
        let followed = epoch == self.data.view.epoch && self.state.followed_decision().is_some();
        followed || self.decision_of(epoch).is_some()
    }

    pub(super) fn on_view_ask(&mut self, now: Instant, epoch: Epoch, body: &[u8]) {
        let Some((ask, _)) = ViewAsk::read(body) else { return };
        let (to, nonce) = (ask.reply_to, ask.nonce.get());
        if self.standing() == Standing::Forming && to.is_reachable() && to != self.cx.config.address {
            self.has_cookie(now, epoch, to, ask.cookie.get()); // it proves that it receives, and has no view to give
        }
        let may_answer = self.standing() == Standing::Member && to.is_reachable() && to != self.cx.config.address;
        if !may_answer || !self.is_proven_by(now, epoch, to, ask.cookie.get()) {
            return;
        }
        let forms = epoch == Epoch(0) && self.data.view.epoch != Epoch(1); // it needs only the current view
        if !forms && self.decision_of(epoch).is_some() {
            self.send_decision(now, epoch, to);
        }
        self.send_next_view(now, epoch, to, nonce);
        // A member that can no longer get the cut learns from the newest view that it has been removed since.
        self.reply_view(now, Destination::Peer(to), nonce);
    }

    /// Sends the view that followed an epoch, as one of its members, if that is retained.
    fn send_next_view(&mut self, now: Instant, epoch: Epoch, to: Address, nonce: u64) {
        // A process that asks from epoch 0 is in no view: it needs the current one.
        let Some(decision) = self.past.decision(epoch).filter(|_| epoch != Epoch(0)) else { return };
        let Some((view, beginning)) = decision.next.clone().filter(|(view, _)| view.epoch != self.data.view.epoch)
        else {
            return;
        };
        let Some(incarnation) = decision.took_part else { return };
        if !self.cx.config.rank().is_some_and(|rank| view.contains(Member { rank, incarnation })) {
            return;
        }
        let header = self.cx.header_of(incarnation, view.instance, view.epoch);
        self.send_view(now, header, (&view, &beginning, 0), Destination::Peer(to), nonce);
    }

    /// Sends a process in this epoch the decision that ended it, if that is known, or the current view.
    pub(super) fn send_decision(&mut self, now: Instant, epoch: Epoch, to: Address) {
        let decision = self.past.decision(epoch);
        let Some(value) = self.decision_of(epoch).cloned() else {
            if epoch != self.data.view.epoch {
                self.reply_view(now, Destination::Peer(to), 0);
            }
            return;
        };
        match decision.map(|decision| (decision.took_part, decision.datagram.is_empty())) {
            None => self.announce_decision(now, self.cx.header(value.instance, epoch), to, value),
            // Sent in the incarnation that took part.
            Some((Some(incarnation), _)) => {
                let header = self.cx.header_of(incarnation, value.instance, epoch);
                self.announce_decision(now, header, to, value);
            }
            Some((None, false)) => self.forward_decision(now, epoch, to),
            Some((None, true)) => {}
        }
    }

    /// Forwards the `DECIDE` datagram of an epoch, as it was received, to a member that does not have it.
    pub(super) fn forward_decision(&mut self, now: Instant, epoch: Epoch, to: Address) {
        if now.since(self.past.forwarded_at) < FORWARD_NS {
            return;
        }
        let past = &mut self.past;
        let current = past.received.as_ref().filter(|(of, _)| *of == epoch).map(|(_, datagram)| datagram);
        let mut earlier = past.decisions.iter().filter(|decision| decision.view.epoch == epoch);
        let datagram = current.or_else(|| earlier.next().map(|decision| &decision.datagram));
        let Some(datagram) = datagram.filter(|datagram| !datagram.is_empty()).cloned() else { return };
        if self.may_answer_unasked(to, datagram.len()) {
            self.past.forwarded_at = now;
            self.cx.outbox.forward(Destination::Peer(to), &datagram, Counter::ControlSent, &mut self.cx.counters);
        }
    }
}

/// Each rank has a bit in the set of members heard.
const _: () = assert!(Rank::MAX.0 < 64);
