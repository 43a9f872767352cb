//! Records what a process delivers, in the order in which it delivers it. What it loses it records as lost.

use crate::entry::Entry;
use crate::error::Error;
use bourdon_log::{Directory, Log, Recovery, Retention, Settings};
use bourdon_protocol::{Event, Message};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a recorded message may wait for a sync: so much is lost with power, and a sync serves all of it.
const SYNC_EVERY: Duration = Duration::from_millis(50);
/// After so long without a message the archive is marked as whole.
const MARK_AFTER: Duration = Duration::from_secs(1);

/// Messages and losses that are to be recorded, in their order: what one thread hands to another.
#[derive(Debug, Default)]
pub struct Records {
    entries: Vec<Encoded>,
    /// The entries, one behind the other.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Encoded {
    /// The group's instance; 0 of a loss, which has that of the messages.
    instance: u64,
    epoch: u64,
    time_ns: u64,
    end: usize,
}

impl Records {
    /// A message.
    pub fn push(&mut self, message: &Message<'_>, name: Option<&str>) {
        // A barrier's own message has no time of publishing.
        let time_ns = if message.barrier.is_some() { wall_ns() } else { message.send_time_ns };
        self.add(message.instance.0, message.epoch.0, time_ns, &Entry::of(message, name));
    }

    /// Messages were lost, or became void. Other events are not recorded.
    pub fn push_event(&mut self, event: &Event) {
        let entry = match event {
            Event::Gap { sender, from, to } => {
                Entry::Lost { sender: Some(sender.0), count: to.0.saturating_sub(from.0) }
            }
            Event::Retracted { sender, from, to } => Entry::Retracted { sender: sender.0, from: from.0, to: to.0 },
            _ => return,
        };
        self.add(0, 0, wall_ns(), &entry);
    }

    /// So many messages were lost.
    pub fn push_lost(&mut self, count: u64) {
        self.add(0, 0, wall_ns(), &Entry::Lost { sender: None, count });
    }

    fn add(&mut self, instance: u64, epoch: u64, time_ns: u64, entry: &Entry<'_>) {
        entry.encode(&mut self.bytes);
        self.entries.push(Encoded { instance, epoch, time_ns, end: self.bytes.len() });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How long they are.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
    }
}

/// A directory that is recorded to.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    group: String,
    keep: Retention,
    segment_bytes: u64,
    /// Until the group's instance is known.
    directory: Option<Directory>,
    log: Option<(u64, Log<Directory>)>,
    segments: usize,
    own: Records,
    synced_at: Instant,
}

impl Recorder {
    /// Locks the directory. It is made if it is not there. A log is made in it with the first message, which gives the
    /// group's instance.
    ///
    /// # Errors
    /// If it can't be used.
    pub fn open(path: PathBuf, group: &str, keep: Retention) -> Result<Self, Error> {
        let directory = Directory::lock(&path).map_err(Error::Directory)?;
        Ok(Self {
            path,
            group: group.to_owned(),
            keep,
            segment_bytes: Settings::new(0).segment_bytes,
            directory: Some(directory),
            log: None,
            segments: 0,
            own: Records::default(),
            synced_at: Instant::now(),
        })
    }

    /// With segments of this length instead of 64 MiB.
    #[must_use]
    pub fn with_segments_of(mut self, segment_bytes: u64) -> Self {
        self.segment_bytes = segment_bytes;
        self
    }

