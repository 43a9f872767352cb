//! A node with threads of its own: the application publishes and receives through rings.
//!
//! An inline node needs its application to poll it; an application that computes, blocks or waits for a user can't
//! promise that. Here the data agent (`threaded/agent.rs`) keeps the protocol going on its own thread, the control
//! thread (`threaded/control.rs`) decides about locks and elections, and the admin thread (`admin/server.rs`) answers
//! clients that query the node. The application's threads hold a [`Publication`] or a [`Subscription`] each: one end of
//! a ring whose other end the data agent has. Rings carry messages only. All else is rare and goes by mailbox, as
//! values: commands to the agent, events from it.
//!
//! The design has rings carry positions in the protocol's logs; these carry bytes. Copying 64 bytes costs some
//! nanoseconds, while lending the log's memory to other threads would need unsafe code in the protocol that is pure
//! today. `docs/decisions/rings-carry-bytes.md` has the figures.
//!
//! Invariants: dropping a [`ThreadedNode`] leaves no thread, file or socket. A message that a [`Publication`] took is
//! published in its order, or dropped with a [`NodeEvent::PublicationDropped`] if the group can never take it. A system
//! call is made for a message only to wake a thread that sleeps.

mod agent;
pub(crate) mod commands;
mod control;
mod direct;
pub(crate) mod events;
mod frames;
mod handles;
mod held_up;
pub(crate) mod locks;
mod waits;

pub use direct::{DirectNews, DirectTo};
pub use events::NodeEvent;
pub use handles::{Publication, PublicationClaim, PublishError, Subscription};
pub use waits::Waiting;

use crate::admin::server::{self, Control};
use crate::config::{FlowMode, IdleStrategy, Role, Settings};
use crate::counters::{AgentFigures, CountersFile};
use crate::directory::SOCKET_SUFFIX;
use crate::idle::Idler;
use crate::inline::{Node, NodeError};
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::placement::place_current_thread;
use crate::threaded::locks::Locks;
use crate::threaded::locks::commands::LockCommands;
use crate::topics::{Filter, Pattern};
use agent::{Agent, Outlet, frame_guess_bytes};
use bourdon_port::{Port, Waker};
use bourdon_protocol::CallId;
use bourdon_ring::counters as cells;
use bourdon_ring::signal::{Bell, Flag, Sleeper, doorbell, watermark};
use bourdon_ring::spsc;
use commands::{COMMANDS_MAX, Command, Commands, Reply};
use control::{ControlThread, DataEnd, FromData, WayToControl};
use direct::{DirectCommand, NEWS_MAX, Post};
use events::EVENTS_MAX;
use handles::Inlet;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// What a threaded node is started with beside its settings.
#[derive(Clone, Debug)]
pub struct Handles {
    /// How many threads publish, each with a [`Publication`].
    pub publications: usize,
    /// The topics of each [`Subscription`], by patterns; none means all.
    pub subscriptions: Vec<Vec<Pattern>>,
}

/// A running node.
#[derive(Debug)]
pub struct ThreadedNode {
    info: Info,
    stop: Flag,
    /// Wakes the data agent.
    waker: Waker,
    /// Whether that is needed.
    bell: Bell,
    data: Option<JoinHandle<Result<(), NodeError>>>,
    /// The data agent has ended.
    ended: Flag,
    admin: Option<Control>,
    control: Option<ControlThread>,
    events: Receiver<NodeEvent>,
    /// Rung for events and news of direct messages.
    events_waker: Waker,
    counters: CountersFile,
    commands: Commands,
    lock_commands: LockCommands,
    news: Receiver<DirectNews>,
    /// Direct messages sent so far.
    tickets: u64,
    datagram_max_bytes: usize,
}

/// What a node chose when it started.
#[derive(Clone, Debug)]
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

/// What the data agent reports once it runs.
struct Ready {
    info: Info,
    waker: Waker,
    commands: Commands,
    counters: CountersFile,
    cells: cells::Reader,
    from_data: FromData,
}

