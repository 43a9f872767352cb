//! A process of the same user that gives wrong things, or writes anything into its log, harms no other traffic.
#![allow(unsafe_code)] // writes to its log behind the back of the ring

use crate::common::{fresh_number, open, options};
use crate::replay::replay;
use bourdon_port::conformance::{poll_until, receive_count, send_all};
use bourdon_port::{Port, To};
use bourdon_shm::ShmPort;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, recv, sendmsg, socket_with,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words before the ring, and those that hold its end and its start.
pub(crate) const PREFIX_BYTES: usize = 512;
pub(crate) const TAIL: usize = 16;
const OLDEST: usize = 32;
pub(crate) const RING_BYTES: usize = 4096;

pub(crate) fn socket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket")
}

pub(crate) fn address(name: &str) -> SocketAddrUnix {
    SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a short name")
}

pub(crate) fn connect(name: &str) -> rustix::io::Result<OwnedFd> {
    let socket = socket();
    rustix::net::connect(&socket, &address(name)).map(|()| socket)
}

pub(crate) fn listen(name: &str) -> OwnedFd {
    let socket = socket();
    rustix::net::bind(&socket, &address(name)).expect("the name is free");
    rustix::net::listen(&socket, 8).expect("it listens");
    socket
}

/// The length of the answer, or 0 at the end of the connection.
pub(crate) fn answer(socket: &OwnedFd) -> usize {
    recv(socket, &mut [0; 128], RecvFlags::empty()).map_or(0, |(length, _)| length)
}

pub(crate) fn hello(number: u16, place: u16) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..4].copy_from_slice(b"bshm");
    bytes[4] = 2;
    bytes[6..8].copy_from_slice(&place.to_le_bytes());
    let std::net::IpAddr::V4(ip) = options(number).group.ip() else { panic!("IPv4") };
    bytes[8..24].copy_from_slice(&ip.to_ipv6_mapped().octets());
    bytes[24..26].copy_from_slice(&number.to_le_bytes());
    bytes[42..44].copy_from_slice(&place.to_le_bytes());
    bytes
}

pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    try_send(socket, bytes, descriptors).expect("it is sent");
}

fn try_send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
}

/// A log as this release makes it, mapped to write anything.
pub(crate) struct Log {
    pub(crate) memory: OwnedFd,
    words: *mut std::ffi::c_void,
    bytes: usize,
}

impl Log {
    pub(crate) fn new(bytes: usize, seals: SealFlags) -> Self {
        let memory = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
        ftruncate(&memory, bytes as u64).expect("it grows");
        rustix::io::pwrite(&memory, b"bdnlog01", 0).expect("it is written");
        let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: without a fixed address the kernel chooses one that nothing else uses.
        let mapped =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, access, rustix::mm::MapFlags::SHARED, &memory, 0) };
        let words = mapped.expect("it is mapped");
        fcntl_add_seals(&memory, seals).expect("it is sealed");
        Self { memory, words, bytes }
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!((index + 1) * 8 <= self.bytes);
        // SAFETY: the word lies within the mapping, which lives as long as `self`, and is aligned.
        unsafe { AtomicU64::from_ptr(self.words.cast::<u64>().add(index)) }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping any more.
        let _ = unsafe { rustix::mm::munmap(self.words, self.bytes) };
    }
}

pub(crate) fn sealed() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// Introduces itself as another process would; the connection may have been ended before.
pub(crate) fn introduce(socket: &OwnedFd, number: u16, place: u16) {
    let log = Log::new(PREFIX_BYTES + RING_BYTES, sealed());
    let _ = try_send(socket, &hello(number, place), &[log.memory.as_fd(), event().as_fd()]);
}

fn reaches(sender: &mut ShmPort, receiver: &mut ShmPort) {
    send_all(sender, To::Group, b"still there", 64);
    assert_eq!(receive_count(receiver, 1), [b"still there"]);
}

