//! Which messages of a publication are acknowledged.
//!
//! The data agent learns of an acknowledgement as a place in the group's own stream; a publisher knows its messages by
//! their number, which counts what its handle has committed. A map from each message to its place would cost every
//! message an entry. But the agent takes a publication's messages in their order, and publishes them one after the
//! other: so the places of many messages are one run, and an acknowledged place is a number by one subtraction.
//!
//! Runs of several publications alternate, so a run ends where another publication was read. Beyond [`RUNS_MAX`] of
//! them the last run takes the next one in, and its messages count as acknowledged later than they are.
//!
//! Invariants: no entry for a message, but at most one for each round of the agent and each message of another source
//! in it; the watermark never passes a number that was neither acknowledged nor noted as dropped, and never falls.

use bourdon_wire::{Incarnation, Sequence};
use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

/// Runs that a publication has at most: more than datagrams are under way in most windows.
const RUNS_MAX: usize = 1024;

/// Messages that were taken one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The number of the last one.
    last: u64,
    /// The sequence after the last one's, and the process's incarnation when it was published; `None` if the group can
    /// never take these messages.
    end: Option<(Incarnation, Sequence)>,
}

/// The messages that were taken from one publication.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    /// The number of the last message that was taken.
    taken: u64,
    runs: VecDeque<Run>,
    /// All numbers up to this are acknowledged, or noted as dropped.
    passed: u64,
    /// What is up to this was given up, beyond `passed`.
    given_up: u64,
}

impl Acknowledgements {
    /// The number of the last message that was taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The number up to which all are acknowledged or dropped.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether a message is neither acknowledged nor dropped.
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Notes that so many messages were published one after the other, the last one before this sequence.
    pub(crate) fn note_published(&mut self, count: u64, incarnation: Incarnation, end: Sequence) {
        let first = Sequence(end.0 - count);
        self.taken += count;
        let run = Run { last: self.taken, end: Some((incarnation, end)) };
        let is_full = self.runs.len() >= RUNS_MAX;
        match self.runs.back_mut() {
            Some(back) if back.end == Some((incarnation, first)) => *back = run,
            // A run whose places are not adjacent counts as acknowledged later than it is, never earlier.
            Some(back) if is_full && back.end.is_some_and(|(of, _)| of == incarnation) => *back = run,
            _ => self.runs.push_back(run),
        }
    }

    /// Notes that the next message was dropped, because the group can never take it.
    pub(crate) fn note_dropped(&mut self) {
        self.taken += 1;
        let run = Run { last: self.taken, end: None };
        match self.runs.back_mut() {
            Some(back) if back.end.is_none() => *back = run,
            _ => self.runs.push_back(run),
        }
    }

    /// Every message of this incarnation below this sequence is acknowledged. Calls `on_dropped` with the numbers that
    /// were dropped before them.
    pub(crate) fn advance(
        &mut self,
        incarnation: Incarnation,
        acknowledged: Sequence,
        mut on_dropped: impl FnMut(RangeInclusive<u64>),
    ) {
        while let Some(front) = self.runs.front().copied() {
            match front.end {
                None => on_dropped(self.passed + 1..=front.last),
                Some((of, _)) if of != incarnation => return,
                Some((_, end)) if acknowledged < end => {
                    self.passed = self.passed.max(front.last.saturating_sub(end.since(acknowledged)));
                    return;
                }
                Some(_) => {}
            }
            self.passed = front.last;
            self.runs.pop_front();
        }
    }

    /// The messages of this incarnation with these sequences will not be delivered, as far as this process knows.
    pub(crate) fn lose(&mut self, incarnation: Incarnation, lost: Range<Sequence>) {
        let runs = std::mem::take(&mut self.runs);
        let mut before = self.passed;
        for run in runs {
            let end = run.end.filter(|(of, _)| *of == incarnation).map(|(_, end)| end);
            // The last number whose sequence is below this.
            let below = |end: Sequence, at: Sequence| {
                run.last.saturating_sub(end.0.saturating_sub(at.0)).clamp(before, run.last)
            };
            match end.map(|end| (below(end, lost.start), below(end, lost.end))) {
                Some((kept, dropped)) if kept < dropped => {
                    if kept > before {
                        self.push(Run { last: kept, end: Some((incarnation, lost.start)) });
                    }
                    self.push(Run { last: dropped, end: None });
                    if dropped < run.last {
                        self.push(run);
                    }
                }
                _ => self.push(run),
            }
            before = run.last;
        }
    }

    /// The process has left for good: nothing more will be acknowledged. Calls `on_dropped` with the numbers that were
    /// dropped behind messages of which nothing is known.
    pub(crate) fn give_up(&mut self, mut on_dropped: impl FnMut(RangeInclusive<u64>)) {
        let mut before = self.passed.max(self.given_up);
        for run in self.runs.drain(..) {
            if run.end.is_none() {
                on_dropped(before + 1..=run.last);
            }
            before = run.last;
        }
        self.given_up = before;
    }

    /// The messages of earlier incarnations that have not been settled will not be, as far as this process knows.
    pub(crate) fn lose_earlier(&mut self, incarnation: Incarnation) {
        let of = |run: &Run| run.end.map(|(of, _)| of);
        while let Some(earlier) = self.runs.iter().filter_map(of).find(|of| *of != incarnation) {
            self.lose(earlier, Sequence(0)..Sequence(u64::MAX));
        }
    }

