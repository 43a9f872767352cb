//! `[process]`: what this process is.

use super::SettingsError;
use super::ranges::in_range;
use bourdon_protocol::Start;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// This process: its role in the group, and what it stores.
///
/// ```toml
/// [process]
/// role = "member"
/// rank = 0
/// start = "live"
/// snapshots = false
/// # state_directory = "/var/lib/bourdon" # default: bourdon in $XDG_STATE_HOME or ~/.local/state
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProcessSettings {
    /// What this process does in the group.
    ///
    /// Default [`Role::Member`]. Each process has its own.
    pub role: Role,
    /// A member's rank: its number in the group. It has no meaning in another role.
    ///
    /// Default 0. From 0 to `group.members` − 1 ([`Range`](super::SettingsError::Range)). Different at each member: a
    /// process whose rank another process has reports it ([`IdentityConflict`](crate::Event::IdentityConflict)).
    pub rank: u16,
    /// Where an observer that comes late begins. It has no effect at a member, which takes a snapshot if its
    /// application takes part in that.
    ///
    /// Default [`Start::Live`]. Each process may have its own.
    pub start: Start,
    /// Whether the application gives its state to members that join, and takes a member's state when it joins
    /// ([`Delivery::SnapshotRequest`](crate::Delivery::SnapshotRequest)). Without it a joiner begins with the messages
    /// that follow. At a node with threads a subscription with [`snapshots`](crate::Subscribe::snapshots) has the same
    /// effect. At [`Durable`](super::Reliability::Durable) a member also stores its application's state, and hands it
    /// out when it starts again; there only this setting counts.
    ///
    /// Default `false`. Each process may have its own.
    pub snapshots: bool,
    /// The directory where this process stores the highest known birth of the group, one small file for each group's
    /// name and addresses. Where it can't be stored, fencing tokens may repeat if all members restart with clocks set
    /// back.
    ///
    /// Default: `bourdon` in `XDG_STATE_HOME` or `~/.local/state`. A directory that can't be written is reported
    /// ([`BirthNotStored`](crate::Event::BirthNotStored)). Each process may have its own.
    pub state_directory: Option<PathBuf>,
}

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// `member`, the default: it has a rank, publishes, orders and acknowledges, and holds the group back while it is
    /// slow.
    Member,
    /// `observer`: it delivers what the members publish, and is in no view.
    Observer,
    /// `client`: it is in no view, and delivers nothing. It publishes through a member, and sends requests and direct
    /// messages: a [`Node`](crate::Node) only.
    Client,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self { role: Role::Member, rank: 0, start: Start::Live, snapshots: false, state_directory: None }
    }
}

impl ProcessSettings {
    /// Whether a member's rank is one of the group's.
    pub(super) fn check(&self, members: u16) -> Result<(), SettingsError> {
        match self.role {
            Role::Member => in_range("process.rank", self.rank, 0, members - 1),
            Role::Observer | Role::Client => Ok(()),
        }
    }
}
