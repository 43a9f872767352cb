//! Multicast, and the mesh for exactly the peers that multicast does not reach.
//!
//! A network that drops multicast does so silently, often in one direction or for some hosts only, and not from
//! the start: a switch forgets a membership, a rule is added. A group that has once chosen its way is then dead. To
//! agree again on one way for all would take a protocol of its own, and would penalize all peers for one.
//!
//! Nothing needs to be agreed here. Each process multicasts a *probe* every [`PROBE_EVERY`] and reports to each peer
//! over the mesh whether it hears that peer's probes: at once when that changes, and every [`REPORT_EVERY`]. What is
//! for the group goes out by multicast, and by TCP also to peers that did not lately report that they hear us: a matter
//! between two processes, in one direction. A peer that receives both discards one, as any duplicate. What is for one
//! peer goes over the mesh always; a call to all on the network, by multicast's side only.
//!
//! ```text
//!          ──── probe by multicast ────▶        every 10 ms
//!      A   ◀─── "I hear you" by TCP ────   B    yes if a probe came within 50 ms
//!          ──── datagrams by TCP ──────▶        unless the last report was "yes", and is younger than 600 ms
//! ```
//!
//! Probes are as frequent as heartbeats and forgotten sooner than failure detectors suspect (80 ms), so that a hole
//! that opens is taken up before any member is evicted for it. A host that stalls longer than that looks deaf for a
//! moment, and gets duplicates: that costs nothing but their bytes.
//!
//! Invariants: a peer on the mesh that does not report that it hears us gets everything over the mesh; a hole that
//! opens is taken up within [`FORGET_AFTER`] and one [`PROBE_EVERY`]; until then NAKs and repairs, which are for one
//! peer, pass; probes never reach the caller.
//!
//! Processes that the caller reaches in another way ([`Port::bypass`]) are left out: the multicast side drops what they
//! multicast, probes included, and the mesh brings them nothing that is for the group.
//!
//! Unlike any other port this one may hand a datagram out twice; protocols over multicast expect that. A thread that
//! sleeps here does so on an `epoll` that watches the `epoll` of each side.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bourdon_port::{Arrival, HostChange, Limits, Origin, Port, PortError, Sleep, To, Waker, watch};
use bourdon_udp::{UdpOptions, UdpPort};

use crate::TcpPort;
use crate::frame::{HELLO_BYTES, Hello};
use crate::options::{CONNECTIONS_MAX, TcpOptions};

/// Between two probes: a heartbeat's time.
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// For how long one that came holds: a few may be lost on the way without a meaning.
const FORGET_AFTER: Duration = Duration::from_millis(50);
/// Between two reports without news.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// For how long a report holds.
const BELIEVE_FOR: Duration = Duration::from_millis(600);
/// How often the port notes how peers are reached, for users to read: what held for two such times is reported.
const NOTE_EVERY: Duration = Duration::from_millis(400);

/// How often the port checks which peers do not hear it: a datagram must not cost a walk over all peers.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Stand before a hello; the second is followed by whether the peer is heard. No frame begins like this.
const PROBE: [u8; 8] = *b"bd?probe";
const REPORT: [u8; 8] = *b"bd!hears";
const PROBE_BYTES: usize = PROBE.len() + HELLO_BYTES;
const REPORT_BYTES: usize = REPORT.len() + HELLO_BYTES + 1;

/// A process that was heard of.
#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    /// When its last probe came.
    heard: Option<Instant>,
    /// When it last reported that it hears us.
    hears_us: Option<Instant>,
    /// What we last reported to it, and when.
    reported: Option<(bool, Instant)>,
}

/// How many peers are reached which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Peers on the mesh that multicast reaches.
    pub by_multicast: u16,
    /// Peers that get everything over the mesh.
    pub by_mesh: u16,
}

