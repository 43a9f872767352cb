//! What can go wrong, and what to do about it.

use crate::damage::Damage;
use std::io;
use std::path::PathBuf;

/// Why a log could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such directory, and it can't be made.
    #[error("{}: {source}: name a directory whose parent exists and can be written", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// What the host reports.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("{}: another process writes to it: stop that process, or name another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is another user's.
    #[error(
        "{}: it belongs to user {owner}, and this process runs as user {user}: run it as that user, or change the \
         owner with chown", path.display()
    )]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// Other users may write to the directory.
    #[error("{}: other users may write to it (mode {mode:o}): take that away with chmod go-w", path.display())]
    OthersMayWrite {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// This process may not write to the directory.
    #[error(
        "{}: it can't be written ({source}): mount it for writing, or give the owner rwx with chmod", path.display()
    )]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// What the host reports.
        source: io::Error,
    },
    /// The directory has no log.
    #[error("there is no log in this directory: name the directory that a process writes its log to")]
    Empty,
    /// The log is another instance's.
    #[error(
        "segment {segment} is of instance {found:016x}, not of {expected:016x}: name an empty directory for this \
         instance of the group"
    )]
    OtherInstance {
        /// The segment's name.
        segment: String,
        /// Its instance.
        found: u64,
        /// The instance that was asked for.
        expected: u64,
    },
    /// A later release has written the log.
    #[error(
        "segment {segment} has format version {version}, and this release reads version {}: use a later release",
        crate::format::VERSION
    )]
    Future {
        /// The segment's name.
        segment: String,
        /// Its version.
        version: u32,
    },
    /// A segment has neither a header nor a record that is valid, and no segment stands before it.
    #[error("segment {segment} has neither a valid header nor a valid record: move it away, or restore it from a copy")]
    Unreadable {
        /// The segment's name.
        segment: String,
    },
    /// Segments do not follow each other.
    #[error(
        "segment {segment} begins before the one in front of it: the directory has segments of two logs, separate them"
    )]
    Mixed {
        /// The segment's name.
        segment: String,
    },
    /// Damaged logs were set aside too often.
    #[error(
        "the log is damaged, and {count} damaged logs were set aside before: replace the disk, or move the directories \
         damaged-* away"
    )]
    DamagedTooOften {
        /// How many are kept.
        count: u16,
    },
    /// The disk is full. Nothing is lost, and the log can be used once there is room.
    #[error("no space for {needed} bytes ({source}): free space on the disk, or keep less with a retention limit")]
    Full {
        /// How many bytes were to be written.
        needed: u64,
        /// What the host reports.
        source: io::Error,
    },
    /// A record is too long.
    #[error("a record of {length} bytes is longer than {max}, what a segment takes: use longer segments")]
    TooLong {
        /// Its length.
        length: usize,
        /// The longest.
        max: usize,
    },
    /// Segments of this length are not possible.
    #[error(
        "segments of {bytes} bytes are not possible: use a multiple of {} from {min} to {max}",
        crate::format::BLOCK_BYTES
    )]
    SegmentBytes {
        /// What was asked for.
        bytes: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A write or a sync has failed. What was appended since the last sync may be lost.
    #[error("{doing} failed ({source}): end this process as a crash would, check the disk, and start it again")]
    Failed {
        /// What was done.
        doing: &'static str,
        /// What the host reports.
        source: io::Error,
    },
    /// An earlier write or sync has failed.
    #[error("an earlier write or sync failed: end this process as a crash would, check the disk, and start it again")]
    FailedBefore,
    /// The log can't be cut there.
    #[error(
        "the log can't be cut at position {position}: only from {from} to {to}, and before the first record is appended"
    )]
    Cut {
        /// Where it should be cut.
        position: u64,
        /// The lowest position at which it can be: all before it is known to be synced.
        from: u64,
        /// The end of the log.
        to: u64,
    },
    /// There is no such damage.
    #[error("there is no damage {damage}: read the log again for what is damaged")]
    NoSuchDamage {
        /// What should be repaired.
        damage: Damage,
    },
    /// The records are not those that are missing.
    #[error("the records do not repair {damage}: give each record of these positions, as it was appended")]
    Unfit {
        /// What should be repaired.
        damage: Damage,
    },
}

impl Error {
    /// Whether the same call can succeed later, once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Of a call that wrote: a full disk loses nothing, any other failure ends the log.
    pub(crate) fn of_write(doing: &'static str, needed: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { needed, source },
            _ => Self::Failed { doing, source },
        }
    }

    pub(crate) fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Failed { doing, source }
    }
}
