//! A node run by the application's own thread.
//!
//! Handing a message to another thread costs a cache line each way and, if that thread sleeps, a wake-up. Here there is
//! no other thread: [`InlineNode::poll`] receives, delivers, keeps time and sends, all within the call. Nothing happens
//! between two calls: if the application does not call for longer than the detectors wait (80 ms by default), the other
//! members suspect this process. For the lowest latency it calls without a pause.
//!
//! One clock reading a burst: everything delivered by one call carries the same time.

mod calls;

use crate::claim::{Claim, Space};
use crate::config::{ProcessSettings, Role, Settings, Transport};
use crate::counters::{AgentFigures, CountersFile, CountersWriter, Description};
use crate::deadline::Deadline;
use crate::delivery::Delivery;
use crate::directory::{Directory, DirectoryError};
use crate::host;
use crate::identity::{BirthFile, Drawn};
use crate::links::Links;
use crate::locks::inline::InlineLocks;
use crate::locks::state::Wait;
use crate::locks::{Election, LockError, LockRequest, Locks};
use crate::lone;
use crate::node_error::Error;
use crate::patterns::Filter;
use crate::recording::{ArchiveFigures, Recording};
use crate::reports::Reports;
use crate::request::{Call, Calling, Calls, Completion, Outbound};
use crate::snapshot::{Snapshot, SnapshotRequests};
use crate::storage::Storage;
use crate::subscribe::Subscribe;
use crate::topic::{Payload, Topic};
use crate::transport::{NodePort, pick};
use bourdon_engine::{Clock, DELIVER_LIMIT, Engine, Item};
use bourdon_port::faults::Faults;
use bourdon_port::{Echo, HostChange, Port, PortError, Sleep, Waker};
use bourdon_protocol::control::detector::{Figures, Gaps, Why};
use bourdon_protocol::{Counters, DirectMessage, Event, Refusal, Satisfied, Standing, To, View};
use bourdon_wire::{ChannelId, ECHO_OFFSET, Epoch, Instant, Rank, TopicName, echo_bytes};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The rank that a process has on the network.
fn rank_of(process: &ProcessSettings) -> Result<Rank, Error> {
    match process.role {
        Role::Member => Ok(Rank(process.rank)),
        Role::Observer => Ok(Rank::OBSERVER),
        Role::Client => {
            let what = "a client has threads of its own: open a Node, or choose \"observer\"".to_owned();
            Err(Error::Unsupported { setting: "process.role", what })
        }
    }
}

fn archive_figures(recording: Option<&Recording>) -> ArchiveFigures {
    recording.map(Recording::figures).unwrap_or_default()
}

/// Why the node runs without hard evidence, after another reason if there is one.
fn without_links(before: Option<String>, error: &std::io::Error) -> String {
    let why = format!("no links to the other members ({error}): a process that is gone is noticed by its silence only");
    and(before, &why)
}

/// What is known to be different from what was asked for, and one thing more.
fn and(known: Option<String>, more: &str) -> String {
    known.map_or_else(|| more.to_owned(), |known| format!("{known}; {more}"))
}

/// A member or observer, run by the thread that calls [`InlineNode::poll`].
///
/// A node that is dropped polls itself until all that it published is acknowledged, for `threads.drop_timeout_ns` at
/// most; messages that are delivered meanwhile are discarded.
#[derive(Debug)]
pub struct InlineNode {
    pub(crate) engine: Engine<NodePort>,
    fallback: Option<String>,
    /// Which messages it hands out; none takes no message.
    filter: Option<Filter>,
    links: Option<Links>,
    /// When the links next receive the view's members, and what the node reports of itself is next looked for.
    upkeep_due: Instant,
    reports: Reports,
    birth: BirthFile,
    /// If it records what it delivers.
    recording: Option<Box<Recording>>,
    /// The group's name, for its warnings.
    pub(crate) group: Box<str>,
    /// How long it goes on at most when it is dropped; see `close.rs`.
    pub(crate) drop_timeout_ns: u64,
    /// Its counters file, if it shares them.
    counters: Option<Box<(CountersFile, CountersWriter)>>,
    /// From the first request for a lock or an election on.
    locks: Option<Box<InlineLocks>>,
    /// From the first request for a snapshot on.
    snapshots: Option<Box<SnapshotRequests>>,
    /// A snapshot that has come is handed out; else it waits, and so does delivery.
    pub(crate) takes_snapshot: bool,
    is_member: bool,
    /// Requests and messages beside the stream.
    calls: Calls,
    /// What becomes of the requests of other processes.
    requests: Requests,
    /// The view in which it was last looked whether the takers of its requests are gone.
    calls_seen: Epoch,
}

