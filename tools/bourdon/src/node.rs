//! `bourdon node`: runs a member or observer, and its part in the group's channels, until it is stopped.
//!
//! It keeps a group going, orders, acknowledges and serves clients; its counters and its admin socket show its state.
//! It delivers to no application, but prints direct messages that it receives on stdout. With `--publish` it publishes
//! what comes from stdin (`node/input.rs`). A signal only makes a
//! descriptor readable, and the one loop that waits for events ends the node, or joins and leaves channels: no work is
//! done in a signal handler.

mod input;
mod interface;
mod limit;
mod log;
mod parts;

use crate::event;
use crate::exit::Failure;
use crate::send::{received, received_object};
use bourdon::event::Ranks;
use bourdon::id::Rank;
use bourdon::settings::{GroupSettings, Role, Transport};
use bourdon::{DirectMessage, Event, Node, Settings, View};
use log::{Level, Log};
use parts::Parts;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
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
    #[command(flatten)]
    input: input::Args,
    /// Write events to stdout as JSON objects
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    // Before the first thread, so that no signal is missed.
    let signals = signals().map_err(Failure::unusable)?;
    let requests = readable_with(&[SIGUSR1]).map_err(Failure::unusable)?;
    let started = Parts::start(args.config, args.channel, args.json, &args.input, &signals)?;
    let Some(mut parts) = started else { return Ok(()) };
    let reporter = parts.reporter();
    let outcome = parts.serve(&signals, &requests);
    let stopped = parts.stop();
    outcome.and(stopped)?;
    reporter.print(Level::Info, "the node has stopped", &mut json!({ "event": "stopped" }));
    Ok(())
}

/// A descriptor that becomes readable with a signal to end: SIGTERM, SIGINT, or SIGHUP, which the end of the terminal
/// sends.
pub(crate) fn signals() -> std::io::Result<UnixStream> {
    readable_with(&[SIGTERM, SIGINT, SIGHUP])
}

/// A descriptor that becomes readable with any of these signals.
pub(crate) fn readable_with(signals: &[i32]) -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

#[derive(Clone)]
struct Reporter {
    json: bool,
    rank: Option<u16>,
    channel: Option<String>,
    interface: String,
    is_default_name: bool,
    log: Log,
}

impl Reporter {
    fn new(json: bool, channel: Option<String>, settings: &Settings) -> Self {
        let rank = (settings.process.role == Role::Member).then_some(settings.process.rank);
        let interface = settings.network.interface.clone();
        let is_default_name = settings.group.name == GroupSettings::default().name;
        Self { json, rank, channel, interface, is_default_name, log: Log::new(&settings.group.name, rank) }
    }

    fn print(&self, level: Level, text: &str, object: &mut Value) {
        self.log.write(level, text);
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
            let channel = self.channel.as_ref().map(|name| format!("channel {name}: ")).unwrap_or_default();
            channel + &received(message)
        };
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush()); // as in `print`
    }

    fn started(&self, settings: &Settings, node: &Node) {
        let (info, group) = (node.info(), &settings.group);
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
            Transport::Shm => format!("on {address} by shared memory"),
            Transport::Auto => {
                let tcp = if settings.network.peers.is_empty() { "" } else { ", over tcp" };
                format!("on {address} over {interface}{tcp}, and by shared memory on this host")
            }
            _ => format!("on {address} over {interface}"),
        };
        let text = format!("{role} of group {name:?} {place}: at {at} by {io}");
        let granted_bytes = info.receive_buffer_bytes / 2; // the kernel reports twice what was requested
        let mut object = json!({
            "event": "started", "group": name, "group_address": address, "rank": rank, "address": at, "io": io,
            "fallback": info.fallback, "is_default_name": self.is_default_name, "receive_buffer_bytes": granted_bytes,
            "counters": info.counters_path, "admin_socket": info.socket_path, "pid": std::process::id(),
        });
        if let Some(why) = &info.fallback {
            self.log.write(Level::Warning, why);
        }
        let asked_bytes = settings.network.receive_buffer_bytes;
        if granted_bytes < asked_bytes && !matches!(settings.network.transport, Transport::Tcp | Transport::Shm) {
            let text = format!(
                "{granted_bytes} bytes of receive buffer instead of {asked_bytes}, so the window is smaller: \
                     `sysctl -w net.core.rmem_max={asked_bytes}` allows it"
            );
            self.log.write(Level::Warning, text);
        }
        let open = "the group is open: there is no key, so any process that reaches it can read and publish";
        self.log.write(Level::Warning, open);
        if self.is_default_name {
            let text = "group.name is the default: every process without a name of its own on this address is in this \
                        group; set group.name";
            self.log.write(Level::Warning, text);
        }
        self.print(Level::Info, &text, &mut object);
    }

    /// A group that has the default name may be a stranger's: which it is stands in the log.
    fn joined(&self, view: &View) {
        if self.is_default_name {
            let members = Ranks(view.bits());
            let text = format!("this group \"default\" is instance {:016x}, of members {members}", view.instance.0);
            self.log.write(Level::Warning, text);
        }
    }

    /// An event, and how many like it were left out before it.
    fn event(&self, event: Event, left_out: u64) {
        let level = if event::is_warning(&event) { Level::Warning } else { Level::Info };
        // The library names the key; its user does not always know what it is set to.
        let now = format!("set network.interface ({}) to", self.interface);
        let mut text = event::text(event, left_out).replace("set network.interface to", &now);
        if let (Event::View { members, .. }, Some(rank)) = (&event, self.rank)
            && !members.contains(Rank(rank))
        {
            text += "; this process is not in it";
        }
        self.print(level, &text, &mut event::object(event, left_out));
    }
}
