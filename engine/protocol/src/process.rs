//! One process of a group, pure: what the simulator and the node both run.
//!
//! Here, and only here, the data plane and the control plane meet. Everything received is checked, attributed to a
//! member of this view and this incarnation, and handed to the protocol it belongs to; everything else is discarded and
//! counted. See the crate's page for the step contract.

use crate::config::{Config, ConfigError, Role, Start};
use crate::control::clients::{Clients, Request};
use crate::control::heartbeat::Heartbeat;
use crate::control::presence::{Known, Presence};
use crate::counters::{Counter, Counters};
use crate::data::pack::{Claim, Outgoing};
use crate::data::pipeline::{DATA_CHANNEL, Pipeline, Sequenced, own_window};
use crate::data::repair::{ATTEMPTS_AT_SENDER, Answer};
use crate::data::stability;
use crate::data::stream::Stream;
use crate::event::{Delivery, Event, Refusal};
use crate::mutant::Mutant;
use crate::outbox::{Destination, Outbox};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{self, ClientAnswer, heartbeat_flags, refusals, request_flags};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, ClientId, ClientTag, Datagram, DatagramHeader, DatagramNumber, Discard, Frame, Instant,
    Kind, OrderNumber, Rank, Sequence, TopicId,
};
use zerocopy::IntoBytes;

/// Events the application has not fetched; more are counted and dropped. Each names a rank or a rare fault, so a full
/// queue holds every news about a view several times over.
const EVENTS_MAX: usize = 256;

/// What a process keeps beyond its logs: each of these is bounded, whatever comes from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Control datagrams and repairs waiting for the network.
    pub outbox_datagrams: usize,
    /// The bytes kept for them.
    pub outbox_bytes: usize,
    /// Events waiting to be fetched.
    pub events: usize,
    /// Datagrams received beyond a gap that wait to be delivered unordered.
    pub early_datagrams: usize,
    /// Fragments put together.
    pub assembly_bytes: usize,
    /// Clients known.
    pub clients: usize,
}

/// A group member or observer.
#[derive(Debug)]
pub struct Process {
    data: Pipeline,
    presence: Presence,
    heartbeat: Heartbeat,
    clients: Clients,
    outbox: Outbox,
    counters: Counters,
    events: VecDeque<Event>,
    /// Where the next event stands that was seen once and need not be said again.
    version_reported: bool,
    conflict_reported: bool,
    progress: u64,
    /// A row of this process's, being written.
    row: Vec<u8>,
}

