//! `bourdon node`: runs a member or observer, and its part in the group's channels, until it is stopped.
//!
//! It keeps a group going, orders, acknowledges and serves clients; its counters and its admin socket show its state.
//! It delivers to no application, but prints direct messages that it receives on stdout. A signal only makes a
//! descriptor readable, and the one loop that waits for events ends the node, or joins and leaves channels: no work is
//! done in a signal handler.

mod limit;
mod parts;

use crate::exit::Failure;
use crate::send::{received, received_object};
use bourdon::settings::{Role, Transport};
use bourdon::{DirectMessage, Event, Node, Settings};
use parts::Parts;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node's configuration
    #[arg(long, value_name = "FILE", default_value = "bourdon.toml")]
    config: PathBuf,
    /// Run this channel only, and no more of the group; may be given several times [default: the group and every
    /// channel that this process is a member of]
    #[arg(long, value_name = "NAME")]
    channel: Vec<String>,
    /// Write events to stdout as JSON objects
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    // Before the first thread, so that no signal is missed.
    let signals = signals().map_err(Failure::unusable)?;
    let requests = readable_with(&[SIGUSR1]).map_err(Failure::unusable)?;
    let mut parts = Parts::start(args.config, args.channel, args.json)?;
    let outcome = parts.serve(&signals, &requests);
    let stopped = parts.stop();
    outcome.and(stopped)?;
    let reporter = Reporter { json: args.json, channel: None };
    reporter.print("the node has stopped", &mut json!({ "event": "stopped" }));
    Ok(())
}

/// A descriptor that becomes readable with SIGTERM or SIGINT.
pub(crate) fn signals() -> std::io::Result<UnixStream> {
    readable_with(&[SIGTERM, SIGINT])
}

/// A descriptor that becomes readable with any of these signals.
pub(crate) fn readable_with(signals: &[i32]) -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

struct Reporter {
    json: bool,
    channel: Option<String>,
}

impl Reporter {
    /// The channel's name, which begins its lines.
    fn prefix(&self) -> String {
        self.channel.as_ref().map(|name| format!("channel {name}: ")).unwrap_or_default()
    }

    fn print(&self, text: &str, object: &mut Value) {
        eprintln!("bourdon: {}{text}", self.prefix());
        if self.json {
            object["channel"] = self.channel.clone().into();
            let mut out = std::io::stdout().lock();
            // If stdout has no reader, the node goes on.
            let _ = writeln!(out, "{object}").and_then(|()| out.flush());
        }
    }

    /// A sender addresses a direct message to this node: it is data, and so goes to stdout.
    fn direct(&self, message: &DirectMessage) {
        let line = if self.json {
            let mut object = received_object(message);
            object["channel"] = self.channel.clone().into();
            object.to_string()
        } else {
            self.prefix() + &received(message)
        };
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush()); // as in `print`
    }

    fn started(&self, settings: &Settings, node: &Node) {
        let (info, group, idle) = (node.info(), &settings.group, settings.threads.idle);
        let (role, rank) = match settings.process.role {
            Role::Member => {
                (format!("member {} of {}", settings.process.rank, group.members), Some(settings.process.rank))
            }
            _ => ("observer".to_owned(), None),
        };
        let (name, address, interface) = (&group.name, group.address, &settings.network.interface);
        let (at, io) = (info.local_address, &info.io);
        let place = match settings.network.transport {
            Transport::Tcp => "over tcp".to_owned(),
            Transport::Auto => format!("on {address} over {interface}, and over tcp"),
            _ => format!("on {address} over {interface}"),
        };
        let text = format!("{role} of group {name:?} {place}: at {at} by {io}, idle {idle:?}");
        let granted_bytes = info.receive_buffer_bytes / 2; // the kernel reports twice what was requested
        let mut object = json!({
            "event": "started", "group": name, "group_address": address, "rank": rank, "address": at, "io": io,
            "fallback": info.fallback, "receive_buffer_bytes": granted_bytes,
            "counters": info.counters_path, "admin_socket": info.socket_path, "pid": std::process::id(),
        });
        if let Some(why) = &info.fallback {
            eprintln!("bourdon: {why}");
        }
        let asked_bytes = settings.network.receive_buffer_bytes;
        if granted_bytes < asked_bytes && settings.network.transport != Transport::Tcp {
            eprintln!(
                "bourdon: warning: {granted_bytes} bytes of receive buffer instead of {asked_bytes}, so the window is \
                     smaller: `sysctl -w net.core.rmem_max={asked_bytes}` allows it"
            );
        }
        eprintln!("bourdon: the group is open: there is no key, so any process that reaches it can read and publish");
        self.print(&text, &mut object);
    }

    /// An event, and how many like it were left out before it.
    fn event(&self, event: Event, left_out: u64) {
        let mut text = event.to_string();
        if left_out > 0 {
            text += &format!(" ({left_out} more reports of it were left out)");
        }
        let at_ns = bourdon::time::Clock::start().wall_ns();
        let mut object =
            json!({ "event": event.name(), "at_ns": at_ns, "rank": Value::Null, "text": text, "left_out": left_out });
        if let Event::Reached(reach) = event {
            object["by_multicast"] = reach.by_multicast.into();
            object["by_tcp"] = reach.by_mesh.into();
        }
        if let Event::Waiting(waiting) = event {
            object["missing"] = ranks(waiting.missing);
            object["in_lost_instance"] = ranks(waiting.in_lost_instance);
            object["rank_in_use"] = waiting.rank_in_use.is_some().into();
            object["waited_ns"] = waiting.waited_ns.into();
            return self.print(&format!("{text} ({} s so far)", waiting.waited_ns / 1_000_000_000), &mut object);
        }
        object["rank"] = event.rank().map(|rank| rank.0).into();
        match event {
            Event::View { epoch, members, sequencer, .. } => {
                object["epoch"] = epoch.0.into();
                object["members"] = ranks(members);
                object["sequencer"] = sequencer.0.into();
            }
            Event::GateDropped(address) => {
                object["address"] = std::net::SocketAddr::from(address).to_string().into();
            }
            Event::Removed(epoch) | Event::Left(epoch) => object["epoch"] = epoch.0.into(),
            Event::Synced { phase, .. } => object["phase"] = phase.into(),
            _ => {}
        }
        self.print(&text, &mut object);
    }
}

fn ranks(bits: u64) -> Value {
    (0..64).filter(|rank| bits >> rank & 1 == 1).collect::<Vec<u16>>().into()
}
