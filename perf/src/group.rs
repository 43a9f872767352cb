//! The members of a group, a port in memory between them, and a clock that is a number.
//!
//! [`Member`] is the shipped engine: what a node runs, without the node's sockets.

use crate::guarantee::Guarantee;
use bourdon_engine::{DELIVER_LIMIT, Engine, Item, Time};
use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};
use bourdon_port::{Arrival, Echo, Limits, Port, PortError, Sleep, To, Waker};
use bourdon_protocol::{Config, Refusal, Role};
use bourdon_wire::{ChannelId, ECHO_OFFSET, GroupId, Incarnation, Instant, Rank, Sequence, TopicId, echo_bytes};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

/// What the logs and buffers hold: many bursts, and little enough to stay in a cache of the usual size.
const LOG_BYTES: usize = 4 << 20;
/// How often the members are run until they must have met.
const FORMING_STEPS: usize = 100;

/// A clock that shows what it was set to.
#[derive(Debug, Default)]
struct SetClock(Cell<Instant>);

impl Time for SetClock {
    #[inline]
    fn now(&self) -> Instant {
        self.0.get()
    }

    fn wall_offset_ns(&self) -> u64 {
        0
    }
}

/// Functions whose names contain this are the port's: callgrind leaves them out where it counts the engine alone.
pub const OUTSIDE: &str = "bourdon_outside";
/// Functions whose names contain this are called by the port, and are the engine's again.
pub const INSIDE: &str = "bourdon_inside";

/// The port in memory, entered and left through functions of its own, so that the engine can be counted without it.
#[derive(Debug)]
struct PortOutside {
    port: MemoryPort,
    /// Whether callgrind stops at its functions. Only while callgrind counts: else it would begin to count there.
    is_apart: Cell<bool>,
    /// The next run of datagrams is lost.
    loses: Cell<bool>,
}

impl PortOutside {
    #[inline]
    fn send_or_lose(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        if self.loses.take() {
            return Ok(bytes.len().div_ceil(segment_bytes));
        }
        self.port.send(to, bytes, segment_bytes)
    }
}

impl Port for PortOutside {
    fn send(&mut self, to: To, bytes: &[u8], segment_bytes: usize) -> Result<usize, PortError> {
        if self.is_apart.get() {
            return bourdon_outside_send(self, to, bytes, segment_bytes);
        }
        self.send_or_lose(to, bytes, segment_bytes)
    }

    fn receive(&mut self, limit: usize, mut on_datagram: impl FnMut(Arrival<'_>)) -> Result<usize, PortError> {
        if self.is_apart.get() {
            let port = &mut self.port;
            return bourdon_outside_receive(port, limit, |arrival| bourdon_inside(&mut on_datagram, arrival));
        }
        self.port.receive(limit, on_datagram)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), PortError> {
        self.port.wait(timeout)
    }

    fn sleeper(&mut self, longest: Duration) -> Result<Option<Sleep<'_>>, PortError> {
        self.port.sleeper(longest)
    }

