//! The floor: the kernel's UDP sockets with nothing around them.
//!
//! Round trips: each end spins on a non-blocking `recv` of its own group and sends to the other's, so that neither
//! hears itself; this is the least work of a multicast round trip. One way: runs of full datagrams by segmentation
//! offload into a receiver with receive offload; each datagram is packed with as many messages as fit, without numbers
//! and retransmission.

use crate::Failure;
use crate::worker::{Found, Spec, WorkerReport, cpu_ns, report};
use rustix::net::sockopt;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The length of a raw packed datagram: the engine's own MTU, so that both load the network alike.
pub(crate) const DATAGRAM_BYTES: usize = 1408;
/// Datagrams in one send: what fits 64 KiB.
pub(crate) const SEGMENTS: usize = 46;
/// A silence of this length ends a one-way round.
const QUIET: Duration = Duration::from_millis(300);

fn unusable(doing: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Unusable(format!("raw sockets: {doing}: {error}"))
}

/// A socket that receives a group on `lo`.
fn receiver(group: SocketAddr) -> Result<UdpSocket, Failure> {
    let IpAddr::V4(address) = group.ip() else { unreachable!("the harness chooses IPv4 groups") };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(unusable("socket"))?;
    socket.set_reuse_address(true).map_err(unusable("reuse address"))?;
    socket.bind(&SockAddr::from(group)).map_err(unusable("bind"))?;
    socket.join_multicast_v4(&address, &Ipv4Addr::LOCALHOST).map_err(unusable("join"))?;
    socket.set_multicast_all_v4(false).map_err(unusable("multicast all"))?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).is_err() {
        socket.set_recv_buffer_size(8 << 20).map_err(unusable("receive buffer"))?;
    }
    socket.set_nonblocking(true).map_err(unusable("non-blocking"))?;
    Ok(socket.into())
}

/// A socket that sends to a group on `lo`.
fn sender(group: SocketAddr) -> Result<UdpSocket, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(unusable("socket"))?;
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).map_err(unusable("multicast interface"))?;
    socket.connect(&SockAddr::from(group)).map_err(unusable("connect"))?;
    Ok(socket.into())
}

/// Answers every datagram, until the harness ends it.
pub(crate) fn echo(spec: &Spec) -> Result<(), Failure> {
    let (inward, outward) = (receiver(spec.address)?, sender(spec.back_address)?);
    report(&WorkerReport::Ready);
    let mut buffer = [0; 65_536];
    loop {
        if let Ok((length, _)) = rustix::net::recv(&inward, &mut buffer[..], RecvFlags::DONTWAIT) {
            let _ = rustix::net::send(&outward, &buffer[..length], SendFlags::empty());
        }
    }
}

/// The near end of round trips.
pub(crate) struct Pinger {
    inward: UdpSocket,
    outward: UdpSocket,
    buffer: Vec<u8>,
}

impl Pinger {
    pub(crate) fn new(spec: &Spec) -> Result<Self, Failure> {
        let buffer = vec![0; 65_536];
        Ok(Self { inward: receiver(spec.back_address)?, outward: sender(spec.address)?, buffer })
    }

    /// One round trip; false if the answer is lost.
    pub(crate) fn ping(&mut self, payload: &[u8]) -> bool {
        let _ = rustix::net::send(&self.outward, payload, SendFlags::empty());
        let mut tries = 0u32;
        loop {
            if rustix::net::recv(&self.inward, &mut self.buffer[..], RecvFlags::DONTWAIT).is_ok() {
                return true;
            }
            tries += 1;
            if tries > 5_000_000 {
                return false;
            }
        }
    }
}

/// Counts messages until none arrive.
pub(crate) fn sink(spec: &Spec) -> Result<(), Failure> {
    let inward = receiver(spec.address)?;
    if spec.offload {
        bourdon_udp::coalesce_received(&inward).map_err(unusable("receive offload"))?;
    }
    report(&WorkerReport::Ready);
    let per_datagram = (DATAGRAM_BYTES / spec.size_bytes as usize).max(1) as u64;
    let mut buffer = vec![0; 65_536];
    let (mut bytes, mut first, mut last) = (0u64, None, Instant::now());
    let cpu_before = cpu_ns();
    loop {
        match rustix::net::recv(&inward, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                last = Instant::now();
                first.get_or_insert(last);
                bytes += length as u64;
            }
            Err(_) if first.is_some() && last.elapsed() > QUIET => break,
            Err(_) => {}
        }
    }
    let elapsed_ns = first.map_or(0, |first| last.duration_since(first).as_nanos() as u64);
    let datagrams = bytes / DATAGRAM_BYTES as u64;
    report(&WorkerReport::Found(Found {
        received: datagrams * per_datagram,
        elapsed_ns,
        cpu_ns: cpu_ns() - cpu_before,
        ..Found::default()
    }));
    Ok(())
}

/// Sends packed datagrams holding `count` messages; returns how many messages were sent.
pub(crate) fn flood(spec: &Spec) -> Result<u64, Failure> {
    let outward = sender(spec.address)?;
    let segments = if spec.offload { SEGMENTS } else { 1 };
    if spec.offload {
        bourdon_udp::segment_sent(&outward, DATAGRAM_BYTES as u16).map_err(unusable("send offload"))?;
    }
    let per_datagram = (DATAGRAM_BYTES / spec.size_bytes as usize).max(1) as u64;
    let run = vec![7; DATAGRAM_BYTES * segments];
    let mut sent = 0;
    while sent < spec.count {
        if rustix::net::send(&outward, &run, SendFlags::empty()).is_ok() {
            sent += per_datagram * segments as u64;
        }
    }
    Ok(sent)
}
