//! Counts instructions a message and compares them with what was agreed on.
//!
//! A change that costs two per cent is lost in the noise of any clock, and fifty such changes are a slow engine.
//! Callgrind executes the workload instruction by instruction and counts; the count is the same on a busy host as on an
//! idle one. Each scenario runs twice, with n and with 2n rounds, and the difference divided by the messages between is
//! the figure: what happens once cancels out.
//!
//! The C library picks its copying routines by the processor it finds, so the workload is set to find a plain one. What
//! is left to vary is the compiler, which is why its version stands beside the gates.
//!
//! Each scenario is counted twice. *Whole* counts all that the call does, the port in memory included, which is a fifth
//! of a lone message. *Engine* leaves the port out, so that a gain in the engine is seen as what it is.
//!
//! Source: rustls `ci-bench`, which gates on counts for the same reason.

use crate::group::{INSIDE, OUTSIDE};
use crate::workload::{MEASURED, Scenario};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Names by which releases of the C library know the extensions that its copying routines use; it ignores those it does
/// not know.
const PLAIN_PROCESSOR: &str = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-AVX512VL,\
    -AVX512F,-AVX512F_Usable,-ERMS,-FSRM,-SSSE3";

/// Why there is no figure. None of these is a gate exceeded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message documents it
pub enum GateError {
    #[error("valgrind can't be run ({0}): install it (Debian: apt-get install valgrind)")]
    NoValgrind(std::io::Error),
    #[error("gates are recorded for x86_64 Linux; instructions of another processor can't be compared with them")]
    OtherProcessor,
    #[error("{scenario} under valgrind: {why}")]
    Run { scenario: String, why: String },
    #[error("{path}: {why}; run from the top of the repository, or name the file with --file")]
    File { path: String, why: String },
}

/// `gates.toml`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// The output of `rustc -V` when they were recorded.
    pub rustc: String,
    /// How much above its gate a figure may be.
    pub tolerance_percent: f64,
    /// Instructions a message, by scenario.
    pub instructions: BTreeMap<String, f64>,
    /// The same without the port's.
    pub engine: BTreeMap<String, f64>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// All of it, the port in memory included.
    Whole,
    /// The engine without the port.
    Engine,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Whole, Self::Engine];

    /// The functions at which callgrind begins to count, or stops if it counts: named by a part of their names.
    const fn toggles(self) -> &'static [&'static str] {
        match self {
            Self::Whole => &[MEASURED],
            Self::Engine => &[MEASURED, OUTSIDE, INSIDE],
        }
    }
}

/// One figure beside its gate.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The scenario's name.
    pub name: &'static str,
    /// What is done.
    pub what: &'static str,
    /// What of it is counted.
    pub part: Part,
    /// Instructions a message, now.
    pub measured: f64,
    /// And as agreed on; none for a scenario without a gate.
    pub gate: Option<f64>,
    /// How far the first is above the second, in per cent.
    pub change_percent: Option<f64>,
    /// Whether it stays within the tolerance.
    pub passed: bool,
}

impl Verdict {
    /// Compares a figure with its gate. Without a gate it has not passed: a scenario must not go unchecked.
    pub fn new((scenario, part): (Scenario, Part), measured: f64, gate: Option<f64>, tolerance_percent: f64) -> Self {
        let change_percent = gate.map(|gate| (measured / gate - 1.0) * 100.0);
        let passed = change_percent.is_some_and(|change| change <= tolerance_percent);
        Self { name: scenario.name(), what: scenario.what(), part, measured, gate, change_percent, passed }
    }
}

impl Gates {
    /// Reads the file.
    ///
    /// # Errors
    /// If the file is missing or malformed.
    pub fn load(path: &Path) -> Result<Self, GateError> {
        let error = |why: String| GateError::File { path: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|why| error(why.to_string()))?;
        toml::from_str(&text).map_err(|why| error(why.to_string()))
    }

    /// The gate of a part of a scenario, if it has one.
    pub fn gate(&self, scenario: Scenario, part: Part) -> Option<f64> {
        let gates = match part {
            Part::Whole => &self.instructions,
            Part::Engine => &self.engine,
        };
        gates.get(scenario.name()).copied()
    }

    /// Replaces all gates by what was measured.
    pub fn record(&mut self, verdicts: &[Verdict]) {
        let rounded = |verdict: &Verdict| (verdict.name.to_owned(), (verdict.measured * 10.0).round() / 10.0);
        let of = |part| verdicts.iter().filter(move |verdict| verdict.part == part).map(rounded).collect();
        (self.instructions, self.engine) = (of(Part::Whole), of(Part::Engine));
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn save(&self, path: &Path) -> Result<(), GateError> {
        let error = |why: String| GateError::File { path: path.display().to_string(), why };
        let body = toml::to_string(self).map_err(|why| error(why.to_string()))?;
        let head = "# Instructions a message, counted by `cargo run -p bourdon-perf --release -- gates`; `--update` \
             records them again.\n\
                    # A commit that raises a count gives the reason.\n";
        std::fs::write(path, format!("{head}{body}")).map_err(|why| error(why.to_string()))
    }
}

/// The output of `rustc -V`, or "unknown".
pub fn rustc() -> String {
    let asked = Command::new("rustc").arg("-V").output();
    asked.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Instructions a message in one scenario.
///
/// # Errors
/// If valgrind is missing or the workload fails.
pub fn measure(scenario: Scenario, part: Part) -> Result<f64, GateError> {
    difference(scenario.rounds(), &["workload", scenario.name()], part.toggles())
}

/// Instructions a message of this program's command `workload`, to which the number of rounds is added; it prints how
/// many messages that were. `toggles` are parts of the names of functions at which callgrind begins to count or stops.
///
/// # Errors
/// If valgrind is missing or the workload fails.
pub fn difference(rounds: u64, workload: &[&str], toggles: &[&str]) -> Result<f64, GateError> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(GateError::OtherProcessor);
    }
    let (few, few_messages) = count(workload, rounds, toggles)?;
    let (many, many_messages) = count(workload, 2 * rounds, toggles)?;
    Ok((many - few) as f64 / (many_messages - few_messages) as f64)
}

/// Instructions and messages of so many rounds.
fn count(workload: &[&str], rounds: u64, toggles: &[&str]) -> Result<(u64, u64), GateError> {
    let fails = |why: String| GateError::Run { scenario: workload[1..].join(" "), why };
    let program = std::env::current_exe().map_err(|error| fails(error.to_string()))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(toggles.iter().map(|name| format!("--toggle-collect=*{name}*")))
        .arg(program)
        .args(workload)
        .arg(rounds.to_string())
        .env("GLIBC_TUNABLES", PLAIN_PROCESSOR)
        .output()
        .map_err(GateError::NoValgrind)?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let collected = stderr.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match (output.status.success(), collected, stdout.trim().parse()) {
        (true, Some(instructions), Ok(messages)) if instructions > 0 => Ok((instructions, messages)),
        _ => Err(fails(format!("it ended with {} and printed:\n{stderr}", output.status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_exceeded_beyond_its_tolerance_only() {
        let passed = |measured, gate| Verdict::new((Scenario::PublishBurst, Part::Whole), measured, gate, 3.0).passed;
        assert!(passed(102.9, Some(100.0)));
        assert!(passed(50.0, Some(100.0)));
        assert!(!passed(103.1, Some(100.0)));
        assert!(!passed(1.0, None));
    }
}
