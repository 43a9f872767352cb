//! Notices that the host has changed an interface.
//!
//! Sockets outlive what they are bound to: when an interface is removed and made again, or gets another address, they
//! stay open, send from an address that no process answers to, and receive nothing, without an error. The list of all
//! interfaces shows it, and costs some 50 µs: too much for a thread that moves datagrams. The kernel announces each
//! change on a netlink socket. Reading that is one call that returns nothing, so the list is read only after a change
//! of this interface, after a send that failed for want of it, and at intervals while it is unusable.
//!
//! A port without an interface of its own, over TCP, watches all of them.
//!
//! Invariants: nothing here waits; announcements that were lost because too many came count as a change.
//!
//! Source: rtnetlink(7), netlink(7).

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// How often the interface is looked up while it is unusable, or sends to it fail, though nothing is announced.
const RETRY: Duration = Duration::from_millis(200);
/// Some sixty announcements; what does not fit comes with the next call.
const BUFFER_BYTES: usize = 8 << 10;
/// The header of an announcement, and where the interface's index follows.
const HEADER_BYTES: usize = 16;
const INDEX_AT: usize = HEADER_BYTES + 4;

/// The kernel's announcements, and when to look though there is none.
#[derive(Debug)]
pub struct Watch {
    /// None where the kernel refuses it: then failed sends report the change.
    socket: Option<Socket>,
    retry_at: Option<Instant>,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Begins to collect announcements.
    pub fn open() -> Self {
        Self { socket: open().ok(), retry_at: None, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() }
    }

    /// Whether the interface should be looked up: the kernel has announced a change of the one with this index, of any
    /// if there is none; or it is unusable, or sends to it fail, and it has not been looked up for a while.
    pub fn is_due(&mut self, index: Option<u32>, has_failed: bool) -> bool {
        let mut is_due = self.take_announcements(index);
        if has_failed {
            let now = Instant::now();
            is_due |= self.retry_at.is_none_or(|at| at <= now);
            if is_due {
                self.retry_at = Some(now + RETRY);
            }
        }
        is_due
    }

    fn take_announcements(&mut self, index: Option<u32>) -> bool {
        let Some(mut socket) = self.socket.as_ref() else { return false };
        let mut is_due = false;
        loop {
            match socket.read(&mut self.buffer) {
                Ok(length) => is_due |= concerns(&self.buffer[..length], index),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_due = true,
                Err(_) => return is_due,
            }
        }
    }
}

/// A socket that receives what the kernel announces of interfaces and their addresses.
fn open() -> io::Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_ROUTE);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // SAFETY: sockaddr_nl is plain C data for which all zeroes is a valid value.
    let mut name: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    name.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    name.nl_groups = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
    let mut storage = SockAddrStorage::zeroed();
    let length = size_of_val(&name);
    // SAFETY: the storage is made for any address, this one included, and the two don't overlap.
    unsafe { std::ptr::copy_nonoverlapping((&raw const name).cast::<u8>(), (&raw mut storage).cast::<u8>(), length) };
    // SAFETY: the storage now starts with `length` bytes of a valid address and is zero behind them.
    socket.bind(&unsafe { SockAddr::new(storage, length as libc::socklen_t) })?;
    Ok(socket)
}

/// Whether one of these announcements is about the interface with this index, or about any if none is given.
fn concerns(mut bytes: &[u8], index: Option<u32>) -> bool {
    let word = |bytes: &[u8], at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
    while let Some(length) = word(bytes, 0) {
        let Some(of) = word(bytes, INDEX_AT) else { return false };
        if index.is_none_or(|index| index == of) {
            return true;
        }
        let length = (length as usize).max(HEADER_BYTES).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(index: u32, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(4) as usize];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[INDEX_AT..INDEX_AT + 4].copy_from_slice(&index.to_ne_bytes());
        bytes
    }

    #[test]
    fn an_announcement_concerns_the_interface_that_it_names() {
        let both = [announcement(3, 33), announcement(5, 32)].concat();
        assert!(concerns(&both, Some(3)) && concerns(&both, Some(5)) && concerns(&both, None));
        assert!(!concerns(&both, Some(4)));
    }

    #[test]
    fn damaged_announcements_end() {
        for bytes in [&[][..], &[0; 3], &[0; 64], &[0xFF; 64]] {
            assert!(!concerns(bytes, Some(7)));
        }
        assert!(!concerns(&announcement(3, 32)[..INDEX_AT], Some(3)), "cut short");
    }

    #[test]
    fn without_a_change_nothing_is_due_but_after_a_failure_it_is_at_intervals() {
        let mut watch = Watch::open();
        watch.is_due(Some(u32::MAX), false); // what other tests change in this namespace
        assert!(!watch.is_due(Some(u32::MAX), false));
        assert!(watch.is_due(Some(u32::MAX), true));
        assert!(!watch.is_due(Some(u32::MAX), true), "too soon");
    }
}
