//! The engine: a process and its port, driven by the thread that polls it.
//!
//! [`Engine::poll`] receives, delivers, keeps time and sends, all within the call. One clock reading a burst:
//! everything that one call delivers carries the same time.
//!
//! The engine is generic over its port and its clock, so that gates count the very code that nodes run, over a port in
//! memory. What a node has beside it (settings, locks, rings, threads) is in crate `bourdon`.

mod clock;
mod store;

pub use clock::{Clock, Time};
pub use store::{Store, StoreState};

use bourdon_port::{Port, PortError, Sleep, To};
use bourdon_protocol::control::detector::Judgement;
use bourdon_protocol::{
    self as protocol, Again, CallId, Claim, Config, ControlPlane, Coordinator, Counters, Destination, DirectAnswer,
    DirectContent, DirectMessage, DirectOutcome, DirectRequest, Event, FromControl, Message, Outgoing, Process,
    Recovery, Refusal, Satisfied, SnapshotAnswer, SnapshotTicket, ToControl,
};
use bourdon_wire::{Incarnation, Instant, Rank, Sequence, TopicId};
use std::collections::VecDeque;
use std::time::Duration;

/// The most datagrams one call to [`Engine::poll`] takes from the network: several full segmentation runs, and few
/// enough that timers keep their time.
const RECEIVE_LIMIT: usize = 512;

/// Runs of datagrams that are discarded when a process begins: more than any receive buffer holds.
const STALE_RUNS_MAX: usize = 1 << 10;

/// The most messages that one call should deliver, so that timers keep their time; the next call delivers the rest.
pub const DELIVER_LIMIT: usize = 1 << 16;

/// Sealed datagrams of so many bytes make a publication send at once instead of waiting for the next call: one full
/// segmentation run. What waits longer leaves the caches before the kernel reads it.
const BACKLOG_SEND_BYTES: usize = 65_507;

/// Where a port sends what goes to a destination of the protocol.
#[inline]
pub fn place(destination: Destination) -> To {
    match destination {
        Destination::Group => To::Group,
        Destination::Peer(address) => To::Peer(address.into()),
        Destination::Broadcast => To::Broadcast,
    }
}

/// What [`Engine::poll`] hands out.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A message.
    Message(&'a Message<'a>),
    /// An event.
    Event(Event),
}

/// Where a durable member's records are stored.
#[derive(Debug)]
struct Storing {
    store: Box<dyn Store>,
    /// What the member delivers again, after a restart.
    again: VecDeque<store::Kept>,
    /// How many records the process knows to be stored.
    stored: u64,
}

/// A process and its port.
#[derive(Debug)]
pub struct Engine<P, C = Clock> {
    process: Process,
    port: P,
    clock: C,
    /// The last clock reading; publications between two readings share it.
    now: Instant,
    /// Whether something was published since the last reading.
    in_burst: bool,
    /// How many datagrams are [`BACKLOG_SEND_BYTES`].
    backlog_send: u64,
    /// Whether what the last delivery brought about (order, acknowledgements) is still to be sent.
    owes: bool,
    /// Whether the port holds datagrams of the time before the process began.
    is_stale: bool,
    /// Whether there may be something to deliver though nothing has been received: own messages, or what was left over.
    may_deliver: bool,
    /// Whether datagrams were sent or received since the memory for the next was brought near.
    is_cold: bool,
    /// Datagrams the port handed over.
    port_datagrams: u64,
    /// Where a durable member's records are stored, and what it delivers again.
    storing: Option<Box<Storing>>,
}

impl<P: Port> Engine<P> {
    /// A process of a group over an open port, by the host's clock. The configuration's address and clock offset are
    /// filled in here.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(port: P, config: Config) -> Result<Self, bourdon_protocol::ConfigError> {
        Self::with_clock(port, config, Clock::start())
    }
}

