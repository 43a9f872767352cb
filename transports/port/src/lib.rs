//! The interface of every transport to the engine.
//!
//! The engine works in datagrams for a group or for one peer; kernels offer a dozen ways to move them, each best for
//! one job (spinning `recvmsg` for latency, segmentation offload for throughput, `io_uring` for a thread that also
//! sleeps). An interface shaped after any one of them would not fit the others: readiness does not fit completion,
//! completion does not fit a ring in shared memory. So a [`Port`] does three things only, each total in itself: *send*
//! a run of equal-sized datagrams, *receive* whatever has come, *wait* until there may be more.
//!
//! - A port moves bytes and never looks into them. The one exception is [`Echo`]: bytes at a fixed place by which the
//!   port may drop this process's own multicasts early, because every multicast on one host comes back to its sender.
//! - Source addresses are not reported. A frame that wants an answer carries its sender's address, so that a port
//!   over TCP, shared memory or `AF_XDP` needs no notion of one.
//! - The engine is generic over its port: no dynamic dispatch, nothing allocated per datagram.
//!
//! How TCP, `AF_XDP` and shared memory fit the same interface is worked out in `docs/architecture.md`.

use std::net::SocketAddr;
use std::time::Duration;

pub mod conformance;
pub mod faults;
pub mod memory;
mod sleep;
#[allow(unsafe_code)] // one system call; its block carries its proof
pub mod uring;
mod waker;

pub use sleep::{Sleep, watch};
pub use waker::Waker;

/// Where a run of datagrams goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Every process that joined the group, this one included unless the port can avoid it.
    Group,
    /// The unicast address of one process.
    Peer(SocketAddr),
    /// Every process on the network whose group has the same port number, whichever group it joined, this one included.
    /// A port without [`Port::can_broadcast`] takes it and drops it.
    Broadcast,
}

/// One datagram as it came in; the bytes are the port's and go back to it when the callback returns.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The datagram, as sent.
    pub bytes: &'a [u8],
    /// When the kernel received it, in nanoseconds since the UNIX epoch, where the port was asked to know.
    pub kernel_receive_ns: Option<u64>,
    /// Whether it was sent to the group, or to all that hear the network, and not to this port alone.
    pub to_all: bool,
}

/// What a port can carry. Fixed once the port is open, unless it has to be opened again ([`Port::follow_host`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest datagram, in bytes.
    pub datagram_max_bytes: usize,
    /// How many bytes of datagrams the group's receiver holds while the process does not read: what was really granted,
    /// in the kernel's own accounting (overhead included), not what was asked for.
    pub receive_buffer_bytes: usize,
    /// The most datagrams one [`Port::send`] takes to the network in one system call.
    pub segments_max: usize,
}

/// The bytes by which a process knows its own datagrams again: `bytes` at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Where in the datagram.
    pub offset: usize,
    /// What stands there in this process's own datagrams and in no other process's.
    pub bytes: [u8; 8],
}

impl Echo {
    /// Whether `datagram` is one of this process's own. A datagram too short for these bytes is not.
    pub fn matches(&self, datagram: &[u8]) -> bool {
        datagram.get(self.offset..).and_then(|rest| rest.first_chunk()) == Some(&self.bytes)
    }
}

/// Where a process's datagrams come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its unicast address: [`Port::local_address`].
    pub address: SocketAddr,
    /// The source of what it sends to the group: [`Port::group_source`].
    pub group_source: Option<SocketAddr>,
}

/// How the receiving thread spends the time in which nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It never waits: the port should make an empty [`Port::receive`] as cheap and a full one as early as it can.
    Spin,
    /// It calls [`Port::wait`] and sleeps in the kernel.
    Park,
}

/// Why a port can use its interface no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterfaceLoss {
    /// There is no interface of this name.
    NoInterface,
    /// The interface is down.
    Down,
    /// The interface has no address of the group's family.
    NoAddress,
    /// No interface of this host has the address that the configuration gives.
    AddressGone,
    /// The interface has an address, and the kernel refuses to open the sockets there.
    Refused,
}

/// What has changed at the host under a port; see [`Port::follow_host`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// The port can use this interface no longer: it sends and receives nothing until it can.
    Lost {
        /// The interface.
        interface: String,
        /// Why not.
        loss: InterfaceLoss,
    },
    /// The port has opened its sockets again on this interface.
    Bound {
        /// The interface.
        interface: String,
        /// The address that they are bound to.
        address: SocketAddr,
        /// The address before.
        before: SocketAddr,
    },
}

/// A transport.
///
/// # Errors
/// Everything a port returns as an error is final for this port: the network down, the socket gone. What passes by
/// itself (a full send buffer, an interrupted call, a peer's port closed, an ICMP error) is no error: `send` then
/// returns that it took fewer datagrams, `receive` that nothing came.
pub trait Port {
    /// Sends `bytes` as datagrams of `segment_bytes` each (the last may be shorter) and returns how many of them it
    /// took, counted from the first. Less than all: try the rest again later. What was taken goes out with the next
    /// [`Port::flush`] at the latest. Never blocks.
    ///
    /// Any number of segments may be given, none included. A datagram that was taken may still not arrive.
    /// A port with an [`Echo`] may judge a whole run by its first segment, so either all of a run carries the echo's
    /// bytes or none does.
    ///
    /// # Panics
    /// When `segment_bytes` is 0 or more than [`Limits::datagram_max_bytes`]: that is a bug in the caller.
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError>;

