//! Memory is bounded: what a process keeps beyond its logs stays within bounds that are known in advance.

use super::{Verdict, Violation};
use crate::plan::{Plan, SNAPSHOT_BYTES};
use bourdon_protocol::{MemoryUse, Process};

pub(super) const NAME: &str = "memory";

/// What a process may have waiting for its network.
const OUTBOX_BYTES: usize = 3 << 19;
/// Events an application has not fetched.
const EVENTS: usize = 256;

/// What a process keeps of locks and elections: some entries for each member of each name, and link messages to members
/// that are slow to answer.
const COORDINATION: usize = 2048;

/// The window of a process that is no member.
const OBSERVER_WINDOW_SLOTS: u32 = 16;

#[derive(Debug)]
pub(super) struct Memory {
    assembly_bytes: usize,
    early_datagrams: usize,
    clients: usize,
    client_bytes: usize,
    unsettled: usize,
    ahead_bytes: usize,
}

/// Snapshots under way: one made, one fetched, one not taken yet.
const SNAPSHOTS: usize = 3;
/// The positions in front of an application's state.
const POSITIONS_BYTES: usize = 1 << 16;

impl Memory {
    pub(super) fn new(plan: &Plan) -> Self {
        let members = usize::from(plan.members);
        let observed = plan.observers.iter().map(|observer| observer.receive_log_slots).max().unwrap_or(0);
        let slots = plan.receive_log_slots.max(observed) as usize;
        let window_slots = plan.window_slots.iter().copied().max().unwrap_or(0).max(OBSERVER_WINDOW_SLOTS);
        Self {
            assembly_bytes: members * plan.max_message_bytes,
            early_datagrams: members * slots.next_power_of_two(),
            clients: usize::from(plan.clients),
            client_bytes: usize::from(plan.clients) * plan.max_message_bytes,
            ahead_bytes: members * plan.mtu_bytes * window_slots as usize,
            // Each message is published once, however often it is published again. A request for a lock is two commands
            // at most.
            unsettled: 2 * plan.locks.as_ref().map_or(0, |locks| locks.entries as usize)
                + (plan.messages + u32::from(plan.clients) * (plan.messages / 4 + 1)) as usize
                + 1,
        }
    }

    pub(super) fn stepped(&self, process: &Process) -> Verdict {
        self.judge(&process.memory_use())
    }

    fn judge(&self, held: &MemoryUse) -> Verdict {
        let within = held.outbox_bytes <= OUTBOX_BYTES
            && held.events <= EVENTS
            && held.early_datagrams <= self.early_datagrams
            && held.assembly_bytes <= self.assembly_bytes
            && held.clients.max(held.client_watermarks) <= self.clients
            && held.client_bytes <= self.client_bytes
            && held.unsettled <= self.unsettled
            && held.ahead_bytes <= self.ahead_bytes
            && held.coordination <= COORDINATION
            && held.snapshot_bytes <= SNAPSHOTS * (SNAPSHOT_BYTES + POSITIONS_BYTES);
        if within { Ok(()) } else { Err(Violation::new(NAME, format!("a process keeps {held:?}"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_its_bound() {
        let memory = Memory::new(&Plan::draw(0));
        assert_eq!(memory.judge(&MemoryUse::default()), Ok(()));
        let over: [fn(&mut MemoryUse); 11] = [
            |held| held.coordination = COORDINATION + 1,
            |held| held.outbox_bytes = OUTBOX_BYTES + 1,
            |held| held.events = EVENTS + 1,
            |held| held.early_datagrams = usize::MAX,
            |held| held.assembly_bytes = usize::MAX,
            |held| held.clients = usize::MAX,
            |held| held.client_watermarks = usize::MAX,
            |held| held.client_bytes = usize::MAX,
            |held| held.unsettled = usize::MAX,
            |held| held.snapshot_bytes = usize::MAX,
            |held| held.ahead_bytes = usize::MAX,
        ];
        for exceed in over {
            let mut held = MemoryUse::default();
            exceed(&mut held);
            assert!(memory.judge(&held).is_err(), "{held:?}");
        }
    }
}
