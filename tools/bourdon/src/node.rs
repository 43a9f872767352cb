//! `bourdon node`: runs a member or observer until it is told to stop.
//!
//! It delivers to nobody: it keeps a group going, orders, acknowledges, serves clients, and is looked at by its counters
//! and its admin socket. A signal only makes a descriptor readable, and the one loop that waits for events ends
//! the node: no work is done where a signal strikes.

use crate::exit::Failure;
use crate::place::load;
use bourdon::settings::{Role, Transport};
use bourdon::{Event, Handles, NodeEvent, Settings, ThreadedNode};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node's configuration
    #[arg(long, value_name = "FILE", default_value = "bourdon.toml")]
    config: PathBuf,
    /// Write events to stdout as JSON objects
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let settings = load(&args.config)?;
    // Before the first thread, so that no signal is missed.
    let signals = signals().map_err(Failure::unusable)?;
    let handles = Handles { publications: 0, subscriptions: Vec::new() };
    let (mut node, ..) = ThreadedNode::start_with(&settings, &handles).map_err(Failure::unusable)?;
    let reporter = Reporter { json: args.json };
    reporter.started(&settings, &node);
    loop {
        node.clear_events();
        while let Some(event) = node.poll_event() {
            reporter.event(event);
        }
        if !node.is_running() {
            break;
        }
        let events = node.events_fd();
        let mut fds = [PollFd::new(&signals, PollFlags::IN), PollFd::new(&events, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::broken(format!("waiting for events: {error}"))),
        }
    }
    node.stop().map_err(Failure::broken)?;
    reporter.say("the node has stopped", &json!({ "event": "stopped" }));
    Ok(())
}

/// A descriptor that becomes readable with SIGTERM or SIGINT.
pub(crate) fn signals() -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

struct Reporter {
    json: bool,
}

impl Reporter {
    fn say(&self, text: &str, object: &Value) {
        eprintln!("bourdon: {text}");
        if self.json {
            let mut out = std::io::stdout().lock();
            // Nobody reads any more: the node goes on.
            let _ = writeln!(out, "{object}").and_then(|()| out.flush());
        }
    }

    fn started(&self, settings: &Settings, node: &ThreadedNode) {
        let (info, group, idle) = (node.info(), &settings.group, settings.threads.idle);
        let (who, rank) = match settings.process.role {
            Role::Member => {
                (format!("member {} of {}", settings.process.rank, group.members), Some(settings.process.rank))
            }
            Role::Observer => ("observer".to_owned(), None),
        };
        let (name, address, interface) = (&group.name, group.address, &settings.network.interface);
        let (at, io) = (info.local_address, &info.io);
        let place = match settings.network.transport {
            Transport::Tcp => "over tcp".to_owned(),
            Transport::Auto => format!("on {address} over {interface}, and over tcp"),
            Transport::Udp | Transport::Portable => format!("on {address} over {interface}"),
        };
        let text = format!("{who} of group {name:?} {place}: at {at} by {io}, idle {idle:?}");
        let granted_bytes = info.receive_buffer_bytes / 2; // the kernel says twice what one can ask
        let object = json!({
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
                "bourdon: warning: {granted_bytes} bytes of receive buffer instead of {asked_bytes}, so the window is smaller: `sysctl -w net.core.rmem_max={asked_bytes}` allows it"
            );
        }
        eprintln!("bourdon: the group is open: there is no key, so whoever reaches it can read and publish");
        self.say(&text, &object);
    }

    fn event(&self, event: NodeEvent) {
        let text = event.to_string();
        let at_ns = bourdon::Clock::start().wall_ns();
        let mut object = json!({ "event": name(event), "at_ns": at_ns, "rank": Value::Null, "text": text });
        if let NodeEvent::Reached(reach) = event {
            object["by_multicast"] = reach.by_multicast.into();
            object["by_tcp"] = reach.by_mesh.into();
        }
        let NodeEvent::Group(event) = event else { return self.say(&text, &object) };
        match event {
            Event::Suspected(rank, _)
            | Event::Trusted(rank)
            | Event::IdentityConflict(rank)
            | Event::ConfigurationDiffers(rank)
            | Event::Restarted { rank, .. }
            | Event::Gap { sender: rank, .. }
            | Event::Retracted { sender: rank, .. } => object["rank"] = rank.0.into(),
            Event::View { epoch, members, sequencer } => {
                object["epoch"] = epoch.0.into();
                object["members"] = (0..64).filter(|rank| members >> rank & 1 == 1).collect::<Vec<u16>>().into();
                object["sequencer"] = sequencer.0.into();
            }
            Event::Removed(epoch) | Event::Left(epoch) => object["epoch"] = epoch.0.into(),
            Event::Synced { phase, .. } => object["phase"] = phase.into(),
            _ => {}
        }
        self.say(&text, &object);
    }
}

fn name(event: NodeEvent) -> &'static str {
    let event = match event {
        NodeEvent::Group(event) => event,
        NodeEvent::PublicationDropped(_) => return "publication_dropped",
        NodeEvent::SyncRefused(_) => return "sync_refused",
        NodeEvent::Reached(_) => return "reached",
    };
    match event {
        Event::View { .. } => "view",
        Event::Suspected(..) => "suspected",
        Event::Trusted(_) => "trusted",
        Event::NoMajority => "no_majority",
        Event::Majority => "majority",
        Event::Removed(_) => "removed",
        Event::Left(_) => "left",
        Event::Settled { .. } => "settled",
        Event::Gap { .. } => "gap",
        Event::Retracted { .. } => "retracted",
        Event::Synced { .. } => "synced",
        Event::SnapshotWanted => "snapshot_wanted",
        Event::SnapshotReady => "snapshot_ready",
        Event::SnapshotTooLarge { .. } => "snapshot_too_large",
        Event::IdentityConflict(_) => "identity_conflict",
        Event::Restarted { .. } => "restarted",
        Event::ConfigurationDiffers(_) => "configuration_differs",
        Event::OtherVersion(_) => "other_version",
    }
}
