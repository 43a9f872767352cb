//! Makes a plan that fails smaller, for as long as it breaks the same invariant.
//!
//! A drawn plan has a dozen things going on, most of which have nothing to do with the failure. Each thing is left out
//! in turn, and stays out if the run still fails in the same way: greedy, and good enough to read. The plan changes the
//! dice that are thrown, so not every failure survives; then the plan stays as it was drawn.

use crate::plan::{FaultPlan, HandOverPlan, LockPlan, Plan};

/// Runs that are made at most: a fraction of a second for an ordinary plan.
const ATTEMPTS_MAX: usize = 80;

/// The smallest plan found that still fails.
pub(crate) fn shrink(plan: &Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut left = ATTEMPTS_MAX;
    let mut attempt = |best: &mut Plan, smaller: Plan| {
        if left > 0 && smaller != *best && smaller.check().is_ok() {
            left -= 1;
            if fails(&smaller) {
                *best = smaller;
                return true;
            }
        }
        false
    };
    for simplify in SIMPLER {
        let mut smaller = best.clone();
        simplify(&mut smaller);
        attempt(&mut best, smaller);
    }
    let mut index = 0;
    while index < best.events.len() {
        let mut smaller = best.clone();
        smaller.events.remove(index);
        if !attempt(&mut best, smaller) {
            index += 1;
        }
    }
    while best.messages > 1 {
        let smaller = Plan { messages: best.messages / 2, ..best.clone() };
        if !attempt(&mut best, smaller) {
            break;
        }
    }
    best
}

/// One simplification each.
const SIMPLER: &[fn(&mut Plan)] = &[
    |plan| plan.observers.clear(),
    |plan| plan.clients = 0,
    |plan| plan.long_client_messages = false,
    |plan| plan.faults = FaultPlan::none(plan.faults.until_ns),
    |plan| plan.faults.drop_permille = 0,
    |plan| plan.faults.observers_bear_bytes_per_s = 0,
    |plan| plan.faults.pause_permille = 0,
    |plan| plan.faults.corrupt_permille = 0,
    |plan| (plan.faults.reorder_permille, plan.faults.duplicate_permille) = (0, 0),
    |plan| (plan.faults.delay_permille, plan.faults.refuse_permille) = (0, 0),
    |plan| plan.large_permille = 0,
    |plan| (plan.jitter_ns, plan.latency_back_ns) = (0, 0),
    |plan| plan.drift_ppm.clear(),
    |plan| plan.clock_offsets_ns.iter_mut().for_each(|offset| *offset = 0),
    |plan| plan.echo_permille = 0,
    |plan| plan.unsealed_permille = 0,
    |plan| plan.single_delivery_permille = 0,
    |plan| plan.snapshot_late_ns = 0,
    |plan| plan.stored_view_bytes = 0,
    |plan| plan.publishers.truncate(1),
    |plan| plan.adversary = false,
    |plan| plan.duels = false,
    |plan| plan.named = false,
    |plan| plan.hand_over = None,
    |plan| hand_over(plan, |hand_over| hand_over.control_stall_permille = 0),
    |plan| hand_over(plan, |hand_over| hand_over.data_stall_permille = 0),
    |plan| hand_over(plan, |hand_over| hand_over.delay_max_ns = 0),
    |plan| lock_plan(plan, |locks| (locks.campaigners.clear(), locks.standbys.clear()).0),
    |plan| lock_plan(plan, |locks| locks.askers.clear()),
    |plan| lock_plan(plan, |locks| locks.names = 1),
    |plan| lock_plan(plan, |locks| locks.askers.truncate(2)),
    |plan| lock_plan(plan, |locks| locks.entries = locks.entries.div_ceil(4)),
    |plan| lock_plan(plan, |locks| locks.resign_ns = 0),
    |plan| lock_plan(plan, |locks| locks.try_permille = 0),
    |plan| lock_plan(plan, |locks| locks.deadline_permille = 0),
    |plan| lock_plan(plan, |locks| locks.cancel_permille = 0),
];

fn hand_over(plan: &mut Plan, simplify: impl Fn(&mut HandOverPlan)) {
    if let Some(hand_over) = &mut plan.hand_over {
        simplify(hand_over);
    }
}

fn lock_plan(plan: &mut Plan, simplify: impl Fn(&mut LockPlan)) {
    if let Some(locks) = &mut plan.locks {
        simplify(locks);
    }
}
