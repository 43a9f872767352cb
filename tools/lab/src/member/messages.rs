//! The messages that the processes of a lab publish, and the history lines that record them.
//!
//! A judge must tell messages apart by name alone, across kills: a message that only a killed process delivered may
//! exist nowhere else, and the next incarnation publishes other messages in its place. So a publisher is an incarnation
//! (`RANK.INCARNATION`) of a generation of the group. Each publisher numbers its messages, and each payload holds its
//! publisher, its number and the message that it answers.

use bourdon::Message;
use bourdon_lab::history::writer::{Delivered, hash};
use std::fmt;
use std::path::Path;

/// Bytes of a history line within a state.
pub(crate) const LINE_BYTES: usize = 56;
/// The word for an absent value.
const NONE: u64 = u64::MAX;

/// One incarnation of one process of a lab, in one generation of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publisher {
    /// How often the whole group was started before: 0 in campaigns that start it once.
    pub(crate) generation: u16,
    pub(crate) rank: u16,
    pub(crate) incarnation: u32,
}

impl fmt::Display for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.generation > 0 {
            write!(f, "g{}.", self.generation)?;
        }
        write!(f, "{}.{}", self.rank, self.incarnation)
    }
}

impl Publisher {
    /// The name of its history file: the role and the publisher.
    pub(crate) fn of(history: &Path, generation: u16) -> Option<(&str, Self)> {
        let (role, name) = history.file_stem()?.to_str()?.split_once('-')?;
        let (rank, incarnation) = name.split_once('.').unwrap_or((name, "1"));
        Some((role, Self { generation, rank: rank.parse().ok()?, incarnation: incarnation.parse().ok()? }))
    }

    pub(crate) fn word(self) -> u64 {
        u64::from(self.generation) << 48 | u64::from(self.rank) << 32 | u64::from(self.incarnation)
    }

    pub(crate) fn of_word(word: u64) -> Self {
        Self { generation: (word >> 48) as u16, rank: (word >> 32) as u16, incarnation: word as u32 }
    }
}

pub(crate) type Line = Delivered<Publisher>;
pub(crate) type Name = (Publisher, u64);

fn name_words(name: Option<Name>) -> [u64; 2] {
    name.map_or([NONE; 2], |(publisher, number)| [publisher.word(), number])
}

fn name_of(words: [u64; 2]) -> Option<Name> {
    (words != [NONE; 2]).then(|| (Publisher::of_word(words[0]), words[1]))
}

pub(crate) fn bytes_of<const N: usize>(words: [u64; N]) -> impl Iterator<Item = u8> {
    words.into_iter().flat_map(u64::to_le_bytes)
}

pub(crate) fn words_of<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut words = [0; N];
    if bytes.len() != 8 * N {
        return None;
    }
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}

pub(crate) fn payload(name: Name, after: Option<Name>) -> Vec<u8> {
    let ([publisher, number], [after, after_number]) = (name_words(Some(name)), name_words(after));
    bytes_of([publisher, number, after, after_number]).collect()
}

/// The history line of a message, if a lab process published it.
pub(crate) fn line(delivery: &Message<'_>) -> Option<Line> {
    let [publisher, sequence, after, after_sequence] = words_of(delivery.payload)?;
    Some(Delivered {
        view: delivery.epoch.0,
        order: delivery.order.map(|order| order.0),
        publisher: Publisher::of_word(publisher),
        sequence,
        after: name_of([after, after_sequence]),
        hash: hash(delivery.payload),
    })
}

pub(crate) fn write_line(line: &Line) -> impl Iterator<Item = u8> {
    let [after, after_sequence] = name_words(line.after);
    let order = line.order.unwrap_or(NONE);
    bytes_of([line.view, order, line.publisher.word(), line.sequence, after, after_sequence, line.hash])
}

pub(crate) fn read_line(bytes: &[u8]) -> Option<Line> {
    let [view, order, publisher, sequence, after, after_sequence, hash] = words_of(bytes)?;
    let order = (order != NONE).then_some(order);
    let (publisher, after) = (Publisher::of_word(publisher), name_of([after, after_sequence]));
    Some(Delivered { view, order, publisher, sequence, after, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_publisher() {
        let of = |name: &str| Publisher::of(Path::new(name), 0).map(|(role, of)| format!("{role} {of}"));
        assert_eq!(of("/tmp/member-3.tsv").as_deref(), Some("member 3.1"));
        assert_eq!(of("observer-0.12.tsv").as_deref(), Some("observer 0.12"));
        for name in ["member.tsv", "member-x.tsv", "member-0.x.tsv", "member-.tsv"] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn a_publisher_is_named_after_its_generation() {
        let shown = |generation| Publisher { generation, rank: 1, incarnation: 3 }.to_string();
        assert_eq!((shown(0).as_str(), shown(2).as_str()), ("1.3", "g2.1.3"));
    }

    #[test]
    fn lines_and_payloads_are_read_back() {
        let publisher = Publisher { generation: 7, rank: 4, incarnation: 3 };
        let line = Delivered { view: 2, order: Some(7), publisher, sequence: 9, after: Some((publisher, 8)), hash: 5 };
        for line in [line, Delivered { order: None, after: None, ..line }] {
            let bytes: Vec<u8> = write_line(&line).collect();
            assert_eq!((read_line(&bytes), bytes.len()), (Some(line), LINE_BYTES));
            assert_eq!(read_line(&bytes[1..]), None);
        }
        let words = words_of(&payload((publisher, 1), None)).unwrap();
        assert_eq!(words, [publisher.word(), 1, NONE, NONE]);
    }
}
