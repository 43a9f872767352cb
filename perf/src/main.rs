//! `bourdon-perf gates`: fails when a message costs more instructions than was agreed on.
//!
//! Exit codes: 0 all gates hold, 1 one is exceeded, 2 nothing could be measured (the reason is on stderr). The table, or
//! one JSON object with `--json`, goes to stdout.

use bourdon_perf::gates::{GateError, Gates, Verdict, measure, rustc};
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
    /// Do the work that is counted; `gates` runs this under valgrind
    #[command(hide = true)]
    Workload { scenario: String, rounds: u64 },
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
    match Cli::parse().command {
        Command::Gates(args) => gates(&args).unwrap_or_else(|error| {
            eprintln!("bourdon-perf: {error}");
            ExitCode::from(2)
        }),
        Command::Workload { scenario, rounds } => {
            let Some(scenario) = Scenario::named(&scenario) else {
                eprintln!("bourdon-perf: no scenario {scenario}");
                return ExitCode::from(2);
            };
            match scenario.run(rounds) {
                Ok(messages) => println!("{messages}"),
                Err(error) => {
                    eprintln!("bourdon-perf: {error}");
                    return ExitCode::FAILURE;
                }
            }
            ExitCode::SUCCESS
        }
    }
}

fn gates(args: &GatesArgs) -> Result<ExitCode, GateError> {
    let mut gates = Gates::load(&args.file)?;
    let rustc = rustc();
    let mut verdicts = Vec::new();
    for scenario in Scenario::ALL {
        let measured = measure(scenario)?;
        let gate = gates.instructions.get(scenario.name()).copied();
        verdicts.push(Verdict::new(scenario, measured, gate, gates.tolerance_percent));
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
        let rounded = |verdict: &Verdict| (verdict.name.to_owned(), (verdict.measured * 10.0).round() / 10.0);
        gates = Gates { rustc, instructions: verdicts.iter().map(rounded).collect(), ..gates };
        gates.save(&args.file)?;
        eprintln!("recorded in {}", args.file.display());
        return Ok(ExitCode::SUCCESS);
    }
    if verdicts.iter().all(|verdict| verdict.passed) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "a message costs more than {} % above its gate. Find out where (callgrind_annotate), or record the new figures \
         with --update and say in the commit why they are worth it",
        gates.tolerance_percent
    );
    if rustc != gates.rustc {
        eprintln!("the gates were recorded with {}, this is {rustc}: the compiler may be the reason", gates.rustc);
    }
    Ok(ExitCode::FAILURE)
}

fn print(verdicts: &[Verdict]) {
    println!("{:<44} {:>10} {:>10} {:>9}", "instructions a message (64 bytes)", "measured", "gate", "change");
    for verdict in verdicts {
        let gate = verdict.gate.map_or_else(|| "none".to_owned(), |gate| format!("{gate:.1}"));
        let change = verdict.change_percent.map_or_else(String::new, |change| format!("{change:+.1} %"));
        let mark = if verdict.passed { "" } else { "  EXCEEDED" };
        println!("{:<44} {:>10.1} {gate:>10} {change:>9}{mark}", verdict.what, verdict.measured);
    }
}
