//! Why a node can't start, or go on.

use crate::closed::Closed;
use crate::config::SettingsError;
use crate::directory::DirectoryError;
use crate::host;
use crate::patterns::PatternError;
use crate::placement::PlacementError;
use bourdon_port::{HostChange, PortError};
use bourdon_protocol::Event;
use bourdon_wire::{InstanceId, Rank};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a node can't start or go on. The text gives the value that is wrong and what to do.
///
/// ```
/// # use bourdon::*;
/// # fn show(builder: &NodeBuilder) {
/// match builder.join() {
///     Ok(node) => drop(node),
///     Err(Error::Settings(error)) => eprintln!("mend the settings: {error}"),
///     Err(error) => eprintln!("{error}"), // what is wrong, the value, what to do
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings contradict themselves, or need more memory than there is. It comes before any socket is opened:
    /// mend the key that the text names.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The network can't be used, when the node starts or later. At the start mend the address, the interface or the
    /// rights that the text names; a node that ran has ended and is started again.
    #[error(transparent)]
    Port(#[from] PortError),
    /// At the start of a group of one member: a group of this name runs already, and its member has proved that it
    /// receives. Give this group another name or address, or stop the other.
    #[error(
        "a group {group:?} runs already: member {rank} of its instance {:016x} is at {address}{differs}; this process \
             would form instance {:016x} beside it: give this group another group.name or group.address, or stop the \
             other", instance.0, own.0
    )]
    GroupRuns {
        /// The group's name.
        group: String,
        /// The member that was heard.
        rank: Rank,
        /// Where it is reached.
        address: SocketAddr,
        /// Its instance.
        instance: InstanceId,
        /// The instance that this process would have formed.
        own: InstanceId,
        /// What differs in the two configurations, in parentheses, or nothing.
        differs: String,
    },
    /// At the start: the kernel granted so small a receive buffer that no window fits it. Raise `net.core.rmem_max`, or
    /// `network.receive_buffer_bytes` if that is what is too small.
    #[error(
        "the kernel granted {granted_bytes} bytes of receive buffer, too little for this group's window: {source}; \
             {}", buffer_remedy(*.asked_bytes, *.granted_bytes)
    )]
    Buffer {
        /// `network.receive_buffer_bytes`.
        asked_bytes: usize,
        /// What the kernel granted, in its own accounting (twice what is asked).
        granted_bytes: usize,
        /// What does not fit.
        source: bourdon_protocol::ConfigError,
    },
    /// At the start: the threads can't run on the cores that `threads.core` names. Name others, or none.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// At the start: the directory for counters and the admin socket can't be used. Name another with
    /// `threads.directory`.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// At the start: a file in that directory can't be made. Make room there, or name another directory.
    #[error("can't make {what} {}: {source}; make room there, or name another directory with threads.directory",
         path.display())]
    File {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// [`Node::join`](crate::Node::join) or [`Node::open_beside`](crate::Node::open_beside) after a thread of the node
    /// has panicked: a bug of Bourdon. Start another node.
    #[error("the threads of this node have ended by a panic, so they run no more groups: start another node")]
    ThreadsGone,
    /// A text is no pattern for topics. Mend it by the rule that the text gives.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Something that this process does not do, or not with its settings. The text gives what to do.
    #[error("{setting} is not supported here: {what}")]
    Unsupported {
        /// What was asked for.
        setting: &'static str,
        /// Why not, and what to do.
        what: String,
    },
    /// An archive can't be recorded or read, or a subscription can't go on with it. The text gives what to do.
    #[error(transparent)]
    Archive(#[from] bourdon_archive::Error),
    /// The node has ended, so it has no new handles.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The kernel refused a thread, an eventfd or the like: the process is usually at a limit of its own (`ulimit -n`,
    /// `ulimit -u`). Raise it.
    #[error("{doing}: {source}")]
    Io {
        /// What the node was doing.
        doing: &'static str,
        /// What the kernel reports.
        source: std::io::Error,
    },
}

impl Error {
    /// At the start: the event that a node reports whose interface becomes unusable while it runs, if that is what is
    /// wrong now. It may pass: a host that boots has its interfaces late. So a caller may report it, wait, and start
    /// the node again.
    #[must_use]
    pub fn network_lost(&self) -> Option<Event> {
        let Self::Port(PortError::Interface { name, loss, .. }) = self else { return None };
        Some(host::event(&HostChange::Lost { interface: name.clone(), loss: *loss }))
    }
}

/// What makes a receive buffer larger. The kernel grants twice what was requested, within its limit.
fn buffer_remedy(asked_bytes: usize, granted_bytes: usize) -> String {
    if granted_bytes / 2 >= asked_bytes {
        format!("network.receive_buffer_bytes is {asked_bytes}, too small: raise it, or leave it out")
    } else {
        format!("raise net.core.rmem_max to network.receive_buffer_bytes ({asked_bytes})")
    }
}
