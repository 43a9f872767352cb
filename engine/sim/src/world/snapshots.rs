//! Snapshots: an application gives its state to a joiner at once or later, and takes another's.
//!
//! An application on another thread reads behind its process, so its answer comes after more deliveries; the state in
//! it is the one at the place where it was asked. Some answers come after their view, and some never.
//!
//! The chance in it has a generator of its own, so that plans whose applications answer at once run as they always did.

use super::{Phase, World};
use crate::checkers::Checkers;
use crate::history::Lineage;
use crate::node::SnapshotDue;
use crate::plan::SNAPSHOT_BYTES;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::SnapshotAnswer;

impl World<'_> {
    /// The application is asked for its state, if its process wants it now.
    pub(super) fn begin_snapshot(&mut self, index: usize) -> Verdict {
        let Self { nodes, history, plan, now_ns, phase, snapshot_rng: rng, .. } = self;
        let node = &mut nodes[index];
        let now = node.clock.read(*now_ns);
        let Some(ticket) = node.process.as_mut().and_then(|process| process.begin_snapshot(now)) else { return Ok(()) };
        let state = history.lineages[node.lineage].snapshot();
        if state.len() > SNAPSHOT_BYTES {
            return Err(Violation::new("snapshot", "a state is longer than a snapshot may be, though none can be"));
        }
        let (mut due_ns, mut answer) = (*now_ns, SnapshotAnswer::State(state));
        if plan.snapshot_late_ns > 0 {
            due_ns += if rng.bool() { rng.u64(0..=plan.snapshot_late_ns) } else { 0 };
            if rng.u8(0..16) == 0 && *phase == Phase::Faulty {
                answer = SnapshotAnswer::Declined;
            }
        }
        node.snapshots.push(SnapshotDue { due_ns, ticket, answer });
        self.finish_snapshots(index);
        Ok(())
    }

    /// The application gives what is due.
    pub(super) fn finish_snapshots(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let (now, now_ns) = (node.clock.read(self.now_ns), self.now_ns);
        let Some(process) = &mut node.process else { return };
        for SnapshotDue { ticket, answer, .. } in node.snapshots.extract_if(.., |snapshot| snapshot.due_ns <= now_ns) {
            process.finish_snapshot(now, ticket, answer);
        }
    }

    /// The application begins with another's state, if that has come.
    pub(super) fn take_snapshot(&mut self, index: usize) -> Verdict {
        let node = &mut self.nodes[index];
        let member = index < usize::from(self.plan.members);
        let Some(process) = &mut node.process else { return Ok(()) };
        let Some(bytes) = process.take_snapshot() else { return Ok(()) };
        let Some(mut lineage) = Lineage::resume(index, member, &bytes) else {
            return Err(Violation::new("snapshot", format!("process {index} got a snapshot that cannot be read")));
        };
        (lineage.epoch, lineage.last_epoch) = (Some(process.view().epoch.0), process.view().epoch.0);
        lineage.generation = self.history.lineages[node.lineage].generation;
        lineage.whole &= !self.plan.is_lossy(); // it does not know which losses were reported to its donor
        if !self.plan.is_lossy() {
            Checkers::resumed(&lineage, process)?;
        }
        node.lineage = self.history.enter(lineage);
        self.instances.resumed(&self.history, node.lineage)
    }
}