/// What becomes of the requests of other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requests {
    /// They are among the deliveries.
    Deliver,
    Decline,
    /// The agent that polls the node fetches them.
    Leave,
}

/// How often: so that a new member is watched before it matters.
const UPKEEP_NS: u64 = 5_000_000;

impl InlineNode {
    /// Opens the sockets and begins to join.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show() -> Result<(), Error> {
    /// let node = InlineNode::join(&Settings::load("bourdon.toml".as_ref())?)?;
    /// # let _ = node;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the settings contradict themselves or the network can't be used; the text gives what to do.
    pub fn join(settings: &Settings) -> Result<Self, Error> {
        settings.check_leaning(false)?;
        Self::join_beside(settings)
    }

    /// As [`InlineNode::join`]. Of the messages, only those are handed out that it subscribes to.
    pub(crate) fn join_to(settings: &Settings, subscribe: &Subscribe) -> Result<Self, Error> {
        let mut settings = settings.clone();
        settings.process.snapshots |= subscribe.takes_snapshots();
        let chosen = subscribe.chosen(&settings, true)?;
        let mut node = Self::join(&settings)?;
        node.filter = chosen.filter;
        node.requests = if chosen.requests { Requests::Deliver } else { Requests::Decline };
        Ok(node)
    }

    /// As [`InlineNode::join`]. A channel that leans on the detectors of its group is run beside the group: the caller
    /// passes their judgements on.
    pub(crate) fn join_beside(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        settings.check_peers()?;
        settings.check_log_memory()?;
        let Drawn { incarnation, candidate, seed, secret, .. } = Drawn::new();
        let rank = rank_of(&settings.process)?;
        let echo = Echo { offset: ECHO_OFFSET, bytes: echo_bytes(rank, ChannelId(0), incarnation) };
        let picked = pick(settings, echo)?;
        let granted_bytes = picked.port.limits().receive_buffer_bytes;
        let mut config = settings.protocol(granted_bytes);
        config.incarnation = incarnation;
        (config.instance_candidate, config.seed, config.secret) = (candidate, seed, secret);
        let (birth, problem) = BirthFile::open(settings);
        config.birth_floor = birth.floor();
        lone::check(settings, &config)?;
        let faults = &settings.faults;
        let port = NodePort::new(
            picked.port,
            Faults {
                drop_percent: faults.drop_percent,
                duplicate_percent: faults.duplicate_percent,
                reorder_percent: faults.reorder_percent,
                seed: faults.seed,
                ..Faults::default()
            },
        );
        let mut fallback = picked.fallback;
        if let Some(problem) = problem {
            fallback = Some(and(fallback, &problem));
        }
        let wanted = settings.network.links && settings.detector.evidence && rank != Rank::OBSERVER;
        let links = if wanted && config.members > 1 {
            // Over tcp the address selects the way of the traffic, not an interface.
            let interface = Some(&*settings.network.interface).filter(|_| settings.network.transport != Transport::Tcp);
            let opened = Links::open(port.local_address(), interface, port.waker());
            opened.map_err(|error| fallback = Some(without_links(fallback.take(), &error))).ok()
        } else {
            None
        };
        config.link_port = links.as_ref().map_or(0, Links::port);
        let asked_bytes = settings.network.receive_buffer_bytes;
        let store = Storage::open(settings, port.waker(), &mut config, &mut fallback)?;
        let recording = Recording::open(settings, port.waker())?;
        let engine = Engine::new(port, config);
        let mut engine = engine.map_err(|source| Error::Buffer { asked_bytes, granted_bytes, source })?;
        if let Some(store) = store {
            engine.store_in(store)?;
        }
        let waker = engine.port().waker();
        Ok(Self {
            engine,
            fallback,
            filter: Some(Filter::default()),
            links,
            upkeep_due: Instant(0),
            reports: Reports::default(),
            birth,
            recording,
            group: settings.group.name.as_str().into(),
            drop_timeout_ns: settings.threads.drop_timeout_ns,
            counters: None,
            locks: None,
            snapshots: None,
            takes_snapshot: true,
            is_member: rank != Rank::OBSERVER,
            calls: Calls::new(move || waker.wake()),
            requests: Requests::Decline,
            calls_seen: Epoch(0),
        })
    }

