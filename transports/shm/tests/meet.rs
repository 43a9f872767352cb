//! Processes that do not meet at once meet later, and one that was left does not.

use crate::common::{fresh_number, open};
use crate::hostile::{
    Log, PREFIX_BYTES, RING_BYTES, TAIL, address, answer, connect, event, hello, listen, sealed, send, socket,
};
use bourdon_port::Port;
use bourdon_port::conformance::{PATIENCE, poll_until};
use bourdon_shm::ShmPort;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

fn name(number: u16) -> String {
    format!("bourdon-shm/{}/{number}/1", rustix::process::geteuid().as_raw())
}

/// The next connection that comes.
fn accept(listener: &OwnedFd) -> OwnedFd {
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).expect("seconds");
    assert_eq!(poll(&mut polled, Some(&patience)).expect("one descriptor"), 1, "no connection comes");
    rustix::net::accept(listener).expect("one waits")
}

fn new_log() -> Log {
    Log::new(PREFIX_BYTES + RING_BYTES, sealed())
}

/// Introduces itself at the other end, which then maps this log.
fn give(socket: &OwnedFd, number: u16, log: &Log) {
    send(socket, &hello(number, 1), &[log.memory.as_fd(), event().as_fd()]);
}

/// Connections that wait to be accepted, as many as there is room for.
fn fill(name: &str) -> Vec<OwnedFd> {
    let mut waiting = Vec::new();
    loop {
        let socket = socket();
        rustix::io::ioctl_fionbio(&socket, true).expect("a mode");
        match rustix::net::connect(&socket, &address(name)) {
            Ok(()) => waiting.push(socket),
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                return waiting;
            }
        }
    }
}

fn wait_for_peers(port: &mut ShmPort, peers: usize) {
    poll_until(port, |port| port.peers() == peers);
}

#[test]
fn a_process_whose_queue_was_full_is_met_when_there_is_room() {
    let number = fresh_number();
    let listener = listen(&name(number));
    let waiting = fill(&name(number));
    let mut port = open(number);
    assert_eq!((port.local_address().port(), port.peers()), (2, 0));
    waiting.iter().for_each(|_| drop(accept(&listener)));
    let (socket, log) = (accept(&listener), new_log());
    give(&socket, number, &log);
    wait_for_peers(&mut port, 1);
}

#[test]
fn a_lost_connection_is_made_again_unless_the_process_was_left() {
    let number = fresh_number();
    let listener = listen(&name(number));
    let mut port = std::thread::scope(|scope| {
        let opening = scope.spawn(|| open(number));
        drop(accept(&listener)); // as a process does that has no room for the descriptors
        opening.join().expect("it opens")
    });
    let log = new_log();
    for _ in 0..2 {
        let socket = accept(&listener);
        give(&socket, number, &log);
        wait_for_peers(&mut port, 1);
        drop(socket);
        wait_for_peers(&mut port, 0);
    }
    let socket = accept(&listener);
    give(&socket, number, &log);
    wait_for_peers(&mut port, 1);
    log.word(TAIL).store(1, Ordering::Release);
    assert_eq!(port.receive(1, |_| {}).expect("a receive that works"), 0);
    assert_eq!((answer(&socket), answer(&socket)), (64, 0), "its hello, then the end");
    for (log, length, peers) in [(&log, 0, 0), (&new_log(), 64, 1)] {
        let socket = connect(&format!("{}2", name(number).trim_end_matches('1'))).expect("it listens");
        give(&socket, number, log);
        assert_eq!((answer(&socket), port.peers()), (length, peers));
    }
}
