//! How a port over shared memory is opened.

use bourdon_port::Idle;
use std::net::SocketAddr;

/// How a port over shared memory is opened.
#[derive(Clone, Debug)]
pub struct ShmOptions {
    /// The group's address and port. The address may be any: it only distinguishes groups. Processes whose groups have
    /// the same port number, and which belong to the same user, reach each other's unicast address.
    pub group: SocketAddr,
    /// How the receiving thread spends the time in which nothing comes.
    pub idle: Idle,
    /// The longest datagram.
    pub datagram_max_bytes: usize,
    /// How much of what this process sends is kept for the others to read; rounded up to a power of two, and to eight
    /// of the longest datagrams.
    pub ring_bytes: usize,
}

impl ShmOptions {
    /// The defaults for `group`: spinning, datagrams of up to 1408 bytes, 16 MiB.
    pub fn new(group: SocketAddr) -> Self {
        Self { group, idle: Idle::Spin, datagram_max_bytes: 1408, ring_bytes: 16 << 20 }
    }
}
