//! Where a data agent takes the messages of one publication: its ring, and which of them are acknowledged.
//!
//! A publisher that waits, for room or for an acknowledgement, sleeps on a descriptor. The agent may ring it only in a
//! round in which something has changed for it, and not for every message it takes: a publisher that is woken for the
//! room of one message publishes one message and sleeps again. So room is announced for a quarter of the ring, or once
//! the ring is empty.
//!
//! Invariant: a dropped number reaches the publisher before the watermark passes it.

use crate::threaded::acknowledgement::Acknowledgements;
use crate::threaded::end::WakesAtEnd;
use crate::threaded::frames::Published;
use crate::threaded::held_up;
use crate::threaded::publication::PublisherEnd;
use bourdon_port::Waker;
use bourdon_protocol::{Outgoing, Refusal};
use bourdon_ring::signal::{Bell, Flag, WatermarkWriter, doorbell, watermark};
use bourdon_ring::spsc;
use bourdon_wire::{Incarnation, Sequence};
use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// Runs of dropped numbers that a publisher has not taken.
const DROPPED_MAX: usize = 64;

/// The agent's end of a publication.
pub(crate) struct Intake {
    /// Its place among the publications of its node, in the order in which they were made.
    pub(crate) number: usize,
    ring: spsc::Consumer,
    messages: Acknowledgements,
    watermark: WatermarkWriter,
    dropped: SyncSender<RangeInclusive<u64>>,
    /// Dropped numbers that the publisher has no room for.
    untaken: VecDeque<RangeInclusive<u64>>,
    /// Bytes freed since room was last announced.
    freed_bytes: usize,
    /// Rung for room.
    room: Bell,
    /// Rung for acknowledgements.
    news: Bell,
    waker: Waker,
    /// Nothing more will be acknowledged.
    over: Flag,
    _end: WakesAtEnd,
}

/// What a round took from a publication.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) count: usize,
    /// Why the next message waits.
    pub(crate) held_up: Option<Refusal>,
    /// Why messages were dropped, the last reason.
    pub(crate) dropped: Option<Refusal>,
}

/// Both ends of the publication of this number, with a ring of so many bytes. That of a client costs memory only as far
/// as it is used: many clients live for one message.
pub(crate) fn ends(number: usize, ring_bytes: usize, is_client: bool) -> std::io::Result<(Intake, PublisherEnd)> {
    let (producer, ring) = if is_client { spsc::channel_untouched(ring_bytes) } else { spsc::channel(ring_bytes) };
    let (mark, acknowledged) = watermark(0);
    let (to_publisher, dropped) = sync_channel(DROPPED_MAX);
    let ((room_sleeper, room), (news_sleeper, news), waker) = (doorbell(), doorbell(), Waker::new()?);
    let over = Flag::new();
    let publisher = PublisherEnd {
        producer,
        acknowledged,
        dropped,
        room: room_sleeper,
        news: news_sleeper,
        waker: waker.clone(),
        over: over.clone(),
    };
    let intake = Intake {
        number,
        ring,
        messages: Acknowledgements::default(),
        watermark: mark,
        dropped: to_publisher,
        untaken: VecDeque::new(),
        freed_bytes: 0,
        room,
        news,
        _end: WakesAtEnd(waker.clone()),
        waker,
        over,
    };
    Ok((intake, publisher))
}

impl Intake {
    /// Whether its publisher is gone and all that it published is settled.
    pub(crate) fn is_done(&mut self) -> bool {
        self.ring.is_abandoned() && !self.ring.has_frames() && !self.is_under_way()
    }

    /// Whether a message waits in the ring.
    #[inline]
    pub(crate) fn has_frames(&mut self) -> bool {
        self.ring.has_frames()
    }

    /// Takes messages while they are published, at most so many.
    #[inline]
    pub(crate) fn take(
        &mut self,
        limit: usize,
        incarnation: Incarnation,
        mut publish: impl FnMut(&Outgoing, &[u8]) -> Result<Sequence, Refusal>,
    ) -> Taken {
        let (mut taken, mut published, mut last) = (Taken::default(), 0, Sequence(0));
        let (messages, freed_bytes) = (&mut self.messages, &mut self.freed_bytes);
        taken.count = self.ring.read_while(limit, |_, frame| {
            let (outgoing, payload) = Published::read(frame);
            match publish(&outgoing, payload) {
                Ok(sequence) => {
                    if published > 0 && sequence != last.next() {
                        // The process has sent a message of its own meanwhile, as a command for a lock.
                        note(messages, std::mem::take(&mut published), incarnation, last);
                    }
                    (last, published) = (sequence, published + 1);
                }
                Err(refusal) if held_up::may_pass(refusal) && refusal != Refusal::Closed => {
                    taken.held_up = Some(refusal);
                    return false;
                }
                Err(refusal) => {
                    taken.dropped = Some(refusal);
                    note(messages, std::mem::take(&mut published), incarnation, last);
                    messages.note_dropped();
                }
            }
            *freed_bytes += spsc::HEADER_BYTES + frame.len();
            true
        });
        note(messages, published, incarnation, last);
        if taken.count > 0 && (self.freed_bytes >= self.ring.capacity_bytes() / 4 || !self.ring.has_frames()) {
            self.announce_room();
        }
        taken
    }

