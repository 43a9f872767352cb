//! Sends runs of datagrams.
//!
//! A datagram sent by itself costs 2 to 3 µs, because the sender's core carries it through the whole stack to the
//! receiver's queue, and batching system calls (`sendmmsg`, `io_uring`) saves a tenth of that at most. Segmentation
//! offload carries up to 64 KiB through the stack at once: the cost of a traversal is shared by all datagrams in it.
//!
//! Where a kernel or a device refuses that, datagrams are sent one by one from then on.
//!
//! Source: udp(7) `UDP_SEGMENT`; `Documentation/networking/segmentation-offloads.rst` in the kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use bourdon_port::{Limits, PortError, To};
use socket2::SockAddr;

use crate::message;
use crate::options::{UDP_PAYLOAD_MAX_BYTES, UdpOptions};
use crate::sockets::Sockets;

/// The most datagrams in one packet. Kernels before 6.9 take 64, later ones 128; at 64 only datagrams shorter than
/// 1023 bytes notice it before they fill 64 KiB, and 64 of them already share the traversal's cost well enough that
/// asking the kernel for more is not worth a second code path.
pub(crate) const SEGMENTS_MAX: usize = 64;

/// How often one datagram is tried again after an error that belonged to an earlier one.
const STALE_ERRORS_MAX: u32 = 8;

/// Sends to the group and to peers through [`Sockets`].
#[derive(Debug)]
pub struct SocketSender {
    offload: bool,
    /// Longer segments would have to be fragmented, which offload can't do.
    offload_segment_max_bytes: usize,
    datagram_max_bytes: usize,
    /// A send to the group failed because the interface, or its address, is gone.
    is_cut_off: bool,
}

/// What becomes of a datagram whose send failed.
enum Verdict {
    /// No room now: the caller tries again later.
    Full,
    /// The kernel refuses to cut this packet.
    OffloadRefused,
    /// The error is about an earlier datagram, reported late: try again.
    Stale,
    /// The interface, or its address, is gone: lost, as all that is sent until the port has followed.
    CutOff,
    /// The port has failed for good.
    Final(io::Error),
}

/// Bytes of IP and UDP before a datagram's payload.
pub(crate) fn headers_bytes(group: std::net::SocketAddr) -> usize {
    if group.is_ipv4() { 20 + 8 } else { 40 + 8 }
}

impl SocketSender {
    /// For sockets opened with these options.
    pub fn new(options: &UdpOptions, sockets: &Sockets) -> Self {
        let headers_bytes = headers_bytes(options.group);
        Self {
            offload: options.offload,
            offload_segment_max_bytes: sockets.interface().mtu_bytes.saturating_sub(headers_bytes),
            datagram_max_bytes: options.datagram_max_bytes,
            is_cut_off: false,
        }
    }

    /// Whether a send to the group has failed because the interface, or its address, is gone.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// The interface is there.
    pub(crate) fn note_way(&mut self) {
        self.is_cut_off = false;
    }

    /// What these sockets can carry.
    pub fn limits(&self, sockets: &Sockets) -> Limits {
        Limits {
            datagram_max_bytes: self.datagram_max_bytes,
            receive_buffer_bytes: sockets.receive_buffer_bytes(),
            segments_max: if self.offload { SEGMENTS_MAX } else { 1 },
        }
    }

    /// As [`Port::send`](bourdon_port::Port::send).
    pub fn send(&mut self, sockets: &Sockets, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        assert!(
            (1..=self.datagram_max_bytes).contains(&segment_bytes),
            "segments of {segment_bytes} bytes; 1 to {} fit",
            self.datagram_max_bytes
        );
        match to {
            To::Group => self.send_run(sockets.sender(), None, bytes, segment_bytes),
            To::Broadcast => {
                let Some(socket) = sockets.broadcast() else { return Ok(bytes.len().div_ceil(segment_bytes)) };
                let mut least = usize::MAX;
                for target in sockets.broadcast_targets() {
                    least = least.min(self.send_run(socket, Some(target), bytes, segment_bytes)?);
                }
                Ok(least)
            }
            To::Peer(address) => {
                let address = sockets.interface().scoped(address);
                if address.is_ipv4() != sockets.local_address().is_ipv4() || address.port() == 0 {
                    // No process can have this address. It came from a frame, and a frame's contents must not end the
                    // port.
                    return Ok(bytes.len().div_ceil(segment_bytes));
                }
                self.send_run(sockets.unicast(), Some(address), bytes, segment_bytes)
            }
        }
    }

    fn send_run(
        &mut self,
        socket: BorrowedFd<'_>,
        peer: Option<SocketAddr>,
        bytes: &[u8],
        segment_bytes: usize,
    ) -> Result<usize, PortError> {
        let name = peer.map(SockAddr::from);
        let mut run_segments = if self.offload && segment_bytes <= self.offload_segment_max_bytes {
            SEGMENTS_MAX.min(UDP_PAYLOAD_MAX_BYTES / segment_bytes)
        } else {
            1
        };
        let (mut rest, mut taken, mut stale_errors) = (bytes, 0, 0);
        while !rest.is_empty() {
            let (packet, later) = rest.split_at(rest.len().min(run_segments * segment_bytes));
            // `segment_bytes` is at most UDP_PAYLOAD_MAX_BYTES: it fits 16 bits.
            let cut = (packet.len() > segment_bytes).then_some(segment_bytes as u16);
            match message::send(socket, name.as_ref(), packet, cut) {
                Ok(()) => {}
                Err(error) => match judge(error, cut.is_some()) {
                    Verdict::Full => return Ok(taken),
                    Verdict::OffloadRefused => {
                        // A peer's address can be at fault too, so only the group's traffic decides for good.
                        self.offload &= peer.is_some();
                        run_segments = 1;
                        continue;
                    }
                    Verdict::Stale if stale_errors < STALE_ERRORS_MAX => {
                        stale_errors += 1;
                        continue;
                    }
                    Verdict::CutOff => self.is_cut_off |= peer.is_none(),
                    Verdict::Final(source) if peer.is_none() => {
                        return Err(PortError::Io { doing: "sending to the group", source });
                    }
                    // Lost on the way, as any datagram may be: one unreachable peer is not the port's end.
                    Verdict::Stale | Verdict::Final(_) => {}
                },
            }
            taken += packet.len().div_ceil(segment_bytes);
            rest = later;
            stale_errors = 0;
        }
        Ok(taken)
    }
}

fn judge(error: io::Error, is_cut: bool) -> Verdict {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Verdict::Full,
        Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP | libc::EMSGSIZE | libc::ENOPROTOOPT) if is_cut => {
            Verdict::OffloadRefused
        }
        Some(libc::ENODEV | libc::ENXIO | libc::ENETDOWN | libc::ENETUNREACH | libc::EADDRNOTAVAIL) => Verdict::CutOff,
        // EPERM: a packet filter of this host dropped the datagram.
        Some(libc::EPERM) => Verdict::Stale,
        _ if is_passing(&error) => Verdict::Stale,
        _ => Verdict::Final(error),
    }
}

/// Whether `error` is an ICMP message about an earlier datagram, which the kernel reports at the next call.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::EACCES
        )
    )
}
