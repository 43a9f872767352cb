//! A ledger hands out what is needed without a gap, or nothing: then it has set the damaged log aside.

use bourdon_log::sim_disk::SimDisk;
use bourdon_log::{DAMAGED_MAX, Error, Found, Ledger, Mark, Settings};
use fastrand::Rng;

const SEGMENT_BYTES: u64 = 20_480;

/// The first record of each of these begins something.
const RECORDS: &[&[u64]] = &[&[10, 900, 3000], &[20, 400, 5000, 9000, 60], &[30, 8000, 200], &[40, 70]];

fn settings() -> Settings {
    Settings { segment_bytes: SEGMENT_BYTES, ..Settings::new(5) }
}

fn mark(record: &[u8]) -> Mark {
    match record[0] {
        b'B' => Mark::Begins,
        b'S' => Mark::State,
        _ => Mark::Plain,
    }
}

type Opened = (Ledger<SimDisk, fn(&[u8]) -> Mark>, Found);

fn open(disk: &SimDisk) -> Result<Opened, Error> {
    Ledger::open(disk.clone(), settings(), false, mark as fn(&[u8]) -> Mark)
}

fn record(index: usize, length: u64, begins: bool) -> Vec<u8> {
    let mut rng = Rng::with_seed(index as u64);
    let mut record: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
    record[0] = if begins { b'B' } else { b'r' };
    record
}

fn records() -> Vec<Vec<u8>> {
    let all = RECORDS.iter().flat_map(|part| part.iter().enumerate());
    all.enumerate().map(|(index, (place, length))| record(index, *length, place == 0)).collect()
}

/// A ledger in which every record was synced by itself, and with its mark. Nothing of it was discarded.
fn written() -> SimDisk {
    let disk = SimDisk::default();
    let mut log = bourdon_log::Log::open(disk.clone(), settings()).expect("it opens");
    for record in records() {
        log.append(0, 0, &record).expect("it takes it");
        log.sync().expect("it syncs");
    }
    log.close().expect("it closes");
    assert!(disk.names().len() > 2, "several segments");
    disk
}

/// The index of the first record that is needed: the one before the last beginning but one.
fn needed_from() -> usize {
    let beginnings = RECORDS.iter().take(RECORDS.len() - 2).map(|part| part.len()).sum::<usize>();
    beginnings - 1
}

#[test]
fn each_flipped_bit_is_unneeded_or_sets_the_log_aside() {
    let (whole, records) = (written(), records());
    let (mut unneeded, mut needed) = (0, 0);
    for name in whole.names() {
        for at in (0..SEGMENT_BYTES as usize).step_by(61) {
            let disk = whole.copy();
            disk.change(&name, |bytes| {
                let at = at.min(bytes.len() - 1);
                bytes[at] ^= 4;
            });
            let before: Vec<_> = disk.names().iter().map(|name| (name.clone(), disk.bytes(name))).collect();
            let (_, found) = open(&disk).expect("it opens");
            match &found.damage {
                Some(_) => {
                    needed += 1;
                    assert_eq!((found.records.len(), found.set_aside), (0, 1));
                    for (name, bytes) in before {
                        assert!(disk.bytes(&format!("damaged-1/{name}")) == bytes, "it is set aside as it was");
                    }
                }
                None => {
                    unneeded += usize::from(found.unneeded.is_some());
                    let from = records.len() - found.records.len();
                    assert!(from <= needed_from(), "record {from} of {} is the first", needed_from());
                    assert!(found.records.iter().map(|record| &record[..]).eq(records[from..].iter().map(|r| &r[..])));
                }
            }
        }
    }
    assert!(unneeded > 10 && needed > 10, "{unneeded} {needed}");
}

#[test]
fn a_ledger_that_lost_its_oldest_or_a_middle_segment_is_set_aside_if_that_is_needed() {
    let whole = written();
    for name in whole.names() {
        let disk = whole.copy();
        bourdon_log::Disk::remove(&disk, &name).expect("it is there");
        let (_, found) = open(&disk).expect("it opens");
        let is_last = whole.names().last() == Some(&name);
        assert!(is_last || found.damage.is_some() || found.records.len() >= records().len() - needed_from());
    }
}

