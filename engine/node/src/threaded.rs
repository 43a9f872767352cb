//! A node with threads of its own: the application publishes and receives through rings.
//!
//! An inline node needs its application to poll it; an application that computes, blocks or waits for a user can't
//! promise that. Here a data agent (`threaded/agent.rs`) keeps the protocol going on its own thread, the control thread
//! (`threaded/control.rs`) decides about views, locks and elections, and the admin thread (`admin/server.rs`) answers
//! clients that query the node. Groups that run beside each other ([`Node::start_beside`]) share data agents
//! and control thread (`threaded/agents.rs`). The application's threads hold a [`Publication`] or a [`Subscription`]
//! each: one end of a ring whose other end the data agent has. Rings carry messages only. All else is rare and goes by
//! mailbox, as values: commands to the agent, events from it.
//!
//! The design has rings carry positions in the protocol's logs; these carry bytes. Copying 64 bytes costs some
//! nanoseconds, while lending the log's memory to other threads would need unsafe code in the protocol that is pure
//! today. `docs/decisions/rings-carry-bytes.md` has the figures.
//!
//! Invariants: dropping a [`Node`] leaves no thread, file or socket. A message that a [`Publication`] took is
//! published in its order, or dropped with a [`Event::Dropped`] if the group can never take it. A system
//! call is made for a message only to wake a thread that sleeps.

mod acknowledgement;
mod agent;
mod agents;
pub(crate) mod claim;
pub(crate) mod closing;
pub(crate) mod commands;
mod control;
mod direct;
mod elsewhere;
mod end;
mod frames;
mod handles;
mod held_up;
mod hosted;
mod intake;
mod outlet;
mod publication;
#[cfg(test)]
mod tests;

pub use direct::{DirectNews, DirectTo};
pub use handles::Subscription;
pub use publication::{NotAcknowledged, Publication};

use crate::admin::server::{self, Control};
use crate::close::CloseReport;
use crate::config::{Role, Settings, group_of};
use crate::counters::CountersFile;
use crate::deadline::{Canceller, Deadline};
use crate::directory::SOCKET_SUFFIX;
use crate::inline::{Error, InlineNode};
use crate::locks::state::Wait;
use crate::locks::{Election, Guard, LockError, LockRequest, Locks};
use crate::mailbox::{Receiver, mailbox};
use crate::patterns::Pattern;
use agents::{Agents, Place};
use bourdon_port::{Port, Waker};
use bourdon_protocol::{CallId, Event};
use bourdon_ring::counters as cells;
use bourdon_ring::signal::{Bell, Flag};
use bourdon_wire::TopicName;
use closing::Stop;
use commands::{COMMANDS_MAX, Command, Commands, EVENTS_MAX};
use direct::{DirectCommand, NEWS_MAX};
use end::{End, lock};
use handles::Inlet;
use hosted::{Ending, Ends, Hosted};
use publication::PublisherEnd;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{self, sync_channel};
use std::time::{Duration, Instant};

/// What a threaded node is started with beside its settings.
#[derive(Clone, Debug)]
pub struct Handles {
    /// How many threads publish, each with a [`Publication`].
    pub publications: usize,
    /// The topics of each [`Subscription`], by patterns; none means all.
    pub subscriptions: Vec<Vec<Pattern>>,
}

/// A running node. Any thread may call it; shared in an `Arc`, by several at once.
#[derive(Debug)]
pub struct Node {
    group: String,
    info: Info,
    stop: Stop,
    /// Wakes the data agent.
    waker: Waker,
    /// Whether that is needed.
    bell: Bell,
    /// How the group ended; none once that is known.
    outcome: Mutex<Option<mpsc::Receiver<Result<CloseReport, Error>>>>,
    /// The group has ended.
    ended: Flag,
    admin: Option<Control>,
    events: Mutex<Receiver<Event>>,
    /// Rung for events and news of direct messages.
    events_waker: Waker,
    counters: CountersFile,
    commands: Commands,
    locks: Locks,
    news: Mutex<Receiver<DirectNews>>,
    /// Direct messages sent so far.
    tickets: Mutex<u64>,
    datagram_max_bytes: usize,
    canceller: Canceller,
    /// The threads, which end with the last group that they run.
    place: Place,
}

