//! When a process that is in no view reports that it waits.
//!
//! A member whose peers do not come prints nothing, as does one that searches at the wrong address: its user can't tell
//! a slow start from a mistake. So a wait is reported after a second, and then at intervals that double: a start that
//! takes minutes fills no log.

use bourdon_wire::Instant;

/// A usual start is over by then.
const FIRST_NS: u64 = 1_000_000_000;
/// The longest interval.
const INTERVAL_MAX_NS: u64 = 60_000_000_000;

/// A wait for a view.
#[derive(Debug, Default)]
pub(crate) struct ViewWait {
    since: Option<Instant>,
    /// How long after the beginning it is reported next.
    report_after_ns: u64,
    interval_ns: u64,
}

impl ViewWait {
    /// How long the process has waited, if that is to be reported now.
    #[inline]
    pub(crate) fn report(&mut self, now: Instant, is_waiting: bool) -> Option<u64> {
        if !is_waiting {
            self.since = None;
            return None;
        }
        let Some(since) = self.since else {
            *self = Self { since: Some(now), report_after_ns: FIRST_NS, interval_ns: FIRST_NS };
            return None;
        };
        let waited_ns = now.since(since);
        if waited_ns < self.report_after_ns {
            return None;
        }
        self.interval_ns = (2 * self.interval_ns).min(INTERVAL_MAX_NS);
        self.report_after_ns = waited_ns + self.interval_ns;
        Some(waited_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_reported_at_growing_intervals() {
        let mut wait = ViewWait::default();
        let at = |ms: u64| Instant(ms * 1_000_000);
        let reports: Vec<_> = (0..20_000).filter(|ms| wait.report(at(*ms), true).is_some()).collect();
        assert_eq!(reports, [1_000, 3_000, 7_000, 15_000]);
        // A view ends the wait; the next wait is another one.
        assert_eq!(wait.report(at(20_000), false), None);
        let reports: Vec<_> = (30_000..34_000).filter(|ms| wait.report(at(*ms), true).is_some()).collect();
        assert_eq!(reports, [31_000, 33_000]);
    }
}
