//! Keeps this process's own multicasts away from it.
//!
//! On one host every multicast comes back to its sender, since `IP_MULTICAST_LOOP` must be on for the other processes
//! and has no effect on `lo` at all. An echo that is received and then discarded costs a system call and a copy for
//! each run. There are three ways without one, the cheapest first; where the kernel refuses one, the next is taken:
//!
//! - *No loop* ([`UdpOptions::multicast_loop`]): where no other process of this host is in the group, the kernel makes
//!   no copy for this host.
//! - *A source of its own*: on `lo` all of 127.0.0.0/8 is this host. The sender takes an address that belongs to this
//!   process's unicast port, and the group's socket blocks that source. The kernel passes over the socket before it
//!   copies anything; where one socket remains, it finds it early and hands the packet over as it is.
//! - *A filter*: a classic BPF program on the group's socket discards an echo before it is queued. It needs no
//!   privilege. It sees the UDP header first, and one packet of segmentation offload as a whole, of which it judges
//!   the first segment: that is why all of a run must be alike. A load beyond the end of a packet would drop it, so the
//!   length is checked first and what is too short passes.
//!
//! The same filter keeps away what other processes of this host multicast, where this process hears them in another way
//! ([`Port::bypass`](bourdon_port::Port::bypass)): by their sources, which no process elsewhere can have.
//!
//! Source: ip(7); RFC 3678 §5.1.2 for blocked sources; `Documentation/networking/filter.rst` in the kernel; socket(7),
//! `SO_ATTACH_FILTER`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bourdon_port::{Echo, PortError};
use socket2::{SockFilter, Socket};

use crate::open::io_error;
use crate::options::UdpOptions;

/// Keeps what `sender` will send away from the group's socket, in the cheapest way that the kernel grants, and returns
/// the echo that its filter looks for. `block` blocks a source there. No other process has the same `unicast` address,
/// so none has the same source.
pub(crate) fn keep_away(
    options: &UdpOptions,
    (sender, unicast): (&Socket, SocketAddr),
    group: &Socket,
    block: impl FnOnce(IpAddr) -> Result<(), PortError>,
) -> Result<Option<Echo>, PortError> {
    let comes_back = options.multicast_loop || unicast.ip().is_loopback();
    let Some(echo) = options.echo.filter(|_| comes_back) else { return Ok(None) };
    // A process that names its sources names the interface's address.
    let source = source_of(unicast).filter(|_| options.sources.is_empty());
    // A sandbox may refuse either.
    if source.is_some_and(|source| block(source.ip()).is_ok() && sender.bind(&source.into()).is_ok()) {
        return Ok(None);
    }
    let Some(filter) = echo_filter(echo) else { return Ok(None) };
    group.attach_filter(&filter).map_err(io_error("attaching the echo filter"))?;
    Ok(Some(echo))
}

/// Keeps away what comes from `sources`, and what carries `echo`, in the place of what was kept away before. Where the
/// kernel refuses, all of it comes.
pub(crate) fn bypass(group: &Socket, echo: Option<Echo>, sources: impl Iterator<Item = SocketAddr>) {
    let mut filter = source_filter(sources);
    match echo.and_then(echo_filter) {
        Some(echo) => filter.extend(echo),
        None => filter.push(statement(libc::BPF_RET | libc::BPF_K, u32::MAX)),
    }
    if group.attach_filter(&filter).is_err() {
        let _ = group.detach_filter(); // rather than keep away for ever what was kept away before
    }
}

/// The source on `lo` that belongs to a unicast address there.
fn source_of(unicast: SocketAddr) -> Option<SocketAddr> {
    let [high, low] = unicast.port().to_be_bytes();
    let own = Ipv4Addr::new(127, 1, high, low);
    (unicast.ip() == Ipv4Addr::LOCALHOST).then(|| SocketAddr::from((own, 0)))
}

const UDP_HEADER_BYTES: u32 = 8;
/// Where a source's address is in the IP header of its family.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;

fn statement(code: u32, k: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, k)
}

fn jump(code: u32, k: u32, is_true: u8, is_false: u8) -> SockFilter {
    SockFilter::new(code as u16, is_true, is_false, k)
}

/// Drops what comes from one of `sources`, and goes on behind its end with everything else: one comparison for each
/// source that does not have the packet's port.
fn source_filter(sources: impl Iterator<Item = SocketAddr>) -> Vec<SockFilter> {
    use libc::{BPF_ABS, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SKF_NET_OFF};
    let load_port = || statement(BPF_LD | BPF_H | BPF_ABS, 0);
    let mut filter = vec![load_port()];
    for source in sources {
        let (at, bytes) = match source.ip() {
            IpAddr::V4(ip) => (SOURCE_V4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (SOURCE_V6, ip.octets().to_vec()),
        };
        let words = bytes.len() as u8 / 4;
        // Past the comparisons, the drop, and the load that is needed after a comparison only.
        filter.push(jump(BPF_JMP | BPF_JEQ | BPF_K, source.port().into(), 0, 2 * words + 2));
        for (place, word) in (0u8..).zip(bytes.chunks_exact(4)) {
            let word = u32::from_be_bytes(word.try_into().expect("four bytes"));
            let at = (SKF_NET_OFF as u32).wrapping_add(at + 4 * u32::from(place));
            filter.push(statement(BPF_LD | BPF_W | BPF_ABS, at));
            filter.push(jump(BPF_JMP | BPF_JEQ | BPF_K, word, 0, 2 * (words - 1 - place) + 1));
        }
        filter.push(statement(BPF_RET | BPF_K, 0)); // drop
        filter.push(load_port());
    }
    filter
}

/// Passes everything but what carries `echo`.
pub(crate) fn echo_filter(echo: Echo) -> Option<[SockFilter; 8]> {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_RET, BPF_W};
    // No datagram is as long as an offset that does not fit: then there is nothing to drop.
    let at = u32::try_from(echo.offset).ok()?.checked_add(UDP_HEADER_BYTES)?;
    let end = at.checked_add(8)?;
    let [high, low] = [&echo.bytes[..4], &echo.bytes[4..]]
        .map(|half| u32::from_be_bytes(half.try_into().expect("half of eight bytes")));
    Some([
        statement(BPF_LD | BPF_W | BPF_LEN, 0),
        jump(BPF_JMP | BPF_JGE | BPF_K, end, 0, 4),
        statement(BPF_LD | BPF_W | BPF_ABS, at),
        jump(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 2),
        statement(BPF_LD | BPF_W | BPF_ABS, at + 4),
        jump(BPF_JMP | BPF_JEQ | BPF_K, low, 1, 0),
        statement(BPF_RET | BPF_K, u32::MAX), // pass, all of it
        statement(BPF_RET | BPF_K, 0),        // drop
    ])
}
