//! What every handle of an application's thread knows of its group's data agent.
//!
//! A thread that leaves work for one that sleeps must wake it, but not for every message: doorbells show which thread
//! sleeps.

use crate::closed::WhyClosed;
use crate::deadline::Canceller;
use bourdon_port::Waker;
use bourdon_ring::counters as cells;
use bourdon_ring::signal::Bell;

/// The agent, as handles see it.
#[derive(Clone)]
pub(crate) struct Agent {
    /// Announces work of any kind.
    pub(crate) work: Bell,
    /// Announces room in a subscription's ring, while delivery waits for it.
    pub(crate) room: Bell,
    /// Wakes the agent where a bell must be rung.
    pub(crate) waker: Waker,
    /// Why publications are blocked.
    pub(crate) held_up_by: cells::Reader,
    /// Ends the waits of the handles.
    pub(crate) canceller: Canceller,
    /// Why the group has ended.
    pub(crate) closed: WhyClosed,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").finish_non_exhaustive()
    }
}
