//! UDP multicast over `epoll`, for hosts without `io_uring`.
//!
//! Many containers forbid `io_uring`, and old kernels have it incomplete. A thread that must sleep on two sockets and a
//! waker then needs readiness: mio reports when to receive, and the receive calls, the sockets and the options are
//! those of the other ports, so that falling back changes the cost of a wake and nothing else.
//!
//! mio reports edges: that something has come since the last report, once. A thread that stopped at its limit would
//! sleep over the rest, so a report holds until a receive has found all sockets empty.
//!
//! Invariants:
//! - A wait returns at once while something may be left from an earlier report, or from before the first one.
//! - mio counts timeouts in milliseconds and rounds up: a wait of less than one is one. `io_uring` is exact.
//!
//! Source: epoll(7), "Level-triggered and edge-triggered"; mio's `Poll`, "Portability".

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::{SocketReceiver, SocketSender, Sockets, UdpOptions};
use bourdon_port::{Arrival, Idle, Limits, Port, PortError, To, Waker};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// The descriptors waited for; a report of all fits one call.
const GROUP: Token = Token(0);
const UNICAST: Token = Token(1);
const WAKE: Token = Token(2);
const BROADCAST: Token = Token(3);
const EVENTS_MAX: usize = 4;

/// A port over UDP sockets that sleeps in `epoll`.
#[derive(Debug)]
pub struct PortablePort {
    idle: Idle,
    // Before the sockets, which it watches.
    poll: Poll,
    events: Events,
    sender: SocketSender,
    receiver: SocketReceiver,
    sockets: Sockets,
    waker: Waker,
    /// Something may be there that no report will come for again.
    is_readable: bool,
}

impl PortablePort {
    /// Opens the sockets, joins the group, and watches them.
    pub fn open(options: &UdpOptions) -> Result<Self, PortError> {
        let sockets = Sockets::open(options)?;
        let io = |doing| move |source: io::Error| PortError::Io { doing, source };
        let waker = Waker::new().map_err(io("creating an eventfd"))?;
        let poll = Poll::new().map_err(io("creating an epoll"))?;
        let always = [(GROUP, sockets.group()), (UNICAST, sockets.unicast()), (WAKE, waker.as_fd())];
        for (token, source) in always.into_iter().chain(sockets.broadcast().map(|socket| (BROADCAST, socket))) {
            poll.registry()
                .register(&mut SourceFd(&source.as_raw_fd()), token, Interest::READABLE)
                .map_err(io("adding to an epoll"))?;
        }
        Ok(Self {
            idle: options.idle,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            sender: SocketSender::new(options, &sockets),
            receiver: match options.idle {
                Idle::Spin => SocketReceiver::spinning(options),
                Idle::Park => SocketReceiver::draining(options),
            },
            sockets,
            waker,
            is_readable: false,
        })
    }

    /// As [`UdpPort::join_source`](bourdon_udp::UdpPort::join_source).
    ///
    /// # Errors
    /// If the group was joined without sources, or the kernel refuses.
    pub fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.sockets.join_source(source)
    }

    /// As [`UdpPort::leave_source`](bourdon_udp::UdpPort::leave_source).
    ///
    /// # Errors
    /// If the source was not joined.
    pub fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        self.sockets.leave_source(source)
    }

    /// What becomes readable when something comes, for a caller that waits for several ports; none if something may be
    /// there already, or if this port never sleeps.
    pub fn sleeper(&self) -> Option<BorrowedFd<'_>> {
        if self.idle == Idle::Spin || self.is_readable {
            return None;
        }
        // SAFETY: the descriptor is the poll's own, open as long as it, which outlives the borrow.
        Some(unsafe { BorrowedFd::borrow_raw(self.poll.as_raw_fd()) })
    }
}

impl Port for PortablePort {
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        self.sender.send(&self.sockets, to, bytes, segment_bytes)
    }

    #[inline]
    fn receive(&mut self, limit: usize, on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        let count = self.receiver.receive(&self.sockets, limit, on_datagram)?;
        self.is_readable = !self.receiver.is_drained();
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        if self.idle == Idle::Spin || self.is_readable {
            return Ok(());
        }
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => return Err(PortError::Io { doing: "waiting on an epoll", source }),
        }
        for event in &self.events {
            match event.token() {
                WAKE => self.waker.clear(),
                _ => self.is_readable = true,
            }
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn can_broadcast(&self) -> bool {
        self.sockets.broadcast().is_some()
    }

    fn limits(&self) -> Limits {
        self.sender.limits(&self.sockets)
    }

    fn local_address(&self) -> SocketAddr {
        self.sockets.local_address()
    }

    fn io(&self) -> &str {
        "epoll"
    }
}