    fn waker(&self) -> Waker {
        self.port.waker()
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

#[inline(never)]
fn bourdon_outside_send(
    outside: &mut PortOutside,
    to: To,
    bytes: &[u8],
    segment_bytes: usize,
) -> Result<usize, PortError> {
    outside.send_or_lose(to, bytes, segment_bytes)
}

#[inline(never)]
fn bourdon_outside_receive(
    port: &mut MemoryPort,
    limit: usize,
    on_datagram: impl FnMut(Arrival<'_>),
) -> Result<usize, PortError> {
    port.receive(limit, on_datagram)
}

#[inline(never)]
fn bourdon_inside(on_datagram: &mut impl FnMut(Arrival<'_>), arrival: Arrival<'_>) {
    on_datagram(arrival);
}

/// One process of the group.
#[derive(Debug)]
pub struct Member {
    engine: Engine<PortOutside, SetClock>,
}

/// Why a measurement can't be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message documents it
pub enum GroupError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Config(#[from] bourdon_protocol::ConfigError),
    #[error("the publisher was refused: {0:?}")]
    Refused(Refusal),
    #[error("the members did not find each other")]
    NotFormed,
    #[error("{delivered} of {published} messages were delivered")]
    Lost { delivered: u64, published: u64 },
}

impl Member {
    fn new(hub: &Hub, role: Role, members: u16, guarantee: Guarantee) -> Result<Self, GroupError> {
        let incarnation = Incarnation(1);
        let mut options = MemoryOptions::new(SocketAddr::from(([239, 0, 0, 1], 4000)));
        if let Role::Member(rank) = role {
            options.echo = Some(Echo { offset: ECHO_OFFSET, bytes: echo_bytes(rank, ChannelId(0), incarnation) });
        }
        options.receive_buffer_bytes = 2 * LOG_BYTES;
        let port = PortOutside { port: hub.open(options)?, is_apart: Cell::new(false), loses: Cell::new(false) };
        let mut config = Config::new(GroupId::of("perf"), members, role);
        (config.order, config.reliability, config.relay) = (guarantee.order, guarantee.reliability, guarantee.relay);
        config.incarnation = incarnation;
        (config.limits.log_bytes, config.limits.receive_log_bytes) = (LOG_BYTES, LOG_BYTES);
        config.limits.window_bytes = LOG_BYTES / 2;
        Ok(Self { engine: Engine::with_clock(port, config, SetClock::default())? })
    }

    /// Sets its clock.
    #[inline]
    pub fn set_time(&mut self, now: Instant) {
        self.engine.clock().0.set(now);
    }

    /// Whether the port's functions are those named [`OUTSIDE`] and [`INSIDE`]: set while callgrind counts.
    pub fn set_apart(&self, is_apart: bool) {
        self.engine.port().is_apart.set(is_apart);
    }

    /// Loses the next run of datagrams that it sends.
    pub fn lose_next(&self) {
        self.engine.port().loses.set(true);
    }

    /// Publishes a message; sends what has been packed once that is a full run.
    ///
    /// # Errors
    /// If the window is full: the caller has not let the others read.
    #[inline]
    pub fn publish(&mut self, payload: &[u8]) -> Result<Sequence, GroupError> {
        self.engine.try_publish(TopicId(7), payload).map_err(GroupError::Refused)
    }

    /// Whether there is nothing to do before [`Member::due`].
    pub fn is_idle(&self) -> bool {
        !self.engine.has_work() && self.engine.port().port.is_empty()
    }

    /// When something is to be done though nothing comes.
    pub fn due(&self) -> Instant {
        self.engine.process().next_deadline()
    }

    /// Sends what has been published.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn flush(&mut self) -> Result<(), GroupError> {
        Ok(self.engine.flush()?)
    }

    /// Receives, delivers, keeps time and sends.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn poll(&mut self, now: Instant, on_delivery: impl FnMut(Item<'_>)) -> Result<(), GroupError> {
        self.engine.clock().0.set(now);
        self.engine.poll(DELIVER_LIMIT, &|_| true, on_delivery)?;
        Ok(())
    }
}

/// A formed group.
#[derive(Debug)]
pub struct Group {
    /// The members by rank, then the observers. Where the order is total, the first is the sequencer: its stream is the
    /// order, so its messages need no order run.
    pub members: Vec<Member>,
    /// The clock's time.
    pub now: Instant,
}

impl Group {
    /// Opens so many members and observers and runs them until each knows the members.
    ///
    /// # Errors
    /// If the port in memory can't be opened.
    pub fn form(members: u16, observers: u16, guarantee: Guarantee) -> Result<Self, GroupError> {
        let (hub, mut now) = (Hub::new(), Instant(0));
        let roles = (0..members).map(|rank| Role::Member(Rank(rank))).chain((0..observers).map(|_| Role::Observer));
        let open = |role| Member::new(&hub, role, members, guarantee);
        let mut group: Vec<Member> = roles.map(open).collect::<Result<_, _>>()?;
        for _ in 0..FORMING_STEPS {
            now = now + 1_000_000;
            for member in &mut group {
                member.poll(now, |_| {})?;
            }
        }
        if group.iter().all(|member| member.engine.process().is_formed()) {
            Ok(Self { members: group, now })
        } else {
            Err(GroupError::NotFormed)
        }
    }

    /// Lets `ns` pass.
    pub fn pass(&mut self, ns: u64) -> Instant {
        self.now = self.now + ns;
        self.now
    }
}
