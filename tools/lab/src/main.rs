//! The `bourdon-lab` command: judge histories, inject faults, send a probe.
//!
//! Results go to stdout, reports to stderr; exit 0 (kept), 1 (a guarantee was broken, or what was run broke), 2 (bad
//! usage, input or environment).

mod member;

use bourdon_lab::chaos::{self, Fault, Mode, Profile};
use bourdon_lab::interrupt::Interrupt;
use bourdon_lab::judge::{Order, Reliability, Rules, Verdict, judge};
use bourdon_lab::rounds::{self, FaultKind, Plan};
use bourdon_lab::{deaths, history, locks, matrix, probe, record, subscriptions};
use clap::{Args, Parser, Subcommand};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Hosts to inject faults into, and a judge of delivered histories.
#[derive(Debug, Parser)]
#[command(name = "bourdon-lab", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the histories in a folder against an order and a reliability
    Judge(JudgeArgs),
    /// Run members on separate hosts, inject faults in rounds, and judge what they delivered
    Rounds(RoundsArgs),
    /// Run every order at every level on sockets, with faults, and judge what was delivered
    Matrix(MatrixArgs),
    /// Run demos in which members die while observers read on, and require that no observer has a gap
    Deaths(DeathsArgs),
    /// Pass a lock between members while its holders are killed, and check that only one member held it at a time
    Locks(LocksArgs),
    /// Stop, slow down and kill subscribers that read an archive while members die, and require that each has every
    /// message once and in order
    Subscriptions(SubscriptionsArgs),
    /// Run members, observers and clients on a lossy network, pause, kill, cut, restart, replay, and judge
    Chaos(ChaosArgs),
    /// Restart a whole group again and again, while its old traffic and processes come back, and judge
    Restarts(ChaosArgs),
    /// One member or observer of a group; `rounds` and `chaos` start these
    Member(member::MemberArgs),
    /// One client of a group; `chaos` starts these
    #[command(hide = true)]
    Client(member::ClientArgs),
    /// One member that shares a lock with others; `locks` starts these
    #[command(hide = true)]
    Locker(member::LockerArgs),
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