    /// What the log found when it was opened, with the first message.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.log.as_ref().map(|(_, log)| log.recovery())
    }

    /// Records a message.
    ///
    /// # Errors
    /// If it can't be recorded. After [a full disk](Error::is_full) later messages can be, once there is room.
    pub fn record(&mut self, message: &Message<'_>, name: Option<&str>) -> Result<(), Error> {
        self.with_own(|own| own.push(message, name))
    }

    /// Records that messages were lost, or became void. Other events are not recorded.
    ///
    /// # Errors
    /// As of [`Recorder::record`].
    pub fn record_event(&mut self, event: &Event) -> Result<(), Error> {
        self.with_own(|own| own.push_event(event))
    }

    /// Records that so many messages were lost.
    ///
    /// # Errors
    /// As of [`Recorder::record`].
    pub fn record_lost(&mut self, count: u64) -> Result<(), Error> {
        self.with_own(|own| own.push_lost(count))
    }

    fn with_own(&mut self, push: impl FnOnce(&mut Records)) -> Result<(), Error> {
        let mut own = std::mem::take(&mut self.own);
        own.clear();
        push(&mut own);
        let recorded = self.record_from(&own, 0);
        self.own = own;
        recorded.map_err(|(_, error)| error)
    }

    /// Records these, from one of them on.
    ///
    /// # Errors
    /// As of [`Recorder::record`], with the first that was not recorded.
    pub fn record_from(&mut self, records: &Records, first: usize) -> Result<(), (usize, Error)> {
        let mut start = first.checked_sub(1).map_or(0, |before| records.entries[before].end);
        for (index, encoded) in records.entries.iter().enumerate().skip(first) {
            let Encoded { instance, epoch, time_ns, end } = *encoded;
            let opened = if instance == 0 { Ok(()) } else { self.follow(instance, epoch) };
            let bytes = &records.bytes[start..end];
            opened.and_then(|()| self.append(epoch, time_ns, bytes)).map_err(|error| (index, error))?;
            start = end;
        }
        Ok(())
    }

    /// Opens the log of the group's instance at its first message.
    fn follow(&mut self, instance: u64, epoch: u64) -> Result<(), Error> {
        if let Some((recorded, _)) = &self.log {
            return if *recorded == instance {
                Ok(())
            } else {
                Err(Error::RecordedInstance { path: self.path.clone(), recorded: *recorded, found: instance })
            };
        }
        let directory = self.directory.take().expect("it is locked until the log has it");
        let settings = Settings { segment_bytes: self.segment_bytes, ..Settings::new(instance) };
        let log = Log::open(directory, settings).map_err(Error::Directory)?;
        self.segments = log.segments().len();
        self.log = Some((instance, log));
        let mut bytes = Vec::new();
        Entry::Begins { group: &self.group }.encode(&mut bytes);
        self.append(epoch, wall_ns(), &bytes)
    }

    /// What was lost before the first message has no log to go to.
    fn append(&mut self, epoch: u64, time_ns: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some((_, log)) = &mut self.log else { return Ok(()) };
        let mut appended = log.append(epoch, time_ns, bytes).map(|_| ());
        if appended.is_ok() && log.segments().len() != self.segments {
            appended = log.prune(self.keep, wall_ns()).map(|_| ());
            self.segments = log.segments().len();
        }
        appended.map_err(|source| self.broken(source))
    }

    fn broken(&self, source: bourdon_log::Error) -> Error {
        Error::Record { path: self.path.clone(), source }
    }

    /// Syncs what is due. Returns how long its owner may sleep until the next sync.
    ///
    /// # Errors
    /// As of [`Recorder::record`].
    pub fn sync(&mut self) -> Result<Duration, Error> {
        let Some((_, log)) = &mut self.log else { return Ok(MARK_AFTER) };
        let elapsed = self.synced_at.elapsed();
        let is_unsynced = log.synced() < log.next();
        if is_unsynced && elapsed < SYNC_EVERY {
            return Ok(SYNC_EVERY - elapsed);
        }
        let synced = if is_unsynced {
            self.synced_at = Instant::now();
            log.sync().map(|_| ())
        } else if elapsed >= MARK_AFTER {
            log.mark()
        } else {
            Ok(())
        };
        synced.map_err(|source| Error::Record { path: self.path.clone(), source })?;
        Ok(SYNC_EVERY)
    }

    /// Syncs all that was recorded, and ends.
    ///
    /// # Errors
    /// As of [`Recorder::record`].
    pub fn close(mut self) -> Result<(), Error> {
        let closed = self.log.take().map_or(Ok(()), |(_, log)| log.close());
        closed.map_err(|source| self.broken(source))
    }
}

impl Drop for Recorder {
    /// However its owner ends, what it recorded is kept.
    fn drop(&mut self) {
        if let Some((_, mut log)) = self.log.take() {
            let _ = log.mark();
        }
    }
}

/// Nanoseconds since 1970.
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
