//! Picks the transport: the one file of the engine that knows their implementations.
//!
//! A user names what is wanted and a host decides what is possible: containers forbid `io_uring`, old kernels lack it.
//! The pick falls back to what does the same job on any kernel and reports why, instead of failing or keeping quiet.

use crate::config::{IdleStrategy, Role, Settings, Transport};
use bourdon_port::faults::{Faults, Faulty};
use bourdon_port::{Arrival, Echo, HostChange, Idle, Limits, Port, PortError, Sleep, To, Waker};
use bourdon_protocol::Reach;
use bourdon_shm::{MixedPort, ShmOptions, ShmPort};
use bourdon_tcp::{AutoPort, TcpOptions, TcpPort};
use bourdon_udp::{UdpOptions, UdpPort};
use bourdon_wire::GroupId;
use bourdon_xdp::{XdpOptions, XdpPort};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// The transports a node can run on.
// One node has one of these for as long as it runs, so the difference in size costs nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum AnyPort {
    /// UDP multicast by spinning sockets, `io_uring` or `epoll`.
    Udp(UdpPort),
    /// A mesh of TCP connections.
    Tcp(TcpPort),
    /// UDP multicast, and shared memory for processes of this host.
    Mixed(MixedPort<UdpPort>),
    /// UDP multicast by `epoll`, a mesh for peers that it does not reach, and shared memory for processes of this host.
    Auto(MixedPort<AutoPort>),
    /// UDP multicast past the kernel's stack.
    Xdp(XdpPort),
    /// Shared memory.
    Shm(ShmPort),
}

/// A node's port: the fault injector is around the transport only where faults are configured.
// As with `AnyPort`, one node has one of these.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum NodePort {
    /// The transport itself.
    Plain(AnyPort),
    /// The transport, whose datagrams meet with faults on their way in.
    Faulty(Faulty<AnyPort>),
}

impl NodePort {
    /// Puts `faults` around `port`, if there are any.
    pub(crate) fn new(port: AnyPort, faults: Faults) -> Self {
        if faults.are_none() { Self::Plain(port) } else { Self::Faulty(Faulty::new(port, faults)) }
    }

    /// The transport within.
    pub(crate) fn transport(&self) -> &AnyPort {
        match self {
            Self::Plain(port) => port,
            Self::Faulty(port) => port.inner(),
        }
    }

    /// The transport within, for calls that only it has.
    pub(crate) fn transport_mut(&mut self) -> &mut AnyPort {
        match self {
            Self::Plain(port) => port,
            Self::Faulty(port) => port.inner_mut(),
        }
    }
}

impl AnyPort {
    /// Over `auto`: how many peers are reached which way.
    pub(crate) fn reach(&self) -> Option<Reach> {
        match self {
            Self::Mixed(port) => Some(Reach { by_shm: port.by_shm(), ..Reach::default() }),
            Self::Auto(port) => {
                let bourdon_tcp::Reach { by_multicast, by_mesh } = port.network().reach()?;
                Some(Reach { by_multicast, by_mesh, by_shm: port.by_shm() })
            }
            Self::Udp(_) | Self::Tcp(_) | Self::Xdp(_) | Self::Shm(_) => None,
        }
    }

    /// Over `auto`: which way the process with this address is reached.
    pub(crate) fn way_to(&self, address: SocketAddr) -> Option<&'static str> {
        match self {
            Self::Mixed(port) => Some(if port.is_by_shm(address) { "shm" } else { "multicast" }),
            Self::Auto(port) if port.is_by_shm(address) => Some("shm"),
            Self::Auto(port) => Some(if port.network().is_by_mesh(address) { "tcp" } else { "multicast" }),
            Self::Udp(_) | Self::Tcp(_) | Self::Xdp(_) | Self::Shm(_) => None,
        }
    }

    /// Whether nothing passes between this process and any peer on the network, because the host has changed.
    pub(crate) fn is_cut_off(&self) -> bool {
        match self {
            Self::Udp(port) => port.is_cut_off(),
            Self::Tcp(port) => port.is_cut_off(),
            Self::Mixed(port) => port.network().is_cut_off(),
            Self::Auto(port) => port.network().is_cut_off(),
            Self::Xdp(port) => port.is_cut_off(),
            Self::Shm(_) => false, // it has no network to lose
        }
    }

    /// Whether nothing passes between this process and any other.
    pub(crate) fn is_alone(&self) -> bool {
        let by_shm = match self {
            Self::Mixed(port) => port.by_shm(),
            Self::Auto(port) => port.by_shm(),
            Self::Udp(_) | Self::Tcp(_) | Self::Xdp(_) | Self::Shm(_) => 0,
        };
        by_shm == 0 && self.is_cut_off()
    }

    /// Ends one TCP connection, and the sharing with one process, abruptly, to test the recovery. Returns whether there
    /// was one of them.
    pub(crate) fn break_one_link(&mut self) -> bool {
        match self {
            Self::Tcp(port) => port.break_one_link(),
            Self::Mixed(port) => port.break_one(),
            Self::Auto(port) => port.network_mut().mesh().break_one_link() | port.break_one(),
            Self::Udp(_) | Self::Xdp(_) | Self::Shm(_) => false,
        }
    }
}

