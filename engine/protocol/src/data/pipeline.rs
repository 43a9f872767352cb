//! The data plane as a whole: the only place where the data protocols know of each other.
//!
//! ```text
//! publish ▶ flow ▶ pack ─────────────▶ log ▶ send                     (own stream: `publish.rs`)
//! receive ▶ window ▶ log ▶ order ▶ deliver                            (every stream, the own one included)
//!              └▶ repair ▶ ask          └▶ sequencer ▶ order run ▶ pack
//!              └▶ stability ▶ row       rows of others ▶ stability ▶ flow
//! ```
//!
//! The own stream is walked for delivery like any other, so a process delivers its own messages by the same rules as
//! those of other members.

use super::DATA_CHANNEL;
use super::after::Satisfied;
use super::barrier::Barrier;
use super::causal::Causal;
use super::epoch_state::EpochState;
use super::flow::own_window;
use super::log::Log;
use super::ordering::Ordering;
use super::own_stream::{Ack, OwnStream};
use super::pacing::{BACKOFF_NS, Meter};
use super::realtime::RealTime;
use super::repair::{NakSender, RetransmitHandler};
use super::sequencer::is_run_plausible;
use super::stability::{Enough, Stability};
use super::stream::{Step, Stream};
use super::unordered::early_ranges_max;
use super::window::{Acceptance, Window};
use crate::config::{Config, Flow, Limits, Order, Reliability, Role, Start};
use crate::counters::{Counter, Counters};
use crate::event::Message;
use crate::mutant::Mutant;
use crate::values::position::{Place, Position};
use crate::view::{Beginning, View, bit};
use alloc::vec::Vec;
use bourdon_wire::records::{Marker, NakRange, OrderRun};
use bourdon_wire::{
    Datagram, DatagramNumber, Epoch, FRAME_HEADER_BYTES, Incarnation, Instant, Kind, OrderNumber, Rank, TopicId,
};
use zerocopy::IntoBytes;

#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    /// The view in which these messages are sent.
    pub(crate) view: View,
    /// By rank: the incarnation that is in the view. Looked up for every datagram.
    incarnations: Vec<Option<Incarnation>>,
    /// Where it began.
    pub(crate) beginning: Beginning,
    pub(crate) streams: Vec<Stream>,
    /// What this process sends, if it is a member of the view.
    pub(crate) outbound: Option<OwnStream>,
    /// When this process reports its progress, if it is an observer that gates.
    pub(crate) reports: Option<Ack>,
    /// By rank: which part of that member's stream does not arrive, if this process is an observer that is paced for.
    pub(crate) meters: Vec<Meter>,
    /// When the first of them has something to do.
    pub(crate) meters_due: Instant,
    pub(crate) ordering: Ordering,
    /// Which stream is served first next time.
    turn: usize,
    pub(crate) stability: Stability,
    pub(crate) barrier: Barrier,
    pub(crate) retransmit_handler: RetransmitHandler,
    pub(crate) rng: fastrand::Rng,
    pub(crate) ranges: Vec<NakRange>,
    /// The own floor or the sequencer's work may have moved since flow was computed.
    pub(super) flow_stale: bool,
    /// What may be delivered may have changed.
    pub(super) stops_stale: bool,
    /// This process is the sequencer, and a datagram has come since it found nothing to put in order.
    order_stale: bool,
    /// How this epoch ends.
    pub(crate) end: EpochState,
    /// When a gap is given up next.
    pub(crate) gap_due: Instant,
    /// When a repair is requested next: of all streams, because it is read at every step.
    pub(crate) nak_due: Instant,
    /// Whether a part of the order was lost.
    pub(crate) order_lost: bool,
    /// Which members go on to the next view, as far as that has been proposed.
    pub(crate) stays: u64,
    /// The members whose streams this process has given up waiting for at the end of the view. Only below reliable.
    pub(super) lacks: u64,
    /// Bits of suspected members, for the mutant that leaves them out.
    pub(crate) suspected: u64,
}

impl Pipeline {
    /// Whether the next message of some stream waits for another group.
    pub(crate) fn waits_elsewhere(&self) -> bool {
        self.end.is_open() && self.streams.iter().any(|stream| stream.waits_elsewhere)
    }

