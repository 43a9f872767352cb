//! Counters and signals: which thread may write, what a reader of the same file reads, which files are refused.
#![cfg(not(loom))]

use bourdon_ring::{counters, signal};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::thread;

fn file_of(len_bytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len_bytes).unwrap();
    file
}

#[test]
fn each_writer_has_its_own_cells() {
    let (writer, reader) = counters::in_memory(5);
    let (first, second) = writer.split_at(2);
    assert_eq!((first.len(), second.len(), reader.len()), (2, 3, 5));
    first.add(1, 7);
    second.set(0, u64::MAX);
    second.add(0, 2);
    assert_eq!([0, 1, 2, 3, 4].map(|index| reader.get(index)), [0, 7, 1, 0, 0]);
    assert_eq!(second.get(0), 1);
}

#[test]
#[should_panic(expected = "out of bounds")]
fn a_writer_cannot_reach_beyond_its_range() {
    let (first, _second) = counters::in_memory(4).0.split_at(2);
    first.add(2, 1);
}

#[test]
fn another_mapping_and_a_plain_read_see_the_counts() {
    let mut file = file_of(64 + 3 * 8);
    file.write_all(b"labels").unwrap();
    let (writer, reader) = counters::map_file(&file, 64, 3).unwrap();
    let other = counters::map_file_read_only(&file, 64, 3).unwrap();
    let (first, second) = writer.split_at(1);
    let adding = |writer: counters::Writer, times: u64| {
        thread::spawn(move || {
            for _ in 0..times {
                writer.add(0, 1);
            }
        })
    };
    let threads = [adding(first, 10_000), adding(second, 20_000)];
    while other.get(0) < 10_000 || other.get(1) < 20_000 {
        thread::yield_now();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!([0, 1, 2].map(|index| reader.get(index)), [10_000, 20_000, 0]);
    let mut bytes = [0; 8];
    file.seek(SeekFrom::Start(72)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 20_000);
    drop((reader, file));
    assert_eq!(other.get(1), 20_000, "the mapping outlives the file handle");
}

#[test]
fn counts_survive_in_the_file() {
    let file = file_of(8);
    counters::map_file(&file, 0, 1).unwrap().0.add(0, 5);
    let (writer, reader) = counters::map_file(&file, 0, 1).unwrap();
    writer.add(0, 1);
    assert_eq!(reader.get(0), 6);
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let file = file_of(100);
    for (offset_bytes, count) in [(0, 13), (4, 1), (0, 0), (usize::MAX - 7, 1), (0, counters::MAX_CELLS + 1)] {
        let error = counters::map_file(&file, offset_bytes, count).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(counters::map_file_read_only(&file, offset_bytes, count).is_err());
    }
    assert!(counters::map_file(&file, 0, 12).is_ok());
}

#[test]
fn a_flag_goes_up_for_all() {
    let flag = signal::Flag::default();
    let other = flag.clone();
    assert!(!other.is_set());
    thread::spawn(move || flag.set()).join().unwrap();
    assert!(other.is_set());
}

#[test]
fn a_watermark_rises() {
    let (mut writer, reader) = signal::watermark(3);
    assert_eq!((writer.get(), reader.get()), (3, 3));
    writer.advance(3);
    writer.advance(9);
    assert_eq!((writer.reader().get(), reader.get()), (9, 9));
}

#[test]
#[should_panic(expected = "watermark falls")]
fn a_watermark_never_falls() {
    signal::watermark(3).0.advance(2);
}
