//! When a command that waits for the group reports that it waits, and for what.
//!
//! A command that prints nothing looks as if it hung. So a wait is reported on stderr after a time in which a command
//! usually ends, and then at intervals.

use bourdon::Refusal;
use std::time::{Duration, Instant};

/// No usual wait is longer: a view change takes less.
pub(crate) const FIRST: Duration = Duration::from_millis(1_500);
/// Between two reports.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// One wait of a command.
#[derive(Default)]
pub(crate) struct Wait {
    since: Option<Instant>,
    reported_at: Option<Instant>,
}

impl Wait {
    /// How long it has waited, if that is to be reported now.
    pub(crate) fn report(&mut self, now: Instant, is_waiting: bool) -> Option<Duration> {
        if !is_waiting {
            *self = Self::default();
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let due = self.reported_at.map_or(since + FIRST, |at| at + INTERVAL);
        (now >= due).then(|| {
            self.reported_at = Some(now);
            now - since
        })
    }
}

/// Why the group takes no message.
pub(crate) fn why(refusal: Option<Refusal>) -> String {
    let why = match refusal {
        Some(Refusal::NoReceiver) => "no member has been heard: check that one runs, and the group's name and address",
        Some(Refusal::Forming { .. }) => {
            "the group is still forming: its members wait for each other, as `bourdon view` shows; start them all"
        }
        Some(Refusal::NoMajority { .. }) => {
            "the member heard last reaches no majority of its view: restore the others; where they are \
                 gone for good, run `bourdon recover` beside a survivor"
        }
        Some(Refusal::NoNetwork) => "the network interface of this process is gone, down, or without an address",
        Some(Refusal::TooManyClients { limit }) => {
            return format!("its member serves {limit} clients, as many as it can: it goes on once another one ends");
        }
        Some(refusal) => return format!("its member takes none now: {refusal}"),
        None => {
            "the group has formed, and its member has not taken what was sent: it may be full or outside the view, or \
                 long datagrams (limits.mtu_bytes) may not reach it; `bourdon stat` beside the members shows which"
        }
    };
    why.to_owned()
}

/// The same, as scripts read it.
pub(crate) fn class(refusal: Option<Refusal>) -> &'static str {
    match refusal {
        Some(Refusal::NoReceiver) => "no_member_heard",
        Some(Refusal::Forming { .. }) => "forming",
        Some(Refusal::NoMajority { .. }) => "no_majority",
        Some(Refusal::NoNetwork) => "no_network",
        Some(Refusal::TooManyClients { .. }) => "too_many_clients",
        _ => "held_up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_reported_within_two_seconds_and_then_each_ten() {
        let (mut wait, start) = (Wait::default(), Instant::now());
        let mut reports = |seconds: std::ops::Range<u64>, is_waiting| -> Vec<u64> {
            let waited = seconds.filter_map(|second| wait.report(start + Duration::from_secs(second), is_waiting));
            waited.map(|waited| waited.as_secs()).collect()
        };
        assert_eq!(reports(0..30, true), [2, 12, 22]);
        assert!(reports(30..40, false).is_empty());
        assert_eq!(reports(40..50, true), [2]);
    }
}
