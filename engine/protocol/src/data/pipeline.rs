//! The data plane, joined: the one place where the data protocols know of each other.
//!
//! ```text
//! publish ▶ flow ▶ pack ─────────────▶ log ▶ send                     (own stream)
//! receive ▶ window ▶ log ▶ order ▶ deliver                            (every stream, the own one included)
//!              └▶ repair ▶ ask          └▶ sequencer ▶ order run ▶ pack
//!              └▶ stability ▶ row       rows of others ▶ stability ▶ flow
//! ```
//!
//! The own stream is walked for delivery like any other, so a process delivers its own messages by the same rules as
//! everybody's.

use super::causal::Causal;
use super::flow::Flow;
use super::log::Log;
use super::pack::{Claim, Outgoing, Packer, extension_bytes};
use super::repair::{Answerer, Asker};
use super::sequencer::Sequencer;
use super::stability::Stability;
use super::stream::{Step, Stream};
use super::total::TotalOrder;
use super::unordered::Unordered;
use super::window::{Acceptance, Window};
use crate::config::{Config, Order, Role, Start};
use crate::counters::{Counter, Counters};
use crate::event::{Delivery, Refusal};
use crate::mutant::Mutant;
use alloc::vec::Vec;
use bourdon_wire::records::{NakRange, OrderRun};
use bourdon_wire::{
    ChannelId, Datagram, DatagramHeader, DatagramNumber, FRAME_HEADER_BYTES, Instant, Kind, OrderNumber, Rank,
    Sequence, TopicId,
};
use zerocopy::IntoBytes;

/// The one channel there is so far.
pub(crate) const DATA_CHANNEL: ChannelId = ChannelId(0);

/// When to acknowledge.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) due: Instant,
    /// When the first datagram came that has not been acknowledged.
    since: Instant,
    datagrams: u64,
}

/// A member's sending half.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) rank: Rank,
    pub(crate) packer: Packer,
    pub(crate) flow: Flow,
    pub(crate) sequencer: Option<Sequencer>,
    pub(crate) ack: Ack,
}

#[derive(Debug)]
enum Ordering {
    Fifo,
    Unordered(Unordered),
    Causal(Causal),
    Total(TotalOrder),
}

impl Ordering {
    fn causal(&mut self) -> Option<&mut Causal> {
        match self {
            Self::Causal(causal) => Some(causal),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) streams: Vec<Stream>,
    pub(crate) outbound: Option<Outbound>,
    ordering: Ordering,
    /// Which stream is served first next time.
    turn: usize,
    pub(crate) stability: Stability,
    pub(crate) answerer: Answerer,
    pub(crate) rng: fastrand::Rng,
    pub(crate) ranges: Vec<NakRange>,
    /// Own floor or sequencer's work may have moved since flow was computed.
    flow_stale: bool,
}

impl Pipeline {
    pub(crate) fn new(config: Config) -> Self {
        let limits = &config.limits;
        let members = usize::from(config.members);
        let own = config.rank();
        let streams = (0..config.members).map(Rank).map(|rank| {
            let bytes = if Some(rank) == own { limits.log_bytes } else { limits.receive_log_bytes };
            let log = Log::new(limits.mtu_bytes, limits.slots(bytes), limits.prefault);
            let started = matches!(config.role, Role::Member(_));
            Stream::new(rank, log, if started { Window::from_the_start() } else { Window::default() })
        });
        let streams: Vec<Stream> = streams.collect();
        let total = config.order == Order::Total;
        let own_slots = limits.slots(limits.log_bytes) as u64;
        let outbound = own.map(|rank| {
            let header = DatagramHeader::new(config.group, config.epoch, rank, config.incarnation, DATA_CHANNEL);
            let sequences = total && rank == config.sequencer;
            Outbound {
                rank,
                packer: Packer::new(header),
                flow: Flow::new(rank, members, own_window(&config).min(own_slots), sequences),
                sequencer: sequences.then(|| Sequencer::new(rank, members)),
                ack: Ack { due: Instant::NEVER, since: Instant::NEVER, datagrams: 0 },
            }
        });
        let ordering = match config.order {
            Order::Unordered => Ordering::Unordered(Unordered::default()),
            Order::Fifo => Ordering::Fifo,
            Order::Causal => Ordering::Causal(Causal::new(members)),
            Order::Total => Ordering::Total(TotalOrder::new(config.sequencer)),
        };
        let mut pipeline = Self {
            stability: Stability::new(own, members),
            answerer: Answerer::new(),
            rng: fastrand::Rng::with_seed(config.seed),
            ranges: Vec::with_capacity(bourdon_wire::records::NAK_RANGES_MAX),
            flow_stale: true,
            config,
            streams,
            outbound,
            ordering,
            turn: 0,
        };
        pipeline.stability.overwrites = pipeline.config.mutant == Some(Mutant::RowsOverwrite);
        pipeline.update_flow();
        pipeline
    }