    /// Sends, receives, delivers at most `limit` messages (give or take one datagram's), keeps time. Events are
    /// delivered in their place; one call delivers messages or events that have a place among them, not both. Returns
    /// how much was done: zero means that there was nothing to do. What a delivery brings about goes out with the next
    /// call, together with what the application publishes in answer: so do not stop calling while this returns more
    /// than zero.
    ///
    /// The node is borrowed until the call returns, so a handler can't publish. It keeps what the answer needs, a copy
    /// of the payload for one, and the application publishes after the call.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &mut InlineNode) -> Result<(), error::PortError> {
    /// let done = node.poll(64, |delivery| println!("{delivery}"))?;
    /// if done == 0 {
    ///     node.wait(std::time::Duration::from_millis(1))?; // or spin
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the port is broken: the node has ended.
    #[inline]
    pub fn poll(&mut self, limit: usize, on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, PortError> {
        self.poll_after(limit, &|_| true, on_delivery)
    }

    /// As [`InlineNode::poll`], but holds back what comes after a message of another group that has not `passed` there.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub(crate) fn poll_after(
        &mut self,
        limit: usize,
        passed: Satisfied<'_>,
        mut on_delivery: impl FnMut(Delivery<'_>),
    ) -> Result<usize, PortError> {
        if let Some(links) = &mut self.links {
            let engine = &mut self.engine;
            links.evidence(|rank, incarnation| engine.on_evidence(rank, incarnation));
        }
        self.birth.note(self.engine.process().birth_floor());
        if self.engine.now() >= self.upkeep_due {
            self.keep_up(&mut on_delivery)?;
        }
        if self.locks.is_some() {
            self.carry_out();
        }
        if let Some(snapshots) = &mut self.snapshots {
            while let Some((ticket, answer)) = snapshots.take() {
                self.engine.finish_snapshot(ticket, answer);
            }
        }
        let filter = &self.filter;
        let mut hand_out = |item: Item<'_>| match item {
            Item::Message(message) => {
                if filter.as_ref().is_some_and(|filter| filter.wants(message)) {
                    on_delivery(Delivery::Message(*message));
                }
            }
            Item::Event(event) => on_delivery(Delivery::Event(event)),
        };
        let limit = limit.min(DELIVER_LIMIT);
        let mut count = match &mut self.recording {
            None => self.engine.poll(limit, passed, hand_out)?,
            Some(recording) => recording.poll(&mut self.engine, limit, passed, &mut hand_out)?,
        };
        if self.engine.process().has_snapshot() {
            count += self.hand_snapshots_out(&mut on_delivery);
        }
        if self.engine.process().has_direct_news() || self.calls.has_answers() || self.calls.is_waiting() {
            count += self.tend_calls(&mut on_delivery);
        }
        Ok(if self.locks.is_some() { count + self.poll_locks() } else { count })
    }