    /// Wakes a publisher that waits for room.
    pub(crate) fn announce_room(&mut self) {
        self.freed_bytes = 0;
        if self.room.must_ring() {
            self.waker.wake();
        }
    }

    /// Whether there is something to pass on to the publisher, now or later.
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.messages.is_under_way() || !self.untaken.is_empty()
    }

    /// Every message of this incarnation below this sequence is acknowledged. Calls `on_dropped` for dropped numbers.
    pub(crate) fn advance(
        &mut self,
        incarnation: Incarnation,
        acknowledged: Sequence,
        mut on_dropped: impl FnMut(RangeInclusive<u64>),
    ) {
        let untaken = &mut self.untaken;
        self.messages.advance(incarnation, acknowledged, |numbers| {
            on_dropped(numbers.clone());
            untaken.push_back(numbers);
        });
        while let Some(numbers) = self.untaken.pop_front() {
            if let Err(TrySendError::Full(numbers)) = self.dropped.try_send(numbers) {
                self.untaken.push_front(numbers);
                break;
            }
        }
        if self.untaken.len() > DROPPED_MAX {
            // A publisher that asks for nothing is waited for with a bound: what it is given covers all of them.
            let (first, last) = (self.untaken.pop_front(), self.untaken.pop_back());
            self.untaken.clear();
            self.untaken.extend(first.zip(last).map(|(first, last)| *first.start()..=*last.end()));
        }
        let passed = self.untaken.front().map_or(self.messages.passed(), |numbers| *numbers.start() - 1);
        if passed > self.watermark.get() {
            self.watermark.advance(passed);
            if self.news.must_ring() {
                self.waker.wake();
            }
        }
    }

    /// The messages of this incarnation with these sequences will not be delivered, as far as this process knows.
    pub(crate) fn lose(&mut self, incarnation: Incarnation, lost: Range<Sequence>) {
        self.messages.lose(incarnation, lost);
    }

    /// The process has left for good: reports what was dropped, and once the ring is empty that nothing more will be
    /// acknowledged.
    pub(crate) fn give_up(&mut self, on_dropped: impl FnMut(RangeInclusive<u64>)) {
        self.messages.give_up(on_dropped);
        if !self.over.is_set() && !self.ring.has_frames() {
            self.over.set();
            self.waker.wake();
        }
    }

    /// The same of all messages of earlier incarnations.
    pub(crate) fn lose_earlier(&mut self, incarnation: Incarnation) {
        self.messages.lose_earlier(incarnation);
    }

    /// Whether a message that was taken is neither acknowledged nor dropped.
    pub(crate) fn has_unacknowledged(&self) -> bool {
        self.messages.is_under_way()
    }

    /// At the end: the numbers that are not acknowledged.
    pub(crate) fn end(&mut self) -> Range<u64> {
        let mut waiting = 0;
        while self.ring.read(usize::MAX, |_, _| waiting += 1) > 0 {}
        self.messages.passed() + 1..self.messages.taken() + waiting + 1
    }
}

fn note(messages: &mut Acknowledgements, published: u64, incarnation: Incarnation, last: Sequence) {
    if published > 0 {
        messages.note_published(published, incarnation, last.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_protocol::Outgoing;
    use bourdon_wire::TopicId;
    use zerocopy::IntoBytes;

    #[test]
    fn issue_a_message_of_the_process_itself_within_a_round_broke_its_run() {
        let (mut intake, mut publisher) = ends(0, 1 << 12, false).expect("an eventfd");
        for _ in 0..4 {
            let head = Published::new(&Outgoing { topic: TopicId::of("one"), ..Outgoing::default() });
            let mut claim = publisher.producer.try_claim(0, head.front_bytes()).expect("there is room");
            claim.copy_from_slice(head.as_bytes());
            claim.commit();
        }
        let mut places = [0, 1, 3, 4].map(Sequence).into_iter(); // 2 is a command for a lock
        let taken = intake.take(10, Incarnation(7), |_, _| Ok(places.next().expect("four are published")));
        assert_eq!(taken.count, 4);
        for (acknowledged, passed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4)] {
            intake.advance(Incarnation(7), Sequence(acknowledged), |_| {});
            assert_eq!(publisher.acknowledged.get(), passed, "up to {acknowledged}");
        }
        assert!(!intake.is_under_way());
    }
}
