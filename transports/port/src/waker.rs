//! Wakes a thread that sleeps in [`Port::wait`](crate::Port::wait).
//!
//! An eventfd, because both `epoll` and `io_uring` can sleep on one, and a wake that comes before the sleep is not
//! lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Ends the wait of a node or of a port; cheap to clone, may be used from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new waker that no thread waits on yet.
    pub fn new() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends the wait that is under way, or else the next one.
    pub fn wake(&self) {
        // A full counter (EAGAIN) means that a wake is already pending, which is all that was wanted.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Whether both wake the same wait.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Takes back all wakes so far; the port calls it when it has been woken.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.0, &mut count);
    }
}

/// Wakes a thread of another process, which gave this eventfd.
impl From<OwnedFd> for Waker {
    fn from(eventfd: OwnedFd) -> Self {
        Self(Arc::new(eventfd))
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