    /// Hands out the snapshot that this application begins with, and the request for one at this place, once all events
    /// that come before them were handed out. Returns how many.
    #[cold]
    fn hand_snapshots_out(&mut self, on_delivery: &mut impl FnMut(Delivery<'_>)) -> usize {
        if self.engine.process().has_events() {
            return 0; // the next poll
        }
        let snapshot = self.takes_snapshot.then(|| self.engine.take_snapshot()).flatten();
        let snapshot = snapshot.map(|bytes| Delivery::Snapshot(Snapshot::new(bytes)));
        let request = self.engine.begin_snapshot().map(|ticket| {
            let new = || {
                let limit_bytes = self.engine.process().config().limits.max_snapshot_bytes;
                Box::new(SnapshotRequests::new(limit_bytes, self.engine.port().waker()))
            };
            Delivery::SnapshotRequest(self.snapshots.get_or_insert_with(new).request(ticket))
        });
        let count = usize::from(snapshot.is_some()) + usize::from(request.is_some());
        snapshot.into_iter().chain(request).for_each(on_delivery);
        count
    }

    /// What is not due with every poll.
    #[cold]
    fn keep_up(&mut self, on_delivery: &mut impl FnMut(Delivery<'_>)) -> Result<(), PortError> {
        let now = self.engine.now();
        self.upkeep_due = now + UPKEEP_NS;
        if let Some(change) = self.engine.port_mut().follow_host()? {
            on_delivery(Delivery::Event(self.follow(&change)));
        }
        if self.links.as_ref().is_some_and(|links| links.is_due(std::time::Instant::now())) {
            self.reopen_links();
        }
        if let Some(problem) = self.recording.as_mut().and_then(|recording| recording.take_problem()) {
            on_delivery(Delivery::Event(problem));
        }
        let process = self.engine.process();
        if let Some(links) = &mut self.links {
            links.watch(process.links());
        }
        if let Some(counters) = &mut self.counters {
            let waited_ns = self.reports.waited_ns(now);
            let network_lost = self.engine.port().transport().is_cut_off();
            let archive = archive_figures(self.recording.as_deref());
            let figures = AgentFigures { waited_ns, network_lost, archive, ..AgentFigures::default() };
            counters.1.copy(&self.engine, &figures);
        }
        let reach = self.engine.port().transport().reach();
        let events = self.reports.due(now, process, reach, self.engine.storage(), &mut self.birth);
        events.for_each(|event| on_delivery(Delivery::Event(event)));
        Ok(())
    }

    /// The host has changed: the links and the process follow the port. Returns what is reported.
    fn follow(&mut self, change: &HostChange) -> Event {
        if let HostChange::Bound { address, before, .. } = change {
            let port = self.engine.port();
            // Links at the same address stay: a member that finds them closed takes this process for gone.
            // Over `auto` they stand at the mesh's address, which may be another.
            let own = port.local_address().ip();
            let has_moved = |links: &Links| address.ip() != before.ip() && links.address().ip() != own;
            if self.links.as_ref().is_some_and(has_moved) {
                self.reopen_links();
            } else {
                self.engine.move_to(self.links.as_ref().map_or(0, Links::port));
            }
        }
        host::event(change)
    }

    /// Opens the links where the port is now, and announces that.
    fn reopen_links(&mut self) {
        let (port, Some(links)) = (self.engine.port(), &mut self.links) else { return };
        let was_away = links.port() == 0;
        let reopened = links.reopen(std::time::Instant::now(), port.local_address(), port.waker());
        if let (Err(error), false) = (&reopened, was_away) {
            tracing::warn!(group = &*self.group, "{}; trying again", without_links(None, error));
        }
        self.engine.move_to(links.port());
    }

    /// Sleeps until something may have come or something is due, at most for `longest`. Returns at once with
    /// [`threads.idle`](crate::settings::ThreadSettings::idle) `spin` or `yield`, whose sockets do not sleep, or if
    /// locks or elections were given up since the last poll. With `park` (the default) and `backoff` it sleeps.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn wait(&mut self, longest: Duration) -> Result<(), PortError> {
        if self.has_commands() { Ok(()) } else { self.engine.wait(longest) }
    }

    /// Prepares a sleep for this node among others, of at most `longest`; none if the thread must not sleep.
    ///
    /// # Errors
    /// If the port is broken.
    pub(crate) fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        if self.has_commands() { Ok(None) } else { self.engine.sleeper(longest) }
    }

    /// How long it has waited for a view or, as an observer, for a majority; 0 if it does not wait.
    pub(crate) fn waited_ns(&self) -> u64 {
        self.reports.waited_ns(self.engine.now())
    }

    /// Ends recording to `archive.directory`: all that was delivered is on disk when it returns. A node that is dropped
    /// does so by itself; a process that is killed loses the last 50 ms.
    pub fn end_recording(&mut self) {
        self.recording = None;
    }

    /// What was recorded; zeros if it does not record.
    pub(crate) fn archive_figures(&self) -> ArchiveFigures {
        archive_figures(self.recording.as_deref())
    }

