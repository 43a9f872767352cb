//! What a node reports of itself, beside the events of its process: that it waits for a view, or hears no majority of
//! it, or for its disk; how it reaches its peers; that a birth could not be stored.
//!
//! A member whose peers do not come prints nothing, as does one that searches at the wrong address: its user can't tell
//! a slow start from a mistake. So a wait is reported within two seconds, and then at intervals that double: a start
//! that takes minutes fills no log.

use crate::identity::BirthFile;
use bourdon_engine::StoreState;
use bourdon_protocol::{Event, Process, Reach, Standing};
use bourdon_wire::Instant;

/// A usual start is over by then.
const FIRST_NS: u64 = 1_000_000_000;
/// From when on a process that follows a view reports that it waits to be let in: a joiner catches up first.
const FOLLOWING_NS: u64 = 2_000_000_000;
/// From when on an observer reports members that it does not hear: it has not heard them for a second by then.
const UNHEARD_NS: u64 = 250_000_000;
/// How long the way to the peers is the same before it is reported: processes of one host start one after the other.
const REACH_SETTLES_NS: u64 = 200_000_000;
/// The longest interval.
const INTERVAL_MAX_NS: u64 = 60_000_000_000;

/// Between two judgements whether an observer hears a majority.
const HEARING_INTERVAL_NS: u64 = 250_000_000;

/// What a node has reported.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    reach: ReachReport,
    view_wait: Wait,
    storage_wait: Wait,
    /// When it is judged again whether an observer hears all members of its view, and the last judgement.
    hearing_due: Instant,
    lacks_some: bool,
}

impl Reports {
    /// What is to be reported now.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        process: &Process,
        reach: Option<Reach>,
        storage: Option<StoreState>,
        birth: &mut BirthFile,
    ) -> impl Iterator<Item = Event> {
        let waits_from_ns = match process.standing() {
            Standing::Forming | Standing::Outside => Some(FIRST_NS),
            Standing::Following if process.config().rank().is_some() => Some(FOLLOWING_NS),
            Standing::Following if self.is_unheard(now, process) => Some(UNHEARD_NS),
            _ => None,
        };
        let waited_ns = self.view_wait.report(now, waits_from_ns);
        let reached = self.reach.settled(now, reach);
        let storage = self.storage_report(now, storage.unwrap_or_default());
        let events = [
            storage,
            waited_ns.map(|waited_ns| Event::Waiting(process.waiting(now, waited_ns))),
            reached.map(Event::Reached),
            birth.poll_problem().map(Event::BirthNotStored),
        ];
        events.into_iter().flatten()
    }

    /// That what is to be stored waits for the disk, or no longer.
    fn storage_report(&mut self, now: Instant, storage: StoreState) -> Option<Event> {
        let StoreState { waited_ns, is_full, .. } = storage;
        let waits = is_full || waited_ns >= FIRST_NS;
        let was_reported = self.storage_wait.interval_ns > FIRST_NS;
        let ended = self.storage_wait.since.filter(|_| !waits && was_reported);
        let report = self.storage_wait.report(now, waits.then_some(0));
        match (report, ended) {
            (Some(_), _) => Some(Event::StorageWaits { is_full, waited_ns }),
            (None, ended) => ended.map(|since| Event::StorageWorks { waited_ns: now.since(since) }),
        }
    }

    /// How long it has waited, if it waits for a view, or observes a view of which it does not hear all members.
    pub(crate) fn waited_ns(&self, now: Instant) -> u64 {
        self.view_wait.since.map_or(0, |since| now.since(since))
    }

    /// Whether an observer does not hear some member of its view, judged at intervals.
    fn is_unheard(&mut self, now: Instant, process: &Process) -> bool {
        if now >= self.hearing_due {
            self.hearing_due = now + HEARING_INTERVAL_NS;
            self.lacks_some = !process.unheard(now).is_empty();
        }
        self.lacks_some
    }
}

/// How peers are reached, as it was last and as it was reported.
#[derive(Debug, Default)]
struct ReachReport {
    last: Option<(Reach, Instant)>,
    /// Before the first report, that no peer is reached is no news.
    reported: Reach,
}

impl ReachReport {
    /// What is to be reported: a change that has lasted for a while.
    fn settled(&mut self, now: Instant, reach: Option<Reach>) -> Option<Reach> {
        let reach = reach?;
        let (_, since) = *self.last.insert(self.last.filter(|(last, _)| *last == reach).unwrap_or((reach, now)));
        let is_news = reach != self.reported && now.since(since) >= REACH_SETTLES_NS;
        is_news.then(|| {
            self.reported = reach;
            reach
        })
    }
}

/// A wait for a view, or for the disk.
#[derive(Debug, Default)]
struct Wait {
    since: Option<Instant>,
    /// How long after the beginning it is reported next.
    report_after_ns: u64,
    interval_ns: u64,
}

impl Wait {
    /// How long the process has waited, if that is to be reported now: while it waits, not before `from_ns`.
    #[inline]
    fn report(&mut self, now: Instant, from_ns: Option<u64>) -> Option<u64> {
        let Some(from_ns) = from_ns else {
            self.since = None;
            return None;
        };
        let Some(since) = self.since else {
            *self = Self { since: Some(now), report_after_ns: 0, interval_ns: FIRST_NS };
            return None;
        };
        let waited_ns = now.since(since);
        if waited_ns < self.report_after_ns.max(from_ns) {
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
        let mut wait = Wait::default();
        let at = |ms: u64| Instant(ms * 1_000_000);
        let reports: Vec<_> = (0..20_000).filter(|ms| wait.report(at(*ms), Some(FIRST_NS)).is_some()).collect();
        assert_eq!(reports, [1_000, 3_000, 7_000, 15_000]);
        // A view ends the wait; the next wait is another one.
        assert_eq!(wait.report(at(20_000), None), None);
        let reports: Vec<_> = (30_000..34_000).filter(|ms| wait.report(at(*ms), Some(FIRST_NS)).is_some()).collect();
        assert_eq!(reports, [31_000, 33_000]);
    }

    #[test]
    fn how_peers_are_reached_is_reported_once_it_lasts() {
        let (mut report, at) = (ReachReport::default(), |ms: u64| Instant(ms * 1_000_000));
        let by_shm = |by_shm| Some(Reach { by_shm, ..Reach::default() });
        let mut reports = |reach: Option<Reach>, range: std::ops::Range<u64>| -> Vec<_> {
            range.filter(|ms| report.settled(at(*ms), reach).is_some()).collect()
        };
        assert_eq!(reports(by_shm(0), 0..900), [0; 0], "no news");
        assert_eq!(reports(by_shm(1), 900..1_000), [0; 0]);
        assert_eq!(reports(by_shm(2), 1_000..2_000), [1_200]);
        assert_eq!(reports(None, 2_000..3_000), [0; 0], "not known");
        assert_eq!(reports(by_shm(2), 3_000..4_000), [0; 0]);
        assert_eq!(reports(by_shm(0), 4_000..5_000), [4_200]);
    }

    #[test]
    fn a_process_that_follows_reports_later() {
        let mut wait = Wait::default();
        let at = |ms: u64| Instant(ms * 1_000_000);
        let mut reports = |range: std::ops::Range<u64>, from_ns| -> Vec<_> {
            range.filter(|ms| wait.report(at(*ms), from_ns).is_some()).collect()
        };
        assert_eq!(reports(0..5_000, Some(FOLLOWING_NS)), [2_000, 4_000]);
    }
}
