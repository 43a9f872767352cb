//! A cut: how far each stream of an epoch is delivered before the next view.
//!
//! The data plane reports as a cut what it holds; the ballots decide as a cut what all deliver. For each stream it has
//! the first datagram that is not in it, before which there is no gap. If messages are delivered unordered, it also has
//! ranges of datagrams beyond gaps.
//!
//! Invariant: in a cut that was united no range begins at the end of its stream or at the end of another range; except
//! that two adjacent ranges stay two if their datagrams are too many for one range's counter.

use alloc::vec::Vec;
use bourdon_wire::{DatagramNumber, Rank};

/// Datagrams of one stream beyond a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// Whose stream.
    pub rank: Rank,
    /// The first of them.
    pub first: DatagramNumber,
    /// How many there are.
    pub count: u16,
}

/// Datagrams of all streams of an epoch: what a member holds, or what must be delivered before the next view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cut {
    /// By rank: every datagram below.
    pub ends: Vec<DatagramNumber>,
    /// Also these, if messages are delivered unordered.
    pub ranges: Vec<Range>,
    /// How many barriers have been reached, and are therefore complete at the cut.
    pub phase: u64,
}

impl Range {
    /// One past the last.
    pub(crate) fn end(&self) -> DatagramNumber {
        self.first + u64::from(self.count)
    }

    /// The datagrams of the range that are not below a number.
    pub(crate) fn numbers_from(&self, least: DatagramNumber) -> impl Iterator<Item = DatagramNumber> + use<> {
        (self.first.max(least).0..self.end().0).map(DatagramNumber)
    }

    /// Whether a datagram of a stream is in the cut.
    pub(crate) fn has(&self, rank: Rank, number: DatagramNumber) -> bool {
        self.rank == rank && number >= self.first && number < self.end()
    }
}

impl Cut {
    /// Joins ranges that meet, and moves the ends over ranges that follow them without a gap.
    pub(crate) fn unite(&mut self) {
        self.ranges.sort_unstable();
        let mut united: Vec<Range> = Vec::with_capacity(self.ranges.len());
        for range in self.ranges.drain(..) {
            let end = range.end();
            match self.ends.get_mut(range.rank.index()) {
                Some(known) if range.first <= *known => {
                    *known = (*known).max(end);
                    continue;
                }
                Some(_) => {}
                None => continue,
            }
            match united.last_mut() {
                // Datagrams that can't be counted in one range stay in two.
                Some(last)
                    if last.rank == range.rank
                        && range.first <= last.end()
                        && end.since(last.first) <= u64::from(u16::MAX) =>
                {
                    last.count = end.max(last.end()).since(last.first) as u16;
                }
                _ => united.push(range),
            }
        }
        self.ranges = united;
        let countable = |range: &Range, next: &Range| next.end().since(range.first) <= u64::from(u16::MAX);
        let meets = |range: &Range, next: &Range| range.rank == next.rank && next.first <= range.end();
        let apart = |pair: &[Range]| !meets(&pair[0], &pair[1]) || !countable(&pair[0], &pair[1]);
        assert!(self.ranges.windows(2).all(apart), "ranges that meet are one range");
        let is_beyond = |range: &Range| self.ends.get(range.rank.index()).is_some_and(|end| range.first > *end);
        assert!(self.ranges.iter().all(is_beyond), "a range begins beyond a gap");
    }
}
