//! Where the application's threads receive: one end of a ring each.
//!
//! A thread that leaves work for one that sleeps must wake it, but not for every message: doorbells show which thread
//! sleeps.
//!
//! Invariants: one thread per handle (they are `Send`, not shared); a call never blocks but [`Subscription::wait`].

use crate::delivery::Delivery;
use crate::threaded::frames::{Delivered, EVENT_TAG, Value};
use bourdon_port::Waker;
use bourdon_ring::signal::{Bell, Sleeper, WatermarkReader};
use bourdon_ring::spsc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The subscriber's end of an outlet.
pub(crate) struct Inlet {
    pub(crate) consumer: spsc::Consumer,
    pub(crate) values: Receiver<Value>,
    pub(crate) sleeper: Sleeper,
    pub(crate) waker: Waker,
    pub(crate) overruns: WatermarkReader,
}

/// Where one of the application's threads receives.
pub struct Subscription {
    inlet: Inlet,
    /// Bytes read since the data agent was last woken for room.
    freed_bytes: usize,
    gate: Bell,
    agent: Waker,
}

impl Subscription {
    pub(crate) fn new(inlet: Inlet, gate: &Bell, agent: &Waker) -> Self {
        Self { inlet, freed_bytes: 0, gate: gate.clone(), agent: agent.clone() }
    }

    /// Hands out at most `limit` messages and events. Returns how many. Zero means that there is none.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut on_delivery: impl FnMut(Delivery<'_>)) -> usize {
        let (freed_bytes, values) = (&mut self.freed_bytes, &self.inlet.values);
        let count = self.inlet.consumer.read(limit, |tag, frame| {
            *freed_bytes += spsc::HEADER_BYTES + frame.len();
            if tag == EVENT_TAG {
                on_delivery(match values.try_recv().expect("its value was sent before its frame was shown") {
                    Value::Event(event) => Delivery::Event(event),
                    Value::Skipped(count) => Delivery::Skipped(count),
                    Value::SnapshotRequest(request) => Delivery::SnapshotRequest(request),
                    Value::Snapshot(snapshot) => Delivery::Snapshot(snapshot),
                });
            } else {
                on_delivery(Delivery::Message(&Delivered::read(frame)));
            }
        });
        // A gated agent is woken for a batch's worth of room, not for every message's.
        if count > 0
            && (self.freed_bytes >= self.inlet.consumer.capacity_bytes() / 4 || !self.inlet.consumer.has_frames())
        {
            self.freed_bytes = 0;
            if self.gate.must_ring() {
                self.agent.wake();
            }
        }
        count
    }

    /// Sleeps until there is a message, the node has ended, or `longest` has passed; may return early.
    ///
    /// # Errors
    /// The error of poll(2).
    pub fn wait(&mut self, longest: Duration) -> std::io::Result<()> {
        let inlet = &mut self.inlet;
        inlet.sleeper.lie_down();
        let waited = if inlet.consumer.has_frames() || inlet.consumer.is_abandoned() {
            Ok(())
        } else {
            let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&inlet.waker, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        inlet.sleeper.get_up();
        inlet.waker.clear();
        waited
    }

    /// Whether nothing will ever come again.
    pub fn has_ended(&mut self) -> bool {
        self.inlet.consumer.is_abandoned() && !self.inlet.consumer.has_frames()
    }

    /// How many messages this observer has skipped because this subscription's ring was full.
    pub fn overruns(&self) -> u64 {
        self.inlet.overruns.get()
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
