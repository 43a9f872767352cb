//! How groups and threads end, and report it.

use crate::close::CloseReport;
pub(crate) use crate::closed::WhyClosed;
use crate::node_error::Error;
use bourdon_port::Waker;
use bourdon_ring::signal::Flag;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// By which a group's handle learns how the group has ended; it waits until all clones are gone.
pub(crate) type Outcome = SyncSender<Result<CloseReport, Error>>;

/// Reports that a group has ended, however it ends.
pub(crate) struct End {
    ended: Flag,
    pub(crate) closed: WhyClosed,
    wakers: Vec<Waker>,
    pub(crate) outcome: Outcome,
}

impl End {
    /// At the end `ended` is set and `wakers` are woken. The reason is set and the outcome sent before, unless the
    /// thread panics.
    pub(crate) fn new(ended: Flag, closed: WhyClosed, wakers: Vec<Waker>, outcome: Outcome) -> Self {
        Self { ended, closed, wakers, outcome }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.ended.set();
        self.wakers.iter().for_each(Waker::wake);
    }
}

/// Wakes a thread once all that stands before it in its owner has been dropped.
pub(crate) struct WakesAtEnd(pub(crate) Waker);

impl Drop for WakesAtEnd {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// Waits for the end of a thread, unless it is the one that waits: then it ends by itself. Its panic is reported once.
pub(crate) fn join(thread: &Mutex<Option<JoinHandle<()>>>) -> std::thread::Result<()> {
    let handle = lock(thread).take().filter(|handle| handle.thread().id() != std::thread::current().id());
    handle.map_or(Ok(()), JoinHandle::join)
}

/// What a thread that panicked has left is whole: these hold no lock while they call anything that may panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