    /// The messages of one view. `own` is this process's rank if it is a member of the view; `spare` has logs of
    /// earlier views, for reuse.
    pub(crate) fn new(
        config: Config,
        view: View,
        own: Option<Rank>,
        beginning: &Beginning,
        spare: &mut Vec<Log>,
    ) -> Self {
        let members = usize::from(config.members);
        assert!(view.members.iter().all(|member| member.rank.index() < members), "{view:?} of {members} ranks");
        assert!(beginning.first.len() <= members, "one beginning a rank");
        let outbound = own.map(|rank| OwnStream::new(&config, &view, rank, beginning));
        let mut pipeline = Self {
            streams: streams_of(&config, &view, own, beginning, spare),
            ordering: Ordering::new(&config, &view, beginning),
            stability: Stability::new(own, members, view.bits()),
            barrier: Barrier::new(beginning.phase, members),
            retransmit_handler: RetransmitHandler::new(config.limits.mtu_bytes),
            rng: fastrand::Rng::with_seed(config.seed ^ view.epoch.0),
            ranges: Vec::with_capacity(bourdon_wire::records::NAK_RANGES_MAX),
            flow_stale: true,
            stops_stale: true,
            order_stale: false,
            end: EpochState::Open,
            gap_due: Instant::NEVER,
            nak_due: Instant::NEVER,
            lacks: 0,
            reports: (config.role == Role::Observer && config.flow == Flow::Gating).then(Ack::new),
            meters: meters_of(&config),
            meters_due: Instant::NEVER,
            order_lost: false,
            stays: 0,
            suspected: 0,
            incarnations: (0..config.members).map(|rank| view.incarnation(Rank(rank))).collect(),
            config,
            view,
            beginning: beginning.clone(),
            outbound,
            turn: 0,
        };
        pipeline.stability.senders_hold = pipeline.config.reliability != Reliability::Durable;
        pipeline.stability.overwrites = pipeline.config.mutant == Some(Mutant::RowsOverwrite);
        pipeline.update_flow();
        pipeline
    }

    /// Before the first view, or outside the group: nothing is sent or received.
    pub(crate) fn idle(config: Config, epoch: Epoch) -> Self {
        let view = View::none(epoch, config.sequencer);
        let beginning = Beginning { order: OrderNumber(0), first: Vec::new(), phase: 0 };
        Self::new(config, view, None, &beginning, &mut Vec::new())
    }

    /// Its logs, for another view.
    pub(crate) fn into_logs(self, spare: &mut Vec<Log>) {
        // Ranks that are not in the view have the smallest logs.
        let logs = self.streams.into_iter().map(|stream| stream.log);
        spare.extend(logs.filter(|log| log.capacity() > Limits::SLOTS_MIN as u64));
    }

    /// The epoch has ended: what is held moves into logs that are as small as it allows; the large ones go to `spare`.
    pub(crate) fn refit(&mut self, spare: &mut Vec<Log>) {
        self.nak_due = Instant::NEVER;
        for stream in &mut self.streams {
            stream.nak_sender = NakSender::new(1); // nothing is requested any more
            if let Some(small) = stream.log.refit() {
                spare.push(core::mem::replace(&mut stream.log, small));
            }
        }
    }

    /// The bytes that its logs take.
    pub(crate) fn retained_bytes(&self) -> usize {
        self.streams.iter().map(|stream| stream.log.bytes()).sum()
    }

    /// This process's rank, if it is a member of the view.
    #[inline]
    pub(crate) fn own(&self) -> Option<Rank> {
        self.outbound.as_ref().map(|outbound| outbound.rank)
    }

    /// Which incarnation of a rank is in the view, if any is.
    #[inline]
    pub(crate) fn incarnation(&self, rank: Rank) -> Option<Incarnation> {
        self.incarnations.get(rank.index()).copied().flatten()
    }

    /// Whether a rank is in the view.
    #[inline]
    pub(crate) fn is_present(&self, rank: Rank) -> bool {
        self.incarnation(rank).is_some()
    }

