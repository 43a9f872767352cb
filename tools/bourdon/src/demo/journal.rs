//! What a durable member of a demo has delivered, on its disk.
//!
//! A group at `durable` keeps every acknowledged message, but a restarted member delivers only those of its last views
//! again: what the application made of the earlier ones is the application's to keep. The demo's state is the
//! deliveries themselves, so it writes them to a file, and reads them when it starts again. It survives the end of the
//! process, not the loss of power: the demo kills processes only.

use super::shown::{HEAD_WORDS, Shown, read, write};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// In place of a payload's length: the entry is a view, or the state of another member.
const VIEW: u64 = u64::MAX;
const STATE: u64 = u64::MAX - 1;

/// What an entry holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Delivery(Shown<'a>),
    /// A view was installed, in which this member has this incarnation.
    View {
        members: u64,
        incarnation: u32,
    },
    /// A member's state, with which this one began.
    State(&'a [u8]),
}

/// The file of one member.
pub(crate) struct Journal {
    file: File,
    waiting: Vec<u8>,
}

impl Journal {
    /// Begins the file again with a member's state. Until it holds all of it, the one before stays.
    pub(crate) fn begin(path: &Path, state: &[u8]) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let new = path.with_extension("new");
        let file = File::create(&new).map_err(failed)?;
        let mut journal = Self { file, waiting: Vec::new() };
        journal.head(&[STATE, state.len() as u64]);
        journal.waiting.extend_from_slice(state);
        journal.flush()?;
        std::fs::rename(&new, path).map_err(failed)?;
        Ok(journal)
    }

    /// Opens the file, and returns what it holds. An entry at its end that was not written whole is cut.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<u8>), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(failed)?,
        };
        let whole = bytes.len() - entries(&bytes, |_| ()).len();
        bytes.truncate(whole);
        let file = File::options().create(true).append(true).open(path).map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        Ok((Self { file, waiting: Vec::new() }, bytes))
    }

    pub(crate) fn deliver(&mut self, shown: &Shown<'_>) {
        write(&mut self.waiting, shown);
    }

    pub(crate) fn view(&mut self, members: u64, incarnation: u32) {
        self.head(&[VIEW, members, incarnation.into()]);
    }

    fn head(&mut self, words: &[u64]) {
        let mut head = [0; HEAD_WORDS];
        head[..words.len()].copy_from_slice(words);
        head.iter().for_each(|word| self.waiting.extend_from_slice(&word.to_le_bytes()));
    }

    pub(crate) fn flush(&mut self) -> Result<(), String> {
        let written = self.file.write_all(&self.waiting);
        self.waiting.clear();
        written.map_err(|error| format!("writing what was delivered: {error}"))
    }
}

/// Hands out the entries; returns the rest, which is no whole entry.
pub(crate) fn entries(mut bytes: &[u8], mut take: impl FnMut(Entry<'_>)) -> &[u8] {
    let word = |head: &[u8], index: usize| head[8 * index..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    while let Some(head) = bytes.get(..8 * HEAD_WORDS) {
        let behind = &bytes[8 * HEAD_WORDS..];
        let (kind, one, two) = (word(head, 0), word(head, 1), word(head, 2));
        bytes = match kind {
            VIEW => {
                take(Entry::View { members: one, incarnation: two as u32 });
                behind
            }
            STATE => {
                let Some((state, rest)) = behind.split_at_checked(one as usize) else { break };
                take(Entry::State(state));
                rest
            }
            _ => {
                let Some((shown, rest)) = read(bytes) else { break };
                take(Entry::Delivery(shown));
                rest
            }
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_cut_entry_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let shown =
            Shown { view: 3, order: Some(7), publisher: 1, sequence: 9, after: None, share: 0, payload: b"payload" };
        let (mut journal, before) = Journal::open(&path).unwrap();
        assert!(before.is_empty());
        journal.view(0b111, 4);
        journal.deliver(&shown);
        journal.deliver(&shown);
        journal.flush().unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (_, bytes) = Journal::open(&path).unwrap();
        let mut all = Vec::new();
        assert!(entries(&bytes, |entry| all.push(format!("{entry:?}"))).is_empty());
        let expected = [Entry::View { members: 0b111, incarnation: 4 }, Entry::Delivery(shown)];
        assert_eq!(all, expected.map(|entry| format!("{entry:?}")));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
        let mut journal = Journal::begin(&path, b"state").unwrap();
        journal.deliver(&shown);
        journal.flush().unwrap();
        let (_, bytes) = Journal::open(&path).unwrap();
        all.clear();
        assert!(entries(&bytes, |entry| all.push(format!("{entry:?}"))).is_empty());
        assert_eq!(all, [Entry::State(b"state"), Entry::Delivery(shown)].map(|entry| format!("{entry:?}")));
    }
}
