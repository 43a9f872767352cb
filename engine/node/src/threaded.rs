//! A node with threads of its own: the application publishes and receives through rings.
//!
//! An inline node needs its application to poll it; an application that computes, blocks or waits for a user can't
//! promise that. Here a data agent (`threaded/agent.rs`) keeps the protocol going on its own thread, the control thread
//! (`threaded/control.rs`) decides about views, locks and elections, and the admin thread (`admin/server.rs`) answers
//! clients that query the node. Groups that run beside each other ([`Node::open_beside`]) share data agents
//! and control thread (`threaded/agents.rs`). The application's threads hold a [`Publication`] or a [`Subscription`]
//! each: one end of a ring whose other end the data agent has. Rings carry messages only. All else is rare and goes by
//! mailbox, as values: commands to the agent, events from it.
//!
//! The design has rings carry positions in the protocol's logs; these carry bytes. Copying 64 bytes costs some
//! nanoseconds, while lending the log's memory to other threads would need unsafe code in the protocol that is pure
//! today. `docs/decisions/rings-carry-bytes.md` has the figures.
//!
//! Invariants: dropping a [`Node`] leaves no thread, file or socket. A message that a [`Publication`] took is
//! published in its order, or dropped with an [`Event::Dropped`](crate::Event::Dropped) if the group can never take it.
//! A system
//! call is made for a message only to wake a thread that sleeps.

mod acknowledgement;
mod agent;
mod agents;
mod calls;
pub(crate) mod claim;
mod client;
pub(crate) mod closing;
pub(crate) mod commands;
mod control;
mod direct;
mod duty;
mod elsewhere;
mod end;
mod frames;
mod handles;
mod held_up;
mod hosted;
mod intake;
mod outlet;
mod publication;
#[cfg(feature = "tokio")]
pub(crate) mod received;
#[cfg(feature = "tokio")]
pub(crate) mod stream;
mod subscription;
#[cfg(test)]
mod tests;

pub use publication::{NotAcknowledged, Publication};
pub use subscription::Subscription;

use crate::admin::server::{self, Control};
use crate::client_node::ClientNode;
use crate::close::CloseReport;
use crate::config::{Role, Settings, group_of};
use crate::counters::CountersFile;
use crate::deadline::{Canceller, Deadline};
use crate::directory::SOCKET_SUFFIX;
use crate::inline::InlineNode;
use crate::locks::commands::Route;
use crate::locks::state::Wait;
use crate::locks::{Election, Guard, LockError, LockRequest, Locks};
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::node_error::Error;
use crate::request::{Call, Outbound, Reply, RequestError};
use crate::subscribe::Subscribe;
use agents::{Agents, Bells, Place};
use bourdon_port::{Port, Waker};
use bourdon_protocol::{CoordinationRefusal, DirectMessage, Refusal, To, View};
use bourdon_ring::counters as cells;
use bourdon_ring::signal::Flag;
use bourdon_wire::{Epoch, InstanceId, Rank, TopicName};
use calls::{Caller, KINDS};
use client::{ClientEnds, ClientSeat};
use closing::Stop;
use commands::{COMMANDS_MAX, Command, Commands};
use control::Vacancy;
use direct::{MESSAGES_MAX, Post};
use duty::Duty;
use end::{End, WhyClosed, lock};
use hosted::{Ending, Ends, Hosted};
use publication::Limits;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::mpsc::{self, sync_channel};
use std::sync::{Arc, Mutex};