/// A port over UDP multicast and a mesh of TCP connections.
#[derive(Debug)]
pub struct AutoPort {
    multicast: Option<UdpPort>,
    mesh: TcpPort,
    /// Watches what either side sleeps on, from the first sleep on.
    both: Option<OwnedFd>,
    hello: Hello,
    peers: Vec<Peer>,
    /// Those that the caller reaches in another way.
    bypassed: Vec<SocketAddr>,
    /// Those on the mesh that do not hear us, as of the last look; none of those bypassed.
    deaf: Vec<SocketAddr>,
    /// What was noted last, and what was noted twice.
    noted: Option<Reach>,
    reach: Option<Reach>,
    next_note: Instant,
    next_probe: Instant,
    next_look: Instant,
    multicast_first: bool,
}

impl AutoPort {
    /// Opens both sides; and returns why there is the mesh only, if multicast can't even be opened.
    ///
    /// # Errors
    /// If the mesh can't be opened.
    pub fn open(multicast: &UdpOptions, mesh: &TcpOptions) -> Result<(Self, Option<PortError>), PortError> {
        let token = mesh.token;
        let mesh = TcpPort::open(&TcpOptions { io_uring: false, ..mesh.clone() })?;
        let (multicast, refused) = match UdpPort::open(&UdpOptions { io_uring: false, ..multicast.clone() }) {
            Ok(port) => (Some(port), None),
            Err(error) => (None, Some(error)),
        };
        let now = Instant::now();
        let port = Self {
            multicast,
            both: None,
            hello: Hello { token, address: mesh.local_address() },
            mesh,
            peers: Vec::new(),
            bypassed: Vec::new(),
            deaf: Vec::new(),
            noted: None,
            reach: None,
            next_note: now + NOTE_EVERY,
            next_probe: now,
            next_look: now,
            multicast_first: false,
        };
        Ok((port, refused))
    }

    /// How many peers are reached which way, of those that are not bypassed; unknown while no peer is connected, and in
    /// the first second, while probes are on their way.
    pub fn reach(&self) -> Option<Reach> {
        self.reach
    }

    /// Whether the peer with this address gets everything over the mesh, as of the last look.
    pub fn is_by_mesh(&self, address: SocketAddr) -> bool {
        self.deaf.contains(&address)
    }

    /// What is sent by multicast, if it could be opened.
    pub fn multicast(&self) -> Option<&UdpPort> {
        self.multicast.as_ref()
    }

    /// Whether nothing passes between this process and a single peer: the mesh carries that, whatever becomes of
    /// multicast.
    pub fn is_cut_off(&self) -> bool {
        self.mesh.is_cut_off()
    }

    /// The mesh, to break it.
    pub fn mesh(&mut self) -> &mut TcpPort {
        &mut self.mesh
    }

    /// Probes, reports and notes when that is due. Called when what has come is taken in: own stalls are no peer's
    /// silence.
    fn probe(&mut self) -> Result<(), PortError> {
        let now = Instant::now();
        if now < self.next_probe {
            return Ok(());
        }
        self.next_probe = now + PROBE_EVERY;
        let hello = self.hello.to_bytes();
        if let Some(multicast) = &mut self.multicast {
            let probe: [u8; PROBE_BYTES] = joined(&PROBE, &hello);
            // Whatever is wrong with multicast shows at the peers that do not hear it.
            let _ = multicast.send(To::Group, &probe, PROBE_BYTES);
        }
        let connected: Vec<SocketAddr> = self.mesh.peers().collect();
        self.peers.retain(|peer| is_within(FORGET_AFTER, peer.heard, now) || connected.contains(&peer.address));
        for address in &connected {
            if self.peers.iter().all(|peer| peer.address != *address) && self.peers.len() < CONNECTIONS_MAX {
                self.peers.push(Peer::new(*address));
            }
        }
        let mut report: [u8; REPORT_BYTES] = joined(&REPORT, &hello);
        for peer in self.peers.iter_mut().filter(|peer| connected.contains(&peer.address)) {
            let hears = is_within(FORGET_AFTER, peer.heard, now);
            if peer.reported.is_none_or(|(reported, at)| reported != hears || now >= at + REPORT_EVERY) {
                peer.reported = Some((hears, now));
                report[REPORT_BYTES - 1] = hears.into();
                self.mesh.send(To::Peer(peer.address), &report, REPORT_BYTES)?;
            }
        }
        self.mesh.flush()?;
        if now >= self.next_note {
            self.next_note = now + NOTE_EVERY;
            self.find_deaf_peers();
            let is_reached = |address: &&SocketAddr| !self.bypassed.contains(address);
            let (all, by_mesh) = (connected.iter().filter(is_reached).count() as u16, self.deaf.len() as u16);
            let reach = Reach { by_multicast: all.saturating_sub(by_mesh), by_mesh };
            let note = (!connected.is_empty()).then_some(reach);
            if note == self.noted {
                self.reach = note;
            }
            self.noted = note;
        }
        Ok(())
    }