#[derive(Debug, Args)]
struct RoundsArgs {
    /// How many members
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// How many faults are injected
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The kind of fault
    #[arg(long, value_enum, default_value = "kill")]
    fault: FaultKind,
    /// How a member is started, as a line for the shell; {rank}, {incarnation}, {dir}, {members}, {address} are filled
    /// in
    #[arg(long, value_name = "LINE")]
    member: String,
    /// Where histories go: a new or empty folder
    #[arg(long)]
    dir: PathBuf,
    /// The longest time that the group may take for any step
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    patience: u64,
    #[command(flatten)]
    rules: RulesArgs,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MatrixArgs {
    /// The bourdon command [default: the one beside this one]
    #[arg(long, value_name = "PATH")]
    bourdon: Option<PathBuf>,
    /// The transports
    #[arg(long, value_delimiter = ',', default_value = "udp,tcp")]
    transports: Vec<String>,
    /// How many messages each cell publishes
    #[arg(long, value_name = "K", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(10..))]
    messages: u64,
    /// Only these orders
    #[arg(long, value_enum, value_delimiter = ',')]
    order: Vec<Order>,
    /// Only these levels
    #[arg(long, value_enum, value_delimiter = ',')]
    reliability: Vec<Reliability>,
    /// Where histories go [default: a folder that is removed]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DeathsArgs {
    /// The bourdon command [default: the one beside this one]
    #[arg(long, value_name = "PATH")]
    bourdon: Option<PathBuf>,
    /// How many demos
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How many messages each publishes
    #[arg(long, value_name = "K", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..))]
    messages: u64,
    /// The seed of all randomness
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SubscriptionsArgs {
    /// The bourdon command [default: the one beside this one]
    #[arg(long, value_name = "PATH")]
    bourdon: Option<PathBuf>,
    /// How often subscribers must go from the archive to live
    #[arg(long, value_name = "K", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    switches: u64,
    /// Messages that each of three publishers publishes in a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// The seed of all randomness of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the archive and the logs go: a new or empty folder [default: a folder that is removed]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct LocksArgs {
    /// How many members
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=64))]
    members: u16,
    /// How often the lock must change hands
    #[arg(long, value_name = "K", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    hand_overs: u64,
    /// The algorithms that grant it, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "replicated")]
    algorithm: Vec<locks::Algorithm>,
    /// Entries between two faults, on average
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    kill_every: u64,
    /// The percentage of the faults that are stops (SIGSTOP, and SIGCONT after longer than a detector waits), not kills
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=100))]
    pause_share: u8,
    /// The seed of all randomness
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long a holder stays inside, on average
    #[arg(long, value_name = "US", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(0..=20_000))]
    inside: u64,
    /// The failure detectors' profile
    #[arg(long, value_enum, default_value = "default")]
    profile: locks::Profile,
    /// Where the shared file goes [default: a folder that is removed]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Enter without the lock every this many entries, to check that the judge finds it
    #[arg(long, value_name = "K", default_value_t = 0, hide = true)]
    cheat: u64,
    /// Members report on stderr what happens
    #[arg(long, hide = true)]
    talk: bool,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ChaosArgs {
    /// How members, observers and clients reach each other
    #[arg(long, default_value = "udp", value_parser = ["udp", "tcp", "auto", "xdp", "shm"])]
    transport: String,
    /// Members and observers: inline, or with threads of their own
    #[arg(long, value_enum, default_value = "inline")]
    mode: Mode,
    /// How many members
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// How many observers
    #[arg(long, default_value_t = 1)]
    observers: usize,
    /// How many clients
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// chaos: how long faults are injected
    #[arg(long, value_name = "T", default_value_t = 60)]
    seconds: u64,
    /// restarts: how many times
    #[arg(long, value_name = "N", default_value_t = 50)]
    count: usize,
    /// The seed of all randomness of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The failure detectors' profile [default: default over udp, patient over tcp and auto]
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// The reliability that is promised
    #[arg(long, value_enum, default_value = "uniform")]
    reliability: Reliability,
    /// The percentage of packets that are lost in the network; over shm, of datagrams that each process loses
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    loss: u8,
    /// Only these kinds of fault
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Where histories go: a new or empty folder [default: a folder that is removed]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Members report on stderr what happens
    #[arg(long, hide = true)]
    talk: bool,
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

impl From<RulesArgs> for Rules {
    fn from(RulesArgs { order, reliability, allow_skips, running }: RulesArgs) -> Self {
        Self { order, reliability, allow_skips, running }
    }
}

#[derive(Debug, Subcommand)]
enum Probe {
    /// Record every UDP and TCP packet that passes in this network namespace, until killed
    Record {
        /// The file to write
        file: PathBuf,
    },
    /// Replay recorded traffic, as it was sent
    Replay {
        /// The file to read
        file: PathBuf,
    },
    /// Print each received datagram, a line each, after the line `ready`
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
        /// The text to send
        text: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Judge(args) => run_judge(&args),
        Command::Rounds(args) => run_rounds(args),
        Command::Matrix(args) => run_matrix(args),
        Command::Deaths(args) => run_deaths(args),
        Command::Locks(args) => run_locks(args),
        Command::Subscriptions(args) => run_subscriptions(args),
        Command::Chaos(args) => run_chaos(args, false),
        Command::Restarts(args) => run_chaos(args, true),
        Command::Member(args) => member::outcome(member::run_member(args)),
        Command::Client(args) => member::outcome(member::run_client(args)),
        Command::Locker(args) => member::outcome(member::run_locker(args)),
        Command::Probe(Probe::Record { file }) => probe_outcome(record::record(&file)),
        Command::Probe(Probe::Replay { file }) => probe_outcome(record::replay(&file)),
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
    let verdict = judge(&histories, args.rules.into());
    print(&if args.json { json(&verdict) } else { text(&verdict) })?;
    Ok(ExitCode::from(u8::from(!verdict.violations.is_empty())))
}

fn run_rounds(args: RoundsArgs) -> Result<ExitCode, String> {
    let RoundsArgs { members, rounds, fault, member, dir: folder, patience, rules, json: as_json } = args;
    let (patience, rules) = (Duration::from_millis(patience), rules.into());
    let plan = Plan { members, rounds, fault, member, folder, patience, rules };
    let report = rounds::run(&plan, &|line| eprintln!("{line}")).map_err(|error| error.to_string())?;
    print(&if as_json { json(&report) } else { text(&report.verdict) })?;
    if let Some(why) = &report.failed {
        eprintln!("bourdon-lab: {why}");
    }
    Ok(ExitCode::from(u8::from(report.failed.is_some() || !report.verdict.violations.is_empty())))
}

fn bourdon_command(named: Option<PathBuf>) -> Result<PathBuf, String> {
    let beside = || std::env::current_exe().ok()?.parent().map(|folder| folder.join("bourdon"));
    let bourdon = named.or_else(beside).filter(|path| path.exists());
    bourdon.ok_or_else(|| "there is no bourdon command beside this one: build it, or name it with --bourdon".to_owned())
}

fn run_matrix(args: MatrixArgs) -> Result<ExitCode, String> {
    let bourdon = bourdon_command(args.bourdon)?;
    let own = tempfile::tempdir().map_err(|error| format!("can't make a folder: {error}"))?;
    let folder = args.dir.unwrap_or_else(|| own.path().to_owned());
    let MatrixArgs { transports, messages, order: orders, reliability: levels, json: as_json, .. } = args;
    let plan = matrix::Plan { bourdon, transports, messages, orders, levels, folder };
    let mut show_progress = |cell: &matrix::Cell| {
        let verdict = if cell.failures.is_empty() { "kept" } else { "BROKEN" };
        let barriers = if cell.barriers { " with barriers" } else { "" };
        eprintln!("{} {} {}{barriers}: {verdict}", cell.transport, cell.reliability, cell.order);
    };
    let cells = matrix::run(&plan, &mut show_progress).map_err(|error| error.to_string())?;
    print(&if as_json { json(&serde_json::json!({ "cells": cells })) } else { matrix::table(&cells) })?;
    Ok(ExitCode::from(u8::from(cells.iter().any(|cell| !cell.failures.is_empty()))))
}

fn run_deaths(args: DeathsArgs) -> Result<ExitCode, String> {
    let DeathsArgs { runs, messages, seed, json: as_json, .. } = args;
    let plan = deaths::Plan { bourdon: bourdon_command(args.bourdon)?, runs: runs as usize, messages, seed };
    let mut number = 0;
    let mut show = |run: &deaths::Run| {
        number += 1;
        let verdict = if run.is_good() { "no gap" } else { "BROKEN" };
        eprintln!("{number}/{runs} {} {}: {verdict}", run.reliability, run.order);
    };
    let done = deaths::run(&plan, &mut show).map_err(|error| error.to_string())?;
    let broken: Vec<_> = done.iter().filter(|run| !run.is_good()).collect();
    if as_json {
        print(&json(&serde_json::json!({ "runs": done.len(), "broken": broken })))?;
    } else {
        let mut lines = format!("{} demos, {} broken\n", done.len(), broken.len());
        for run in &broken {
            let failures = run.failures.join("; ");
            lines +=
                &format!("{} messages given up by observers; {failures}\n  bourdon {}\n", run.observer_gaps, run.again);
        }
        print(&lines)?;
    }
    Ok(ExitCode::from(u8::from(!broken.is_empty())))
}

fn run_subscriptions(args: SubscriptionsArgs) -> Result<ExitCode, String> {
    let own = tempfile::tempdir().map_err(|error| format!("can't make a folder: {error}"))?;
    let folder = args.dir.unwrap_or_else(|| own.path().to_owned());
    let SubscriptionsArgs { switches, rate, seed, json: as_json, .. } = args;
    let plan = subscriptions::Plan { bourdon: bourdon_command(args.bourdon)?, switches, rate, seed, folder };
    let mut next = 0;
    let report = subscriptions::run(&plan, &mut |switches| {
        if switches >= next {
            eprintln!("{switches} of {} switches", plan.switches);
            next = switches + 100;
        }
    });
    let report = report.map_err(|error| error.to_string())?;
    if as_json {
        print(&json(&report))?;
    } else {
        let subscriptions::Report { switches, stops, pauses, kills, deaths, published, written, .. } = report;
        let (live, catch_up) = (report.live_rate, report.catch_up_rate);
        let failures: String = report.failures.iter().map(|why| why.clone() + "\n").collect();
        print(&format!(
            "{switches} switches by {stops} stops, {pauses} pauses and {kills} kills; {deaths} deaths of members; \
             {published} messages published, {written} written\nlive {live} a second, catching up {catch_up}\n\
             {failures}"
        ))?;
    }
    Ok(ExitCode::from(u8::from(!report.failures.is_empty())))
}

/// This command: it runs the members as well.
fn own_command() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("can't find this command: {error}"))
}

