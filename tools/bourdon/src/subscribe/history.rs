//! One subscription over an archive and the live group: reads the archive, goes on live where the two meet, and returns
//! to the archive whenever it has lost something. So it has no gap and no duplicate while a recorder records.
//!
//! The place of a message is its order number, so the group must be in total order. The archive's order is the group's.
//! Messages that come live while the archive is read wait in a queue. The two meet once the archive has a message of
//! the queue, or the first of the queue is the one that comes next: then nothing lies between them.
//!
//! The archive is read by a thread of its own: reading a segment takes milliseconds, and an observer that does not poll
//! loses messages.

use crate::archive::entry::Entry;
use crate::exit::{Failure, note};
use bourdon::id::{Epoch, Incarnation, InstanceId, OrderNumber, Rank, Sequence, TopicId};
use bourdon::{Event, Message, time};
use bourdon_log::{Damage, Directory, Entry as Stored, Error, Reader};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::time::{Duration, Instant};

/// Rows that the reading thread hands over at a time, and how many times so many it is ahead.
const BATCH: usize = 1_024;
const BATCHES_AHEAD: usize = 4;
/// Bytes of live messages that wait while the archive is read; with more it waits for a later meeting.
const QUEUE_MAX_BYTES: usize = 64 << 20;
/// How soon it looks whether the thread has more of the archive.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How soon the end of the archive is read again.
const AGAIN: Duration = Duration::from_millis(20);
/// A recorder that has not recorded a live message for so long records no more.
const RECORDER_WAIT: Duration = Duration::from_secs(5);
/// How often the position is written to its file.
const SAVE_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Default, clap::Args)]
pub(super) struct HistoryOptions {
    /// Read this archive first, go on live without gap or duplicate, and return to it after a loss: an archive that
    /// `bourdon subscribe --archive` records on this host, of a group in total order
    #[arg(long, value_name = "DIR", conflicts_with = "archive")]
    history: Option<PathBuf>,
    /// Where to begin: oldest (the default), live, position:N (of the archive) or time:NS (since 1970)
    #[arg(long, value_name = "WHERE", requires = "history")]
    from: Option<From>,
    /// Write how far this subscription is to this file, and go on there the next time
    #[arg(long, value_name = "FILE", requires = "history")]
    position: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Oldest,
    Live,
    Position(u64),
    Time(u64),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse().map_err(|_| format!("{digits:?} is no number"));
        match text.split_once(':') {
            None if text == "oldest" => Ok(Self::Oldest),
            None if text == "live" => Ok(Self::Live),
            Some(("position", digits)) => number(digits).map(Self::Position),
            Some(("time", digits)) => number(digits).map(Self::Time),
            _ => Err("oldest, live, position:N or time:NS is expected".to_owned()),
        }
    }
}

/// A message, of the archive or live.
#[derive(Debug, Default)]
struct Row {
    sender: u16,
    incarnation: u32,
    instance: u64,
    sequence: u64,
    order: Option<u64>,
    epoch: u64,
    topic: u16,
    name: Option<String>,
    send_time_ns: u64,
    payload: Vec<u8>,
    /// Whether it is subscribed to; if not, it only takes a place in the order.
    is_wanted: bool,
}

impl Row {
    fn message(&self) -> Message<'_> {
        Message {
            sender: Rank(self.sender),
            incarnation: Incarnation(self.incarnation),
            instance: InstanceId(self.instance),
            sequence: Sequence(self.sequence),
            order: self.order.map(OrderNumber),
            epoch: Epoch(self.epoch),
            late: false,
            topic: TopicId(self.topic),
            name: self.name.as_deref(),
            send_time_ns: self.send_time_ns,
            kernel_receive_ns: None,
            delivered_at: time::Instant(0),
            client: None,
            barrier: None,
            payload: &self.payload,
        }
    }
}

