//! One connection: bytes that have come and are not handed out, bytes that are to go.
//!
//! What comes is read into one buffer and handed out in place; only a datagram cut off at the buffer's end is moved.
//! What goes is put together until a burst ends: a call costs some ten microseconds however little it carries, and one
//! for each of a hundred repairs to each of thirty peers would keep its thread from everything else. What the kernel
//! does not take is kept, up to a bound; beyond, datagrams are dropped, and only whole ones, or the peer would read
//! garbage.
//!
//! Invariants:
//! - The hello is the first thing in `outgoing`, so nothing goes before it.
//! - At most [`QUEUE_MAX_BYTES`] wait in `outgoing`.
//! - While the kernel has the receive buffer (`is_lent`), no code here touches its bytes.

use crate::frame::{HELLO_BYTES, Head, PREFIX_BYTES, head};
use crate::options::QUEUE_MAX_BYTES;
use crate::socket::{self, Got};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The least that one read can bring.
const READ_MIN_BYTES: usize = 1 << 16;

/// Which end dialled, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The other end.
    Accepted,
    /// We did, by the mesh's dial of this index.
    Dialled(usize),
}

/// So much is worth a call: what goes through the kernel in one piece.
const FLUSH_BYTES: usize = 1 << 16;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) origin: Origin,
    /// The address of the process at the other end: as we dialled it, then as its hello gives it.
    pub(crate) address: Option<SocketAddr>,
    /// Its hello has come.
    pub(crate) is_greeted: bool,
    /// It is of our group, as far as known.
    pub(crate) in_group: bool,
    pub(crate) since: Instant,
    /// It has ended; it goes once the kernel has given its buffer back.
    pub(crate) is_broken: bool,
    /// Something may be there to read, as far as known without asking.
    pub(crate) is_readable: bool,
    /// The kernel may take something.
    pub(crate) is_writable: bool,
    /// Requests of an `io_uring` that are under way: to receive, to report when it is writable, to end both.
    pub(crate) is_lent: bool,
    pub(crate) is_watched: bool,
    pub(crate) is_cancelled: bool,
    received: Box<[u8]>,
    /// `received[start..end]` has come and is not handed out.
    start: usize,
    end: usize,
    outgoing: Vec<u8>,
    /// `outgoing[..sent]` has gone.
    sent: usize,
}

impl Connection {
    pub(crate) fn new(socket: Socket, origin: Origin, hello: &[u8; HELLO_BYTES], datagram_max_bytes: usize) -> Self {
        let room = READ_MIN_BYTES + PREFIX_BYTES + datagram_max_bytes;
        Self {
            socket,
            origin,
            address: None,
            is_greeted: false,
            in_group: false,
            since: Instant::now(),
            is_broken: false,
            is_readable: true,
            is_writable: true,
            is_lent: false,
            is_watched: false,
            is_cancelled: false,
            received: vec![0; room].into_boxed_slice(),
            start: 0,
            end: 0,
            outgoing: hello.to_vec(),
            sent: 0,
        }
    }

    /// What has come and is not handed out.
    pub(crate) fn pending(&self) -> &[u8] {
        if self.is_lent { &[] } else { &self.received[self.start..self.end] }
    }

    /// The next datagram.
    #[inline]
    pub(crate) fn next(&mut self, datagram_max_bytes: usize) -> (Head, &[u8]) {
        if self.is_lent {
            return (Head::Partial, &[]);
        }
        let from = self.start;
        let head = head(&self.received[from..self.end], datagram_max_bytes);
        match &head {
            Head::Datagram(place, _) => {
                self.start += place.end;
                let datagram = from + place.start..from + place.end;
                (head, &self.received[datagram])
            }
            _ => (head, &[]),
        }
    }

    /// There is nothing whole to hand out, so more may be read.
    pub(crate) fn wants_bytes(&self, datagram_max_bytes: usize) -> bool {
        let pending = self.pending();
        let is_drained = if self.is_greeted {
            head(pending, datagram_max_bytes) == Head::Partial
        } else {
            pending.len() < HELLO_BYTES
        };
        is_drained && !self.is_lent && !self.is_broken
    }

    /// Hands out so many bytes, which have come.
    pub(crate) fn skip(&mut self, count: usize) {
        self.start += count;
    }

    /// The room for what comes next, behind what is not whole yet.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.received.len() - self.end < READ_MIN_BYTES {
            self.received.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.received[self.end..]
    }

    /// So much of the room has been filled.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.received.len());
    }

    /// Reads once, and returns whether anything came.
    pub(crate) fn fill(&mut self) -> bool {
        if !self.is_readable || self.is_broken {
            return false;
        }
        self.room();
        match socket::receive(&self.socket, &mut self.received[self.end..]) {
            Got::Bytes(count) => {
                self.filled(count);
                return true;
            }
            Got::Later => self.is_readable = false,
            Got::End => self.is_broken = true,
        }
        false
    }

    /// Something waits that the kernel has not taken.
    pub(crate) fn has_outgoing(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Gives the kernel what waits. Returns whether nothing waits any more.
    pub(crate) fn flush(&mut self) -> bool {
        while self.has_outgoing() && self.is_writable && !self.is_broken {
            match socket::send(&self.socket, &self.outgoing[self.sent..]) {
                Got::Bytes(count) => self.sent += count,
                Got::Later => self.is_writable = false,
                Got::End => self.is_broken = true,
            }
        }
        if !self.has_outgoing() {
            self.outgoing.clear();
            self.sent = 0;
        }
        self.outgoing.is_empty()
    }

    /// Takes datagrams of `frame_bytes` each, prefix included, the last perhaps shorter. Returns how many were dropped.
    pub(crate) fn send(&mut self, framed: &[u8], frame_bytes: usize) -> usize {
        let waiting = self.outgoing.len() - self.sent;
        let fit = QUEUE_MAX_BYTES.saturating_sub(waiting) / frame_bytes * frame_bytes;
        let kept = fit.min(framed.len());
        if self.sent > self.outgoing.len() / 2 {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
        self.outgoing.extend_from_slice(&framed[..kept]);
        if self.outgoing.len() - self.sent >= FLUSH_BYTES {
            self.flush();
        }
        (framed.len() - kept).div_ceil(frame_bytes)
    }

    /// Takes the receive buffer away for good, for a kernel that never gave it back.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.received));
    }
}

/// Waits until one of these connections is made, or refused, at most for `longest`.
pub(crate) fn wait_writable<'a>(connections: impl Iterator<Item = &'a Connection>, longest: Duration) {
    let mut fds: Vec<_> = connections.map(|it| PollFd::new(&it.socket, PollFlags::OUT)).collect();
    let timeout = Timespec::try_from(longest).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
    // Interrupted or not: the caller looks at them all, and at the clock.
    let _ = rustix::event::poll(&mut fds, Some(&timeout));
}
