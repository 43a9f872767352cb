//! A lock that passes between members while its holders are killed.
//!
//! In a simulator a holder dies between two steps; a real process dies anywhere, and its kernel continues to answer for
//! it a while. So member programs on `lo` request one lock again and again and increment a counter in a file that
//! checks their tokens ([`journal`]). The holder that is inside may be killed, or stopped for longer than a failure
//! detector waits, at any instant ([`group`] draws them from a seed). At the end [`judge`] looks for lost updates,
//! falling tokens, stale commits, and two members that held the lock at once. No root is needed.
//!
//! Every wait ends: with the awaited event, or after [`PATIENCE`] with a failure that names what did not come.

pub mod group;
pub mod journal;
pub mod judge;

use journal::Journal;
use judge::Verdict;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest time that the group may take for a step: several view changes and restarts, on a busy host.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The algorithm that grants the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// A table driven by the total order.
    Replicated,
    /// The oldest member grants.
    Central,
    /// Every member keeps the queue.
    Lamport,
    /// Every other member must agree.
    RicartAgrawala,
    /// The member that has the token.
    TokenRing,
}

/// The failure detectors' profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Few false evictions on a loaded host.
    Default,
    /// For hosts with cores to spare.
    Fast,
}

/// A campaign.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `bourdon-lab` command, which runs the members.
    pub lab: PathBuf,
    /// How many members.
    pub members: u16,
    /// How often the lock must change hands.
    pub hand_overs: u64,
    /// Entries between two faults, on average.
    pub kill_every: u64,
    /// The percentage of the faults that are stops.
    pub pause_share: u8,
    /// The seed of all randomness.
    pub seed: u64,
    /// How long a holder stays inside, on average.
    pub inside: Duration,
    /// See [`Profile`].
    pub profile: Profile,
    /// Every this many entries a member enters without the lock; 0 for never.
    pub cheat: u64,
    /// Members report on stderr what happens.
    pub talk: bool,
    /// The folder of the resource's file.
    pub folder: PathBuf,
}

/// Why a campaign can't be run at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Too few members.
    #[error("a lock outlives its holder in a group of at least 3 members")]
    TooFew,
    /// A member could not begin.
    #[error("the members can't run here; see their errors above")]
    Members,
    /// The system refused.
    #[error("{doing}: {source}")]
    Io {
        /// The failed operation.
        doing: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// The outcome of one algorithm's campaign.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// How many members.
    pub members: u16,
    /// The seed of all randomness.
    pub seed: u64,
    /// Members killed while inside, or outside by then.
    pub kills: u64,
    /// Members stopped.
    pub stops: u64,
    /// Times a member was started again.
    pub restarts: u64,
    /// Members that the group removed without a fault.
    pub false_evictions: u64,
    /// Entries a second.
    pub entries_per_s: f64,
    /// The time from the kill of a holder until the next member held the lock.
    pub kill_to_next_grant_p50_ns: Option<u64>,
    /// See above.
    pub kill_to_next_grant_p99_ns: Option<u64>,
    /// See above.
    pub kill_to_next_grant_max_ns: Option<u64>,
    /// The same, for holders that were stopped.
    pub stop_to_next_grant_p50_ns: Option<u64>,
    /// See above.
    pub stop_to_next_grant_max_ns: Option<u64>,
    /// The total time, from the first start on.
    pub wall_ns: u64,
    /// What did not come in time, or which member broke.
    pub failed: Option<String>,
    /// What the judge found.
    pub verdict: Verdict,
}

impl Report {
    /// Whether the campaign succeeded.
    pub fn is_good(&self) -> bool {
        self.failed.is_none() && self.verdict.violations.is_empty()
    }
}