/// A member, observer or client with threads of its own. Any thread may call it; shared in an `Arc`, by several at
/// once.
///
/// It is opened, then joined: a [`Subscription`] that is made in between misses nothing. A node that is dropped goes on
/// for `threads.drop_timeout_ns` at most, while a message that it accepted may be lost with it; [`Node::close`]
/// reports.
///
/// ```no_run
/// use bourdon::{Deadline, Node, Settings, Subscribe};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::open(&Settings::load("bourdon.toml".as_ref())?)?;
/// let mut trades = node.subscribe(Subscribe::to("md.*.trades"))?;
/// node.join()?;
/// while let Some(delivery) = trades.next(Deadline::NEVER)? {
///     println!("{delivery}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Node {
    settings: Box<Settings>,
    info: Info,
    stop: Stop,
    /// The group, until it is joined; and what is handed to it.
    group: Mutex<Group>,
    /// How the group ended; none once that is known.
    outcome: Mutex<Option<mpsc::Receiver<Result<CloseReport, Error>>>>,
    /// The group has ended.
    ended: Flag,
    admin: Option<Control>,
    /// None of a client.
    counters: Option<CountersFile>,
    /// The client by which an observer publishes, from its first publication on.
    publisher: Mutex<Option<Box<Node>>>,
    commands: Commands,
    locks: Locks,
    messages: Mutex<Receiver<DirectMessage>>,
    /// The view, as the data agent installed it last.
    view: Arc<Mutex<View>>,
    /// Rung for direct messages and the outcomes of calls.
    news_waker: Waker,
    caller: Caller,
    /// What announces work to the data agent.
    agent: handles::Agent,
    /// The threads, which end with the last group that they run.
    place: Place,
}

/// What a node chose when it started.
///
/// ```
/// # use bourdon::*;
/// # fn show(node: &Node) {
/// let info = node.info();
/// println!("{} over {}; {}", info.local_address, info.io, info.fallback.as_deref().unwrap_or("as asked for"));
/// # }
/// ```
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
    /// Its counters file; empty at a client, which has none.
    pub counters_path: PathBuf,
    /// Its admin socket; empty at a client.
    pub socket_path: PathBuf,
}

impl Info {
    fn of(port: &impl Port, fallback: Option<&str>, counters: Option<&CountersFile>) -> Self {
        Self {
            local_address: port.local_address(),
            io: port.io().to_owned(),
            fallback: fallback.map(str::to_owned),
            receive_buffer_bytes: port.limits().receive_buffer_bytes,
            counters_path: counters.map(CountersFile::path).unwrap_or_default(),
            socket_path: PathBuf::new(),
        }
    }
}

/// What the application hands to its group.
struct Group {
    /// What the agent is to run, until it is joined.
    opened: Option<Opened>,
    /// Publications made so far.
    publications: usize,
}

