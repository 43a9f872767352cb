//! A durable member's storage: a ledger on disk, and the thread that writes it.
//!
//! A sync takes a thousand times as long as a message, so the thread that polls does not wait for one. It hands records
//! to a thread of their own, which appends all that have come, syncs once for all of them, and reports how far it has
//! come. What waits is bounded by the windows: a sender goes no further than what the slowest member has stored.
//!
//! On a full disk that thread keeps what it has, and tries again: meanwhile the member reports nothing new, and
//! publishers wait. The next segment is filled with zeros by a third thread, so that no sync waits for that.
//!
//! Invariant: records are stored in the order in which they were handed over. After a write or sync that failed the
//! node ends: the kernel may have dropped what it had taken.

use crate::config::{Role, Settings};
use bourdon_engine::{Store, StoreState};
use bourdon_log::{Directory, Error, Found, Ledger, Mark, prepare};
use bourdon_port::{PortError, Waker};
use bourdon_protocol::{Config, Reliability, begins_view, ends_stored_state};
use bourdon_wire::GroupId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// On a full disk it is tried again after so long: short against the time in which an operator makes room, and a try
/// costs a call or two.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// After so long without a record it is written that the last were synced, so that damage in them is not taken for
/// a crash in their sync. Longer than the pauses of a loaded group: while one sync follows the other, each proves the
/// last.
const MARK_AFTER: Duration = Duration::from_millis(50);

/// Records, one behind the other, and where each ends.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many of them the log has.
    appended: usize,
}

/// What the thread of storage reports.
#[derive(Debug)]
enum Report {
    Stored(Batch),
    /// There is no room; what comes after this was stored.
    Full,
    Failed(Error),
}

/// The storage of one member, as the thread that polls has it.
#[derive(Debug)]
pub(crate) struct Storage {
    read: Vec<Box<[u8]>>,
    batch: Batch,
    /// None once the node ends.
    batches: Option<Sender<Batch>>,
    reports: Receiver<Report>,
    /// Batches to be filled again.
    spare: Vec<Batch>,
    stored: u64,
    /// How many batches are handed over and not stored, and since when one has waited.
    waiting: usize,
    waits_since: Instant,
    is_full: bool,
    set_aside: u16,
    thread: Option<JoinHandle<()>>,
}

fn failed(doing: &'static str) -> impl Fn(Error) -> PortError {
    move |error| PortError::Io { doing, source: io::Error::other(error) }
}

fn mark(record: &[u8], group: GroupId) -> Mark {
    if ends_stored_state(record, group) {
        Mark::State
    } else if begins_view(record, group) {
        Mark::Begins
    } else {
        Mark::Plain
    }
}