/// What the data agent's thread is given.
struct Given {
    settings: Settings,
    publications: Vec<spsc::Consumer>,
    outlets: Vec<Outlet>,
    listeners: [Sender<NodeEvent>; 2],
    replies: Sender<Reply>,
    news: Sender<DirectNews>,
    control: WayToControl,
    held_up: cells::Writer,
    sleeper: Sleeper,
    /// Of the sleeper, for senders of commands.
    bell: Bell,
    gate: Sleeper,
    stop: Flag,
}

impl ThreadedNode {
    /// Starts a node with one publication and one subscription to all topics.
    ///
    /// # Errors
    /// As [`ThreadedNode::start_with`].
    pub fn start(settings: &Settings) -> Result<(Self, Publication, Subscription), NodeError> {
        let handles = Handles { publications: 1, subscriptions: vec![Vec::new()] };
        let (node, mut publications, mut subscriptions) = Self::start_with(settings, &handles)?;
        Ok((node, publications.remove(0), subscriptions.remove(0)))
    }

    /// Starts a node. All subscriptions exist before the first message is delivered, so that none is missed.
    ///
    /// # Errors
    /// If the settings contradict themselves, or the network, the core or the directory can't be used; the text
    /// gives what to do.
    pub fn start_with(
        settings: &Settings,
        handles: &Handles,
    ) -> Result<(Self, Vec<Publication>, Vec<Subscription>), NodeError> {
        settings.check()?;
        settings.check_ring_memory(handles.publications, handles.subscriptions.len())?;
        let io = |doing| move |source| NodeError::Io { doing, source };
        let ((sleeper, bell), (gate, gate_bell)) = (doorbell(), doorbell());
        let (held_up, held_up_by) = cells::in_memory(1);
        let (producers, publications) = publications(settings, handles);
        let (outlets, inlets) = subscriptions(settings, handles)?;
        let events_waker = Waker::new().map_err(io("making an eventfd"))?;
        let wake = || {
            let waker = events_waker.clone();
            move || waker.wake()
        };
        let (listener, events) = mailbox(EVENTS_MAX, wake());
        let (news_sender, news) = mailbox(NEWS_MAX, wake());
        let seats = server::prepare().map_err(io("preparing the admin socket"))?;
        let (control, ways) = control::prepare().map_err(io("preparing the control thread"))?;
        let (stop, ended) = (Flag::new(), Flag::new());
        let given = Given {
            settings: settings.clone(),
            publications,
            outlets,
            listeners: [listener, seats.listener],
            replies: seats.replies,
            news: news_sender,
            control: ways.data,
            held_up,
            sleeper,
            bell: bell.clone(),
            gate,
            stop: stop.clone(),
        };
        let (data, ready) = stand_up(given, ended.clone(), [events_waker.clone(), ways.waker])?;
        let Ready { info, waker, commands, counters, cells, from_data } = ready;
        let mut node = Self {
            info,
            stop,
            waker,
            bell: bell.clone(),
            data: Some(data),
            ended,
            admin: None,
            control: None,
            events,
            events_waker,
            counters,
            commands,
            lock_commands: ways.commands,
            news,
            tickets: 0,
            datagram_max_bytes: settings.limits.mtu_bytes,
        };
        let is_member = settings.process.role == Role::Member;
        node.start_control(control, from_data, (is_member, settings.threads.idle))?;
        node.start_admin(seats.control, cells)?;
        let publication = |producer| Publication {
            producer,
            bell: bell.clone(),
            waker: node.waker.clone(),
            held_up_by: held_up_by.clone(),
            max_message_bytes: is_member.then_some(settings.limits.max_message_bytes),
        };
        let publications = producers.into_iter().map(publication).collect();
        let (gate, agent) = (&gate_bell, &node.waker);
        let subscriptions = inlets.into_iter().map(|inlet| Subscription::new(inlet, gate, agent)).collect();
        Ok((node, publications, subscriptions))
    }

    fn start_control(
        &mut self,
        prepared: control::Prepared,
        data: FromData,
        how: (bool, IdleStrategy),
    ) -> Result<(), NodeError> {
        let started = prepared.start(data, self.ended.clone(), how);
        let doing = "starting the control thread";
        self.control = Some(started.map_err(|source| NodeError::Io { doing, source })?);
        Ok(())
    }