    /// Whether messages wait until other members hold them before they are delivered. A joiner at `reliable` waits for
    /// a quorum as well: what a quorum holds is in every cut. A joiner that has delivered beyond the cut starts again
    /// in another incarnation, and the view that has admitted it has a member less than it counts on.
    pub(crate) fn waits_for_others(&self) -> bool {
        let is_joiner = self.outbound.is_none() && self.config.rank().is_some();
        self.config.reliability.waits_for_others() || is_joiner && !self.is_lossy()
    }

    /// Whether a quorum of the view holds all that this joiner has delivered or received as state: every quorum that
    /// answers a ballot then has a member that holds it, so the cut contains it.
    pub(crate) fn is_held_by_quorum(&self) -> bool {
        let is_held = |stream: &Stream| {
            let (number, walked) = stream.cursor.position();
            let begun = if walked > 0 { number.next() } else { number };
            begun <= self.stability.held_by_enough(stream.rank, stream.held(), &self.view, Enough::Quorum)
        };
        let is_present = |stream: &&Stream| self.view.bits() & bit(stream.rank) != 0;
        self.is_lossy() || self.streams.iter().filter(is_present).all(is_held)
    }

    /// Whether what is received and delivered may still be acknowledged. A promise ends that too: a member that counts
    /// the acknowledgement may deliver a message that is missing in the cut, because the cut is made of the promises.
    #[inline]
    fn acknowledges(&self) -> bool {
        self.end.is_open() || self.config.mutant == Some(Mutant::AckAfterPromise)
    }

    // ---- receive ------------------------------------------------------------------------------------------------

