//! Where a subscriber records what it delivers, and how much is kept.

use crate::exit::{Failure, note};
use bourdon_archive::Recorder;
use bourdon_log::Retention;
use std::path::PathBuf;

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

    /// Locks the directory, if one is given.
    pub(crate) fn open(&self, group: &str) -> Result<Option<Recorder>, Failure> {
        let Some(path) = self.archive.clone() else { return Ok(None) };
        let age_ns = self.archive_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000));
        let keep = Retention { bytes: self.archive_bytes, age_ns };
        Recorder::open(path, group, keep).map(Some).map_err(Failure::of_archive)
    }

    /// Reports what the log found when it was opened.
    pub(crate) fn report(&self, recorder: &Recorder) {
        let (Some(path), Some(recovery)) = (&self.archive, recorder.recovery()) else { return };
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
}