    /// The peers that multicast does not reach, as far as is known now.
    fn find_deaf_peers(&mut self) {
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        let (peers, bypassed) = (&self.peers, &self.bypassed);
        let hears = |address: &SocketAddr| {
            bypassed.contains(address)
                || peers.iter().any(|peer| peer.address == *address && is_within(BELIEVE_FOR, peer.hears_us, now))
        };
        self.deaf.clear();
        self.deaf.extend(self.mesh.peers().filter(|address| !hears(address)));
    }
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Self { address, heard: None, hears_us: None, reported: None }
    }
}

/// Whether that was no longer ago.
fn is_within(longest: Duration, at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < longest)
}

fn joined<const N: usize>(head: &[u8], tail: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..head.len()].copy_from_slice(head);
    bytes[head.len()..head.len() + tail.len()].copy_from_slice(tail);
    bytes
}

/// Takes a probe or a report in. Returns whether it was one.
fn take_in(peers: &mut Vec<Peer>, own: Hello, bytes: &[u8]) -> bool {
    let probe = bytes.strip_prefix(&PROBE).filter(|_| bytes.len() == PROBE_BYTES);
    let report = bytes.strip_prefix(&REPORT).filter(|_| bytes.len() == REPORT_BYTES);
    let Some(rest) = probe.or(report) else { return false };
    let Some(hello) = Hello::parse(rest).filter(|it| it.token == own.token && it.address != own.address) else {
        return true;
    };
    let now = Instant::now();
    let peer = match peers.iter().position(|peer| peer.address == hello.address) {
        Some(place) => &mut peers[place],
        None if peers.len() < CONNECTIONS_MAX => {
            peers.push(Peer::new(hello.address));
            peers.last_mut().unwrap_or_else(|| unreachable!("one was pushed"))
        }
        None => return true,
    };
    if probe.is_some() {
        peer.heard = Some(now);
    } else {
        peer.hears_us = (rest[HELLO_BYTES] == 1).then_some(now);
    }
    true
}

