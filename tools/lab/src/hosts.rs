//! Real hosts on one machine: network namespaces on a switch.
//!
//! Processes that communicate over `lo` share one interface, so none can be cut off, and multicast on `lo` has no
//! switch that forgets a membership. So each host is a network namespace with one interface, `eth0`, 10.77.0.(rank +
//! 1)/24 and fd77::(rank + 1)/64. The other end of its cable is a port `p<rank>` of a bridge, in a namespace of its
//! own, that snoops and queries as a switch does. Nothing is added to the namespace in which the harness was started.
//!
//! Most faults are injected at the bridge, so that hosts notice only silence: their interfaces stay up. [`Lab::cut`] is
//! a pulled cable: the switch receives no membership reports either. [`Lab::cut_one_way`] drops packets from one port
//! to another; address resolution still passes, because otherwise the other direction would fail as well.
//! [`Lab::set_port_mtu`] and [`Lab::drop_long`] are a path that takes short packets only. Others change the host
//! itself: its interface is removed and made again, brought down and up, or gets another address.
//!
//! Invariants: every namespace and process that a lab makes is gone after its `Drop`; no other is touched. The next
//! harness removes what a killed harness left behind: names carry its process id.

mod network;
mod process;

pub use process::{Process, ProcessError};

use network::Names;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// The most hosts of a lab: a view's members.
pub const HOSTS_MAX: usize = 64;

/// Why there is no lab on this machine.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Not root.
    #[error("network namespaces need root")]
    NotRoot,
    /// A program is missing.
    #[error("{program} is missing (Debian: apt-get install {package})")]
    Missing {
        /// The program.
        program: &'static str,
        /// Its package.
        package: &'static str,
    },
    /// The kernel, or a sandbox, refuses.
    #[error("`{command}` was refused: {why}")]
    Refused {
        /// The refused command.
        command: String,
        /// Its error output.
        why: String,
    },
    /// More hosts than are possible, or none.
    #[error("a lab has 1 to {HOSTS_MAX} hosts, not {0}")]
    Size(usize),
}

/// A switch and the hosts on it.
#[derive(Debug)]
pub struct Lab {
    names: Names,
    hosts: usize,
    /// The hosts that have another IPv4 address than the first.
    has_moved: Vec<bool>,
}

/// One host, to run programs on.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    lab: &'a Lab,
    rank: usize,
}

impl Lab {
    /// Builds a lab with this many hosts, all connected.
    ///
    /// # Errors
    /// If this machine does not allow it; what was built so far is removed.
    pub fn new(hosts: usize) -> Result<Self, Unavailable> {
        if !(1..=HOSTS_MAX).contains(&hosts) {
            return Err(Unavailable::Size(hosts));
        }
        network::check_environment()?;
        network::remove_stale();
        let lab = Self { names: Names::unique(), hosts, has_moved: vec![false; hosts] };
        network::build(&lab.names, hosts)?; // on failure `lab` is dropped and removes what there is
        Ok(lab)
    }

