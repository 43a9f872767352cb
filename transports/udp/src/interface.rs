//! Finds out what an interface is: its index, its own address, its MTU.
//!
//! Left to itself the kernel picks an interface by its routing table, which on most hosts sends multicast out of the
//! default route. So everything here goes by the index of the interface that was named, and nothing by the table.
//!
//! Source: getifaddrs(3), netdevice(7).

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;

use bourdon_port::{InterfaceLoss, PortError};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// An interface that is up and has an address of the family asked for.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// Port 0; IPv6 link-local addresses with their scope.
    pub(crate) address: SocketAddr,
    pub(crate) mtu_bytes: usize,
    /// The broadcast address of the IPv4 network it is on, if it has one.
    pub(crate) broadcast: Option<Ipv4Addr>,
}

impl Interface {
    /// Finds `name`'s address in the family of `group`.
    pub(crate) fn find(name: &str, group: SocketAddr) -> Result<Self, PortError> {
        Self::look_up(name, group, None)?.map_err(|loss| {
            let why = match loss {
                InterfaceLoss::Down => "it is down (`ip link set up` brings it up)".to_owned(),
                InterfaceLoss::NoAddress if group.is_ipv4() => "it has no IPv4 address".to_owned(),
                InterfaceLoss::NoAddress => "it has no IPv6 address".to_owned(),
                _ => format!("there is none of this name among {}", names().join(", ")),
            };
            PortError::Interface { name: name.to_owned(), loss, why }
        })
    }

    /// As [`Interface::find`]; where it has several addresses, `kept` stays the one. Inside: why it can't be used.
    pub(crate) fn look_up(
        name: &str,
        group: SocketAddr,
        kept: Option<IpAddr>,
    ) -> Result<Result<Self, InterfaceLoss>, PortError> {
        let io = |doing| move |source: std::io::Error| PortError::Io { doing, source };
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, None).map_err(io("opening a socket"))?;
        // Longer names can't exist, and would be cut to one that might.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Ok(Err(InterfaceLoss::NoInterface));
        }
        let Ok(index) = rustix::net::netdevice::name_to_index(&socket, name) else {
            return Ok(Err(InterfaceLoss::NoInterface));
        };
        let Addresses { found: mut candidates, is_up, broadcast } =
            addresses(name, group).map_err(io("listing interfaces"))?;
        if !is_up {
            return Ok(Err(InterfaceLoss::Down));
        }
        // A link-local address means nothing to a peer that does not know the scope, so any other comes first.
        candidates.sort_by_key(|address| {
            let is_link_local = matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
            (is_link_local, Some(address.ip()) != kept)
        });
        let Some(address) = candidates.first().copied() else { return Ok(Err(InterfaceLoss::NoAddress)) };
        let mtu_bytes = mtu(&socket, name).map_err(io("asking for the MTU"))?;
        Ok(Ok(Self { name: name.to_owned(), index, address, mtu_bytes, broadcast }))
    }

    /// `address` with this interface as its scope, where its kind needs one.
    pub(crate) fn scoped(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V6(mut v6) if v6.scope_id() == 0 && needs_scope(*v6.ip()) => {
                v6.set_scope_id(self.index);
                SocketAddr::V6(v6)
            }
            other => other,
        }
    }
}

/// An interface, and its addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The interface that has `address`, or the one named, with all its addresses of that family; none if there is none.
///
/// # Errors
/// If the kernel refuses to list the interfaces.
pub fn holder_of(address: IpAddr, named: Option<&str>) -> std::io::Result<Option<Holder>> {
    let mut all: Vec<Holder> = Vec::new();
    each_address(|name, _, own, _| {
        let Some(own) = own.map(|own| own.ip()).filter(|own| own.is_ipv4() == address.is_ipv4()) else { return };
        let interface = String::from_utf8_lossy(name).into_owned();
        match all.iter_mut().find(|holder| holder.interface == interface) {
            Some(holder) => holder.addresses.push(own),
            None => all.push(Holder { interface, addresses: vec![own] }),
        }
    })?;
    let is_it = |holder: &Holder| match named {
        Some(name) => holder.interface == name,
        None => holder.addresses.contains(&address),
    };
    Ok(all.into_iter().find(is_it))
}

