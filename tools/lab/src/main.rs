//! The `bourdon-lab` command: judge histories, make trouble, send a probe.
//!
//! Results go to stdout, talk to stderr; exit 0 (kept), 1 (a guarantee was broken, or what was run broke), 2 (bad usage,
//! input or environment).

use bourdon_lab::judge::{Order, Reliability, Rules, Verdict, judge};
use bourdon_lab::{history, probe};
use clap::{Args, Parser, Subcommand};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

/// Hosts to make trouble with, and a judge of delivered histories.
#[derive(Debug, Parser)]
#[command(name = "bourdon-lab", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold the histories in a folder to what an order and a reliability promise
    Judge(JudgeArgs),
    /// Send or receive single datagrams
    #[command(subcommand)]
    Probe(Probe),
}

#[derive(Debug, Args)]
struct JudgeArgs {
    /// Where processes wrote ROLE-RANK.tsv
    folder: PathBuf,
    #[command(flatten)]
    rules: RulesArgs,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
struct RulesArgs {
    /// The order that was promised
    #[arg(long, value_enum, default_value = "total")]
    order: Order,
    /// The reliability that was promised
    #[arg(long, value_enum, default_value = "reliable")]
    reliability: Reliability,
    /// Order numbers may be left out: a client's duplicate takes one and is not delivered
    #[arg(long)]
    allow_skips: bool,
    /// The processes were stopped in the middle: don't compare how far they came in the last view
    #[arg(long)]
    running: bool,
}

#[derive(Debug, Subcommand)]
enum Probe {
    /// Print what comes, a line each, after the line `ready`
    Receive {
        /// Address and port; a multicast group is joined
        to: SocketAddr,
        /// Join on the interface with this address
        #[arg(long, default_value = "0.0.0.0")]
        interface: Ipv4Addr,
        /// Join on this interface, for IPv6
        #[arg(long, default_value_t = 0)]
        index: u32,
    },
    /// Send one text
    Send {
        /// Address and port
        to: SocketAddr,
        /// What to send
        text: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Judge(args) => run_judge(&args),
        Command::Probe(Probe::Receive { to, interface, index }) => probe_outcome(probe::receive(to, interface, index)),
        Command::Probe(Probe::Send { to, text }) => probe_outcome(probe::send(to, &text)),
    };
    outcome.unwrap_or_else(|why| {
        eprintln!("bourdon-lab: {why}");
        ExitCode::from(2)
    })
}

fn probe_outcome(outcome: std::io::Result<()>) -> Result<ExitCode, String> {
    outcome.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

fn run_judge(args: &JudgeArgs) -> Result<ExitCode, String> {
    let histories = history::read(&args.folder).map_err(|error| error.to_string())?;
    let RulesArgs { order, reliability, allow_skips, running } = args.rules;
    let verdict = judge(&histories, Rules { order, reliability, allow_skips, running });
    print(&if args.json { json(&verdict) } else { text(&verdict) })?;
    Ok(ExitCode::from(u8::from(!verdict.violations.is_empty())))
}

fn json(verdict: &Verdict) -> String {
    format!("{}\n", serde_json::to_string(verdict).expect("plain data becomes JSON"))
}

fn text(verdict: &Verdict) -> String {
    let mut text = format!("{} deliveries by {} processes\n", verdict.deliveries, verdict.processes);
    for process in &verdict.left_behind {
        text += &format!("{process} was not killed, but is not in the last view: its end was compared with nobody's\n");
    }
    for violation in &verdict.violations {
        text += &format!("invariant {}: {}: {}\n", violation.invariant, violation.process, violation.detail);
    }
    match (verdict.violations.len(), verdict.violations_not_told) {
        (0, _) => text + "Every guarantee was kept.\n",
        (told, 0) => text + &format!("{told} violations\n"),
        (told, more) => text + &format!("{told} violations and {more} more of the same\n"),
    }
}

fn print(text: &str) -> Result<(), String> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| format!("can't write: {error}"))
}
