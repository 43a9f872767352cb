//! An end of a measurement, in a separate process on a separate core.
//!
//! Two ends in one process share an allocator, a scheduler slot and caches that they would not share in use. The
//! harness starts a program for each end: itself, or the program of `bench/peers/`, sends it its task on stdin, and
//! reads its reports from stdout. The second line on stdin starts the measurement. A worker ends when its stdin ends.
//!
//! Invariant: every wait for a worker has a limit, and a worker that ended is reported with how it ended.

use crate::durable::Task as DurableTask;
use crate::schedule::{Iteration, Shape};
use crate::storm::{NodeFigures, Storm};
use crate::task::Task;
use crate::{Common, Failure, Idle, Mode, Peer, Transport};
use bourdon::settings::{Flow, Role, Settings as NodeSettings, Start, Transport as NodeTransport};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The window or receive buffer of every system under measurement, where it can be set.
const WINDOW_BYTES: u32 = 4 << 20;
/// The silence after which a member counts as dead: Corosync's own default token timeout.
const SILENCE_NS: u64 = 3_000_000_000;
/// How long after another end's failure a worker may take to report its own.
const FAILURE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a worker may take until it is ready: servers start, links connect.
const START_PATIENCE: Duration = Duration::from_secs(40);

/// The task of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Which end it is.
    pub role: WorkerKind,
    /// The system; none is Bourdon itself.
    pub peer: Option<Peer>,
    /// The core that the worker is bound to.
    pub core: usize,
    /// A name that no other run uses.
    pub group: String,
    /// The interface that it uses.
    pub(crate) interface: String,
    /// The address of its host on that interface.
    pub(crate) own_address: Ipv4Addr,
    /// Where near ends send and far ends receive: a multicast group.
    pub address: SocketAddr,
    /// Where far ends send and near ends receive, so that no end receives its own messages.
    pub back_address: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) mode: Mode,
    /// What the worker does while nothing arrives.
    pub idle: Idle,
    pub(crate) offload: bool,
    pub(crate) members: u16,
    /// How many far ends receive what the near end sends.
    pub receivers: u16,
    /// Whether a publisher waits for its receivers.
    pub flow: Flow,
    /// Bytes of a message.
    pub size_bytes: u32,
    /// Messages to send, or round trips.
    pub count: u64,
    /// Bytes of the longest datagram.
    pub mtu_bytes: u32,
    /// Bytes that may be on their way, where the system can be configured so.
    pub window_bytes: u32,
    /// Messages a second of a pinger or publisher; none is as many as possible.
    pub offered_per_s: Option<u64>,
    /// What a client sends.
    pub load: Option<Shape>,
    /// What a client asks for beside its messages.
    pub(crate) storm: Option<Storm>,
    /// What a member of a total-order measurement does.
    pub(crate) order: Option<Task>,
    /// What a process of a durable measurement does.
    pub(crate) durable: Option<DurableTask>,
}

/// The kinds of worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerKind {
    /// Near: sends a message and waits for its reply, again and again.
    Pinger,
    /// Near: sends messages when they are due and receives the replies.
    Client,
    /// Far: sends every message back.
    Echo,
    /// Near: sends a stream one way.
    Publisher,
    /// Far: receives the stream.
    Receiver,
    /// Both ends of a stream between two threads.
    Pair,
    /// A member of a total-order measurement that is a Bourdon node.
    BourdonMember,
    /// A member of a total-order measurement beside a Corosync daemon.
    CorosyncMember,
    /// Members that join and leave beside a load.
    Joiners,
    /// Near: publishes, and times the acknowledgements.
    DurablePublisher,
    /// A member of a durable group that publishes nothing.
    DurableMember,
    /// Near: writes and syncs each message itself.
    Disk,
}

impl WorkerKind {
    /// Whether it waits for the harness to start the measurement, and then sends first.
    pub fn is_near(self) -> bool {
        matches!(self, Self::Pinger | Self::Client | Self::Publisher | Self::Pair | Self::DurablePublisher | Self::Disk)
    }

    /// Whether messages go both ways.
    pub fn replies(self) -> bool {
        matches!(self, Self::Pinger | Self::Client | Self::Echo)
    }
}

/// The figures of a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Messages that were due, at an end that sends when messages are due.
    pub(crate) due: u64,
    pub(crate) sent: u64,
    /// Messages that the system refused at least once.
    pub(crate) refused: u64,
    pub(crate) received: u64,
    /// Sent and not received, where one worker knows both.
    pub(crate) lost: u64,
    pub(crate) out_of_order: u64,
    /// In `total-order`: a word that depends on every delivery and their order.
    pub(crate) chain: u64,
    /// From the first message to the last.
    pub(crate) elapsed_ns: u64,
    pub(crate) cpu_ns: u64,
    /// (latency, count) for each bucket.
    pub(crate) latency_ns: Vec<(u64, u64)>,
    pub(crate) iterations: Vec<Iteration>,
    /// Of a client whose node has threads of its own, and of members that join and leave.
    pub(crate) node: Option<Box<NodeFigures>>,
}

