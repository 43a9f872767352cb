//! A durable member's storage: a log on disk, and the thread that writes it.
//!
//! A sync takes a thousand times as long as a message, so the thread that polls does not wait for one. It hands records
//! to a thread of their own, which appends all that have come, syncs once for all of them, and reports how far it has
//! come. What waits is bounded by the windows: a sender goes no further than what the slowest member has stored.
//!
//! Invariant: records are stored in the order in which they were handed over. After a write or sync that failed the
//! node ends: the kernel may have dropped what it had taken.

use crate::config::{Role, Settings};
use bourdon_engine::Store;
use bourdon_log::{Directory, Entry, Log, Retention, Segment};
use bourdon_port::{PortError, Waker};
use bourdon_protocol::Reliability;
use bourdon_wire::{Datagram, GroupId, Kind};
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

/// Records, one behind the other, and where each ends.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The storage of one member, as the thread that polls has it.
#[derive(Debug)]
pub(crate) struct Storage {
    read: Vec<Box<[u8]>>,
    batch: Batch,
    /// None once the node ends.
    batches: Option<Sender<Batch>>,
    reports: Receiver<io::Result<Batch>>,
    /// Batches to be filled again.
    spare: Vec<Batch>,
    stored: u64,
    thread: Option<JoinHandle<()>>,
}

fn failed(doing: &'static str) -> impl Fn(bourdon_log::Error) -> PortError {
    move |error| PortError::Io { doing, source: io::Error::other(error) }
}

impl Storage {
    /// Opens the storage of a member at `durable`.
    pub(crate) fn open(settings: &Settings, waker: Waker) -> Result<Option<Box<dyn Store>>, PortError> {
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
        let mut log = Log::open(directory, bourdon_log::Settings::new(owner)).map_err(&opening)?;
        let read = read(&log, group)?;
        log.sync().map_err(&opening)?;
        let (batches, incoming) = channel();
        let (outgoing, reports) = channel();
        let thread = std::thread::Builder::new()
            .name("bourdon-storage".into())
            .spawn(move || write(log, group, &incoming, &outgoing, &waker))
            .map_err(|source| PortError::Io { doing: "starting the thread of storage", source })?;
        let (stored, batches, thread) = (read.len() as u64, Some(batches), Some(thread));
        let (batch, spare) = (Batch::default(), Vec::new());
        Ok(Some(Box::new(Self { read, batch, batches, reports, spare, stored, thread })))
    }
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
            let mut batch = report.map_err(|source| PortError::Io { doing, source })?;
            self.stored += batch.ends.len() as u64;
            batch.bytes.clear();
            batch.ends.clear();
            self.spare.push(batch);
        }
        if !self.batch.ends.is_empty()
            && let Some(batches) = &self.batches
        {
            self.read = Vec::new();
            let batch = std::mem::replace(&mut self.batch, self.spare.pop().unwrap_or_default());
            let ended = |_| PortError::Io { doing, source: io::Error::other("the thread of storage has ended") };
            batches.send(batch).map_err(ended)?;
        }
        Ok(self.stored)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.batches = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// What is needed to restart: the records from the last view but one on.
fn read(log: &Log<Directory>, group: GroupId) -> Result<Vec<Box<[u8]>>, PortError> {
    let (mut records, mut views, mut damage) = (VecDeque::new(), VecDeque::new(), None);
    log.read(log.first(), |entry| {
        match entry {
            Entry::Record(record) => {
                if begins_view(record.bytes, group) {
                    views.push_back(records.len());
                }
                records.push_back(Box::from(record.bytes));
                if views.len() > 2 {
                    views.pop_front();
                    let earlier: usize = views[0];
                    let earlier = earlier.saturating_sub(1); // the decision that began the view stands before it
                    records.drain(..earlier);
                    views.iter_mut().for_each(|view| *view -= earlier);
                }
            }
            Entry::Damage(found) => damage = Some(found),
        }
        ControlFlow::Continue(())
    })
    .map_err(failed("reading storage.directory"))?;
    match damage {
        Some(damage) => {
            let why = format!(
                "{damage:?}: this member may have reported to others what is gone; move the directory away, and it \
                 joins the group as a new process"
            );
            Err(PortError::Io { doing: "reading storage.directory", source: io::Error::other(why) })
        }
        None => Ok(records.into()),
    }
}

fn begins_view(record: &[u8], group: GroupId) -> bool {
    Datagram::parse(record, group).is_ok_and(|datagram| datagram.frames().any(|frame| frame.kind() == Some(Kind::View)))
}

/// The thread of storage: one sync for all that has come since the last.
fn write(
    mut log: Log<Directory>,
    group: GroupId,
    batches: &Receiver<Batch>,
    reports: &Sender<io::Result<Batch>>,
    waker: &Waker,
) {
    let (mut written, mut views) = (Vec::new(), VecDeque::new());
    while let Ok(first) = batches.recv() {
        written.push(first);
        written.extend(batches.try_iter());
        let stored = written.iter().try_for_each(|batch| append(&mut log, batch, group, &mut views));
        let stored = stored.and_then(|()| log.sync()).and_then(|_| discard(&mut log, &views));
        let outcome = stored.map_err(io::Error::other);
        let has_failed = outcome.is_err();
        let reported = match outcome {
            Ok(_) => written.drain(..).try_for_each(|batch| reports.send(Ok(batch))),
            Err(error) => reports.send(Err(error)),
        };
        waker.wake();
        if has_failed || reported.is_err() {
            return; // the log is not closed: what it holds is not known
        }
    }
    let _ = log.close(); // without its mark the next start reads a little more
}

/// Discards the segments before the last view but one.
fn discard(log: &mut Log<Directory>, views: &VecDeque<u64>) -> Result<(), bourdon_log::Error> {
    let Some(from) = views.front().filter(|_| views.len() == 2) else { return Ok(()) };
    // The decision that began the view stands before it.
    let before = |segment: &Segment| segment.first_position < from.saturating_sub(1);
    let first = log.segments().iter().rposition(before).unwrap_or(0);
    if first == 0 {
        return Ok(());
    }
    let bytes = log.segments()[first..].iter().map(|segment| segment.bytes).sum();
    log.prune(Retention { bytes: Some(bytes), age_ns: None }, now_ns()).map(|_| ())
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Appends records, and notes where the last two views begin.
fn append(
    log: &mut Log<Directory>,
    batch: &Batch,
    group: GroupId,
    views: &mut VecDeque<u64>,
) -> Result<(), bourdon_log::Error> {
    let now = now_ns();
    let mut start = 0;
    for end in &batch.ends {
        let record = &batch.bytes[start..*end];
        let position = log.append(0, now, record)?;
        if begins_view(record, group) {
            views.push_back(position);
            views.drain(..views.len().saturating_sub(2));
        }
        start = *end;
    }
    Ok(())
}
