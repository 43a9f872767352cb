//! What can go wrong, and what to do about it.

use std::path::PathBuf;

/// Why an archive can't be recorded or read, or a subscription can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory can't be recorded to.
    #[error(transparent)]
    Directory(bourdon_log::Error),
    /// The archive can't be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: bourdon_log::Error,
    },
    /// The archive can't be read further.
    #[error("{}: {source}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: bourdon_log::Error,
    },
    /// Recording failed.
    #[error("recording to {}: {source}", path.display())]
    Record {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: bourdon_log::Error,
    },
    /// The group formed again, and a directory holds one instance.
    #[error(
        "the group formed again, as instance {found:016x}, and {} holds instance {recorded:016x}: record to an empty \
         directory", path.display()
    )]
    RecordedInstance {
        /// The directory.
        path: PathBuf,
        /// The instance that it holds.
        recorded: u64,
        /// The group's instance.
        found: u64,
    },
    /// A subscription's archive, position and group are not of one instance.
    #[error(
        "the group formed again: this is instance {found:016x}, and the position is of instance {expected:016x}: give \
         the archive of this instance, and begin with another position"
    )]
    OtherInstance {
        /// The instance of a message, or of the archive.
        found: u64,
        /// The instance of the subscription.
        expected: u64,
    },
    /// The messages have no order numbers.
    #[error("a subscription over an archive needs a group in total order: its messages have no order numbers")]
    NoOrder,
    /// The thread that reads the archive could not be started, or has ended.
    #[error("the thread that reads the archive has ended")]
    ThreadEnded,
}

impl Error {
    /// Whether what was asked for does not fit: another directory, position or group is needed. Else something broke.
    pub fn is_unfit(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::Record { .. } | Self::ThreadEnded)
    }

    /// Whether the disk is full: nothing that was recorded is lost, and recording goes on once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Record { source, .. } if source.is_full())
    }
}
