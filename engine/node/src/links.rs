//! Links: TCP connections between members that show at once that a process is gone.
//!
//! Silence suggests that a member may be gone, after a while and with doubt. A kernel knows: when a process ends,
//! however it ends, the kernel closes its connections and refuses members that try to connect again. So each member
//! connects to every other and sends nothing. When a connection ends, it tries once more: if that is refused where it
//! was accepted before, the process is gone, and that is hard evidence. A connection that merely breaks (a reset on the
//! way, a host that is unreachable) proves nothing, and neither does a refusal by a host that never answered, such as a
//! firewall.
//!
//! A thread of its own does this (mio): connecting and closing block no thread that moves messages.
//!
//! Invariants: evidence names the incarnation whose port was refused; at most [`LINKS_MAX`] connections are held each
//! way; what comes in is thrown away; nothing leaves by another interface, or address, than the group's.

use crate::mailbox::{Receiver, Sender, mailbox};
use bourdon_port::Waker;
use bourdon_protocol::Member;
use bourdon_ring::signal::Flag;
use bourdon_wire::{Address, Incarnation, Rank};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Connections each way: a full view's.
const LINKS_MAX: usize = 64;
/// Evidence not yet taken: more than a view has members.
const EVIDENCE_MAX: usize = 4 * LINKS_MAX;
/// Lists of members not yet taken: a view seldom changes, and the thread takes all at once.
const TARGETS_MAX: usize = 8;
/// How long a connection that could not be made waits before the next attempt: twice as long each time, up to the
/// longest. The first wait is short, because a process that is ending may still accept what it then resets, and only
/// the attempt after that is refused.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(20);
/// How long an attempt may take before another is made.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long links that could not be opened again wait before the next attempt, as the port does.
const REOPEN: Duration = Duration::from_millis(200);
/// Bytes thrown away at a time.
const SCRAP_BYTES: usize = 512;

const WAKE: Token = Token(usize::MAX);
const LISTEN: Token = Token(usize::MAX - 1);
/// Connections made by us have the tokens below, those accepted the ones from here on.
const ACCEPTED: usize = LINKS_MAX;

/// A member to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    member: Member,
    address: SocketAddr,
}

/// The node's end of it.
#[derive(Debug)]
pub(crate) struct Links {
    own: SocketAddr,
    interface: Option<String>,
    port: u16,
    evidence: Receiver<Member>,
    to_watch: Sender<Vec<Target>>,
    /// What was sent last.
    targets: Vec<Target>,
    end: Flag,
    waker: Arc<mio::Waker>,
    thread: Option<JoinHandle<()>>,
    /// They could not be opened again, and are away until then at least.
    reopen_at: Option<Instant>,
}

impl Links {
    /// Listens on a port of `own`'s address, of the interface if one is named, and starts the thread. `node` is woken
    /// when there is evidence.
    pub(crate) fn open(own: SocketAddr, interface: Option<&str>, node: Waker) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
        let mut listener = TcpListener::bind(at(own, own.ip(), 0))?;
        let port = listener.local_addr()?.port();
        poll.registry().register(&mut listener, LISTEN, Interest::READABLE)?;
        // Whether connections can be kept on the interface is found out now, not when one is lost.
        drop(socket(own, interface)?);
        let (sender, evidence) = mailbox(EVIDENCE_MAX, move || node.wake());
        let wake = Arc::clone(&waker);
        let (to_watch, watched) = mailbox(TARGETS_MAX, move || _ = wake.wake());
        let end = Flag::new();
        let thread = LinksThread {
            poll,
            listener,
            own,
            interface: interface.map(str::to_owned),
            made: Vec::new(),
            accepted: (0..LINKS_MAX).map(|_| None).collect(),
            watched,
            evidence: sender,
            end: end.clone(),
        };
        let thread = Builder::new().name("bourdon-links".to_owned()).spawn(move || thread.run())?;
        Ok(Self {
            own,
            interface: interface.map(str::to_owned),
            port,
            evidence,
            to_watch,
            targets: Vec::new(),
            end,
            waker,
            thread: Some(thread),
            reopen_at: None,
        })
    }

    /// Opens them at another address. Where that fails they are away, and it is due again after [`REOPEN`].
    pub(crate) fn reopen(&mut self, now: Instant, own: SocketAddr, node: Waker) -> io::Result<()> {
        let opened = Self::open(own, self.interface.as_deref(), node);
        opened.map(|links| *self = links).inspect_err(|_| {
            self.close();
            (self.port, self.reopen_at) = (0, Some(now + REOPEN));
        })
    }

    /// Whether they are away, and should be opened again.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.reopen_at.is_some_and(|at| at <= now)
    }

    fn close(&mut self) {
        self.end.set();
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed; the node goes on by silence
        }
    }

    /// The address that they stand at.
    pub(crate) fn address(&self) -> SocketAddr {
        self.own
    }

    /// The port that the others connect to; 0 while they are away.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What has been found out since the last call.
    #[inline]
    pub(crate) fn evidence(&mut self, mut gone: impl FnMut(Rank, Incarnation)) {
        while let Some(member) = self.evidence.take() {
            gone(member.rank, member.incarnation);
        }
    }

    /// Watches these members.
    pub(crate) fn watch(&mut self, members: impl Iterator<Item = (Member, Address, u16)>) {
        let own = self.own;
        let target = |(member, address, port)| {
            let ip = SocketAddr::from(address).ip();
            Target { member, address: at(own, ip, port) }
        };
        let targets: Vec<_> = members.map(target).collect();
        // Without room they are sent with the next call.
        if targets != self.targets && self.to_watch.try_send(targets.clone()).is_ok() {
            self.targets = targets;
        }
    }
}