fn run_locks(args: LocksArgs) -> Result<ExitCode, String> {
    let lab = own_command()?;
    let own = tempfile::tempdir().map_err(|error| format!("can't make a folder: {error}"))?;
    let folder = args.dir.unwrap_or_else(|| own.path().to_owned());
    let LocksArgs { members, hand_overs, kill_every, pause_share, seed, profile, cheat, talk, .. } = args;
    let inside = Duration::from_micros(args.inside);
    let plan =
        locks::Plan { lab, members, hand_overs, kill_every, pause_share, seed, inside, profile, cheat, talk, folder };
    let mut runs = Vec::new();
    for algorithm in args.algorithm {
        runs.push(locks::run(&plan, algorithm, &|line| eprintln!("{line}")).map_err(|error| error.to_string())?);
    }
    print(&if args.json { json(&serde_json::json!({ "runs": runs })) } else { locks::text(&runs) })?;
    Ok(ExitCode::from(u8::from(!runs.iter().all(locks::Report::is_good))))
}

fn run_chaos(args: ChaosArgs, restarts: bool) -> Result<ExitCode, String> {
    let lab = own_command()?;
    let own = tempfile::tempdir().map_err(|error| format!("can't make a folder: {error}"))?;
    let folder = args.dir.unwrap_or_else(|| own.path().to_owned());
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} holds something already; name a new or empty folder", folder.display()));
    }
    let interrupt = Interrupt::watch().map_err(|error| format!("can't watch for signals: {error}"))?;
    let ChaosArgs { transport, mode, members, observers, clients, seed, reliability, loss, faults, talk, .. } = args;
    let by_transport = if ["tcp", "auto"].contains(&transport.as_str()) { Profile::Patient } else { Profile::Default };
    let plan = chaos::Plan {
        lab,
        transport,
        mode,
        members,
        observers,
        clients,
        length: Duration::from_secs(args.seconds),
        seed,
        profile: args.profile.unwrap_or(by_transport),
        reliability,
        loss,
        faults,
        restarts: restarts.then_some(args.count),
        talk,
        folder,
    };
    let report = chaos::run(&plan, &interrupt, &|line| eprintln!("{line}")).map_err(|error| error.to_string())?;
    print(&if args.json { json(&report) } else { chaos::text(&report) })?;
    Ok(ExitCode::from(u8::from(!report.is_good())))
}

fn json(result: &impl serde::Serialize) -> String {
    format!("{}\n", serde_json::to_string(result).expect("plain data becomes JSON"))
}

fn text(verdict: &Verdict) -> String {
    let mut text = format!("{} deliveries by {} processes\n", verdict.deliveries, verdict.processes);
    for process in &verdict.left_behind {
        text += &format!("{process} was not killed, but is not in the last view: its end was compared with no other\n");
    }
    for violation in &verdict.violations {
        text += &format!("invariant {}: {}: {}\n", violation.invariant, violation.process, violation.detail);
    }
    match (verdict.violations.len(), verdict.violations_not_listed) {
        (0, _) => text + "Every guarantee was kept.\n",
        (listed, 0) => text + &format!("{listed} violations\n"),
        (listed, more) => text + &format!("{listed} violations and {more} more of the same\n"),
    }
}

fn print(text: &str) -> Result<(), String> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| format!("can't write: {error}"))
}
