//! All faults together, on separate hosts: loss, pauses, kills, cuts, restarts of the whole group.
//!
//! A single fault proves little: on a lossy network, a pause makes connections stall, and another fault may hit while
//! they are stalled. So members, observers and clients run on separate hosts, packets are lost in the switch, and
//! faults are drawn from a seed ([`faults`]). After each fault the group has 10 s to be whole again: all members have
//! installed one view of all members, every member and observer delivers, and the messages of every client are
//! acknowledged. The harness does what an init system does and nothing more: it starts a program that ended as its next
//! incarnation.
//!
//! The whole group is restarted now and then. The run between two such restarts is a *generation* ([`Generation`]); it
//! has its own folder, and is judged separately. Processes of the previous generation may be frozen and resumed later,
//! on hosts that have other addresses by then.
//!
//! Invariants: every process and namespace is gone at the end, also after a panic, or SIGINT (each child is killed with
//! the thread that started it); the faults, their targets and their times depend on the seed alone.

mod faults;
mod instances;
mod processes;
mod report;
mod verdict;

pub use report::{Report, text};

use crate::history::ReadError;
use crate::hosts::{ProcessError, Unavailable};
use crate::interrupt::Interrupt;
use crate::judge::{Order, Reliability, Rules};
pub use faults::Fault;
use processes::ChaosProcesses;

use faults::Draw;
use report::Tally;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the group may take to be whole again.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(10);
/// A group that is not whole after this time is restarted by the harness, and the campaign goes on.
const GIVE_UP: Duration = Duration::from_secs(30);
/// How often histories are read.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The failure detectors' profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The product's default.
    Default,
    /// For hosts with cores to spare.
    Fast,
    /// For connections that stall when packets are lost.
    Patient,
}

/// How members and observers run their nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// In the thread that publishes and delivers.
    Inline,
    /// With threads of their own.
    Threaded,
}

/// A campaign.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `bourdon-lab` command, which runs the processes, records and replays.
    pub lab: PathBuf,
    /// `udp`, `tcp`, `auto`, `xdp` or `shm`.
    pub transport: String,
    /// How members and observers run their nodes.
    pub mode: Mode,
    /// How many of each.
    pub members: usize,
    /// See above.
    pub observers: usize,
    /// See above.
    pub clients: usize,
    /// How long faults are injected.
    pub length: Duration,
    /// The seed of all randomness of the faults.
    pub seed: u64,
    /// The detectors' profile.
    pub profile: Profile,
    /// The reliability to judge by.
    pub reliability: Reliability,
    /// The percentage of packets that are lost.
    pub loss: u8,
    /// Only these kinds of fault; all, if none is named.
    pub faults: Vec<Fault>,
    /// If set: this many restarts of the whole group and no other fault.
    pub restarts: Option<usize>,
    /// Members report on stderr what happens.
    pub talk: bool,

    /// The folder of the histories.
    pub folder: PathBuf,
}

impl Plan {
    /// Whether its members are connected to each other, at addresses that are configured.
    fn has_mesh(&self) -> bool {
        ["tcp", "auto"].contains(&self.transport.as_str())
    }

    /// Whether all its processes are on one host, so that no network is between them.
    fn is_on_one_host(&self) -> bool {
        self.transport == "shm"
    }

    fn rules(&self) -> Rules {
        Rules { order: Order::Total, reliability: self.reliability, allow_skips: true, running: true }
    }
}

/// Why a campaign can't be run at all.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// There is no lab here.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A process can't be started or signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Histories can't be judged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file can't be read or written.
    #[error("can't use {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// SIGINT or SIGTERM came.
    #[error("interrupted: all processes and hosts of the campaign were removed")]
    Interrupted,
    /// A fault of a network that is not there.
    #[error("{0} is a fault of the network, and over shm all processes are on one host: leave it out of --faults")]
    NoNetwork(String),
    /// Too few or too many processes.
    #[error("chaos needs 2 to 64 members, at most 63 hosts in all, twice the processes and one; not {0} processes")]
    Size(usize),
}

