//! One process of a group, without I/O: the simulator and the node both run it.
//!
//! Only here and in `process/` do the data plane and the control plane meet. Each datagram received is checked,
//! attributed to a member of this view in its incarnation, and handed to the protocol it belongs to; everything else is
//! discarded and counted. See the crate's page (`lib.rs`) for the step contract.
//!
//! This file holds a process's state and the path of a datagram. Each other step has a file: `application.rs` takes
//! what the application asks, `delivery.rs` delivers, `timers.rs` acts when time has passed, `heartbeats.rs`,
//! `acks.rs`, `retransmit.rs`, `paths.rs` and `pings.rs` keep a view going, `gates.rs` waits for observers,
//! `forming.rs`, `member.rs`, `follower.rs` and `gone.rs` act in one standing (`standing.rs`), `change.rs` drives the
//! change from one view to the next and `install.rs` enters it, `discovery.rs` and `views.rs` find the group,
//! `retention.rs` retains the epochs that have ended, `transfer.rs` moves state, `control_end.rs` meets the control
//! plane, `coordinate.rs` drives locks and elections, `direct.rs` sends and receives direct messages,
//! `client_requests.rs` publishes for clients, `storage.rs` and `restore.rs` store what a durable member reports and
//! read it again, `stored_state.rs` adds the application's state, `recovery.rs` founds an instance again by hand,
//! `trust.rs` decides what is believed and which addresses get long answers.

mod acks;
mod across;
mod ahead;
mod application;
mod change;
mod client_requests;
mod configurations;
mod context;
mod control_end;
mod coordinate;
mod delivery;
mod direct;
mod discovery;
mod follower;
mod forming;
mod gates;
mod gone;
mod heartbeats;
mod inspect;
mod install;
mod instances;
mod member;
mod own_messages;
mod pacing;
mod paths;
mod pings;
mod recovery;
mod restore;
mod retention;
mod retransmit;
mod search;
mod senders;
mod standing;
mod start;
mod steps;
mod storage;
mod stored_state;
mod timers;
mod transfer;
mod trust;
mod views;

pub use inspect::MemoryUse;
pub use standing::Standing;
pub use stored_state::{Again, begins_view, ends_stored_state};
pub use trust::is_for_one;

use crate::config::{Config, ConfigError, Feedback};
use crate::control::clients::Clients;
use crate::control::configurations::Configurations;
use crate::control::detector::{Detector, Path};
use crate::control::direct::Direct;
use crate::control::discovery::Discovery;
use crate::control::heartbeat::Heartbeat;
use crate::control::membership::RejoinDelay;
use crate::control::path_mtu::PathMtu;
use crate::counters::Counter;
use crate::data::DATA_CHANNEL;
use crate::data::cut::Unsettled;
use crate::data::durable::Storage;
use crate::data::epoch_state::EpochState;
use crate::data::gates::Gates;
use crate::data::pacing::Pacer;
use crate::data::pipeline::{Pipeline, Sequenced};
use crate::data::stream::Stream;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::view::Member;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{CONTROL_CHANNEL, Datagram, DatagramNumber, Discard, Epoch, Frame, InstanceId, Instant, Kind, Rank};
use context::Context;

/// A group member or observer.
#[derive(Debug)]
pub struct Process {
    /// What all parts below need; a part that is handed it reaches no other part.
    cx: Context,
    state: standing::State,
    /// The current epoch's messages.
    data: Pipeline,
    /// The epochs that have ended.
    past: retention::Retention,
    entry: install::Entry,
    /// When to look again whether the view should change.
    look_due: Instant,
    detector: Detector,
    path_mtu: PathMtu,
    wishes: application::Wishes,
    rejoin: RejoinDelay,
    search: search::Search,
    /// Other instances that this process has heard of.
    discovery: Discovery,
    /// Processes that are configured otherwise.
    configurations: Configurations,
    identity: instances::Identity,
    /// Messages published in earlier views, to be published again before anything else.
    unsettled: VecDeque<Unsettled>,
    own_mark: own_messages::OwnMark,
    /// See [`Process::own_left_behind`].
    own_behind: own_messages::Behind,
    transfer: transfer::Transfer,
    trust: trust::Trust,
    heartbeat: Heartbeat,
    rows: acks::Rows,
    clients: Clients,
    direct: Direct,
    coordination: coordinate::Coordinating,
    control: control_end::ControlEnd,
    /// Datagrams received of the next view.
    ahead: ahead::Ahead,
    /// The observers that this member waits for.
    gates: Gates,
    /// How fast this member sends, if anything limits that.
    pacer: Option<Pacer>,
    /// By rank: when that member last answered a report of this observer that it does not wait for it.
    gates_ended: Vec<Option<Instant>>,
    /// What this process stores, if it is a member that does.
    storage: Option<Box<Storage>>,
    stored_state: stored_state::StoredState,
}

