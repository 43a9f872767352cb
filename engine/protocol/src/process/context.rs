//! What every part of a process needs, whatever the process's standing: its configuration, what the others have
//! announced of themselves, the group's time, and where effects go.
//!
//! A part that is handed a [`Context`] can send, count and report; it reaches no other part. So a part's signature
//! lists what the part can change.

use crate::config::Config;
use crate::control::clock_sync::ClockSync;
use crate::control::presence::Presence;
use crate::counters::{Counter, Counters};
use crate::event::Event;
use crate::outbox::{Destination, Outbox};
use crate::view::Member;
use alloc::collections::VecDeque;
use bourdon_wire::{CONTROL_CHANNEL, DatagramHeader, Epoch, Incarnation, InstanceId, Instant, Kind, Rank};

/// Events that the application has not fetched; further events without a place in the order are counted and dropped.
/// Each names a rank or a rare fault, so a full queue holds all events of a view several times over.
const EVENTS_MAX: usize = 256;
/// The same, events with a place in the order included. Nothing is delivered while one waits, so only what comes from
/// other processes adds to them: a removal, a view of another instance with what each of its streams lost.
const ORDERED_MAX: usize = 16 * EVENTS_MAX;

/// What every part of a process needs.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Config,
    /// What the others have announced of themselves.
    pub(super) presence: Presence,
    pub(super) clock_sync: ClockSync,
    pub(super) outbox: Outbox,
    pub(super) counters: Counters,
    events: VecDeque<Event>,
    /// How many of these have a place in the order.
    ordered: usize,
}

impl Context {
    pub(super) fn new(config: Config) -> Self {
        let rank = config.rank().unwrap_or(Rank::OBSERVER);
        let (instance, epoch) = (InstanceId::NONE, Epoch(0));
        let header = DatagramHeader::new(config.group, instance, epoch, rank, config.incarnation, CONTROL_CHANNEL);
        Self {
            presence: Presence::new(config.rank(), usize::from(config.members)),
            clock_sync: ClockSync::new(),
            outbox: Outbox::new(header, config.wall_offset_ns),
            counters: Counters::default(),
            events: VecDeque::new(),
            ordered: 0,
            config,
        }
    }

    /// Queues one record, followed by its list or payload, as a datagram of the current epoch.
    pub(super) fn send(&mut self, now: Instant, to: Destination, kind: Kind, parts: [&[u8]; 2]) {
        self.outbox.record(now, to, kind, parts, &mut self.counters);
    }

    /// Queues one record under the given header: of another epoch.
    pub(super) fn send_as(
        &mut self,
        header: DatagramHeader,
        now: Instant,
        to: Destination,
        kind: Kind,
        parts: [&[u8]; 2],
    ) {
        self.outbox.record_as(header, now, to, kind, parts, &mut self.counters);
    }

    /// Adds one to a counter.
    #[inline]
    pub(super) fn count(&mut self, counter: Counter) {
        self.counters.add(counter, 1);
    }

    /// Reports an event to the application.
    #[cold]
    pub(super) fn event(&mut self, event: Event) {
        let is_ordered = event.is_ordered();
        if self.events.len() < if is_ordered { ORDERED_MAX } else { EVENTS_MAX } {
            self.ordered += usize::from(is_ordered);
            self.events.push_back(event);
        } else {
            self.counters.add(Counter::EventsLost, 1);
        }
    }

    /// The next event that the application has not fetched.
    #[inline]
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.ordered -= usize::from(event.is_ordered());
        Some(event)
    }

    /// Whether an event waits that has its place before what would be delivered next.
    #[inline]
    pub(super) fn has_ordered(&self) -> bool {
        self.ordered > 0
    }

    /// How many events wait.
    #[inline]
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// The group's time.
    #[inline]
    pub(super) fn wall(&self, now: Instant) -> u64 {
        now.0.wrapping_add(self.config.wall_offset_ns).wrapping_add_signed(self.clock_sync.offset_ns())
    }

    /// The header of this process's control datagrams in an epoch.
    pub(super) fn header(&self, instance: InstanceId, epoch: Epoch) -> DatagramHeader {
        self.header_of(self.config.incarnation, instance, epoch)
    }

    /// The header that an earlier incarnation of this process used in an epoch.
    pub(super) fn header_of(&self, incarnation: Incarnation, instance: InstanceId, epoch: Epoch) -> DatagramHeader {
        let rank = self.config.rank().unwrap_or(Rank::OBSERVER);
        DatagramHeader::new(self.config.group, instance, epoch, rank, incarnation, CONTROL_CHANNEL)
    }

    /// This process as a member, in its current incarnation; `None` for an observer.
    pub(super) fn own_member(&self) -> Option<Member> {
        let rank = self.config.rank()?;
        Some(Member { rank, incarnation: self.config.incarnation })
    }
}
