//! The rings between threads: what a hand-over inside a node costs.
//!
//! One producer runs on one core, the consumers on the other; frames have the requested size, and are copied in and
//! read whole. The producer never waits for a lossy reader, so `lost` counts what a reader of the broadcast ring
//! missed.

use crate::row::{Latency, Row, histogram, show};
use crate::worker::{cpu_ns, pin};
use crate::{Failure, Settings};
use bourdon_ring::{broadcast, spsc};
use std::time::Instant;

/// Bytes of a ring: the size an agent uses; smaller rings bounce their cache lines, larger ones leave the cache.
const RING_BYTES: usize = 1 << 20;
/// Frames staged before they are published together, in the batched row.
const BATCH: u64 = 32;
/// Readers of the broadcast ring.
const READERS: usize = 3;

struct Figures {
    received: u64,
    lost: u64,
    rates: Vec<f64>,
    cpu_ns: u64,
}

/// Measures the rings and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let count = settings.count.unwrap_or(20_000_000);
    let size = settings.size as usize;
    if size > RING_BYTES / 8 {
        return Err(Failure::Unusable(format!("a ring of {RING_BYTES} bytes takes frames up to {}", RING_BYTES / 8)));
    }
    let mut rows = vec![
        row(settings, "spsc", one_to_one(settings.rounds, count, size, 1)),
        row(settings, "spsc-batch-32", one_to_one(settings.rounds, count, size, BATCH)),
        row(settings, "broadcast-1-to-3", one_to_many(settings.rounds, count, size)),
    ];
    let mut trips = row(settings, "spsc-round-trip", Figures { received: 0, lost: 0, rates: vec![], cpu_ns: 0 });
    let latency = round_trips(count.min(500_000), size);
    trips.count = latency.len();
    trips.latency = Some((Latency::RoundTrip, latency));
    trips.cpu_ns_per_message = None;
    rows.push(trips);
    show(settings, &rows, &[])
}

fn row(settings: &Settings, what: &str, mut figures: Figures) -> Row {
    figures.rates.sort_by(f64::total_cmp);
    Row {
        what: what.into(),
        system: "bourdon".into(),
        transport: "ring".into(),
        size_bytes: settings.size,
        count: figures.received,
        lost: Some(figures.lost),
        out_of_order: Some(0), // checked on every frame
        rate_per_s: figures.rates.get(figures.rates.len() / 2).map(|rate| *rate as u64),
        latency: None,
        cpu_ns_per_message: Some(figures.cpu_ns / figures.received.max(1)),
        settings: serde_json::json!({ "ring_bytes": RING_BYTES, "rounds": settings.rounds }),
    }
}

/// Copies a frame out and returns its number.
fn take(scratch: &mut [u8], frame: &[u8]) -> u64 {
    scratch.copy_from_slice(frame);
    u64::from_le_bytes(std::hint::black_box(&*scratch)[..8].try_into().expect("frames are at least 16 bytes"))
}

fn one_to_one(rounds: u32, count: u64, size: usize, batch: u64) -> Figures {
    let mut figures = Figures { received: 0, lost: 0, rates: Vec::new(), cpu_ns: 0 };
    for _ in 0..rounds {
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
    figures
}

fn one_to_many(rounds: u32, count: u64, size: usize) -> Figures {
    let mut figures = Figures { received: 0, lost: 0, rates: Vec::new(), cpu_ns: 0 };
    for _ in 0..rounds {
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
    figures
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
