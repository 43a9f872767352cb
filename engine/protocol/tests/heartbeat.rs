//! Heartbeats, case by case.

use crate::common::{Bench, GROUP, MS};
use bourdon_protocol::Order;
use bourdon_wire::records::Heartbeat;
use bourdon_wire::{CONTROL_CHANNEL, Datagram, Kind};

/// The heartbeats that go out now while the network takes `most` datagrams of data: next number, sequence and order of
/// each.
fn beats(bench: &mut Bench, most: usize) -> Vec<(u64, u64, u64)> {
    let (mut beats, mut left) = (Vec::new(), most);
    bench.process.transmit(bench.now, |_, bytes, segment_bytes| {
        let count = bytes.len().div_ceil(segment_bytes);
        if Datagram::parse(&bytes[..segment_bytes], GROUP).unwrap().header.channel() == CONTROL_CHANNEL {
            for datagram in bytes.chunks(segment_bytes).map(|datagram| Datagram::parse(datagram, GROUP).unwrap()) {
                if let Some(frame) = datagram.frames().find(|frame| frame.kind() == Some(Kind::Heartbeat)) {
                    let (record, _) = Heartbeat::read(frame.body).unwrap();
                    beats.push((record.next_number.get(), record.next_sequence.get(), record.next_order.get()));
                }
            }
            return count;
        }
        let taken = count.min(left);
        left -= taken;
        taken
    });
    beats
}

/// Number and sequence of a heartbeat belong together, or an observer begins with a message under another message's
/// name.
#[test]
fn a_heartbeat_speaks_of_what_was_sent_and_not_of_what_waits() {
    let mut bench = Bench::member(Order::Total, 2, 0).formed();
    for _ in 0..3 {
        bench.publish(&[1; 700]); // one a datagram
    }
    assert_eq!(beats(&mut bench, 2), []);
    bench.publish(&[1; 700]);
    bench.wait(100 * MS);
    assert_eq!(beats(&mut bench, 0), [(2, 2, 2)]);
    bench.wait(100 * MS);
    assert!(beats(&mut bench, 9).contains(&(2, 2, 2)), "written before the rest was sent");
    bench.wait(100 * MS);
    assert_eq!(beats(&mut bench, 9), [(4, 4, 4)]);
}

#[test]
fn a_member_that_never_stops_sending_still_sends_heartbeats() {
    let mut bench = Bench::member(Order::Fifo, 1, 0);
    bench.settle();
    let mut count = 0;
    for _ in 0..1000 {
        bench.publish(b"x");
        bench.wait(MS / 2);
        count += beats(&mut bench, 9).len();
        bench.process.deliver(bench.now, usize::MAX, |_| {});
    }
    assert!((49..=51).contains(&count), "{count} heartbeats in half a second");
}

#[test]
fn heartbeats_come_soon_then_less_often_and_never_cease() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.publish(b"x");
    bench.settle();
    let mut times = Vec::new();
    let sent_at = bench.now;
    while times.len() < 10 {
        bench.now = bench.process.next_deadline();
        bench.timers();
        if !beats(&mut bench, 9).is_empty() {
            times.push(bench.now.since(sent_at) / MS);
        }
    }
    assert_eq!(times, [1, 2, 4, 8, 16, 26, 36, 46, 56, 66]);
}
