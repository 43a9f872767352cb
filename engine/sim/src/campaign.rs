//! Plants each bug in turn, and runs seeds until a checker catches it.

use crate::mutation::broken_by;
use crate::options::Options;
use crate::report::Report;
use crate::runner::run;
use bourdon_protocol::Mutant;
use std::ops::Range;

/// Seeds run at a time, so that a bug that shows at once costs little.
const BATCH: u64 = 4;

/// Plants each of the mutants in turn and runs the seeds until one catches it; harmless ones must pass them all.
pub fn check_mutants(
    seeds: Range<u64>,
    options: Options,
    mutants: &[Mutant],
    progress: &(dyn Fn(u64) + Sync),
) -> Report {
    let (mut caught, mut missed, mut flagged) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = Report::default();
    for mutant in mutants {
        let options = Options { mutate: Some(*mutant), ..options };
        let found = plant(seeds.clone(), options, broken_by(*mutant), &mut all, progress);
        match (mutant.is_harmless(), found) {
            (true, true) => flagged.push(mutant.name().to_owned()),
            (true, false) => {}
            (false, true) => caught.push(mutant.name().to_owned()),
            (false, false) => missed.push(mutant.name().to_owned()),
        }
    }
    all.failures.sort_by(|a, b| (a.seed, &a.replay).cmp(&(b.seed, &b.replay)));
    Report { caught: Some(caught), missed: Some(missed), flagged: Some(flagged), ..all }
}

/// Whether a seed reported an invariant that the bug breaks, or any for a harmless change.
fn plant(
    seeds: Range<u64>,
    options: Options,
    broken: &[&str],
    all: &mut Report,
    progress: &(dyn Fn(u64) + Sync),
) -> bool {
    let mut first = seeds.start;
    while first < seeds.end {
        let end = seeds.end.min(first + BATCH);
        let report = run(first..end, options, progress);
        let right = |invariant: &str| broken.is_empty() || broken.contains(&invariant);
        let found = report.failures.iter().any(|failure| right(&failure.invariant));
        all.merge(report);
        if found {
            return true;
        }
        first = end;
    }
    false
}
