//! Clients' messages that are longer than a datagram, while their fragments come.
//!
//! A client cuts a long message as a member does. The fragments of one message are adjacent in a stream, so the member
//! that publishes the message collects all of it first. It takes the fragments of a client's next message in their
//! order, and answers each with how far it has come: the client sends again from there. A client that turns to
//! another member begins the message again there.
//!
//! Bound: [`MESSAGES_MAX`] messages, and of each the bytes that have come, at most `max_message_bytes`. A further
//! client's long message waits. A message of which nothing has come for [`QUIET_NS`] is forgotten: its client has
//! turned to another member, or has ended.

use alloc::vec::Vec;
use bourdon_wire::{ClientId, Fragment, Instant, Sequence};

/// Long messages that are collected at once: 16 MiB with the default limits. Each takes some round trips, so a client
/// whose message waits is next soon.
pub(crate) const MESSAGES_MAX: usize = 16;
/// A client that waits for an answer sends at least three times as often.
const QUIET_NS: u64 = 1_000_000_000;

/// A message of which some fragments have come.
#[derive(Debug)]
struct Unfinished {
    client: ClientId,
    sequence: Sequence,
    bytes: Vec<u8>,
    heard_at: Instant,
}

/// What a fragment has made of its message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// All of it is here, and no longer kept.
    Whole(Vec<u8>),
    /// The rest is still to come.
    Unfinished,
    /// As many other messages are collected as may be.
    NoRoom,
}

/// All messages that are collected.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    messages: Vec<Unfinished>,
}

impl Fragments {
    /// A fragment of the client's next message came. `misplaces`: it is taken wherever it belongs, a planted bug.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        (client, sequence): (ClientId, Sequence),
        fragment: Fragment,
        payload: &[u8],
        misplaces: bool,
    ) -> Collected {
        let is_next = |of: &Unfinished| of.client != client || of.sequence == sequence;
        self.messages.retain(|message| is_next(message) && now.since(message.heard_at) < QUIET_NS);
        let index = match self.messages.iter().position(|message| message.client == client) {
            Some(index) => index,
            None if fragment.offset() > 0 => return Collected::Unfinished, // what comes first was lost
            None if self.messages.len() >= MESSAGES_MAX => return Collected::NoRoom,
            None => {
                self.messages.push(Unfinished { client, sequence, bytes: Vec::new(), heard_at: now });
                self.messages.len() - 1
            }
        };
        let message = &mut self.messages[index];
        message.heard_at = now;
        if fragment.offset() != message.bytes.len() && !misplaces {
            return Collected::Unfinished;
        }
        message.bytes.extend_from_slice(payload);
        if message.bytes.len() < fragment.total_bytes() {
            return Collected::Unfinished;
        }
        Collected::Whole(self.messages.swap_remove(index).bytes)
    }

    /// The message could not be published: these first bytes of it are kept, and its last fragment must come again.
    pub(crate) fn keep(&mut self, now: Instant, client: ClientId, sequence: Sequence, bytes: Vec<u8>) {
        debug_assert!(self.messages.iter().all(|message| message.client != client), "one message of each client");
        self.messages.push(Unfinished { client, sequence, bytes, heard_at: now });
        assert!(self.messages.len() <= MESSAGES_MAX, "{} messages", self.messages.len());
    }

    /// How many bytes of this message are here.
    pub(crate) fn received_bytes(&self, client: ClientId, sequence: Sequence) -> usize {
        let message = self.messages.iter().find(|message| message.client == client && message.sequence == sequence);
        message.map_or(0, |message| message.bytes.len())
    }

    /// The client has no place here any more.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.messages.retain(|message| message.client != client);
    }

    /// The bytes kept.
    pub(crate) fn held_bytes(&self) -> usize {
        self.messages.iter().map(|message| message.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// A message of client `client` of 6 bytes: 3 of them from `offset` on.
    fn add(fragments: &mut Fragments, now: u64, client: u64, offset: usize) -> Collected {
        let bytes = [offset as u8; 3];
        fragments.add(Instant(now), (ClientId(client), Sequence(7)), Fragment::new(6, offset), &bytes, false)
    }

    #[test]
    fn a_message_is_whole_once_all_of_it_has_come_in_order() {
        let fragments = &mut Fragments::default();
        assert_eq!(add(fragments, 0, 1, 3), Collected::Unfinished, "the first was lost");
        assert_eq!(fragments.received_bytes(ClientId(1), Sequence(7)), 0);
        for _ in 0..2 {
            assert_eq!(add(fragments, 0, 1, 0), Collected::Unfinished);
            assert_eq!(fragments.received_bytes(ClientId(1), Sequence(7)), 3, "once, however often it comes");
        }
        assert_eq!(add(fragments, 0, 1, 3), Collected::Whole(vec![0, 0, 0, 3, 3, 3]));
        assert_eq!(fragments.held_bytes(), 0);
        fragments.keep(Instant(0), ClientId(1), Sequence(7), vec![9; 3]);
        assert_eq!(add(fragments, 0, 1, 3), Collected::Whole(vec![9, 9, 9, 3, 3, 3]), "its last fragment again");
    }

    #[test]
    fn the_next_message_of_a_client_takes_the_place_of_the_one_before() {
        let fragments = &mut Fragments::default();
        add(fragments, 0, 1, 0);
        let next = (ClientId(1), Sequence(8));
        assert_eq!(fragments.add(Instant(0), next, Fragment::new(6, 0), b"ab", false), Collected::Unfinished);
        assert_eq!((fragments.held_bytes(), fragments.received_bytes(ClientId(1), Sequence(7))), (2, 0));
    }

    #[test]
    fn so_many_messages_are_collected_and_no_more() {
        let fragments = &mut Fragments::default();
        for client in 0..2 * MESSAGES_MAX as u64 {
            let is_taken = add(fragments, client, client, 0) != Collected::NoRoom;
            assert_eq!(is_taken, client < MESSAGES_MAX as u64);
        }
        assert!(matches!(add(fragments, 100, 0, 3), Collected::Whole(_)));
        assert_eq!(add(fragments, 101, 99, 0), Collected::Unfinished, "one is free");
        assert_eq!(add(fragments, 102, 100, 0), Collected::NoRoom);
        assert_eq!(add(fragments, QUIET_NS + 50, 100, 0), Collected::Unfinished, "the others have gone");
        assert_eq!(fragments.held_bytes(), 6, "of clients 99 and 100");
    }
}
