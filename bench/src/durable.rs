//! What it costs to publish a message that a majority has on its disks: Bourdon's level `durable` beside NATS JetStream.
//!
//! A figure of a synced system means nothing without the disk's own. So the disk takes its turn as well: a write and an
//! `fdatasync` of each message, one after the other. All systems of a run store on one disk, and the rows name its file
//! system; tmpfs is refused, because nothing is ever synced there.
//!
//! One loop drives all systems (`durable/publisher.rs`): each is a [`Link`](crate::Link) that gives a message back once
//! it is acknowledged. With one message in flight the figure is the time from publish to acknowledgement; with as many
//! as the system takes, or with a window where the client sets it, the figure is messages a second. Bourdon's members
//! and JetStream's servers are three processes on loopback. Both publishers are where the order is made: at Bourdon's
//! sequencer, and with a connection to the server that leads the stream. The systems take turns, round by round, and
//! each is started afresh, in an empty directory.

mod disk;
mod publisher;

pub(crate) use self::disk::open as open_disk;
pub use self::publisher::Task;
pub(crate) use self::publisher::{Phase, publish};

use crate::row::{Latency, Ratio, Row, histogram_of, median, show};
use crate::scratch::{Scratch, Storage, file_system, is_tmpfs};
use crate::script::now_ns;
use crate::systems::System;
use crate::worker::{Found, Spec, Worker, WorkerKind};
use crate::{Common, Failure, Idle, Peer};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MEMBERS: u16 = 3;
/// How much longer than its phases a round may take: each waits for its last acknowledgements.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages in flight that are bounded by the system's own window only.
const ALL: u64 = u64::MAX;
/// What can be measured beside Bourdon here.
const PEERS: &[Peer] = &[Peer::Jetstream];

/// What to measure
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    common: Common,
    /// Bytes of the messages that are measured as well
    #[arg(long, value_name = "B", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    also_size: u32,
    /// Messages of a phase, at most
    #[arg(long, value_name = "K", default_value_t = u64::MAX, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Seconds of a phase, at most: each system has one for each size and number of messages in flight
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Where all systems store, on a disk [default: the folder for temporary files, or /var/tmp where that is on tmpfs]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// A system of a run, and what was found in each round: for each phase, its figures.
struct Measured {
    name: &'static str,
    system: System,
    role: WorkerKind,
    synced: bool,
    phases: Vec<Phase>,
    rounds: Vec<Vec<Found>>,
    described: Value,
}

impl Measured {
    fn new(settings: &Settings, name: &'static str, system: &System, windows: &[u64]) -> Self {
        let mut sizes = vec![settings.common.size, settings.also_size];
        sizes.dedup();
        let of_size = |size_bytes| windows.iter().map(move |in_flight| Phase { size_bytes, in_flight: *in_flight });
        Self {
            name,
            system: system.clone(),
            role: if name == DISK { WorkerKind::Disk } else { WorkerKind::DurablePublisher },
            synced: name == SYNCED,
            phases: sizes.into_iter().flat_map(of_size).collect(),
            rounds: Vec::new(),
            described: Value::Null,
        }
    }

    /// The figures of a phase, round by round.
    fn found(&self, phase: Phase) -> impl Iterator<Item = &Found> {
        let index = self.phases.iter().position(|its| *its == phase);
        self.rounds.iter().filter_map(move |round| round.get(index?))
    }

    fn rate(&self, phase: Phase) -> Option<f64> {
        median(self.found(phase).map(rate))
    }

    /// The phase of this size that measures throughput: of several windows, the one with the highest rate.
    fn widest(&self, size_bytes: u32) -> Option<Phase> {
        let phases = self.phases.iter().filter(|phase| phase.size_bytes == size_bytes && phase.in_flight > 1);
        phases.copied().max_by(|a, b| f64::total_cmp(&self.rate(*a).unwrap_or(0.0), &self.rate(*b).unwrap_or(0.0)))
    }

