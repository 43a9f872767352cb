//! One client for the lab: it publishes through a member, and records what the group has acknowledged.
//!
//! `bourdon-lab chaos` compares these records with what members delivered: an acknowledged message that is delivered
//! nowhere was lost. A client that the member refuses, or that hears no member, ends; the harness starts its next
//! incarnation, which publishes under another name. Each line of the file is the number of messages acknowledged so
//! far.

use super::messages::{Publisher, payload};
use super::{Failure, ending_of, named};
use bourdon::error::NotAcknowledged;
use bourdon::id::TopicId;
use bourdon::settings::{Role, Transport};
use bourdon::{Node, Refusal, Settings, Topic};
use bourdon_lab::interrupt::Interrupt;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// The longest sleep.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);
/// The shortest, so that a client that must wait for room does not spin.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);
/// How long a client looks for a member.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages of a client under way; a greater limit is the member's, of clients.
const WINDOW: usize = 32;
/// The ranks of clients as publishers begin here, above the ranks of members.
const FIRST_RANK: u16 = 1_000;

/// One client of a lab's group
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many members the group has
    #[arg(long)]
    members: u16,
    /// The file to write: client-RANK.acked, or client-RANK.INCARNATION.acked
    #[arg(long, value_name = "FILE")]
    acked: PathBuf,
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
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// How often the whole group was started before: part of every message's name
    #[arg(long, default_value_t = 0)]
    generation: u16,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let Some((_, mut own)) = Publisher::of(&args.acked, args.generation) else {
        return Err(Failure::unusable(format!("{} is not named client-RANK.acked", args.acked.display())));
    };
    own.rank += FIRST_RANK;
    let mut settings = Settings::default();
    settings.group.name = "lab".to_owned();
    settings.process.role = Role::Client;
    settings.group.members = args.members;
    settings.network.interface = args.interface;
    settings.network.transport = args.transport;
    settings.network.peers = args.peers;
    settings.faults.drop_percent = args.drop;
    // Before the first thread, so that no signal is missed.
    let interrupt = Interrupt::watch().map_err(Failure::unusable)?;
    let begun = Instant::now();
    let unusable = |error| Failure::unusable(format!("can't write {}: {error}", args.acked.display()));
    let mut file = File::create(&args.acked).map_err(unusable)?;
    let node = Node::open(&settings).map_err(Failure::unusable)?;
    let mut publication = node.publication().map_err(Failure::unusable)?;
    let canceller = node.canceller();
    let ended = ending_of(move || interrupt.wait(), move || canceller.cancel());
    node.join().map_err(Failure::broken)?;
    let topic = Topic::of_id(TopicId::of("lab"));
    let interval = Duration::from_nanos(1_000_000_000 / args.rate);
    let (mut acked, mut due) = (0, Instant::now());
    while ended.try_recv() == Err(TryRecvError::Empty) {
        if Instant::now() >= due {
            match publication.try_publish(&topic, &payload((own, publication.published()), None)) {
                // A client that was stopped does not catch up.
                Ok(_) => due = (due + interval).max(Instant::now()),
                Err(refusal) if refusal.is_transient() => {}
                Err(refusal) => return Err(Failure::broken(refusal)),
            }
        }
        let longest = due.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP).max(SHORTEST_SLEEP);
        match publication.wait_acknowledged(publication.published().min(acked + 1), longest) {
            Err(error @ NotAcknowledged::Dropped { .. }) => return Err(Failure::broken(error)),
            Err(NotAcknowledged::Closed { .. }) => break,
            _ => {}
        }
        if publication.acknowledged() > acked {
            acked = publication.acknowledged();
            writeln!(file, "{acked}").map_err(unusable)?;
        }
        let is_refused = match publication.held_up_by() {
            Some(Refusal::TooMany { limit }) => limit > WINDOW,
            Some(Refusal::NoReceiver) => begun.elapsed() >= PATIENCE,
            _ => false,
        };
        if is_refused {
            return Ok(());
        }
    }
    Ok(())
}
