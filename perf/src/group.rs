//! The members of a group, a port in memory between them, and a clock that is a number.
//!
//! [`Member`] calls the state machine in the same order as the node does: publish until a full segmentation run is
//! ready, then send; receive, deliver, keep time, send. What it leaves out is the reading of the clock, one a burst.

use crate::guarantee::Guarantee;
use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};
use bourdon_port::{Echo, Port, PortError, To};
use bourdon_protocol::{Config, Delivery, Destination, Outgoing, Process, Refusal, Role};
use bourdon_wire::{ChannelId, ECHO_OFFSET, GroupId, Incarnation, Instant, Rank, Sequence, TopicId, echo_bytes};
use std::net::SocketAddr;

/// Datagrams in one full segmentation run: what the node lets stand before it sends.
pub const RUN_DATAGRAMS: u64 = 46;
/// What the node takes from the network at a time.
const RECEIVE_LIMIT: usize = 512;
/// What the logs and buffers hold: many bursts, and little enough to stay in a cache of the usual size.
const LOG_BYTES: usize = 4 << 20;
/// How often the members are run until they must have met.
const FORMING_STEPS: usize = 100;

/// One group member.
#[derive(Debug)]
pub struct Member {
    process: Process,
    port: MemoryPort,
    /// Something was delivered: what it gives rise to goes out on the next call, together with an answer.
    owes: bool,
    /// It has published since it last checked what it may deliver.
    published: bool,
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
        config.address = port.local_address().into();
        (config.limits.log_bytes, config.limits.receive_log_bytes) = (LOG_BYTES, LOG_BYTES);
        config.limits.window_bytes = LOG_BYTES / 2;
        Ok(Self { process: Process::new(Instant(0), config)?, port, owes: false, published: false })
    }

    /// Publishes a message; sends what has been packed once that is a full run.
    ///
    /// # Errors
    /// If the window is full or the port broken: the caller has not let the others read.
    #[inline]
    pub fn publish(&mut self, now: Instant, payload: &[u8]) -> Result<Sequence, GroupError> {
        let outgoing = Outgoing { topic: TopicId(7), ..Outgoing::default() };
        let sequence = self.process.try_publish(now, &outgoing, payload).map_err(GroupError::Refused)?;
        self.published = true;
        if self.process.backlog() >= RUN_DATAGRAMS {
            self.flush(now)?;
        }
        Ok(sequence)
    }

    /// Whether there is nothing to do before [`Member::due`].
    pub fn is_idle(&self) -> bool {
        !self.owes && !self.published && self.port.is_empty() && self.process.backlog() == 0
    }

    /// When something is to be done though nothing comes.
    pub fn due(&self) -> Instant {
        self.process.next_deadline()
    }

    /// Sends what has been published.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn flush(&mut self, now: Instant) -> Result<(), GroupError> {
        self.owes = false;
        let (port, mut failed) = (&mut self.port, None);
        self.process.transmit(now, |to, bytes, segment_bytes| {
            let to = match to {
                Destination::Group => To::Group,
                Destination::Peer(address) => To::Peer(address.into()),
                Destination::Broadcast => To::Broadcast,
            };
            port.send(to, bytes, segment_bytes).unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Receives, delivers, keeps time and sends. Returns how many messages were delivered.
    ///
    /// # Errors
    /// If the port is broken.
    #[inline]
    pub fn poll(&mut self, now: Instant, on_delivery: impl FnMut(Delivery<'_>)) -> Result<usize, GroupError> {
        if self.owes {
            self.flush(now)?;
        }
        let process = &mut self.process;
        let received = self.port.receive(RECEIVE_LIMIT, |arrival| {
            process.on_datagram(now, arrival.bytes, arrival.kernel_receive_ns);
        })?;
        if received > 0 {
            self.process.order(now);
        }
        self.published = false;
        let delivered = self.process.deliver(now, usize::MAX, on_delivery);
        let timer_due = now >= self.process.next_deadline();
        if timer_due {
            self.process.on_timer(now);
        }
        if delivered > 0 {
            self.owes = true;
        } else if timer_due || received > 0 || self.process.backlog() > 0 {
            self.flush(now)?;
        }
        Ok(delivered)
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
    if group.iter().all(|member| member.process.is_formed()) { Ok((group, now)) } else { Err(GroupError::NotFormed) }
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
