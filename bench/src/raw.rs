//! The floor: the kernel's UDP sockets with nothing around them.
//!
//! Round trips: each end spins on a non-blocking `recv` of its own group and sends to the other's, so that neither
//! hears itself; this is the least work of a multicast round trip. One way: runs of full datagrams by segmentation
//! offload into a receiver with receive offload; each datagram is packed with as many messages as fit, without numbers
//! and retransmission.

use crate::worker::{Found, Spec, WorkerKind, WorkerReport, cpu_ns, has_begun, report};
use crate::{Failure, Link, broken, ends};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The most bytes in one send: what an IPv4 datagram holds.
const SEND_BYTES: usize = 65_507;
/// A silence of this length ends a one-way round.
const QUIET: Duration = Duration::from_millis(300);
/// The most datagrams that one poll takes.
const LIMIT: usize = 64;

/// Plays an end: round trips as any other system, one way by packed datagrams.
pub(crate) fn play(spec: &Spec) -> Result<(), Failure> {
    match spec.role {
        WorkerKind::Publisher => flood(spec),
        WorkerKind::Receiver => sink(spec),
        _ => ends::play(spec, RawLink::open(spec)?),
    }
}

fn unusable(doing: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Unusable(format!("raw sockets: {doing}: {error}"))
}

/// A socket that receives a group on the interface of this address.
fn receiver(group: SocketAddr, own: Ipv4Addr) -> Result<UdpSocket, Failure> {
    let IpAddr::V4(address) = group.ip() else { unreachable!("the harness chooses IPv4 groups") };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(unusable("socket"))?;
    socket.set_reuse_address(true).map_err(unusable("reuse address"))?;
    socket.bind(&SockAddr::from(group)).map_err(unusable("bind"))?;
    socket.join_multicast_v4(&address, &own).map_err(unusable("join"))?;
    socket.set_multicast_all_v4(false).map_err(unusable("multicast all"))?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).is_err() {
        socket.set_recv_buffer_size(8 << 20).map_err(unusable("receive buffer"))?;
    }
    socket.set_nonblocking(true).map_err(unusable("non-blocking"))?;
    Ok(socket.into())
}

/// A socket that sends to a group on the interface of this address.
fn sender(group: SocketAddr, own: Ipv4Addr) -> Result<UdpSocket, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(unusable("socket"))?;
    socket.set_multicast_if_v4(&own).map_err(unusable("multicast interface"))?;
    // On `lo` this has no effect; elsewhere the other end is on another host.
    socket.set_multicast_loop_v4(false).map_err(unusable("multicast loop"))?;
    socket.connect(&SockAddr::from(group)).map_err(unusable("connect"))?;
    Ok(socket.into())
}

/// Sockets that carry a message in each datagram.
struct RawLink {
    inward: UdpSocket,
    outward: UdpSocket,
    buffer: Vec<u8>,
}

impl RawLink {
    fn open(spec: &Spec) -> Result<Self, Failure> {
        let (inward, outward) =
            if spec.role.is_near() { (spec.back_address, spec.address) } else { (spec.address, spec.back_address) };
        let (inward, outward) = (receiver(inward, spec.own_address)?, sender(outward, spec.own_address)?);
        Ok(Self { inward, outward, buffer: vec![0; 65_536] })
    }
}

impl Link for RawLink {
    #[inline]
    fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        match rustix::net::send(&self.outward, message, SendFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::WOULDBLOCK | Errno::NOBUFS) => Ok(false),
            Err(error) => Err(broken(format!("raw sockets: send: {error}"))),
        }
    }

    #[inline]
    fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
        for count in 0..LIMIT {
            match rustix::net::recv(&self.inward, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => on_message(&self.buffer[..length]),
                Err(Errno::WOULDBLOCK) => return Ok(count),
                Err(error) => return Err(broken(format!("raw sockets: recv: {error}"))),
            }
        }
        Ok(LIMIT)
    }
}

/// How many messages a packed datagram holds.
fn messages_per_datagram(spec: &Spec) -> u64 {
    u64::from((spec.mtu_bytes / spec.size_bytes).max(1))
}

/// Counts messages until none arrive.
fn sink(spec: &Spec) -> Result<(), Failure> {
    let inward = receiver(spec.address, spec.own_address)?;
    if spec.offload {
        bourdon_udp::coalesce_received(&inward).map_err(unusable("receive offload"))?;
    }
    report(&WorkerReport::Ready);
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
    let datagrams = bytes / u64::from(spec.mtu_bytes);
    report(&WorkerReport::Found(Found {
        received: datagrams * messages_per_datagram(spec),
        elapsed_ns,
        cpu_ns: cpu_ns() - cpu_before,
        ..Found::default()
    }));
    Ok(())
}

/// Sends packed datagrams that hold the messages to send, or a few more.
fn flood(spec: &Spec) -> Result<(), Failure> {
    let outward = sender(spec.address, spec.own_address)?;
    let datagram_bytes = spec.mtu_bytes as usize;
    let segments = if spec.offload { (SEND_BYTES / datagram_bytes).max(1) } else { 1 };
    if spec.offload {
        bourdon_udp::segment_sent(&outward, spec.mtu_bytes as u16).map_err(unusable("send offload"))?;
    }
    report(&WorkerReport::Ready);
    while !has_begun() {
        std::thread::yield_now();
    }
    let (run, cpu_before) = (vec![7; datagram_bytes * segments], cpu_ns());
    let mut sent = 0;
    while sent < spec.count {
        if rustix::net::send(&outward, &run, SendFlags::empty()).is_ok() {
            sent += messages_per_datagram(spec) * segments as u64;
        }
    }
    report(&WorkerReport::Found(Found { sent, cpu_ns: cpu_ns() - cpu_before, ..Found::default() }));
    Ok(())
}
