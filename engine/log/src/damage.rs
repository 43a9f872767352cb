//! Damage of a segment: which records can't be read, and where their bytes stand.

use crate::scan::Gap;
use std::fmt;

/// The end of a segment's name.
pub(crate) const SUFFIX: &str = ".segment";

/// The name of a segment's file.
pub(crate) fn name(generation: u64) -> String {
    format!("{generation:016x}{SUFFIX}")
}

/// Records that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first position that can't be read.
    pub from: u64,
    /// The next one that can.
    pub to: u64,
    /// The generation of the segment.
    pub generation: u64,
    /// The offset in it at which the damaged bytes begin.
    pub start: u64,
    /// The offset at which they end.
    pub end: u64,
    /// Whether the first of these records was synced. If not, it may never have been written: a crash left later
    /// records of the same batch on disk.
    pub was_synced: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, start, end, .. } = self;
        write!(f, "at positions {from} to {} (bytes {start} to {end} of {})", to - 1, name(self.generation))
    }
}

impl Damage {
    pub(crate) fn new(gap: Gap, generation: u64, synced: u64) -> Self {
        let Gap { from, to, start, end } = gap;
        Self { from, to, generation, start, end, was_synced: from < synced }
    }
}
