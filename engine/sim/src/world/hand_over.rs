//! Members whose coordinators run beside their processes: what the two hand over is late, and each may stall alone.
//!
//! The chance in it has a generator of its own, so that plans without a hand-over run as they always did.

use super::{Phase, STEPS_MAX, World};
use crate::checkers::may_hold;
use crate::control::{Control, Mail};
use crate::network::hits;
use crate::options::Mode;
use crate::plan::HandOverPlan;
use crate::violation::{Verdict, Violation};
use bourdon_protocol::{Member, ToControl, ToCoordinator};
use bourdon_wire::Rank;
use fastrand::Rng;

/// A control thread with something overdue looks again after so long.
const AGAIN_NS: u64 = 1000;

/// How late everything is that is handed over.
#[derive(Debug)]
pub(super) struct HandOver {
    plan: HandOverPlan,
    rng: Rng,
}

impl HandOver {
    pub(super) fn new(plan: HandOverPlan, seed: u64) -> Self {
        Self { plan, rng: Rng::with_seed(seed ^ 0xa9a27) }
    }

    /// How long a value is on its way.
    fn delay_ns(&mut self) -> u64 {
        if self.rng.bool() { 0 } else { self.rng.u64(0..=self.plan.delay_max_ns) }
    }

    fn stall_ns(&mut self, permille: u32) -> Option<u64> {
        hits(&mut self.rng, permille).then(|| self.rng.u64(0..=self.plan.stall_max_ns))
    }
}

