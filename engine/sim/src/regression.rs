//! A bug that was found once, as a file: whole plans and the seeds of their dice.
//!
//! As soon as the draw changes, a seed means another plan. So a regression pinned as a seed stops testing what it was
//! pinned for, and nothing reports that. A file in `engine/sim/tests/plans` therefore carries each plan in full, and is
//! named after the bug.
//!
//! Invariant: a file read and written again holds the same runs.

use crate::options::{Mode, Options};
use crate::plan::Plan;
use crate::report::Report;
use crate::runner::run_plan;
use serde::{Deserialize, Serialize};

/// One file: a bug and the runs that showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// The bug, in a sentence.
    pub about: String,
    /// The runs that showed it.
    #[serde(rename = "run")]
    pub runs: Vec<RegressionRun>,
}

/// One run that showed a bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegressionRun {
    /// The seed that throws the dice.
    pub seed: u64,
    /// Which checkers judge the run.
    #[serde(default)]
    pub mode: Mode,
    /// What is played.
    pub plan: Plan,
}

impl Regression {
    /// A file of one run, judged by every checker.
    pub fn of(about: String, seed: u64, plan: Plan) -> Self {
        Self { about, runs: vec![RegressionRun { seed, mode: Mode::Both, plan }] }
    }

    /// Checks that every run can be played.
    ///
    /// # Errors
    /// The first run that can't be played, and why.
    pub fn check(&self) -> Result<(), String> {
        let check = |run: &RegressionRun| run.plan.check().map_err(|why| format!("run with seed {}: {why}", run.seed));
        self.runs.iter().try_for_each(check)
    }

    /// Plays every run with its own seed and mode.
    pub fn play(&self, options: Options) -> Report {
        let mut report = Report::default();
        for run in &self.runs {
            report.merge(run_plan(&run.plan, run.seed, Options { mode: run.mode, ..options }));
        }
        report
    }
}
