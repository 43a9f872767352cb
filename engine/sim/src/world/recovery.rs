//! A group made again by hand: an operator has a member found a new instance of the group, because the majority is
//! gone, or is taken for gone.
//!
//! As a restart of all members, it begins another generation, but its processes live on. Those that were in a view go
//! on in the older generation until they report that they follow the later one; a process that was in no view belongs
//! to the generation whose view takes it in. The operator tries again while something stands in the way, and succeeds
//! once in a run.

use super::{Phase, What, World};
use crate::plan::EventPlan;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{Member, Standing};
use bourdon_wire::Rank;

/// How often the operator tries.
const AGAIN_NS: u64 = 100_000_000;

impl World<'_> {
    pub(super) fn recover_by_hand(&mut self, event: EventPlan) -> Verdict {
        let index = usize::from(event.process);
        if self.phase != Phase::Faulty || self.network.faults.recovery > 0 {
            return Ok(());
        }
        self.hear_events(index)?; // what it reports from here on is of another generation
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        let is_paused = node.paused_until_ns > self.now_ns;
        if let Some(process) = node.process.as_mut().filter(|_| !is_paused) {
            let before = process.view().birth.max(node.birth_floor);
            if process.recover(now).is_ok() {
                let after = process.view().birth;
                if after <= before {
                    let detail = format!("member {index} founds an instance born at {after}, after one of {before}");
                    return Err(Violation::new("instance", detail));
                }
                self.begin_another_generation(index);
                self.wake(index, self.now_ns);
                return self.hear_events(index);
            }
        }
        if event.for_ns > AGAIN_NS {
            self.push(self.now_ns + AGAIN_NS, What::Later(EventPlan { for_ns: event.for_ns - AGAIN_NS, ..event }));
        }
        Ok(())
    }

    fn begin_another_generation(&mut self, founder: usize) {
        self.network.faults.recovery += 1;
        self.begin_generation();
        let members = usize::from(self.plan.members);
        for (index, node) in self.nodes[..members].iter_mut().enumerate() {
            let Some(process) = &node.process else { continue };
            let member = Member { rank: Rank(index as u16), incarnation: process.incarnation() };
            if index == founder {
                self.instances.begins(member, self.generation);
                (node.lineage, node.asked) = (self.history.begin(index, true), 0);
                node.snapshots.clear();
            } else if process.standing() != Standing::Member {
                self.instances.forget(member);
            }
        }
    }
}