    fn row(&self, what: &str, common: &Common, spec: &Spec, phase: Phase, file_system: &str) -> Row {
        let found = || self.found(phase);
        let all = histogram_of(found().flat_map(|found| &found.latency_ns));
        let mut settings = self.system.spec(spec).settings();
        settings["file_system"] = file_system.into();
        settings["in_flight"] = in_flight(phase);
        settings["peer"] = self.described.clone();
        settings["pinned"] = false.into();
        settings["rounds"] = self.rounds.len().into();
        if phase.in_flight > 1 {
            settings["tried"] = self.tried(phase.size_bytes);
        }
        if self.name == BOURDON {
            settings["reliability"] = "durable".into();
        }
        Row {
            what: what.into(),
            system: self.name.into(),
            transport: if self.name == DISK { "none".into() } else { self.system.transport(common) },
            size_bytes: phase.size_bytes,
            count: found().map(|found| found.received).sum(),
            lost: Some(0), // a message that is not acknowledged ends the measurement
            out_of_order: Some(found().map(|found| found.out_of_order).sum()),
            rate_per_s: self.rate(phase).map(|rate| rate as u64),
            latency: Some((Latency::PublishToAck, all)),
            cpu_ns_per_message: None, // of a server it is not known
            settings,
            extra: Default::default(),
        }
    }

    /// The median rate of each number of messages in flight that was tried.
    fn tried(&self, size_bytes: u32) -> Value {
        let windows = self.phases.iter().filter(|phase| phase.size_bytes == size_bytes && phase.in_flight > 1);
        let rate = |phase: &Phase| self.rate(*phase).map(|rate| rate as u64);
        windows.map(|phase| json!({ "in_flight": in_flight(*phase), "rate_per_s": rate(phase) })).collect()
    }
}

fn in_flight(phase: Phase) -> Value {
    if phase.in_flight == ALL { "all".into() } else { phase.in_flight.into() }
}

/// Messages a second that were acknowledged.
fn rate(found: &Found) -> f64 {
    found.received as f64 * 1e9 / found.elapsed_ns.max(1) as f64
}

const BOURDON: &str = "bourdon";
const DISK: &str = "disk";
const SYNCED: &str = "jetstream-synced";
const DEFAULT: &str = "jetstream";

/// The systems of a run. A peer that is not built is left out and reported.
fn systems(settings: &Settings) -> Result<Vec<Measured>, Failure> {
    let common = &settings.common;
    let wanted = common.peers(PEERS, &[])?;
    let alone = Common { no_peer: true, ..common.clone() };
    let systems = common.systems(PEERS, &[], &[]).or_else(|failure| match failure {
        Failure::Unusable(why) => {
            wanted.iter().for_each(|peer| eprintln!("{} is left out: {why}", peer.name()));
            alone.systems(&[], &[], &[])
        }
        failure => Err(failure),
    })?;
    let own = &systems[0];
    let mut all = vec![Measured::new(settings, BOURDON, own, &[1, ALL]), Measured::new(settings, DISK, own, &[1])];
    for peer in &systems[1..] {
        all.extend([SYNCED, DEFAULT].map(|name| Measured::new(settings, name, peer, &[1, 256, 4_096])));
    }
    Ok(all)
}

