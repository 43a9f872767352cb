//! Corosync as a peer: a daemon for each member, and a member that sends and delivers through it.
//!
//! Corosync orders by a token that goes round the daemons (Totem); applications reach their host's daemon over shared
//! memory. It supports one daemon a host: its sockets, shared memory and state have fixed names. A network namespace
//! separates the sockets, and a mount namespace with empty file systems over the rest separates the others. The
//! member's process has both (the harness starts it so), starts its daemon in them, and the daemon ends with it.
//!
//! It is configured to be as fast as a fair comparison allows: UDP multicast instead of the encrypting transport, no
//! cryptography, no real-time priority, which on a few cores starves the applications it serves, and the larger window
//! that its manual gives for equal hosts, which doubles its throughput when all send and costs no latency. Its clients
//! idle like Bourdon's nodes. All other settings are the defaults. Its agreed order is not uniform: a member that is
//! cut off may deliver messages that the others never do.

mod cpg;

use crate::hosts::{NETWORK, address};
use crate::task::Task;
use crate::total_order::member::{Ordered, play};
use crate::worker::Spec;
use crate::{Failure, Idle};
use bourdon::time::Idler;
use cpg::{Cpg, CpgError};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The paths hidden behind empty file systems: where the daemon and libqb keep sockets, shared memory and state.
const PRIVATE: &[&str] = &["/dev/shm", "/run", "/var/lib/corosync"];
const CONFIG: &str = "/run/corosync-bench.conf";
const LOG: &str = "/run/corosync-bench.log";
/// How long a daemon may take to answer, and the daemons to find each other.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before connecting again to a daemon that is not up yet.
const RETRY: Duration = Duration::from_millis(20);
/// Messages on one token rotation, of all members and of one: the most that its manual names.
const WINDOW: u32 = 300;
const WINDOW_OF_ONE: u32 = 100;
const PACKAGES: &str = "install the packages corosync and libcpg4, or leave this peer out with --no-peer";

