//! `bourdon demo`: the main job, end to end, on real sockets.
//!
//! Market data enters at one process and must leave every member and observer in one order. The demo starts each of
//! them as a separate process (`process.rs`), sends them commands (`link.rs`), and trusts none of them: it compares
//! what they prove to have delivered with the input and with each other (`runner.rs`), and prints the outcome
//! (`report.rs`).

mod children;
mod input;
mod journal;
mod kill;
mod link;
mod names;
pub(crate) mod process;
mod proof;
mod report;
mod runner;
mod schedule;
mod share;
mod shown;

pub(crate) use schedule::Rate;

use crate::exit::{Failure, note};
use bourdon::settings::{Flow, IdleStrategy, Order, Profile, Reliability, Role, Settings, Start, Transport};
use clap::ValueEnum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// What the demo runs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Publish this file's records instead of synthetic bursts: a pipe is read once, - is stdin, zstd and gzip are
    /// decompressed
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    input: Option<PathBuf>,
    /// How to read the input
    #[arg(long, value_enum, default_value = "auto", help_heading = "Input")]
    format: input::Format,
    /// Publish only this many messages
    #[arg(
        long,
        value_name = "K",
        value_parser = clap::value_parser!(u64).range(1..=20_000_000),
        help_heading = "Input",
    )]
    messages: Option<u64>,
    /// Replay by receive time: real, xN (N times as fast), or max
    #[arg(long, default_value = "real", help_heading = "Input")]
    rate: schedule::Rate,
    /// Shorten longer recorded gaps to this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, help_heading = "Input")]
    max_gap: u64,
    /// Members: they deliver, acknowledge, and may publish
    #[arg(
        long,
        value_name = "M",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = "Group",
    )]
    members: u16,
    /// Observers: they deliver only
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(0..=256),
        help_heading = "Group",
    )]
    observers: u16,
    /// Members 0 to P-1 publish; record i comes from publisher i mod P
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = "Group",
    )]
    publishers: u16,
    /// The order of delivery
    #[arg(long, value_enum, default_value = "total", help_heading = "Group")]
    order: OrderArg,
    /// What may be lost
    #[arg(long, value_enum, default_value = "reliable", help_heading = "Group")]
    reliability: ReliabilityArg,
    /// Whether publishers wait for observers (gating), send more slowly for them (paced), or let an observer that is
    /// too slow lose messages (free)
    #[arg(long, value_enum, default_value = "gating", help_heading = "Group")]
    flow: FlowArg,
    /// Every member forwards what it receives for the first time
    #[arg(long, help_heading = "Group")]
    relay: bool,
    /// The group's multicast address and port [default: one of its own]; over tcp only its family counts
    #[arg(long, value_name = "A:P", help_heading = "Group")]
    group_address: Option<SocketAddr>,
    /// What moves the datagrams
    #[arg(long, value_enum, default_value = "udp", help_heading = "Group")]
    transport: TransportArg,
    /// What a process does while nothing arrives
    #[arg(long, value_enum, default_value = "park", help_heading = "Group")]
    idle: IdleArg,
    /// The interface that all traffic uses
    #[arg(long, value_name = "NAME", default_value = "lo", help_heading = "Group")]
    interface: String,
    /// Lose this percentage of all datagrams at each receiver
    #[arg(long, value_name = "PCT", default_value_t = 0.0, help_heading = "Faults")]
    drop: f64,
    /// Duplicate this percentage of all datagrams
    #[arg(long, value_name = "PCT", default_value_t = 0.0, help_heading = "Faults")]
    duplicate: f64,
    /// Reorder this percentage of all datagrams: later datagrams overtake them
    #[arg(long, value_name = "PCT", default_value_t = 0.0, help_heading = "Faults")]
    reorder: f64,
    /// The seed that decides which datagrams these are
    #[arg(long, value_name = "S", default_value_t = 1, help_heading = "Faults")]
    fault_seed: u64,
    /// Close this many TCP connections, over auto each with the sharing of memory with one process, spread evenly over
    /// messages and processes
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=100_000),
        help_heading = "Faults",
    )]
    break_links: u64,
    /// Let a process kill itself (SIGKILL) once it has delivered K messages: member:0@20000; may be given several
    /// times; all@K kills all processes once one has delivered K (durable only, with --restart-after)
    #[arg(long, value_name = "ROLE:RANK@K", help_heading = "Faults")]
    kill: Vec<kill::Kill>,
    /// Restart a killed process after this many milliseconds
    #[arg(long, value_name = "MS", requires = "kill", help_heading = "Faults")]
    restart_after: Option<u64>,
    /// independent, or reply: every 8th message answers the last delivered one and names it
    #[arg(long, value_enum, default_value = "independent", help_heading = "Input")]
    workload: Workload,
    /// The lowest member asks for a barrier after every K messages
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Group")]
    barrier_every: Option<u64>,
    /// Each process writes what it delivers to DIR/ROLE-RANK.tsv
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Each process records what it delivers in DIR/ROLE-RANK, for `bourdon archive`
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// How soon failures are detected: default, or fast for a host with cores to spare
    #[arg(long, value_enum, default_value = "default", help_heading = "Group")]
    profile: ProfileArg,
    /// One JSON object on stdout instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FlowArg {
    Free,
    Paced,
    Gating,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    Unordered,
    Fifo,
    Causal,
    Total,
    TotalCausal,
    Realtime,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReliabilityArg {
    Unreliable,
    BestEffort,
    Reliable,
    Uniform,
    Stable,
    Durable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    Independent,
    Reply,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileArg {
    Default,
    Fast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TransportArg {
    Udp,
    Portable,
    Tcp,
    Auto,
    /// Past the kernel's stack: one process of the demo; the others are on the same interface, and use udp
    Xdp,
    /// Shared memory
    Shm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IdleArg {
    Spin,
    Yield,
    Backoff,
    Park,
}

/// The name a value has on the command line.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Whether the requested faults can be injected on this transport.
fn check_faults(args: &Args) -> Result<(), Failure> {
    let has_links = matches!(args.transport, TransportArg::Tcp | TransportArg::Auto);
    let transport = name(args.transport);
    if args.break_links > 0 && !has_links {
        return Err(Failure::unusable(format!(
            "--break-links closes TCP connections, of which {transport} has none: use --transport tcp, or --drop"
        )));
    }
    if args.transport == TransportArg::Tcp && [args.drop, args.duplicate, args.reorder].iter().any(|it| *it > 0.0) {
        return Err(Failure::unusable(
            "--drop, --duplicate and --reorder act on UDP datagrams: over tcp use --break-links, which loses what is \
                 on its way",
        ));
    }
    if args.transport == TransportArg::Tcp && args.interface != "lo" {
        return Err(Failure::unusable(
            "--interface is about multicast: over tcp the demo's processes meet on loopback",
        ));
    }
    let kills_all = args.kill.iter().any(|kill| kill.victim == kill::Victim::All);
    if kills_all && (!matches!(args.reliability, ReliabilityArg::Durable) || args.restart_after.is_none()) {
        return Err(Failure::unusable(
            "--kill all@K leaves nothing in memory: it needs --reliability durable, and --restart-after",
        ));
    }
    Ok(())
}

/// Runs the demo.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    check_faults(&args)?;
    let mut settings = settings(&args)?;
    choose_addresses(&mut settings, args.group_address, 0)?;
    settings.check().map_err(Failure::unusable)?;
    if args.publishers > args.members {
        let (publishers, members) = (args.publishers, args.members);
        return Err(Failure::unusable(format!("{publishers} publishers need as many members, not {members}")));
    }
    let mut source = input::Source { path: args.input.clone(), format: args.format, limit: args.messages };
    let _copy = source.make_repeatable()?;
    let records = source.load()?;
    settings.process.snapshots = runner::can_be_kept(&records);
    let count = records.len() as u64;
    kill::check(&args.kill, args.members, args.observers, count).map_err(Failure::unusable)?;
    if args.restart_after.is_some() && !settings.process.snapshots {
        return Err(Failure::unusable("the input is too large to be handed to a restarted process: use --messages"));
    }
    if let Some(directory) = &args.history {
        let unusable = |error| Failure::unusable(format!("can't make {}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(unusable)?;
    }
    let plan = runner::Plan {
        settings,
        observers: args.observers,
        publishers: args.publishers,
        source,
        rate: args.rate,
        max_gap_ns: args.max_gap.saturating_mul(1_000_000),
        fault_seed: args.fault_seed,
        kills: args.kill.clone(),
        restart_after: args.restart_after.map(Duration::from_millis),
        replies: args.workload == Workload::Reply,
        barrier_every: args.barrier_every,
        history: args.history.clone(),
        retry_address: args.group_address.is_none(),
        break_links: args.break_links,
    };
    let names = report::Names {
        order: name(args.order),
        reliability: name(args.reliability),
        transport: name(args.transport),
        rate: args.rate.to_string(),
    };
    let outcome = runner::run(&plan, &records)?;
    let broken = report::links_broken(&outcome);
    if broken < args.break_links {
        let all = args.break_links;
        note(format!("{broken} of {all} connections were closed: at times there was none, or its process was gone"));
    }
    report::show(&plan, &names, &outcome, args.json)?;
    if outcome.failures.is_empty() { Ok(()) } else { Err(Failure::broken(outcome.failures.join("; "))) }
}

fn settings(args: &Args) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    let group = &mut settings.group;
    group.name = format!("demo-{}-{}", std::process::id(), bourdon::time::Clock::start().wall_ns());
    group.members = args.members;
    group.order = match args.order {
        OrderArg::Unordered => Order::Unordered,
        OrderArg::Fifo => Order::Fifo,
        OrderArg::Causal => Order::Causal,
        OrderArg::Total => Order::Total,
        OrderArg::TotalCausal => Order::Total, // total order is causal as it is
        OrderArg::Realtime => Order::RealTime,
    };
    group.reliability = match args.reliability {
        ReliabilityArg::Reliable => Reliability::Reliable,
        ReliabilityArg::Uniform => Reliability::Uniform,
        ReliabilityArg::Stable => Reliability::Stable,
        ReliabilityArg::Unreliable => Reliability::Unreliable,
        ReliabilityArg::BestEffort => Reliability::BestEffort,
        ReliabilityArg::Durable => Reliability::Durable,
    };
    group.relay = args.relay;
    // Each run has a directory of its own in it.
    settings.storage.directory = (group.reliability == Reliability::Durable).then(std::env::temp_dir);
    if let Some(path) =
        args.archive.as_ref().filter(|path| path.read_dir().is_ok_and(|mut names| names.next().is_some()))
    {
        let path = path.display();
        return Err(Failure::unusable(format!("--archive {path}: the directory is not empty: name another one")));
    }
    settings.archive.directory.clone_from(&args.archive);
    settings.flow.mode = match args.flow {
        FlowArg::Free => Flow::Free,
        FlowArg::Paced => Flow::Paced,
        FlowArg::Gating => Flow::Gating,
    };
    settings.network.transport = match args.transport {
        TransportArg::Udp => Transport::Udp,
        TransportArg::Portable => Transport::Portable,
        TransportArg::Tcp => Transport::Tcp,
        TransportArg::Auto => Transport::Auto,
        TransportArg::Xdp => Transport::Xdp,
        TransportArg::Shm => Transport::Shm,
    };
    settings.network.interface.clone_from(&args.interface);
    settings.process.role = Role::Member;
    settings.process.start = Start::Oldest;
    settings.detector.profile = match args.profile {
        ProfileArg::Default => Profile::Default,
        ProfileArg::Fast => Profile::Fast,
    };
    settings.limits.receivers = u32::from(args.members + args.observers);
    settings.threads.idle = match args.idle {
        IdleArg::Spin => IdleStrategy::Spin,
        IdleArg::Yield => IdleStrategy::Yield,
        IdleArg::Backoff => IdleStrategy::Backoff,
        IdleArg::Park => IdleStrategy::Park,
    };
    settings.faults.drop_percent = args.drop;
    settings.faults.duplicate_percent = args.duplicate;
    settings.faults.reorder_percent = args.reorder;
    Ok(settings)
}

/// Gives the group an address that is most likely unused, and over tcp one to each member; `attempt` gives others.
fn choose_addresses(settings: &mut Settings, given: Option<SocketAddr>, attempt: u32) -> Result<(), Failure> {
    let own = own_address(std::process::id(), attempt);
    settings.group.address = given.unwrap_or(own);
    if matches!(settings.network.transport, Transport::Tcp | Transport::Auto) {
        let is_ipv6 = settings.group.address.is_ipv6();
        let ip: IpAddr = if is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        // If another process takes one of them before its member does, the demo tries others.
        let ports = (own.port()..PORTS.end).chain(PORTS.start..own.port());
        let free = ports.map(|port| SocketAddr::new(ip, port)).filter(|address| TcpListener::bind(address).is_ok());
        settings.network.peers = free.take(settings.group.members.into()).collect();
        if settings.network.peers.len() < settings.group.members.into() {
            return Err(Failure::unusable(format!("no ports are free on {ip} from {} on", PORTS.start)));
        }
    }
    Ok(())
}

/// Ports below the range from which kernels assign ports themselves.
const PORTS: Range<u16> = 20_000..32_000;

/// An address that two demos on one host are unlikely to share; `attempt` gives another.
fn own_address(pid: u32, attempt: u32) -> SocketAddr {
    let mixed = (pid.wrapping_add(attempt << 16)).wrapping_mul(0x9E37_79B9);
    let port = PORTS.start + (mixed >> 8) as u16 % (PORTS.end - PORTS.start);
    SocketAddr::from((Ipv4Addr::new(239, 255, (mixed >> 24) as u8, mixed as u8), port))
}
