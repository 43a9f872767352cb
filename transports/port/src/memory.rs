//! A port without a network: every datagram stays in this process.
//!
//! Instruction-count gates and tests want the engine's own cost and behaviour, and a kernel socket gives neither: its
//! cost varies from call to call and its losses with the load of the host. A queue of boxed datagrams would be no
//! better, because then the allocator is what is measured.
//!
//! So each port owns two byte buffers of fixed size. Senders append to one under a mutex that no other thread holds for
//! long; the receiver swaps it for its own empty one and then hands datagrams out without any lock, so that a callback
//! may send through other ports of the same [`Hub`].
//!
//! Invariants:
//! - Nothing is allocated after a port is open, and a system call is made only by a thread that sleeps or ends a sleep.
//! - A full buffer drops what comes, as a socket does; the sender does not learn of it.
//! - Datagrams of one sender arrive in the order sent.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Arrival, Echo, Idle, Limits, Port, PortError, Sleep, To, Waker};

/// What a datagram costs beside its bytes: bounds the number of short datagrams in a buffer, as a socket's accounting
/// does with its own overhead.
const DATAGRAM_OVERHEAD_BYTES: usize = 64;

/// How a [`MemoryPort`] is opened.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    /// The group: any multicast address; ports of one hub with the same one hear each other.
    pub group: SocketAddr,
    /// Whether [`Port::wait`] sleeps.
    pub idle: Idle,
    /// How to know this port's own datagrams.
    pub echo: Option<Echo>,
    /// The longest datagram.
    pub datagram_max_bytes: usize,
    /// How much is held while the process does not read.
    pub receive_buffer_bytes: usize,
}

impl MemoryOptions {
    /// Datagrams of 1408 bytes, 1 MiB held, spinning.
    pub fn new(group: SocketAddr) -> Self {
        Self { group, idle: Idle::Spin, echo: None, datagram_max_bytes: 1408, receive_buffer_bytes: 1 << 20 }
    }
}

/// What [`MemoryPort`]s are connected by; clones are the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Vec<Member>>>);

