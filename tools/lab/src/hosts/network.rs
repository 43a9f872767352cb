//! Namespaces, cables and the switch's rules, by `ip` and `nft`.
//!
//! This uses the tools and not netlink: their commands can be tried by hand, and they report in words what the kernel
//! refused.

use super::{Unavailable, port};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Every namespace of a lab begins with this, then the process id of its harness.
const PREFIX: &str = "bdlab-";
/// Where `ip` keeps named namespaces.
const NAMESPACES: &str = "/run/netns";
/// The programs that build a lab, and their packages on Debian.
const PROGRAMS: &[(&str, &str)] =
    &[("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux"), ("setpriv", "util-linux")];

/// The switch: it snoops, and queries memberships every 10 s, at first every second.
const SWITCH: &str = "link add br0 type bridge mcast_snooping 1 mcast_querier 1 \
                      mcast_query_interval 1000 mcast_startup_query_interval 100\n\
                      link set br0 up\nlink set lo up\n";

/// Three sets to fill: ports that are cut, pairs of ports that are cut in one direction, and ports whose hosts' long
/// datagrams are dropped. Before `prerouting` the switch has not even learned a membership; its own queries leave by
/// `output` and do not pass `postrouting`.
const RULES: &str = "\
table bridge lab {
    set cut { type ifname; }
    set one_way { type ifname . ifname; }
    set short_only { type ifname; }
    chain arriving {
        type filter hook prerouting priority -300;
        iifname @cut drop
        iifname @short_only udp length > 1000 drop
    }
    chain passing {
        type filter hook forward priority 0;
        ether type arp accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        iifname . oifname @one_way drop
    }
    chain leaving { type filter hook postrouting priority 0; oifname @cut drop; }
    chain losing { type filter hook postrouting priority 10; }
    chain asking { type filter hook output priority 0; oifname @cut drop; }
}
";

/// The names of a lab's namespaces.
#[derive(Debug)]
pub(super) struct Names {
    lab: String,
}

impl Names {
    /// Names that no other lab of this machine has.
    pub(super) fn unique() -> Self {
        static LABS: Mutex<u32> = Mutex::new(0);
        let mut labs = LABS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *labs += 1;
        Self { lab: format!("{PREFIX}{}-{labs}", std::process::id()) }
    }

    pub(super) fn host(&self, rank: usize) -> String {
        format!("{}-h{rank}", self.lab)
    }

    pub(super) fn switch(&self) -> String {
        format!("{}-switch", self.lab)
    }

    pub(super) fn all(&self, hosts: usize) -> Vec<String> {
        (0..hosts).map(|rank| self.host(rank)).chain([self.switch()]).collect()
    }
}

pub(super) fn address(rank: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last(rank))
}

pub(super) fn address_v6(rank: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last(rank).into())
}

/// The address that a host gets in the place of its first.
pub(super) fn other_address(rank: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 128 + last(rank))
}

fn last(rank: usize) -> u8 {
    u8::try_from(rank + 1).expect("a lab has at most HOSTS_MAX hosts")
}

/// The argument that leads `nsenter` into a namespace.
pub(super) fn entry(namespace: &str) -> String {
    format!("--net={NAMESPACES}/{namespace}")
}

/// Whether a lab can be built here at all.
pub(super) fn check_environment() -> Result<(), Unavailable> {
    if !rustix::process::geteuid().is_root() {
        return Err(Unavailable::NotRoot);
    }
    for &(program, package) in PROGRAMS {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        // `ip` reports that it needs -V; only the fact that it could be started counts.
        if found.is_err() {
            return Err(Unavailable::Missing { program, package });
        }
    }
    Ok(())
}

/// Builds the switch, and a cable to each host.
pub(super) fn build(names: &Names, hosts: usize) -> Result<(), Unavailable> {
    for namespace in names.all(hosts) {
        run(&["ip", "netns", "add", &namespace], "")?;
    }
    let switch = names.switch();
    let mut cables = SWITCH.to_owned();
    (0..hosts).for_each(|rank| cables += &cable(names, rank));
    run(&["ip", "-n", &switch, "-batch", "-"], &cables)?;
    for rank in 0..hosts {
        run(
            &["ip", "-n", &names.host(rank), "-batch", "-"],
            &format!("link set lo up\n{}", inside(rank, address(rank))),
        )?;
    }
    run(&["nsenter", &entry(&switch), "nft", "-f", "-"], RULES)
}

/// The commands that connect a host to the switch.
fn cable(names: &Names, rank: usize) -> String {
    let (port, host) = (port(rank), names.host(rank));
    format!("link add {port} type veth peer name eth0 netns {host}\nlink set {port} master br0 up\n")
}

/// The commands that give a host's interface its addresses and bring it up.
fn inside(rank: usize, v4: Ipv4Addr) -> String {
    format!(
        "address add {v4}/24 dev eth0\naddress add {}/64 dev eth0 nodad\nlink set eth0 up\n\
         route add 224.0.0.0/4 dev eth0\n",
        address_v6(rank)
    )
}

/// Removes a host's interface, and its cable with it.
pub(super) fn remove_interface(names: &Names, rank: usize) -> Result<(), Unavailable> {
    run(&["ip", "-n", &names.host(rank), "link", "delete", "eth0"], "")
}

/// Makes it again, with this address.
pub(super) fn make_interface(names: &Names, rank: usize, v4: Ipv4Addr) -> Result<(), Unavailable> {
    run(&["ip", "-n", &names.switch(), "-batch", "-"], &cable(names, rank))?;
    run(&["ip", "-n", &names.host(rank), "-batch", "-"], &inside(rank, v4))
}

