//! `[faults]`: faults put into this process's receiving side.

use super::SettingsError;
use serde::{Deserialize, Serialize};

/// Faults injected into the datagrams that this process receives: for tests. Each process may have its own.
///
/// ```toml
/// [faults]
/// drop_percent = 0.0
/// duplicate_percent = 0.0
/// reorder_percent = 0.0
/// seed = 0
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FaultSettings {
    /// How many received datagrams are dropped, in percent.
    ///
    /// Default 0. From 0 to 100 ([`Percent`](super::SettingsError::Percent)).
    pub drop_percent: f64,
    /// How many datagrams are received twice, in percent.
    ///
    /// Default 0. From 0 to 100 ([`Percent`](super::SettingsError::Percent)).
    pub duplicate_percent: f64,
    /// How many datagrams are received later than one that was sent after them, in percent.
    ///
    /// Default 0. From 0 to 100 ([`Percent`](super::SettingsError::Percent)).
    pub reorder_percent: f64,
    /// What the choice is drawn from: with the same seed the same datagrams are dropped.
    ///
    /// Default 0. Every number is valid.
    pub seed: u64,
}

impl FaultSettings {
    /// Whether each is a percentage.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        for (what, value) in [
            ("faults.drop_percent", self.drop_percent),
            ("faults.duplicate_percent", self.duplicate_percent),
            ("faults.reorder_percent", self.reorder_percent),
        ] {
            if !(0.0..=100.0).contains(&value) {
                return Err(SettingsError::Percent { what, value });
            }
        }
        Ok(())
    }
}
