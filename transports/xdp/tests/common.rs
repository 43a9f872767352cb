//! Hosts on one network, each with an interface of its own: made of network namespaces, which end with this program.
#![allow(unsafe_code)] // enters network namespaces

use crate::skipped;
use bourdon_port::conformance::{Role, pattern, receive_count, send_all};
use bourdon_port::{Idle, Port, PortError, To};
use bourdon_udp::{UdpOptions, UdpPort};
use bourdon_xdp::{XdpOptions, XdpPort};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// As many hosts as any test has ports at once.
pub(crate) const HOSTS: usize = 6;

/// What became of each command.
type Outcomes = Receiver<Result<(), String>>;

/// A thread in a network namespace of its own, which runs commands there.
struct Host {
    thread: libc::pid_t,
    namespace: File,
    commands: Mutex<(Sender<String>, Outcomes)>,
}

impl Host {
    fn new() -> Result<Self, String> {
        let (commands, to_run) = channel::<String>();
        let (done, results) = channel();
        let (ready, begun) = channel();
        std::thread::spawn(move || {
            // SAFETY: takes a number only, and changes the namespace of this thread.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                let why = format!("no network namespace without root: {}", std::io::Error::last_os_error());
                return ready.send(Err(why)).unwrap_or_default();
            }
            // SAFETY: takes nothing.
            let thread = unsafe { libc::gettid() };
            let namespace = File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string());
            ready.send(namespace.map(|namespace| (thread, namespace))).unwrap_or_default();
            to_run.iter().try_for_each(|command| done.send(ip(&command))).unwrap_or_default();
        });
        let (thread, namespace) = begun.recv().map_err(|error| error.to_string())??;
        Ok(Self { thread, namespace, commands: Mutex::new((commands, results)) })
    }

    fn ip(&self, command: impl Into<String>) -> Result<(), String> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.0.send(command.into()).map_err(|error| error.to_string())?;
        commands.1.recv().map_err(|error| error.to_string())?
    }
}

/// Runs `ip` on the host that this thread is on.
pub(crate) fn ip(command: &str) -> Result<(), String> {
    match Command::new("ip").args(command.split(' ')).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("`ip {command}`: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("`ip {command}`: {error}")),
    }
}

/// The hosts of one network, and their addresses.
pub(crate) struct Network {
    _switch: Host,
    hosts: Vec<Host>,
}

impl Network {
    fn new(mtu_bytes: usize) -> Result<Self, String> {
        let switch = Host::new()?;
        switch.ip("link set lo up")?;
        switch.ip("link add br0 type bridge mcast_snooping 0")?;
        switch.ip(format!("link set br0 mtu {mtu_bytes} up"))?;
        let mut hosts = Vec::new();
        for i in 0..HOSTS {
            let host = Host::new()?;
            let thread = host.thread;
            switch
                .ip(format!("link add v{i} mtu {mtu_bytes} type veth peer name eth0 mtu {mtu_bytes} netns {thread}"))?;
            switch.ip(format!("link set v{i} master br0 up"))?;
            host.ip("link set lo up")?;
            host.ip(format!("addr add {}/24 brd + dev eth0", address_v4(i)))?;
            host.ip(format!("addr add {}/64 dev eth0 nodad", address_v6(i)))?;
            host.ip("link set eth0 up")?;
            hosts.push(host);
        }
        Ok(Self { _switch: switch, hosts })
    }

    /// Puts the calling thread, and what it starts, onto a host.
    pub(crate) fn enter(&self, host: usize) {
        // SAFETY: takes numbers only, and changes the namespace of this thread, which runs nothing but one test.
        let result = unsafe { libc::setns(self.hosts[host].namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert!(result == 0, "a namespace that is there: {}", std::io::Error::last_os_error());
    }
}

fn address_v4(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 76, 0, host as u8 + 1)
}

fn address_v6(host: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd76, 0, 0, 0, 0, 0, 0, host as u16 + 1)
}

/// A network that no other test uses meanwhile: one at whose MTU drivers take a program, or one with an MTU beyond
/// that. None, with the reason reported, where there can be none.
#[track_caller]
pub(crate) fn network(is_jumbo: bool) -> Option<MutexGuard<'static, Network>> {
    static NETWORKS: [OnceLock<Result<Mutex<Network>, String>>; 2] = [const { OnceLock::new() }; 2];
    let made = NETWORKS[usize::from(is_jumbo)]
        .get_or_init(|| Network::new(if is_jumbo { 9000 } else { 1500 }).map(Mutex::new));
    match made {
        Ok(network) => Some(network.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(why) => {
            skipped::report(why);
            None
        }
    }
}

/// Everything that one sends, to all and to the other alone, reaches the other, whatever each is made of.
pub(crate) fn hear_each_other(one: &mut impl Port, other: &mut impl Port) {
    let size = one.limits().datagram_max_bytes;
    for (round, to) in [To::Group, To::Peer(other.local_address())].into_iter().cycle().take(20).enumerate() {
        let bytes = pattern(round as u64, 30 * size + 17);
        send_all(one, to, &bytes, size);
        let sent: Vec<&[u8]> = bytes.chunks(size).collect();
        assert!(receive_count(other, sent.len()) == sent, "round {round} to {to:?}");
        for _ in 0..100 {
            one.receive(usize::MAX, |_| {}).expect("a receive that works"); // its own: not each call looks for them
        }
        one.follow_host().expect("a host that is followed");
    }
}

pub(crate) fn options(group: &str) -> UdpOptions {
    UdpOptions { interface: "eth0".to_owned(), ..UdpOptions::new(group.parse().expect("an address")) }
}

/// A port above the stack of the host that this thread is on.
pub(crate) fn open(udp: &UdpOptions) -> XdpPort {
    let beneath = UdpPort::open(udp).expect("a port on eth0");
    XdpPort::open(beneath, XdpOptions { udp: udp.clone(), zero_copy: false })
}

/// Opens ports into two groups on one port, each on a host without another.
#[track_caller]
pub(crate) fn world(group: &'static str, is_jumbo: bool) -> Option<impl Fn(Role) -> XdpPort> {
    let network = network(is_jumbo)?;
    let expected = if is_jumbo { "af_xdp-generic" } else { "af_xdp-native" };
    Some(move |role: Role| {
        // The kernel's stack hands a program runs of short datagrams in one piece.
        let mut udp = UdpOptions { idle: role.idle, echo: role.echo, offload: !is_jumbo, ..options(group) };
        if role.group == 1 {
            let other = match udp.group.ip() {
                IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ 1)),
                IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ 1)),
            };
            udp.group = SocketAddr::new(other, udp.group.port());
        }
        let free = (0..HOSTS).find_map(|host| {
            network.enter(host);
            let port = open(&udp);
            match port.refused() {
                None => Some(port),
                Some(PortError::Unavailable { why, .. }) if why.contains("another program") => None,
                Some(other) => panic!("{other}"),
            }
        });
        let port = free.expect("a host without another port");
        assert_eq!(port.io(), expected);
        port
    })
}

#[allow(dead_code)] // every idle strategy of a port is tried by the suite
pub(crate) const IDLES: [Idle; 2] = [Idle::Spin, Idle::Park];
