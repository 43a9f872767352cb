//! The end of an epoch and the beginning of the next.
//!
//! `delivery.rs` calls `pass_barrier` to complete a barrier. Once it has delivered all of a decided epoch, the next
//! step of time (`change.rs`) enters the view that comes next. That view begins with empty streams, for members and
//! followers alike.

use super::application::LEAVE_WAIT_NS;
use super::instances::Doubt;
use super::standing::{Gone, State};
use super::{Process, Standing};
use crate::config::Role;
use crate::control::agreement::ToAgreement;
use crate::control::view_change::Value;
use crate::counters::Counter;
use crate::data::barrier::BarrierProgress;
use crate::data::epoch_state::EpochState;
use crate::data::loss::numbers_of;
use crate::data::pacing::Pacer;
use crate::data::pipeline::Pipeline;
use crate::event::{Event, Message};
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::ranks::Ranks;
use crate::view::{Beginning, Member, View, bit};
use alloc::boxed::Box;
use bourdon_wire::records::heartbeat_flags;
use bourdon_wire::{Epoch, InstanceId, Instant, OrderNumber, Rank, Sequence};

/// How soon a process looks again whether it can leave a decided epoch, if nothing comes that changes it: a part of the
/// time after which a follower gives a cut up, or computes the next view.
const LOOK_AGAIN_NS: u64 = 1_000_000;

/// How this process entered its latest view.
#[derive(Debug)]
pub(super) struct Entry {
    /// The view that it entered last.
    view: View,
    /// All of the decided epoch that can be delivered has been delivered: the next step of time ends it.
    pub(super) is_awaited: bool,
    /// The outbox holds the decision that begins this view, and this process proposed it.
    pub(super) is_unannounced: bool,
}

impl Entry {
    pub(super) fn new(sequencer: Rank) -> Self {
        Self { view: View::none(Epoch(0), sequencer), is_awaited: false, is_unannounced: false }
    }

    /// The instance of the view that this process entered last.
    pub(super) fn instance(&self) -> InstanceId {
        self.view.instance
    }
}

