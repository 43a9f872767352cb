//! Segments and records as bytes. Pure: no input, no output.
//!
//! A segment is a block with its header, then records. All numbers are little-endian. Sizes, and what a checksum covers
//! and why, stand in `docs/log.md`.

use crate::mutant::Mutant;
use crc32c::crc32c_append;

/// The version of the format. A segment of a later one is refused.
pub const VERSION: u32 = 1;
/// Writes that are synced apart share no block: the disk may destroy a block in which it was writing when power failed.
/// As large as the sectors of any disk in use, and as the kernel's pages.
pub const BLOCK_BYTES: usize = 4096;
/// Where the first record of a segment stands: the header has a block of its own.
pub const DATA_START: u64 = BLOCK_BYTES as u64;
/// Bytes in front of the payload of each record.
pub const RECORD_HEADER_BYTES: usize = 48;
/// The longest payload of a record: a segment of the smallest usual size, 64 MiB, still takes several.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
/// Records begin at multiples of this: a search for the next valid record tries an eighth of all offsets.
pub const ALIGN_BYTES: usize = 8;
/// What a decoder of segment headers needs.
pub const SEGMENT_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"bourdlog";
const RECORD: u32 = u32::from_le_bytes(*b"bRec");
const MARK: u32 = u32::from_le_bytes(*b"bMrk");

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(ALIGN_BYTES) && BLOCK_BYTES.is_multiple_of(ALIGN_BYTES));
const _: () = assert!(SEGMENT_HEADER_BYTES <= BLOCK_BYTES);

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Grows with each use of a segment's file; also its name.
    pub generation: u64,
    /// The group's instance.
    pub instance: u64,
    /// The position of its first record. All records before it were synced when the segment was created.
    pub first_position: u64,
    /// When its first record was written, by the owner's clock.
    pub time_ns: u64,
    /// The length of the file when it was created.
    pub capacity_bytes: u64,
}

/// Why bytes are no header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// They are damaged, or were never a header.
    Damaged,
    /// They are a header of this later version.
    Future(u32),
}

impl SegmentHeader {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [self.generation, self.instance, self.first_position, self.time_ns, self.capacity_bytes];
        for (slot, number) in bytes[16..56].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header that these bytes begin with. Magic, version and checksum have their place in every version to come.
    ///
    /// # Errors
    /// See [`HeaderFault`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(HeaderFault::Damaged)?;
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(HeaderFault::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderFault::Future(version));
        }
        let [generation, instance, first_position, time_ns, capacity_bytes] =
            [16, 24, 32, 40, 48].map(|at| u64_at(bytes, at));
        Ok(Self { generation, instance, first_position, time_ns, capacity_bytes })
    }
}

/// Where a record stands: what its checksum covers beside its own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group's instance.
    pub instance: u64,
    /// The segment's generation.
    pub generation: u64,
    /// A bug for tests.
    pub mutant: Option<Mutant>,
}

impl Place {
    fn checksum(&self, offset: u64) -> u32 {
        let without = self.mutant == Some(Mutant::ChecksumWithoutGeneration);
        let generation = if without { 0 } else { self.generation };
        [self.instance, generation, offset].iter().fold(0, |sum, number| crc32c_append(sum, &number.to_le_bytes()))
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the log: positions have no gaps.
    pub position: u64,
    /// The epoch in which it was ordered.
    pub epoch: u64,
    /// When it was written, or published, by the owner's clock.
    pub time_ns: u64,
    /// The payload.
    pub bytes: &'a [u8],
}

/// What stands at an offset of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A valid record, which ends at `end`. All positions before `synced` were synced when it was written.
    Record {
        /// The record.
        record: Record<'a>,
        /// The position up to which the log was synced.
        synced: u64,
        /// The offset at which the next record may begin.
        end: u64,
    },
    /// A statement that all positions before this one were synced.
    Mark {
        /// That position, also the next record's.
        position: u64,
        /// The offset at which the next record may begin.
        end: u64,
    },
    /// The valid header of a record whose payload is not valid.
    Torn {
        /// The record's position.
        position: u64,
    },
    /// Nothing valid.
    Nothing,
}

/// How many bytes a record with a payload of this length takes.
pub fn encoded_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes.next_multiple_of(ALIGN_BYTES)
}

/// Appends a record that will stand at this offset of its segment.
pub fn encode(out: &mut Vec<u8>, place: Place, offset: u64, record: &Record<'_>, synced: u64) {
    push(out, RECORD, place, offset, record, synced);
}

/// Appends a mark: all positions before this one are synced.
pub fn encode_mark(out: &mut Vec<u8>, place: Place, offset: u64, position: u64) {
    push(out, MARK, place, offset, &Record { position, epoch: 0, time_ns: 0, bytes: &[] }, position);
}

fn push(out: &mut Vec<u8>, kind: u32, place: Place, offset: u64, record: &Record<'_>, synced: u64) {
    debug_assert!(record.bytes.len() <= MAX_RECORD_BYTES && offset.is_multiple_of(ALIGN_BYTES as u64));
    let mut header = [0; RECORD_HEADER_BYTES];
    header[8..12].copy_from_slice(&kind.to_le_bytes());
    header[12..16].copy_from_slice(&(record.bytes.len() as u32).to_le_bytes());
    for (slot, number) in
        header[16..48].chunks_exact_mut(8).zip([record.position, record.epoch, record.time_ns, synced])
    {
        slot.copy_from_slice(&number.to_le_bytes());
    }
    let of_header = crc32c_append(place.checksum(offset), &header[8..]);
    let of_all = crc32c_append(of_header, record.bytes);
    header[0..4].copy_from_slice(&of_header.to_le_bytes());
    header[4..8].copy_from_slice(&of_all.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(record.bytes);
    out.resize(out.len().next_multiple_of(ALIGN_BYTES), 0);
}

/// What stands at this offset of a segment with these bytes. Total: any bytes have an answer.
///
/// The header has a checksum of its own, so that a search through a damaged part costs one short checksum for each
/// offset that looks like a record, however long its payload claims to be.
pub fn parse(bytes: &[u8], place: Place, offset: u64) -> Parsed<'_> {
    let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    let Some(header) = rest.get(..RECORD_HEADER_BYTES) else { return Parsed::Nothing };
    let kind = u32_at(header, 8);
    if kind != RECORD && kind != MARK {
        return Parsed::Nothing;
    }
    let of_header = crc32c_append(place.checksum(offset), &header[8..]);
    if of_header != u32_at(header, 0) {
        return Parsed::Nothing;
    }
    let length = u32_at(header, 12) as usize;
    let [position, epoch, time_ns, synced] = [16, 24, 32, 40].map(|at| u64_at(header, at));
    let end = offset + encoded_bytes(length) as u64;
    if kind == MARK {
        return if length == 0 { Parsed::Mark { position, end } } else { Parsed::Nothing };
    }
    match rest.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length) {
        Some(payload) if crc32c_append(of_header, payload) == u32_at(header, 4) => {
            Parsed::Record { record: Record { position, epoch, time_ns, bytes: payload }, synced, end }
        }
        _ => Parsed::Torn { position },
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
