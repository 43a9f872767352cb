//! What stands against the bypass: each is tried, and reported with the sentence that `docs/xdp.md` lists.
//!
//! Each test has a thread on a host of its own, and takes from that thread what the bypass needs. It takes root;
//! without, it is skipped and prints it.
#![allow(unsafe_code)] // gives up capabilities, installs seccomp filters, attaches other programs

use crate::common::{ip, open, options};
use crate::skipped;
use bourdon_port::conformance::{receive_count, send_all};
use bourdon_port::{Port, To};
use bourdon_udp::{UdpOptions, UdpPort};
use bourdon_xdp::{XdpOptions, XdpPort};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

const GROUP: &str = "239.255.76.9:7611";
const PAGE: &str = include_str!("../../../docs/xdp.md");

/// Commands of a host with an Ethernet interface whose driver runs programs.
const VETH: [&str; 3] =
    ["link add eth0 type veth peer name other", "link set other up", "addr add 10.76.1.1/24 brd + dev eth0"];

/// Runs a test in a thread on a host of its own, made by these commands; its interface is `eth0`.
#[track_caller]
fn on_a_host(commands: &[&str], test: impl FnOnce() + Send) {
    let run = || {
        // SAFETY: takes a number only, and changes the namespace of this thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(format!("no network namespace without root: {}", io::Error::last_os_error()));
        }
        commands.iter().chain(&["link set lo up", "link set eth0 up"]).try_for_each(|command| ip(command))?;
        test();
        Ok(())
    };
    match std::thread::scope(|scope| scope.spawn(run).join()) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => skipped::report(why),
        Err(failure) => std::panic::resume_unwind(failure),
    }
}

/// The sentence that the page has for this row of its table.
fn listed(row: &str) -> &'static str {
    let begins = format!("| {row} | ");
    let line = PAGE.lines().find_map(|line| line.strip_prefix(&begins));
    line.and_then(|line| line.split(" | ").next()).unwrap_or_else(|| panic!("docs/xdp.md has no row {row:?}"))
}

/// The bypass is refused with the sentence of this row, and sockets do the work.
fn is_refused(row: &str, mut port: XdpPort) {
    let why = port.refused().unwrap_or_else(|| panic!("{row}: {} was had", port.io())).to_string();
    assert_eq!(why, format!("af_xdp is not available here: {}", listed(row)));
    send_all(&mut port, To::Group, b"by sockets", 64);
    assert_eq!(receive_count(&mut port, 1)[0], b"by sockets");
}

fn open_here() -> XdpPort {
    open(&options(GROUP))
}

/// The calling thread gives up these capabilities.
fn give_up(capabilities: &[u32]) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let mut sets = [0u32; 6]; // the lower halves of the effective, permitted and inheritable set, and the upper ones
    // SAFETY: the kernel reads the header and writes the sets, both live and laid out as this version has them.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw const header, &raw mut sets) };
    assert_eq!(read, 0, "a thread may read its capabilities");
    for bit in capabilities {
        let half = *bit as usize / 32 * 3;
        sets[half..half + 3].iter_mut().for_each(|set| *set &= !(1 << (bit % 32)));
    }
    // SAFETY: as above; the kernel reads both, and changes this thread alone.
    let written = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
    assert_eq!(written, 0, "a thread may give its capabilities up");
}

const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;

#[test]
fn missing_capabilities() {
    for (row, capabilities) in [
        ("no capabilities: another user than root", &[NET_ADMIN, NET_RAW, SYS_ADMIN, BPF][..]),
        ("no `CAP_NET_RAW`", &[NET_RAW]),
        ("no `CAP_BPF` (nor `CAP_SYS_ADMIN`)", &[BPF, SYS_ADMIN]),
        ("no `CAP_NET_ADMIN` (nor `CAP_SYS_ADMIN`)", &[NET_ADMIN, SYS_ADMIN]),
    ] {
        on_a_host(&VETH, || {
            give_up(capabilities);
            is_refused(row, open_here());
        });
    }
}

/// Each of the others stands in for one: with these alone, the bypass is had.
#[test]
fn the_named_capabilities_are_enough() {
    for given_up in [&[SYS_ADMIN][..], &[NET_ADMIN, BPF]] {
        on_a_host(&VETH, || {
            give_up(given_up);
            let port = open_here();
            assert_eq!(port.io(), "af_xdp-native", "{:?}", port.refused());
        });
    }
}

