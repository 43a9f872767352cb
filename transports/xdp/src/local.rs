//! Copies for the other processes of this host.
//!
//! A frame that bypasses the kernel goes to the wire alone: the kernel loops nothing back to other sockets of this host
//! that joined the group on the same interface. So while there are such sockets, each datagram to the group is also
//! sent through the kernel, with a time to live of 0, with which it stays on this host. The kernel lists how many
//! sockets have joined; one of them is this port's own.
//!
//! Source: ip(7), ipv6(7), `/proc/net/igmp`, `/proc/net/igmp6`; RFC 1112 §6.1 (a time to live of 0).

use bourdon_port::PortError;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How often the kernel's list is read: a process that starts on this host hears nothing of this one for so long.
const LOOK: Duration = Duration::from_millis(100);

/// The way to this host's other processes.
#[derive(Debug)]
pub(crate) struct Local {
    socket: Socket,
    /// Opened once: it lists the network namespace in which it was opened.
    list: Option<File>,
    group: IpAddr,
    interface: String,
    looked_at: Option<Instant>,
    has_others: bool,
}

impl Local {
    /// A way to the processes that joined `group` on the interface which has this index, name and address.
    pub(crate) fn open(group: SocketAddr, (index, name, own): (u32, &str, IpAddr)) -> Result<Self, PortError> {
        let io = |doing| move |source| PortError::Io { doing, source };
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))
            .map_err(io("opening a UDP socket"))?;
        let set = match own {
            IpAddr::V4(ip) => socket.set_multicast_if_v4(&ip).and_then(|()| {
                socket.set_multicast_ttl_v4(0)?;
                socket.set_multicast_loop_v4(true)
            }),
            IpAddr::V6(_) => socket.set_multicast_if_v6(index).and_then(|()| {
                socket.set_multicast_hops_v6(0)?;
                socket.set_multicast_loop_v6(true)
            }),
        };
        set.and_then(|()| socket.bind(&SocketAddr::new(own, 0).into()))
            .map_err(io("opening the way to this host's processes"))?;
        let group_address = match group {
            SocketAddr::V6(mut v6) => {
                v6.set_scope_id(index);
                SocketAddr::V6(v6)
            }
            v4 => v4,
        };
        socket.connect(&group_address.into()).map_err(io("opening the way to this host's processes"))?;
        let list = if group.is_ipv4() { "/proc/thread-self/net/igmp" } else { "/proc/thread-self/net/igmp6" };
        Ok(Self {
            socket,
            list: File::open(list).ok(),
            group: group.ip(),
            interface: name.to_owned(),
            looked_at: None,
            has_others: true, // until the list was read
        })
    }

    /// Looks from time to time whether there are other processes.
    pub(crate) fn look(&mut self) {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let Some(list) = &self.list else { return };
        let mut text = Vec::new();
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = list.read_at(&mut part, text.len() as u64) {
            text.extend_from_slice(&part[..length]);
        }
        let text = String::from_utf8_lossy(&text);
        self.has_others = match self.group {
            IpAddr::V4(group) => users_v4(&text, &self.interface, u32::from_ne_bytes(group.octets())),
            IpAddr::V6(group) => users_v6(&text, &self.interface, &format!("{:032x}", group.to_bits())),
        }
        .is_none_or(|users| users > 1);
    }

    /// Whether other processes of this host have joined the group.
    pub(crate) fn has_others(&self) -> bool {
        self.has_others
    }

    /// Sends them a datagram; what does not fit their buffers is lost, as it is everywhere.
    pub(crate) fn send(&self, datagram: &[u8]) {
        let _ = self.socket.send_with_flags(datagram, libc::MSG_DONTWAIT);
    }
}

/// How many sockets have joined a group on an interface, by the kernel's list for IPv4.
fn users_v4(text: &str, interface: &str, group: u32) -> Option<u32> {
    let group = format!("{group:08X}");
    let mut is_here = false;
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        if !line.starts_with(char::is_whitespace) {
            is_here = words.nth(1).map(|name| name.trim_end_matches(':')) == Some(interface);
        } else if is_here && words.next() == Some(&group) {
            return words.next()?.parse().ok();
        }
    }
    None
}

/// The same for IPv6.
fn users_v6(text: &str, interface: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_it = words.next() == Some(interface) && words.next() == Some(group);
        if is_it { words.next()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let v4 = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                  1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                  2\teth0      :     2      V3\n\t\t\t\t0201FFEF     3 0:00000000\t\t0\n\
                  \t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let group = u32::from_le_bytes([239, 255, 1, 2]);
        assert_eq!(users_v4(v4, "eth0", group), Some(3));
        assert_eq!(users_v4(v4, "lo", group), None);
        let v6 = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
                  2    eth0            ff15000000000000000000000000aabb     2 00000004 0\n";
        assert_eq!(users_v6(v6, "eth0", "ff15000000000000000000000000aabb"), Some(2));
        assert_eq!(users_v6(v6, "lo", "ff15000000000000000000000000aabb"), None);
    }
}