/// A place on the network that `own` is on: link-local addresses mean something only together with the link.
fn at(own: SocketAddr, ip: IpAddr, port: u16) -> SocketAddr {
    match (own, ip) {
        (SocketAddr::V6(own), IpAddr::V6(v6)) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, own.scope_id()).into()
        }
        _ => SocketAddr::new(ip, port),
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

/// A socket that is not connected yet and whose packets stay on the interface.
fn socket(own: SocketAddr, interface: Option<&str>) -> io::Result<Socket> {
    let domain = if own.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.bind(&at(own, own.ip(), 0).into())?;
    Ok(socket)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not connected; another attempt is made then.
    Idle(Instant),
    /// Being connected, until then at most.
    Connecting(Instant),
    Connected,
    /// Refused after it had been connected.
    Gone,
}

/// A connection we make.
struct Link {
    target: Target,
    stream: Option<TcpStream>,
    state: State,
    /// It was connected once: a refusal means something.
    known: bool,
    /// How long the next wait is.
    retry: Duration,
}

struct LinksThread {
    poll: Poll,
    listener: TcpListener,
    own: SocketAddr,
    interface: Option<String>,
    made: Vec<Link>,
    accepted: Vec<Option<TcpStream>>,
    watched: Receiver<Vec<Target>>,
    evidence: Sender<Member>,
    end: Flag,
}

