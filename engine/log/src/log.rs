//! The log as its owner has it: appends, syncs, recovers, repairs, removes what has expired.

use crate::damage::{self, Damage};
use crate::disk::{Disk, File};
use crate::error::Error;
use crate::format::{self, BLOCK_BYTES, DATA_START, MAX_RECORD_BYTES, Place, Record, SegmentHeader};
use crate::mutant::Mutant;
use crate::reader::{self, Entry};
use crate::scan::{Item, Scan};
use crate::segment::{self, CREATED, PREPARED, SPARE, Segment, is_missing};
use std::ops::ControlFlow;

/// The shortest segment: a header and a few blocks.
const MIN_SEGMENT_BYTES: u64 = 4 * BLOCK_BYTES as u64;
/// The longest segment: readers have one in memory.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// How much is appended before it is written, synced or not.
const BUFFER_BYTES: usize = 1 << 20;
/// Each segment has room for a mark at its end.
const MARK_BYTES: u64 = BLOCK_BYTES as u64;

/// What a log is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The group's instance: a directory of another one is refused.
    pub instance: u64,
    /// The position of the first record of a new log. Default: 0.
    pub first_position: u64,
    /// The length of new segments. Default: 64 MiB.
    pub segment_bytes: u64,
    /// A bug for tests.
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

impl Settings {
    /// The defaults for this instance of a group.
    pub fn new(instance: u64) -> Self {
        Self { instance, first_position: 0, segment_bytes: 64 << 20, mutant: None }
    }
}

/// What was found when a log was opened. Damage in segments before the last is found when they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The position after the last record.
    pub end: u64,
    /// All records before this position are known to have been synced; those from here on to the end may have been.
    pub synced: u64,
    /// What is damaged in the last segment.
    pub damage: Vec<Damage>,
    /// Whether the log ended with a record that was not written to its end. It was cut.
    pub was_torn: bool,
    /// The names of the segments whose headers were damaged and have been written again.
    pub headers_mended: Vec<String>,
}

/// How much of a log to keep. The last segment is always kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// The total length of segments.
    pub bytes: Option<u64>,
    /// The age of the newest record of a segment.
    pub age_ns: Option<u64>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many segments.
    pub segments: usize,
    /// Their length.
    pub bytes: u64,
}

/// The segment that is written.
#[derive(Debug)]
struct Active<F> {
    file: F,
    place: Place,
    /// Where the buffer will stand.
    offset: u64,
    /// Appended and not yet written.
    buffer: Vec<u8>,
    capacity: u64,
}

/// Fills the file of the next segment, on any thread, while the owner of the log appends: see
/// [`Log::note_prepared`]. One thread at a time.
///
/// # Errors
/// If the disk is full, or a write fails: nothing is left of it.
pub fn prepare<D: Disk>(disk: &D, segment_bytes: u64) -> Result<(), Error> {
    let prepared = disk.create(PREPARED).and_then(|file| {
        let zeros = vec![0; PREPARED_STEP_BYTES];
        for offset in (0..segment_bytes).step_by(PREPARED_STEP_BYTES) {
            let bytes = zeros.len().min((segment_bytes - offset) as usize);
            file.write_at(&zeros[..bytes], offset)?;
            file.sync()?;
        }
        Ok(())
    });
    prepared.map_err(|error| {
        let _ = disk.remove(PREPARED);
        Error::of_write("preparing a segment", segment_bytes, error)
    })
}

/// So much of a segment is filled between two syncs: more at once would hold up the syncs of the log.
const PREPARED_STEP_BYTES: usize = 1 << 20;

/// The next segment is prepared from this part of a segment on: filling it takes as long as writing one, and a node
/// that ends soon has no use for it.
const PREPARED_FROM: u64 = 4;

/// A log and its directory.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    settings: Settings,
    segments: Vec<Segment>,
    active: Option<Active<D::File>>,
    /// The last segment of an earlier run, and where its records end: the rest of its file is cut off.
    trim: Option<(u64, u64)>,
    /// Whether the file of the next segment is filled already.
    is_prepared: bool,
    next: u64,
    synced: u64,
    /// The position of the last mark.
    marked: u64,
    has_failed: bool,
    recovery: Recovery,
}

