//! What a process sends when a timer expires or in answer to a request: heartbeats, acknowledgements, pings, requests
//! for repair, repairs, and messages that it published in an earlier view.

use super::{Process, Standing, own_bit};
use crate::config::{Feedback, Order, Role};
use crate::control::clients::HeldByQuorum;
use crate::counters::Counter;
use crate::counters::Counters;
use crate::data::DATA_CHANNEL;
use crate::data::flow::own_window;
use crate::data::pipeline::{Ordering, Pipeline};
use crate::data::realtime::GroupTime;
use crate::data::repair::{ATTEMPTS_AT_SENDER, Answer};
use crate::data::stability;
use crate::mutant::Mutant;
use crate::outbox::{Destination, Outbox};
use crate::view::{Member, bit, ranks};
use bourdon_wire::records::{self, ClientAnswer, heartbeat_flags};
use bourdon_wire::{
    Address, DatagramHeader, DatagramNumber, Epoch, InstanceId, Instant, Kind, OrderNumber, Rank, Sequence, VERSION,
};
use zerocopy::IntoBytes;

impl Process {
    // ---- time -----------------------------------------------------------------------------------------------------

    /// When [`Process::on_timer`] must be called, at the latest.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        let mut deadline = self.change_due().min(self.transfer.due()).min(self.clock_sync.due).min(self.direct.due());
        deadline = deadline.min(self.coordination.due());
        if self.speaks() {
            deadline = deadline.min(self.heartbeat.due);
        }
        if self.standing == Standing::Member {
            deadline = deadline.min(self.detector.due());
        }
        if let Some(outbound) = &self.data.outbound {
            deadline = deadline.min(outbound.ack.due);
        }
        deadline = deadline.min(self.delivery_due());
        self.data.streams.iter().fold(deadline, |deadline, stream| deadline.min(stream.asker.due))
    }

    /// When [`Process::deliver`] must be called even if nothing has arrived: a message was held, or a gap is given up.
    #[inline]
    pub fn delivery_due(&self) -> Instant {
        if self.transfer.holds_back() { Instant::NEVER } else { self.data.delivery_due() }
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant) {
        if self.standing == Standing::Member && now >= self.detector.due() {
            self.ping(now);
            self.look(now);
        }
        if self.direct.is_calling() {
            self.tend_direct(now); // the detectors may just have suspected its receiver
        }
        if now >= self.change_due() {
            self.tend_view(now);
        }
        for index in 0..self.data.streams.len() {
            if now >= self.data.streams[index].asker.due {
                self.ask(now, Rank(index as u16));
            }
        }
        if now >= self.transfer.due() {
            self.ask_for_parts(now);
        }
        if now >= self.clock_sync.due {
            self.ask_the_time(now);
        }
        if now >= self.coordination.due() {
            self.coordination.tend(now);
        }
        if self.speaks() && now >= self.heartbeat.due {
            self.beat(now);
            self.tend_donor(now);
            self.tend_retention(now);
            if let Some(outbound) = self.data.outbound.as_mut().filter(|_| self.data.end.is_open()) {
                outbound.ack.due = now;
            }
        }
        if self.data.outbound.as_ref().is_some_and(|outbound| now >= outbound.ack.due) {
            self.acknowledge(now);
        }
    }

    /// Whether this process sends heartbeats: observers and leavers that have left do not.
    fn speaks(&self) -> bool {
        matches!(self.config.role, Role::Member(_)) && self.standing != Standing::Gone
    }

    fn ping(&mut self, now: Instant) {
        let (presence, outbox, counters) = (&self.presence, &mut self.outbox, &mut self.counters);
        let (rng, own) = (&mut self.data.rng, self.config.address);
        self.detector.pings(now, rng, |rank, nonce| {
            let record = records::Ping { nonce: nonce.into(), reply_to: own, answer: 0.into() };
            if let Some(address) = presence.address(rank) {
                let (to, parts) = (Destination::Peer(address), [record.as_bytes(), &[]]);
                outbox.record(now, to, Kind::Ping, parts, counters);
            }
        });
    }

    // ---- group time -----------------------------------------------------------------------------------------------

    /// Whether this process knows the group's time, or does not need it.
    #[inline]
    pub(super) fn tells_time(&self) -> bool {
        self.clock_sync.is_known() || self.config.order != Order::RealTime
    }

    /// A view begins: from now on its sequencer's clock is the group's clock.
    pub(super) fn begin_time(&mut self, now: Instant) {
        if self.config.order == Order::RealTime && self.config.mutant != Some(Mutant::ClockUncorrected) {
            self.clock_sync.enter(now, Some(self.data.view.sequencer) == self.data.own());
        } else if self.config.order == Order::RealTime {
            self.clock_sync.enter(now, true);
        }
    }

    fn ask_the_time(&mut self, now: Instant) {
        let nonce = self.clock_sync.ask(now, self.data.rng.u64(..));
        let record = records::Ping { nonce: nonce.into(), reply_to: self.config.address, answer: 0.into() };
        if let Some(address) = self.presence.address(self.data.view.sequencer) {
            let (to, parts) = (Destination::Peer(address), [record.as_bytes(), &[]]);
            self.outbox.record(now, to, Kind::Ping, parts, &mut self.counters);
        }
    }

    /// Passes the group's time to delivery.
    #[inline]
    pub(super) fn set_clock(&mut self, now: Instant) {
        if self.config.order != Order::RealTime {
            return;
        }
        let offset_ns = self.wall(now).wrapping_sub(now.0);
        let is_over = !self.data.end.is_open();
        if let Ordering::RealTime(real_time) = &mut self.data.ordering {
            let bound_ns = self.clock_sync.bound_ns(now).unwrap_or(0);
            let is_known = self.clock_sync.is_known();
            real_time.time = GroupTime { offset_ns, bound_ns, is_known, is_over };
        }
    }

    /// Whether the sender follows this view without being in it, and may have to ask for the time.
    pub(super) fn is_follower(&self, header: &DatagramHeader) -> bool {
        let member = self.data.view.incarnation(header.rank()) == Some(header.incarnation());
        self.config.order == Order::RealTime && header.epoch() == self.data.view.epoch && !member
    }

    /// Answers the ping of a process that is not a member.
    pub(super) fn answer_ping(&mut self, now: Instant, body: &[u8]) {
        let Some((ping, _)) = records::Ping::read(body) else { return };
        if ping.answer.get() == 0 && ping.reply_to.is_reachable() && self.standing == Standing::Member {
            self.pong(now, ping);
        }
    }

    fn pong(&mut self, now: Instant, ping: &records::Ping) {
        let record = records::Ping { answer: 1.into(), reply_to: self.config.address, ..*ping };
        let (to, parts) = (Destination::Peer(ping.reply_to), [record.as_bytes(), &[]]);
        self.outbox.record(now, to, Kind::Ping, parts, &mut self.counters);
    }

    pub(super) fn on_ping(&mut self, now: Instant, from: Member, sent_ns: u64, body: &[u8]) {
        let Some((ping, _)) = records::Ping::read(body) else { return };
        if self.data.view.incarnation(from.rank) != Some(from.incarnation) {
            return;
        }
        if ping.answer.get() != 0 {
            let own_ns = now.0.wrapping_add(self.config.wall_offset_ns);
            let tells = from.rank == self.data.view.sequencer;
            if !(tells && self.clock_sync.answer(now, ping.nonce.get(), sent_ns, own_ns)) {
                self.detector.pong(from.rank, now, ping.nonce.get());
            } else {
                self.outbox.set_wall_offset(self.wall(now).wrapping_sub(now.0));
            }
        } else if ping.reply_to.is_reachable() {
            self.pong(now, ping);
        }
    }

    fn ask(&mut self, now: Instant, rank: Rank) {
        let Some(attempts) = self.data.collect_missing(now, rank) else { return };
        let (to, cookie) = if self.data.asks_all() {
            (Destination::Group, 0) // repairs go to all as well: no address need be proved
        } else {
            let holder = self.holder_to_ask(rank, attempts);
            let to = self.presence.address(holder).map_or(Destination::Group, Destination::Peer);
            (to, self.word_for_repair(holder, rank))
        };
        let nak = records::Nak {
            rank: rank.0.into(),
            channel: DATA_CHANNEL.0.into(),
            reply_to: self.config.address,
            cookie: cookie.into(),
            ranges: (self.data.ranges.len() as u16).into(),
        };
        // The receiver checks the epoch: it may have gone on to the next.
        let header = super::header(&self.config, self.data.view.instance, self.data.view.epoch);
        let parts = [nak.as_bytes(), self.data.ranges.as_bytes()];
        let times = if self.config.mutant == Some(Mutant::AskTwice) { 2 } else { 1 };
        for _ in 0..times {
            self.outbox.record_as(header, now, to, Kind::Nak, parts, &mut self.counters);
            self.counters.add(Counter::NaksSent, 1);
        }
    }

    /// The sender first; then, every other time, another member. A suspected member is never asked.
    fn holder_to_ask(&self, rank: Rank, attempts: u8) -> Rank {
        let cut = !self.data.end.is_open();
        let others = self.data.view.bits() & !own_bit(&self.config);
        let alive = others & !self.detector.suspects();
        // Members that have gone on to the next view are not heard in this view, but have what is missing.
        let alive = if alive == 0 || (cut && attempts > ATTEMPTS_AT_SENDER) { others } else { alive };
        let early = attempts <= ATTEMPTS_AT_SENDER && !cut || attempts.is_multiple_of(2);
        if early && alive & bit(rank) != 0 {
            return rank;
        }
        let others = others & alive & !bit(rank);
        let count = others.count_ones() as usize;
        let turn = usize::from(attempts / 2) + usize::from(rank.0);
        ranks(others).nth(if count == 0 { 0 } else { turn % count }).unwrap_or(rank)
    }

    fn beat(&mut self, now: Instant) {
        let config = &self.config;
        let mut beat_flags = self.standing_flags();
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
        if blocked {
            beat_flags |= heartbeat_flags::SOLICIT;
        }
        // Where receivers may give up what is missing, the marker is repeated until the barrier is complete: until then
        // the heartbeat announces a stream that ends before the marker.
        let marker = self.marker_to_repeat();
        if let Some((number, sequence)) = marker {
            (next_number, next_sequence) = (number, sequence);
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
        let parts = [record.as_bytes(), &[]];
        self.outbox.record(now, Destination::Group, Kind::Heartbeat, parts, &mut self.counters);
        let settled = self.standing == Standing::Member && self.missing().next().is_none();
        self.heartbeat.beat(now, &self.config.timing, settled);
        if let Some((number, _)) = marker {
            self.repeat(number);
        }
        if blocked || self.data.barrier.is_active() && self.data.is_lossy() {
            self.heartbeat.hasten(now, &self.config.timing);
        }
    }

    /// The datagram with this process's marker, and the first message in it, while a barrier waits for a member that
    /// may have missed it and can't request it.
    fn marker_to_repeat(&self) -> Option<(DatagramNumber, Sequence)> {
        if !self.data.is_lossy() || !self.data.barrier.is_placed() || !self.data.end.is_open() {
            return None;
        }
        let outbound = self.data.outbound.as_ref()?;
        let number = DatagramNumber(outbound.packer.sent.0.checked_sub(1)?);
        let bytes = self.data.streams[outbound.rank.index()].log.get(number)?;
        Some((number, DatagramHeader::of_checked(bytes).first_sequence()))
    }

    fn repeat(&mut self, number: DatagramNumber) {
        let Some(outbound) = &self.data.outbound else { return };
        if let Some(bytes) = self.data.streams[outbound.rank.index()].log.get(number) {
            self.outbox.again(Destination::Group, bytes, Counter::ControlSent, &mut self.counters);
        }
    }

    /// Relays a datagram that has just come for the first time, or acknowledges it alone, if the configuration requires
    /// it.
    #[cold]
    pub(super) fn respond(&mut self, now: Instant, rank: Rank, bytes: &[u8]) {
        if self.config.relay && self.data.outbound.is_some() && self.config.mutant != Some(Mutant::RelayForgets) {
            self.outbox.again(Destination::Group, bytes, Counter::Relayed, &mut self.counters);
        }
        if self.config.feedback == Feedback::AckEach
            && let Some(address) = self.presence.address(rank).filter(|address| self.is_proven(*address))
        {
            self.write_row();
            let (to, parts) = (Destination::Peer(address), [&self.row[..], &[]]);
            self.outbox.record(now, to, Kind::Row, parts, &mut self.counters);
            self.row_sent();
        }
    }

    fn acknowledge(&mut self, now: Instant) {
        self.write_row();
        let parts = [&self.row[..], &[]];
        self.outbox.record(now, Destination::Group, Kind::Row, parts, &mut self.counters);
        self.row_sent();
    }

    fn row_sent(&mut self) {
        self.counters.add(Counter::RowsSent, 1);
        if let Some(outbound) = &mut self.data.outbound {
            outbound.ack.sent();
        }
    }

    fn write_row(&mut self) {
        self.progress += 1;
        let heard_from = self.data.view.bits() & !self.detector.suspects();
        let lie = self.config.mutant == Some(Mutant::AckBeforeReceived);
        let (order, reached) = (self.data.delivered_order(), self.data.barrier.own_reached());
        let (row, entries) = stability::own_row(&self.data.streams, order, heard_from, self.progress, reached, lie);
        self.row.clear();
        self.row.extend_from_slice(row.as_bytes());
        entries.for_each(|entry| self.row.extend_from_slice(entry.as_bytes()));
    }

    // ---- what rides along -----------------------------------------------------------------------------------------

    /// Puts an acknowledgement that is nearly due into a datagram that is sent anyway.
    #[inline]
    pub(super) fn piggyback(&mut self, now: Instant, wall_ns: u64) {
        let worthwhile = self
            .data
            .outbound
            .as_ref()
            .is_some_and(|outbound| outbound.packer.is_open() && outbound.ack.is_worthwhile(now, &self.config));
        if !worthwhile || !self.data.end.is_open() {
            return;
        }
        self.write_row();
        let Some(outbound) = &mut self.data.outbound else { return };
        let log = &mut self.data.streams[outbound.rank.index()].log;
        if outbound.packer.fits_open(log, self.row.len()) {
            let body = outbound.packer.frame(log, bourdon_wire::TopicId(0), Kind::Row, 0, self.row.len(), wall_ns);
            body.copy_from_slice(&self.row);
            self.row_sent();
        }
    }

    // ---- repair ---------------------------------------------------------------------------------------------------

    pub(super) fn on_nak(&mut self, now: Instant, epoch: Epoch, body: &[u8]) {
        let Some((nak, ranges)) = records::Nak::read_all(body) else { return };
        let rank = Rank(nak.rank.get());
        if rank.0 >= self.config.members || nak.channel.get() != DATA_CHANNEL.0 || nak.reply_to == self.config.address {
            return;
        }
        self.counters.add(Counter::NaksReceived, 1);
        let asks_all = self.data.asks_all();
        let inside = !matches!(self.standing, Standing::Outside | Standing::Gone);
        let current = inside && epoch == self.data.view.epoch;
        if current && asks_all && Some(rank) != self.data.own() {
            // This request was multicast to all: its repair will reach us too.
            let suppressed = self.data.suppress(now, rank, ranges);
            self.counters.add(Counter::NaksSuppressed, suppressed);
            let sender_lives = self.data.is_present(rank) && !self.detector.is_suspected(rank);
            if sender_lives && self.data.end.is_open() {
                return;
            }
        }
        if !nak.reply_to.is_reachable() || matches!(self.config.role, Role::Observer) {
            return;
        }
        // Repairs that go to all can't flood a stranger; the budget bounds them.
        let proven = if asks_all {
            self.is_proven(nak.reply_to)
        } else {
            self.is_proven_by(now, epoch, nak.reply_to, nak.cookie.get())
        };
        if !proven && !asks_all {
            return;
        }
        let earlier = if current { None } else { self.past.data_of(epoch) };
        let data = match earlier {
            _ if current => &mut self.data,
            Some(data) => data,
            None => return self.counters.add(Counter::DiscardedEpoch, 1),
        };
        let asker = proven.then_some(nak.reply_to);
        let gone = answer(data, &mut self.outbox, &mut self.counters, now, (nak, ranges), asker);
        if gone {
            let (oldest, instance) = (oldest_retained(data), data.view.instance);
            self.answer_unavailable(now, (instance, epoch), rank, nak.reply_to, oldest);
        }
    }

    fn answer_unavailable(
        &mut self,
        now: Instant,
        (instance, epoch): (InstanceId, Epoch),
        rank: Rank,
        to: Address,
        oldest: DatagramNumber,
    ) {
        let record = records::Unavailable {
            rank: rank.0.into(),
            channel: DATA_CHANNEL.0.into(),
            reserved: 0.into(),
            oldest_number: oldest.0.into(),
        };
        let header = super::header(&self.config, instance, epoch);
        let (to, parts) = (Destination::Peer(to), [record.as_bytes(), &[]]);
        self.outbox.record_as(header, now, to, Kind::Unavailable, parts, &mut self.counters);
    }

    /// A sender no longer retains what this process still misses. An observer gives it up; a joiner starts again with
    /// another snapshot, because a member may lack nothing.
    pub(super) fn on_unavailable(&mut self, from: Rank, body: &[u8]) {
        let Some((record, _)) = records::Unavailable::read(body) else { return };
        let rank = Rank(record.rank.get());
        let may_lack = self.standing == Standing::Following || self.data.is_lossy();
        if rank == from && may_lack && self.data.streams[rank.index()].window.started {
            if matches!(self.config.role, Role::Member(_)) && !self.data.is_lossy() {
                if DatagramNumber(record.oldest_number.get()) > self.data.streams[rank.index()].window.next {
                    self.lose_view(); // a member may have no gaps
                }
                return;
            }
            let stream = &mut self.data.streams[rank.index()];
            // A sender can't have evicted what it has not announced.
            let oldest = DatagramNumber(record.oldest_number.get().min(stream.window.known_end.0));
            stream.give_up_before(oldest);
        }
    }

    // ---- publishing again -----------------------------------------------------------------------------------------

    /// Publishes what an earlier view did not deliver again, before anything new.
    pub(super) fn resubmit(&mut self, now: Instant) {
        if !self.data.end.is_open() || self.standing != Standing::Member {
            return;
        }
        let wall_ns = self.wall(now);
        while let Some(front) = self.unsettled.front() {
            if self.data.admit(&front.outgoing, front.payload.len(), false).is_err() {
                self.heartbeat.hasten(now, &self.config.timing);
                return;
            }
            let Some(sequence) = self.data.publish(wall_ns, &front.outgoing, &front.payload, &mut self.counters) else {
                return;
            };
            self.counters.add(Counter::Resubmitted, 1);
            if let (Some(tag), Some(outbound)) = (front.outgoing.client, &self.data.outbound) {
                self.clients.published(tag.client(), tag.sequence(), outbound.packer.open);
            }
            debug_assert!(sequence >= self.data.beginning.first[self.data.own().map_or(0, Rank::index)]);
            self.unsettled.pop_front();
        }
    }

    // ---- clients --------------------------------------------------------------------------------------------------

    pub(super) fn answer_client(&mut self, now: Instant, to: Address, answer: &ClientAnswer) {
        let (to, parts) = (Destination::Peer(to), [answer.as_bytes(), &[]]);
        self.outbox.record(now, to, Kind::ClientAnswer, parts, &mut self.counters);
    }

    /// Answers clients whose messages a quorum holds by now.
    pub(super) fn settle_clients(&mut self, now: Instant) {
        if !self.clients.awaits_answers() {
            return;
        }
        let Some(own) = self.data.own() else { return };
        let sequencer = self.data.view.sequencer;
        let total = self.config.order == Order::Total && sequencer != own;
        let held = HeldByQuorum {
            own: self.data.held_by_quorum(own),
            // A message without an order is dropped with its sender.
            order: total.then(|| {
                (self.data.held_by_quorum(sequencer), self.data.streams[sequencer.index()].cursor.position().0.next())
            }),
        };
        let (outbox, counters) = (&mut self.outbox, &mut self.counters);
        self.clients.settle(held, |client, taken, to| {
            let answer = ClientAnswer::new(client, taken, records::refusals::NONE);
            let (to, parts) = (Destination::Peer(to), [answer.as_bytes(), &[]]);
            outbox.record(now, to, Kind::ClientAnswer, parts, counters);
        });
    }
}

