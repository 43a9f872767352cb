//! The far end of a measurement, in a separate process on a separate core.
//!
//! Two ends in one process share an allocator, a scheduler slot and caches that they would not share in use. The
//! harness starts itself again as the other end, sends it its task on stdin, and reads its figures from stdout. The far
//! end ends when its stdin ends.

use crate::task::Task;
use crate::{Failure, Idle, Settings, Transport};
use bourdon::settings::{FlowMode, IdleStrategy, Role, Settings as NodeSettings, Transport as NodeTransport};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The task of the far end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) role: WorkerKind,
    pub(crate) core: usize,
    pub(crate) group: String,
    pub(crate) address: SocketAddr,
    /// A second group for raw sockets, so that neither end hears itself.
    pub(crate) back_address: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) idle: Idle,
    pub(crate) offload: bool,
    pub(crate) members: u16,
    /// Whether a publisher waits for observers.
    pub(crate) flow: FlowMode,
    pub(crate) size_bytes: u32,
    pub(crate) count: u64,
    /// What a member of a total-order measurement does.
    pub(crate) order: Option<Task>,
}

/// The kinds of far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkerKind {
    RawEcho,
    RawSink,
    Echo,
    ThreadedEcho,
    Sink,
    Observer,
    BourdonMember,
    CorosyncMember,
}

/// The figures of the far end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) received: u64,
    /// In `total-order`: sent and not received.
    pub(crate) lost: u64,
    pub(crate) out_of_order: u64,
    /// In `total-order`: a word that depends on every delivery and their order.
    pub(crate) chain: u64,
    /// From the first message to the last.
    pub(crate) elapsed_ns: u64,
    pub(crate) cpu_ns: u64,
    /// (latency, count) for each bucket.
    pub(crate) one_way_ns: Vec<(u64, u64)>,
}

/// The reports of the far end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum WorkerReport {
    Ready,
    Found(Found),
    Unusable(String),
    Broken(String),
}

/// A far end that runs; it is killed and reaped when dropped.
pub(crate) struct FarEnd {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cannot_start(error: std::io::Error) -> Failure {
    Failure::Unusable(format!("can't start the far end: {error}"))
}

impl FarEnd {
    /// Starts it and sends it its task.
    pub(crate) fn start(spec: &Spec) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(cannot_start)?;
        Self::start_by(Command::new(program).arg("worker"), spec)
    }

    /// Starts it by a command that ends in this program's `worker`, and sends it its task.
    pub(crate) fn start_by(command: &mut Command, spec: &Spec) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(cannot_start)?;
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut line = serde_json::to_string(spec).expect("plain data becomes JSON");
        line.push('\n');
        let stdin = child.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(line.as_bytes()).map_err(cannot_start)?;
        Ok(Self { child, lines })
    }

    /// Its next report; an error if it can't go on.
    fn hear(&mut self) -> Result<WorkerReport, Failure> {
        match self.lines.next() {
            Some(Ok(line)) => match serde_json::from_str(&line) {
                Ok(WorkerReport::Unusable(why)) => Err(Failure::Unusable(why)),
                Ok(WorkerReport::Broken(why)) => Err(Failure::Broken(why)),
                Ok(report) => Ok(report),
                Err(error) => Err(Failure::Broken(format!("{line}: {error}"))),
            },
            _ => Err(Failure::Broken("the far end ended before it was done".into())),
        }
    }

    /// Waits until it is ready.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), Failure> {
        match self.hear()? {
            WorkerReport::Ready => Ok(()),
            _ => Err(Failure::Broken("the far end was done before it began".into())),
        }
    }

    /// Whether it is gone.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its figures.
    pub(crate) fn found(&mut self) -> Result<Found, Failure> {
        loop {
            if let WorkerReport::Found(found) = self.hear()? {
                return Ok(found);
            }
        }
    }
}

/// Sends the harness a report.
pub(crate) fn report(report: &WorkerReport) {
    let line = serde_json::to_string(report).expect("plain data becomes JSON");
    println!("{line}");
}