impl<D: Disk> Log<D> {
    /// Opens the log in this directory, or begins one.
    ///
    /// Only the headers and the last segment are read. Its records of which it is not known whether they are on disk,
    /// or only in the kernel's pages, are written again and synced.
    ///
    /// # Errors
    /// If the log is another instance's, a later release's, or can't be read or written.
    pub fn open(disk: D, settings: Settings) -> Result<Self, Error> {
        let (bytes, min, max) = (settings.segment_bytes, MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
        if !(min..=max).contains(&bytes) || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(Error::SegmentBytes { bytes, min, max });
        }
        let (segments, _) = segment::list(&disk, Some(settings.instance), settings.mutant)?;
        let (first, recovery) = (settings.first_position, Recovery::default());
        let mut log = Self {
            disk,
            settings,
            segments,
            active: None,
            trim: None,
            is_prepared: false,
            next: first,
            synced: first,
            marked: first,
            has_failed: false,
            recovery: Recovery { end: first, synced: first, ..recovery },
        };
        log.remove(CREATED)?;
        log.remove(PREPARED)?;
        log.mend_headers()?;
        log.recover()?;
        Ok(log)
    }

    /// Reads the last segment and makes sure that its records are on disk.
    fn recover(&mut self) -> Result<(), Error> {
        let Some(last) = self.segments.last() else { return Ok(()) };
        let generation = last.generation;
        let bytes = segment::read(&self.disk, generation)?;
        let tail = segment::tail(&bytes, self.place(generation), last.first_position);
        let file = self.disk.open(&last.name()).map_err(Error::failed("opening a segment"))?;
        if self.settings.mutant != Some(Mutant::TrustPagesAtOpen) {
            for (start, end) in &tail.unproved {
                let again = &bytes[*start as usize..*end as usize];
                file.write_at(again, *start).map_err(Error::failed("writing the end of the log again"))?;
            }
        }
        file.sync().map_err(Error::failed("syncing the end of the log"))?;
        self.disk.sync().map_err(Error::failed("syncing the directory"))?;
        self.trim = Some((generation, tail.end_offset.next_multiple_of(BLOCK_BYTES as u64)));
        (self.next, self.synced, self.marked) = (tail.end, tail.end, tail.synced);
        let (end, synced, damage, was_torn) = (tail.end, tail.synced, tail.damage, tail.is_torn);
        self.recovery = Recovery { end, synced, damage, was_torn, ..std::mem::take(&mut self.recovery) };
        Ok(())
    }

    fn mend_headers(&mut self) -> Result<(), Error> {
        let instance = self.settings.instance;
        for segment in self.segments.iter_mut().filter(|segment| segment.header_is_damaged) {
            let Segment { generation, first_position, time_ns, bytes, .. } = *segment;
            let header = SegmentHeader { generation, instance, first_position, time_ns, capacity_bytes: bytes };
            let file = self.disk.open(&segment.name()).map_err(Error::failed("opening a segment"))?;
            file.write_at(&header.encode(), 0).map_err(Error::failed("writing a segment's header again"))?;
            file.sync().map_err(Error::failed("syncing a segment's header"))?;
            segment.header_is_damaged = false;
            self.recovery.headers_mended.push(segment.name());
        }
        Ok(())
    }

    /// What was found when the log was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Its segments, the oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The position of the oldest record that is kept.
    pub fn first(&self) -> u64 {
        self.segments.first().map_or(self.next, |segment| segment.first_position)
    }

    /// The position that the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// All records before this position survive a crash.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Appends a record and returns its position. It may survive a crash from now on, and does once
    /// [`sync`](Self::sync) has returned.
    ///
    /// # Errors
    /// If the record is too long, the disk is full (the record is not appended, and nothing is lost), or a write has
    /// failed, now or earlier.
    pub fn append(&mut self, epoch: u64, time_ns: u64, bytes: &[u8]) -> Result<u64, Error> {
        self.check()?;
        let room = self.settings.segment_bytes - DATA_START - MARK_BYTES;
        let max = MAX_RECORD_BYTES.min(room as usize - format::encoded_bytes(0));
        if bytes.len() > max {
            return Err(Error::TooLong { length: bytes.len(), max });
        }
        let length = format::encoded_bytes(bytes.len()) as u64;
        let fits =
            |active: &Active<_>| active.offset + active.buffer.len() as u64 + length + MARK_BYTES <= active.capacity;
        if !self.active.as_ref().is_some_and(fits) {
            self.begin_segment(time_ns)?;
        }
        let is_full = |active: &Active<_>| active.buffer.len() >= BUFFER_BYTES;
        if self.active.as_ref().is_some_and(is_full) {
            self.write()?;
        }
        let active = self.active.as_mut().expect("a segment was begun");
        let record = Record { position: self.next, epoch, time_ns, bytes };
        let offset = active.offset + active.buffer.len() as u64;
        format::encode(&mut active.buffer, active.place, offset, &record, self.synced);
        self.next += 1;
        Ok(record.position)
    }

