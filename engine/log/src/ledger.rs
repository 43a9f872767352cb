//! A log of which only the end is needed: from the last beginning but one on.
//!
//! A member stores what it reports to others, view by view (`docs/protocols/durable.md`). What lies before the last
//! view but one is of no use, damaged or not. Where what is needed is damaged, the member has forgotten what others may
//! count on, and must not come back as the process that reported it. So the damaged log is set aside, whole and for
//! good, and the ledger is empty: its owner learns of it and begins as a process that knows nothing.
//!
//! A record that was never proved to be synced was reported to no process: the log is cut there, as behind a torn end.
//!
//! Invariants: the log is read before anything is written into its directory; what is handed out is the end of the log
//! without a gap, or nothing; what was set aside is never written or removed again.

use crate::disk::Disk;
use crate::error::Error;
use crate::log::{Log, Retention, Settings};
use crate::mutant::Mutant;
use crate::reader::{self, Entry};
use crate::segment::{self, CREATED, PREPARED, SPARE, Segment, generation_of};
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Where a damaged log is, while its files are moved there.
const DAMAGED: &str = "damaged";
/// So many damaged logs are kept: the disk that damages more is to be replaced, and they take its room.
pub const DAMAGED_MAX: u16 = 8;

/// What was found when a ledger was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The records from the last beginning but one on, with the one before it; all, if there are fewer beginnings.
    pub records: Vec<Box<[u8]>>,
    /// How many of them are beginnings.
    pub beginnings: usize,
    /// The damage before them, which nothing needs.
    pub unneeded: Option<String>,
    /// What was damaged of what is needed: the log was set aside.
    pub damage: Option<String>,
    /// How many logs were set aside so far; the last in `damaged-N`.
    pub set_aside: u16,
}

/// A log that is read from its last beginning but one on. Records of which `begins` is true begin something.
pub struct Ledger<D: Disk, B> {
    log: Log<D>,
    begins: B,
    /// The positions of the last two beginnings.
    beginnings: VecDeque<u64>,
}

/// What a first reading finds.
#[derive(Debug, Default)]
struct Reading {
    records: VecDeque<Box<[u8]>>,
    /// Of the last two beginnings: the position, and the index among the records.
    beginnings: VecDeque<(u64, usize)>,
    /// The last damage that a later record proves.
    damage: Option<String>,
    /// Whether no record before them is missing.
    is_whole: bool,
    /// What was never proved to be synced begins here, behind a hole.
    cut: Option<u64>,
}

impl Reading {
    /// Forgets what stands before damage: it is not of one piece with what follows.
    fn forget(&mut self) {
        self.records.clear();
        self.beginnings.clear();
        self.is_whole = false;
    }

    fn push(&mut self, position: u64, bytes: &[u8], begins: bool) {
        if begins {
            self.beginnings.push_back((position, self.records.len()));
        }
        self.records.push_back(bytes.into());
        if self.beginnings.len() > 2 {
            self.beginnings.pop_front();
            // What led to the beginning stands before it.
            let unneeded = self.beginnings[0].1.saturating_sub(1);
            self.records.drain(..unneeded);
            self.beginnings.iter_mut().for_each(|(_, index)| *index -= unneeded);
        }
    }

    /// Whether all that is needed is there.
    fn suffices(&self) -> bool {
        self.is_whole || self.beginnings.len() == 2 && self.beginnings[0].1 > 0
    }
}

impl<D: Disk, B: Fn(&[u8]) -> bool> Ledger<D, B> {
    /// Opens the ledger in this directory, or begins one. If what is needed is damaged, it is set aside, and the ledger
    /// is empty.
    ///
    /// # Errors
    /// As of [`Log::open`]; also if logs were set aside too often.
    pub fn open(disk: D, settings: Settings, begins: B) -> Result<(Self, Found), Error> {
        let mut found = Found::default();
        if disk.list().map_err(Error::failed("listing the directory"))?.iter().any(|name| name == DAMAGED) {
            set_aside(&disk)?; // its owner ended meanwhile
        }
        let mut reading = read(&disk, settings, &begins)?;
        let ignores = settings.mutant == Some(Mutant::IgnoreDamage);
        if !reading.suffices() && !ignores {
            found.damage = Some(reading.damage.take().unwrap_or_else(|| "its oldest segments are missing".into()));
            set_aside(&disk)?;
            reading = Reading::default();
        }
        found.set_aside = logs_aside(&disk)?;
        let mut log = Log::open(disk, settings)?;
        if let Some(position) = reading.cut {
            log.cut(position)?;
        }
        (found.unneeded, found.beginnings) = (reading.damage, reading.beginnings.len());
        found.records = reading.records.into();
        let beginnings = reading.beginnings.into_iter().map(|(position, _)| position).collect();
        Ok((Self { log, begins, beginnings }, found))
    }

