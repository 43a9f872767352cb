//! What is sent arrives as it was sent: whole, unmixed, in order.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Role, pattern, poll_until, receive_count, receive_into, receive_up_to, send_all};
use crate::{Idle, Port, To};

/// The most datagrams that one system call of a receiver can bring: what one segmented packet holds at most in Linux
/// (`UDP_MAX_SEGMENTS`).
const RECEIVE_CALL_MAX: usize = 128;

/// A datagram to the group reaches every other port in it, from whichever port it comes.
pub fn group_reaches_all_others<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut ports = [open(Role::new(idle)), open(Role::new(idle)), open(Role::new(idle))];
    for sender in 0..ports.len() {
        let datagram = pattern(sender as u64, 100);
        send_all(&mut ports[sender], To::Group, &datagram, datagram.len());
        for receiver in (0..ports.len()).filter(|receiver| *receiver != sender) {
            // A port may or may not hear itself, so its own earlier datagram can stand before.
            let before = receive_up_to(&mut ports[receiver], &datagram);
            assert!(before.iter().all(|own| *own == pattern(receiver as u64, 100)), "only its own may come besides");
        }
    }
}

/// Runs of equal segments with a short last one arrive as that many datagrams, cut where the sender cut them.
pub fn runs_are_split_as_sent<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let limits = sender.limits();
    for segments in [1, 2, 45, 46, 47, 200] {
        for size in [limits.datagram_max_bytes.min(1408), 64] {
            // No port reads while a run is sent: it must fit the buffer with the kernel's overhead for each datagram.
            let size = size.min(receiver.limits().receive_buffer_bytes / (segments * 8));
            for last in [size, size / 2, 1] {
                let bytes = pattern((segments * size + last) as u64, (segments - 1) * size + last);
                send_all(&mut sender, To::Group, &bytes, size);
                let got = receive_count(&mut receiver, segments);
                let sent: Vec<&[u8]> = bytes.chunks(size).collect();
                assert!(got == sent, "{segments} segments of {size} bytes, the last of {last}");
            }
        }
    }
}

/// Every length from one byte to the limit arrives as it was.
pub fn every_length_arrives<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let max_bytes = sender.limits().datagram_max_bytes;
    let peer = To::Peer(receiver.local_address());
    for len in (1..=max_bytes).step_by(61).chain([max_bytes]) {
        let datagram = pattern(len as u64, len);
        for to in [To::Group, peer] {
            send_all(&mut sender, to, &datagram, max_bytes);
            assert!(receive_count(&mut receiver, 1)[0] == datagram, "{len} bytes to {to:?}");
        }
    }
}

/// A hundred thousand datagrams arrive complete and in order from a sender that keeps no more under way than the
/// receiver holds.
pub fn many_in_order_under_backpressure<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    const DATAGRAMS: u64 = 100_000;
    const BURST: usize = 40;
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let size = sender.limits().datagram_max_bytes.min(256);
    // A short datagram may be charged with up to 1280 bytes by the kernel; twice that leaves room for anything else.
    let window = (receiver.limits().receive_buffer_bytes / 2560).max(BURST);
    let body = pattern(0, size);
    let mut under_way: VecDeque<u64> = VecDeque::new();
    let (mut next, mut bytes) = (0, Vec::new());
    while next < DATAGRAMS || !under_way.is_empty() {
        while next < DATAGRAMS && under_way.len() + BURST <= window {
            bytes.clear();
            for _ in 0..BURST.min((DATAGRAMS - next) as usize) {
                bytes.extend_from_slice(&next.to_le_bytes());
                bytes.extend_from_slice(&body[8..]);
                under_way.push_back(next);
                next += 1;
            }
            send_all(&mut sender, To::Group, &bytes, size);
            // What the sender hears of itself is not looked at, only taken, as an engine would.
            sender.receive(usize::MAX, |_| {}).expect("a receive that works");
        }
        poll_until(&mut receiver, |receiver| {
            let count = receiver.receive(usize::MAX, |arrival| {
                let expected = under_way.pop_front().expect("no more than was sent");
                assert_eq!(arrival.bytes[..8], expected.to_le_bytes(), "datagram {expected} is next");
                assert!(arrival.bytes[8..] == body[8..], "datagram {expected} is intact");
            });
            count.expect("a receive that works") > 0
        });
    }
}

/// When a sender overruns a receiver that does not read, what arrives is intact and in order, and all works afterwards.
pub fn overrun_leaves_the_rest_intact<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let size = sender.limits().datagram_max_bytes.min(1024);
    let body = pattern(7, size);
    let overrun = receiver.limits().receive_buffer_bytes * 3 / 2 / size;
    let mut run = Vec::new();
    for sequence in 0..overrun as u64 {
        run.extend_from_slice(&sequence.to_le_bytes());
        run.extend_from_slice(&body[8..]);
        if run.len() >= 32 * size {
            send_all(&mut sender, To::Group, &run, size);
            run.clear();
        }
    }
    let peer = To::Peer(receiver.local_address());
    let (mut previous, mut ended) = (None, false);
    poll_until(&mut receiver, |receiver| {
        if !ended {
            send_all(&mut sender, peer, b"the end of the overrun", 64); // again: it may find no room either
        }
        let count = receiver.receive(usize::MAX, |arrival| {
            if arrival.bytes == b"the end of the overrun" {
                ended = true;
                return;
            }
            let sequence = u64::from_le_bytes(arrival.bytes[..8].try_into().expect("eight bytes"));
            assert!(previous < Some(sequence), "{sequence} after {previous:?}");
            assert!(arrival.bytes[8..] == body[8..], "datagram {sequence} is intact");
            previous = Some(sequence);
        });
        count.expect("a receive that works") == 0 && ended
    });
    assert!(previous.is_some(), "an overrun loses the end, not all");
    send_all(&mut sender, To::Group, b"after", 64);
    receive_up_to(&mut receiver, b"after");
}

/// One receive stops within the system call that reaches the limit, and the next goes on where it stopped.
pub fn receive_keeps_to_its_limit<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let datagrams: Vec<Vec<u8>> = (0..300).map(|seed| pattern(seed, 64)).collect();
    for datagram in &datagrams {
        send_all(&mut sender, To::Group, datagram, 64);
    }
    let mut got = Vec::new();
    poll_until(&mut receiver, |receiver| {
        let count = receive_into(receiver, 10, &mut got);
        assert!(count < 10 + RECEIVE_CALL_MAX, "{count} datagrams with a limit of 10");
        got.len() >= datagrams.len()
    });
    assert!(got == datagrams, "all of them, in order, each once");
}

/// A run without segments is taken at once, and nothing comes of it.
pub fn no_segments_send_nothing<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let peer = To::Peer(receiver.local_address());
    for to in [To::Group, peer] {
        assert_eq!(sender.send(to, &[], 64).expect("a send that works"), 0);
        send_all(&mut sender, to, b"something", 64);
        assert_eq!(receive_count(&mut receiver, 1)[0], b"something");
    }
}

/// Segments of no bytes, or of more than the limit, are a bug that does not pass unnoticed.
pub fn oversized_segments_are_refused<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let too_long = sender.limits().datagram_max_bytes + 1;
    for segment_bytes in [0, too_long] {
        let bytes = vec![0; too_long];
        let sent = catch_unwind(AssertUnwindSafe(|| sender.send(To::Group, &bytes, segment_bytes).is_ok()));
        assert!(sent.is_err(), "segments of {segment_bytes} bytes were taken");
    }
    send_all(&mut sender, To::Group, b"still open", 64);
    assert_eq!(receive_count(&mut receiver, 1)[0], b"still open");
}
