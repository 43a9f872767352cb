//! A mesh of TCP connections that does the work of multicast where multicast is blocked.
//!
//! Many networks carry no multicast, above all those that are rented. The group then needs each datagram sent once to
//! each process, and TCP is what every network carries. It brings what the group does not need from it, order and
//! repair, and two things that would hurt: one slow reader stops its writer, and one broken connection loses what was
//! on its way, without an error. So TCP is used here as a wire that carries datagrams and may lose some. What a peer
//! does not take is kept up to a bound and then dropped, and a connection that breaks is made again: what was lost is a
//! gap in the protocol's numbers, and is repaired as any other.
//!
//! - `frame.rs`: a hello, then datagrams behind their lengths.
//! - `mesh.rs`: which process dials which, which connection stays, when a dial is tried again.
//! - `connection.rs`: the bytes of one connection.
//! - `ring.rs`, `epoll.rs`: how a thread sleeps. One that spins asks every socket.
//! - `auto.rs`: multicast, and the mesh for peers that it does not reach.
//!
//! Invariants: `send` takes all it is given and never waits; nothing received can end the port or harm another
//! connection; all is done by the thread that calls, in `send`, `receive` and `wait`. The page is `docs/tcp.md`.
#![allow(unsafe_code)] // system calls; each block carries its proof

mod auto;
mod connection;
mod epoll;
mod follow;
mod frame;
mod mesh;
pub mod options;
mod ring;
mod socket;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bourdon_port::{Arrival, HostChange, Idle, Limits, Port, PortError, Sleep, To, Waker};

pub use auto::{AutoPort, Reach};
pub use options::TcpOptions;

use epoll::Epoll;
use follow::Followed;
use frame::{Head, PREFIX_BYTES, frame};
use mesh::Mesh;
use options::STRANGERS_MAX;
use ring::Ring;

/// Of so many receives of a spinning thread, one checks for new connections.
const ACCEPT_EVERY: u32 = 8;
/// Rounds of one look: accept, ask for the hello, get it, and what that brought about.
const ROUNDS_MAX: u32 = 4;

/// How the thread waits.
#[derive(Debug)]
enum Waiting {
    Spin,
    Epoll(Box<Epoll>),
    Ring(Box<Ring>),
}

/// A port over a mesh of TCP connections.
///
/// It may be opened on one thread and handed to another; with an `io_uring` it then belongs to the thread that first
/// uses it.
#[derive(Debug)]
pub struct TcpPort {
    // Before the mesh, whose buffers are lent to it.
    waiting: Waiting,
    mesh: Mesh,
    followed: Box<Followed>,
    waker: Waker,
    datagram_max_bytes: usize,
    /// A run behind its lengths, written once for all peers.
    framed: Vec<u8>,
    /// Something may be there to hand out.
    may_have: bool,
    /// Where the next receive begins, so that no peer is always first.
    first: usize,
    turn: u32,
    dropped: u64,
    broken: u64,
}

impl TcpPort {
    /// Listens, and dials the configured peers.
    ///
    /// # Errors
    /// If the address can't be listened at, or the `io_uring` that was asked for is not available.
    pub fn open(options: &TcpOptions) -> Result<Self, PortError> {
        let waker = Waker::new().map_err(|source| PortError::Io { doing: "creating an eventfd", source })?;
        Self::with(options, Mesh::open(options)?, waker, None)
    }

    /// Over a mesh that listens. `followed` is what an earlier port of this process has kept.
    fn with(
        options: &TcpOptions,
        mesh: Mesh,
        waker: Waker,
        followed: Option<Box<Followed>>,
    ) -> Result<Self, PortError> {
        let ring = match options.idle {
            Idle::Park if options.io_uring => Some(Ring::open(mesh.listener.as_fd())?),
            _ => None,
        };
        let waiting = match (options.idle, ring) {
            (_, Some(ring)) => Waiting::Ring(Box::new(ring)),
            (Idle::Park, None) => Waiting::Epoll(Box::new(Epoll::open(&mesh, &waker)?)),
            (Idle::Spin, None) => Waiting::Spin,
        };
        Ok(Self {
            waiting,
            followed: followed.unwrap_or_else(|| Box::new(Followed::new(options, mesh.local))),
            mesh,
            waker,
            datagram_max_bytes: options.datagram_max_bytes,
            framed: Vec::new(),
            may_have: true,
            first: 0,
            turn: 0,
            dropped: 0,
            broken: 0,
        })
    }

    /// Datagrams that a peer did not take in time.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Connections that have ended while others went on.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// Connections whose other end has sent no hello.
    pub fn strangers(&self) -> usize {
        self.mesh.strangers()
    }

