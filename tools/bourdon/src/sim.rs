//! `bourdon sim`: seeded groups in the simulator, with every guarantee checked, and planted bugs that must be caught.

use crate::exit::Failure;
use bourdon_sim::{
    Cell, Demands, ElectionKind, Family, Guarantee, Kinds, Mode, Mutant, MutexKind, Options, Plan, Regression, Report,
    ScriptedCrash, check_mutants, enumerate_crashes, matrix, plan_of, run as run_seeds, run_plan, run_scripted_crash,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Seeds given to each planted bug by default: the rarest bug shows within 3,500.
const MUTATION_SEEDS: u64 = 4_000;

/// What is simulated
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds to run [default: 1; with --mutate 4000 a bug]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first seed [default: 0; of a regression each run's own]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Play this plan or regression (TOML or JSON) instead of plans drawn from seeds; a seed still drives its run
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Print the plan of the first seed as a regression (TOML), and play nothing
    #[arg(long, conflicts_with_all = ["matrix", "feedback"])]
    print_plan: bool,
    /// Check only that nothing wrong is delivered
    #[arg(long, conflicts_with = "liveness")]
    safety: bool,
    /// Check only that everything is delivered once faults have ended
    #[arg(long)]
    liveness: bool,
    /// Plant this bug, or all in turn, and require that it is caught
    #[arg(long, value_name = "NAME|all")]
    mutate: Option<String>,
    /// Play only this guarantee: LEVEL/ORDER or LEVEL/ORDER/barriers
    #[arg(long, value_name = "CELL", conflicts_with = "plan")]
    guarantee: Option<Guarantee>,
    /// Play only plans of locks and elections, with these locks: replicated, central, lamport, ricart-agrawala or
    /// token-ring
    #[arg(long, value_name = "MUTEX", conflicts_with_all = ["plan", "guarantee"])]
    locks: Option<MutexKind>,
    /// Play only plans of locks and elections, with this election: bully or ring
    #[arg(long, value_name = "ELECTION", conflicts_with_all = ["plan", "guarantee"])]
    election: Option<ElectionKind>,
    /// Play the seeds in every cell of the matrix: each order at each level, without barriers and with
    #[arg(long, conflicts_with_all = ["plan", "mutate", "guarantee", "locks", "election"])]
    matrix: bool,
    /// Play only plans of this family: stalled, departed, restarted, observed, late, narrow, recovered, moved, gated,
    /// paced, apart, judged, duels, turbulent, durable or black-hole; of them only apart has locks and elections to
    /// choose
    #[arg(long, value_name = "FAMILY", conflicts_with_all = ["plan", "guarantee", "matrix"])]
    family: Option<Family>,
    /// Play every plan with members' control planes beside their processes, as in a threaded node, not only one in four
    #[arg(long, conflicts_with = "plan")]
    apart: bool,
    /// Play every crash of short scripts at the level durable: power fails in each call of a member to its disk. With
    /// --seeds about so many of them
    #[arg(long, conflicts_with_all = ["plan", "guarantee", "locks", "election", "matrix", "family", "apart", "seed"])]
    enumerate_crashes: bool,
    /// Play one of these crashes again
    #[arg(long, value_name = "CRASH", conflicts_with_all = ["enumerate_crashes", "plan", "family", "seeds", "seed"])]
    crash_at: Option<ScriptedCrash>,
    /// Check also this invariant, which the protocol does not keep yet, or all such invariants
    #[arg(long = "demand", value_name = "NAME|all")]
    demands: Vec<Demands>,
    /// Count instead the feedback that receivers send to one sender, for each way to send it
    #[arg(
        long,
        conflicts_with_all = [
            "seeds", "plan", "safety", "liveness", "mutate", "guarantee", "matrix", "locks", "election",
        ],
    )]
    feedback: bool,
    /// With --feedback: the number of receivers
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        requires = "feedback",
        value_parser = clap::value_parser!(u32).range(1..=20_000),
    )]
    observers: u32,
    /// With --feedback: the percentage of datagrams that are lost
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, requires = "feedback")]
    loss: f64,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if args.feedback {
        return crate::feedback::run(args.observers, args.loss, args.seed.unwrap_or(0), args.json);
    }
    let mutants = args.mutate.as_deref().map(mutants).transpose()?;
    let plan = args.plan.as_deref().map(read_plan).transpose()?;
    let count = args.seeds.unwrap_or(if mutants.is_some() { MUTATION_SEEDS } else { 1 });
    let first = args.seed.unwrap_or(0);
    let seeds =
        first..first.checked_add(count).ok_or_else(|| Failure::unusable("--seed and --seeds go beyond 2^64"))?;
    let mode = match (args.safety, args.liveness) {
        (true, _) => Mode::Safety,
        (_, true) => Mode::Liveness,
        _ => Mode::Both,
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (mutex, election) = (args.locks, args.election);
    let locks = Some(Kinds { mutex, election }).filter(|kinds| *kinds != Kinds::default());
    let demands = args.demands.iter().fold(Demands::KEPT, |sum, demands| sum | *demands);
    let (guarantee, family) = (args.guarantee, args.family);
    if locks.is_some() && family.is_some_and(|family| family != Family::Apart) {
        return Err(Failure::unusable("--locks and --election choose no plan of this family: leave --family out"));
    }
    let apart = args.apart;
    let options = Options { mode, mutate: None, guarantee, locks, family, apart, crash_point: None, demands, threads };
    if args.enumerate_crashes || args.crash_at.is_some() {
        return play_crashes(&args, mutants.as_ref().and_then(|mutants| mutants.first().copied()), options);
    }
    if args.print_plan {
        return print_plan(plan, first, options);
    }
    // A panic within a run is reported as that seed's failure; its backtrace would drown the report.
    std::panic::set_hook(Box::new(|_| {}));
    let cells = if args.matrix { Guarantee::all().count() as u64 } else { 1 };
    let bar = ProgressBar::new(cells * count * mutants.as_ref().map_or(1, |mutants| mutants.len() as u64));
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} seeds, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let progress = |_| bar.inc(1);
    if args.matrix {
        let cells = matrix(&seeds, options, &progress);
        bar.finish_and_clear();
        return show_matrix(&args, &cells);
    }
    let report = match (&mutants, &plan) {
        (Some(mutants), None) => check_mutants(seeds, options, mutants, &progress),
        (None, None) => run_seeds(seeds, options, &progress),
        (mutants, Some(plan)) => {
            let mutate = mutants.as_ref().and_then(|mutants| mutants.first().copied());
            let mut report = Report::default();
            for (seed, mode, plan) in runs_of(&args, plan, seeds) {
                report.merge(run_plan(plan, seed, Options { mutate, mode: mode.unwrap_or(options.mode), ..options }));
                progress(seed);
            }
            report
        }
    };
    bar.finish_and_clear();
    crate::exit::print(&text(&args, &report))?;
    verdict(&report)
}

