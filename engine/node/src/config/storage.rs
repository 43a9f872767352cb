//! `[storage]`: where a durable member stores what it reports to others.

use super::ranges::in_range;
use super::{Reliability, Role, Settings, SettingsError};
use bourdon_protocol::Limits;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a member stores what it reports to others, at the level [`Durable`](Reliability::Durable).
///
/// ```toml
/// [storage]
/// # directory = "/var/lib/bourdon/trades-0" # needed at the level durable
/// view_bytes = 268435456
/// snapshots = true
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StorageSettings {
    /// The directory of this member's log, on a disk of its own if syncs are not to wait for others. It is created, and
    /// locked while the node runs. A member that starts again with it comes back with all that it had reported.
    ///
    /// Default: none; a member at the level `durable` is refused without it
    /// ([`NoStorage`](super::SettingsError::NoStorage)). Different at each member.
    pub directory: Option<PathBuf>,

    /// Once the oldest member has stored so many bytes of a view's messages, that view ends, and the next has the same
    /// members. Then the members discard what lies before it, as soon as the applications that give snapshots have
    /// given theirs. A member that starts again reads up to three times as much into memory.
    ///
    /// Default: 268435456. Range: 1048576 to 2⁶²
    /// ([`Range`](super::SettingsError::Range)). The same at every member, if it is to mean anything.
    pub view_bytes: u64,

    /// With `process.snapshots`: whether this member stores its application's state, and hands the last one out when it
    /// starts again. An application that keeps its state itself, with the place behind it, has no use for that.
    ///
    /// Default: `true`. Each member may have its own.
    pub snapshots: bool,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self { directory: None, view_bytes: Limits::default().stored_view_bytes, snapshots: true }
    }
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
        in_range("storage.view_bytes", settings.storage.view_bytes, 1 << 20, 1 << 62)
    }
}
