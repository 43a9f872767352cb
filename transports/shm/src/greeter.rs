//! The thread that meets the other processes of the host: it exchanges logs with those that come, and notices those
//! that go.
//!
//! A port has no thread of its own, and may spin, or be left alone for long by its application. If a newcomer had to
//! wait for it, each call of a spinning port would need a system call to look for newcomers; if it did not wait, it
//! would miss what is sent to it next. So this thread does it, which sleeps unless a process comes or goes. When
//! [`Greeter::start`] returns, every process that runs reads this one's log, and this one reads theirs, from then on.
//!
//! The port may order it to end its connections with one process, or to end all and introduce itself again, with
//! another origin.
//!
//! Both ends of a connection send one [`Hello`]. The end that was dialled maps the other's log before it answers. The
//! connection then stays idle, and its end is how the kernel reports that the process is gone, however it ended. Two
//! processes that start at the same time may dial each other; then the last of their two connections counts.
//!
//! Two processes may fail to meet: the queue of connections of a stopped process is full, or one of the two has no
//! descriptors left. Their connection may also end while both run. So the process that dialled dials again, once in
//! [`DIAL_EVERY`], until the two have met or the name is free. A process that the port left is not met again: its log
//! would be malformed as before.

mod hostile;

pub use hostile::hostile;

use crate::hello::{Hello, Received, receive};
use crate::memory::{LogId, is_eventfd, map};
use crate::place::{self, PLACES, is_same_user};
use bourdon_port::{Origin, PortError, Waker};
use bourdon_ring::log::Reader;
use bourdon_ring::signal::{WatermarkReader, WatermarkWriter, watermark};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Two with each other process, where both dialled.
const CONNECTIONS_MAX: usize = 2 * PLACES as usize;

/// How long a newcomer waits for the others. Only one that is stopped takes longer than a scheduler's round; it is met
/// when it goes on.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// How long no connection is accepted after the kernel had no room for one.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the places that are taken and not met are dialled: each takes a few system calls.
const DIAL_EVERY: Duration = Duration::from_secs(1);

/// Another process, from here.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: LogId,
    pub(crate) hello: Hello,
    pub(crate) log: Reader,
    pub(crate) waker: Waker,
}

/// What the thread reports to the port.
#[derive(Debug)]
pub(crate) enum Change {
    Came(Peer),
    Gone(LogId),
}

/// What the port orders the thread to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// End the connections with this process, and make no other as long as its log and its hello are these.
    Leave(LogId, Hello),
    /// End all connections, and meet the others again from this origin.
    Move(Origin),
    Stop,
}

/// What this process gives to the others.
#[derive(Debug)]
pub(crate) struct Own {
    /// With what the names begin at which it and the others listen.
    pub(crate) prefix: String,
    pub(crate) hello: Hello,
    pub(crate) log: File,
    pub(crate) waker: Waker,
}

/// The port's end of the thread; its drop ends the thread, and with it all connections.
#[derive(Debug)]
pub(crate) struct Greeter {
    thread: Option<JoinHandle<()>>,
    orders: Arc<Mutex<Vec<Order>>>,
    /// Wakes the thread for its orders.
    ordered: Waker,
    reports: Reports,
    seen: u64,
}

/// Changes that the port has not taken in, and how many there ever were.
struct Reports {
    changes: Arc<Mutex<Vec<Change>>>,
    count: WatermarkReader,
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reports").field("count", &self.count.get()).finish_non_exhaustive()
    }
}

