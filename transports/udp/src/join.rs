//! Joins a group: all that is sent to it, or what certain sources send.
//!
//! A join of a group as such takes in what any sender sends there, and leaves the network to find the senders. A
//! process that names the sources hears no other sender: the kernel drops the rest before it is queued, and routers
//! build a path to each source without a meeting point. Addresses set aside for this (232.0.0.0/8, ff3x::/32) work in
//! no other way.
//!
//! What can't work is refused before it fails in silence: a scope that ends before the interface, reserved scopes, a
//! source of another family. Source: RFC 4607 (source-specific multicast), RFC 4291 §2.7 (scopes), RFC 3678 §5.1 for
//! the calls, which serve both families.

use std::net::{IpAddr, SocketAddr};

use bourdon_port::PortError;
use socket2::{InterfaceIndexOrAddress, SockAddr, Socket};

use crate::interface::Interface;
use crate::open::{no_route, set_option};
use crate::options::UdpOptions;

/// The scopes that ff00::/8 addresses can have, in their second byte's low half, and stay on this host or go nowhere.
const SCOPE_RESERVED: [u8; 2] = [0x0, 0xF];
const SCOPE_INTERFACE: u8 = 0x1;

/// Refuses a group that can't work on this interface, or not without sources.
pub(crate) fn check(options: &UdpOptions, interface: &Interface) -> Result<(), PortError> {
    let group = options.group;
    if options.sources.is_empty() && is_source_specific(group.ip()) {
        return Err(PortError::SourcesWanted(group));
    }
    options.sources.iter().try_for_each(|source| check_source(group, *source))?;
    let SocketAddr::V6(v6) = group else { return Ok(()) };
    let refuse = |why: String| Err(PortError::Scope { group, why });
    let scope = v6.ip().octets()[1] & 0xF;
    if SCOPE_RESERVED.contains(&scope) {
        return refuse(
            "its scope is reserved: choose ff02:: (this link), ff15:: (this site) or ff1e:: (global)".into(),
        );
    }
    if scope == SCOPE_INTERFACE && !interface.address.ip().is_loopback() {
        let name = &interface.name;
        return refuse(format!(
            "its scope is one host's own, so nothing would leave by {name}: choose ff02:: or ff15::, or \
                 lo as network.interface"
        ));
    }
    if v6.scope_id() != 0 && v6.scope_id() != interface.index {
        let (name, index) = (&interface.name, interface.index);
        return refuse(format!(
            "it names another interface than {name}, whose number is {index}: leave the % part out"
        ));
    }
    Ok(())
}

/// Whether an address belongs to the range that is joined by source only.
pub fn is_source_specific(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.octets()[0] == 232,
        IpAddr::V6(v6) => v6.segments()[0] & 0xFFF0 == 0xFF30 && v6.segments()[1] == 0,
    }
}

fn check_source(group: SocketAddr, source: IpAddr) -> Result<(), PortError> {
    let refuse = |why| Err(PortError::Source { address: source, why });
    if source.is_ipv4() != group.is_ipv4() {
        return refuse("the group is of the other family of addresses");
    }
    if source.is_multicast() || source.is_unspecified() {
        return refuse("nothing is ever sent from there: name a process's own address");
    }
    Ok(())
}

/// Joins `group` on the interface.
pub(crate) fn join(
    socket: &Socket,
    options: &UdpOptions,
    group: SocketAddr,
    interface: &Interface,
) -> Result<(), PortError> {
    if options.sources.is_empty() {
        let joined = match group {
            SocketAddr::V4(v4) => socket.join_multicast_v4_n(v4.ip(), &InterfaceIndexOrAddress::Index(interface.index)),
            SocketAddr::V6(v6) => socket.join_multicast_v6(v6.ip(), interface.index),
        };
        return joined.map_err(|source| no_route(options.group, interface, source));
    }
    options.sources.iter().try_for_each(|source| change_source(socket, group, interface, *source, Change::Join))
}

/// What is done about one source of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Join,
    Leave,
    /// Of a group that was joined as such: all but this source is received.
    Block,
}

/// Changes what `socket` receives of `group` by one source.
pub(crate) fn change_source(
    socket: &Socket,
    group: SocketAddr,
    interface: &Interface,
    source: IpAddr,
    change: Change,
) -> Result<(), PortError> {
    check_source(group, source)?;
    // SAFETY: group_source_req is plain C data for which all zeroes is a valid value.
    let mut request: libc::group_source_req = unsafe { std::mem::zeroed() };
    request.gsr_interface = interface.index;
    write(&mut request.gsr_group, group);
    write(&mut request.gsr_source, interface.scoped(SocketAddr::new(source, 0)));
    let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let option = match change {
        Change::Join => libc::MCAST_JOIN_SOURCE_GROUP,
        Change::Leave => libc::MCAST_LEAVE_SOURCE_GROUP,
        Change::Block => libc::MCAST_BLOCK_SOURCE,
    };
    set_option(socket, level, option, &request).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOBUFS) => PortError::Source {
            address: source,
            why: "the kernel takes no more sources: raise net.ipv4.igmp_max_msf (IPv6: net.ipv6.mld_max_msf)",
        },
        Some(libc::EADDRNOTAVAIL) if change == Change::Join => {
            PortError::Source { address: source, why: "it has been joined already" }
        }
        Some(libc::EADDRNOTAVAIL | libc::EINVAL) if change == Change::Leave => {
            PortError::Source { address: source, why: "it has not been joined" }
        }
        _ => no_route(group, interface, error),
    })
}

fn write(target: &mut libc::sockaddr_storage, address: SocketAddr) {
    let address = SockAddr::from(address);
    // SAFETY: both are storages for any address, the source at least `len` bytes of one, and they don't overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            std::ptr::from_mut(target).cast::<u8>(),
            address.len() as usize,
        );
    }
}