/// Brings a host's interface down.
pub(super) fn bring_down(names: &Names, rank: usize) -> Result<(), Unavailable> {
    run(&["ip", "-n", &names.host(rank), "link", "set", "eth0", "down"], "")
}

/// Brings it up again; its IPv6 address and the route went with it.
pub(super) fn bring_up(names: &Names, rank: usize) -> Result<(), Unavailable> {
    let again = format!(
        "link set eth0 up\naddress replace {}/64 dev eth0 nodad\nroute replace 224.0.0.0/4 dev eth0\n",
        address_v6(rank)
    );
    run(&["ip", "-n", &names.host(rank), "-batch", "-"], &again)
}

/// Takes a host's IPv4 address away.
pub(super) fn take_address(names: &Names, rank: usize, v4: Ipv4Addr) -> Result<(), Unavailable> {
    run(&["ip", "-n", &names.host(rank), "address", "delete", &format!("{v4}/24"), "dev", "eth0"], "")
}

/// Gives a host an IPv4 address.
pub(super) fn give_address(names: &Names, rank: usize, v4: Ipv4Addr) -> Result<(), Unavailable> {
    let again = format!("address add {v4}/24 dev eth0\nroute replace 224.0.0.0/4 dev eth0\n");
    run(&["ip", "-n", &names.host(rank), "-batch", "-"], &again)
}

/// Adds to or deletes from one of the sets of [`RULES`].
pub(super) fn rule(names: &Names, verb: &str, set: &str, element: &str) -> Result<(), Unavailable> {
    let switch = entry(&names.switch());
    run(&["nsenter", &switch, "nft", "-f", "-"], &format!("{verb} element bridge lab {set} {{ {element} }}\n"))
}

/// Drops this share of the IP packets that leave the switch, each copy independently. Membership reports pass: if one
/// is lost, the host receives no multicast until the switch queries again, which is a different fault than loss.
pub(super) fn lose(names: &Names, percent: u8) -> Result<(), Unavailable> {
    let mut rules = "flush chain bridge lab losing\n".to_owned();
    if percent > 0 {
        let _ = writeln!(
            rules,
            "add rule bridge lab losing ether type ip ip protocol != igmp numgen random mod 100 < {percent} drop"
        );
    }
    run(&["nsenter", &entry(&names.switch()), "nft", "-f", "-"], &rules)
}

/// Sets the MTU of the switch's port to a host: longer packets are dropped in both directions, without a report.
pub(super) fn set_port_mtu(names: &Names, rank: usize, mtu_bytes: usize) -> Result<(), Unavailable> {
    run(&["ip", "-n", &names.switch(), "link", "set", "dev", &port(rank), "mtu", &mtu_bytes.to_string()], "")
}

/// Lets a host send packets no larger than a frame, so that one packet is lost at a time.
pub(super) fn no_offload(names: &Names, rank: usize) -> Result<(), Unavailable> {
    run(&["ip", "-n", &names.host(rank), "link", "set", "dev", "eth0", "gso_max_segs", "1"], "")
}

/// Kills the processes in these namespaces and removes the namespaces; one that does not exist is skipped.
pub(super) fn remove(namespaces: &[String]) {
    for namespace in namespaces {
        if !Path::new(NAMESPACES).join(namespace).exists() {
            continue;
        }
        for pid in processes_in(namespace) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if let Err(error) = run(&["ip", "netns", "delete", namespace], "") {
            eprintln!("the lab's namespace {namespace} stays behind: {error}");
        }
    }
}

fn processes_in(namespace: &str) -> Vec<rustix::process::Pid> {
    let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() else { return Vec::new() };
    let pids = String::from_utf8_lossy(&output.stdout);
    pids.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Removes the namespaces that dead harnesses left behind.
pub(super) fn remove_stale() {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let stale: Vec<_> = names.filter(|name| harness(name).is_some_and(|pid| !alive(pid))).collect();
    remove(&stale);
}

/// The process that owns this namespace, if it is a lab's.
fn harness(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (lab, part) = rest.split_once('-')?;
    let host = part.strip_prefix('h').is_some_and(|rank| rank.parse::<usize>().is_ok());
    (lab.parse::<u32>().is_ok() && (host || part == "switch")).then(|| pid.parse().ok()).flatten()
}

fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Runs a tool with this input; its stderr is the error.
fn run(command: &[&str], input: &str) -> Result<(), Unavailable> {
    let refused = |why: String| Unavailable::Refused { command: command.join(" "), why };
    let mut tool = Command::new(command[0]);
    tool.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = tool.spawn().map_err(|error| refused(error.to_string()))?;
    // A tool that refuses before it has read all input reports the reason on stderr.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| refused(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lab_s_namespaces_have_a_harness() {
        assert_eq!(harness("bdlab-412-1-h0"), Some(412));
        assert_eq!(harness("bdlab-412-1-switch"), Some(412));
        for name in ["bdlab-412", "bdlab-412-1", "bdlab-x-1-h0", "bdlab-412-1-other", "bd-412-1-h0", "lab-412-1-h0"] {
            assert_eq!(harness(name), None, "{name}");
        }
    }

    #[test]
    fn names_are_unique_and_their_harness_is_us() {
        let (first, second) = (Names::unique(), Names::unique());
        assert_ne!(first.switch(), second.switch());
        assert!(first.all(2).iter().all(|name| harness(name) == Some(std::process::id()) && name.len() < 64));
        assert!(alive(std::process::id()));
    }
}
