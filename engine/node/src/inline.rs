//! A node run by the application's own thread.
//!
//! Handing a message to another thread costs a cache line each way and, if that thread sleeps, a wake-up. Here there is
//! no other thread: [`InlineNode::poll`] receives, delivers, keeps time and sends, all within the call. Nothing happens
//! between two calls: if the application does not call for longer than the detectors wait (80 ms by default), the other
//! members suspect this process. For the lowest latency it calls without a pause.
//!
//! One clock reading a burst: everything delivered by one call carries the same time.

use crate::closed::Closed;
use crate::config::{Settings, SettingsError, Transport};
use crate::counters::{CountersFile, CountersWriter, Description};
use crate::delivery::Delivery;
use crate::directory::{Directory, DirectoryError};
use crate::engine::DELIVER_LIMIT;
use crate::engine::Engine;
use crate::identity::{BirthFile, Drawn};
use crate::links::Links;
use crate::locks::inline::InlineLocks;
use crate::locks::state::Wait;
use crate::locks::{Election, LockError, LockRequest, Locks};
use crate::placement::PlacementError;
use crate::reports::Reports;
use crate::topics::PatternError;
use crate::transport::{NodePort, pick};
use bourdon_port::faults::Faults;
use bourdon_port::{Echo, Port, PortError, Sleep};
use bourdon_protocol::Satisfied;
use bourdon_wire::{ChannelId, ECHO_OFFSET, Instant, Rank, TopicName, echo_bytes};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Why a node can't start or go on. The text gives the value that is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings contradict themselves, or need more memory than there is. It comes before any socket is opened:
    /// mend the key that the text names.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The network can't be used, when the node starts or later. At the start mend the address, the interface or the
    /// rights that the text names; a node that ran has ended and is started again.
    #[error(transparent)]
    Port(#[from] PortError),
    /// At the start: the kernel granted so small a receive buffer that no window fits it. Raise `net.core.rmem_max`, or
    /// `network.receive_buffer_bytes` if that is what is too small.
    #[error(
        "the kernel granted {granted_bytes} bytes of receive buffer, too little for this group's window: {source}; \
             {}", buffer_remedy(*.asked_bytes, *.granted_bytes)
    )]
    Buffer {
        /// `network.receive_buffer_bytes`.
        asked_bytes: usize,
        /// What the kernel granted, in its own accounting (twice what is asked).
        granted_bytes: usize,
        /// What does not fit.
        source: bourdon_protocol::ConfigError,
    },
    /// At the start: the threads can't run on the cores that `threads.core` names. Name others, or none.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// At the start: the directory for counters and the admin socket can't be used. Name another with
    /// `threads.directory`.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// At the start: a file in that directory can't be made. Make room there, or name another directory.
    #[error("can't make {what} {}: {source}; make room there, or name another directory with threads.directory",
         path.display())]
    File {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// [`Node::join`](crate::Node::join) or [`Node::open_beside`](crate::Node::open_beside) after a thread of the node
    /// has panicked: a bug of Bourdon. Start another node.
    #[error("the threads of this node have ended by a panic, so they run no more groups: start another node")]
    ThreadsGone,
    /// A text is no pattern for topics. Mend it by the rule that the text gives.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Something that this process does not do, or not with its settings. The text gives what to do.
    #[error("{setting} is not supported here: {what}")]
    Unsupported {
        /// What was asked for.
        setting: &'static str,
        /// Why not, and what to do.
        what: String,
    },
    /// The node has ended, so it has no new handles.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The kernel refused a thread, an eventfd or the like: the process is usually at a limit of its own (`ulimit -n`,
    /// `ulimit -u`). Raise it.
    #[error("{doing}: {source}")]
    Io {
        /// What the node was doing.
        doing: &'static str,
        /// What the kernel reports.
        source: std::io::Error,
    },
}

/// What makes a receive buffer larger. The kernel grants twice what was requested, within its limit.
fn buffer_remedy(asked_bytes: usize, granted_bytes: usize) -> String {
    if granted_bytes / 2 >= asked_bytes {
        format!("network.receive_buffer_bytes is {asked_bytes}, too small: raise it, or leave it out")
    } else {
        format!("raise net.core.rmem_max to network.receive_buffer_bytes ({asked_bytes})")
    }
}