/// Runs as a far end: reads its task and runs it.
pub(crate) fn run(play: impl FnOnce(&Spec) -> Result<(), Failure>) -> Result<(), Failure> {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut line = String::new();
    let spec = std::io::stdin().read_line(&mut line).ok().and_then(|_| serde_json::from_str::<Spec>(&line).ok());
    let Some(spec) = spec else {
        return Err(Failure::Unusable("this command is part of the harness, which starts it itself".into()));
    };
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines() {}
        std::process::exit(0);
    });
    // A node with its own threads needs more than one core, and more members than cores share them best unbound.
    if !matches!(spec.role, WorkerKind::ThreadedEcho | WorkerKind::BourdonMember | WorkerKind::CorosyncMember) {
        pin(spec.core);
    }
    match play(&spec) {
        Ok(()) => {}
        Err(Failure::Unusable(why)) => report(&WorkerReport::Unusable(why)),
        Err(Failure::Broken(why)) => report(&WorkerReport::Broken(why)),
    }
    Ok(())
}

/// Binds the calling thread to a core, or to the highest core below it that the host has. The list of cores does not
/// help here: the far end inherits the near end's binding, and would find only that core.
pub(crate) fn pin(core: usize) {
    (0..=core).rev().find(|id| core_affinity::set_for_current(core_affinity::CoreId { id: *id }));
}

/// CPU time of this process so far.
pub(crate) fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl From<Idle> for IdleStrategy {
    fn from(idle: Idle) -> Self {
        match idle {
            Idle::Spin => Self::Spin,
            Idle::Yield => Self::Yield,
            Idle::Backoff => Self::Backoff,
            Idle::Park => Self::Park,
        }
    }
}

impl Spec {
    /// A measurement's spec, on addresses that two measurements on one host are unlikely to share.
    pub(crate) fn new(settings: &crate::Settings, role: WorkerKind, count: u64) -> Self {
        let id = std::process::id().wrapping_mul(0x9E37_79B9);
        let port = 20_000 + (id >> 8) as u16 % 12_000;
        let group = |last| SocketAddr::from((Ipv4Addr::new(239, 254, (id >> 24) as u8, last), port));
        Self {
            role,
            core: 1,
            group: format!("bench-{id}"),
            address: group(1),
            back_address: group(2),
            transport: settings.transport,
            idle: settings.idle.unwrap_or(Idle::Spin),
            offload: !settings.no_offload,
            members: 2,
            flow: settings.flow.into(),
            size_bytes: settings.size,
            count,
            order: None,
        }
    }

    /// What a member of a total-order measurement does.
    pub(crate) fn task(&self) -> Result<&Task, Failure> {
        self.order.as_ref().ok_or_else(|| Failure::Broken("a member got no task".into()))
    }

    /// The node settings of a process of this measurement.
    pub(crate) fn node(&self, role: Role, rank: u16) -> NodeSettings {
        let mut node = NodeSettings::default();
        node.group.name.clone_from(&self.group);
        node.group.address = self.address;
        node.group.members = self.members;
        node.process.role = role;
        node.process.rank = rank;
        node.process.start = bourdon::settings::Start::Oldest;
        node.limits.prefault = true;
        node.flow.mode = self.flow;
        node.network.offload = self.offload;
        node.network.transport = match self.transport {
            Transport::Udp => NodeTransport::Udp,
            Transport::Portable => NodeTransport::Portable,
        };
        node.threads.idle = self.idle.into();
        node
    }

    /// The settings that a row reports.
    pub(crate) fn settings(&self, mode: &str) -> serde_json::Value {
        serde_json::json!({
            "mode": mode,
            "idle": self.idle,
            "offload": self.offload,
            "order": "total",
            "reliability": "reliable",
            "members": self.members,
            "interface": "lo",
            "prefault": true,
            "flow": self.flow,
        })
    }
}

pub(crate) fn transport_name(settings: &Settings) -> String {
    match settings.transport {
        Transport::Udp => "udp".into(),
        Transport::Portable => "portable".into(),
    }
}
