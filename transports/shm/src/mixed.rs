//! Shared memory for the processes of this host, and a port on the network for all others.
//!
//! A group may have several processes on one host and some on others. Over the network alone the neighbours pay for two
//! walks through the kernel; over shared memory alone the others hear nothing. To agree on one way for all is not
//! needed: which way a datagram goes is a matter between two processes, and what loses or doubles datagrams is mended
//! above.
//!
//! What is for the group goes both ways: to the network first, which may take less now, and as much of it to the log.
//! What is for one process goes to the log if that process is met there ([`Origin::address`]), otherwise to the
//! network. A call to all on the network goes there only.
//!
//! So that no datagram comes twice, the port on the network leaves out the processes that are met in shared memory
//! ([`Port::bypass`]): their multicasts are dropped before this process wakes for them. Where a process is met no more,
//! because it is gone, or its log is malformed, or the connection was ended, its log is read to the end, and the
//! network carries everything again; what falls between the two is a loss like any other. A process of another host,
//! network namespace, network interface or user is never met, so its datagrams come by the network.
//!
//! Invariants:
//! - A process is left out on the network only as long as its log is read.
//! - Without shared memory this is the port on the network, no more and no less.

use crate::{ShmOptions, ShmPort};
use bourdon_port::{Arrival, HostChange, Limits, Origin, Port, PortError, Sleep, To, Waker, watch};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A port over shared memory and the network.
#[derive(Debug)]
pub struct MixedPort<N> {
    network: N,
    /// None where the kernel lacks or forbids it.
    shm: Option<ShmPort>,
    /// Where this process's datagrams come from, as it was announced to the others.
    origin: Origin,
    /// Watches what either port sleeps on, from the first sleep on.
    both: Option<OwnedFd>,
    shm_first: bool,
    io: String,
}

impl<N: Port> MixedPort<N> {
    /// Puts shared memory beside `network`, which is at `interface`, or returns why there is the network only.
    pub fn open(network: N, interface: &str, options: &ShmOptions) -> (Self, Option<PortError>) {
        let origin = origin(&network);
        // No smaller than what the network holds, by which windows are computed.
        let ring_bytes = options.ring_bytes.max(network.limits().receive_buffer_bytes);
        let options = ShmOptions { ring_bytes, ..options.clone() };
        let (shm, refused) = match ShmPort::open_beside(Some((interface, origin)), &options) {
            Ok(port) => (Some(port), None),
            Err(error) => (None, Some(error)),
        };
        let mut port = Self { network, shm, origin, both: None, shm_first: false, io: String::new() };
        port.name_io();
        (port, refused)
    }

    /// A port on the network alone.
    pub fn without_shm(network: N) -> Self {
        let (origin, io) = (origin(&network), network.io().to_owned());
        Self { network, shm: None, origin, both: None, shm_first: false, io }
    }

    /// The port on the network.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// The same, for calls that only it has.
    pub fn network_mut(&mut self) -> &mut N {
        &mut self.network
    }

    /// How many processes of the group are reached by shared memory.
    pub fn by_shm(&self) -> u16 {
        self.shm.as_ref().map_or(0, ShmPort::reached)
    }

    /// Whether the process with this unicast address is reached by shared memory.
    pub fn is_by_shm(&self, address: SocketAddr) -> bool {
        self.shm.as_ref().is_some_and(|shm| shm.reaches(address))
    }

    /// Ends the sharing with one process, as a fault would, another each time. Returns whether there was one.
    pub fn break_one(&mut self) -> bool {
        self.shm.as_mut().is_some_and(ShmPort::break_one)
    }

    fn name_io(&mut self) {
        self.io = self.network.io().to_owned() + if self.shm.is_some() { "+shm" } else { "" };
    }
}

fn origin(network: &impl Port) -> Origin {
    Origin { address: network.local_address(), group_source: network.group_source() }
}

impl<N: Port> Port for MixedPort<N> {
    #[inline]
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        let Some(shm) = &mut self.shm else { return self.network.send(to, bytes, segment_bytes) };
        match to {
            To::Broadcast => self.network.send(to, bytes, segment_bytes),
            To::Peer(address) if shm.reaches(address) => shm.send(to, bytes, segment_bytes),
            To::Peer(_) => self.network.send(to, bytes, segment_bytes),
            To::Group => {
                let taken = self.network.send(to, bytes, segment_bytes)?;
                let taken_bytes = bytes.len().min(taken * segment_bytes);
                shm.send(to, &bytes[..taken_bytes], segment_bytes)?;
                Ok(taken)
            }
        }
    }

    #[inline]
    fn flush(&mut self) -> Result<(), PortError> {
        self.network.flush()
    }

    #[inline]
    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        let Some(shm) = &mut self.shm else { return self.network.receive(limit, on_datagram) };
        // In turns, so that neither starves the other; one that brings `limit` leaves the other for the next call.
        self.shm_first = !self.shm_first;
        let mut count = 0;
        for is_shm in [self.shm_first, !self.shm_first] {
            if count < limit {
                count += match is_shm {
                    true => shm.receive(limit - count, &mut on_datagram)?,
                    false => self.network.receive(limit - count, &mut on_datagram)?,
                };
            }
        }
        if shm.take_news() {
            let others: Vec<Origin> = shm.others().collect();
            self.network.bypass(&others);
        }
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        if self.shm.is_none() {
            return self.network.wait(timeout);
        }
        if let Some(sleep) = self.sleeper(timeout)? {
            Sleep::all(&[sleep])?;
        }
        self.network.wait(Duration::ZERO)?;
        self.shm.as_mut().map_or(Ok(()), |shm| shm.wait(Duration::ZERO))
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        let Some(network) = self.network.sleeper(longest)? else { return Ok(None) };
        let Some(shm) = &mut self.shm else { return Ok(Some(network)) };
        let Some(shm) = shm.sleeper(network.longest)? else { return Ok(None) };
        let both = match self.both.take() {
            Some(both) => both,
            None => watch([network.readable, shm.readable])?,
        };
        let both = self.both.insert(both);
        Ok(Some(Sleep { readable: OwnedFd::as_fd(both), longest: shm.longest }))
    }

    fn waker(&self) -> Waker {
        self.network.waker()
    }

    fn can_broadcast(&self) -> bool {
        self.network.can_broadcast()
    }

    fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
        let change = self.network.follow_host()?;
        if change.is_some() {
            self.both = None; // it watched descriptors that are closed
            self.name_io();
        }
        let origin = origin(&self.network);
        if origin != self.origin {
            self.origin = origin;
            self.shm.iter_mut().for_each(|shm| shm.move_to(origin));
        }
        Ok(change)
    }

    fn limits(&self) -> Limits {
        self.network.limits()
    }

    fn local_address(&self) -> SocketAddr {
        self.network.local_address()
    }

    fn group_source(&self) -> Option<SocketAddr> {
        self.network.group_source()
    }

    fn io(&self) -> &str {
        &self.io
    }
}