/// Crashes of the scripts; a planted bug is caught if any of them shows it.
fn play_crashes(args: &Args, mutate: Option<Mutant>, options: Options) -> Result<(), Failure> {
    let options = Options { mutate, ..options };
    std::panic::set_hook(Box::new(|_| {}));
    let report = match args.crash_at {
        Some(crash) => run_scripted_crash(crash, options),
        None => enumerate_crashes(args.seeds, options),
    };
    crate::exit::print(&text(args, &report))?;
    match (mutate, report.failures.is_empty()) {
        (Some(mutant), true) => Err(Failure::broken(format!("{} was missed", mutant.name()))),
        (Some(_), false) => Ok(()),
        (None, _) => verdict(&report),
    }
}

fn mutants(name: &str) -> Result<Vec<Mutant>, Failure> {
    if name == "all" {
        return Ok(Mutant::ALL.to_vec());
    }
    let found: Vec<Mutant> = Mutant::ALL.iter().copied().filter(|mutant| mutant.name() == name).collect();
    if found.is_empty() {
        let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        return Err(Failure::unusable(format!("no bug is called {name}; there are: all, {}", names.join(", "))));
    }
    Ok(found)
}

/// Reads a regression; a plan alone is a regression of one run.
fn read_plan(path: &Path) -> Result<Regression, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::unusable(format!("can't use {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
    let (json, whole) = (text.trim_start().starts_with('{'), text.contains("[[run]]"));
    let alone = |plan| Regression::of(String::new(), 0, plan);
    let regression = match (json, whole) {
        (true, _) => serde_json::from_str(&text).map(alone).map_err(|error| unusable(&error))?,
        (_, true) => toml::from_str(&text).map_err(|error| unusable(&error))?,
        (_, false) => toml::from_str(&text).map(alone).map_err(|error| unusable(&error))?,
    };
    regression.check().map_err(|why| unusable(&why))?;
    Ok(regression)
}

/// What a file's runs play: their own seeds and modes, unless the command line names others.
fn runs_of<'r>(args: &Args, file: &'r Regression, seeds: Range<u64>) -> Vec<(u64, Option<Mode>, &'r Plan)> {
    let own_seeds = args.seed.is_none() && args.seeds.is_none();
    let own_modes = !args.safety && !args.liveness;
    let runs = file.runs.iter().flat_map(|run| {
        let seeds = if own_seeds { run.seed..run.seed + 1 } else { seeds.clone() };
        seeds.map(move |seed| (seed, own_modes.then_some(run.mode), &run.plan))
    });
    runs.collect()
}

