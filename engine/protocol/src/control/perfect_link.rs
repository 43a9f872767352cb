//! Perfect links: messages about locks and leaders from one member to another arrive once, in the order of sending.
//!
//! The textbook algorithms for mutual exclusion and election assume channels that lose nothing, duplicate nothing and
//! keep the order; Lamport's is wrong without the last. Datagrams promise none of this. The group's own stream would,
//! but then every member would receive what is meant for a single member.
//!
//! So each pair of members numbers the messages between them, from 1 in each epoch. The sender retransmits what was not
//! acknowledged, all of it from the first missing message, after [`RETRY_NS`] and then less and less often. The
//! receiver drops a message out of turn, because it will come again. An acknowledgement travels with any message in the
//! other direction, or alone at the end of the step.
//!
//! Invariants: within an epoch a receiver takes a sender's messages in order, without holes and once each; nothing
//! crosses an epoch, because the datagram's header names the epoch and both ends start again with it. Bounds: [`AHEAD`]
//! unacknowledged messages to a peer; what waits behind them is bounded by what the algorithms send at all: a few
//! messages for each name, and [`WAITING_MAX`] if the peer lies. Source: FIFO perfect point-to-point links, Cachin,
//! Guerraoui and Rodrigues (2011), §2.4 and §3.9.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bourdon_wire::records::{Link, link_steps};
use bourdon_wire::{Epoch, Instant, Rank, TopicName};

/// Unacknowledged messages to one peer: few enough for any socket buffer, enough to announce the state of some names at
/// a new view.
const AHEAD: usize = 64;
/// If so many messages wait for a peer, nothing more is accepted from any peer: each message may require answers or
/// must be forwarded, and a peer that asks without acknowledging would fill the memory. This is many times what an
/// honest conversation needs.
const WAITING_MAX: usize = 16_384;
/// When a message is retransmitted for the first time: many round trips of a local network, but short compared with a
/// view change, since a member that enters the next view a little later has missed what was sent to it.
const RETRY_NS: u64 = 1_000_000;
/// The longest pause before a retransmission: a peer that does not answer for so long is about to leave the view.
const RETRY_MAX_NS: u64 = 32_000_000;

// What is under way is a small part of what may wait; pauses double up to the longest.
const _: () = assert!(AHEAD < WAITING_MAX / 16 && RETRY_MAX_NS == RETRY_NS << 5);

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkMessage {
    /// One of [`link_steps`].
    pub(crate) step: u16,
    pub(crate) rank: Rank,
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    pub(crate) other: u64,
    pub(crate) name: Option<TopicName>,
}

impl LinkMessage {
    /// A step about a name, with nothing else in it.
    pub(crate) fn new(step: u16, name: TopicName) -> Self {
        Self { name: Some(name), ..Self::bare(step) }
    }

    /// A step without a name.
    pub(crate) fn bare(step: u16) -> Self {
        Self { step, rank: Rank(0), number: 0, epoch: Epoch(0), other: 0, name: None }
    }
}

/// One end of the link between two members.
#[derive(Debug)]
struct Peer {
    /// The number of the first message in `unacknowledged`.
    first: u64,
    unacknowledged: VecDeque<LinkMessage>,
    /// How many of them have been sent since the last pause.
    sent: usize,
    retry_at: Instant,
    retry_ns: u64,
    /// The number of the next message to accept.
    next: u64,
    owes_ack: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            first: 1,
            unacknowledged: VecDeque::new(),
            sent: 0,
            retry_at: Instant::NEVER,
            retry_ns: RETRY_NS,
            next: 1,
            owes_ack: false,
        }
    }
}

/// One member's ends of all its links.
#[derive(Debug)]
pub(crate) struct PerfectLinks {
    peers: Vec<Peer>,
    /// By step: messages sent for the first time.
    sent: [u64; link_steps::END as usize],
    /// Datagrams that were retransmitted, or only acknowledged.
    overhead: u64,
    is_idle: bool,
    /// When the first of the peers is due; read at every step.
    due: Instant,
}

impl PerfectLinks {
    pub(crate) fn new(members: usize) -> Self {
        let peers = (0..members).map(|_| Peer::default()).collect();
        Self { peers, sent: [0; link_steps::END as usize], overhead: 0, is_idle: true, due: Instant::NEVER }
    }

