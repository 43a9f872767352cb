//! A messaging system as the harness drives it.
//!
//! Two systems are compared only if the same loop drives both. So the loops (`ends.rs`) are written once, over this
//! trait, and a system is an implementation that adds nothing: no queue, no thread and no copy that the system does
//! not need itself.
//!
//! The ends number and stamp each message (`message.rs`); a link carries the bytes unchanged, whole and in order, or
//! loses them: the ends count both.

use crate::{Failure, Idle, NodeFigures};

/// The stages of a client's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing counts yet.
    WarmUp,
    /// Everything counts.
    Measured,
    /// All replies have come, or are lost.
    Done,
}

/// One end of a messaging system under measurement: what it offers a process that sends and receives whole messages.
pub trait Link {
    /// Offers one message; `Ok(false)`: the system has no room now.
    ///
    /// # Errors
    /// If the system failed.
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure>;

    /// Takes what has arrived, in order of arrival; returns how many messages. It also does what the system must do
    /// regularly, such as acknowledging.
    ///
    /// # Errors
    /// If the system failed.
    fn poll(&mut self, on_message: impl FnMut(&[u8])) -> Result<usize, Failure>;

    /// Called after a burst of sends: nothing may linger after it.
    ///
    /// # Errors
    /// If the system failed.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Called when no message arrived and none could be sent.
    ///
    /// # Errors
    /// If the system failed.
    fn wait(&mut self, idle: Idle) -> Result<(), Failure> {
        idle.pause();
        Ok(())
    }

    /// Called by a client when a stage of its run begins; the last one returns what the node counted while it was
    /// measured, if it counts.
    ///
    /// # Errors
    /// If the system failed.
    fn enter(&mut self, _stage: Stage) -> Result<Option<NodeFigures>, Failure> {
        Ok(None)
    }
}
