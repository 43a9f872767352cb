//! The cells of reliability × order, and their names.
//!
//! A level's name is that of `group.reliability`, with `+relay` where each member sends on what it receives; an order's
//! is that of `group.order`.

use bourdon_protocol::{Order, Reliability};

/// What a group promises of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// In which order they are delivered.
    pub order: Order,
    /// When, and what may be lost.
    pub reliability: Reliability,
    /// Whether every member sends on what it receives for the first time.
    pub relay: bool,
}

/// The least that a group can promise: what the others are compared with.
pub const NOTHING: Guarantee =
    Guarantee { order: Order::Unordered, reliability: Reliability::Unreliable, relay: false };

/// The levels, the weakest first.
pub const LEVELS: [(&str, Reliability, bool); 6] = [
    ("unreliable", Reliability::Unreliable, false),
    ("best-effort", Reliability::BestEffort, false),
    ("reliable", Reliability::Reliable, false),
    ("reliable+relay", Reliability::Reliable, true),
    ("uniform", Reliability::Uniform, false),
    ("stable", Reliability::Stable, false),
];

impl Default for Guarantee {
    /// The guarantee of a group whose configuration does not set it.
    fn default() -> Self {
        Self { order: Order::Total, reliability: Reliability::Reliable, relay: false }
    }
}

impl Guarantee {
    /// All of them, level by level.
    pub fn all() -> impl Iterator<Item = Self> {
        LEVELS.into_iter().flat_map(|(_, reliability, relay)| {
            Order::ALL.into_iter().map(move |order| Self { order, reliability, relay })
        })
    }

    /// The guarantee of these names.
    pub fn named(level: &str, order: &str) -> Option<Self> {
        let (_, reliability, relay) = LEVELS.into_iter().find(|(name, ..)| *name == level)?;
        Some(Self { order: order.parse().ok()?, reliability, relay })
    }

    /// The name of its level.
    pub fn level(self) -> &'static str {
        let is_own = |(_, reliability, relay): &(&str, Reliability, bool)| {
            (*reliability, *relay) == (self.reliability, self.relay)
        };
        LEVELS.iter().find(|level| is_own(level)).map_or("other", |(name, ..)| name)
    }

    /// The name of its order.
    pub fn order(self) -> &'static str {
        self.order.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_found_by_its_names() {
        assert_eq!(Guarantee::all().count(), LEVELS.len() * Order::ALL.len());
        for guarantee in Guarantee::all() {
            assert_eq!(Guarantee::named(guarantee.level(), guarantee.order()), Some(guarantee));
        }
        assert_eq!(Guarantee::named("uniform", "fifo+relay"), None);
    }
}