impl Greeter {
    /// Dials the other processes, starts the thread, and waits until it has met them.
    ///
    /// # Errors
    /// If the kernel refuses a thread or an eventfd.
    pub(crate) fn start(own: Own, listener: OwnedFd) -> Result<Self, PortError> {
        let io = |source| PortError::Io { doing: "starting the thread that meets other processes", source };
        let (count, read_count) = watermark(0);
        let changes = Arc::new(Mutex::new(Vec::new()));
        let reports = Reports { changes: Arc::clone(&changes), count: read_count };
        let (orders, ordered) = (Arc::new(Mutex::new(Vec::new())), Waker::new().map_err(io)?);
        let (greeting, greeted): (Sender<()>, Receiver<()>) = channel();
        let mut meeting = Meeting {
            own,
            listener,
            orders: Arc::clone(&orders),
            ordered: ordered.clone(),
            connections: Vec::new(),
            met: Vec::new(),
            left: Vec::new(),
            unmet: Vec::new(),
            dial_at: Instant::now(),
            changes,
            count,
            greeting: Some(greeting),
            has_room: true,
        };
        meeting.dial_all();
        let thread = std::thread::Builder::new().name("bourdon-shm".to_owned()).spawn(move || meeting.run());
        let greeter = Self { thread: Some(thread.map_err(io)?), orders, ordered, reports, seen: 0 };
        // The other end is dropped when all have answered; nothing is ever sent.
        let _ = greeted.recv_timeout(GREETING_MAX);
        Ok(greeter)
    }

    /// What has changed since the last call; one load of a word that stays in the cache while nothing has.
    #[inline]
    pub(crate) fn changes(&mut self) -> Option<Vec<Change>> {
        let count = self.reports.count.get();
        if count == self.seen {
            return None;
        }
        self.seen = count;
        Some(take(&self.reports.changes))
    }

    /// Has the thread do this.
    pub(crate) fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.ordered.wake();
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there was reported there
        }
    }
}

struct Connection {
    socket: OwnedFd,
    /// The place that this process dialled; none if the other process dialled.
    dialled: Option<u16>,
    /// The log that was mapped, once the other process has introduced itself.
    peer: Option<LogId>,
}

/// What the thread has.
struct Meeting {
    own: Own,
    listener: OwnedFd,
    orders: Arc<Mutex<Vec<Order>>>,
    ordered: Waker,
    connections: Vec<Connection>,
    /// The process at the other end of each connection that has one.
    met: Vec<LogId>,
    /// The processes that the port left, the last first; no more than there are places.
    left: Vec<(LogId, Hello)>,
    /// The places that were taken when they were dialled last, and were not met, or are met no more.
    unmet: Vec<u16>,
    /// When these are dialled again.
    dial_at: Instant,
    changes: Arc<Mutex<Vec<Change>>>,
    count: WatermarkWriter,
    /// Dropped when no process that was dialled at the start has yet to answer.
    greeting: Option<Sender<()>>,
    /// Whether the kernel had room for the last connection.
    has_room: bool,
}

impl Meeting {
    /// Dials all other places.
    fn dial_all(&mut self) {
        self.unmet.clear();
        let own = self.own.hello.place;
        (1..=PLACES).filter(|place| *place != own).for_each(|place| self.dial(place));
    }

    /// Dials the places that are not met, if it is time.
    fn dial_unmet(&mut self) {
        if !self.unmet.is_empty() && Instant::now() >= self.dial_at {
            std::mem::take(&mut self.unmet).into_iter().for_each(|place| self.dial(place));
        }
    }

    fn dial(&mut self, place: u16) {
        match place::dial(&self.own.prefix, place) {
            Ok(None) => {}
            Ok(Some(socket)) if self.introduce(&socket).is_ok() => {
                self.connections.push(Connection { socket, dialled: Some(place), peer: None });
            }
            Ok(Some(_)) | Err(_) => self.dial_later(place),
        }
    }

    fn dial_later(&mut self, place: u16) {
        if self.unmet.is_empty() {
            self.dial_at = Instant::now() + DIAL_EVERY;
        }
        if !self.unmet.contains(&place) {
            self.unmet.push(place);
        }
    }

    fn introduce(&self, socket: &OwnedFd) -> rustix::io::Result<()> {
        self.own.hello.send(socket, self.own.log.as_fd(), self.own.waker.as_fd())
    }

    fn run(mut self) {
        loop {
            if !self.connections.iter().any(|it| it.dialled.is_some() && it.peer.is_none()) {
                self.greeting = None;
            }
            let Some(ready) = self.sleep() else { return };
            let mut is_ready = ready[2..].iter();
            self.keep(|this, it| !is_ready.next().expect("one for each") || this.take_in(it));
            if ready[1] {
                self.accept();
            }
            self.dial_unmet();
            if ready[0] && !self.obey() {
                return;
            }
        }
    }