/// What a node chose when it started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The address at which others reach this process.
    pub local_address: SocketAddr,
    /// What moves the bytes.
    pub io: String,
    /// Why it is not what was asked for, if it is not.
    pub fallback: Option<String>,
    /// What the kernel granted as a receive buffer, in its own accounting (twice what is asked).
    pub receive_buffer_bytes: usize,
    /// Its counters file.
    pub counters_path: PathBuf,
    /// Its admin socket.
    pub socket_path: PathBuf,
}

impl Info {
    fn of(node: &InlineNode, counters: &CountersFile) -> Self {
        Self {
            local_address: node.local_address(),
            io: node.io().to_owned(),
            fallback: node.fallback().map(str::to_owned),
            receive_buffer_bytes: node.engine.port().limits().receive_buffer_bytes,
            counters_path: counters.path(),
            socket_path: PathBuf::new(),
        }
    }
}

/// The ends of a group's rings and mailboxes that the application and the admin thread have.
struct Outside {
    publishers: Vec<PublisherEnd>,
    inlets: Vec<Inlet>,
    held_up_by: cells::Reader,
    events: Receiver<Event>,
    events_waker: Waker,
    news: Receiver<DirectNews>,
    admin: server::Prepared,
}

impl Node {
    /// Starts a node with one publication and one subscription to all topics.
    ///
    /// # Errors
    /// As [`Node::start_with`].
    pub fn start(settings: &Settings) -> Result<(Self, Publication, Subscription), Error> {
        let handles = Handles { publications: 1, subscriptions: vec![Vec::new()] };
        let (node, mut publications, mut subscriptions) = Self::start_with(settings, &handles)?;
        Ok((node, publications.remove(0), subscriptions.remove(0)))
    }

    /// Starts a node, and `threads.data_agents` data agents and a control thread for it. All subscriptions exist before
    /// the first message is delivered, so that none is missed.
    ///
    /// # Errors
    /// If the settings contradict themselves, or the network, the core or the directory can't be used; the text
    /// gives what to do.
    pub fn start_with(
        settings: &Settings,
        handles: &Handles,
    ) -> Result<(Self, Vec<Publication>, Vec<Subscription>), Error> {
        settings.check()?;
        settings.check_leaning(false)?;
        Self::start_at(Agents::start(&settings.threads)?.place()?, settings, handles)
    }

    /// Starts a node of another group, usually of a channel ([`Settings::for_channel`]), on the threads of this one:
    /// on the data agent that runs the fewest groups, and on the same control thread. The threads end with the last
    /// node; what `settings.threads` names of them has no effect.
    ///
    /// # Errors
    /// As [`Node::start_with`].
    pub fn start_beside(
        &self,
        settings: &Settings,
        handles: &Handles,
    ) -> Result<(Self, Vec<Publication>, Vec<Subscription>), Error> {
        settings.check()?;
        settings.check_leaning(group_of(&settings.group.name) == Some(&self.group))?;
        let agents = self.place.agents();
        let mut settings = settings.clone();
        settings.threads.idle = agents.idle();
        Self::start_at(agents.place()?, &settings, handles)
    }

    fn start_at(
        place: Place,
        settings: &Settings,
        handles: &Handles,
    ) -> Result<(Self, Vec<Publication>, Vec<Subscription>), Error> {
        settings.check_ring_memory(handles.publications, handles.subscriptions.len())?;
        let (mut inside, outside) = ends(settings, handles)?;
        let mut node = InlineNode::join_beside(settings)?;
        held_up::write(&mut inside.held_up, node.engine.process().unavailable());
        let (file, counters) = node.create_counters(settings)?;
        let (cells, bells, waker) = (counters.reader(), place.bells().clone(), node.engine.port().waker());
        let info = Info::of(&node, &file);
        let ring = || {
            let (mut bell, doorbell) = (bells.work.clone(), waker.clone());
            move || {
                if bell.must_ring() {
                    doorbell.wake();
                }
            }
        };
        let (commands, commands_in) = mailbox(COMMANDS_MAX, ring());
        let (stop, ended, (outcome_in, outcome)) = (Stop::default(), Flag::new(), sync_channel(1));
        let ending = (ended.clone(), outcome_in.clone());
        let (control, route) = place.control().take_over(&mut node, settings, ring(), ending);
        let mut wakers: Vec<_> = inside.outlets.iter().map(|outlet| outlet.waker.clone()).collect();
        wakers.extend(inside.publications.iter().map(|intake| intake.waker().clone()));
        let canceller = Canceller::new(Flag::new(), wakers.clone());
        wakers.extend([outside.events_waker.clone(), place.control().waker().clone()]);
        let ending = Ending { stop: stop.clone(), end: End::new(ended.clone(), wakers, outcome_in) };
        place.run(Hosted::new(node, settings, inside, commands_in, control, counters, ending), ended.clone());
        let mut node = Self {
            group: settings.group.name.clone(),
            info,
            stop,
            waker,
            bell: bells.work.clone(),
            outcome: Mutex::new(Some(outcome)),
            ended,
            admin: None,
            events: Mutex::new(outside.events),
            events_waker: outside.events_waker,
            counters: file,
            commands,
            locks: Locks::new(route),
            news: Mutex::new(outside.news),
            tickets: Mutex::new(0),
            datagram_max_bytes: settings.limits.mtu_bytes,
            canceller,
            place,
        };
        node.start_admin(outside.admin, cells)?;
        let is_member = settings.process.role == Role::Member;
        let agent = publication::Agent {
            bell: bells.work.clone(),
            waker: node.waker.clone(),
            held_up_by: outside.held_up_by,
            cancelled: node.canceller.clone(),
        };
        let limit_bytes = is_member.then_some(settings.limits.max_message_bytes);
        let publication = |end| Publication::new(end, agent.clone(), limit_bytes);
        let publications = outside.publishers.into_iter().map(publication).collect();
        let subscription = |inlet| Subscription::new(inlet, &bells.room, &node.waker);
        let subscriptions = outside.inlets.into_iter().map(subscription).collect();
        Ok((node, publications, subscriptions))
    }

