//! Heartbeats: this process announces itself, its stream and its view, and hears others announce theirs.

use super::discovery::LOST_NS;
use super::retransmit::oldest_retained;
use super::{Process, Standing};
use crate::config::Start;
use crate::control::agreement::ToAgreement;
use crate::control::detector::Path;
use crate::counters::Counter;
use crate::data::epoch_state::EpochState;
use crate::data::flow::own_window;
use crate::data::loose::End;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::Member;
use bourdon_wire::records::{self, Heartbeat, heartbeat_flags};
use bourdon_wire::{Address, DatagramHeader, DatagramNumber, Epoch, Instant, OrderNumber, Rank, Sequence, VERSION};

/// A member that is still in the view before counts as heard for so many suspicion times: it has a cut to fetch.
const LATE: u64 = 10;
/// A member that is heard again after so many regular heartbeats was out of reach.
const SILENT: u64 = 4;

impl Process {
    pub(super) fn beat(&mut self, now: Instant) {
        let config = &self.cx.config;
        let mut beat_flags = self.standing_flags(now);
        if let Some(following) = self.state.following_mut().filter(|_| beat_flags & heartbeat_flags::READY != 0) {
            following.ready_at = Some(now);
        }
        let window_bytes = own_window(config) * config.limits.mtu_bytes as u64;
        let (mut next_number, mut next_sequence, mut next_order) = (DatagramNumber(0), Sequence(0), OrderNumber(0));
        let (mut blocked, mut first_sequence) = (false, Sequence(0));
        if let Some(outbound) = &self.data.outbound {
            first_sequence = self.data.beginning.first[outbound.rank.index()];
            let log = &self.data.streams[outbound.rank.index()].log;
            (next_sequence, next_order) = outbound.packer.unsent(log);
            next_number = outbound.packer.sent;
            blocked = outbound.flow.blocked;
        }
        if let Some(end) = self.restored_end() {
            (next_number, next_sequence, next_order) = end;
        }
        if blocked {
            beat_flags |= heartbeat_flags::SOLICIT;
        }
        // Where receivers may give up what is missing, the marker is repeated until the barrier is complete: until then
        // the heartbeat announces a stream that ends before the marker.
        let marker = self.marker_to_repeat();
        if let Some((number, sequence)) = marker {
            (next_number, next_sequence) = (number, sequence);
            if self.data.barrier.has_reached() {
                beat_flags |= heartbeat_flags::BEFORE_MARKER;
            }
        }
        if self.data.barrier.is_wanted() && self.data.is_lossy() {
            beat_flags |= heartbeat_flags::BARRIER;
        }
        let forget = config.mutant == Some(Mutant::ForgetTail);
        let record = records::Heartbeat {
            next_number: if forget { 0 } else { next_number.0 }.into(),
            oldest_number: oldest_retained(&self.data).0.into(),
            next_sequence: next_sequence.0.into(),
            next_order: next_order.0.into(),
            configuration: config.fingerprint().into(),
            window_bytes: u32::try_from(window_bytes).unwrap_or(u32::MAX).into(),
            flags: beat_flags.into(),
            address: config.address,
            heard_from: (self.data.view.bits() & !self.detector.suspects()).into(),
            reached_phase: self.data.barrier.own_reached().into(),
            link_port: config.link_port.into(),
            first_sequence: first_sequence.0.into(),
            birth: self.data.view.birth.into(),
            members: self.data.view.bits().into(),
            version_low: VERSION,
            version_high: VERSION,
        };
        self.send_heartbeat(now, &record);
        let settled = self.standing() == Standing::Member && self.missing().next().is_none();
        self.heartbeat.beat(now, &self.cx.config.timing, settled);
        if let Some((number, _)) = marker {
            self.repeat(number);
        }
        if blocked || self.data.barrier.is_active() && self.data.is_lossy() {
            self.heartbeat.hasten(now, &self.cx.config.timing);
        }
    }

    /// The datagram with this process's marker, and the first message in it, while a barrier waits for a member that
    /// may have missed it and can't request it.
    pub(super) fn marker_to_repeat(&self) -> Option<(DatagramNumber, Sequence)> {
        if !self.data.is_lossy() || !self.data.barrier.is_placed() || !self.data.end.is_open() {
            return None;
        }
        let outbound = self.data.outbound.as_ref()?;
        let number = DatagramNumber(outbound.packer.sent.0.checked_sub(1)?);
        let bytes = self.data.streams[outbound.rank.index()].log.get(number)?;
        Some((number, DatagramHeader::of_checked(bytes).first_sequence()))
    }

    pub(super) fn repeat(&mut self, number: DatagramNumber) {
        let Some(outbound) = &self.data.outbound else { return };
        if let Some(bytes) = self.data.streams[outbound.rank.index()].log.get(number) {
            self.cx.outbox.again(Destination::Group, bytes, Counter::ControlSent, &mut self.cx.counters);
        }
    }

