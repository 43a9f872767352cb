//! What the application's threads and the admin thread ask of the control thread: commands, as values in one mailbox.
//!
//! The control thread alone has the coordinator. The answer to a command is the state of a [`Request`]. A command that
//! finds the mailbox full waits for room: a request for a lock can't fail because of that.

use super::request::{Answer, Request};
use super::state::{ElectionState, LockState, Wait};
use crate::mailbox::Sender;
use bourdon_protocol::Participation;
use bourdon_wire::TopicName;
use std::sync::Arc;

/// Commands that the control thread has not taken: it takes so many each round, so a caller that waits for room waits
/// for microseconds.
pub(crate) const COMMANDS_MAX: usize = 256;

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
