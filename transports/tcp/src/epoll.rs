//! Waits for all connections in `epoll`, by mio.
//!
//! Edges are reported: that something came since the last report, once. What is reported is noted at the connection and
//! stays noted until a call on it has come back empty-handed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use bourdon_port::{PortError, Waker};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::mesh::Mesh;

const LISTEN: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);
/// Reports a call; more come with the next.
const EVENTS_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Epoll {
    poll: Poll,
    events: Events,
    /// Which places are watched.
    watched: Vec<bool>,
    pub(crate) may_accept: bool,
    pub(crate) is_woken: bool,
}

impl Epoll {
    pub(crate) fn open(mesh: &Mesh, waker: &Waker) -> Result<Self, PortError> {
        let io = |doing| move |source: io::Error| PortError::Io { doing, source };
        let poll = Poll::new().map_err(io("creating an epoll"))?;
        for (token, fd) in [(LISTEN, mesh.listener.as_fd()), (WAKE, waker.as_fd())] {
            let registered = poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE);
            registered.map_err(io("adding to an epoll"))?;
        }
        let events = Events::with_capacity(EVENTS_MAX);
        Ok(Self { poll, events, watched: Vec::new(), may_accept: true, is_woken: false })
    }

    /// The place is free: closing its socket has ended the watch.
    pub(crate) fn forget(&mut self, place: usize) {
        if let Some(watched) = self.watched.get_mut(place) {
            *watched = false;
        }
    }

    /// Watches what is new.
    fn watch(&mut self, mesh: &mut Mesh) {
        self.watched.resize(mesh.places.len(), false);
        for (place, connection) in mesh.places.iter_mut().enumerate() {
            let Some(connection) = connection else { continue };
            if !self.watched[place] {
                let fd = connection.socket.as_raw_fd();
                let interest = Interest::READABLE | Interest::WRITABLE;
                let added = self.poll.registry().register(&mut SourceFd(&fd), Token(place), interest);
                connection.is_broken |= added.is_err(); // no room for it in the kernel
                self.watched[place] = added.is_ok();
            }
        }
    }

    /// Notes what has happened, waiting for it at most so long. Returns whether anything has.
    pub(crate) fn look(&mut self, mesh: &mut Mesh, timeout: Duration) -> Result<bool, PortError> {
        self.watch(mesh);
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(source) => return Err(PortError::Io { doing: "waiting on an epoll", source }),
        }
        for event in &self.events {
            match event.token() {
                LISTEN => self.may_accept = true,
                WAKE => self.is_woken = true,
                Token(place) => {
                    if let Some(Some(connection)) = mesh.places.get_mut(place) {
                        connection.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                        connection.is_writable |= event.is_writable() || event.is_write_closed();
                    }
                }
            }
        }
        Ok(!self.events.is_empty())
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the poll's own, open as long as it, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.poll.as_raw_fd()) }
    }
}