    /// Opens the admin socket beside the counters file.
    fn start_admin(&mut self, prepared: server::Prepared, cells: cells::Reader) -> Result<(), NodeError> {
        let (commands, waker, stop) = (self.commands.clone(), self.waker.clone(), self.stop.clone());
        let agent = server::AgentHandle { commands, waker, stop };
        let (directory, name) = (self.counters.directory(), format!("{}{SOCKET_SUFFIX}", self.counters.stem()));
        directory.check_socket(&name)?;
        let admin = prepared.start(&self.counters, cells, agent, self.locks()).map_err(|source| NodeError::File {
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

    /// Asks for a barrier, as [`Engine::sync`](crate::Engine::sync) does; false if too much waits already.
    pub fn sync(&mut self) -> bool {
        self.command(Command::Sync)
    }

    /// Leaves the group, as [`Engine::leave`](crate::Engine::leave) does.
    pub fn leave(&mut self) -> bool {
        self.command(Command::Leave)
    }

    /// Sends a message of at most one datagram beside the stream; [`ThreadedNode::poll_direct`] reports its outcome by
    /// this name. `None` if too much waits already, or it is longer than any datagram.
    pub fn send_direct(&mut self, to: DirectTo<'_>, payload: &[u8]) -> Option<CallId> {
        let call = CallId(self.tickets);
        let fits = payload.len() <= self.datagram_max_bytes;
        let taken = fits && self.command(Command::Direct(DirectCommand::new(call, to, payload)));
        self.tickets += u64::from(taken);
        taken.then_some(call)
    }

    /// The next direct message received, or what became of one sent. [`ThreadedNode::events_fd`] is readable for these
    /// as well.
    pub fn poll_direct(&mut self) -> Option<DirectNews> {
        let news = self.news.take();
        if news.is_some() && self.bell.must_ring() {
            self.waker.wake(); // there is room for what had to wait
        }
        news
    }

    /// The group's locks and elections, for any thread; it outlives the node, and then reports that the node has ended.
    pub fn locks(&self) -> Locks {
        Locks::new(self.lock_commands.clone())
    }

    /// What it chose.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.take()
    }

    /// Readable when there are events, or when the node has ended; [`ThreadedNode::clear_events`] first, then
    /// fetch.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events_waker.as_fd()
    }

    /// Takes the readiness of [`ThreadedNode::events_fd`] back.
    pub fn clear_events(&self) {
        self.events_waker.clear();
    }

    /// Whether it still runs: it ends by [`ThreadedNode::stop`], by request on the admin socket, or because its port
    /// failed.
    pub fn is_running(&self) -> bool {
        !self.ended.is_set()
    }

    /// Stops it: what was published is sent, and its acknowledgement awaited for up to a second.
    ///
    /// # Errors
    /// Why it had ended already, if its port had failed.
    pub fn stop(mut self) -> Result<(), NodeError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), NodeError> {
        self.stop.set();
        self.waker.wake();
        let joined = self.data.take().map(JoinHandle::join);
        let control = self.control.take().map_or(Ok(()), ControlThread::join);
        drop(self.admin.take());
        if let (Err(panic), false) = (control, std::thread::panicking()) {
            std::panic::resume_unwind(panic);
        }
        match joined {
            Some(Err(panic)) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            Some(Ok(outcome)) => outcome,
            _ => Ok(()),
        }
    }
}

impl Drop for ThreadedNode {
    fn drop(&mut self) {
        let _ = self.end(); // `stop` is for callers that want the result
    }
}

/// Starts the data agent and waits until it runs.
fn stand_up(
    given: Given,
    ended: Flag,
    wakers: [Waker; 2],
) -> Result<(JoinHandle<Result<(), NodeError>>, Ready), NodeError> {
    let (ready, stands) = sync_channel(1);
    let io = |source| NodeError::Io { doing: "starting the data agent", source };
    let data = spawn_agent(given, ready, ended, wakers).map_err(io)?;
    match stands.recv() {
        Ok(ready) => Ok((data, ready)),
        Err(_) => {
            let outcome = data.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Err(outcome.expect_err("an agent that ends before it runs reports why"))
        }
    }
}

fn spawn_agent(
    given: Given,
    ready: SyncSender<Ready>,
    ended: Flag,
    wakers: [Waker; 2],
) -> std::io::Result<JoinHandle<Result<(), NodeError>>> {
    Builder::new().name("bourdon-data".to_owned()).spawn(move || {
        let _end = End { ended, wakers };
        run_agent(given, ready)
    })
}

