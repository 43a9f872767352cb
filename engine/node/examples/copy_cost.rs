//! What handing a message through a ring costs, by its length: `cargo run --release -p bourdon --example copy_cost`.
//!
//! One thread writes and reads, so that the figure is the copy and not the hand-over between cores, which a ring of
//! positions would pay as well.

use bourdon_ring::spsc;
use std::hint::black_box;
use std::time::Instant;

/// The header of each delivered payload.
const HEAD_BYTES: usize = 72;
const ROUNDS: u32 = 20_000;
const BATCH: u32 = 100;

fn cost_ns(payload_bytes: usize) -> f64 {
    let (mut producer, mut consumer) = spsc::channel(1 << 20);
    let payload = vec![7; payload_bytes];
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for _ in 0..BATCH {
            let mut claim = producer.try_claim(0, HEAD_BYTES + payload_bytes).expect("the ring is read each round");
            claim[HEAD_BYTES..].copy_from_slice(black_box(&payload));
            claim.stage();
        }
        producer.publish();
        consumer.read(usize::MAX, |_, frame| _ = black_box(frame));
    }
    began.elapsed().as_nanos() as f64 / f64::from(ROUNDS * BATCH)
}

fn main() {
    for payload_bytes in [0, 64, 256, 1344] {
        let cost_ns = (0..5).map(|_| cost_ns(payload_bytes)).fold(f64::MAX, f64::min);
        println!("payload {payload_bytes:>5} bytes: {cost_ns:6.1} ns a message");
    }
}