    /// The processes of this group that are connected.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.mesh.connections().filter(|it| it.is_greeted && it.in_group && !it.is_broken).filter_map(|it| it.address)
    }

    /// Whether the host lacks the address of this port: it sends and receives nothing until it has it again.
    pub fn is_cut_off(&self) -> bool {
        self.followed.is_lost
    }

    /// Ends one established connection abruptly, as a fault would, another each time. Returns whether there was one.
    pub fn break_one_link(&mut self) -> bool {
        let places = self.mesh.places.len();
        for place in (0..places).map(|step| (self.broken as usize + step) % places) {
            if let Some(connection) = self.mesh.places[place].as_deref_mut()
                && connection.is_greeted
                && !connection.is_broken
            {
                // Reset, not ended: what is on its way is lost in both directions.
                let _ = connection.socket.set_linger(Some(Duration::ZERO));
                connection.is_broken = true;
                self.sweep();
                return true;
            }
        }
        false
    }

    /// Takes in what has happened, waiting at most so long if nothing has. Returns whether anything has: what that
    /// brought about may still have to be requested by the next look.
    fn look(&mut self, wait: Duration) -> Result<bool, PortError> {
        let mut wait = wait;
        let mut has_any = false;
        for _ in 0..ROUNDS_MAX {
            let any = match &mut self.waiting {
                Waiting::Spin => false,
                Waiting::Epoll(epoll) => epoll.look(&mut self.mesh, wait)?,
                Waiting::Ring(ring) => ring.look(&mut self.mesh, &self.waker, self.datagram_max_bytes, wait)?,
            };
            self.may_have |= any;
            wait = Duration::ZERO;
            let accepted = self.accept();
            self.mesh.greet_all(!matches!(self.waiting, Waiting::Ring(_)));
            self.sweep();
            has_any |= any || accepted;
            // A ring must receive a request to read the hello of a new connection.
            if !(matches!(self.waiting, Waiting::Ring(_)) && (any || accepted)) {
                break;
            }
        }
        Ok(has_any)
    }

    /// Takes in new connections. Returns whether there were any.
    fn accept(&mut self) -> bool {
        if !matches!(self.waiting, Waiting::Spin) && !self.may_accept() {
            return false;
        }
        let mut any = false;
        for _ in 0..STRANGERS_MAX {
            match self.mesh.listener.accept() {
                Ok((socket, _)) => self.mesh.admit(OwnedFd::from(socket)),
                Err(error) => {
                    match &mut self.waiting {
                        Waiting::Spin => {}
                        // Also with too many open files: the next process that connects is an edge again.
                        Waiting::Epoll(epoll) => epoll.may_accept = socket::is_interrupted(&error),
                        Waiting::Ring(ring) => ring.refused(&error),
                    }
                    return any;
                }
            }
            any = true;
        }
        any
    }

    fn sweep(&mut self) {
        let (waiting, broken) = (&mut self.waiting, &mut self.broken);
        self.mesh.sweep(|place, connection| {
            let may_go = !connection.is_lent && !connection.is_watched;
            if may_go && let Waiting::Epoll(epoll) = waiting {
                epoll.forget(place);
            }
            *broken += u64::from(may_go);
            may_go
        });
    }

    /// Hands out what has come at one place, reading on until there is no more. Returns whether something may be left.
    fn drain(
        &mut self,
        place: usize,
        limit: usize,
        count: &mut usize,
        on_datagram: &mut impl FnMut(Arrival<'_>),
    ) -> bool {
        let is_ring = matches!(self.waiting, Waiting::Ring(_));
        let Some(connection) = self.mesh.places.get_mut(place).and_then(Option::as_deref_mut) else { return false };
        if !connection.is_greeted {
            return false;
        }
        while !connection.is_broken {
            if *count >= limit {
                return true;
            }
            let in_group = connection.in_group;
            match connection.next(self.datagram_max_bytes) {
                (Head::Datagram(_, for_group), bytes) => {
                    if in_group || !for_group {
                        *count += 1;
                        on_datagram(Arrival { bytes, kernel_receive_ns: None, to_all: for_group });
                    }
                }
                (Head::Garbage, _) => connection.is_broken = true,
                (Head::Partial, _) if is_ring || !connection.fill() => return false,
                (Head::Partial, _) => {}
            }
        }
        false
    }
}

