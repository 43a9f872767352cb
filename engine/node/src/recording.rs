//! Records what a node delivers in an archive.
//!
//! A disk takes a thousand times as long as a message, so the thread that polls hands records to a thread of their own,
//! which appends all that have come and syncs them every 50 ms. What waits is bounded by [`WAITING_MAX_BYTES`]. Beyond
//! that, messages are left out and counted, and the archive has their number at their place; or the node delivers
//! nothing until there is room, if it was asked to (`archive.delivery_waits`).
//!
//! Invariants: records are in the order of delivery; no failure of the disk ends the node. After a full disk recording
//! goes on once there is room, after any other failure it has ended: the kernel may have dropped what it had taken.

use crate::config::Settings;
use crate::node_error::Error;
use crate::patterns::Filter;
use crate::transport::NodePort;
use bourdon_archive::{Recorder, Records, Retention};
use bourdon_engine::{Engine, Item};
use bourdon_port::{PortError, Waker};
use bourdon_protocol::{Event, Message, Satisfied};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that wait to be recorded: half a second of a fast group, which a sync may take.
const WAITING_MAX_BYTES: usize = 64 << 20;
/// How soon a full disk is written to again.
const FULL_AGAIN: Duration = Duration::from_millis(100);

const FULL: &str = "the disk of archive.directory is full: messages are not recorded until there is room";
const ENDED: &str = "recording has ended because writing to archive.directory failed: check the disk, and start this \
                     process again";
const UNFIT: &str = "recording has ended: archive.directory holds another instance of the group, or can't be used: \
                     name an empty directory, and start this process again";

/// What was recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ArchiveFigures {
    pub(crate) recorded: u64,
    /// Left out: too many waited, or the disk was full, or recording had ended.
    pub(crate) lost: u64,
    pub(crate) has_failed: bool,
}

/// What the thread has done with records.
#[derive(Debug)]
struct Report {
    records: Records,
    recorded: usize,
    has_failed: bool,
    /// What the application is to learn.
    problem: Option<&'static str>,
}

/// The recording, as the thread that polls has it.
#[derive(Debug)]
pub(crate) struct Recording {
    names: Filter,
    waits: bool,
    records: Records,
    /// None once the node ends.
    outgoing: Option<Sender<Records>>,
    reports: Receiver<Report>,
    spare: Vec<Records>,
    waiting_bytes: usize,
    /// Left out since the last message that was not.
    left_out: u64,
    figures: ArchiveFigures,
    problem: Option<&'static str>,
    thread: Option<JoinHandle<()>>,
}