/// What the reading thread hands over.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// What can't be read, or was lost by the recorder.
    notes: Vec<String>,
    /// The archive was read up to this position.
    end: Option<Result<u64, Error>>,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct Position {
    instance: u64,
    /// The order number that comes next.
    order: u64,
    /// The archive has been read up to here.
    archive: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The thread reads the archive.
    Reads,
    /// It has come to the end of the archive, which may grow.
    AtEnd,
    /// What comes live is written at once.
    Live,
}

/// A subscription over an archive.
pub(super) struct History {
    path: PathBuf,
    from: From,
    file: Option<PathBuf>,
    state: State,
    position: Position,
    saved: (Instant, Position),
    queue: VecDeque<Row>,
    queue_bytes: usize,
    /// Whether the last row of the archive that has a place was written: what has none goes with it.
    writes: bool,
    /// When the end of the archive was reached last.
    ended_at: Instant,
    /// Since when the archive has not grown, though live messages wait.
    waits_since: Option<Instant>,
    requests: Sender<u64>,
    batches: Receiver<Batch>,
}

impl History {
    pub(super) fn open(options: &HistoryOptions) -> Result<Option<Self>, Failure> {
        let Some(path) = options.history.clone() else { return Ok(None) };
        let instance = match Directory::read(&path).and_then(Reader::open) {
            Ok(reader) => reader.instance(),
            Err(Error::Empty) => 0,
            Err(error) => return Err(Failure::unusable(format!("{}: {error}", path.display()))),
        };
        let from = options.from.unwrap_or(From::Oldest);
        let stored = options.position.as_deref().map_or(Ok(None), load)?;
        let archive = if let From::Position(position) = from { position } else { 0 };
        let position = stored.unwrap_or(Position { instance, order: 0, archive });
        if instance != 0 && position.instance != instance {
            return Err(Failure::unusable(format!(
                "{} holds instance {instance:016x}, and the position is of instance {:016x}: begin with another file",
                path.display(),
                position.instance
            )));
        }
        let from = if stored.is_some() { From::Oldest } else { from };
        let (requests, wanted) = channel();
        let (sender, batches) = sync_channel(BATCHES_AHEAD);
        let directory = path.clone();
        std::thread::Builder::new()
            .name("archive".into())
            .spawn(move || serve(&directory, &wanted, &sender))
            .map_err(Failure::unusable)?;
        let now = Instant::now();
        let mut history = Self {
            path,
            from,
            file: options.position.clone(),
            state: State::Live,
            position,
            saved: (now, Position::default()),
            queue: VecDeque::new(),
            queue_bytes: 0,
            writes: false,
            ended_at: now,
            waits_since: None,
            requests,
            batches,
        };
        if from != From::Live {
            history.read(if stored.is_some() { "goes on in" } else { "reads" });
        }
        Ok(Some(history))
    }

    fn read(&mut self, does: &str) {
        note(format!("{does} the archive {} from position {} on", self.path.display(), self.position.archive));
        self.request();
    }

    fn request(&mut self) {
        self.state = State::Reads;
        let _ = self.requests.send(self.position.archive); // its thread ends with this
    }

    /// A message came live; returns whether it is to be written now.
    ///
    /// # Errors
    /// If it is of another instance than the archive, or has no place.
    pub(super) fn take(&mut self, message: &Message<'_>, name: Option<&str>, is_wanted: bool) -> Result<bool, Failure> {
        if self.position.instance == 0 {
            self.position.instance = message.instance.0;
        }
        if self.position.instance != message.instance.0 {
            return Err(Failure::unusable(format!(
                "the group formed again, as instance {:016x}, and {} holds instance {:016x}: give its archive, and \
                     begin with another position",
                message.instance.0,
                self.path.display(),
                self.position.instance
            )));
        }
        if message.order.is_none() && message.barrier.is_none() {
            return Err(Failure::unusable(
                "--history needs a group in total order: its messages have no order numbers",
            ));
        }
        if self.state == State::Live {
            self.position.order = message.order.map_or(self.position.order, |order| order.0 + 1);
            return Ok(is_wanted);
        }
        if self.queue_bytes > QUEUE_MAX_BYTES {
            (self.queue, self.queue_bytes) = Default::default(); // the archive will have them
        }
        let payload = if is_wanted { message.payload.to_vec() } else { Vec::new() };
        self.queue_bytes += size_of::<Row>() + payload.len();
        self.queue.push_back(Row {
            sender: message.sender.0,
            incarnation: message.incarnation.0,
            instance: message.instance.0,
            sequence: message.sequence.0,
            order: message.order.map(|order| order.0),
            epoch: message.epoch.0,
            topic: message.topic.0,
            name: name.map(str::to_owned),
            send_time_ns: message.send_time_ns,
            payload,
            is_wanted,
        });
        Ok(false)
    }