/// What the data agent is to run.
enum Opened {
    /// A process of the group, and its seat at the control thread.
    Process(Box<Hosted>, Vacancy),
    /// A client of it.
    Client(Box<ClientSeat>),
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("publications", &self.publications).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens sockets, counters file and admin socket, and starts `threads.data_agents` data agents and a control
    /// thread. The group does not run until [`Node::join`]: nothing is sent, and nothing that is received is used.
    ///
    /// # Errors
    /// If the settings contradict themselves, or the network, the core or the directory can't be used; the text
    /// gives what to do.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        settings.check_leaning(false)?;
        Self::open_with(&Agents::start(&settings.threads)?, settings)
    }

    /// As [`Node::open`], of a channel of this node's settings, on the threads of this node
    /// ([`Node::open_beside`]).
    ///
    /// # Errors
    /// As [`Node::open`]; and if there is no such channel.
    pub fn channel(&self, name: &str) -> Result<Self, Error> {
        self.open_beside(&self.settings.for_channel(name)?)
    }

    /// As [`Node::open`], of another group, on the threads of this node: on the data agent that runs the fewest groups,
    /// and on the same control thread. The threads end with the last node; what `settings.threads` names of them has no
    /// effect.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub fn open_beside(&self, settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        settings.check_leaning(group_of(&settings.group.name) == Some(&self.settings.group.name))?;
        Self::open_with(self.place.agents(), settings)
    }

    /// On these threads, which idle as they were started.
    fn open_with(agents: &Agents, settings: &Settings) -> Result<Self, Error> {
        let mut settings = settings.clone();
        settings.threads.idle = agents.idle();
        Self::open_at(agents.place()?, &settings)
    }

    fn open_at(place: Place, settings: &Settings) -> Result<Self, Error> {
        if settings.process.role == Role::Client {
            let canceller = Canceller::new().map_err(io("making an eventfd"))?;
            return Self::open_client(place, settings, canceller);
        }
        let (mut inside, outside) = ends()?;
        let mut node = InlineNode::join_beside(settings)?;
        held_up::write(&mut inside.held_up, node.engine.process().unavailable());
        let (file, counters) = node.create_counters(settings)?;
        let (cells, bells, waker) = (counters.reader(), place.bells().clone(), node.engine.port().waker());
        let info = Info::of(node.engine.port(), node.fallback(), Some(&file));
        let ring = || ring(&bells, &waker);
        let (commands, commands_in) = mailbox(COMMANDS_MAX, ring());
        let (stop, ended, (outcome_in, outcome)) = (Stop::default(), Flag::new(), sync_channel(1));
        let ending = (ended.clone(), outcome_in.clone());
        let (control, route, vacancy) = place.control().prepare(&node, ring(), ending);
        let canceller = Canceller::new().map_err(io("making an eventfd"))?;
        let limits = KINDS.map(|kind| node.engine.process().direct_limit_bytes(kind));
        let caller = Caller::new(commands.clone(), limits, outside.news_waker.clone(), canceller.clone());
        node.share_calls(ring());
        let wakers = vec![outside.news_waker.clone(), place.control().waker().clone()];
        let closed = WhyClosed::default();
        let ending = Ending { stop: stop.clone(), end: End::new(ended.clone(), closed.clone(), wakers, outcome_in) };
        let hosted = Hosted::new(node, inside, commands_in, control, counters, ending);
        let view = Arc::clone(&hosted.shown_view);
        let agent = handles::Agent {
            work: bells.work.clone(),
            room: bells.room.clone(),
            waker,
            held_up_by: outside.held_up_by,
            canceller,
            closed,
        };
        let mut node = Self {
            settings: Box::new(settings.clone()),
            info,
            stop,
            group: Mutex::new(Group { opened: Some(Opened::Process(Box::new(hosted), vacancy)), publications: 0 }),
            outcome: Mutex::new(Some(outcome)),
            ended,
            admin: None,
            counters: Some(file),
            publisher: Mutex::new(None),
            commands,
            locks: Locks::new(route, Some(agent.canceller.clone())),
            messages: Mutex::new(outside.messages),
            view,
            news_waker: outside.news_waker,
            caller,
            agent,
            place,
        };
        node.start_admin(outside.admin, cells)?;
        Ok(node)
    }

    /// A client has no counters file and no admin socket, and leaves the control thread alone.
    fn open_client(place: Place, settings: &Settings, canceller: Canceller) -> Result<Self, Error> {
        let mut client = ClientNode::open(settings)?;
        let (bells, waker) = (place.bells().clone(), client.waker());
        let info = Info::of(client.port(), client.fallback(), None);
        let (mut held_up, held_up_by) = held_up::cells();
        held_up::write(&mut held_up, client.unavailable());
        let (commands, commands_in) = mailbox(COMMANDS_MAX, ring(&bells, &waker));
        let (news_waker, messages_in, messages) = news()?;
        client.share_calls(ring(&bells, &waker));
        let limits = KINDS.map(|kind| client.direct_limit_bytes(kind));
        let caller = Caller::new(commands.clone(), limits, news_waker.clone(), canceller.clone());
        let (stop, ended, (outcome_in, outcome)) = (Stop::default(), Flag::new(), sync_channel(1));
        let closed = WhyClosed::default();
        let wakers = vec![news_waker.clone()];
        let ending = Ending { stop: stop.clone(), end: End::new(ended.clone(), closed.clone(), wakers, outcome_in) };
        let ends = ClientEnds { commands: commands_in, post: Post::new(messages_in), held_up };
        let seat = Box::new(ClientSeat::new(client, settings, ends, ending));
        let (work, room) = (bells.work, bells.room);
        let (members, sequencer) = (Vec::new(), Rank(0));
        let outside = View { epoch: Epoch(0), members, sequencer, instance: InstanceId::NONE, birth: 0 };
        Ok(Self {
            settings: Box::new(settings.clone()),
            info,
            stop,
            group: Mutex::new(Group { opened: Some(Opened::Client(seat)), publications: 0 }),
            outcome: Mutex::new(Some(outcome)),
            ended,
            admin: None,
            counters: None,
            publisher: Mutex::new(None),
            commands,
            locks: Locks::new(Route::Nowhere, None),
            messages: Mutex::new(messages),
            view: Arc::new(Mutex::new(outside)),
            news_waker,
            caller,
            agent: handles::Agent { work, room, waker, held_up_by, canceller, closed },
            place,
        })
    }

    /// Starts the group: it is formed or joined from now on, and delivery begins. Every [`Subscription`] that was made
    /// before misses nothing. Of a node that is joined already, this does nothing.
    ///
    /// It returns before there is a view: an [`Event::View`](crate::Event::View) with this process's rank reports the
    /// view that it is in. Publications with a deadline wait for that by themselves.
    ///
    /// # Errors
    /// [`Error::ThreadsGone`] if a panic has ended the threads, [`Error::Closed`] if the node has ended.
    pub fn join(&self) -> Result<(), Error> {
        let mut group = lock(&self.group);
        self.check_open()?;
        if !self.place.is_running() {
            return Err(Error::ThreadsGone);
        }
        let duty = match group.opened.take() {
            None => return Ok(()),
            Some(Opened::Process(mut hosted, vacancy)) => {
                let plane = hosted.begin();
                self.place.control().take_over(&self.settings, plane, vacancy);
                Duty::Group(hosted)
            }
            Some(Opened::Client(client)) => Duty::Client(client),
        };
        self.place.run(duty, self.ended.clone());
        Ok(())
    }

    /// Subscribes to some topics, or to all; a pattern will do: see [`Subscribe`]. A subscription that is made before
    /// [`Node::join`] misses nothing. One that is made later begins where this process is: its first item is the view
    /// that the next message is delivered in, if there is one.
    ///
    /// # Errors
    /// If a pattern is none, the process can't begin where it was asked to, there is no memory for the ring
    /// (`threads.subscription_ring_bytes`), the node has ended, or it is a client, to which nothing is delivered.
    pub fn subscribe(&self, subscribe: impl Into<Subscribe>) -> Result<Subscription, Error> {
        let subscribe = subscribe.into();
        if self.is_client() {
            let what = "nothing is delivered to a client: choose \"observer\"".to_owned();
            return Err(Error::Unsupported { setting: "process.role", what });
        }
        let mut group = lock(&self.group);
        self.check_open()?;
        self.settings.check_ring_memory(0, 1)?;
        let chosen = subscribe.chosen(&self.settings, group.opened.is_some())?;
        let (outlet, inlet) = outlet::ends(chosen).map_err(io("making an eventfd"))?;
        match &mut group.opened {
            Some(Opened::Process(hosted, _)) => hosted.add_outlet(outlet),
            _ => self.commands.send(Command::Subscribe(Box::new(outlet))),
        }
        Ok(Subscription::new(inlet, self.agent.clone()))
    }

    /// Makes a publication. A client publishes through a member, and so does an observer: its first publication opens
    /// a client beside it, with a port of its own on the same data agent. Its messages carry only a topic.
    ///
    /// # Errors
    /// If there is no memory for its ring (`threads.publication_ring_bytes`), or the node has ended; at an observer, as
    /// [`Node::open`].
    pub fn publication(&self) -> Result<Publication, Error> {
        if self.settings.process.role == Role::Observer {
            return self.published_by_client();
        }
        let mut group = lock(&self.group);
        self.check_open()?;
        self.settings.check_ring_memory(1, 0)?;
        let ring_bytes = self.settings.threads.publication_ring_bytes;
        let is_client = self.is_client();
        let (intake, end) = intake::ends(group.publications, ring_bytes, is_client).map_err(io("making an eventfd"))?;
        group.publications += 1;
        match &mut group.opened {
            Some(Opened::Process(hosted, _)) => hosted.add_intake(intake),
            Some(Opened::Client(client)) => client.add_intake(intake),
            None => self.commands.send(Command::Publish(Box::new(intake))),
        }
        let message_bytes = self.settings.limits.max_message_bytes;
        Ok(Publication::new(end, self.agent.clone(), Limits { message_bytes, is_client }))
    }

    /// A publication of the client beside this observer.
    fn published_by_client(&self) -> Result<Publication, Error> {
        self.check_open()?;
        let mut publisher = lock(&self.publisher);
        if publisher.is_none() {
            let mut settings = self.settings.clone();
            settings.process.role = Role::Client;
            let client = Self::open_client(self.place.beside(), &settings, self.canceller())?;
            client.join()?;
            *publisher = Some(Box::new(client));
        }
        publisher.as_ref().expect("it was opened").publication()
    }

    fn is_client(&self) -> bool {
        self.settings.process.role == Role::Client
    }

    /// Locks and elections are for members.
    fn check_locks(&self) -> Result<(), LockError> {
        if self.is_client() { Err(LockError::Refused(CoordinationRefusal::Outside)) } else { Ok(()) }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.is_running() { Ok(()) } else { Err(Error::Closed(self.agent.closed.get())) }
    }

    /// Opens the admin socket beside the counters file.
    fn start_admin(&mut self, prepared: server::Prepared, cells: cells::Reader) -> Result<(), Error> {
        let (commands, waker, stop) = (self.commands.clone(), self.agent.waker.clone(), self.stop.clone());
        let agent = server::AgentHandle { commands, waker, stop };
        let Some(counters) = &self.counters else { return Ok(()) };
        let (directory, name) = (counters.directory(), format!("{}{SOCKET_SUFFIX}", counters.stem()));
        directory.check_socket(&name)?;
        let admin = prepared.start(counters, cells, agent, self.locks.clone()).map_err(|source| Error::File {
            what: "the admin socket",
            path: directory.path().join(&name),
            source,
        })?;
        self.info.socket_path = admin.path();
        self.admin = Some(admin);
        Ok(())
    }

    fn command(&self, command: Command) -> Result<(), Refusal> {
        if self.is_client() {
            return Err(Refusal::Role);
        }
        if !self.is_running() {
            return Err(Refusal::Closed);
        }
        if self.is_client() {
            return Err(Refusal::Role);
        }
        self.commands.try_send(command).map_err(|_| Refusal::Queue)
    }

    /// Asks for a barrier: the event [`Synced`](crate::Event::Synced) reports when everything that any member sent
    /// before it has been delivered everywhere. A payload of at most one datagram is delivered at every process between
    /// what was before and after.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &Node) -> Result<(), Refusal> {
    /// node.sync(None)?; // then await the event Synced
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Refusal::Role`] at a client, [`Refusal::Queue`] if 256 commands wait already, [`Refusal::Closed`] if the node
    /// has ended. The event [`SyncRefused`](crate::Event::SyncRefused) reports any other refusal.
    pub fn sync(&self, payload: Option<&[u8]>) -> Result<(), Refusal> {
        self.command(Command::Sync(payload.map(Box::from)))
    }

    /// Leaves the group; the event [`Left`](crate::Event::Left) reports when the others have gone on without this
    /// process. The node runs on, in no view; [`Node::close`] leaves by itself.
    ///
    /// # Errors
    /// As [`Node::sync`].
    pub fn leave(&self) -> Result<(), Refusal> {
        self.command(Command::Leave)
    }

    /// The view that this process is in, or follows; before the first, and at a client, an empty one of epoch 0. A
    /// member that was removed is not among its members until it is back. It may be newer than the last
    /// [`Event::View`](crate::Event::View) that a subscription has read.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(node: &Node) {
    /// println!("{} members in view {}", node.view().members.len(), node.view().epoch);
    /// # }
    /// ```
    pub fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// Sends a request of at most one datagram beside the stream, and waits for the reply of the receiver's
    /// application.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let settings = bourdon::Settings::default();
    /// use bourdon::{Node, To};
    /// use std::time::Duration;
    ///
    /// let node = Node::open(&settings)?;
    /// node.join()?;
    /// let reply = node.request(To::Nearest, b"es", Duration::from_millis(20))?;
    /// println!("{:?} from {:?}", reply.payload(), reply.from());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why there is no reply: it was refused, declined, or not answered by the deadline. After
    /// [`RequestError::Unanswered`] it may have been executed. While its receiver was not heard yet, as right after
    /// [`Node::join`], it waits until it can be sent, and is refused at the deadline ([`Refusal::NoReceiver`],
    /// [`Refusal::Unheard`]).
    pub fn request(&self, to: To<'_>, payload: &[u8], deadline: impl Into<Deadline>) -> Result<Reply, RequestError> {
        self.caller.call(&Outbound { to, payload, is_request: true, deadline: deadline.into(), awaits_receiver: true })
    }

    /// As [`Node::request`], but comes back at once: [`Call::try_reply`] returns the reply. [`Node::news_fd`] is
    /// readable once there is one.
    ///
    /// # Errors
    /// If it is too long, 256 commands wait already, or the node has ended. The call hands out any other refusal; it is
    /// refused at once if its receiver was not heard yet.
    pub fn try_request(&self, to: To<'_>, payload: &[u8], deadline: impl Into<Deadline>) -> Result<Call, Refusal> {
        self.caller.try_call(&Outbound {
            to,
            payload,
            is_request: true,
            deadline: deadline.into(),
            awaits_receiver: false,
        })
    }

    /// Sends a message of at most one datagram beside the stream, and waits until a process has taken it: its process,
    /// not its application.
    ///
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(node: &Node) -> Result<(), error::RequestError> {
    /// let taken = node.send(To::Rank(id::Rank(1)), b"wake up", Duration::from_secs(1))?;
    /// println!("taken by {:?}", taken.from());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Node::request`].
    pub fn send(&self, to: To<'_>, payload: &[u8], deadline: impl Into<Deadline>) -> Result<Reply, RequestError> {
        self.caller.call(&Outbound { to, payload, is_request: false, deadline: deadline.into(), awaits_receiver: true })
    }

    /// As [`Node::send`], but comes back at once. The outcome comes after 5 s at the latest.
    ///
    /// # Errors
    /// As [`Node::try_request`].
    pub fn try_send(&self, to: To<'_>, payload: &[u8]) -> Result<Call, Refusal> {
        self.caller.try_call(&Outbound {
            to,
            payload,
            is_request: false,
            deadline: Deadline::NEVER,
            awaits_receiver: false,
        })
    }

    /// The next direct message received. At most 512 wait to be fetched; more are refused, and their senders learn of
    /// it. [`Node::news_fd`] is readable then.
    pub fn poll_direct(&self) -> Option<DirectMessage> {
        let message = lock(&self.messages).take();
        if message.is_some() && self.agent.work.clone().must_ring() {
            self.agent.waker.wake(); // there is room for what had to wait
        }
        message
    }

    /// Waits for a lock, at most until the deadline; not at all if that has passed already. While the group is still
    /// forming or the node in no view, it waits for that as well; before [`Node::join`] it is refused.
    ///
    /// For members only. With the default [`MutexKind`](crate::settings::MutexKind) the group must have total order, at
    /// `reliable` or above. A lock is not reentrant: a second call for the same name waits for the first guard, also on
    /// the same thread.
    ///
    /// # Errors
    /// [`LockError::Busy`] if it was not granted in time; [`LockError::Refused`] with what the group lacked all the
    /// time; [`LockError::Lost`] if the node ended. A wait outlives a loss of the majority and a removal.
    pub fn lock(&self, name: &str, deadline: impl Into<Deadline>) -> Result<Guard, LockError> {
        self.check_locks()?;
        if lock(&self.group).opened.is_some() {
            return Err(LockError::Refused(CoordinationRefusal::Outside)); // it would wait for a call of its own thread
        }
        self.locks.lock(name, deadline.into())
    }

    /// Asks for a lock and comes back at once: [`LockRequest::try_guard`] hands it out.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn request_lock(&self, name: &str) -> Result<LockRequest, LockError> {
        self.check_locks()?;
        Ok(self.locks.request(TopicName::new(name)?, Wait::Forever, None))
    }

    /// Watches an election, in which [`Election::campaign`] stands. If the group is still forming or the node in no
    /// view, it takes part once it can.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn election(&self, name: &str) -> Result<Election, LockError> {
        self.check_locks()?;
        Ok(self.locks.election(TopicName::new(name)?, None))
    }

    /// Ends the waits of its publications and subscriptions, from any thread.
    pub fn canceller(&self) -> Canceller {
        self.agent.canceller.clone()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it chose.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Readable when there are news of direct messages, or when the node has ended; [`Node::clear_news`] first, then
    /// fetch.
    pub fn news_fd(&self) -> BorrowedFd<'_> {
        self.news_waker.as_fd()
    }

    /// Takes the readiness of [`Node::news_fd`] back.
    pub fn clear_news(&self) {
        self.news_waker.clear();
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
    /// ```
    /// # use bourdon::*;
    /// # use std::time::Duration;
    /// # fn show(node: Node) -> Result<(), Error> {
    /// let report = node.close(Duration::from_secs(5))?;
    /// assert!(report.is_clean(), "{report:?}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it had ended already, if its port had failed.
    pub fn close(mut self, deadline: impl Into<Deadline>) -> Result<CloseReport, Error> {
        if self.place.control().is_current() {
            self.stop.begin_in_callback();
        }
        let deadline = deadline.into();
        let publisher = lock(&self.publisher).take();
        let published = publisher.map(|publisher| publisher.close(deadline)).transpose();
        self.stop.close(deadline);
        let mut report = self.end()?;
        if let Some(CloseReport { unacknowledged, dropped, .. }) = published? {
            (report.unacknowledged, report.dropped) = (unacknowledged, dropped);
        }
        Ok(report)
    }

    fn end(&mut self) -> Result<CloseReport, Error> {
        let Some(outcomes) = lock(&self.outcome).take() else { return Ok(CloseReport::default()) };
        match lock(&self.group).opened.take() {
            None => {}
            Some(Opened::Process(hosted, vacancy)) => {
                drop(vacancy);
                hosted.discard();
            }
            Some(Opened::Client(client)) => client.finish(),
        }
        if self.place.control().is_current() {
            self.stop.begin_in_callback();
        }
        self.stop.stop();
        self.agent.waker.wake();
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

/// The ends of a group's mailboxes that the application and the admin thread have.
struct Outside {
    held_up_by: cells::Reader,
    messages: Receiver<DirectMessage>,
    news_waker: Waker,
    admin: server::Prepared,
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { doing, source }
}

/// Announces work to a data agent.
fn ring(bells: &Bells, waker: &Waker) -> impl FnMut() + Send + use<> {
    let (mut bell, doorbell) = (bells.work.clone(), waker.clone());
    move || {
        if bell.must_ring() {
            doorbell.wake();
        }
    }
}

/// The way of direct messages to the application, and what is rung for them.
fn news() -> Result<(Waker, Sender<DirectMessage>, Receiver<DirectMessage>), Error> {
    let waker = Waker::new().map_err(io("making an eventfd"))?;
    let ringer = waker.clone();
    let (messages_in, messages) = mailbox(MESSAGES_MAX, move || ringer.wake());
    Ok((waker, messages_in, messages))
}

/// Makes a group's mailboxes.
fn ends() -> Result<(Ends, Outside), Error> {
    let (held_up, held_up_by) = held_up::cells();
    let (news_waker, messages_in, messages) = news()?;
    let seats = server::prepare().map_err(io("preparing the admin socket"))?;
    let inside = Ends { held_up, listener: seats.listener, replies: seats.replies, messages: messages_in };
    Ok((inside, Outside { held_up_by, messages, news_waker, admin: seats.control }))
}
