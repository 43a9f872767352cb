//! The mutation check: known bugs are planted, and the checkers must find them.
//!
//! A bug counts as caught only by an invariant that it breaks: a checker that reports everything would catch them all.
//! Harmless changes are planted as well, and must pass every seed.

use crate::plan::{Family, Kinds, MutexPlan};
use crate::report::Report;
use crate::runner::{Options, run};
use bourdon_protocol::Mutant;
use std::ops::Range;

/// Seeds run at a time, so that a bug that shows at once costs little.
const BATCH: u64 = 16;

/// The invariants that a planted bug breaks.
fn broken_by(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::DeliverBeforeOrdered => &["total", "fifo", "agreement"],
        Mutant::ForgetNak | Mutant::ForgetTail => &["completeness", "progress"],
        Mutant::AckBeforeReceived | Mutant::AcksAcrossEpochs => &["acknowledgement"],
        Mutant::IgnoreCausalDependency | Mutant::VectorNeverWhole => &["causal"],
        Mutant::DeliverDuplicate => &["integrity"],
        Mutant::OrderRunsBackwards => &["fifo"],
        Mutant::IgnoreWindow | Mutant::ForgetAtMajority => &["window"],
        Mutant::RowsOverwrite => &["watermarks"],
        Mutant::AskWithoutPause => &["repair"],
        // What the members of one epoch have in common.
        Mutant::CutIntersection
        | Mutant::CutLongestHolder
        | Mutant::ViewBeyondResponders
        | Mutant::AcceptedNotAdopted
        | Mutant::LowestBallotAdopted
        | Mutant::CutRecomputed
        | Mutant::AcceptBelowPromise
        | Mutant::StaleState
        | Mutant::StateFromAny
        | Mutant::AcceptFromAny
        | Mutant::HalfIsQuorum
        | Mutant::InstallWithHole
        | Mutant::DeliverAfterPromise => &["views", "agreement", "uniform"],
        // In addition, a cut that is decided without a quorum of the members that go on may be lost with its holders.
        Mutant::JoinerCounted => &["views", "agreement", "uniform", "progress"],
        Mutant::DecideByAll | Mutant::AcceptBeforeFetch | Mutant::CutNotRetained => &["progress"],
        Mutant::TakeoverAlone | Mutant::RespondersLeftOut | Mutant::SmallView => {
            &["continuation", "survival", "views", "agreement", "uniform"]
        }
        Mutant::DecisionForgotten => &["progress"],
        Mutant::Amnesia => &["acknowledgement", "agreement", "uniform", "views", "watermarks"],
        Mutant::AckAfterPromise | Mutant::UniformAtOne | Mutant::AllButSuspected => &["uniform"],
        Mutant::DataAcrossEpochs | Mutant::ResubmitAll => {
            &["integrity", "fifo", "total", "agreement", "uniform", "barrier", "acknowledgement"]
        }
        Mutant::AppendUnordered | Mutant::SkipAtCut | Mutant::ReuseNumbers => &["total", "fifo", "agreement", "views"],
        Mutant::GapUntold => &["completeness"],
        Mutant::RelayForgets => &["relay"],
        Mutant::ClockUncorrected | Mutant::LateUnflagged => &["realtime"],
        Mutant::MarkerIgnored => &["barrier"],
        Mutant::SnapshotAhead => &["snapshot", "agreement", "fifo", "total"],
        Mutant::GrantBeforeUniform => &["mutex", "uniform-grant"],
        Mutant::GrantBeforeTold | Mutant::TwoTokens | Mutant::ReplyInside | Mutant::ReplyNotAwaited => &["mutex"],
        Mutant::OtherInstanceBelieved => &["instance"],
        Mutant::DeadKeepLocks => &["waiting"],
        Mutant::HolderNotFenced => &["fenced"],
        Mutant::StaleCoordinator | Mutant::LeadBeforeAccepted => &["election"],
        Mutant::LeaderNotVoided => &["election", "agreed-leader"],
        Mutant::ShortRuns | Mutant::AskTwice | Mutant::WedgedUniform | Mutant::SendAfterPromise => &[],
    }
}

/// The algorithms of locks and elections that a planted bug is in, if it is there.
pub(crate) fn sabotages(mutant: Mutant) -> Option<Kinds> {
    let mutex = |kind| Some(Kinds { mutex: Some(kind), election: None });
    match mutant {
        Mutant::GrantBeforeUniform | Mutant::DeadKeepLocks => mutex(MutexPlan::Replicated),
        Mutant::GrantBeforeTold => mutex(MutexPlan::Central),
        Mutant::TwoTokens => mutex(MutexPlan::TokenRing),
        Mutant::ReplyInside => mutex(MutexPlan::RicartAgrawala),
        Mutant::ReplyNotAwaited => mutex(MutexPlan::Lamport),
        Mutant::HolderNotFenced | Mutant::StaleCoordinator | Mutant::LeadBeforeAccepted | Mutant::LeaderNotVoided => {
            Some(Kinds::default())
        }
        _ => None,
    }
}

/// The family of plans that a planted bug shows in, if it needs an unkind world.
pub(crate) fn shows_in(mutant: Mutant) -> Option<Family> {
    match mutant {
        Mutant::OtherInstanceBelieved => Some(Family::Restarted),
        Mutant::TakeoverAlone | Mutant::RespondersLeftOut | Mutant::SmallView => Some(Family::Stalled),
        Mutant::DecisionForgotten => Some(Family::Departed),
        _ => None,
    }
}

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