/// Runs one algorithm's campaign; its progress goes to `talk`.
///
/// # Errors
/// If it can't be run at all.
pub fn run(plan: &Plan, algorithm: Algorithm, talk: &dyn Fn(&str)) -> Result<Report, Unusable> {
    if plan.members < 3 {
        return Err(Unusable::TooFew);
    }
    let io = |doing: &'static str| move |source| Unusable::Io { doing, source };
    std::fs::create_dir_all(&plan.folder).map_err(io("making the folder"))?;
    let name =
        clap::ValueEnum::to_possible_value(&algorithm).map_or_else(String::new, |name| name.get_name().to_owned());
    let path = plan.folder.join(format!("{name}.tsv"));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("removing an old file")(error)),
        _ => {}
    }
    let journal = Journal::open(&path).map_err(io("making the shared file"))?;
    let began = Instant::now();
    let outcome = group::play(plan, &name, (&path, &journal), talk)?;
    let wall_ns = began.elapsed().as_nanos() as u64;
    let lines = journal.lines().map_err(io("reading the shared file"))?;
    let verdict = judge::judge(&lines, &outcome.injected, plan.members);
    let sorted = |mut times: Vec<u64>| {
        times.sort_unstable();
        times
    };
    let span_ns = lines.last().zip(lines.first()).map_or(0, |(last, first)| last.at_ns - first.at_ns);
    let kills = sorted(verdict.kill_to_next_grant_ns.clone());
    let stops = sorted(verdict.stop_to_next_grant_ns.clone());
    Ok(Report {
        algorithm,
        members: plan.members,
        seed: plan.seed,
        kills: outcome.injected.kills.len() as u64,
        stops: outcome.injected.stops.len() as u64,
        restarts: outcome.restarts,
        false_evictions: outcome.false_evictions,
        entries_per_s: verdict.entries as f64 * 1e9 / span_ns.max(1) as f64,
        kill_to_next_grant_p50_ns: quantile(&kills, 0.5),
        kill_to_next_grant_p99_ns: quantile(&kills, 0.99),
        kill_to_next_grant_max_ns: kills.last().copied(),
        stop_to_next_grant_p50_ns: quantile(&stops, 0.5),
        stop_to_next_grant_max_ns: stops.last().copied(),
        wall_ns,
        failed: outcome.failed,
        verdict,
    })
}

/// The least value that the given share of all values does not exceed.
fn quantile(sorted: &[u64], share: f64) -> Option<u64> {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied()
}

/// The outcome, for people.
pub fn text(reports: &[Report]) -> String {
    let ms = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e6));
    let mut text = format!(
        "{:<16} {:>7} {:>10} {:>5} {:>5} {:>7} {:>9} {:>9} {:>24}  verdict\n",
        "algorithm",
        "entries",
        "hand-overs",
        "kills",
        "stops",
        "refused",
        "overtaken",
        "entries/s",
        "kill to next, ms, 50 99 max"
    );
    for report in reports {
        let Report { verdict, .. } = report;
        let name = clap::ValueEnum::to_possible_value(&report.algorithm);
        let times =
            [report.kill_to_next_grant_p50_ns, report.kill_to_next_grant_p99_ns, report.kill_to_next_grant_max_ns];
        let [p50, p99, max] = times.map(ms);
        text += &format!(
            "{:<16} {:>7} {:>10} {:>5} {:>5} {:>7} {:>9} {:>9.0} {:>27}  {}\n",
            name.as_ref().map_or("", |name| name.get_name()),
            verdict.entries,
            verdict.hand_overs,
            report.kills,
            report.stops,
            verdict.refused_commits + verdict.not_let_in,
            verdict.max_overtaken,
            report.entries_per_s,
            format!("{p50} {p99} {max}"),
            if report.is_good() { "kept" } else { "BROKEN" },
        );
    }
    for report in reports {
        for violation in verdict_lines(report).take(20) {
            text += &format!("{violation}\n");
        }
    }
    text
}

fn verdict_lines(report: &Report) -> impl Iterator<Item = &String> {
    report.failed.iter().chain(&report.verdict.violations)
}