    /// Appends a record: see [`Log::append`].
    ///
    /// # Errors
    /// As of [`Log::append`].
    pub fn append(&mut self, time_ns: u64, record: &[u8]) -> Result<(), Error> {
        let position = self.log.append(0, time_ns, record)?;
        if (self.begins)(record) {
            self.beginnings.push_back(position);
            self.beginnings.drain(..self.beginnings.len().saturating_sub(2));
        }
        Ok(())
    }

    /// Makes all records survive a crash, and discards segments that nothing needs.
    ///
    /// # Errors
    /// As of [`Log::sync`].
    pub fn sync(&mut self) -> Result<(), Error> {
        self.log.sync()?;
        let Some(from) = self.beginnings.front().filter(|_| self.beginnings.len() == 2) else { return Ok(()) };
        // What led to the beginning stands before it.
        let before = |segment: &Segment| segment.first_position < from.saturating_sub(1);
        let first = self.log.segments().iter().rposition(before).unwrap_or(0);
        if first == 0 {
            return Ok(());
        }
        let bytes = self.log.segments()[first..].iter().map(|segment| segment.bytes).sum();
        self.log.prune(Retention { bytes: Some(bytes), age_ns: None }, 0).map(|_| ())
    }

    /// States that all was synced: see [`Log::mark`].
    ///
    /// # Errors
    /// As of [`Log::sync`].
    pub fn mark(&mut self) -> Result<(), Error> {
        self.log.mark()
    }

    /// The log.
    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    /// The log, to prepare its next segment.
    pub fn log_mut(&mut self) -> &mut Log<D> {
        &mut self.log
    }
}

/// Reads a log without writing into its directory.
fn read<D: Disk>(disk: &D, settings: Settings, begins: impl Fn(&[u8]) -> bool) -> Result<Reading, Error> {
    let Settings { instance, mutant, first_position, .. } = settings;
    let mut reading = Reading { is_whole: true, ..Reading::default() };
    let segments = match segment::list(disk, Some(instance), mutant) {
        Ok((segments, _)) => segments,
        Err(error @ Error::Unreadable { .. }) => {
            return Ok(Reading { damage: Some(error.to_string()), ..Reading::default() });
        }
        Err(error) => return Err(error),
    };
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(reading) };
    reading.is_whole = first.first_position == first_position;
    let end = reader::read(disk, (&segments, instance, mutant), 0, |entry| {
        match entry {
            Entry::Record(record) => reading.push(record.position, record.bytes, begins(record.bytes)),
            Entry::Damage(damage) if damage.was_synced => {
                reading.damage = Some(damage.to_string());
                if mutant != Some(Mutant::IgnoreDamage) {
                    reading.forget();
                }
            }
            Entry::Damage(damage) => {
                reading.cut = Some(damage.from);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    // A segment gets its name once its header is synced: no crash leaves one without a header.
    if last.header_is_damaged && end == last.first_position {
        reading.damage = Some(format!("segment {} has neither a valid header nor a valid record", last.name()));
        reading.forget();
    }
    Ok(reading)
}

fn number_aside(name: &str) -> Option<u16> {
    name.strip_prefix(DAMAGED)?.strip_prefix('-')?.parse().ok()
}

/// How many logs were set aside.
fn logs_aside<D: Disk>(disk: &D) -> Result<u16, Error> {
    let names = disk.list().map_err(Error::failed("listing the directory"))?;
    Ok(names.iter().filter_map(|name| number_aside(name)).max().unwrap_or(0))
}

/// Moves the log into a directory beside it. A crash leaves it where it is, or moved in part: the next open goes on.
fn set_aside<D: Disk>(disk: &D) -> Result<(), Error> {
    let number = logs_aside(disk)? + 1;
    if number > DAMAGED_MAX {
        return Err(Error::DamagedTooOften { count: DAMAGED_MAX });
    }
    let mut names = disk.list().map_err(Error::failed("listing the directory"))?;
    names.retain(|name| generation_of(name).is_some() || [SPARE, CREATED, PREPARED].contains(&&**name));
    disk.move_into(DAMAGED, &names).map_err(Error::failed("setting the damaged log aside"))?;
    let named = disk.rename(DAMAGED, &format!("{DAMAGED}-{number}")).and_then(|()| disk.sync());
    named.map_err(Error::failed("naming the damaged log"))
}
