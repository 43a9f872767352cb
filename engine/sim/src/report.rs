//! The result of a run, or of many: the object behind `bourdon sim --json`.

use crate::network::Faults;
use crate::plan::{Plan, is_zero};
use serde::Serialize;

/// A seed that broke something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What it broke: a name of `docs/simulator.md`'s table, or `panic`.
    pub invariant: String,
    /// The command that reproduces it.
    pub replay: String,
    /// The evidence, in words.
    pub detail: String,
    /// A plan that reproduces it as well, made smaller than what the seed drew: `bourdon sim --plan FILE --seed S`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<Plan>>,
}

/// The result of many seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many seeds were run.
    pub seeds: u64,
    /// Steps of all processes.
    pub steps: u64,
    /// Messages delivered, at all processes together.
    pub delivered: u64,
    /// What went wrong on the network.
    pub faults: Faults,
    /// Seeds that broke something, lowest first; with a planted bug, those that caught it.
    pub failures: Vec<Failure>,
    /// Grants of locks reported to applications.
    #[serde(skip_serializing_if = "is_zero")]
    pub grants: u64,
    /// Leaderships won.
    #[serde(skip_serializing_if = "is_zero")]
    pub leaderships: u64,
    /// The most entries of other members between a request for a lock and its grant.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_overtaken: u64,
    /// Planted bugs that were caught by an invariant they break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught: Option<Vec<String>>,
    /// Planted bugs that were not caught.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<Vec<String>>,
    /// Harmless changes reported as bugs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flagged: Option<Vec<String>>,
    /// Two runs of the same seeds agree in every event if they agree in this.
    pub digest: u64,
}

impl Report {
    /// Merges another report, of other seeds.
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.delivered += other.delivered;
        self.faults.add(&other.faults);
        (self.grants, self.leaderships) = (self.grants + other.grants, self.leaderships + other.leaderships);
        self.max_overtaken = self.max_overtaken.max(other.max_overtaken);
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
        self.digest = self.digest.wrapping_add(other.digest); // in whatever order the seeds were run
    }
}