/// Why the node runs without hard evidence, after another reason if there is one.
fn without_links(before: Option<String>, error: &std::io::Error) -> String {
    let before = before.map(|why| format!("{why}; ")).unwrap_or_default();
    format!("{before}no links to the other members ({error}): a process that is gone is noticed by its silence only")
}

/// A member or observer, run by the thread that calls [`Engine::poll`].
///
/// A node that is dropped polls itself until all that it published is acknowledged, for `threads.drop_timeout_ns` at
/// most; messages that are delivered meanwhile are discarded.
#[derive(Debug)]
pub struct InlineNode {
    engine: Engine<NodePort>,
    fallback: Option<String>,
    links: Option<Links>,
    /// When the links next receive the view's members, and what the node reports of itself is next looked for.
    upkeep_due: Instant,
    reports: Reports,
    birth: BirthFile,
    /// The group's name, for its warnings.
    pub(crate) group: Box<str>,
    /// How long it goes on at most when it is dropped; see `close.rs`.
    pub(crate) drop_timeout_ns: u64,
    /// From the first request for a lock or an election on.
    locks: Option<Box<InlineLocks>>,
    is_member: bool,
}

/// How often: so that a new member is watched before it matters.
const UPKEEP_NS: u64 = 5_000_000;

impl InlineNode {
    /// Opens the sockets and begins to join.
    ///
    /// # Errors
    /// If the settings contradict themselves or the network can't be used; the text gives what to do.
    pub fn join(settings: &Settings) -> Result<Self, Error> {
        settings.check_leaning(false)?;
        Self::join_beside(settings)
    }

    /// As [`InlineNode::join`]. A channel that leans on the detectors of its group is run beside the group: the caller
    /// passes their judgements to [`Engine::judge`].
    pub(crate) fn join_beside(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        settings.check_peers()?;
        settings.check_log_memory()?;
        let drawn = Drawn::new();
        let incarnation = drawn.incarnation;
        let rank = match settings.process.role {
            crate::config::Role::Member => Rank(settings.process.rank),
            crate::config::Role::Observer => Rank::OBSERVER,
        };
        let echo = Echo { offset: ECHO_OFFSET, bytes: echo_bytes(rank, ChannelId(0), incarnation) };
        let picked = pick(settings, echo)?;
        let granted_bytes = picked.port.limits().receive_buffer_bytes;
        let mut config = settings.protocol(granted_bytes);
        config.incarnation = incarnation;
        (config.instance_candidate, config.seed, config.secret) = (drawn.candidate, drawn.seed, drawn.secret);
        let (birth, problem) = BirthFile::open(settings);
        config.birth_floor = birth.floor();
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
            fallback = Some(fallback.map_or_else(|| problem.clone(), |why| format!("{why}; {problem}")));
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
        let engine = Engine::new(port, config);
        let engine = engine.map_err(|source| Error::Buffer { asked_bytes, granted_bytes, source })?;
        let (group, drop_timeout_ns) = (settings.group.name.as_str().into(), settings.threads.drop_timeout_ns);
        let (upkeep_due, reports) = (Instant(0), Reports::default());
        let (locks, is_member) = (None, rank != Rank::OBSERVER);
        Ok(Self { engine, fallback, links, upkeep_due, reports, birth, group, drop_timeout_ns, locks, is_member })
    }

