//! What one process of a demo can prove to have delivered, and the state that it sends to a joiner.

use super::journal::{Entry, Journal, entries};
use super::link::LATENCY_MAX_NS;
use super::share::{self, Owners};
use super::shown::{Shown, read, write};
use bourdon::Message;
use bourdon::id::Rank;
use bourdon_lab::history::writer::{Delivered, History, hash};
use hdrhistogram::Histogram;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// What has been delivered.
pub(crate) struct Proof {
    pub(crate) payloads: Sha256,
    /// A running hash over the messages' names.
    pub(crate) chain: Vec<u64>,
    /// The names themselves: where messages were lost, chains can't be compared.
    pub(crate) names: Vec<u64>,
    /// Per sender, one bit for each message.
    seen: Vec<Vec<u64>>,
    /// Messages whose numbers lie far beyond the bits: of a member that came back to a group that loses messages.
    seen_beyond: HashSet<(u16, u64)>,
    pub(crate) duplicates: u64,
    pub(crate) latency_ns: Histogram<u64>,
    /// The number of records of each share.
    pub(crate) done: Vec<u64>,
    pub(crate) owners: Owners,
    /// The message delivered last.
    pub(crate) last: Option<(u16, u64)>,
    pub(crate) history: Option<History>,
    /// Every delivery, for joiners; none if there are too many.
    kept: Option<Vec<u8>>,
    /// Where a durable member keeps them.
    pub(crate) journal: Option<Journal>,
    resume: Resume,
}

/// How far a durable member that was started again has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resume {
    /// The view in which it crashed will come first.
    Comes,
    /// It is in the view in which it crashed: messages are delivered again until this view ends.
    Stopped,
    /// It goes on like any member.
    Done,
}

/// A message's name.
fn name(rank: u16, sequence: u64) -> u64 {
    (u64::from(rank) << 48) ^ sequence
}

/// The name of a message in a chain of names.
pub(crate) fn link(last: u64, rank: u16, sequence: u64) -> u64 {
    let name = name(rank, sequence);
    (last ^ name).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ name
}

impl Proof {
    pub(crate) fn new(members: u16, publishers: u16, messages: u64, keeps: bool, history: Option<History>) -> Self {
        Self {
            payloads: Sha256::new(),
            chain: Vec::with_capacity(messages as usize),
            names: Vec::with_capacity(messages as usize),
            seen: vec![vec![0; messages as usize / 64 + 1]; usize::from(members)],
            seen_beyond: HashSet::new(),
            duplicates: 0,
            latency_ns: Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are valid"),
            done: vec![0; usize::from(publishers)],
            owners: Owners::new(publishers),
            last: None,
            history,
            kept: keeps.then(Vec::new),
            journal: None,
            resume: Resume::Done,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.chain.len() as u64
    }

    pub(crate) fn deliver(&mut self, delivery: &Message<'_>, wall_ns: u64) {
        if delivery.barrier.is_some() {
            return;
        }
        let (share, after, payload) = share::read(delivery.topic, delivery.payload);
        let Rank(publisher) = delivery.sender;
        let (order, sequence) = (delivery.order.map(|order| order.0), delivery.sequence.0);
        if self.resume != Resume::Done && self.has_seen(publisher, sequence) {
            return;
        }
        self.show(&Shown { view: delivery.epoch.0, order, publisher, sequence, after, share, payload });
        self.latency_ns.saturating_record(wall_ns.saturating_sub(delivery.send_time_ns));
    }

    fn show(&mut self, shown: &Shown<'_>) {
        self.payloads.update((shown.payload.len() as u32).to_le_bytes());
        self.payloads.update(shown.payload);
        let (rank, sequence) = (shown.publisher, shown.sequence);
        self.chain.push(link(self.chain.last().copied().unwrap_or(0), rank, sequence));
        match self.seen.get_mut(usize::from(rank)).and_then(|bits| bits.get_mut(sequence as usize / 64)) {
            Some(bits) if *bits & (1 << (sequence % 64)) == 0 => *bits |= 1 << (sequence % 64),
            None if self.seen_beyond.insert((rank, sequence)) => {}
            _ => self.duplicates += 1,
        }
        self.names.push(name(rank, sequence));
        if let Some(done) = self.done.get_mut(usize::from(shown.share)) {
            *done += 1;
        }
        self.last = Some((rank, sequence));
        if let Some(history) = &mut self.history {
            let Shown { view, order, publisher, sequence, after, payload, .. } = *shown;
            history.delivery(&Delivered { view, order, publisher, sequence, after, hash: hash(payload) });
        }
        if let Some(kept) = &mut self.kept {
            write(kept, shown);
        }
        if let Some(journal) = &mut self.journal {
            journal.deliver(shown);
        }
    }

    fn has_seen(&self, rank: u16, sequence: u64) -> bool {
        match self.seen.get(usize::from(rank)).and_then(|bits| bits.get(sequence as usize / 64)) {
            Some(bits) => bits & (1 << (sequence % 64)) != 0,
            None => self.seen_beyond.contains(&(rank, sequence)),
        }
    }

    /// A view was installed.
    pub(crate) fn enter(&mut self, members: u64, incarnation: u32) {
        self.resume = if self.resume == Resume::Comes { Resume::Stopped } else { Resume::Done };
        self.owners.view(members);
        if let Some(journal) = &mut self.journal {
            journal.view(members, incarnation);
        }
    }

    /// Whether it is in the view in which it crashed: what it had published there may still be delivered.
    pub(crate) fn is_stopped(&self) -> bool {
        self.resume != Resume::Done
    }

    /// Goes on from what this process delivered before its crash. Returns its incarnation in its last view.
    pub(crate) fn resume(&mut self, journal: Journal, bytes: &[u8]) -> Result<Option<u32>, String> {
        let (mut last, mut read) = (None, Ok(()));
        entries(bytes, |entry| match entry {
            Entry::Delivery(shown) => self.show(&shown),
            Entry::View { members, incarnation } => {
                self.owners.view(members);
                (self.resume, last) = (Resume::Comes, Some(incarnation));
            }
            Entry::State(state) => read = self.restore(state),
        });
        self.journal = Some(journal);
        read.map(|()| last)
    }

    /// Retracts what belongs to no view, as if it had never been delivered. Possible as long as every delivery is kept.
    pub(crate) fn retract(&mut self, publisher: u16, sequences: std::ops::Range<u64>) {
        let Some(kept) = self.kept.take() else { return };
        let (members, publishers) = (self.seen.len() as u16, self.done.len() as u16);
        let messages = self.seen.first().map_or(0, |bits| 64 * (bits.len() as u64 - 1));
        let mut again = Self::new(members, publishers, messages, true, None);
        let mut rest = &kept[..];
        while let Some((shown, after)) = read(rest) {
            if shown.publisher != publisher || !sequences.contains(&shown.sequence) {
                again.show(&shown);
            }
            rest = after;
        }
        again.owners = self.owners.clone();
        (again.history, again.journal) = (self.history.take(), self.journal.take());
        std::mem::swap(&mut again.latency_ns, &mut self.latency_ns);
        *self = again;
    }

    /// Everything delivered so far, for a joiner.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.owners.0.iter().for_each(|owner| bytes.extend_from_slice(&owner.to_le_bytes()));
        bytes.extend_from_slice(self.kept.as_deref().unwrap_or_default());
        bytes
    }