#[test]
fn power_fails_while_a_log_is_set_aside_and_it_is_never_read_again() {
    let damaged = written();
    let last = damaged.names().pop().expect("it has segments");
    damaged.change(&last, |bytes| bytes[4150] ^= 1);
    let before = damaged.names();
    let (mut states, mut rng) = (0, Rng::with_seed(1));
    for call in 0.. {
        let disk = damaged.copy();
        disk.fail_power_at(call);
        let opened = open(&disk);
        for state in disk.crash_states(|| rng.bool()) {
            states += 1;
            let (_, found) = open(&state).expect("it opens");
            assert_eq!((found.records.len(), found.set_aside), (0, 1), "call {call}");
            let aside = before.iter().all(|name| state.bytes(&format!("damaged-1/{name}")) == damaged.bytes(name));
            assert!(aside, "call {call}: {:?}", state.names());
        }
        if opened.is_ok() {
            break;
        }
    }
    assert!(states > 50, "{states}");
}

#[test]
fn too_many_damaged_logs_are_refused_and_kept() {
    let disk = SimDisk::default();
    for count in 1..=DAMAGED_MAX + 1 {
        let (mut ledger, found) = open(&disk).expect("it opens");
        assert_eq!(found.set_aside, count - 1);
        for index in 0..2 {
            ledger.append(0, &record(index, 100, true)).expect("it takes it");
            ledger.sync().expect("it syncs");
        }
        ledger.mark().expect("it marks");
        drop(ledger);
        let name = disk.names().into_iter().rfind(|name| name.ends_with(".segment") && !name.contains('/'));
        disk.change(&name.expect("it has a segment"), |bytes| bytes[4150] ^= 1);
    }
    let names = disk.names();
    assert!(matches!(open(&disk), Err(Error::DamagedTooOften { count: DAMAGED_MAX })));
    assert_eq!(disk.names(), names, "nothing is moved or deleted");
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Four views, of which the second has a state.
fn records_with_states() -> Vec<Vec<u8>> {
    let mut records = records();
    records[6][0] = b'S';
    records
}

#[test]
fn what_stands_before_the_view_of_the_last_state_is_not_needed() {
    let records = records_with_states();
    let disk = SimDisk::default();
    let reopen =
        |needs_state| Ledger::open(disk.clone(), settings(), needs_state, mark as fn(&[u8]) -> Mark).expect("it opens");
    let begins = |index: usize| records[index][0] == b'B';
    for count in 0..records.len() {
        let (mut ledger, found) = reopen(true);
        let from = count - found.records.len();
        assert!(
            found.records.iter().map(|record| &record[..]).eq(records[from..count].iter().map(|r| &r[..])),
            "{count}"
        );
        let state = (0..count).rfind(|index| records[*index][0] == b'S');
        let view = state.and_then(|state| (0..state).rfind(|index| begins(*index)));
        // One view before it, and what led to that.
        let before = view.and_then(|view| (0..view).rfind(|index| begins(*index)));
        assert_eq!(from, before.map_or(0, |before| before.saturating_sub(1)), "after {count} records");
        ledger.append(0, &records[count]).expect("it takes it");
        ledger.sync().expect("it syncs");
    }
    let (_, found) = reopen(true);
    assert_eq!((found.records.len(), found.beginnings), (13, 4), "the view before the one with the state stays");
    // Damage between the beginning of the second view and its state: without states only the last two views matter.
    let lies_in = |name: &String| Some((name.clone(), find(&disk.bytes(name), &records[5][100..200])?));
    let (name, place) = disk.names().iter().find_map(lies_in).expect("it was written");
    for (needs_state, is_set_aside) in [(true, true), (false, false)] {
        let copy = disk.copy();
        copy.change(&name, |bytes| bytes[place] ^= 1);
        let (_, found) = Ledger::open(copy, settings(), needs_state, mark as fn(&[u8]) -> Mark).expect("it opens");
        assert_eq!(found.damage.is_some(), is_set_aside, "{found:?}");
    }
}

/// Any blocks but the last, which has the mark, may be lost: the end is never cut because of that.
#[test]
fn lost_blocks_are_never_taken_for_the_end_of_a_crash() {
    let (whole, records) = (written(), records());
    let names = whole.names();
    let blocks: Vec<(&String, usize)> =
        names.iter().flat_map(|name| (1..SEGMENT_BYTES as usize / 4096).map(move |block| (name, block))).collect();
    for first in &blocks {
        for second in &blocks {
            let disk = whole.copy();
            for (name, block) in [first, second] {
                disk.change(name, |bytes| {
                    let last = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / 4096);
                    let is_mark = Some(*name) == names.last() && *block >= last;
                    let end = bytes.len().min(block * 4096 + 4096);
                    if !is_mark && block * 4096 < end {
                        bytes[block * 4096..end].fill(0);
                    }
                });
            }
            let (_, found) = open(&disk).expect("it opens");
            let ends = found.records.last().map(|record| &record[..]) == records.last().map(|record| &record[..]);
            assert!(found.damage.is_some() || ends, "{first:?} {second:?}: {} records", found.records.len());
        }
    }
}
