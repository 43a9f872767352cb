//! Judges whether the lock excluded, from the lines of the resource and the injected faults.
//!
//! A correct counter proves little: the resource checks tokens, so the counter stays right even if two members hold the
//! lock at once. So each entry that begins while an earlier one has not ended is suspect, and the earlier entry's end
//! decides:
//!
//! - its process had been killed before: no member was inside;
//! - its holder got the report later that it had lost the lock (it had been stopped, or removed): stale, as tokens
//!   allow, unless both tokens are of one view and the cause was not a missing majority: within a view no member loses
//!   a lock for another cause;
//! - its process was killed later, before the report: the same, but it can't be known (`undecided`);
//! - any other case, above all a holder that never got the report: two members held the lock, a violation.
//!
//! The same holds for a member that was refused entry. A refused entry may never be committed later.

use super::journal::{Incarnation, Kind, Line, Token};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The injected faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InjectedFaults {
    /// The killed members, and the earliest time of each kill.
    pub kills: Vec<(Incarnation, u64)>,
    /// The stopped members, and the earliest time of each stop.
    pub stops: Vec<(Incarnation, u64)>,
}

impl InjectedFaults {
    fn killed_ns(&self, incarnation: Incarnation) -> Option<u64> {
        self.kills.iter().find(|(one, _)| *one == incarnation).map(|(_, at_ns)| *at_ns)
    }
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Entries that were committed.
    pub entries: u64,
    /// Entries whose holder is another member than the holder before.
    pub hand_overs: u64,
    /// Kills of a member that was inside.
    pub kills_inside: u64,
    /// Stops of a member that was inside.
    pub stops_inside: u64,
    /// Commits that were refused.
    pub refused_commits: u64,
    /// Grants that came too late and were refused entry.
    pub not_let_in: u64,
    /// Holders whose node reported that they had lost the lock.
    pub reported_lost: u64,
    /// Stale holders that were killed before the report.
    pub undecided: u64,
    /// Most requests that were made after another and granted before it.
    pub max_overtaken: usize,
    /// The times from a kill of a holder until the next member held the lock.
    pub kill_to_next_grant_ns: Vec<u64>,
    /// The times from a stop of a holder until the next member held the lock.
    pub stop_to_next_grant_ns: Vec<u64>,
    /// What was broken.
    pub violations: Vec<String>,
}

/// A grant that was presented to the resource.
#[derive(Clone, Copy, Debug)]
struct Entry {
    line: Line,
    /// The entry that began while this one was not over, or that caused its refusal.
    overtaken_by: Option<(Token, u64)>,
    is_refused: bool,
    end: Option<Kind>,
}

/// Reads the log in order.
#[derive(Default)]
struct Walk {
    entries: BTreeMap<(Token, Incarnation), Entry>,
    open: BTreeSet<(Token, Incarnation)>,
    begun: Token,
    committed: Token,
    counter: u64,
    last_holder: Option<u16>,
    verdict: Verdict,
}

impl Walk {
    fn complain(&mut self, line: &Line, what: &str) {
        let (holder, token) = (line.grant.holder, line.grant.token);
        self.verdict.violations.push(format!("{holder} under {token}: {what}"));
    }

    fn line(&mut self, line: &Line) {
        let key = (line.grant.token, line.grant.holder);
        let fresh = Entry { line: *line, overtaken_by: None, is_refused: false, end: None };
        match line.kind {
            Kind::Begin => {
                if line.grant.token <= self.begun {
                    self.complain(line, &format!("began after {}: tokens do not grow", self.begun));
                }
                self.begun = self.begun.max(line.grant.token);
                for earlier in &self.open {
                    if let Some(entry) = self.entries.get_mut(earlier) {
                        entry.overtaken_by.get_or_insert((line.grant.token, line.at_ns));
                    }
                }
                self.entries.insert(key, fresh);
                self.open.insert(key);
                return;
            }
            Kind::NotLetIn => {
                self.verdict.not_let_in += 1;
                let overtaken_by = Some((line.highest, line.at_ns));
                self.entries.insert(key, Entry { overtaken_by, is_refused: true, ..fresh });
                self.open.insert(key);
                return;
            }
            Kind::Commit => self.commit(line),
            Kind::Refused => self.verdict.refused_commits += 1,
            Kind::Lost | Kind::CutOff => self.verdict.reported_lost += 1,
            Kind::Abandoned => {}
        }
        match self.entries.get_mut(&key).filter(|entry| entry.end.is_none()) {
            None => self.complain(line, &format!("{:?}, and was not inside", line.kind)),
            Some(entry) if line.kind == Kind::Refused => entry.is_refused = true,
            Some(entry) => {
                entry.end = Some(line.kind);
                self.open.remove(&key);
            }
        }
    }

