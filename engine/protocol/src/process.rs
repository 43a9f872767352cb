//! One process of a group, without I/O: the simulator and the node both run it.
//!
//! Only here do the data plane and the control plane meet. Each datagram received is checked, attributed to a member of
//! this view in its incarnation, and handed to the protocol it belongs to; everything else is discarded and counted.
//! See the crate's page for the step contract.
//!
//! This file has the functions that an application calls and the path of a datagram. Beside it: `change.rs` drives the
//! change from one view to the next, `outside.rs` finds the group, `follower.rs` catches up with it view by view,
//! `retention.rs` retains the epochs that have ended, `speak.rs` sends what is due, `transfer.rs` moves state,
//! `direct.rs` sends and receives direct messages beside the streams, `ahead.rs` keeps datagrams of the next view,
//! `coordinate.rs` drives locks and elections, `inspect.rs` reads the state, `trust.rs` decides which claims are
//! accepted and which addresses get long answers.

mod across;
mod ahead;
mod change;
mod coordinate;
mod direct;
mod follower;
mod inspect;
mod instances;
mod outside;
mod retention;
mod speak;
mod steps;
mod transfer;
mod trust;

pub use inspect::Held;
pub use trust::is_for_one;

use crate::config::{Config, ConfigError, Feedback, Order, Role};
use crate::control::clients::{Clients, Request};
use crate::control::clock_sync::ClockSync;
use crate::control::detector::{Detector, Path};
use crate::control::direct::Direct;
use crate::control::discovery::Discovery;
use crate::control::heartbeat::Heartbeat;
use crate::control::membership::{Membership, RejoinDelay};
use crate::control::presence::Presence;
use crate::control::view_change::birth_above;
use crate::control::view_change::driver::Driver;
use crate::counters::{Counter, Counters};
use crate::data::DATA_CHANNEL;
use crate::data::after::{self, Passed};
use crate::data::cut::Unsettled;
use crate::data::epoch_state::EpochState;
use crate::data::log::Log;
use crate::data::pack::{Claim, Outgoing};
use crate::data::pipeline::{Pipeline, Sequenced};
use crate::event::{Delivery, Event, Refusal};
use crate::mutant::Mutant;
use crate::outbox::{Destination, Outbox};
use crate::view::{Beginning, Member, View, bit};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{self, ClientAnswer, refusals, request_flags};
use bourdon_wire::{
    CONTROL_CHANNEL, ClientId, ClientTag, Datagram, DatagramHeader, DatagramNumber, Discard, Epoch, Frame, Incarnation,
    InstanceId, Instant, Kind, OrderNumber, Rank, Sequence, TopicName,
};

/// Events that the application has not fetched; further events are counted and dropped. Each event names a rank or a
/// rare fault, so a full queue holds all events of a view several times over.
const EVENTS_MAX: usize = 256;

/// The current role of a process in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Configured as a member, before the first view.
    Forming,
    /// In no view, and following none: it searches for the group.
    Outside,
    /// Receives what a view sends, without being in it: an observer or a joiner.
    Following,
    /// A member of the view.
    Member,
    /// It left for good.
    Gone,
}

/// How long the last member waits for a joiner: the time of several snapshots and rejoin delays. A leaver also answers
/// for so long the processes that may not know of its leave.
const LEAVE_WAIT_NS: u64 = 5_000_000_000;

/// Messages that an earlier incarnation published and did not see delivered.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    incarnation: Incarnation,
    instance: InstanceId,
    /// The first view without that incarnation.
    epoch: Epoch,
    published: Sequence,
}

