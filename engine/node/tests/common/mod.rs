//! Groups of their own for tests that run side by side: an address and a directory each.
#![allow(dead_code)] // each test file uses its share

use bourdon::id::TopicId;
use bourdon::settings::{IdleStrategy, Role, Transport};
use bourdon::{Error, Event, InlineNode, Node, Publication, Settings, Subscribe, Subscription, Topic};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any step takes on a loaded host; only failing tests reach it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const TOPIC: Topic = Topic::of_id(TopicId::of("es"));

static NEXT: AtomicU16 = AtomicU16::new(0);
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// An address that no other test has: by process and by test within it.
pub(crate) fn fresh_address() -> SocketAddr {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    SocketAddr::from(([239, 76, (pid >> 8) as u8, pid as u8], 20_000 + pid as u16 % 16_384 + number * 7))
}

/// TCP addresses for the members of one test, by rank. Each has a port that no other test of this process is given, and
/// that the kernel gives to no socket by itself: it draws those from 32,768 on.
pub(crate) fn free_addresses(count: u16, at: &str) -> Vec<SocketAddr> {
    let free = std::iter::repeat_with(|| {
        let port =
            10_000 + (std::process::id() as u16 % 1_000 * 20 + NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % 22_000;
        TcpListener::bind((at, port)).and_then(|listener| listener.local_addr())
    });
    free.filter_map(Result::ok).take(count.into()).collect()
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) members: u16,
    pub(crate) transport: Transport,
    pub(crate) peers: Vec<SocketAddr>,
}

impl World {
    pub(crate) fn new(members: u16) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        Self { directory, address: fresh_address(), members, transport: Transport::Udp, peers: Vec::new() }
    }

    /// The same over another transport, with members at these addresses.
    pub(crate) fn over(self, transport: Transport, peers: Vec<SocketAddr>) -> Self {
        Self { transport, peers, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn member(&self, rank: u16) -> Settings {
        let mut settings = Settings::default();
        settings.group.name = "test".to_owned();
        settings.group.address = self.address;
        settings.group.members = self.members;
        settings.process.rank = rank;
        (settings.network.transport, settings.network.peers) = (self.transport, self.peers.clone());
        settings.network.receive_buffer_bytes = 1 << 20;
        settings.limits.max_message_bytes = 60_000;
        settings.limits.log_bytes = 4 << 20;
        settings.limits.receive_log_bytes = 2 << 20;
        settings.threads.idle = IdleStrategy::Park;
        settings.threads.publication_ring_bytes = 1 << 18;
        settings.threads.subscription_ring_bytes = 1 << 20;
        settings.threads.directory = Some(self.path().to_owned());
        settings
    }

    pub(crate) fn observer(&self) -> Settings {
        let mut settings = self.member(0);
        settings.process.role = Role::Observer;
        settings
    }

    /// Names in the directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("the directory is there");
        entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Runs `step` until it returns that it is done.
pub(crate) fn until(what: &str, mut step: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !step() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// A node with a publication, and a subscription to all.
pub(crate) type Started = (Node, Publication, Subscription);

/// Opens it and joins it.
pub(crate) fn start(settings: &Settings) -> Started {
    joined(Node::open(settings)).expect("it starts")
}

/// Joins a node that was opened.
pub(crate) fn joined(opened: Result<Node, Error>) -> Result<Started, Error> {
    let node = opened?;
    let (publication, subscription) = (node.publication()?, node.subscribe(Subscribe::all())?);
    node.join()?;
    Ok((node, publication, subscription))
}

/// A subscription to events alone.
pub(crate) fn events(node: &Node) -> Subscription {
    node.subscribe(Subscribe::none().events()).expect("it is open")
}

/// The next event, if one has come.
pub(crate) fn next_event(events: &mut Subscription) -> Option<Event> {
    events.try_next().ok().flatten().and_then(|delivery| delivery.event())
}

/// Reads until so many messages have come.
pub(crate) fn read(subscription: &mut Subscription, count: usize) -> Vec<(u16, u64, Option<u64>, Vec<u8>)> {
    let mut read = Vec::new();
    until("all messages", || {
        let polled = subscription.poll(64, |delivery| {
            let Some(message) = delivery.message() else { return };
            let order = message.order.map(|order| order.0);
            read.push((message.sender.0, message.sequence.0, order, message.payload.to_vec()));
        });
        if polled == Ok(0) {
            let _ = subscription.wait(Duration::from_millis(100)); // the next poll reports the end
        } else if read.len() < count {
            polled.expect("it runs");
        }
        read.len() >= count
    });
    read
}

/// A counter or cell of a running node, from its file.
pub(crate) fn cell(world: &World, node: &Node, label: &str) -> u64 {
    let directory = bourdon::counters::Directory::open(Some(world.path())).expect("it is ours");
    let found = bourdon::counters::list(&directory).expect("it can be read");
    let path = &node.info().counters_path;
    let file = found.iter().find(|file| path.ends_with(format!("{}.counters", file.stem))).expect("it is listed");
    file.values().find(|(name, _)| *name == label).expect("it has this cell").1
}

/// Polls an inline node until something holds.
pub(crate) fn poll_until(node: &mut InlineNode, what: &str, mut done: impl FnMut(&mut InlineNode) -> bool) {
    until(what, || {
        node.poll(usize::MAX, |_| {}).expect("the port works");
        done(node)
    });
}