    /// As [`Engine::poll`]; takes in what the links know, too.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn poll(&mut self, on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, PortError> {
        self.poll_at_most(DELIVER_LIMIT, on_delivery)
    }

    /// As [`Engine::poll_at_most`]; takes in what the links know, too.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn poll_at_most(&mut self, limit: usize, on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, PortError> {
        self.poll_after(limit, &|_| true, on_delivery)
    }

    /// As [`Engine::poll_after`]; takes in what the links know, too.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn poll_after(
        &mut self,
        limit: usize,
        passed: Satisfied<'_>,
        mut on_delivery: impl FnMut(Delivery<'_>),
    ) -> Result<usize, PortError> {
        if let Some(links) = &mut self.links {
            let engine = &mut self.engine;
            links.evidence(|rank, incarnation| engine.on_evidence(rank, incarnation));
        }
        self.birth.note(self.engine.process.birth_floor());
        if self.engine.now >= self.upkeep_due {
            self.keep_up(&mut on_delivery);
        }
        if self.locks.is_some() {
            self.carry_out();
        }
        let count = self.engine.poll_after(limit, passed, on_delivery)?;
        Ok(if self.locks.is_some() { count + self.poll_locks() } else { count })
    }

    /// Begins now: for the process, no time has passed since it was made.
    pub(crate) fn begin(&mut self) {
        self.engine.begin();
    }

    /// What is not due with every poll.
    #[cold]
    fn keep_up(&mut self, on_delivery: &mut impl FnMut(Delivery<'_>)) {
        let now = self.engine.now;
        self.upkeep_due = now + UPKEEP_NS;
        let process = &self.engine.process;
        if let Some(links) = &mut self.links {
            links.watch(process.links());
        }
        let reach = self.engine.port.transport().reach();
        let events = self.reports.due(now, process, reach, &mut self.birth);
        events.for_each(|event| on_delivery(Delivery::Event(event)));
    }

    /// As [`Engine::wait`]; returns at once if locks or elections were given up since the last poll.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn wait(&mut self, longest: Duration) -> Result<(), PortError> {
        if self.has_commands() { Ok(()) } else { self.engine.wait(longest) }
    }

    /// As [`Engine::sleeper`], for that reason.
    ///
    /// # Errors
    /// If the port is broken.
    pub(crate) fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        if self.has_commands() { Ok(None) } else { self.engine.sleeper(longest) }
    }

    fn has_commands(&self) -> bool {
        self.locks.as_ref().is_some_and(|locks| locks.has_commands())
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
        let (is_member, port) = (self.is_member, &self.engine.port);
        let locks = self.locks.get_or_insert_with(|| Box::new(InlineLocks::new(is_member, port.waker())));
        locks.note_poller();
        locks.locks()
    }

    /// What the node does differently from the settings, and why: another transport, no links, no stored birth.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Receives from one more source of the group, if `network.sources` names some.
    ///
    /// # Errors
    /// If it names none, or the kernel refuses.
    pub fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.engine.port.transport().join_source(source)
    }

    /// Stops receiving from a source; without the last source, it receives from none.
    ///
    /// # Errors
    /// If the source was not joined.
    pub fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.engine.port.transport().leave_source(source)
    }

    /// What moves the bytes.
    pub fn io(&self) -> &str {
        self.engine.port.io()
    }

    /// Ends one TCP connection of the transport `tcp` or `auto` abruptly, as a fault would. Returns whether there was
    /// one.
    pub fn break_one_link(&mut self) -> bool {
        self.engine.port.transport_mut().break_one_link()
    }

    /// The address at which others reach this process.
    pub fn local_address(&self) -> SocketAddr {
        self.engine.port.local_address()
    }

    /// Makes the counters file by which `bourdon stat` and other tools read this node; after each poll, call
    /// [`CountersWriter::update`]. The file is removed when the first of the two is dropped.
    ///
    /// # Errors
    /// If there is no directory for it.
    pub fn share_counters(&self, settings: &Settings) -> Result<(CountersFile, CountersWriter), Error> {
        let directory = Directory::open(settings.threads.directory.as_deref())?;
        let description = Description {
            group: settings.group.name.clone(),
            group_address: settings.group.address.to_string(),
            role: format!("{:?}", settings.process.role).to_lowercase(),
            rank: (settings.process.role == crate::config::Role::Member).then_some(settings.process.rank),
            members: settings.group.members,
            address: self.local_address().to_string(),
            io: self.io().to_owned(),
            fallback: self.fallback.clone(),
            idle: format!("{:?}", settings.threads.idle).to_lowercase(),
            receive_buffer_bytes: self.engine.port.limits().receive_buffer_bytes as u64,
            cells: crate::counters::cells(),
        };
        let path = directory.path().to_owned();
        CountersFile::create(std::sync::Arc::new(directory), &description).map_err(|source| Error::File {
            what: "the counters file in",
            path,
            source,
        })
    }
}

impl std::ops::Deref for InlineNode {
    type Target = Engine<NodePort>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

impl std::ops::DerefMut for InlineNode {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.engine
    }
}
