//! `[process]`: what this process is.

use bourdon_protocol::Start;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What this process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProcessSettings {
    /// Member or observer.
    pub role: Role,
    /// A member's rank.
    pub rank: u16,
    /// Where an observer that comes late begins.
    pub start: Start,
    /// Whether the application gives its state to members that join, and takes it when it joins.
    pub snapshots: bool,
    /// Where the group's highest birth is stored; by default `bourdon` in this user's state directory.
    pub state_directory: Option<PathBuf>,
}

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// One of the members, by its rank: it publishes, orders and acknowledges.
    Member,
    /// It delivers what the members publish, and has no part in views.
    Observer,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self { role: Role::Member, rank: 0, start: Start::Live, snapshots: false, state_directory: None }
    }
}
