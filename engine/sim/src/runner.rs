//! Runs many seeds, on as many threads as the caller asks for.
//!
//! A world is single-threaded, so that it can be repeated; seeds are independent of each other, so they may run side by
//! side. This is the one file of the crate that starts threads. A panic within a step is a failure of that seed and of
//! no other.

use crate::mutation::{sabotages, shows_in};
use crate::options::{Mode, Options};
use crate::plan::{Family, Kinds, Plan};
use crate::report::{Failure, Report};
use crate::shrink::shrink;
use crate::violation::Violation;
use crate::world::{Outcome, play};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs seeds and returns the result. `progress` is called for each seed done, from any thread.
pub fn run(seeds: Range<u64>, options: Options, progress: &(dyn Fn(u64) + Sync)) -> Report {
    let threads = options.threads.max(1);
    in_parallel(threads, |thread| {
        let mut report = Report::default();
        for seed in seeds.clone().skip(thread).step_by(threads) {
            report.merge(run_plan(&plan_of(seed, options), seed, options));
            progress(seed);
        }
        report
    })
}

/// Does a part of the work in each thread, and merges the results.
pub(crate) fn in_parallel(threads: usize, work: impl Fn(usize) -> Report + Sync) -> Report {
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        for worker in workers {
            report.merge(worker.join().expect("panics of a run are caught within it"));
        }
    });
    report
}

/// A seed's plan: in one of four, members run their control planes beside their processes.
pub fn plan_of(seed: u64, options: Options) -> Plan {
    let chosen = options.mutate.is_some() || options.guarantee.is_some() || options.family.is_some();
    let is_apart = options.apart || !chosen && options.locks.is_none() && seed % 4 == 1;
    let plan = inline_plan_of(seed, options);
    if is_apart { plan.taken_apart(seed) } else { plan }
}

/// One plan in sixteen is of competing ballots, and one of locks and elections; one in 32 is of an unkind family. To
/// catch planted bugs every fourth is of ballots, and every fourth turbulent; or all are of the locks or elections that
/// the bug is in, or three of four of the family that it shows in.
fn inline_plan_of(seed: u64, options: Options) -> Plan {
    if let Some(guarantee) = options.guarantee {
        return Plan::guarantee(seed, guarantee);
    }
    let kinds = options.locks.or_else(|| options.mutate.and_then(sabotages));
    if let Some(family) =
        options.family.or_else(|| options.mutate.and_then(shows_in).filter(|_| !seed.is_multiple_of(4)))
    {
        return match family {
            Family::Apart => Plan::locks_apart(seed, kinds.unwrap_or_default()),
            _ => family.draw(seed),
        };
    }
    if let Some(kinds) = kinds {
        return Plan::locks(seed, kinds);
    }
    match (options.mutate.is_some(), seed % 16) {
        (true, 3 | 7 | 11 | 15) | (false, 15) => Plan::duel(seed),
        (false, 7) => Plan::locks(seed, Kinds::default()),
        (true, 1 | 5 | 9 | 13) => Plan::turbulent(seed),
        (false, 11) if seed % 32 == 11 => Family::unkind(seed / 32).draw(seed),
        _ if seed % 8 == 4 => Plan::any_guarantee(seed),
        _ => Plan::draw(seed),
    }
}

/// Runs one plan; the seed throws the network's dice.
pub fn run_plan(plan: &Plan, seed: u64, options: Options) -> Report {
    let outcome = attempt(plan, seed, options);
    let failure = outcome.violation.map(|violation| {
        let same = |smaller: &Plan| {
            let found = attempt(smaller, seed, options).violation;
            found.is_some_and(|found| found.invariant == violation.invariant)
        };
        let plan = options.mutate.is_none().then(|| Box::new(shrink(plan, same)));
        let (invariant, replay) = (violation.invariant.into(), replay(seed, options));
        Failure { seed, invariant, replay, detail: violation.detail, plan }
    });
    Report {
        seeds: 1,
        steps: outcome.steps,
        delivered: outcome.delivered,
        faults: outcome.faults,
        grants: outcome.grants,
        leaderships: outcome.leaderships,
        max_overtaken: outcome.max_overtaken,
        failures: failure.into_iter().collect(),
        digest: outcome.digest ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ..Report::default()
    }
}

/// Plays a plan; a panic is a violation.
pub(crate) fn attempt(plan: &Plan, seed: u64, options: Options) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| play(plan, seed, options)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let violation = Some(Violation { invariant: "panic", detail: format!("panic: {text}") });
        Outcome { violation, ..Outcome::default() }
    })
}

/// The command that runs a seed again.
fn replay(seed: u64, options: Options) -> String {
    let mode = match options.mode {
        Mode::Safety => " --safety",
        Mode::Liveness => " --liveness",
        Mode::Both => "",
    };
    let mutate = options.mutate.map_or_else(String::new, |mutant| format!(" --mutate {}", mutant.name()));
    let guarantee = options.guarantee.map_or_else(String::new, |guarantee| format!(" --guarantee {guarantee}"));
    let locks = options.locks.map_or_else(String::new, |kinds| kinds.to_string());
    let demands = options.demands;
    let family = options.family.map_or_else(String::new, |family| format!(" --family {family}"));
    if let Some(point) = options.crash_point {
        return format!("bourdon sim --crash-at {seed}:{point}{mutate}");
    }
    let apart = if options.apart { " --apart" } else { "" };
    format!("bourdon sim --seed {seed} --seeds 1{mode}{mutate}{guarantee}{locks}{family}{apart}{demands}")
}