    /// Opens the admin socket beside the counters file.
    fn start_admin(&mut self, prepared: server::Prepared, cells: cells::Reader) -> Result<(), Error> {
        let (commands, waker, stop) = (self.commands.clone(), self.waker.clone(), self.stop.clone());
        let agent = server::AgentHandle { commands, waker, stop };
        let (directory, name) = (self.counters.directory(), format!("{}{SOCKET_SUFFIX}", self.counters.stem()));
        directory.check_socket(&name)?;
        let admin = prepared.start(&self.counters, cells, agent, self.locks.clone()).map_err(|source| Error::File {
            what: "the admin socket",
            path: directory.path().join(&name),
            source,
        })?;
        self.info.socket_path = admin.path();
        self.admin = Some(admin);
        Ok(())
    }

    fn command(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// Asks for a barrier, as [`InlineNode::sync`](crate::InlineNode::sync) does; false if too much waits already.
    pub fn sync(&self) -> bool {
        self.command(Command::Sync)
    }

    /// Leaves the group, as [`InlineNode::leave`](crate::InlineNode::leave) does.
    pub fn leave(&self) -> bool {
        self.command(Command::Leave)
    }

    /// Sends a message of at most one datagram beside the stream; [`Node::poll_direct`] reports its outcome by
    /// this name. `None` if too much waits already, or it is longer than any datagram.
    pub fn send_direct(&self, to: DirectTo<'_>, payload: &[u8]) -> Option<CallId> {
        let mut tickets = lock(&self.tickets); // held, so that calls are taken in the order of their names
        let call = CallId(*tickets);
        let fits = payload.len() <= self.datagram_max_bytes;
        let taken = fits && self.command(Command::Direct(DirectCommand::new(call, to, payload)));
        *tickets += u64::from(taken);
        taken.then_some(call)
    }

    /// The next direct message received, or what became of one sent. [`Node::events_fd`] is readable for these
    /// as well.
    pub fn poll_direct(&self) -> Option<DirectNews> {
        let news = lock(&self.news).take();
        if news.is_some() && self.bell.clone().must_ring() {
            self.waker.wake(); // there is room for what had to wait
        }
        news
    }

    /// Waits for a lock, for so long at most; without a limit if that is [`Duration::MAX`], not at all if it is zero.
    /// While the group is still forming or the node in no view, it waits for that as well.
    ///
    /// # Errors
    /// [`LockError::Busy`] if it was not granted in time; [`LockError::Refused`] with what the group lacked all the
    /// time; [`LockError::Lost`] if the node ended, was removed or reaches no majority.
    pub fn lock(&self, name: &str, timeout: Duration) -> Result<Guard, LockError> {
        self.locks.lock(name, Instant::now().checked_add(timeout))
    }

    /// Asks for a lock and comes back at once: [`LockRequest::try_guard`] hands it out.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn request_lock(&self, name: &str) -> Result<LockRequest, LockError> {
        Ok(self.locks.request(TopicName::new(name)?, Wait::Forever, None))
    }