/// The reports of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum WorkerReport {
    /// How its system is configured.
    Described(serde_json::Value),
    Ready,
    Found(Found),
    Unusable(String),
    Broken(String),
}

/// A worker that runs; it is killed and reaped when dropped.
pub(crate) struct Worker {
    /// What errors call it.
    name: String,
    child: Child,
    reports: Receiver<String>,
    described: serde_json::Value,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    /// Starts it by a command that ends in the `worker` of a program, and sends it its task.
    pub(crate) fn start_by(command: &mut Command, spec: &Spec) -> Result<Self, Failure> {
        let system = spec.peer.map_or("bourdon".to_owned(), Peer::name);
        let name = format!("{system}'s {}", format!("{:?}", spec.role).to_lowercase());
        let cannot_start = |error: std::io::Error| Failure::Unusable(format!("can't start {name}: {error}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(cannot_start)?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        let mut worker = Self { name, child, reports, described: serde_json::Value::Null };
        worker.send(&serde_json::to_string(spec).expect("plain data becomes JSON"));
        Ok(worker)
    }

    /// Sends it a line; one that has ended is noticed when its next report is awaited.
    fn send(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        let _ = stdin.write_all(format!("{line}\n").as_bytes());
    }

    /// Its next report; an error if it can't go on.
    fn hear(&mut self, limit: Duration) -> Result<WorkerReport, Failure> {
        match self.reports.recv_timeout(limit) {
            Ok(line) => self.read(&line),
            Err(RecvTimeoutError::Timeout) => {
                Err(Failure::Broken(format!("{} did not report within {} s", self.name, limit.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Broken(self.how_it_ended())),
        }
    }

    fn read(&self, line: &str) -> Result<WorkerReport, Failure> {
        match serde_json::from_str(line) {
            Ok(WorkerReport::Unusable(why)) => Err(Failure::Unusable(why)),
            Ok(WorkerReport::Broken(why)) => Err(Failure::Broken(format!("{}: {why}", self.name))),
            Ok(report) => Ok(report),
            Err(error) => Err(Failure::Broken(format!("{} reported {line}: {error}", self.name))),
        }
    }

    /// Why it has failed, if it reports that.
    pub(crate) fn failure(&mut self) -> Option<Failure> {
        match self.reports.recv_timeout(FAILURE_PATIENCE) {
            Ok(line) => self.read(&line).err(),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Failure::Broken(self.how_it_ended())),
        }
    }

    /// A worker whose stdout has ended has ended, or ends now.
    fn how_it_ended(&mut self) -> String {
        let how = match self.child.wait() {
            Ok(status) if status.signal().is_some() => format!("crashed (signal {})", status.signal().unwrap_or(0)),
            Ok(status) if status.success() => "ended".to_owned(),
            Ok(status) => format!("failed (exit {})", status.code().unwrap_or(-1)),
            Err(error) => format!("is gone ({error})"),
        };
        format!("{} {how} before it was done", self.name)
    }

    /// What a signal ended, if one did.
    pub(crate) fn crash(&mut self) -> Option<Failure> {
        let status = self.child.try_wait().ok().flatten()?;
        status.signal().map(|_| Failure::Broken(self.how_it_ended()))
    }

    /// Waits until it is ready.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), Failure> {
        loop {
            match self.hear(START_PATIENCE)? {
                WorkerReport::Ready => return Ok(()),
                WorkerReport::Described(what) => self.described = what,
                _ => return Err(Failure::Broken(format!("{} was done before it began", self.name))),
            }
        }
    }

    /// Starts the measurement.
    pub(crate) fn begin(&mut self) {
        self.send("begin");
    }

    /// Waits for its figures.
    pub(crate) fn found(&mut self, limit: Duration) -> Result<Found, Failure> {
        loop {
            if let WorkerReport::Found(found) = self.hear(limit)? {
                return Ok(found);
            }
        }
    }

    /// How its system is configured, where it has reported that.
    pub(crate) fn described(&self) -> &serde_json::Value {
        &self.described
    }
}

/// Sends the harness a report.
pub(crate) fn report(report: &WorkerReport) {
    let line = serde_json::to_string(report).expect("plain data becomes JSON");
    println!("{line}");
}

/// Reports how the system is configured: its version, and what differs from its defaults.
pub fn describe(what: serde_json::Value) {
    report(&WorkerReport::Described(what));
}

/// Set when the harness has started the measurement.
static BEGUN: OnceLock<()> = OnceLock::new();

/// Whether the harness has started the measurement.
pub(crate) fn has_begun() -> bool {
    BEGUN.get().is_some()
}

/// Runs as a worker: reads its task and plays it.
///
/// # Errors
/// If the harness has not started this process.
pub fn run(play: impl FnOnce(&Spec) -> Result<(), Failure>) -> Result<(), Failure> {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut line = String::new();
    let spec = std::io::stdin().read_line(&mut line).ok().and_then(|_| serde_json::from_str::<Spec>(&line).ok());
    let Some(spec) = spec else {
        return Err(Failure::Unusable("this command is part of bourdon-bench, which starts it itself".into()));
    };
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = BEGUN.set(());
        }
        std::process::exit(0);
    });
    // A node with its own threads needs more than one core, and more members than cores share them best unbound.
    let is_member = matches!(spec.role, WorkerKind::BourdonMember | WorkerKind::CorosyncMember);
    if !is_member && spec.durable.is_none() && spec.mode == Mode::Inline {
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
/// help here: a worker inherits the harness's binding, and would find only that core.
pub(crate) fn pin(core: usize) {
    (0..=core).rev().find(|id| core_affinity::set_for_current(core_affinity::CoreId { id: *id }));
}

/// CPU time of this process so far.
pub(crate) fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Spec {
    /// A measurement's spec, on addresses that two measurements on one host are unlikely to share.
    pub(crate) fn new(common: &Common, role: WorkerKind, count: u64) -> Self {
        let id = std::process::id().wrapping_mul(0x9E37_79B9);
        let port = 20_000 + (id >> 8) as u16 % 12_000;
        let group = |last| SocketAddr::from((Ipv4Addr::new(239, 254, (id >> 24) as u8, last), port));
        Self {
            role,
            peer: None,
            core: usize::from(!role.is_near()),
            group: format!("bench-{id}"),
            interface: "lo".into(),
            own_address: Ipv4Addr::LOCALHOST,
            address: group(1),
            back_address: group(2),
            transport: common.transport,
            mode: Mode::Inline,
            idle: common.idle.unwrap_or(Idle::Spin),
            offload: !common.no_offload,
            members: 2,
            receivers: 1,
            flow: Flow::Gating,
            size_bytes: common.size,
            count,
            mtu_bytes: common.mtu,
            window_bytes: WINDOW_BYTES,
            offered_per_s: None,
            load: None,
            storm: None,
            order: None,
            durable: None,
        }
    }

    /// What a process of a durable measurement does.
    ///
    /// # Errors
    /// If it is none.
    pub fn durable_task(&self) -> Result<&DurableTask, Failure> {
        self.durable.as_ref().ok_or_else(|| Failure::Broken("a process of a durable measurement got no task".into()))
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
        node.process.start = Start::Oldest;
        node.limits.prefault = true;
        node.limits.mtu_bytes = self.mtu_bytes as usize;
        node.flow.mode = self.flow;
        node.network.interface.clone_from(&self.interface);
        node.network.multicast_loop = self.interface == "lo"; // elsewhere each host has one process
        node.network.offload = self.offload;
        node.network.transport = match self.transport {
            Transport::Udp => NodeTransport::Udp,
            Transport::Portable => NodeTransport::Portable,
            Transport::Xdp => NodeTransport::Xdp,
            Transport::Shm => NodeTransport::Shm,
        };
        node.threads.idle = self.idle.into();
        // A busy host evicts no member for a pause, which would end the measurement.
        node.detector.phi = false;
        node.detector.suspect_after_ns = Some(SILENCE_NS);
        node.detector.pull_after_ns = Some(SILENCE_NS);
        node
    }

    /// The settings that a row reports: what all systems share, and what is Bourdon's own.
    pub(crate) fn settings(&self) -> serde_json::Value {
        let mut all = serde_json::json!({
            "idle": self.idle,
            "offload": self.offload,
            "interface": self.interface,
            "mtu_bytes": self.mtu_bytes,
            "pinned": self.mode == Mode::Inline,
        });
        if self.peer.is_none() {
            all["mode"] = serde_json::json!(self.mode);
            all["order"] = "total".into();
            all["reliability"] = "reliable".into();
            all["members"] = self.members.into();
            all["prefault"] = true.into();
            // The window is computed from it: 3.8 MB where it is granted.
            all["receive_buffer_bytes"] = NodeSettings::default().network.receive_buffer_bytes.into();
            all["flow"] = serde_json::json!(self.flow);
        } else {
            all["window_bytes"] = self.window_bytes.into();
        }
        all
    }
}
