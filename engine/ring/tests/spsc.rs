//! The SPSC ring against a queue it must equal, and under two running threads.
#![cfg(not(loom))]

use bourdon_ring::spsc::{self, ClaimError, HEADER_BYTES, MIN_CAPACITY_BYTES};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

#[derive(Clone, Debug)]
enum Step {
    Commit(usize),
    Stage(usize),
    Abort(usize),
    Publish,
    Read(usize),
    Front,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..150_usize).prop_map(Step::Commit),
        2 => (0..150_usize).prop_map(Step::Stage),
        1 => (0..150_usize).prop_map(Step::Abort),
        1 => Just(Step::Publish),
        4 => (0..5_usize).prop_map(Step::Read),
        2 => Just(Step::Front),
    ]
}

/// The ring, and what it must behave like.
struct Model {
    producer: spsc::Producer,
    consumer: spsc::Consumer,
    staged: VecDeque<(u32, Vec<u8>)>,
    published: VecDeque<(u32, Vec<u8>)>,
    tag: u32,
}

impl Model {
    fn publish(&mut self) {
        self.published.append(&mut self.staged);
    }

    fn claim(&mut self, len: usize, step: &Step) {
        self.tag += 1;
        let frame: Vec<u8> = (0..len).map(|index| index as u8 ^ self.tag as u8).collect();
        let max_bytes = self.producer.max_len_bytes();
        match self.producer.try_claim(self.tag, len) {
            Ok(mut claim) => {
                assert!(len <= max_bytes);
                assert_eq!(claim.len(), len);
                claim.copy_from_slice(&frame);
                assert_eq!(*claim, *frame);
                match step {
                    Step::Abort(_) => return,
                    Step::Stage(_) => claim.stage(),
                    _ => claim.commit(),
                }
                self.staged.push_back((self.tag, frame));
                if matches!(step, Step::Commit(_)) {
                    self.publish();
                }
            }
            Err(ClaimError::TooLong { .. }) => assert!(len > max_bytes),
            Err(ClaimError::Full) => {
                self.publish();
                assert!(len <= max_bytes && !self.published.is_empty(), "an empty ring takes any frame");
            }
        }
    }

    fn read(&mut self, limit: usize) {
        let published = &mut self.published;
        let before = published.len();
        let count = self.consumer.read(limit, |tag, bytes| {
            assert_eq!(published.pop_front(), Some((tag, bytes.to_vec())));
        });
        assert_eq!(count, before - published.len());
        assert!(count <= limit);
        assert!(count > 0 || limit == 0 || before == 0, "zero means empty");
    }

    fn front(&mut self) {
        let front = self.consumer.front();
        let front = front.as_ref().map(|front| (front.tag(), front.to_vec()));
        assert_eq!(front, self.published.pop_front(), "none means empty");
    }
}

proptest! {
    #[test]
    fn equals_a_queue(capacity in 0..300_usize, steps in prop::collection::vec(step(), 0..300)) {
        let (producer, consumer) = spsc::channel(capacity);
        prop_assert!(producer.capacity_bytes() >= capacity.max(MIN_CAPACITY_BYTES));
        let mut model = Model { producer, consumer, staged: VecDeque::new(), published: VecDeque::new(), tag: 0 };
        for step in steps {
            match step {
                Step::Commit(len) | Step::Stage(len) | Step::Abort(len) => model.claim(len, &step),
                Step::Publish => {
                    model.producer.publish();
                    model.publish();
                }
                Step::Read(limit) => model.read(limit),
                Step::Front => model.front(),
            }
        }
        drop(std::mem::replace(&mut model.producer, spsc::channel(0).0));
        model.publish();
        prop_assert!(model.consumer.is_abandoned());
        while !model.published.is_empty() {
            model.read(7);
        }
        prop_assert_eq!(model.consumer.read(7, |_, _| ()), 0);
    }
}

#[test]
fn the_longest_frame_fits_at_every_offset() {
    for lead in 0..32 {
        let (mut producer, mut consumer) = spsc::channel(256);
        for _ in 0..lead {
            producer.try_push(0, &[]).unwrap();
            consumer.read(1, |_, _| ());
        }
        let longest = vec![7; producer.max_len_bytes()];
        assert_eq!(longest.len(), 128 - HEADER_BYTES);
        producer.try_push(1, &longest).unwrap();
        assert_eq!(consumer.read(1, |_, bytes| assert_eq!(bytes, longest)), 1);
    }
}

#[test]
fn too_long_is_not_full() {
    let (mut producer, _consumer) = spsc::channel(64);
    let error = producer.try_push(0, &[0; 25]).unwrap_err();
    assert_eq!(error, ClaimError::TooLong { len_bytes: 25, max_bytes: 24 });
}

#[test]
fn a_panicking_handler_leaves_the_ring_usable() {
    let (mut producer, mut consumer) = spsc::channel(64);
    for tag in 0..3 {
        producer.try_push(tag, &[0; 8]).unwrap();
    }
    let result = catch_unwind(AssertUnwindSafe(|| consumer.read(3, |tag, _| assert_ne!(tag, 1))));
    assert!(result.is_err());
    assert_eq!(consumer.read(3, |tag, _| assert_eq!(tag, 2)), 1);
    producer.try_push(3, &[0; 24]).unwrap();
    assert_eq!(consumer.read(3, |tag, _| assert_eq!(tag, 3)), 1);
}

#[test]
fn each_side_notices_the_other_leaving() {
    let (producer, consumer) = spsc::channel(64);
    assert!(!producer.is_abandoned() && !consumer.is_abandoned());
    drop(consumer);
    assert!(producer.is_abandoned());
    let (producer, consumer) = spsc::channel(64);
    drop(producer);
    assert!(consumer.is_abandoned());
}

