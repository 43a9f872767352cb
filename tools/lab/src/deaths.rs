//! Observers while members die: the demo at full speed with loss, in which two members kill themselves at random and
//! come back, in every order at every level from `reliable` on.
//!
//! An observer that skips a view gives up messages that every surviving member holds. That requires a death shortly
//! after another, so a campaign draws many. A run is good if the demo's own verdict is good (exit code 0) and no
//! observer reports a gap.

use crate::judge::{Order, Reliability};
use crate::matrix::{ORDERS, name};
use serde::Serialize;
use std::path::PathBuf;
use std::process::Command;

const LEVELS: [Reliability; 3] = [Reliability::Reliable, Reliability::Uniform, Reliability::Stable];
const MEMBERS: u64 = 5;
/// The second death comes within this many messages after the first.
const APART_MESSAGES: u64 = 5_000;
/// A member that died comes back within this many milliseconds.
const BACK_MS: u64 = 200;

/// What the campaign runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `bourdon` command.
    pub bourdon: PathBuf,
    /// How many runs; each uses the next order, and after all orders the next level.
    pub runs: usize,
    /// How many messages each publishes.
    pub messages: u64,
    /// The seed of all randomness.
    pub seed: u64,
}

/// The outcome of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The order.
    pub order: String,
    /// The reliability.
    pub reliability: String,
    /// The arguments of the demo, to run it again.
    pub again: String,
    /// Messages that observers gave up.
    pub observer_gaps: u64,
    /// The demo's errors.
    pub failures: Vec<String>,
}

impl Run {
    /// Whether nothing was missing.
    pub fn is_good(&self) -> bool {
        self.observer_gaps == 0 && self.failures.is_empty()
    }
}

/// Runs the campaign; `progress` is called after each run.
///
/// # Errors
/// If the command can't be started.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&Run)) -> std::io::Result<Vec<Run>> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut runs = Vec::new();
    for number in 0..plan.runs {
        let (order, level) = (ORDERS[number % ORDERS.len()], LEVELS[number / ORDERS.len() % LEVELS.len()]);
        let run = play(plan, order, level, &mut rng)?;
        progress(&run);
        runs.push(run);
    }
    Ok(runs)
}

fn play(plan: &Plan, order: Order, level: Reliability, rng: &mut fastrand::Rng) -> std::io::Result<Run> {
    let first = rng.u64(0..MEMBERS);
    let second = (first + rng.u64(1..MEMBERS)) % MEMBERS;
    let first_at = rng.u64(plan.messages / 10..plan.messages / 2).max(1);
    let second_at = (first_at + rng.u64(0..APART_MESSAGES)).min(plan.messages * 3 / 4).max(1);
    let (order, reliability) = (name(order), name(level));
    let again = format!(
        "demo --messages {} --rate max --members {MEMBERS} --observers 3 --publishers 3 --workload reply --drop 5 \
         --reorder 4 --order {order} --reliability {reliability} --kill member:{first}@{first_at} \
         --kill member:{second}@{second_at} --restart-after {} --fault-seed {}",
        plan.messages,
        rng.u64(0..=BACK_MS),
        rng.u32(..)
    );
    let output = Command::new(&plan.bourdon).args(again.split(' ')).arg("--json").output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let processes = report["processes"].as_array().map_or(&[][..], Vec::as_slice);
    let observers = processes.iter().filter(|process| process["role"] == "observer");
    let observer_gaps = observers.filter_map(|observer| observer["gaps"].as_u64()).sum();
    let mut failures = Vec::new();
    if !output.status.success() || processes.is_empty() {
        let words = String::from_utf8_lossy(&output.stderr);
        failures.push(format!("the demo ended with {}: {}", output.status, words.trim()));
    }
    Ok(Run { order, reliability, again, observer_gaps, failures })
}
