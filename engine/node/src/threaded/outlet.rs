//! Where a data agent puts the messages of one subscription: its ring, and what the ring has no room for.
//!
//! Invariants: a member, and an observer that gates, lose no message: what was taken from the protocol and did not fit
//! is kept and goes first. That is at most one batch, sized by the room there was and the longest message seen, and
//! never more than the receive logs held. Any other observer is given how many messages it skipped, at their place. No
//! subscription loses an event that has its place among the messages, unless it leaves [`VALUES_MAX`] items without
//! bytes unread, or [`KEPT_MAX`] that did not fit; the count of skipped messages is then carried to the next such item.
//! A snapshot is never lost while its subscription lives.

use crate::patterns::Filter;
use crate::request::Request;
use crate::subscribe::Chosen;
use crate::threaded::end::WakesAtEnd;
use crate::threaded::frames::{DELIVERED_BYTES, Delivered, EVENT_TAG, MESSAGE_TAG, REQUEST_TAG, Value};
use crate::threaded::subscription::Inlet;
use bourdon_port::Waker;
use bourdon_protocol::{Event, Message};
use bourdon_ring::signal::{Bell, WatermarkReader, WatermarkWriter, doorbell, watermark};
use bourdon_ring::spsc::{self, ClaimError};
use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use zerocopy::IntoBytes;

/// The assumed length of the longest message until a longer message arrives: a datagram's worth.
const FRAME_GUESS_BYTES: usize = 1536;

/// The most that is kept for a subscription that does not read, besides a member's messages: hours of views.
const KEPT_MAX: usize = 1024;

/// Events that have no place among the messages, which a subscription has not read. Those beyond it are counted.
const STATUSES_MAX: u64 = 256;

/// The most events in a subscription's ring: days of views. A ring of another topic could fill with losses.
const VALUES_MAX: usize = 4096;

/// The most requests in a subscription's ring; more wait in the protocol, which refuses what it has no room for.
const REQUESTS_MAX: usize = 64;

/// What the ring had no room for.
#[derive(Debug)]
pub(crate) enum Kept {
    /// A whole frame; only where no message is skipped.
    Message(Vec<u8>),
    Value(Value),
}

/// Where delivered messages of some topics go: one subscription's ring.
pub(crate) struct Outlet {
    producer: spsc::Producer,
    /// Which those are; none without a filter.
    filter: Option<Filter>,
    /// What does not fit stops delivery, instead of being skipped.
    pub(crate) keeps_all: bool,
    /// Where it gets events that have no place among the messages.
    statuses: Option<Statuses>,
    /// The values of the frames with [`EVENT_TAG`] in the ring.
    values: SyncSender<Value>,
    /// What the ring had no room for.
    overflow: VecDeque<Kept>,
    /// It gets requests for snapshots, and snapshots, if no subscription before it does.
    snapshots: bool,
    /// It was given everything since the beginning, or since a snapshot: the application's state can follow from it.
    pub(crate) is_whole: bool,
    /// Messages an observer's ring had no room for.
    pub(crate) overruns: WatermarkWriter,
    /// Wakes the subscriber.
    bell: Bell,
    waker: Waker,
    /// The requests of the frames with [`REQUEST_TAG`] in the ring, where this subscription takes them.
    requests: Option<SyncSender<Request>>,
    longest_bytes: usize,
    /// Skipped messages of which no item could be given.
    unshown: u64,
    /// Something was put into the ring since the subscriber was last woken.
    is_news: bool,
    _end: WakesAtEnd,
}

/// What is known of the events without a place that a subscription gets.
struct Statuses {
    put: u64,
    /// How many of them the subscriber has read.
    read: WatermarkReader,
    /// How many were left out since.
    missed: u64,
}

impl Statuses {
    fn unread(&self) -> u64 {
        self.put - self.read.get()
    }
}