    fn commit(&mut self, line: &Line) {
        let Line { grant, counter, .. } = *line;
        if grant.token <= self.committed {
            self.complain(line, &format!("committed after {}: tokens do not grow", self.committed));
        }
        if grant.token < self.begun {
            self.complain(line, &format!("committed, and {} had begun", self.begun));
        }
        if counter != self.counter + 1 {
            let before = self.counter;
            self.complain(line, &format!("counted to {counter} after {before}: an update is lost or doubled"));
        }
        if self.entries.get(&(grant.token, grant.holder)).is_some_and(|entry| entry.is_refused) {
            self.complain(line, "committed, and had been refused");
        }
        (self.committed, self.counter) = (grant.token, counter);
        self.verdict.entries += 1;
        self.verdict.hand_overs += u64::from(self.last_holder.is_some_and(|rank| rank != grant.holder.rank));
        self.last_holder = Some(grant.holder.rank);
    }

    /// Every holder that was overtaken, or refused, must have lost the lock.
    fn overlaps(&mut self, injected: &InjectedFaults) {
        for entry in std::mem::take(&mut self.entries).values() {
            let Some((by, at_ns)) = entry.overtaken_by else { continue };
            let killed_ns = injected.killed_ns(entry.line.grant.holder);
            let one_view = by.epoch == entry.line.grant.token.epoch;
            match entry.end {
                None if killed_ns.is_some_and(|killed_ns| killed_ns <= at_ns) => {}
                None if killed_ns.is_some() && !one_view => self.verdict.undecided += 1,
                Some(Kind::CutOff) => {}
                Some(Kind::Lost) if !one_view => {}
                end => {
                    let end = match end {
                        None => "got no report that it had lost the lock".to_owned(),
                        Some(kind) => format!("ended as {kind:?}"),
                    };
                    self.complain(&entry.line, &format!("{by} began while it had the lock; {end}"));
                }
            }
        }
    }
}

/// Judges the log by the guarantees of a lock.
pub fn judge(lines: &[Line], injected: &InjectedFaults, members: u16) -> Verdict {
    let mut walk = Walk::default();
    lines.iter().for_each(|line| walk.line(line));
    walk.overlaps(injected);
    let mut verdict = walk.verdict;
    for rank in 0..members {
        if !lines.iter().any(|line| line.kind == Kind::Commit && line.grant.holder.rank == rank) {
            verdict.violations.push(format!("member {rank} never had the lock"));
        }
    }
    let begins: Vec<&Line> = lines.iter().filter(|line| line.kind == Kind::Begin).collect();
    verdict.max_overtaken =
        begins.iter().enumerate().map(|(place, line)| overtaken(&begins[..place], line)).max().unwrap_or(0);
    verdict.kill_to_next_grant_ns = to_next_grant(lines, &injected.kills);
    verdict.stop_to_next_grant_ns = to_next_grant(lines, &injected.stops);
    verdict.kills_inside = inside(lines, &injected.kills).count() as u64;
    verdict.stops_inside = inside(lines, &injected.stops).count() as u64;
    verdict
}

/// How many earlier entries were requested later.
fn overtaken(before: &[&Line], line: &Line) -> usize {
    let while_it_waited = before.iter().rev().take_while(|other| other.at_ns > line.grant.requested_ns);
    while_it_waited.filter(|other| other.grant.requested_ns > line.grant.requested_ns).count()
}

