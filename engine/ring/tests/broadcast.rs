//! The broadcast ring against a log of all that was published, and under running threads.
#![cfg(not(loom))]

use bourdon_ring::broadcast::{self, Consumer, MAX_GATING, Overrun, PushError, Resume, TooManyGating};
use proptest::prelude::*;
use std::thread;

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Stage(usize),
    Publish,
    Join,
    JoinGating,
    Drop(usize),
    Read(usize, usize),
    Resume(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..80_usize).prop_map(Step::Push),
        10 => (0..80_usize).prop_map(Step::Stage),
        5 => Just(Step::Publish),
        2 => Just(Step::Join),
        1 => Just(Step::JoinGating),
        2 => any::<usize>().prop_map(Step::Drop),
        20 => (any::<usize>(), 0..9_usize).prop_map(|(reader, limit)| Step::Read(reader, limit)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(reader, oldest)| Step::Resume(reader, oldest)),
    ]
}

struct Reader {
    consumer: Consumer,
    gating: bool,
}

/// The ring, and everything ever written to it.
struct Model {
    producer: broadcast::Producer,
    joiner: broadcast::Joiner,
    log: Vec<Vec<u8>>,
    readers: Vec<Reader>,
    published: u64,
}

impl Model {
    fn stage(&mut self, len: usize) -> bool {
        let frame: Vec<u8> = (0..len).map(|index| index as u8 ^ self.log.len() as u8).collect();
        match self.producer.stage(self.log.len() as u32, &frame) {
            Ok(()) => self.log.push(frame),
            Err(PushError::TooLong { max_bytes, .. }) => assert!(len > max_bytes),
            Err(PushError::Full) => {
                assert!(self.readers.iter().any(|reader| reader.gating && reader.consumer.sequence() < self.written()));
                assert!(self.producer.gating_lag_bytes().unwrap() > 0);
                self.published = self.written();
            }
        }
        self.written() == self.producer.sequence()
    }

    fn written(&self) -> u64 {
        self.log.len() as u64
    }

    fn read(&mut self, reader: usize, limit: usize) {
        let Some(count) = self.readers.len().checked_sub(1) else { return };
        let reader = &mut self.readers[reader % (count + 1)];
        let (log, first) = (&self.log, reader.consumer.sequence());
        let mut next = first;
        let result = reader.consumer.read(limit, |tag, bytes| {
            assert_eq!(u64::from(tag), next);
            assert_eq!(bytes, log[next as usize]);
            next += 1;
        });
        match result {
            Ok(count) => {
                assert_eq!(count as u64, next - first);
                // Frames may be published early, never late.
                assert!(count > 0 || limit == 0 || next >= self.published);
            }
            Err(Overrun { missed_frames }) => {
                assert!(!reader.gating && missed_frames > 0);
                assert_eq!(reader.consumer.resume(Resume::Oldest), missed_frames);
                assert_eq!(reader.consumer.sequence(), first + missed_frames);
            }
        }
    }

    fn resume(&mut self, reader: usize, oldest: bool) {
        let Some(reader) = self.readers.iter_mut().filter(|reader| !reader.gating).nth(reader % 4) else { return };
        let first = reader.consumer.sequence();
        let place = if oldest { Resume::Oldest } else { Resume::Latest };
        let skipped = reader.consumer.resume(place);
        assert_eq!(reader.consumer.sequence(), first + skipped);
        if !oldest {
            assert!(reader.consumer.sequence() + 1 >= self.published);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push(len) => {
                assert!(self.stage(len));
                self.producer.publish();
                self.published = self.written();
            }
            Step::Stage(len) => assert!(self.stage(len)),
            Step::Publish => {
                self.producer.publish();
                self.published = self.written();
            }
            Step::Join => {
                let consumer = self.joiner.join();
                assert!((self.published..=self.written()).contains(&consumer.sequence()));
                self.readers.push(Reader { consumer, gating: false });
            }
            Step::JoinGating => match self.producer.join_gating() {
                Ok(consumer) => {
                    self.published = self.written();
                    assert_eq!(consumer.sequence(), self.written());
                    self.readers.push(Reader { consumer, gating: true });
                }
                Err(TooManyGating) => assert!(self.readers.len() >= MAX_GATING),
            },
            Step::Drop(reader) if !self.readers.is_empty() => {
                drop(self.readers.swap_remove(reader % self.readers.len()))
            }
            Step::Drop(_) => {}
            Step::Read(reader, limit) => self.read(reader, limit),
            Step::Resume(reader, oldest) => self.resume(reader, oldest),
        }
    }
}

proptest! {
    #[test]
    fn equals_a_log(capacity in 0..600_usize, steps in prop::collection::vec(step(), 0..400)) {
        let (producer, joiner) = broadcast::channel(capacity);
        let mut model = Model { producer, joiner, log: Vec::new(), readers: Vec::new(), published: 0 };
        for step in steps {
            model.take(step);
        }
    }
}