    pub(super) fn on_heartbeat(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((heartbeat, _)) = Heartbeat::read(body) else { return };
        let (epoch, rank) = (header.epoch(), header.rank());
        let from = Member { rank, incarnation: header.incarnation() };
        self.cx.presence.note_differs(from, None);
        if self.note_sighting(now, header, heartbeat) {
            return; // of another instance
        }
        let same = header.instance() == self.data.view.instance
            || self.cx.config.mutant == Some(Mutant::OtherInstanceBelieved);
        if self.is_moved(now, from, heartbeat.address) {
            return;
        }
        if heartbeat.flags.get() & heartbeat_flags::FORMED != 0 {
            self.trust.announcements.note_formed(now, from, epoch);
        }
        let known = self.data.view.incarnation(rank);
        let formed = heartbeat.flags.get() & heartbeat_flags::FORMED != 0;
        if same && epoch == self.data.view.epoch && known == Some(from.incarnation) {
            self.on_own_views_heartbeat(now, from, epoch, heartbeat);
            if self.data.is_lossy() {
                self.report_lost();
            }
            return;
        }
        if known.is_some_and(|incarnation| incarnation != from.incarnation) {
            // Another incarnation of a member: it waits until the incarnation in the view is out of it. A formed
            // incarnation is an earlier one whose heartbeat is late. A process that comes back knows already that its
            // earlier incarnation was removed, and this process will.
            let returns = heartbeat.flags.get() & heartbeat_flags::RETURNS != 0;
            if !formed && !returns && self.cx.presence.refuse(from) {
                self.cx.event(Event::Restarted { rank, incarnation: from.incarnation });
            }
            if self.standing() == Standing::Member {
                // If the sender is in a later view, all members of this view may have ended since: then only it
                // answers.
                let is_own = header.instance() == self.data.view.instance;
                if formed && is_own && epoch > self.data.view.epoch {
                    self.request_view(now, rank, heartbeat.address);
                }
                return;
            }
        }
        if formed {
            self.search.formed_at = now;
        }
        let other = self.cx.presence.hear(now, from, epoch, heartbeat);
        // A process in no view may be the only process that knows how this view ended.
        let outside = !matches!(self.standing(), Standing::Member | Standing::Forming);
        let past = header.instance() == self.data.view.instance || self.is_past_instance(header.instance());
        if outside && past && self.past.is_of(epoch, from) {
            if heartbeat.address.is_reachable() {
                self.send_decision(now, epoch, heartbeat.address);
            }
            return;
        }
        self.follow_heartbeat(now, from, epoch, heartbeat, (formed, past, other));
    }

    /// Acts on the heartbeat of a process that is not in this process's view. What follows depends on whether its
    /// sender is a member, of this instance, and in another incarnation than it was heard in before.
    pub(super) fn follow_heartbeat(
        &mut self,
        now: Instant,
        from: Member,
        epoch: Epoch,
        heartbeat: &Heartbeat,
        (formed, past, other): (bool, bool, bool),
    ) {
        let rank = from.rank;
        match self.standing() {
            Standing::Gone
                if formed
                    && past
                    && let Some((without, _)) = self.state.farewell().filter(|(without, _)| epoch >= *without) =>
            {
                self.hear_successor(without, epoch, from);
            }
            Standing::Gone => {}
            // The group has formed: with this process, if it missed the decision, or without it.
            Standing::Forming if formed => {}
            Standing::Forming if epoch == Epoch(0) => {
                if other {
                    self.report_to_agreement(now, ToAgreement::Replaced(from));
                }
                self.look_due = now;
            }
            Standing::Following if epoch > self.data.view.epoch && formed => {
                self.request_chain(now, rank, heartbeat.address)
            }
            Standing::Member if epoch > self.data.view.epoch && formed => {
                self.request_view(now, rank, heartbeat.address)
            }
            // A process in no view has already asked the member at which it found the instance alive.
            Standing::Outside if formed => {}
            Standing::Member => self.on_earlier_heartbeat(now, from, epoch, heartbeat.address),
            Standing::Following if formed && self.has_lost_view(now) => {
                self.lose_view();
                self.request_view(now, rank, heartbeat.address);
            }
            Standing::Outside | Standing::Following if now.since(self.search.formed_at) > LOST_NS => {
                self.form_again(now)
            }
            _ => {}
        }
    }

