//! Where records start in a ring that is overwritten: one place in each part of it.
//!
//! **Problem.** A producer that makes room gives up whole records, and has to find where the next one starts.
//! **Why the obvious way fails.** Walking over the old records reads memory that has long left the cache; a list of all
//! starts is as long as the ring has records.
//! **What this does.** The ring has sixteen segments, and the first start in each is remembered. Room is then made a
//! segment at a time, so that readers nearly always find the position of the oldest record in their own cache; up to a
//! sixteenth of the ring is given up early.
//! **Invariant.** A start is added after all that are below it.

/// Parts of the ring. A power of two.
pub(crate) const SEGMENTS: usize = 16;

pub(crate) struct Marks {
    /// Where the first record of each segment starts, in the lap it was last written.
    starts: [u64; SEGMENTS],
    /// The segment last marked, counted over all laps.
    newest: u64,
    segment_bytes: u64,
}

impl Marks {
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        Self { starts: [0; SEGMENTS], newest: 0, segment_bytes: (capacity_bytes / SEGMENTS) as u64 }
    }

    /// Remembers a record's start if it is the first of its segment.
    #[inline]
    pub(crate) fn add(&mut self, start: u64) {
        let segment = start / self.segment_bytes;
        if segment != self.newest {
            self.newest = segment;
            self.starts[segment as usize % SEGMENTS] = start;
        }
    }

    /// The first start known that is not below `needed`.
    pub(crate) fn first_from(&self, needed: u64) -> Option<u64> {
        (needed / self.segment_bytes..=self.newest).find_map(|segment| {
            let start = self.starts[segment as usize % SEGMENTS];
            // A segment in which no record starts holds the mark of an earlier lap, or later marks replaced it.
            (start / self.segment_bytes == segment && start >= needed).then_some(start)
        })
    }
}
