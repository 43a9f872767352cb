//! What every port over `io_uring` sets up and waits in alike.
//!
//! The naive ring interrupts its thread for every packet. With `SINGLE_ISSUER` and `DEFER_TASKRUN` the kernel instead
//! leaves the work until the thread asks for it, and sets a flag in shared memory when there is some: a check
//! that finds no work costs two loads and no system call.
//!
//! A container or an old kernel may forbid any of the calls that a ring needs, and a port that finds this out while it
//! receives can't fall back any more. So [`Uring::open`] tries them all, and returns which one is refused and what
//! helps.
//!
//! A thread that sleeps for several rings can't sleep in the kernel's own wait for one of them, and the kernel wakes no
//! `poll`(2) of a ring's descriptor for work that it leaves for later. It does signal an eventfd that is registered for
//! that, except for what the write to another eventfd has caused: such a signal comes late or never. So a sleeper
//! watches the port's waker beside that eventfd. (All seen on Linux 6.18, by the conformance suite.)
//!
//! Invariants:
//! - A ring is disabled until [`Uring::enable`]: the kernel then accepts only the thread that called this first.
//! - What a wait or a cancellation interrupts is no error; what the kernel refuses for good is.
//!
//! Source: io_uring_setup(2), io_uring_enter(2), `io_uring_register_sync_cancel`(3).

use crate::sleep::watch;
use crate::{PortError, Sleep, Waker};
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, Probe, SubmissionQueue};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// `IORING_ENTER_GETEVENTS`: run the work that was left for later.
const ENTER_GETEVENTS: u32 = 1;
/// Waits are cut to this, which the kernel's clock can count; a wait may return early.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How long a ring that ends waits for its requests to end, in steps.
const CANCEL_STEP: Duration = Duration::from_millis(10);
const CANCEL_STEPS_MAX: u32 = 100;

/// A ring of the thread that uses it first.
pub struct Uring {
    ring: IoUring,
    is_enabled: bool,
    /// From the first [`Uring::sleeper`] on: a ring that never sleeps beside others does not pay for the signals.
    signals: Option<Signals>,
}

/// What a thread sleeps on that does not sleep in the ring.
struct Signals {
    /// The kernel signals it when there is work.
    work: Waker,
    /// Watches that and the port's waker.
    either: OwnedFd,
}