    /// Takes a datagram of another member's stream into its window; returns whether it is new.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        kernel_receive_ns: u64,
        counters: &mut Counters,
    ) -> bool {
        let (rank, number) = (datagram.header.rank(), datagram.header.number());
        debug_assert!(self.is_present(rank) && self.own() != Some(rank), "the datagram of another member");
        if !self.may_take(datagram, counters) {
            return false;
        }
        let stream = &mut self.streams[rank.index()];
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
                if stream.behind.skips() && self.end.is_open() {
                    stream.skip_to(now, number, known_end);
                }
                if had_gap {
                    let bytes = datagram.bytes.len();
                    if stream.nak_sender.repaired(now, number, bytes, &self.config.timing) {
                        counters.add(Counter::RepairsReceived, 1);
                    } else if !datagram.header.is_retransmitted() {
                        stream.nak_sender.came(now, bytes);
                    }
                    self.nak_due = self.nak_due.min(stream.nak_sender.due);
                    if !stream.window.has_gap() {
                        stream.nak_sender.note_whole();
                        stream.behind.caught_up();
                    }
                }
                self.note_new(now, datagram, early);
            }
            Acceptance::Duplicate => counters.add(Counter::DiscardedDuplicate, 1),
            Acceptance::Beyond => {
                counters.add(Counter::DiscardedWindow, 1);
                // No publisher waits for it: it goes on at the present.
                let is_left = self.config.role == Role::Observer && self.config.flow != Flow::Gating;
                if is_left && self.end.is_open() {
                    stream.fall_behind(now, counters);
                }
            }
        }
        let has_gap = self.streams[rank.index()].window.has_gap();
        if let Some(meter) = self.meters.get_mut(rank.index()).filter(|_| !datagram.header.is_retransmitted()) {
            meter.count(now, known_end, number, (acceptance, has_gap));
            self.meters_due = self.meters_due.min(meter.due);
        }
        if number > known_end {
            self.watch_gap(now, rank, known_end);
        }
        matches!(acceptance, Acceptance::New { .. })
    }

    /// Whether a datagram's stream has begun here, or begins with it, and its markers are of possible phases.
    #[inline]
    fn may_take(&mut self, datagram: &Datagram<'_>, counters: &mut Counters) -> bool {
        let stream = &mut self.streams[datagram.header.rank().index()];
        if datagram.header.number() >= stream.accepts_to {
            counters.add(Counter::DiscardedWindow, 1);
            return false;
        }
        if !stream.window.started {
            if self.config.start == Start::Oldest {
                return false; // a heartbeat gives the oldest datagram; this one will be requested again
            }
            stream.start_at(datagram.header.number(), datagram.header.first_sequence());
        }
        if !self.end.is_open() && self.is_behind_the_barrier(datagram.header) {
            counters.add(Counter::DiscardedWindow, 1);
            return false;
        }
        if datagram.has(Kind::OrderRun) && !self.are_runs_plausible(datagram) {
            counters.add(Counter::DiscardedRun, 1);
            return false;
        }
        if datagram.has(Kind::Marker)
            && self.outbound.is_some()
            && !markers(datagram).all(|(phase, _)| self.barrier.is_plausible(phase))
        {
            counters.add(Counter::DiscardedMalformed, 1);
            return false;
        }
        true
    }

    /// Whether every order run of a datagram names messages that can exist.
    fn are_runs_plausible(&self, datagram: &Datagram<'_>) -> bool {
        if self.config.order != Order::Total || datagram.header.rank() != self.view.sequencer {
            return true; // no process reads them
        }
        let limits = &self.config.limits;
        let slots = limits.slots(limits.log_bytes.max(limits.receive_log_bytes)) as u64;
        let log_messages = slots * (limits.frame_bytes() / FRAME_HEADER_BYTES) as u64;
        let follows = self.outbound.is_none();
        let is_plausible = |run: &OrderRun| {
            let rank = Rank(run.rank.get());
            let stream =
                self.streams.get(rank.index()).filter(|stream| stream.is_present && rank != self.view.sequencer);
            // Where messages may be lost, only a stream's own headers give the numbers under which it goes on.
            let known = |stream: &&Stream| stream.is_anchored() && !stream.is_loose;
            stream.is_some_and(|stream| {
                let complete = Some(stream).filter(known).map(|stream| stream.window.complete);
                is_run_plausible(run, complete, log_messages, follows)
            })
        };
        let mut runs = datagram.frames().filter(|frame| frame.kind() == Some(Kind::OrderRun));
        runs.all(|frame| OrderRun::read(frame.body).is_some_and(|(run, _)| is_plausible(run)))
    }

    /// What a new datagram means to order, barrier, sequencer and acknowledgement. `early`: it lies beyond a gap.
    #[inline]
    fn note_new(&mut self, now: Instant, datagram: &Datagram<'_>, early: bool) {
        let (rank, number) = (datagram.header.rank(), datagram.header.number());
        // A datagram that too few members may hold does not run ahead: other members acknowledge it only once the gap
        // is closed. And once the epoch ends, only what the cut names runs ahead.
        let ahead = early && !self.waits_for_others() && self.end.is_open();
        if ahead
            && datagram.header.is_of_phase(self.barrier.phase)
            && let Ordering::Unordered(unordered) = &mut self.ordering
        {
            unordered.early.push_back((rank, number));
        }
        if datagram.has(Kind::Marker) {
            markers(datagram).for_each(|(phase, ends)| {
                self.barrier.note_marker(rank, phase, Some(number).filter(|_| ends));
            });
        }
        self.stops_stale = true;
        let acknowledges = self.acknowledges();
        let Some(outbound) = &mut self.outbound else {
            if let Some(reports) = &mut self.reports {
                reports.counted(now, &self.config, own_window(&self.config));
            }
            return;
        };
        self.order_stale = outbound.sequencer.is_some();
        if number == DatagramNumber(0)
            && self.streams[rank.index()].is_loose
            && let Some(sequencer) = &mut outbound.sequencer
        {
            sequencer.begin_at(rank, datagram.header.first_sequence());
        }
        if acknowledges {
            outbound.ack.received(now, &self.config, outbound.flow.window());
        }
    }

    /// Notes how far a stream goes.
    pub(crate) fn note_end(&mut self, now: Instant, rank: Rank, end: DatagramNumber) {
        let stream = &mut self.streams[rank.index()];
        let (capacity, floor) = (stream.log.capacity(), stream.floor());
        let known_end = stream.window.known_end;
        stream.window.note_end(end, capacity, floor);
        if stream.window.known_end > known_end {
            self.watch_gap(now, rank, known_end);
        }
    }

    /// A heartbeat of the sender announced how far its stream goes.
    pub(crate) fn note_announced_end(&mut self, now: Instant, rank: Rank, end: DatagramNumber) {
        let stream = &mut self.streams[rank.index()];
        stream.window.lower_end(&stream.log, end);
        self.note_end(now, rank, end);
    }

    /// If a gap has just been opened or widened, where the stream was known up to `known_end`, sets the time to request
    /// it.
    #[inline]
    fn watch_gap(&mut self, now: Instant, rank: Rank, known_end: DatagramNumber) {
        let repairs = self.repairs();
        let stream = &mut self.streams[rank.index()];
        if repairs && stream.window.has_gap() && self.config.mutant != Some(Mutant::ForgetNak) {
            let (timing, gap) = (&self.config.timing, known_end.0..stream.window.known_end.0);
            stream.nak_sender.watch(now, gap, timing, self.config.limits.receivers, &mut self.rng);
            self.note_nak_due();
        }
    }

    /// When a stream's next request is due has changed.
    pub(crate) fn note_nak_due(&mut self) {
        self.nak_due = self.streams.iter().map(|stream| stream.nak_sender.due).min().unwrap_or(Instant::NEVER);
    }

    /// What is missing can come again.
    pub(crate) fn hurry_repairs(&mut self, now: Instant) {
        let lacking = self.streams.iter_mut().filter(|stream| stream.nak_sender.due != Instant::NEVER);
        lacking.for_each(|stream| stream.nak_sender.hurry(now));
        self.note_nak_due();
    }

    /// Whether requests go to all members.
    pub(crate) fn asks_all(&self) -> bool {
        NakSender::asks_all(self.config.limits.receivers)
    }

    /// How long a report of what is lost waits for another observer's.
    pub(crate) fn report_backoff_ns(&mut self) -> u64 {
        NakSender::report_backoff_ns(BACKOFF_NS, self.config.limits.receivers, &mut self.rng)
    }

    /// Another receiver requested these datagrams from all; returns how many of this process's missing datagrams that
    /// covers.
    pub(crate) fn suppress(&mut self, now: Instant, rank: Rank, ranges: &[NakRange]) -> u64 {
        let (timing, stream) = (&self.config.timing, &mut self.streams[rank.index()]);
        let backoff_ns = stream.nak_sender.backoff_ns(timing, self.config.limits.receivers, &mut self.rng);
        let covered = stream.nak_sender.suppress(now, (&stream.window, &stream.log), (timing, backoff_ns), ranges);
        self.note_nak_due();
        covered
    }

    /// Collects what to request of one stream into `ranges`. Returns how often it was requested, or `None` if nothing
    /// is due.
    pub(crate) fn collect_missing(&mut self, now: Instant, rank: Rank) -> Option<u8> {
        let (timing, budget) = (&self.config.timing, own_window(&self.config));
        let stream = &mut self.streams[rank.index()];
        let received = (&stream.window, &stream.log, stream.retained_from);
        let wanted = self.end.wanted(rank);
        let attempts = stream.nak_sender.collect(now, received, wanted, timing, budget, &mut self.ranges);
        if self.config.mutant == Some(Mutant::AskWithoutPause) {
            stream.nak_sender.forget(now);
        }
        self.note_nak_due();
        (!self.ranges.is_empty()).then_some(attempts)
    }

    // ---- order and deliver --------------------------------------------------------------------------------------

    /// Packs order runs for what has been received, as far as the window allows.
    #[inline]
    pub(crate) fn sequence(&mut self, wall_ns: u64, counters: &mut Counters) -> Sequenced {
        if self.may_lack_order() { self.give_order(wall_ns, counters) } else { Sequenced::All }
    }

    fn give_order(&mut self, wall_ns: u64, counters: &mut Counters) -> Sequenced {
        let Some(outbound) = &mut self.outbound else { return Sequenced::All };
        let Some(sequencer) = &mut outbound.sequencer else { return Sequenced::All };
        let mutant = self.config.mutant;
        while sequencer.has_work(&self.streams) {
            let log = &self.streams[outbound.rank.index()].log;
            if outbound.packer.last_datagram(log, OrderRun::BYTES) >= outbound.flow.limit {
                outbound.flow.refuse();
                return Sequenced::WindowFull;
            }
            let Some(run) = sequencer.next_run(&self.streams, mutant) else { break };
            let log = &mut self.streams[outbound.rank.index()].log;
            let packer = &mut outbound.packer;
            let body = packer.frame(log, TopicId(0), Kind::OrderRun, 0, OrderRun::BYTES, wall_ns);
            body.copy_from_slice(OrderRun::new(run.rank, DATA_CHANNEL, run.first, run.count).as_bytes());
            packer.next_order = packer.next_order + u64::from(run.count);
            counters.add(Counter::OrderRunsSent, 1);
            debug_assert!(mutant.is_some() || packer.open < outbound.flow.limit, "an order run beyond the limit");
        }
        self.order_stale = false;
        Sequenced::All
    }

    /// Sets this process's marker, if a barrier is due and the window has room.
    pub(crate) fn place_marker(&mut self, wall_ns: u64) {
        let Some(outbound) = &mut self.outbound else { return };
        let Some(mut payload) = self.barrier.to_place() else { return };
        let mut asks = false;
        if let Some(sequencer) = &outbound.sequencer
            && (!self.barrier.others_have_ended(&self.streams, &self.view, outbound.rank)
                || sequencer.has_work(&self.streams))
        {
            if !self.barrier.must_ask() {
                return;
            }
            (asks, payload) = (true, None);
        }
        let log = &mut self.streams[outbound.rank.index()].log;
        let body_bytes = Marker::BYTES + payload.map_or(0, <[u8]>::len);
        if outbound.packer.last_datagram(log, body_bytes) >= outbound.flow.limit {
            outbound.flow.refuse();
            return;
        }
        let marker = Marker {
            phase: self.barrier.phase.into(),
            sequence: outbound.packer.next_sequence.0.into(),
            carries: if asks { Marker::ASKS } else { u64::from(payload.is_some()) }.into(),
        };
        let body = outbound.packer.frame(log, TopicId(0), Kind::Marker, 0, body_bytes, wall_ns);
        let (head, rest) = body.split_at_mut(Marker::BYTES);
        head.copy_from_slice(marker.as_bytes());
        rest.copy_from_slice(payload.unwrap_or_default());
        let may_break = self.config.mutant.is_some();
        debug_assert!(may_break || outbound.keeps_window(), "a marker is packed beyond the limit");
        if asks {
            self.barrier.has_asked();
        } else {
            self.barrier.set();
        }
    }

    /// How far a quorum holds a stream.
    pub(crate) fn held_by_quorum(&self, rank: Rank) -> DatagramNumber {
        let own = self.streams[rank.index()].held();
        self.stability.held_by_enough(rank, own, &self.view, Enough::Quorum)
    }

    /// By rank: every datagram that holds a delivered message is below this.
    pub(crate) fn marks(&self) -> Vec<DatagramNumber> {
        self.streams.iter().map(|stream| stream.cursor.mark()).collect()
    }

    /// The sequencer holds every message that it has put in order: an acknowledgement that needs no row.
    pub(crate) fn note_sequencer_holds(&mut self, marks: &[DatagramNumber]) {
        if Some(self.view.sequencer) != self.own() && self.stability.senders_hold {
            self.stability.note(self.view.sequencer, marks);
        }
    }

    /// Exactly what has been delivered; unknown in the middle of a message or of a view change.
    pub(crate) fn position(&self) -> Option<Position> {
        let settled = |stream: &Stream| !stream.assembly.is_begun() && !super::unordered::has_run_ahead(stream);
        if !self.end.is_open() || !self.streams.iter().all(settled) {
            return None;
        }
        let place = |stream: &Stream| {
            let (number, walked) = stream.cursor.position();
            Place { number, walked, sequence: stream.delivered }
        };
        let (order, run) = match &self.ordering {
            Ordering::Total(total) => (total.next, total.run),
            _ => (OrderNumber(0), None),
        };
        let streams = self.streams.iter().map(place).collect();
        let (epoch, phase) = (self.view.epoch, self.barrier.phase);
        Some(Position { epoch, order, run, phase, streams, clients: Vec::new(), locks: Vec::new() })
    }

    /// Goes on from the position of another process.
    pub(crate) fn resume(&mut self, position: &Position) {
        let bits = self.view.bits();
        for (stream, place) in self.streams.iter_mut().zip(&position.streams) {
            if bits & bit(stream.rank) != 0 {
                stream.resume(place.number, place.walked, place.sequence);
            }
            stream.passes = position.phase;
        }
        if let Ordering::Total(total) = &mut self.ordering {
            (total.next, total.run) = (position.order, position.run);
        }
        self.barrier = Barrier::new(position.phase, self.streams.len());
    }

    /// Whether this process is the sequencer and other members' messages wait for their order.
    #[inline]
    pub(crate) fn has_order_to_give(&self) -> bool {
        self.may_lack_order() && self.lacks_order()
    }

    /// Whether messages may wait for their order: only a datagram brings some, except where gaps are given up.
    #[inline]
    fn may_lack_order(&self) -> bool {
        let may_lack = (self.order_stale || self.is_lossy()) && self.end.is_open();
        debug_assert!(may_lack || !self.end.is_open() || !self.lacks_order(), "messages wait unnoticed");
        may_lack
    }

    #[inline]
    fn lacks_order(&self) -> bool {
        let sequencer = self.outbound.as_ref().and_then(|outbound| outbound.sequencer.as_ref());
        sequencer.is_some_and(|sequencer| sequencer.has_work(&self.streams))
    }

    /// Delivers what is due, at most `limit` messages (give or take a datagram); returns how many.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        limit: usize,
        passed: Satisfied<'_>,
        counters: &mut Counters,
        emit: &mut impl FnMut(&Message<'_>),
    ) -> usize {
        if !self.may_deliver() {
            return 0;
        }
        self.update_stops();
        let max_message_bytes = self.config.limits.max_message_bytes;
        // The end of a view waits for no other group.
        let passed = if self.end.is_open() { passed } else { &super::after::always };
        let instance = self.view.instance;
        let step = Step { now, epoch: self.view.epoch, instance, max_message_bytes, late: false, passed };
        let mutant = self.config.mutant;
        let (streams, turn) = (&mut self.streams[..], self.turn);
        self.turn = if turn + 1 == streams.len() { 0 } else { turn + 1 };
        let mut bytes = 0;
        let emit = &mut |delivery: &Message<'_>| {
            bytes += delivery.payload.len() as u64;
            emit(delivery);
        };
        let count = match &mut self.ordering {
            Ordering::Fifo => super::fifo::deliver(streams, turn, limit, &step, emit),
            Ordering::Unordered(unordered) => {
                let ranges_max = early_ranges_max(self.config.members);
                unordered.deliver(streams, turn, limit, ranges_max, &step, emit)
            }
            Ordering::Causal(_) => Causal::deliver(streams, turn, limit, &step, mutant, emit),
            Ordering::Total(total) => total.deliver(streams, limit, &step, mutant, counters, emit),
            Ordering::RealTime(real_time) => real_time.deliver(streams, limit, &step, mutant, emit),
        };
        if count > 0 {
            counters.add(Counter::Delivered, count as u64);
            counters.add(Counter::DeliveredBytes, bytes);
            self.flow_stale = true;
            let acknowledges = self.acknowledges();
            if let Some(outbound) = self.outbound.as_mut().filter(|_| acknowledges) {
                outbound.ack.delivered(now, &self.config);
            } else if let Some(reports) = &mut self.reports {
                reports.delivered(now, &self.config);
            }
        }
        count
    }

    /// What has been delivered ahead of its turn or waits for that, in entries.
    pub(crate) fn early(&self) -> usize {
        match &self.ordering {
            Ordering::Unordered(unordered) => unordered.early.len(),
            _ => 0,
        }
    }

    /// The time at which [`Pipeline::deliver`] has something to do even if nothing comes.
    #[inline]
    pub(crate) fn delivery_due(&self) -> Instant {
        if self.gap_due == Instant::NEVER && self.config.order != Order::RealTime {
            return Instant::NEVER;
        }
        if matches!(self.end, EpochState::Fetching(..)) {
            return self.gap_due;
        }
        if !self.may_deliver() {
            return Instant::NEVER;
        }
        self.gap_due.min(self.real_time().map_or(Instant::NEVER, |real_time| real_time.due))
    }

    /// The state of real-time order, where that is the order.
    pub(crate) fn real_time(&self) -> Option<&RealTime> {
        match &self.ordering {
            Ordering::RealTime(real_time) => Some(real_time),
            _ => None,
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

    /// Rows came: what may be delivered may have changed.
    pub(crate) fn note_rows(&mut self) {
        self.stops_stale = true;
        self.update_flow();
    }

    /// Moves each stream's stop to where enough members hold it.
    #[inline]
    fn update_stops(&mut self) {
        if core::mem::take(&mut self.stops_stale) && self.waits_for_others() && self.end.is_open() {
            self.raise_stops();
        }
    }

    pub(crate) fn raise_stops(&mut self) {
        let (view, stability) = (&self.view, &self.stability);
        let suspected = if self.config.mutant == Some(Mutant::AllButSuspected) { self.suspected } else { 0 };
        let enough = match self.config.reliability {
            Reliability::Stable => Enough::AllBut(suspected),
            _ => Enough::Quorum,
        };
        for stream in self.streams.iter_mut().filter(|stream| view.bits() & bit(stream.rank) != 0) {
            let held = stability.held_by_enough(stream.rank, stream.held(), view, enough);
            let held = if self.config.mutant == Some(Mutant::UniformAtOne) { stream.window.next } else { held };
            // What was delivered stays delivered; a stop never falls.
            stream.stop = if stream.stop.0 == u64::MAX { held } else { stream.stop.max(held) };
            debug_assert!(held <= stream.stop, "what may be delivered stays so");
        }
    }
}

/// An observer that is paced for measures every stream.
fn meters_of(config: &Config) -> Vec<Meter> {
    let measures = config.role == Role::Observer && config.flow == Flow::Paced;
    (0..config.members).filter(|_| measures).map(|_| Meter::new(config.start != Start::Oldest)).collect()
}

/// How far ordering has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequenced {
    /// Everything that waited is in order.
    All,
    /// The window has no room for another run.
    WindowFull,
}