    pub(super) fn on_own_views_heartbeat(&mut self, now: Instant, from: Member, epoch: Epoch, heartbeat: &Heartbeat) {
        let rank = from.rank;
        (self.search.formed_at, self.search.older_since) = (now, Instant(0));
        if let Some(following) = self.state.following_mut() {
            following.heard_at = now;
        }
        self.detector.heard(rank, now, Path::Multicast);
        self.detector.heartbeat(rank, now);
        let before = self.cx.presence.get(rank).map(|peer| (peer.heard_from, peer.flags, peer.epoch));
        self.note_return(now, rank);
        self.cx.presence.hear(now, from, epoch, heartbeat);
        self.note_rival(now, heartbeat.heard_from.get());
        if before != Some((heartbeat.heard_from.get(), heartbeat.flags.get(), epoch)) {
            self.look_due = now;
        }
        // A joiner that knows how this view ends may be the only process left that does.
        let wedged = heartbeat.flags.get() & heartbeat_flags::WEDGED != 0 && heartbeat.address.is_reachable();
        if wedged {
            self.pass_decision_on(now, epoch, heartbeat.address);
        }
        self.trust.announcements.note_stream(now, rank, DatagramNumber(heartbeat.next_number.get()));
        self.renew_cookie(now, rank, heartbeat.address);
        let mtu = self.cx.config.limits.mtu_bytes as u64;
        if let Some(outbound) = &mut self.data.outbound {
            outbound.flow.announce(rank, u64::from(heartbeat.window_bytes.get()) / mtu);
            if heartbeat.flags.get() & heartbeat_flags::SOLICIT != 0 && self.data.end.is_open() {
                outbound.ack.due = now;
            }
        }
        self.hear_solicitation(now, heartbeat.flags.get() & heartbeat_flags::SOLICIT != 0);
        self.data.update_flow();
        self.data.barrier.note_row(rank, heartbeat.reached_phase.get());
        if heartbeat.flags.get() & heartbeat_flags::BARRIER != 0
            && self.data.barrier.is_plausible(heartbeat.reached_phase.get())
        {
            self.data.barrier.note_marker(rank, heartbeat.reached_phase.get(), None);
        }
        let stream = &mut self.data.streams[rank.index()];
        if !stream.window.started {
            let (next, oldest) = (heartbeat.next_number.get(), heartbeat.oldest_number.get());
            let sequence = Sequence(heartbeat.next_sequence.get());
            match self.cx.config.start {
                Start::Oldest => {
                    let first = self.data.beginning.first_of(rank);
                    stream.start_at_oldest(DatagramNumber(oldest.min(next)), first, sequence);
                }
                Start::Live | Start::Snapshot => stream.start_at(DatagramNumber(next), sequence),
            }
        }
        if matches!(self.data.end, EpochState::Open) {
            let end = End {
                number: DatagramNumber(heartbeat.next_number.get()),
                sequence: Sequence(heartbeat.next_sequence.get()),
                phase: self.data.barrier.plausible(phase_of_end(heartbeat), self.data.outbound.is_some()),
            };
            if stream.is_loose {
                stream.hear_bounds(Sequence(heartbeat.first_sequence.get()), end);
            }
            if stream.hear_phase(end) {
                self.data.barrier.note_marker(rank, end.phase - 1, None);
            }
            let end = end.number;
            self.data.note_announced_end(now, rank, end);
            // A member that has promised a ballot orders nothing.
            let orders = rank == self.data.view.sequencer && heartbeat.flags.get() & heartbeat_flags::WEDGED == 0;
            if orders && self.data.is_lossy() {
                self.data.doubt_order(now, end);
            }
        }
    }

    /// A member was out of reach if it is heard again after some time: what was requested meanwhile is requested again.
    fn note_return(&mut self, now: Instant, rank: Rank) {
        let heard_at = self.cx.presence.get(rank).map_or(now, |peer| peer.heard_at);
        if now.since(heard_at) > SILENT * self.cx.config.timing.heartbeat_max_ns {
            self.data.hurry_repairs(now);
        }
    }

    /// A member hears a process of an earlier epoch than its view.
    pub(super) fn on_earlier_heartbeat(&mut self, now: Instant, from: Member, epoch: Epoch, address: Address) {
        let late_ns = LATE * self.cx.config.timing.detector.suspect_after_ns;
        if self.data.view.contains(from) && now.since(self.trust.announcements.view_since) < late_ns {
            self.detector.heard(from.rank, now, Path::Multicast);
        }
        if (epoch == Epoch(0) || epoch == self.data.view.epoch) && !self.data.view.contains(from) {
            self.look_due = now; // it may be ready to come in
            return;
        }
        // All members hear this. A process that they do not know asks a single member, with a cookie.
        if address.is_reachable() && self.is_proven(address) {
            self.send_decision(now, epoch, address);
            if epoch.next() < self.data.view.epoch && self.decision_of(epoch).is_some() {
                // It may be unable to get the cut any more, and may hear only later incarnations, which it does not
                // ask.
                self.reply_view(now, Destination::Peer(address), 0);
            }
        }
    }
}

/// The phase of what follows the end of the stream that a heartbeat announces, as far as the heartbeat shows it.
fn phase_of_end(heartbeat: &Heartbeat) -> u64 {
    let before = heartbeat.flags.get() & heartbeat_flags::BEFORE_MARKER != 0;
    heartbeat.reached_phase.get().saturating_sub(u64::from(before))
}
