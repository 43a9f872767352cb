//! Logs under loom: no torn record is handed out, order is kept, losses are counted, no wake is lost.
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p bourdon-ring --release --test loom_log`.
#![cfg(loom)]

use bourdon_ring::log::{self, Batch, Reader};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A record of a number and its complement takes so many bytes.
const RECORD_BYTES: u64 = 24;
/// As many records as the smallest ring holds: 128 bytes.
const FILL: u64 = 5;

fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// A payload that reveals any mixture with another record's.
fn payload(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_ne_bytes());
    bytes[8..].copy_from_slice(&(!number).to_ne_bytes());
    bytes
}

/// Reads so many times up to `limit` records. `next` is the number of the first record that was neither read nor lost.
fn read_some(reader: &mut Reader, tries: usize, limit: usize, next: &mut u64) {
    let mut batch = Batch::new(0, 16 * limit + 16);
    for _ in 0..tries {
        let before = reader.lost_bytes();
        let read = reader.read(
            &mut batch,
            limit,
            |_| true,
            |tag, bytes| {
                assert_eq!(bytes, payload(u64::from(tag)), "torn record");
                assert_eq!(u64::from(tag), *next, "in order, none lost without being counted");
                *next += 1;
            },
        );
        read.expect("a well-formed log");
        *next += (reader.lost_bytes() - before) / RECORD_BYTES;
    }
}

fn push(writer: &mut log::Writer, number: u64) {
    writer.stage(number as u32, &payload(number));
    writer.publish();
}

#[test]
fn two_readers_of_a_writer_that_overwrites() {
    model(2, || {
        let (mut writer, join) = log::in_memory(128);
        let (mut first, mut second) = (join(), join());
        for number in 0..FILL {
            push(&mut writer, number);
        }
        let readers = [
            thread::spawn(move || read_some(&mut first, 2, 1, &mut 0)),
            thread::spawn(move || read_some(&mut second, 1, 2, &mut 0)),
        ];
        push(&mut writer, FILL);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_reader_is_lapped_while_it_copies_a_batch() {
    model(3, || {
        let (mut writer, join) = log::in_memory(128);
        let mut reader = join();
        for number in 0..FILL {
            push(&mut writer, number);
        }
        let thread = thread::spawn(move || {
            push(&mut writer, FILL);
            writer.stage(FILL as u32 + 1, &payload(FILL + 1)); // overwrites before it is published
            writer.publish();
        });
        let mut next = 0;
        read_some(&mut reader, 3, 3, &mut next);
        thread.join().unwrap();
        read_some(&mut reader, 4, 4, &mut next);
        assert_eq!(next, FILL + 2, "every record was read or lost");
    });
}

#[test]
fn a_reader_joins_while_records_come() {
    model(3, || {
        let (mut writer, join) = log::in_memory(128);
        push(&mut writer, 0);
        let thread = thread::spawn(move || {
            for number in 1..4 {
                push(&mut writer, number);
            }
        });
        let mut reader = join();
        let mut next = None;
        for _ in 0..2 {
            let read = reader.read(
                &mut Batch::new(0, 64),
                2,
                |tag| tag != 2,
                |tag, bytes| {
                    assert_eq!(bytes, payload(u64::from(tag)), "torn record");
                    assert!(tag != 2 && next < Some(tag), "in order, and not what is for another");
                    next = Some(tag);
                },
            );
            read.expect("a well-formed log");
        }
        thread.join().unwrap();
    });
}

/// Stands in for the kernel's eventfd: a wake before the sleep is not lost.
#[derive(Default)]
struct Event {
    rung: Mutex<bool>,
    changed: Condvar,
}

/// A process sleeps between the records of others; loom reports a deadlock if a wake is lost.
fn sleeper_gets_everything(senders: u32, records: u32, preemptions: usize) {
    model(preemptions, move || {
        let (mut own, join_own) = log::in_memory(128);
        let event = Arc::new(Event::default());
        let mut readers = Vec::new();
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let (mut writer, join) = log::in_memory(128);
                readers.push(join());
                let (mut sleeper, event) = (join_own(), Arc::clone(&event));
                thread::spawn(move || {
                    for number in 0..records {
                        push(&mut writer, u64::from(number));
                        if sleeper.must_ring() {
                            *event.rung.lock().unwrap() = true;
                            event.changed.notify_one();
                        }
                    }
                })
            })
            .collect();
        let (mut got, mut batch) = (0, Batch::new(0, 64));
        while got < (senders * records) as usize {
            let mut read = || {
                let counts = readers.iter_mut().map(|it| it.read(&mut batch, 9, |_| true, |_, _| {}).unwrap());
                counts.sum::<usize>()
            };
            let count = read();
            got += count;
            if count > 0 {
                continue;
            }
            own.lie_down();
            if readers.iter().all(|reader| !reader.has_more()) {
                let mut rung = event.rung.lock().unwrap();
                while !*rung {
                    rung = event.changed.wait(rung).unwrap();
                }
                *rung = false;
            }
            own.get_up();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn one_writer_never_leaves_a_sleeper_asleep() {
    sleeper_gets_everything(1, 2, 3);
}

#[test]
fn two_writers_never_leave_a_sleeper_asleep() {
    sleeper_gets_everything(2, 1, 2);
}
