//! From a fault to a view without its victim.
//!
//! A user that waits for a failed member cares when the group went on, not when a member began to suspect it. So a
//! group of three gets a fault again and again: a member is killed, stopped, or cut off from the others, in both
//! directions or in one; by turns the sequencer and another member. The figures are the time until all remaining
//! members have installed a view without the victim, and the outage: the longest gap between two deliveries at a
//! survivor, while every member publishes each millisecond.
//!
//! Each detector is measured alone, with the others switched off: with hard evidence on, no other would ever be the
//! first to notice a kill. Two more rows show what a threshold costs: how often healthy heartbeats were as late as each
//! φ (`phi`; with inline members only), and how often a healthy member was evicted on a host whose cores are all busy
//! (`--load`).
//!
//! With `--mode threaded` a view's time is when the application's thread takes its event.

mod group;
mod member;
mod threaded;

use crate::hosts::{Hosts, INTERFACE};
use crate::row::document;
use crate::script::{self, now_ns, report};
use crate::settings::Mode;
use crate::{Failure, Idle};
use bourdon::settings::{ChannelDetector, ChannelSettings, Profile, Settings as NodeSettings};
use clap::{Args, ValueEnum};
use group::{Group, InjectedFault, MEMBERS, Sample};
use hdrhistogram::Histogram;
use member::{MemberReport, Task};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::time::Duration;

/// Faults of each kind: a p99 below the maximum needs more than 100, and then the whole run takes 20 minutes.
const COUNT: u32 = 50;
/// How long a group is whole before the fault: heartbeats are regular again, and φ has learned some gaps.
const CALM: Duration = Duration::from_millis(200);
/// The most that is added to this at random, so that faults come at any time between two heartbeats.
const CALM_SPREAD_NS: u64 = 20_000_000;
/// How long φ is observed: some thousand gaps.
const PHI: Duration = Duration::from_secs(15);
/// How long control datagrams are counted.
const CONTROL: Duration = Duration::from_secs(3);
/// How often a long run reports that it still runs.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What to measure
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Only these faults
    #[arg(long, value_enum, value_delimiter = ',')]
    fault: Vec<Fault>,
    /// Only these detectors
    #[arg(long, value_enum, value_delimiter = ',')]
    detector: Vec<Detector>,
    /// Only these profiles
    #[arg(long, value_enum, value_delimiter = ',')]
    profile: Vec<ProfileName>,
    /// Faults of each kind
    #[arg(long, value_name = "K", default_value_t = COUNT, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Instead of faults: load every core for this many seconds and count the members evicted without a fault
    #[arg(
        long,
        value_name = "SECONDS",
        conflicts_with_all = ["fault", "detector", "count"],
        value_parser = clap::value_parser!(u64).range(1..=3_600),
    )]
    load: Option<u64>,
    /// Members: inline, or with threads of their own
    #[arg(long, value_enum, default_value = "inline")]
    mode: Mode,
    /// Channels beside the group at each member, of all members; with --mode threaded
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=63))]
    channels: u16,
    /// The detectors that watch the members of a channel: its own, or the group's
    #[arg(long, value_enum, default_value = "own", requires = "channels")]
    channel_detector: ChannelDetectorName,
    /// Data agents that the group and its channels share
    #[arg(long, value_name = "N", default_value_t = 1, requires = "channels")]
    data_agents: usize,
    /// What a member does while nothing arrives
    #[arg(long, value_enum, default_value = "park")]
    idle: Idle,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    /// SIGKILL
    Kill,
    /// SIGSTOP
    Stop,
    /// Nothing passes its cable
    Cut,
    /// One other member receives nothing from it
    CutOneWay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Detector {
    /// Its process is gone
    Evidence,
    /// Nothing heard
    Push,
    /// Pings unanswered
    Pull,
    /// Heartbeats overdue by their own measure
    Phi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum ProfileName {
    /// Few false evictions on a loaded host
    Default,
    /// For hosts with cores to spare
    Fast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum ChannelDetectorName {
    /// Its own
    Own,
    /// The group's
    Group,
}

/// One row's worth of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    fault: Fault,
    detector: Detector,
    profile: ProfileName,
}

impl Settings {
    fn profiles(&self) -> impl Iterator<Item = ProfileName> {
        let all = [ProfileName::Default, ProfileName::Fast];
        all.into_iter().filter(|profile| self.profile.is_empty() || self.profile.contains(profile))
    }

    /// The possible rows: a kill leaves evidence, the other faults leave none.
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for fault in [Fault::Kill, Fault::Stop, Fault::Cut, Fault::CutOneWay] {
            let detectors: &[Detector] = match fault {
                Fault::Kill => &[Detector::Evidence],
                _ => &[Detector::Push, Detector::Pull, Detector::Phi],
            };
            for detector in detectors {
                cells.extend(self.profiles().map(|profile| Cell { fault, detector: *detector, profile }));
            }
        }
        let wants = |cell: &Cell| {
            (self.fault.is_empty() || self.fault.contains(&cell.fault))
                && (self.detector.is_empty() || self.detector.contains(&cell.detector))
        };
        cells.retain(wants);
        cells
    }
}

