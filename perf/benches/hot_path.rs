//! Wall time of the hot path, part by part: to find out where time goes, not to gate on.
//!
//! `cargo bench -p bourdon-perf --features criterion`; `-- NAME` picks some, `-- --quick` is quick.

use bourdon_engine::Item;
use bourdon_perf::group::{Group, Member};
use bourdon_perf::guarantee::Guarantee;
use bourdon_ring::spsc;
use bourdon_wire::{
    ChannelId, Datagram, DatagramHeader, Epoch, FRAME_HEADER_BYTES, FrameHeader, GroupId, HEADER_BYTES, Incarnation,
    InstanceId, Instant, Kind, MTU_DEFAULT_BYTES, Rank, TopicId, flags, seal,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{self, Duration};
use zerocopy::IntoBytes;

const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Messages of 64 bytes in a full datagram.
const FULL: u64 = 18;
/// Messages in a full segmentation run.
const BURST: u64 = 46 * FULL;

fn publish(group: &mut Group, messages: u64) {
    group.members[0].set_time(group.now);
    for _ in 0..messages {
        group.members[0].publish(black_box(&PAYLOAD)).expect("the window is open");
    }
}

fn flush(group: &mut Group) {
    group.members[0].flush().expect("the port in memory takes all");
}

fn poll(member: &mut Member, now: Instant) {
    member
        .poll(now, |item| {
            if let Item::Message(message) = item {
                black_box(message.payload);
            }
        })
        .expect("the port in memory works");
}

/// Which part of a round is timed.
#[derive(Clone, Copy, PartialEq)]
enum Timed {
    Publish,
    PublishFlush,
    ReceiveDeliver,
}

/// Publishes, sends and delivers so many messages, `rounds` times. Returns how long the part took.
fn rounds(group: &mut Group, rounds: u64, messages: u64, part: Timed) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        group.pass(10_000);
        let begun = time::Instant::now();
        publish(group, messages);
        let published = begun.elapsed();
        flush(group);
        let flushed = begun.elapsed();
        poll(&mut group.members[1], group.now);
        spent += match part {
            Timed::Publish => published,
            Timed::PublishFlush => flushed,
            Timed::ReceiveDeliver => begun.elapsed() - flushed,
        };
        poll(&mut group.members[0], group.now);
    }
    spent
}

fn total_order(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("total-order");
    let mut group = Group::form(2, 0, Guarantee::default()).expect("a group in memory forms");
    for (name, messages, part) in [
        ("publish", FULL, Timed::Publish),
        ("publish-flush/single", 1, Timed::PublishFlush),
        ("publish-flush/burst", BURST, Timed::PublishFlush),
        ("receive-deliver/single", 1, Timed::ReceiveDeliver),
        ("receive-deliver/burst", BURST, Timed::ReceiveDeliver),
    ] {
        bench.throughput(Throughput::Elements(messages));
        bench.bench_function(name, |bencher| bencher.iter_custom(|count| rounds(&mut group, count, messages, part)));
    }
    bench.finish();
}

/// A full datagram of 64-byte messages.
fn full_datagram(group: GroupId) -> Vec<u8> {
    let mut bytes = vec![0; MTU_DEFAULT_BYTES];
    let frame_bytes = FRAME_HEADER_BYTES + PAYLOAD.len();
    let header = DatagramHeader::new(group, InstanceId(1), Epoch(1), Rank(0), Incarnation(1), ChannelId(0));
    for frame in bytes[HEADER_BYTES..].chunks_exact_mut(frame_bytes) {
        let head = FrameHeader::new(PAYLOAD.len(), TopicId(7), Kind::Data, flags::WHOLE);
        frame[..FRAME_HEADER_BYTES].copy_from_slice(head.as_bytes());
        frame[FRAME_HEADER_BYTES..].copy_from_slice(&PAYLOAD);
    }
    seal(&mut bytes, header, FULL as u16, FULL as usize * frame_bytes, 0);
    bytes
}

fn wire(criterion: &mut Criterion) {
    let group = GroupId::of("bench");
    let datagram = full_datagram(group);
    let mut bench = criterion.benchmark_group("wire");
    bench.throughput(Throughput::Elements(1));
    bench.bench_function("parse-full-datagram", |bencher| {
        bencher.iter(|| Datagram::parse(black_box(&datagram), group).map(|datagram| datagram.messages));
    });
    bench.bench_function("walk-full-datagram", |bencher| {
        let datagram = Datagram::parse(&datagram, group).expect("it is well formed");
        bencher.iter(|| {
            black_box(datagram).frames().filter_map(|frame| frame.data()).map(|head| head.payload.len()).sum::<usize>()
        });
    });
    bench.finish();
}

fn rings(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("spsc");
    for (name, batch) in [("single", 1u64), ("batch-32", 32)] {
        bench.throughput(Throughput::Elements(batch));
        let (mut producer, mut consumer) = spsc::channel(1 << 16);
        bench.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..batch {
                    producer.try_push(1, black_box(&PAYLOAD)).expect("the ring has room");
                }
                consumer.read(batch as usize, |_, bytes| _ = black_box(bytes))
            });
        });
    }
    bench.finish();
}

criterion_group!(benches, total_order, wire, rings);
criterion_main!(benches);