    /// Adopts another process's snapshot, as if its messages had been delivered here.
    pub(crate) fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let cut = || "the snapshot is cut short".to_owned();
        let publishers = self.owners.0.len();
        let (owners, mut rest) = bytes.split_at_checked(2 * publishers).ok_or_else(cut)?;
        self.owners.0 = owners.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
        while !rest.is_empty() {
            let (shown, after) = read(rest).ok_or_else(cut)?;
            self.show(&shown);
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_retracted_was_never_delivered() {
        let show = |proof: &mut Proof, sequence: u64| {
            let payload = &[sequence as u8; 3][..];
            proof.show(&Shown { view: 1, order: None, publisher: 1, sequence, after: None, share: 0, payload });
        };
        let (mut ahead, mut other) = (Proof::new(2, 1, 100, true, None), Proof::new(2, 1, 100, true, None));
        (0..9).for_each(|sequence| show(&mut ahead, sequence));
        (0..5).for_each(|sequence| show(&mut other, sequence));
        ahead.retract(1, 5..9);
        assert_eq!((ahead.chain.clone(), ahead.done.clone(), ahead.duplicates), (other.chain.clone(), vec![5], 0));
        show(&mut ahead, 5);
        assert_eq!(ahead.duplicates, 0, "it may come again");
    }

    #[test]
    fn a_snapshot_proves_the_same_as_its_giver() {
        let mut giver = Proof::new(2, 2, 100, true, None);
        for sequence in 0..40u64 {
            let after = (sequence % 3 == 0).then_some((1, sequence / 2));
            let (share, payload) = ((sequence % 2) as u16, &[sequence as u8; 3]);
            let order = Some(sequence).filter(|n| n % 5 > 0);
            giver.show(&Shown { view: 1, order, publisher: share, sequence, after, share, payload });
        }
        giver.owners.view(0b10);
        let snapshot = giver.snapshot();
        let mut taker = Proof::new(2, 2, 100, true, None);
        taker.restore(&snapshot).unwrap();
        assert_eq!((taker.chain.clone(), taker.done.clone()), (giver.chain.clone(), giver.done.clone()));
        assert_eq!((taker.owners.clone(), taker.snapshot()), (giver.owners.clone(), snapshot.clone()));
        assert_eq!(taker.payloads.finalize(), giver.payloads.finalize());
        let mut other = Proof::new(2, 2, 100, true, None);
        assert!(other.restore(&snapshot[..snapshot.len() - 1]).is_err());
    }
}