    // ---- publish ------------------------------------------------------------------------------------------------

    /// Whether a message of this length can be taken now. `whole`: only in one frame.
    #[inline]
    pub(crate) fn admit(&mut self, outgoing: &Outgoing, length: usize, whole: bool) -> Result<(), Refusal> {
        let Some(outbound) = &mut self.outbound else { return Err(Refusal::Observer) };
        let vector = match &mut self.ordering {
            Ordering::Causal(causal) => {
                let log = &self.streams[outbound.rank.index()].log;
                causal.prepare(&self.streams, outbound.rank, false);
                let follows = outbound.packer.continues(log, extension_bytes(outgoing, causal.vector()) + length);
                if !follows && self.config.mutant != Some(Mutant::VectorNeverWhole) {
                    causal.prepare(&self.streams, outbound.rank, true);
                }
                causal.vector()
            }
            _ => &[],
        };
        let log = &self.streams[outbound.rank.index()].log;
        let body_bytes = extension_bytes(outgoing, vector) + length;
        if length > self.config.limits.max_message_bytes || !Packer::is_whole(log, body_bytes) {
            let limits = &self.config.limits;
            let frame_bytes = limits.frame_bytes() - FRAME_HEADER_BYTES - (body_bytes - length);
            let quarter_bytes = outbound.flow.window() as usize * limits.mtu_bytes / 4;
            let limit_bytes = limits.max_message_bytes.min(if whole { frame_bytes } else { quarter_bytes });
            if length > limit_bytes {
                return Err(Refusal::TooLarge { limit_bytes });
            }
        }
        if outbound.packer.last_datagram(log, body_bytes) >= outbound.flow.data_limit
            && self.config.mutant != Some(Mutant::IgnoreWindow)
        {
            outbound.flow.blocked = true;
            return Err(Refusal::Window);
        }
        Ok(())
    }

    /// Packs a plain message if the datagram that is open has room for it: the common case, in which nothing need be
    /// asked.
    #[inline]
    pub(crate) fn append(&mut self, outgoing: &Outgoing, payload: &[u8]) -> Option<Sequence> {
        let outbound = self.outbound.as_mut()?;
        if !outgoing.is_plain()
            || payload.len() > self.config.limits.max_message_bytes
            || matches!(self.ordering, Ordering::Causal(_))
        {
            return None;
        }
        outbound.packer.append(&mut self.streams[outbound.rank.index()].log, outgoing.topic, payload)
    }

