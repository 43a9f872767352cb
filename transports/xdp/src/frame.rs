//! Ethernet, IP and UDP headers: written before a datagram, and read off a frame.
//!
//! The headers of one destination differ from datagram to datagram in the lengths and the checksums only, so they are
//! made once (a [`Template`]) and filled in. Both checksums are computed here: a frame that bypasses the kernel gets
//! none from it.
//!
//! Nothing about a received frame is believed: its lengths are checked against what came. Its UDP checksum is not:
//! between virtual interfaces of one host the kernel leaves it unfinished, and Bourdon's datagrams have their own.
//!
//! Source: RFC 894, RFC 791, RFC 8200, RFC 768, RFC 1071 (checksums), RFC 1112 §6.4 and RFC 2464 §7 (addresses of
//! groups).

use std::net::{IpAddr, SocketAddr};

pub(crate) const ETHERNET_BYTES: usize = 14;
pub(crate) const IPV4_BYTES: usize = 20;
pub(crate) const IPV6_BYTES: usize = 40;
pub(crate) const UDP_BYTES: usize = 8;
/// The longest headers.
pub(crate) const HEADERS_MAX_BYTES: usize = ETHERNET_BYTES + IPV6_BYTES + UDP_BYTES;

/// An address of an Ethernet interface.
pub(crate) type Mac = [u8; 6];

/// The Ethernet address of a multicast group.
pub(crate) fn mac_of_group(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// The sum of big-endian 16-bit words, before its complement; the last byte counts as a word's upper half.
fn sum(bytes: &[u8]) -> u64 {
    // Sums of native words, swapped once at the end: one's-complement addition does not depend on the byte order.
    let mut sum = 0u64;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        sum += u64::from(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let rest = chunks.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(sum)))
}

/// The same sum in 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The headers of all datagrams from one address to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    bytes: [u8; HEADERS_MAX_BYTES],
    length: usize,
    is_ipv4: bool,
    /// The sums of what never changes.
    ip_sum: u64,
    udp_sum: u64,
}

impl Template {
    /// From this process's `own` address to `to`; the datagrams cross at most `ttl` networks.
    pub(crate) fn new(from: (Mac, SocketAddr), to: (Mac, SocketAddr), ttl: u8) -> Self {
        let ((from_mac, from), (to_mac, to)) = (from, to);
        assert!(from.is_ipv4() == to.is_ipv4(), "both ends have one family");
        let mut bytes = Vec::with_capacity(HEADERS_MAX_BYTES);
        bytes.extend(to_mac);
        bytes.extend(from_mac);
        let mut pseudo = libc::IPPROTO_UDP as u64;
        let mut ip_sum = 0;
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                bytes.extend([0x08, 0x00]);
                // Version and length; service; length; identification; don't fragment; time to live; protocol; sum.
                bytes.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, libc::IPPROTO_UDP as u8, 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                ip_sum = sum(&bytes[ETHERNET_BYTES..]);
                pseudo += sum(&bytes[ETHERNET_BYTES + 12..]);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend([0x86, 0xdd]);
                // Version, class and flow; length; next header; hop limit.
                bytes.extend([0x60, 0, 0, 0, 0, 0, libc::IPPROTO_UDP as u8, ttl]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                pseudo += sum(&bytes[ETHERNET_BYTES + 8..]);
            }
            _ => unreachable!("both ends have one family"),
        }
        bytes.extend(from.port().to_be_bytes());
        bytes.extend(to.port().to_be_bytes());
        bytes.extend([0; 4]);
        let udp_sum = pseudo + u64::from(from.port()) + u64::from(to.port());
        let mut headers = [0; HEADERS_MAX_BYTES];
        headers[..bytes.len()].copy_from_slice(&bytes);
        Self { bytes: headers, length: bytes.len(), is_ipv4: from.is_ipv4(), ip_sum, udp_sum }
    }

    /// Writes the frame that carries `payload`; returns its length.
    pub(crate) fn write(&self, payload: &[u8], frame: &mut [u8]) -> usize {
        let length = self.length + payload.len();
        let (headers, rest) = frame.split_at_mut(self.length);
        headers.copy_from_slice(&self.bytes[..self.length]);
        rest[..payload.len()].copy_from_slice(payload);
        let udp_bytes = (UDP_BYTES + payload.len()) as u16;
        let ip = &mut headers[ETHERNET_BYTES..];
        if self.is_ipv4 {
            let total = IPV4_BYTES as u16 + udp_bytes;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[10..12].copy_from_slice(&(!fold(self.ip_sum + u64::from(total))).to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
        }
        // The length counts in the pseudo-header and in the header.
        let udp_sum = !fold(self.udp_sum + 2 * u64::from(udp_bytes) + sum(payload));
        let udp_sum = if udp_sum == 0 { 0xffff } else { udp_sum }; // 0 stands for "none"
        let udp = &mut headers[self.length - UDP_BYTES..];
        udp[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
        udp[6..8].copy_from_slice(&udp_sum.to_be_bytes());
        length
    }
}

/// A datagram within a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) from: IpAddr,
    pub(crate) is_to_group: bool,
}

