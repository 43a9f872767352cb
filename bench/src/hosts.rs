//! A separate host for each member: network namespaces on a bridge, all on this machine.
//!
//! Three daemons of a peer that expects one daemon a host can't run on one loopback interface, and a system measured on
//! `lo` can't be compared with one that crosses a bridge. So every member gets a network namespace with one interface,
//! and one more namespace holds the bridge between them; nothing is connected to this machine's own network. Where
//! two hosts are enough, they have a cable between them and no bridge.
//!
//! Named namespaces outlive a killed measurement and must be removed. These have no names: each exists as long as a
//! process in it does. A holder process runs in each and ends when its standard input ends, and that is when this
//! process ends, however it ends. Making a namespace needs root.
//!
//! Cables can be pulled (`hosts/switch.rs`).
//!
//! Invariant: [`Hosts::make`] returns only when every interface is up, and all of it is gone after the drop.

mod switch;

use crate::Failure;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use switch::Switch;

/// The interface of each host.
pub(crate) const INTERFACE: &str = "bd0";
/// The prefix of their addresses; no process outside sees them.
pub(crate) const NETWORK: &str = "10.74.0.0";

/// A network namespace, alive as long as its holder.
struct Namespace {
    holder: Child,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Namespace {
    fn make() -> Result<Self, Failure> {
        let missing = |error| Failure::Unusable(format!("can't run unshare: {error}; install util-linux"));
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut namespace = Self { holder: command.spawn().map_err(missing)? };
        // The echoed line has passed through the holder, which is therefore in its namespace.
        let (stdin, stdout) = (namespace.holder.stdin.as_mut(), namespace.holder.stdout.as_mut());
        let (stdin, stdout) = (stdin.expect("stdin is piped"), stdout.expect("stdout is piped"));
        let answered = stdin.write_all(b"?").and_then(|()| stdout.read_exact(&mut [0]));
        if answered.is_err() {
            let mut why = String::new();
            let _ = namespace.holder.stderr.take().map(|mut stderr| stderr.read_to_string(&mut why));
            let why = why.trim();
            return Err(Failure::Unusable(format!("can't make a network namespace: {why}; run this as root")));
        }
        Ok(namespace)
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs in the namespace.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg("--");
        command
    }

    /// Gives the host's interface its address, and all multicast.
    fn set_up(&self, index: u16) -> Result<(), Failure> {
        self.ip(&format!(
            "link set lo up\naddr add {}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n\
             route add 224.0.0.0/4 dev {INTERFACE}\n",
            address(index)
        ))
    }

    /// Runs these lines of `ip` in the namespace.
    fn ip(&self, lines: &str) -> Result<(), Failure> {
        let unusable = |error| Failure::Unusable(format!("can't run ip in a network namespace: {error}"));
        let mut command = self.enter();
        command.args(["ip", "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(unusable)?;
        child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes()).map_err(unusable)?;
        let output = child.wait_with_output().map_err(unusable)?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            let why = why.trim();
            return Err(Failure::Unusable(format!("can't set up the hosts: {why}; install iproute2, run as root")));
        }
        Ok(())
    }
}

/// Some hosts on a bridge, or two on one cable.
pub(crate) struct Hosts {
    hosts: Vec<Namespace>,
    /// Started when the first cable is pulled.
    switch: Option<Switch>,
    bridge: Option<Namespace>,
}

impl Hosts {
    /// Makes `count` hosts, each with one interface that accepts all multicast.
    pub(crate) fn make(count: u16) -> Result<Self, Failure> {
        let bridge = Namespace::make()?;
        bridge.ip("link set lo up\nlink add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
        let mut hosts = Vec::new();
        for index in 1..=count {
            let host = Namespace::make()?;
            bridge.ip(&format!(
                "link add port{index} type veth peer name {INTERFACE} netns {}\n\
                 link set port{index} master br0 up\n",
                host.pid()
            ))?;
            host.set_up(index - 1)?;
            hosts.push(host);
        }
        Ok(Self { hosts, switch: None, bridge: Some(bridge) })
    }

    /// Makes two hosts with a cable between them: a veth pair, the shortest way from one host to another.
    pub(crate) fn make_pair() -> Result<Self, Failure> {
        let hosts = [Namespace::make()?, Namespace::make()?];
        let far = hosts[1].pid();
        hosts[0].ip(&format!("link add {INTERFACE} type veth peer name {INTERFACE} netns {far}\n"))?;
        (0..2).zip(&hosts).try_for_each(|(index, host)| host.set_up(index))?;
        Ok(Self { hosts: hosts.into(), switch: None, bridge: None })
    }

    /// A command that runs on a host.
    pub(crate) fn enter(&self, index: u16) -> Command {
        self.hosts[usize::from(index)].enter()
    }

    /// Prepares to pull cables.
    pub(crate) fn watch_cables(&mut self) -> Result<(), Failure> {
        if self.switch.is_none() {
            let bridge = self.bridge.as_ref().expect("cables are pulled at a bridge");
            self.switch = Some(Switch::start(bridge)?);
        }
        Ok(())
    }

    /// Pulls a host's cable, or cuts one direction: `to` then receives nothing from it.
    pub(crate) fn cut(&mut self, host: u16, to: Option<u16>) -> Result<(), Failure> {
        self.set_cable("add", host, to)
    }

    /// Reconnects it.
    pub(crate) fn restore(&mut self, host: u16, to: Option<u16>) -> Result<(), Failure> {
        self.set_cable("delete", host, to)
    }

    fn set_cable(&mut self, verb: &str, host: u16, to: Option<u16>) -> Result<(), Failure> {
        self.watch_cables()?;
        let port = |host: u16| format!("port{}", host + 1);
        let (set, element) = match to {
            None => ("cut", port(host)),
            Some(to) => ("one_way", format!("{} . {}", port(host), port(to))),
        };
        let switch = self.switch.as_mut().expect("it has just been started");
        switch.run(&format!("{verb} element bridge cuts {set} {{ {element} }}\n"))
    }
}

/// The address of a host.
pub(crate) fn address(index: u16) -> std::net::Ipv4Addr {
    let [high, low] = (index + 1).to_be_bytes();
    [10, 74, high, low].into()
}