impl Storage {
    /// Opens the storage of a member at `durable`. If it was damaged, `problem` names that, and the member begins as a
    /// process that has lost what it had stored.
    pub(crate) fn open(
        settings: &Settings,
        waker: Waker,
        config: &mut Config,
        problem: &mut Option<String>,
    ) -> Result<Option<Box<dyn Store>>, PortError> {
        let is_member = settings.process.role == Role::Member;
        let directory = settings.storage.directory.as_ref().filter(|_| is_member);
        let Some(path) = directory.filter(|_| settings.group.reliability == Reliability::Durable) else {
            return Ok(None);
        };
        std::fs::create_dir_all(path).map_err(|error| {
            let why = format!("{}: {error}: name a directory that this user may write", path.display());
            PortError::Io { doing: "creating storage.directory", source: io::Error::new(error.kind(), why) }
        })?;
        let group = GroupId::of(&settings.group.name);
        let owner = u64::from(group.0) << 16 | u64::from(settings.process.rank);
        let opening = failed("opening storage.directory");
        let directory = Directory::lock(path).map_err(&opening)?;
        let log_settings = bourdon_log::Settings::new(owner);
        let mark = move |record: &[u8]| mark(record, group);
        let needs_state = settings.process.snapshots && settings.storage.snapshots;
        let opened = Ledger::open(directory, log_settings, needs_state, mark);
        let (mut ledger, found) = opened.map_err(&opening)?;
        ledger.sync().map_err(&opening)?;
        if found.beginnings == 0 {
            config.storage_damaged = found.set_aside;
        }
        if let Some(text) = damage_text(&found, path) {
            *problem = Some(problem.take().map_or_else(|| text.clone(), |known| format!("{known}; {text}")));
        }
        let (batches, incoming) = channel();
        let (reports, outgoing) = channel();
        let segments = Segments { path: path.clone(), bytes: log_settings.segment_bytes, helper: None, tried_in: None };
        let writer = Writer { ledger, batches: incoming, reports, waker, segments };
        let thread = std::thread::Builder::new().name("bourdon-storage".into()).spawn(move || writer.run());
        let thread = thread.map_err(|source| PortError::Io { doing: "starting the thread of storage", source })?;
        Ok(Some(Box::new(Self {
            stored: found.records.len() as u64,
            read: found.records,
            batch: Batch::default(),
            batches: Some(batches),
            reports: outgoing,
            spare: Vec::new(),
            waiting: 0,
            waits_since: Instant::now(),
            is_full: false,
            set_aside: found.set_aside,
            thread: Some(thread),
        })))
    }
}

/// What is to be reported of damage.
fn damage_text(found: &Found, path: &Path) -> Option<String> {
    if let Some(damage) = &found.damage {
        let aside = path.join(format!("damaged-{}", found.set_aside));
        return Some(format!(
            "what this member had stored is damaged ({damage}) and set aside in {}: it comes back as a new process, \
             with what the others have; the directory is of no use to the group and may be removed once it is back",
            aside.display()
        ));
    }
    let damage = found.unneeded.as_ref()?;
    Some(format!("{}: damage of what no restart needs: {damage}", path.display()))
}

impl Store for Storage {
    fn read(&mut self) -> Result<Vec<Box<[u8]>>, PortError> {
        Ok(self.read.clone())
    }

    fn append(&mut self, record: &[u8]) {
        self.batch.bytes.extend_from_slice(record);
        self.batch.ends.push(self.batch.bytes.len());
    }

    fn stored(&mut self) -> Result<u64, PortError> {
        let doing = "storing what this member reports to others (it must end; mend the disk and start it again)";
        while let Ok(report) = self.reports.try_recv() {
            let mut batch = match report {
                Report::Stored(batch) => batch,
                Report::Full => {
                    self.is_full = true;
                    continue;
                }
                Report::Failed(error) => return Err(failed(doing)(error)),
            };
            self.stored += batch.ends.len() as u64;
            (self.is_full, self.waits_since) = (false, Instant::now());
            self.waiting -= 1;
            batch.bytes.clear();
            batch.ends.clear();
            batch.appended = 0;
            self.spare.push(batch);
        }
        if !self.batch.ends.is_empty()
            && let Some(batches) = &self.batches
        {
            self.read = Vec::new();
            if self.waiting == 0 {
                self.waits_since = Instant::now();
            }
            self.waiting += 1;
            let batch = std::mem::replace(&mut self.batch, self.spare.pop().unwrap_or_default());
            let ended = |_| PortError::Io { doing, source: io::Error::other("the thread of storage has ended") };
            batches.send(batch).map_err(ended)?;
        }
        Ok(self.stored)
    }

