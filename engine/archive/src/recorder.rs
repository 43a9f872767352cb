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

/// A directory that is recorded to.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    group: String,
    keep: Retention,
    /// Until the group's instance is known.
    directory: Option<Directory>,
    log: Option<(u64, Log<Directory>)>,
    segments: usize,
    buffer: Vec<u8>,
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
            directory: Some(directory),
            log: None,
            segments: 0,
            buffer: Vec::new(),
            synced_at: Instant::now(),
        })
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
        self.follow(message.instance.0, message.epoch.0)?;
        // A barrier's own message has no time of publishing.
        let time_ns = if message.barrier.is_some() { wall_ns() } else { message.send_time_ns };
        self.append(message.epoch.0, time_ns, &Entry::of(message, name))
    }

    /// Records that messages were lost, or became void. Other events are not recorded.
    ///
    /// # Errors
    /// As of [`Recorder::record`].
    pub fn record_event(&mut self, event: &Event) -> Result<(), Error> {
        let entry = match event {
            Event::Gap { sender, from, to } => {
                Entry::Lost { sender: Some(sender.0), count: to.0.saturating_sub(from.0) }
            }
            Event::Retracted { sender, from, to } => Entry::Retracted { sender: sender.0, from: from.0, to: to.0 },
            _ => return Ok(()),
        };
        self.append(0, wall_ns(), &entry)
    }

    /// Records that so many messages were lost.
    ///
    /// # Errors
    /// As of [`Recorder::record`].
    pub fn record_lost(&mut self, count: u64) -> Result<(), Error> {
        self.append(0, wall_ns(), &Entry::Lost { sender: None, count })
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
        let log = Log::open(directory, Settings::new(instance)).map_err(Error::Directory)?;
        self.segments = log.segments().len();
        self.log = Some((instance, log));
        let group = self.group.clone();
        self.append(epoch, wall_ns(), &Entry::Begins { group: &group })
    }

    fn append(&mut self, epoch: u64, time_ns: u64, entry: &Entry<'_>) -> Result<(), Error> {
        let Some((_, log)) = &mut self.log else { return Ok(()) };
        entry.encode(&mut self.buffer);
        let mut appended = log.append(epoch, time_ns, &self.buffer).map(|_| ());
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