    /// Sends what [`Port::send`] took and held back to go together; to be called after a burst of sends. A port may
    /// send at once, and most do. Never blocks.
    fn flush(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    /// Hands out what has come for the group and for this process, in order of arrival per source, and returns how many
    /// datagrams that were. Stops at the end of the system call in which `limit` was reached, so that one busy group
    /// can't starve the caller's timers; never blocks.
    fn receive(&mut self, limit: usize, on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError>;

    /// Sleeps until there may be something to receive, until [`Waker::wake`], or until `timeout` has passed. It may
    /// return early for no reason. A port opened with [`Idle::Spin`] returns at once.
    fn wait(&mut self, timeout: Duration) -> Result<(), PortError>;

    /// Prepares a sleep for this port among others, of at most `longest`; [`Sleep::all`] sleeps for all of them. None
    /// if the thread must not sleep: there may be something to receive already, the port was woken, or it was opened
    /// with [`Idle::Spin`].
    ///
    /// Whatever ended the sleep, and if there was none: call [`Port::wait`] with no time next, which takes in what the
    /// kernel reports, and then [`Port::receive`].
    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError>;

    /// Ends a [`Port::wait`], or a sleep for this port, from another thread.
    fn waker(&self) -> Waker;

    /// Whether [`To::Broadcast`] reaches any process.
    fn can_broadcast(&self) -> bool {
        false
    }

    /// Follows a change of the host: an interface that is gone, or there again, an address that is another. Sockets are
    /// then opened again with the same settings; what is sent meanwhile is lost, and what had arrived too. Returns what
    /// has changed since the last call.
    ///
    /// To be called every few milliseconds by the thread that receives, which never waits here; without a change it
    /// costs one system call at most. The port's wakers stay valid, and so does its address where the host still has
    /// it.
    ///
    /// # Errors
    /// If the port can't follow the change.
    fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
        Ok(None)
    }

    /// What this port can carry.
    fn limits(&self) -> Limits;

    /// The unicast address others reach this process at.
    fn local_address(&self) -> SocketAddr;

    /// The source address of what this port multicasts to the group; none where it multicasts nothing.
    fn group_source(&self) -> Option<SocketAddr> {
        None
    }

    /// Leaves these processes of this host out of what is for the group, in both directions: the caller reaches and
    /// hears them in another way. `others` replaces those of the call before. A port may do so in part only: the caller
    /// then hears some datagrams twice.
    fn bypass(&mut self, others: &[Origin]) {
        let _ = others;
    }

    /// What moves the bytes: `io_uring`, `socket-spin`, `epoll`, `af_xdp`, `shm`, `memory`, joined by `+`.
    fn io(&self) -> &str;
}

/// Why a port can't be opened or can't go on. The text gives what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// When it is opened: the group's address is no multicast address. Choose another.
    #[error(
        "group.address is {0}, not a multicast address: choose one in 224.0.0.0/4 (239.0.0.0/8 is free for private \
             use) or ff00::/8"
    )]
    NotMulticast(SocketAddr),
    /// When it is opened: the interface does not exist, or has no address of the group's family. Name another.
    #[error("interface {name}: {why}; `ip address` lists the interfaces, network.interface names one")]
    Interface {
        /// The interface as asked for.
        name: String,
        /// Why it can't be used now; it may become usable.
        loss: InterfaceLoss,
        /// The same as text.
        why: String,
    },
    /// When it is opened: the group's address takes senders by name only. Name them, or choose another address.
    #[error(
        "group.address is {0}, a source-specific address: name the senders with network.sources, or choose an address \
             in 239.0.0.0/8 (IPv6: ff15::)"
    )]
    SourcesWanted(SocketAddr),
    /// When it is opened: the group's scope can't work on this interface. Choose another of the two.
    #[error("group.address is {group}: {why}")]
    Scope {
        /// The group.
        group: SocketAddr,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A source can't be joined or left; the port goes on without the change.
    #[error("network.sources lists {address}: {why}")]
    Source {
        /// The source.
        address: std::net::IpAddr,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// When it is opened: another socket holds the port without sharing it. End its process, or choose another port.
    #[error(
        "{address} is in use by another process: an earlier process of this member may still run, then stop it; \
             otherwise choose another port with group.address (over tcp with network.peers or network.listen)"
    )]
    AddressInUse {
        /// The address that could not be bound.
        address: SocketAddr,
    },
    /// When it is opened: no process can listen there. Name an address of this host.
    #[error(
        "can't listen at {address}: {source}; network.listen, or this rank's place in network.peers, must be an \
             address of this host"
    )]
    Listen {
        /// The address as asked for.
        address: SocketAddr,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// The host has got another address in the place of the one that the configuration gives this process: the other
    /// processes would not find it.
    #[error(
        "interface {interface} has the address {now} in the place of {address}, at which the others look for this \
             process: over tcp no member can move; give the host {address} again, or change network.peers at all \
             processes and start them again"
    )]
    AddressReplaced {
        /// The interface that had the address.
        interface: String,
        /// The address that the configuration gives.
        address: std::net::IpAddr,
        /// What the interface has.
        now: std::net::IpAddr,
    },
    /// When it is opened: the interface takes no multicast. Allow it, or name another.
    #[error(
        "no multicast route for {group} over {interface}: {source}; try `ip link set {interface} multicast on` (IPv6 \
             on lo: `ip -6 route add local ff00::/8 dev lo`), or another network.interface"
    )]
    NoRoute {
        /// The group.
        group: SocketAddr,
        /// The interface.
        interface: String,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// The kernel lacks or forbids what this port is made of: fall back to another port.
    #[error("{mechanism} is not available here: {why}")]
    Unavailable {
        /// What was tried.
        mechanism: &'static str,
        /// Why it was refused.
        why: String,
    },
    /// Any other error of the kernel, when the port is opened or later. A port that had been open goes on no more: open
    /// another.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The kernel's error.
        source: std::io::Error,
    },
}
