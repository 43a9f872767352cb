//! Records real traffic, and replays it later.
//!
//! A group that was started again may receive what its earlier instance had sent: datagrams that a switch, a capture or
//! an attacker kept. To test the group's reaction, the packets themselves are recorded, without interpretation. A
//! packet socket sees all packets in a network namespace; each IPv4 packet of UDP or TCP is recorded once, although a
//! switch shows it at every port. UDP is sent again with its original addresses. A TCP stream is reassembled from its
//! packets and written into a new connection to the same listener, from its first byte: the greeting, then the frames.
//!
//! Invariant: a recording is bounded; packets beyond the bound are not recorded.

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

/// The most packets of a recording: some minutes of a small group.
const PACKETS_MAX: usize = 60_000;
/// Copies of a packet arrive within this many packets.
const COPIES_WITHIN: usize = 512;
/// Every EtherType, in network order.
const ALL: u32 = (0x0003u16).to_be() as u32;
const ETHERNET_BYTES: usize = 14;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// The longest packet.
const PACKET_MAX: usize = 1 << 16;
/// The most UDP packets that are replayed: those from the beginning and from the end of a recording.
const REPLAYED_MAX: usize = 4_000;
/// The pause between two replayed packets, so that queues do not overflow.
const PACE: Duration = Duration::from_micros(100);

/// The fields of a packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Headers {
    protocol: u8,
    source: SocketAddrV4,
    target: SocketAddrV4,
    /// Where the payload begins in the packet.
    payload: usize,
    length: usize,
    /// TCP: the number of the first byte, and whether it opens the stream.
    sequence: u32,
    opens: bool,
}

fn headers(packet: &[u8]) -> Option<Headers> {
    let u16_at = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let first = *packet.first()?;
    let start = usize::from(first & 15) * 4;
    let length = usize::from(u16_at(2)?);
    let protocol = *packet.get(9)?;
    // Only the first fragment has ports; no packet here is fragmented.
    if first >> 4 != 4 || length > packet.len() || ![UDP, TCP].contains(&protocol) || u16_at(6)? & 0x3fff != 0 {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..at + 4)?.first_chunk::<4>()?));
    let source = SocketAddrV4::new(address(12)?, u16_at(start)?);
    let target = SocketAddrV4::new(address(16)?, u16_at(start + 2)?);
    let (payload, sequence, opens) = if protocol == UDP {
        (start + 8, 0, false)
    } else {
        let sequence = u32::from_be_bytes(*packet.get(start + 4..start + 8)?.first_chunk::<4>()?);
        let flags = *packet.get(start + 13)?;
        (start + usize::from(*packet.get(start + 12)? >> 4) * 4, sequence, flags & 2 != 0)
    };
    (payload <= length).then_some(Headers { protocol, source, target, payload, length, sequence, opens })
}

/// Records until killed.
///
/// # Errors
/// If a packet socket is not permitted, or the file can't be written.
pub fn record(file: &Path) -> std::io::Result<()> {
    let protocol = NonZeroU32::new(ALL).map(Protocol::from_raw);
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    let mut out = File::create(file)?;
    let mut buffer = vec![0; PACKET_MAX];
    let (mut recent, mut order) = (HashSet::new(), VecDeque::new());
    let mut kept = 0;
    loop {
        let length = match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::NETDOWN) => continue,
            Err(error) => return Err(error.into()),
        };
        let is_ipv4 = buffer[12..ETHERNET_BYTES] == [8, 0];
        let Some(packet) = buffer.get(ETHERNET_BYTES..length).filter(|_| is_ipv4) else { continue };
        let Some(headers) = headers(packet).filter(|headers| headers.opens || headers.length > headers.payload) else {
            continue;
        };
        let packet = &packet[..headers.length];
        let mut hasher = DefaultHasher::new();
        packet.hash(&mut hasher);
        if kept >= PACKETS_MAX || !recent.insert(hasher.finish()) {
            continue;
        }
        order.push_back(hasher.finish());
        if order.len() > COPIES_WITHIN {
            order.pop_front().map(|oldest| recent.remove(&oldest));
        }
        kept += 1;
        let mut line = (packet.len() as u32).to_le_bytes().to_vec();
        line.extend(packet);
        out.write_all(&line)?;
    }
}