    /// Makes all records appended so far survive a crash, and returns the position after the last of them. One sync
    /// serves them all; without a new record it costs nothing.
    ///
    /// # Errors
    /// If the disk is full (nothing is lost, and the call can be made again), or a write or sync has failed. The log
    /// then refuses everything: the kernel may have dropped what was written, so the owner must end as by a crash.
    pub fn sync(&mut self) -> Result<u64, Error> {
        self.check()?;
        if self.synced == self.next {
            return Ok(self.synced);
        }
        self.sync_file()?;
        self.synced = self.next;
        Ok(self.synced)
    }

    /// Syncs, and writes that all records are synced, so that damage at the very end is not taken for records that
    /// were never synced. For an owner that expects no record for a while, or ends.
    ///
    /// # Errors
    /// As of [`sync`](Self::sync).
    pub fn mark(&mut self) -> Result<(), Error> {
        self.sync()?;
        let Some(active) = self.active.as_mut().filter(|_| self.marked < self.synced) else { return Ok(()) };
        let offset = active.offset + active.buffer.len() as u64;
        if offset + MARK_BYTES > active.capacity {
            return Ok(()); // a second mark; the header of the next segment states it as well
        }
        format::encode_mark(&mut active.buffer, active.place, offset, self.synced);
        self.sync_file()?;
        self.marked = self.synced;
        Ok(())
    }

    /// Syncs, marks and ends.
    ///
    /// # Errors
    /// As of [`sync`](Self::sync).
    pub fn close(mut self) -> Result<(), Error> {
        self.mark()
    }

    fn check(&self) -> Result<(), Error> {
        if self.has_failed { Err(Error::FailedBefore) } else { Ok(()) }
    }

    /// Notes a failure: after any but a full disk it is not known what is on disk.
    fn fail(&mut self, error: Error) -> Error {
        self.has_failed = !error.is_full() && self.settings.mutant != Some(Mutant::ContinueAfterFailedSync);
        error
    }

    fn sync_file(&mut self) -> Result<(), Error> {
        let Some(active) = self.active.as_mut() else { return Ok(()) };
        if self.settings.mutant != Some(Mutant::ShareBlockBetweenBatches) {
            let end = active.offset as usize + active.buffer.len();
            active.buffer.resize(end.next_multiple_of(BLOCK_BYTES) - active.offset as usize, 0);
        }
        self.write()?;
        if self.settings.mutant == Some(Mutant::AcknowledgeBeforeSync) {
            return Ok(());
        }
        let synced = self.active.as_ref().map_or(Ok(()), |active| active.file.sync());
        synced.map_err(|error| self.fail(Error::Failed { doing: "syncing a segment", source: error }))
    }

    /// Writes what was appended. If the disk is full, the same bytes are written to the same place the next time.
    fn write(&mut self) -> Result<(), Error> {
        let Some(active) = self.active.as_mut() else { return Ok(()) };
        let length = active.buffer.len() as u64;
        if let Err(error) = active.file.write_at(&active.buffer, active.offset) {
            return Err(self.fail(Error::of_write("writing records", length, error)));
        }
        active.offset += length;
        active.buffer.clear();
        Ok(())
    }