/// The kernel answers a system call of the calling thread with an error; if `first` is given, only with this first
/// argument.
fn deny(call: libc::c_long, first: Option<u32>, errno: i32) {
    let one = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, jump_if_equal, end) = (0x20, 0x15, 0x06);
    let mut code = [
        one(load, 0, 0, 0), // the call's number
        one(jump_if_equal, 0, 3, call as u32),
        one(load, 0, 0, 16), // the lower half of its first argument
        one(jump_if_equal, 0, 1, first.unwrap_or_default()),
        one(end, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        one(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    if first.is_none() {
        code[3] = one(jump_if_equal, 0, 0, 0); // whatever it is
    }
    let filter = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: the kernel reads the filter and its code, which live through the call; both calls change this thread
    // alone.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    assert_eq!(result, 0, "a thread may install a filter: {}", io::Error::last_os_error());
}

#[test]
fn sandboxes_and_old_kernels() {
    const LINK_CREATE: u32 = 28;
    let af_xdp = Some(libc::AF_XDP as u32);
    for (row, call, first, errno) in [
        ("seccomp: `bpf` is forbidden", libc::SYS_bpf, None, libc::EPERM),
        ("seccomp: `AF_XDP` is forbidden", libc::SYS_socket, af_xdp, libc::EPERM),
        ("`RestrictAddressFamilies=` of systemd", libc::SYS_socket, af_xdp, libc::EAFNOSUPPORT),
        ("a kernel without `bpf`, played by seccomp", libc::SYS_bpf, None, libc::ENOSYS),
        ("a kernel before 5.9, played by seccomp", libc::SYS_bpf, Some(LINK_CREATE), libc::EINVAL),
    ] {
        on_a_host(&VETH, || {
            deny(call, first, errno);
            is_refused(row, open_here());
        });
    }
}

/// What a process of its own is refused, for limits and namespaces that a thread can't have alone.
#[test]
#[ignore = "another test starts it as a process"]
fn a_process_that_is_refused() {
    is_refused(&std::env::var("BOURDON_ROW").expect("the test that starts it names the row"), open_here());
}

fn a_process_is_refused(row: &'static str, by: &[&str]) {
    on_a_host(&VETH, || {
        let itself = std::env::current_exe().expect("this program");
        let output = Command::new(by[0])
            .args(&by[1..])
            .arg(itself)
            .args(["--ignored", "--exact", "refusals::a_process_that_is_refused", "--nocapture"])
            .env("BOURDON_ROW", row)
            .output()
            .expect("util-linux is there");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    });
}

#[test]
fn a_user_namespace() {
    a_process_is_refused("a user namespace", &["unshare", "--user", "--map-root-user"]);
}

#[test]
fn too_little_memory_may_be_locked() {
    let without = "ulimit -l 1024 && exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$0\" \"$@\"";
    a_process_is_refused("`ulimit -l 1024`, no `CAP_IPC_LOCK`", &["sh", "-c", without]);
}

#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
    rest: [u64; 8],
}

/// A program that passes every frame on.
fn other_program() -> OwnedFd {
    let code: [u64; 2] = [0xb7 | 2 << 32, 0x95];
    let attributes = Load {
        program_type: 6,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 8],
    };
    // SAFETY: the kernel reads the structure and what it points to, all live through the call.
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, 5, &raw const attributes, size_of::<Load>()) };
    assert!(loaded >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just returned this descriptor to this call alone.
    unsafe { OwnedFd::from_raw_fd(loaded as i32) }
}

fn ifindex() -> u32 {
    // SAFETY: reads the name, which is terminated.
    unsafe { libc::if_nametoindex(c"eth0".as_ptr()) }
}