fn read(file: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut reader = BufReader::new(File::open(file)?);
    let mut packets = Vec::new();
    let mut length = [0; 4];
    while reader.read_exact(&mut length).is_ok() {
        let mut packet = vec![0; (u32::from_le_bytes(length) as usize).min(PACKET_MAX)];
        if reader.read_exact(&mut packet).is_err() {
            break; // the recorder was killed
        }
        packets.push(packet);
    }
    Ok(packets)
}

/// Replays a recording: datagrams as they were, streams over new connections.
///
/// # Errors
/// If the file can't be read, or raw packets may not be sent.
pub fn replay(file: &Path) -> std::io::Result<()> {
    let packets = read(file)?;
    let of = |protocol: u8| {
        packets.iter().filter(move |packet| headers(packet).is_some_and(|headers| headers.protocol == protocol))
    };
    let datagrams: Vec<_> = of(UDP).collect();
    let streams = streams(of(TCP));
    let workers: Vec<_> =
        streams.into_iter().map(|(target, bytes)| std::thread::spawn(move || write_stream(target, &bytes))).collect();
    if !datagrams.is_empty() {
        let raw = Protocol::from_raw(NonZeroU32::new(255).expect("255 is not zero"));
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(raw))?;
        let skipped = datagrams.len().saturating_sub(REPLAYED_MAX);
        let kept = |at: &usize| *at < REPLAYED_MAX / 2 || *at >= REPLAYED_MAX / 2 + skipped;
        for (_, packet) in datagrams.iter().enumerate().filter(|(at, _)| kept(at)) {
            let Some(headers) = headers(packet) else { continue };
            let target = SocketAddrV4::new(*headers.target.ip(), 0);
            // A target that is gone by now refuses the packet.
            let _ = rustix::net::sendto(&socket, packet, SendFlags::empty(), &target);
            std::thread::sleep(PACE);
        }
    }
    for worker in workers {
        let _ = worker.join(); // a listener that closes the connection ends it
    }
    Ok(())
}

/// Bytes by their offset in a stream, from its opening on.
fn streams<'a>(packets: impl Iterator<Item = &'a Vec<u8>>) -> Vec<(SocketAddrV4, Vec<u8>)> {
    /// The sequence number of a stream's first byte, and its parts by their offsets.
    type Parts<'a> = (u32, BTreeMap<u32, &'a [u8]>);
    let mut opened: BTreeMap<(SocketAddrV4, SocketAddrV4), Parts<'a>> = BTreeMap::new();
    for packet in packets {
        let Some(headers) = headers(packet) else { continue };
        let key = (headers.source, headers.target);
        if headers.opens {
            opened.entry(key).or_insert((headers.sequence.wrapping_add(1), BTreeMap::new()));
        } else if let Some((first, parts)) = opened.get_mut(&key) {
            let at = headers.sequence.wrapping_sub(*first);
            let bytes = &packet[headers.payload..headers.length];
            let part = parts.entry(at).or_insert(bytes);
            if part.len() < bytes.len() {
                *part = bytes;
            }
        }
    }
    let joined = opened.into_iter().map(|((_, target), (_, parts))| {
        let mut stream = Vec::new();
        for (at, bytes) in parts {
            let at = at as usize;
            // A retransmission may begin anywhere; a part that was not recorded ends the stream.
            if at > stream.len() {
                break;
            }
            if at + bytes.len() > stream.len() {
                stream.extend(&bytes[stream.len() - at..]);
            }
        }
        (target, stream)
    });
    joined.filter(|(_, stream)| !stream.is_empty()).collect()
}

/// Writes a stream into a new connection; stops if the member has no listener there or closes the connection.
fn write_stream(target: SocketAddrV4, bytes: &[u8]) {
    let Ok(stream) = TcpStream::connect_timeout(&target.into(), Duration::from_millis(500)) else { return };
    let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
    let mut stream = BufWriter::new(stream);
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    std::thread::sleep(Duration::from_millis(200)); // what was written is read before the connection closes
}
