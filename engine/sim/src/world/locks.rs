//! Applications that request locks and take part in elections, as their processes are stepped; and whether every
//! request came to an end.

use super::lock_steps::{LockServer, StepContext};
use super::{Phase, World, mixed};
use crate::checkers::{Elections, Voter, may_hold};
use crate::locker::Locker;
use crate::plan::LockPlan;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{Coordination, Leadership};
use bourdon_wire::TopicName;

impl World<'_> {
    /// Steps the application of a process that holds its coordinator: it acts and takes events in. Without `acts` it
    /// only takes events in.
    pub(super) fn coordinate(&mut self, index: usize, acts: bool) -> Verdict {
        if self.plan.locks.is_none() || self.nodes[index].control.is_some() {
            return Ok(());
        }
        self.hear_events(index)?; // an event may be of a view that begins
        self.apply(index, acts)
    }

    /// Steps the application of a process or of its control thread.
    pub(super) fn apply(&mut self, index: usize, acts: bool) -> Verdict {
        let Self { plan, nodes, rng, checkers, now_ns, phase, digest, .. } = self;
        let (Some(plan), Some(node)) = (&plan.locks, nodes.get_mut(index)) else { return Ok(()) };
        let (now_ns, now, is_ending) = (*now_ns, node.clock.read(*now_ns), *phase != Phase::Faulty);
        let mut server = match (&mut node.control, &mut node.process) {
            (Some(control), _) => LockServer::Apart(&mut control.plane.coordinator),
            (None, Some(process)) => LockServer::Inline(process),
            (None, None) => return Ok(()),
        };
        let Some(locker) = &mut node.locker else { return Ok(()) };
        let mut context = StepContext { index, plan, now_ns, now, is_ending, rng, checkers };
        let mut hear = |server: &mut LockServer<'_>, locker: &mut Locker, context: &mut StepContext<'_>| {
            while let Some(news) = server.poll_news() {
                *digest = mixed(*digest, number_of(&news));
                locker.hear(news, context)?;
            }
            Ok::<_, Violation>(())
        };
        hear(&mut server, locker, &mut context)?;
        if acts && !node.left {
            locker.act(&mut server, &mut context)?;
            hear(&mut server, locker, &mut context)?;
        }
        Ok(())
    }

    /// When an application wants to act.
    pub(super) fn locker_due(&self, index: usize) -> u64 {
        let node = &self.nodes[index];
        let member = |process: &bourdon_protocol::Process| process.standing() == bourdon_protocol::Standing::Member;
        // A control thread does not know whether its process is a member: it is refused until then.
        let acts = !node.left && (node.control.is_some() || node.process.as_ref().is_some_and(member));
        node.locker.as_ref().filter(|_| acts).map_or(u64::MAX, Locker::due)
    }

    /// When a process must be stepped for its locks and elections.
    pub(super) fn action_due(&self, index: usize) -> u64 {
        if self.nodes[index].control.is_some() { self.exchange_due(index) } else { self.locker_due(index) }
    }

    /// Judges a process that has made a step.
    pub(super) fn judge_locks(&self, index: usize) -> Verdict {
        let node = &self.nodes[index];
        let Some(process) = node.process.as_ref().filter(|_| node.control.is_none()) else { return Ok(()) };
        let Some(locker) = &node.locker else { return Ok(()) };
        let leads = process.leads().next().is_some();
        self.checkers.mutexes.stepped(index, process.locks_held(), leads, may_hold(process, index))?;
        self.judge_leaders(index, locker, |name| process.leader(name))
    }

    /// Judges a control thread that has made a step: what it holds and leads fits the last state of its process that it
    /// has taken, and nothing if the process is silent.
    pub(super) fn judge_control(&self, index: usize) -> Verdict {
        let node = &self.nodes[index];
        let (Some(control), Some(locker)) = (&node.control, &node.locker) else { return Ok(()) };
        let coordinator = &control.plane.coordinator;
        let leads = coordinator.leads().next().is_some();
        let may_hold = control.may_hold && !control.plane.is_silent();
        self.checkers.mutexes.stepped(index, coordinator.locks_held(), leads, may_hold)?;
        self.judge_leaders(index, locker, |name| coordinator.leader(name))
    }

    fn judge_leaders(
        &self,
        index: usize,
        locker: &Locker,
        leader: impl Fn(&TopicName) -> Option<Leadership>,
    ) -> Verdict {
        let names = self.plan.locks.as_ref().map_or(0, |plan| plan.names);
        let places = (0..names).filter(|place| locker.takes_part(*place));
        { places }.try_for_each(|place| self.checkers.elections.stepped(index, place, leader(&LockPlan::name(place))))
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
            let name = LockPlan::name(place);
            let leader = match &node.control {
                Some(control) => control.plane.coordinator.leader(&name),
                None => node.process.as_ref()?.leader(&name),
            };
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