    fn has_commands(&self) -> bool {
        self.calls.has_new_answers() || self.locks.as_ref().is_some_and(|locks| locks.has_commands())
    }

    /// Sends answers, and hands out outcomes and requests.
    #[inline(never)]
    fn tend_calls(&mut self, on_delivery: &mut impl FnMut(Delivery<'_>)) -> usize {
        let mut count = self.calls.tend(&mut self.engine);
        let epoch = self.engine.process().view().epoch;
        if self.calls_seen != epoch {
            self.calls_seen = epoch;
            self.calls.end_gone(&self.engine);
        }
        while self.requests != Requests::Leave
            && let Some(request) = self.next_request()
        {
            count += 1;
            if self.requests == Requests::Deliver {
                on_delivery(Delivery::Request(request)); // else it is dropped, and so declined
            }
        }
        count
    }

    /// Hands this node over to an agent, which fetches requests by itself; `ring` announces an answer to it.
    pub(crate) fn share_calls(&mut self, ring: impl FnMut() + Send + 'static) {
        self.calls = Calls::new(ring);
        self.requests = Requests::Leave;
    }

    /// Whether messages or answers beside the stream are still to be sent or acknowledged.
    pub(crate) fn owes_calls(&self) -> bool {
        self.calls.has_answers() || self.engine.process().owes_direct()
    }

    /// Sends a message of at most one datagram beside the stream. [`Call::try_reply`] returns with a later poll which
    /// process has taken it: its process, not its application.
    ///
    /// # Errors
    /// If it is too long, too many are under way, no receiver was heard, or the port can't broadcast.
    pub fn try_send(&mut self, to: To<'_>, payload: &[u8]) -> Result<Call, Refusal> {
        self.try_call(&Outbound { to, payload, is_request: false, deadline: Deadline::NEVER, awaits_receiver: false })
    }

    /// Sends a request of at most one datagram beside the stream. [`Call::try_reply`] returns the reply with a later
    /// poll. Where no receiver was heard yet, the call is refused at once.
    ///
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(node: &mut InlineNode) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut call = node.try_request(To::Nearest, b"es", Duration::from_millis(20))?;
    /// let reply = loop {
    ///     node.poll(64, |delivery| println!("{delivery}"))?;
    ///     if let Some(outcome) = call.try_reply() {
    ///         break outcome?;
    ///     }
    /// };
    /// # let _ = reply;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`InlineNode::try_send`].
    pub fn try_request(&mut self, to: To<'_>, payload: &[u8], deadline: impl Into<Deadline>) -> Result<Call, Refusal> {
        self.try_call(&Outbound { to, payload, is_request: true, deadline: deadline.into(), awaits_receiver: false })
    }

    fn try_call(&mut self, outbound: &Outbound<'_>) -> Result<Call, Refusal> {
        let (completion, call) = Completion::new(outbound.deadline, None);
        self.begin(outbound, completion).map(|()| call).map_err(|(refusal, _)| refusal)
    }

    /// Does what was asked of locks and elections; it goes out with the next call to the engine.
    #[inline(never)]
    fn carry_out(&mut self) {
        let Some(locks) = &mut self.locks else { return };
        locks.note_poller();
        if locks.has_commands() {
            self.engine.coordinate(|coordinator, now| locks.carry_out(coordinator, now));
        }
    }

    #[inline(never)]
    fn poll_locks(&mut self) -> usize {
        let Some(locks) = &mut self.locks else { return 0 };
        self.engine.coordinate(|coordinator, now| locks.work(coordinator, now))
    }

    /// Asks for a lock: [`LockRequest::try_guard`] hands it out once a later poll has brought it.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn request_lock(&mut self, name: &str) -> Result<LockRequest, LockError> {
        let name = TopicName::new(name)?;
        let request = self.locks().request(name, Wait::Forever, None);
        self.carry_out();
        Ok(request)
    }

    /// Watches an election, in which [`Election::campaign`] stands; [`Election::try_next`] returns what later polls
    /// have brought. If the group is still forming or the node in no view, it takes part once it can.
    ///
    /// # Errors
    /// As [`InlineNode::request_lock`].
    pub fn election(&mut self, name: &str) -> Result<Election, LockError> {
        let name = TopicName::new(name)?;
        let election = self.locks().election(name, None);
        self.carry_out();
        Ok(election)
    }