#[test]
fn what_is_no_log_is_refused() {
    let number = fresh_number();
    let (mut port, mut honest) = (open(number), open(number));
    let name = format!("bourdon-shm/{}/{number}/1", rustix::process::geteuid().as_raw());
    let good = Log::new(PREFIX_BYTES + RING_BYTES, sealed());
    let unsealed = Log::new(PREFIX_BYTES + RING_BYTES, SealFlags::empty());
    let short = Log::new(PREFIX_BYTES + RING_BYTES - 8, sealed());
    let tiny = Log::new(8, sealed());
    let other = Log::new(PREFIX_BYTES + RING_BYTES, sealed());
    other.word(0).store(7, Ordering::Relaxed);
    let (other_kind, _) = std::os::unix::net::UnixStream::pair().expect("two sockets");
    other_kind.set_nonblocking(true).expect("a mode");
    let waits = eventfd(0, EventfdFlags::CLOEXEC).expect("it is made");
    let (hello, event) = (hello(number, 3), event());
    let changed = |at: usize, value| {
        let mut bytes = hello;
        bytes[at] = value;
        bytes
    };
    let (log, wakes) = (good.memory.as_fd(), event.as_fd());
    let long = [hello, hello].concat();
    let cases: Vec<(&str, &[u8], Vec<BorrowedFd<'_>>)> = vec![
        ("no descriptors", &hello, vec![]),
        ("one descriptor", &hello, vec![log]),
        ("three descriptors", &hello, vec![log, wakes, wakes]),
        ("eight descriptors", &hello, vec![wakes; 8]),
        ("swapped", &hello, vec![wakes, log]),
        ("short", &hello[..63], vec![log, wakes]),
        ("long", &long, vec![log, wakes]),
        ("unsealed", &hello, vec![unsealed.memory.as_fd(), wakes]),
        ("no power of two", &hello, vec![short.memory.as_fd(), wakes]),
        ("tiny", &hello, vec![tiny.memory.as_fd(), wakes]),
        ("of another format", &hello, vec![other.memory.as_fd(), wakes]),
        ("no memory", &hello, vec![other_kind.as_fd(), wakes]),
        ("no eventfd", &hello, vec![log, other_kind.as_fd()]),
        ("an eventfd that waits", &hello, vec![log, waits.as_fd()]),
    ];
    let wrong = [changed(0, b'x'), changed(4, 9), changed(6, 0), changed(6, 200)];
    let cases = cases.into_iter().chain(wrong.iter().map(|bytes| ("changed", &bytes[..], vec![log, wakes])));
    for (what, bytes, descriptors) in cases {
        let socket = connect(&name).expect("it listens");
        send(&socket, bytes, &descriptors);
        assert_eq!(answer(&socket), 0, "{what}: the connection ends without an answer");
        assert_eq!(port.peers(), 1, "{what}");
        reaches(&mut honest, &mut port);
    }
    let socket = connect(&name).expect("it listens");
    send(&socket, &hello, &[log, wakes]);
    assert_eq!(answer(&socket), 64, "the same, well formed, is answered");
    assert_eq!(port.peers(), 2);
    send(&socket, &hello, &[log, wakes]);
    assert_eq!(answer(&socket), 0, "a second hello ends the connection");
    reaches(&mut honest, &mut port);
}

#[test]
fn anything_in_a_log_is_survived() {
    let number = fresh_number();
    let (mut port, mut honest) = (open(number), open(number));
    let name = format!("bourdon-shm/{}/{number}/1", rustix::process::geteuid().as_raw());
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        random >> 16
    };
    for round in 0..200 {
        let log = Log::new(PREFIX_BYTES + RING_BYTES, sealed());
        let socket = connect(&name).expect("it listens");
        send(&socket, &hello(number, 3), &[log.memory.as_fd(), event().as_fd()]);
        assert_eq!(answer(&socket), 64);
        assert_eq!(port.peers(), 2, "round {round}");
        let tail = match round % 4 {
            0 => next() | 1,           // within no record
            1 => !7,                   // laps ahead
            _ => (next() % 4096) & !7, // within the ring
        };
        for word in 0..RING_BYTES / 8 {
            let value = if round % 2 == 0 { next() } else { next() % 64 };
            log.word(PREFIX_BYTES / 8 + word).store(value, Ordering::Relaxed);
        }
        if round % 4 == 3 {
            log.word(OLDEST).store(next(), Ordering::Relaxed);
        }
        log.word(TAIL).store(tail, Ordering::Release);
        for _ in 0..10 {
            let count =
                port.receive(1000, |arrival| assert!(arrival.bytes.len() <= 1408)).expect("a receive that works");
            assert!(count <= RING_BYTES / 8);
        }
        drop(socket);
        poll_until(&mut port, |port| {
            port.receive(1000, |_| {}).expect("a receive that works");
            port.peers() == 1
        });
        reaches(&mut honest, &mut port);
    }
}

#[test]
fn the_kept_scripts_of_a_hostile_process_are_survived() {
    replay("hello", bourdon_shm::hostile);
}

#[test]
fn scripts_at_random_are_survived() {
    let mut state = 1u64;
    for _ in 0..1000 {
        let script: Vec<u8> = (0..160)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        bourdon_shm::hostile(&script);
    }
}

#[test]
fn a_process_whose_log_is_malformed_is_left() {
    let number = fresh_number();
    let mut port = open(number);
    let name = format!("bourdon-shm/{}/{number}/1", rustix::process::geteuid().as_raw());
    let (log, socket) = (Log::new(PREFIX_BYTES + RING_BYTES, sealed()), connect(&name).expect("it listens"));
    send(&socket, &hello(number, 3), &[log.memory.as_fd(), event().as_fd()]);
    assert_eq!((answer(&socket), port.peers()), (64, 1));
    log.word(TAIL).store(1, Ordering::Release);
    assert_eq!(port.receive(1, |_| {}).expect("a receive that works"), 0);
    assert_eq!(port.peers(), 0);
    assert_eq!(answer(&socket), 0, "it notices, and can reach this one in another way");
}
