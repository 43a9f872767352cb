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
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use bourdon_port::{Arrival, PortError, Sleep, Waker};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::{SocketReceiver, Sockets, UdpOptions};

/// The descriptors waited for; a report of all fits one call.
const GROUP: Token = Token(0);
const UNICAST: Token = Token(1);
const WAKE: Token = Token(2);
const BROADCAST: Token = Token(3);
const EVENTS_MAX: usize = 4;

/// Receives from sockets that it watches by `epoll`.
#[derive(Debug)]
pub(crate) struct Epoll {
    poll: Poll,
    events: Events,
    receiver: SocketReceiver,
    /// Something may be there that no report will come for again.
    is_readable: bool,
}

impl Epoll {
    /// Watches the sockets and the waker.
    pub(crate) fn open(options: &UdpOptions, sockets: &Sockets, waker: &Waker) -> Result<Self, PortError> {
        let io = |doing| move |source: io::Error| PortError::Io { doing, source };
        let poll = Poll::new().map_err(io("creating an epoll"))?;
        let always = [(GROUP, sockets.group()), (UNICAST, sockets.unicast()), (WAKE, waker.as_fd())];
        for (token, source) in always.into_iter().chain(sockets.broadcast().map(|socket| (BROADCAST, socket))) {
            poll.registry()
                .register(&mut SourceFd(&source.as_raw_fd()), token, Interest::READABLE)
                .map_err(io("adding to an epoll"))?;
        }
        let receiver = SocketReceiver::draining(options);
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MAX), receiver, is_readable: false })
    }

    /// As [`Port::sleeper`](bourdon_port::Port::sleeper).
    pub(crate) fn sleeper(&self, longest: Duration) -> Option<Sleep<'_>> {
        // SAFETY: the descriptor is the poll's own, open as long as it, which outlives the borrow.
        let readable = unsafe { BorrowedFd::borrow_raw(self.poll.as_raw_fd()) };
        (!self.is_readable).then_some(Sleep { readable, longest })
    }

    #[inline]
    pub(crate) fn receive(
        &mut self,
        sockets: &Sockets,
        limit: usize,
        on_datagram: impl FnMut(Arrival<'_>),
    ) -> Result<usize, PortError> {
        let count = self.receiver.receive(sockets, limit, on_datagram)?;
        self.is_readable = !self.receiver.is_drained();
        Ok(count)
    }

    pub(crate) fn wait(&mut self, waker: &Waker, timeout: Duration) -> Result<(), PortError> {
        if self.is_readable {
            return Ok(());
        }
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => return Err(PortError::Io { doing: "waiting on an epoll", source }),
        }
        for event in &self.events {
            match event.token() {
                WAKE => waker.clear(),
                _ => self.is_readable = true,
            }
        }
        Ok(())
    }
}
