//! `[archive]`: where a process records what it delivers.

use super::{Settings, SettingsError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a member or observer records what it delivers; `bourdon archive` reads it.
///
/// ```toml
/// [archive]
/// # directory = "/var/lib/bourdon/archive" # none: it records nothing
/// # max_bytes = 100_000_000_000            # none: all
/// # max_age_s = 604_800                    # none: for ever
/// delivery_waits = false
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ArchiveSettings {
    /// The directory of the archive. It is created, and locked while the node runs; a channel's archive is a directory
    /// in it, named after the channel. A process that is started again goes on in it. An archive holds one instance of
    /// the group: a process that joins another records nothing more, and reports it.
    ///
    /// Default: none; nothing is recorded.
    pub directory: Option<PathBuf>,
    /// How many bytes of the archive are kept: whole segments of 64 MiB are removed, the oldest first, never the last.
    ///
    /// Default: all.
    pub max_bytes: Option<u64>,
    /// A segment is removed once its newest message is older than so many seconds.
    ///
    /// Default: none; they stay for ever.
    pub max_age_s: Option<u64>,
    /// Whether this process delivers nothing while 64 MiB wait to be recorded, or while the disk is full, so that
    /// nothing is left out: a slow disk of a member holds up the group then. Otherwise it goes on, and the archive has
    /// the number of the messages that were left out, at their place.
    ///
    /// Default false.
    pub delivery_waits: bool,
}

impl ArchiveSettings {
    /// Whether the keys beside the directory have an effect.
    pub(super) fn check(settings: &Settings) -> Result<(), SettingsError> {
        let Self { directory, max_bytes, max_age_s, delivery_waits } = &settings.archive;
        let keys = [
            ("archive.max_bytes", max_bytes.map(|bytes| bytes.to_string())),
            ("archive.max_age_s", max_age_s.map(|seconds| seconds.to_string())),
            ("archive.delivery_waits", delivery_waits.then(|| "true".to_owned())),
        ];
        let unused = keys.into_iter().find_map(|(key, value)| value.map(|value| (key, value)));
        match unused.filter(|_| directory.is_none()) {
            None => Ok(()),
            Some((key, value)) => {
                let why = "and nothing is recorded: set archive.directory, or remove it";
                Err(SettingsError::NoEffect { key, value, why })
            }
        }
    }
}
