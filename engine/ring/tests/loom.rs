//! Every structure under loom: all interleavings up to a few preemptions, and every value the memory model lets
//! a load return. Run by `RUSTFLAGS="--cfg loom" cargo test -p bourdon-ring --release --test loom`.
//!
//! Rings are as small as possible, and frames as few as reach the interesting place: the state space grows
//! exponentially with both. A writer that waits yields, so that loom runs the other side.
#![cfg(loom)]

use bourdon_ring::broadcast::{self, PushError, Resume};
use bourdon_ring::spsc::{self, ClaimError};
use bourdon_ring::{counters, signal};
use loom::thread;

/// Preemptions explored in each execution; published bugs of this kind need two (Musuvathi and Qadeer, PLDI 2007).
const PREEMPTIONS: usize = 3;

fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// A payload that reveals any mixture with another frame's.
fn payload(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_ne_bytes());
    bytes[8..].copy_from_slice(&(!number).to_ne_bytes());
    bytes
}

/// The frame's number, if its tag and both words belong together.
fn number(tag: u32, bytes: &[u8]) -> u64 {
    assert_eq!(bytes, payload(u64::from(tag)), "torn frame");
    u64::from(tag)
}

/// Sends the numbers 0 to 2.
fn send_three(mut producer: spsc::Producer) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for number in 0..3 {
            while producer.try_push(number, &payload(u64::from(number))) == Err(ClaimError::Full) {
                thread::yield_now();
            }
        }
    })
}