/// Both ends of a subscription's ring.
pub(crate) fn ends(chosen: Chosen) -> std::io::Result<(Outlet, Inlet)> {
    let (producer, consumer) = spsc::channel(chosen.ring_bytes);
    let (sleeper, bell) = doorbell();
    let (overruns, overrun_count) = watermark(0);
    let (statuses_read, read) = watermark(0);
    let waker = Waker::new()?;
    let (values, values_in) = sync_channel(VALUES_MAX);
    let (requests, requests_in) = sync_channel(REQUESTS_MAX);
    let outlet = Outlet {
        producer,
        filter: chosen.filter,
        keeps_all: chosen.keeps_all,
        statuses: chosen.events.then_some(Statuses { put: 0, read, missed: 0 }),
        values,
        overflow: VecDeque::new(),
        snapshots: chosen.snapshots,
        is_whole: false,
        overruns,
        bell,
        waker: waker.clone(),
        requests: chosen.requests.then_some(requests),
        longest_bytes: FRAME_GUESS_BYTES,
        unshown: 0,
        is_news: false,
        _end: WakesAtEnd(waker.clone()),
    };
    let inlet = Inlet {
        consumer,
        values: values_in,
        requests: requests_in,
        sleeper,
        waker,
        overruns: overrun_count,
        statuses_read,
    };
    Ok((outlet, inlet))
}

impl Outlet {
    /// Whether a message is for this subscription.
    #[inline]
    pub(crate) fn wants(&self, message: &Message<'_>) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.wants(message))
    }

    /// Whether requests for snapshots, and snapshots, come here: as long as the subscription is there.
    pub(crate) fn takes_snapshots(&self) -> bool {
        self.snapshots && !self.is_gone()
    }

    /// Whether something that holds delivery up has found no room yet.
    pub(crate) fn is_behind(&self) -> bool {
        self.keeps_all && !self.overflow.is_empty()
    }