/// The interfaces of this host, as far as the kernel lists them.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    let _ = each_address(|name, _, _, _| {
        let name = String::from_utf8_lossy(name).into_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    });
    names
}

fn needs_scope(ip: Ipv6Addr) -> bool {
    // ff01::/16 interface-local, ff02::/16 link-local: RFC 4291, 2.7.
    ip.is_unicast_link_local() || (ip.is_multicast() && (ip.segments()[0] & 0xf) <= 2)
}

/// The addresses of one interface in one family, with port 0.
struct Addresses {
    found: Vec<SocketAddr>,
    is_up: bool,
    broadcast: Option<Ipv4Addr>,
}

/// What `name` has in `group`'s family.
fn addresses(name: &str, group: SocketAddr) -> std::io::Result<Addresses> {
    let (mut found, mut is_up, mut broadcast) = (Vec::new(), false, None);
    each_address(|interface, flags, own, of_network| {
        if interface != name.as_bytes() {
            return;
        }
        is_up |= flags & libc::IFF_UP as u32 != 0;
        found.extend(own.filter(|address| address.is_ipv4() == group.is_ipv4()));
        if flags & libc::IFF_BROADCAST as u32 != 0
            && let (Some(SocketAddr::V4(_)), Some(SocketAddr::V4(network))) = (own, of_network)
        {
            broadcast = broadcast.or(Some(*network.ip()));
        }
    })?;
    Ok(Addresses { found, is_up, broadcast })
}

/// Calls `take` with each address of each interface: the interface's name and flags, the address if it is an internet
/// address, and the network's broadcast address.
fn each_address(mut take: impl FnMut(&[u8], u32, Option<SocketAddr>, Option<SocketAddr>)) -> std::io::Result<()> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer to `list`, which is a live local, and keeps no reference to it.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut next = list;
    // SAFETY: `next` is null or one of the entries of `list`, which lives until freeifaddrs below; nothing else knows
    // of the list, so nothing changes it meanwhile.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: ifa_name is never null and points to a terminated string that lives as long as the list.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_bytes();
        // SAFETY: both point to nothing or to an address that lives as long as the list.
        let (own, of_network) = unsafe { (read(entry.ifa_addr), read(entry.ifa_ifu)) };
        take(name, entry.ifa_flags, own, of_network);
    }
    // SAFETY: `list` came from getifaddrs, is freed once, and nothing borrowed from it is alive any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(())
}

/// The internet address that `address` points to, if it does.
///
/// # Safety
/// It is null, or points to a socket address of the length that its family gives.
unsafe fn read(address: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: as above; `as_ref` reads no more than the generic part, which every family has.
    let generic = unsafe { address.as_ref() }?;
    let length = match i32::from(generic.sa_family) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: both kinds of address are shorter than the storage, which is made for any of them; the source has
    // `length` bytes since that is the length of its family, and the two don't overlap.
    unsafe {
        ptr::copy_nonoverlapping(address.cast::<u8>(), (&raw mut storage).cast::<u8>(), length);
    }
    // SAFETY: the storage now starts with `length` bytes of a valid address and is zero behind them.
    unsafe { SockAddr::new(storage, length as libc::socklen_t) }.as_socket()
}

fn mtu(socket: &Socket, name: &str) -> std::io::Result<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: ifreq is plain C data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, source) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *target = *source as libc::c_char;
    }
    // SAFETY: SIOCGIFMTU reads the name, which `find` has checked to be shorter than the field and which is therefore
    // terminated by a zero, and writes the field read below; `request` lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &mut request) };
    if result != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel has written this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_mtu }.max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_it_is() {
        let lo = Interface::find("lo", SocketAddr::from(([239, 0, 0, 1], 1))).expect("every host has lo");
        assert!(lo.index > 0 && lo.address.ip().is_loopback() && lo.address.port() == 0 && lo.mtu_bytes >= 1500);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in ["", "no-such-if", "lo\0", "a-name-that-is-longer-than-names-are"] {
            let refused = Interface::find(name, SocketAddr::from(([239, 0, 0, 1], 1)));
            assert!(matches!(refused, Err(PortError::Interface { .. })), "{name:?}");
        }
    }
}
