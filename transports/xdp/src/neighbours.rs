//! The Ethernet addresses of peers, as the kernel has found them out.
//!
//! Finding a neighbour's address is the kernel's business: ARP and neighbour discovery with their caches, time-outs and
//! defences. So a datagram to a peer whose address is not known goes through the kernel, which asks for it; from the
//! next look at the kernel's table on, datagrams to it bypass the kernel. Once in [`TRUST`] one goes through the kernel
//! again, so that the kernel sees the neighbour in use and asks again when it should. A peer that is no neighbour,
//! because a router or this host itself lies between, is never in the table, and its datagrams always go through the
//! kernel.
//!
//! Source: rtnetlink(7); RFC 826, RFC 4861.

use crate::frame::Mac;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

/// How long an address from the kernel's table is used without asking the kernel again.
pub(crate) const TRUST: Duration = Duration::from_secs(1);

const GET: u16 = 30; // RTM_GETNEIGH
const NEW: u16 = 28; // RTM_NEWNEIGH
const DONE: u16 = 3;
const REQUEST_DUMP: u16 = 0x301;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 12;
const DESTINATION: u16 = 1;
const LINK_ADDRESS: u16 = 2;
/// Reachable, stale, to be probed, probed, permanent: states in which the kernel itself would use the address.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

/// The kernel's table of neighbours on one interface.
#[derive(Debug)]
pub(crate) struct Neighbours {
    socket: Socket,
    ifindex: u32,
    buffer: Vec<u8>,
}

impl Neighbours {
    pub(crate) fn open(ifindex: u32) -> io::Result<Self> {
        let protocol = Protocol::from(libc::NETLINK_ROUTE);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        // A part of a listing is at most so long.
        Ok(Self { socket, ifindex, buffer: vec![0; 32 << 10] })
    }

    /// Calls `take` with each neighbour that the kernel knows of the family of `like`.
    pub(crate) fn list(&mut self, like: IpAddr, mut take: impl FnMut(IpAddr, Mac)) -> io::Result<()> {
        let family = if like.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let mut request = [0; HEADER_BYTES + ENTRY_BYTES];
        request[..4].copy_from_slice(&((HEADER_BYTES + ENTRY_BYTES) as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&GET.to_ne_bytes());
        request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
        request[HEADER_BYTES] = family as u8;
        self.socket.send(&request)?;
        loop {
            let length = self.socket.read(&mut self.buffer)?;
            if !each_entry(&self.buffer[..length], self.ifindex, &mut take) {
                return Ok(());
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// Calls `take` with each entry of one part of a listing; false if it was the last part.
fn each_entry(mut bytes: &[u8], ifindex: u32, take: &mut impl FnMut(IpAddr, Mac)) -> bool {
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        if kind != NEW {
            return kind != DONE && kind != libc::NLMSG_ERROR as u16;
        }
        let Some(message) = bytes.get(HEADER_BYTES..length as usize) else { return false };
        let is_here = word(message, 4) == Some(ifindex);
        let is_usable = half(message, 8).is_some_and(|state| state & USABLE != 0);
        if is_here
            && is_usable
            && let Some((ip, mac)) = entry(message)
        {
            take(ip, mac);
        }
        bytes = bytes.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// The two addresses of an entry.
fn entry(message: &[u8]) -> Option<(IpAddr, Mac)> {
    let (mut ip, mut mac) = (None, None);
    let mut attributes = message.get(ENTRY_BYTES..)?;
    while let (Some(length), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let value = attributes.get(4..usize::from(length))?;
        match kind {
            DESTINATION if value.len() == 4 => ip = value.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
            DESTINATION => ip = value.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
            LINK_ADDRESS if value.len() == 6 => mac = value.first_chunk().copied(),
            _ => {}
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    ip.zip(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(ifindex: u32, state: u16, ip: &[u8], mac: &[u8]) -> Vec<u8> {
        let mut message = vec![libc::AF_INET as u8, 0, 0, 0];
        message.extend(ifindex.to_ne_bytes());
        message.extend(state.to_ne_bytes());
        message.extend([0, 1]);
        for (kind, value) in [(DESTINATION, ip), (LINK_ADDRESS, mac)] {
            message.extend((4 + value.len() as u16).to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        let mut bytes = ((HEADER_BYTES + message.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(NEW.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(message);
        bytes
    }

    fn read(bytes: &[u8]) -> Vec<(IpAddr, Mac)> {
        let mut found = Vec::new();
        each_entry(bytes, 7, &mut |ip, mac| found.push((ip, mac)));
        found
    }

    #[test]
    fn usable_entries_of_the_interface_are_listed() {
        let mac = [2, 0, 0, 0, 0, 9];
        let all = [
            listing(7, 0x04, &[10, 0, 0, 2], &mac),
            listing(8, 0x04, &[10, 0, 0, 3], &mac), // of another interface
            listing(7, 0x20, &[10, 0, 0, 4], &mac), // failed
            listing(7, 0x02, &[10, 0, 0, 5], &[]),  // without an address
            listing(7, 0x02, &[10, 0, 0, 6], &mac),
        ]
        .concat();
        assert_eq!(read(&all), [([10, 0, 0, 2].into(), mac), ([10, 0, 0, 6].into(), mac)]);
    }

    #[test]
    fn damaged_listings_end() {
        let whole = listing(7, 0x04, &[10, 0, 0, 2], &[2, 0, 0, 0, 0, 9]);
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), []);
        }
        for at in 0..whole.len() {
            for lie in [0, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = lie;
                read(&damaged);
            }
        }
    }
}