/// The entries that a fault hit while inside, and when.
fn inside<'a>(lines: &'a [Line], faults: &'a [(Incarnation, u64)]) -> impl Iterator<Item = u64> + 'a {
    let is_inside = |(incarnation, at_ns): &&(Incarnation, u64)| {
        let mut before = lines.iter().take_while(|line| line.at_ns < *at_ns).collect::<Vec<_>>().into_iter().rev();
        before.find(|line| line.grant.holder == *incarnation).is_some_and(|line| line.kind == Kind::Begin)
    };
    faults.iter().filter(is_inside).map(|(_, at_ns)| *at_ns)
}

fn to_next_grant(lines: &[Line], faults: &[(Incarnation, u64)]) -> Vec<u64> {
    let next = |at_ns: u64| {
        let mut begins = lines.iter().filter(|line| line.kind == Kind::Begin && line.grant.granted_ns > at_ns);
        Some(begins.next()?.grant.granted_ns - at_ns)
    };
    inside(lines, faults).filter_map(next).collect()
}

/// Whether a holder is stale and has no report yet.
pub(super) fn is_a_loser_uninformed(lines: &[Line], injected: &InjectedFaults) -> bool {
    let mut walk = Walk::default();
    lines.iter().for_each(|line| walk.line(line));
    let is_unreported = |key: &(Token, Incarnation)| {
        let is_stale = walk.entries.get(key).is_some_and(|entry| entry.is_refused || entry.overtaken_by.is_some());
        is_stale && injected.killed_ns(key.1).is_none()
    };
    walk.open.iter().any(is_unreported)
}

#[cfg(test)]
mod tests {
    use super::super::journal::Grant;
    use super::*;

    /// A log, with one time step for each line: kind, holder, token, counter.
    fn log(lines: &[(u16, Kind, u64, u64, u64)]) -> Vec<Line> {
        let line = |(at, (rank, kind, epoch, number, counter)): (usize, &(u16, Kind, u64, u64, u64))| {
            let (token, at_ns) = (Token { epoch: *epoch, number: *number }, 10 * (at as u64 + 1));
            let grant = Grant { holder: incarnation(*rank), token, requested_ns: at_ns - 5, granted_ns: at_ns - 1 };
            Line { kind: *kind, grant, highest: token, counter: *counter, at_ns }
        };
        lines.iter().enumerate().map(line).collect()
    }

    fn incarnation(rank: u16) -> Incarnation {
        Incarnation { rank, incarnation: 1 }
    }

    fn violations(lines: &[(u16, Kind, u64, u64, u64)], injected: &InjectedFaults) -> Vec<String> {
        let mut violations = judge(&log(lines), injected, 2).violations;
        violations.retain(|what| !what.ends_with("never had the lock"));
        violations
    }

    fn none() -> InjectedFaults {
        InjectedFaults::default()
    }

    use Kind::{Abandoned, Begin, Commit, CutOff, Lost, NotLetIn, Refused};

    #[test]
    fn a_lock_handed_over_is_fine() {
        let lines = [(0, Begin, 1, 1, 0), (0, Commit, 1, 1, 1), (1, Begin, 1, 2, 1), (1, Commit, 1, 2, 2)];
        let verdict = judge(&log(&lines), &none(), 2);
        assert_eq!((verdict.entries, verdict.hand_overs, verdict.violations.len()), (2, 1, 0), "{verdict:?}");
        assert_eq!(judge(&log(&lines), &none(), 3).violations, ["member 2 never had the lock"]);
    }

    #[test]
    fn a_lost_update_is_found() {
        let lines = [(0, Begin, 1, 1, 0), (0, Commit, 1, 1, 1), (1, Begin, 1, 2, 0), (1, Commit, 1, 2, 1)];
        let found = violations(&lines, &none());
        assert!(found.len() == 1 && found[0].contains("lost or doubled"), "{found:?}");
    }

    #[test]
    fn tokens_that_fall_are_found() {
        let lines = [(0, Begin, 1, 2, 0), (0, Commit, 1, 2, 1), (1, Begin, 1, 1, 1), (1, Commit, 1, 1, 2)];
        let found = violations(&lines, &none());
        assert!(found.iter().any(|what| what.contains("began after 1:2")), "{found:?}");
        assert!(found.iter().any(|what| what.contains("committed after 1:2")), "{found:?}");
    }

