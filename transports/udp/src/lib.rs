//! UDP multicast over the kernel's own sockets: by spinning for latency, by `io_uring` for a thread that also sleeps.
//!
//! Receiving well means two different things. A thread with a core of its own gets a datagram soonest by asking the
//! socket again and again, with nothing between it and the system call. A thread that shares its core must sleep, and
//! then wants to hear of two sockets, a waker and a timeout with one call, and to find all that has come already in
//! its memory. One mechanism for both would be second-best at each, so [`UdpPort`] has several, chosen by
//! [`UdpOptions::idle`] and [`UdpOptions::io_uring`]:
//!
//! - `socket-spin` ([`Idle::Spin`]): `recvmsg` without waiting, see `receive.rs`.
//! - `io_uring` ([`Idle::Park`]): multishot `recvmsg` into buffers lent to the kernel, see
//!   `ring.rs`. Where a kernel lacks or forbids it, opening returns [`PortError::Unavailable`].
//! - `epoll` ([`Idle::Park`] without `io_uring`): see `epoll.rs`.
//!
//! Sending is the same for both (`send.rs`): one `sendmsg` for up to 64 KiB of equal datagrams.
//!
//! `docs/decisions/udp-mechanisms.md` has the measurements behind these choices.
#![allow(unsafe_code)] // system calls; each block carries its proof

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bourdon_port::{Arrival, HostChange, Idle, Limits, Origin, Port, PortError, Sleep, To, Waker};

mod broadcast;
mod buffers;
mod echo;
mod epoll;
mod follow;
mod interface;
mod join;
mod message;
mod open;
mod options;
mod receive;
mod ring;
mod send;
mod sockets;
mod watch;

pub use interface::{Holder, holder_of};
pub use join::is_source_specific;
pub use options::{UDP_PAYLOAD_MAX_BYTES, UdpOptions};
pub use receive::SocketReceiver;
pub use send::SocketSender;
pub use sockets::{Sockets, coalesce_received, segment_sent};
pub use watch::Watch;

use epoll::Epoll;
use follow::Followed;
use ring::Ring;

/// A port over UDP sockets of this host's kernel.
///
/// It may be opened on one thread and handed to another. An `io_uring` belongs to the thread that first receives or
/// waits; from another thread these then fail. Dropped on its own thread, a port leaves its address free; dropped on
/// another one, an `io_uring` is cleared away by the kernel some milliseconds later, and its address with it.
#[derive(Debug)]
pub struct UdpPort {
    /// None while the interface can't be used.
    open: Option<Open>,
    followed: Followed,
    waker: Waker,
}

/// The sockets, and what moves the bytes.
#[derive(Debug)]
struct Open {
    // Before the sockets: a ring that ends still has requests on them.
    receiver: Receiver,
    sender: SocketSender,
    sockets: Sockets,
}

#[derive(Debug)]
enum Receiver {
    Spin(SocketReceiver),
    Park(Box<Ring>),
    Epoll(Box<Epoll>),
}

/// The MTU of the interface that these options name, and the longest datagram that needs no fragments there.
///
/// # Errors
/// If there is no such interface.
pub fn interface_mtu(options: &UdpOptions) -> Result<(usize, usize), PortError> {
    let interface = interface::Interface::find(&options.interface, options.group)?;
    Ok((interface.mtu_bytes, interface.mtu_bytes.saturating_sub(send::headers_bytes(options.group))))
}

impl Open {
    fn new(options: &UdpOptions, waker: &Waker) -> Result<Self, PortError> {
        let sockets = Sockets::open(options)?;
        let receiver = match options.idle {
            Idle::Spin => Receiver::Spin(SocketReceiver::spinning(options)),
            Idle::Park if options.io_uring => Receiver::Park(Box::new(Ring::open()?)),
            Idle::Park => Receiver::Epoll(Box::new(Epoll::open(options, &sockets, waker)?)),
        };
        Ok(Self { receiver, sender: SocketSender::new(options, &sockets), sockets })
    }

    fn limits(&self) -> Limits {
        self.sender.limits(&self.sockets)
    }
}

impl UdpPort {
    /// Opens the sockets, joins the group, and makes ready what moves the bytes.
    pub fn open(options: &UdpOptions) -> Result<Self, PortError> {
        let waker = Waker::new().map_err(|source| PortError::Io { doing: "creating an eventfd", source })?;
        let open = Open::new(options, &waker)?;
        Ok(Self { followed: Followed::new(options, &open), open: Some(open), waker })
    }

    /// Whether its interface can't be used: it sends and receives nothing until it can.
    pub fn is_cut_off(&self) -> bool {
        self.open.is_none()
    }

    /// Receives from one more source, of a group that was opened with some.
    ///
    /// # Errors
    /// If the group was joined without sources, or the kernel refuses.
    pub fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        if let Some(open) = &self.open {
            open.sockets.join_source(source)?;
        }
        self.followed.note_joined(source);
        Ok(())
    }

    /// Stops receiving from a source; without the last source, it receives from none.
    ///
    /// # Errors
    /// If the source was not joined.
    pub fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        if let Some(open) = &self.open {
            open.sockets.leave_source(source)?;
        }
        self.followed.note_left(source);
        Ok(())
    }
}

impl Port for UdpPort {
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        match &mut self.open {
            Some(open) => open.sender.send(&open.sockets, to, bytes, segment_bytes),
            None => Ok(bytes.len().div_ceil(segment_bytes)), // lost, as all that is sent without an interface
        }
    }

    #[inline]
    fn receive(&mut self, limit: usize, on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        let Some(Open { receiver, sockets, .. }) = &mut self.open else { return Ok(0) };
        match receiver {
            Receiver::Spin(receiver) => receiver.receive(sockets, limit, on_datagram),
            Receiver::Park(ring) => ring.receive(sockets, &self.waker, limit, on_datagram),
            Receiver::Epoll(epoll) => epoll.receive(sockets, limit, on_datagram),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        let Some(Open { receiver, sockets, .. }) = &mut self.open else { return self.wait_closed(timeout) };
        match receiver {
            Receiver::Spin(_) => Ok(()),
            Receiver::Park(ring) => ring.wait(sockets, &self.waker, timeout),
            Receiver::Epoll(epoll) => epoll.wait(&self.waker, timeout),
        }
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        let Some(Open { receiver, sockets, .. }) = &mut self.open else {
            return Ok(follow::sleeper(&self.followed, &self.waker, longest));
        };
        match receiver {
            Receiver::Spin(_) => Ok(None),
            Receiver::Park(ring) => ring.sleeper(sockets, &self.waker, longest),
            Receiver::Epoll(epoll) => Ok(epoll.sleeper(longest)),
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn can_broadcast(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.sockets.broadcast().is_some())
    }

    fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
        self.follow()
    }

    fn limits(&self) -> Limits {
        self.open.as_ref().map_or(self.followed.limits, Open::limits)
    }

    fn local_address(&self) -> SocketAddr {
        self.followed.local_address
    }

    fn group_source(&self) -> Option<SocketAddr> {
        self.followed.group_source
    }

    fn bypass(&mut self, others: &[Origin]) {
        self.followed.bypassed = others.iter().filter_map(|other| other.group_source).collect();
        if let Some(open) = &self.open {
            open.sockets.bypass(&self.followed.bypassed);
        }
    }

    fn io(&self) -> &str {
        self.followed.io
    }
}
