//! `[storage]`: where a durable member stores what it reports to others.

use super::{Reliability, Role, Settings, SettingsError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a member stores what it reports to others, at the level [`Durable`](Reliability::Durable).
///
/// ```toml
/// [storage]
/// # directory = "/var/lib/bourdon/trades-0" # needed at the level durable
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StorageSettings {
    /// The directory of this member's log, on a disk of its own if syncs are not to wait for others. It is created, and
    /// locked while the node runs. A member that starts again with it comes back with all that it had reported.
    ///
    /// Default: none; a member at the level `durable` is refused without it
    /// ([`NoStorage`](super::SettingsError::NoStorage)). Different at each member.
    pub directory: Option<PathBuf>,
}

impl StorageSettings {
    /// Whether the levels of the group and its channels can be had.
    pub(super) fn check(settings: &Settings) -> Result<(), SettingsError> {
        let is_durable = |level: Option<Reliability>| level == Some(Reliability::Durable);
        if let Some(channel) = settings.channels.iter().find(|channel| is_durable(channel.reliability)) {
            return Err(SettingsError::ChannelNotStored { name: channel.name.clone() });
        }
        let stores = is_durable(Some(settings.group.reliability)) && settings.process.role == Role::Member;
        if stores && settings.storage.directory.is_none() {
            return Err(SettingsError::NoStorage);
        }
        Ok(())
    }
}