impl LinksThread {
    fn run(mut self) {
        let mut ready = Events::with_capacity(2 * LINKS_MAX + 2);
        while !self.end.is_set() {
            let wait = self.next_attempt();
            match self.poll.poll(&mut ready, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the links are closed: epoll failed");
                    return;
                }
            }
            while let Some(targets) = self.watched.take() {
                self.retarget(&targets);
            }
            for event in &ready {
                match event.token() {
                    LISTEN => self.accept(),
                    WAKE => {}
                    Token(index) if index < ACCEPTED => self.drive(index),
                    Token(index) => self.discard(index - ACCEPTED),
                }
            }
            self.attempt();
        }
    }

    fn next_attempt(&self) -> Option<Duration> {
        let due = self.made.iter().filter_map(|link| match link.state {
            State::Idle(at) | State::Connecting(at) => Some(at),
            State::Connected | State::Gone => None,
        });
        due.min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Keeps the connections to members still watched, drops the others, and begins the new ones.
    fn retarget(&mut self, targets: &[Target]) {
        let mut before: Vec<Option<Link>> = std::mem::take(&mut self.made).into_iter().map(Some).collect();
        for target in targets.iter().take(LINKS_MAX) {
            let same =
                |link: &&mut Option<Link>| link.as_ref().is_some_and(|link| link.target.address == target.address);
            let kept = before.iter_mut().find(same).and_then(Option::take);
            let mut link = kept.unwrap_or(Link {
                target: *target,
                stream: None,
                state: State::Idle(Instant::now()),
                known: false,
                retry: RETRY_MIN,
            });
            link.target = *target;
            self.made.push(link);
        }
        drop(before);
        for (index, link) in self.made.iter_mut().enumerate() {
            if let Some(stream) = &mut link.stream {
                // The token is its place, which may have changed.
                let _ = self.poll.registry().reregister(stream, Token(index), Interest::READABLE | Interest::WRITABLE);
            }
        }
    }

    fn attempt(&mut self) {
        let now = Instant::now();
        for index in 0..self.made.len() {
            match self.made[index].state {
                State::Idle(at) if at <= now => self.connect(index),
                State::Connecting(until) if until <= now => self.retry_later(index),
                _ => {}
            }
        }
    }

    fn connect(&mut self, index: usize) {
        let target = self.made[index].target;
        let begun = socket(self.own, self.interface.as_deref()).and_then(|socket| {
            match socket.connect(&target.address.into()) {
                Ok(()) => Ok(socket),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Ok(socket),
                Err(error) => Err(error),
            }
        });
        match begun {
            Ok(socket) => {
                let mut stream = TcpStream::from_std(socket.into());
                let interest = Interest::READABLE | Interest::WRITABLE;
                if self.poll.registry().register(&mut stream, Token(index), interest).is_ok() {
                    let link = &mut self.made[index];
                    (link.stream, link.state) = (Some(stream), State::Connecting(Instant::now() + CONNECT_MAX));
                } else {
                    self.retry_later(index);
                }
            }
            Err(error) => self.failed(index, &error),
        }
    }

    fn failed(&mut self, index: usize, error: &io::Error) {
        let link = &mut self.made[index];
        link.stream = None;
        if error.kind() == ErrorKind::ConnectionRefused && link.known {
            link.state = State::Gone;
            // Without room an earlier incarnation of it is reported still: silence reports this one.
            let _ = self.evidence.try_send(link.target.member);
        } else {
            self.retry_later(index);
        }
    }

    fn retry_later(&mut self, index: usize) {
        let link = &mut self.made[index];
        (link.stream, link.state) = (None, State::Idle(Instant::now() + link.retry));
        link.retry = (2 * link.retry).min(RETRY_MAX);
    }

    /// Something happened to a connection of ours.
    fn drive(&mut self, index: usize) {
        let Some(link) = self.made.get_mut(index) else { return };
        let Some(stream) = &mut link.stream else { return };
        if let Ok(Some(error)) = stream.take_error() {
            return self.failed(index, &error);
        }
        if matches!(link.state, State::Connecting(_)) {
            match stream.peer_addr() {
                Ok(_) => (link.state, link.known) = (State::Connected, true),
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(error) => return self.failed(index, &error),
            }
        }
        if !is_open(stream) {
            // At once: if the process is gone, this is refused.
            link.stream = None;
            self.connect(index);
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let Some(place) = self.accepted.iter().position(Option::is_none) else { continue };
            let token = Token(ACCEPTED + place);
            if self.poll.registry().register(&mut stream, token, Interest::READABLE).is_ok() {
                self.accepted[place] = Some(stream);
            }
        }
    }

    fn discard(&mut self, place: usize) {
        let Some(slot) = self.accepted.get_mut(place) else { return };
        if slot.as_mut().is_some_and(|stream| !is_open(stream)) {
            *slot = None;
        }
    }
}

/// Throws away what has come; whether the connection still stands.
fn is_open(stream: &mut TcpStream) -> bool {
    let mut scrap = [0; SCRAP_BYTES];
    loop {
        match stream.read(&mut scrap) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Connection;

    /// A host that was just given an address may refuse it for a moment.
    #[test]
    fn links_that_could_not_be_opened_again_are_away_and_tried_again() {
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut links = Links::open(here, None, Waker::new().expect("a waker")).expect("links on lo");
        let before = links.port();
        assert!(before != 0 && !links.is_due(Instant::now() + 9 * REOPEN));
        // An address for documentation (RFC 5737), which no host has.
        let (now, elsewhere) = (Instant::now(), SocketAddr::from(([192, 0, 2, 1], 0)));
        assert!(links.reopen(now, elsewhere, Waker::new().expect("a waker")).is_err());
        assert_eq!(links.port(), 0);
        assert!(Connection::connect((here.ip(), before)).is_err(), "the others find them closed");
        assert!(!links.is_due(now) && links.is_due(now + REOPEN));
        links.reopen(now + REOPEN, here, Waker::new().expect("a waker")).expect("links on lo");
        assert!(links.port() != 0 && !links.is_due(now + 9 * REOPEN));
        assert!(Connection::connect((here.ip(), links.port())).is_ok());
    }
}