    /// Something was lost, or became void: what comes live from now on may follow a gap.
    pub(super) fn note_event(&mut self, event: &Event) {
        if !matches!(event, Event::Gap { .. } | Event::Missed { .. } | Event::NewInstance { .. }) {
            return;
        }
        (self.queue, self.queue_bytes) = Default::default();
        if self.state == State::Live && self.position.order > 0 {
            self.read("has lost messages, and reads");
        }
    }

    /// Takes up what the archive has, and what waits, until `write` takes no more. Returns how much it did.
    ///
    /// # Errors
    /// If the archive can't be read, or is of another instance.
    pub(super) fn advance(&mut self, write: &mut impl FnMut(&Message<'_>) -> bool) -> Result<usize, Failure> {
        let now = Instant::now();
        let mut count = 0;
        match self.state {
            State::Reads => {}
            State::AtEnd => {
                self.look_at_queue(now, write);
                return Ok(0);
            }
            State::Live => return Ok(0),
        }
        for _ in 0..BATCHES_AHEAD {
            let batch = match self.batches.try_recv() {
                Ok(batch) => batch,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Failure::broken("the thread of the archive has ended")),
            };
            count += batch.rows.len().max(1);
            batch.notes.into_iter().for_each(note);
            for row in batch.rows {
                if !self.take_archived(&row, write)? {
                    return Ok(count);
                }
            }
            let Some(end) = batch.end else { continue };
            let before = self.position.archive;
            self.position.archive = match end {
                Ok(end) => end.max(before),
                Err(Error::Empty) => before,
                Err(error) => return Err(Failure::broken(format!("{}: {error}", self.path.display()))),
            };
            if self.position.archive > before {
                self.waits_since = None;
            }
            (self.state, self.ended_at) = (State::AtEnd, now);
            self.look_at_queue(now, write);
            break;
        }
        Ok(count)
    }

