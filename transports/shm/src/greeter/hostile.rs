//! A script of what a hostile process sends on its connection, for the fuzz target and an ordinary test.
//!
//! Random bytes are refused at the first check. So the script is read as messages that are nearly right: their length,
//! one byte of the hello, and which descriptors come with it.

use super::{Change, Connection, Meeting, Own, Peer};
use crate::hello::{HELLO_BYTES, Hello};
use crate::memory;
use bourdon_port::{Origin, Waker};
use bourdon_ring::log::Batch;
use bourdon_ring::signal::watermark;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The bytes of the script for one message.
const STEP_BYTES: usize = 8;
const RING_BYTES: usize = 128;
const DESCRIPTORS_MAX: usize = 4;
/// A process that another thread is starting has all descriptors until it runs its own program.
const CLOSED_WITHIN: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

fn connection() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("two sockets")
}

/// What the hostile process can send along.
struct Offers {
    log: OwnedFd,
    event: OwnedFd,
    unsealed: OwnedFd,
    waits: OwnedFd,
    socket: OwnedFd,
    /// Kept open by each descriptor that this process does not close.
    write_end: OwnedFd,
}

impl Offers {
    fn new(write_end: OwnedFd) -> Self {
        let unsealed = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
        ftruncate(&unsealed, bourdon_ring::log::file_bytes(RING_BYTES) as u64).expect("it grows");
        Self {
            log: memory::create(RING_BYTES).expect("memory").1.into(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd"),
            unsealed,
            waits: eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"),
            socket: connection().0,
            write_end,
        }
    }

    /// The right one for this place of two, or another.
    fn choose(&self, place: usize, choice: u8) -> BorrowedFd<'_> {
        let chosen = match choice {
            0..128 if place == 0 => &self.log,
            0..128 => &self.event,
            _ => [&self.log, &self.event, &self.unsealed, &self.waits, &self.socket, &self.write_end]
                [usize::from(choice) % 6],
        };
        chosen.as_fd()
    }
}

/// Sends one message of the script. Returns whether it is a hello with what belongs to it.
fn send(socket: &OwnedFd, hello: Hello, offers: &Offers, step: &[u8; STEP_BYTES]) -> bool {
    let [length, at, value, count, choices @ ..] = *step;
    let mut bytes = [0; 2 * HELLO_BYTES];
    bytes[..HELLO_BYTES].copy_from_slice(&hello.to_bytes());
    let length = if length < 192 { HELLO_BYTES } else { usize::from(length - 192) };
    if let Some(byte) = bytes.get_mut(usize::from(at)) {
        *byte = value;
    }
    let count = if count < 128 { 2 } else { usize::from(count) % (DESCRIPTORS_MAX + 1) };
    let descriptors: Vec<_> = (0..count).map(|place| offers.choose(place, choices[place])).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(count == 0 || ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is room");
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&bytes[..length])], &mut ancillary, flags).expect("the other end is open");
    let has_parsed = bytes.first_chunk().is_some_and(|bytes| Hello::parse(bytes).is_some());
    let is = |place: usize, right: &OwnedFd| descriptors[place].as_raw_fd() == right.as_raw_fd();
    length == HELLO_BYTES && has_parsed && count == 2 && is(0, &offers.log) && is(1, &offers.event)
}

/// The thread's state, without the thread.
fn meeting() -> Meeting {
    let origin = Origin { address: SocketAddr::from(([10, 77, 0, 1], 7)), group_source: None };
    let hello = Hello { place: 1, group: SocketAddr::from(([239, 255, 77, 1], 7)), origin };
    let log = memory::create(RING_BYTES).expect("memory").1;
    Meeting {
        own: Own { prefix: String::new(), hello, log, waker: Waker::new().expect("an eventfd") },
        listener: connection().0,
        orders: Arc::new(Mutex::new(Vec::new())),
        ordered: Waker::new().expect("an eventfd"),
        connections: Vec::new(),
        met: Vec::new(),
        left: Vec::new(),
        unmet: Vec::new(),
        dial_at: Instant::now(),
        changes: Arc::new(Mutex::new(Vec::new())),
        count: watermark(0).0,
        greeting: None,
        has_room: true,
    }
}

/// Plays the script. A connection goes on after a first hello with a log and an eventfd, and ends after anything else;
/// what came with it is closed.
///
/// # Panics
/// If that is not so.
pub fn hostile(script: &[u8]) {
    let (read_end, write_end) = std::io::pipe().expect("a pipe");
    let offers = Offers::new(write_end.into());
    let mut meeting = meeting();
    let hello = Hello { place: 2, ..meeting.own.hello };
    let dialled = script.first().is_some_and(|byte| byte % 2 == 1).then_some(hello.place);
    let begin = || {
        let (socket, hostile) = connection();
        (Connection { socket, dialled, peer: None }, hostile)
    };
    let (mut own, mut hostile) = begin();
    for step in script.as_chunks::<STEP_BYTES>().0 {
        let is_first = own.peer.is_none();
        let is_right = send(&hostile, hello, &offers, step) && is_first;
        assert_eq!(meeting.take_in(&mut own), is_right, "whether the connection goes on after {step:?}");
        let answer = recv(&hostile, &mut [0; 2 * HELLO_BYTES], RecvFlags::DONTWAIT).map_or(0, |(length, _)| length);
        assert_eq!(answer, if is_right && dialled.is_none() { HELLO_BYTES } else { 0 }, "the answer to {step:?}");
        if !is_right {
            meeting.part(&own);
            (own, hostile) = begin();
        }
    }
    let changes = std::mem::take(&mut *meeting.changes.lock().unwrap_or_else(PoisonError::into_inner));
    for (place, change) in changes.into_iter().enumerate() {
        match change {
            Change::Came(Peer { mut log, waker, .. }) => {
                assert!(place % 2 == 0, "it came twice");
                waker.wake();
                let read = log.read(&mut Batch::new(0, RING_BYTES), usize::MAX, |_| true, |_, _| {});
                assert_eq!(read, Ok(0), "an empty log");
            }
            Change::Gone(_) => assert!(place % 2 == 1, "it went twice"),
        }
    }
    drop((offers, meeting, own, hostile));
    let mut polled = [PollFd::new(&read_end, PollFlags::empty())];
    poll(&mut polled, Some(&CLOSED_WITHIN)).expect("one descriptor");
    assert!(polled[0].revents().contains(PollFlags::HUP), "a descriptor that came is still open");
}