impl Process {
    /// A process at the beginning of its view.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(now: Instant, config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let (own, members) = (config.rank(), usize::from(config.members));
        let rank = own.unwrap_or(Rank::OBSERVER);
        let header = DatagramHeader::new(config.group, config.epoch, rank, config.incarnation, CONTROL_CHANNEL);
        Ok(Self {
            presence: Presence::new(now, own, members, &config.timing),
            heartbeat: Heartbeat::new(now),
            clients: Clients::default(),
            outbox: Outbox::new(header, config.wall_offset_ns),
            counters: Counters::default(),
            events: VecDeque::new(),
            version_reported: false,
            conflict_reported: false,
            progress: 0,
            row: Vec::new(),
            data: Pipeline::new(config),
        })
    }

    // ---- inputs: the application ----------------------------------------------------------------------------------

    /// Publishes a message.
    ///
    /// # Errors
    /// The reason why it can't be taken now; nothing of it was sent.
    #[inline]
    pub fn try_publish(&mut self, now: Instant, outgoing: &Outgoing, payload: &[u8]) -> Result<Sequence, Refusal> {
        if self.presence.is_formed()
            && self.presence.silent().is_none()
            && let Some(sequence) = self.data.append(outgoing, payload)
        {
            self.counters.add(Counter::Published, 1);
            return Ok(sequence);
        }
        self.admit(now, outgoing, payload.len(), false)?;
        let wall_ns = self.wall(now);
        self.data.publish(wall_ns, outgoing, payload, &mut self.counters).ok_or(Refusal::Observer)
    }

    /// Claims space for a message in the log itself, to be written in place: for messages that fit one datagram.
    ///
    /// # Errors
    /// As [`Process::try_publish`]; `TooLarge` already beyond one datagram.
    #[inline]
    pub fn try_claim(&mut self, now: Instant, outgoing: &Outgoing, length: usize) -> Result<Claim<'_>, Refusal> {
        self.admit(now, outgoing, length, true)?;
        let wall_ns = self.wall(now);
        self.data.claim(wall_ns, outgoing, length, &mut self.counters).ok_or(Refusal::Observer)
    }

    #[inline]
    fn admit(&mut self, now: Instant, outgoing: &Outgoing, length: usize, whole: bool) -> Result<(), Refusal> {
        if self.presence.is_formed() && self.presence.silent().is_none() {
            return self.data.admit(outgoing, length, whole).map_err(|refusal| self.refused(now, refusal));
        }
        let refusal = match self.presence.silent().or_else(|| self.presence.missing().next()) {
            _ if self.data.outbound.is_none() => Refusal::Observer,
            Some(rank) if self.presence.silent().is_some() => Refusal::MemberSilent(rank),
            _ => Refusal::Forming,
        };
        self.counters.add(Counter::RefusedOther, 1);
        Err(refusal)
    }

    #[cold]
    fn refused(&mut self, now: Instant, refusal: Refusal) -> Refusal {
        if refusal == Refusal::Window {
            self.counters.add(Counter::RefusedWindow, 1);
            self.heartbeat.hasten(now, &self.data.config.timing);
        } else {
            self.counters.add(Counter::RefusedOther, 1);
        }
        refusal
    }

    /// Puts in order what has been received, so that the sequencer can deliver it before it sends the order: for who
    /// answers what is delivered, one send less on the way. Optional: [`Process::transmit`] does it as well.
    #[inline]
    pub fn order(&mut self, now: Instant) {
        if self.data.has_order_to_give() {
            let wall_ns = self.wall(now);
            self.data.refresh_flow();
            self.data.sequence(wall_ns, &mut self.counters);
            self.data.close_early(wall_ns);
        }
    }

    // ---- inputs: the network --------------------------------------------------------------------------------------

    /// Takes in a datagram that was received, by whatever path.
    #[inline]
    pub fn on_datagram(&mut self, now: Instant, bytes: &[u8], kernel_receive_ns: Option<u64>) {
        let datagram = match Datagram::parse(bytes, self.data.config.group) {
            Ok(datagram) => datagram,
            Err(discard) => return self.discard(discard),
        };
        let header = datagram.header;
        let rank = header.rank();
        if rank.0 < self.data.config.members {
            if self.is_stranger(now, &datagram) {
                return;
            }
        } else if header.channel() != CONTROL_CHANNEL {
            return self.counters.add(Counter::DiscardedSender, 1);
        }
        match header.channel() {
            DATA_CHANNEL => {
                self.data.receive(now, &datagram, kernel_receive_ns.unwrap_or(0), &mut self.counters);
                if datagram.has(Kind::Row) {
                    datagram.frames().filter(|frame| frame.kind() == Some(Kind::Row)).for_each(|frame| {
                        self.on_row(rank, frame.body);
                    });
                }
            }
            CONTROL_CHANNEL => datagram.frames().for_each(|frame| self.on_control(now, &datagram, &frame)),
            _ => self.counters.add(Counter::DiscardedSender, 1),
        }
    }

    #[cold]
    fn discard(&mut self, discard: Discard) {
        let counter = match discard {
            Discard::Foreign => Counter::DiscardedForeign,
            Discard::OtherVersion(version) => {
                if !core::mem::replace(&mut self.version_reported, true) {
                    self.event(Event::OtherVersion(version));
                }
                Counter::DiscardedVersion
            }
            Discard::OtherGroup => Counter::DiscardedGroup,
            Discard::Damaged => Counter::DiscardedDamaged,
            Discard::Malformed => Counter::DiscardedMalformed,
        };
        self.counters.add(counter, 1);
    }

    /// Whether a datagram of a member's rank is not that member's, in this view and this life.
    #[inline]
    fn is_stranger(&mut self, now: Instant, datagram: &Datagram<'_>) -> bool {
        let header = datagram.header;
        if header.epoch() != self.data.config.epoch {
            self.counters.add(Counter::DiscardedEpoch, 1);
            return true;
        }
        let rank = header.rank();
        if Some(rank) == self.data.config.rank() {
            if header.incarnation() == self.data.config.incarnation {
                self.counters.add(Counter::DiscardedOwn, 1);
            } else {
                self.counters.add(Counter::DiscardedSender, 1);
                if !core::mem::replace(&mut self.conflict_reported, true) {
                    self.event(Event::IdentityConflict(rank));
                }
            }
            return true;
        }
        match self.presence.heard(rank, header.incarnation(), now, !header.is_retransmitted()) {
            Known::Yes => return false,
            Known::Back => {
                self.event(Event::MemberHeard(rank));
                return false;
            }
            Known::Restarted => self.event(Event::Restarted { rank, incarnation: header.incarnation() }),
            Known::No => {}
        }
        self.counters.add(Counter::DiscardedSender, 1);
        true
    }

    fn on_control(&mut self, now: Instant, datagram: &Datagram<'_>, frame: &Frame<'_>) {
        let rank = datagram.header.rank();
        let from_member = rank.0 < self.data.config.members;
        match frame.kind() {
            Some(Kind::Row) if from_member => self.on_row(rank, frame.body),
            Some(Kind::Heartbeat) if from_member => self.on_heartbeat(now, rank, frame.body),
            Some(Kind::Nak) => self.on_nak(now, frame.body),
            Some(Kind::Unavailable) if from_member => self.on_unavailable(rank, frame.body),
            Some(Kind::ClientRequest) => self.on_client(now, frame),
            _ => {}
        }
    }

    fn on_row(&mut self, from: Rank, body: &[u8]) {
        let sent = self.data.outbound.as_ref().map_or(DatagramNumber(0), |outbound| outbound.packer.sent);
        if let Some((row, entries)) = records::Row::read_all(body)
            && self.data.stability.merge(from, row, entries, sent)
        {
            self.data.update_flow();
        }
    }

    fn on_heartbeat(&mut self, now: Instant, rank: Rank, body: &[u8]) {
        let Some((heartbeat, _)) = records::Heartbeat::read(body) else { return };
        let differs = heartbeat.configuration.get() != self.data.config.fingerprint();
        if self.presence.note_differs(rank, differs) {
            self.event(Event::ConfigurationDiffers(rank));
        }
        if differs {
            return; // not of our group as we understand it: it does not count towards forming
        }
        if self.presence.introduce(rank, heartbeat.address) {
            self.event(Event::Formed);
        }
        let mtu = self.data.config.limits.mtu_bytes as u64;
        if let Some(outbound) = &mut self.data.outbound {
            outbound.flow.announce(rank, u64::from(heartbeat.window_bytes.get()) / mtu);
            if heartbeat.flags.get() & heartbeat_flags::SOLICIT != 0 {
                outbound.ack.due = now;
            }
        }
        self.data.update_flow();
        let stream = &mut self.data.streams[rank.index()];
        if !stream.window.started {
            let (next, oldest) = (heartbeat.next_number.get(), heartbeat.oldest_number.get());
            let sequence = Sequence(heartbeat.next_sequence.get());
            match self.data.config.start {
                Start::Live => stream.start_at(DatagramNumber(next), sequence),
                Start::Oldest => stream.start_at_oldest(DatagramNumber(oldest.min(next)), sequence),
            }
        }
        self.data.note_end(now, rank, DatagramNumber(heartbeat.next_number.get()));
    }

    fn on_nak(&mut self, now: Instant, body: &[u8]) {
        let Some((nak, ranges)) = records::Nak::read_all(body) else { return };
        let rank = Rank(nak.rank.get());
        if rank.0 >= self.data.config.members || nak.channel.get() != DATA_CHANNEL.0 {
            return;
        }
        self.counters.add(Counter::NaksReceived, 1);
        let asks_all = self.data.asks_all();
        let config = &self.data.config;
        let stream = &mut self.data.streams[rank.index()];
        let own = Some(rank) == config.rank();
        if nak.reply_to == config.address {
            return;
        }
        if !own && asks_all {
            // Multicast to all: its repair will reach us too.
            let suppressed = stream.asker.suppress(now, &stream.window, &stream.log, ranges);
            return self.counters.add(Counter::NaksSuppressed, suppressed);
        }
        if !nak.reply_to.is_reachable() || matches!(config.role, Role::Observer) {
            return;
        }
        self.data.answerer.refill(now, &config.limits);
        let sent = self.data.outbound.as_ref().map_or(0, |outbound| outbound.packer.sent.0);
        let newest = if own { sent } else { stream.window.known_end.0 };
        let (mut gone, mut left) = (false, stream.log.capacity());
        for range in ranges {
            let end = range.first.get().saturating_add(u64::from(range.count.get())).min(newest);
            let first = range.first.get().min(end);
            gone |= own && end - first > left;
            // All ranges together are worth one pass over the log.
            let first = first.max(end.saturating_sub(left));
            left -= end - first;
            for number in first..end {
                let number = DatagramNumber(number);
                let Some(bytes) = stream.log.get(number) else {
                    gone |= own;
                    continue;
                };
                let answerer = &mut self.data.answerer;
                let to = match answerer.answer(now, (rank, number), nak.reply_to, asks_all, &config.timing) {
                    Answer::Unicast => Destination::Peer(nak.reply_to),
                    Answer::Multicast => Destination::Group,
                    Answer::No => {
                        self.counters.add(Counter::RepairsRefused, 1);
                        if answerer.is_exhausted() {
                            return; // no use in walking the rest: who still misses it asks again
                        }
                        continue;
                    }
                };
                self.outbox.repair(to, bytes, &mut self.counters);
            }
        }
        if gone {
            self.answer_unavailable(now, rank, nak.reply_to);
        }
    }

    fn answer_unavailable(&mut self, now: Instant, rank: Rank, to: Address) {
        let record = records::Unavailable {
            rank: rank.0.into(),
            channel: DATA_CHANNEL.0.into(),
            reserved: 0.into(),
            oldest_number: self.oldest_retained().0.into(),
        };
        let parts = [record.as_bytes(), &[]];
        self.outbox.record(now, Destination::Peer(to), Kind::Unavailable, TopicId(0), parts, &mut self.counters);
    }

    /// The oldest datagram of the own stream that can still be sent again.
    fn oldest_retained(&self) -> DatagramNumber {
        let Some(outbound) = &self.data.outbound else { return DatagramNumber(0) };
        let capacity = self.data.streams[outbound.rank.index()].log.capacity();
        DatagramNumber((outbound.packer.open.0 + 1).saturating_sub(capacity))
    }

    fn on_unavailable(&mut self, from: Rank, body: &[u8]) {
        let Some((record, _)) = records::Unavailable::read(body) else { return };
        let rank = Rank(record.rank.get());
        if rank == from
            && matches!(self.data.config.role, Role::Observer)
            && self.data.streams[rank.index()].window.started
        {
            let stream = &mut self.data.streams[rank.index()];
            // A sender can't have forgotten what nobody has heard of.
            let oldest = DatagramNumber(record.oldest_number.get().min(stream.window.known_end.0));
            stream.give_up_before(oldest);
        }
    }

    fn on_client(&mut self, now: Instant, frame: &Frame<'_>) {
        let Some((request, payload)) = records::ClientRequest::read(frame.body) else { return };
        if self.data.outbound.is_none() || !request.reply_to.is_reachable() {
            return;
        }
        let (client, sequence) = (ClientId(request.client.get()), Sequence(request.sequence.get()));
        let answer = match self.clients.request(now, client, sequence) {
            Request::Answer(taken) => ClientAnswer::new(client, taken, refusals::NONE),
            Request::TooMany => ClientAnswer::new(client, Sequence(0), refusals::TOO_MANY_CLIENTS),
            Request::Publish if request.flags.get() & request_flags::SKIP != 0 => {
                ClientAnswer::new(client, self.clients.taken(client), refusals::NONE)
            }
            Request::Publish => {
                let client_tag = Some(ClientTag::new(client, sequence));
                let outgoing = Outgoing { topic: frame.topic, intended_send_ns: None, client: client_tag };
                match self.try_publish(now, &outgoing, payload) {
                    Ok(_) => ClientAnswer::new(client, self.clients.taken(client), refusals::NONE),
                    Err(Refusal::TooLarge { .. }) => ClientAnswer::new(client, sequence, refusals::TOO_LARGE),
                    Err(_) => ClientAnswer::new(client, sequence, refusals::BUSY),
                }
            }
        };
        let (to, parts) = (Destination::Peer(request.reply_to), [answer.as_bytes(), &[]]);
        self.outbox.record(now, to, Kind::ClientAnswer, TopicId(0), parts, &mut self.counters);
    }

    // ---- inputs: time ---------------------------------------------------------------------------------------------

    /// When [`Process::on_timer`] must be called, at the latest.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        let mut deadline = self.presence.due;
        if let Some(outbound) = &self.data.outbound {
            deadline = deadline.min(self.heartbeat.due).min(outbound.ack.due);
        }
        self.data.streams.iter().fold(deadline, |deadline, stream| deadline.min(stream.asker.due))
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant) {
        if now >= self.presence.due {
            let (events, counters) = (&mut self.events, &mut self.counters);
            self.presence.look(now, &self.data.config.timing, |rank| {
                push_event(events, counters, Event::MemberSilent(rank));
            });
        }
        for index in 0..self.data.streams.len() {
            if now >= self.data.streams[index].asker.due {
                self.ask(now, Rank(index as u16));
            }
        }
        let Some(outbound) = &self.data.outbound else { return };
        let (ack_due, beat_due) = (now >= outbound.ack.due, now >= self.heartbeat.due);
        if beat_due {
            self.beat(now);
        }
        if ack_due || beat_due {
            self.acknowledge(now);
        }
    }

    fn ask(&mut self, now: Instant, rank: Rank) {
        let Some(attempts) = self.data.collect_missing(now, rank) else { return };
        let to = if self.data.asks_all() {
            Destination::Group
        } else {
            let holder = self.holder_to_ask(rank, attempts);
            self.presence.address(holder).map_or(Destination::Group, Destination::Peer)
        };
        let nak = records::Nak {
            rank: rank.0.into(),
            channel: DATA_CHANNEL.0.into(),
            reply_to: self.data.config.address,
            ranges: (self.data.ranges.len() as u16).into(),
        };
        let parts = [nak.as_bytes(), self.data.ranges.as_bytes()];
        let times = if self.data.config.mutant == Some(Mutant::AskTwice) { 2 } else { 1 };
        for _ in 0..times {
            self.outbox.record(now, to, Kind::Nak, TopicId(0), parts, &mut self.counters);
            self.counters.add(Counter::NaksSent, 1);
        }
    }

    /// The sender first; then, every other time, another member.
    fn holder_to_ask(&self, rank: Rank, attempts: u8) -> Rank {
        let members = self.data.config.members;
        if attempts <= ATTEMPTS_AT_SENDER || attempts.is_multiple_of(2) || members < 3 {
            return rank;
        }
        let other = Rank((rank.0 + 1 + u16::from(attempts / 2) % (members - 1)) % members);
        if Some(other) == self.data.config.rank() { rank } else { other }
    }

    fn beat(&mut self, now: Instant) {
        let Some(outbound) = &self.data.outbound else { return };
        let config = &self.data.config;
        let packer = &outbound.packer;
        let formed = self.presence.is_formed();
        let mut beat_flags = if formed { heartbeat_flags::FORMED } else { 0 };
        if outbound.flow.blocked {
            beat_flags |= heartbeat_flags::SOLICIT;
        }
        let log = &self.data.streams[outbound.rank.index()].log;
        let (next_sequence, next_order) = packer.unsent(log);
        let window_bytes = own_window(config) * config.limits.mtu_bytes as u64;
        let forget = config.mutant == Some(Mutant::ForgetTail);
        let record = records::Heartbeat {
            next_number: if forget { 0 } else { packer.sent.0 }.into(),
            oldest_number: self.oldest_retained().0.into(),
            next_sequence: next_sequence.0.into(),
            next_order: next_order.0.into(),
            configuration: config.fingerprint().into(),
            window_bytes: u32::try_from(window_bytes).unwrap_or(u32::MAX).into(),
            flags: beat_flags.into(),
            address: config.address,
            heard_from: 0.into(),
            link_port: 0.into(),
        };
        let parts = [record.as_bytes(), &[]];
        self.outbox.record(now, Destination::Group, Kind::Heartbeat, TopicId(0), parts, &mut self.counters);
        let blocked = outbound.flow.blocked;
        self.heartbeat.beat(now, &config.timing, formed);
        if blocked {
            self.heartbeat.hasten(now, &self.data.config.timing);
        }
    }

    fn acknowledge(&mut self, now: Instant) {
        self.write_row(now);
        let parts = [&self.row[..], &[]];
        self.outbox.record(now, Destination::Group, Kind::Row, TopicId(0), parts, &mut self.counters);
        self.row_sent();
    }

    fn row_sent(&mut self) {
        self.counters.add(Counter::RowsSent, 1);
        if let Some(outbound) = &mut self.data.outbound {
            outbound.ack.sent();
        }
    }

    fn write_row(&mut self, now: Instant) {
        self.progress += 1;
        let heard_from = self.presence.heard_from(now, &self.data.config.timing);
        let lie = self.data.config.mutant == Some(Mutant::AckBeforeReceived);
        let order = self.data.delivered_order();
        let (row, entries) = stability::own_row(&self.data.streams, order, heard_from, self.progress, lie);
        self.row.clear();
        self.row.extend_from_slice(row.as_bytes());
        entries.for_each(|entry| self.row.extend_from_slice(entry.as_bytes()));
    }

    // ---- effects --------------------------------------------------------------------------------------------------

    /// Delivers the messages that are due, at most `limit` (give or take one datagram's); says how many.
    #[inline]
    pub fn deliver(&mut self, now: Instant, limit: usize, mut emit: impl FnMut(Delivery<'_>)) -> usize {
        let mut count = self.data.deliver(now, limit, &mut self.counters, &mut emit);
        // What a hole held back is due as soon as the hole has been crossed.
        while matches!(self.data.config.role, Role::Observer) && self.cross_holes() && count < limit {
            count += self.data.deliver(now, limit - count, &mut self.counters, &mut emit);
        }
        count
    }

    fn cross_holes(&mut self) -> bool {
        let (events, counters) = (&mut self.events, &mut self.counters);
        self.data.cross_holes(|sender, from, to| {
            counters.add(Counter::Gaps, to.since(from));
            push_event(events, counters, Event::Gap { sender, from, to });
        })
    }

    /// Hands out what must go to the network, in runs of datagrams of the given length (the last of a run may be
    /// shorter). `send` says how many datagrams it took; what it did not take is offered again next time. Says whether
    /// everything was taken.
    #[inline]
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(Destination, &[u8], usize) -> usize) -> bool {
        let wall_ns = self.wall(now);
        self.data.refresh_flow();
        if self.data.sequence(wall_ns, &mut self.counters) == Sequenced::WindowFull {
            self.heartbeat.hasten(now, &self.data.config.timing);
        }
        self.piggyback(now, wall_ns);
        let before = self.data.outbound.as_ref().map_or(DatagramNumber(0), |outbound| outbound.packer.sent);
        let all = self.data.transmit(wall_ns, &mut self.counters, &mut |bytes, segment_bytes| {
            send(Destination::Group, bytes, segment_bytes)
        });
        if self.data.outbound.as_ref().is_some_and(|outbound| outbound.packer.sent != before) {
            self.heartbeat.sent(now, &self.data.config.timing);
        }
        (self.outbox.is_empty() || self.outbox.drain(&mut send)) && all
    }

    /// Puts an acknowledgement that is nearly due into a datagram that goes out anyway.
    #[inline]
    fn piggyback(&mut self, now: Instant, wall_ns: u64) {
        let worthwhile =
            self.data.outbound.as_ref().is_some_and(|outbound| {
                outbound.packer.is_open() && outbound.ack.is_worthwhile(now, &self.data.config)
            });
        if !worthwhile {
            return;
        }
        self.write_row(now);
        let Some(outbound) = &mut self.data.outbound else { return };
        let log = &mut self.data.streams[outbound.rank.index()].log;
        if outbound.packer.fits_open(log, self.row.len()) {
            let body = outbound.packer.frame(log, TopicId(0), Kind::Row, 0, self.row.len(), wall_ns);
            body.copy_from_slice(&self.row);
            self.row_sent();
        }
    }

    /// The next event, if there is one.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    #[cold]
    fn event(&mut self, event: Event) {
        push_event(&mut self.events, &mut self.counters, event);
    }

    #[inline]
    fn wall(&self, now: Instant) -> u64 {
        now.0.wrapping_add(self.data.config.wall_offset_ns)
    }

    // ---- looking in -----------------------------------------------------------------------------------------------

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.data.config
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether every member has been heard.
    pub fn is_formed(&self) -> bool {
        self.presence.is_formed()
    }

    /// The members not heard yet.
    pub fn missing(&self) -> impl Iterator<Item = Rank> {
        self.presence.missing()
    }

    /// A member that has been silent too long, if any.
    pub fn silent(&self) -> Option<Rank> {
        self.presence.silent()
    }

    /// Whether some member was configured otherwise.
    pub fn configuration_differs(&self) -> bool {
        self.presence.any_differs()
    }

    /// How many sealed datagrams of the own stream wait for the network.
    #[inline]
    pub fn backlog(&self) -> u64 {
        self.data.outbound.as_ref().map_or(0, |outbound| outbound.packer.open.since(outbound.packer.sent))
    }

    /// The number of the next message in total order.
    pub fn delivered_order(&self) -> OrderNumber {
        self.data.delivered_order()
    }

    /// How many messages of a member have been delivered or given up here.
    pub fn delivered(&self, rank: Rank) -> Sequence {
        self.data.streams.get(rank.index()).map_or(Sequence(0), |stream| stream.delivered)
    }

    /// Every datagram of a member's stream below this has been received here.
    pub fn received(&self, rank: Rank) -> DatagramNumber {
        self.data.streams.get(rank.index()).map_or(DatagramNumber(0), |stream| stream.window.next)
    }

    /// Every datagram of a member's stream below this has been delivered to the last frame, or given up, here.
    pub fn released(&self, rank: Rank) -> DatagramNumber {
        self.data.streams.get(rank.index()).map_or(DatagramNumber(0), Stream::floor)
    }

    /// What it keeps beyond its logs, whose size is fixed.
    pub fn held(&self) -> Held {
        let (outbox_datagrams, outbox_bytes) = self.outbox.held();
        Held {
            outbox_datagrams,
            outbox_bytes,
            events: self.events.len(),
            early_datagrams: self.data.early(),
            assembly_bytes: self.data.streams.iter().map(|stream| stream.assembly.held_bytes()).sum(),
            clients: self.clients.len(),
        }
    }

    /// What this process believes `member` has received of `stream`.
    pub fn acknowledged(&self, member: Rank, stream: Rank) -> DatagramNumber {
        self.data.stability.acknowledged(member, stream)
    }

    /// The datagram being filled, the window's limit, and the slowest member: how far this member may go and why.
    pub fn window(&self) -> Option<(DatagramNumber, DatagramNumber, Option<Rank>)> {
        let outbound = self.data.outbound.as_ref()?;
        let open = if outbound.packer.is_open() { outbound.packer.open.next() } else { outbound.packer.open };
        Some((open, outbound.flow.limit, outbound.flow.slowest))
    }
}

fn push_event(events: &mut VecDeque<Event>, counters: &mut Counters, event: Event) {
    if events.len() < EVENTS_MAX {
        events.push_back(event);
    } else {
        counters.add(Counter::EventsLost, 1);
    }
}
