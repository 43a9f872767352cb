//! Seeded loss, duplication, reordering and delay around any transport.
//!
//! The kernel's own network emulation is missing on many hosts, takes root, and is not repeatable. A wrapper around the
//! port injects the same faults without privilege, and from a seed: the same sequence of arrivals meets the same
//! faults.
//!
//! Faults strike what is *received*, at each receiver on its own, as the losses of a multicast do. For each arrival
//! these are decided, in this order:
//!
//! 1. *drop*: it is gone.
//! 2. *duplicate*: a copy is handed out at once, whatever becomes of the original.
//! 3. *delay*: it is held back for a fixed time.
//! 4. *reorder*: else it is held back until one to [`REORDER_DISTANCE_MAX`] later ones have come, or [`REORDER_HOLD`]
//!    has passed, so that a last one is late and not lost.
//!
//! Invariants:
//! - The nth arrival draws the same numbers whatever the percentages, so that raising one leaves the others' victims.
//!   Time decides only when a held datagram is handed out, never which ones are held.
//! - At most [`HELD_MAX`] datagrams are held; one more passes unharmed and is counted as such.
//! - A wait returns in time for a held datagram.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::{Arrival, HostChange, Limits, Port, PortError, Sleep, To, Waker};

/// The most datagrams held back at once: at 1408 bytes each under 6 MiB, and 10 ms of delay at 400,000 a second.
pub const HELD_MAX: usize = 4096;

/// The most later arrivals that overtake a reordered datagram.
pub const REORDER_DISTANCE_MAX: u64 = 8;

/// How long a reordered datagram waits for others to overtake it.
pub const REORDER_HOLD: Duration = Duration::from_millis(2);

/// What to inject. Percentages are from 0 to 100 and independent of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// How many arrivals are lost.
    pub drop_percent: f64,
    /// How many arrive twice.
    pub duplicate_percent: f64,
    /// How many are overtaken by later ones.
    pub reorder_percent: f64,
    /// How many come late by `delay`.
    pub delay_percent: f64,
    /// How late.
    pub delay: Duration,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Faults {
    /// Whether a port needs no [`Faulty`] around it.
    pub fn are_none(&self) -> bool {
        [self.drop_percent, self.duplicate_percent, self.reorder_percent, self.delay_percent]
            .iter()
            .all(|percent| *percent <= 0.0)
    }
}

/// What was injected so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Datagrams that came in from the port below.
    pub arrivals: u64,
    /// Of these, dropped.
    pub drops: u64,
    /// Of these, handed out twice.
    pub duplicates: u64,
    /// Of these, held back for later ones to overtake.
    pub reorders: u64,
    /// Of these, held back for a time.
    pub delays: u64,
    /// Of these, to be held back, but passed on because [`HELD_MAX`] were held already.
    pub passed_for_want_of_room: u64,
}

/// A port whose datagrams meet with [`Faults`] on their way in.
#[derive(Debug)]
pub struct Faulty<P> {
    port: P,
    state: State,
}

/// All but the port, so that the port can hand datagrams to it.
#[derive(Debug)]
struct State {
    faults: Faults,
    random: fastrand::Rng,
    injected: Injected,
    /// In order of their time, since all are held equally long.
    delayed: VecDeque<HeldDatagram>,
    /// In order of arrival, and so of their time. Never more than [`REORDER_DISTANCE_MAX`], since each arrival adds at
    /// most one and none outstays so many.
    reordered: VecDeque<HeldDatagram>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct HeldDatagram {
    bytes: Vec<u8>,
    kernel_receive_ns: Option<u64>,
    to_all: bool,
    release_at: Instant,
    /// Or once so many have arrived.
    release_at_arrival: u64,
}

impl HeldDatagram {
    fn arrival(&self) -> Arrival<'_> {
        Arrival { bytes: &self.bytes, kernel_receive_ns: self.kernel_receive_ns, to_all: self.to_all }
    }
}

impl<P: Port> Faulty<P> {
    /// Puts `faults` around `port`.
    pub fn new(port: P, faults: Faults) -> Self {
        let state = State {
            faults,
            random: fastrand::Rng::with_seed(faults.seed),
            injected: Injected::default(),
            delayed: VecDeque::new(),
            reordered: VecDeque::new(),
            spare: Vec::new(),
        };
        Self { port, state }
    }

    /// The port within.
    pub fn inner(&self) -> &P {
        &self.port
    }

    /// The port within, for calls that only it has.
    pub fn inner_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// What was injected so far.
    pub fn injected(&self) -> Injected {
        self.state.injected
    }
}

