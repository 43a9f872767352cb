//! One member for the lab: it publishes, delivers, and records what it delivered, until it is removed or stopped.
//!
//! `bourdon-lab rounds` injects faults into it and judges its history. The judge must tell messages apart by name
//! alone, across kills: a message that only a killed process delivered may exist nowhere else, and the next incarnation
//! publishes other messages in its place. So a publisher is an incarnation (`RANK.INCARNATION`). Each publisher numbers
//! its messages, and each payload holds its publisher, its number and the message that it answers, so that the history
//! is made of the received bytes.
//!
//! A file named `observer-RANK.tsv` makes it an observer, which only delivers. With `--short-state` a state is a count
//! and a sum, so that a long campaign over a bad network does not measure how fast states are sent.
//!
//! A joiner first gets a member's state: all history lines of that member. The joiner writes them as its own before its
//! first view. A process that gets state twice, or is removed, ends; the harness that started it starts its next
//! incarnation.
//!
//! The node runs in the main thread (`inline.rs`) or has threads of its own (`threaded.rs`).

use super::deliveries::{Deliveries, Start};
use super::messages::Publisher;
use super::{Failure, inline, named, threaded};
use bourdon::settings::{Order, Profile, Reliability, Role, Settings, Transport};
use bourdon_lab::chaos::Mode;
use bourdon_lab::history::writer::History;
use bourdon_lab::interrupt::Interrupt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One member of a lab's group
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many members the group has
    #[arg(long)]
    members: u16,
    /// The file to write; its name gives this member's rank: member-RANK.tsv, or member-RANK.INCARNATION.tsv
    #[arg(long, value_name = "FILE")]
    history: PathBuf,
    /// The interface that all traffic uses
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// udp, portable, tcp, auto, xdp or shm
    #[arg(long, default_value = "udp", value_parser = named::<Transport>)]
    transport: Transport,
    /// Over tcp or auto: the members' addresses, by rank
    #[arg(long, value_delimiter = ',')]
    peers: Vec<SocketAddr>,
    /// The percentage of datagrams that this process loses
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    drop: f64,
    /// How many messages to publish a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// unordered, fifo, causal, total or total-causal
    #[arg(long, default_value = "total", value_parser = named::<Order>)]
    order: Order,
    /// reliable, uniform or stable
    #[arg(long, default_value = "reliable", value_parser = named::<Reliability>)]
    reliability: Reliability,
    /// default, fast or patient
    #[arg(long, default_value = "default", value_parser = named::<Profile>)]
    profile: Profile,
    /// How often the whole group was started before: part of every message's name
    #[arg(long, default_value_t = 0)]
    generation: u16,
    /// Send joiners a count and a sum of what was delivered, not all lines: a state that stays small
    #[arg(long)]
    short_state: bool,
    /// Where the group's highest birth is stored
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,
    /// Run the node in this process's main thread, or with threads of its own: then state is neither given nor taken
    #[arg(long, value_enum, default_value = "inline")]
    mode: Mode,
    /// Take a lock once a member, and append its token to this file: the birth, the epoch and the number
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Report on stderr what happens
    #[arg(long)]
    talk: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let Some((role, own)) = Publisher::of(&args.history, args.generation) else {
        let path = args.history.display();
        return Err(Failure::unusable(format!("{path} is not named member-RANK.tsv or observer-RANK.INCARNATION.tsv")));
    };
    let settings = settings(&args, role, own)?;
    // Before the first thread, so that no signal is missed.
    let interrupt = Interrupt::watch().map_err(Failure::unusable)?;
    let history = History::create(&args.history).map_err(Failure::unusable)?;
    // Without a state to give, there are no lines to keep for it.
    let deliveries = Deliveries::new(history, args.short_state || args.mode == Mode::Threaded);
    let Args { rate, tokens, talk, .. } = args;
    let start = Start { own, deliveries, rate, tokens, talk };
    match args.mode {
        Mode::Inline => inline::run(&settings, start, interrupt),
        Mode::Threaded => threaded::run(&settings, start, interrupt),
    }
}

fn settings(args: &Args, role: &str, own: Publisher) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    settings.group.name = "lab".to_owned();
    settings.group.members = args.members;
    settings.group.order = args.order;
    settings.group.reliability = args.reliability;
    settings.process.role = match role {
        "member" => Role::Member,
        "observer" => Role::Observer,
        _ => return Err(Failure::unusable(format!("a history is a member's or an observer's, not {role:?}'s"))),
    };
    settings.process.rank = own.rank;
    settings.process.snapshots = args.mode == Mode::Inline;
    settings.process.state_directory.clone_from(&args.state_directory);
    settings.network.interface.clone_from(&args.interface);
    settings.network.transport = args.transport;
    settings.network.peers.clone_from(&args.peers);
    settings.faults.drop_percent = args.drop;
    settings.detector.profile = args.profile;
    Ok(settings)
}
