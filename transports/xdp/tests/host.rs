//! Changes of the host under a port past the stack: it goes on over sockets, and past the stack again when it can.
#![allow(unsafe_code)] // takes a queue as another program would, and asks how often this thread slept

use crate::common::{hear_each_other, ip, network, open, options};
use bourdon_port::conformance::{PATIENCE, change_of};
use bourdon_port::{HostChange, Port};
use bourdon_udp::UdpOptions;
use bourdon_xdp::XdpPort;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

const GROUP: &str = "239.255.76.9:7610";
/// Enough frames for a socket that carries nothing, and their bytes.
const FRAMES: u32 = 16;
const FRAME_BYTES: usize = 2048;

fn set(socket: &OwnedFd, option: libc::c_int, value: &[u64]) {
    // SAFETY: the kernel reads as many bytes as `value` has, or fewer.
    let result = unsafe {
        let bytes = size_of_val(value) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, value.as_ptr().cast(), bytes)
    };
    assert_eq!(result, 0, "option {option}: {}", std::io::Error::last_os_error());
}

/// A socket of another program on the queue of an interface, once the kernel has let go of the queue.
fn take_queue(interface: &CStr) -> OwnedFd {
    // SAFETY: takes numbers only.
    let descriptor = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just returned this descriptor to this call alone.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let frames = Box::leak(vec![0u64; (FRAMES as usize + 2) * FRAME_BYTES / 8].into_boxed_slice());
    let first = (frames.as_ptr() as u64).next_multiple_of(4096); // the kernel keeps them: they are never freed
    set(&socket, libc::XDP_UMEM_REG, &[first, u64::from(FRAMES) * FRAME_BYTES as u64, FRAME_BYTES as u64]);
    for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
        set(&socket, ring, &[u64::from(FRAMES)]);
    }
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY,
        // SAFETY: reads the name, which is terminated.
        sxdp_ifindex: unsafe { libc::if_nametoindex(interface.as_ptr()) },
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    let started = Instant::now();
    loop {
        // SAFETY: the kernel reads the address, which lives through the call.
        let result = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        if result == 0 {
            return socket;
        }
        let error = std::io::Error::last_os_error();
        assert!(error.raw_os_error() == Some(libc::EBUSY) && started.elapsed() < PATIENCE, "{error}");
        std::thread::yield_now();
    }
}

/// How often this thread has slept in the kernel.
fn sleeps() -> i64 {
    // SAFETY: plain C data for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the structure, which lives through the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    assert_eq!(result, 0, "a thread may ask");
    usage.ru_nvcsw
}

/// Waits until the port is past the stack.
fn wait_for_bypass(port: &mut XdpPort) {
    let started = Instant::now();
    while port.io() != "af_xdp-native" {
        assert_eq!(port.follow_host().expect("a host that is followed"), None);
        assert!(started.elapsed() < PATIENCE, "{:?}", port.refused());
        std::thread::yield_now();
    }
}

#[test]
fn a_port_goes_on_over_sockets_until_its_queue_is_free() {
    for idle in crate::common::IDLES {
        let Some(network) = network(false) else { return };
        let udp = UdpOptions { idle, ..options(GROUP) };
        network.enter(1);
        let mut remote = open(&udp);
        network.enter(0);
        // A test that starts `ip` at the same time holds the link of the port before, from its fork to its exec.
        let begun = Instant::now();
        let mut port = open(&udp);
        while port.io() != "af_xdp-native" {
            assert!(begun.elapsed() < PATIENCE, "{:?}", port.refused());
            drop(port);
            port = open(&udp);
        }
        let original = port.local_address().ip();
        let mut address = original.to_string();
        for next in ["10.76.0.77".to_owned(), address.clone()] {
            let slept_before = sleeps();
            ip(&format!("addr del {address}/24 dev eth0")).expect("it was there");
            assert!(matches!(change_of(&mut port), HostChange::Lost { .. }));
            let queue = take_queue(c"eth0");
            ip(&format!("addr add {next}/24 brd + dev eth0")).expect("it is free");
            let change = change_of(&mut port);
            assert!(matches!(change, HostChange::Bound { .. }), "{change:?}");
            let slept = sleeps() - slept_before;
            assert!(slept < 100, "the thread that sends and receives slept {slept} times"); // as the kernel's locks are
            hear_each_other(&mut port, &mut remote);
            hear_each_other(&mut remote, &mut port);
            assert_ne!(port.io(), "af_xdp-native", "another program has the queue");
            drop(queue);
            wait_for_bypass(&mut port);
            hear_each_other(&mut port, &mut remote);
            hear_each_other(&mut remote, &mut port);
            address = next;
        }
    }
}
