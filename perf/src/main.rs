//! `bourdon-perf gates`: fails when a message costs more instructions than was agreed on. `bourdon-perf guarantees`
//! prints what each level of reliability costs in each order, and compares it with nothing that was agreed on.
//!
//! Exit codes: 0 all gates hold, 1 one is exceeded, 2 nothing could be measured (the reason is on stderr). The table,
//! or one JSON object with `--json`, goes to stdout.

use bourdon_perf::costs::{self, Costs, Publisher};
use bourdon_perf::gates::{GateError, Gates, Part, Verdict, measure, rustc};
use bourdon_perf::group::GroupError;
use bourdon_perf::guarantee::Guarantee;
use bourdon_perf::workload::Scenario;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "bourdon-perf", version, about = "Instruction-count gates over the port in memory")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count instructions a message and compare them with the gates
    Gates(GatesArgs),
    /// Count instructions a message of each level of reliability in each order; a Markdown table
    Guarantees(GuaranteesArgs),
    /// Do the work that is counted; `gates` runs this under valgrind
    #[command(hide = true)]
    Workload { scenario: String, rounds: u64 },
    /// Do the work of one cell; `guarantees` runs this under valgrind
    #[command(hide = true)]
    WorkloadGuarantee { reliability: String, order: String, publisher: String, burst: u64, rounds: u64 },
}

#[derive(Debug, clap::Args)]
struct GuaranteesArgs {
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    /// Messages published at a time; 1 is one message a datagram
    #[arg(
        long,
        value_name = "N",
        default_value_t = costs::BURST,
        value_parser = clap::value_parser!(u64).range(1..=costs::BURST_MAX),
    )]
    burst: u64,
}

#[derive(Debug, clap::Args)]
struct GatesArgs {
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    /// Record what is measured as the new gates
    #[arg(long)]
    update: bool,
    /// Where the gates stand
    #[arg(long, default_value = "perf/gates.toml")]
    file: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Gates(args) => gates(&args),
        Command::Guarantees(args) => guarantees(&args),
        Command::Workload { scenario, rounds } => {
            let scenario = Scenario::named(&scenario);
            return work(scenario.map(|scenario| scenario.run(rounds)));
        }
        Command::WorkloadGuarantee { reliability, order, publisher, burst, rounds } => {
            let cell = Guarantee::named(&reliability, &order).zip(Publisher::named(&publisher));
            return work(cell.map(|(guarantee, publisher)| costs::run(guarantee, publisher, burst, rounds)));
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("bourdon-perf: {error}");
        ExitCode::from(2)
    })
}

/// Returns how many messages a workload had; none if there is no such workload.
fn work(outcome: Option<Result<u64, GroupError>>) -> ExitCode {
    match outcome {
        Some(Ok(messages)) => {
            println!("{messages}");
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            eprintln!("bourdon-perf: {error}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("bourdon-perf: there is no such workload");
            ExitCode::from(2)
        }
    }
}

fn guarantees(args: &GuaranteesArgs) -> Result<ExitCode, GateError> {
    let costs = Costs::measure(args.burst)?;
    if args.json {
        println!("{}", serde_json::json!({ "rustc": rustc(), "costs": costs }));
    } else {
        println!("{}", costs.markdown());
    }
    Ok(ExitCode::SUCCESS)
}

fn gates(args: &GatesArgs) -> Result<ExitCode, GateError> {
    let mut gates = Gates::load(&args.file)?;
    let rustc = rustc();
    let mut verdicts = Vec::new();
    for (scenario, part) in Scenario::ALL.into_iter().flat_map(|scenario| Part::ALL.map(|part| (scenario, part))) {
        let measured = measure(scenario, part)?;
        verdicts.push(Verdict::new((scenario, part), measured, gates.gate(scenario, part), gates.tolerance_percent));
    }
    if args.json {
        let report = serde_json::json!({
            "rustc": rustc,
            "gates_rustc": gates.rustc,
            "tolerance_percent": gates.tolerance_percent,
            "gates": verdicts,
        });
        println!("{report}");
    } else {
        print(&verdicts);
    }
    if args.update {
        gates.record(&verdicts);
        gates.rustc = rustc;
        gates.save(&args.file)?;
        eprintln!("recorded in {}", args.file.display());
        return Ok(ExitCode::SUCCESS);
    }
    if verdicts.iter().all(|verdict| verdict.passed) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "a message costs more than {} % above its gate. Find out where (callgrind_annotate), or record the new figures \
         with --update and state in the commit why they are worth it",
        gates.tolerance_percent
    );
    if rustc != gates.rustc {
        eprintln!("the gates were recorded with {}, this is {rustc}: the compiler may be the reason", gates.rustc);
    }
    Ok(ExitCode::FAILURE)
}

/// A line for each scenario: the engine's own instructions, and the whole with the port.
fn print(verdicts: &[Verdict]) {
    print!("{:<56}", "instructions a message (64 bytes)");
    println!(" {:>8} {:>8} {:>8}   {:>8} {:>8} {:>8}", "engine", "gate", "change", "whole", "gate", "change");
    for scenario in Scenario::ALL {
        print!("{:<56}", scenario.what());
        let mut mark = "";
        for part in [Part::Engine, Part::Whole] {
            for verdict in verdicts.iter().filter(|verdict| (verdict.name, verdict.part) == (scenario.name(), part)) {
                let gate = verdict.gate.map_or_else(|| "none".to_owned(), |gate| format!("{gate:.1}"));
                let change = verdict.change_percent.map_or_else(String::new, |change| format!("{change:+.1} %"));
                print!(" {:>8.1} {gate:>8} {change:>8}  ", verdict.measured);
                if !verdict.passed {
                    mark = "EXCEEDED";
                }
            }
        }
        println!("{mark}");
    }
}
