//! When a process that is in no view, or an observer that hears no majority of it, reports that it waits.
//!
//! A member whose peers do not come prints nothing, as does one that searches at the wrong address: its user can't tell
//! a slow start from a mistake. So a wait is reported after a second, and then at intervals that double: a start that
//! takes minutes fills no log.

use bourdon_protocol::{Process, Ranks, Standing};
use bourdon_wire::{Epoch, Instant, Rank};

/// A usual start is over by then.
const FIRST_NS: u64 = 1_000_000_000;
/// From when on a process that follows a view reports that it waits to be let in: a joiner catches up first.
pub(crate) const FOLLOWING_NS: u64 = 3_000_000_000;
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
    /// How long the process has waited, if that is to be reported now: while it waits, not before `from_ns`.
    #[inline]
    pub(crate) fn report(&mut self, now: Instant, from_ns: Option<u64>) -> Option<u64> {
        let Some(from_ns) = from_ns else {
            self.since = None;
            return None;
        };
        let Some(since) = self.since else {
            *self = Self { since: Some(now), report_after_ns: FIRST_NS, interval_ns: FIRST_NS };
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

/// What a process that is in no view waits for, or an observer that hears no majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Bit r: the member of rank r has not been heard; to an observer that hears no majority, not lately.
    pub missing: u64,
    /// How many members are configured; to an observer that hears no majority, how many its view has.
    pub members: u16,
    /// Whether it is an observer that hears no majority of the view that it follows.
    pub lacks_majority: bool,
    /// Whether there is a group outside of which it is.
    pub outside: bool,
    /// The view that it follows until the members let it in.
    pub followed: Option<Epoch>,
    /// Bit r: the member of rank r is in a view of an earlier instance that has lost its majority.
    pub in_lost_instance: u64,
    /// Its own rank, if the members hear another process in their view with this rank.
    pub rank_in_use: Option<Rank>,
    /// How long it has waited.
    pub waited_ns: u64,
}

impl Waiting {
    /// What this process waits for.
    #[cold]
    pub fn of(process: &Process, now: Instant, waited_ns: u64) -> Self {
        let (config, standing, in_lost_instance) =
            (process.config(), process.standing(), process.in_lost_instance(now));
        let missing = process.missing().fold(0, |missing, rank| missing | 1 << rank.0);
        if process.observes_no_majority(now) {
            let view = process.view();
            return Self {
                missing: view.bits() & !process.heard_lately(now),
                members: view.members.len() as u16,
                lacks_majority: true,
                followed: Some(view.epoch),
                waited_ns,
                ..Self::default()
            };
        }
        Self {
            missing: missing & !in_lost_instance,
            members: config.members,
            lacks_majority: false,
            outside: standing != Standing::Forming,
            followed: (standing == Standing::Following).then(|| process.view().epoch),
            in_lost_instance,
            rank_in_use: config.rank().filter(|_| process.is_rank_in_use(now)),
            waited_ns,
        }
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members = self.members;
        match (self.followed, self.outside) {
            (Some(epoch), _) if self.lacks_majority => {
                let (count, silent) = (u32::from(members) - self.missing.count_ones(), Ranks(self.missing));
                return write!(
                    f,
                    "{count} of {members} members of view {epoch} are heard, no majority; not heard now: {silent}: no \
                     message may come until they are restored, or all members are stopped and the group is started \
                     again"
                );
            }
            (Some(epoch), _) => write!(f, "this process follows view {epoch} and waits to be let in")?,
            (None, true) => f.write_str("this process waits to join the group")?,
            (None, false) => f.write_str("this process waits for the first view")?,
        }
        if let Some(rank) = self.rank_in_use {
            return write!(
                f,
                ": the members still hear a process in their view with this rank, {rank}: if it is an earlier process \
                     of this member, stop it; if it is another member, give one of the two another process.rank (and \
                     over tcp its own place in network.peers)"
            );
        }
        if self.in_lost_instance != 0 {
            let is_one = self.in_lost_instance.count_ones() == 1;
            let (word, is, it) = if is_one { ("member", "is", "it") } else { ("members", "are", "them") };
            write!(
                f,
                "; {word} {} {is} in an older view that has lost its majority: stop {it}, or resume the other members \
                     of that view if they are only paused or cut off, so that the group can form again",
                Ranks(self.in_lost_instance)
            )?;
        }
        match self.missing {
            0 if self.in_lost_instance != 0 => Ok(()),
            0 if self.followed.is_some() => write!(f, ": all members of that view have been heard"),
            0 => write!(f, ": all {members} configured members have been heard"),
            missing => write!(
                f,
                "; not heard yet: {} (of {members} configured members): start them, or check that group.name, \
                     group.address and network.interface (over tcp network.peers) are right at all",
                Ranks(missing)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_reported_at_growing_intervals() {
        let mut wait = ViewWait::default();
        let at = |ms: u64| Instant(ms * 1_000_000);
        let reports: Vec<_> = (0..20_000).filter(|ms| wait.report(at(*ms), Some(0)).is_some()).collect();
        assert_eq!(reports, [1_000, 3_000, 7_000, 15_000]);
        // A view ends the wait; the next wait is another one.
        assert_eq!(wait.report(at(20_000), None), None);
        let reports: Vec<_> = (30_000..34_000).filter(|ms| wait.report(at(*ms), Some(0)).is_some()).collect();
        assert_eq!(reports, [31_000, 33_000]);
    }

    #[test]
    fn a_process_that_follows_reports_later() {
        let mut wait = ViewWait::default();
        let at = |ms: u64| Instant(ms * 1_000_000);
        let mut reports = |range: std::ops::Range<u64>, from_ns| -> Vec<_> {
            range.filter(|ms| wait.report(at(*ms), from_ns).is_some()).collect()
        };
        assert_eq!(reports(0..6_000, Some(FOLLOWING_NS)), [3_000, 5_000]);
    }

    #[test]
    fn a_wait_names_its_cause_and_what_to_do() {
        let first = Waiting { members: 3, ..Waiting::default() };
        let outside = Waiting { outside: true, ..first };
        for (waiting, parts) in [
            (first, ["for the first view", "all 3 configured members have been heard"]),
            (Waiting { missing: 0b110, ..first }, ["not heard yet: 1, 2 (of 3", "start them"]),
            (Waiting { in_lost_instance: 1, ..first }, ["member 0 is in an older view", "stop it"]),
            (Waiting { in_lost_instance: 3, missing: 4, ..first }, ["members 0, 1 are in an", "not heard yet: 2"]),
            (Waiting { followed: Some(Epoch(7)), ..outside }, ["follows view 7 and waits to be let in", "heard"]),
            (
                Waiting { followed: Some(Epoch(7)), lacks_majority: true, missing: 0b110, ..first },
                ["1 of 3 members of view 7 are heard, no majority", "not heard now: 1, 2"],
            ),
            (Waiting { rank_in_use: Some(Rank(2)), ..outside }, ["to join", "with this rank, 2: if"]),
        ] {
            let text = waiting.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(!Waiting { in_lost_instance: 1, ..first }.to_string().contains("not heard"));
    }
}
