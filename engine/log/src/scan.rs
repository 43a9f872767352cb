//! Reads the records of a segment, and finds what is missing. Pure: no input, no output.
//!
//! Positions have no gaps. So where no valid record of the next position stands, the scan searches for the next valid
//! record of a later one: if there is one, what stands between is damaged, and its range of positions is known. If
//! there is none, the log ends here. Blocks between two batches are skipped by the same search, and nothing is missing.

use crate::format::{ALIGN_BYTES, BLOCK_BYTES, DATA_START, Parsed, Place, Record, parse};
use crate::mutant::Mutant;

/// Records that are missing from a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first position that is missing.
    pub from: u64,
    /// The next one that is there.
    pub to: u64,
    /// The offset at which the damaged bytes begin.
    pub start: u64,
    /// The offset of the next valid record.
    pub end: u64,
}

/// What a scan finds, in the order of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A valid record.
    Record {
        /// The record.
        record: Record<'a>,
        /// The offset at which it begins.
        offset: u64,
        /// The offset after it.
        end: u64,
    },
    /// Records are missing.
    Gap(Gap),
}

/// A segment's records.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    bytes: &'a [u8],
    place: Place,
    /// Records from here on are the next segment's; `None` in the last segment.
    limit: Option<u64>,
    /// The position that comes next.
    position: u64,
    /// Where it should stand.
    offset: u64,
    /// All positions before this one were synced.
    synced: u64,
}

impl<'a> Scan<'a> {
    /// A scan of a segment's bytes, whose first record has position `first`. `limit` is the first position of the next
    /// segment.
    pub fn new(bytes: &'a [u8], place: Place, first: u64, limit: Option<u64>) -> Self {
        Self { bytes, place, limit, position: first, offset: DATA_START, synced: first }
    }

    /// The position after the last record that was found.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The offset after the last record or mark that was found.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The position up to which records found so far prove that the log was synced.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether a record stands at the end, and was not written to its end.
    pub fn is_torn(&self) -> bool {
        matches!(parse(self.bytes, self.place, self.offset), Parsed::Torn { .. })
    }

    /// The next valid record or mark at this offset or beyond it, with its position and offset.
    fn next_valid(&self) -> Option<(u64, u64)> {
        let next = |offset: u64| match parse(self.bytes, self.place, offset) {
            Parsed::Record { record, .. } if record.position >= self.position => Some((record.position, offset)),
            Parsed::Mark { position, .. } if position >= self.position => Some((position, offset)),
            _ => None,
        };
        // Most often the batch ended, and the next begins at the next block.
        let block = self.offset.next_multiple_of(BLOCK_BYTES as u64);
        if let Some(found) = next(block).filter(|(position, _)| *position == self.position) {
            return Some(found);
        }
        if self.place.mutant == Some(Mutant::CutAtFirstDamage) {
            return None;
        }
        (self.offset..self.bytes.len() as u64).step_by(ALIGN_BYTES).find_map(next)
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            if self.limit.is_some_and(|limit| self.position >= limit) {
                return None;
            }
            match parse(self.bytes, self.place, self.offset) {
                Parsed::Record { record, synced, end } if record.position == self.position => {
                    let offset = std::mem::replace(&mut self.offset, end);
                    self.position += 1;
                    self.synced = self.synced.max(synced);
                    return Some(Item::Record { record, offset, end });
                }
                Parsed::Mark { position, end } if position == self.position => {
                    self.offset = end;
                    self.synced = self.synced.max(position);
                    continue;
                }
                _ => {}
            }
            let from = self.position;
            let (to, end) = match (self.next_valid(), self.limit) {
                (Some((position, offset)), limit) if limit.is_none_or(|limit| position <= limit) => (position, offset),
                (_, Some(limit)) => (limit, self.bytes.len() as u64),
                (_, None) => return None,
            };
            let start = std::mem::replace(&mut self.offset, end);
            self.position = to;
            if to > from {
                return Some(Item::Gap(Gap { from, to, start, end }));
            }
        }
    }
}
