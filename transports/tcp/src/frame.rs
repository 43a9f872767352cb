//! What stands in a connection's bytes: a hello, then datagrams, each behind its length.
//!
//! A stream has no edges, so a sender of garbage could make a reader wait for four gigabytes, or take them. Here every
//! length is checked against the longest datagram before anything is kept, and whatever is not as it should be ends the
//! connection that brought it.
//!
//! ```text
//! hello, 32 bytes:  "bdtm"  version u8  0  port u16  token u64  address 16 bytes (IPv4 as ::ffff:a.b.c.d)
//! datagram:         u32: bit 31: for the group; bits 0 to 30: its length, then its bytes       all little-endian
//! ```
//!
//! Invariants: decoding is total; a hello is read before anything else; a datagram has at least one byte.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// What every connection begins with.
pub(crate) const HELLO_BYTES: usize = 32;
/// What stands before each datagram.
pub(crate) const PREFIX_BYTES: usize = 4;

const MAGIC: [u8; 4] = *b"bdtm";
const VERSION: u8 = 1;
const FOR_GROUP: u32 = 1 << 31;

/// The identity of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Distinguishes groups.
    pub(crate) token: u64,
    /// Where it listens, or at least the address that identifies it.
    pub(crate) address: SocketAddr,
}

impl Hello {
    pub(crate) fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[6..8].copy_from_slice(&self.address.port().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.token.to_le_bytes());
        let ip = match self.address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytes[16..].copy_from_slice(&ip.octets());
        bytes
    }

    /// What `bytes` begin with, if that is a hello of this version with an address that a process can have.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HELLO_BYTES] = bytes.first_chunk()?;
        if bytes[..4] != MAGIC || bytes[4] != VERSION || bytes[5] != 0 {
            return None;
        }
        let port = u16::from_le_bytes([bytes[6], bytes[7]]);
        let token = u64::from_le_bytes(*bytes[8..].first_chunk()?);
        let ip = Ipv6Addr::from(*bytes[16..].first_chunk::<16>()?).to_canonical();
        let unusable = port == 0 || ip.is_unspecified() || ip.is_multicast();
        (!unusable).then_some(Self { token, address: SocketAddr::new(ip, port) })
    }
}

/// Writes the datagrams of a run behind their lengths, replacing what is in `framed`.
pub(crate) fn frame(framed: &mut Vec<u8>, for_group: bool, bytes: &[u8], segment_bytes: usize) {
    framed.clear();
    let group = if for_group { FOR_GROUP } else { 0 };
    for datagram in bytes.chunks(segment_bytes) {
        framed.extend_from_slice(&(datagram.len() as u32 | group).to_le_bytes());
        framed.extend_from_slice(datagram);
    }
}

/// What bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// No whole datagram yet.
    Partial,
    /// Nothing that could become one.
    Garbage,
    /// A datagram, and whether it is for the group.
    Datagram(Range<usize>, bool),
}

/// Parses the beginning of `bytes`.
#[inline]
pub(crate) fn head(bytes: &[u8], datagram_max_bytes: usize) -> Head {
    let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else { return Head::Partial };
    let word = u32::from_le_bytes(*prefix);
    let length = (word & !FOR_GROUP) as usize;
    if length == 0 || length > datagram_max_bytes {
        return Head::Garbage;
    }
    let place = PREFIX_BYTES..PREFIX_BYTES + length;
    if bytes.len() < place.end { Head::Partial } else { Head::Datagram(place, word & FOR_GROUP != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_comes_back_and_a_damaged_one_does_not() {
        for address in ["127.0.0.1:7500", "[::1]:1", "[fd77::3]:65535"] {
            let hello = Hello { token: 0x0123_4567_89ab_cdef, address: address.parse().expect("an address") };
            let bytes = hello.to_bytes();
            assert_eq!(Hello::parse(&bytes), Some(hello));
            assert_eq!(Hello::parse(&bytes[..HELLO_BYTES - 1]), None);
            for place in 0..6 {
                let mut damaged = bytes;
                damaged[place] ^= 1;
                assert_eq!(Hello::parse(&damaged), None, "byte {place}");
            }
        }
        for unusable in ["0.0.0.0:5", "127.0.0.1:0", "239.1.1.1:5", "[::]:5", "[ff02::1]:5"] {
            let address = unusable.parse().expect("an address");
            assert_eq!(Hello::parse(&Hello { token: 1, address }.to_bytes()), None, "{unusable}");
        }
    }

    #[test]
    fn runs_are_cut_as_they_were_framed() {
        let mut framed = vec![9; 3];
        frame(&mut framed, true, b"abcdefg", 3);
        let (mut rest, mut got) = (&framed[..], Vec::new());
        while let Head::Datagram(place, true) = head(rest, 3) {
            got.push(rest[place.clone()].to_vec());
            rest = &rest[place.end..];
        }
        assert_eq!((got, rest.len()), (vec![b"abc".to_vec(), b"def".to_vec(), b"g".to_vec()], 0));
    }

    #[test]
    fn every_beginning_is_distinguished() {
        assert_eq!(head(&[], 10), Head::Partial);
        assert_eq!(head(&[3, 0, 0], 10), Head::Partial);
        assert_eq!(head(&[3, 0, 0, 0, 1, 2], 10), Head::Partial);
        assert_eq!(head(&[3, 0, 0, 0, 1, 2, 3, 4], 10), Head::Datagram(4..7, false));
        assert_eq!(head(&[3, 0, 0, 0x80, 1, 2, 3], 10), Head::Datagram(4..7, true));
        for garbage in [[0, 0, 0, 0], [0, 0, 0, 0x80], [11, 0, 0, 0], [255; 4], *b"GET "] {
            assert_eq!(head(&garbage, 10), Head::Garbage, "{garbage:?}");
        }
    }
}