impl Process {
    /// Completes a barrier if that is due; returns how many messages it delivered. `is_all`: nothing else can be
    /// delivered.
    pub(super) fn pass_barrier(&mut self, now: Instant, is_all: bool, emit: &mut impl FnMut(&Message<'_>)) -> usize {
        let data = &mut self.data;
        if matches!(data.end, EpochState::Wedged | EpochState::Fetching(..)) {
            return 0; // our state reports what was promised; the cut decides whether the barrier is complete
        }
        let agreed = data.agreed_barrier();
        let standing = data.barrier.look(&mut data.streams, &data.view);
        if data.is_lossy() {
            // Messages that are lost by the markers' headers are reported before the barrier, or the view's end.
            self.cross_holes();
            if self.stops_for_event() {
                return 1;
            }
        }
        let data = &mut self.data;
        if agreed == Some(false) || standing == BarrierProgress::Before && !(agreed.is_some() && is_all) {
            return 0;
        }
        if standing == BarrierProgress::Reached
            && let Some(outbound) = data.outbound.as_mut().filter(|_| data.end.is_open())
        {
            outbound.ack.due = now; // acknowledge it at once
        }
        let may = match &data.end {
            // All members have the same cut: if it has every marker, all of them complete the barrier at it.
            EpochState::Decided(_) => true,
            _ => data.barrier.may_pass(&data.streams, &data.view, data.own(), self.cx.config.mutant),
        };
        if !may {
            return 0;
        }
        let phase = data.barrier.phase;
        let mut count = 0;
        for index in 0..data.streams.len() {
            let (at, rank) = ((data.view.instance, data.view.epoch), Rank(index as u16));
            let sequence = data.streams[index].delivered;
            let Some(incarnation) = data.view.incarnation(rank) else { continue };
            if let Some((_, Some(payload))) = data.streams[index].marker().filter(|(of, _)| *of == phase) {
                count += 1;
                emit(&Message::at_barrier(Member { rank, incarnation }, sequence, at, phase, now, payload));
            }
        }
        let asked = data.barrier.pass(&mut data.streams);
        if let Some(outbound) = &mut data.outbound {
            outbound.packer.enter_phase(data.barrier.phase);
        }
        let phase = data.barrier.phase;
        self.cx.event(Event::Synced { phase, asked });
        count.max(1)
    }

    /// The decided epoch has been delivered as far as it can be: enters the next view if that is due.
    pub(super) fn end_epoch(&mut self, now: Instant) {
        let holds = self.holds_end();
        if self.standing() == Standing::Following {
            self.follow_on(now, holds);
        } else if holds
            && let Some((value, _)) = self.state.ending().and_then(|ending| ending.decided.clone())
            && self.may_install(now, &value)
            && let Some(decided) = self.state.ending_mut().and_then(|ending| ending.decided.take())
        {
            self.install(now, decided);
        }
        if matches!(self.data.end, EpochState::Decided(_)) {
            self.look_due = now + LOOK_AGAIN_NS; // something is missing
        }
    }

    /// Enters the view that was decided, or finds that it goes on without this process. `leads`: this process
    /// announces it.
    fn install(&mut self, now: Instant, (value, leads): (Value, bool)) {
        if !self.data.publishes_again()
            && let Some((sender, from, to)) = self.data.abandon_own()
        {
            self.cx.counters.add(Counter::Gaps, to.since(from));
            self.cx.event(Event::Gap { sender, from, to });
        }
        let mut beginning = self.data.next_beginning();
        if self.data.is_lossy() && self.cx.config.rank() == Some(value.sequencer) {
            beginning.order = self.data.next_order(beginning.order);
        }
        if self.cx.config.mutant == Some(Mutant::ReuseNumbers) {
            beginning.order.0 = beginning.order.0.saturating_sub(1);
        }
        let view = value.view(self.data.view.epoch.next());
        let own = self.cx.own_member().filter(|own| view.contains(*own));
        if own.is_none() {
            return self.removed(now, Some(value), view.epoch);
        }
        let asked = self.data.barrier.take_asked();
        let later = core::mem::take(&mut self.unsettled);
        if self.data.publishes_again() {
            self.unsettled.extend(self.data.unsettled());
        }
        self.unsettled.extend(later);
        self.void_copies();
        self.retire(now, Some(value));
        self.enter(now, view, &beginning);
        self.data.barrier.ask_again(asked);
        if leads {
            self.reply_view(now, Destination::Group, 0);
            self.entry.is_unannounced = true;
        }
        self.receive_ahead(now);
    }

    /// Begins a view, as a member if it names this incarnation of this process, else as a follower.
    pub(super) fn enter(&mut self, now: Instant, view: View, beginning: &Beginning) {
        let same = self.data.view.instance == view.instance && self.data.view.epoch != Epoch(0);
        assert!(view.instance != InstanceId::NONE, "a view names its instance");
        assert!(!same || self.data.view.birth == view.birth, "an instance has one birth");
        self.note_birth(view.birth);
        self.configurations.enter();
        let own = self.cx.own_member().filter(|own| view.contains(*own));
        let old = core::mem::replace(&mut self.data, Pipeline::idle(self.cx.config.clone(), view.epoch));
        old.into_logs(&mut self.past.spare);
        let rank = own.map(|own| own.rank);
        let is_lossy = self.cx.config.reliability.is_lossy();
        let earlier = core::mem::replace(&mut self.entry.view, view.clone());
        if earlier.instance != view.instance {
            // A client sends again in this instance what another may have delivered.
            self.clients = Default::default();
        }
        let mut ahead = beginning.clone();
        if is_lossy && view.epoch > Epoch(1) && earlier.epoch.next() == view.epoch {
            // No member knows how far an earlier incarnation was heard; a newcomer does not know how far the order has
            // come.
            let from = numbers_of(view.epoch);
            for member in view.members.iter().filter(|member| !earlier.contains(**member)) {
                let first = &mut ahead.first[member.rank.index()];
                *first = (*first).max(Sequence(from));
                if member.rank == view.sequencer {
                    ahead.order = ahead.order.max(OrderNumber(from));
                }
            }
        }
        let beginning = &ahead;
        self.data = Pipeline::new(self.cx.config.clone(), view.clone(), rank, beginning, &mut self.past.spare);
        self.enter_stored(own.is_some());
        self.begin_time(now);
        self.begin_part(own, &view);
        self.look_due = now;
        self.cx.outbox.enter(self.cx.header(view.instance, view.epoch));
        self.trust.enter(now, &earlier, &view);
        let decided = self.past.value_of(earlier.epoch).map_or(0, |value| value.leavers);
        let leavers = self.cx.presence.leavers(&earlier) | decided;
        for rank in (0..self.cx.config.members).map(Rank) {
            let (was, is) = (earlier.incarnation(rank), view.incarnation(rank));
            match (was, is) {
                _ if own.is_none() => self.detector.left(rank),
                (_, Some(_)) if was == is && self.detector.is_watching(rank) => {}
                (_, Some(_)) => self.detector.watch(rank, now),
                (_, None) if leavers & bit(rank) != 0 => self.detector.left(rank),
                (_, None) => self.detector.forget(rank),
            }
        }
        self.data.suspected = self.detector.suspects();
        self.gates.enter(now);
        self.pacer.iter_mut().for_each(Pacer::enter);
        self.pace(now, 0);
        self.announce_windows();
        self.apply_gates();
        if own.is_some() {
            self.rejoin.joined(now);
            self.transfer.joined();
            self.release_donor();
            self.clients.renumber();
        }
        self.begin_coordination(now, beginning.order);
        self.past.note_next(&self.data.view, &self.data.beginning);
        self.settle_doubt();
        self.heartbeat.due = now;
        self.entry.is_awaited = false;
        self.cx.count(Counter::Views);
        self.report_view(&earlier, &view, leavers);
    }

    /// Reports a view, and what became of the members that it lacks.
    pub(super) fn report_view(&mut self, earlier: &View, view: &View, leavers: u64) {
        let is_gone = |member: &&Member| earlier.instance == view.instance && !view.contains(**member);
        let gone = earlier.members.iter().filter(is_gone).fold(0, |gone, member| gone | bit(member.rank));
        let (epoch, members, sequencer) = (view.epoch, Ranks(view.bits()), view.sequencer);
        let [left, failed] = [gone & leavers, gone & !leavers].map(Ranks);
        self.cx.event(Event::View { epoch, members, sequencer, left, failed });
    }

    /// A member takes part in the end of this view.
    fn begin_part(&mut self, own: Option<Member>, view: &View) {
        let Some(own) = own else { return self.change_standing(State::Following(Box::default())) };
        self.change_standing(State::Member(Box::default()));
        self.control.push_part(ToAgreement::Begun { own, view: view.clone() });
    }

    /// Windows that members announced earlier hold in the new view too.
    pub(super) fn announce_windows(&mut self) {
        let mtu = self.cx.config.limits.mtu_bytes as u64;
        if let Some(outbound) = &mut self.data.outbound {
            for member in &self.data.view.members {
                let peer = self.cx.presence.get(member.rank);
                if let Some(peer) = peer.filter(|peer| peer.introduced && peer.incarnation == Some(member.incarnation))
                {
                    outbound.flow.announce(member.rank, u64::from(peer.window_bytes) / mtu);
                }
            }
        }
        self.data.update_flow();
    }

    /// The next view is without this process; `value` is the decision, if this process knows it.
    pub(super) fn removed(&mut self, now: Instant, value: Option<Value>, epoch: Epoch) {
        let published = Some(self.own_next()).filter(|_| !self.is_restored());
        let (incarnation, instance) = (self.cx.config.incarnation, self.data.view.instance);
        self.leave_own_behind();
        self.settle_decided();
        self.identity.doubt = Some(Doubt { incarnation, instance, epoch, published });
        self.unsettled.clear();
        self.transfer.removed();
        self.end_coordination(now);
        debug_assert!(epoch > self.data.view.epoch, "a process is removed by a later view");
        let value = value.filter(|_| self.cx.config.mutant != Some(Mutant::DecisionForgotten));
        let knows = value.is_some();
        self.retire(now, value);
        self.look_due = Instant::NEVER;
        (0..self.cx.config.members).for_each(|rank| self.detector.left(Rank(rank)));
        if self.wishes.leave.is_some() {
            let wait_ns = if knows { LEAVE_WAIT_NS } else { 0 };
            self.change_standing(State::Gone(Gone::new(Some((epoch, now + wait_ns)))));
            if !knows {
                self.part();
            }
            return;
        }
        self.bump_incarnation();
        self.path_mtu.note_quorum(now, false);
        let may_rejoin_at = self.rejoin.left_out(now, &self.cx.config.timing.membership);
        self.search_again(may_rejoin_at);
        self.cx.event(Event::Removed(epoch));
    }

    /// The flags about itself that this process sends in its heartbeats.
    pub(super) fn standing_flags(&self, now: Instant) -> u16 {
        let flag = |flag: u16, set: bool| if set { flag } else { 0 };
        let learner = matches!(self.cx.config.role, Role::Member(_))
            && matches!(self.standing(), Standing::Outside | Standing::Following)
            && self.wishes.leave.is_none();
        flag(heartbeat_flags::FORMED, self.standing() == Standing::Member)
            | flag(heartbeat_flags::WEDGED, !self.data.end.is_open())
            | flag(heartbeat_flags::LEAVING, self.wishes.leave.is_some())
            | flag(heartbeat_flags::LEARNER, learner)
            | flag(heartbeat_flags::RETURNS, learner && self.identity.returns())
            // Over a path that carries no long datagrams it would soon be removed again.
            | flag(heartbeat_flags::READY, learner && self.is_caught_up() && !self.is_narrow_to_view(now))
    }
}
