//! Where a data agent puts the messages of one subscription: its ring, and what the ring has no room for.
//!
//! Invariants: a member, and an observer that gates, lose no message: what was taken from the protocol and did not fit
//! is kept and goes first. That is at most one batch, sized by the room there was and the longest message seen, and
//! never more than the receive logs held. Any other observer is given how many messages it skipped, at their place. No
//! subscription loses an event that has its place among the messages, unless it leaves [`VALUES_MAX`] items without
//! bytes unread, or [`KEPT_MAX`] that did not fit; the count of skipped messages is then carried to the next such item.
//! A snapshot is never lost while its subscription lives.

use crate::config::Settings;
use crate::patterns::{Filter, Pattern};
use crate::threaded::frames::{DELIVERED_BYTES, Delivered, EVENT_TAG, MESSAGE_TAG, Value};
use crate::threaded::handles::Inlet;
use bourdon_port::Waker;
use bourdon_protocol::{Event, Message};
use bourdon_ring::signal::{Bell, WatermarkWriter, doorbell, watermark};
use bourdon_ring::spsc::{self, ClaimError};
use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use zerocopy::IntoBytes;

/// The assumed length of the longest message until a longer message arrives: a datagram's worth.
const FRAME_GUESS_BYTES: usize = 1536;

/// The most that is kept for a subscription that does not read, besides a member's messages: hours of views.
const KEPT_MAX: usize = 1024;

/// The most events in a subscription's ring: days of views. A ring of another topic could fill with losses.
const VALUES_MAX: usize = 4096;

/// What the ring had no room for.
#[derive(Debug)]
pub(crate) enum Kept {
    /// A whole frame; only where no message is skipped.
    Message(Vec<u8>),
    Value(Value),
}

/// Where delivered messages of some topics go: one subscription's ring.
pub(crate) struct Outlet {
    pub(crate) producer: spsc::Producer,
    /// Which those are.
    pub(crate) filter: Filter,
    /// The values of the frames with [`EVENT_TAG`] in the ring.
    values: SyncSender<Value>,
    /// What the ring had no room for.
    pub(crate) overflow: VecDeque<Kept>,
    /// It gets requests for snapshots, and snapshots, if no subscription before it does.
    pub(crate) takes_snapshots: bool,
    /// Messages an observer's ring had no room for.
    pub(crate) overruns: WatermarkWriter,
    /// Wakes the subscriber.
    pub(crate) bell: Bell,
    pub(crate) waker: Waker,
    longest_bytes: usize,
    /// Skipped messages of which no item could be given.
    unshown: u64,
}

/// Both ends of a subscription's ring.
pub(crate) fn ends(settings: &Settings, patterns: &[Pattern]) -> std::io::Result<(Outlet, Inlet)> {
    let (producer, consumer) = spsc::channel(settings.threads.subscription_ring_bytes);
    let (sleeper, bell) = doorbell();
    let (overruns, overrun_count) = watermark(0);
    let waker = Waker::new()?;
    let (values, values_in) = sync_channel(VALUES_MAX);
    let outlet = Outlet {
        producer,
        filter: Filter::new(patterns, &settings.group.topics),
        values,
        overflow: VecDeque::new(),
        takes_snapshots: settings.process.snapshots,
        overruns,
        bell,
        waker: waker.clone(),
        longest_bytes: FRAME_GUESS_BYTES,
        unshown: 0,
    };
    Ok((outlet, Inlet { consumer, values: values_in, sleeper, waker, overruns: overrun_count }))
}

impl Outlet {
    /// Moves what was kept into the ring. Returns whether all of it fitted.
    pub(crate) fn drain(&mut self) -> bool {
        if self.overflow.is_empty() {
            return true;
        }
        self.stage_kept();
        self.show();
        self.overflow.is_empty()
    }

    /// Puts what was kept into the ring as far as there is room, without showing it to the subscriber yet.
    fn stage_kept(&mut self) {
        if self.producer.is_abandoned() {
            self.overflow.clear();
        }
        while let Some(kept) = self.overflow.pop_front() {
            if let Err(kept) = self.stage_one(kept) {
                return self.overflow.push_front(kept);
            }
        }
    }

    /// Puts it into the ring, or gives it back.
    fn stage_one(&mut self, kept: Kept) -> Result<(), Kept> {
        let value = match kept {
            Kept::Message(frame) => {
                return match self.producer.try_claim(MESSAGE_TAG, frame.len()) {
                    Ok(mut claim) => {
                        claim.copy_from_slice(&frame);
                        claim.stage();
                        Ok(())
                    }
                    Err(ClaimError::Full) => Err(Kept::Message(frame)),
                    Err(error) => unreachable!("rings are made for the longest message: {error}"),
                };
            }
            Kept::Value(value) => value,
        };
        // Else each message that is skipped would be an item of its own, and fill the ring.
        if matches!(value, Value::Skipped(_))
            && self.producer.free_bytes() < self.longest_bytes + 2 * spsc::HEADER_BYTES
        {
            return Err(Kept::Value(value));
        }
        match stage_value(&mut self.producer, &self.values, value) {
            Err(Unstaged::Full(value) | Unstaged::Dropped(value @ Value::Snapshot(_))) => Err(Kept::Value(value)),
            Err(Unstaged::Dropped(Value::Skipped(count))) => {
                self.unshown += count;
                Ok(())
            }
            Err(Unstaged::Dropped(_)) | Ok(()) => Ok(()),
        }
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
    pub(crate) fn put(&mut self, delivery: &Message<'_>, keeps_all: bool) {
        let name = delivery.name.unwrap_or_default();
        let length = DELIVERED_BYTES + name.len() + delivery.payload.len();
        self.longest_bytes = self.longest_bytes.max(length.next_multiple_of(8));
        let head = Delivered::new(delivery);
        if !self.overflow.is_empty() {
            self.stage_kept();
        }
        if self.overflow.is_empty()
            && let Ok(mut claim) = self.producer.try_claim(MESSAGE_TAG, length)
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
            let frame = [head.as_bytes(), name.as_bytes(), delivery.payload].concat();
            self.overflow.push_back(Kept::Message(frame));
        } else {
            self.overruns.advance(self.overruns.get() + 1);
            match self.overflow.back_mut() {
                Some(Kept::Value(Value::Skipped(count))) => *count += 1,
                _ => {
                    let count = 1 + std::mem::take(&mut self.unshown);
                    self.overflow.push_back(Kept::Value(Value::Skipped(count)));
                }
            }
        }
    }