/// The phases that end in a datagram, or are requested to end.
fn markers(datagram: &Datagram<'_>) -> impl Iterator<Item = (u64, bool)> {
    let frames = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Marker));
    let read = |frame: bourdon_wire::Frame<'_>| Marker::read(frame.body).map(|(m, _)| (m.phase.get(), m.ends_phase()));
    frames.filter_map(read)
}

/// The stream of each member, by rank; for a rank that is not in the view the smallest there is.
fn streams_of(
    config: &Config,
    view: &View,
    own: Option<Rank>,
    beginning: &Beginning,
    spare: &mut Vec<Log>,
) -> Vec<Stream> {
    let (limits, present) = (&config.limits, view.bits());
    let streams = (0..config.members).map(Rank).map(|rank| {
        let is_present = present & bit(rank) != 0;
        let bytes = match () {
            () if !is_present => 0,
            () if Some(rank) == own => limits.log_bytes,
            () => limits.receive_log_bytes,
        };
        let log = reuse(spare, limits, bytes);
        let started = own.is_some() || !is_present;
        let window = if started { Window::from_the_start() } else { Window::default() };
        let mut stream = Stream::new(rank, log, window, beginning.first_of(rank), beginning.phase);
        stream.is_present = is_present;
        stream.incarnation = view.incarnation(rank).unwrap_or_default();
        stream.is_loose = config.reliability.is_lossy();
        stream.cursor.may_grow = Some(rank) == own;
        stream
    });
    streams.collect()
}

/// A log of so many bytes: an unused one, if there is one of that size.
fn reuse(spare: &mut Vec<Log>, limits: &Limits, bytes: usize) -> Log {
    let slots = limits.slots(bytes);
    let fits = spare.iter().position(|log| log.capacity() == slots as u64 && log.mtu() == limits.mtu_bytes);
    match fits.map(|index| spare.swap_remove(index)) {
        Some(mut log) => {
            log.clear();
            debug_assert!(!log.holds(DatagramNumber(0)), "a log begins empty");
            log
        }
        None => Log::new(limits.mtu_bytes, slots, limits.prefault),
    }
}
