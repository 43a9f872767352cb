//! How a node ends: what it accepted is sent, and its acknowledgement awaited, within a bound.
//!
//! A message that was accepted and is then discarded in silence is lost without any sign of it: the application has its
//! number, and the group never had the message. A node that waits for its acknowledgement without a bound hangs where
//! the network is cut. So a node that ends goes on for a bounded time while a message may still be lost with it, and
//! then reports what is not acknowledged. A node that is closed also leaves its view: the others go on at once, and do
//! not suspect it first.
//!
//! Invariant: a node that has nothing under way ends at once.

use crate::deadline::Deadline;
use crate::inline::InlineNode;
use crate::node_error::Error;
use bourdon_engine::DELIVER_LIMIT;
use bourdon_port::PortError;
use bourdon_protocol::{Process, Standing};
use bourdon_wire::{Incarnation, Instant};
use std::fmt::{self, Display, Formatter};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// How long a node that ends sleeps at most between two polls.
const LOOK: Duration = Duration::from_millis(1);

/// Runs of dropped messages that are kept for the report of the end.
const DROPPED_MAX: usize = 1024;

/// What became of a node that was closed.
///
/// ```
/// # use bourdon::*;
/// # use std::time::Duration;
/// # fn show(node: Node) -> Result<(), Error> {
/// let report = node.close(Duration::from_secs(5))?;
/// if !report.is_clean() {
///     eprintln!("{report}"); // messages 17 to 20 of publication 0: not acknowledged
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// The messages that were accepted and are not acknowledged; they may be delivered all the same. The place of the
    /// publication, and the numbers of the messages; of an inline node, place 0 and their sequences.
    pub unacknowledged: Vec<(usize, RangeInclusive<u64>)>,
    /// Of a node with threads: all messages that were dropped, each reported by an event
    /// [`Event::Dropped`](crate::Event::Dropped) before. The place of the publication, and the numbers of the messages.
    /// They may be among those that are not acknowledged as well. Whether they may be published again stands at
    /// [`Event::Dropped`](crate::Event::Dropped).
    pub dropped: Vec<(usize, RangeInclusive<u64>)>,
    /// Whether the members go on without this process in their view: it has left, or it was an observer or in no view.
    /// If not, they suspect it, and then go on without it.
    pub has_left: bool,
}

impl CloseReport {
    /// Whether every message that was accepted is acknowledged, none of them is reported here as dropped, and this
    /// process has left.
    pub fn is_clean(&self) -> bool {
        self.has_left && self.unacknowledged_count() == 0 && self.dropped.is_empty()
    }

    /// How many messages are not acknowledged.
    pub fn unacknowledged_count(&self) -> u64 {
        count(&self.unacknowledged)
    }
}

/// A sentence for a log or a terminal.
impl Display for CloseReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.unacknowledged.is_empty() && self.dropped.is_empty() {
            f.write_str("nothing is lost: every message is acknowledged")?;
        }
        let mut separator = "";
        for (runs, what) in [(&self.unacknowledged, "not acknowledged"), (&self.dropped, "dropped")] {
            for (publication, numbers) in runs {
                let (first, last) = (numbers.start(), numbers.end());
                write!(f, "{separator}messages {first} to {last} of publication {publication}: {what}")?;
                separator = "; ";
            }
        }
        if self.has_left { Ok(()) } else { f.write_str("; the others suspect this process, and then go on without it") }
    }
}

/// How many messages these are.
fn count(runs: &[(usize, RangeInclusive<u64>)]) -> u64 {
    runs.iter().map(|(_, numbers)| (numbers.end() + 1).saturating_sub(*numbers.start())).sum()
}

/// Those publications that lack an acknowledgement: each with its place, and the numbers of its messages.
pub(crate) fn lacking(ends: impl Iterator<Item = (usize, Range<u64>)>) -> Vec<(usize, RangeInclusive<u64>)> {
    let lacking = ends.filter(|(_, numbers)| !numbers.is_empty());
    lacking.map(|(place, numbers)| (place, numbers.start..=numbers.end - 1)).collect()
}

/// The time of a deadline by a node's clock.
pub(crate) fn until(now: Instant, deadline: Deadline) -> Instant {
    let remaining = deadline.remaining().map(|remaining| u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX));
    remaining.map_or(Instant::NEVER, |remaining_ns| now + remaining_ns)
}

/// Whether a process has left, or has no view to leave.
pub(crate) fn has_left(process: &Process) -> bool {
    process.config().rank().is_none() || process.standing() == Standing::Gone && !process.is_parting()
}

/// Keeps dropped messages of a publication for the report of the end.
pub(crate) fn note_dropped(
    dropped: &mut Vec<(usize, RangeInclusive<u64>)>,
    publication: usize,
    numbers: RangeInclusive<u64>,
) {
    let is_full = dropped.len() >= DROPPED_MAX; // then the last run covers what lies between as well
    let mut runs = dropped.iter_mut().rev();
    match runs.find(|(other, _)| *other == publication) {
        Some((_, run)) if is_full || *run.end() + 1 == *numbers.start() => *run = *run.start()..=*numbers.end(),
        _ => dropped.push((publication, numbers)),
    }
}

