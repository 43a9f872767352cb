//! Bugs that can be planted, to check that the simulator's checkers catch them.
//!
//! A checker that has never failed may be unable to. Each mutant is a mistake that was made in a system of this kind.
//! The code that a mutant changes checks for it by name, on paths that are not hot. Some mutants are not bugs but
//! changes that break nothing, to check that the checkers accept them. Only the model plants `held-before-wedged` and
//! `stale-cut-held` (`docs/model.md`).

/// One bug, or harmless change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Another member's message is delivered when it arrives, before the sequencer has ordered it.
    DeliverBeforeOrdered,
    /// A gap is found and never requested.
    ForgetNak,
    /// What is known to exist is acknowledged, received or not.
    AckBeforeReceived,
    /// A message is acknowledged to the application that published it once it was sent.
    OwnAcknowledgedWhenSent,
    /// A message is delivered without what its sender had delivered before it.
    IgnoreCausalDependency,
    /// A duplicate that arrives out of order is taken for new.
    DeliverDuplicate,
    /// The sequencer orders a sender's later messages before its earlier ones.
    OrderRunsBackwards,
    /// The publisher ignores the slowest member.
    IgnoreWindow,
    /// Heartbeats do not give the tail of the stream.
    ForgetTail,
    /// No heartbeat is as long as the data.
    HeartbeatsShort,
    /// A late row overwrites a newer one.
    RowsOverwrite,
    /// A datagram that was requested is requested again at once, and again.
    AskWithoutPause,
    /// A causal vector gives only what changed, even to receivers that never received what it was before.
    VectorNeverWhole,
    /// The cut takes only what every member holds.
    CutIntersection,
    /// The cut is what the member that holds most holds.
    CutLongestHolder,
    /// The next view has members that did not reply to the ballot.
    ViewBeyondResponders,
    /// A proposer ignores what may have been accepted before.
    AcceptedNotAdopted,
    /// Of the values accepted before, the one of the lowest ballot is adopted.
    LowestBallotAdopted,
    /// The view accepted before is adopted, and its cut is recomputed.
    CutRecomputed,
    /// A value is accepted in a ballot below the promised ballot.
    AcceptBelowPromise,
    /// States given for another ballot are used.
    StaleState,
    /// A value is chosen without the states of a quorum.
    StateFromAny,
    /// One acceptance decides.
    AcceptFromAny,
    /// Any half is a quorum.
    HalfIsQuorum,
    /// Joiners count as votes of the old view.
    JoinerCounted,
    /// Every continuing member must accept before anything is decided.
    DecideByAll,
    /// A member that takes a ballot over, or starts it again, keeps only the members it does not suspect.
    TakeoverAlone,
    /// Members that replied to a ballot are left out of its value because the proposer suspects them.
    RespondersLeftOut,
    /// The next view need not have a quorum of the members before: the proposer goes on alone.
    SmallView,
    /// A process that a decision removes forgets it at once.
    DecisionForgotten,
    /// A value is accepted before this process holds its cut.
    AcceptBeforeFetch,
    /// The next view is installed although something of the cut is missing.
    InstallWithHole,
    /// The cut is dropped as soon as the next view is installed.
    CutNotRetained,
    /// A process that restarts goes on under its old incarnation, without its promises and payloads.
    Amnesia,
    /// Acknowledgements go on after a promise.
    AckAfterPromise,
    /// Agreed delivery goes on after a promise.
    DeliverAfterPromise,
    /// Harmless here: data is sent in the old epoch after a promise. The cut is what the other members hold, so what
    /// they received before their own promise is in it, and what they did not receive is published again.
    SendAfterPromise,
    /// Acknowledgements of the old epoch count in the new one.
    AcksAcrossEpochs,
    /// Data of the old epoch is accepted in the new epoch.
    DataAcrossEpochs,
    /// What a sender had published is resubmitted without regard to what was delivered.
    ResubmitAll,
    /// Uniform delivery waits for no acknowledgement but the process's own.
    UniformAtOne,
    /// Stable means held by all members that are not suspected.
    AllButSuspected,
    /// A datagram is forgotten once a majority has it.
    ForgetAtMajority,
    /// At the cut, messages without an order number are delivered too, each process by what it holds.
    AppendUnordered,
    /// At the cut, a number whose payload is missing is skipped.
    SkipAtCut,
    /// The next view begins at order numbers that were assigned before.
    ReuseNumbers,
    /// What was given up is not reported.
    GapUnreported,
    /// Delivery goes on where an event has its place, so that the event comes late.
    EventsLate,
    /// No member forwards what it receives, although all are configured to.
    RelayForgets,
    /// A fragment of a client's message is taken wherever it belongs in the message.
    FragmentMisplaced,
    /// Times of sending are each sender's own.
    ClockUncorrected,
    /// A message that comes too late for its place is reported as in time.
    LateUnflagged,
    /// A barrier is completed without waiting for the other members.
    MarkerIgnored,
    /// A snapshot gives a position beyond what it holds.
    SnapshotAhead,
    /// A snapshot gets the position at which the application answers, not the one at which it was asked.
    PositionAtAnswer,
    /// A replicated lock is granted as soon as the request is in order.
    GrantBeforeUniform,
    /// The coordinator of a new view grants before all members have reported what they hold.
    GrantBeforeAnnounced,
    /// A new view's oldest member makes a token for a lock that another member still has.
    TwoTokens,
    /// A member that has a lock replies to requests as if it did not have it.
    ReplyInside,
    /// The first of the own queue enters without having heard from all members.
    ReplyNotAwaited,
    /// A view change leaves the requests of removed members in the table.
    DeadKeepLocks,
    /// A member that can't reach a quorum keeps its locks.
    HolderNotFenced,
    /// Every announcement is accepted, whichever member leads and whatever its term.
    StaleCoordinator,
    /// A member that has won an election leads before a quorum has accepted it.
    LeadBeforeAccepted,
    /// A leader that is not in the next view still counts as leader.
    LeaderNotVoided,
    /// The coordinator reports a grant with the command that makes it, before a quorum is reported to hold it.
    GrantBeforeReported,
    /// A link message that the coordinator gave in an earlier view is sent in this one.
    LateLinkSent,
    /// A command that the coordinator gave before this process was removed is published after it.
    LateCommandPublished,
    /// Carries out an order of the agreement that was given for an earlier view.
    LateOrderObeyed,
    /// Frames of another instance of the group are accepted as frames of this instance.
    OtherInstanceBelieved,
    /// An observer that has crashed is waited for, for ever.
    GateNeverEnds,
    /// The limit of a gate stays, although its observer started again and is too far behind to be waited for.
    GateOutlivesRestart,
    /// A promise is given as soon as the data plane is ordered to stop, before it has reported that it has stopped.
    PromiseBeforeWedged,
    /// A promise is given after the data plane has stopped, with what it held when it was ordered to stop: what it
    /// acknowledged in between counts, and is not reported.
    HeldBeforeWedged,
    /// A report that the cut of an earlier ballot is held counts for the value of the latest ballot.
    StaleCutHeld,
    /// What was received counts as held before it is stored.
    AckBeforeSync,
    /// A ballot is promised, and a value accepted, without a record of it.
    PromiseNotStored,
    /// A member stores the first view of a joiner before the state that its application began with.
    JoinedBeforeState,
    /// A member whose storage is damaged comes back as if that had not been there.
    DamageIgnored,
    /// Harmless: uniform delivery goes on after a promise, on acknowledgements that came before.
    WedgedUniform,
    /// Harmless: the sequencer puts one message in a run.
    ShortRuns,
    /// Harmless: each request for repair is sent twice.
    AskTwice,
}

