//! `bourdon stat`: the nodes of this user on this host, and what each has counted.
//!
//! It reads their counters files and sends them no request: a node that hangs is listed like one that runs, and is not
//! disturbed. Files of processes that are gone are removed on the way. For people it prints a line of health and what
//! happens a second, from two reads; all counters are printed on demand.

use crate::exit::{Failure, is_stdout_closed, note, print};
use bourdon::counters::Directory;
use bourdon::counters::{Found, list};
use bourdon::event::{NarrowPaths, Ranks};
use bourdon::time::Clock;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The time between two reads with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time between the two reads that rates are taken from.
const SAMPLE: Duration = Duration::from_millis(500);
/// A node copies its figures once a millisecond while it works, and before it sleeps, for 100 ms at most.
const STALE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Read again every second
    #[arg(long)]
    watch: bool,
    /// Show the counters, rather than health and rates
    #[arg(long)]
    raw: bool,
    /// Show the counters, and those that are zero, too
    #[arg(long)]
    all: bool,
    /// Where the nodes keep their counters, if threads.directory is set
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut before: Vec<Sample> = Vec::new();
    loop {
        let mut found = Vec::new();
        for directory in Directory::existing(args.directory.as_deref()).map_err(Failure::unusable)? {
            found.extend(list(&directory).map_err(Failure::unusable)?);
        }
        let has_rates = !args.json && !args.raw && !args.all;
        if has_rates && before.is_empty() && !found.is_empty() {
            before = found.iter().map(Sample::of).collect();
            std::thread::sleep(SAMPLE);
        }
        let text = if args.json {
            format!("{}\n", json!({ "nodes": found.iter().map(row).collect::<Vec<_>>() }))
        } else if has_rates {
            let now: Vec<_> = found.iter().map(Sample::of).collect();
            let text = found.iter().zip(&now).map(|(node, now)| summary(node, now, &before)).collect();
            before = now;
            text
        } else {
            found.iter().map(|node| table(node, args.all)).collect()
        };
        print(&text)?;
        match (args.watch, found.is_empty()) {
            (false, false) => return Ok(()),
            (false, true) => return Err(Failure::unusable("no node of this user runs here")),
            (true, true) if !args.json => note("no node of this user runs here"),
            (true, _) => {}
        }
        if is_stdout_closed() {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

/// A node's figures at one time.
struct Sample {
    stem: String,
    read_at: Instant,
    values: BTreeMap<String, u64>,
}

impl Sample {
    fn of(node: &Found) -> Self {
        let values = node.values().map(|(label, value)| (label.to_owned(), value)).collect();
        Self { stem: node.stem.clone(), read_at: Instant::now(), values }
    }

    fn get(&self, label: &str) -> u64 {
        self.values.get(label).copied().unwrap_or(0)
    }
}

/// What a node does, in one line: whether it can do its work, and if not, why. `now` is what this process's clocks
/// read. Wall clocks are set, and a container may count its monotonic time from elsewhere: a node hangs by both.
fn health(values: &Sample, configured: u16, now: &Clock) -> String {
    health_at(values, configured, age_ns(values, now))
}

/// How long ago a node worked last.
fn age_ns(values: &Sample, now: &Clock) -> u64 {
    let age_ns = |now_ns: u64, label| now_ns.saturating_sub(values.get(label));
    age_ns(now.wall_ns(), "updated_ns").min(age_ns(now.now().0, "updated_monotonic_ns"))
}

/// What the counters show of a node that does not answer.
pub(crate) fn last_seen(node: &Found) -> String {
    let values = Sample::of(node);
    let age = seconds(age_ns(&values, &Clock::start()));
    format!("it worked {age} ago, in {}; it may be stopped", view(&values, node.description.members))
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}

/// The view that a node was in last.
fn view(values: &Sample, configured: u16) -> String {
    let (epoch, members) = (values.get("epoch"), values.get("view_members"));
    let missing = Ranks(u64::MAX >> (64 - u32::from(configured.clamp(1, 64))) & !members);
    let view = format!("view {epoch}, {} of {configured} members", members.count_ones());
    if missing.is_empty() { view } else { format!("{view}, missing {missing}") }
}

/// The same, of a node that has not worked for so long.
fn health_at(values: &Sample, configured: u16, age_ns: u64) -> String {
    let waited_ns = values.get("waited_ns");
    let narrow = NarrowPaths { from: Ranks(values.get("narrow_from")), to: Ranks(values.get("narrow_to")) };
    if u128::from(age_ns) > STALE.as_nanos() {
        return format!("HANGS: it has not worked for {}; it may be stopped", seconds(age_ns));
    }
    if values.get("network_lost") != 0 {
        return "NO NETWORK: its interface is gone, down, or without its address".to_owned();
    }
    let view = view(values, configured);
    let state = match (values.get("lacks_majority") != 0, values.get("epoch"), values.get("suspected")) {
        (true, ..) => format!("NO MAJORITY: {view}, silent: {}", Ranks(values.get("suspected"))),
        (_, 0, _) => format!("forming for {}", seconds(waited_ns)),
        _ if waited_ns > 0 => {
            format!("WAITS for its place in {view}, or for a majority of it, for {}", seconds(waited_ns))
        }
        (_, _, 0) if narrow.is_empty() => format!("healthy: {view}"),
        (_, _, 0) => view,
        (_, _, suspected) => format!("suspects {}: {view}", Ranks(suspected)),
    };
    let state = if narrow.is_empty() { state } else { format!("{state}; NARROW PATH: {narrow}") };
    format!("{state}{}", storage(values))
}

/// What is wrong with the disk to which a durable member writes.
fn storage(values: &Sample) -> String {
    let (waited_ns, damaged) = (values.get("storage_waited_ns"), values.get("storage_damaged"));
    let mut text = match values.get("storage_full") {
        0 if u128::from(waited_ns) < STALE.as_nanos() => String::new(),
        0 => format!("; WAITS FOR THE DISK of storage.directory for {}", seconds(waited_ns)),
        _ => format!("; WAITS FOR ROOM on the disk of storage.directory for {}", seconds(waited_ns)),
    };
    if damaged > values.get("storage_repaired") {
        text += &format!("; STORAGE DAMAGED: set aside in damaged-{damaged} of storage.directory");
    }
    text
}

/// What is worth a rate.
const RATES: [(&str, &str); 9] = [
    ("published", "messages published"),
    ("delivered", "messages delivered"),
    ("delivered_bytes", "bytes delivered"),
    ("port_datagrams", "datagrams received"),
    ("datagrams_sent", "datagrams sent"),
    ("naks_sent", "requests for repair sent"),
    ("repairs_sent", "repairs sent"),
    ("gaps", "messages given up"),
    ("refused_window", "publications refused, window full"),
];

fn summary(node: &Found, now: &Sample, before: &[Sample]) -> String {
    let mut text = head(node) + &format!("  {}\n", health(now, node.description.members, &Clock::start()));
    let Some(before) = before.iter().find(|before| before.stem == now.stem) else { return text };
    let seconds = (now.read_at - before.read_at).as_secs_f64().max(1e-3);
    for (label, what) in RATES {
        let (total, count) = (now.get(label), now.get(label).saturating_sub(before.get(label)));
        if total > 0 {
            text += &format!("  {what:<36}{:>14.0} /s {total:>20} in all\n", count as f64 / seconds);
        }
    }
    text
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
        "address": node.address(),
        "io": about.io,
        "fallback": about.fallback,
        "idle": about.idle,
        "receive_buffer_bytes": about.receive_buffer_bytes,
        "admin_socket": node.directory.join(format!("{}.sock", node.stem)),
        "health": health(&Sample::of(node), about.members, &Clock::start()),
        "counters": counters,
    })
}