    /// Ends the connections that are not to be kept.
    fn keep(&mut self, mut is_kept: impl FnMut(&mut Self, &mut Connection) -> bool) {
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain_mut(|it| {
            let is_kept = is_kept(self, it);
            if !is_kept {
                self.part(it);
            }
            is_kept
        });
        self.connections = connections;
    }

    /// Does what the port ordered. Returns whether the thread goes on.
    fn obey(&mut self) -> bool {
        self.ordered.clear();
        for order in take(&self.orders) {
            match order {
                Order::Leave(id, hello) => {
                    self.keep(|_, it| it.peer != Some(id));
                    self.left.insert(0, (id, hello));
                    self.left.truncate(usize::from(PLACES));
                }
                Order::Move(origin) => {
                    self.keep(|_, _| false);
                    self.left.clear();
                    self.own.hello.origin = origin;
                    self.dial_all();
                }
                Order::Stop => return false,
            }
        }
        true
    }

    /// Takes in what came on a connection. Returns whether it goes on.
    fn take_in(&mut self, connection: &mut Connection) -> bool {
        match receive(&connection.socket) {
            Received::Nothing => return true,
            Received::Hello(hello, log, event) if connection.peer.is_none() => {
                if let Ok((log, id)) = map(log)
                    && is_eventfd(&event)
                {
                    if self.left.contains(&(id, hello)) {
                        return false; // it would be left again
                    }
                    connection.peer = Some(id);
                    self.meet(Peer { id, hello, log, waker: Waker::from(event) });
                    if connection.dialled.is_some() || self.introduce(&connection.socket).is_ok() {
                        return true;
                    }
                }
            }
            Received::Hello(..) | Received::End => {}
        }
        connection.dialled.into_iter().for_each(|place| self.dial_later(place));
        false
    }

    /// A connection ends here.
    fn part(&mut self, connection: &Connection) {
        let Some(id) = connection.peer else { return };
        let place = self.met.iter().position(|it| *it == id).expect("one for each connection");
        self.met.swap_remove(place);
        if !self.met.contains(&id) {
            self.report(Change::Gone(id));
        }
    }

    /// A process has introduced itself on one more connection.
    fn meet(&mut self, peer: Peer) {
        let id = peer.id;
        if !self.met.contains(&id) {
            self.report(Change::Came(peer));
        }
        self.met.push(id);
    }

    fn report(&mut self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        self.count.advance(self.count.get() + 1);
    }

    /// Accepts all that wait to be.
    fn accept(&mut self) {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) if self.connections.len() < CONNECTIONS_MAX && is_same_user(&socket) => {
                    self.connections.push(Connection { socket, dialled: None, peer: None });
                }
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.has_room = error == Errno::AGAIN;
                    return;
                }
            }
        }
    }

    /// Sleeps until there is something to do; then whether there are orders, and which of the listener and the
    /// connections are ready. None if the kernel can't tell.
    fn sleep(&self) -> Option<Vec<bool>> {
        let listens = if self.has_room { PollFlags::IN } else { PollFlags::empty() };
        let mut polled = vec![PollFd::new(&self.ordered, PollFlags::IN), PollFd::new(&self.listener, listens)];
        polled.extend(self.connections.iter().map(|it| PollFd::new(&it.socket, PollFlags::IN)));
        match poll(&mut polled, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None, // no memory for a list of descriptors: nothing can be met any more
        }
        let mut ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        ready[1] |= !self.has_room; // try again after the pause
        Some(ready)
    }

    /// After what time there is something to do, though nothing comes. None if there is nothing.
    fn timeout(&self) -> Option<Timespec> {
        let pause = (!self.has_room).then_some(PAUSE);
        let until_dial = || self.dial_at.saturating_duration_since(Instant::now());
        let shortest = pause.into_iter().chain((!self.unmet.is_empty()).then(until_dial)).min()?;
        Some(Timespec::try_from(shortest).expect("a second at most"))
    }
}

fn take<T>(shared: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner))
}