/// Warns of messages that were accepted, and are dropped or not acknowledged now that their node ends.
#[cold]
pub(crate) fn warn(group: &str, report: &CloseReport) {
    let unacknowledged = report.unacknowledged_count();
    let dropped = count(&report.dropped);
    if unacknowledged > 0 || dropped > 0 {
        tracing::warn!(
            group,
            unacknowledged,
            dropped,
            "a node ended while messages that it had accepted were not acknowledged: close it with a longer deadline"
        );
    }
}

impl InlineNode {
    /// Ends this node: sends what was published, waits until it is acknowledged, and leaves the view; all that within
    /// the deadline. Polls the node meanwhile, and discards what is delivered. The view is left by agreement: without a
    /// majority, or where the members that are left would be too few for `group.quorum`, this process stays in the view
    /// of the others until they suspect it.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn close(mut self, deadline: impl Into<Deadline>) -> Result<CloseReport, Error> {
        let until = until(self.clock().now(), deadline.into());
        self.drop_timeout_ns = 0;
        let incarnation = self.engine.process().incarnation();
        self.settle(until)?;
        let unacknowledged = self.unacknowledged(incarnation);
        if !has_left(self.engine.process()) && self.engine.process().may_leave() {
            self.leave();
            self.poll_until(until, |node| !has_left(node.engine.process()) && node.engine.process().may_leave())?;
        }
        Ok(CloseReport { unacknowledged, dropped: Vec::new(), has_left: has_left(self.engine.process()) })
    }

    /// Polls until all that was published is acknowledged, or it is time to end. Discards what is delivered.
    fn settle(&mut self, until: Instant) -> Result<(), PortError> {
        self.flush()?;
        self.poll_until(until, |node| node.engine.owes_own() || node.owes_calls())
    }

    fn poll_until(&mut self, until: Instant, owes: impl Fn(&mut Self) -> bool) -> Result<(), PortError> {
        while owes(self) && self.clock().now() < until {
            let work_count = self.poll(DELIVER_LIMIT, |_| {})?;
            if work_count == 0 {
                self.wait(LOOK)?;
            }
        }
        Ok(())
    }

    /// The sequences that are not acknowledged. Of a process that is no member, or no more in this incarnation: those
    /// that were not when it last ceased to be a member.
    fn unacknowledged(&mut self, incarnation: Incarnation) -> Vec<(usize, RangeInclusive<u64>)> {
        let acknowledged =
            self.engine.own_acknowledged().filter(|_| self.engine.process().incarnation() == incarnation);
        let next = self.engine.process().own_next();
        let behind = || self.engine.process().own_left_behind().map(|(_, behind)| behind).unwrap_or_default();
        let range = acknowledged.map_or_else(behind, |acknowledged| acknowledged.min(next)..next);
        lacking(std::iter::once((0, range.start.0..range.end.0)))
    }

    /// Warns of what is not acknowledged.
    fn warn_of_end(&mut self, incarnation: Incarnation) {
        let unacknowledged = self.unacknowledged(incarnation);
        warn(&self.group, &CloseReport { unacknowledged, ..CloseReport::default() });
    }

    /// Has it end without a wait when it is dropped, and warns now.
    pub(crate) fn give_up(&mut self) {
        if std::mem::take(&mut self.drop_timeout_ns) > 0 {
            self.warn_of_end(self.engine.process().incarnation());
        }
    }
}

impl Drop for InlineNode {
    fn drop(&mut self) {
        if self.drop_timeout_ns == 0 || std::thread::panicking() {
            return;
        }
        let (until, incarnation) = (self.clock().now() + self.drop_timeout_ns, self.engine.process().incarnation());
        if (self.engine.owes_own() || self.owes_calls())
            && let Err(error) = self.settle(until)
        {
            tracing::warn!(group = &*self.group, %error, "a node that ended could not send what it had accepted");
        }
        self.warn_of_end(incarnation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_a_report_without_a_loss_showed_an_empty_range() {
        let ends = [(0, 1001..1001), (2, 5..5)];
        let clean = CloseReport { unacknowledged: lacking(ends.into_iter()), has_left: true, ..CloseReport::default() };
        assert!(clean.is_clean() && !format!("{clean:?}").contains("1001"), "{clean:?}");
        assert_eq!(clean.to_string(), "nothing is lost: every message is acknowledged");
    }

    #[test]
    fn a_report_names_the_publications_that_lack_messages() {
        let unacknowledged = lacking([(0, 3..3), (1, 5..8)].into_iter());
        let report = CloseReport { unacknowledged, dropped: vec![(0, 2..=2)], has_left: false };
        assert_eq!((report.unacknowledged_count(), report.is_clean()), (3, false));
        let text = report.to_string();
        assert!(text.starts_with("messages 5 to 7 of publication 1: not acknowledged; messages 2 to 2"), "{text}");
        assert!(text.contains("0: dropped; the others suspect this process"), "{text}");
    }
}
