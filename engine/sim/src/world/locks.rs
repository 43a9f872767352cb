//! Applications that request locks and take part in elections, as their processes are stepped; and whether every
//! request came to an end.

use super::lock_steps::StepContext;
use super::{Phase, World, mixed};
use crate::checkers::{Elections, Voter};
use crate::locker::Locker;
use crate::plan::LockPlan;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::Coordination;

impl World<'_> {
    /// Steps the application of a process: it acts and takes events in. Without `acts` it only takes events in.
    pub(super) fn coordinate(&mut self, index: usize, acts: bool) -> Verdict {
        if self.plan.locks.is_none() {
            return Ok(());
        }
        self.hear_events(index)?; // an event may be of a view that begins
        let Self { plan, nodes, rng, checkers, now_ns, phase, digest, .. } = self;
        let (Some(plan), Some(node)) = (&plan.locks, nodes.get_mut(index)) else { return Ok(()) };
        let (Some(process), Some(locker)) = (&mut node.process, &mut node.locker) else { return Ok(()) };
        let (now_ns, now, is_ending) = (*now_ns, node.clock.read(*now_ns), *phase != Phase::Faulty);
        let mut context = StepContext { index, plan, now_ns, now, is_ending, rng, checkers };
        let mut hear = |process: &mut bourdon_protocol::Process, locker: &mut Locker, context: &mut StepContext<'_>| {
            while let Some(news) = process.poll_coordination() {
                *digest = mixed(*digest, number_of(&news));
                locker.hear(news, context)?;
            }
            Ok::<_, Violation>(())
        };
        hear(process, locker, &mut context)?;
        if acts && !node.left {
            locker.act(process, &mut context)?;
            hear(process, locker, &mut context)?;
        }
        Ok(())
    }

    /// When an application wants to act.
    pub(super) fn locker_due(&self, index: usize) -> u64 {
        let node = &self.nodes[index];
        let member = |process: &bourdon_protocol::Process| process.standing() == bourdon_protocol::Standing::Member;
        let acts = !node.left && node.process.as_ref().is_some_and(member);
        node.locker.as_ref().filter(|_| acts).map_or(u64::MAX, Locker::due)
    }

    /// Judges a process that has made a step.
    pub(super) fn judge_locks(&self, index: usize) -> Verdict {
        let node = &self.nodes[index];
        let (Some(plan), Some(process)) = (&self.plan.locks, &node.process) else { return Ok(()) };
        let Some(locker) = &node.locker else { return Ok(()) };
        self.checkers.coordinated(process, index)?;
        let places = (0..plan.names).filter(|place| locker.takes_part(*place));
        { places }
            .try_for_each(|place| self.checkers.elections.stepped(index, place, process.leader(&LockPlan::name(place))))
    }

    /// Whether every request has come to its end, and all agree on the leaders.
    pub(super) fn locks_are_settled(&self) -> Verdict {
        let Some(plan) = &self.plan.locks else { return Ok(()) };
        let lives = |index: usize| self.nodes[index].is_alive();
        let lockers = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.locker.as_ref()?)));
        if let Some((index, _)) = lockers.filter(|(index, _)| lives(*index)).find(|(_, locker)| locker.is_busy()) {
            let detail = format!("the application of process {index} has requests left to make");
            return Err(Violation::new("waiting", detail));
        }
        self.checkers.mutexes.is_quiet(lives)?;
        (0..plan.names).try_for_each(|place| Elections::agreed(place, &self.voters(plan, place)))
    }

    fn voters(&self, plan: &LockPlan, place: usize) -> Vec<Voter> {
        let alive = self.nodes.iter().enumerate().filter(|(_, node)| node.is_alive() && node.locker.is_some());
        let voter = |(index, node): (usize, &crate::node::Node)| {
            let leader = node.process.as_ref()?.leader(&LockPlan::name(place));
            let (stands, campaigns) = Locker::parts(plan, index);
            Some(Voter { process: index, stands, campaigns, leader })
        };
        alive.filter_map(voter).collect()
    }
}

fn number_of(news: &Coordination) -> u64 {
    match news {
        Coordination::Lock(id, news) => id.0 << 8 | matches!(news, bourdon_protocol::LockNews::Granted(_)) as u64,
        Coordination::Leader(_, None) => 2,
        Coordination::Leader(_, Some(leadership)) => {
            leadership.token.number << 8 | u64::from(leadership.leader.0) << 2 | 3
        }
        Coordination::Deposed(..) => 4,
    }
}
