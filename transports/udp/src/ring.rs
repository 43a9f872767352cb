//! Receives through `io_uring`: one request per socket goes on receiving, and one system call sleeps for everything.
//!
//! With `epoll` a thread that wakes learns only that there is something and still has to fetch it, call by call. Here
//! the kernel puts packets into buffers lent to it (`buffers.rs`) and notes each in a queue shared with this thread.
//! The ring itself is [`bourdon_port::uring`].
//!
//! Invariants:
//! - Each of the requests (group, unicast, broadcast, waker) is either with the kernel or armed again before the next
//!   call: they end when buffers run out or the kernel sees fit, and nothing is lost then, because packets wait in the
//!   socket.
//! - The sockets have buffers of their own, so that a busy group leaves the unicast socket its share.
//! - A wake seen while receiving is kept for the next wait.
//!
//! Source: `io_uring_prep_recvmsg_multishot`(3).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use bourdon_port::uring::{Uring, refused};
use bourdon_port::{Arrival, PortError, Sleep, Waker};
use io_uring::types::{Fd, RecvMsgOut};
use io_uring::{cqueue, opcode};

use crate::buffers::Buffers;
use crate::message::{CONTROL_BYTES, Notes};
use crate::receive::is_passing_receive;
use crate::sockets::Sockets;

/// Buffers for the group: what one system call can hand over is 16 packets of 64 KiB, which fit the second-level cache.
const GROUP_BUFFERS: u16 = 16;
/// Buffers for unicast traffic: repairs and control, never the bulk.
const UNICAST_BUFFERS: u16 = 4;
/// Buffers for broadcasts, which are rare.
const BROADCAST_BUFFERS: u16 = 2;
/// Four requests are all there ever are.
const SUBMISSIONS: u32 = 4;
/// A completion for each buffer, and some for wakes; what does not fit is kept by the kernel.
const COMPLETIONS: u32 = 64;

/// The requests; also their places in `armed`, their `user_data`, and for the sockets their buffer group.
const GROUP: usize = 0;
const UNICAST: usize = 1;
const BROADCAST: usize = 2;
const WAKE: usize = 3;
const REQUESTS: usize = 4;

/// What the kernel reads when a receive is set up: no name wanted, room for control messages. All pointers are null.
struct MessageTemplate(libc::msghdr);

// SAFETY: the pointers are null, so nothing is shared through them.
unsafe impl Send for MessageTemplate {}

/// A ring and the buffers lent to it.
pub(crate) struct Ring {
    // Before the buffers: fields are dropped in order, and the ring must end first.
    ring: Uring,
    buffers: [Buffers; 3],
    /// Boxed, since the kernel receives its address.
    template: Box<MessageTemplate>,
    armed: [bool; REQUESTS],
    /// A wake was seen that no wait has returned for.
    is_woken: bool,
}

impl Ring {
    /// Makes a ring, disabled until its first use.
    pub(crate) fn open() -> Result<Self, PortError> {
        let ring = Uring::open(SUBMISSIONS, COMPLETIONS)?;
        let lend = |request, count| {
            Buffers::register(ring.inner(), request as u16, count).map_err(refused("io_uring_register"))
        };
        let buffers =
            [lend(GROUP, GROUP_BUFFERS)?, lend(UNICAST, UNICAST_BUFFERS)?, lend(BROADCAST, BROADCAST_BUFFERS)?];
        // SAFETY: msghdr is plain C data for which all zeroes is a valid value.
        let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
        template.msg_controllen = CONTROL_BYTES;
        Ok(Self {
            ring,
            buffers,
            template: Box::new(MessageTemplate(template)),
            armed: [false; REQUESTS],
            is_woken: false,
        })
    }

