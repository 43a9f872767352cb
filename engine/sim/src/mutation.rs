//! The mutation check: known bugs are planted, and the checkers must find them.
//!
//! A bug counts as caught only by an invariant that it breaks: a checker that reports everything would catch them all.
//! Harmless changes are planted as well, and must pass every seed.

use crate::plan::{Family, Kinds};
use bourdon_protocol::{Mutant, MutexKind};

/// The invariants that a planted bug breaks.
pub(crate) fn broken_by(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::DeliverBeforeOrdered => &["total", "fifo", "agreement"],
        Mutant::ForgetNak | Mutant::ForgetTail => &["completeness", "progress"],
        Mutant::AckBeforeReceived | Mutant::AcksAcrossEpochs => &["acknowledgement"],
        Mutant::OwnAcknowledgedWhenSent => &["acknowledged"],
        Mutant::IgnoreCausalDependency | Mutant::VectorNeverWhole => &["causal"],
        Mutant::DeliverDuplicate | Mutant::FragmentMisplaced => &["integrity"],
        Mutant::OrderRunsBackwards => &["fifo"],
        Mutant::IgnoreWindow | Mutant::ForgetAtMajority => &["window"],
        Mutant::HeartbeatsShort => &["path"],
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
        Mutant::AckBeforeSync | Mutant::PromiseNotStored | Mutant::DamageIgnored => {
            &["acknowledgement", "acknowledged", "agreement", "uniform", "views", "window", "integrity", "completeness"]
        }
        Mutant::Amnesia => &["acknowledgement", "agreement", "uniform", "views", "watermarks"],
        Mutant::AckAfterPromise | Mutant::UniformAtOne | Mutant::AllButSuspected => &["uniform"],
        Mutant::DataAcrossEpochs | Mutant::ResubmitAll => {
            &["integrity", "fifo", "total", "agreement", "uniform", "barrier", "acknowledgement"]
        }
        Mutant::AppendUnordered | Mutant::SkipAtCut | Mutant::ReuseNumbers => &["total", "fifo", "agreement", "views"],
        Mutant::GapUnreported => &["completeness"],
        Mutant::EventsLate => &["places", "barrier", "views"],
        Mutant::RelayForgets => &["relay"],
        Mutant::ClockUncorrected | Mutant::LateUnflagged => &["realtime"],
        Mutant::MarkerIgnored => &["barrier"],
        Mutant::JoinedBeforeState => {
            &["snapshot", "integrity", "agreement", "fifo", "total", "completeness", "barrier", "places", "uniform"]
        }
        Mutant::SnapshotAhead | Mutant::PositionAtAnswer => &["snapshot", "agreement", "fifo", "total"],
        Mutant::GrantBeforeUniform | Mutant::GrantBeforeReported => &["mutex", "uniform-grant"],
        Mutant::GrantBeforeAnnounced | Mutant::TwoTokens | Mutant::ReplyInside | Mutant::ReplyNotAwaited => &["mutex"],
        // Messages of another view are out of their order, so they may be lost as well as believed.
        Mutant::LateLinkSent => &["mutex", "election", "agreed-leader", "waiting"],
        Mutant::LateCommandPublished => &["mutex", "uniform-grant", "waiting"],
        // A promise or a cut of another view: it stops for good, or delivers what was not decided.
        Mutant::LateOrderObeyed => &["progress", "views", "agreement", "total", "fifo", "completeness"],
        Mutant::OtherInstanceBelieved => &["instance"],
        Mutant::GateNeverEnds | Mutant::GateOutlivesRestart => &["progress", "completeness"],
        Mutant::DeadKeepLocks => &["waiting"],
        Mutant::HolderNotFenced => &["fenced"],
        Mutant::StaleCoordinator | Mutant::LeadBeforeAccepted => &["election"],
        Mutant::LeaderNotVoided => &["election", "agreed-leader"],
        Mutant::PromiseBeforeWedged => &["views", "agreement", "uniform", "acknowledgement", "progress"],
        Mutant::HeldBeforeWedged | Mutant::StaleCutHeld => &[], // planted by the model only
        Mutant::ShortRuns | Mutant::AskTwice | Mutant::WedgedUniform | Mutant::SendAfterPromise => &[],
    }
}

/// The algorithms of locks and elections that a planted bug is in, if it is there.
pub(crate) fn sabotages(mutant: Mutant) -> Option<Kinds> {
    let mutex = |kind| Some(Kinds { mutex: Some(kind), election: None });
    match mutant {
        Mutant::GrantBeforeUniform
        | Mutant::DeadKeepLocks
        | Mutant::GrantBeforeReported
        | Mutant::LateCommandPublished => mutex(MutexKind::Replicated),
        Mutant::GrantBeforeAnnounced => mutex(MutexKind::Central),
        Mutant::TwoTokens => mutex(MutexKind::TokenRing),
        Mutant::ReplyInside => mutex(MutexKind::RicartAgrawala),
        Mutant::ReplyNotAwaited => mutex(MutexKind::Lamport),
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
        Mutant::HeartbeatsShort => Some(Family::BlackHole),
        Mutant::AckBeforeSync | Mutant::PromiseNotStored | Mutant::DamageIgnored | Mutant::JoinedBeforeState => {
            Some(Family::Durable)
        }
        Mutant::GateNeverEnds | Mutant::GateOutlivesRestart => Some(Family::Gated),
        Mutant::TakeoverAlone | Mutant::RespondersLeftOut | Mutant::SmallView => Some(Family::Stalled),
        Mutant::DecisionForgotten => Some(Family::Departed),
        Mutant::GrantBeforeReported | Mutant::LateLinkSent | Mutant::LateCommandPublished | Mutant::LateOrderObeyed => {
            Some(Family::Apart)
        }
        _ => None,
    }
}