    fn state(&self) -> StoreState {
        let waited = if self.waiting > 0 { self.waits_since.elapsed() } else { Duration::ZERO };
        StoreState { set_aside: self.set_aside, waited_ns: waited.as_nanos() as u64, is_full: self.is_full }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.batches = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// The thread of storage: one sync for all that has come since the last.
struct Writer<M> {
    ledger: Ledger<Directory, M>,
    batches: Receiver<Batch>,
    reports: Sender<Report>,
    waker: Waker,
    segments: Segments,
}

/// The node has ended, or nothing can be stored any more.
struct Ended;

impl<M: Fn(&[u8]) -> Mark> Writer<M> {
    fn run(mut self) {
        let mut written = Vec::new();
        while let Ok(first) = self.next() {
            written.push(first);
            if self.store(&mut written).is_err() {
                self.segments.end();
                return; // the log is not closed: what it holds is not known
            }
            self.segments.tend(&mut self.ledger);
        }
        self.segments.end();
        let _ = self.ledger.mark(); // without it the next start reads a little more
    }

    /// The next batch. If it takes a while, the log is marked.
    fn next(&mut self) -> Result<Batch, Ended> {
        match self.batches.recv_timeout(MARK_AFTER) {
            Ok(batch) => return Ok(batch),
            Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match self.ledger.mark() {
            Err(error) if !error.is_full() => {
                self.report(Report::Failed(error))?;
                Err(Ended)
            }
            _ => self.batches.recv().map_err(|_| Ended),
        }
    }

    /// Stores all that has come, however long there is no room for it.
    fn store(&mut self, written: &mut Vec<Batch>) -> Result<(), Ended> {
        loop {
            written.extend(self.batches.try_iter());
            match append(&mut self.ledger, written) {
                Ok(()) => break,
                Err(error) if error.is_full() => self.wait_for_room(written)?,
                Err(error) => {
                    self.report(Report::Failed(error))?;
                    return Err(Ended);
                }
            }
        }
        written.drain(..).try_for_each(|batch| self.reports.send(Report::Stored(batch))).map_err(|_| Ended)?;
        self.waker.wake();
        Ok(())
    }

    /// There is no room: waits until it is time to try again.
    fn wait_for_room(&mut self, written: &mut Vec<Batch>) -> Result<(), Ended> {
        self.report(Report::Full)?;
        let until = Instant::now() + FULL_RETRY;
        loop {
            match self.batches.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(batch) => written.push(batch),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            }
        }
    }

    fn report(&self, report: Report) -> Result<(), Ended> {
        self.reports.send(report).map_err(|_| Ended)?;
        self.waker.wake();
        Ok(())
    }
}

/// Appends what the log does not have yet, and syncs.
fn append<M: Fn(&[u8]) -> Mark>(ledger: &mut Ledger<Directory, M>, written: &mut [Batch]) -> Result<(), Error> {
    let now_ns = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    for batch in written {
        while let Some(end) = batch.ends.get(batch.appended) {
            let start = batch.appended.checked_sub(1).map_or(0, |before| batch.ends[before]);
            ledger.append(now_ns, &batch.bytes[start..*end])?;
            batch.appended += 1;
        }
    }
    ledger.sync()
}

/// Has the next segment filled with zeros before it is needed. If that fails, the log does it itself, and reports why
/// it can't.
struct Segments {
    path: PathBuf,
    bytes: u64,
    helper: Option<JoinHandle<Result<(), Error>>>,
    /// The segment in which it was tried last: once in each, also without room.
    tried_in: Option<u64>,
}

impl Segments {
    /// Takes what is prepared, and has the next segment prepared.
    fn tend<M: Fn(&[u8]) -> Mark>(&mut self, ledger: &mut Ledger<Directory, M>) {
        let log = ledger.log_mut();
        let helper = self.helper.take_if(|helper| helper.is_finished());
        if helper.is_some_and(|helper| matches!(helper.join(), Ok(Ok(())))) {
            log.note_prepared();
        }
        let current = log.segments().last().map(|segment| segment.generation);
        if self.helper.is_none() && self.tried_in != current && log.lacks_next_segment() {
            self.tried_in = current;
            let (path, bytes) = (self.path.clone(), self.bytes);
            let work = move || prepare(&Directory::read(&path)?, bytes);
            self.helper = std::thread::Builder::new().name("bourdon-segment".into()).spawn(work).ok();
        }
    }

    fn end(&mut self) {
        self.helper.take().map(JoinHandle::join);
    }
}