/// Measures durable publishing and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let common = &settings.common;
    let directory = settings.directory.clone().map_or_else(|| Storage::Disk.folder(), Ok)?;
    if is_tmpfs(&directory) != Some(false) {
        let why = format!("{} is on tmpfs, or can't be read: name a folder on a disk", directory.display());
        return Err(Failure::Unusable(format!("--directory {why}")));
    }
    let mut systems = systems(settings)?;
    let idle = common.idle.unwrap_or(Idle::Park);
    let spec = Spec { members: MEMBERS, idle, ..Spec::new(common, WorkerKind::DurablePublisher, settings.count) };
    for index in 1..=common.rounds {
        let mut measured = Vec::new();
        for mut system in systems {
            crate::round::announce(index, common.rounds, system.name);
            match round(&mut system, &spec, &directory, settings.seconds) {
                Ok(found) => system.rounds.push(found),
                // A server that is not installed, or has no such setting.
                Err(Failure::Unusable(why)) if system.system.peer.is_some() && index == 1 => {
                    eprintln!("{} is left out: {why}", system.name);
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            measured.push(system);
        }
        systems = measured;
    }
    let file_system = file_system(&directory);
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    for phase in systems[0].phases.iter().filter(|phase| phase.in_flight == 1) {
        let row = |system: &Measured| system.row("publish-to-ack", common, &spec, *phase, &file_system);
        rows.extend(systems.iter().map(row));
        let widest = systems.iter().filter_map(|system| Some((system, system.widest(phase.size_bytes)?)));
        rows.extend(widest.map(|(system, widest)| system.row("throughput", common, &spec, widest, &file_system)));
        ratios.extend(systems[1..].iter().flat_map(|peer| compare(&systems[0], peer, *phase)));
    }
    show(common, &rows, &ratios)
}

/// Plays a round: starts the system, and measures its phases.
fn round(measured: &mut Measured, spec: &Spec, directory: &Path, seconds: u64) -> Result<Vec<Found>, Failure> {
    let scratch = Scratch::make_in(directory)?;
    // Systems name files after the group, and those of the round before may not have been removed yet.
    let group = format!("{}-{}", spec.group, now_ns());
    let start = |role, rank: u16| {
        let task = Task {
            rank,
            directory: scratch.path().join(rank.to_string()),
            synced: measured.synced,
            phases: measured.phases.clone(),
            duration_ns: seconds * 1_000_000_000,
        };
        let spec = Spec { role, group: group.clone(), durable: Some(task), ..measured.system.spec(spec) };
        Worker::start_by(&mut measured.system.command(None), &spec)
    };
    let others = if measured.name == BOURDON { 1..MEMBERS } else { 0..0 };
    let others = others.map(|rank| start(WorkerKind::DurableMember, rank));
    let mut others = others.collect::<Result<Vec<_>, _>>()?;
    let mut publisher = start(measured.role, 0)?;
    others.iter_mut().chain([&mut publisher]).try_for_each(Worker::wait_until_ready)?;
    publisher.begin();
    let limit = PATIENCE + Duration::from_secs(seconds);
    let found = measured.phases.iter().map(|_| publisher.found(limit)).collect::<Result<_, _>>();
    // A publisher that waits for an acknowledgement does not know why none comes; another member may.
    let found = found.map_err(|failure| others.iter_mut().find_map(Worker::failure).unwrap_or(failure))?;
    measured.described = publisher.described().clone();
    Ok(found)
}

/// Bourdon over a peer, at one size: latency with one message in flight, and the rate if the peer has one.
fn compare(ours: &Measured, theirs: &Measured, phase: Phase) -> Vec<Ratio> {
    let ratio = |what: &str, (our, its): (Phase, Phase), figure: &dyn Fn(&Found) -> f64| Ratio {
        what: format!("{what} over {}, {} B", theirs.name, phase.size_bytes),
        rounds: ours.found(our).zip(theirs.found(its)).map(|(our, its)| figure(our) / figure(its)).collect(),
    };
    let quantile =
        |quantile| move |found: &Found| histogram_of(&found.latency_ns).value_at_quantile(quantile).max(1) as f64;
    let mut ratios = vec![
        ratio("publish-to-ack p50", (phase, phase), &quantile(0.5)),
        ratio("publish-to-ack p99", (phase, phase), &quantile(0.99)),
    ];
    if let (Some(our), Some(its)) = (ours.widest(phase.size_bytes), theirs.widest(phase.size_bytes)) {
        ratios.push(ratio("durable rate", (our, its), &rate));
    }
    ratios
}