/// A port, and why it is not the configured port, if it is not.
#[derive(Debug)]
pub(crate) struct Picked {
    /// The port.
    pub(crate) port: AnyPort,
    /// Why the node fell back to it.
    pub(crate) fallback: Option<String>,
}

/// Opens the transport that the settings name, or its fallback.
///
/// # Errors
/// If no transport can be opened; the text gives what to do.
pub(crate) fn pick(settings: &Settings, echo: Echo) -> Result<Picked, PortError> {
    let mut picked = open(settings, echo)?;
    if !matches!(settings.network.transport, Transport::Tcp | Transport::Shm)
        && let Some(problem) = fragments(settings)
    {
        picked.fallback = Some(picked.fallback.map_or_else(|| problem.clone(), |why| format!("{why}; {problem}")));
    }
    Ok(picked)
}

/// Why the longest datagrams travel as fragments, if they do.
fn fragments(settings: &Settings) -> Option<String> {
    let interface = settings.network.interface.clone();
    let options = UdpOptions { interface, ..UdpOptions::new(settings.group.address) };
    let (mtu_bytes, fits_bytes) = bourdon_udp::interface_mtu(&options).ok()?;
    let (longest_bytes, name) = (settings.limits.mtu_bytes, &settings.network.interface);
    if longest_bytes <= fits_bytes {
        return None;
    }
    let with_headers_bytes = longest_bytes + mtu_bytes - fits_bytes;
    let cure = match fits_bytes {
        fits_bytes if fits_bytes >= bourdon_wire::MTU_MIN_BYTES => {
            format!("set limits.mtu_bytes = {fits_bytes} at all processes, or raise the interface's MTU")
        }
        _ => {
            let least_bytes = bourdon_wire::MTU_MIN_BYTES;
            let least_mtu_bytes = least_bytes + mtu_bytes - fits_bytes;
            format!(
                "raise the interface's MTU to {with_headers_bytes}, or to {least_mtu_bytes} and set limits.mtu_bytes = \
                 {least_bytes} at all processes"
            )
        }
    };
    Some(format!(
        "limits.mtu_bytes is {longest_bytes}, with headers {with_headers_bytes}, and the MTU of {name} is {mtu_bytes}: \
         long datagrams travel as fragments, which many networks drop, and of which one lost loses all; {cure}"
    ))
}

fn open(settings: &Settings, echo: Echo) -> Result<Picked, PortError> {
    let options = UdpOptions {
        interface: settings.network.interface.clone(),
        sources: settings.network.sources.clone(),
        ttl: settings.network.ttl,
        multicast_loop: settings.network.multicast_loop,
        receive_buffer_bytes: settings.network.receive_buffer_bytes,
        idle: match settings.threads.idle {
            // These sleep in the port.
            IdleStrategy::Park | IdleStrategy::Backoff | IdleStrategy::Auto => Idle::Park,
            IdleStrategy::Spin | IdleStrategy::Yield => Idle::Spin,
        },
        echo: Some(echo),
        offload: settings.network.offload,
        receive_timestamps: settings.network.receive_timestamps,
        datagram_max_bytes: settings.limits.mtu_bytes,
        ..UdpOptions::new(settings.group.address)
    };
    match settings.network.transport {
        Transport::Portable => udp(&UdpOptions { io_uring: false, ..options }),
        Transport::Udp => udp(&options),
        Transport::Tcp => tcp(&mesh(settings, options.idle)?),
        Transport::Auto if settings.network.peers.is_empty() => {
            let why = "without network.peers other hosts are reached by multicast only, and not where it is blocked";
            let (port, fallback) = open_udp(&options)?;
            let (port, refused) = beside_shm(port, options);
            Ok(Picked { port: AnyPort::Mixed(port), fallback: joined([fallback.or(Some(why.to_owned())), refused]) })
        }
        Transport::Auto => {
            let (port, refused) = AutoPort::open(&options, &mesh(settings, options.idle)?)?;
            let fallback = refused.map(|why| format!("{why}; using tcp only instead"));
            let (port, refused) = beside_shm(port, options);
            Ok(Picked { port: AnyPort::Auto(port), fallback: joined([fallback, refused]) })
        }
        Transport::Xdp => xdp(options, settings.network.xdp_zero_copy),
        Transport::Shm => shm(options),
    }
}