impl State {
    /// Decides the fate of one arrival and returns how many datagrams that handed out.
    fn arrive(&mut self, arrival: Arrival<'_>, now: Instant, on_datagram: &mut impl FnMut(Arrival<'_>)) -> usize {
        self.injected.arrivals += 1;
        // All drawn, whether used or not: see the invariants.
        let [drop, duplicate, delay, reorder] = [(); 4].map(|()| self.random.f64() * 100.0);
        let distance = self.random.u64(1..=REORDER_DISTANCE_MAX);
        let faults = self.faults;
        let mut count = 0;
        if drop < faults.drop_percent {
            self.injected.drops += 1;
        } else {
            if duplicate < faults.duplicate_percent {
                self.injected.duplicates += 1;
                on_datagram(arrival);
                count += 1;
            }
            let is_delayed = delay < faults.delay_percent;
            let is_reordered = !is_delayed && reorder < faults.reorder_percent;
            let has_room = self.delayed.len() + self.reordered.len() < HELD_MAX;
            if is_delayed && has_room {
                self.injected.delays += 1;
                let held = self.hold(arrival, now + faults.delay, u64::MAX);
                self.delayed.push_back(held);
            } else if is_reordered && has_room {
                self.injected.reorders += 1;
                let held = self.hold(arrival, now + REORDER_HOLD, self.injected.arrivals + distance);
                self.reordered.push_back(held);
            } else {
                self.injected.passed_for_want_of_room += u64::from(is_delayed || is_reordered);
                on_datagram(arrival);
                count += 1;
            }
        }
        // Also a dropped one counts as having overtaken: loss must not make others late.
        count + self.release_overtaken(on_datagram)
    }

    fn hold(&mut self, arrival: Arrival<'_>, release_at: Instant, release_at_arrival: u64) -> HeldDatagram {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(arrival.bytes);
        let Arrival { kernel_receive_ns, to_all, .. } = arrival;
        HeldDatagram { bytes, kernel_receive_ns, to_all, release_at, release_at_arrival }
    }

    fn release_overtaken(&mut self, on_datagram: &mut impl FnMut(Arrival<'_>)) -> usize {
        let (mut count, mut place) = (0, 0);
        while let Some(held) = self.reordered.get(place) {
            if held.release_at_arrival > self.injected.arrivals {
                place += 1;
            } else if let Some(held) = self.reordered.remove(place) {
                on_datagram(held.arrival());
                self.spare.push(held.bytes);
                count += 1;
            }
        }
        count
    }

    /// Hands out what has been held for long enough, up to `limit`.
    fn release_due(&mut self, now: Instant, limit: usize, on_datagram: &mut impl FnMut(Arrival<'_>)) -> usize {
        let mut count = 0;
        for queue in [&mut self.delayed, &mut self.reordered] {
            while count < limit
                && let Some(held) = queue.pop_front_if(|held| held.release_at <= now)
            {
                on_datagram(held.arrival());
                self.spare.push(held.bytes);
                count += 1;
            }
        }
        count
    }

    /// At most `longest`: how long until a held datagram is to be handed out.
    fn until_release(&self, longest: Duration) -> Duration {
        let first =
            [&self.delayed, &self.reordered].into_iter().filter_map(|queue| queue.front()).map(|it| it.release_at);
        first.min().map_or(longest, |at| longest.min(at.saturating_duration_since(Instant::now())))
    }
}

impl<P: Port> Port for Faulty<P> {
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        self.port.send(to, bytes, segment_bytes)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.port.flush()
    }

    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        let now = Instant::now();
        let mut count = self.state.release_due(now, limit, &mut on_datagram);
        if count < limit {
            let state = &mut self.state;
            let mut passed = 0;
            self.port.receive(limit - count, |arrival| passed += state.arrive(arrival, now, &mut on_datagram))?;
            count += passed;
        }
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        let timeout = self.state.until_release(timeout);
        self.port.wait(timeout)
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        let longest = self.state.until_release(longest);
        if longest.is_zero() { Ok(None) } else { self.port.sleeper(longest) }
    }

    fn waker(&self) -> Waker {
        self.port.waker()
    }

    fn can_broadcast(&self) -> bool {
        self.port.can_broadcast()
    }

    fn follow_host(&mut self) -> Result<Option<HostChange>, PortError> {
        self.port.follow_host()
    }

    fn limits(&self) -> Limits {
        self.port.limits()
    }

    fn local_address(&self) -> SocketAddr {
        self.port.local_address()
    }

    fn io(&self) -> &str {
        self.port.io()
    }
}