    #[test]
    fn a_stale_commit_is_found() {
        let lines = [(0, Begin, 1, 1, 0), (1, Begin, 2, 2, 0), (0, Commit, 1, 1, 1), (1, Commit, 2, 2, 1)];
        let found = violations(&lines, &none());
        assert!(found.iter().any(|what| what.contains("committed, and 2:2 had begun")), "{found:?}");
        assert!(found.iter().any(|what| what.contains("lost or doubled")), "{found:?}");
        let lines = [(0, NotLetIn, 1, 1, 0), (0, Commit, 1, 1, 1)];
        assert!(violations(&lines, &none()).iter().any(|what| what.contains("had been refused")));
    }

    #[test]
    fn two_inside_at_once_are_found_though_the_counter_is_right() {
        let overlap = [(0, Begin, 1, 1, 0), (1, Begin, 1, 2, 0), (1, Commit, 1, 2, 1), (0, Refused, 1, 1, 1)];
        let never_reported = violations(&overlap, &none());
        assert!(never_reported.len() == 1 && never_reported[0].contains("got no report"), "{never_reported:?}");
        for end in [Abandoned, Lost] {
            let lines = [&overlap[..], &[(0, end, 1, 1, 1)]].concat();
            assert_eq!(violations(&lines, &none()).len(), 1, "{end:?} within one view");
        }
        let killed_later = InjectedFaults { kills: vec![(incarnation(0), 25)], ..none() };
        assert_eq!(violations(&overlap[..2], &killed_later).len(), 1);
    }

    #[test]
    fn the_dead_and_the_informed_did_not_hold_the_lock() {
        let dead = [(0, Begin, 1, 1, 0), (1, Begin, 2, 2, 0), (1, Commit, 2, 2, 1)];
        let killed = InjectedFaults { kills: vec![(incarnation(0), 15)], ..none() };
        assert_eq!(violations(&dead, &killed), [""; 0]);
        let verdict = judge(&log(&dead), &killed, 2);
        assert_eq!((verdict.kills_inside, verdict.kill_to_next_grant_ns), (1, vec![4]));
        let killed_later = InjectedFaults { kills: vec![(incarnation(0), 25)], ..none() };
        assert_eq!(judge(&log(&dead), &killed_later, 2).undecided, 1);
        for end in [Lost, CutOff] {
            let lines = [&dead[..], &[(0, Refused, 1, 1, 1), (0, end, 1, 1, 1)]].concat();
            assert_eq!(violations(&lines, &none()), [""; 0], "{end:?}");
            assert!(!is_a_loser_uninformed(&log(&lines), &none()));
            assert!(is_a_loser_uninformed(&log(&lines[..4]), &none()));
        }
    }

    #[test]
    fn a_member_that_was_not_let_in_must_be_informed() {
        let lines = [(1, Begin, 2, 1, 0), (1, Commit, 2, 1, 1), (0, NotLetIn, 1, 7, 1), (0, Lost, 1, 7, 1)];
        let mut lines = log(&lines);
        lines[2].highest = Token { epoch: 2, number: 1 };
        let of = |lines: &[Line]| {
            let mut found = judge(lines, &none(), 2).violations;
            found.retain(|what| !what.ends_with("never had the lock"));
            found.len()
        };
        assert_eq!((of(&lines), of(&lines[..3])), (0, 1));
    }

    #[test]
    fn an_earlier_request_granted_later_was_overtaken() {
        let lines = [(0, Begin, 1, 1, 0), (0, Commit, 1, 1, 1), (1, Begin, 1, 2, 1), (1, Commit, 1, 2, 2)];
        let mut lines = log(&lines);
        assert_eq!(judge(&lines, &none(), 2).max_overtaken, 0);
        lines[2].grant.requested_ns = 1;
        assert_eq!(judge(&lines, &none(), 2).max_overtaken, 1);
    }
}
