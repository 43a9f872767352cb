//! The bypass itself: the program, a socket on each queue, and the headers of each destination.

use crate::bpf::{Link, Mode, Program, SocketMap, Until};
use crate::frame::{HEADERS_MAX_BYTES, Mac, Template, mac_of_group, read};
use crate::interface::Interface;
use crate::local::Local;
use crate::neighbours::{Neighbours, TRUST};
use crate::refusal::{refused, unavailable};
use crate::socket::{HEADROOM_BYTES, RECEIVE_FRAMES, RELEASE_LOOK, SEND_FRAMES, XdpSocket, frame_bytes};
use crate::{XdpOptions, program, watch};
use bourdon_port::{Arrival, Limits, PortError, To};
use bourdon_udp::UdpOptions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Peers whose headers are kept: the members of a group and as many again. Datagrams to more go through the kernel.
const PEERS_MAX: usize = 128;
/// An interface of more queues is refused: each takes the memory of a socket, and a look at each receive.
const QUEUES_MAX: u32 = 16;
/// A process takes frames for so long after it last looked around, which it does every few milliseconds: one that is
/// stopped leaves them to the kernel.
const TAKES: Duration = Duration::from_millis(50);
/// Longer than any process lives, and short enough for a number of nanoseconds.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How long an ended process's program may stay: a child that it began to start has its descriptors until it executes.
const DETACHED_WITHIN: Duration = Duration::from_millis(100);
/// After a datagram to an unknown peer went through the kernel, its table is looked at again after so long.
const ASK: Duration = Duration::from_millis(5);

/// A peer that datagrams were sent to.
#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    /// Its headers, if the kernel knows its Ethernet address.
    template: Option<Template>,
    /// From then on one datagram goes through the kernel.
    ask_at: Instant,
}

/// Sends and receives past the kernel's stack.
#[derive(Debug)]
pub(crate) struct Bypass {
    // Detached first, so that frames go to the kernel again before the sockets close.
    _link: Link,
    _map: SocketMap,
    until: Until,
    sockets: Vec<XdpSocket>,
    mode: Mode,
    interface: Interface,
    options: Arc<XdpOptions>,
    own: SocketAddr,
    group: Template,
    peers: Vec<Peer>,
    /// When the kernel's table is to be looked at.
    look_at: Option<Instant>,
    neighbours: Neighbours,
    local: Option<Local>,
}

impl Bypass {
    /// For the group of these options, and for a process that is reached at `own`.
    pub(crate) fn open(options: Arc<XdpOptions>, own: SocketAddr) -> Result<Self, PortError> {
        let udp = &options.udp;
        let interface = Interface::find(&udp.interface)?;
        let packet_bytes = udp.datagram_max_bytes + HEADERS_MAX_BYTES;
        let Some(frame_bytes) = frame_bytes(packet_bytes) else {
            let most = 4096 - HEADROOM_BYTES - HEADERS_MAX_BYTES;
            return Err(unavailable(format!(
                "limits.mtu_bytes is {}, and a frame of one page holds {most}: set limits.mtu_bytes = {most} at all \
                 processes",
                udp.datagram_max_bytes
            )));
        };
        if interface.queues > QUEUES_MAX {
            let Interface { name, queues, .. } = &interface;
            return Err(unavailable(format!(
                "{name} has {queues} queues, and {QUEUES_MAX} are the most: `ethtool -L {name}` sets fewer"
            )));
        }
        let map = SocketMap::new(interface.queues).map_err(|error| refused("creating a map", &error))?;
        let until = Until::new()?;
        let code = program::assemble(udp.group, own, packet_bytes, (until.as_fd(), map.as_fd()));
        let program = Program::load(&code).map_err(|error| refused("loading the program", &error))?;
        let (link, mode) = attach(&program, &interface)?;
        let mut sockets = Vec::new();
        for queue in 0..interface.queues {
            let socket = XdpSocket::open(interface.index, queue, frame_bytes, options.zero_copy)?;
            map.set(queue, socket.as_fd()).map_err(|error| refused("entering a socket into the map", &error))?;
            sockets.push(socket);
        }
        let to_group = (mac_of_group(udp.group.ip()), udp.group);
        let way = (interface.index, interface.name.as_str(), own.ip());
        let local = udp.multicast_loop.then(|| Local::open(udp.group, way)).transpose()?;
        let neighbours = Neighbours::open(interface.index)
            .map_err(|source| PortError::Io { doing: "opening a netlink socket", source })?;
        until.extend(TAKES);
        Ok(Self {
            _link: link,
            _map: map,
            until,
            sockets,
            mode,
            own,
            group: Template::new((interface.mac, own), to_group, ttl(udp)),
            options,
            interface,
            peers: Vec::new(),
            look_at: None,
            neighbours,
            local,
        })
    }

    /// Sends a run, if the bypass can; returns how many datagrams it took.
    #[inline]
    pub(crate) fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Option<usize> {
        assert!(
            (1..=self.options.udp.datagram_max_bytes).contains(&segment_bytes),
            "segments of {segment_bytes} bytes"
        );
        let template = match to {
            To::Group => &self.group,
            To::Peer(address) => self.template_of(address)?,
            To::Broadcast => return None,
        };
        let template = *template;
        let mut taken = 0;
        for segment in bytes.chunks(segment_bytes) {
            if !self.sockets[0].send(|frame| template.write(segment, frame)) {
                self.sockets[0].flush();
                break;
            }
            if to == To::Group
                && let Some(local) = self.local.as_ref().filter(|local| local.has_others())
            {
                local.send(segment);
            }
            taken += 1;
        }
        Some(taken)
    }