/// Plays a member until stdin ends.
pub(crate) fn member() -> Result<(), Failure> {
    let task: Task = script::task()?;
    match if task.threaded { threaded::play(task) } else { member::play(task) } {
        Ok(()) => {}
        Err(Failure::Unusable(why)) => report(&MemberReport::Unusable(why)),
        Err(Failure::Broken(why)) => report(&MemberReport::Broken(why)),
    }
    Ok(())
}

/// Measures and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    if settings.channels > 0 && settings.mode == Mode::Inline {
        return Err(Failure::Unusable("--channels needs --mode threaded: an inline member runs no channels".into()));
    }
    let mut cells = settings.cells();
    let phi = settings.fault.is_empty() && (settings.detector.is_empty() || settings.detector.contains(&Detector::Phi));
    let phi = phi && settings.mode == Mode::Inline; // only an inline node's application sees its detector
    if cells.is_empty() {
        return Err(Failure::Unusable(
            "a kill is measured by evidence, any other fault by push, pull and phi; choose a matching fault or detector"
                .into(),
        ));
    }
    let mut hosts = match Hosts::make(MEMBERS).and_then(|mut hosts| hosts.watch_cables().map(|()| hosts)) {
        Ok(hosts) => Some(hosts),
        Err(Failure::Unusable(why)) => {
            let needs_hosts = |fault: &Fault| matches!(fault, Fault::Cut | Fault::CutOneWay);
            if let Some(fault) = settings.fault.iter().find(|fault| needs_hosts(fault)) {
                return Err(Failure::Unusable(format!("a {fault:?} needs hosts of its own: {why}")));
            }
            eprintln!("all members are on lo, and no cable is cut: {why}");
            cells.retain(|cell| !needs_hosts(&cell.fault));
            None
        }
        Err(failure) => return Err(failure),
    };
    let mut rows = Vec::new();
    if let Some(seconds) = settings.load {
        for profile in settings.profiles().take(if settings.profile.is_empty() { 1 } else { 2 }) {
            let (row, hosts_again) = under_load(settings, hosts, profile, seconds)?;
            (hosts, _) = (hosts_again, rows.push(row));
        }
    } else {
        for cell in cells {
            let (row, hosts_again) = measure(settings, hosts, cell)?;
            (hosts, _) = (hosts_again, rows.push(row));
        }
        for profile in settings.profiles().filter(|_| phi) {
            let (row, hosts_again) = healthy_gaps(settings, hosts, profile)?;
            (hosts, _) = (hosts_again, rows.push(row));
        }
    }
    show(settings, &rows)
}

