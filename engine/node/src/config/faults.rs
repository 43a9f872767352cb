//! `[faults]`: faults put into this process's receiving side.

use super::SettingsError;
use serde::{Deserialize, Serialize};

/// Faults put into this process's receiving side.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FaultSettings {
    /// How many received datagrams are dropped.
    pub drop_percent: f64,
    /// How many are received twice.
    pub duplicate_percent: f64,
    /// How many are received later than one that was sent after them.
    pub reorder_percent: f64,
    /// What the choice is drawn from: the same seed drops the same datagrams.
    pub seed: u64,
}

impl FaultSettings {
    /// Whether each is a percentage.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        for (what, value) in
            [("drop", self.drop_percent), ("duplicate", self.duplicate_percent), ("reorder", self.reorder_percent)]
        {
            if !(0.0..=100.0).contains(&value) {
                return Err(SettingsError::Percent { what, value });
            }
        }
        Ok(())
    }
}