    fn locks(&mut self) -> &Locks {
        let (is_member, port) = (self.is_member, self.engine.port());
        let locks = self.locks.get_or_insert_with(|| Box::new(InlineLocks::new(is_member, port.waker())));
        locks.note_poller();
        locks.locks()
    }

    /// What the node does differently from the settings, and why: another transport, no links, no stored birth.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    // ---- what it publishes ----------------------------------------------------------------------------------------

    /// Publishes a message, which goes out with the next [`InlineNode::flush`] or [`InlineNode::poll`]. Returns its
    /// number. A process numbers its messages from 1; one that was removed from its group begins again at 1 when it is
    /// back.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &mut InlineNode, orders: &Topic) -> Result<(), Box<dyn std::error::Error>> {
    /// match node.try_publish(orders, b"buy 1") {
    ///     Ok(_) => node.flush()?,
    ///     Err(refusal) if refusal.is_transient() => {} // poll, and try again
    ///     Err(refusal) => return Err(refusal.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it can't be taken now; nothing of it was sent. Where it [is transient](Refusal::is_transient), poll and try
    /// again.
    #[inline]
    pub fn try_publish<P: Payload + ?Sized>(&mut self, topic: &Topic<P>, payload: &P) -> Result<u64, Refusal> {
        let sequence = match topic.plain() {
            Some(id) => self.engine.try_publish(id, payload.as_bytes())?,
            None => self.engine.try_publish_with(topic.outgoing(), payload.as_bytes())?,
        };
        Ok(sequence.0 + 1)
    }