/// A group member or observer.
#[derive(Debug)]
pub struct Process {
    config: Config,
    standing: Standing,
    /// The current epoch's messages.
    data: Pipeline,
    /// The epochs that have ended.
    past: retention::Retention,
    /// The view that this process entered last.
    before: View,
    /// Logs of earlier views, to be reused.
    spare: Vec<Log>,
    /// How the current epoch ends; only a process that takes part in that decision has a driver.
    change: Option<Driver>,
    clock: change::Clock,
    /// Before the first view: the candidate for the instance's name in the current ballot.
    candidate: InstanceId,
    membership: Membership,
    detector: Detector,
    presence: Presence,
    no_majority: bool,
    hand_over: Option<Rank>,
    leaving: bool,
    /// Until when it waits for a joiner, if no other member would be left.
    leave_by: Instant,
    /// The first epoch without this process, and when it stops at the latest: until then it answers processes that have
    /// missed its leave.
    farewell: Option<(Epoch, Instant)>,
    rejoin: RejoinDelay,
    doubt: Option<Doubt>,
    search: outside::Search,
    /// Other instances that this process has heard of.
    discovery: Discovery,
    /// Draws incarnations, candidates and nonces.
    rng: fastrand::Rng,
    /// Its own incarnations before this one.
    earlier: VecDeque<Incarnation>,
    /// When it started.
    started_wall_ns: u64,
    /// Messages published in earlier views, to be published again before anything else.
    unsettled: VecDeque<Unsettled>,
    transfer: transfer::Transfer,
    trust: trust::Trust,
    heartbeat: Heartbeat,
    clock_sync: ClockSync,
    clients: Clients,
    direct: Direct,
    coordination: coordinate::Coordinator,
    outbox: Outbox,
    /// A view was entered, and the application can't have fetched its event yet: nothing of that view is delivered
    /// before.
    is_view_new: bool,
    /// The outbox holds the decision that begins this view, and this process proposed it.
    announces_view: bool,
    counters: Counters,
    events: VecDeque<Event>,
    version_reported: bool,
    progress: u64,
    /// A buffer in which this process writes its row.
    row: Vec<u8>,
    /// Datagrams received of the next view.
    ahead: ahead::Ahead,
}

