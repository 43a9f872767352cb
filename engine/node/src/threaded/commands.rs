//! What other threads ask of the data agent: commands, as values in one mailbox.
//!
//! The data agent alone calls the protocol. The application's threads, and the admin thread, send it commands; the
//! answer to a command is an event, the outcome of a [`Call`](crate::Call) or a [`Reply`]. A command that finds
//! the mailbox full is refused to its caller. The commands of locks and elections go to the control thread
//! (`locks/commands.rs`).

use crate::admin::recovery::{Ended, RecoveryReport};
use crate::admin::view::ViewReport;
use crate::mailbox::Sender;
use crate::threaded::direct::CallCommand;
use crate::threaded::intake::Intake;
use crate::threaded::outlet::Outlet;
use bourdon_protocol::Refusal;

/// Commands that the data agent has not taken: it takes so many each round.
pub(crate) const COMMANDS_MAX: usize = 256;

/// Events that a receiver has not fetched: as many as the protocol itself keeps. One that finds its mailbox full is
/// dropped and counted (`events_dropped`): an application that fetches none must not stop the engine.
pub(crate) const EVENTS_MAX: usize = 256;

/// The way to the data agent.
pub(crate) type Commands = Sender<Command>;

/// A command to the data agent.
pub(crate) enum Command {
    /// Begin a barrier. An event reports its completion or its refusal.
    Sync(Option<Box<[u8]>>),
    /// Begin a barrier for a client of the admin socket, which gets a refusal as a [`Reply`].
    SyncForClient,
    /// Leave the group. An event reports that it has left.
    Leave,
    /// Send a direct message or a request.
    Call(CallCommand),
    /// End the calls whose deadline has passed: a caller waits to learn what became of its own.
    EndLateCalls,
    /// Report the view, as a [`Reply`].
    View,
    /// Report what a recovery by hand would do, as a [`Reply`]; end this view by one, if a view is named.
    Recover(Option<Ended>),
    /// Deliver to one more subscription, from here on.
    Subscribe(Box<Outlet>),
    /// Take what one more publication publishes.
    Publish(Box<Intake>),
}

/// An answer to a command of the admin socket's thread.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The view.
    View(Box<ViewReport>),
    /// What a recovery would do, or has done.
    Recovery(Box<RecoveryReport>),
    /// There is no barrier.
    SyncRefused(Refusal),
}