impl World<'_> {
    /// A new process of a member gives its coordinator away.
    pub(super) fn part_from_coordinator(&mut self, index: usize) {
        if self.hand_over.is_none() || index >= usize::from(self.plan.members) {
            return;
        }
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        let Some(process) = &mut node.process else { return };
        node.control = Some(Control::new(process.release_control(), now));
        self.wake_control(index, self.now_ns);
    }

    // ---- the process ----------------------------------------------------------------------------------------------

    /// Whether the process stalls instead of being stepped, while its control thread runs on.
    pub(super) fn stalls(&mut self, index: usize) -> bool {
        if self.phase != Phase::Faulty || self.nodes[index].control.is_none() {
            return false;
        }
        let stall =
            self.hand_over.as_mut().and_then(|hand_over| hand_over.stall_ns(hand_over.plan.data_stall_permille));
        stall.into_iter().for_each(|stall_ns| self.pause_process(index, stall_ns));
        stall.is_some()
    }

    /// The process does what has arrived from its coordinator.
    pub(super) fn obey(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        let (Some(process), Some(control)) = (&mut node.process, &mut node.control) else { return };
        while let Some(order) = control.orders.pop(self.now_ns) {
            process.obey(now, order);
        }
    }

    /// The process hands over what it has to report.
    pub(super) fn hand_reports_over(&mut self, index: usize) {
        let Self { nodes, hand_over, now_ns, .. } = self;
        let node = &mut nodes[index];
        let now = node.clock.read(*now_ns);
        let (Some(hand_over), Some(process), Some(control)) = (hand_over, &mut node.process, &mut node.control) else {
            return;
        };
        let may_hold = may_hold(process, index);
        let changed = std::mem::replace(&mut control.handed_may_hold, may_hold) != may_hold;
        // What this step has reported comes one by one: it may hold from the first value on, and until the last.
        if changed && may_hold {
            control.mail.push(*now_ns, Mail::MayHold(true));
        }
        while let Some(report) = process.poll_report() {
            control.mail.push(*now_ns + hand_over.delay_ns(), Mail::Report(report));
        }
        if changed && !may_hold {
            control.mail.push(*now_ns, Mail::MayHold(false));
        }
        control.ran_at = now;
        let due_ns = control.mail.due();
        self.wake_control(index, due_ns);
    }

    /// When the process must be stepped for what it exchanges with its coordinator.
    pub(super) fn exchange_due(&self, index: usize) -> u64 {
        self.nodes[index].control.as_ref().map_or(u64::MAX, |control| control.orders.due())
    }

    // ---- the control thread ---------------------------------------------------------------------------------------

    pub(super) fn wake_control(&mut self, index: usize, at_ns: u64) {
        let Some(control) = &mut self.nodes[index].control else { return };
        let at_ns = at_ns.max(control.paused_until_ns).max(self.now_ns);
        if at_ns < control.wakes_at_ns {
            control.wakes_at_ns = at_ns;
            self.push(at_ns, super::What::Control(index));
        }
    }

    pub(super) fn pause_control(&mut self, index: usize, pause_ns: u64) {
        let Some(control) = &mut self.nodes[index].control else { return };
        control.paused_until_ns = control.paused_until_ns.max(self.now_ns + pause_ns);
        let (was_ns, until_ns) = (control.wakes_at_ns, control.paused_until_ns);
        if was_ns != u64::MAX {
            control.wakes_at_ns = u64::MAX;
            self.wake_control(index, was_ns.max(until_ns));
        }
    }

    pub(super) fn step_control(&mut self, index: usize, at_ns: u64) -> Verdict {
        let phase = self.phase;
        let Some(control) = self.nodes[index].control.as_mut().filter(|control| control.wakes_at_ns == at_ns) else {
            return Ok(()); // it was stepped earlier; or it is gone
        };
        control.wakes_at_ns = u64::MAX;
        let Some(hand_over) = self.hand_over.as_mut() else { return Ok(()) };
        let permille = if phase == Phase::Faulty { hand_over.plan.control_stall_permille } else { 0 };
        let stall_ns = hand_over.stall_ns(permille);
        if stall_ns.is_some() && hand_over.rng.bool() {
            self.pause_control(index, stall_ns.unwrap_or(0));
            self.wake_control(index, self.now_ns);
            return Ok(());
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Violation::new("steps", format!("the run did not end in {STEPS_MAX} steps")));
        }
        self.mix(1 << 32 | index as u64);
        self.take_mail(index)?;
        self.apply(index, !self.nodes[index].left)?;
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_ns);
        let Some(control) = &mut node.control else { return Ok(()) };
        if now >= control.plane.due() {
            control.plane.tend(now);
        }
        self.apply(index, false)?;
        if self.mode != Mode::Liveness {
            self.judge_control(index)?;
        }
        // The control thread may stall between what its coordinator gives and its handing over.
        self.pause_control(index, stall_ns.unwrap_or(0));
        self.hand_orders_over(index, stall_ns.unwrap_or(0));
        let acts_ns = self.locker_due(index);
        let node = &self.nodes[index];
        let Some(control) = &node.control else { return Ok(()) };
        let due_ns = node.clock.when(control.due()).min(acts_ns).max(self.now_ns + AGAIN_NS);
        self.wake_control(index, due_ns.min(control.mail.due()));
        Ok(())
    }

    /// The coordinator takes what has arrived.
    fn take_mail(&mut self, index: usize) -> Verdict {
        let Self { nodes, now_ns, checkers, .. } = self;
        let node = &mut nodes[index];
        let now = node.clock.read(*now_ns);
        let Some(control) = &mut node.control else { return Ok(()) };
        while let Some(mail) = control.mail.pop(*now_ns) {
            match mail {
                Mail::MayHold(may_hold) => control.may_hold = may_hold,
                Mail::Report(report) => {
                    let entered = match &report {
                        ToControl::Coordinator(ToCoordinator::Entered { view, is_member: true, .. }) => {
                            Some(view.clone())
                        }
                        _ => None,
                    };
                    control.plane.take(now, report);
                    let Some(view) = entered else { continue };
                    let epoch = view.epoch.0;
                    let rank = Rank(index as u16);
                    let has_continued = control.continued.contains(&epoch);
                    control.continued.retain(|later| *later > epoch);
                    if let Some(incarnation) = view.incarnation(rank).filter(|_| has_continued) {
                        let grants = control.plane.coordinator.lock_grants();
                        let own = Member { rank, incarnation };
                        checkers.mutexes.closed(&checkers.views, own, grants, epoch - 1)?;
                    }
                }
            }
        }
        control.plane.look(now, control.ran_at);
        Ok(())
    }

    fn hand_orders_over(&mut self, index: usize, stall_ns: u64) {
        let Self { nodes, hand_over, now_ns, .. } = self;
        let node = &mut nodes[index];
        let now = node.clock.read(*now_ns);
        let (Some(hand_over), Some(control)) = (hand_over, &mut node.control) else { return };
        let Control { plane, orders, .. } = control;
        plane.transmit(now, |order| orders.push(*now_ns + stall_ns + hand_over.delay_ns(), order));
        let due_ns = orders.due();
        self.wake(index, due_ns);
    }
}