/// The UDP datagram in a frame that the program has let through; none where its lengths disagree.
pub(crate) fn read(frame: &[u8], is_ipv4: bool) -> Option<Datagram<'_>> {
    let ip = frame.get(ETHERNET_BYTES..)?;
    let (from, is_to_group, packet) = if is_ipv4 {
        let header = ip.first_chunk::<IPV4_BYTES>()?;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let from = IpAddr::from([header[12], header[13], header[14], header[15]]);
        (from, header[16] & 0xf0 == 0xe0, ip.get(IPV4_BYTES..total)?)
    } else {
        let header = ip.first_chunk::<IPV6_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let from: [u8; 16] = header[8..24].try_into().expect("sixteen bytes");
        (IpAddr::from(from), header[24] == 0xff, ip.get(IPV6_BYTES..IPV6_BYTES + length)?)
    };
    let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    Some(Datagram { payload: packet.get(UDP_BYTES..length)?, from, is_to_group })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(from: &str, to: &str) -> Template {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().expect("valid"), to.parse().expect("valid"));
        Template::new(([2, 0, 0, 0, 0, 1], from), (mac_of_group(to.ip()), to), 1)
    }

    /// The slow way: the definition of RFC 1071.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for (from, to) in [("10.0.0.1:7000", "239.1.130.3:7400"), ("[fd00::1]:7000", "[ff15::aabb:ccdd]:7400")] {
            let template = template(from, to);
            for length in [0, 1, 2, 3, 63, 64, 1407, 1408] {
                let payload: Vec<u8> = (0..length).map(|i| (i * 7 + 3) as u8).collect();
                let mut frame = vec![0xee; 1600];
                let bytes = template.write(&payload, &mut frame);
                frame.truncate(bytes.max(60)); // Ethernet pads short frames
                let read = read(&frame, from.starts_with('1')).expect("it is a datagram");
                assert_eq!((read.payload, read.is_to_group), (&payload[..], true));
            }
        }
    }

    #[test]
    fn both_checksums_are_those_of_the_definition() {
        for (from, to) in [("10.0.0.1:7000", "239.1.130.3:7400"), ("[fd00::1]:65535", "[ff15::aabb:ccdd]:7400")] {
            let is_ipv4 = from.starts_with('1');
            let template = template(from, to);
            for length in [0, 1, 5, 1408] {
                let payload: Vec<u8> = (0..length).map(|i| (i * 31 + 200) as u8).collect();
                let mut frame = vec![0; 1600];
                let bytes = template.write(&payload, &mut frame);
                let packet = &frame[ETHERNET_BYTES..bytes];
                let (addresses, udp) = if is_ipv4 {
                    assert_eq!(reference(&packet[..IPV4_BYTES]), 0, "the header sums up to zero with its checksum");
                    (&packet[12..20], &packet[IPV4_BYTES..])
                } else {
                    (&packet[8..40], &packet[IPV6_BYTES..])
                };
                let mut pseudo = addresses.to_vec();
                pseudo.extend((udp.len() as u32).to_be_bytes());
                pseudo.extend([0, 0, 0, libc::IPPROTO_UDP as u8]);
                pseudo.extend(udp);
                assert_eq!(reference(&pseudo), 0, "{length} bytes from {from}");
            }
        }
    }

    #[test]
    fn groups_have_the_addresses_of_the_standards() {
        assert_eq!(mac_of_group("239.255.1.2".parse().expect("valid")), [0x01, 0, 0x5e, 0x7f, 1, 2]);
        assert_eq!(mac_of_group("ff15::1:203".parse().expect("valid")), [0x33, 0x33, 0, 1, 2, 3]);
    }

    #[test]
    fn damaged_frames_are_no_datagrams() {
        let template = template("10.0.0.1:7000", "239.1.130.3:7400");
        let mut frame = vec![0; 200];
        let bytes = template.write(&[7; 100], &mut frame);
        frame.truncate(bytes);
        for cut in 0..bytes {
            assert_eq!(read(&frame[..cut], true), None, "cut to {cut} bytes");
        }
        for at in [ETHERNET_BYTES + 2, ETHERNET_BYTES + IPV4_BYTES + 4] {
            for lie in [0u16, 7, 0xffff] {
                let mut frame = frame.clone();
                frame[at..at + 2].copy_from_slice(&lie.to_be_bytes());
                assert_eq!(read(&frame, true), None, "{lie} at {at}");
            }
        }
    }
}
