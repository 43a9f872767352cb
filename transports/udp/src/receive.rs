//! Receives with one system call after another.
//!
//! For latency nothing beats a thread that asks again and again: a datagram is in its hands some 0.3 µs after it was
//! queued, where any kind of waking costs 5 µs and more. What is left to save are the calls that bring nothing, each
//! 0.15 µs, in which a datagram that has just come must wait:
//!
//! - The unicast socket is asked only every eighth time. That leaves a multicast on average some 10 ns of waiting for
//!   it, and a unicast some 0.6 µs; it is asked first, so that no busy group can starve it.
//! - Broadcasts are rare and no thread waits for them: their socket is asked every eighth time that unicast's is.
//! - After one packet a spinning receiver returns at once, so that its answer need not wait for a call that most
//!   likely brings nothing. Only when the call before brought something too, it takes all there is, for the sake of
//!   throughput.
//!
//! A receiver that will sleep instead asks all sockets until they are empty, because an edge-triggered wait reports
//! new datagrams only.
//!
//! Invariants: nothing is allocated after construction; after `limit` datagrams no further call is made.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use bourdon_port::{Arrival, PortError};

use crate::message::{self, Control, Notes};
use crate::options::UdpOptions;
use crate::send::is_passing;
use crate::sockets::Sockets;

/// No packet is longer, offload or not: lengths in IP headers have 16 bits.
pub(crate) const PACKET_MAX_BYTES: usize = 1 << 16;

/// Of so many receives of a spinning thread, one asks the unicast socket too.
const UNICAST_EVERY: u32 = 8;
/// Of so many receives of a spinning thread, one asks the broadcast socket too.
const BROADCAST_EVERY: u32 = 64;

/// Receives from [`Sockets`] into a buffer of its own.
pub struct SocketReceiver {
    buffer: Box<[u8]>,
    control: Control,
    /// Without offload and timestamps there are no control messages, and a cheaper system call will do.
    has_control: bool,
    drains: bool,
    unicast_every: u32,
    broadcast_every: u32,
    /// Counts receives from one that asked the unicast socket to the next.
    turn: u32,
    /// And from one that asked the broadcast socket.
    broadcast_turn: u32,
    /// The call before found something for the group.
    was_busy: bool,
    is_drained: bool,
}

impl SocketReceiver {
    /// For a thread that never sleeps.
    pub fn spinning(options: &UdpOptions) -> Self {
        Self {
            buffer: vec![0; PACKET_MAX_BYTES].into_boxed_slice(),
            control: Control::new(),
            has_control: options.offload || options.receive_timestamps,
            drains: false,
            unicast_every: UNICAST_EVERY,
            broadcast_every: BROADCAST_EVERY,
            turn: 0,
            broadcast_turn: 0,
            was_busy: false,
            is_drained: false,
        }
    }

    /// For a thread that sleeps when nothing is left.
    pub fn draining(options: &UdpOptions) -> Self {
        Self { drains: true, unicast_every: 1, broadcast_every: 1, ..Self::spinning(options) }
    }

    /// Whether the last receive found all sockets empty at its end.
    pub fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// As [`Port::receive`](bourdon_port::Port::receive).
    #[inline]
    pub fn receive(
        &mut self,
        sockets: &Sockets,
        limit: usize,
        mut on_datagram: impl FnMut(Arrival<'_>),
    ) -> Result<usize, PortError> {
        let mut count = 0;
        self.turn += 1;
        self.is_drained = self.turn >= self.unicast_every;
        if self.turn >= self.unicast_every {
            self.turn = 0;
            self.is_drained = self.drain((sockets.unicast(), false), limit, &mut count, &mut on_datagram)?;
        }
        self.broadcast_turn += 1;
        if self.broadcast_turn >= self.broadcast_every
            && let Some(socket) = sockets.broadcast()
        {
            self.broadcast_turn = 0;
            self.is_drained &= self.drain((socket, true), limit, &mut count, &mut on_datagram)?;
        }
        if count >= limit {
            self.is_drained = false;
            return Ok(count);
        }
        let drain_all = self.drains || self.was_busy;
        let until = if drain_all { limit } else { count + 1 };
        let before = count;
        self.is_drained &= self.drain((sockets.group(), true), until, &mut count, &mut on_datagram)?;
        self.was_busy = count > before;
        Ok(count)
    }

    /// Receives from a socket, to which datagrams are sent for all or for this port alone, until `count` is `limit`;
    /// returns whether the socket was empty before that.
    #[inline]
    fn drain(
        &mut self,
        (socket, to_all): (BorrowedFd<'_>, bool),
        limit: usize,
        count: &mut usize,
        on_datagram: &mut impl FnMut(Arrival<'_>),
    ) -> Result<bool, PortError> {
        while *count < limit {
            let received = if self.has_control {
                message::receive(socket, &mut self.buffer, &mut self.control)
            } else {
                message::receive_plain(socket, &mut self.buffer).map(|length| (length, Notes::default()))
            };
            match received {
                Ok((length, notes)) => *count += notes.hand_out(&self.buffer[..length], to_all, on_datagram),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(true),
                // Something may be behind it, which the next receive will find.
                Err(error) if is_passing_receive(&error) => return Ok(false),
                Err(source) => return Err(PortError::Io { doing: "receiving", source }),
            }
        }
        Ok(false)
    }
}

/// Whether receiving may just be tried again after `error`.
pub(crate) fn is_passing_receive(error: &io::Error) -> bool {
    is_passing(error) || matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOBUFS | libc::ENOMEM))
}

impl fmt::Debug for SocketReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketReceiver").field("drains", &self.drains).field("turn", &self.turn).finish_non_exhaustive()
    }
}
