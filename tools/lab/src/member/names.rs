//! The names of the messages that a process delivered, by their senders' sequences.
//!
//! Gaps and retractions name a sender and its sequences, which also count messages of clients; a history names a
//! publisher and that publisher's own numbers. So each delivery is recorded here under both. A retraction of a sequence
//! that was not delivered retracts nothing: an observer also retracts sequences that it skipped without delivering
//! them. A message that was given up has no name that this process knows. But each publisher numbers its messages
//! without a hole, and they reach the group through one sender in order, so the missing messages lie between the last
//! message before the gap and the first message after it.
//!
//! Invariant: at most [`RETAINED`] messages of a sender are recorded, all of one incarnation.

use super::messages::{Name, Publisher};
use bourdon::id::Incarnation;
use std::collections::BTreeMap;
use std::ops::Range;

/// Messages recorded of each sender: many times what is in flight at a time.
const RETAINED: usize = 65_536;

/// One sender's messages.
#[derive(Debug, Default)]
struct Sender {
    incarnation: Incarnation,
    /// The view and the name of each message.
    messages: BTreeMap<u64, (u64, Name)>,
}

/// The delivered messages, by sender.
#[derive(Debug, Default)]
pub(crate) struct Names {
    senders: BTreeMap<u16, Sender>,
}

impl Names {
    /// A message was delivered in a view.
    pub(crate) fn note(&mut self, (rank, incarnation): (u16, Incarnation), sequence: u64, view: u64, name: Name) {
        let sender = self.senders.entry(rank).or_default();
        if sender.incarnation != incarnation {
            *sender = Sender { incarnation, messages: BTreeMap::new() };
        }
        sender.messages.insert(sequence, (view, name));
        if sender.messages.len() > RETAINED {
            sender.messages.pop_first();
        }
    }

    /// Starts another instance: all records belonged to the last one.
    pub(crate) fn clear(&mut self) {
        self.senders.clear();
    }

    /// Returns the names of those of these messages that were delivered in the view, which are now retracted.
    pub(crate) fn take(&mut self, rank: u16, sequences: Range<u64>, view: u64) -> Vec<Name> {
        let Some(sender) = self.senders.get_mut(&rank) else { return Vec::new() };
        let in_view = sender.messages.range(sequences).filter(|(_, (of, _))| *of == view);
        let taken: Vec<(u64, Name)> = in_view.map(|(sequence, (_, name))| (*sequence, *name)).collect();
        for (sequence, _) in &taken {
            sender.messages.remove(sequence);
        }
        taken.into_iter().map(|(_, name)| name).collect()
    }

    /// The messages that may lie in a gap, by publisher; none if no message of this sender was delivered before it.
    pub(crate) fn missing(&self, rank: u16, gap: Range<u64>) -> Vec<(Publisher, Range<u64>)> {
        let Some(sender) = self.senders.get(&rank) else { return Vec::new() };
        let mut last: BTreeMap<u64, u64> = BTreeMap::new(); // by publisher
        for (_, (publisher, number)) in sender.messages.range(..gap.start).map(|(_, message)| message) {
            last.insert(publisher.word(), *number);
        }
        let after = |of: u64| {
            let mut later = sender.messages.range(gap.end..).map(|(_, (_, name))| name);
            later.find(|(publisher, _)| publisher.word() == of).map(|(_, number)| *number)
        };
        let most = gap.end.saturating_sub(gap.start);
        let missing = last.into_iter().map(|(publisher, last)| {
            let first = last + 1;
            let end = after(publisher).map_or(first + most, |next| next.min(first + most));
            (Publisher::of_word(publisher), first..end)
        });
        missing.filter(|(_, numbers)| !numbers.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Publisher = Publisher { generation: 0, rank: 2, incarnation: 1 };
    const CLIENT: Publisher = Publisher { generation: 0, rank: 1_000, incarnation: 1 };
    const SENDER: (u16, Incarnation) = (2, Incarnation(7));

    /// Sequences 0 to 9: every third is a client's message; the others are the member's own.
    fn names() -> Names {
        let mut names = Names::default();
        for sequence in 0..10 {
            let name = if sequence % 3 == 2 { (CLIENT, sequence / 3) } else { (OWN, sequence - (sequence + 1) / 3) };
            names.note(SENDER, sequence, 1 + sequence / 5, name);
        }
        names
    }

    #[test]
    fn a_retraction_takes_back_only_what_was_delivered_in_the_view() {
        let mut names = names();
        assert_eq!(names.take(2, 10..40, 2), [], "skipped, never delivered");
        assert_eq!(names.take(2, 0..5, 2), [], "of an earlier view");
        assert_eq!(names.take(3, 0..5, 2), [], "of another sender");
        assert_eq!(names.take(2, 8..40, 2), [(CLIENT, 2), (OWN, 6)]);
        assert_eq!(names.take(2, 8..40, 2), [], "retracted already");
    }

    #[test]
    fn another_incarnation_counts_from_the_beginning() {
        let mut names = names();
        names.note((2, Incarnation(8)), 0, 2, (Publisher { incarnation: 2, ..OWN }, 0));
        assert_eq!(names.take(2, 5..10, 2), []);
        names.clear();
        assert_eq!(names.take(2, 0..1, 2), []);
    }

    #[test]
    fn a_gap_is_named_by_what_stands_around_it() {
        let mut names = names();
        assert_eq!(names.missing(3, 0..5), [], "no message of this sender was delivered");
        let open = [(OWN, 7..10), (CLIENT, 3..6)];
        assert_eq!(names.missing(2, 10..13), open, "three messages of either");
        names.note(SENDER, 13, 2, (OWN, 9));
        assert_eq!(names.missing(2, 10..13), [(OWN, 7..9), (CLIENT, 3..6)]);
        names.note(SENDER, 14, 2, (CLIENT, 3));
        assert_eq!(names.missing(2, 10..13), [(OWN, 7..9)]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut names = Names::default();
        (0..RETAINED as u64 + 5).for_each(|number| names.note(SENDER, number, 1, (OWN, number)));
        assert_eq!(names.senders[&2].messages.len(), RETAINED);
    }
}
