//! Direct messages of a client: a process that is in no view and follows no view.
//!
//! It knows the members by their heartbeats only: each member's address, and when it was last heard. It measures the
//! distance to each member with its own probes. That is all a client needs to send a request to the nearest member, or
//! to a certain one, and to receive a reply.
//!
//! Pure like [`Process`](crate::Process): bytes and time in, bytes out.

use crate::control::direct::caller::{Health, Target, TargetChoice};
use crate::control::direct::{Direct, Out};
use crate::counters::Counters;
use crate::event::{CallId, DirectMessage, DirectOutcome, DirectRefusal};
use crate::outbox::{Destination, Outbox};
use crate::process::is_for_one;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{Heartbeat, heartbeat_flags};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, ClientId, Datagram, DatagramHeader, Epoch, GroupId, HEADER_BYTES, Incarnation,
    InstanceId, Instant, Kind, Rank,
};

/// A member that was not heard for so long counts as absent: a member sends every 10 ms, at the worst every 100 ms.
const SILENT_NS: u64 = 300_000_000;

/// A member, as its heartbeats describe it.
#[derive(Clone, Copy, Debug)]
struct Known {
    incarnation: Incarnation,
    address: Address,
    heard_at: Instant,
}

/// A process outside the group.
#[derive(Debug)]
pub struct DirectClient {
    group: GroupId,
    known: Vec<Option<Known>>,
    direct: Direct,
    outbox: Outbox,
    counters: Counters,
}

impl DirectClient {
    /// A process with an id that no other process has, reachable at `address`, sending datagrams of at most
    /// `mtu_bytes`.
    pub fn new(group: GroupId, id: ClientId, address: Address, mtu_bytes: usize) -> Self {
        assert!(mtu_bytes > HEADER_BYTES, "a datagram of {mtu_bytes} bytes holds no record");
        let incarnation = Incarnation(id.0 as u32);
        let header = DatagramHeader::new(group, InstanceId::NONE, Epoch(0), Rank::CLIENT, incarnation, CONTROL_CHANNEL);
        Self {
            group,
            known: vec![None; Rank::MAX.index() + 1],
            direct: Direct::new(id.0, address, mtu_bytes - HEADER_BYTES),
            outbox: Outbox::new(header, 0),
            counters: Counters::default(),
        }
    }

    /// Takes a datagram that was sent to all or to this process alone.
    pub fn on_datagram(&mut self, now: Instant, bytes: &[u8], to_all: bool) {
        let Ok(datagram) = Datagram::parse(bytes, self.group) else { return };
        let (header, rank) = (datagram.header, datagram.header.rank());
        if header.channel() != CONTROL_CHANNEL {
            return;
        }
        for frame in datagram.frames().filter(|frame| !(to_all && is_for_one(frame))) {
            match frame.kind() {
                Some(Kind::Heartbeat) => {
                    let Some((heartbeat, _)) = Heartbeat::read(frame.body) else { continue };
                    let formed = heartbeat.flags.get() & heartbeat_flags::FORMED != 0;
                    if let Some(known) =
                        self.known.get_mut(rank.index()).filter(|_| heartbeat.address.is_reachable() && formed)
                    {
                        let incarnation = header.incarnation();
                        *known = Some(Known { incarnation, address: heartbeat.address, heard_at: now });
                    }
                }
                Some(Kind::Direct) => {
                    let mut out = Out { outbox: &mut self.outbox, counters: &mut self.counters };
                    self.direct.receive(now, rank, frame.body, &mut out);
                }
                _ => {}
            }
        }
    }

    /// The members heard lately.
    pub fn members(&self, now: Instant) -> impl Iterator<Item = Rank> {
        let lately = move |known: &Known| now.since(known.heard_at) < SILENT_NS;
        let is_there = move |(rank, known): (usize, &Option<Known>)| {
            known.as_ref().filter(|known| lately(known)).map(|_| Rank(rank as u16))
        };
        self.known.iter().enumerate().filter_map(is_there)
    }

    /// As [`Process::send_to`](crate::Process::send_to).
    ///
    /// # Errors
    /// If it is too long, too many are under way, or the member was not heard.
    pub fn send_to(&mut self, now: Instant, rank: Rank, payload: &[u8]) -> Result<CallId, DirectRefusal> {
        let target = self.target(rank).ok_or(DirectRefusal::Unheard(rank))?;
        self.call(now, TargetChoice::One, vec![target], payload)
    }

    /// As [`Process::send_to_address`](crate::Process::send_to_address).
    ///
    /// # Errors
    /// If it is too long, too many are under way, or nothing can be sent there.
    pub fn send_to_address(&mut self, now: Instant, to: Address, payload: &[u8]) -> Result<CallId, DirectRefusal> {
        if !to.is_reachable() {
            return Err(DirectRefusal::Unreachable);
        }
        self.call(now, TargetChoice::One, vec![Target { member: None, address: to, rtt_ns: None }], payload)
    }

    /// As [`Process::send_any`](crate::Process::send_any); an empty `among` means all members heard lately.
    ///
    /// # Errors
    /// If it is too long, too many are under way, or none of them was heard.
    pub fn send_any(&mut self, now: Instant, among: &[Rank], payload: &[u8]) -> Result<CallId, DirectRefusal> {
        let all: Vec<Rank> = self.members(now).collect();
        let among = if among.is_empty() { &all[..] } else { among };
        let targets = among.iter().filter_map(|rank| self.target(*rank)).collect();
        self.call(now, TargetChoice::Any, targets, payload)
    }

    /// As [`Process::broadcast`](crate::Process::broadcast).
    ///
    /// # Errors
    /// If it is too long.
    pub fn broadcast(&mut self, now: Instant, payload: &[u8]) -> Result<(), DirectRefusal> {
        let mut out = Out { outbox: &mut self.outbox, counters: &mut self.counters };
        self.direct.broadcast(now, payload, &mut out)
    }

    fn target(&self, rank: Rank) -> Option<Target> {
        let known = self.known.get(rank.index())?.as_ref()?;
        Some(Target { member: Some((rank, Some(known.incarnation))), address: known.address, rtt_ns: None })
    }

    fn call(
        &mut self,
        now: Instant,
        choice: TargetChoice,
        targets: Vec<Target>,
        payload: &[u8],
    ) -> Result<CallId, DirectRefusal> {
        self.direct.call(now, choice, targets, payload)
    }

    /// Does what is due, then passes the datagrams to send to `send`, which returns how many it took: none or one.
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(Destination, &[u8], usize) -> usize) {
        if self.direct.is_calling() {
            let known = &self.known;
            let health = |target: &Target| {
                let Some((rank, incarnation)) = target.member else { return Health::Well };
                match known.get(rank.index()).and_then(Option::as_ref) {
                    Some(known) if Some(known.incarnation) != incarnation => Health::Gone,
                    Some(known) if now.since(known.heard_at) < SILENT_NS => Health::Well,
                    _ => Health::Suspected,
                }
            };
            let mut out = Out { outbox: &mut self.outbox, counters: &mut self.counters };
            self.direct.tend(now, health, &mut out);
        }
        self.outbox.drain(&mut send);
    }

    /// When to call [`DirectClient::transmit`] again, at the latest.
    pub fn next_deadline(&self) -> Instant {
        if self.outbox.is_empty() { self.direct.due() } else { Instant(0) }
    }

    /// The next direct message received.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.direct.poll_message()
    }

    /// The outcome of the next of the direct messages sent.
    pub fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.direct.poll_outcome()
    }
}
