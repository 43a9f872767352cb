//! Shared memory between the processes of one host: a datagram is written once, and read by the others where it lies,
//! without a system call.
//!
//! Each process has one log ([`bourdon_ring::log`]), a ring of what it sends, in memory without a name that the others
//! map to read ([`memory`]). They find each other by the names of sockets that the kernel forgets with the process
//! ([`place`]), and meet on connections whose ends the kernel reports ([`greeter`], [`hello`]). So a process that is
//! killed leaves nothing behind: what it had published is read, then its memory goes.
//!
//! A log is written by one process only, and its writer waits for none. A reader that is too slow loses the oldest
//! datagrams, as over a socket the newest; the protocol above has windows and repairs. The reader believes nothing in a
//! log: it copies datagrams into memory of its own, checks that they were whole, and hands out the copies.
//!
//! A reader that sleeps announces that in its own log; a sender wakes it by its eventfd. Between readers that spin no
//! message costs a system call.

mod greeter;
mod hello;
mod memory;
mod mixed;
mod options;
mod place;

pub use greeter::hostile;
pub use mixed::MixedPort;
pub use options::ShmOptions;

use bourdon_port::{Arrival, Idle, Limits, Origin, Port, PortError, Sleep, To, Waker};
use bourdon_ring::log::{self, Batch, HEADER_BYTES, Writer};
use greeter::{Change, Greeter, Order, Own, Peer};
use hello::Hello;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// The tag of a record for the sender's group; that for one process is its place, which is never 0.
const TO_GROUP: u32 = 0;
/// The tag of a record for all processes at the port.
const TO_ALL: u32 = u32::MAX;
const _: () = assert!((place::PLACES as u32) < TO_ALL);

/// Bytes of records that are copied before they are checked together: a part of the first-level cache.
const BATCH_BYTES: usize = 16 << 10;

/// The ring holds so many of the longest datagrams at least: the longest record is a quarter of a ring.
const LONGEST_MIN: usize = 8;

/// A port over shared memory.
#[derive(Debug)]
pub struct ShmPort {
    options: ShmOptions,
    place: u16,
    address: SocketAddr,
    greeter: Greeter,
    log: Writer,
    peers: Vec<Other>,
    /// Where the next receive begins among them, so that no busy peer keeps others from being heard.
    first: usize,
    /// Whether any of them runs no more.
    has_ended: bool,
    batch: Batch,
    waker: Waker,
    /// Another process has come or gone since [`ShmPort::take_news`] was asked.
    has_news: bool,
    /// Senders wake this port since the last `sleeper`: the next `wait` takes that back.
    is_lying: bool,
}

#[derive(Debug)]
struct Other {
    peer: Peer,
    state: State,
}

/// Whether there is more to come from another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// It is gone, and has written its last record.
    Gone,
    /// Its log is malformed, and is not read again.
    Malformed,
}

impl ShmPort {
    /// Opens a port. When this returns, every process of the same user that has one at the same port number receives
    /// what this one sends.
    ///
    /// # Errors
    /// If no place is free, or the kernel lacks or forbids what it takes.
    pub fn open(options: &ShmOptions) -> Result<Self, PortError> {
        Self::open_beside(None, options)
    }