impl Mutant {
    /// All that the simulator plants. Those that only the model shows are not among them.
    pub const ALL: [Self; 80] = [
        Self::PromiseBeforeWedged,
        Self::DeliverBeforeOrdered,
        Self::OtherInstanceBelieved,
        Self::GateNeverEnds,
        Self::GateOutlivesRestart,
        Self::ForgetNak,
        Self::AckBeforeReceived,
        Self::OwnAcknowledgedWhenSent,
        Self::IgnoreCausalDependency,
        Self::DeliverDuplicate,
        Self::OrderRunsBackwards,
        Self::IgnoreWindow,
        Self::ForgetTail,
        Self::HeartbeatsShort,
        Self::RowsOverwrite,
        Self::AskWithoutPause,
        Self::VectorNeverWhole,
        Self::CutIntersection,
        Self::CutLongestHolder,
        Self::ViewBeyondResponders,
        Self::AcceptedNotAdopted,
        Self::LowestBallotAdopted,
        Self::CutRecomputed,
        Self::AcceptBelowPromise,
        Self::StaleState,
        Self::StateFromAny,
        Self::AcceptFromAny,
        Self::HalfIsQuorum,
        Self::JoinerCounted,
        Self::DecideByAll,
        Self::TakeoverAlone,
        Self::RespondersLeftOut,
        Self::SmallView,
        Self::DecisionForgotten,
        Self::AcceptBeforeFetch,
        Self::InstallWithHole,
        Self::CutNotRetained,
        Self::Amnesia,
        Self::AckAfterPromise,
        Self::DeliverAfterPromise,
        Self::SendAfterPromise,
        Self::AcksAcrossEpochs,
        Self::DataAcrossEpochs,
        Self::ResubmitAll,
        Self::UniformAtOne,
        Self::AllButSuspected,
        Self::ForgetAtMajority,
        Self::AppendUnordered,
        Self::SkipAtCut,
        Self::ReuseNumbers,
        Self::GapUnreported,
        Self::EventsLate,
        Self::RelayForgets,
        Self::FragmentMisplaced,
        Self::ClockUncorrected,
        Self::LateUnflagged,
        Self::MarkerIgnored,
        Self::SnapshotAhead,
        Self::PositionAtAnswer,
        Self::GrantBeforeUniform,
        Self::GrantBeforeAnnounced,
        Self::TwoTokens,
        Self::ReplyInside,
        Self::ReplyNotAwaited,
        Self::DeadKeepLocks,
        Self::HolderNotFenced,
        Self::StaleCoordinator,
        Self::LeadBeforeAccepted,
        Self::LeaderNotVoided,
        Self::GrantBeforeReported,
        Self::LateLinkSent,
        Self::LateCommandPublished,
        Self::LateOrderObeyed,
        Self::AckBeforeSync,
        Self::PromiseNotStored,
        Self::JoinedBeforeState,
        Self::DamageIgnored,
        Self::WedgedUniform,
        Self::ShortRuns,
        Self::AskTwice,
    ];

