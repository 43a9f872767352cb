//! What other threads ask of the data agent and of the control thread: commands, as values in a mailbox of each.
//!
//! The data agent alone calls the protocol, and the control thread alone its coordinator. The application's threads,
//! and the thread of the admin socket, send them commands; the answer to a command is an event, a
//! [`DirectNews`](super::direct::DirectNews), the state of a [`Request`], or a [`Reply`]. A command that finds the
//! mailbox full is refused to its caller; only requests for locks and elections wait for room, since they can't fail.

use crate::admin::view::ViewReport;
use crate::mailbox::Sender;
use crate::threaded::direct::DirectCommand;
use crate::threaded::locks::request::{Answer, Request};
use crate::threaded::locks::state::{ElectionState, LockState, Wait};
use bourdon_protocol::{Participation, Refusal};
use bourdon_wire::TopicName;
use std::sync::Arc;

/// Commands that their thread has not taken: it takes so many each round, so a caller that waits for room waits
/// for microseconds.
pub(crate) const COMMANDS_MAX: usize = 256;

/// The way to the data agent.
pub(crate) type Commands = Sender<Command>;

/// A command to the data agent.
#[derive(Debug)]
pub(crate) enum Command {
    /// Begin a barrier. An event reports its completion or its refusal.
    Sync,
    /// Begin a barrier for a client of the admin socket, which gets a refusal as a [`Reply`].
    SyncForClient,
    /// Leave the group. An event reports that it has left.
    Leave,
    /// Send a direct message.
    Direct(DirectCommand),
    /// Report the view, as a [`Reply`].
    View,
}

/// The way to the control thread.
pub(crate) type LockCommands = Sender<LockCommand>;

/// A command to the control thread.
#[derive(Debug)]
pub(crate) enum LockCommand {
    /// Request a lock.
    Lock(TopicName, Wait, Answer<LockState>),
    /// Release a lock, or withdraw the request.
    Unlock(Arc<Request<LockState>>),
    /// Take part in an election.
    Elect(TopicName, Participation, Answer<ElectionState>),
    /// Watch the election only.
    Resign(TopicName, Arc<Request<ElectionState>>),
    /// Take no part in the election any more.
    LeaveElection(TopicName, Arc<Request<ElectionState>>),
}

/// An answer to a command of the admin socket's thread.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The view.
    View(Box<ViewReport>),
    /// There is no barrier.
    SyncRefused(Refusal),
}