impl Uring {
    /// Makes a ring for so many requests between two calls and so many completions, disabled until its first use; what
    /// does not fit the completions is kept by the kernel.
    ///
    /// # Errors
    /// [`PortError::Unavailable`] with the reason, if the kernel lacks or forbids it.
    pub fn open(submissions: u32, completions: u32) -> Result<Self, PortError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .setup_cqsize(completions)
            .dontfork()
            .build(submissions)
            .map_err(refused("io_uring_setup"))?;
        let params = ring.params();
        if !(params.is_feature_ext_arg() && params.is_feature_nodrop() && params.is_feature_submit_stable()) {
            let why = "the kernel lacks waits with a timeout (Linux 5.11)".to_owned();
            return Err(PortError::Unavailable { mechanism: "io_uring", why });
        }
        // A disabled ring can't be entered yet: EBADFD. Any other answer means that entering is forbidden.
        // SAFETY: no argument is passed, so there is none to be valid.
        match unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) } {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {}
            Err(error) => return Err(refused("io_uring_enter")(error)),
            Ok(_) => unreachable!("a disabled ring can't be entered"),
        }
        ring.submitter().register_probe(&mut Probe::new()).map_err(refused("io_uring_register"))?;
        Ok(Self { ring, is_enabled: false, signals: None })
    }

    /// The ring itself, to register what it shares with the kernel.
    pub fn inner(&self) -> &IoUring {
        &self.ring
    }

    /// Lets this thread use it, and no other from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    #[inline]
    pub fn enable(&mut self) -> Result<(), PortError> {
        if !self.is_enabled {
            self.ring.submitter().register_enable_rings().map_err(entering)?;
            self.is_enabled = true;
        }
        Ok(())
    }

    /// Requests that the next call submits.
    #[inline]
    pub fn submission(&mut self) -> SubmissionQueue<'_> {
        self.ring.submission()
    }

    /// What has completed.
    #[inline]
    pub fn completion(&mut self) -> CompletionQueue<'_> {
        self.ring.completion()
    }

    /// Submits what is queued and runs the work that the kernel left for later. Returns whether there was any; then
    /// there may be completions.
    ///
    /// # Errors
    /// If the kernel refuses, or another thread has used the ring before.
    #[inline]
    pub fn run(&mut self) -> Result<bool, PortError> {
        let (submissions, has_work) = {
            let queue = self.ring.submission();
            (queue.len() as u32, queue.taskrun() || queue.cq_overflow())
        };
        if submissions == 0 && !has_work {
            return Ok(false);
        }
        // SAFETY: no argument is passed, so there is none to be valid.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(submissions, 0, ENTER_GETEVENTS, None) } {
            Err(source) if !is_passing(&source) => Err(entering(source)),
            _ => Ok(true),
        }
    }

    /// Submits what is queued and sleeps until something has completed, or for so long.
    ///
    /// # Errors
    /// As [`Uring::run`].
    pub fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        let timeout = Timespec::from(timeout.min(WAIT_MAX));
        match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) && !is_passing(&error) => Err(entering(error)),
            _ => Ok(()),
        }
    }

    /// Submits what is queued, and prepares a sleep until something has completed or `waker` was woken; none if
    /// something has completed. The same waker is to be given each time.
    ///
    /// # Errors
    /// As [`Uring::run`].
    pub fn sleeper(&mut self, waker: &Waker, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        let signals = match self.signals.take() {
            Some(signals) => signals,
            None => {
                let work = Waker::new().map_err(|source| PortError::Io { doing: "creating an eventfd", source })?;
                let either = watch([work.as_fd(), waker.as_fd()])?;
                self.ring.submitter().register_eventfd(work.as_fd().as_raw_fd()).map_err(entering)?;
                Signals { work, either }
            }
        };
        signals.work.clear();
        self.signals = Some(signals);
        // After the signals so far were taken back: work that comes from now on signals again.
        self.run()?;
        let may_sleep = self.ring.completion().is_empty();
        let signals = self.signals.as_ref().filter(|_| may_sleep);
        Ok(signals.map(|signals| Sleep { readable: signals.either.as_fd(), longest }))
    }

    /// Cancels all requests; take their completions while [`Cancellation::step`] returns true. The kernel would cancel
    /// them too, but some time after the ring is closed, and until then they keep their sockets open.
    pub fn cancel(&mut self) -> Cancellation {
        // Without a first use nothing was requested; on another thread than the ring's the kernel clears up by itself.
        let is_due = self.is_enabled && self.ring.submitter().register_sync_cancel(None, CancelBuilder::any()).is_ok();
        Cancellation { steps_left: if is_due { CANCEL_STEPS_MAX } else { 0 } }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("is_enabled", &self.is_enabled).finish_non_exhaustive()
    }
}

/// A ring that waits for its requests to end.
#[derive(Debug)]
pub struct Cancellation {
    steps_left: u32,
}

impl Cancellation {
    /// Waits until something has completed, for a step at most. Returns false if no more is to be waited for.
    pub fn step(&mut self, ring: &mut Uring) -> bool {
        let may_wait = self.steps_left > 0;
        self.steps_left = self.steps_left.saturating_sub(1);
        may_wait && ring.wait(CANCEL_STEP).is_ok()
    }
}

/// EBUSY and EAGAIN ask to reap completions first, which comes next anyway.
fn is_passing(error: &io::Error) -> bool {
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

/// The error for a step of the set-up that the kernel refuses: what that means, and what would help.
pub fn refused(step: &'static str) -> impl Fn(io::Error) -> PortError {
    move |error| {
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
        PortError::Unavailable { mechanism: "io_uring", why: format!("{step}: {error}: {hint}") }
    }
}
