//! The admin thread: it answers on the admin socket.
//!
//! A client that queries a node may be slow, hostile or gone. The thread that keeps the group going must not serve it.
//! So a thread of its own serves it, and sends the data agent commands. It reads figures from the counters without a
//! command.
//!
//! Invariants: nothing here grows without bound: [`CONNECTIONS_MAX`] connections, and [`SESSIONS_MAX`] that hold locks
//! or take part in elections, each with one request and its answer in memory, one command under way. A connection that
//! makes no progress for [`IDLE_MAX`] is closed, but a session only by its client or when it is over. The socket is
//! this user's only from its first moment, and gone when [`Control`] is dropped.
//!
//! Source: mio's edge-triggered readiness: every descriptor is driven until it would block.

use crate::admin::sessions::{Session, SessionRequest};
use crate::admin::{self, EventLog, Request};
use crate::counters::{CountersFile, cells as cell_names};
use crate::directory::Directory;
use crate::directory::SOCKET_SUFFIX;
use crate::locks::Locks;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::threaded::closing::Stop;
use crate::threaded::commands::EVENTS_MAX;
use crate::threaded::commands::{COMMANDS_MAX, Command, Commands, Reply};
use bourdon_port::Waker;
use bourdon_protocol::Event;
use bourdon_ring::counters::Reader;
use bourdon_ring::signal::Flag;
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Connections at once: people and monitors, not a service.
const CONNECTIONS_MAX: usize = 16;
/// Sessions at once, besides: as many as locks that one process takes part in.
const SESSIONS_MAX: usize = 256;
/// The longest request line; the longest that makes sense is a lock's with its name.
const REQUEST_MAX_BYTES: usize = 4096;
/// How long a connection may neither send nor take anything.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 16;

const WAKE: Token = Token(usize::MAX);
const LISTEN: Token = Token(usize::MAX - 1);

/// Both threads' ends of the mailboxes between them, before either runs.
pub(crate) struct Seats {
    pub(crate) control: Prepared,
    pub(crate) listener: Sender<Event>,
    pub(crate) replies: Sender<Reply>,
}

/// What the admin thread will own.
pub(crate) struct Prepared {
    poll: Poll,
    waker: Arc<mio::Waker>,
    events: Receiver<Event>,
    replies: Receiver<Reply>,
}

/// How the data agent is reached.
pub(crate) struct AgentHandle {
    pub(crate) commands: Commands,
    pub(crate) waker: Waker,
    pub(crate) stop: Stop,
}

/// Makes the mailboxes and the waker.
pub(crate) fn prepare() -> io::Result<Seats> {
    let poll = Poll::new()?;
    let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
    let wake = || {
        let waker = Arc::clone(&waker);
        move || _ = waker.wake()
    };
    let (listener, events) = mailbox(EVENTS_MAX, wake());
    let (reply_sender, replies) = mailbox(COMMANDS_MAX, wake());
    Ok(Seats { listener, replies: reply_sender, control: Prepared { poll, waker, events, replies } })
}

/// The running admin thread.
#[derive(Debug)]
pub(crate) struct Control {
    thread: Option<JoinHandle<()>>,
    end: Flag,
    waker: Arc<mio::Waker>,
    directory: Arc<Directory>,
    name: String,
}

impl Prepared {
    /// Opens the socket beside the counters file and starts the thread.
    pub(crate) fn start(
        self,
        file: &CountersFile,
        cells: Reader,
        agent: AgentHandle,
        locks: Locks,
    ) -> io::Result<Control> {
        let directory = Arc::clone(file.directory());
        let name = format!("{}{SOCKET_SUFFIX}", file.stem());
        let mut listener = listen(&directory, &name)?;
        self.poll.registry().register(&mut listener, LISTEN, Interest::READABLE)?;
        let (end, waker) = (Flag::new(), Arc::clone(&self.waker));
        let labels = cell_names().into_iter().map(|(label, _)| label).collect();
        let thread = ControlThread {
            mailboxes: self,
            listener,
            connections: (0..CONNECTIONS_MAX + SESSIONS_MAX).map(|_| None).collect(),
            cells,
            labels,
            agent,
            locks,
            log: EventLog::default(),
            view_is_asked: false,
            sync_turns: VecDeque::new(),
            recovery_turns: VecDeque::new(),
            end: end.clone(),
        };
        // Made first, so that the socket is removed whatever fails.
        let mut control = Control { thread: None, end, waker, directory, name };
        let builder = Builder::new().name("bourdon-admin".to_owned());
        control.thread = Some(builder.spawn(move || thread.run())?);
        Ok(control)
    }
}

/// A socket that no other user can connect to even for a moment: its mode is set before it has a name.
fn listen(directory: &Directory, name: &str) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(directory.through(name))?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from_std(socket.into()))
}

impl Control {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.end.set();
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed; the node's own outcome is the data agent's
        }
        self.directory.remove(&self.name);
    }
}

struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    awaits_view: bool,
    awaits_sync: bool,
    awaits_recovery: bool,
    session: Option<Session>,
    /// No more input comes; close once the output is gone.
    is_closing: bool,
    progress_at: Instant,
}

fn too_many() -> Value {
    json!({ "error": "too many requests at once: try again" })
}

/// What a connection needs next.
enum Next {
    Request(Vec<u8>),
    Wait,
    Close,
}

struct ControlThread {
    mailboxes: Prepared,
    listener: UnixListener,
    connections: Vec<Option<Connection>>,
    cells: Reader,
    labels: Vec<String>,
    agent: AgentHandle,
    locks: Locks,
    log: EventLog,
    view_is_asked: bool,
    /// The connections that wait for a barrier, the first to ask first.
    sync_turns: VecDeque<usize>,
    /// The connections that wait for a report about a recovery, the first to ask first.
    recovery_turns: VecDeque<usize>,
    end: Flag,
}

impl ControlThread {
    fn run(mut self) {
        let mut ready = Events::with_capacity(CONNECTIONS_MAX + 2);
        while !self.end.is_set() {
            let is_busy = self.connections.iter().any(Option::is_some);
            match self.mailboxes.poll.poll(&mut ready, is_busy.then_some(IDLE_MAX / 4)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the admin socket is closed: epoll failed");
                    return;
                }
            }
            self.take_mail();
            for event in &ready {
                match event.token() {
                    LISTEN => self.accept(),
                    WAKE => self.notify_sessions(),
                    Token(index) => self.drive(index),
                }
            }
            self.close_idle();
        }
        self.notify_sessions(); // the node has ended
    }

    /// Sends each session what has changed for it.
    fn notify_sessions(&mut self) {
        for index in 0..self.connections.len() {
            if self.connections[index].as_mut().is_some_and(Connection::send_news) {
                self.drive(index);
            }
        }
    }

    fn take_mail(&mut self) {
        let now_ns = bourdon_engine::Clock::start().wall_ns();
        let log = &mut self.log;
        let (mut syncs, mut recoveries, mut view) = (Vec::new(), Vec::new(), None);
        while let Some(event) = self.mailboxes.events.take() {
            if let Event::Synced { phase, asked: true } = event {
                syncs.push(json!({ "synced": { "phase": phase } }));
            }
            log.note(now_ns, event);
        }
        while let Some(reply) = self.mailboxes.replies.take() {
            match reply {
                Reply::View(report) => view = Some(report),
                Reply::Recovery(report) => recoveries.push(report.answer()),
                Reply::SyncRefused(refusal) => syncs.push(json!({ "error": refusal.to_string() })),
            }
        }
        for answer in syncs {
            self.answer_one_sync(&answer);
        }
        for answer in recoveries {
            self.answer_one_recovery(&answer);
        }
        let Some(view) = view else { return };
        self.view_is_asked = false;
        let answer = view.answer();
        for index in 0..self.connections.len() {
            if let Some(connection) = &mut self.connections[index]
                && std::mem::take(&mut connection.awaits_view)
            {
                connection.answer(&answer);
                self.drive(index);
            }
        }
    }

    fn accept(&mut self) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Out of descriptors or the client is gone: the next connection tries again.
                Err(_) => return,
            };
            let others = self.connections.iter().flatten().filter(|other| other.session.is_none()).count();
            let free = self.connections.iter().position(Option::is_none);
            let Some(index) = free.filter(|_| others < CONNECTIONS_MAX) else {
                let _ = stream.write(b"{\"error\":\"too many connections: close one and try again\"}\n");
                continue;
            };
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.mailboxes.poll.registry().register(&mut stream, Token(index), interest).is_ok() {
                self.connections[index] = Some(Connection {
                    stream,
                    input: Vec::new(),
                    output: Vec::new(),
                    awaits_view: false,
                    awaits_sync: false,
                    awaits_recovery: false,
                    session: None,
                    is_closing: false,
                    progress_at: Instant::now(),
                });
                self.drive(index);
            }
        }
    }

    /// Does all that a connection allows now.
    fn drive(&mut self, index: usize) {
        while let Some(connection) = &mut self.connections[index] {
            match connection.step() {
                Next::Wait => return,
                Next::Close => self.connections[index] = None,
                Next::Request(line) => self.respond(index, &line),
            }
        }
    }

    fn respond(&mut self, index: usize, line: &[u8]) {
        let in_session = self.connections[index].as_ref().is_some_and(|connection| connection.session.is_some());
        let answer = match admin::parse(line) {
            // Otherwise the end of a connection that waits for an answer would go unnoticed.
            Ok(_) if in_session => {
                json!({ "error": "this connection stands for a lock or an election: \
                    close it to give that up, and open another" })
            }
            Ok(Request::Stat) => admin::stat(&self.labels, &self.cells),
            Ok(Request::Errors) => self.log.answer(),
            Ok(Request::Stop) => {
                self.agent.stop.stop();
                self.agent.waker.wake();
                json!({ "stopping": true })
            }
            Ok(Request::Leave) => {
                if self.command(Command::Leave) {
                    json!({ "leaving": true })
                } else {
                    too_many()
                }
            }
            Ok(Request::Sync) => {
                if self.command(Command::SyncForClient) {
                    self.sync_turns.push_back(index);
                    if let Some(connection) = &mut self.connections[index] {
                        connection.awaits_sync = true;
                    }
                    return;
                }
                too_many()
            }
            Ok(Request::Recover(ended)) => {
                if self.command(Command::Recover(ended)) {
                    self.recovery_turns.push_back(index);
                    if let Some(connection) = &mut self.connections[index] {
                        connection.awaits_recovery = true;
                    }
                    return;
                }
                too_many()
            }
            Ok(Request::View) => {
                self.ask_view();
                if let Some(connection) = &mut self.connections[index] {
                    connection.awaits_view = true;
                }
                return;
            }
            Ok(Request::Session(request)) => match self.begin_session(index, &request) {
                Ok(()) => return,
                Err(why) => json!({ "error": why }),
            },
            Err(error) => error,
        };
        if let Some(connection) = &mut self.connections[index] {
            connection.answer(&answer);
        }
    }

    fn begin_session(&mut self, index: usize, request: &SessionRequest) -> Result<(), String> {
        let sessions = self.connections.iter().flatten().filter(|other| other.session.is_some()).count();
        if sessions >= SESSIONS_MAX {
            return Err(format!(
                "at most {SESSIONS_MAX} locks and elections at a node's socket: end one, or ask another node"
            ));
        }
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let waker = Arc::clone(&self.mailboxes.waker);
        connection.session = Some(Session::begin(&self.locks, request, move || _ = waker.wake()));
        Ok(())
    }

    fn ask_view(&mut self) {
        if !self.view_is_asked && self.command(Command::View) {
            self.view_is_asked = true;
        }
    }

    /// Sends the data agent a command; false if too many commands are queued already.
    fn command(&mut self, command: Command) -> bool {
        self.agent.commands.try_send(command).is_ok()
    }

    /// Barriers complete in the order in which they were requested; connections wait in the same order.
    fn answer_one_sync(&mut self, answer: &Value) {
        let Some(index) = self.sync_turns.pop_front() else { return };
        if let Some(connection) = &mut self.connections[index]
            && std::mem::take(&mut connection.awaits_sync)
        {
            connection.answer(answer);
            self.drive(index);
        }
    }

    /// Commands are carried out in the order in which they were sent.
    fn answer_one_recovery(&mut self, answer: &Value) {
        let Some(index) = self.recovery_turns.pop_front() else { return };
        if let Some(connection) = &mut self.connections[index]
            && std::mem::take(&mut connection.awaits_recovery)
        {
            connection.answer(answer);
            self.drive(index);
        }
    }

    fn close_idle(&mut self) {
        for slot in &mut self.connections {
            let may_wait = |connection: &Connection| connection.awaits_sync || connection.session.is_some();
            let idle = |connection: &Connection| !may_wait(connection) && connection.progress_at.elapsed() >= IDLE_MAX;
            if slot.as_ref().is_some_and(idle) {
                *slot = None;
            }
        }
    }
}