impl Process {
    /// Creates a process. It enters the configured view if there is one; a member that is alone in its configuration
    /// enters a view of itself; other members form the first view; an observer searches for the group.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(now: Instant, config: Config) -> Result<Self, ConfigError> {
        let mut process = Self::outside(now, config)?;
        process.begin(now);
        Ok(process)
    }

    /// A process that is in no view, and has not begun.
    fn outside(now: Instant, config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            state: standing::State::Outside(standing::Outside::default()),
            data: Pipeline::idle(config.clone(), Epoch(0)),
            past: retention::Retention::default(),
            entry: install::Entry::new(config.sequencer),
            look_due: Instant::NEVER,
            detector: Detector::new(now, config.rank(), 0, &config.timing.detector),
            path_mtu: PathMtu::new(&config),
            wishes: application::Wishes::default(),
            rejoin: RejoinDelay::new(),
            search: search::Search::default(),
            discovery: Discovery::default(),
            configurations: Configurations::default(),
            identity: instances::Identity::new(now, &config),
            unsettled: VecDeque::new(),
            own_mark: own_messages::OwnMark::default(),
            own_behind: None,
            transfer: transfer::Transfer::default(),
            trust: trust::Trust::new(now, &config),
            heartbeat: Heartbeat::new(now),
            rows: acks::Rows::default(),
            clients: Clients::default(),
            direct: direct::begin(&config),
            coordination: coordinate::Coordinating::new(&config),
            control: control_end::ControlEnd::new(&config),
            ahead: ahead::Ahead::default(),
            gates: Gates::default(),
            pacer: pacing::pacer(now, &config),
            gates_ended: vec![None; usize::from(config.members)],
            storage: Storage::of(&config),
            stored_state: stored_state::StoredState::default(),
            cx: Context::new(config),
        })
    }

    /// Receives a datagram that was sent to this process alone.
    #[inline]
    pub fn on_datagram(&mut self, now: Instant, bytes: &[u8], kernel_receive_ns: Option<u64>) {
        self.take_in(now, bytes, kernel_receive_ns, false);
    }

    /// Receives a datagram, sent to all or to this process alone. A request meant for one process is discarded if it
    /// was sent to all: otherwise all would answer it.
    #[inline]
    pub fn take_in(&mut self, now: Instant, bytes: &[u8], kernel_receive_ns: Option<u64>, to_all: bool) {
        let datagram = match Datagram::parse(bytes, self.cx.config.group) {
            Ok(datagram) => datagram,
            Err(discard) => return self.discard(discard),
        };
        let header = datagram.header;
        let rank = header.rank();
        if header.channel() == DATA_CHANNEL {
            if rank.0 >= self.cx.config.members {
                return self.cx.count(Counter::DiscardedSender);
            }
            if self.is_stranger(now, &datagram, kernel_receive_ns) {
                return;
            }
            let is_new = self.data.receive(now, &datagram, kernel_receive_ns.unwrap_or(0), &mut self.cx.counters);
            if is_new && (self.cx.config.relay || self.cx.config.feedback == Feedback::AckEach) {
                self.respond(now, rank, bytes);
            }
            match self.data.end {
                EpochState::Fetching(..) => self.note_fetched(now),
                EpochState::Open if self.standing() == Standing::Following => self.accept_invitation(now),
                EpochState::Decided(_) => self.entry.is_awaited = false, // it is delivered first
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
                    self.cx.count(Counter::DiscardedMulticast);
                    continue;
                }
                let same = header.instance() == self.data.view.instance && header.instance() != InstanceId::NONE;
                if same || self.admits_instance(header, frame.kind()) {
                    self.on_control(now, &datagram, &frame);
                }
            }
        } else {
            self.cx.count(Counter::DiscardedSender);
        }
    }

    #[cold]
    fn discard(&mut self, discard: Discard) {
        let counter = match discard {
            Discard::Foreign => Counter::DiscardedForeign,
            Discard::OtherVersion(version) => {
                if !core::mem::replace(&mut self.trust.version_reported, true) {
                    self.cx.event(Event::OtherVersion(version));
                }
                Counter::DiscardedVersion
            }
            Discard::OtherGroup => Counter::DiscardedGroup,
            Discard::Keyed => Counter::DiscardedForeign,
            Discard::Damaged => Counter::DiscardedDamaged,
            Discard::Malformed => Counter::DiscardedMalformed,
        };
        self.cx.count(counter);
    }

    fn on_control(&mut self, now: Instant, datagram: &Datagram<'_>, frame: &Frame<'_>) {
        let header = datagram.header;
        let rank = header.rank();
        let ranked = rank.0 < self.cx.config.members;
        let from = Member { rank, incarnation: header.incarnation() };
        if rank <= Rank::MAX && self.on_other_configuration(now, header, frame) {
            return;
        }
        match frame.kind() {
            Some(Kind::Nak) => return self.on_nak(now, header.epoch(), frame.body),
            Some(Kind::ClientRequest) => return self.on_client(now, header.instance(), frame),
            Some(Kind::ViewAsk) => return self.on_view_ask(now, header.epoch(), frame.body),
            Some(Kind::Direct) => return self.on_direct(now, rank, frame.body),
            Some(Kind::Transfer) => return self.on_transfer(now, header.epoch(), frame.body),
            Some(Kind::Ping) if !self.data.view.contains(from) => return self.on_strangers_ping(now, from, frame.body),
            Some(Kind::Progress) if !ranked => return self.on_progress(now, header, frame.body),
            Some(Kind::Congestion) if !ranked => return self.on_congestion(now, header, frame.body),
            _ if !ranked => return self.cx.count(Counter::DiscardedSender),
            Some(Kind::Heartbeat) if self.has_own_identity(header) => return self.on_own_heartbeat(header, frame.body),
            kind if self.is_own(header) => return self.on_rivals_frame(now, header, kind, frame.body),
            Some(Kind::Heartbeat) => return self.on_heartbeat(now, header, frame.body),
            Some(Kind::PathReport) => {
                let from = Member { rank, incarnation: header.incarnation() };
                return self.on_path_report(now, from, datagram.bytes.len(), frame.body);
            }
            Some(Kind::View) => return self.on_view_info(now, header, frame.body),
            Some(Kind::Ballot) => return self.on_ballot_datagram(now, datagram, frame),
            Some(Kind::Challenge) => return self.on_challenge(now, rank, frame.body),
            _ => {}
        }
        let current = header.epoch() == self.data.view.epoch && self.data.view.contains(from);
        let mutant = self.cx.config.mutant;
        let earlier = header.epoch().next() == self.data.view.epoch;
        match frame.kind() {
            Some(Kind::Row) if current || (earlier && mutant == Some(Mutant::AcksAcrossEpochs)) => {
                self.detector.heard(rank, now, Path::Multicast);
                self.on_row(now, rank, frame.body);
            }
            Some(Kind::Ping) => self.on_ping(now, from, header.send_time_ns(), frame.body),
            Some(Kind::Unavailable) if current => self.on_unavailable(now, rank, frame.body),
            Some(Kind::Link) if current => self.on_link(now, rank, frame.body),
            Some(Kind::Progress) if current => self.on_gate_ended(now, rank, frame.body),
            Some(Kind::Row | Kind::Unavailable | Kind::Link | Kind::Progress) => self.cx.count(Counter::DiscardedEpoch),
            _ => {}
        }
    }

    /// Whether [`Process::transmit`] has anything to do.
    #[inline]
    pub fn has_to_send(&self) -> bool {
        !self.cx.outbox.is_empty() || !self.unsettled.is_empty() || self.data.has_to_send() || self.coordination_due()
    }

    /// Passes to `send` what must go to the network, in runs of datagrams of the given length (the last of a run may be
    /// shorter). `send` returns how many datagrams it accepted; the rest is offered again next time. Returns whether
    /// everything was accepted.
    #[inline]
    pub fn transmit(&mut self, now: Instant, send: impl FnMut(Destination, &[u8], usize) -> usize) -> bool {
        self.transmit_packed(now, true, send)
    }

    /// As [`Process::transmit`]. Unless it `seals` the datagram that is being filled, that stays open: for a caller
    /// that publishes more at once, and transmits after that.
    #[inline]
    pub fn transmit_packed(
        &mut self,
        now: Instant,
        seals: bool,
        mut send: impl FnMut(Destination, &[u8], usize) -> usize,
    ) -> bool {
        let wall_ns = self.cx.wall(now);
        self.data.refresh_flow();
        if !self.unsettled.is_empty() {
            self.resubmit(now);
        }
        if self.coordination_due() {
            self.coordinate(now);
        }
        if self.data.sequence(wall_ns, &mut self.cx.counters) == Sequenced::WindowFull {
            self.heartbeat.hasten(now, &self.cx.config.timing);
        }
        if self.data.barrier.is_active() && self.unsettled.is_empty() && self.data.end.is_open() {
            self.data.place_marker(wall_ns);
        }
        if seals {
            self.piggyback(now, wall_ns);
        }
        // Members that have not entered a view discard its data, so the decision that begins it is sent first.
        if self.entry.is_unannounced {
            if !self.cx.outbox.drain(&mut send) {
                return false;
            }
            self.entry.is_unannounced = false;
        }
        let before = self.data.outbound.as_ref().map_or(DatagramNumber(0), |outbound| outbound.packer.sent);
        let (is_paced, mut sent_bytes) = (self.pacer.is_some(), 0);
        let path_mtu = &mut self.path_mtu;
        let all = self.data.transmit(wall_ns, seals, &mut self.cx.counters, &mut |bytes, segment_bytes| {
            path_mtu.sent(segment_bytes);
            let taken = send(Destination::Group, bytes, segment_bytes);
            if is_paced {
                sent_bytes += bytes.len().min(taken * segment_bytes);
            }
            taken
        });
        if is_paced {
            self.pace(now, sent_bytes);
        }
        if self.data.outbound.as_ref().is_some_and(|outbound| outbound.packer.sent != before) {
            self.heartbeat.sent(now, &self.cx.config.timing);
            self.settle_grants(now);
            self.settle_clients(now); // for a process that is a quorum by itself
        }
        (self.cx.outbox.is_empty() || self.cx.outbox.drain(&mut send)) && all
    }

    /// Brings the memory that the next datagrams will take near: for a caller that has nothing else to do just now. A
    /// lone message takes lines of its log that were last used when the log came round before, and waits for each.
    pub fn warm(&mut self) {
        self.data.streams.iter_mut().for_each(Stream::warm);
    }

    /// The next event, if there is one. Nothing is delivered while an event waits that has its place in the order.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.cx.poll_event()
    }

    /// Whether events wait to be fetched.
    #[inline]
    pub fn has_events(&self) -> bool {
        self.cx.events() > 0
    }

    /// Whether nothing is delivered before the application has taken a snapshot that has come.
    #[inline]
    pub fn holds_back(&self) -> bool {
        self.transfer.holds_back()
    }

    /// Whether a snapshot is to be taken or begun, once no event waits.
    #[inline]
    pub fn has_snapshot(&self) -> bool {
        self.transfer.is_due() || self.wants_stored_state()
    }
}
