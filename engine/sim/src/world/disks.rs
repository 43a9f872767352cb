//! Members that store what they report to others, and come back with it.
//!
//! The application of such a member keeps what was delivered to it, and where it was: it skips what is delivered again.

use super::{What, World};
use crate::disk::{Had, NO_INCARNATION};
use crate::plan::Plan;
use crate::violation::Verdict;
use bourdon_protocol::{Member, Process, Reliability, Standing};
use bourdon_wire::Rank;

impl World<'_> {
    pub(super) fn stores(plan: &Plan, index: usize) -> bool {
        plan.reliability == Reliability::Durable && index < usize::from(plan.members)
    }

    /// The process hears what has been synced.
    pub(super) fn hear_disk(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        if let (Some(process), Some(synced)) = (&mut node.process, node.disk.news()) {
            process.stored(now, synced);
        }
    }

    /// What the process hands out goes to its disk.
    pub(super) fn store(&mut self, index: usize) {
        if !Self::stores(self.plan, index) {
            return;
        }
        let node = &mut self.nodes[index];
        let (now, disk) = (node.clock.read(self.now_ns), &mut node.disk);
        let Some(process) = &mut node.process else { return };
        let taken = process.take_records(now, |record| disk.append(record));
        debug_assert_eq!(taken, disk.len(), "the process counts as the disk does");
        self.sync(index);
    }

    fn sync(&mut self, index: usize) {
        let disk = &mut self.nodes[index].disk;
        if disk.begin_sync() {
            let (lives, within_ns) = (disk.lives, self.rng.u64(0..=self.plan.sync_max_ns));
            self.push(self.now_ns + within_ns, What::Synced(index, lives));
        }
    }

    pub(super) fn synced_disk(&mut self, index: usize, lives: u32) {
        if self.nodes[index].disk.lives == lives {
            self.nodes[index].disk.end_sync();
            self.sync(index);
            self.wake(index, self.now_ns);
        }
    }

    /// A member starts again with what is on its disk.
    pub(super) fn restore(&mut self, index: usize) -> Verdict {
        let mut config = self.fresh_config(index);
        let fresh = config.incarnation;
        config.seed ^= u64::from(self.nodes[index].disk.lives) << 20; // it draws nothing that it drew before
        let safety = self.mode != crate::options::Mode::Liveness;
        let Self { nodes, history, checkers, instances, now_ns, .. } = self;
        let node = &mut nodes[index];
        let lineage = node.lineage;
        let had = &history.lineages[lineage];
        let mut had =
            Had { epoch: had.last_epoch, incarnation: NO_INCARNATION, next: had.next.clone(), phase: had.phase };
        let mut verdict = Ok(());
        let process = Process::restore(node.clock.read(*now_ns), config, node.disk.records(), |delivery| {
            if verdict.is_ok() && !had.has(delivery) {
                let judged = checkers.delivered(history, lineage, delivery, safety);
                verdict = judged.and_then(|()| instances.delivered(history, lineage));
            }
        });
        let process = process.expect("the plan was checked");
        verdict?;
        let member = Member { rank: Rank(index as u16), incarnation: process.incarnation() };
        let is_same = member.incarnation != fresh;
        if is_same {
            self.checkers.restored(index, member);
        }
        if !is_same || process.standing() != Standing::Member {
            self.nodes[index].incarnation = member.incarnation.0;
            self.live(index, process);
            return Ok(());
        }
        had.incarnation = member.incarnation;
        self.network.faults.restored += 1;
        self.history.abandon(member);
        let node = &mut self.nodes[index];
        (node.incarnation, node.had, node.process) = (member.incarnation.0, Some(had), Some(process));
        (node.left, node.ballots) = (false, 0);
        self.part_from_coordinator(index);
        self.store(index);
        self.wake(index, self.now_ns);
        Ok(())
    }

    /// Whether the application of a restored process is in this view already, or in a later one: as a member that had
    /// joined that, and not stored it yet.
    pub(super) fn is_restored_view(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let (Some(process), Some(had)) = (&node.process, &node.had) else { return false };
        process.incarnation() == had.incarnation
            && process.view().epoch.0 <= self.history.lineages[node.lineage].last_epoch
    }
}