    /// A new epoch begins: messages of the last are void.
    pub(crate) fn enter(&mut self) {
        self.peers.iter_mut().for_each(|peer| *peer = Peer::default());
        (self.is_idle, self.due) = (true, Instant::NEVER);
    }

    /// Messages of a step sent so far.
    pub(crate) fn sent(&self, step: u16) -> u64 {
        self.sent.get(usize::from(step)).copied().unwrap_or(0)
    }

    /// Datagrams that only acknowledged, or were retransmitted.
    pub(crate) fn overhead(&self) -> u64 {
        self.overhead
    }

    /// Messages not acknowledged yet.
    pub(crate) fn held(&self) -> usize {
        self.peers.iter().map(|peer| peer.unacknowledged.len()).sum()
    }

    /// Queues a message to a peer; the next [`PerfectLinks::transmit`] sends it.
    pub(crate) fn send(&mut self, to: Rank, message: LinkMessage) {
        let Some(peer) = self.peers.get_mut(to.index()) else { return };
        assert!(message.step > link_steps::NONE && message.step < link_steps::END, "{message:?} is no step");
        peer.unacknowledged.push_back(message);
        self.is_idle = false;
        if let Some(count) = self.sent.get_mut(usize::from(message.step)) {
            *count += 1;
        }
    }

    /// Receives a record of a peer; returns its message, if it is the next in order.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: Rank,
        record: &Link,
        name: Option<&str>,
    ) -> Option<LinkMessage> {
        let is_full = self.peers.iter().any(|peer| peer.unacknowledged.len() >= WAITING_MAX);
        let peer = self.peers.get_mut(from.index())?;
        // A peer can't acknowledge more than was sent.
        let most = peer.first + peer.sent as u64;
        let acknowledged = record.acknowledged.get().min(most);
        if acknowledged > peer.first {
            let count = (acknowledged - peer.first) as usize;
            debug_assert!(
                count <= peer.sent && peer.sent <= peer.unacknowledged.len(),
                "only what was sent is {peer:?}"
            );
            peer.unacknowledged.drain(..count);
            (peer.first, peer.sent) = (acknowledged, peer.sent - count);
            peer.retry_ns = RETRY_NS;
            peer.retry_at = if peer.sent == 0 { Instant::NEVER } else { now + RETRY_NS };
            self.is_idle = false; // more may be sent now
        }
        let sequence = record.sequence.get();
        if sequence == 0 {
            return None;
        }
        peer.owes_ack = true;
        self.is_idle = false;
        if sequence != peer.next || is_full {
            return None; // it comes again
        }
        peer.next += 1;
        Some(LinkMessage {
            step: record.step.get(),
            rank: Rank(record.rank.get()),
            number: record.number.get(),
            epoch: Epoch(record.epoch.get()),
            other: record.other.get(),
            name: name.and_then(|name| TopicName::new(name).ok()),
        })
    }

    /// When something must be retransmitted.
    #[inline]
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    fn note_due(&mut self) {
        self.due = self.peers.iter().map(|peer| peer.retry_at).min().unwrap_or(Instant::NEVER);
    }

    /// Marks messages that have waited too long for their acknowledgement to be retransmitted.
    pub(crate) fn tend(&mut self, now: Instant) {
        for peer in self.peers.iter_mut().filter(|peer| now >= peer.retry_at) {
            self.overhead += peer.sent as u64;
            (peer.sent, peer.retry_at) = (0, Instant::NEVER);
            peer.retry_ns = (2 * peer.retry_ns).min(RETRY_MAX_NS);
            self.is_idle = false;
        }
        self.note_due();
    }

    /// Whether [`PerfectLinks::transmit`] has nothing to do.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Sends what is new or must be retransmitted, and acknowledges what came.
    pub(crate) fn transmit(&mut self, now: Instant, mut send: impl FnMut(Rank, &Link, Option<&TopicName>)) {
        self.is_idle = true;
        for (rank, peer) in self.peers.iter_mut().enumerate() {
            let rank = Rank(rank as u16);
            let fresh = peer.unacknowledged.len().min(AHEAD);
            for place in peer.sent..fresh {
                let message = &peer.unacknowledged[place];
                send(rank, &message.record(rank, peer.first + place as u64, peer.next), message.name.as_ref());
                peer.owes_ack = false;
            }
            if fresh > peer.sent {
                peer.sent = fresh;
                // New messages do not delay the retransmission of earlier ones.
                peer.retry_at = peer.retry_at.min(now + peer.retry_ns);
            }
            assert!(peer.sent <= AHEAD && peer.sent <= peer.unacknowledged.len(), "{} under way", peer.sent);
            assert!((peer.sent == 0) == (peer.retry_at == Instant::NEVER), "what is under way is sent again: {peer:?}");
            assert!(peer.first > 0 && peer.next > 0, "links number from 1");
            if core::mem::take(&mut peer.owes_ack) {
                self.overhead += 1;
                send(rank, &Link { acknowledged: peer.next.into(), to: rank.0.into(), ..NOTHING }, None);
            }
        }
        self.note_due();
    }
}