    /// As [`Port::receive`](bourdon_port::Port::receive).
    pub(crate) fn receive(
        &mut self,
        sockets: &Sockets,
        waker: &Waker,
        limit: usize,
        mut on_datagram: impl FnMut(Arrival<'_>),
    ) -> Result<usize, PortError> {
        let mut count = 0;
        loop {
            self.reap(limit, &mut count, &mut on_datagram)?;
            if count >= limit {
                return Ok(count);
            }
            self.arm(sockets, waker)?;
            if !self.ring.run()? || self.ring.completion().is_empty() {
                return Ok(count);
            }
        }
    }

    /// As [`Port::wait`](bourdon_port::Port::wait).
    pub(crate) fn wait(&mut self, sockets: &Sockets, waker: &Waker, timeout: Duration) -> Result<(), PortError> {
        if self.is_woken {
            self.is_woken = false;
            waker.clear();
            return Ok(());
        }
        if !self.ring.completion().is_empty() {
            return Ok(());
        }
        self.arm(sockets, waker)?;
        self.ring.wait(timeout)
    }

    /// As [`Port::sleeper`](bourdon_port::Port::sleeper).
    pub(crate) fn sleeper(
        &mut self,
        sockets: &Sockets,
        waker: &Waker,
        longest: Duration,
    ) -> Result<Option<Sleep<'_>>, PortError> {
        if self.is_woken || !self.ring.completion().is_empty() {
            return Ok(None);
        }
        self.arm(sockets, waker)?;
        self.ring.sleeper(waker, longest)
    }

    /// Queues the requests that are not with the kernel; the next call submits them.
    fn arm(&mut self, sockets: &Sockets, waker: &Waker) -> Result<(), PortError> {
        // Where there is no broadcast socket there is nothing to arm.
        let broadcast = sockets.broadcast();
        let wanted = [true, true, broadcast.is_some(), true];
        if self.armed == wanted {
            return Ok(());
        }
        self.ring.enable()?;
        let template: *const libc::msghdr = &self.template.0;
        let receive = |socket: Fd, request: usize| {
            opcode::RecvMsgMulti::new(socket, template, request as u16).build().user_data(request as u64)
        };
        let entries = [
            receive(Fd(sockets.group().as_raw_fd()), GROUP),
            receive(Fd(sockets.unicast().as_raw_fd()), UNICAST),
            receive(Fd(broadcast.unwrap_or(sockets.unicast()).as_raw_fd()), BROADCAST),
            opcode::PollAdd::new(Fd(waker.as_fd().as_raw_fd()), libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(WAKE as u64),
        ];
        let mut queue = self.ring.submission();
        for ((entry, armed), wanted) in entries.iter().zip(&mut self.armed).zip(wanted) {
            if wanted && !*armed {
                // SAFETY: the template lives, unmoved, as long as the ring; the sockets and the waker are open as long
                // as the port, and a request on a closed one fails without harm.
                unsafe { queue.push(entry) }.expect("the queue holds all requests");
                *armed = true;
            }
        }
        Ok(())
    }

    /// Handles the completions that are there until `count` is `limit`.
    fn reap(
        &mut self,
        limit: usize,
        count: &mut usize,
        on_datagram: &mut impl FnMut(Arrival<'_>),
    ) -> Result<(), PortError> {
        while *count < limit {
            let Some(completion) = self.ring.completion().next() else { return Ok(()) };
            let request = completion.user_data() as usize;
            self.armed[request] &= cqueue::more(completion.flags());
            match usize::try_from(completion.result()) {
                Ok(_) if request == WAKE => self.is_woken = true,
                Ok(length) => {
                    let id = cqueue::buffer_select(completion.flags()).expect("a receive that worked used a buffer");
                    let buffers = &mut self.buffers[request];
                    if let Ok(packet) = RecvMsgOut::parse(buffers.filled(id, length), &self.template.0) {
                        let notes = Notes::parse(packet.control_data());
                        *count += notes.hand_out(packet.payload_data(), request != UNICAST, on_datagram);
                    }
                    buffers.lend(id);
                }
                Err(_) => {
                    let error = io::Error::from_raw_os_error(-completion.result());
                    // ENOBUFS: all buffers are in use, for now. ECANCELED: the thread that armed it has ended.
                    let is_passing = is_passing_receive(&error)
                        || matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ECANCELED));
                    if !is_passing {
                        return Err(PortError::Io { doing: "receiving", source: error });
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    /// Ends all requests, so that they keep no socket open beyond the port's own end.
    fn drop(&mut self) {
        let mut cancellation = self.ring.cancel();
        while self.armed != [false; REQUESTS] && cancellation.step(&mut self.ring) {
            for completion in self.ring.completion() {
                self.armed[completion.user_data() as usize] &= cqueue::more(completion.flags());
            }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("armed", &self.armed).field("is_woken", &self.is_woken).finish_non_exhaustive()
    }
}