/// The configuration of this row's group.
fn configure(settings: &Settings, hosts: Option<&Hosts>, profile: ProfileName, only: Option<Detector>) -> NodeSettings {
    let id = std::process::id().wrapping_mul(0x9E37_79B9);
    let mut node = NodeSettings::default();
    node.group.name = format!("detect-{id}-{}", now_ns());
    node.group.address = ([239, 254, (id >> 24) as u8, 3], 20_000 + (id >> 8) as u16 % 12_000).into();
    node.group.members = MEMBERS;
    node.network.interface = if hosts.is_some() { INTERFACE } else { "lo" }.to_owned();
    node.threads.idle = settings.idle.into();
    node.threads.data_agents = settings.data_agents;
    node.channels = (0..settings.channels).map(|number| nth_channel(settings, node.group.address, number)).collect();
    node.detector.profile = match profile {
        ProfileName::Default => Profile::Default,
        ProfileName::Fast => Profile::Fast,
    };
    if let Some(only) = only {
        node.detector.evidence = only == Detector::Evidence;
        node.detector.push = only == Detector::Push;
        node.detector.pull = only == Detector::Pull;
        node.detector.phi = only == Detector::Phi;
    }
    node
}

/// One of the group's channels.
fn nth_channel(settings: &Settings, group: SocketAddr, number: u16) -> ChannelSettings {
    let mut address = group;
    address.set_port(group.port() + 1 + number);
    let detector = match settings.channel_detector {
        ChannelDetectorName::Own => ChannelDetector::Own,
        ChannelDetectorName::Group => ChannelDetector::Group,
    };
    let mut channel = ChannelSettings::new(&format!("channel-{number}"), address);
    channel.detector = detector;
    channel
}

