//! What the control plane orders of the data plane as an epoch ends, and what the data plane reports.
//!
//! The control plane decides how an epoch ends; the data plane stops, fetches and delivers. In this they meet in these
//! values only. A report names the ballot of its order, because it may arrive after the next order.

use super::cut::Cut;

/// The number of a ballot, as the data plane knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BallotNumber(pub(crate) u64);

/// From the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndOrder {
    /// Stop for good, as the promise of this ballot requires: after the report nothing of this epoch is sent, ordered,
    /// acknowledged or delivered.
    Wedge(BallotNumber),
    /// Fetch what is missing of the cut that was proposed in this ballot; the members in `stay` go on to the next view.
    FetchCut(BallotNumber, Cut, u64),
    /// This cut was decided: fetch it, deliver up to it and no message beyond it. The members in the set go on.
    Conclude(Cut, u64),
}

/// From the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndReport {
    /// It has stopped, and holds this: a promise is sent only after this report.
    Wedged(BallotNumber, Cut),
    /// It holds all of the cut that was proposed in this ballot: a cut is accepted only after this report.
    CutHeld(BallotNumber),
}