    /// Whether the subscription was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        self.producer.is_abandoned()
    }

    /// Whether something waits for the subscriber to read.
    pub(crate) fn waits(&mut self) -> bool {
        let owes_missed = |statuses: &Statuses| statuses.missed > 0 && statuses.unread() > 0;
        let is_owed = self.statuses.as_ref().is_some_and(owes_missed) && !self.is_gone();
        is_owed || (self.keeps_all || !self.overflow.is_empty()) && self.room() == 0
    }

    /// Moves what was kept into the ring. Returns whether all of it fitted.
    #[inline]
    pub(crate) fn drain(&mut self) -> bool {
        let has_missed = self.statuses.as_ref().is_some_and(|statuses| statuses.missed > 0);
        if self.overflow.is_empty() && !has_missed {
            return true;
        }
        self.stage_kept();
        if has_missed {
            self.put_missed();
        }
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
                        self.is_news = true;
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
        match self.stage_value(value) {
            Err(Unstaged::Full(value) | Unstaged::Dropped(value @ Value::Snapshot(_))) => Err(Kept::Value(value)),
            Err(Unstaged::Dropped(Value::Skipped(count))) => {
                self.unshown += count;
                Ok(())
            }
            Err(Unstaged::Dropped(Value::Event(event))) => {
                self.miss(event);
                Ok(())
            }
            Err(Unstaged::Dropped(_)) | Ok(()) => Ok(()),
        }
    }

    /// Stages a frame that stands for a value, and sends the value.
    fn stage_value(&mut self, value: Value) -> Result<(), Unstaged> {
        let Ok(claim) = self.producer.try_claim(EVENT_TAG, 0) else { return Err(Unstaged::Full(value)) };
        if let Err(TrySendError::Full(value)) = self.values.try_send(value) {
            return Err(Unstaged::Dropped(value));
        }
        claim.stage(); // once the subscription is gone, its frames are read by none
        self.is_news = true;
        Ok(())
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
    pub(crate) fn put(&mut self, delivery: &Message<'_>) {
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
            self.is_news = true;
            return claim.stage();
        }
        if self.producer.is_abandoned() {
            return;
        }
        if self.keeps_all {
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

    /// Puts an event behind the messages so far, whatever the filter. One that has no place among the messages is for
    /// subscriptions that asked for it. Returns whether it could be kept.
    #[cold]
    pub(crate) fn put_event(&mut self, event: Event) -> bool {
        if event.is_ordered() {
            return self.put_value(Value::Event(event));
        }
        self.put_missed();
        let Some(statuses) = &mut self.statuses else { return true };
        if statuses.missed > 0 || statuses.unread() >= STATUSES_MAX {
            statuses.missed += 1;
            return false;
        }
        statuses.put += 1;
        let is_kept = self.put_value(Value::Event(event));
        if !is_kept {
            self.miss(event);
        }
        is_kept
    }

    /// A status event that was to be put was not: it is counted, and so are those that it counts.
    fn miss(&mut self, event: Event) {
        if let Some(statuses) = self.statuses.as_mut().filter(|_| !event.is_ordered()) {
            statuses.put -= 1;
            statuses.missed += if let Event::Missed { count } = event { count } else { 1 };
        }
    }

    /// A subscriber that has read all events that were kept gets the number of those that were not.
    fn put_missed(&mut self) {
        let Some(statuses) = self.statuses.as_mut().filter(|statuses| statuses.unread() == 0) else { return };
        let count = std::mem::take(&mut statuses.missed);
        if count > 0 {
            statuses.put += 1;
            let event = Event::Missed { count };
            if !self.put_value(Value::Event(event)) {
                self.miss(event);
            }
        }
    }

    /// Puts a value at its place behind the messages so far, whatever the filter. Returns whether it could be kept.
    pub(crate) fn put_value(&mut self, mut value: Value) -> bool {
        self.stage_kept();
        if self.producer.is_abandoned() {
            return true;
        }
        if self.overflow.is_empty() {
            value = match self.stage_value(value) {
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

    /// Whether requests come here: as long as the subscription is there.
    pub(crate) fn takes_requests(&self) -> bool {
        self.requests.is_some() && !self.producer.is_abandoned()
    }

    /// Puts a request behind what was put before.
    ///
    /// # Errors
    /// The request, if there is no room for it now.
    pub(crate) fn put_request(&mut self, request: Request) -> Result<(), Request> {
        self.stage_kept();
        let Some(requests) = self.requests.as_ref().filter(|_| self.overflow.is_empty()) else { return Err(request) };
        let Ok(claim) = self.producer.try_claim(REQUEST_TAG, 0) else { return Err(request) };
        match requests.try_send(request) {
            Err(TrySendError::Full(request)) => return Err(request),
            Err(TrySendError::Disconnected(_)) => {} // it declines
            Ok(()) => {
                claim.stage();
                self.is_news = true;
            }
        }
        Ok(())
    }

    /// Publishes what was put to the subscriber, and wakes it if it sleeps. A subscriber for which there is nothing
    /// sleeps on.
    #[inline]
    pub(crate) fn show(&mut self) {
        if std::mem::take(&mut self.is_news) {
            self.producer.publish();
            if self.bell.must_ring() {
                self.waker.wake();
            }
        }
    }
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
        let chosen = Chosen {
            filter: Some(Filter::default()),
            keeps_all: false,
            events: true,
            snapshots: true,
            requests: false,
            ring_bytes: 1 << 16,
        };
        let (outlet, inlet) = ends(chosen).expect("eventfds are allowed");
        (Outlet { values: sync_channel(VALUES_MAX).0, ..outlet }, inlet.consumer)
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
        outlet.keeps_all = is_member;
        outlet.put(&delivery);
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
    fn issue_no_status_event_came_any_more_once_one_was_lost() {
        let (mut outlet, mut consumer) = outlet();
        let (values, received) = sync_channel(1);
        let (mut read, seen) = watermark(0);
        (outlet.values, outlet.statuses.as_mut().expect("it has them").read) = (values, seen);
        assert!(outlet.put_event(Event::NoMajority) && !outlet.put_event(Event::Majority));
        let mut next = |outlet: &mut Outlet| {
            outlet.show();
            consumer.read(usize::MAX, |_, _| {});
            read.advance(read.get() + 1);
            received.try_recv().expect("there is one")
        };
        assert!(matches!(next(&mut outlet), Value::Event(Event::NoMajority)));
        outlet.put_event(Event::Halted);
        assert!(matches!(next(&mut outlet), Value::Event(Event::Missed { count: 1 })));
        outlet.put_event(Event::Resumed);
        assert!(matches!(next(&mut outlet), Value::Event(Event::Missed { count: 1 })), "it was lost in turn");
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
