//! Groups that no other test uses.
#![allow(dead_code)] // each test program uses its part
#![allow(unsafe_code)] // enters a network namespace

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{self, Command};
use std::sync::Mutex;

use crate::skipped;
use bourdon_port::conformance::Role;
use bourdon_udp::{UdpOptions, UdpPort};

/// A group on its own port, numbered within this program and distinguished from other programs by the process id.
pub(crate) fn fresh_group() -> SocketAddr {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().expect("nothing panics while it is held");
    *next += 1;
    let [.., high, low] = process::id().to_be_bytes();
    // Below the ephemeral ports, which unicast sockets take; by program, since broadcasts go to all groups of a port.
    let first = 10_000 + (process::id() % 150) as u16 * 150;
    SocketAddr::from((Ipv4Addr::new(239, 255, high, low), first + *next))
}

/// Opens ports into two groups on one port on `lo`, with options changed by `adjust`.
pub(crate) fn world(adjust: impl Fn(&mut UdpOptions)) -> impl Fn(Role) -> UdpPort {
    world_of(fresh_group(), adjust)
}

/// The same for a group given.
pub(crate) fn world_of(group: SocketAddr, adjust: impl Fn(&mut UdpOptions)) -> impl Fn(Role) -> UdpPort {
    move |role| {
        let mut group = group;
        if role.group == 1 {
            group.set_ip(match group {
                SocketAddr::V4(v4) => Ipv4Addr::from_bits(v4.ip().to_bits() ^ (1 << 16)).into(),
                SocketAddr::V6(v6) => Ipv6Addr::from_bits(v6.ip().to_bits() ^ 1).into(),
            });
        }
        let mut options = UdpOptions { idle: role.idle, echo: role.echo, ..UdpOptions::new(group) };
        adjust(&mut options);
        UdpPort::open(&options).expect("a port on lo")
    }
}

/// Puts this thread, and what it starts, into a network namespace of its own with `lo` up, and runs `ip` there with
/// each of `commands`. Where that can't be it reports why and returns false.
#[track_caller]
pub(crate) fn enter_namespace(commands: &[&str]) -> bool {
    // SAFETY: takes a number only, and changes the namespace of this thread, which runs nothing but one test.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        skipped::report(format_args!("no network namespace without root: {}", io::Error::last_os_error()));
        return false;
    }
    ["link set lo up"].iter().chain(commands).all(|command| {
        let result = Command::new("ip").args(command.split(' ')).status();
        let is_done = result.as_ref().is_ok_and(|status| status.success());
        if !is_done {
            skipped::report(format_args!("`ip {command}`: {result:?}"));
        }
        is_done
    })
}