fn udp(options: &UdpOptions) -> Result<Picked, PortError> {
    let (port, fallback) = open_udp(options)?;
    Ok(Picked { port: AnyPort::Udp(port), fallback })
}

fn open_udp(options: &UdpOptions) -> Result<(UdpPort, Option<String>), PortError> {
    match UdpPort::open(options) {
        Ok(port) => Ok((port, None)),
        Err(why @ PortError::Unavailable { .. }) => {
            let port = UdpPort::open(&UdpOptions { io_uring: false, ..options.clone() })?;
            Ok((port, Some(format!("{why}; using the portable transport instead"))))
        }
        Err(error) => Err(error),
    }
}

fn xdp(udp: UdpOptions, zero_copy: bool) -> Result<Picked, PortError> {
    let (beneath, fallback) = open_udp(&udp)?;
    let port = XdpPort::open(beneath, XdpOptions { udp, zero_copy });
    let fallback = port.refused().map(|why| format!("{why}; using udp instead")).or(fallback);
    Ok(Picked { port: AnyPort::Xdp(port), fallback })
}

/// Puts shared memory beside a port on the network, and returns why not. A process that chooses what it hears by
/// `network.sources` takes none: it would hear others of its host besides.
fn beside_shm<N: Port>(network: N, options: UdpOptions) -> (MixedPort<N>, Option<String>) {
    if !options.sources.is_empty() {
        return (MixedPort::without_shm(network), None);
    }
    let interface = options.interface.clone();
    let (port, refused) = MixedPort::open(network, &interface, &shm_options(options));
    (port, refused.map(|why| format!("{why}; reaching the processes of this host over the network")))
}

/// All reasons that there are.
fn joined(reasons: [Option<String>; 2]) -> Option<String> {
    let reasons: Vec<String> = reasons.into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn shm_options(options: UdpOptions) -> ShmOptions {
    let UdpOptions { group, idle, datagram_max_bytes, receive_buffer_bytes, .. } = options;
    // As the kernel does with a socket's buffer.
    let ring_bytes = 2 * receive_buffer_bytes;
    ShmOptions { idle, datagram_max_bytes, ring_bytes, ..ShmOptions::new(group) }
}

/// Without a fallback: over another transport this process would not meet those of its group.
fn shm(options: UdpOptions) -> Result<Picked, PortError> {
    match ShmPort::open(&shm_options(options)) {
        Ok(port) => Ok(Picked { port: AnyPort::Shm(port), fallback: None }),
        Err(PortError::Unavailable { mechanism, why }) => {
            let why = format!("{why}; or set network.transport = \"udp\" at all processes");
            Err(PortError::Unavailable { mechanism, why })
        }
        Err(error) => Err(error),
    }
}

fn tcp(options: &TcpOptions) -> Result<Picked, PortError> {
    match TcpPort::open(options) {
        Ok(port) => Ok(Picked { port: AnyPort::Tcp(port), fallback: None }),
        Err(why @ PortError::Unavailable { .. }) => {
            let port = AnyPort::Tcp(TcpPort::open(&TcpOptions { io_uring: false, ..options.clone() })?);
            Ok(Picked { port, fallback: Some(format!("{why}; using epoll instead")) })
        }
        Err(error) => Err(error),
    }
}

/// The peers this process dials, and where it listens: a member dials the members of lower rank, so that each pair has
/// one connection; a process that is no member dials all members, and needs no address that they know beforehand.
fn mesh(settings: &Settings, idle: Idle) -> Result<TcpOptions, PortError> {
    let (network, rank) = (&settings.network, usize::from(settings.process.rank));
    let (own, dial) = match settings.process.role {
        Role::Member => (network.peers.get(rank).copied(), &network.peers[..rank.min(network.peers.len())]),
        Role::Observer | Role::Client => (None, &network.peers[..]),
    };
    let listen = match (network.listen, own) {
        (Some(address), Some(_)) | (None, Some(address)) => address,
        (listen, None) => {
            let ip = listen.map(|address| Ok(address.ip())).unwrap_or_else(|| address_towards(network.peers[0]))?;
            SocketAddr::new(ip, 0)
        }
    };
    Ok(TcpOptions {
        may_move: own.is_none() && network.listen.is_none(),
        dial: dial.to_vec(),
        token: u64::from(GroupId::of(&settings.group.name).0),
        idle,
        datagram_max_bytes: settings.limits.mtu_bytes,
        ..TcpOptions::new(listen)
    })
}

/// The address by which this host reaches `peer`. Connecting a UDP socket sends nothing.
fn address_towards(peer: SocketAddr) -> Result<IpAddr, PortError> {
    let any: SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let found = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(peer)?;
        socket.local_addr()
    });
    found.map(|address| address.ip()).map_err(|source| PortError::Io { doing: "looking for the way to a peer", source })
}