impl Connection {
    /// Answers with what is new in its session. Returns whether there was something. A client that has not read the
    /// previous line receives the state after it.
    fn send_news(&mut self) -> bool {
        if !self.output.is_empty() {
            return false;
        }
        let Some((line, is_last)) = self.session.as_mut().and_then(Session::news) else { return false };
        self.answer(&line);
        if is_last {
            (self.session, self.is_closing) = (None, true);
        }
        true
    }

    fn answer(&mut self, answer: &Value) {
        self.output.extend_from_slice(answer.to_string().as_bytes());
        self.output.push(b'\n');
    }

    /// Writes what there is to write; only then reads, up to one request.
    fn step(&mut self) -> Next {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Next::Close,
                Ok(count) => {
                    self.output.drain(..count);
                    self.progress_at = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
            self.send_news();
        }
        if self.awaits_view || self.awaits_sync || self.awaits_recovery {
            return Next::Wait;
        }
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.input.drain(..=end).collect();
                line.pop();
                return Next::Request(line);
            }
            if self.is_closing {
                return Next::Close;
            }
            if self.input.len() >= REQUEST_MAX_BYTES {
                self.input.clear();
                self.is_closing = true;
                self.answer(&json!({ "error": format!("a request is one line of at most {REQUEST_MAX_BYTES} bytes") }));
                return self.step();
            }
            let mut bytes = [0; REQUEST_MAX_BYTES];
            match self.stream.read(&mut bytes[self.input.len()..]) {
                Ok(0) => self.is_closing = true,
                Ok(count) => {
                    let start = self.input.len();
                    self.input.extend_from_slice(&bytes[start..start + count]);
                    self.progress_at = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
    }
}
