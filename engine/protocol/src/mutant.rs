//! Bugs that can be planted, to see the simulator's checkers catch them.
//!
//! A checker that has never failed may be unable to. Each mutant is a mistake that somebody made in a system of this
//! kind; the code it sabotages asks for it by name, on paths that are not hot. Some are no bugs: changes that break
//! nothing, to see the checkers keep quiet.

/// One bug, or harmless change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Another member's message is delivered when it arrives, before the sequencer has ordered it.
    DeliverBeforeOrdered,
    /// A gap is seen and never asked for.
    ForgetNak,
    /// What is known to exist is acknowledged, received or not.
    AckBeforeReceived,
    /// A message is delivered without what its sender had delivered before it.
    IgnoreCausalDependency,
    /// A duplicate that arrives out of order is taken for new.
    DeliverDuplicate,
    /// The sequencer orders a sender's later messages before its earlier ones.
    OrderRunsBackwards,
    /// The publisher ignores the slowest member.
    IgnoreWindow,
    /// Heartbeats say nothing of the tail.
    ForgetTail,
    /// A late row overwrites a newer one.
    RowsOverwrite,
    /// What was asked for is asked for again at once, and again.
    AskWithoutPause,
    /// A causal vector says only what changed, to those as well who never heard what it was before.
    VectorNeverWhole,
    /// Harmless: the sequencer puts one message in a run.
    ShortRuns,
    /// Harmless: each request for repair is sent twice.
    AskTwice,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::DeliverBeforeOrdered,
        Self::ForgetNak,
        Self::AckBeforeReceived,
        Self::IgnoreCausalDependency,
        Self::DeliverDuplicate,
        Self::OrderRunsBackwards,
        Self::IgnoreWindow,
        Self::ForgetTail,
        Self::RowsOverwrite,
        Self::AskWithoutPause,
        Self::VectorNeverWhole,
        Self::ShortRuns,
        Self::AskTwice,
    ];

    /// Whether it breaks nothing.
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::ShortRuns | Self::AskTwice)
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeliverBeforeOrdered => "deliver-before-ordered",
            Self::ForgetNak => "forget-nak",
            Self::AckBeforeReceived => "ack-before-received",
            Self::IgnoreCausalDependency => "ignore-causal-dependency",
            Self::DeliverDuplicate => "deliver-duplicate",
            Self::OrderRunsBackwards => "order-runs-backwards",
            Self::IgnoreWindow => "ignore-window",
            Self::ForgetTail => "forget-tail",
            Self::RowsOverwrite => "rows-overwrite",
            Self::AskWithoutPause => "ask-without-pause",
            Self::VectorNeverWhole => "vector-never-whole",
            Self::ShortRuns => "short-runs",
            Self::AskTwice => "ask-twice",
        }
    }
}