/// The error for a transport without multicast, where no sources can be chosen.
fn no_sources(address: IpAddr) -> PortError {
    let why = "over tcp and shared memory no sender is heard by multicast: no source can be chosen";
    PortError::Source { address, why }
}

fn multicast_of(port: &MixedPort<AutoPort>, source: IpAddr) -> Result<&UdpPort, PortError> {
    port.network().multicast().ok_or_else(|| no_sources(source))
}

impl AnyPort {
    /// Receives from one more source of the group, which was opened with some.
    ///
    /// # Errors
    /// If the group was joined without sources, or the kernel refuses.
    pub(crate) fn join_source(&self, source: IpAddr) -> Result<(), PortError> {
        match self {
            Self::Udp(port) => port.join_source(source),
            Self::Xdp(port) => port.join_source(source),
            Self::Mixed(port) => port.network().join_source(source),
            Self::Auto(port) => multicast_of(port, source)?.join_source(source),
            Self::Tcp(_) | Self::Shm(_) => Err(no_sources(source)),
        }
    }

    /// Stops receiving from a source; without the last source, it receives from none.
    ///
    /// # Errors
    /// If the source was not joined.
    pub(crate) fn leave_source(&self, source: IpAddr) -> Result<(), PortError> {
        match self {
            Self::Udp(port) => port.leave_source(source),
            Self::Xdp(port) => port.leave_source(source),
            Self::Mixed(port) => port.network().leave_source(source),
            Self::Auto(port) => multicast_of(port, source)?.leave_source(source),
            Self::Tcp(_) | Self::Shm(_) => Err(no_sources(source)),
        }
    }
}

/// Passes each call on to the port in a variant: no dynamic dispatch.
macro_rules! port_of_its_variants {
    ($name:ident { $($variant:ident),+ }) => {
        impl Port for $name {
            #[inline]
            fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
                match self { $(Self::$variant(port) => port.send(to, bytes, segment_bytes)),+ }
            }

            #[inline]
            fn flush(&mut self) -> Result<(), PortError> {
                match self { $(Self::$variant(port) => port.flush()),+ }
            }

            #[inline]
            fn receive(&mut self, limit: usize, on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
                match self { $(Self::$variant(port) => port.receive(limit, on_datagram)),+ }
            }

            fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
                match self { $(Self::$variant(port) => port.wait(timeout)),+ }
            }

            fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
                match self { $(Self::$variant(port) => port.sleeper(longest)),+ }
            }

            fn waker(&self) -> Waker {
                match self { $(Self::$variant(port) => port.waker()),+ }
            }

            fn can_broadcast(&self) -> bool {
                match self { $(Self::$variant(port) => port.can_broadcast()),+ }
            }

            fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
                match self { $(Self::$variant(port) => port.follow_host()),+ }
            }

            fn limits(&self) -> Limits {
                match self { $(Self::$variant(port) => port.limits()),+ }
            }

            fn local_address(&self) -> SocketAddr {
                match self { $(Self::$variant(port) => port.local_address()),+ }
            }

            fn io(&self) -> &str {
                match self { $(Self::$variant(port) => port.io()),+ }
            }
        }
    };
}

port_of_its_variants!(AnyPort { Udp, Tcp, Mixed, Auto, Xdp, Shm });
port_of_its_variants!(NodePort { Plain, Faulty });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_around_the_port_only_where_they_are_configured() {
        let group = SocketAddr::from(([239, 76, 1, 1], 0));
        let open = |faults| {
            let options = UdpOptions { interface: "lo".to_owned(), ..UdpOptions::new(group) };
            NodePort::new(AnyPort::Udp(UdpPort::open(&options).expect("a port on lo")), faults)
        };
        assert!(matches!(open(Faults { seed: 7, ..Faults::default() }), NodePort::Plain(_)));
        assert!(matches!(open(Faults { drop_percent: 1.0, ..Faults::default() }), NodePort::Faulty(_)));
    }
}