    /// Begins the next segment. All records before it are synced first, so its header proves them.
    fn begin_segment(&mut self, time_ns: u64) -> Result<(), Error> {
        self.sync()?;
        if let Some((generation, offset)) = self.trim.filter(|_| self.settings.mutant == Some(Mutant::WriteOnAfterCut))
        {
            return self.write_on(generation, offset);
        }
        let (segment, file) = match self.create_segment(time_ns) {
            Ok(created) => created,
            Err(error) => {
                let _ = self.disk.remove(CREATED); // if that fails too, the next open removes it
                return Err(self.fail(error));
            }
        };
        let place = self.place(segment.generation);
        let (offset, buffer, capacity) = (DATA_START, Vec::new(), segment.bytes);
        self.active = Some(Active { file, place, offset, buffer, capacity });
        self.segments.push(segment);
        self.marked = self.next;
        if let Some((generation, length)) = self.trim.take() {
            let trimmed = self.trim(generation, length);
            trimmed.map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// What [`Mutant::WriteOnAfterCut`] does instead.
    fn write_on(&mut self, generation: u64, offset: u64) -> Result<(), Error> {
        let file = self.disk.open(&damage::name(generation)).map_err(Error::failed("opening a segment"))?;
        let (place, buffer, capacity) = (self.place(generation), Vec::new(), self.settings.segment_bytes);
        self.active = Some(Active { file, place, offset, buffer, capacity });
        self.trim = None;
        Ok(())
    }

    fn create_segment(&mut self, time_ns: u64) -> Result<(Segment, D::File), Error> {
        let mut generation = self.segments.last().map_or(1, |last| last.generation + 1);
        let (instance, first_position) = (self.settings.instance, self.next);
        let spare = self.open_spare()?;
        if let Some((_, _, of_spare)) = &spare {
            generation = generation.max(of_spare + 1); // a crash may have come after its header was written
        }
        let (file, capacity_bytes, from) = match spare {
            Some((file, length, _)) => (file, length, SPARE),
            None if std::mem::take(&mut self.is_prepared) => {
                let file = self.disk.open(PREPARED).map_err(Error::failed("opening a segment that was prepared"))?;
                (file, self.settings.segment_bytes, PREPARED)
            }
            None => {
                let file =
                    self.disk.create(CREATED).map_err(|error| Error::of_write("creating a segment", 0, error))?;
                let length = self.settings.segment_bytes;
                file.allocate(length)
                    .map_err(|error| Error::of_write("filling a segment with zeros", length, error))?;
                (file, length, CREATED)
            }
        };
        let header = SegmentHeader { generation, instance, first_position, time_ns, capacity_bytes };
        let written = file.write_at(&header.encode(), 0);
        written.map_err(|error| Error::of_write("writing a segment's header", BLOCK_BYTES as u64, error))?;
        file.sync().map_err(Error::failed("syncing a segment's header"))?;
        self.disk.rename(from, &damage::name(generation)).map_err(Error::failed("naming a segment"))?;
        self.sync_directory()?;
        let bytes = capacity_bytes;
        Ok((Segment { generation, first_position, time_ns, bytes, header_is_damaged: false }, file))
    }

    /// Whether the next segment is needed soon and would have to be filled with zeros, which takes as long as many
    /// syncs: then its owner can have it [prepared](prepare) beside its appends.
    pub fn lacks_next_segment(&self) -> bool {
        let is_near = self.active.as_ref().is_none_or(|active| active.offset >= active.capacity / PREPARED_FROM);
        is_near && !self.is_prepared && self.disk.open(SPARE).is_err()
    }

    /// The next segment was [prepared](prepare), and takes no time any more.
    pub fn note_prepared(&mut self) {
        self.is_prepared = true;
    }

    /// The file of an expired segment, its length and its generation, if there is one of the right length.
    fn open_spare(&mut self) -> Result<Option<(D::File, u64, u64)>, Error> {
        let file = match self.disk.open(SPARE) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(Error::Failed { doing: "opening the spare segment", source: error }),
        };
        let length = file.length().map_err(Error::failed("reading a segment's length"))?;
        let mut block = vec![0; BLOCK_BYTES];
        let header = file.read_at(&mut block, 0).ok().and_then(|()| SegmentHeader::decode(&block).ok());
        match header.filter(|_| length == self.settings.segment_bytes) {
            Some(header) => Ok(Some((file, length, header.generation))),
            None => {
                self.remove(SPARE)?;
                Ok(None)
            }
        }
    }

    /// Cuts the rest of a segment that is no longer written: what stands there is torn or was never written.
    fn trim(&mut self, generation: u64, length: u64) -> Result<(), Error> {
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.generation == generation) else {
            return Ok(());
        };
        let file = self.disk.open(&segment.name()).map_err(Error::failed("opening a segment"))?;
        if segment.bytes > length + MARK_BYTES {
            file.truncate(length).map_err(Error::failed("cutting a segment"))?;
            segment.bytes = length;
        }
        Ok(())
    }

    fn place(&self, generation: u64) -> Place {
        Place { instance: self.settings.instance, generation, mutant: self.settings.mutant }
    }

    fn sync_directory(&self) -> Result<(), Error> {
        if self.settings.mutant == Some(Mutant::ForgetDirectorySync) {
            return Ok(());
        }
        self.disk.sync().map_err(Error::failed("syncing the directory"))
    }

    /// Removes a file if it is there.
    fn remove(&mut self, name: &str) -> Result<(), Error> {
        match self.disk.remove(name) {
            Ok(()) => self.sync_directory(),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(Error::Failed { doing: "removing a file", source: error }),
        }
    }