/// Attaches a program to `eth0` by a link, as Bourdon does.
fn attach_by_link(program: &OwnedFd) -> OwnedFd {
    let attributes = [program.as_raw_fd() as u32, ifindex(), 37, 0];
    // SAFETY: the kernel reads these four words.
    let link = unsafe { libc::syscall(libc::SYS_bpf, 28, &raw const attributes, size_of_val(&attributes)) };
    assert!(link >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just returned this descriptor to this call alone.
    unsafe { OwnedFd::from_raw_fd(link as i32) }
}

/// Attaches a program to `eth0` by netlink, as `ip` does: it stays as long as the interface.
fn attach_by_netlink(program: &OwnedFd, mode: u32) {
    let attribute = |kind: u16, value: &[u8]| {
        let length = (4 + value.len()) as u16;
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    };
    let nested = [attribute(1, &program.as_raw_fd().to_ne_bytes()), attribute(3, &mode.to_ne_bytes())].concat();
    let link = [&[0u8; 4][..], &ifindex().to_ne_bytes(), &[0; 8]].concat(); // ifinfomsg
    let body = [link, attribute(43 | 1 << 15, &nested)].concat(); // IFLA_XDP
    let header = [(16 + body.len()) as u32, 19 | 5 << 16, 1, 0]; // RTM_SETLINK; a request, to be acknowledged
    let request = [header.iter().flat_map(|word| word.to_ne_bytes()).collect(), body].concat();
    let protocol = Some(socket2::Protocol::from(libc::NETLINK_ROUTE));
    let socket = socket2::Socket::new(libc::AF_NETLINK.into(), socket2::Type::RAW, protocol).expect("a socket");
    socket.send(&request).expect("sent");
    let mut answer = [0; 256];
    let length = io::Read::read(&mut &socket, &mut answer).expect("an answer");
    assert!(length >= 20 && answer[16..20] == [0; 4], "{:?}", &answer[..length]);
}

#[test]
fn another_program() {
    const NATIVE: u32 = 1 << 2;
    const GENERIC: u32 = 1 << 1;
    on_a_host(&VETH, || {
        let link = attach_by_link(&other_program());
        is_refused("another program, attached by a link", open_here());
        drop(link);
        assert_eq!(open_here().io(), "af_xdp-native");
    });
    for (row, mode) in
        [("another program, attached by `ip`", NATIVE), ("another program, attached by `ip` in generic mode", GENERIC)]
    {
        on_a_host(&VETH, || {
            attach_by_netlink(&other_program(), mode);
            is_refused(row, open_here());
        });
    }
}

#[test]
fn interfaces_without_ethernet() {
    on_a_host(&VETH, || is_refused("`lo`", open(&UdpOptions { interface: "lo".to_owned(), ..options(GROUP) })));
    let tunnel = ["tuntap add eth0 mode tun", "addr add 10.76.1.1/24 dev eth0"];
    on_a_host(&tunnel, || is_refused("a tunnel (`tun`)", open_here()));
}

#[test]
fn more_queues_than_sockets() {
    let add = "link add eth0 numrxqueues 17 numtxqueues 17 type veth peer name other numrxqueues 17 numtxqueues 17";
    on_a_host(&[&[add], &VETH[1..]].concat(), || is_refused("17 queues", open_here()));
}

/// What a driver can't do, the kernel's stack does: no refusal.
#[test]
fn drivers_that_run_no_program() {
    let bridge = ["link add eth0 type bridge", "addr add 10.76.1.1/24 brd + dev eth0"];
    let jumbo = ["link add eth0 mtu 9000 type veth peer name other mtu 9000", VETH[1], VETH[2]];
    for (row, commands) in [("a driver without XDP (`bridge`)", &bridge[..]), ("an MTU of 9,000 (`veth`)", &jumbo)] {
        on_a_host(commands, || {
            let port = open_here();
            assert_eq!(format!("`io` is `{}`", port.io()), listed(row), "{:?}", port.refused());
        });
    }
}

#[test]
fn datagrams_longer_than_a_frame() {
    let long = UdpOptions { datagram_max_bytes: 8000, ..options(GROUP) };
    on_a_host(&VETH, || is_refused("`limits.mtu_bytes = 8000`", open(&long)));
}

#[test]
fn zero_copy_where_the_driver_has_none() {
    let bridge = ["link add eth0 type bridge", "addr add 10.76.1.1/24 brd + dev eth0"];
    for commands in [&VETH[..], &bridge] {
        on_a_host(commands, || {
            let udp = options(GROUP);
            let beneath = UdpPort::open(&udp).expect("a port on eth0");
            let port = XdpPort::open(beneath, XdpOptions { udp, zero_copy: true });
            is_refused("`network.xdp_zero_copy = true` (`veth`, `bridge`)", port);
        });
    }
}

#[test]
fn no_interface_of_this_name() {
    on_a_host(&VETH, || {
        let refused = UdpPort::open(&UdpOptions { interface: "eth7".to_owned(), ..options(GROUP) });
        assert_eq!(refused.expect_err("there is none").to_string(), listed("no such interface"));
    });
}
