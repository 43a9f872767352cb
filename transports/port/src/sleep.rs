//! Lets one thread sleep for several ports at once.
//!
//! [`Port::wait`](crate::Port::wait) sleeps in one port: in its `epoll`, in its `io_uring`, on its waker. A thread that
//! serves several ports and waits in each in turn wakes late for all the others, or polls. Each of these mechanisms has
//! a descriptor that becomes readable when it has a report, so `poll`(2) can sleep on all of them.
//!
//! Invariants: a port that gives a [`Sleep`] has requested from the kernel all that its `wait` would request, and has
//! nothing left to hand out; nothing is lost between that and the sleep, because a descriptor stays readable until its
//! port takes the report in.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use crate::PortError;

/// What a thread sleeps on for one port, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub struct Sleep<'a> {
    /// Becomes readable when there may be something to receive, and when the port's waker was woken.
    pub readable: BorrowedFd<'a>,
    /// A port with timers of its own must be called after this time though nothing has come.
    pub longest: Duration,
}

impl Sleep<'_> {
    /// Sleeps until one of the descriptors is readable, or for the shortest of the times. It may return early for no
    /// reason. For none it returns at once.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn all(sleeps: &[Sleep<'_>]) -> Result<(), PortError> {
        let Some(longest) = sleeps.iter().map(|sleep| sleep.longest).min() else { return Ok(()) };
        let timeout = Timespec::try_from(longest).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let mut fds: Vec<_> = sleeps.iter().map(|sleep| PollFd::new(&sleep.readable, PollFlags::IN)).collect();
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(PortError::Io { doing: "sleeping on ports", source: error.into() }),
        }
    }
}

/// An `epoll` that is readable as long as one of these is: for a port that has several.
///
/// # Errors
/// If the kernel has no room for it.
pub fn watch<const N: usize>(descriptors: [BorrowedFd<'_>; N]) -> Result<OwnedFd, PortError> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC);
    let watched = set.and_then(|set| {
        for descriptor in descriptors {
            epoll::add(&set, descriptor, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(set)
    });
    watched.map_err(|error| PortError::Io { doing: "creating an epoll", source: error.into() })
}
