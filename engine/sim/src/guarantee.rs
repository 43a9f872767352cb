//! The matrix: every order at every level of reliability, with barriers and without.
//!
//! Any reliability is promised with any order. If sixty combinations are promised and six are tried, the others are
//! broken. So each combination is a cell that can be played by itself, from the same seeds, and the table gives the
//! result of each.

use crate::plan::Plan;
use bourdon_protocol::{Order, Reliability};
use std::fmt;
use std::str::FromStr;

/// Every level, and whether it relays.
pub(crate) const LEVELS: [(Reliability, bool); 6] = [
    (Reliability::Unreliable, false),
    (Reliability::BestEffort, false),
    (Reliability::Reliable, false),
    (Reliability::Reliable, true),
    (Reliability::Uniform, false),
    (Reliability::Stable, false),
];

/// One cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// The order of delivery.
    pub order: Order,
    /// What may be lost.
    pub reliability: Reliability,
    /// Whether members send on what they receive.
    pub relay: bool,
    /// Whether there are barriers.
    pub barriers: bool,
}

impl Guarantee {
    /// All cells, row by row: a level's orders, each without barriers and with.
    pub fn all() -> impl Iterator<Item = Self> {
        LEVELS.into_iter().flat_map(|(reliability, relay)| {
            Order::ALL
                .into_iter()
                .flat_map(move |order| [false, true].map(|barriers| Self { order, reliability, relay, barriers }))
        })
    }

    /// The level by its name, relay included.
    pub fn level(&self) -> String {
        format!("{}{}", self.reliability.name(), if self.relay { "+relay" } else { "" })
    }

    /// The order by its name.
    pub fn order(&self) -> &'static str {
        self.order.name()
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.level(), self.order(), if self.barriers { "/barriers" } else { "" })
    }
}

impl FromStr for Guarantee {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::all().find(|guarantee| guarantee.to_string() == text);
        found.ok_or_else(|| {
            let levels: Vec<_> = LEVELS
                .map(|(reliability, relay)| Self { order: Order::Fifo, reliability, relay, barriers: false }.level())
                .into();
            let orders: Vec<_> = Order::ALL.map(Order::name).into();
            format!(
                "{text:?} is no cell: write LEVEL/ORDER or LEVEL/ORDER/barriers; levels: {}; orders: {}",
                levels.join(", "),
                orders.join(", ")
            )
        })
    }
}

impl Plan {
    /// A plan of a guarantee that the seed draws as well.
    pub fn any_guarantee(seed: u64) -> Self {
        let cells: Vec<Guarantee> = Guarantee::all().collect();
        let cell = fastrand::Rng::with_seed(seed ^ 0xa11).usize(0..cells.len());
        Self::guarantee(seed, cells[cell])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_name_of_its_own_that_finds_it() {
        let names: std::collections::BTreeSet<String> = Guarantee::all().map(|cell| cell.to_string()).collect();
        assert_eq!(names.len(), 60);
        assert!(Guarantee::all().all(|cell| cell.to_string().parse() == Ok(cell)));
        assert!("uniform/sideways".parse::<Guarantee>().is_err_and(|why| why.contains("best-effort")));
    }

    /// Settings and plans are read by serde, the command line by the names.
    #[test]
    fn orders_and_levels_have_the_same_names_in_files() {
        for order in Order::ALL {
            assert_eq!(serde_json::to_value(order).unwrap(), order.name());
        }
        for level in Reliability::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
        let causal: Order = serde_json::from_value("total-causal".into()).unwrap();
        assert_eq!(causal, Order::Total, "total order is causal as it is");
    }
}
