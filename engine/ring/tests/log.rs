//! Logs: what a reader gets, skips, and loses; which files are refused; any words at all.
#![cfg(not(loom))]

use crate::replay::replay;
use bourdon_ring::log::{self, Batch, Reader, Writer};
use proptest::prelude::*;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::thread;

/// The bytes of record `number`, of a length that differs from record to record.
fn payload(number: u64, max_bytes: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let length = 8 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % (max_bytes - 7);
    bytes.extend((8..length).map(|place| (number as usize ^ place) as u8));
    bytes
}

fn batch() -> Batch {
    Batch::new(4096, 4096)
}

/// All that there is for a reader that takes every tag.
fn read_all(reader: &mut Reader) -> Vec<(u32, Vec<u8>)> {
    let mut got = Vec::new();
    let count = reader.read(&mut batch(), usize::MAX, |_| true, |tag, bytes| got.push((tag, bytes.to_vec())));
    assert_eq!(count, Ok(got.len()));
    got
}

#[test]
fn readers_get_what_is_published_from_now_on_and_skip_what_is_for_another() {
    let (mut writer, join) = log::in_memory(1024);
    let mut first = join();
    writer.stage(1, b"one");
    assert!(!first.has_more() && read_all(&mut first).is_empty(), "it is not published");
    writer.publish();
    let mut second = join();
    writer.stage(2, b"");
    writer.stage(1, b"three, which is longer than a word");
    writer.publish();
    assert!(first.has_more());
    let mut got = Vec::new();
    for limit in [0, 1, 1, 1] {
        first.read(&mut batch(), limit, |tag| tag == 1, |_, bytes| got.push(bytes.to_vec())).expect("well formed");
    }
    assert_eq!(got, [&b"one"[..], b"three, which is longer than a word"]);
    assert_eq!(read_all(&mut second), [(2, vec![]), (1, b"three, which is longer than a word".to_vec())]);
    assert!(!first.has_more() && !second.has_more());
}

#[test]
fn every_record_wraps_whole() {
    let (mut writer, join) = log::in_memory(512);
    let (mut reader, mut batch) = (join(), batch());
    for number in 0..5000 {
        let sent = payload(number, writer.max_len_bytes());
        writer.stage(number as u32, &sent);
        writer.publish();
        let count = reader.read(&mut batch, 2, |_| true, |tag, bytes| assert!(tag == number as u32 && bytes == sent));
        assert_eq!(count, Ok(1), "record {number}");
    }
    assert_eq!(reader.lost_bytes(), 0);
}

#[test]
fn a_slow_reader_loses_the_oldest_and_counts_them() {
    let (mut writer, join) = log::in_memory(1024);
    let mut reader = join();
    for number in 0..100u64 {
        writer.stage(0, &number.to_le_bytes()); // 16 bytes each
    }
    writer.publish();
    assert_eq!(read_all(&mut reader), [], "the first call reports nothing, and finds the place");
    let lost = reader.lost_bytes() / 16;
    let got = read_all(&mut reader);
    assert_eq!(got.len() as u64 + lost, 100);
    assert!(got.len() * 16 >= writer.retained_bytes() - 16, "no more than a segment is given up: {}", got.len());
    assert!(got.iter().zip(lost..).all(|((_, bytes), number)| *bytes == number.to_le_bytes()));
}

#[test]
fn a_payload_longer_than_the_batch_takes_is_skipped() {
    let (mut writer, join) = log::in_memory(4096);
    let mut reader = join();
    writer.stage(0, &[1; 500]);
    writer.stage(0, b"short");
    writer.publish();
    let (mut small, mut got) = (Batch::new(0, 499), Vec::new());
    assert_eq!(reader.read(&mut small, 9, |_| true, |_, bytes| got.push(bytes.to_vec())), Ok(1));
    assert_eq!(got, [b"short"]);
}

/// Two readers in other threads, at full speed: whole records, in order, and none neither read nor counted as lost.
#[test]
fn concurrent_readers_get_whole_records_in_order() {
    const RECORDS: u64 = 200_000;
    for capacity_bytes in [1 << 10, 1 << 16] {
        let (mut writer, join) = log::in_memory(capacity_bytes);
        let readers: Vec<_> = (0..2).map(|_| join()).collect();
        thread::scope(|scope| {
            for mut reader in readers {
                scope.spawn(move || {
                    let (mut batch, mut next, mut got) = (batch(), 0, 0);
                    while next < RECORDS {
                        let read = reader.read(
                            &mut batch,
                            100,
                            |_| true,
                            |_, bytes| {
                                let number = u64::from_le_bytes(*bytes.first_chunk().expect("a number"));
                                assert!(number >= next, "{number} after {next}");
                                assert!(bytes == payload(number, 200), "record {number} is torn");
                                (next, got) = (number + 1, got + 1);
                            },
                        );
                        read.expect("a well-formed log");
                    }
                    assert!(got == RECORDS || reader.lost_bytes() > 0, "{got} read, and none lost");
                });
            }
            for number in 0..RECORDS {
                writer.stage(0, &payload(number, 200));
                if number % 3 == 0 {
                    writer.publish();
                }
            }
            writer.publish();
        });
    }
}

fn file_of(bytes: usize) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(bytes as u64).expect("it grows");
    file
}

#[test]
fn a_log_in_a_file_is_read_through_another_mapping() {
    let file = file_of(log::file_bytes(5000));
    let mut writer = Writer::map(&file).expect("it is mapped");
    writer.stage(7, b"before");
    writer.publish();
    let mut reader = Reader::map(&file).expect("it is a log");
    drop(file);
    writer.stage(7, b"after");
    writer.publish();
    assert_eq!(read_all(&mut reader), [(7, b"after".to_vec())]);
    assert!(!reader.must_ring());
    writer.lie_down();
    assert!(reader.must_ring() && !reader.must_ring(), "once for each sleep");
    writer.get_up();
    assert!(!reader.must_ring());
    drop(writer);
    assert_eq!(read_all(&mut reader), []);
}

#[test]
fn files_that_are_no_logs_are_refused() {
    let good = log::file_bytes(4096);
    for bytes in [0, 1, 8, good - 4096, good - 1, good + 1, good + 2048, good - 8] {
        assert_eq!(Reader::map(&file_of(bytes)).expect_err("refused").kind(), ErrorKind::InvalidData, "{bytes}");
        assert!(Writer::map(&file_of(bytes)).is_err(), "{bytes}");
    }
    let file = file_of(good);
    file.write_at(b"bdnlog99", 0).expect("it is written");
    let error = Reader::map(&file).expect_err("refused").to_string();
    assert!(error.contains("one release"), "{error}");
}

#[test]
fn the_kept_scripts_of_a_hostile_writer_are_survived() {
    replay("log", log::hostile);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_hostile_writer_is_survived(script in prop::collection::vec(any::<u8>(), 0..2000)) {
        log::hostile(&script);
    }

    /// The same where positions begin at a multiple of eight, so that more gets past the first check.
    #[test]
    fn a_nearly_honest_writer_is_survived(
        start in any::<u64>(),
        script in prop::collection::vec((any::<u8>(), any::<u8>(), 0u64..1024), 0..300),
    ) {
        let mut bytes = (start & !7).to_le_bytes().to_vec();
        for (kind, place, value) in script {
            bytes.extend([kind, place]);
            bytes.extend(value.to_le_bytes());
        }
        log::hostile(&bytes);
    }
}