fn described(settings: &Settings, node: &NodeSettings, more: Value) -> Value {
    let detector = &node.detector;
    let mut all = json!({
        "members": MEMBERS,
        "order": node.group.order,
        "reliability": node.group.reliability,
        "interface": node.network.interface,
        "hosts": if node.network.interface == INTERFACE { "a network namespace each, on a bridge" } else { "one" },
        "idle": settings.idle,
        "mode": settings.mode,
        "channels": settings.channels,
        "channel_detector": settings.channel_detector,
        "data_agents": settings.data_agents,
        "detectors": {
            "evidence": detector.evidence, "push": detector.push, "pull": detector.pull, "phi": detector.phi,
        },
    });
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

type Measured = Result<(Value, Option<Hosts>), Failure>;

/// What the members of this row's group do.
fn task(settings: &Settings, node: &NodeSettings, flat_out: bool) -> Task {
    Task { settings: node.clone(), threaded: settings.mode == Mode::Threaded, flat_out }
}

/// The same fault again and again.
fn measure(settings: &Settings, hosts: Option<Hosts>, cell: Cell) -> Measured {
    let Cell { fault, detector, profile } = cell;
    let node = configure(settings, hosts.as_ref(), profile, Some(detector));
    let mut group = Group::start(hosts, task(settings, &node, false))?;
    let control = control_rate(settings, &mut group)?;
    let mut dice = xorshift(now_ns());
    let mut samples = Vec::new();
    for index in 0..settings.count {
        group.listen_for(CALM + Duration::from_nanos(dice() % CALM_SPREAD_NS))?;
        let victim = group.victim(index % 2 == 1);
        let other = (victim + 1 + (index / 2 % 2) as u16) % MEMBERS;
        let injected = match fault {
            Fault::Kill => InjectedFault::Kill,
            Fault::Stop => InjectedFault::Stop,
            Fault::Cut => InjectedFault::Cut,
            Fault::CutOneWay => InjectedFault::CutOneWay(other),
        };
        samples.push(group.sample(injected, victim)?);
    }
    let over = |figure: fn(&Sample) -> Option<u64>| {
        let mut histogram = crate::row::histogram();
        samples.iter().filter_map(figure).for_each(|ns| histogram.saturating_record(ns));
        quantiles(&histogram)
    };
    let row = json!({
        "what": "detect",
        "system": "bourdon",
        "fault": fault,
        "detector": detector,
        "profile": profile,
        "count": samples.len(),
        "fault_to_view_ns": over(|sample| Some(sample.fault_to_view_ns)),
        "fault_to_suspicion_ns": over(|sample| sample.fault_to_suspicion_ns),
        "fault_to_channel_views_ns": over(|sample| sample.fault_to_channel_views_ns),
        "views_apart_ns": over(|sample| sample.views_apart_ns),
        "outage_ns": over(|sample| Some(sample.outage_ns)),
        "control_per_s": control,
        "false_evictions": samples.iter().map(|sample| sample.false_evictions).sum::<u64>(),
        "settings": described(settings, &node, json!({
            "publish_every_ns": 1_000_000,
            "victim": "a member that is not the sequencer, then the sequencer",
            "until": "the last survivor has installed the view",
        })),
    });
    eprintln!("{}", line(&row));
    Ok((row, group.end()))
}

/// How many control datagrams a member sends in a second of a whole group: in the group, which publishes, and in its
/// channels, which do not.
fn control_rate(settings: &Settings, group: &mut Group) -> Result<Value, Failure> {
    if settings.channels == 0 {
        return Ok(Value::Null);
    }
    let (before, since) = (group.figures()?.control_sent, now_ns());
    group.listen_for(CONTROL)?;
    let (after, ns) = (group.figures()?.control_sent, now_ns() - since);
    let rate = |k: usize| (after[k] - before[k]) * 1_000_000_000 / ns / u64::from(MEMBERS);
    Ok(json!({ "group": rate(0), "channels": rate(1) }))
}

/// How late healthy heartbeats are, by φ.
fn healthy_gaps(settings: &Settings, hosts: Option<Hosts>, profile: ProfileName) -> Measured {
    let node = configure(settings, hosts.as_ref(), profile, Some(Detector::Phi));
    let mut group = Group::start(hosts, task(settings, &node, false))?;
    group.listen_for(PHI)?;
    let (figures, (left_out, _)) = (group.figures()?, group.left_out());
    let share = |count: u64| count as f64 / figures.gaps.max(1) as f64;
    let row = json!({
        "what": "phi",
        "system": "bourdon",
        "fault": null,
        "detector": Detector::Phi,
        "profile": profile,
        "count": figures.gaps,
        "gaps": figures.gaps,
        "share_1": share(figures.reached[0]),
        "share_2": share(figures.reached[1]),
        "share_3": share(figures.reached[2]),
        "unfloored_share_1": share(figures.reached_unfloored[0]),
        "unfloored_share_2": share(figures.reached_unfloored[1]),
        "unfloored_share_3": share(figures.reached_unfloored[2]),
        "false_evictions": left_out,
        "settings": described(settings, &node, json!({ "seconds": PHI.as_secs(), "publish_every_ns": 1_000_000 })),
    });
    eprintln!("{}", line(&row));
    Ok((row, group.end()))
}

/// All members publish at full speed while every core is busy with other work.
fn under_load(settings: &Settings, hosts: Option<Hosts>, profile: ProfileName, seconds: u64) -> Measured {
    let node = configure(settings, hosts.as_ref(), profile, None);
    let mut group = Group::start(hosts, task(settings, &node, true))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let busy: Vec<Sender<()>> = (0..cores).map(|_| keep_a_core_busy()).collect();
    let mut left = Duration::from_secs(seconds);
    while !left.is_zero() {
        let part = left.min(SAY_EVERY);
        group.listen_for(part)?;
        left -= part;
        let (left_out, views) = group.left_out();
        eprintln!("{} s left: {views} views, {left_out} left out", left.as_secs());
    }
    drop(busy);
    let (figures, (left_out, views)) = (group.figures()?, group.left_out());
    let [evidence, push, pull, phi] = figures.suspicions;
    let row = json!({
        "what": "false-evictions",
        "system": "bourdon",
        "fault": null,
        "detector": "all",
        "profile": profile,
        "count": left_out,
        "false_evictions": left_out,
        "views": views,
        "seconds": seconds,
        "rate_per_s": figures.delivered / u64::from(MEMBERS) / seconds,
        "suspicions": { "evidence": evidence, "push": push, "pull": pull, "phi": phi },
        "settings": described(settings, &node, json!({ "busy_loops": cores, "publish": "as much as goes" })),
    });
    Ok((row, group.end()))
}

/// A thread that spins until the returned value is dropped.
fn keep_a_core_busy() -> Sender<()> {
    let (sender, stop) = channel();
    std::thread::spawn(move || while stop.try_recv() == Err(TryRecvError::Empty) {});
    sender
}

/// Random numbers good enough to spread faults in time.
fn xorshift(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    json!({ "p50": histogram.value_at_quantile(0.5), "p99": histogram.value_at_quantile(0.99), "max": histogram.max() })
}

const HEAD: &str = "what             fault        detector  profile   count  view p50 ms     \
    p99     max  outage p50     p99     max  left out falsely";

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!("{:<16} {:<12} {:<9} {:<9}", text("what"), text("fault"), text("detector"), text("profile"));
    line.push_str(&format!(" {:>5}", row["count"]));
    for (key, width) in [("fault_to_view_ns", 12), ("outage_ns", 11)] {
        for (quantile, width) in [("p50", width), ("p99", 7), ("max", 7)] {
            let ns = row[key][quantile].as_u64();
            let ms = ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns as f64 / 1e6));
            line.push_str(&format!(" {ms:>width$}"));
        }
    }
    line.push_str(&format!(" {:>17}", row["false_evictions"]));
    if let Some(apart_ns) = row["views_apart_ns"]["p50"].as_u64() {
        let (views, most) = (&row["fault_to_channel_views_ns"]["p50"], &row["views_apart_ns"]["max"]);
        let ms = |ns: &Value| ns.as_u64().unwrap_or(0) as f64 / 1e6;
        line.push_str(&format!(
            "  channels: view {:.2} ms, {:.2} apart (at most {:.2}), {} control datagrams/s a member, the group {}",
            ms(views),
            apart_ns as f64 / 1e6,
            ms(most),
            row["control_per_s"]["channels"],
            row["control_per_s"]["group"],
        ));
    }
    for k in 1..=3 {
        if let (Some(share), Some(bare)) =
            (row[format!("share_{k}")].as_f64(), row[format!("unfloored_share_{k}")].as_f64())
        {
            line.push_str(&format!("  φ≥{k}: {share:.5} ({bare:.5} without the floor)"));
        }
    }
    line
}

