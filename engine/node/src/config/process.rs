//! `[process]`: what this process is.

use bourdon_protocol::Start;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What this process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProcessSettings {
    /// Member, observer or client.
    pub role: Role,
    /// A member's rank.
    pub rank: u16,
    /// Where an observer that comes late begins.
    pub start: Start,
    /// Whether the application gives its state to members that join, and takes it when it joins.
    pub snapshots: bool,
    /// Whether an inline node's application takes [requests](crate::Request); if not, they are declined at once. At a
    /// node with threads a subscription takes them: [`Subscribe::requests`](crate::Subscribe::requests).
    pub requests: bool,
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
    /// It is in no view and delivers nothing. It publishes through a member, and sends requests and direct messages: a
    /// [`Node`](crate::Node) only.
    Client,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            role: Role::Member,
            rank: 0,
            start: Start::Live,
            snapshots: false,
            requests: false,
            state_directory: None,
        }
    }
}
