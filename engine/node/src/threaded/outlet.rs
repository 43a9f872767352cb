//! Where a data agent puts the messages of one subscription: its ring, and what the ring has no room for.
//!
//! Invariant: a member, and an observer that gates, lose no message: what was taken from the protocol and did not fit
//! is kept and goes first. That is at most one batch, sized by the room there was and the longest message seen, and
//! never more than the receive logs held.

use crate::config::Settings;
use crate::threaded::frames::{DELIVERED_BYTES, Delivered};
use crate::threaded::handles::Inlet;
use crate::topics::{Filter, Pattern};
use bourdon_port::Waker;
use bourdon_protocol::Delivery;
use bourdon_ring::signal::{Bell, WatermarkWriter, doorbell, watermark};
use bourdon_ring::spsc::{self, ClaimError};
use std::collections::VecDeque;
use zerocopy::IntoBytes;

/// The assumed length of the longest message until a longer message arrives: a datagram's worth.
const FRAME_GUESS_BYTES: usize = 1536;

/// Where delivered messages of some topics go: one subscription's ring.
pub(crate) struct Outlet {
    pub(crate) producer: spsc::Producer,
    /// Which those are.
    pub(crate) filter: Filter,
    /// Whole frames that the ring had no room for; only at a member.
    pub(crate) overflow: VecDeque<Vec<u8>>,
    /// Messages an observer's ring had no room for.
    pub(crate) overruns: WatermarkWriter,
    /// Wakes the subscriber.
    pub(crate) bell: Bell,
    pub(crate) waker: Waker,
    longest_bytes: usize,
}

/// Both ends of a subscription's ring.
pub(crate) fn ends(settings: &Settings, patterns: &[Pattern]) -> std::io::Result<(Outlet, Inlet)> {
    let (producer, consumer) = spsc::channel(settings.threads.subscription_ring_bytes);
    let (sleeper, bell) = doorbell();
    let (overruns, overrun_count) = watermark(0);
    let waker = Waker::new()?;
    let outlet = Outlet {
        producer,
        filter: Filter::new(patterns, &settings.group.topics),
        overflow: VecDeque::new(),
        overruns,
        bell,
        waker: waker.clone(),
        longest_bytes: FRAME_GUESS_BYTES,
    };
    Ok((outlet, Inlet { consumer, sleeper, waker, overruns: overrun_count }))
}

impl Outlet {
    /// Moves what was kept into the ring. Returns whether all of it fitted.
    pub(crate) fn drain(&mut self) -> bool {
        if self.overflow.is_empty() {
            return true;
        }
        if self.producer.is_abandoned() {
            self.overflow.clear();
        }
        while let Some(frame) = self.overflow.front() {
            match self.producer.try_push(0, frame) {
                Ok(()) => drop(self.overflow.pop_front()),
                Err(ClaimError::Full) => break,
                Err(error) => unreachable!("rings are made for the longest message: {error}"),
            }
        }
        self.show();
        self.overflow.is_empty()
    }

    /// How many messages fit for sure, if none is longer than the longest so far.
    pub(crate) fn room(&mut self) -> usize {
        if self.producer.is_abandoned() {
            return usize::MAX;
        }
        if !self.overflow.is_empty() && self.producer.free_bytes() < self.producer.capacity_bytes() / 2 {
            return 0;
        }
        let frame_bytes = self.longest_bytes + spsc::HEADER_BYTES;
        (self.producer.free_bytes() / frame_bytes).saturating_sub(1)
    }

    #[inline]
    pub(crate) fn put(&mut self, delivery: &Delivery<'_>, keeps_all: bool) {
        let name = delivery.name.unwrap_or_default();
        let length = DELIVERED_BYTES + name.len() + delivery.payload.len();
        self.longest_bytes = self.longest_bytes.max(length.next_multiple_of(8));
        let head = Delivered::new(delivery);
        if self.overflow.is_empty()
            && let Ok(mut claim) = self.producer.try_claim(0, length)
        {
            let (front, rest) = claim.split_at_mut(DELIVERED_BYTES);
            front.copy_from_slice(head.as_bytes());
            let (front, rest) = rest.split_at_mut(name.len());
            front.copy_from_slice(name.as_bytes());
            rest.copy_from_slice(delivery.payload);
            return claim.stage();
        }
        if self.producer.is_abandoned() {
            return;
        }
        if keeps_all {
            self.overflow.push_back([head.as_bytes(), name.as_bytes(), delivery.payload].concat());
        } else {
            self.overruns.advance(self.overruns.get() + 1);
        }
    }

    /// Publishes what was put to the subscriber, and wakes it if it sleeps.
    pub(crate) fn show(&mut self) {
        self.producer.publish();
        if self.bell.must_ring() {
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_wire::{Epoch, Instant, Rank, Sequence, TopicId};

    fn outlet() -> (Outlet, spsc::Consumer) {
        let (producer, consumer) = spsc::channel(1 << 16);
        let outlet = Outlet {
            producer,
            filter: Filter::default(),
            overflow: VecDeque::new(),
            overruns: watermark(0).0,
            bell: doorbell().1,
            waker: Waker::new().expect("eventfds are allowed"),
            longest_bytes: FRAME_GUESS_BYTES,
        };
        (outlet, consumer)
    }

    fn put(outlet: &mut Outlet, sequence: u64, is_member: bool) {
        let delivery = Delivery {
            sender: Rank(0),
            incarnation: bourdon_wire::Incarnation(1),
            instance: bourdon_wire::InstanceId(1),
            sequence: Sequence(sequence),
            order: None,
            epoch: Epoch(1),
            late: false,
            topic: TopicId(0),
            name: None,
            send_time_ns: 0,
            kernel_receive_ns: None,
            delivered_at: Instant(0),
            client: None,
            barrier: None,
            payload: &[7; 20_000],
        };
        outlet.put(&delivery, is_member);
    }

    #[test]
    fn a_member_keeps_what_does_not_fit_and_hands_it_out_in_order() {
        let (mut outlet, mut consumer) = outlet();
        assert!(outlet.room() > 20, "the first batch is sized by a guess");
        (0..20).for_each(|sequence| put(&mut outlet, sequence, true));
        assert!(!outlet.overflow.is_empty() && outlet.overruns.get() == 0);
        let mut read = Vec::new();
        for _ in 0..40 {
            assert!(!outlet.drain() || outlet.overflow.is_empty());
            consumer.read(1, |_, frame| read.push(Delivered::read(frame).sequence.0));
        }
        assert_eq!(read, (0..20).collect::<Vec<_>>());
        assert!(outlet.drain() && outlet.room() < 3, "now it knows how long they are");
    }

    #[test]
    fn an_observer_counts_what_does_not_fit() {
        let (mut outlet, mut consumer) = outlet();
        (0..20).for_each(|sequence| put(&mut outlet, sequence, false));
        outlet.show();
        let count = consumer.read(usize::MAX, |_, _| {}) as u64;
        assert!(outlet.overflow.is_empty() && count > 0);
        assert_eq!(count + outlet.overruns.get(), 20);
    }

    #[test]
    fn a_subscriber_that_has_gone_blocks_no_other() {
        let (mut outlet, consumer) = outlet();
        (0..20).for_each(|sequence| put(&mut outlet, sequence, true));
        drop(consumer);
        assert!(outlet.drain() && outlet.room() == usize::MAX);
    }
}