    /// Returns whether it was taken.
    fn take_archived(&mut self, row: &Row, write: &mut impl FnMut(&Message<'_>) -> bool) -> Result<bool, Failure> {
        if self.position.instance == 0 {
            self.position.instance = row.instance;
        }
        if row.instance != self.position.instance {
            return Err(Failure::unusable(format!("{}: of another instance of the group", self.path.display())));
        }
        let is_early = matches!(self.from, From::Time(time_ns) if row.send_time_ns < time_ns);
        match row.order {
            Some(order) => self.writes = order >= self.position.order && !is_early,
            None => self.writes &= !is_early,
        }
        if self.writes {
            if !write(&row.message()) {
                return Ok(false);
            }
            self.position.order = row.order.map_or(self.position.order, |order| order + 1);
        }
        Ok(true)
    }

    /// Goes on live if the archive and the queue meet; if they do not, reads the archive again.
    fn look_at_queue(&mut self, now: Instant, write: &mut impl FnMut(&Message<'_>) -> bool) {
        let is_had = |row: &Row| row.order.is_some_and(|order| order < self.position.order);
        let had = self.queue.iter().rposition(is_had).map_or(0, |last| last + 1);
        self.queue.drain(..had);
        let first = self.queue.iter().find_map(|row| row.order);
        if had > 0 || first == Some(self.position.order) {
            return self.go_live(write);
        }
        let Some(first) = first else { return self.waits_since = None };
        let waited = now.saturating_duration_since(*self.waits_since.get_or_insert(now));
        if waited > RECORDER_WAIT {
            note(format!(
                "the archive {} has not grown for {} s and ends before the live messages: those with order numbers {} \
                     to {} may be missing; is its recorder running?",
                self.path.display(),
                RECORDER_WAIT.as_secs(),
                self.position.order,
                first - 1
            ));
            self.go_live(write);
        } else if now.saturating_duration_since(self.ended_at) >= AGAIN {
            self.request();
        }
    }

    fn go_live(&mut self, write: &mut impl FnMut(&Message<'_>) -> bool) {
        for row in std::mem::take(&mut self.queue) {
            if row.is_wanted && !write(&row.message()) {
                return; // it ends here
            }
            self.position.order = row.order.map_or(self.position.order, |order| order + 1);
        }
        (self.queue_bytes, self.waits_since, self.state) = (0, None, State::Live);
        note(format!("live from order number {} on", self.position.order));
    }

    /// How long its owner may sleep, where otherwise it may sleep so `long`: while the archive is read there is soon
    /// something to do.
    pub(super) fn longest_sleep(&self, long: Duration) -> Duration {
        let is_idle = self.state == State::Live || self.state == State::AtEnd && self.queue.is_empty();
        if is_idle { long } else { long.min(LOOK_AGAIN) }
    }

    /// Whether what was written is to be flushed, and the position stored behind it.
    pub(super) fn is_due(&self) -> bool {
        self.file.is_some() && self.saved.1 != self.position && self.saved.0.elapsed() >= SAVE_EVERY
    }

    /// Stores the position. All that lies before it has been written.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn save(&mut self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        self.saved = (Instant::now(), self.position);
        let text = serde_json::to_string(&self.position).expect("numbers");
        let beside = file.with_extension("new");
        let stored = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file));
        stored.map_err(|error| Failure::broken(format!("writing {}: {error}", file.display())))
    }
}

/// The position in a file; none if there is no file yet.
fn load(file: &Path) -> Result<Option<Position>, Failure> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::unusable(format!("{}: {error}", file.display()))),
    };
    let position = serde_json::from_str(&text)
        .map_err(|error| Failure::unusable(format!("{} is no position of a subscription: {error}", file.display())))?;
    Ok(Some(position))
}

/// The thread: reads the archive from each position that is asked for to its end.
fn serve(path: &Path, requests: &Receiver<u64>, batches: &SyncSender<Batch>) {
    // A record that its recorder is writing looks damaged; one that stays so is.
    let mut torn_at = None;
    for from in requests {
        let (mut batch, mut is_over, before) = (Batch::default(), false, torn_at.take());
        let read = Directory::read(path).and_then(Reader::open).and_then(|reader| {
            reader.read(from, |stored| {
                if let Stored::Damage(Damage { was_synced: false, from, .. }) = stored
                    && before != Some(from)
                {
                    torn_at = Some(from);
                    return ControlFlow::Break(());
                }
                add(&mut batch, stored, reader.instance());
                if batch.rows.len() + batch.notes.len() >= BATCH {
                    is_over = batches.send(std::mem::take(&mut batch)).is_err();
                }
                if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        batch.end = Some(read.map(|end| torn_at.unwrap_or(end)));
        if is_over || batches.send(batch).is_err() {
            return;
        }
    }
}

fn add(batch: &mut Batch, stored: Stored<'_>, instance: u64) {
    let record = match stored {
        Stored::Record(record) => record,
        Stored::Damage(damage) => {
            return batch.notes.push(format!("messages of the archive can't be read {damage}"));
        }
    };
    match Entry::decode(record.bytes) {
        Some(Entry::Message(recorded)) => batch.rows.push(Row {
            sender: recorded.sender,
            incarnation: recorded.incarnation,
            instance,
            sequence: recorded.sequence,
            order: recorded.order,
            epoch: record.epoch,
            topic: recorded.topic,
            name: recorded.name.map(str::to_owned),
            send_time_ns: record.time_ns,
            payload: recorded.payload.to_vec(),
            is_wanted: true,
        }),
        Some(Entry::Lost { count, .. }) => {
            batch.notes.push(format!("{count} messages were lost here when they were recorded"));
        }
        _ => {}
    }
}
