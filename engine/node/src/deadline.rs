//! Until when a call waits, and what ends its wait earlier.
//!
//! A call that takes a duration is wrong in a loop, which waits the whole duration again; a call that takes a point in
//! time is long to write where one call is all. So every call that waits takes a [`Deadline`], into which both turn.

use bourdon_port::Waker;
use bourdon_ring::signal::{Flag, Sleeper};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::{Duration, Instant};

/// Until when a call waits: a duration from now on, a point in time, or for ever.
///
/// ```
/// use bourdon::Deadline;
/// use std::time::{Duration, Instant};
///
/// let soon = Deadline::from(Duration::from_millis(50));
/// assert!(soon.remaining().is_some_and(|remaining| remaining <= Duration::from_millis(50)));
/// assert!(Deadline::from(Instant::now()).has_passed());
/// assert_eq!(Deadline::from(Duration::MAX), Deadline::NEVER); // no point in time is so late
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// It never passes: the call waits until it can go on, or is cancelled.
    pub const NEVER: Self = Self(None);

    /// How long it is until then: zero once it has passed, `None` for ever.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The point in time; `None` for never.
    pub(crate) fn at(self) -> Option<Instant> {
        self.0
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }
}

impl From<Duration> for Deadline {
    fn from(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Self {
        Self(Some(at))
    }
}

/// Ends the waits of a node's publications, subscriptions, requests, locks and elections, from
/// any thread: those under way return at
/// once, and so does every later one. Nothing else changes: the node runs on, and calls that do not wait work as
/// before.
///
/// [`Canceller::cancel`] only writes to memory and to a descriptor, so a signal handler may call it.
///
/// ```
/// # use bourdon::*;
/// # fn show(node: &Node) -> Result<(), Box<dyn std::error::Error>> {
/// let canceller = node.canceller();
/// std::thread::spawn(move || {
///     // once the program is asked to end:
///     canceller.cancel();
/// });
/// let mut prices = node.subscribe("md.**")?;
/// while let Some(delivery) = prices.next(Deadline::NEVER)? {
///     println!("{delivery}");
/// } // it was cancelled
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Canceller {
    cancelled: Flag,
    /// Readable from then on: every wait sleeps on it too.
    waker: Waker,
}

impl Canceller {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { cancelled: Flag::new(), waker: Waker::new()? })
    }

    /// Ends all waits.
    pub fn cancel(&self) {
        self.cancelled.set();
        self.waker.wake();
    }

    /// Whether it was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_set()
    }
}

/// Sleeps on a descriptor until it is rung, the deadline has passed or the wait is cancelled, but not if `is_over` once
/// the sleep is announced. May return early.
pub(crate) fn sleep(
    sleeper: &mut Sleeper,
    waker: &Waker,
    (deadline, canceller): (Deadline, &Canceller),
    is_over: impl FnOnce() -> bool,
) {
    sleeper.lie_down();
    // From here on every thread that changes something sees that it must ring; what changed before is seen here.
    if !is_over() {
        sleep_on(waker, deadline, canceller);
    }
    sleeper.get_up();
    waker.clear();
}

/// Sleeps until a descriptor is readable, the deadline has passed or the wait is cancelled. May return early.
pub(crate) fn sleep_on<'a>(waker: &'a Waker, deadline: Deadline, canceller: impl Into<Option<&'a Canceller>>) {
    let remaining = deadline.remaining().map(|remaining| Timespec {
        tv_sec: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: remaining.subsec_nanos().into(),
    });
    let canceller = canceller.into().map_or(waker, |canceller| &canceller.waker);
    let mut fds = [waker, canceller].map(|waker| PollFd::new(waker, PollFlags::IN));
    if poll(&mut fds, remaining.as_ref()).is_err_and(|error| error != rustix::io::Errno::INTR) {
        std::thread::yield_now(); // the kernel has no memory for it: the caller looks again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_ring::signal::doorbell;

    #[test]
    fn durations_points_in_time_and_never_are_deadlines() {
        let at = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(Deadline::from(at), Deadline(Some(at)));
        assert!(Deadline::from(Duration::ZERO).has_passed() && !Deadline::from(at).has_passed());
        assert_eq!((Deadline::NEVER.remaining(), Deadline::NEVER.has_passed()), (None, false));
        assert_eq!(Deadline::from(Duration::MAX), Deadline::NEVER);
    }

    #[test]
    fn a_sleep_ends_by_a_ring_by_what_came_before_or_by_the_deadline() {
        let ((mut sleeper, mut bell), waker) = (doorbell(), Waker::new().expect("an eventfd"));
        let canceller = Canceller::new().expect("an eventfd");
        sleep(&mut sleeper, &waker, (Deadline::NEVER, &canceller), || true);
        sleep(&mut sleeper, &waker, (Duration::from_millis(1).into(), &canceller), || false);
        let ring = |bell: &mut bourdon_ring::signal::Bell| {
            assert!(bell.must_ring());
            waker.wake();
            false
        };
        sleep(&mut sleeper, &waker, (Deadline::NEVER, &canceller), || ring(&mut bell));
        assert!(!bell.must_ring(), "it is awake");
    }

    #[test]
    fn a_canceller_ends_waits_that_are_to_come() {
        let ((mut sleeper, _bell), waker) = (doorbell(), Waker::new().expect("an eventfd"));
        let canceller = Canceller::new().expect("an eventfd");
        assert!(!canceller.is_cancelled());
        canceller.clone().cancel();
        assert!(canceller.is_cancelled());
        for _ in 0..2 {
            sleep(&mut sleeper, &waker, (Deadline::NEVER, &canceller), || false);
        }
    }
}