/// Two threads, frames of random length and content, some staged, some aborted: the same checksum on both sides.
#[test]
fn two_threads_agree_on_a_checksum() {
    const FRAMES: u64 = 300_000;
    let (mut producer, mut consumer) = spsc::channel_untouched(4096);
    let writer = thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(1);
        let mut sum = checksum(0, &[]);
        for number in 0..FRAMES {
            let len = random.usize(0..200);
            let mut claim = loop {
                match producer.try_claim(number as u32, len) {
                    // The borrow checker cannot see that a failed claim ends its borrow, so claim again.
                    Ok(claim) if random.u8(0..8) == 0 => drop(claim),
                    Ok(_) => break producer.try_claim(number as u32, len).unwrap(),
                    Err(_) => thread::yield_now(),
                }
            };
            random.fill(&mut claim);
            sum = checksum(sum, &claim);
            if random.bool() { claim.stage() } else { claim.commit() }
        }
        sum
    });
    let (mut next, mut sum) = (0, checksum(0, &[]));
    loop {
        let last = consumer.is_abandoned();
        let count = consumer.read(64, |tag, bytes| {
            assert_eq!(tag, next);
            next += 1;
            sum = checksum(sum, bytes);
        });
        if count == 0 {
            if last {
                break;
            }
            thread::yield_now();
        }
    }
    assert_eq!(u64::from(next), FRAMES);
    assert_eq!(sum, writer.join().unwrap());
}

/// FNV-1a, carried on.
fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum ^ 0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn a_frame_that_is_kept_is_freed_by_release_or_the_next_read() {
    let (mut producer, mut consumer) = spsc::channel(64);
    let longest = producer.max_len_bytes();
    for tag in 0..20 {
        producer.try_push(tag, &vec![tag as u8; longest]).unwrap();
        producer.try_push(tag, &vec![tag as u8; longest]).unwrap();
        let (kept_tag, kept) = consumer.front().unwrap().keep();
        assert_eq!(producer.try_push(99, &[]), Err(ClaimError::Full), "the kept frame is not free");
        assert_eq!((kept_tag, kept), (tag, &vec![tag as u8; longest][..]));
        if tag % 2 == 0 {
            consumer.release();
        }
        assert_eq!(consumer.read(9, |_, _| ()), 1);
        assert_eq!(producer.free_bytes(), 64);
    }
    producer.try_push(0, &[]).unwrap();
    consumer.front().unwrap().keep();
    drop(producer);
    assert!(consumer.front().is_none() && consumer.is_abandoned());
    consumer.release();
}

#[test]
fn a_frame_that_is_not_taken_stays_in_front() {
    let (mut producer, mut consumer) = spsc::channel(256);
    assert!(!consumer.has_frames());
    for tag in 0..4 {
        producer.try_push(tag, &[tag as u8; 8]).unwrap();
    }
    assert!(consumer.has_frames());
    let free_bytes = producer.free_bytes();
    let mut offered = Vec::new();
    let count = consumer.read_while(usize::MAX, |tag, _| {
        offered.push(tag);
        tag < 2
    });
    assert_eq!((count, offered), (2, vec![0, 1, 2]));
    assert_eq!(producer.free_bytes(), free_bytes + 2 * (8 + spsc::HEADER_BYTES));
    let mut rest = Vec::new();
    assert_eq!(consumer.read(usize::MAX, |tag, bytes| rest.push((tag, bytes[0]))), 2);
    assert_eq!(rest, [(2, 2), (3, 3)]);
    assert!(!consumer.has_frames());
}

#[test]
fn a_refused_frame_behind_padding_is_offered_again() {
    let (mut producer, mut consumer) = spsc::channel(64);
    for _ in 0..2 {
        producer.try_push(0, &[0; 16]).unwrap();
    }
    assert_eq!(consumer.read(2, |_, _| {}), 2);
    producer.try_push(7, &[7; 16]).unwrap(); // 16 bytes are left before the end: padding, then the frame
    assert_eq!(consumer.read_while(1, |_, _| false), 0);
    assert_eq!(consumer.read_while(1, |_, _| false), 0);
    let mut seen = 0;
    assert_eq!(consumer.read(1, |tag, bytes| seen = tag + u32::from(bytes[0])), 1);
    assert_eq!(seen, 14);
}

#[test]
fn a_lent_frame_keeps_its_space_until_it_is_dropped() {
    let (mut producer, mut consumer) = spsc::channel(64);
    assert!(consumer.front().is_none());
    producer.try_push(1, &[1; 24]).unwrap();
    producer.try_push(2, &[2; 24]).unwrap();
    let front = consumer.front().unwrap();
    assert_eq!((front.tag(), &*front), (1, &[1; 24][..]));
    assert_eq!(producer.try_push(3, &[3; 24]), Err(ClaimError::Full));
    drop(front);
    producer.try_push(3, &[3; 24]).unwrap();
    let lent = catch_unwind(AssertUnwindSafe(|| consumer.front().map(|front| assert_eq!(front.tag(), 1))));
    assert!(lent.is_err(), "the second frame was lent, and counts as read");
    assert_eq!(consumer.front().unwrap().tag(), 3);
    assert!(consumer.front().is_none());
}

#[test]
fn the_bell_rings_once_a_sleep() {
    let (mut sleeper, bell) = bourdon_ring::signal::doorbell();
    let (mut one, mut other) = (bell.clone(), bell);
    assert!(!one.must_ring());
    sleeper.lie_down();
    assert!(one.must_ring() && !one.must_ring() && other.must_ring());
    sleeper.get_up();
    assert!(!one.must_ring());
    sleeper.lie_down();
    assert!(one.must_ring());
}
