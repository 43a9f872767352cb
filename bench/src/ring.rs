//! The rings between threads: what a hand-over inside a node costs.
//!
//! One producer runs on one core, the consumers on the other; frames have the requested size, and are copied in and
//! read whole. The producer never waits for a lossy reader, so `lost` counts what a reader of the broadcast ring
//! missed.

use crate::round::Round;
use crate::row::{Latency, Ratio, Row, histogram, median, show};
use crate::systems::System;
use crate::throughput::{self, limit};
use crate::worker::{Spec, WorkerKind, cpu_ns, pin};
use crate::{Failure, Peer, Settings};
use bourdon_ring::{broadcast, spsc};
use std::time::Instant;

/// Bytes of a ring: the size an agent uses; smaller rings bounce their cache lines, larger ones leave the cache.
const RING_BYTES: usize = 1 << 20;
/// Frames staged before they are published together, in the batched row.
const BATCH: u64 = 32;
/// What can be measured beside Bourdon's ring here: each with a thread at both ends, in a process of its own.
const PEERS: &[Peer] = &[Peer::Crossbeam, Peer::Rtrb, Peer::Disruptor];
/// Readers of the broadcast ring.
const READERS: usize = 3;

#[derive(Default)]
struct Figures {
    received: u64,
    lost: u64,
    rates: Vec<f64>,
    cpu_ns: u64,
}

/// Measures the rings and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let count = settings.count.unwrap_or(20_000_000);
    let size = settings.common.size as usize;
    if size > RING_BYTES / 8 {
        return Err(Failure::Unusable(format!("a ring of {RING_BYTES} bytes takes frames up to {}", RING_BYTES / 8)));
    }
    let common = &settings.common;
    let systems = common.systems(PEERS, &[], &[])?;
    let spec = Spec { receivers: 0, ..Spec::new(common, WorkerKind::Pair, count) };
    let mut rounds: Vec<Vec<Round>> = systems[1..].iter().map(|_| Vec::new()).collect();
    let (mut single, mut batched, mut broadcast) = (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..common.rounds {
        for (system, rounds) in systems[1..].iter().zip(&mut rounds) {
            rounds.push(Round::measure(system, &spec, WorkerKind::Pair, limit(&spec))?);
        }
        one_to_one(&mut single, count, size, 1);
        one_to_one(&mut batched, count, size, BATCH);
        one_to_many(&mut broadcast, count, size);
    }
    let peers = || systems[1..].iter().zip(&rounds);
    let ratio = |(system, rounds): (&System, &Vec<Round>)| Ratio {
        what: format!("spsc rate over {}", system.name()),
        rounds: single.rates.iter().zip(rounds).map(|(ours, theirs)| ours / theirs.rate()).collect(),
    };
    let ratios: Vec<Ratio> = peers().map(ratio).collect();
    let mut rows = vec![
        row(settings, "spsc", single),
        row(settings, "spsc-batch-32", batched),
        row(settings, "broadcast-1-to-3", broadcast),
    ];
    rows.extend(peers().map(|(system, rounds)| throughput::row(common, "spsc", system, &spec, rounds)));
    let mut trips = row(settings, "spsc-round-trip", Figures::default());
    let latency = round_trips(count.min(500_000), size);
    trips.count = latency.len();
    trips.latency = Some((Latency::RoundTrip, latency));
    trips.cpu_ns_per_message = None;
    rows.push(trips);
    show(common, &rows, &ratios)
}

fn row(settings: &Settings, what: &str, figures: Figures) -> Row {
    Row {
        what: what.into(),
        system: "bourdon".into(),
        transport: "ring".into(),
        size_bytes: settings.common.size,
        count: figures.received,
        lost: Some(figures.lost),
        out_of_order: Some(0), // checked on every frame
        rate_per_s: median(figures.rates).map(|rate| rate as u64),
        latency: None,
        cpu_ns_per_message: Some(figures.cpu_ns / figures.received.max(1)),
        settings: serde_json::json!({ "ring_bytes": RING_BYTES, "rounds": settings.common.rounds }),
        extra: Default::default(),
    }
}