    /// The same; beside a port on this `network`, the interface's name and where the process's datagrams come from
    /// there. Its unicast address there is its address here too, and it meets only processes at that interface.
    pub(crate) fn open_beside(network: Option<(&str, Origin)>, options: &ShmOptions) -> Result<Self, PortError> {
        let options = options.clone();
        let longest_bytes = options.datagram_max_bytes.next_multiple_of(HEADER_BYTES) + HEADER_BYTES;
        let ring_bytes = options.ring_bytes.max(LONGEST_MIN * longest_bytes).min(log::MAX_CAPACITY_BYTES);
        let (log, memory) = memory::create(ring_bytes)?;
        let waker = Waker::new().map_err(|source| PortError::Io { doing: "creating an eventfd", source })?;
        let prefix = place::prefix(options.group.port(), network.map(|(interface, _)| interface));
        let (place, listener) = place::take(&prefix)?;
        let address = place::address(options.group, place);
        let origin = network.map_or(Origin { address, group_source: None }, |(_, origin)| origin);
        let hello = Hello { place, group: options.group, origin };
        let own = Own { prefix, hello, log: memory, waker: waker.clone() };
        let mut port = Self {
            batch: Batch::new(BATCH_BYTES, options.datagram_max_bytes),
            // This process listens: of two that start at the same time, one at least finds the other.
            greeter: Greeter::start(own, listener)?,
            options,
            place,
            address: origin.address,
            log,
            peers: Vec::new(),
            first: 0,
            has_ended: false,
            has_news: true,
            waker,
            is_lying: false,
        };
        port.follow_changes();
        Ok(port)
    }

    /// How many other processes this one reads.
    pub fn peers(&mut self) -> usize {
        self.follow_changes();
        self.peers.len()
    }

    /// How many bytes were overwritten before this port read them, of the processes that it reads now.
    pub fn lost_bytes(&self) -> u64 {
        self.peers.iter().map(|other| other.peer.log.lost_bytes()).sum()
    }

    /// How many processes of this one's group read what it sends.
    pub(crate) fn reached(&self) -> u16 {
        let is_reached = |it: &&Other| it.state == State::Runs && it.peer.hello.group == self.options.group;
        self.peers.iter().filter(is_reached).count() as u16
    }

    /// Whether a process with this unicast address reads what this one sends.
    pub(crate) fn reaches(&self, address: SocketAddr) -> bool {
        self.place_of(address).is_some()
    }

    /// The processes that this one reads.
    pub(crate) fn others(&self) -> impl Iterator<Item = Origin> {
        self.peers.iter().map(|other| other.peer.hello.origin)
    }

    /// Whether these may be others than at the last call.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// This process's datagrams come from elsewhere from now on: meets the others again, of which each reads the other
    /// on where it was.
    pub(crate) fn move_to(&mut self, origin: Origin) {
        self.address = origin.address;
        self.greeter.order(Order::Move(origin));
    }

    /// Ends the sharing with one process. Returns whether there was one.
    pub(crate) fn break_one(&mut self) -> bool {
        self.follow_changes();
        let other = self.peers.iter().find(|other| other.state == State::Runs);
        other.inspect(|other| self.greeter.order(Order::Leave(other.peer.id, other.peer.hello))).is_some()
    }

    #[inline]
    fn follow_changes(&mut self) {
        if let Some(changes) = self.greeter.changes() {
            self.follow(changes);
        }
    }

    #[cold]
    fn follow(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Came(peer) => self.meet(peer),
                Change::Gone(id) => {
                    self.peers.iter_mut().filter(|it| it.peer.id == id).for_each(|it| it.state = State::Gone);
                    self.has_ended = true;
                }
            }
        }
        self.forget_ended();
        self.has_news = true;
    }

    /// One that moved is read on from where it was.
    fn meet(&mut self, peer: Peer) {
        match self.peers.iter_mut().find(|it| it.peer.id == peer.id && it.state != State::Malformed) {
            Some(other) => (other.peer.hello, other.peer.waker, other.state) = (peer.hello, peer.waker, State::Runs),
            None => self.peers.push(Other { peer, state: State::Runs }),
        }
    }

    /// Unmaps the logs from which no more is to come: those of the processes that are gone, once they are read to their
    /// ends, and malformed ones.
    fn forget_ended(&mut self) {
        let before = self.peers.len();
        self.peers.retain(|Other { peer, state }| match state {
            State::Runs => true,
            State::Gone => peer.log.has_more(),
            State::Malformed => false,
        });
        self.has_news |= self.peers.len() != before;
        self.has_ended = self.peers.iter().any(|other| other.state != State::Runs);
    }

    /// The process with this unicast address. The last of them: a process that died lately may have had it.
    fn place_of(&self, address: SocketAddr) -> Option<u16> {
        let is_it = |it: &&Other| it.state == State::Runs && is_same(it.peer.hello.origin.address, address);
        self.peers.iter().rfind(is_it).map(|it| it.peer.hello.place)
    }

    fn is_anything_there(&mut self) -> bool {
        self.follow_changes();
        self.peers.iter().any(|other| other.peer.log.has_more())
    }
}

