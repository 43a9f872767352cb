//! Reads an archive, also while it is recorded.

use crate::entry::Entry;
use crate::error::Error;
use bourdon_log::{Damage, Directory, Entry as Stored, Reader, Record, Segment};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What stands next in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archived<'a> {
    /// A record, and its content; none if a later release wrote it, or it is no archive's.
    Record(Record<'a>, Option<Entry<'a>>),
    /// Records that can't be read.
    Damage(Damage),
}

/// An archive that is only read.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    reader: Reader<Directory>,
}

impl Archive {
    /// Opens the archive in this directory, as it is now.
    ///
    /// # Errors
    /// If there is none, or it can't be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Open { path: path.into(), source };
        let directory = Directory::read(path).map_err(Error::Directory)?;
        Ok(Self { path: path.into(), reader: Reader::open(directory).map_err(failed)? })
    }

    /// The group's instance.
    pub fn instance(&self) -> u64 {
        self.reader.instance()
    }

    /// Its segments, the oldest first.
    pub fn segments(&self) -> &[Segment] {
        self.reader.segments()
    }

    /// Hands out what stands there from this position on, until `sink` breaks. Returns the position after the last.
    ///
    /// # Errors
    /// If a segment can't be opened.
    pub fn read(&self, from: u64, mut sink: impl FnMut(Archived<'_>) -> ControlFlow<()>) -> Result<u64, Error> {
        let read = self.reader.read(from, |stored| match stored {
            Stored::Record(record) => sink(Archived::Record(record, Entry::decode(record.bytes))),
            Stored::Damage(damage) => sink(Archived::Damage(damage)),
        });
        read.map_err(|source| Error::Read { path: self.path.clone(), source })
    }

    /// The last position from `from` on, to a segment, such that nothing of this place in the order or beyond it stands
    /// before. A subscription that was live for hours need not read all that it has delivered.
    ///
    /// # Errors
    /// As of [`Archive::read`].
    pub fn seek(&self, from: u64, (epoch, order): (u64, u64)) -> Result<u64, Error> {
        let firsts: Vec<u64> = self.segments().iter().map(|segment| segment.first_position).collect();
        let (mut low, mut high) = (firsts.partition_point(|first| *first <= from), firsts.len());
        // Every segment before `low` begins before the place; the one at `high`, and those after it, do not.
        while low < high {
            let middle = low + (high - low) / 2;
            let mut begins = None;
            self.read(firsts[middle], |archived| match archived {
                Archived::Record(Record { epoch, .. }, Some(Entry::Message(message))) if message.order.is_some() => {
                    begins = message.order.map(|order| (epoch, order));
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            })?;
            if begins.is_some_and(|begins| begins < (epoch, order)) { low = middle + 1 } else { high = middle }
        }
        Ok(low.checked_sub(1).map_or(from, |segment| firsts[segment].max(from)))
    }
}
