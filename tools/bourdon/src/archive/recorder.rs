//! Records what an observer delivers, in the order in which it delivers it.
//!
//! The observer is free: it never holds the publishers back, however slow its disk is. What it loses it records as
//! lost.

use super::entry::Entry;
use crate::exit::{Failure, note};
use bourdon::{Event, Message};
use bourdon_log::{Directory, Log, Retention, Settings};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a recorded message may wait for a sync: so much is lost with power, and a sync serves all of it.
const SYNC_EVERY: Duration = Duration::from_millis(50);
/// After so long without a message the archive is marked as whole.
const MARK_AFTER: Duration = Duration::from_secs(1);

/// Where to record, and how much to keep.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Record what is written in this directory too; `bourdon archive` reads it
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Keep at most this many bytes of the archive, whole segments of 64 MiB
    #[arg(long, value_name = "BYTES", requires = "archive")]
    archive_bytes: Option<u64>,
    /// Keep messages for this many seconds at least, then remove them segment by segment
    #[arg(long, value_name = "S", requires = "archive")]
    archive_seconds: Option<u64>,
}

impl Options {
    pub(crate) fn is_given(&self) -> bool {
        self.archive.is_some()
    }
}

/// A directory that is recorded to.
pub(crate) struct Recorder {
    path: PathBuf,
    group: String,
    keep: Retention,
    /// Until the group's instance is known.
    directory: Option<Directory>,
    log: Option<(u64, Log<Directory>)>,
    segments: usize,
    buffer: Vec<u8>,
    synced_at: Instant,
    failure: Option<Failure>,
}

impl Recorder {
    /// Locks the directory.
    pub(crate) fn open(args: &Options, group: &str) -> Result<Option<Self>, Failure> {
        let Some(path) = args.archive.clone() else { return Ok(None) };
        let directory = Directory::lock(&path).map_err(Failure::unusable)?;
        let age_ns = args.archive_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000));
        Ok(Some(Self {
            path,
            group: group.to_owned(),
            keep: Retention { bytes: args.archive_bytes, age_ns },
            directory: Some(directory),
            log: None,
            segments: 0,
            buffer: Vec::new(),
            synced_at: Instant::now(),
            failure: None,
        }))
    }

    /// Records a message.
    pub(crate) fn record(&mut self, message: &Message<'_>, name: Option<&str>) {
        if self.failure.is_some() {
            return;
        }
        if let Err(failure) = self.follow(message.instance.0, message.epoch.0) {
            self.failure = Some(failure);
            return;
        }
        self.append(message.epoch.0, message.send_time_ns, &Entry::of(message, name));
    }

    /// Records that messages were lost, or became void.
    pub(crate) fn record_event(&mut self, event: &Event) {
        let entry = match event {
            Event::Missed { count } => Entry::Lost { sender: None, count: *count },
            Event::Gap { sender, from, to } => {
                Entry::Lost { sender: Some(sender.0), count: to.0.saturating_sub(from.0) }
            }
            Event::Retracted { sender, from, to } => Entry::Retracted { sender: sender.0, from: from.0, to: to.0 },
            _ => return,
        };
        if self.failure.is_none() && self.log.is_some() {
            self.append(0, wall_ns(), &entry);
        }
    }

    /// Opens the log of the group's instance at its first message.
    fn follow(&mut self, instance: u64, epoch: u64) -> Result<(), Failure> {
        if let Some((recorded, _)) = &self.log {
            return if *recorded == instance {
                Ok(())
            } else {
                Err(Failure::unusable(format!(
                    "the group formed again, as instance {instance:016x}, and {} holds instance {recorded:016x}: \
                         record to an empty directory",
                    self.path.display()
                )))
            };
        }
        let directory = self.directory.take().expect("it is locked until the log has it");
        let log = Log::open(directory, Settings::new(instance)).map_err(Failure::unusable)?;
        warn(&self.path, &log);
        self.segments = log.segments().len();
        self.log = Some((instance, log));
        let group = self.group.clone();
        self.append(epoch, wall_ns(), &Entry::Begins { group: &group });
        Ok(())
    }

    fn append(&mut self, epoch: u64, time_ns: u64, entry: &Entry<'_>) {
        let Some((_, log)) = &mut self.log else { return };
        entry.encode(&mut self.buffer);
        let mut appended = log.append(epoch, time_ns, &self.buffer).map(|_| ());
        if appended.is_ok() && log.segments().len() != self.segments {
            appended = log.prune(self.keep, wall_ns()).map(|_| ());
            self.segments = log.segments().len();
        }
        if let Err(error) = appended {
            self.failure = Some(Failure::broken(format!("recording to {}: {error}", self.path.display())));
        }
    }

    /// Syncs what is due. Returns how long the observer may sleep until the next sync.
    ///
    /// # Errors
    /// What kept it from recording, since the last call.
    pub(crate) fn sync(&mut self) -> Result<Duration, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
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
        synced.map_err(|error| Failure::broken(format!("recording to {}: {error}", self.path.display())))?;
        Ok(SYNC_EVERY)
    }

    /// Syncs all that was recorded, and ends.
    ///
    /// # Errors
    /// What kept it from recording.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let closed = self.log.take().map_or(Ok(()), |(_, log)| log.close());
        closed.map_err(|error| Failure::broken(format!("recording to {}: {error}", self.path.display())))
    }
}

impl Drop for Recorder {
    /// However the observer ends, what it recorded is kept.
    fn drop(&mut self) {
        if let Some((_, mut log)) = self.log.take() {
            let _ = log.mark();
        }
    }
}

/// Reports what the log found when it was opened.
fn warn(path: &Path, log: &Log<Directory>) {
    let recovery = log.recovery();
    let path = path.display();
    for damage in &recovery.damage {
        note(format!("warning: {path}: messages can't be read {damage}"));
    }
    for name in &recovery.headers_mended {
        note(format!("{path}: the header of {name} was damaged, and has been written again"));
    }
    if recovery.was_torn {
        note(format!(
            "{path}: the archive ended within a message, which was cut: power was lost, or its process killed"
        ));
    }
}

/// Nanoseconds since 1970.
pub(super) fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
