//! Locks of other systems: etcd's, and a key in Redis.
//!
//! etcd has a lock service: a client puts a key under a lease, in a log that a majority has flushed, and waits until
//! every earlier key is gone. The clients here send to the server that leads, which saves a hop. When several clients
//! want the lock, the server waits by a watch that begins in the past, and etcd checks such watches ten times a second:
//! that is nearly the whole cost of a contended acquisition there.
//!
//! Redis is one process that keeps a key in memory (`SET NX PX`, and a script that deletes the key only if it still has
//! the client's own value). Its guarantee is weaker: the lock is lost with the process. It is the floor: one round trip
//! of TCP.

use super::clients::{Client, take_turns};
use super::{Limits, Load, Round, Running, System};
use crate::Failure;
use crate::etcd::{self, Cluster, Shape};
use crate::redis::{self, Redis};
use crate::scratch::Storage;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAME: &str = "bench";
/// How long a holder keeps its lock without sending: longer than any round.
const LEASE: Duration = Duration::from_secs(600);
/// How long a client waits for a lock that others acquire and release all the time.
const PATIENCE: Duration = Duration::from_secs(60);

/// etcd, as a system to measure.
pub(crate) struct Etcd {
    name: &'static str,
    shape: Shape,
    version: String,
}

impl Etcd {
    pub(crate) fn new(name: &'static str, servers: u16, storage: Storage) -> Result<Self, Failure> {
        let version = etcd::version()?;
        storage.folder()?;
        Ok(Self { name, shape: Shape::as_delivered(servers, storage), version })
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
        settings["asks"] = "v3lock Lock and Unlock at the server that leads".into();
        settings["lease_s"] = LEASE.as_secs().into();
        settings
    }

    fn start(&self) -> Result<Box<dyn Running>, Failure> {
        Ok(Box::new(RunningEtcd { cluster: Cluster::start(&self.shape)? }))
    }
}

struct RunningEtcd {
    cluster: Cluster,
}

impl Running for RunningEtcd {
    fn round(&mut self, load: Load, limits: &Limits) -> Result<Round, Failure> {
        let leader = self.cluster.leader()?;
        let address = self.cluster.address(leader);
        let clients = (0..load.clients()).map(|_| {
            let mut client = etcd::Client::new(address)?;
            let lease = client.lease(LEASE, PATIENCE).map_err(|error| self.cluster.broken(leader, error))?;
            Ok(EtcdClient { client, lease, held: None })
        });
        take_turns(clients.collect::<Result<_, Failure>>()?, limits)
    }
}

struct EtcdClient {
    client: etcd::Client,
    lease: i64,
    held: Option<Vec<u8>>,
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(format!("etcd: {error}"))
}

impl Client for EtcdClient {
    fn acquire(&mut self) -> Result<(), Failure> {
        self.held = Some(self.client.lock(NAME, self.lease, PATIENCE).map_err(refused)?);
        Ok(())
    }

    fn release(&mut self) -> Result<(), Failure> {
        self.held.take().map_or(Ok(()), |key| self.client.unlock(key, PATIENCE).map_err(refused))
    }
}

/// Redis, as a system to measure.
pub(crate) struct RedisKey {
    version: String,
}

impl RedisKey {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { version: redis::version()? })
    }
}

impl System for RedisKey {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn algorithm(&self) -> &'static str {
        "central"
    }

    fn members(&self) -> u16 {
        1
    }

    fn settings(&self) -> Value {
        json!({
            "version": self.version,
            "servers": 1,
            "storage": "none",
            "interface": "lo",
            "client": "RESP over one TCP connection that stays open",
            "asks": "SET NX PX, again at once if it is held; a script deletes it if it still has the client's value",
            "lease_s": LEASE.as_secs(),
            "pinned": false,
        })
    }

    fn start(&self) -> Result<Box<dyn Running>, Failure> {
        Ok(Box::new(RunningRedis { redis: Redis::start()? }))
    }
}

struct RunningRedis {
    redis: Redis,
}

impl Running for RunningRedis {
    fn round(&mut self, load: Load, limits: &Limits) -> Result<Round, Failure> {
        let clients = (0..load.clients()).map(|index| {
            let mut client = self.redis.client()?;
            let script = client.load(redis::DELETE_IF_MINE)?;
            Ok(RedisClient { client, script, index, entries: 0 })
        });
        take_turns(clients.collect::<Result<_, Failure>>()?, limits)
    }
}

struct RedisClient {
    client: redis::Client,
    script: String,
    index: usize,
    entries: u64,
}

impl RedisClient {
    /// A value that no other client writes there, and this client writes once.
    fn mine(&self) -> String {
        format!("{}-{}", self.index, self.entries)
    }
}

impl Client for RedisClient {
    fn acquire(&mut self) -> Result<(), Failure> {
        self.entries += 1;
        let (mine, deadline) = (self.mine(), Instant::now() + PATIENCE);
        while !self.client.set_if_absent(NAME, &mine, LEASE)? {
            if Instant::now() > deadline {
                return Err(Failure::Broken(format!("redis: no turn within {PATIENCE:?}")));
            }
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), Failure> {
        let mine = self.mine();
        if self.client.run(&self.script, NAME, &mine)? == 1 {
            return Ok(());
        }
        Err(Failure::Broken("redis: the lock was not its holder's any more".into()))
    }
}
