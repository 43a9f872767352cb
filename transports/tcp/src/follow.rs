//! Follows changes of the host: a process that the others do not look for moves with its host, a member waits.
//!
//! Every socket of a mesh is bound to the address at which the process listens. When the host loses that address, the
//! connections end one by one, and none can be dialled. An observer or a client takes any address by which it reaches
//! the members, so it listens at the new one. The others find a member at the address in their configuration, which no
//! process can change for them: it waits until the host has that address again, and ends where another one has taken
//! its place for a while, because then only a person can help.
//!
//! Invariants: a member never listens at another address than its own; nothing here waits; the waker stays the same.

use crate::TcpPort;
use crate::mesh::Mesh;
use crate::options::TcpOptions;
use bourdon_port::{HostChange, InterfaceLoss, PortError};
use bourdon_udp::{Watch, holder_of};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long another address may stand in the place of a member's own: longer than a host takes that changes several.
const REPLACED_MAX: Duration = Duration::from_secs(5);

/// What a port knows of its address.
#[derive(Debug)]
pub(crate) struct Followed {
    options: TcpOptions,
    watch: Watch,
    /// The interface that has, or had, the address.
    interface: String,
    /// The address is gone, as was reported.
    pub(crate) is_lost: bool,
    /// Since when another address stands in its place.
    replaced_since: Option<Instant>,
}

impl Followed {
    pub(crate) fn new(options: &TcpOptions, local: SocketAddr) -> Self {
        let interface = holder_of(local.ip(), None).ok().flatten().map(|holder| holder.interface);
        Self {
            options: options.clone(),
            watch: Watch::open(),
            interface: interface.unwrap_or_default(),
            is_lost: false,
            replaced_since: None,
        }
    }

    /// Where a process that may move listens now: the address by which the host reaches the first peer.
    fn new_place(&self) -> Option<SocketAddr> {
        let peer = self.options.dial.first().filter(|_| self.options.may_move)?;
        let any: SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any).ok()?; // connecting it sends nothing
        socket.connect(peer).ok()?;
        Some(SocketAddr::new(socket.local_addr().ok()?.ip(), 0))
    }

    /// Another address of the interface that had `address`, once it has stood there for too long.
    fn replacement(&mut self, address: IpAddr) -> Option<IpAddr> {
        let holder = holder_of(address, Some(&self.interface)).ok().flatten();
        // A link-local address stays when the other goes for a while: it replaces none.
        let is_local = |other: &IpAddr| matches!(other, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let now = holder.and_then(|holder| holder.addresses.into_iter().find(|other| !is_local(other)));
        let Some(now) = now.filter(|_| !self.options.may_move) else {
            self.replaced_since = None;
            return None;
        };
        let since = *self.replaced_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= REPLACED_MAX).then_some(now)
    }
}

/// Whether this host has `address`.
fn has(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Err(error) => error.raw_os_error() != Some(libc::EADDRNOTAVAIL),
        Ok(_) => true,
    }
}

impl TcpPort {
    /// As [`Port::follow_host`](bourdon_port::Port::follow_host).
    pub(crate) fn follow(&mut self) -> Result<Option<HostChange>, PortError> {
        let is_lost = self.followed.is_lost;
        if self.followed.watch.is_due(None, is_lost) { self.look_at_host() } else { Ok(None) }
    }

    #[cold]
    fn look_at_host(&mut self) -> Result<Option<HostChange>, PortError> {
        let before = self.mesh.local;
        let followed = &mut *self.followed;
        if has(before.ip()) {
            let was_lost = std::mem::take(&mut followed.is_lost);
            followed.replaced_since = None;
            let interface = followed.interface.clone();
            return Ok(was_lost.then_some(HostChange::Bound { interface, address: before, before }));
        }
        if let Some(place) = followed.new_place()
            && self.move_to(place).is_ok()
        {
            let (interface, address) = (self.followed.interface.clone(), self.mesh.local);
            return Ok(Some(HostChange::Bound { interface, address, before }));
        }
        let followed = &mut *self.followed;
        if let Some(now) = followed.replacement(before.ip()) {
            let interface = followed.interface.clone();
            return Err(PortError::AddressReplaced { interface, address: before.ip(), now });
        }
        let (interface, loss) = (followed.interface.clone(), InterfaceLoss::AddressGone);
        let is_news = !std::mem::replace(&mut followed.is_lost, true);
        Ok(is_news.then_some(HostChange::Lost { interface, loss }))
    }

    /// Listens at another address, and dials the peers from there.
    fn move_to(&mut self, place: SocketAddr) -> Result<(), PortError> {
        let options = TcpOptions { listen: place, ..self.followed.options.clone() };
        let mesh = Mesh::begin(&options)?;
        let mut followed = Box::new(Followed::new(&options, mesh.local));
        // What was announced meanwhile is read.
        std::mem::swap(&mut followed.watch, &mut self.followed.watch);
        *self = Self::with(&options, mesh, self.waker.clone(), Some(followed))?;
        Ok(())
    }
}