    /// Puts an event at its place behind the messages so far, whatever the filter. Returns whether it could be kept.
    #[cold]
    pub(crate) fn put_event(&mut self, event: Event) -> bool {
        self.put_value(Value::Event(event))
    }

    /// The same for any value.
    #[cold]
    pub(crate) fn put_value(&mut self, mut value: Value) -> bool {
        self.stage_kept();
        if self.producer.is_abandoned() {
            return true;
        }
        if self.overflow.is_empty() {
            value = match stage_value(&mut self.producer, &self.values, value) {
                Ok(()) => return true,
                Err(Unstaged::Full(value) | Unstaged::Dropped(value @ Value::Snapshot(_))) => value,
                Err(Unstaged::Dropped(_)) => return false,
            };
        }
        let kept = self.overflow.iter().filter(|kept| matches!(kept, Kept::Value(_))).count();
        let keeps = kept < KEPT_MAX || matches!(value, Value::Snapshot(_));
        if keeps {
            self.overflow.push_back(Kept::Value(value));
        }
        keeps
    }

    /// Publishes what was put to the subscriber, and wakes it if it sleeps.
    pub(crate) fn show(&mut self) {
        self.producer.publish();
        if self.bell.must_ring() {
            self.waker.wake();
        }
    }
}

/// Stages a frame that stands for a value, and sends the value.
fn stage_value(producer: &mut spsc::Producer, values: &SyncSender<Value>, value: Value) -> Result<(), Unstaged> {
    let Ok(claim) = producer.try_claim(EVENT_TAG, 0) else { return Err(Unstaged::Full(value)) };
    if let Err(TrySendError::Full(value)) = values.try_send(value) {
        return Err(Unstaged::Dropped(value));
    }
    claim.stage(); // once the subscription is gone, its frames are read by none
    Ok(())
}

/// A value that was not put into the ring.
#[derive(Debug)]
enum Unstaged {
    /// The ring has no room for it now.
    Full(Value),
    /// The subscription has left so many unread that this one is lost.
    Dropped(Value),
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
            values: sync_channel(VALUES_MAX).0,
            overflow: VecDeque::new(),
            takes_snapshots: true,
            overruns: watermark(0).0,
            bell: doorbell().1,
            waker: Waker::new().expect("eventfds are allowed"),
            longest_bytes: FRAME_GUESS_BYTES,
            unshown: 0,
        };
        (outlet, consumer)
    }

    fn put(outlet: &mut Outlet, sequence: u64, is_member: bool) {
        let delivery = Message {
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
    fn an_observer_gets_an_event_between_what_it_skipped_before_and_behind() {
        let (mut outlet, mut consumer) = outlet();
        (0..20).for_each(|sequence| put(&mut outlet, sequence, false));
        outlet.show();
        let skipped = outlet.overruns.get();
        assert!(outlet.put_event(Event::NoMajority));
        (0..5).for_each(|sequence| put(&mut outlet, sequence, false));
        let kept: Vec<_> = outlet.overflow.iter().map(|kept| format!("{kept:?}")).collect();
        assert_eq!(kept, [&*format!("Value(Skipped({skipped}))"), "Value(Event(NoMajority))", "Value(Skipped(5))"]);
        let mut tags = Vec::new();
        let mut take = |outlet: &mut Outlet| {
            consumer.read(usize::MAX, |tag, _| tags.push(tag));
            assert!(outlet.drain());
            consumer.read(usize::MAX, |tag, _| tags.push(tag));
        };
        take(&mut outlet);
        let messages = tags.iter().filter(|tag| **tag == MESSAGE_TAG).count() as u64;
        assert_eq!((messages + skipped, tags.ends_with(&[EVENT_TAG; 3])), (20, true));
    }

    #[test]
    fn what_was_skipped_is_counted_although_no_more_items_fit() {
        let (mut outlet, mut consumer) = outlet();
        let (values, received) = sync_channel(1);
        outlet.values = values;
        assert!(outlet.put_event(Event::NoMajority) && !outlet.put_event(Event::Majority));
        let skip = |outlet: &mut Outlet, consumer: &mut spsc::Consumer| {
            (0..5).for_each(|sequence| put(outlet, sequence, false));
            outlet.show();
            consumer.read(usize::MAX, |_, _| {});
            assert!(outlet.drain());
        };
        skip(&mut outlet, &mut consumer); // its item is lost
        received.recv().expect("the event");
        skip(&mut outlet, &mut consumer);
        let Ok(Value::Skipped(count)) = received.try_recv() else { panic!("no item") };
        assert_eq!(count, outlet.overruns.get());
    }

    #[test]
    fn a_subscriber_that_has_gone_blocks_no_other() {
        let (mut outlet, consumer) = outlet();
        (0..20).for_each(|sequence| put(&mut outlet, sequence, true));
        drop(consumer);
        assert!(outlet.drain() && outlet.room() == usize::MAX);
    }
}