/// Which node it is.
fn head(node: &Found) -> String {
    let about = &node.description;
    let rank = about.rank.map(|rank| format!(" {rank} of {}", about.members)).unwrap_or_default();
    let (group, at, io) = (&about.group, node.address(), &about.io);
    let mut text = format!("{group}: {}{rank}, process {}, {at} by {io}\n", about.role, node.pid);
    if let Some(why) = &about.fallback {
        text += &format!("  {why}\n");
    }
    text
}

fn table(node: &Found, all: bool) -> String {
    let (about, mut text) = (&node.description, head(node));
    let help = about.cells.iter().map(|(_, help)| help);
    for ((label, value), help) in node.values().zip(help).filter(|((_, value), _)| all || *value > 0) {
        text += &format!("  {label:<24}{value:>20}  {help}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_shows_whether_a_node_can_work() {
        let health = |figures: &[(&str, u64)], age_s: u64| {
            let values: BTreeMap<_, _> = figures.iter().map(|(label, value)| (label.to_string(), *value)).collect();
            health_at(&Sample { stem: String::new(), read_at: Instant::now(), values }, 3, age_s * 1_000_000_000)
        };
        let view = [("epoch", 3), ("view_members", 0b111)];
        let two = [("epoch", 3), ("view_members", 0b101)];
        assert_eq!(health(&two, 0), "healthy: view 3, 2 of 3 members, missing 1");
        let with = |more: &[(&'static str, u64)]| [&view, more].concat();
        assert_eq!(health(&view, 0), "healthy: view 3, 3 of 3 members");
        assert_eq!(health(&with(&[("suspected", 0b110)]), 0), "suspects 1, 2: view 3, 3 of 3 members");
        let full = with(&[("storage_full", 1), ("storage_waited_ns", 2_500_000_000)]);
        let room = "healthy: view 3, 3 of 3 members; WAITS FOR ROOM on the disk of storage.directory for 2.5 s";
        assert_eq!(health(&full, 0), room);
        let damaged = with(&[("storage_damaged", 2), ("storage_repaired", 1)]);
        assert!(health(&damaged, 0).ends_with("; STORAGE DAMAGED: set aside in damaged-2 of storage.directory"));
        let lost = with(&[("suspected", 0b110), ("lacks_majority", 1)]);
        assert_eq!(health(&lost, 0), "NO MAJORITY: view 3, 3 of 3 members, silent: 1, 2");
        assert_eq!(health(&[("waited_ns", 2_500_000_000)], 0), "forming for 2.5 s");
        assert!(health(&with(&[("waited_ns", 2_500_000_000)]), 0).starts_with("WAITS"));
        let narrow = with(&[("narrow_from", 0b100)]);
        let (text, cure) =
            ("view 3, 3 of 3 members; NARROW PATH: no long datagrams come from member 2", ": lower limits");
        assert!(health(&narrow, 0).starts_with(&[text, cure].concat()), "{}", health(&narrow, 0));
        let waits = with(&[("narrow_to", 0b11), ("waited_ns", 1)]);
        assert!(health(&waits, 0).contains("WAITS") && health(&waits, 0).contains("reach members 0, 1"));
        assert!(health(&with(&[("network_lost", 1)]), 0).starts_with("NO NETWORK"));
        assert_eq!(health(&view, 9), "HANGS: it has not worked for 9.0 s; it may be stopped");
    }

    #[test]
    fn a_wall_clock_that_is_set_lets_no_node_hang() {
        let now = Clock::start();
        let health = |wall_ns: u64, monotonic_ns: u64| {
            let figures =
                [("updated_ns", wall_ns), ("updated_monotonic_ns", monotonic_ns), ("epoch", 1), ("view_members", 1)];
            let values = figures.iter().map(|(label, value)| ((*label).to_owned(), *value)).collect();
            super::health(&Sample { stem: String::new(), read_at: Instant::now(), values }, 1, &now)
        };
        let (wall_ns, monotonic_ns, hour_ns) = (now.wall_ns(), now.now().0, 3_600_000_000_000);
        for wall_ns in [wall_ns, wall_ns - hour_ns, wall_ns + hour_ns] {
            assert!(health(wall_ns, monotonic_ns).starts_with("healthy"));
        }
        assert!(health(wall_ns - hour_ns, 0).starts_with("HANGS"));
    }
}