impl Port for TcpPort {
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        assert!(
            (1..=self.datagram_max_bytes).contains(&segment_bytes),
            "segments of {segment_bytes} bytes; 1 to {} fit",
            self.datagram_max_bytes
        );
        if bytes.is_empty() {
            return Ok(0);
        }
        // Processes that have connected by now are to receive it.
        self.look(Duration::ZERO)?;
        frame(&mut self.framed, to == To::Group, bytes, segment_bytes);
        let frame_bytes = PREFIX_BYTES + segment_bytes;
        match to {
            To::Group => {
                for connection in self.mesh.connections_mut().filter(|it| it.in_group && !it.is_broken) {
                    self.dropped += connection.send(&self.framed, frame_bytes) as u64;
                }
            }
            To::Peer(address) => match self.mesh.peer(address) {
                Some(connection) => self.dropped += connection.send(&self.framed, frame_bytes) as u64,
                None => self.dropped += bytes.len().div_ceil(segment_bytes) as u64,
            },
            // A connected process knows of us; other processes on the network can't be reached.
            To::Broadcast => {}
        }
        Ok(bytes.len().div_ceil(segment_bytes))
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.mesh.flush();
        Ok(())
    }

    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        self.mesh.upkeep();
        if matches!(self.waiting, Waiting::Spin) {
            self.mesh.connections_mut().for_each(|it| (it.is_readable, it.is_writable) = (true, true));
            self.turn = (self.turn + 1) % ACCEPT_EVERY;
        }
        if self.turn == 0 {
            self.look(Duration::ZERO)?;
        } else {
            self.mesh.greet_all(true);
        }
        self.mesh.flush();
        let mut count = 0;
        loop {
            let before = count;
            self.may_have = false;
            let places = self.mesh.places.len();
            for step in 0..places {
                let place = (self.first + step) % places;
                self.may_have |= self.drain(place, limit, &mut count, &mut on_datagram);
            }
            self.first = (self.first + 1) % places.max(1);
            self.sweep();
            // In a ring more may have come for buffers that are free again.
            if count >= limit || count == before || !matches!(self.waiting, Waiting::Ring(_)) {
                return Ok(count);
            }
            self.look(Duration::ZERO)?;
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        if matches!(self.waiting, Waiting::Spin) {
            return Ok(());
        }
        self.mesh.upkeep();
        self.mesh.flush();
        if self.may_sleep() {
            self.look(self.until_due(timeout))?;
            self.mesh.upkeep();
            self.mesh.flush();
        } else {
            self.look(Duration::ZERO)?;
        }
        if self.is_woken() {
            self.waker.clear();
            match &mut self.waiting {
                Waiting::Spin => {}
                Waiting::Epoll(epoll) => epoll.is_woken = false,
                Waiting::Ring(ring) => ring.is_woken = false,
            }
        }
        Ok(())
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        if matches!(self.waiting, Waiting::Spin) {
            return Ok(None);
        }
        self.mesh.upkeep();
        self.mesh.flush();
        // A look that finds nothing has requested all that is wanted from the kernel.
        if !self.may_sleep() || self.look(Duration::ZERO)? {
            return Ok(None);
        }
        let longest = self.until_due(longest);
        match &mut self.waiting {
            Waiting::Spin => Ok(None),
            Waiting::Epoll(epoll) => Ok(Some(Sleep { readable: epoll.as_fd(), longest })),
            Waiting::Ring(ring) => ring.sleeper(&self.waker, longest),
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
        self.follow()
    }

    fn limits(&self) -> Limits {
        Limits {
            datagram_max_bytes: self.datagram_max_bytes,
            receive_buffer_bytes: options::HELD_BYTES,
            segments_max: usize::MAX,
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.mesh.local
    }

    fn io(&self) -> &str {
        match self.waiting {
            Waiting::Spin => "socket-spin",
            Waiting::Epoll(_) => "epoll",
            Waiting::Ring(_) => "io_uring",
        }
    }
}

impl TcpPort {
    /// Whether nothing is there that no report will come for again.
    fn may_sleep(&self) -> bool {
        !self.may_have && !self.is_woken() && !self.may_accept()
    }

    /// At most `longest`: how long until this port must be called though nothing has come.
    fn until_due(&self, longest: Duration) -> Duration {
        let due = self.mesh.next_due();
        due.map_or(longest, |due| longest.min(due.saturating_duration_since(Instant::now())))
    }

    /// A process may have connected that no edge will report again.
    fn may_accept(&self) -> bool {
        match &self.waiting {
            Waiting::Spin => false,
            Waiting::Epoll(epoll) => epoll.may_accept,
            Waiting::Ring(ring) => ring.may_accept,
        }
    }

    fn is_woken(&self) -> bool {
        match &self.waiting {
            Waiting::Spin => false,
            Waiting::Epoll(epoll) => epoll.is_woken,
            Waiting::Ring(ring) => ring.is_woken,
        }
    }
}

impl Drop for TcpPort {
    fn drop(&mut self) {
        self.mesh.flush();
        if let Waiting::Ring(ring) = &mut self.waiting {
            ring.cancel(&mut self.mesh);
        }
        // A buffer that the kernel still has outlives this port.
        self.mesh.connections_mut().filter(|it| it.is_lent).for_each(|it| it.leak());
    }
}