    /// Watches an election, in which [`Election::campaign`] stands. If the group is still forming or the node in no
    /// view, it takes part once it can.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn election(&self, name: &str) -> Result<Election, LockError> {
        Ok(self.locks.election(TopicName::new(name)?, None))
    }

    /// Ends the waits of its publications, from any thread. A [`Subscription::wait`] that is under way returns early.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// What it chose.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The next event, if there is one.
    pub fn poll_event(&self) -> Option<Event> {
        lock(&self.events).take()
    }

    /// Readable when there are events, or when the node has ended; [`Node::clear_events`] first, then
    /// fetch.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events_waker.as_fd()
    }

    /// Takes the readiness of [`Node::events_fd`] back.
    pub fn clear_events(&self) {
        self.events_waker.clear();
    }

    /// Whether it still runs: it ends by [`Node::close`], by request on the admin socket, or because its port
    /// failed.
    pub fn is_running(&self) -> bool {
        !self.ended.is_set()
    }

    /// Ends this node: its publications take no more, what they accepted is sent and its acknowledgement awaited, locks
    /// and candidacies end, and a member leaves the view; all that within the deadline. Its subscriptions receive what
    /// is delivered until then: one whose ring is full holds delivery up, and so the end of the view. The view is left
    /// by agreement: without a majority, or where the members that are left would be too few for `group.quorum`, this
    /// process stays in the view of the others until they suspect it.
    ///
    /// # Errors
    /// Why it had ended already, if its port had failed.
    pub fn close(mut self, deadline: impl Into<Deadline>) -> Result<CloseReport, Error> {
        if self.place.control().is_current() {
            self.stop.begin_in_callback();
        }
        self.stop.close(deadline.into());
        let mut report = self.end()?;
        while let Some(event) = self.poll_event() {
            let Event::Dropped { publication, first, last, .. } = event else { continue };
            if !report.dropped.contains(&(publication, first..=last)) {
                report.dropped.push((publication, first..=last));
            }
        }
        report.dropped.sort_by_key(|(publication, numbers)| (*publication, *numbers.start()));
        Ok(report)
    }

    fn end(&mut self) -> Result<CloseReport, Error> {
        let Some(outcomes) = lock(&self.outcome).take() else { return Ok(CloseReport::default()) };
        if self.place.control().is_current() {
            self.stop.begin_in_callback();
        }
        self.stop.stop();
        self.waker.wake();
        let outcome = outcomes.recv();
        if !self.place.control().is_current() {
            let _ = outcomes.recv(); // fails once the control thread has no part of the group any more
        }
        drop(self.admin.take());
        match outcome {
            Ok(outcome) if !self.place.control().has_panicked() => outcome,
            _ if std::thread::panicking() => Ok(CloseReport::default()),
            _ => self.place.panic(),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop.abort(); // a panic waits for no other process
        }
        let _ = self.end(); // `close` is for callers that want the result
    }
}

/// Makes a group's rings and mailboxes.
fn ends(settings: &Settings, handles: &Handles) -> Result<(Ends, Outside), Error> {
    let io = |doing| move |source| Error::Io { doing, source };
    let (held_up, held_up_by) = held_up::cells();
    let ring_bytes = settings.threads.publication_ring_bytes;
    let publications = (0..handles.publications).map(|_| intake::ends(ring_bytes));
    let publications: Result<Vec<_>, _> = publications.collect();
    let (publications, publishers) = publications.map_err(io("making an eventfd"))?.into_iter().unzip();
    let subscriptions = handles.subscriptions.iter().map(|patterns| outlet::ends(settings, patterns));
    let subscriptions: Result<Vec<_>, _> = subscriptions.collect();
    let (outlets, inlets) = subscriptions.map_err(io("making an eventfd"))?.into_iter().unzip();
    let events_waker = Waker::new().map_err(io("making an eventfd"))?;
    let wake = || {
        let waker = events_waker.clone();
        move || waker.wake()
    };
    let (listener, events) = mailbox(EVENTS_MAX, wake());
    let (news_sender, news) = mailbox(NEWS_MAX, wake());
    let seats = server::prepare().map_err(io("preparing the admin socket"))?;
    let (listeners, replies) = ([listener, seats.listener], seats.replies);
    let inside = Ends { publications, outlets, held_up, listeners, replies, news: news_sender };
    Ok((inside, Outside { publishers, inlets, held_up_by, events, events_waker, news, admin: seats.control }))
}
