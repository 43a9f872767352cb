//! The options of the ports over UDP sockets; the same for each of them, so that falling back
//! from one to the other changes nothing else.

use std::net::{IpAddr, SocketAddr};

use bourdon_port::{Echo, Idle};

/// The longest payload of a UDP datagram over IPv4, 65535 bytes less 20 of IP and 8 of UDP header. IPv6 allows 20 more;
/// one limit for both is worth more.
pub const UDP_PAYLOAD_MAX_BYTES: usize = 65_507;

/// How a port over UDP sockets is opened.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// The group's multicast address and port.
    pub group: SocketAddr,
    /// Whose datagrams to the group are received; every sender's if none is named.
    pub sources: Vec<IpAddr>,
    /// The one interface that traffic enters and leaves by.
    pub interface: String,
    /// The port at which this process receives what is sent to it alone, if it is free; 0 leaves it to the kernel.
    pub unicast_port: u16,
    /// How many networks a multicast may cross: 1 stays in this one, more asks routers along.
    pub ttl: u32,
    /// How much the kernel shall hold for the group, and for this process, while the process does not read. The kernel
    /// grants twice as much and charges its overhead to it. Above the system's `net.core.rmem_max` this takes
    /// `CAP_NET_ADMIN`; without it less is granted, as [`Limits`](bourdon_port::Limits) then reports.
    pub receive_buffer_bytes: usize,
    /// How the receiving thread spends the time in which nothing comes.
    pub idle: Idle,
    /// Whether a thread that sleeps does so in `io_uring`; without, in `epoll`.
    pub io_uring: bool,
    /// Whether other processes of this host receive what this one multicasts. On `lo` they always do.
    pub multicast_loop: bool,
    /// How to know this process's own multicasts, which the kernel then keeps away from it.
    pub echo: Option<Echo>,
    /// Whether runs of datagrams cross the kernel as one packet (UDP GSO on sending, GRO on receiving).
    pub offload: bool,
    /// Whether the kernel notes when each datagram came.
    pub receive_timestamps: bool,
    /// The longest datagram. More than the interface's MTU less headers makes IP fragments, of which one lost loses
    /// all.
    pub datagram_max_bytes: usize,
}

impl UdpOptions {
    /// The defaults for `group`: on `lo`, spinning, with offload, datagrams of up to 1408 bytes.
    pub fn new(group: SocketAddr) -> Self {
        Self {
            group,
            sources: Vec::new(),
            interface: "lo".to_owned(),
            unicast_port: 0,
            ttl: 1,
            receive_buffer_bytes: 8 << 20,
            idle: Idle::Spin,
            io_uring: true,
            multicast_loop: true,
            echo: None,
            offload: true,
            receive_timestamps: false,
            datagram_max_bytes: 1408,
        }
    }
}