#[test]
fn spsc_wraps_and_pads() {
    model(PREEMPTIONS, || {
        // 24 bytes a frame: two, 16 bytes of padding, and the third wraps and must wait for the first.
        let (producer, mut consumer) = spsc::channel(64);
        let writer = send_three(producer);
        let mut next = 0;
        while next < 3 {
            let count = consumer.read(2, |tag, bytes| {
                assert_eq!(number(tag, bytes), next);
                next += 1;
            });
            if count == 0 {
                thread::yield_now();
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn spsc_front_is_the_consumers_until_it_is_dropped() {
    model(PREEMPTIONS, || {
        // As above: the third frame wraps into the first, which may still be lent.
        let (producer, mut consumer) = spsc::channel(64);
        let writer = send_three(producer);
        for next in 0..3 {
            let front = loop {
                if consumer.has_frames() {
                    break consumer.front().unwrap();
                }
                thread::yield_now();
            };
            thread::yield_now(); // the writer may look for room while the frame is lent
            assert_eq!(number(front.tag(), &front), next);
        }
        assert!(consumer.front().is_none());
        writer.join().unwrap();
    });
}

#[test]
fn spsc_kept_frame_is_the_consumers_until_it_is_released() {
    model(PREEMPTIONS, || {
        let (producer, mut consumer) = spsc::channel(64);
        let writer = send_three(producer);
        for next in 0..3 {
            while !consumer.has_frames() {
                thread::yield_now();
            }
            let (tag, bytes) = consumer.front().unwrap().keep();
            thread::yield_now(); // the writer may look for room while the frame is kept
            assert_eq!(number(tag, bytes), next);
            consumer.release();
        }
        writer.join().unwrap();
    });
}

#[test]
fn spsc_aborted_claim_is_never_seen() {
    model(PREEMPTIONS, || {
        let (mut producer, mut consumer) = spsc::channel(64);
        let writer = thread::spawn(move || {
            producer.try_claim(9, 16).unwrap().fill(0xff);
            producer.try_push(0, &payload(0)).unwrap();
            producer.try_claim(9, 24).unwrap().fill(0xff);
        });
        let mut seen = 0;
        for _ in 0..2 {
            consumer.read(4, |tag, bytes| seen += 1 + number(tag, bytes));
        }
        writer.join().unwrap();
        consumer.read(4, |tag, bytes| seen += 1 + number(tag, bytes));
        assert_eq!(seen, 1);
    });
}

#[test]
fn spsc_drop_publishes_then_shows() {
    model(PREEMPTIONS, || {
        let (mut producer, mut consumer) = spsc::channel(64);
        let writer = thread::spawn(move || {
            for number in 0..2 {
                let mut claim = producer.try_claim(number, 16).unwrap();
                claim.copy_from_slice(&payload(u64::from(number)));
                claim.stage();
            }
        });
        if consumer.is_abandoned() {
            assert_eq!(consumer.read(4, |tag, bytes| assert!(number(tag, bytes) < 2)), 2);
        } else {
            let count = consumer.read(4, |tag, bytes| assert!(number(tag, bytes) < 2));
            assert!(count == 0 || count == 2, "staged frames appear together");
        }
        writer.join().unwrap();
    });
}

#[test]
fn spsc_consumer_drop_shows_what_it_did() {
    model(PREEMPTIONS, || {
        let (mut producer, consumer) = spsc::channel(64);
        let (cells, counts) = counters::in_memory(1);
        let reader = thread::spawn(move || {
            cells.add(0, 1);
            drop(consumer);
        });
        producer.try_push(0, &payload(0)).unwrap();
        if producer.is_abandoned() {
            assert_eq!(counts.get(0), 1);
        }
        reader.join().unwrap();
        assert!(producer.is_abandoned());
    });
}

/// A ring of four 32-byte frames, and a consumer that was there first.
fn broadcast_with(frames: u32) -> (broadcast::Producer, broadcast::Joiner, broadcast::Consumer) {
    let (mut producer, joiner) = broadcast::channel(128);
    let consumer = joiner.join();
    for number in 0..frames {
        producer.try_push(number, &payload(u64::from(number))).unwrap();
    }
    (producer, joiner, consumer)
}

/// Reads `tries` times a frame; every frame is whole, in order, and each loss is counted exactly.
fn read_some(consumer: &mut broadcast::Consumer, tries: usize, place: Resume) {
    for _ in 0..tries {
        let expected = consumer.sequence();
        match consumer.read(1, |tag, bytes| assert_eq!(number(tag, bytes), expected)) {
            Ok(_) => {}
            Err(overrun) => {
                let skipped = consumer.resume(place);
                assert!(overrun.missed_frames > 0 && skipped >= overrun.missed_frames);
                assert_eq!(consumer.sequence(), expected + skipped);
            }
        }
    }
}

#[test]
fn broadcast_lapped_reader_sees_no_torn_frame() {
    model(PREEMPTIONS, || {
        let (mut producer, _, mut consumer) = broadcast_with(4);
        let writer = thread::spawn(move || producer.try_push(4, &payload(4)).unwrap());
        read_some(&mut consumer, 2, Resume::Oldest);
        writer.join().unwrap();
    });
}

#[test]
fn broadcast_lapped_twice_resumes_at_latest() {
    model(2, || {
        let (mut producer, _, mut consumer) = broadcast_with(4);
        let writer = thread::spawn(move || {
            for number in 4..6 {
                producer.try_push(number, &payload(u64::from(number))).unwrap();
            }
        });
        read_some(&mut consumer, 3, Resume::Latest);
        writer.join().unwrap();
    });
}

#[test]
fn broadcast_two_readers() {
    model(2, || {
        let (mut producer, joiner, mut first) = broadcast_with(4);
        let reader = thread::spawn(move || read_some(&mut first, 2, Resume::Oldest));
        let joining = thread::spawn(move || read_some(&mut joiner.join(), 1, Resume::Latest));
        producer.try_push(4, &payload(4)).unwrap();
        reader.join().unwrap();
        joining.join().unwrap();
    });
}

#[test]
fn broadcast_joins_at_now_while_lapping() {
    model(2, || {
        let (mut producer, joiner, _) = broadcast_with(1);
        let writer = thread::spawn(move || {
            for number in 1..6 {
                producer.try_push(number, &payload(u64::from(number))).unwrap();
            }
        });
        let mut consumer = joiner.join();
        assert!(consumer.sequence() > 0);
        read_some(&mut consumer, 2, Resume::Oldest);
        writer.join().unwrap();
    });
}

#[test]
fn broadcast_joins_while_the_first_frame_comes() {
    model(PREEMPTIONS, || {
        let (mut producer, joiner) = broadcast::channel(128);
        let writer = thread::spawn(move || {
            producer.try_push(0, &payload(0)).unwrap();
            producer.try_push(1, &payload(1)).unwrap();
        });
        let mut consumer = joiner.join();
        assert!(consumer.sequence() <= 2);
        read_some(&mut consumer, 2, Resume::Oldest);
        writer.join().unwrap();
    });
}

#[test]
fn broadcast_drop_publishes_then_shows() {
    model(PREEMPTIONS, || {
        let (mut producer, joiner) = broadcast::channel(128);
        let mut consumer = joiner.join();
        let writer = thread::spawn(move || {
            for number in 0..2 {
                producer.stage(number, &payload(u64::from(number))).unwrap();
            }
        });
        let last = consumer.is_abandoned();
        let count = consumer.read(4, |tag, bytes| assert!(number(tag, bytes) < 2)).unwrap();
        assert!(count == 2 || (count == 0 && !last), "staged frames appear together, before the end shows");
        writer.join().unwrap();
    });
}

#[test]
fn broadcast_pads_under_a_lapped_reader() {
    model(2, || {
        // 32, 32, 32, 24 bytes leave 8 of padding before the frame that overwrites the first.
        let (mut producer, _, mut consumer) = broadcast_with(3);
        producer.try_push(3, &3_u64.to_ne_bytes()).unwrap();
        let writer = thread::spawn(move || producer.try_push(4, &payload(4)).unwrap());
        for _ in 0..5 {
            let expected = consumer.sequence();
            let read = consumer.read(1, |tag, bytes| {
                assert_eq!(u64::from(tag), expected);
                assert_eq!(bytes[..8], expected.to_ne_bytes());
            });
            if read.is_err() {
                consumer.resume(Resume::Oldest);
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn broadcast_gating_consumer_loses_nothing() {
    model(PREEMPTIONS, || {
        let (mut producer, _) = broadcast::channel(128);
        let mut consumer = producer.join_gating().unwrap();
        for number in 0..4 {
            producer.try_push(number, &payload(u64::from(number))).unwrap();
        }
        let writer = thread::spawn(move || {
            while producer.try_push(4, &payload(4)) == Err(PushError::Full) {
                thread::yield_now();
            }
        });
        let mut next = 0;
        while next < 5 {
            let count = consumer.read(2, |tag, bytes| {
                assert_eq!(number(tag, bytes), next);
                next += 1;
            });
            if count.unwrap() == 0 {
                thread::yield_now();
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn broadcast_gating_ends_with_the_consumer() {
    model(PREEMPTIONS, || {
        let (mut producer, _) = broadcast::channel(128);
        let consumer = producer.join_gating().unwrap();
        for number in 0..4 {
            producer.try_push(number, &payload(u64::from(number))).unwrap();
        }
        let reader = thread::spawn(move || drop(consumer));
        while producer.try_push(4, &payload(4)) == Err(PushError::Full) {
            thread::yield_now();
        }
        assert_eq!(producer.gating_lag_bytes(), None);
        reader.join().unwrap();
    });
}

#[test]
fn counters_grow_and_lose_nothing() {
    model(PREEMPTIONS, || {
        let (writer, reader) = counters::in_memory(2);
        let (first, second) = writer.split_at(1);
        let adding = |writer: counters::Writer| {
            thread::spawn(move || {
                writer.add(0, 1);
                writer.add(0, 2);
            })
        };
        let threads = [adding(first), adding(second)];
        let earlier = reader.get(0);
        assert!([0, 1, 3].contains(&earlier) && reader.get(0) >= earlier);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((reader.get(0), reader.get(1)), (3, 3));
    });
}

#[test]
fn watermark_publishes_what_lies_below() {
    model(PREEMPTIONS, || {
        let (cells, reader) = counters::in_memory(2);
        let (mut writer, watermark) = signal::watermark(0);
        let thread = thread::spawn(move || {
            for index in 0..2 {
                cells.set(index, 7);
                writer.advance(index as u64 + 1);
            }
        });
        let ready = watermark.get() as usize;
        for index in 0..ready {
            assert_eq!(reader.get(index), 7);
        }
        assert!(watermark.get() as usize >= ready);
        thread.join().unwrap();
        assert_eq!(watermark.get(), 2);
    });
}

#[test]
fn flag_publishes_what_was_before() {
    model(PREEMPTIONS, || {
        let (cells, reader) = counters::in_memory(1);
        let flag = signal::Flag::new();
        let raised = flag.clone();
        let thread = thread::spawn(move || {
            cells.set(0, 7);
            raised.set();
        });
        if flag.is_set() {
            assert_eq!(reader.get(0), 7);
        }
        thread.join().unwrap();
        assert!(flag.is_set());
    });
}