#[derive(Debug)]
struct Member {
    group: SocketAddr,
    address: SocketAddr,
    echo: Option<Echo>,
    mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
struct Mailbox {
    queue: Mutex<Queue>,
    waker: Waker,
    capacity_bytes: usize,
}

#[derive(Debug)]
struct Queue {
    run: Run,
    /// The owner sleeps, or is about to, and wants to be woken by an arrival.
    parked: bool,
}

/// Datagrams back to back.
#[derive(Debug)]
struct Run {
    bytes: Vec<u8>,
    /// Where each datagram ends in `bytes`, and whether it was sent to all.
    ends: Vec<(usize, bool)>,
}

impl Run {
    fn new(capacity_bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity_bytes),
            ends: Vec::with_capacity(capacity_bytes / DATAGRAM_OVERHEAD_BYTES),
        }
    }

    fn push(&mut self, datagram: &[u8], to_all: bool, capacity_bytes: usize) {
        let used_bytes = self.bytes.len() + self.ends.len() * DATAGRAM_OVERHEAD_BYTES;
        if used_bytes + datagram.len() + DATAGRAM_OVERHEAD_BYTES <= capacity_bytes {
            self.bytes.extend_from_slice(datagram);
            self.ends.push((self.bytes.len(), to_all));
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl Mailbox {
    fn deliver(&self, (to, bytes): (To, &[u8]), segment_bytes: usize, echo: Option<Echo>) {
        let to_all = !matches!(to, To::Peer(_));
        let mut queue = lock(&self.queue);
        for datagram in bytes.chunks(segment_bytes) {
            if !echo.is_some_and(|echo| echo.matches(datagram)) {
                queue.run.push(datagram, to_all, self.capacity_bytes);
            }
        }
        if queue.parked && !queue.run.ends.is_empty() {
            queue.parked = false;
            self.waker.wake();
        }
    }
}

/// A panic in another thread leaves nothing half done here: every change under a lock is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A hub without ports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a port. Its unicast address is on the loopback address of the group's family and names it in this hub
    /// only.
    pub fn open(&self, options: MemoryOptions) -> Result<MemoryPort, PortError> {
        if !options.group.ip().is_multicast() {
            return Err(PortError::NotMulticast(options.group));
        }
        let loopback = match options.group {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let waker = Waker::new().map_err(|source| PortError::Io { doing: "creating an eventfd", source })?;
        let capacity_bytes = options.receive_buffer_bytes;
        let mailbox = Arc::new(Mailbox {
            queue: Mutex::new(Queue { run: Run::new(capacity_bytes), parked: false }),
            waker,
            capacity_bytes,
        });
        let mut members = lock(&self.0);
        let address = (1..=u16::MAX)
            .map(|port| SocketAddr::new(loopback, port))
            .find(|address| members.iter().all(|member| member.address != *address))
            .ok_or(PortError::Unavailable { mechanism: "memory", why: "all 65535 addresses are taken".to_owned() })?;
        members.push(Member { group: options.group, address, echo: options.echo, mailbox: Arc::clone(&mailbox) });
        drop(members);
        Ok(MemoryPort {
            hub: self.clone(),
            options,
            address,
            mailbox,
            taken: Run::new(capacity_bytes),
            next: 0,
            is_parked: false,
        })
    }
}

/// One process's port into a [`Hub`].
#[derive(Debug)]
pub struct MemoryPort {
    hub: Hub,
    options: MemoryOptions,
    address: SocketAddr,
    mailbox: Arc<Mailbox>,
    /// What was taken out of the mailbox, handed out up to `next`.
    taken: Run,
    /// `0..=taken.ends.len()`
    next: usize,
    /// Senders wake this port's waker since the last `sleeper`: the next `wait` takes the wake back.
    is_parked: bool,
}

impl MemoryPort {
    /// Whether nothing has come that was not handed out.
    pub fn is_empty(&self) -> bool {
        self.next == self.taken.ends.len() && lock(&self.mailbox.queue).run.ends.is_empty()
    }
}

impl Port for MemoryPort {
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        assert!(
            (1..=self.options.datagram_max_bytes).contains(&segment_bytes),
            "segments of {segment_bytes} bytes; 1 to {} fit",
            self.options.datagram_max_bytes
        );
        if bytes.is_empty() {
            return Ok(0);
        }
        for member in lock(&self.hub.0).iter() {
            match to {
                To::Group if member.group == self.options.group => {
                    member.mailbox.deliver((to, bytes), segment_bytes, member.echo);
                }
                To::Peer(address) if member.address == address => {
                    member.mailbox.deliver((to, bytes), segment_bytes, None);
                }
                To::Broadcast if member.group.port() == self.options.group.port() => {
                    member.mailbox.deliver((to, bytes), segment_bytes, None);
                }
                To::Group | To::Peer(_) | To::Broadcast => {}
            }
        }
        Ok(bytes.len().div_ceil(segment_bytes))
    }

    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        let mut count = 0;
        while count < limit {
            if self.next == self.taken.ends.len() {
                self.taken.clear();
                self.next = 0;
                let mut queue = lock(&self.mailbox.queue);
                if queue.run.ends.is_empty() {
                    break;
                }
                mem::swap(&mut queue.run, &mut self.taken);
            }
            let start = if self.next == 0 { 0 } else { self.taken.ends[self.next - 1].0 };
            let (end, to_all) = self.taken.ends[self.next];
            self.next += 1;
            count += 1;
            on_datagram(Arrival { bytes: &self.taken.bytes[start..end], kernel_receive_ns: None, to_all });
        }
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        if !self.is_parked {
            match self.sleeper(timeout)? {
                Some(sleep) => Sleep::all(&[sleep])?,
                None => return Ok(()),
            }
        }
        self.is_parked = false;
        lock(&self.mailbox.queue).parked = false;
        self.mailbox.waker.clear();
        Ok(())
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        if self.options.idle == Idle::Spin || self.next < self.taken.ends.len() {
            return Ok(None);
        }
        let mut queue = lock(&self.mailbox.queue);
        self.is_parked = queue.run.ends.is_empty();
        queue.parked = self.is_parked;
        Ok(self.is_parked.then(|| Sleep { readable: self.mailbox.waker.as_fd(), longest }))
    }

    fn waker(&self) -> Waker {
        self.mailbox.waker.clone()
    }

    fn can_broadcast(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        Limits {
            datagram_max_bytes: self.options.datagram_max_bytes,
            receive_buffer_bytes: self.options.receive_buffer_bytes,
            segments_max: usize::MAX,
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn io(&self) -> &str {
        "memory"
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        lock(&self.hub.0).retain(|member| member.address != self.address);
    }
}
