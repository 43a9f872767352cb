//! What two processes exchange on their connection: one message each way, with two descriptors.
//!
//! ```text
//! hello, 64 bytes:  "bshm"  version u16  place u16  group  unicast address  source of its multicasts  0 × 2
//! each of the three: address 16 bytes (IPv4 as ::ffff:a.b.c.d)  port u16; without multicasts the last one is 0
//! descriptors:      the sender's log, the eventfd that wakes it
//! ```
//!
//! Integers are little-endian. A message of another length, or with other descriptors, ends the connection.

use bourdon_port::Origin;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

pub(crate) const HELLO_BYTES: usize = 64;
const ADDRESS_BYTES: usize = 18;
const MAGIC: [u8; 4] = *b"bshm";
const VERSION: u16 = 2;
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(2));

/// A process, as it introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) place: u16,
    pub(crate) group: SocketAddr,
    pub(crate) origin: Origin,
}

/// What a connection brought.
#[derive(Debug)]
pub(crate) enum Received {
    Nothing,
    /// A process, its log, and its eventfd.
    Hello(Hello, OwnedFd, OwnedFd),
    /// The connection is over: the process at the other end is gone, or what it sent is no hello.
    End,
}

impl Hello {
    pub(crate) fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.place.to_le_bytes());
        let nowhere = SocketAddr::from(([0; 16], 0));
        let addresses = [self.group, self.origin.address, self.origin.group_source.unwrap_or(nowhere)];
        for (place, address) in bytes[8..].chunks_exact_mut(ADDRESS_BYTES).zip(addresses) {
            let ip = match address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            place[..16].copy_from_slice(&ip.octets());
            place[16..].copy_from_slice(&address.port().to_le_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let address = |place: usize| {
            let at = 8 + place * ADDRESS_BYTES;
            let ip: [u8; 16] = std::array::from_fn(|byte| bytes[at + byte]);
            SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), number(at + 16))
        };
        let is_known = bytes[..4] == MAGIC && number(4) == VERSION && (1..=super::place::PLACES).contains(&number(6));
        let group_source = Some(address(2)).filter(|source| source.port() != 0);
        let origin = Origin { address: address(1), group_source };
        is_known.then(|| Self { place: number(6), group: address(0), origin })
    }

    /// Sends this with the two descriptors. The kernel takes it whole or not at all.
    pub(crate) fn send(self, socket: &OwnedFd, log: BorrowedFd<'_>, event: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let (bytes, mut space) = (self.to_bytes(), [MaybeUninit::uninit(); ANCILLARY_BYTES]);
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [log, event];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "the space is made for two");
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags).map(|_| ())
    }
}

/// Takes in what has come on a connection.
pub(crate) fn receive(socket: &OwnedFd) -> Received {
    let (mut bytes, mut space) = ([0; HELLO_BYTES + 1], [MaybeUninit::uninit(); ANCILLARY_BYTES]);
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let length = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
        Ok(message) => message.bytes,
        Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
        Err(_) => return Received::End,
    };
    // Collected so that those too many are closed.
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let Some(hello) = bytes.first_chunk().filter(|_| length == HELLO_BYTES).and_then(Hello::parse) else {
        return Received::End;
    };
    match <[OwnedFd; 2]>::try_from(descriptors) {
        Ok([log, event]) => Received::Hello(hello, log, event),
        Err(_) => Received::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_survive_the_way() {
        for (group, ip) in [("239.1.2.3:7400", "10.1.2.3"), ("[ff15::1]:65535", "fd00::1")] {
            let at = |port| SocketAddr::new(ip.parse().expect("an address"), port);
            let origin = Origin { address: at(7), group_source: Some(at(8)) };
            let hello = Hello { place: 128, group: group.parse().expect("an address"), origin };
            let silent = Hello { origin: Origin { group_source: None, ..origin }, ..hello };
            assert_eq!(Hello::parse(&silent.to_bytes()), Some(silent));
            let bytes = hello.to_bytes();
            assert_eq!(Hello::parse(&bytes), Some(hello));
            for (at, value) in [(0, b'x'), (4, 1), (6, 0), (7, 1)] {
                let mut bytes = bytes;
                bytes[at] = value;
                let mut place_0 = bytes;
                place_0[7] = 0;
                assert!(Hello::parse(&bytes).is_none_or(|it| it.place != 128) || Hello::parse(&place_0).is_none());
            }
        }
    }
}