/// Retransmits what was requested and is retained here; returns whether a part is gone for good. `asker`: the
/// requesting address, if it has proved that it receives.
fn answer(
    data: &mut Pipeline,
    outbox: &mut Outbox,
    counters: &mut Counters,
    now: Instant,
    (nak, ranges): (&records::Nak, &[records::NakRange]),
    asker: Option<Address>,
) -> bool {
    let rank = Rank(nak.rank.get());
    let asks_all = data.asks_all();
    data.answerer.refill(now, &data.config.limits, asker);
    let own = Some(rank) == data.own();
    let newest = match &data.outbound {
        // Once nothing more is sent, what was packed and not sent can be requested as well.
        Some(outbound) if own && data.end.is_open() => outbound.packer.sent.0,
        _ => data.streams[rank.index()].window.known_end.0,
    };
    let stream = &data.streams[rank.index()];
    let (mut gone, mut left) = (false, stream.log.capacity());
    for range in ranges {
        let end = range.first.get().saturating_add(u64::from(range.count.get())).min(newest);
        let first = range.first.get().min(end);
        gone |= own && end - first > left;
        // All ranges together cost at most one pass over the log.
        let first = first.max(end.saturating_sub(left));
        left -= end - first;
        for number in first..end {
            let number = DatagramNumber(number);
            let Some(bytes) = stream.log.get(number) else {
                gone |= own;
                continue;
            };
            let to = match data.answerer.answer(now, (rank, number), nak.reply_to, asks_all, &data.config.timing) {
                Answer::Unicast => Destination::Peer(nak.reply_to),
                Answer::Multicast => Destination::Group,
                Answer::No => {
                    counters.add(Counter::RepairsRefused, 1);
                    if data.answerer.is_exhausted() {
                        return gone; // the rest need not be walked: a receiver that still misses it asks again
                    }
                    continue;
                }
            };
            outbox.again(to, bytes, Counter::RepairsSent, counters);
        }
    }
    gone
}

/// The oldest datagram of its own stream that this process can still retransmit.
fn oldest_retained(data: &Pipeline) -> DatagramNumber {
    let Some(outbound) = &data.outbound else { return DatagramNumber(0) };
    let capacity = data.streams[outbound.rank.index()].log.capacity();
    DatagramNumber((outbound.packer.open.0 + 1).saturating_sub(capacity))
}