fn show(settings: &Settings, rows: &[Value]) -> Result<(), Failure> {
    if settings.json {
        println!("{}", document(rows, &[]));
    } else {
        println!("{HEAD}");
        rows.iter().for_each(|row| println!("{}", line(row)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(fault: &[Fault], detector: &[Detector], profile: &[ProfileName]) -> Settings {
        Settings {
            fault: fault.to_vec(),
            detector: detector.to_vec(),
            profile: profile.to_vec(),
            count: 1,
            load: None,
            mode: Mode::Inline,
            channels: 0,
            channel_detector: ChannelDetectorName::Own,
            data_agents: 1,
            idle: Idle::Park,
            json: false,
        }
    }

    #[test]
    fn a_kill_goes_with_evidence_and_any_other_fault_with_the_rest() {
        let all = settings(&[], &[], &[]).cells();
        assert_eq!(all.len(), 2 * (1 + 3 * 3));
        assert!(all.iter().all(|cell| (cell.fault == Fault::Kill) == (cell.detector == Detector::Evidence)));
        let one = settings(&[Fault::Cut], &[Detector::Phi], &[ProfileName::Fast]).cells();
        assert_eq!(one, [Cell { fault: Fault::Cut, detector: Detector::Phi, profile: ProfileName::Fast }]);
        assert_eq!(settings(&[Fault::Kill], &[Detector::Phi], &[]).cells(), []);
    }
}