impl Port for ShmPort {
    #[inline]
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        assert!(
            (1..=self.options.datagram_max_bytes).contains(&segment_bytes),
            "segments of {segment_bytes} bytes; 1 to {} fit",
            self.options.datagram_max_bytes
        );
        self.follow_changes();
        let segments = bytes.len().div_ceil(segment_bytes);
        if bytes.is_empty() || self.peers.is_empty() {
            return Ok(segments);
        }
        let tag = match to {
            To::Group => TO_GROUP,
            To::Broadcast => TO_ALL,
            To::Peer(address) => match self.place_of(address) {
                Some(place) => u32::from(place),
                None => return Ok(segments), // no process has it
            },
        };
        for segment in bytes.chunks(segment_bytes) {
            self.log.stage(tag, segment);
        }
        self.log.publish();
        for Other { peer, .. } in &mut self.peers {
            if is_for(tag, peer.hello.place, peer.hello.group == self.options.group) && peer.log.must_ring() {
                peer.waker.wake();
            }
        }
        Ok(segments)
    }

    #[inline]
    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        self.follow_changes();
        let (place, group, peers) = (self.place, self.options.group, self.peers.len());
        let mut count = 0;
        for turn in 0..peers {
            let turn = (self.first + turn) % peers;
            let Peer { log, hello, .. } = &mut self.peers[turn].peer;
            let is_in_group = hello.group == group;
            let read = log.read(
                &mut self.batch,
                limit - count,
                |tag| is_for(tag, place, is_in_group),
                |tag, bytes| {
                    count += 1;
                    on_datagram(Arrival { bytes, kernel_receive_ns: None, to_all: tag != u32::from(place) });
                },
            );
            if read.is_err() {
                // Not unmapped before the end of this loop, whose indices it would move.
                (self.peers[turn].state, self.has_ended) = (State::Malformed, true);
                let peer = &self.peers[turn].peer;
                self.greeter.order(Order::Leave(peer.id, peer.hello));
            }
            if count >= limit {
                self.first = turn + 1;
                break;
            }
        }
        if self.has_ended {
            self.forget_ended();
        }
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        if !self.is_lying {
            if timeout.is_zero() {
                return Ok(()); // the waker keeps a wake for the next sleep
            }
            match self.sleeper(timeout)? {
                Some(sleep) => Sleep::all(&[sleep])?,
                None => return Ok(()),
            }
        }
        self.is_lying = false;
        self.log.get_up();
        self.waker.clear();
        Ok(())
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        if self.options.idle == Idle::Spin || self.is_anything_there() {
            return Ok(None);
        }
        self.log.lie_down();
        // Once more: a process that has met this one and published before that may not have seen it lie down.
        self.is_lying = !self.is_anything_there();
        if !self.is_lying {
            self.log.get_up();
            return Ok(None);
        }
        Ok(Some(Sleep { readable: self.waker.as_fd(), longest }))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn can_broadcast(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        Limits {
            datagram_max_bytes: self.options.datagram_max_bytes,
            receive_buffer_bytes: self.log.retained_bytes(),
            segments_max: usize::MAX,
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn io(&self) -> &str {
        "shm"
    }
}

/// Whether both are one address: what identifies an interface of the host besides does not travel.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// Whether a record with this tag is for the process at `place`, which may be in the sender's group.
#[inline]
fn is_for(tag: u32, place: u16, is_in_group: bool) -> bool {
    tag == u32::from(place) || tag == TO_ALL || tag == TO_GROUP && is_in_group
}
