//! Ports that no other test has.

use bourdon_shm::{ShmOptions, ShmPort};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port number that no other test uses; tests of other checkouts may run beside these.
pub(crate) fn fresh_number() -> u16 {
    static NUMBERS: AtomicU16 = AtomicU16::new(1);
    (std::process::id() as u16).wrapping_mul(509) ^ NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// A port into a group at this port number.
pub(crate) fn open(number: u16) -> ShmPort {
    ShmPort::open(&options(number)).expect("a port")
}

pub(crate) fn options(number: u16) -> ShmOptions {
    let group = SocketAddr::from(([239, 255, 77, 1], number));
    ShmOptions { ring_bytes: 1 << 18, ..ShmOptions::new(group) }
}