    /// Claims space for one admitted message that fits a datagram. `None` for an observer.
    #[inline]
    pub(crate) fn claim<'a>(
        &'a mut self,
        wall_ns: u64,
        outgoing: &Outgoing,
        length: usize,
        counters: &'a mut Counters,
    ) -> Option<Claim<'a>> {
        let outbound = self.outbound.as_mut()?;
        let log = &mut self.streams[outbound.rank.index()].log;
        Some(outbound.packer.claim(log, outgoing, self.ordering.causal(), length, wall_ns, counters))
    }

    /// Packs an admitted message of any length. `None` for an observer.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        wall_ns: u64,
        outgoing: &Outgoing,
        payload: &[u8],
        counters: &mut Counters,
    ) -> Option<Sequence> {
        let body_bytes = payload.len();
        let outbound = self.outbound.as_mut()?;
        let log = &mut self.streams[outbound.rank.index()].log;
        let mut causal = self.ordering.causal();
        let vector = causal.as_ref().map_or(&[][..], |causal| causal.vector());
        if Packer::is_whole(log, extension_bytes(outgoing, vector) + body_bytes) {
            let mut claim = outbound.packer.claim(log, outgoing, causal, body_bytes, wall_ns, counters);
            claim.copy_from_slice(payload);
            return Some(claim.commit());
        }
        counters.add(Counter::Published, 1);
        let sequence = outbound.packer.fragments(log, outgoing, vector, payload, wall_ns);
        if let Some(causal) = &mut causal {
            causal.sent();
        }
        Some(sequence)
    }

    // ---- receive ------------------------------------------------------------------------------------------------

    /// Takes a datagram of another member's stream into its window.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        kernel_receive_ns: u64,
        counters: &mut Counters,
    ) {
        let (rank, number) = (datagram.header.rank(), datagram.header.number());
        let stream = &mut self.streams[rank.index()];
        if !stream.window.started {
            if self.config.start == Start::Oldest {
                return; // where the oldest stands is said by a heartbeat; this one will be asked for again
            }
            stream.start_at(number, datagram.header.first_sequence());
        }
        let floor = stream.floor();
        let (had_gap, known_end) = (stream.window.has_gap(), stream.window.known_end);
        let mut acceptance = stream.window.accept(&mut stream.log, datagram, kernel_receive_ns, floor);
        if self.config.mutant == Some(Mutant::DeliverDuplicate)
            && acceptance == Acceptance::Duplicate
            && let Some(slot) = stream.log.slot_mut(number).filter(|_| number > stream.window.next)
        {
            slot.delivered_early = false;
            acceptance = Acceptance::New { early: true };
        }
        match acceptance {
            Acceptance::New { early } => {
                counters.add(Counter::DatagramsReceived, 1);
                stream.anchor();
                if had_gap && stream.asker.repaired(now, number, &self.config.timing) {
                    counters.add(Counter::RepairsReceived, 1);
                }
                if early && let Ordering::Unordered(unordered) = &mut self.ordering {
                    unordered.early.push_back((rank, number));
                }
                if let Some(outbound) = &mut self.outbound {
                    outbound.ack.received(now, &self.config, outbound.flow.window());
                }
            }
            Acceptance::Duplicate => counters.add(Counter::DiscardedDuplicate, 1),
            Acceptance::Beyond => counters.add(Counter::DiscardedWindow, 1),
        }
        if number > known_end {
            self.watch_gap(now, rank);
        }
    }

    /// Hears how far a stream goes.
    pub(crate) fn note_end(&mut self, now: Instant, rank: Rank, end: DatagramNumber) {
        let stream = &mut self.streams[rank.index()];
        let (capacity, floor) = (stream.log.capacity(), stream.floor());
        let known_end = stream.window.known_end;
        stream.window.note_end(end, capacity, floor);
        if stream.window.known_end > known_end {
            self.watch_gap(now, rank);
        }
    }

    /// If a gap has just been opened or widened, sets the time to ask for it.
    #[inline]
    fn watch_gap(&mut self, now: Instant, rank: Rank) {
        let stream = &mut self.streams[rank.index()];
        if stream.window.has_gap() && self.config.mutant != Some(Mutant::ForgetNak) {
            let delay = stream.asker.backoff_ns(&self.config.timing, self.config.limits.receivers, &mut self.rng);
            stream.asker.arm(now, delay);
        }
    }

    /// Whether requests go to everybody.
    pub(crate) fn asks_all(&self) -> bool {
        Asker::asks_all(self.config.limits.receivers)
    }

    /// Collects what to ask for of one stream into `ranges`; how often it was asked for, or `None` if nothing is due.
    pub(crate) fn collect_missing(&mut self, now: Instant, rank: Rank) -> Option<u8> {
        let (timing, budget) = (&self.config.timing, own_window(&self.config));
        let stream = &mut self.streams[rank.index()];
        let (window, log) = (&stream.window, &stream.log);
        let attempts = stream.asker.collect(now, window, log, timing, budget, &mut self.ranges);
        if self.config.mutant == Some(Mutant::AskWithoutPause) {
            stream.asker.forget(now);
        }
        (!self.ranges.is_empty()).then_some(attempts)
    }

    // ---- order and deliver --------------------------------------------------------------------------------------

    /// Packs order runs for what has been received, as far as the window allows.
    #[inline]
    pub(crate) fn sequence(&mut self, wall_ns: u64, counters: &mut Counters) -> Sequenced {
        let Some(outbound) = &mut self.outbound else { return Sequenced::All };
        let Some(sequencer) = &mut outbound.sequencer else { return Sequenced::All };
        let mutant = self.config.mutant;
        while sequencer.has_work(&self.streams) {
            let log = &self.streams[outbound.rank.index()].log;
            if outbound.packer.last_datagram(log, OrderRun::BYTES) >= outbound.flow.limit {
                outbound.flow.blocked = true;
                return Sequenced::WindowFull;
            }
            let Some(run) = sequencer.next_run(&self.streams, mutant) else { break };
            let log = &mut self.streams[outbound.rank.index()].log;
            let packer = &mut outbound.packer;
            let body = packer.frame(log, TopicId(0), Kind::OrderRun, 0, OrderRun::BYTES, wall_ns);
            body.copy_from_slice(OrderRun::new(run.rank, DATA_CHANNEL, run.first, run.count).as_bytes());
            packer.next_order = packer.next_order + u64::from(run.count);
            counters.add(Counter::OrderRunsSent, 1);
        }
        Sequenced::All
    }

    /// Whether this process is the sequencer and others' messages wait for their order.
    #[inline]
    pub(crate) fn has_order_to_give(&self) -> bool {
        let sequencer = self.outbound.as_ref().and_then(|outbound| outbound.sequencer.as_ref());
        sequencer.is_some_and(|sequencer| sequencer.has_work(&self.streams))
    }

    /// Makes what was just put in order deliverable here, before it is sent.
    #[inline]
    pub(crate) fn close_early(&mut self, wall_ns: u64) {
        let Some(outbound) = &mut self.outbound else { return };
        if outbound.packer.is_open() {
            let stream = &mut self.streams[outbound.rank.index()];
            outbound.packer.close_early(&mut stream.log, wall_ns);
            stream.window.next = outbound.packer.open;
            stream.window.known_end = outbound.packer.open;
            stream.window.complete = outbound.packer.next_sequence;
        }
    }

    /// Delivers what is due, at most `limit` messages (give or take a datagram); says how many.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        limit: usize,
        counters: &mut Counters,
        emit: &mut impl FnMut(Delivery<'_>),
    ) -> usize {
        let max_message_bytes = self.config.limits.max_message_bytes;
        let step = Step { now, epoch: self.config.epoch, max_message_bytes };
        let mutant = self.config.mutant;
        let (streams, turn) = (&mut self.streams[..], self.turn);
        self.turn = (turn + 1) % streams.len();
        let mut bytes = 0;
        let emit = &mut |delivery: Delivery<'_>| {
            bytes += delivery.payload.len() as u64;
            emit(delivery);
        };
        let count = match &mut self.ordering {
            Ordering::Fifo => super::fifo::deliver(streams, turn, limit, &step, emit),
            Ordering::Unordered(unordered) => unordered.deliver(streams, turn, limit, &step, emit),
            Ordering::Causal(_) => Causal::deliver(streams, turn, limit, &step, mutant, emit),
            Ordering::Total(total) => total.deliver(streams, limit, &step, mutant, counters, emit),
        };
        if count > 0 {
            counters.add(Counter::Delivered, count as u64);
            counters.add(Counter::DeliveredBytes, bytes);
            self.flow_stale = true;
            if let Some(outbound) = &mut self.outbound {
                outbound.ack.delivered(now, &self.config);
            }
        }
        count
    }

    /// Steps over holes that have been reached, and says what was lost; says whether there was one.
    pub(crate) fn cross_holes(&mut self, mut lost: impl FnMut(Rank, Sequence, Sequence)) -> bool {
        let (mut crossed, mut order_lost) = (false, false);
        for stream in &mut self.streams {
            if let Some((from, to)) = stream.skipped.take() {
                lost(stream.rank, from, to);
            }
            if stream.hole.is_some()
                && let Some((from, to)) = stream.cross_hole()
            {
                lost(stream.rank, from, to);
                crossed = true;
                order_lost |= self.config.order == Order::Total && stream.rank == self.config.sequencer;
            }
        }
        if order_lost {
            // The order of some messages was lost with it: those that a later run passes over are lost as well.
            self.streams.iter_mut().for_each(|stream| stream.ordered = true);
        }
        crossed
    }

    /// What has been delivered ahead of its turn or waits to be, in entries.
    pub(crate) fn early(&self) -> usize {
        match &self.ordering {
            Ordering::Unordered(unordered) => unordered.early.len(),
            _ => 0,
        }
    }

    /// The number of the next message in total order.
    pub(crate) fn delivered_order(&self) -> OrderNumber {
        match &self.ordering {
            Ordering::Total(total) => total.next,
            _ => OrderNumber(0),
        }
    }

    // ---- flow ---------------------------------------------------------------------------------------------------

    /// Computes the window anew if anything it depends on moved.
    #[inline]
    pub(crate) fn refresh_flow(&mut self) {
        if self.flow_stale {
            self.update_flow();
        }
    }

    pub(crate) fn update_flow(&mut self) {
        self.flow_stale = false;
        if let Some(outbound) = &mut self.outbound {
            let own = &self.streams[outbound.rank.index()];
            outbound.flow.update(&self.stability, own.floor(), &own.log);
        }
    }

    // ---- send ---------------------------------------------------------------------------------------------------

    /// Offers everything packed to the network; says whether it took all.
    #[inline]
    pub(crate) fn transmit(
        &mut self,
        wall_ns: u64,
        counters: &mut Counters,
        send: &mut impl FnMut(&[u8], usize) -> usize,
    ) -> bool {
        let Some(outbound) = &mut self.outbound else { return true };
        let packer = &mut outbound.packer;
        let stream = &mut self.streams[outbound.rank.index()];
        if packer.is_open() {
            packer.close(&mut stream.log, false, wall_ns);
        }
        packer.settle();
        while packer.sent < packer.open {
            let bytes = stream.log.run(packer.sent, packer.open);
            let mtu = stream.log.mtu();
            let offered = bytes.len().div_ceil(mtu);
            let taken = send(bytes, mtu.min(bytes.len()));
            packer.sent = packer.sent + taken as u64;
            counters.add(Counter::DatagramsSent, taken as u64);
            if taken < offered {
                break;
            }
        }
        // What has been sealed is delivered here like anybody's; sent or not, it will be.
        stream.window.next = packer.open;
        stream.window.known_end = packer.open;
        stream.window.complete = packer.next_sequence;
        packer.sent == packer.open
    }
}

