//! A log of which only the end is needed: from the last beginning but one on.
//!
//! A member stores what it reports to others, view by view (`docs/protocols/durable.md`). What lies before the last
//! view but one is of no use, damaged or not; where the application's state is stored as well, what lies before the
//! view with its last state. Where what is needed is damaged, the member has forgotten what others may
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

/// What a record is to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Part of what was begun.
    Plain,
    /// A beginning.
    Begins,
    /// The end of a state: with it, what lies before the last beginning is not needed.
    State,
}

/// What was found when a ledger was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The records from the last beginning but one on, with the one before it; all, if there are fewer beginnings. With
    /// states from an earlier one, if the last state is there; all, if there is none.
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

/// A log that is read from its last beginning but one on. `mark` is what a record is.
pub struct Ledger<D: Disk, M> {
    log: Log<D>,
    mark: M,
    beginnings: Beginnings,
}

/// The beginnings that are needed.
#[derive(Debug, Default)]
struct Beginnings {
    /// Their positions: of the last two, and of those between them and the one with the last state.
    positions: VecDeque<u64>,
    /// Whether states are needed.
    needs_state: bool,
    /// A state stands behind the first of them, or behind a later one.
    has_state: bool,
}

impl Beginnings {
    fn note(&mut self, position: u64, mark: Mark) {
        match mark {
            Mark::Plain => return,
            Mark::Begins => self.positions.push_back(position),
            Mark::State if self.needs_state && !self.positions.is_empty() => {
                // All before it, but the one before it.
                self.positions.drain(..self.positions.len().saturating_sub(2));
                self.has_state = true;
            }
            Mark::State => return,
        }
        if !self.needs_state {
            self.positions.drain(..self.positions.len().saturating_sub(2));
        }
    }

    /// What lies before this position is not needed. What led to the beginning stands before it.
    fn needed_from(&self) -> Option<u64> {
        let is_enough = self.positions.len() >= 2 && (self.has_state || !self.needs_state);
        self.positions.front().filter(|_| is_enough).map(|first| first.saturating_sub(1))
    }
}

/// What a first reading finds.
#[derive(Debug, Default)]
struct Reading {
    records: VecDeque<Box<[u8]>>,
    /// The position of the first of them.
    first: u64,
    beginnings: Beginnings,
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
        self.beginnings = Beginnings { needs_state: self.beginnings.needs_state, ..Beginnings::default() };
        self.is_whole = false;
    }

    fn push(&mut self, position: u64, bytes: &[u8], mark: Mark) {
        if self.records.is_empty() {
            self.first = position;
        }
        self.records.push_back(bytes.into());
        self.beginnings.note(position, mark);
        if mark != Mark::Plain
            && let Some(from) = self.beginnings.needed_from().filter(|from| *from > self.first)
        {
            self.records.drain(..(from - self.first) as usize);
            self.first = from;
        }
    }

    /// Whether all that is needed is there. Where states were not stored from the start, there may be none.
    fn suffices(&self) -> bool {
        let Beginnings { positions, needs_state, has_state } = &self.beginnings;
        let has_state = *has_state || !needs_state || self.damage.is_none();
        self.is_whole || positions.len() >= 2 && self.first < positions[0] && has_state
    }
}

impl<D: Disk, M: Fn(&[u8]) -> Mark> Ledger<D, M> {
    /// Opens the ledger in this directory, or begins one. If what is needed is damaged, it is set aside, and the ledger
    /// is empty. With `needs_state`, states are needed as well.
    ///
    /// # Errors
    /// As of [`Log::open`]; also if logs were set aside too often.
    pub fn open(disk: D, settings: Settings, needs_state: bool, mark: M) -> Result<(Self, Found), Error> {
        let mut found = Found::default();
        if disk.list().map_err(Error::failed("listing the directory"))?.iter().any(|name| name == DAMAGED) {
            set_aside(&disk)?; // its owner ended meanwhile
        }
        let mut reading = read(&disk, settings, needs_state, &mark)?;
        let ignores = settings.mutant == Some(Mutant::IgnoreDamage);
        if !reading.suffices() && !ignores {
            found.damage = Some(reading.damage.take().unwrap_or_else(|| "its oldest segments are missing".into()));
            set_aside(&disk)?;
            reading.forget();
            (reading.damage, reading.cut) = (None, None);
        }
        found.set_aside = logs_aside(&disk)?;
        let mut log = Log::open(disk, settings)?;
        if let Some(position) = reading.cut {
            log.cut(position)?;
        }
        (found.unneeded, found.beginnings) = (reading.damage, reading.beginnings.positions.len());
        found.records = reading.records.into();
        Ok((Self { log, mark, beginnings: reading.beginnings }, found))
    }

    /// Appends a record: see [`Log::append`].
    ///
    /// # Errors
    /// As of [`Log::append`].
    pub fn append(&mut self, time_ns: u64, record: &[u8]) -> Result<(), Error> {
        let position = self.log.append(0, time_ns, record)?;
        self.beginnings.note(position, (self.mark)(record));
        Ok(())
    }

    /// Makes all records survive a crash, and discards segments that nothing needs.
    ///
    /// # Errors
    /// As of [`Log::sync`].
    pub fn sync(&mut self) -> Result<(), Error> {
        self.log.sync()?;
        let Some(from) = self.beginnings.needed_from() else { return Ok(()) };
        let before = |segment: &Segment| segment.first_position < from;
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
fn read<D: Disk>(
    disk: &D,
    settings: Settings,
    needs_state: bool,
    mark: impl Fn(&[u8]) -> Mark,
) -> Result<Reading, Error> {
    let Settings { instance, mutant, first_position, .. } = settings;
    let beginnings = Beginnings { needs_state, ..Beginnings::default() };
    let mut reading = Reading { is_whole: true, beginnings, ..Reading::default() };
    let segments = match segment::list(disk, Some(instance), mutant) {
        Ok((segments, _)) => segments,
        Err(error @ Error::Unreadable { .. }) => {
            return Ok(Reading { damage: Some(error.to_string()), is_whole: false, ..reading });
        }
        Err(error) => return Err(error),
    };
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(reading) };
    reading.is_whole = first.first_position == first_position;
    let end = reader::read(disk, (&segments, instance, mutant), 0, |entry| {
        match entry {
            Entry::Record(record) => reading.push(record.position, record.bytes, mark(record.bytes)),
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
