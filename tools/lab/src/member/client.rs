//! One client for the lab: it publishes through a member, and records what the group has acknowledged.
//!
//! `bourdon-lab chaos` compares these records with what members delivered: an acknowledged message that is delivered
//! nowhere was lost. A client that the member refuses, or that hears no member, ends; the harness starts its next
//! incarnation, which publishes under another name. Each line of the file is the number of messages acknowledged so
//! far.

use super::messages::{Publisher, payload};
use super::{Failure, ending_of, named};
use bourdon::id::TopicId;
use bourdon::settings::{Settings, Transport};
use bourdon::{ClientEvent, ClientNode};
use bourdon_lab::interrupt::Interrupt;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// The longest sleep.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);
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
    /// udp, portable, tcp or auto
    #[arg(long, default_value = "udp", value_parser = named::<Transport>)]
    transport: Transport,
    /// Over tcp or auto: the members' addresses, by rank
    #[arg(long, value_delimiter = ',')]
    peers: Vec<SocketAddr>,
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
    settings.group.members = args.members;
    settings.network.interface = args.interface;
    settings.network.transport = args.transport;
    settings.network.peers = args.peers;
    // Before the first thread, so that no signal is missed.
    let interrupt = Interrupt::watch().map_err(Failure::unusable)?;
    let unusable = |error| Failure::unusable(format!("can't write {}: {error}", args.acked.display()));
    let mut file = File::create(&args.acked).map_err(unusable)?;
    let mut node = ClientNode::open(&settings).map_err(Failure::unusable)?;
    let waker = node.waker();
    let ended = ending_of(move || interrupt.wait(), move || waker.wake());
    let interval = Duration::from_nanos(1_000_000_000 / args.rate);
    let (mut published, mut first, mut due) = (0, None, Instant::now());
    while ended.try_recv() == Err(TryRecvError::Empty) {
        if node.has_room() && Instant::now() >= due {
            let sequence = node.publish(TopicId::of("lab"), &payload((own, published), None));
            first.get_or_insert(sequence.0);
            // A client that was stopped does not catch up.
            (published, due) = (published + 1, (due + interval).max(Instant::now()));
        }
        node.poll().map_err(Failure::broken)?;
        while let Some(event) = node.poll_event() {
            match event {
                ClientEvent::Taken(next) => {
                    let acked = first.map_or(0, |first| next.0 - first);
                    writeln!(file, "{acked}").map_err(unusable)?;
                }
                ClientEvent::TooManyClients | ClientEvent::NoAnswer => return Ok(()),
                event => return Err(Failure::broken(event)),
            }
        }
        let until_due = due.saturating_duration_since(Instant::now());
        let longest = if node.has_room() { until_due.min(LONGEST_SLEEP) } else { LONGEST_SLEEP };
        node.wait(longest).map_err(Failure::broken)?;
    }
    Ok(())
}
