//! The segments of a directory: their names, headers and bytes, and what is damaged in them.

use crate::damage::{Damage, SUFFIX, name};
use crate::disk::{Disk, File};
use crate::error::Error;
use crate::format::{BLOCK_BYTES, DATA_START, HeaderFault, Parsed, Place, SegmentHeader, parse};
use crate::mutant::Mutant;
use crate::scan::{Item, Scan};
use std::io;

/// A segment that is created: it gets its name once its header is synced.
pub(crate) const CREATED: &str = "created";
/// A file that is filled with zeros beside the appends, for the next segment.
pub(crate) const PREPARED: &str = "prepared";
/// A segment of which all records have expired: the next one takes its file.
pub(crate) const SPARE: &str = "spare";

/// One segment of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its generation, which also is its name.
    pub generation: u64,
    /// The position of its first record.
    pub first_position: u64,
    /// When its first record was written, by the owner's clock.
    pub time_ns: u64,
    /// The length of its file.
    pub bytes: u64,
    /// Whether its header is damaged; its name and its records gave what the header would.
    pub header_is_damaged: bool,
}

impl Segment {
    /// The name of its file.
    pub fn name(&self) -> String {
        name(self.generation)
    }
}

/// What the last segment of a log holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The position after its last record.
    pub(crate) end: u64,
    /// The offset after its last record or mark.
    pub(crate) end_offset: u64,
    /// All records before this position were synced.
    pub(crate) synced: u64,
    /// Where bytes stand of which it is not known whether they are on disk.
    pub(crate) unproved: Vec<(u64, u64)>,
    /// What is damaged.
    pub(crate) damage: Vec<Damage>,
    /// Whether a record at the end was not written to its end.
    pub(crate) is_torn: bool,
}

pub(crate) fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The segments of a directory, the oldest first, and their instance. Their records are not read, except where a header
/// is damaged.
pub(crate) fn list<D: Disk>(
    disk: &D,
    expected: Option<u64>,
    mutant: Option<Mutant>,
) -> Result<(Vec<Segment>, Option<u64>), Error> {
    let names = disk.list().map_err(Error::failed("listing the directory"))?;
    let mut generations: Vec<u64> = names.iter().filter_map(|name| generation_of(name)).collect();
    generations.sort_unstable();
    let mut headers = Vec::new();
    for generation in generations {
        headers.push((generation, read_header(disk, generation)?));
    }
    let instance = expected.or_else(|| headers.iter().find_map(|(_, (header, _))| header.map(|h| h.instance)));
    let mut segments: Vec<Segment> = Vec::new();
    for (generation, (header, bytes)) in headers {
        let segment = match header {
            Some(header) => {
                if let Some(expected) = instance.filter(|expected| *expected != header.instance) {
                    let (segment, found) = (name(generation), header.instance);
                    return Err(Error::OtherInstance { segment, found, expected });
                }
                let SegmentHeader { first_position, time_ns, .. } = header;
                Segment { generation, first_position, time_ns, bytes, header_is_damaged: false }
            }
            None => {
                let place = Place { instance: instance.unwrap_or(0), generation, mutant };
                without_header(disk, place, bytes, segments.last())?
            }
        };
        if segments.last().is_some_and(|last| last.first_position > segment.first_position) {
            return Err(Error::Mixed { segment: name(generation) });
        }
        segments.push(segment);
    }
    Ok((segments, instance))
}

/// A segment's header, unless it is damaged, and the length of its file.
fn read_header<D: Disk>(disk: &D, generation: u64) -> Result<(Option<SegmentHeader>, u64), Error> {
    let file = disk.open(&name(generation)).map_err(Error::failed("opening a segment"))?;
    let length = file.length().map_err(Error::failed("reading a segment's length"))?;
    let mut block = vec![0; BLOCK_BYTES.min(length as usize)];
    if file.read_at(&mut block, 0).is_err() {
        return Ok((None, length));
    }
    match SegmentHeader::decode(&block) {
        Ok(header) if header.generation == generation => Ok((Some(header), length)),
        Err(HeaderFault::Future(version)) => Err(Error::Future { segment: name(generation), version }),
        _ => Ok((None, length)),
    }
}

/// A segment whose header is damaged, from its name, its records, and the segment before it.
fn without_header<D: Disk>(disk: &D, place: Place, bytes: u64, before: Option<&Segment>) -> Result<Segment, Error> {
    let generation = place.generation;
    let content = read(disk, generation)?;
    let found = match parse(&content, place, DATA_START) {
        Parsed::Record { record, .. } => Some((record.position, record.time_ns)),
        _ => match before {
            Some(before) => {
                let content = read(disk, before.generation)?;
                let place = Place { generation: before.generation, ..place };
                Some((tail(&content, place, before.first_position).end, before.time_ns))
            }
            None => match Scan::new(&content, place, 0, None).next() {
                Some(Item::Record { record, .. }) => Some((record.position, record.time_ns)),
                Some(Item::Gap(gap)) => Some((gap.to, 0)),
                None => None,
            },
        },
    };
    let Some((first_position, time_ns)) = found else {
        return Err(Error::Unreadable { segment: name(generation) });
    };
    Ok(Segment { generation, first_position, time_ns, bytes, header_is_damaged: true })
}

/// All bytes of a segment. Blocks that the disk can't read are zeros, in which the scan finds no record.
pub(crate) fn read<D: Disk>(disk: &D, generation: u64) -> Result<Vec<u8>, Error> {
    let file = disk.open(&name(generation)).map_err(Error::failed("opening a segment"))?;
    let length = file.length().map_err(Error::failed("reading a segment's length"))?;
    let mut bytes = vec![0; length as usize];
    if file.read_at(&mut bytes, 0).is_ok() {
        return Ok(bytes);
    }
    for (index, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        if file.read_at(block, (index * BLOCK_BYTES) as u64).is_err() {
            block.fill(0);
        }
    }
    Ok(bytes)
}

/// Reads the last segment of a log. Pure.
pub(crate) fn tail(bytes: &[u8], place: Place, first: u64) -> Tail {
    let mut scan = Scan::new(bytes, place, first, None);
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    for item in scan.by_ref() {
        match item {
            Item::Record { record, offset, end } => records.push((record.position, offset, end)),
            Item::Gap(gap) => gaps.push(gap),
        }
    }
    let synced = scan.synced();
    let mut unproved: Vec<(u64, u64)> = Vec::new();
    for (_, offset, end) in records.into_iter().filter(|(position, ..)| *position >= synced) {
        match unproved.last_mut().filter(|(_, last)| *last == offset) {
            Some((_, last)) => *last = end,
            None => unproved.push((offset, end)),
        }
    }
    Tail {
        end: scan.position(),
        end_offset: scan.offset(),
        synced,
        unproved,
        damage: gaps.into_iter().map(|gap| Damage::new(gap, place.generation, synced)).collect(),
        is_torn: scan.is_torn(),
    }
}

/// Whether a write failed because there is no such file.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
