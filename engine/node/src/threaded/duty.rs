//! What a data agent runs: groups, and clients of groups.
//!
//! An agent does the same for each: a round, a look whether it has ended, a sleep in its port. Only what a round does
//! differs.

use crate::threaded::client::ClientSeat;
use crate::threaded::hosted::Hosted;
use bourdon_port::{Port, PortError, Sleep, Waker};
use bourdon_protocol::Satisfied;
use bourdon_wire::{Instant, MessageName};
use std::time::Duration;

/// One of them.
pub(crate) enum Duty {
    /// A process of a group.
    Group(Box<Hosted>),
    /// A client of one.
    Client(Box<ClientSeat>),
}

impl Duty {
    /// Wakes an agent that sleeps in its port.
    pub(crate) fn waker(&self) -> Waker {
        match self {
            Self::Group(group) => group.node.engine.port().waker(),
            Self::Client(client) => client.node.waker(),
        }
    }

    /// Whether a message of another group has passed, if this is that group.
    pub(crate) fn has_passed(&self, message: &MessageName) -> bool {
        match self {
            Self::Group(group) => group.has_passed(message),
            Self::Client(_) => true,
        }
    }

    /// Whether this is the group of a message.
    pub(crate) fn is_named(&self, message: &MessageName) -> bool {
        match self {
            Self::Group(group) => group.is_named(message),
            Self::Client(_) => false,
        }
    }

    /// Runs one round. Returns how much was done.
    #[inline]
    pub(crate) fn round(&mut self, passed: Satisfied<'_>) -> usize {
        match self {
            Self::Group(group) => group.round(passed),
            Self::Client(client) => client.round(),
        }
    }

    /// The last round's time.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::Group(group) => group.now(),
            Self::Client(client) => client.now(),
        }
    }

    /// Notes the agent's longest cycles: ever, and lately.
    #[inline]
    pub(crate) fn note_cycles(&mut self, longest_ns: u64, longest_recent_ns: u64) {
        if let Self::Group(group) = self {
            group.figures.longest_cycle_ns = longest_ns;
            group.figures.longest_recent_cycle_ns = longest_recent_ns;
        }
    }

    /// Writes its figures where tools read them.
    #[inline]
    pub(crate) fn update_counters(&mut self) {
        if let Self::Group(group) = self {
            group.counters.update(&group.node.engine, &group.figures);
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        match self {
            Self::Group(group) => group.is_over(),
            Self::Client(client) => client.is_over(),
        }
    }

    /// Reports its outcome.
    pub(crate) fn finish(self) {
        match self {
            Self::Group(group) => group.finish(),
            Self::Client(client) => client.finish(),
        }
    }

    /// Whether it stands still, because its control thread does.
    #[inline]
    pub(crate) fn is_halted(&self) -> bool {
        matches!(self, Self::Group(group) if group.is_halted)
    }

    /// Whether it can't sleep for long: what it waits for rings no bell.
    pub(crate) fn sleeps_shortly(&self) -> bool {
        match self {
            Self::Group(group) => group.is_halted || group.closing.has_begun(),
            Self::Client(client) => client.closing.has_begun(),
        }
    }

    /// Whether there is something that no ring of the bell announces.
    pub(crate) fn has_news(&mut self) -> bool {
        match self {
            Self::Group(group) => group.has_news(),
            Self::Client(client) => client.has_news(),
        }
    }

    /// Prepares for a sleep. Returns whether delivery waits for room in a ring.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        match self {
            Self::Group(group) => group.prepare_sleep(),
            Self::Client(_) => false,
        }
    }

    /// Counts a sleep.
    pub(crate) fn note_sleep(&mut self) {
        if let Self::Group(group) = self {
            group.figures.sleeps += 1;
        }
    }

    /// Sleeps in its port.
    pub(crate) fn wait(&mut self, longest: Duration) {
        match self {
            Self::Group(group) => group.failure = group.node.wait(longest).err(),
            Self::Client(client) => client.failure = client.node.wait(longest).err(),
        }
    }

    /// Prepares a sleep in its port among others.
    ///
    /// # Errors
    /// If the port is broken.
    pub(crate) fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        match self {
            Self::Group(group) => group.node.sleeper(longest),
            Self::Client(client) => client.node.sleeper(longest),
        }
    }

    /// Takes in what the kernel reports after such a sleep.
    pub(crate) fn end_sleep(&mut self) {
        let (failure, ended) = match self {
            Self::Group(group) => (&mut group.failure, group.node.engine.end_sleep()),
            Self::Client(client) => (&mut client.failure, client.node.end_sleep()),
        };
        *failure = failure.take().or(ended.err());
    }
}
