//! Receives from all connections through one `io_uring`, and sleeps in it for everything else.
//!
//! With `epoll` a thread that wakes learns only where there is something and fetches it call by call. Here each
//! connection has one receive under way, straight into the buffer that datagrams are handed out of; accepting, the
//! waker, and connections that take no more are requests of the same ring, so that one system call submits, sleeps and
//! collects for all of them. The ring itself is [`bourdon_port::uring`], as in `bourdon-udp`.
//!
//! Buffers lent by a shared ring and one receive that goes on for ever were the alternative. They would copy each byte
//! once more, since a stream's datagrams must be put together from its own buffers, and one busy peer could hold them
//! all. A receive that is made again costs no system call of its own: it goes with the next wait.
//!
//! Sending is a plain call: it copies into the socket, and a ring would save its 0.15 µs of some 5. The ring reports
//! when a full socket takes more.
//!
//! Connections are accepted by plain calls. A request on the listener would keep it open after its process was killed,
//! until the kernel ends the ring, seconds later on a busy host, and the next incarnation could not listen. So the ring
//! watches an `epoll` that watches the listener, which keeps no listener open.
//!
//! Invariants:
//! - A buffer is lent (`is_lent`) from the push of its request to the completion; its connection stays in its place.
//! - A broken connection's requests are cancelled once, and it is freed when both have completed.
//! - A wake seen while receiving is kept for the next wait.
//!
//! Source: `epoll_ctl`(2), `io_uring_prep_cancel_fd`(3).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bourdon_port::uring::Uring;
use bourdon_port::{PortError, Sleep, Waker, watch};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};

use crate::connection::Connection;
use crate::mesh::Mesh;
use crate::socket::is_interrupted;

/// Requests queued between two calls; more wait for the call after the next.
const SUBMISSIONS: u32 = 256;
/// What does not fit is kept by the kernel.
const COMPLETIONS: u32 = 1024;
/// How long no connection is accepted once there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a request is for; `user_data` has the connection's place above it.
const LISTEN: u64 = 0;
const WAKE: u64 = 1;
const RECEIVE: u64 = 2;
const WRITABLE: u64 = 3;
const CANCEL: u64 = 4;
const KIND_BITS: u32 = 3;

pub(crate) struct Ring {
    ring: Uring,
    /// Watches the listener.
    listening: OwnedFd,
    is_listening: bool,
    /// A process may have connected that no completion reports again.
    pub(crate) may_accept: bool,
    /// No earlier than this.
    accept_after: Option<Instant>,
    is_waking: bool,
    pub(crate) is_woken: bool,
}

impl Ring {
    /// Makes a ring, disabled until its first use by the thread that then owns it.
    pub(crate) fn open(listener: BorrowedFd<'_>) -> Result<Self, PortError> {
        let ring = Uring::open(SUBMISSIONS, COMPLETIONS)?;
        let listening = watch([listener])?;
        let (is_listening, is_waking, is_woken) = (false, false, false);
        let (accept_after, may_accept) = (None, true);
        Ok(Self { ring, listening, is_listening, may_accept, accept_after, is_waking, is_woken })
    }

    /// Collects what has completed and requests what is wanted, waiting at most so long if there is nothing.
    /// Returns whether anything had completed.
    pub(crate) fn look(
        &mut self,
        mesh: &mut Mesh,
        waker: &Waker,
        datagram_max_bytes: usize,
        wait: Duration,
    ) -> Result<bool, PortError> {
        let mut any = self.reap(mesh)?;
        // What had no room is requested by the next look, which must not wait behind a sleep.
        any |= !self.arm(mesh, waker, datagram_max_bytes)?;
        let may_have_completed = if any || wait.is_zero() {
            self.ring.run()?
        } else {
            self.ring.wait(wait)?;
            true
        };
        if may_have_completed {
            any |= self.reap(mesh)?;
        }
        Ok(any)
    }