const NOTHING: Link = Link {
    sequence: zerocopy::little_endian::U64::new(0),
    acknowledged: zerocopy::little_endian::U64::new(0),
    step: zerocopy::little_endian::U16::new(link_steps::NONE),
    rank: zerocopy::little_endian::U16::new(0),
    to: zerocopy::little_endian::U16::new(0),
    number: zerocopy::little_endian::U64::new(0),
    epoch: zerocopy::little_endian::U64::new(0),
    other: zerocopy::little_endian::U64::new(0),
};

impl LinkMessage {
    fn record(&self, to: Rank, sequence: u64, acknowledged: u64) -> Link {
        Link {
            sequence: sequence.into(),
            acknowledged: acknowledged.into(),
            step: self.step.into(),
            rank: self.rank.0.into(),
            to: to.0.into(),
            number: self.number.into(),
            epoch: self.epoch.0.into(),
            other: self.other.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn message(number: u64) -> LinkMessage {
        LinkMessage { number, ..LinkMessage::bare(link_steps::REQUEST) }
    }

    /// What one end sends to rank 1 now.
    fn sent(links: &mut PerfectLinks, now: u64) -> Vec<Link> {
        let mut sent = Vec::new();
        links.tend(Instant(now));
        links.transmit(Instant(now), |_, record, _| sent.push(*record));
        sent
    }

    fn sequences(sent: &[Link]) -> Vec<u64> {
        sent.iter().map(|record| record.sequence.get()).collect()
    }

    #[test]
    fn link_messages_are_taken_in_order_once_each_and_acknowledged() {
        let (mut one, mut other) = (PerfectLinks::new(2), PerfectLinks::new(2));
        (1..=3).for_each(|number| one.send(Rank(1), message(number)));
        let records = sent(&mut one, 0);
        assert_eq!(sequences(&records), [1, 2, 3]);
        let mut take =
            |index: usize| other.receive(Instant(0), Rank(0), &records[index], None).map(|message| message.number);
        assert_eq!([take(1), take(0), take(0), take(1), take(2)], [None, Some(1), None, Some(2), Some(3)]);
        let answer = sent(&mut other, 0);
        assert_eq!((sequences(&answer), answer[0].acknowledged.get()), (vec![0], 4));
        assert!(one.receive(Instant(0), Rank(1), &answer[0], None).is_none());
        assert_eq!(sent(&mut one, 0), []);
        assert_eq!((one.held(), one.due()), (0, Instant::NEVER));
    }

    #[test]
    fn issue_new_link_messages_put_off_a_lost_one() {
        let mut links = PerfectLinks::new(2);
        links.send(Rank(1), message(1));
        assert_eq!(sequences(&sent(&mut links, 0)), [1]); // lost
        let step_ns = RETRY_NS * 9 / 10;
        links.send(Rank(1), message(2));
        assert_eq!(sequences(&sent(&mut links, step_ns)), [2]);
        links.send(Rank(1), message(3));
        assert_eq!(sequences(&sent(&mut links, 2 * step_ns)), [1, 2, 3], "the first is overdue");
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_changes_nothing() {
        let mut links = PerfectLinks::new(2);
        links.send(Rank(1), message(1));
        let early = Link { acknowledged: 9.into(), ..NOTHING };
        assert!(links.receive(Instant(0), Rank(1), &early, None).is_none());
        assert_eq!((links.held(), sequences(&sent(&mut links, 0))), (1, vec![1]));
    }
}
