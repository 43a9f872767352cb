//! Receives through `io_uring`: one request per socket goes on receiving, and one system call sleeps for everything.
//!
//! With `epoll` a thread that wakes learns only that there is something and still has to fetch it, call by call. Here
//! the kernel puts packets into buffers lent to it (`buffers.rs`) and notes each in a queue shared with this thread.
//!
//! The naive ring interrupts its thread for every packet. With `SINGLE_ISSUER` and `DEFER_TASKRUN` the kernel instead
//! leaves the work until the thread asks for it, and sets a flag in shared memory when there is some: an empty
//! receive is two loads and no system call.
//!
//! Invariants:
//! - Each of the requests (group, unicast, broadcast, waker) is either with the kernel or armed again before the next
//!   call: they end when buffers run out or the kernel sees fit, and nothing is lost then, because packets wait in the
//!   socket.
//! - The sockets have buffers of their own, so that a busy group leaves the unicast socket its share.
//! - A wake seen while receiving is kept for the next wait.
//! - The ring is enabled by the thread that first uses it, which is the only one the kernel then lets in.
//!
//! Source: io_uring_setup(2), `io_uring_prep_recvmsg_multishot`(3), `io_uring_register_sync_cancel`(3).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use bourdon_port::{Arrival, PortError, Waker};
use io_uring::types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

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

/// `IORING_ENTER_GETEVENTS`: run the work that was left for later.
const ENTER_GETEVENTS: u32 = 1;

/// Waits are cut to this, which the kernel's clock can count; a wait may return early.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long a ring that ends waits for its requests to end, in steps.
const CANCEL_STEP: Duration = Duration::from_millis(10);
const CANCEL_STEPS_MAX: u32 = 100;

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
    ring: IoUring,
    buffers: [Buffers; 3],
    /// Boxed, since the kernel receives its address.
    template: Box<MessageTemplate>,
    armed: [bool; REQUESTS],
    is_enabled: bool,
    /// A wake was seen that no wait has returned for.
    is_woken: bool,
}

impl Ring {
    /// Makes a ring, disabled until its first use.
    pub(crate) fn open() -> Result<Self, PortError> {
        let refused = |step: &'static str| {
            move |error: io::Error| PortError::Unavailable { mechanism: "io_uring", why: explain(step, &error) }
        };
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(SUBMISSIONS)
            .map_err(refused("io_uring_setup"))?;
        let params = ring.params();
        if !(params.is_feature_ext_arg() && params.is_feature_nodrop() && params.is_feature_submit_stable()) {
            let why = "the kernel lacks waits with a timeout (Linux 5.11)".to_owned();
            return Err(PortError::Unavailable { mechanism: "io_uring", why });
        }
        let buffers = [
            Buffers::register(&ring, GROUP as u16, GROUP_BUFFERS).map_err(refused("io_uring_register"))?,
            Buffers::register(&ring, UNICAST as u16, UNICAST_BUFFERS).map_err(refused("io_uring_register"))?,
            Buffers::register(&ring, BROADCAST as u16, BROADCAST_BUFFERS).map_err(refused("io_uring_register"))?,
        ];
        // A disabled ring can't be entered yet: EBADFD. Any other answer means that entering is forbidden.
        // SAFETY: no argument is passed, so there is none to be valid.
        match unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) } {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {}
            Err(error) => return Err(refused("io_uring_enter")(error)),
            Ok(_) => unreachable!("a disabled ring can't be entered"),
        }
        // SAFETY: msghdr is plain C data for which all zeroes is a valid value.
        let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
        template.msg_controllen = CONTROL_BYTES;
        Ok(Self {
            ring,
            buffers,
            template: Box::new(MessageTemplate(template)),
            armed: [false; REQUESTS],
            is_enabled: false,
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
            let (submission, has_work) = {
                let queue = self.ring.submission();
                (queue.len() as u32, queue.taskrun() || queue.cq_overflow())
            };
            if submission == 0 && !has_work {
                return Ok(count);
            }
            // SAFETY: no argument is passed, so there is none to be valid.
            match unsafe { self.ring.submitter().enter::<libc::sigset_t>(submission, 0, ENTER_GETEVENTS, None) } {
                Ok(_) => {}
                Err(error) if is_passing_enter(&error) => {}
                Err(source) => return Err(entering(source)),
            }
            if self.ring.completion().is_empty() {
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
        let timeout = Timespec::from(timeout.min(WAIT_MAX));
        match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_passing_enter(&error) => Ok(()),
            Err(source) => Err(entering(source)),
        }
    }

    /// Queues the requests that are not with the kernel; the next call submits them.
    fn arm(&mut self, sockets: &Sockets, waker: &Waker) -> Result<(), PortError> {
        // Where there is no broadcast socket there is nothing to arm.
        let broadcast = sockets.broadcast();
        let wanted = [true, true, broadcast.is_some(), true];
        if self.armed == wanted {
            return Ok(());
        }
        if !self.is_enabled {
            self.ring.submitter().register_enable_rings().map_err(entering)?;
            self.is_enabled = true;
        }
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

    /// Ends all requests, so that they keep no socket open beyond the port's own end. The kernel would do it too, but
    /// some time after the ring is closed, and until then the address stays in use.
    fn cancel(&mut self) {
        if !self.is_enabled || self.ring.submitter().register_sync_cancel(None, CancelBuilder::any()).is_err() {
            return; // nothing was armed, or this is not the ring's thread: then the kernel clears up by itself
        }
        for _ in 0..CANCEL_STEPS_MAX {
            for completion in self.ring.completion() {
                self.armed[completion.user_data() as usize] &= cqueue::more(completion.flags());
            }
            if self.armed == [false; REQUESTS] {
                return;
            }
            let step = Timespec::from(CANCEL_STEP);
            match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&step)) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_passing_enter(&error) => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("armed", &self.armed).field("is_woken", &self.is_woken).finish_non_exhaustive()
    }
}

/// EBUSY and EAGAIN ask to reap completions first, which comes next anyway.
fn is_passing_enter(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

fn entering(source: io::Error) -> PortError {
    let doing = if source.raw_os_error() == Some(libc::EEXIST) {
        "using a parked port from another thread than the first"
    } else {
        "entering the io_uring"
    };
    PortError::Io { doing, source }
}

/// Returns what a refusal means, and what would help.
fn explain(step: &str, error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has none, or a seccomp filter hides it",
        Some(libc::EPERM | libc::EACCES) => {
            "it is forbidden by `sysctl kernel.io_uring_disabled`, or by a seccomp filter as containers have"
        }
        Some(libc::EINVAL) => "it takes Linux 6.1",
        Some(libc::ENOMEM) => "it takes more locked memory (`ulimit -l`)",
        Some(libc::EMFILE | libc::ENFILE) => "no file descriptors are left (`ulimit -n`)",
        _ => "the kernel refuses",
    };
    format!("{step}: {error}: {hint}")
}
