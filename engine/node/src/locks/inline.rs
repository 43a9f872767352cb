//! The locks and elections of an inline node: the broker, run by the thread that polls the node.
//!
//! Most inline nodes have none, and their polls shall not pay for them: so this is made with the first request. From
//! then on a poll looks at a count of commands before it sends, and at the coordinator's news after it has received.

use super::Locks;
use super::broker::Broker;
use super::commands::QueueEnd;
use bourdon_port::Waker;
use bourdon_protocol::Coordinator;
use bourdon_wire::Instant;

/// An inline node's end.
#[derive(Debug)]
pub(crate) struct InlineLocks {
    locks: Locks,
    commands: QueueEnd,
    /// Dropped last but for the commands' answers: requests end with it.
    broker: Broker,
}

impl InlineLocks {
    /// Of a node whose port has this waker.
    pub(crate) fn new(is_member: bool, waker: Waker) -> Self {
        let commands = QueueEnd::new(waker);
        Self { locks: Locks::new(commands.route(), None), commands, broker: Broker::new(is_member) }
    }

    /// The way of requests.
    pub(crate) fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Notes that the calling thread polls the node.
    #[inline]
    pub(crate) fn note_poller(&mut self) {
        self.commands.note_poller();
    }

    /// Whether something was asked for since that was last carried out.
    #[inline]
    pub(crate) fn has_commands(&self) -> bool {
        self.commands.has_commands()
    }

    /// Carries out what was asked for. Returns how much that was.
    pub(crate) fn carry_out(&mut self, coordinator: &mut Coordinator, now: Instant) -> usize {
        let commands = self.commands.take();
        let count = commands.len();
        commands.into_iter().for_each(|command| self.broker.carry_out(coordinator, now, command));
        count + self.broker.work(coordinator, now)
    }

    /// Hands out news, and asks again for what the group did not take. Returns how much there was.
    pub(crate) fn work(&mut self, coordinator: &mut Coordinator, now: Instant) -> usize {
        self.broker.work(coordinator, now)
    }
}