/// How far ordering came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequenced {
    /// Everything that waited is in order.
    All,
    /// The window has no room for another run.
    WindowFull,
}

impl Ack {
    #[inline]
    fn received(&mut self, now: Instant, config: &Config, window: u64) {
        self.delivered(now, config);
        self.datagrams += 1;
        if self.datagrams >= window / 8 {
            self.due = now;
        }
    }

    #[inline]
    fn delivered(&mut self, now: Instant, config: &Config) {
        if self.due == Instant::NEVER {
            (self.since, self.due) = (now, now + config.timing.ack_delay_ns);
        }
    }

    /// Whether an acknowledgement may as well go along with what is being sent.
    #[inline]
    pub(crate) fn is_worthwhile(&self, now: Instant, config: &Config) -> bool {
        self.due != Instant::NEVER && now.since(self.since) >= config.timing.ack_delay_ns / 2
    }

    pub(crate) fn sent(&mut self) {
        (self.due, self.since, self.datagrams) = (Instant::NEVER, Instant::NEVER, 0);
    }
}

/// The datagrams of one stream that can be under way to this process: what its socket and its log can hold.
pub(crate) fn own_window(config: &Config) -> u64 {
    let limits = &config.limits;
    let log_slots = limits.slots(limits.receive_log_bytes) as u64;
    ((limits.window_bytes / limits.mtu_bytes) as u64).min(log_slots)
}
