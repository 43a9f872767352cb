//! Damage in the middle is found, reported with its positions, never cut, and repaired from another copy.

use bourdon_log::sim_disk::SimDisk;
use bourdon_log::{Damage, Entry, Error, Log, Mutant, Reader, Record, Retention, Settings};
use fastrand::Rng;
use std::ops::ControlFlow;

const SEGMENT_BYTES: u64 = 32_768;
const RECORDS: u64 = 120;

fn settings() -> Settings {
    let settings = Settings::new(1);
    Settings { segment_bytes: SEGMENT_BYTES, first_position: 1000, ..settings }
}

fn payload(position: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(position);
    (0..position % 7 * 211 + 1).map(|_| rng.u8(..)).collect()
}

/// A log of several segments with batches of several records, closed or not.
fn written(close: bool) -> SimDisk {
    let disk = SimDisk::default();
    let mut log = Log::open(disk.clone(), settings()).expect("it opens");
    for position in 1000..1000 + RECORDS {
        assert_eq!(log.append(3, position * 10, &payload(position)).expect("it takes it"), position);
        if position % 5 == 0 {
            log.sync().expect("it syncs");
        }
    }
    if close {
        log.close().expect("it closes");
    } else {
        log.sync().expect("it syncs");
    }
    disk
}

/// What a reader finds: the positions of records, after their bytes were compared, and the damage.
fn read(disk: &SimDisk) -> (Vec<u64>, Vec<Damage>) {
    let reader = Reader::open(disk.copy()).expect("it opens");
    let (mut positions, mut damages) = (Vec::new(), Vec::new());
    let end = reader.read(0, |entry| {
        match entry {
            Entry::Record(record) => {
                assert_eq!(
                    (record.bytes, record.time_ns, record.epoch),
                    (&payload(record.position)[..], record.position * 10, 3)
                );
                positions.push(record.position);
            }
            Entry::Damage(damage) => damages.push(damage),
        }
        ControlFlow::Continue(())
    });
    assert!(end.expect("readable") <= 1000 + RECORDS);
    (positions, damages)
}

/// The offset and the length of each record, by the name of its segment.
fn places(disk: &SimDisk) -> Vec<(String, u64, usize, usize)> {
    use bourdon_log::format::{DATA_START, Parsed, Place, encoded_bytes, parse};
    let mut places = Vec::new();
    for (index, name) in disk.names().iter().enumerate() {
        let bytes = disk.bytes(name);
        let place = Place { instance: 1, generation: index as u64 + 1, mutant: None };
        for offset in (DATA_START..bytes.len() as u64).step_by(8) {
            if let Parsed::Record { record, .. } = parse(&bytes, place, offset) {
                places.push((name.clone(), record.position, offset as usize, encoded_bytes(record.bytes.len())));
            }
        }
    }
    assert_eq!(places.len(), RECORDS as usize);
    places
}

/// Writes each damaged range again from the copy, and compares.
fn repair(disk: &SimDisk, damages: &[Damage]) {
    let mut log = Log::open(disk.clone(), settings()).expect("damage in the middle does not keep it from opening");
    for damage in damages {
        let copies: Vec<_> = (damage.from..damage.to).map(|position| (position, payload(position))).collect();
        let records: Vec<_> = copies
            .iter()
            .map(|(position, bytes)| Record { position: *position, epoch: 3, time_ns: position * 10, bytes })
            .collect();
        let short = log.repair(damage, &records[1..]);
        assert!(matches!(short, Err(Error::Unfit { .. })), "{short:?}");
        log.repair(damage, &records).expect("it repairs");
        assert!(matches!(log.repair(damage, &records), Err(Error::NoSuchDamage { .. })), "it is repaired");
    }
    drop(log);
    assert_eq!(read(disk), ((1000..1000 + RECORDS).collect(), Vec::new()));
}

#[test]
fn each_flipped_bit_of_a_record_is_found_and_repaired() {
    let (whole, mut rng) = (written(true), Rng::with_seed(3));
    let places = places(&whole);
    for (name, position, offset, length) in &places {
        let (disk, bit) = (whole.copy(), rng.usize(..8));
        // Of the padding behind a payload no bit counts.
        let counts = 48 + payload(*position).len();
        assert!(counts <= *length);
        let at = offset + rng.usize(..counts);
        disk.change(name, |bytes| bytes[at] ^= 1 << bit);
        let (positions, damages) = read(&disk);
        assert_eq!(positions.len() as u64, RECORDS - 1, "records beyond are read");
        let [damage] = damages[..] else { panic!("byte {at} of {name}: {damages:?}") };
        assert_eq!((damage.from, damage.to, damage.was_synced), (*position, position + 1, true));
        repair(&disk, &damages);
    }
}

#[test]
fn damage_of_any_length_is_found_and_repaired() {
    let (whole, mut rng) = (written(true), Rng::with_seed(4));
    for _ in 0..200 {
        let disk = whole.copy();
        for _ in 0..rng.usize(1..4) {
            let names = disk.names();
            let name = &names[rng.usize(..names.len())];
            let length = rng.usize(1..6000);
            disk.change(name, |bytes| {
                let start = rng.clone().usize(4096..bytes.len());
                let end = bytes.len().min(start + length);
                bytes[start..end].fill(0x5a);
            });
            rng.u64(..);
        }
        let (positions, damages) = read(&disk);
        let missing: u64 = damages.iter().map(|damage| damage.to - damage.from).sum();
        let end = positions.last().map_or(0, |last| last + 1).max(damages.last().map_or(0, |last| last.to));
        assert_eq!(positions.len() as u64 + missing, end - 1000, "each record is read, or reported as damaged");
        if end == 1000 + RECORDS {
            repair(&disk, &damages);
        }
    }
}

