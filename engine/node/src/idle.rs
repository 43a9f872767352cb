//! What a thread does between two rounds that found no work.
//!
//! Looking again at once costs a whole core and starves threads that share it; sleeping costs a wake-up, some
//! microseconds to tens of them, on the next message. Neither is right everywhere, so it is chosen: [`IdleStrategy`]. A
//! thread reports to its [`Idler`] how much work each round did; the idler decides what to do about none.
//!
//! Invariant: work puts every strategy back to its most wakeful step, so that a burst is met by a thread that is awake.
//!
//! Source: Agrona's idle strategies, driven by the work count; the steps of `Backoff` are `crossbeam_utils::Backoff`'s.

use crate::config::IdleStrategy;
use crossbeam_utils::Backoff;
use std::time::Duration;

/// The first sleep of a thread that backs off: near the shortest that a timer gives.
const SLEEP_MIN: Duration = Duration::from_micros(1);
/// The last: bounds how late such a thread sees what does not wake it.
const SLEEP_MAX: Duration = Duration::from_millis(1);
/// How long a parked thread sleeps if nothing is due: only a bound, since all that it waits for wakes it.
const PARK_MAX: Duration = Duration::from_millis(100);

/// Turns work counts into spinning, yielding and sleeping.
///
/// ```
/// # use bourdon::*;
/// # fn show(node: &mut InlineNode) -> Result<(), error::PortError> {
/// use bourdon::settings::IdleStrategy;
/// use bourdon::time::Idler;
///
/// let mut idler = Idler::new(IdleStrategy::Backoff);
/// loop {
///     let done = node.poll(64, |delivery| println!("{delivery}"))?;
///     idler.idle(done, |longest| node.wait(longest))?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Idler {
    strategy: IdleStrategy,
    backoff: Backoff,
    sleep: Duration,
}

impl Idler {
    /// An idler that has just worked.
    pub fn new(strategy: IdleStrategy) -> Self {
        Self { strategy, backoff: Backoff::new(), sleep: SLEEP_MIN }
    }

    /// Call once a round with what the round did. `sleep` sleeps at most so long and comes back early when there is
    /// work; it is called only by strategies that sleep.
    ///
    /// # Errors
    /// What `sleep` returns.
    #[inline]
    pub fn idle<E>(&mut self, work_count: usize, sleep: impl FnOnce(Duration) -> Result<(), E>) -> Result<(), E> {
        if work_count > 0 {
            if self.strategy == IdleStrategy::Backoff {
                self.backoff.reset();
                self.sleep = SLEEP_MIN;
            }
            return Ok(());
        }
        match self.strategy {
            IdleStrategy::Spin => std::hint::spin_loop(),
            IdleStrategy::Yield => std::thread::yield_now(),
            IdleStrategy::Backoff if !self.backoff.is_completed() => self.backoff.snooze(),
            IdleStrategy::Backoff => {
                let longest = self.sleep;
                self.sleep = (2 * longest).min(SLEEP_MAX);
                return sleep(longest);
            }
            IdleStrategy::Park | IdleStrategy::Auto => return sleep(PARK_MAX),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sleeps of `rounds` rounds without work.
    fn sleeps(idler: &mut Idler, rounds: usize) -> Vec<Duration> {
        let mut slept = Vec::new();
        for _ in 0..rounds {
            let done: Result<(), ()> = idler.idle(0, |longest| {
                slept.push(longest);
                Ok(())
            });
            done.expect("this sleep does not fail");
        }
        slept
    }

    #[test]
    fn spinning_and_yielding_never_sleep() {
        for strategy in [IdleStrategy::Spin, IdleStrategy::Yield] {
            assert!(sleeps(&mut Idler::new(strategy), 1000).is_empty());
        }
    }

    #[test]
    fn parking_sleeps_at_once_and_work_keeps_awake() {
        let mut idler = Idler::new(IdleStrategy::Park);
        assert_eq!(sleeps(&mut idler, 2), [PARK_MAX; 2]);
        idler.idle(1, |_| -> Result<(), ()> { panic!("slept although there was work") }).expect("it did not sleep");
    }

    #[test]
    fn backing_off_sleeps_ever_longer_and_restarts_after_work() {
        let mut idler = Idler::new(IdleStrategy::Backoff);
        let slept = sleeps(&mut idler, 100);
        assert_eq!(slept[..3], [1, 2, 4].map(Duration::from_micros));
        assert_eq!(slept.last(), Some(&SLEEP_MAX));
        let spun = 100 - slept.len();
        idler.idle(1, |_| Ok::<_, ()>(())).expect("work does not sleep");
        assert_eq!(sleeps(&mut idler, spun + 1), [SLEEP_MIN]);
    }
}