/// Reports that the data agent has ended, however it ends.
struct End {
    ended: Flag,
    wakers: [Waker; 2],
}

impl Drop for End {
    fn drop(&mut self) {
        self.ended.set();
        self.wakers.iter().for_each(Waker::wake);
    }
}

/// The data agent's thread, from its first line to its last.
fn run_agent(given: Given, ready: SyncSender<Ready>) -> Result<(), NodeError> {
    let settings = &given.settings;
    place_current_thread(settings.threads.core)?;
    let mut node = Node::join(settings)?;
    let (file, counters) = node.share_counters(settings)?;
    let info = Info {
        local_address: node.local_address(),
        io: node.io().to_owned(),
        fallback: node.fallback().map(str::to_owned),
        receive_buffer_bytes: node.port().limits().receive_buffer_bytes,
        counters_path: file.path(),
        socket_path: PathBuf::new(),
    };
    let waker = node.port().waker();
    let ring = || {
        let (doorbell, mut bell) = (waker.clone(), given.bell.clone());
        move || {
            if bell.must_ring() {
                doorbell.wake();
            }
        }
    };
    let (sender, commands) = mailbox(COMMANDS_MAX, ring());
    let (control, orders) = DataEnd::new(given.control, node.now(), ring());
    let from_data = FromData { plane: node.release_control(), orders, waker: waker.clone() };
    let cells = counters.reader();
    let standing = Ready { info, waker, commands: sender, counters: file, cells, from_data };
    if ready.send(standing).is_err() {
        return Ok(()); // no caller waits for this node any more
    }
    let wakers: Vec<_> = given.outlets.iter().map(|outlet| outlet.waker.clone()).collect();
    let idler = Idler::new(settings.threads.idle);
    let is_member = settings.process.role == Role::Member;
    let agent = Agent {
        node,
        publications: given.publications,
        outlets: given.outlets,
        listeners: given.listeners,
        commands,
        replies: given.replies,
        post: Post::new(given.news),
        control,
        is_halted: false,
        held_up: given.held_up,
        sleeper: given.sleeper,
        gate: given.gate,
        stop: given.stop,
        counters,
        figures: AgentFigures::default(),
        reach: None,
        view_wait: waits::ViewWait::default(),
        hearing_due: bourdon_wire::Instant(0),
        hears_no_majority: false,
        is_member,
        keeps_all: is_member || settings.flow.mode == FlowMode::Gating,
    };
    let outcome = agent.run(idler);
    wakers.iter().for_each(Waker::wake); // the rings are gone: no thread shall wait for them
    Ok(outcome?)
}

/// Both ends of every publication's ring.
fn publications(settings: &Settings, handles: &Handles) -> (Vec<spsc::Producer>, Vec<spsc::Consumer>) {
    let ring_bytes = settings.threads.publication_ring_bytes;
    (0..handles.publications).map(|_| spsc::channel(ring_bytes)).unzip()
}

/// Both ends of every subscription's ring.
fn subscriptions(settings: &Settings, handles: &Handles) -> Result<(Vec<Outlet>, Vec<Inlet>), NodeError> {
    let pairs = handles.subscriptions.iter().map(|patterns| subscribe(settings, patterns));
    let pairs: Result<Vec<_>, _> = pairs.collect();
    let pairs = pairs.map_err(|source| NodeError::Io { doing: "making an eventfd", source })?;
    Ok(pairs.into_iter().unzip())
}

fn subscribe(settings: &Settings, patterns: &[Pattern]) -> std::io::Result<(Outlet, Inlet)> {
    let (producer, consumer) = spsc::channel(settings.threads.subscription_ring_bytes);
    let (sleeper, bell) = doorbell();
    let (overruns, overrun_count) = watermark(0);
    let waker = Waker::new()?;
    let outlet = Outlet {
        producer,
        filter: Filter::new(patterns, &settings.group.topics),
        overflow: VecDeque::new(),
        overruns,
        bell,
        waker: waker.clone(),
        longest_bytes: frame_guess_bytes(),
    };
    Ok((outlet, Inlet { consumer, sleeper, waker, overruns: overrun_count }))
}