/// Runs a campaign; its progress goes to `talk`.
///
/// # Errors
/// If it can't be run at all, or is interrupted. A failure of the group is in the report.
pub fn run(plan: &Plan, interrupt: &Interrupt, talk: &dyn Fn(&str)) -> Result<Report, ChaosError> {
    let processes = plan.members + plan.observers + plan.clients;
    if plan.members < 2 || 2 * processes + 1 > crate::hosts::HOSTS_MAX {
        return Err(ChaosError::Size(processes));
    }
    if let Some(fault) = plan.faults.iter().find(|fault| plan.is_on_one_host() && fault.needs_network()) {
        return Err(ChaosError::NoNetwork(fault.name()));
    }
    let began = Instant::now();
    let processes = ChaosProcesses::start(plan, interrupt)?;
    let mut campaign = Campaign { processes, draw: Draw::new(plan), tally: Tally::default(), plan, talk, began };
    campaign.first()?;
    let mut restarts = 0;
    while match plan.restarts {
        Some(count) => restarts < count,
        None => began.elapsed() < plan.length,
    } {
        let fault = campaign.draw.fault();
        campaign.fault(fault)?;
        restarts += usize::from(fault.restarts_all());
    }
    campaign.end()
}

struct Campaign<'a> {
    plan: &'a Plan,
    processes: ChaosProcesses<'a>,
    draw: Draw,
    tally: Tally,
    talk: &'a dyn Fn(&str),
    began: Instant,
}

impl Campaign<'_> {
    fn progress(&self, what: &str) {
        (self.talk)(&format!("{:7.1} s: {what}", self.began.elapsed().as_secs_f64()));
    }

    fn first(&mut self) -> Result<(), ChaosError> {
        self.whole("start")?;
        self.tally.first_use(self.processes.usage());
        Ok(())
    }

    fn fault(&mut self, fault: Fault) -> Result<(), ChaosError> {
        self.processes.sleep(self.draw.gap())?;
        let shown = self.processes.make(fault, &mut self.draw)?;
        self.tally.fault(fault);
        self.whole(&shown)?;
        let usage = self.processes.usage();
        self.tally.last_use(&usage);
        Ok(())
    }

    /// Waits until the group is whole; a group that takes too long is restarted.
    fn whole(&mut self, after: &str) -> Result<(), ChaosError> {
        let began = Instant::now();
        self.processes.mark();
        loop {
            self.processes.look()?;
            self.tally.broken(self.processes.take_broken());
            if self.processes.is_whole() {
                self.tally.whole(after, began.elapsed());
                let (ms, state) = (began.elapsed().as_millis(), self.tally.progress());
                self.progress(&format!("{after}: whole after {ms} ms; {state}"));
                return Ok(());
            }
            if began.elapsed() > GIVE_UP {
                self.progress(&format!("{after}: NOT WHOLE: {}", self.processes.state()));
                self.tally.not_whole(after, &self.processes.state());
                self.processes.restart_all(&mut self.draw, false)?;
                return if after == "restart after a group that was not whole" {
                    Ok(())
                } else {
                    self.whole("restart after a group that was not whole")
                };
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn end(mut self) -> Result<Report, ChaosError> {
        let usage = self.processes.usage();
        self.tally.last_use(&usage);
        self.processes.end()?;
        self.tally.broken(self.processes.take_broken());
        let generations = self.processes.generations();
        drop(self.processes); // no process writes any more
        let mut delivered = verdict::Names::new();
        let instances = instances::lay_out(self.plan, &generations)?;
        for instance in &instances {
            verdict::judge(self.plan, instance, &mut delivered, &mut self.tally)?;
        }
        for generation in &generations {
            let formed = instances.iter().filter(|instance| instance.generation == generation.number).count();
            if formed > 1 {
                let number = generation.number;
                self.tally.violation(format!("generation {number}: the group formed {formed} times"));
            }
            let is_last = usize::from(generation.number) == generations.len();
            verdict::acknowledged(self.plan, (generation, is_last), &delivered, &mut self.tally)?;
        }
        verdict::tokens(self.plan, &mut self.tally)?;
        Ok(self.tally.report(self.plan, generations.len()))
    }
}

/// The run between two restarts of the whole group: its number, and the folder of its histories.
///
/// This is the only place that decides which generation a history belongs to: a process writes into the folder of the
/// generation that it was started in.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    pub(crate) number: u16,
    pub(crate) folder: PathBuf,
}

impl Generation {
    fn new(plan: &Plan, number: u16) -> Result<Self, ChaosError> {
        let folder = plan.folder.join(format!("generation-{number}"));
        std::fs::create_dir_all(&folder).map_err(|source| ChaosError::Io { path: folder.clone(), source })?;
        Ok(Self { number, folder })
    }
}
