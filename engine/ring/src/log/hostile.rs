//! A script of a hostile process's writes against a reader, for the fuzz target and an ordinary test.
//!
//! Random words are refused at the first check. So the bytes are read as a script: which word is set, to any value or
//! to one that is nearly right, and when the reader reads.

use super::{Batch, FORMAT, FORMAT_1, OLDEST, PREFIX_WORDS, Reader, Shared, TAIL, max_len_bytes};
use crate::cells::Cells;
use crate::frame::{Header, WORD_BYTES};
use crate::sync::{Arc, Ordering};

/// A ring of 64 words.
const CAPACITY_BYTES: usize = 512;
/// Shorter than the longest record, as where the processes' options differ.
const BATCH_LEN_BYTES: usize = 100;

/// Plays the script. It must end without a panic, and a reader must hand out nothing that can't be in its ring.
///
/// # Panics
/// If the reader hands out what it must not.
pub fn hostile(script: &[u8]) {
    let cells = Arc::new(Cells::in_memory(PREFIX_WORDS + CAPACITY_BYTES / WORD_BYTES));
    let set = |word: usize, value| cells.all()[word].store(value, Ordering::Relaxed);
    set(FORMAT, FORMAT_1);
    let (start, script) = script.split_first_chunk().unwrap_or((&[0; 8], script));
    set(TAIL, u64::from_le_bytes(*start));
    let mut reader = Reader::new(Shared { cells: Arc::clone(&cells), capacity_bytes: CAPACITY_BYTES });
    let mut batch = Batch::new(0, BATCH_LEN_BYTES);
    for step in script.chunks_exact(10) {
        let (kind, place) = (step[0], usize::from(step[1]));
        let value = u64::from_le_bytes(*step[2..].first_chunk().expect("eight of ten bytes"));
        let ring_word = PREFIX_WORDS + place % (CAPACITY_BYTES / WORD_BYTES);
        let near = reader.position.wrapping_add(value % (2 * CAPACITY_BYTES as u64)) & !7;
        match kind % 8 {
            0 => set(TAIL, value),
            1 => set(TAIL, near),
            2 => set(OLDEST, value),
            3 => set(OLDEST, near),
            4 => set(ring_word, value),
            5 => set(ring_word, Header { len: value as u32 % 128, tag: place as u32 % 4 }.to_word()),
            _ => read(&mut reader, &mut batch, place),
        }
    }
}

fn read(reader: &mut Reader, batch: &mut Batch, limit: usize) {
    let (before, mut records, mut bytes) = (reader.position, 0, 0);
    let result = reader.read(
        batch,
        limit,
        |tag| tag != 1,
        |tag, payload| {
            assert_ne!(tag, 1, "a record for another reader");
            assert!(payload.len() <= BATCH_LEN_BYTES.min(max_len_bytes(CAPACITY_BYTES)), "a record too long");
            (records, bytes) = (records + 1, bytes + payload.len());
        },
    );
    assert!(records <= limit && bytes <= CAPACITY_BYTES, "more than a lap in one call");
    assert!(result.is_err() || result == Ok(records), "the count is the number of records handed out");
    assert!(reader.position >= before, "a reader goes forward");
}
