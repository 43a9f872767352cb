//! A ballot, as the data plane knows it.

/// The number of a ballot: what the data plane does because of a promise names it, so that its report is not taken for
/// the answer to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BallotNumber(pub(crate) u64);