#[test]
fn damage_at_the_very_end_is_told_from_a_torn_record_after_a_mark() {
    for close in [true, false] {
        let disk = written(close);
        let (name, position, offset, _) = places(&disk).pop().expect("a record");
        disk.change(&name, |bytes| bytes[offset + 50] ^= 1);
        let log = Log::open(disk.clone(), settings()).expect("it opens");
        let (found, is_cut) = (log.recovery().damage.len(), log.next() == position);
        assert_eq!((found, is_cut, log.recovery().was_torn), if close { (1, false, false) } else { (0, true, true) });
    }
}

#[test]
fn a_damaged_header_is_reported_and_written_again() {
    let whole = written(true);
    for name in whole.names() {
        let disk = whole.copy();
        disk.change(&name, |bytes| bytes[33] ^= 4);
        assert_eq!(read(&disk), read(&whole), "name and records give what the header did");
        let segments = Reader::open(disk.clone()).expect("it opens").segments().to_vec();
        assert_eq!(segments.iter().filter(|segment| segment.header_is_damaged).count(), 1);
        let log = Log::open(disk.clone(), settings()).expect("it opens");
        assert_eq!(log.recovery().headers_mended, [name]);
        let mended = Reader::open(disk).expect("it opens");
        assert!(mended.segments().iter().all(|segment| !segment.header_is_damaged));
    }
}

#[test]
fn a_block_that_can_not_be_read_is_damage() {
    let disk = written(true);
    let names = disk.names();
    disk.lose_block(&names[1], 3);
    let reader = Reader::open(disk).expect("it opens");
    let (mut count, mut damages) = (0, Vec::new());
    let end = reader.read(0, |entry| {
        match entry {
            Entry::Record(_) => count += 1,
            Entry::Damage(damage) => damages.push(damage),
        }
        ControlFlow::Continue(())
    });
    assert_eq!(end.expect("the rest is readable"), 1000 + RECORDS);
    let [damage] = damages[..] else { panic!("{damages:?}") };
    assert_eq!(count + (damage.to - damage.from), RECORDS);
}

#[test]
fn a_missing_segment_is_damage() {
    use bourdon_log::Disk;
    let disk = written(true);
    disk.remove(&disk.names()[1]).expect("it is there");
    let (positions, damages) = read(&disk);
    let [damage] = damages[..] else { panic!("{damages:?}") };
    assert_eq!(positions.len() as u64 + damage.to - damage.from, RECORDS);
}

/// The planted bug ends the log at the first damage, and so loses the records beyond.
#[test]
fn a_log_that_ends_at_its_first_damage_is_caught() {
    let disk = written(true);
    let (name, position, offset, _) = places(&disk)[RECORDS as usize - 3].clone();
    disk.change(&name, |bytes| bytes[offset + 50] ^= 1);
    let end = |mutant| {
        let settings = settings();
        Log::open(disk.copy(), Settings { mutant, ..settings }).expect("it opens").next()
    };
    assert_eq!((end(None), end(Some(Mutant::CutAtFirstDamage))), (1000 + RECORDS, position));
}

#[test]
fn a_full_disk_refuses_the_append_and_loses_nothing() {
    let disk = SimDisk::default();
    disk.set_room(Some(SEGMENT_BYTES as usize * 2 + 10_000));
    let mut log = Log::open(disk.clone(), settings()).expect("it opens");
    let refused = loop {
        match log.append(1, 1, &[7; 3000]) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(refused.is_full() && refused.to_string().contains("free space"), "{refused}");
    let taken = log.next();
    assert_eq!(log.sync().expect("what was taken is synced"), taken);
    assert!(log.append(1, 1, &[7; 3000]).is_err_and(|error| error.is_full()), "it stays full");
    log.prune(Retention { bytes: Some(0), age_ns: None }, 0).expect("it frees a segment");
    log.append(1, 1, &[8; 3000]).expect("there is room again");
    assert_eq!(log.sync().expect("it syncs"), taken + 1);
    disk.set_room(Some(0));
    log.append(1, 1, b"x").expect("the segment has room, and its file has all it needs");
    log.sync().expect("it syncs");
    let end = log.next();
    drop(log);
    assert_eq!(Log::open(disk, settings()).expect("it opens").next(), end);
}

#[test]
fn old_segments_are_removed_by_bytes_and_by_age() {
    let disk = written(true);
    let mut log = Log::open(disk, settings()).expect("it opens");
    let before = log.segments().to_vec();
    assert!(before.len() > 3);
    // Its newest record is older than the first of the next.
    let now_ns = before[2].time_ns + 1_000;
    let pruned = log.prune(Retention { age_ns: Some(1_000), bytes: None }, now_ns).expect("it removes");
    assert_eq!((pruned.segments, log.segments()), (1, &before[1..]), "the third begins 1,000 ns ago");
    let pruned = log.prune(Retention { bytes: Some(SEGMENT_BYTES * 2), age_ns: None }, 0).expect("it removes");
    assert_eq!(pruned.segments, before.len() - 3);
    log.prune(Retention { bytes: Some(0), age_ns: Some(0) }, u64::MAX).expect("it removes");
    assert_eq!(log.segments().len(), 1, "the last is kept");
    assert_eq!(log.first(), before.last().expect("one").first_position);
}