impl Process {
    /// Creates a process that searches for its group, or starts in the view of its configuration.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(now: Instant, config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let (rank, members) = (config.rank(), usize::from(config.members));
        let standing = if rank.is_some() { Standing::Forming } else { Standing::Outside };
        let mut process = Self {
            data: Pipeline::idle(config.clone(), Epoch(0)),
            past: retention::Retention::default(),
            before: View::none(Epoch(0), config.sequencer),
            spare: Vec::new(),
            change: None,
            clock: change::Clock::default(),
            candidate: InstanceId::NONE,
            membership: Membership::new(),
            detector: Detector::new(now, rank, 0, &config.timing.detector),
            presence: Presence::new(rank, members),
            no_majority: false,
            hand_over: None,
            leaving: false,
            leave_by: Instant::NEVER,
            farewell: None,
            rejoin: RejoinDelay::new(),
            doubt: None,
            search: outside::Search::default(),
            discovery: Discovery::default(),
            rng: fastrand::Rng::with_seed(config.seed ^ u64::from(config.incarnation.0) << 32 ^ 0x1d5),
            earlier: VecDeque::new(),
            started_wall_ns: now.0.wrapping_add(config.wall_offset_ns),
            unsettled: VecDeque::new(),
            transfer: transfer::Transfer::default(),
            trust: trust::Trust::new(now, &config),
            heartbeat: Heartbeat::new(now),
            clock_sync: ClockSync::new(),
            clients: Clients::default(),
            direct: direct::begin(&config),
            coordination: coordinate::Coordinator::new(&config),
            outbox: Outbox::new(header(&config, InstanceId::NONE, Epoch(0)), config.wall_offset_ns),
            is_view_new: false,
            announces_view: false,
            counters: Counters::default(),
            events: VecDeque::new(),
            version_reported: false,
            progress: 0,
            row: Vec::new(),
            ahead: ahead::Ahead::default(),
            standing,
            config,
        };
        process.begin(now);
        process.is_view_new = false;
        Ok(process)
    }

    /// The birth of an instance that would form now.
    fn birth_now(&self, now: Instant) -> u64 {
        birth_above(self.wall(now) / 1_000_000, self.config.birth_floor)
    }

    /// Enters the configured view, or prepares for the first.
    fn begin(&mut self, now: Instant) {
        let members = self.config.members;
        if let Some(view) = self.config.view.clone() {
            let first = alloc::vec![Sequence(0); usize::from(members)];
            self.enter(now, view, &Beginning { order: OrderNumber(0), first, phase: 0 });
        } else if let Some(rank) = self.config.rank() {
            let own = Member { rank, incarnation: self.config.incarnation };
            if members == 1 {
                // There is no other member to agree with.
                let (instance, birth) = (self.config.instance_candidate, self.birth_now(now));
                let view = View { instance, birth, ..View::of_all(Epoch(1), 1, own.incarnation, own.rank) };
                let beginning = Beginning { order: OrderNumber(0), first: alloc::vec![Sequence(0)], phase: 0 };
                return self.enter(now, view, &beginning);
            }
            let view = View::forming(members, self.config.sequencer);
            self.change = Some(self.driver_of(own, view));
        }
    }

    // ---- inputs: the application ----------------------------------------------------------------------------------

    /// Publishes a message.
    ///
    /// # Errors
    /// The reason why the message can't be accepted now; nothing of it was sent.
    #[inline]
    pub fn try_publish(&mut self, now: Instant, outgoing: &Outgoing, payload: &[u8]) -> Result<Sequence, Refusal> {
        if self.unsettled.is_empty()
            && !self.no_majority
            && let Some(sequence) = self.data.append(outgoing, payload)
        {
            self.counters.add(Counter::Published, 1);
            return Ok(sequence);
        }
        self.admit(now, outgoing, payload.len(), false)?;
        let wall_ns = self.wall(now);
        self.data.publish(wall_ns, outgoing, payload, &mut self.counters).ok_or(Refusal::Observer)
    }

    /// Claims space for a message in the log itself, so that the caller writes it in place: for messages that fit one
    /// datagram.
    ///
    /// # Errors
    /// As [`Process::try_publish`]; `TooLarge` if it does not fit one datagram.
    #[inline]
    pub fn try_claim(&mut self, now: Instant, outgoing: &Outgoing, length: usize) -> Result<Claim<'_>, Refusal> {
        self.admit(now, outgoing, length, true)?;
        let wall_ns = self.wall(now);
        self.data.claim(wall_ns, outgoing, length, &mut self.counters).ok_or(Refusal::Observer)
    }

    #[inline]
    fn admit(&mut self, now: Instant, outgoing: &Outgoing, length: usize, whole: bool) -> Result<(), Refusal> {
        if self.standing == Standing::Member && self.unsettled.is_empty() && !self.no_majority && self.tells_time() {
            return self.data.admit(outgoing, length, whole).map_err(|refusal| self.refused(now, refusal));
        }
        let refusal = match self.standing {
            _ if matches!(self.config.role, Role::Observer) => Refusal::Observer,
            Standing::Forming => Refusal::Forming,
            Standing::Member if self.no_majority => Refusal::NoMajority,
            Standing::Member if !self.tells_time() => Refusal::Forming,
            Standing::Member => Refusal::ViewChange,
            Standing::Outside | Standing::Following | Standing::Gone => Refusal::Outside,
        };
        self.counters.add(Counter::RefusedOther, 1);
        Err(refusal)
    }

    #[cold]
    fn refused(&mut self, now: Instant, refusal: Refusal) -> Refusal {
        if refusal == Refusal::Window {
            self.counters.add(Counter::RefusedWindow, 1);
            self.heartbeat.hasten(now, &self.config.timing);
            // While a member's window is not known, the group is not ready for messages.
            if !self.presence.missing(&self.data.view).is_empty() && self.data.view.epoch == Epoch(1) {
                return Refusal::Forming;
            }
        } else {
            self.counters.add(Counter::RefusedOther, 1);
        }
        refusal
    }

    /// Requests a barrier: once [`Event::Synced`] arrives, everything that any member sent before has been delivered
    /// everywhere. A `payload` of at most one datagram is delivered at every process between the messages before the
    /// barrier and those after it.
    ///
    /// # Errors
    /// If this process is not a member, too many barriers wait, or the payload is too long.
    pub fn sync(&mut self, now: Instant, payload: Option<&[u8]>) -> Result<(), Refusal> {
        if self.standing != Standing::Member {
            return Err(match self.config.role {
                Role::Observer => Refusal::Observer,
                Role::Member(_) if self.standing == Standing::Forming => Refusal::Forming,
                Role::Member(_) => Refusal::Outside,
            });
        }
        let limit_bytes = self.config.limits.frame_bytes() - bourdon_wire::FRAME_HEADER_BYTES - records::Marker::BYTES;
        if payload.is_some_and(|payload| payload.len() > limit_bytes) {
            return Err(Refusal::TooLarge { limit_bytes });
        }
        if !self.data.barrier.ask(payload) {
            return Err(Refusal::Barrier);
        }
        self.heartbeat.hasten(now, &self.config.timing);
        Ok(())
    }

    /// Leaves the group: the next view is without this process. [`Event::Left`] reports when it begins.
    pub fn leave(&mut self, now: Instant) {
        if !self.leaving {
            self.leave_by = now + LEAVE_WAIT_NS;
        }
        self.leaving = true;
        self.heartbeat.due = now;
        self.clock.look_due = now;
        if self.standing != Standing::Member && !self.may_be_in_the_first_view() {
            self.go();
        }
    }

    /// Whether the first view may have been decided with this process in it. If so it leaves as a member, because a
    /// majority that leaves without a view change leaves the others without a quorum.
    fn may_be_in_the_first_view(&self) -> bool {
        let accepted = self.change.as_ref().and_then(|change| change.ballots().accepted());
        self.standing == Standing::Forming && accepted.is_some()
    }

    /// Leaves without a view change. The members may have added it to a view by now: it no longer answers them, so that
    /// they suspect it.
    fn go(&mut self) {
        self.data = Pipeline::idle(self.config.clone(), Epoch(0));
        self.search_again(Instant(0));
        self.standing = Standing::Gone;
        self.change = None;
    }

    /// Makes another member the sequencer, for instance the member that publishes most: a view change with the same
    /// members. Only the oldest member acts on it; call it there or everywhere.
    pub fn hand_over(&mut self, now: Instant, to: Rank) {
        self.hand_over = Some(to);
        self.clock.look_due = now;
    }

    /// Hard evidence from outside: this incarnation of a process has ended, its connections were reset.
    pub fn on_evidence(&mut self, now: Instant, rank: Rank, incarnation: Incarnation) {
        if self.standing == Standing::Member && self.data.view.incarnation(rank) == Some(incarnation) {
            self.detector.evidence(rank, now);
            self.clock.look_due = now;
        }
    }

    /// Orders what has been received, so that the sequencer can deliver it before it sends the order. An application
    /// that replies to a delivery then waits for one send less. Optional: [`Process::transmit`] orders as well.
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

    /// Receives a datagram that was sent to this process alone.
    #[inline]
    pub fn on_datagram(&mut self, now: Instant, bytes: &[u8], kernel_receive_ns: Option<u64>) {
        self.take_in(now, bytes, kernel_receive_ns, false);
    }

    /// Receives a datagram, sent to all or to this process alone. A request meant for one process is discarded if it
    /// was sent to all: otherwise all would answer it.
    #[inline]
    pub fn take_in(&mut self, now: Instant, bytes: &[u8], kernel_receive_ns: Option<u64>, to_all: bool) {
        let datagram = match Datagram::parse(bytes, self.config.group) {
            Ok(datagram) => datagram,
            Err(discard) => return self.discard(discard),
        };
        let header = datagram.header;
        let rank = header.rank();
        if header.channel() == DATA_CHANNEL {
            if rank.0 >= self.config.members {
                return self.counters.add(Counter::DiscardedSender, 1);
            }
            if self.is_stranger(now, &datagram, kernel_receive_ns) {
                return;
            }
            let is_new = self.data.receive(now, &datagram, kernel_receive_ns.unwrap_or(0), &mut self.counters);
            if is_new && (self.config.relay || self.config.feedback == Feedback::AckEach) {
                self.respond(now, rank, bytes);
            }
            match self.data.end {
                EpochState::Fetching(_) => self.note_fetched(now),
                EpochState::Open if self.standing == Standing::Following => self.accept_invitation(now),
                _ => {}
            }
            if datagram.has(Kind::Row) {
                let rows = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Row));
                rows.for_each(|frame| self.on_row(now, rank, frame.body));
            }
        } else if header.channel() == CONTROL_CHANNEL {
            self.trust.received(bytes.len(), to_all);
            for frame in datagram.frames() {
                if to_all && is_for_one(&frame) {
                    self.counters.add(Counter::DiscardedMulticast, 1);
                    continue;
                }
                let same = header.instance() == self.data.view.instance && header.instance() != InstanceId::NONE;
                if same || self.admits_instance(header, frame.kind()) {
                    self.on_control(now, &datagram, &frame);
                }
            }
        } else {
            self.counters.add(Counter::DiscardedSender, 1);
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
            Discard::Keyed => Counter::DiscardedForeign,
            Discard::Damaged => Counter::DiscardedDamaged,
            Discard::Malformed => Counter::DiscardedMalformed,
        };
        self.counters.add(counter, 1);
    }

    /// Whether a datagram of this epoch does not come from a member in its incarnation of this view. If it does, the
    /// member is marked as heard.
    #[inline]
    fn is_stranger(&mut self, now: Instant, datagram: &Datagram<'_>, kernel_receive_ns: Option<u64>) -> bool {
        let header = datagram.header;
        if header.instance() != self.data.view.instance && self.config.mutant != Some(Mutant::OtherInstanceBelieved) {
            if !self.keep_ahead(header, datagram.bytes, kernel_receive_ns) {
                self.counters.add(Counter::DiscardedInstance, 1);
            }
            return true;
        }
        if header.epoch() != self.data.view.epoch {
            let across = self.config.mutant == Some(Mutant::DataAcrossEpochs) && header.channel() == DATA_CHANNEL;
            if !(across && header.epoch().next() == self.data.view.epoch) {
                if !self.keep_ahead(header, datagram.bytes, kernel_receive_ns) {
                    self.counters.add(Counter::DiscardedEpoch, 1);
                }
                return true;
            }
        }
        let rank = header.rank();
        if self.is_own(header) {
            return true;
        }
        if self.data.life(rank) == Some(header.incarnation()) {
            if !header.is_retransmitted() {
                self.detector.heard(rank, now, Path::Multicast);
            }
            return false;
        }
        self.counters.add(Counter::DiscardedSender, 1);
        true
    }

    /// Whether a datagram carries this process's rank: an echo, or another process with the same rank.
    #[inline]
    fn is_own(&mut self, header: &DatagramHeader) -> bool {
        if Some(header.rank()) != self.config.rank() {
            return false;
        }
        // A follower of a view that has an earlier incarnation of itself needs what that incarnation sent.
        let own = Member { rank: header.rank(), incarnation: header.incarnation() };
        if self.standing == Standing::Following
            && own.incarnation != self.config.incarnation
            && self.data.view.contains(own)
        {
            return false;
        }
        if header.incarnation() == self.config.incarnation {
            self.counters.add(Counter::DiscardedOwn, 1);
        } else {
            self.counters.add(Counter::DiscardedSender, 1);
            // Datagrams of our earlier incarnation may still be in flight or be retransmitted; an earlier incarnation
            // of ours in another instance may have been resumed.
            let is_ours = header.instance() == self.data.view.instance || header.instance() == InstanceId::NONE;
            if is_ours && self.is_another_process(header) && self.presence.refuse(own) {
                self.event(Event::IdentityConflict(header.rank()));
            }
        }
        true
    }

    fn on_control(&mut self, now: Instant, datagram: &Datagram<'_>, frame: &Frame<'_>) {
        let header = datagram.header;
        let rank = header.rank();
        let ranked = rank.0 < self.config.members;
        match frame.kind() {
            Some(Kind::Nak) => return self.on_nak(now, header.epoch(), frame.body),
            Some(Kind::ClientRequest) => return self.on_client(now, header.instance(), frame),
            Some(Kind::ViewAsk) => return self.on_view_ask(now, header.epoch(), frame.body),
            Some(Kind::Direct) => return self.on_direct(now, rank, frame.body),
            Some(Kind::Transfer) => return self.on_transfer(now, header.epoch(), frame.body),
            Some(Kind::Ping) if self.is_follower(header) => return self.answer_ping(now, frame.body),
            _ if !ranked => return self.counters.add(Counter::DiscardedSender, 1),
            Some(Kind::Heartbeat) if self.has_own_identity(header) => return self.on_own_heartbeat(header, frame.body),
            _ if self.is_own(header) => return,
            Some(Kind::Heartbeat) => return self.on_heartbeat(now, header, frame.body),
            Some(Kind::View) => return self.on_view_info(now, header, frame.body),
            Some(Kind::Ballot) => return self.on_ballot_datagram(now, datagram, frame),
            Some(Kind::Challenge) => return self.on_challenge(now, rank, frame.body),
            _ => {}
        }
        let from = Member { rank, incarnation: header.incarnation() };
        let current = header.epoch() == self.data.view.epoch && self.data.view.contains(from);
        let mutant = self.config.mutant;
        let earlier = header.epoch().next() == self.data.view.epoch;
        match frame.kind() {
            Some(Kind::Row) if current || (earlier && mutant == Some(Mutant::AcksAcrossEpochs)) => {
                self.detector.heard(rank, now, Path::Multicast);
                self.on_row(now, rank, frame.body);
            }
            Some(Kind::Ping) => self.on_ping(now, from, header.send_time_ns(), frame.body),
            Some(Kind::Unavailable) if current => self.on_unavailable(rank, frame.body),
            Some(Kind::Link) if current => self.on_link(now, rank, frame.body),
            Some(Kind::Row | Kind::Unavailable | Kind::Link) => self.counters.add(Counter::DiscardedEpoch, 1),
            _ => {}
        }
    }

    /// Whether a datagram has this process's rank and incarnation.
    fn has_own_identity(&self, header: &DatagramHeader) -> bool {
        Some(header.rank()) == self.config.rank() && header.incarnation() == self.config.incarnation
    }

    fn on_own_heartbeat(&mut self, header: &DatagramHeader, body: &[u8]) {
        self.counters.add(Counter::DiscardedOwn, 1);
        if let Some((said, _)) = records::Heartbeat::read(body) {
            self.note_collision(header, said);
        }
    }

    fn on_row(&mut self, now: Instant, from: Rank, body: &[u8]) {
        let sent = self.data.outbound.as_ref().map_or(DatagramNumber(0), |outbound| outbound.packer.sent);
        let Some((row, entries)) = records::Row::read_all(body) else { return };
        self.data.barrier.note_row(from, row.reached_phase.get());
        if self.data.stability.merge(from, entries, sent) {
            self.data.note_rows();
            self.settle_clients(now);
            self.settle_grants();
        }
    }

    fn on_client(&mut self, now: Instant, instance: InstanceId, frame: &Frame<'_>) {
        let Some((request, name, payload)) = records::ClientRequest::read_all(frame.body) else { return };
        let is_false = request.client.get() == ClientId::GROUP.0;
        if self.standing != Standing::Member || !request.reply_to.is_reachable() || is_false {
            return;
        }
        let (client, sequence) = (ClientId(request.client.get()), Sequence(request.sequence.get()));
        if instance != self.data.view.instance && self.config.mutant != Some(Mutant::OtherInstanceBelieved) {
            // Perhaps a recording. The answer names this instance, and a live client sends the message again in it.
            self.counters.add(Counter::DiscardedInstance, 1);
            return self.answer_client(now, request.reply_to, &ClientAnswer::new(client, Sequence(0), refusals::BUSY));
        }
        if request.flags.get() & request_flags::HELLO != 0 {
            let answer = ClientAnswer::new(client, self.clients.taken(client), refusals::NONE);
            return self.answer_client(now, request.reply_to, &answer);
        }
        let skip = request.flags.get() & request_flags::SKIP != 0;
        let oldest = Sequence(sequence.0.saturating_sub(u64::from(request.under_way.get())));
        let is_ordered = matches!(self.config.order, Order::Causal | Order::Total) && !self.data.is_lossy();
        let answer = match self.clients.request(now, client, (oldest, sequence), request.reply_to, is_ordered) {
            Request::Answer(taken) => ClientAnswer::new(client, taken, refusals::NONE),
            Request::TooMany => ClientAnswer::new(client, Sequence(0), refusals::TOO_MANY_CLIENTS),
            Request::Publish if skip => ClientAnswer::new(client, self.clients.skip(client), refusals::NONE),
            Request::Publish => {
                let outgoing = Outgoing {
                    topic: frame.topic,
                    intended_send_ns: None,
                    client: Some(ClientTag::new(client, sequence)),
                    name: name.and_then(|name| TopicName::new(name).ok()),
                    after: None,
                };
                match self.try_publish(now, &outgoing, payload) {
                    Ok(_) => {
                        let open = self.data.outbound.as_ref().map_or(DatagramNumber(0), |o| o.packer.open);
                        self.clients.published(client, sequence, open);
                        return; // answered once a quorum holds it
                    }
                    // Only once everything before it is settled: the answer acknowledges that too.
                    Err(Refusal::TooLarge { .. }) if self.clients.taken(client) == sequence => {
                        ClientAnswer::new(client, sequence, refusals::TOO_LARGE)
                    }
                    Err(_) => ClientAnswer::new(client, self.clients.taken(client), refusals::BUSY),
                }
            }
        };
        self.answer_client(now, request.reply_to, &answer);
    }

    // ---- effects --------------------------------------------------------------------------------------------------

    /// Delivers the messages that are due, at most `limit` (give or take one datagram's); returns how many. It stops at
    /// a new view and at a barrier, so that the application can fetch the event at its place between the messages.
    #[inline]
    pub fn deliver(&mut self, now: Instant, limit: usize, emit: impl FnMut(Delivery<'_>)) -> usize {
        self.deliver_after(now, limit, &after::always, emit)
    }

    /// As [`Process::deliver`], but holds back messages that come after a message of another group that has not
    /// `passed` there: see [`Process::has_passed`], and `data/after.rs` for what releases them.
    #[inline]
    pub fn deliver_after(
        &mut self,
        now: Instant,
        limit: usize,
        passed: Passed<'_>,
        mut emit: impl FnMut(Delivery<'_>),
    ) -> usize {
        if self.transfer.holds_back() {
            return 0;
        }
        if self.is_view_new {
            self.is_view_new = false;
            return 1;
        }
        self.set_clock(now);
        let (mut own, counters) = ((&mut self.clients, &mut self.coordination), &mut self.counters);
        let mut count =
            self.data.deliver(now, limit, passed, counters, &mut |delivery| show(&mut own, delivery, &mut emit));
        if count > 0 {
            self.settle_clients(now); // a quorum may hold a message that has its order now
            self.note_commands(now);
        }
        // Messages behind a hole are due as soon as the hole has been crossed.
        while self.crosses(now) && count < limit {
            let (mut own, counters) = ((&mut self.clients, &mut self.coordination), &mut self.counters);
            let emit = &mut |delivery: Delivery<'_>| show(&mut own, delivery, &mut emit);
            count += self.data.deliver(now, limit - count, passed, counters, emit);
        }
        if !self.data.end.is_open() || self.data.barrier.is_active() {
            count += self.deliver_ends(now, limit - count.min(limit), count == 0, &mut emit);
        }
        count
    }

    /// Delivers what is due at a barrier or at the end of an epoch.
    #[cold]
    fn deliver_ends(&mut self, now: Instant, limit: usize, is_all: bool, emit: &mut impl FnMut(Delivery<'_>)) -> usize {
        let mut count = 0;
        let completes = self.data.agreed_barrier() == Some(true);
        if completes && !is_all {
            return 0; // the remaining messages first
        }
        if self.data.barrier.is_active() || completes {
            count += self.pass_barrier(now, is_all, emit);
        }
        if count == 0 && limit > 0 && matches!(self.data.end, EpochState::Decided(_)) {
            count += self.finish_epoch(now, emit);
            self.is_view_new &= count == 0; // it stops here, so that the event can be fetched
        }
        count
    }

    /// Crosses all holes; returns whether there were any. A member has none, unless messages may be lost.
    #[inline]
    fn crosses(&mut self, now: Instant) -> bool {
        let is_lossy = self.data.is_lossy();
        let any_over = is_lossy && self.data.give_up(now);
        (self.standing == Standing::Following || is_lossy) && self.cross_holes() || any_over
    }

    fn cross_holes(&mut self) -> bool {
        let (is_lossy, mutant) = (self.data.is_lossy(), self.config.mutant);
        let (events, counters) = (&mut self.events, &mut self.counters);
        let any = self.data.cross_holes(|sender, from, to| {
            if is_lossy && (from == to || mutant == Some(Mutant::GapUntold)) {
                return; // only records stood there
            }
            counters.add(Counter::Gaps, to.since(from));
            push_event(events, counters, Event::Gap { sender, from, to });
        });
        self.search.chain.is_whole &= !any;
        any
    }

    /// Passes to `send` what must go to the network, in runs of datagrams of the given length (the last of a run may be
    /// shorter). `send` returns how many datagrams it accepted; the rest is offered again next time. Returns whether
    /// everything was accepted.
    #[inline]
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(Destination, &[u8], usize) -> usize) -> bool {
        let wall_ns = self.wall(now);
        self.data.refresh_flow();
        if !self.unsettled.is_empty() {
            self.resubmit(now);
        }
        if self.coordination.is_due() {
            self.coordinate(now);
        }
        if self.data.sequence(wall_ns, &mut self.counters) == Sequenced::WindowFull {
            self.heartbeat.hasten(now, &self.config.timing);
        }
        if self.data.barrier.is_active() && self.unsettled.is_empty() && self.data.end.is_open() {
            self.data.place_marker(wall_ns);
        }
        self.piggyback(now, wall_ns);
        // Members that have not entered a view discard its data, so the decision that begins it is sent first.
        if self.announces_view {
            if !self.outbox.drain(&mut send) {
                return false;
            }
            self.announces_view = false;
        }
        let before = self.data.outbound.as_ref().map_or(DatagramNumber(0), |outbound| outbound.packer.sent);
        let all = self.data.transmit(wall_ns, &mut self.counters, &mut |bytes, segment_bytes| {
            send(Destination::Group, bytes, segment_bytes)
        });
        if self.data.outbound.as_ref().is_some_and(|outbound| outbound.packer.sent != before) {
            self.heartbeat.sent(now, &self.config.timing);
            self.settle_grants();
            self.settle_clients(now); // for a process that is a quorum by itself
        }
        (self.outbox.is_empty() || self.outbox.drain(&mut send)) && all
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
        now.0.wrapping_add(self.config.wall_offset_ns).wrapping_add_signed(self.clock_sync.offset_ns())
    }
}

/// The parts that a message may be for besides the application.
type Own<'a> = (&'a mut Clients, &'a mut coordinate::Coordinator);

/// Delivers a message to the application, unless it is the group's own, or a client's that was delivered before through
/// another member.
#[inline]
fn show((clients, coordination): &mut Own<'_>, delivery: Delivery<'_>, emit: &mut impl FnMut(Delivery<'_>)) {
    if let Some(tag) = delivery.client
        && (coordination.takes(tag, &delivery) || !clients.deliver(tag))
    {
        return;
    }
    emit(delivery);
}

/// The header of this process's control datagrams.
fn header(config: &Config, instance: InstanceId, epoch: Epoch) -> DatagramHeader {
    let rank = config.rank().unwrap_or(Rank::OBSERVER);
    DatagramHeader::new(config.group, instance, epoch, rank, config.incarnation, CONTROL_CHANNEL)
}

fn push_event(events: &mut VecDeque<Event>, counters: &mut Counters, event: Event) {
    if events.len() < EVENTS_MAX {
        events.push_back(event);
    } else {
        counters.add(Counter::EventsLost, 1);
    }
}

/// The bit of a process's own rank, if it has one.
fn own_bit(config: &Config) -> u64 {
    config.rank().map_or(0, bit)
}