/// Prints the plan to be played, as a file of `engine/sim/tests/plans`.
fn print_plan(plan: Option<Regression>, seed: u64, options: Options) -> Result<(), Failure> {
    let mut regression =
        plan.unwrap_or_else(|| Regression::of(format!("What seed {seed} draws."), seed, plan_of(seed, options)));
    if let ([run], true) = (&mut regression.runs[..], regression.about.is_empty()) {
        (run.seed, run.mode) = (seed, options.mode); // a plan alone
    }
    let text = toml::to_string(&regression);
    crate::exit::print(&text.map_err(|error| Failure::broken(format!("a plan can't be written as TOML: {error}")))?)
}

fn text(args: &Args, report: &Report) -> String {
    let plain = "plain data becomes JSON";
    if args.json {
        return format!("{}\n", serde_json::to_string(report).expect(plain));
    }
    let mut out = format!("{} seeds, {} steps, {} messages delivered\n", report.seeds, report.steps, report.delivered);
    let _ = writeln!(out, "faults: {}", serde_json::to_string(&report.faults).expect(plain));
    if report.grants + report.leaderships > 0 {
        let Report { grants, leaderships, max_overtaken, .. } = report;
        let most = format!("at most {max_overtaken} entries of others before one's own");
        let _ = writeln!(out, "locks: {grants} grants, {most}; elections: {leaderships} leaderships");
    }
    for (what, names) in [("caught", &report.caught), ("missed", &report.missed), ("wrongly flagged", &report.flagged)]
    {
        if let Some(names) = names {
            let _ = writeln!(out, "{what} ({}): {}", names.len(), names.join(", "));
        }
    }
    for failure in report.failures.iter().filter(|_| report.caught.is_none()) {
        let _ = writeln!(out, "seed {}: {}: {}", failure.seed, failure.invariant, failure.detail);
        let _ = writeln!(out, "  again: {}", failure.replay);
    }
    out
}

fn show_matrix(args: &Args, cells: &[Cell]) -> Result<(), Failure> {
    let failed: u64 = cells.iter().map(|cell| cell.report.failures.len() as u64).sum();
    if args.json {
        let row = |cell: &Cell| {
            serde_json::json!({
                "reliability": cell.guarantee.level(),
                "order": cell.guarantee.order(),
                "barriers": cell.guarantee.barriers,
                "seeds": cell.report.seeds,
                "steps": cell.report.steps,
                "delivered": cell.report.delivered,
                "failures": cell.report.failures,
            })
        };
        let cells: Vec<_> = cells.iter().map(row).collect();
        crate::exit::print(&format!("{}\n", serde_json::json!({ "cells": cells })))?;
    } else {
        crate::exit::print(&matrix_text(cells))?;
    }
    if failed == 0 { Ok(()) } else { Err(Failure::broken(format!("{failed} runs failed"))) }
}

fn matrix_text(cells: &[Cell]) -> String {
    let mut out = format!(
        "{:<24} {:<10} {:<8} {:>7} {:>10} {:>10}  failed\n",
        "reliability", "order", "barriers", "seeds", "steps", "delivered"
    );
    for Cell { guarantee, report } in cells {
        let barriers = if guarantee.barriers { "yes" } else { "no" };
        let (level, order, failed) = (guarantee.level(), guarantee.order(), report.failures.len());
        let Report { seeds, steps, delivered, .. } = report;
        let _ = writeln!(out, "{level:<24} {order:<10} {barriers:<8} {seeds:>7} {steps:>10} {delivered:>10}  {failed}");
    }
    for failure in cells.iter().flat_map(|cell| &cell.report.failures).take(20) {
        let _ = writeln!(out, "{}: {}\n  again: {}", failure.invariant, failure.detail, failure.replay);
    }
    out
}

fn verdict(report: &Report) -> Result<(), Failure> {
    match (&report.missed, &report.flagged) {
        (Some(missed), Some(flagged)) if missed.is_empty() && flagged.is_empty() => Ok(()),
        (Some(missed), Some(flagged)) => Err(Failure::broken(format!(
            "{} planted bugs were missed and {} harmless changes flagged; more --seeds may find the former",
            missed.len(),
            flagged.len()
        ))),
        _ if report.failures.is_empty() => Ok(()),
        _ => Err(Failure::broken(format!("{} of {} seeds failed", report.failures.len(), report.seeds))),
    }
}
