//! Clients: processes in no view that publish through a member.
//!
//! A client's request may be lost, and so may the answer; it then sends again, and the message must not be published
//! twice. The member keeps one number per client, the next sequence it will take, takes exactly that one, and answers
//! with the number; a request from the past gets the same answer, one from the future waits for its turn to come again.
//!
//! Invariant: a client's messages are published once, in its order. Bound: [`CLIENTS_MAX`] clients at a time; the one
//! that has been quiet longest gives way once it has been quiet for [`QUIET_NS`].

use alloc::vec::Vec;
use bourdon_wire::{ClientId, Instant, Sequence};

/// How many clients one member serves: 24 bytes each, and few enough to look through.
const CLIENTS_MAX: usize = 1024;
/// A client not heard for so long may be forgotten: longer than any client goes on trying.
const QUIET_NS: u64 = 60_000_000_000;

#[derive(Debug)]
struct Known {
    client: ClientId,
    next: Sequence,
    heard_at: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Clients(Vec<Known>);

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Publish it, then say [`Clients::taken`].
    Publish,
    /// Only answer: everything below this was taken.
    Answer(Sequence),
    /// No room for another client.
    TooMany,
}

impl Clients {
    pub(crate) fn request(&mut self, now: Instant, client: ClientId, sequence: Sequence) -> Request {
        let index = self.0.iter().position(|known| known.client == client).or_else(|| self.enter(now, client));
        let Some(known) = index.map(|index| &mut self.0[index]) else { return Request::TooMany };
        known.heard_at = now;
        if sequence == known.next { Request::Publish } else { Request::Answer(known.next) }
    }

    fn enter(&mut self, now: Instant, client: ClientId) -> Option<usize> {
        let known = Known { client, next: Sequence(0), heard_at: now };
        if self.0.len() < CLIENTS_MAX {
            self.0.push(known);
            return Some(self.0.len() - 1);
        }
        let (quietest, entry) = self.0.iter_mut().enumerate().min_by_key(|(_, known)| known.heard_at)?;
        if now.since(entry.heard_at) < QUIET_NS {
            return None;
        }
        *entry = known;
        Some(quietest)
    }

    /// How many clients are known.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The request was published, or is never to be; says what the client may be told.
    pub(crate) fn taken(&mut self, client: ClientId) -> Sequence {
        let known = self.0.iter_mut().find(|known| known.client == client);
        known.map_or(Sequence(0), |known| {
            known.next = known.next.next();
            known.next
        })
    }
}
