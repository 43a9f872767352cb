//! Events that a stranger's datagrams can bring about, one a datagram: at most one line a second for each rank.
//!
//! A forged datagram costs its sender nothing, while a line of the log takes space, and hides other lines. So what
//! comes within a second of the last line is counted, and the next line has the count.

use bourdon::Event;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two lines about one rank.
const INTERVAL: Duration = Duration::from_secs(1);

/// The last line, and what has been left out since: by kind and rank.
#[derive(Debug, Default)]
pub(super) struct Limit {
    held: BTreeMap<(&'static str, u16), LimitedEvent>,
}

#[derive(Debug)]
struct LimitedEvent {
    event: Event,
    reported_at: Instant,
    left_out: u64,
}

impl Limit {
    /// The event with the number of those left out before it; `None` if it is left out itself.
    pub(super) fn admit(&mut self, event: Event, now: Instant) -> Option<(Event, u64)> {
        let Some(key) = key(&event) else { return Some((event, 0)) };
        let Some(held) = self.held.get_mut(&key) else {
            self.held.insert(key, LimitedEvent { event, reported_at: now, left_out: 0 });
            return Some((event, 0));
        };
        if now.duration_since(held.reported_at) < INTERVAL {
            held.left_out += 1;
            return None;
        }
        held.reported_at = now;
        Some((event, std::mem::take(&mut held.left_out)))
    }

    /// An event that was left out and whose second is over, with the number of the others.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Event, u64)> {
        let is_due = |held: &&mut LimitedEvent| held.left_out > 0 && now.duration_since(held.reported_at) >= INTERVAL;
        let held = self.held.values_mut().find(is_due)?;
        held.reported_at = now;
        Some((held.event, std::mem::take(&mut held.left_out) - 1))
    }

    /// Whether something was left out that no line counts yet.
    pub(super) fn holds(&self) -> bool {
        self.held.values().any(|held| held.left_out > 0)
    }
}

/// The kind and the rank of an event that is limited.
fn key(event: &Event) -> Option<(&'static str, u16)> {
    match event {
        Event::IdentityConflict { rank, .. }
        | Event::RankClaimed(rank)
        | Event::ConfigurationDiffers(rank, _)
        | Event::Outvoted(rank, _)
        | Event::Restarted { rank, .. } => Some((event.name(), rank.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon::id::Rank;

    #[test]
    fn a_flood_of_conflicts_is_a_line_a_second_and_a_count() {
        let (mut limit, begin) = (Limit::default(), Instant::now());
        let conflict = |rank| Event::RankClaimed(Rank(rank));
        let at = |ms| begin + Duration::from_millis(ms);
        let lines: Vec<_> = (0..2500).filter_map(|ms| Some((ms, limit.admit(conflict(1), at(ms))?.1))).collect();
        assert_eq!(lines, [(0, 0), (1000, 999), (2000, 999)]);
        // Other ranks and other events are not held up.
        assert_eq!(limit.admit(conflict(2), at(2500)), Some((conflict(2), 0)));
        let other = Event::NoMajority;
        for _ in 0..3 {
            assert_eq!(limit.admit(other, at(2500)), Some((other, 0)));
        }
        // The end of the flood is counted too.
        assert!(limit.holds() && limit.take_due(at(2900)).is_none());
        assert_eq!(limit.take_due(at(3000)), Some((conflict(1), 498)));
        assert!(!limit.holds() && limit.take_due(at(9000)).is_none());
    }
}