/// Copies a frame out and returns its number.
fn take(scratch: &mut [u8], frame: &[u8]) -> u64 {
    scratch.copy_from_slice(frame);
    u64::from_le_bytes(std::hint::black_box(&*scratch)[..8].try_into().expect("frames are at least 16 bytes"))
}

fn one_to_one(figures: &mut Figures, count: u64, size: usize, batch: u64) {
    let (mut producer, mut consumer) = spsc::channel(RING_BYTES);
    let cpu_before = cpu_ns();
    let reader = std::thread::spawn(move || {
        pin(1);
        let (mut next, mut scratch, began) = (0, vec![0; size], Instant::now());
        while next < count {
            consumer.read(256, |_, frame| {
                assert_eq!(take(&mut scratch, frame), next, "the ring lost or misplaced a frame");
                next += 1;
            });
        }
        count as f64 / began.elapsed().as_secs_f64()
    });
    pin(0);
    let mut frame = vec![7; size];
    for number in 0..count {
        frame[..8].copy_from_slice(&number.to_le_bytes());
        loop {
            let Ok(mut claim) = producer.try_claim(0, size) else { continue };
            claim.copy_from_slice(&frame);
            if (number + 1) % batch == 0 || number + 1 == count {
                claim.commit();
            } else {
                claim.stage();
            }
            break;
        }
    }
    figures.rates.push(reader.join().expect("the reader checks every frame"));
    figures.received += count;
    figures.cpu_ns += cpu_ns() - cpu_before;
}

fn one_to_many(figures: &mut Figures, count: u64, size: usize) {
    let (mut producer, joiner) = broadcast::channel(RING_BYTES);
    let cpu_before = cpu_ns();
    let consumers: Vec<_> = (0..READERS).map(|_| joiner.join()).collect();
    let readers: Vec<_> = consumers
        .into_iter()
        .map(|mut consumer| {
            std::thread::spawn(move || {
                pin(1);
                let (mut next, mut received, mut scratch) = (0, 0u64, vec![0; size]);
                while next < count && !(consumer.is_abandoned() && consumer.sequence() >= count) {
                    let read = consumer.read(256, |_, frame| {
                        let number = take(&mut scratch, frame);
                        assert!(number >= next, "the ring misplaced a frame");
                        (next, received) = (number + 1, received + 1);
                    });
                    if read.is_err() {
                        consumer.resume(broadcast::Resume::Oldest);
                    }
                }
                received
            })
        })
        .collect();
    pin(0);
    let (mut frame, began) = (vec![7; size], Instant::now());
    for number in 0..count {
        frame[..8].copy_from_slice(&number.to_le_bytes());
        while producer.try_push(0, &frame).is_err() {}
    }
    figures.rates.push(count as f64 / began.elapsed().as_secs_f64());
    drop(producer);
    let received: u64 = readers.into_iter().map(|reader| reader.join().expect("readers check order")).sum();
    figures.received += received;
    figures.lost += count * READERS as u64 - received;
    figures.cpu_ns += cpu_ns() - cpu_before;
}

fn round_trips(count: u64, size: usize) -> hdrhistogram::Histogram<u64> {
    let (mut there, mut there_end) = spsc::channel(RING_BYTES);
    let (mut back, mut back_end) = spsc::channel(RING_BYTES);
    let echo = std::thread::spawn(move || {
        pin(1);
        let mut answered = 0;
        while answered < count {
            answered += there_end.read(1, |tag, frame| while back.try_push(tag, frame).is_err() {}) as u64;
        }
    });
    pin(0);
    let (mut latency, frame) = (histogram(), vec![7; size]);
    for _ in 0..count {
        let began = Instant::now();
        while there.try_push(0, &frame).is_err() {}
        while back_end.read(1, |_, _| {}) == 0 {}
        latency.saturating_record(began.elapsed().as_nanos() as u64);
    }
    echo.join().expect("the echo only copies");
    latency
}
