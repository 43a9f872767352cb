//! What this process has delivered of each client.
//!
//! A client's message may come twice: two members published it, or a request was delayed and published after its client
//! had ended. So what was delivered is remembered for longer than any of that takes, and apart from the places of the
//! clients that a member serves: a place that becomes free takes no watermark with it.
//!
//! Clients are remembered in two generations. A client of which a message is delivered is in the younger one. Once that
//! is full, it becomes the elder one, and what was in the elder one is forgotten. Deliveries alone decide it, no clock:
//! in total order all members forget the same clients.
//!
//! Bound: at least the [`GENERATION_CLIENTS`] clients of which messages were delivered last are known, and at most
//! twice as many.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bourdon_wire::{ClientId, Sequence};

/// Clients in one generation: half a minute of a thousand clients that end and begin each second, which is longer than
/// a client waits for an answer, or than a copy of a message waits for a view change.
pub(super) const GENERATION_CLIENTS: usize = 32_768;
/// Runs of one client's messages delivered beyond what is missing. Each gap is a message that some member has published
/// and this process has not delivered, or one that was given up: more than so many can only be of the latter kind.
const BEYOND_MAX: usize = 256;

/// What was delivered of one client.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivered {
    /// Everything below was delivered here, or given up by the client.
    pub(super) below: Sequence,
    /// What was delivered beyond, in order: first and one past the last of each run.
    beyond: Vec<(Sequence, Sequence)>,
}

impl Delivered {
    /// Of a client of which nothing was delivered.
    pub(super) const NOTHING: Self = Self { below: Sequence(0), beyond: Vec::new() };

    /// Whether the message before `next` was delivered here.
    pub(super) fn has(&self, next: Sequence) -> bool {
        next <= self.below || self.beyond.iter().any(|(first, end)| *first < next && next <= *end)
    }

    /// From `taken` on, past everything that was delivered.
    pub(super) fn past(&self, taken: Sequence) -> Sequence {
        let taken = taken.max(self.below);
        self.beyond.iter().fold(taken, |taken, (first, end)| if *first <= taken { taken.max(*end) } else { taken })
    }

    /// Notes a delivery; returns false if the message was delivered before.
    fn deliver(&mut self, sequence: Sequence) -> bool {
        let place = self.beyond.partition_point(|(_, end)| *end < sequence);
        let has = |(first, end): &(Sequence, Sequence)| *first <= sequence && sequence < *end;
        if sequence < self.below || self.beyond[place..].iter().take(2).any(has) {
            return false;
        }
        self.beyond.insert(place, (sequence, sequence.next()));
        self.tidy();
        true
    }

    /// Joins runs that meet, and moves the watermark over the runs that follow it.
    fn tidy(&mut self) {
        self.beyond.sort_unstable();
        self.beyond.dedup_by(|next, before| {
            let meets = next.0 <= before.1;
            before.1 = if meets { before.1.max(next.1) } else { before.1 };
            meets
        });
        while let Some((first, end)) = self.beyond.first().copied()
            && (first <= self.below || self.beyond.len() > BEYOND_MAX)
        {
            self.below = self.below.max(end);
            self.beyond.remove(0);
        }
        debug_assert!(self.beyond.len() <= BEYOND_MAX, "{} runs", self.beyond.len());
        debug_assert!(self.beyond.first().is_none_or(|(first, _)| *first > self.below), "{self:?}");
        debug_assert!(self.beyond.windows(2).all(|runs| runs[0].1 < runs[1].0), "runs that meet are one run: {self:?}");
    }
}

/// What was delivered of all clients.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    younger: BTreeMap<ClientId, Delivered>,
    elder: BTreeMap<ClientId, Delivered>,
}

impl Watermarks {
    /// What was delivered of this client.
    pub(super) fn get(&self, client: ClientId) -> Option<&Delivered> {
        self.younger.get(&client).or_else(|| self.elder.get(&client))
    }

    /// How many clients are known.
    pub(super) fn len(&self) -> usize {
        self.younger.len() + self.elder.len()
    }

    /// A message of a client is due: returns whether it has not been delivered before.
    pub(super) fn deliver(&mut self, client: ClientId, sequence: Sequence) -> bool {
        self.younger(client).deliver(sequence)
    }

    /// What was delivered of a client, in the younger generation.
    fn younger(&mut self, client: ClientId) -> &mut Delivered {
        if self.younger.len() >= GENERATION_CLIENTS && !self.younger.contains_key(&client) {
            let known = self.elder.remove(&client);
            self.elder = core::mem::take(&mut self.younger);
            self.younger.extend(known.map(|known| (client, known)));
        }
        debug_assert!(self.len() <= 2 * GENERATION_CLIENTS, "{} clients", self.len());
        let elder = &mut self.elder;
        self.younger.entry(client).or_insert_with(|| elder.remove(&client).unwrap_or_default())
    }

    /// For a joiner: client, first and one past the last of each run; those that are forgotten first are first.
    pub(super) fn runs(&self) -> Vec<(ClientId, Sequence, Sequence)> {
        let below = |client: ClientId, known: &Delivered| (client, Sequence(0), known.below);
        let all = self.elder.iter().chain(&self.younger);
        let mut runs = Vec::with_capacity(self.len());
        for (client, known) in all {
            runs.push(below(*client, known));
            runs.extend(known.beyond.iter().map(|(first, end)| (*client, *first, *end)));
        }
        runs
    }

    /// Starts with what another process has delivered.
    pub(super) fn take_over(&mut self, runs: &[(ClientId, Sequence, Sequence)]) {
        *self = Self::default();
        for (client, first, end) in runs {
            let known = self.younger(*client);
            known.beyond.push((*first, *end));
            known.tidy();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_delivered_is_known_for_a_generation_of_other_clients() {
        let mut watermarks = Watermarks::default();
        for sequence in 0..3 {
            assert!(watermarks.deliver(ClientId(0), Sequence(sequence)));
        }
        for client in 1..=GENERATION_CLIENTS as u64 {
            assert!(watermarks.deliver(ClientId(client), Sequence(0)));
        }
        assert!(!watermarks.deliver(ClientId(0), Sequence(2)), "it is known, and used lately again");
        for client in 1..=3 * GENERATION_CLIENTS as u64 {
            watermarks.deliver(ClientId(1_000_000 + client), Sequence(0));
            watermarks.deliver(ClientId(0), Sequence(client + 2));
            assert!(watermarks.len() <= 2 * GENERATION_CLIENTS);
        }
        assert!(!watermarks.deliver(ClientId(0), Sequence(0)), "a client that goes on is not forgotten");
        let last = ClientId(1_000_000 + 3 * GENERATION_CLIENTS as u64);
        assert!(!watermarks.deliver(last, Sequence(0)));
        assert!(watermarks.get(ClientId(1)).is_none(), "a client of long ago is");
    }

    #[test]
    fn a_joiner_takes_over_all_that_is_known() {
        let mut donor = Watermarks::default();
        for client in 0..GENERATION_CLIENTS as u64 + 10 {
            donor.deliver(ClientId(client), Sequence(0));
            donor.deliver(ClientId(client), Sequence(client % 3));
        }
        let mut joiner = Watermarks::default();
        joiner.take_over(&donor.runs());
        assert_eq!(joiner.len(), donor.len());
        for client in 0..GENERATION_CLIENTS as u64 + 10 {
            assert!(joiner.get(ClientId(client)).is_some_and(|known| known.has(Sequence(client % 3 + 1))));
        }
    }
}