    fn push(&mut self, run: Run) {
        match self.runs.back_mut() {
            Some(back) if back.end.is_none() && run.end.is_none() => *back = run,
            _ => self.runs.push_back(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Incarnation = Incarnation(7);
    const NEXT: Incarnation = Incarnation(8);

    fn published(counts: &[(u64, u64)]) -> Acknowledgements {
        let mut messages = Acknowledgements::default();
        counts.iter().for_each(|(count, end)| messages.note_published(*count, OWN, Sequence(*end)));
        messages
    }

    /// Advances; returns what was dropped.
    fn advance(messages: &mut Acknowledgements, acknowledged: u64) -> Vec<RangeInclusive<u64>> {
        let mut dropped = Vec::new();
        messages.advance(OWN, Sequence(acknowledged), |numbers| dropped.push(numbers));
        dropped
    }

    #[test]
    fn a_place_in_the_stream_is_a_number() {
        // The other publication's messages have the places 10 to 14 and 18.
        let mut messages = published(&[(10, 10), (3, 18), (2, 21)]);
        for (acknowledged, passed) in [(0, 0), (4, 4), (10, 10), (14, 10), (16, 11), (18, 13), (20, 14), (21, 15)] {
            assert!(messages.is_under_way());
            assert_eq!(advance(&mut messages, acknowledged), []);
            assert_eq!(messages.passed(), passed, "up to {acknowledged}");
        }
        assert!(!messages.is_under_way());
    }

    #[test]
    fn rounds_of_one_publication_are_one_run() {
        let mut messages = Acknowledgements::default();
        for round in 1..=10_000 {
            messages.note_published(5, OWN, Sequence(100 + round * 5));
        }
        assert_eq!((messages.runs.len(), messages.taken()), (1, 50_000));
        advance(&mut messages, 101 + 7 * 5);
        assert_eq!(messages.passed(), 36);
    }

    #[test]
    fn runs_are_bounded_and_none_is_acknowledged_too_early() {
        let mut messages = Acknowledgements::default();
        let end = |number: u64| number * 3; // the places between are another publication's
        (1..=5_000).for_each(|number| messages.note_published(1, OWN, Sequence(end(number))));
        assert_eq!(messages.runs.len(), RUNS_MAX);
        for acknowledged in 0..=end(5_000) {
            advance(&mut messages, acknowledged);
            assert!(end(messages.passed()) <= acknowledged, "{} at {acknowledged}", messages.passed());
        }
        assert_eq!(messages.passed(), 5_000);
    }

    #[test]
    fn a_dropped_message_is_reported_once_all_before_it_are_acknowledged() {
        let mut messages = published(&[(3, 3)]);
        (0..2).for_each(|_| messages.note_dropped());
        messages.note_published(1, OWN, Sequence(4));
        assert_eq!(advance(&mut messages, 2), []);
        assert_eq!(messages.passed(), 2);
        assert_eq!(advance(&mut messages, 3), [4..=5]);
        assert_eq!(messages.passed(), 5);
        assert_eq!(advance(&mut messages, 4), []);
        assert_eq!((messages.passed(), messages.is_under_way()), (6, false));
    }

    #[test]
    fn what_an_earlier_incarnation_left_is_settled_or_lost() {
        let mut messages = published(&[(3, 3), (2, 7)]);
        messages.note_published(4, NEXT, Sequence(10));
        assert_eq!(advance(&mut messages, 2), []);
        messages.lose(OWN, Sequence(6)..Sequence(u64::MAX)); // of 4 and 5, the first was delivered
        let mut dropped = Vec::new();
        messages.advance(OWN, Sequence(6), |numbers| dropped.push(numbers));
        assert_eq!((messages.passed(), &dropped[..]), (5, &[5..=5][..]));
        messages.lose_earlier(NEXT);
        messages.advance(NEXT, Sequence(8), |numbers| dropped.push(numbers));
        assert_eq!((messages.passed(), dropped.len()), (7, 1));
    }

    #[test]
    fn a_gap_loses_what_was_published_in_it_and_nothing_behind_it() {
        let mut messages = published(&[(80, 100), (5, 105)]); // one run: the places 20 to 104
        messages.lose(OWN, Sequence(90)..Sequence(100));
        assert_eq!(advance(&mut messages, 95), [71..=80]);
        assert_eq!((messages.passed(), messages.is_under_way()), (80, true));
        assert_eq!(advance(&mut messages, 103), []);
        assert_eq!(messages.passed(), 83);
        messages.lose(OWN, Sequence(90)..Sequence(104)); // of what is under way, only 84 lies in it
        assert_eq!(advance(&mut messages, 105), [84..=84]);
        assert_eq!((messages.passed(), messages.is_under_way()), (85, false));
    }

    #[test]
    fn what_is_dropped_behind_messages_in_doubt_is_reported_and_not_acknowledged() {
        let mut messages = published(&[(3, 3)]);
        (0..2).for_each(|_| messages.note_dropped());
        let mut dropped = Vec::new();
        messages.give_up(|numbers| dropped.push(numbers));
        messages.note_dropped();
        messages.give_up(|numbers| dropped.push(numbers));
        assert_eq!((messages.passed(), messages.taken(), &dropped[..]), (0, 6, &[4..=5, 6..=6][..]));
        assert!(!messages.is_under_way());
    }

    #[test]
    fn what_was_never_settled_is_dropped_as_a_whole() {
        let mut messages = published(&[(3, 3), (2, 7)]);
        messages.note_published(4, NEXT, Sequence(4));
        messages.lose_earlier(NEXT);
        let mut dropped = Vec::new();
        messages.advance(NEXT, Sequence(0), |numbers| dropped.push(numbers));
        assert_eq!((messages.passed(), &dropped[..]), (5, &[1..=5][..]));
    }
}