impl<P: Port, C: Time> Engine<P, C> {
    /// As [`Engine::new`], by another clock.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn with_clock(port: P, mut config: Config, clock: C) -> Result<Self, bourdon_protocol::ConfigError> {
        config.address = port.local_address().into();
        config.wall_offset_ns = clock.wall_offset_ns();
        let now = clock.now();
        Ok(Self {
            backlog_send: (BACKLOG_SEND_BYTES / config.limits.mtu_bytes.max(1)).max(1) as u64,
            process: Process::new(now, config)?,
            port,
            clock,
            now,
            in_burst: false,
            owes: false,
            is_stale: false,
            may_deliver: true,
            is_cold: true,
            port_datagrams: 0,
            storing: None,
        })
    }

    /// Begins now: for the process, no time has passed since it was made. Its application gives and takes `snapshots`,
    /// or it was configured so.
    pub fn begin(&mut self, snapshots: bool) {
        (self.is_stale, self.owes) = (true, true);
        self.now = self.clock.now();
        let mut config = self.process.config().clone();
        config.snapshots |= snapshots;
        self.process = Process::new(self.now, config).expect("it has taken this configuration before");
        self.restore().expect("it has read these records before");
    }

    /// From now on this process, a member at the level `durable`, stores its records, and it begins with those that are
    /// stored.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn store_in(&mut self, store: Box<dyn Store>) -> Result<(), PortError> {
        self.storing = Some(Box::new(Storing { store, again: VecDeque::new(), stored: 0 }));
        self.owes = true;
        self.restore()
    }

    /// How the storage is, if this process has one.
    pub fn storage(&self) -> Option<StoreState> {
        self.storing.as_ref().map(|storing| storing.store.state())
    }

    fn restore(&mut self) -> Result<(), PortError> {
        let Some(storing) = &mut self.storing else { return Ok(()) };
        let (records, config) = (storing.store.read()?, self.process.config().clone());
        storing.again.clear();
        let emit = |again: Again<'_>| storing.again.push_back(store::Kept::new(again));
        self.process = Process::restore(self.now, config, &records, emit).expect("it has taken this configuration");
        Ok(())
    }

    /// Delivers what a restarted member delivers again, at most `limit`; returns how much.
    #[cold]
    fn deliver_again(&mut self, limit: usize, on_item: &mut impl FnMut(Item<'_>)) -> Result<usize, PortError> {
        self.store()?;
        let Some(storing) = &mut self.storing else { return Ok(0) };
        if self.process.holds_back() {
            return Ok(0); // the application's state comes first
        }
        let count = storing.again.len().min(limit);
        storing.again.drain(..count).for_each(|kept| kept.hand_out(on_item));
        self.owes |= !storing.again.is_empty();
        Ok(count)
    }

    /// Hands records to the store, and what is stored to the process: after what was sent, and whenever a call finds
    /// nothing to do, or sleeps. What comes meanwhile waits for the next sync; the windows soon leave no other work.
    #[cold]
    fn store(&mut self) -> Result<(), PortError> {
        self.now = self.clock.now();
        let Some(storing) = &mut self.storing else { return Ok(()) };
        self.process.take_records(self.now, |record| storing.store.append(record));
        let stored = storing.store.stored()?;
        if std::mem::replace(&mut storing.stored, stored) < stored {
            self.process.stored(self.now, stored);
            self.may_deliver = true;
        }
        self.owes |= self.process.has_to_send();
        self.is_cold = true; // the next call that finds nothing does this again
        Ok(())
    }

    /// Publishes a message on a topic. It goes out with the next [`Engine::flush`] or [`Engine::poll`].
    ///
    /// # Errors
    /// Why it can't be taken now; nothing of it was sent. Where it [is transient](Refusal::is_transient), poll and try
    /// again.
    #[inline]
    pub fn try_publish(&mut self, topic: TopicId, payload: &[u8]) -> Result<Sequence, Refusal> {
        self.begin_burst();
        // It closes no datagram, so no more waits to be sent than before.
        match self.process.append(topic, payload) {
            Some(sequence) => Ok(sequence),
            None => self.publish_plain(topic, payload),
        }
    }

    /// As [`Engine::try_publish`], where the open datagram has no room for the message.
    #[inline(never)]
    fn publish_plain(&mut self, topic: TopicId, payload: &[u8]) -> Result<Sequence, Refusal> {
        self.try_publish_with(&Outgoing { topic, ..Outgoing::default() }, payload)
    }

    /// Publishes a message with all that can go with it.
    ///
    /// # Errors
    /// As [`Engine::try_publish`].
    #[inline]
    pub fn try_publish_with(&mut self, outgoing: &Outgoing, payload: &[u8]) -> Result<Sequence, Refusal> {
        self.begin_burst();
        let sequence = self.process.try_publish(self.now, outgoing, payload)?;
        if self.process.backlog() >= self.backlog_send {
            // A port that fails returns the error again on the next poll, which can report it.
            let _ = self.transmit_sealed();
        }
        Ok(sequence)
    }

    /// Claims space for a message of at most one datagram, with all that can go with it, to be written in place and
    /// committed.
    ///
    /// # Errors
    /// As [`Engine::try_publish`].
    #[inline]
    pub fn try_claim(&mut self, outgoing: &Outgoing, length: usize) -> Result<Claim<'_>, Refusal> {
        self.begin_burst();
        if self.process.backlog() >= self.backlog_send {
            let _ = self.transmit_sealed();
        }
        self.process.try_claim(self.now, outgoing, length)
    }

    #[inline]
    fn begin_burst(&mut self) {
        if !self.in_burst {
            self.in_burst = true;
            self.now = self.clock.now();
        }
    }

    /// Whether the next [`Engine::poll`] has something to do though nothing has come and nothing is due.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.in_burst || self.owes || self.may_deliver || self.process.has_events() || self.process.backlog() > 0
    }

    /// Sends what has been published.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn flush(&mut self) -> Result<(), PortError> {
        self.now = self.clock.now();
        self.transmit()
    }

    /// Sends, receives, delivers, keeps time. Events are delivered in their place; one call delivers messages or
    /// events that have a place among them, not both. Delivers at most `limit` messages, give or take one datagram's.
    /// Returns how much was done: zero means that there was nothing to do. What a delivery brings about goes out with
    /// the next call, together with what the application publishes in answer: so do not stop calling while this returns
    /// more than zero.
    ///
    /// Holds back what comes after a message of another group that has not `passed` there: ask the process of that
    /// group ([`Process::has_passed`]), if this thread runs one; if not, it has.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn poll(
        &mut self,
        limit: usize,
        passed: Satisfied<'_>,
        mut on_item: impl FnMut(Item<'_>),
    ) -> Result<usize, PortError> {
        if self.in_burst || self.owes {
            if self.is_stale {
                self.discard_stale()?;
            }
            self.flush()?;
            if self.storing.is_some() {
                let count = self.deliver_again(limit, &mut on_item)?;
                if count > 0 {
                    return Ok(count);
                }
            }
        }
        if self.process.has_events()
            && let Some(count) = self.hand_events_out(&mut on_item)
        {
            return Ok(count);
        }
        let process = &mut self.process;
        let mut now = None;
        let clock = &self.clock;
        let received = self.port.receive(RECEIVE_LIMIT, |arrival| {
            let now = *now.get_or_insert_with(|| clock.now());
            process.take_in(now, arrival.bytes, arrival.kernel_receive_ns, arrival.to_all);
        })?;
        self.port_datagrams += received as u64;
        self.now = now.unwrap_or_else(|| clock.now());
        // Most rounds of a spinning thread find no work: then only the clock is read.
        let looks = if received > 0 {
            self.is_cold = true;
            self.process.order(self.now);
            true
        } else {
            self.may_deliver || self.process.is_wedged() || self.now >= self.process.delivery_due()
        };
        let mut delivered = 0;
        if looks {
            let emit = |message: &Message<'_>| on_item(Item::Message(message));
            delivered = self.process.deliver_after(self.now, limit, passed, emit);
            self.may_deliver = delivered > 0 || limit == 0 || self.process.waits_elsewhere();
        }
        let timer_due = self.now >= self.process.next_deadline();
        if timer_due {
            self.process.on_timer(self.now);
        }
        if delivered > 0 {
            // The application may have an answer; it goes out together with what else is due, on the next call.
            self.owes = timer_due || self.process.has_to_send();
        } else if timer_due || received > 0 && self.process.has_to_send() || self.process.backlog() > 0 {
            self.transmit()?;
        } else if received == 0 && self.is_cold {
            // The first call that finds nothing: no message waits for this.
            self.is_cold = false;
            self.process.warm();
            if self.storing.is_some() {
                self.store()?;
            }
        }
        Ok(received + delivered + usize::from(timer_due && self.process.has_events()))
    }

    /// Discards what has waited in the port since it was opened, before the process began: a member may be gone since.
    /// It is the thread that polls which does it: a port may belong to the first thread that uses it.
    #[cold]
    fn discard_stale(&mut self) -> Result<(), PortError> {
        self.is_stale = false;
        for _ in 0..STALE_RUNS_MAX {
            if self.port.receive(RECEIVE_LIMIT, |_| {})? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Hands out the events that wait, once the control plane has been handed what was reported with them: what the
    /// application asks of it because of an event comes after what caused the event. So they go out before anything
    /// more is received, which is reported first. Returns how many if one of them has its place before what would be
    /// delivered: the next call delivers that.
    #[cold]
    fn hand_events_out(&mut self, on_item: &mut impl FnMut(Item<'_>)) -> Option<usize> {
        self.process.pass_reports(self.now);
        let (mut count, mut stops) = (0, false);
        while self.process.reports_waiting() == 0
            && let Some(event) = self.process.poll_event()
        {
            count += 1;
            stops |= event.is_ordered();
            on_item(Item::Event(event));
        }
        self.may_deliver |= stops;
        self.owes |= count > 0; // the application may have an answer
        stops.then_some(count)
    }

    #[inline]
    fn transmit(&mut self) -> Result<(), PortError> {
        (self.in_burst, self.owes) = (false, false);
        self.send_packed(true)
    }

    /// Sends in the middle of a burst: a datagram that was sealed before it is full would cost a call of its own.
    #[cold]
    fn transmit_sealed(&mut self) -> Result<(), PortError> {
        let sent = self.send_packed(false);
        self.now = self.clock.now();
        sent
    }

    #[inline]
    fn send_packed(&mut self, seals: bool) -> Result<(), PortError> {
        (self.may_deliver, self.is_cold) = (true, true);
        let (port, mut failed) = (&mut self.port, None);
        self.process.transmit_packed(self.now, seals, |to, bytes, segment_bytes| {
            port.send(place(to), bytes, segment_bytes).unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        failed.map_or_else(|| self.port.flush(), Err)
    }

    /// Sleeps until something may have come or something is due, at most for `longest`. Returns at once where the port
    /// spins.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn wait(&mut self, longest: Duration) -> Result<(), PortError> {
        match self.before_sleep(longest)? {
            Some(longest) => self.port.wait(longest),
            None => Ok(()),
        }
    }

    /// Prepares a sleep for this engine among others, of at most `longest`; none if the thread must not sleep. After
    /// it, and if there was none, call [`Engine::end_sleep`].
    ///
    /// # Errors
    /// If the port is broken.
    pub fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        match self.before_sleep(longest)? {
            Some(longest) => self.port.sleeper(longest),
            None => Ok(None),
        }
    }

    /// Takes in what the kernel reports after a sleep.
    ///
    /// # Errors
    /// If the port is broken.
    pub fn end_sleep(&mut self) -> Result<(), PortError> {
        self.port.wait(Duration::ZERO)
    }

    /// Sends what is to go out, and returns how long the thread may sleep; not at all if something is due.
    fn before_sleep(&mut self, longest: Duration) -> Result<Option<Duration>, PortError> {
        if self.storing.is_some() {
            self.store()?;
        }
        if self.in_burst || self.owes {
            self.flush()?;
        }
        if self.process.has_events() {
            return Ok(None);
        }
        let until_due = self.process.next_deadline().since(self.clock.now());
        // What the network did not take is offered again soon.
        let until_due = if self.process.backlog() > 0 { until_due.min(100_000) } else { until_due };
        Ok((until_due > 0).then(|| longest.min(Duration::from_nanos(until_due))))
    }

    /// Asks for a barrier: [`Event::Synced`] reports when everything that any member sent before it has been delivered
    /// everywhere. A payload of at most one datagram is delivered at every process between what was before and after.
    ///
    /// # Errors
    /// If this process is no member, too many barriers wait, or the payload is too long.
    pub fn sync(&mut self, payload: Option<&[u8]>) -> Result<(), Refusal> {
        self.now = self.clock.now();
        self.owes = true;
        self.process.sync(self.now, payload)
    }

    /// Sends a message or a request of at most one datagram, beside the stream. [`Engine::poll_outcome`] reports
    /// whether it was taken.
    ///
    /// # Errors
    /// If it is too long, too many are under way, no receiver was heard, or the port can't broadcast.
    pub fn send(&mut self, to: protocol::To<'_>, content: &DirectContent<'_>) -> Result<Option<CallId>, Refusal> {
        if to == protocol::To::All && !self.port.can_broadcast() {
            return Err(Refusal::Unsupported { setting: "network.transport" });
        }
        self.now = self.clock.now();
        self.owes = true;
        self.process.send(self.now, to, content)
    }

    /// The next direct message received. If the application never fetches them, 256 wait and the others are refused.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.process.poll_direct()
    }

    /// The next request received. If the application never fetches them, 256 wait and the others are refused.
    pub fn poll_request(&mut self) -> Option<DirectRequest> {
        self.process.poll_request()
    }

    /// The next answer to a request of this process.
    pub fn poll_answer(&mut self) -> Option<DirectAnswer> {
        self.process.poll_answer()
    }

    /// The outcome of the next direct message sent.
    pub fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.process.poll_outcome()
    }

    /// Has the coordinator asked on behalf of the application, which returns how much there was to do: that goes out
    /// with the next call.
    pub fn coordinate(&mut self, ask: impl FnOnce(&mut Coordinator, Instant) -> usize) -> usize {
        let count = ask(self.process.coordinator(self.now), self.now);
        self.owes |= count > 0;
        count
    }

    /// Takes the control plane out, for a thread of its own: see [`Process::release_control`].
    pub fn release_control(&mut self) -> Box<ControlPlane> {
        self.process.release_control()
    }

    /// The next value for that coordinator.
    #[inline]
    pub fn poll_report(&mut self) -> Option<ToControl> {
        self.process.poll_report()
    }

    /// Gives a value back that found no room.
    pub fn return_report(&mut self, report: ToControl) {
        self.process.return_report(report);
    }

    /// Does what the coordinator gives.
    pub fn obey(&mut self, order: FromControl) {
        self.owes = true;
        self.process.obey(self.now, order);
    }

    /// The port is at another address, or was opened again at its own; evidence of this process's end is found at
    /// `link_port`. See [`Process::move_to`].
    pub fn move_to(&mut self, link_port: u16) {
        self.now = self.clock.now();
        self.owes = true;
        self.process.move_to(self.now, self.port.local_address().into(), link_port);
    }

    /// Leaves the group; [`Event::Left`] reports when the others have gone on without this process.
    pub fn leave(&mut self) {
        self.now = self.clock.now();
        self.process.leave(self.now);
    }

    /// What [`Engine::recover`] would do now: see [`Process::recovery`].
    pub fn recovery(&mut self) -> Recovery {
        self.now = self.clock.now();
        self.process.recovery(self.now)
    }

    /// Founds a new instance of the group by hand: see [`Process::recover`].
    ///
    /// # Errors
    /// As there.
    pub fn recover(&mut self) -> Result<Recovery, Recovery> {
        self.now = self.clock.now();
        self.owes = true;
        self.process.recover(self.now)
    }

    /// Makes another member the sequencer: the hot publisher, whose messages then need no second hop.
    pub fn hand_over(&mut self, to: Rank) {
        self.now = self.clock.now();
        self.process.hand_over(self.now, to);
    }

    /// Begins a snapshot at this place, if one is wanted: see [`Process::begin_snapshot`]. None before all has been
    /// delivered that a restarted member delivers again.
    pub fn begin_snapshot(&mut self) -> Option<SnapshotTicket> {
        self.owes = true;
        if self.storing.as_ref().is_some_and(|storing| !storing.again.is_empty()) {
            return None;
        }
        self.process.begin_snapshot(self.now)
    }

    /// Takes the application's answer to it: see [`Process::finish_snapshot`].
    pub fn finish_snapshot(&mut self, ticket: SnapshotTicket, answer: SnapshotAnswer) {
        self.now = self.clock.now();
        self.owes = true;
        self.process.finish_snapshot(self.now, ticket, answer);
    }

    /// The application's state, as it was stored or at another member, if it has come: see [`Process::take_snapshot`].
    pub fn take_snapshot(&mut self) -> Option<Vec<u8>> {
        (self.may_deliver, self.owes) = (true, true);
        self.process.take_snapshot()
    }

    /// Hard evidence that this incarnation of a process is gone; a node's links bring it by themselves.
    pub fn on_evidence(&mut self, rank: Rank, incarnation: Incarnation) {
        self.now = self.clock.now();
        self.owes = true;
        self.process.on_evidence(self.now, rank, incarnation);
    }

    /// The detectors of the group that this is a channel of report what they suspect, by the ranks of this channel; see
    /// [`Process::judgement`].
    pub fn judge(&mut self, judgement: Judgement) {
        self.now = self.clock.now();
        self.owes = true;
        self.process.judge(self.now, judgement);
    }

    /// Below which of this process's own messages all are acknowledged: see [`Process::own_acknowledged`].
    pub fn own_acknowledged(&mut self) -> Option<Sequence> {
        self.process.own_acknowledged()
    }

    /// Whether this process has something to do for its messages before it may end: see [`Process::owes_own`].
    pub fn owes_own(&mut self) -> bool {
        self.process.owes_own()
    }

    /// The state machine itself, to read.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The port.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port, to change it.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// The clock.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// The last reading of the clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How many datagrams the port has handed over, discarded ones included.
    pub fn port_datagrams(&self) -> u64 {
        self.port_datagrams
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        self.process.counters()
    }
}
