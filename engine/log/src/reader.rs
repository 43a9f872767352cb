//! Reads a log, also while its owner writes it.

use crate::damage::Damage;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::{Place, Record};
use crate::mutant::Mutant;
use crate::scan::{Item, Scan};
use crate::segment::{self, Segment};
use std::ops::ControlFlow;

/// How often the last segment is read until it shows no gap: its owner may be in the middle of a write.
const READS: usize = 3;

/// What a log holds, in the order of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record.
    Record(Record<'a>),
    /// Records that can't be read.
    Damage(Damage),
}

/// A log that is only read. A segment is in memory at a time.
#[derive(Debug)]
pub struct Reader<D> {
    disk: D,
    instance: u64,
    segments: Vec<Segment>,
}

impl<D: Disk> Reader<D> {
    /// Opens the log in this directory, whatever its instance.
    ///
    /// # Errors
    /// If there is none, a later release has written it, or it is of two instances.
    pub fn open(disk: D) -> Result<Self, Error> {
        let (segments, instance) = segment::list(&disk, None, None)?;
        let instance = instance.filter(|_| !segments.is_empty()).ok_or(Error::Empty)?;
        Ok(Self { disk, instance, segments })
    }

    /// The group's instance.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Its segments, the oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Hands out the records from this position on, and the damage among them, until `sink` breaks. Returns the
    /// position after the last.
    ///
    /// # Errors
    /// If a segment can't be opened.
    pub fn read(&self, from: u64, sink: impl FnMut(Entry<'_>) -> ControlFlow<()>) -> Result<u64, Error> {
        read(&self.disk, (&self.segments, self.instance, None), from, sink)
    }
}

/// Hands out the records of these segments of an instance.
pub(crate) fn read<D: Disk>(
    disk: &D,
    (segments, instance, mutant): (&[Segment], u64, Option<Mutant>),
    from: u64,
    mut sink: impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<u64, Error> {
    let mut end = segments.first().map_or(0, |segment| segment.first_position);
    for (index, segment) in segments.iter().enumerate() {
        let limit = segments.get(index + 1).map(|next| next.first_position);
        if limit.is_some_and(|limit| limit <= from) {
            continue;
        }
        let place = Place { instance, generation: segment.generation, mutant };
        let mut bytes = segment::read(disk, segment.generation)?;
        let mut synced = u64::MAX;
        if limit.is_none() {
            for _ in 1..READS {
                let tail = segment::tail(&bytes, place, segment.first_position);
                synced = tail.synced;
                if tail.damage.iter().all(|damage| damage.was_synced) {
                    break;
                }
                bytes = segment::read(disk, segment.generation)?;
            }
        }
        let mut scan = Scan::new(&bytes, place, segment.first_position, limit);
        for item in scan.by_ref() {
            let entry = match item {
                Item::Record { record, .. } if record.position < from => continue,
                Item::Record { record, .. } => Entry::Record(record),
                Item::Gap(gap) if gap.to <= from => continue,
                Item::Gap(gap) => Entry::Damage(Damage::new(gap, segment.generation, synced)),
            };
            if sink(entry).is_break() {
                return Ok(scan.position());
            }
        }
        end = scan.position();
    }
    Ok(end)
}
