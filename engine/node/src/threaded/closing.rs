//! How a group is asked to end, and until when it goes on.
//!
//! A node that is dropped, or stopped on its admin socket, ends within `threads.drop_timeout_ns` and leaves its view to
//! the detectors. A node that is closed has the time that its caller gives it, and leaves its view in agreement with
//! the other members. The caller can't wait for room in a mailbox to ask for either, so a request is a value that is
//! set once, and a flag.

use crate::close::until;
use crate::deadline::Deadline;
use bourdon_ring::signal::Flag;
use bourdon_wire::Instant;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// By which a group is asked to end; a clone is the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: Flag,
    /// It is asked in a callback on the control thread, which waits for the end.
    in_callback: Flag,
    request: Arc<OnceLock<Request>>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    deadline: Deadline,
    leaves: bool,
    /// The caller is handed the report.
    is_reported: bool,
}

impl Stop {
    /// Asks the group to end within its own bound.
    pub(crate) fn stop(&self) {
        self.asked.set();
    }

    /// The control thread will ask, and do nothing more for the group: it can't agree on the next view.
    pub(crate) fn begin_in_callback(&self) {
        self.in_callback.set();
    }

    /// Asks the group to end by this deadline, and to leave its view before if it can.
    pub(crate) fn close(&self, deadline: Deadline) {
        self.request(Request { deadline, leaves: !self.in_callback.is_set(), is_reported: true });
    }

    /// Asks the group to end at once.
    pub(crate) fn abort(&self) {
        self.request(Request { deadline: Duration::ZERO.into(), leaves: false, is_reported: false });
    }

    fn request(&self, request: Request) {
        let _ = self.request.set(request); // the first one holds
        self.asked.set();
    }

    /// Whether the group was asked to end.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.asked.is_set()
    }
}

/// The end of a group, at its agent.
#[derive(Debug)]
pub(crate) struct Closing {
    stop: Stop,
    drop_timeout_ns: u64,
    /// Until when it goes on, once it has seen that it is to end.
    until: Option<Instant>,
    /// What it has seen of the request: its time is that of the request.
    request: Option<Request>,
    /// Whether it has asked the other members to go on without it.
    pub(crate) has_asked: bool,
}

impl Closing {
    pub(crate) fn new(stop: Stop, drop_timeout_ns: u64) -> Self {
        Self { stop, drop_timeout_ns, until: None, request: None, has_asked: false }
    }

    /// Until when the group goes on, if it is to end.
    #[inline]
    pub(crate) fn until(&mut self, now: Instant) -> Option<Instant> {
        if self.stop.is_set() { Some(self.look(now)) } else { None }
    }

    #[cold]
    fn look(&mut self, now: Instant) -> Instant {
        if let Some(request) = self.stop.request.get().filter(|_| self.request.is_none()) {
            self.request = Some(*request); // it may have been stopped before
            self.until = Some(until(now, request.deadline));
        }
        *self.until.get_or_insert(now + self.drop_timeout_ns)
    }

    /// Whether the group is to end.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it was asked to end, and has not seen it.
    #[inline]
    pub(crate) fn is_news(&self) -> bool {
        self.stop.is_set() && !self.has_begun()
    }

    /// Whether it is to leave its view.
    pub(crate) fn leaves(&self) -> bool {
        self.request.is_some_and(|request| request.leaves)
    }

    /// Whether its report is handed to a caller.
    pub(crate) fn is_reported(&self) -> bool {
        self.request.is_some_and(|request| request.is_reported)
    }

    /// Whether its control thread waits for its end, in a callback.
    pub(crate) fn is_in_callback(&self) -> bool {
        self.stop.in_callback.is_set()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_group_that_is_closed_after_it_was_stopped_has_the_time_of_the_close() {
        let stop = Stop::default();
        let mut closing = Closing::new(stop.clone(), 100);
        assert_eq!((closing.until(Instant(1_000)), closing.has_begun()), (None, false));
        stop.stop();
        assert!(closing.is_news());
        assert_eq!(closing.until(Instant(1_000)), Some(Instant(1_100)));
        assert_eq!(closing.until(Instant(1_050)), Some(Instant(1_100)), "the bound does not move");
        assert!(closing.has_begun() && !closing.is_news() && !closing.leaves());
        stop.close(Deadline::NEVER);
        stop.close(Duration::ZERO.into());
        assert_eq!(closing.until(Instant(1_060)), Some(Instant::NEVER));
        assert!(closing.leaves() && closing.is_reported() && !closing.is_in_callback());
    }

    #[test]
    fn a_close_in_a_callback_has_its_deadline_and_an_abort_none() {
        let stop = Stop::default();
        let mut closing = Closing::new(stop.clone(), 100);
        stop.begin_in_callback();
        stop.close(Deadline::NEVER);
        assert_eq!(closing.until(Instant(1_000)), Some(Instant::NEVER));
        assert!(!closing.leaves() && closing.is_reported() && closing.is_in_callback());

        let stop = Stop::default();
        let mut closing = Closing::new(stop.clone(), 100);
        stop.abort();
        assert_eq!(closing.until(Instant(1_000)), Some(Instant(1_000)));
        assert!(!closing.leaves() && !closing.is_reported(), "it warns");
    }
}
