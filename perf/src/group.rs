//! The members of a group, a port in memory between them, and a clock that is a number.
//!
//! [`Member`] is the shipped engine: what a node runs, without the node's sockets.

use crate::guarantee::Guarantee;
use bourdon::{Engine, Time};
use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};
use bourdon_port::{Echo, PortError};
use bourdon_protocol::{Config, Delivery, Refusal, Role};
use bourdon_wire::{ChannelId, ECHO_OFFSET, GroupId, Incarnation, Instant, Rank, Sequence, TopicId, echo_bytes};
use std::cell::Cell;
use std::net::SocketAddr;

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

/// One group member.
#[derive(Debug)]
pub struct Member {
    engine: Engine<MemoryPort, SetClock>,
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
    fn new(hub: &Hub, rank: Rank, members: u16, guarantee: Guarantee) -> Result<Self, GroupError> {
        let incarnation = Incarnation(1);
        let mut options = MemoryOptions::new(SocketAddr::from(([239, 0, 0, 1], 4000)));
        options.echo = Some(Echo { offset: ECHO_OFFSET, bytes: echo_bytes(rank, ChannelId(0), incarnation) });
        options.receive_buffer_bytes = 2 * LOG_BYTES;
        let port = hub.open(options)?;
        let mut config = Config::new(GroupId::of("perf"), members, Role::Member(rank));
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
        !self.engine.has_work() && self.engine.port().is_empty()
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
    pub fn poll(&mut self, now: Instant, on_delivery: impl FnMut(Delivery<'_>)) -> Result<(), GroupError> {
        self.engine.clock().0.set(now);
        self.engine.poll(on_delivery)?;
        Ok(())
    }
}

/// Opens so many members and runs them until each knows the others. Returns the clock's time then.
///
/// # Errors
/// If the port in memory can't be opened.
pub fn form(members: u16, guarantee: Guarantee) -> Result<(Vec<Member>, Instant), GroupError> {
    let (hub, mut now) = (Hub::new(), Instant(0));
    let open = |rank| Member::new(&hub, Rank(rank), members, guarantee);
    let mut group: Vec<Member> = (0..members).map(open).collect::<Result<_, _>>()?;
    for _ in 0..FORMING_STEPS {
        now = now + 1_000_000;
        for member in &mut group {
            member.poll(now, |_| {})?;
        }
    }
    if group.iter().all(|member| member.engine.process().is_formed()) {
        Ok((group, now))
    } else {
        Err(GroupError::NotFormed)
    }
}

/// A formed group of two in total order.
#[derive(Debug)]
pub struct Group {
    /// Rank 0, whose stream is the order: its messages need no order run.
    pub sequencer: Member,
    /// Rank 1.
    pub follower: Member,
    /// The clock's time.
    pub now: Instant,
}

impl Group {
    /// Opens two members and runs them until each knows the other.
    ///
    /// # Errors
    /// If the port in memory can't be opened.
    pub fn form() -> Result<Self, GroupError> {
        let (mut members, now) = form(2, Guarantee::default())?;
        match (members.pop(), members.pop()) {
            (Some(follower), Some(sequencer)) => Ok(Self { sequencer, follower, now }),
            _ => Err(GroupError::NotFormed),
        }
    }

    /// Lets `ns` pass.
    pub fn pass(&mut self, ns: u64) -> Instant {
        self.now = self.now + ns;
        self.now
    }
}
