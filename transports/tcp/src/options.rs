//! A mesh's options and bounds.

use std::net::SocketAddr;
use std::time::Duration;

use bourdon_port::Idle;

/// What waits for one peer in this process, beyond what the kernel holds: some ten windows. What does not fit is
/// dropped, as a switch would drop it, so that a slow peer delays no other.
pub const QUEUE_MAX_BYTES: usize = 4 << 20;
/// Connections with processes that have sent their hello: a full view, and its observers and clients.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections that have not: each new one beyond ends the oldest, so that idle strangers keep no process out.
pub const STRANGERS_MAX: usize = 64;
/// How long a connection may take to send its hello: a round trip to anywhere, and a host that is busy.
pub const HELLO_MAX: Duration = Duration::from_secs(1);
/// How long a connection may take to be made before it is tried again.
pub const CONNECT_MAX: Duration = Duration::from_secs(1);
/// The first pause before a connection is made again. It doubles each time, up to the longest.
pub const RETRY_MIN: Duration = Duration::from_millis(1);
/// The longest: how late a process that comes back is noticed by the processes that dial it.
pub const RETRY_MAX: Duration = Duration::from_millis(100);
/// The longest where a process answered the last time: a link that breaks again and again is no process that is gone,
/// and must not be silent for so long that its peer is suspected (80 ms).
pub const RETRY_GREETED_MAX: Duration = Duration::from_millis(8);
/// How long a connection is silent before the kernel probes it, and between probes; whole seconds, as the kernel
/// counts.
pub const PROBE_AFTER: Duration = Duration::from_secs(1);
/// How long bytes, or probes, may stay unacknowledged before the connection counts as broken.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(2);
/// Addresses outside the configuration that are dialled because something was sent there.
pub const ERRANDS_MAX: usize = 64;
/// What [`limits`](bourdon_port::Port::limits) gives as held while the process does not read. A connection's two kernel
/// buffers hold more than twice as much where the defaults of Linux stand.
pub const HELD_BYTES: usize = 1 << 20;
/// How long opening waits for the first connections, so that the last process to open is connected when it begins to
/// send.
pub const OPEN_MAX: Duration = Duration::from_millis(200);

/// How a [`TcpPort`](crate::TcpPort) is opened.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Where this process listens, and the address by which the others know it. Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// The others do not know the address beforehand: if the host gets another one, this process listens there.
    pub may_move: bool,
    /// The peers this process dials. Of two members one must dial the other; a process that is no member dials them
    /// all.
    pub dial: Vec<SocketAddr>,
    /// Distinguishes groups: between processes of two groups only datagrams for one peer pass.
    pub token: u64,
    /// How the receiving thread spends the time in which nothing comes.
    pub idle: Idle,
    /// Whether a thread that sleeps does so in an `io_uring`, else in `epoll`.
    pub io_uring: bool,
    /// The longest datagram.
    pub datagram_max_bytes: usize,
}

impl TcpOptions {
    /// The defaults for a process that listens there: it dials no peer, spins, and sends up to 1408 bytes.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            may_move: false,
            dial: Vec::new(),
            token: 0,
            idle: Idle::Spin,
            io_uring: true,
            datagram_max_bytes: 1408,
        }
    }
}