    /// Claims space in the log for a message of at most one datagram, to be written in place and committed.
    ///
    /// # Errors
    /// As [`InlineNode::try_publish`].
    #[inline]
    pub fn try_claim(&mut self, topic: &Topic, payload_bytes: usize) -> Result<Claim<'_>, Refusal> {
        Ok(Claim::new(Space::Log(self.engine.try_claim(topic.outgoing(), payload_bytes)?)))
    }

    /// Claims space in the log for a payload of the topic's type, to be written in place and committed.
    ///
    /// # Errors
    /// As [`InlineNode::try_publish`].
    #[inline]
    pub fn try_claim_as<P: Payload>(&mut self, topic: &Topic<P>) -> Result<Claim<'_, P>, Refusal> {
        Ok(Claim::new(Space::Log(self.engine.try_claim(topic.outgoing(), size_of::<P>())?)))
    }

    /// Sends what has been published.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn flush(&mut self) -> Result<(), PortError> {
        self.engine.flush()
    }

    /// The number up to which all messages are acknowledged, in the sense of [`Publication`](crate::Publication); none
    /// while this process is in no view.
    pub fn acknowledged(&mut self) -> Option<u64> {
        self.engine.own_acknowledged().map(|sequence| sequence.0)
    }

    /// Asks for a barrier: the event [`Synced`](crate::Event::Synced) reports when everything that any member sent
    /// before it has been delivered everywhere. A payload of at most one datagram is delivered at every process between
    /// what was before and after.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &mut InlineNode) -> Result<(), Refusal> {
    /// node.sync(Some(b"end of day"))?; // delivered at every process at the barrier
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If this process is no member, too many barriers wait, or the payload is too long.
    pub fn sync(&mut self, payload: Option<&[u8]>) -> Result<(), Refusal> {
        self.engine.sync(payload)
    }

    /// Leaves the group; [`Event::Left`](crate::Event::Left) reports when the others have gone on without this process.
    pub fn leave(&mut self) {
        self.engine.leave();
    }

    /// The next direct message received. If the application never fetches them, 256 wait and the others are refused.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.engine.poll_direct()
    }

    // ---- what is known --------------------------------------------------------------------------------------------

    /// The view that this process is in, or follows; before the first, an empty one of epoch 0.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &InlineNode) {
    /// let ranks: Vec<_> = node.view().members.iter().map(|member| member.rank).collect();
    /// # let _ = ranks;
    /// # }
    /// ```
    pub fn view(&self) -> &View {
        self.engine.process().view()
    }

    /// Its own rank; none at an observer.
    pub fn rank(&self) -> Option<Rank> {
        self.engine.process().config().rank()
    }

    /// How this process stands to its group.
    pub fn standing(&self) -> Standing {
        self.engine.process().standing()
    }

    /// Whether there is a view that it is in, or follows.
    pub fn is_formed(&self) -> bool {
        self.engine.process().is_formed()
    }

    /// What has been counted since the start.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &InlineNode) {
    /// use bourdon::counters::Counter;
    ///
    /// println!("{} messages were delivered", node.counters().get(Counter::Delivered));
    /// # }
    /// ```
    pub fn counters(&self) -> &Counters {
        self.engine.counters()
    }

    /// How often a kind of detector has suspected members here, and was wrong.
    pub fn suspicions(&self, why: Why) -> Figures {
        self.engine.process().detector().figures(why)
    }

    /// How near members have come to be suspected without being: the gaps between what was heard of them.
    pub fn gaps(&self) -> Gaps {
        self.engine.process().detector().gaps()
    }

    /// The clock by which it delivers.
    pub fn clock(&self) -> &Clock {
        self.engine.clock()
    }

    /// Ends an [`InlineNode::wait`] from another thread.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &InlineNode) {
    /// let waker = node.waker();
    /// std::thread::spawn(move || waker.wake());
    /// # }
    /// ```
    pub fn waker(&self) -> Waker {
        self.engine.port().waker()
    }

    // ---- its network ----------------------------------------------------------------------------------------------

    /// Receives from one more source of the group, if `network.sources` names some.
    ///
    /// # Errors
    /// If it names none, or the kernel refuses.
    pub fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.engine.port().transport().join_source(source)
    }

    /// Stops receiving from a source; without the last source, it receives from none.
    ///
    /// # Errors
    /// If the source was not joined.
    pub fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.engine.port().transport().leave_source(source)
    }

    /// What moves the bytes.
    pub fn io(&self) -> &str {
        self.engine.port().io()
    }

    /// Ends one TCP connection of the transport `tcp` or `auto` abruptly, as a fault would, and over `auto` the sharing
    /// of memory with one process. Returns whether there was one of them.
    pub fn break_one_link(&mut self) -> bool {
        self.engine.port_mut().transport_mut().break_one_link()
    }

    /// What the kernel granted as a receive buffer, in its own accounting (twice what is asked).
    pub fn receive_buffer_bytes(&self) -> usize {
        self.engine.port().limits().receive_buffer_bytes
    }

    /// The address at which others reach this process.
    pub fn local_address(&self) -> SocketAddr {
        self.engine.port().local_address()
    }

    /// Makes the counters file by which `bourdon stat` and other tools read this node: polls bring it up to date, at
    /// most every 5 ms. It is removed when the node is dropped.
    ///
    /// # Errors
    /// If there is no directory for it.
    pub fn share_counters(&mut self, settings: &Settings) -> Result<PathBuf, Error> {
        let shared = self.create_counters(settings)?;
        Ok(self.counters.insert(Box::new(shared)).0.path())
    }

    /// Makes that file for the thread that brings it up to date.
    pub(crate) fn create_counters(&mut self, settings: &Settings) -> Result<(CountersFile, CountersWriter), Error> {
        let description = Description {
            group: settings.group.name.clone(),
            group_address: settings.group.address.to_string(),
            role: format!("{:?}", settings.process.role).to_lowercase(),
            rank: (settings.process.role == Role::Member).then_some(settings.process.rank),
            members: settings.group.members,
            address: self.local_address().to_string(),
            io: self.io().to_owned(),
            fallback: self.fallback.clone(),
            idle: format!("{:?}", settings.threads.idle).to_lowercase(),
            receive_buffer_bytes: self.engine.port().limits().receive_buffer_bytes as u64,
            cells: crate::counters::cells(),
        };
        let named = settings.threads.directory.as_deref();
        let (shared, problem) = Directory::place_in(named, |directory| {
            let path = directory.path().to_owned();
            let created = CountersFile::create(std::sync::Arc::new(directory), &description);
            created.map_err(|source| DirectoryError::Io { path, source })
        })?;
        if let Some(problem) = problem {
            self.fallback = Some(and(self.fallback.take(), &problem));
        }
        Ok(shared)
    }
}
