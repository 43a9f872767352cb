//! Leaders of other systems: etcd's.
//!
//! The server that leads is killed. Each of the others waits about an election timeout to hear from it again, then
//! stands for election (Raft). A client of such a cluster has no leader until a write succeeds again, so that is the
//! end of the measured time: the survivors are asked in turn, once a millisecond, which server leads, and the first
//! that names another server gets a write. To write from the start and wait would measure something else: a survivor
//! forwards a write to the dead leader, where it is lost, and reports this only seconds later.

use super::{FailOver, Running, System};
use crate::Failure;
use crate::etcd::{self, Cluster, PATIENCE, Shape};
use crate::scratch::Storage;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The heartbeat and the election timeout of the tuned cluster, in milliseconds: each a tenth of the default, so that
/// as many heartbeats must be missed.
const TUNED_MS: (u32, u32) = (10, 100);
/// How often a survivor is asked.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// How long a write may take; if it was not committed by then, the leader that accepted it is no longer the leader.
const WRITE: Duration = Duration::from_millis(500);

/// etcd, as a system to measure.
pub(crate) struct Etcd {
    name: &'static str,
    shape: Shape,
    version: String,
}

impl Etcd {
    pub(crate) fn new(name: &'static str, servers: u16, tuned: bool) -> Result<Self, Failure> {
        let version = etcd::version()?;
        let storage = Storage::Tmpfs;
        storage.folder()?;
        let mut shape = Shape::as_delivered(servers, storage);
        if tuned {
            (shape.heartbeat_ms, shape.election_ms) = TUNED_MS;
        }
        Ok(Self { name, shape, version })
    }
}

impl System for Etcd {
    fn name(&self) -> &'static str {
        self.name
    }

    fn algorithm(&self) -> &'static str {
        "raft"
    }

    fn members(&self) -> u16 {
        self.shape.servers
    }

    fn settings(&self) -> Value {
        let mut settings = self.shape.settings(&self.version);
        settings["fault"] = "SIGKILL to the server that leads".into();
        settings["until"] = "a write has been committed through a survivor that knows another leader".into();
        settings["asked_every_ns"] = (ASK_EVERY.as_nanos() as u64).into();
        settings
    }

    fn start(&self) -> Result<Box<dyn Running>, Failure> {
        let cluster = Cluster::start(&self.shape)?;
        Ok(Box::new(RunningEtcd { cluster, calm: Duration::from_millis(self.shape.election_ms.into()) }))
    }
}

struct RunningEtcd {
    cluster: Cluster,
    /// How long a cluster is whole before the fault: no earlier election is still going on.
    calm: Duration,
}

impl RunningEtcd {
    /// Waits until a write has been committed through a survivor.
    fn wait_for_another(&mut self, killed: usize, killed_id: u64) -> Result<(), Failure> {
        let survivors: Vec<usize> = (0..self.cluster.servers()).filter(|index| *index != killed).collect();
        let deadline = Instant::now() + PATIENCE;
        for survivor in survivors.into_iter().cycle() {
            if Instant::now() > deadline {
                return Err(self.cluster.broken(survivor, format!("no other leader within {PATIENCE:?}")));
            }
            let known = self.cluster.standing(survivor).map_or(0, |standing| standing.leader);
            if known != 0 && known != killed_id && self.cluster.put(survivor, WRITE).is_ok() {
                return Ok(());
            }
            std::thread::sleep(ASK_EVERY);
        }
        Err(Failure::Unusable("a cluster of one server has no server left to lead it".into()))
    }
}

impl Running for RunningEtcd {
    fn fail_over(&mut self) -> Result<FailOver, Failure> {
        std::thread::sleep(self.calm);
        // This asks every server, so every connection is open before it is needed.
        let victim = self.cluster.leader()?;
        let standing = self.cluster.standing(victim).map_err(|error| self.cluster.broken(victim, error))?;
        let begun = self.cluster.kill(victim);
        self.wait_for_another(victim, standing.id)?;
        let fault_to_leader_ns = begun.elapsed().as_nanos() as u64;
        self.cluster.restart(victim)?;
        Ok(FailOver { fault_to_leader_ns, messages: None })
    }
}