    /// The headers for a peer; none if this datagram is for the kernel to send.
    fn template_of(&mut self, address: SocketAddr) -> Option<&Template> {
        let Some(at) = self.peers.iter().position(|peer| peer.address == address) else {
            if self.peers.len() == PEERS_MAX {
                self.peers.clear(); // those that are in use come back
            }
            self.peers.push(Peer { address, template: None, ask_at: Instant::now() });
            self.look_at = Some(Instant::now() + ASK);
            return None;
        };
        let peer = &mut self.peers[at];
        let now = Instant::now();
        if peer.template.is_none() || now >= peer.ask_at {
            peer.ask_at = now + TRUST;
            self.look_at.get_or_insert(now + ASK);
            return None;
        }
        self.peers[at].template.as_ref()
    }

    pub(crate) fn flush(&mut self) {
        self.sockets[0].flush();
    }

    /// Hands out what has come, of the group only what comes from `sources` if there are any, and returns how many
    /// datagrams that were.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        limit: usize,
        sources: Option<&[IpAddr]>,
        on_datagram: &mut impl FnMut(Arrival<'_>),
    ) -> usize {
        let (is_ipv4, echo) = (self.own.is_ipv4(), self.options.udp.echo);
        let mut count = 0;
        for socket in &mut self.sockets {
            let left = limit - count;
            socket.receive(left, |frame| {
                let Some(datagram) = read(frame, is_ipv4) else { return };
                let is_own = datagram.is_to_group && echo.is_some_and(|echo| echo.matches(datagram.payload));
                let is_source = !datagram.is_to_group || sources.is_none_or(|sources| sources.contains(&datagram.from));
                if is_source && !is_own {
                    count += 1;
                    let bytes = datagram.payload;
                    on_datagram(Arrival { bytes, kernel_receive_ns: None, to_all: datagram.is_to_group });
                }
            });
        }
        count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.iter().all(XdpSocket::is_empty)
    }

    /// Whether other processes of this host are in the group: they are heard through the kernel.
    pub(crate) fn has_local(&self) -> bool {
        self.local.as_ref().is_some_and(Local::has_others)
    }

    /// An `epoll` that is readable while something has come here or at `beneath`.
    pub(crate) fn watch(&self, beneath: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        watch(self.sockets.iter().map(AsFd::as_fd).chain([beneath]))
    }

    /// Looks whether other processes of this host are in the group, and what the kernel has found out of peers.
    pub(crate) fn look_around(&mut self) {
        if let Some(local) = &mut self.local {
            local.look();
        }
        if self.has_local() {
            self.until.end(); // they need the group's datagrams as well, and the kernel gives them to all
        } else {
            self.until.extend(TAKES);
        }
        let now = Instant::now();
        if self.look_at.is_none_or(|at| now < at) {
            return;
        }
        self.look_at = None;
        let Self { peers, neighbours, interface, own, options, .. } = self;
        let ttl = ttl(&options.udp);
        peers.iter_mut().for_each(|peer| peer.template = None);
        let is_listed = neighbours.list(own.ip(), |ip, mac: Mac| {
            for peer in peers.iter_mut().filter(|peer| peer.address.ip() == ip) {
                peer.template = Some(Template::new((interface.mac, *own), (mac, peer.address), ttl));
                peer.ask_at = now + TRUST;
            }
        });
        if is_listed.is_err() {
            self.look_at = Some(now + TRUST);
        }
    }

    /// Takes frames whatever this process does, without being looked at again.
    pub(crate) fn take_for_ever(&self) {
        self.until.extend(CENTURY);
    }

    pub(crate) fn limits(&self) -> Limits {
        let datagram_max_bytes = self.options.udp.datagram_max_bytes;
        let frame_bytes = frame_bytes(datagram_max_bytes + HEADERS_MAX_BYTES).unwrap_or_default();
        Limits {
            datagram_max_bytes,
            // As the kernel would charge as many datagrams: what it allocates for one, and its description.
            receive_buffer_bytes: RECEIVE_FRAMES as usize * (frame_bytes + 256),
            segments_max: SEND_FRAMES as usize / 2,
        }
    }

    pub(crate) fn io(&self) -> &'static str {
        match self.mode {
            Mode::Native if self.sockets[0].is_zero_copy() => "af_xdp-zero-copy",
            Mode::Native => "af_xdp-native",
            Mode::Generic => "af_xdp-generic",
        }
    }
}

/// How many networks a datagram crosses at most, as headers carry it.
fn ttl(options: &UdpOptions) -> u8 {
    u8::try_from(options.ttl).unwrap_or(u8::MAX)
}

/// Attaches the program: to the driver, or if it can't, to the kernel's stack.
fn attach(program: &Program, interface: &Interface) -> Result<(Link, Mode), PortError> {
    let Interface { name, index, .. } = interface;
    let is_taken = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
    let begun = Instant::now();
    let native = loop {
        match program.attach(*index, Mode::Native) {
            Ok(link) => return Ok((link, Mode::Native)),
            Err(error) if is_taken(&error) && begun.elapsed() < DETACHED_WITHIN => std::thread::sleep(RELEASE_LOOK),
            Err(error) => break error,
        }
    };
    if is_taken(&native) {
        return Err(unavailable(format!(
            "another program is attached to {name}, perhaps by another process of Bourdon, and an interface takes one: \
             `ip link show {name}` names it; end its process, or set network.transport = \"udp\""
        )));
    }
    program.attach(*index, Mode::Generic).map(|link| (link, Mode::Generic)).map_err(|generic| {
        match generic.raw_os_error() {
            Some(libc::EINVAL) => unavailable(format!("attaching to {name}: {generic}: it takes Linux 5.9 or later")),
            _ => refused(&format!("attaching to {name} (natively: {native})"), &generic),
        }
    })
}
