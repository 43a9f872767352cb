//! `bourdon stat`: the nodes of this user on this host, and what each has counted.
//!
//! It reads their counters files and sends them no request: a node that hangs is listed like one that runs, and is not
//! disturbed. Files of processes that are gone are removed on the way.

use crate::exit::Failure;
use bourdon::counters::Directory;
use bourdon::counters::{Found, list};
use serde_json::{Map, Value, json};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

/// The time between two reads with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Read again every second
    #[arg(long)]
    watch: bool,
    /// Show counters that are zero, too
    #[arg(long)]
    all: bool,
    /// Where the nodes keep their counters, if threads.directory is set
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    loop {
        let mut found = Vec::new();
        for directory in Directory::existing(args.directory.as_deref()).map_err(Failure::unusable)? {
            found.extend(list(&directory).map_err(Failure::unusable)?);
        }
        let text = if args.json {
            format!("{}\n", json!({ "nodes": found.iter().map(row).collect::<Vec<_>>() }))
        } else {
            found.iter().map(|node| table(node, args.all)).collect()
        };
        if found.is_empty() && !args.json {
            eprintln!("bourdon: no node of this user runs here");
        }
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(Failure::broken)?,
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn row(node: &Found) -> Value {
    let about = &node.description;
    let counters: Map<_, _> = node.values().map(|(label, value)| (label.to_owned(), value.into())).collect();
    json!({
        "group": about.group,
        "group_address": about.group_address,
        "role": about.role,
        "rank": about.rank,
        "members": about.members,
        "pid": node.pid,
        "start_time_ns": node.start_time_ns,
        "address": about.address,
        "io": about.io,
        "fallback": about.fallback,
        "idle": about.idle,
        "receive_buffer_bytes": about.receive_buffer_bytes,
        "admin_socket": node.directory.join(format!("{}.sock", node.stem)),
        "counters": counters,
    })
}

fn table(node: &Found, all: bool) -> String {
    let about = &node.description;
    let rank = about.rank.map(|rank| format!(" {rank} of {}", about.members)).unwrap_or_default();
    let (group, at, io) = (&about.group, &about.address, &about.io);
    let mut text = format!("{group}: {}{rank}, process {}, {at} by {io}\n", about.role, node.pid);
    if let Some(why) = &about.fallback {
        text += &format!("  {why}\n");
    }
    let help = about.cells.iter().map(|(_, help)| help);
    for ((label, value), help) in node.values().zip(help).filter(|((_, value), _)| all || *value > 0) {
        text += &format!("  {label:<24}{value:>20}  {help}\n");
    }
    text
}