#[test]
fn overrun_counts_and_both_ways_on() {
    let (mut producer, joiner) = broadcast::channel(1024);
    let (mut careful, mut hasty) = (joiner.join(), joiner.join());
    for number in 0..100 {
        producer.try_push(number, &[number as u8; 48]).unwrap();
    }
    let overrun = careful.read(1, |_, _| ()).unwrap_err();
    assert_eq!(careful.read(1, |_, _| ()), Err(overrun), "on each call until it resumes");
    assert_eq!(careful.resume(Resume::Oldest), overrun.missed_frames);
    let kept = careful.read(100, |_, _| ()).unwrap() as u64;
    assert_eq!(overrun.missed_frames + kept, 100);
    assert!(kept >= 14, "16 frames fit; a sixteenth of the ring and one frame may be gone early, not {kept}");
    assert!(hasty.read(1, |_, _| ()).is_err());
    assert_eq!(hasty.resume(Resume::Latest), 99);
    assert_eq!(hasty.read(9, |tag, _| assert_eq!(tag, 99)), Ok(1));
    assert_eq!(hasty.resume(Resume::Latest), 0, "nothing newer");
}

#[test]
fn gating_places_are_bounded_and_come_back() {
    let (mut producer, _joiner) = broadcast::channel(128);
    let mut consumers: Vec<_> = (0..MAX_GATING).map(|_| producer.join_gating().unwrap()).collect();
    assert_eq!(producer.join_gating().err(), Some(TooManyGating));
    consumers.remove(3);
    assert!(producer.join_gating().is_ok());
    for _ in 0..4 {
        producer.try_push(0, &[0; 16]).unwrap();
    }
    assert_eq!(producer.try_push(0, &[0; 16]), Err(PushError::Full));
    assert_eq!(producer.gating_lag_bytes(), Some(128));
    drop(consumers);
    producer.try_push(0, &[0; 16]).unwrap();
    assert_eq!(producer.gating_lag_bytes(), None);
}

/// A frame whose every word names it, so that a mixture is visible.
fn fill(frame: &mut [u8], number: u64) {
    for (index, byte) in frame.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (index % 8 * 8)) as u8;
    }
}

/// Reads until the producer is gone; returns how many frames were seen, and how many skipped.
fn follow(mut consumer: Consumer, place: Resume) -> (u64, u64) {
    let (mut seen, mut skipped) = (0, 0);
    let mut expected = [0; 256];
    loop {
        let last = consumer.is_abandoned();
        let mut next = consumer.sequence();
        let result = consumer.read(16, |tag, bytes| {
            assert_eq!(tag, next as u32);
            fill(&mut expected[..bytes.len()], next);
            assert_eq!(bytes, &expected[..bytes.len()], "torn frame");
            next += 1;
        });
        match result {
            Ok(0) if last => return (seen, skipped),
            Ok(0) => thread::yield_now(),
            Ok(count) => seen += count as u64,
            Err(_) => skipped += consumer.resume(place),
        }
    }
}

#[test]
fn running_threads_see_whole_frames_and_count_every_loss() {
    const FRAMES: u64 = 100_000;
    let (mut producer, joiner) = broadcast::channel(2048);
    let start = |consumer, place| thread::spawn(move || follow(consumer, place));
    let lossy = [start(joiner.join(), Resume::Oldest), start(joiner.join(), Resume::Latest)];
    let gating = start(producer.join_gating().unwrap(), Resume::Oldest);
    let mut random = fastrand::Rng::with_seed(2);
    let mut frame = [0; 256];
    for number in 0..FRAMES {
        let len = random.usize(0..256);
        fill(&mut frame[..len], number);
        while producer.try_push(number as u32, &frame[..len]).is_err() {
            thread::yield_now();
        }
    }
    drop(producer);
    for reader in lossy {
        let (seen, skipped) = reader.join().unwrap();
        assert_eq!(seen + skipped, FRAMES);
    }
    assert_eq!(gating.join().unwrap(), (FRAMES, 0));
}

#[test]
fn lossy_threads_alone_never_stop_the_producer() {
    const FRAMES: u64 = 500_000;
    let (mut producer, joiner) = broadcast::channel(1024);
    let readers = [Resume::Oldest, Resume::Latest].map(|place| {
        let joiner = joiner.clone();
        thread::spawn(move || {
            let consumer = joiner.join();
            let first = consumer.sequence();
            let (seen, skipped) = follow(consumer, place);
            first + seen + skipped
        })
    });
    let mut frame = [0; 96];
    for number in 0..FRAMES {
        fill(&mut frame, number);
        producer.try_push(number as u32, &frame).unwrap();
    }
    drop(producer);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), FRAMES);
    }
}