    /// Hands out the records that were written, from this position on, and the damage among them, until `sink` breaks.
    /// Returns the position after the last.
    ///
    /// # Errors
    /// If a segment can't be opened.
    pub fn read(&self, from: u64, sink: impl FnMut(Entry<'_>) -> ControlFlow<()>) -> Result<u64, Error> {
        reader::read(&self.disk, (&self.segments, self.settings.instance, self.settings.mutant), from, sink)
    }

    /// Drops the records from this position on, of which none is known to have been synced. For an owner that has
    /// learned from its peers that the group does not have them. Only before the first append.
    ///
    /// # Errors
    /// If records from there on are known to have been synced, or were appended since the log was opened.
    pub fn cut(&mut self, position: u64) -> Result<(), Error> {
        self.check()?;
        let Recovery { synced: from, end: to, .. } = self.recovery;
        if self.active.is_some() || !(from..=to).contains(&position) {
            return Err(Error::Cut { position, from, to });
        }
        // The header of the next segment makes it so; until then the next recovery finds the same.
        (self.next, self.synced) = (position, position);
        self.recovery.damage.retain(|damage| damage.from < position);
        Ok(())
    }

    /// Writes damaged records again from another copy: each record of the damaged positions, as it was appended.
    ///
    /// # Errors
    /// If there is no such damage any more, these are not its records, or a write or sync fails.
    pub fn repair(&mut self, damage: &Damage, records: &[Record<'_>]) -> Result<(), Error> {
        self.check()?;
        let damage = *damage;
        let index = self.segments.iter().position(|segment| segment.generation == damage.generation);
        let index = index.ok_or(Error::NoSuchDamage { damage })?;
        if !self.has_gap(index, &damage)? {
            return Err(Error::NoSuchDamage { damage });
        }
        let positions = records.iter().map(|record| record.position);
        if !positions.eq(damage.from..damage.to) || records.iter().any(|record| record.bytes.len() > MAX_RECORD_BYTES) {
            return Err(Error::Unfit { damage });
        }
        let mut bytes = Vec::new();
        for record in records {
            let offset = damage.start + bytes.len() as u64;
            format::encode(&mut bytes, self.place(damage.generation), offset, record, 0);
        }
        if bytes.len() as u64 > damage.end - damage.start {
            return Err(Error::Unfit { damage });
        }
        bytes.resize((damage.end - damage.start) as usize, 0);
        let written = self.disk.open(&self.segments[index].name()).and_then(|file| {
            file.write_at(&bytes, damage.start)?;
            file.sync()
        });
        if let Err(error) = written {
            return Err(self.fail(Error::of_write("repairing a segment", bytes.len() as u64, error)));
        }
        self.recovery.damage.retain(|found| *found != damage);
        if self.has_gap(index, &damage)? { Err(Error::Unfit { damage }) } else { Ok(()) }
    }

    /// Whether this segment has exactly this damage.
    fn has_gap(&self, index: usize, damage: &Damage) -> Result<bool, Error> {
        let segment = &self.segments[index];
        let bytes = segment::read(&self.disk, segment.generation)?;
        let limit = self.segments.get(index + 1).map(|next| next.first_position);
        let mut scan = Scan::new(&bytes, self.place(segment.generation), segment.first_position, limit);
        Ok(scan.any(|item| match item {
            Item::Gap(gap) => {
                (gap.from, gap.to, gap.start, gap.end) == (damage.from, damage.to, damage.start, damage.end)
            }
            Item::Record { .. } => false,
        }))
    }

    /// Removes the oldest segments as far as they are more than what is to be kept. The file of one of them is kept for
    /// the next segment.
    ///
    /// # Errors
    /// If a segment can't be removed, or the directory not synced.
    pub fn prune(&mut self, keep: Retention, now_ns: u64) -> Result<Pruned, Error> {
        self.check()?;
        let mut pruned = Pruned::default();
        while let [oldest, following, ..] = &self.segments[..] {
            let total: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
            let is_too_long = keep.bytes.is_some_and(|bytes| total > bytes);
            // Its newest record is older than the first of the next segment.
            let is_too_old = keep.age_ns.is_some_and(|age| following.time_ns < now_ns.saturating_sub(age));
            if !is_too_long && !is_too_old {
                break;
            }
            let (name, bytes) = (oldest.name(), oldest.bytes);
            // Each removal is synced before the next: after a crash no segment is missing in the middle.
            let is_reusable = bytes == self.settings.segment_bytes && self.disk.open(SPARE).is_err();
            let removed = if is_reusable { self.disk.rename(&name, SPARE) } else { self.disk.remove(&name) };
            let removed = removed.map_err(Error::failed("removing a segment")).and_then(|()| self.sync_directory());
            removed.map_err(|error| self.fail(error))?;
            self.segments.remove(0);
            pruned.segments += 1;
            pruned.bytes += bytes;
        }
        Ok(pruned)
    }
}