    /// Queues the requests that are wanted and not under way; the next call submits them. Returns whether all had room.
    fn arm(&mut self, mesh: &mut Mesh, waker: &Waker, datagram_max_bytes: usize) -> Result<bool, PortError> {
        self.ring.enable()?;
        if !self.is_listening && self.accept_after.is_none_or(|after| after <= Instant::now()) {
            let listen = opcode::PollAdd::new(Fd(self.listening.as_raw_fd()), libc::POLLIN as u32);
            self.is_listening = self.push(&listen.build().user_data(LISTEN));
        }
        if !self.is_waking {
            let wake = opcode::PollAdd::new(Fd(waker.as_fd().as_raw_fd()), libc::POLLIN as u32);
            self.is_waking = self.push(&wake.multi(true).build().user_data(WAKE));
        }
        let mut all = true;
        for place in 0..mesh.places.len() {
            let Some(connection) = mesh.places[place].as_deref_mut() else { continue };
            all &= self.arm_connection(place, connection, datagram_max_bytes);
        }
        Ok(all)
    }

    fn arm_connection(&mut self, place: usize, it: &mut Connection, max_bytes: usize) -> bool {
        let fd = Fd(it.socket.as_raw_fd());
        let data = |kind| (place as u64) << KIND_BITS | kind;
        if it.is_broken {
            if (it.is_lent || it.is_watched) && !it.is_cancelled {
                let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(fd).all());
                it.is_cancelled = self.push(&cancel.build().user_data(data(CANCEL)));
                return it.is_cancelled;
            }
            return true;
        }
        let mut all = true;
        if it.wants_bytes(max_bytes) {
            let room = it.room();
            let receive = opcode::Recv::new(fd, room.as_mut_ptr(), room.len() as u32);
            it.is_lent = self.push(&receive.build().user_data(data(RECEIVE)));
            all &= it.is_lent;
        }
        if it.has_outgoing() && !it.is_writable && !it.is_watched {
            let watch = opcode::PollAdd::new(fd, libc::POLLOUT as u32);
            it.is_watched = self.push(&watch.build().user_data(data(WRITABLE)));
            all &= it.is_watched;
        }
        all
    }

    /// Queues a request. Returns whether there was room.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: a receive's buffer is the connection's, which neither moves nor is touched nor freed before the
        // request has completed (`is_lent`; see `leak` for a ring that ends before). No other request has a buffer. A
        // descriptor that is closed makes its request fail, without harm.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Notes what has completed. Returns whether anything had.
    fn reap(&mut self, mesh: &mut Mesh) -> Result<bool, PortError> {
        let mut any = false;
        while let Some(completion) = self.ring.completion().next() {
            any = true;
            let (kind, place) = (completion.user_data() & ((1 << KIND_BITS) - 1), completion.user_data() >> KIND_BITS);
            let goes_on = cqueue::more(completion.flags());
            let result = completion.result();
            match kind {
                LISTEN => (self.is_listening, self.may_accept) = (false, true),
                WAKE => {
                    self.is_waking &= goes_on;
                    self.is_woken |= result >= 0;
                }
                CANCEL => {}
                _ => {
                    let it = mesh.places.get_mut(place as usize).and_then(Option::as_deref_mut);
                    let it = it.expect("a place is kept while the kernel has a request on it");
                    complete(it, kind, result);
                }
            }
        }
        Ok(any)
    }

    /// No more is accepted for now: none is left, or too many files are open.
    pub(crate) fn refused(&mut self, error: &io::Error) {
        self.may_accept = is_interrupted(error);
        let is_full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
        self.accept_after = is_full.then(|| Instant::now() + ACCEPT_PAUSE);
    }

    /// As [`Port::sleeper`](bourdon_port::Port::sleeper), after a look that found nothing.
    pub(crate) fn sleeper(&mut self, waker: &Waker, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        self.ring.sleeper(waker, longest)
    }

    /// Ends all requests, so that no buffer stays lent.
    pub(crate) fn cancel(&mut self, mesh: &mut Mesh) {
        let has_requests = |ring: &Self, mesh: &Mesh| {
            ring.is_listening || ring.is_waking || mesh.connections().any(|it| it.is_lent || it.is_watched)
        };
        let mut cancellation = self.ring.cancel();
        while has_requests(self, mesh) && cancellation.step(&mut self.ring) && self.reap(mesh).is_ok() {}
    }
}

fn complete(it: &mut Connection, kind: u64, result: i32) {
    if kind == WRITABLE {
        (it.is_watched, it.is_writable) = (false, true);
        return;
    }
    it.is_lent = false;
    match usize::try_from(result) {
        Ok(0) => it.is_broken = true,
        Ok(count) => it.filled(count),
        // ECANCELED: the thread that asked has ended, or the connection has.
        Err(_) => it.is_broken |= !matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ECANCELED),
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("ring", &self.ring).finish_non_exhaustive()
    }
}