impl Port for AutoPort {
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        let segments = bytes.len().div_ceil(segment_bytes);
        match (to, &mut self.multicast) {
            (To::Group, _) => {}
            (To::Broadcast, Some(multicast)) => return multicast.send(to, bytes, segment_bytes),
            (To::Broadcast, None) => return Ok(segments),
            (To::Peer(_), _) => return self.mesh.send(to, bytes, segment_bytes),
        }
        let taken = match &mut self.multicast {
            Some(multicast) => multicast.send(to, bytes, segment_bytes).unwrap_or(segments),
            None => segments,
        };
        self.find_deaf_peers();
        let taken_bytes = bytes.len().min(taken * segment_bytes);
        for place in 0..self.deaf.len() {
            self.mesh.send(To::Peer(self.deaf[place]), &bytes[..taken_bytes], segment_bytes)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.mesh.flush()
    }

    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        let (peers, own) = (&mut self.peers, self.hello);
        let mut count = 0;
        let mut sort = |arrival: Arrival<'_>| {
            if !take_in(peers, own, arrival.bytes) {
                count += 1;
                on_datagram(arrival);
            }
        };
        // In turns, so that neither side starves the other; a side that brings `limit` leaves the other for the next
        // call.
        self.multicast_first = !self.multicast_first;
        let mut left = limit;
        for is_multicast in [self.multicast_first, !self.multicast_first] {
            if left == 0 {
                break;
            }
            let came = match &mut self.multicast {
                Some(multicast) if is_multicast => multicast.receive(left, &mut sort)?,
                None if is_multicast => 0,
                _ => self.mesh.receive(left, &mut sort)?,
            };
            left = left.saturating_sub(came);
        }
        self.probe()?;
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        if let Some(sleep) = self.sleeper(timeout)? {
            Sleep::all(&[sleep])?;
        }
        if let Some(multicast) = &mut self.multicast {
            multicast.wait(Duration::ZERO)?;
        }
        self.mesh.wait(Duration::ZERO)
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        let longest = longest.min(self.next_probe.saturating_duration_since(Instant::now()));
        let Some(mesh) = self.mesh.sleeper(longest)? else { return Ok(None) };
        let Some(multicast) = &mut self.multicast else { return Ok(Some(mesh)) };
        let Some(multicast) = multicast.sleeper(mesh.longest)? else { return Ok(None) };
        let both = match self.both.take() {
            Some(both) => both,
            None => watch([mesh.readable, multicast.readable])?,
        };
        let both = self.both.insert(both);
        Ok(Some(Sleep { readable: OwnedFd::as_fd(both), longest: multicast.longest }))
    }

    fn waker(&self) -> Waker {
        self.mesh.waker()
    }

    fn can_broadcast(&self) -> bool {
        self.multicast.as_ref().is_some_and(Port::can_broadcast)
    }

    fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
        let mut change = match &mut self.multicast {
            Some(multicast) => multicast.follow_host()?,
            None => None,
        };
        if change.is_none() {
            change = self.mesh.follow_host()?;
            self.hello.address = self.mesh.local_address();
        }
        if change.is_some() {
            self.both = None; // it watched descriptors that are closed
        }
        Ok(change)
    }

    fn limits(&self) -> Limits {
        self.multicast.as_ref().map_or(self.mesh.limits(), Port::limits)
    }

    fn local_address(&self) -> SocketAddr {
        self.mesh.local_address()
    }

    fn group_source(&self) -> Option<SocketAddr> {
        self.multicast.as_ref().and_then(Port::group_source)
    }

    fn bypass(&mut self, others: &[Origin]) {
        self.bypassed = others.iter().map(|other| other.address).collect();
        self.multicast.iter_mut().for_each(|multicast| multicast.bypass(others));
        (self.noted, self.reach, self.next_look) = (None, None, Instant::now());
    }

    fn io(&self) -> &str {
        self.mesh.io()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_reports_are_distinguished_from_datagrams_and_strangers() {
        let hello = |port| Hello { token: 7, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        let (own, other, mut peers) = (hello(1), hello(2), Vec::new());
        let probe = |hello: Hello| joined::<PROBE_BYTES>(&PROBE, &hello.to_bytes());
        assert!(!take_in(&mut peers, own, b"bd?probe and more"));
        assert!(!take_in(&mut peers, own, &probe(other)[1..]));
        assert!(take_in(&mut peers, own, &probe(own)) && peers.is_empty(), "its own probe adds no peer");
        assert!(take_in(&mut peers, own, &probe(Hello { token: 8, ..other })) && peers.is_empty(), "another group's");
        assert!(take_in(&mut peers, own, &probe(other)));
        assert!(peers[0].heard.is_some() && peers[0].hears_us.is_none());
        let mut report: [u8; REPORT_BYTES] = joined(&REPORT, &other.to_bytes());
        for hears in [1, 0] {
            report[REPORT_BYTES - 1] = hears;
            assert!(take_in(&mut peers, own, &report));
            assert_eq!(peers[0].hears_us.is_some(), hears == 1);
        }
        for port in 3..CONNECTIONS_MAX as u16 + 10 {
            take_in(&mut peers, own, &probe(hello(port)));
        }
        assert_eq!(peers.len(), CONNECTIONS_MAX, "bounded");
    }
}