    /// The hosts, by rank.
    pub fn hosts(&self) -> impl Iterator<Item = Host<'_>> {
        (0..self.hosts).map(|rank| Host { lab: self, rank })
    }

    /// One host.
    ///
    /// # Panics
    /// If the lab has no such rank.
    pub fn host(&self, rank: usize) -> Host<'_> {
        assert!(rank < self.hosts, "host {rank} of {}", self.hosts);
        Host { lab: self, rank }
    }

    /// Pulls a host's cable: nothing passes in either direction, its interface stays up.
    ///
    /// # Errors
    /// If the rule can't be set.
    pub fn cut(&self, host: usize) -> Result<(), Unavailable> {
        network::rule(&self.names, "add", "cut", &port(host))
    }

    /// Puts a pulled cable back.
    ///
    /// # Errors
    /// If the cable was not cut.
    pub fn restore(&self, host: usize) -> Result<(), Unavailable> {
        network::rule(&self.names, "delete", "cut", &port(host))
    }

    /// Drops everything that `from` sends to `to`.
    ///
    /// # Errors
    /// If the rule can't be set.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<(), Unavailable> {
        network::rule(&self.names, "add", "one_way", &format!("{} . {}", port(from), port(to)))
    }

    /// Ends the cut.
    ///
    /// # Errors
    /// If it was not cut.
    pub fn restore_one_way(&self, from: usize, to: usize) -> Result<(), Unavailable> {
        network::rule(&self.names, "delete", "one_way", &format!("{} . {}", port(from), port(to)))
    }

    /// Sets the MTU of the switch's port to a host; the host's own stays as it is. So longer packets vanish both ways.
    ///
    /// Packets that a host's kernel cut from one run (UDP_SEGMENT) pass all the same: a cable would not carry them, and
    /// a virtual one does. Processes that have `network.offload = false` send none.
    ///
    /// # Errors
    /// If it can't be set.
    pub fn set_port_mtu(&self, host: usize, mtu_bytes: usize) -> Result<(), Unavailable> {
        network::set_port_mtu(&self.names, host, mtu_bytes)
    }

    /// Drops the long datagrams (above 1,000 bytes) that a host sends; those that it receives pass.
    ///
    /// # Errors
    /// If the rule can't be set.
    pub fn drop_long(&self, from: usize) -> Result<(), Unavailable> {
        self.segment_in_hosts()?;
        network::rule(&self.names, "add", "short_only", &port(from))
    }

    /// Lets them pass again.
    ///
    /// # Errors
    /// If they were not dropped.
    pub fn pass_long(&self, from: usize) -> Result<(), Unavailable> {
        network::rule(&self.names, "delete", "short_only", &port(from))
    }

    /// Removes a host's interface. Processes there keep running.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_interface(&self, host: usize) -> Result<(), Unavailable> {
        network::remove_interface(&self.names, host)
    }

    /// Makes a host's interface again, with another number and another hardware address.
    ///
    /// # Errors
    /// If it is there.
    pub fn make_interface(&self, host: usize) -> Result<(), Unavailable> {
        network::make_interface(&self.names, host, self.current_address(host))?;
        network::no_offload(&self.names, host)
    }

    /// Brings a host's interface down.
    ///
    /// # Errors
    /// If there is none.
    pub fn bring_down(&self, host: usize) -> Result<(), Unavailable> {
        network::bring_down(&self.names, host)
    }

    /// Brings it up again.
    ///
    /// # Errors
    /// If there is none.
    pub fn bring_up(&self, host: usize) -> Result<(), Unavailable> {
        network::bring_up(&self.names, host)
    }

    /// Takes a host's IPv4 address away.
    ///
    /// # Errors
    /// If it has none.
    pub fn take_address(&self, host: usize) -> Result<(), Unavailable> {
        network::take_address(&self.names, host, self.current_address(host))
    }

    /// Gives a host an IPv4 address: the one that it had, or another one.
    ///
    /// # Errors
    /// If it has that address.
    pub fn give_address(&mut self, host: usize, is_another: bool) -> Result<(), Unavailable> {
        self.has_moved[host] ^= is_another;
        network::give_address(&self.names, host, self.current_address(host))
    }

    /// The IPv4 address that a host has, or had last.
    fn current_address(&self, host: usize) -> Ipv4Addr {
        if self.has_moved[host] { network::other_address(host) } else { network::address(host) }
    }

    /// Drops this percentage of the packets that leave the switch, each copy independently.
    ///
    /// # Errors
    /// If the rule can't be set.
    pub fn lose(&self, percent: u8) -> Result<(), Unavailable> {
        self.segment_in_hosts()?;
        network::lose(&self.names, percent)
    }

    /// Lets the switch see packets as they are on a cable.
    fn segment_in_hosts(&self) -> Result<(), Unavailable> {
        (0..self.hosts).try_for_each(|rank| network::no_offload(&self.names, rank))
    }

    /// A program to run at the switch, where it sees all traffic.
    pub fn switch_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_in(&self.names.switch(), program)
    }

    fn command_in(&self, namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]).arg(network::entry(namespace));
        command.arg("--").arg(program);
        command
    }

    /// The namespaces of this lab, the switch's last.
    pub fn namespaces(&self) -> Vec<String> {
        self.names.all(self.hosts)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        network::remove(&self.namespaces());
    }
}

impl Host<'_> {
    /// Its number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Its first IPv4 address.
    pub fn address(&self) -> Ipv4Addr {
        network::address(self.rank)
    }

    /// Its IPv6 address.
    pub fn address_v6(&self) -> Ipv6Addr {
        network::address_v6(self.rank)
    }

    /// A program to run on this host; arguments may be added.
    ///
    /// It is killed when the thread that starts it ends, and when the lab is dropped. The process id is the program's
    /// own: the helpers that lead into the namespace replace themselves.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.lab.command_in(&self.lab.names.host(self.rank), program)
    }
}

fn port(rank: usize) -> String {
    format!("p{rank}")
}