    /// Whether it breaks nothing.
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::ShortRuns | Self::AskTwice | Self::WedgedUniform | Self::SendAfterPromise)
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeliverBeforeOrdered => "deliver-before-ordered",
            Self::ForgetNak => "forget-nak",
            Self::AckBeforeReceived => "ack-before-received",
            Self::OwnAcknowledgedWhenSent => "own-acknowledged-when-sent",
            Self::IgnoreCausalDependency => "ignore-causal-dependency",
            Self::DeliverDuplicate => "deliver-duplicate",
            Self::OrderRunsBackwards => "order-runs-backwards",
            Self::IgnoreWindow => "ignore-window",
            Self::ForgetTail => "forget-tail",
            Self::HeartbeatsShort => "heartbeats-short",
            Self::RowsOverwrite => "rows-overwrite",
            Self::AskWithoutPause => "ask-without-pause",
            Self::VectorNeverWhole => "vector-never-whole",
            Self::CutIntersection => "cut-intersection",
            Self::CutLongestHolder => "cut-longest-holder",
            Self::ViewBeyondResponders => "view-beyond-responders",
            Self::AcceptedNotAdopted => "accepted-not-adopted",
            Self::LowestBallotAdopted => "lowest-ballot-adopted",
            Self::CutRecomputed => "cut-recomputed",
            Self::AcceptBelowPromise => "accept-below-promise",
            Self::StaleState => "stale-state",
            Self::StateFromAny => "state-from-any",
            Self::AcceptFromAny => "accept-from-any",
            Self::HalfIsQuorum => "half-is-quorum",
            Self::JoinerCounted => "joiner-counted",
            Self::DecideByAll => "decide-by-all",
            Self::TakeoverAlone => "takeover-alone",
            Self::RespondersLeftOut => "responders-left-out",
            Self::SmallView => "small-view",
            Self::DecisionForgotten => "decision-forgotten",
            Self::AcceptBeforeFetch => "accept-before-fetch",
            Self::InstallWithHole => "install-with-hole",
            Self::CutNotRetained => "cut-not-retained",
            Self::Amnesia => "amnesia",
            Self::AckAfterPromise => "ack-after-promise",
            Self::DeliverAfterPromise => "deliver-after-promise",
            Self::SendAfterPromise => "send-after-promise",
            Self::AcksAcrossEpochs => "acks-across-epochs",
            Self::DataAcrossEpochs => "data-across-epochs",
            Self::ResubmitAll => "resubmit-all",
            Self::UniformAtOne => "uniform-at-one",
            Self::AllButSuspected => "all-but-suspected",
            Self::ForgetAtMajority => "forget-at-majority",
            Self::AppendUnordered => "append-unordered",
            Self::SkipAtCut => "skip-at-cut",
            Self::ReuseNumbers => "reuse-numbers",
            Self::GapUnreported => "gap-unreported",
            Self::EventsLate => "events-late",
            Self::RelayForgets => "relay-forgets",
            Self::FragmentMisplaced => "fragment-misplaced",
            Self::ClockUncorrected => "clock-uncorrected",
            Self::LateUnflagged => "late-unflagged",
            Self::MarkerIgnored => "marker-ignored",
            Self::SnapshotAhead => "snapshot-ahead",
            Self::PositionAtAnswer => "position-at-answer",
            Self::OtherInstanceBelieved => "other-instance-believed",
            Self::GateNeverEnds => "gate-never-ends",
            Self::GateOutlivesRestart => "gate-outlives-restart",
            Self::PromiseBeforeWedged => "promise-before-wedged",
            Self::HeldBeforeWedged => "held-before-wedged",
            Self::StaleCutHeld => "stale-cut-held",
            Self::WedgedUniform => "wedged-uniform",
            Self::ShortRuns => "short-runs",
            Self::AskTwice => "ask-twice",
            _ => self.coordination_name(),
        }
    }

    /// The same of a bug in locks, in elections, in the hand-over to them, or in storage.
    const fn coordination_name(self) -> &'static str {
        match self {
            Self::GrantBeforeUniform => "grant-before-uniform",
            Self::GrantBeforeAnnounced => "grant-before-announced",
            Self::TwoTokens => "two-tokens",
            Self::ReplyInside => "reply-inside",
            Self::ReplyNotAwaited => "reply-not-awaited",
            Self::DeadKeepLocks => "dead-keep-locks",
            Self::HolderNotFenced => "holder-not-fenced",
            Self::StaleCoordinator => "stale-coordinator",
            Self::LeadBeforeAccepted => "lead-before-accepted",
            Self::LeaderNotVoided => "leader-not-voided",
            Self::GrantBeforeReported => "grant-before-reported",
            Self::LateLinkSent => "late-link-sent",
            Self::LateCommandPublished => "late-command-published",
            Self::LateOrderObeyed => "late-order-obeyed",
            Self::AckBeforeSync => "ack-before-sync",
            Self::PromiseNotStored => "promise-not-stored",
            Self::JoinedBeforeState => "joined-before-state",
            Self::DamageIgnored => "damage-ignored",
            _ => panic!("a mutant without a name"),
        }
    }
}