impl Recording {
    /// Opens the archive of this process, if it records.
    pub(crate) fn open(settings: &Settings, waker: Waker) -> Result<Option<Box<Self>>, Error> {
        let archive = &settings.archive;
        let Some(path) = &archive.directory else { return Ok(None) };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let made = std::fs::create_dir_all(parent);
            made.map_err(|source| Error::Io { doing: "creating archive.directory", source })?;
        }
        let age_ns = archive.max_age_s.map(|seconds| seconds.saturating_mul(1_000_000_000));
        let keep = Retention { bytes: archive.max_bytes, age_ns };
        let recorder = Recorder::open(path.clone(), &settings.group.name, keep)?;
        let (outgoing, incoming) = channel();
        let (reporter, reports) = channel();
        let (group, waits) = (settings.group.name.clone(), archive.delivery_waits);
        let (has_failed, is_full, problem, left_out, arrived) = (false, false, None, 0, VecDeque::new());
        let mut writer =
            Writer { recorder, group, waits, reporter, waker, has_failed, is_full, problem, left_out, arrived };
        let thread = std::thread::Builder::new()
            .name("bourdon-archive".into())
            .spawn(move || writer.run(&incoming))
            .map_err(|source| Error::Io { doing: "starting the thread that records", source })?;
        Ok(Some(Box::new(Self {
            names: Filter::new(&[], &settings.group.topics),
            waits,
            records: Records::default(),
            outgoing: Some(outgoing),
            reports,
            spare: Vec::new(),
            waiting_bytes: 0,
            left_out: 0,
            figures: ArchiveFigures::default(),
            problem: None,
            thread: Some(thread),
        })))
    }

    pub(crate) fn figures(&self) -> ArchiveFigures {
        self.figures
    }

    /// Whether nothing may be delivered now.
    fn holds_delivery(&mut self) -> bool {
        while let Ok(Report { mut records, recorded, has_failed, problem }) = self.reports.try_recv() {
            self.waiting_bytes -= records.bytes();
            self.figures.recorded += recorded as u64;
            self.figures.lost += (records.len() - recorded) as u64;
            self.figures.has_failed |= has_failed;
            self.problem = problem.or(self.problem);
            records.clear();
            self.spare.push(records);
        }
        self.waits && !self.has_room() && !self.figures.has_failed
    }

    /// Why something was not recorded, once.
    pub(crate) fn take_problem(&mut self) -> Option<Event> {
        self.problem.take().map(Event::NotRecorded)
    }

    /// Polls, and takes what is delivered before it is handed out.
    #[inline(never)]
    pub(crate) fn poll(
        &mut self,
        engine: &mut Engine<NodePort>,
        limit: usize,
        passed: Satisfied<'_>,
        hand_out: &mut impl FnMut(Item<'_>),
    ) -> Result<usize, PortError> {
        let limit = if self.holds_delivery() { 0 } else { limit };
        let count = engine.poll(limit, passed, |item| {
            match &item {
                Item::Message(message) => self.take(message),
                Item::Event(event) => self.records.push_event(event),
            }
            hand_out(item);
        });
        self.hand_over();
        count
    }

    fn has_room(&self) -> bool {
        self.waiting_bytes + self.records.bytes() < WAITING_MAX_BYTES
    }

    fn take(&mut self, message: &Message<'_>) {
        if self.figures.has_failed || !self.waits && !self.has_room() {
            self.left_out += 1;
            self.figures.lost += 1;
            return;
        }
        if self.left_out > 0 {
            self.records.push_lost(std::mem::take(&mut self.left_out));
        }
        self.records.push(message, self.names.name(message));
    }

    fn hand_over(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let records = std::mem::replace(&mut self.records, self.spare.pop().unwrap_or_default());
        self.waiting_bytes += records.bytes();
        if let Some(outgoing) = &self.outgoing {
            let _ = outgoing.send(records); // its thread ends after this
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.hand_over();
        self.outgoing = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// The thread.
struct Writer {
    recorder: Recorder,
    group: String,
    waits: bool,
    reporter: Sender<Report>,
    waker: Waker,
    has_failed: bool,
    is_full: bool,
    problem: Option<&'static str>,
    /// Left out since the last message that was recorded.
    left_out: u64,
    /// What came while it waited for room.
    arrived: VecDeque<Records>,
}

impl Writer {
    fn run(&mut self, incoming: &Receiver<Records>) {
        let mut wait = Duration::ZERO;
        loop {
            let next = self.arrived.pop_front().map_or_else(|| incoming.recv_timeout(wait), Ok);
            match next {
                Ok(records) => self.write(records, incoming),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return, // the recorder syncs when it is dropped
            }
            wait = if self.has_failed { Duration::from_secs(3_600) } else { self.sync() };
        }
    }

    fn sync(&mut self) -> Duration {
        let synced = self.recorder.sync();
        synced.unwrap_or_else(|error| {
            self.note(&error);
            let (has_failed, problem) = (self.has_failed, self.problem.take());
            let _ = self.reporter.send(Report { records: Records::default(), recorded: 0, has_failed, problem });
            FULL_AGAIN
        })
    }

    /// Records, and reports how many. Where delivery waits, it waits for room on the disk, until the node ends.
    fn write(&mut self, records: Records, incoming: &Receiver<Records>) {
        let mut recorded = 0;
        while !self.has_failed {
            let Err((first, error)) = self.record(&records, recorded) else {
                recorded = records.len();
                break;
            };
            recorded = first;
            self.note(&error);
            if !self.waits || !error.is_full() || self.is_over(incoming) {
                break;
            }
            std::thread::sleep(FULL_AGAIN);
        }
        self.left_out += (records.len() - recorded) as u64;
        let has_failed = self.has_failed;
        let problem = self.problem.take();
        let _ = self.reporter.send(Report { records, recorded, has_failed, problem }); // else the node ends
        if self.waits {
            self.waker.wake();
        }
    }

    fn record(&mut self, records: &Records, first: usize) -> Result<(), (usize, bourdon_archive::Error)> {
        if self.left_out > 0 {
            self.recorder.record_lost(self.left_out).map_err(|error| (first, error))?;
            self.left_out = 0;
        }
        self.recorder.record_from(records, first)?;
        if std::mem::take(&mut self.is_full) {
            tracing::warn!(group = self.group, "there is room on the disk again: recording goes on");
        }
        Ok(())
    }

    /// Whether the node has ended. What comes meanwhile is kept.
    fn is_over(&mut self, incoming: &Receiver<Records>) -> bool {
        loop {
            match incoming.try_recv() {
                Ok(records) => self.arrived.push_back(records),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// A full disk is reported once until there is room, any other failure once.
    fn note(&mut self, error: &bourdon_archive::Error) {
        if !error.is_full() {
            self.has_failed = true;
            self.problem = Some(if error.is_unfit() { UNFIT } else { ENDED });
            tracing::error!(group = self.group, "recording has ended: {error}");
        } else if !std::mem::replace(&mut self.is_full, true) {
            self.problem = Some(FULL);
            tracing::warn!(group = self.group, "recording waits for room on the disk: {error}");
        }
    }
}
