//! Members that store what they report to others, and come back with it.
//!
//! The application of such a member begins with the state that was stored with them. If there is none, it has kept what
//! was delivered to it, and where it was: it skips what is delivered again.

use super::{What, World};
use crate::checkers::Checkers;
use crate::disk::{Had, NO_INCARNATION, Surviving};
use crate::history::Lineage;
use crate::plan::{EventPlan, Happening, Plan};
use crate::violation::{Verdict, Violation};
use bourdon_log::Found;
use bourdon_protocol::{Again, Config, Member, Mutant, Process, Reliability, Standing};
use bourdon_wire::Rank;

/// How long a member is down whose power has failed.
const DOWN_NS: u64 = 2_000_000;

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
        if self.nodes[index].disk.lives != lives {
            return;
        }
        if !self.nodes[index].disk.end_sync() {
            return self.lose_power(index);
        }
        self.sync(index);
        self.wake(index, self.now_ns);
    }

    /// Power fails at a member in the planned call to its disk, and perhaps at all. They start again one after the
    /// other.
    pub(super) fn lose_power(&mut self, index: usize) {
        let Some(point) = self.crash_point else { return };
        self.crash_states = self.nodes[index].disk.crash_states();
        let lost = if point.all { 0..usize::from(self.plan.members) } else { index..index + 1 };
        for (place, member) in lost.enumerate() {
            self.idle_trouble += u64::from(self.plan.log_slots); // it fetches what comes while it is down
            if self.nodes[member].process.is_some() {
                self.crash(member);
            } else if member == index {
                self.nodes[index].disk.crash(Surviving::Part(point.part)); // it was starting
            }
            let event = EventPlan { at_ns: 0, what: Happening::Restart, process: member as u16, other: 0, for_ns: 0 };
            self.push(self.now_ns + DOWN_NS * (1 + place as u64), What::Later(event));
        }
    }

    /// A group has formed another first view. Whatever crashed or was damaged, members that stored one never take
    /// part in that.
    pub(super) fn is_founded_again_rightly(&self, index: usize) -> Verdict {
        if !Self::stores(self.plan, index) || self.plan.members == 1 {
            return Ok(()); // a member that is alone enters its first view before it is stored
        }
        Err(Violation::new(
            "instance",
            format!("process {index} is in another first view, though the first was stored"),
        ))
    }

    /// Power fails no more.
    pub(super) fn keep_power(&mut self) {
        self.nodes.iter().for_each(|node| node.disk.fail_power_at(usize::MAX));
    }

    /// Some of what a member's disk holds is damaged. Its process learns of it when it starts again.
    pub(super) fn damage(&mut self, index: usize) {
        let Self { nodes, rng, network, .. } = self;
        if nodes[index].process.is_some() && nodes[index].disk.damage(rng) {
            network.faults.damage += 1;
        }
    }

    /// What is on a member's disk, for a process that begins. None if power fails meanwhile.
    pub(super) fn open_disk(&mut self, index: usize, config: &mut Config) -> Option<Found> {
        let ignores = self.mutant == Some(Mutant::DamageIgnored);
        let found = self.nodes[index].disk.open(ignores.then_some(bourdon_log::Mutant::IgnoreDamage))?;
        if found.beginnings == 0 {
            config.storage_damaged = found.set_aside;
        }
        Some(found)
    }

    /// A member starts, for the first time or again, with what is on its disk.
    pub(super) fn restore(&mut self, index: usize) -> Verdict {
        let mut config = self.fresh_config(index);
        let Some(found) = self.open_disk(index, &mut config) else {
            self.lose_power(index);
            return Ok(());
        };
        if found.damage.is_some() {
            self.network.faults.set_aside += 1;
            self.checkers.views.forgotten(Rank(index as u16));
        }
        let fresh = config.incarnation;
        config.seed ^= u64::from(self.nodes[index].disk.lives) << 20; // it draws nothing that it drew before
        let safety = self.mode != crate::options::Mode::Liveness;
        let now = self.nodes[index].clock.read(self.now_ns);
        let is_anew = self.begins_anew(index, &config, &found)?;
        let Self { nodes, history, checkers, instances, .. } = self;
        let lineage = nodes[index].lineage;
        let had = &history.lineages[lineage];
        let mut had =
            Had { epoch: had.last_epoch, incarnation: NO_INCARNATION, next: had.next.clone(), phase: had.phase };
        if is_anew {
            (had.epoch, had.next) = (0, Vec::new()); // all is new to it
        }
        let mut verdict = Ok(());
        let process = Process::restore(now, config, &found.records, |again| {
            let delivery = match again {
                Again::Message(delivery) => delivery,
                Again::Event(event) => return history.lineages[lineage].comes_to(&event),
            };
            if verdict.is_ok() && !had.has(delivery) {
                let judged = checkers.delivered(history, lineage, delivery, safety);
                verdict = judged.and_then(|()| instances.delivered(history, lineage));
            }
        });
        let mut process = process.expect("the plan was checked");
        verdict?;
        if is_anew {
            let _ = process.take_snapshot();
            Checkers::resumed(&self.history.lineages[lineage], &process)?;
            let lineage = &mut self.history.lineages[lineage];
            (lineage.epoch, lineage.last_epoch) = (Some(process.view().epoch.0), process.view().epoch.0);
            lineage.returned_in = lineage.epoch;
        }
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

    /// Whether the application begins again, with a state that it gave in an earlier life, or as at the group's first
    /// view. All in that was delivered to it.
    fn begins_anew(&mut self, index: usize, config: &Config, found: &Found) -> Result<bool, Violation> {
        let now = self.nodes[index].clock.read(self.now_ns);
        let mut is_given_all = false; // the state comes first, if there is one
        let process = Process::restore(now, config.clone(), &found.records, |again| {
            is_given_all |= matches!(again, Again::Event(_));
        });
        let state = process.ok().and_then(|mut process| process.take_snapshot());
        if state.is_none() && !is_given_all {
            return Ok(false);
        }
        let before = self.nodes[index].lineage;
        let lineage = match &state {
            None => self.history.begin(index, true),
            Some(state) => {
                let (lineage, had) = (Lineage::resume(index, true, state), &self.history.lineages[before]);
                let Some(lineage) = lineage.filter(|it| it.delivered.iter().all(|shown| had.has(shown.id))) else {
                    let detail = format!("process {index} had stored a state that it was never in");
                    return Err(Violation::new("snapshot", detail));
                };
                self.network.faults.states += 1;
                self.history.enter(lineage)
            }
        };
        let Lineage { generation, last_epoch, .. } = self.history.lineages[before];
        let begun = &mut self.history.lineages[lineage];
        (begun.generation, begun.last_epoch) = (generation, last_epoch);
        self.nodes[index].lineage = lineage;
        Ok(true)
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