/// Its version, if it can be measured here.
pub(crate) fn version() -> Result<String, Failure> {
    let lacking = |why: &dyn std::fmt::Display| Failure::Unusable(format!("{why}: {PACKAGES}"));
    let output = Command::new("corosync").arg("-v").output().map_err(|error| lacking(&format!("corosync: {error}")))?;
    cpg::is_there().map_err(|error| lacking(&error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split('\'').nth(1).unwrap_or("unknown").to_owned())
}

/// The settings that a row reports.
pub(crate) fn settings(version: &str, idle: Idle) -> Value {
    json!({
        "version": version,
        "guarantee": "agreed",
        "uniform": false,
        "transport": "udp multicast",
        "crypto": "none",
        "sched_rr": false,
        "window_size": WINDOW,
        "max_messages": WINDOW_OF_ONE,
        "idle": idle,
    })
}

/// The configuration of every daemon; each finds itself by its address.
fn config(members: u16) -> String {
    let node = |index| format!("  node {{\n    nodeid: {}\n    ring0_addr: {}\n  }}\n", index + 1, address(index));
    let nodes: String = (0..members).map(node).collect();
    format!(
        "totem {{\n  version: 2\n  cluster_name: bench\n  transport: udp\n  crypto_cipher: none\n  crypto_hash: \
             none\n  \
         window_size: {WINDOW}\n  max_messages: {WINDOW_OF_ONE}\n  interface {{\n    linknumber: 0\n    bindnetaddr: \
         {NETWORK}\n    mcastaddr: 239.254.74.1\n    \
         mcastport: 5405\n  }}\n}}\nnodelist {{\n{nodes}}}\nsystem {{\n  sched_rr: no\n  move_to_root_cgroup: no\n}}\n\
         logging {{\n  to_stderr: yes\n  to_syslog: no\n  to_logfile: no\n}}\n"
    )
}

/// Prepares this host for a daemon. Refuses where that would hide files from others.
fn hide_files() -> Result<(), Failure> {
    let unusable = |why: String| Failure::Unusable(format!("no room for a corosync daemon: {why}"));
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let parent = std::os::unix::process::parent_id().to_string();
    if namespace("self").is_none() || namespace("self") == namespace(&parent) {
        return Err(unusable("this process shares its mounts with the harness".into()));
    }
    for folder in PRIVATE.iter().filter(|folder| Path::new(folder).is_dir()) {
        let output = Command::new("mount").args(["-t", "tmpfs", "bourdon-bench", folder]).output();
        let output = output.map_err(|error| unusable(format!("mount: {error}")))?;
        if !output.status.success() {
            return Err(unusable(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
    }
    Ok(())
}

/// A daemon; it ends with this process, whichever way that ends.
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(members: u16) -> Result<Self, Failure> {
        let unusable = |error: std::io::Error| Failure::Unusable(format!("can't start corosync: {error}; {PACKAGES}"));
        hide_files()?;
        std::fs::write(CONFIG, config(members)).map_err(unusable)?;
        let log = std::fs::File::create(LOG).map_err(unusable)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "corosync", "-f", "-c", CONFIG]);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(unusable)?).stderr(log);
        Ok(Self { child: command.spawn().map_err(unusable)? })
    }

    /// Describes a failure, with the last output of the daemon.
    fn broken(&self, why: impl std::fmt::Display) -> Failure {
        const LINES: usize = 5;
        let log = std::fs::read_to_string(LOG).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        Failure::Broken(format!("corosync: {why}; its log ends with:\n{last}"))
    }

    /// Connects, as soon as it answers.
    fn join(&mut self, group: &str) -> Result<Cpg, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Cpg::join(group) {
                Ok(cpg) => return Ok(cpg),
                Err(error @ CpgError::Missing(_)) => return Err(Failure::Unusable(format!("{error}: {PACKAGES}"))),
                Err(error) if Instant::now() > deadline || !matches!(self.child.try_wait(), Ok(None)) => {
                    return Err(self.broken(error));
                }
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    /// The CPU time of all its threads so far.
    fn cpu_ns(&self) -> u64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let spent = threads.into_iter().flatten().flatten().filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        spent.sum()
    }
}

/// A member of a group over its own daemon.
struct Member {
    daemon: Daemon,
    cpg: Cpg,
    idler: Idler,
}

/// Plays a member.
pub(crate) fn run(spec: &Spec, task: &Task) -> Result<(), Failure> {
    let mut daemon = Daemon::start(task.members)?;
    let cpg = daemon.join(&spec.group)?;
    // A message sent before all have joined does not reach all. Messages that others send meanwhile stay in the inbox.
    let deadline = Instant::now() + PATIENCE;
    while cpg.members() < usize::from(task.members) {
        cpg.wait(RETRY).and_then(|()| cpg.gather()).map_err(|error| daemon.broken(error))?;
        if Instant::now() > deadline {
            return Err(daemon.broken(format!("{} of {} members have joined", cpg.members(), task.members)));
        }
    }
    play(&mut Member { daemon, cpg, idler: Idler::new(spec.idle.into()) }, spec.size_bytes, task)
}

impl Ordered for Member {
    #[inline]
    fn try_send(&mut self, payload: &[u8]) -> Result<bool, Failure> {
        self.cpg.try_multicast(payload).map_err(|error| self.daemon.broken(error))
    }

    #[inline]
    fn poll(&mut self, mut on_delivery: impl FnMut(u16, &[u8])) -> Result<usize, Failure> {
        let dispatched = self.cpg.dispatch(|node, payload| on_delivery(node as u16 - 1, payload));
        dispatched.map_err(|error| self.daemon.broken(error))
    }

    #[inline]
    fn idle(&mut self, work_count: usize, longest: Duration) -> Result<(), Failure> {
        let idled = self.idler.idle(work_count, |sleep| self.cpg.wait(sleep.min(longest)));
        idled.map_err(|error| self.daemon.broken(error))
    }

    fn others_cpu_ns(&self) -> u64 {
        self.daemon.cpu_ns()
    }
}
