//! What a subscription reports of itself.

use bourdon_log::Damage;
use std::fmt;

/// Why the archive is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The subscription begins.
    Begun,
    /// It goes on at the position of an earlier one.
    Resumed,
    /// Live messages were lost.
    Lost,
    /// The application takes messages more slowly than they come.
    Slow,
}

/// A report, with its place among the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The archive is read from this position on.
    Replay {
        /// The position.
        from: u64,
        /// Why.
        why: Why,
    },
    /// What comes live is delivered from this order number on.
    Live {
        /// The order number.
        order: u64,
    },
    /// The archive does not grow, so no recorder runs, and the subscription goes on live: these order numbers, without
    /// the last, may be missing.
    NoRecorder {
        /// The one that would come next.
        from: u64,
        /// The first one that comes.
        to: u64,
    },
    /// These order numbers, without the last, are not in the archive: no recorder ran, or it records other topics too,
    /// or they were removed.
    Hole {
        /// The one that would come next.
        from: u64,
        /// The first one that comes.
        to: u64,
    },
    /// So many messages were lost here when they were recorded.
    NotRecorded {
        /// How many.
        count: u64,
    },
    /// Messages of the archive can't be read.
    Damage(Damage),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Replay { from, why } => {
                let does = match why {
                    Why::Begun => "reads",
                    Why::Resumed => "goes on in",
                    Why::Lost => "has lost messages, and reads",
                    Why::Slow => "has fallen behind, and reads",
                };
                write!(f, "{does} the archive from position {from} on")
            }
            Self::Live { order } => write!(f, "live from order number {order} on"),
            Self::NoRecorder { from, to } if to <= from => {
                f.write_str("the archive does not grow, and live messages come: is its recorder running?")
            }
            Self::NoRecorder { from, to } => write!(
                f,
                "the archive does not grow and ends before the live messages: those with order numbers {from} to {} \
                 may be missing; is its recorder running?",
                to - 1
            ),
            Self::Hole { from, to } => {
                write!(f, "the archive has no messages with order numbers {from} to {}", to.saturating_sub(1))
            }
            Self::NotRecorded { count } => write!(f, "{count} messages were lost here when they were recorded"),
            Self::Damage(damage) => write!(f, "messages of the archive can't be read {damage}"),
        }
    }
}
