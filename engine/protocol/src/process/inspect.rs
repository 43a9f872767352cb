//! Inspection: what a process shows to the user that runs it, to measurements and to checkers.
//!
//! Status lines, counters files, the simulator's checkers and tests all need to read the state. Public fields would let
//! them change it; so each value is behind a function that only reads.
//!
//! Invariant: nothing here changes any state, so a process runs the same whether it is inspected or not.

use super::{Process, Standing};
use crate::config::Config;
use crate::control::detector::{Detector, Judgement};
use crate::control::discovery::FRESH_NS;
use crate::control::recovery::HEARD_NS;
use crate::counters::Counters;
use crate::data::flow::HeldBy;
use crate::event::Waiting;
use crate::ranks::Ranks;
use crate::view::{Member, View, bit};
use bourdon_wire::{Address, DatagramNumber, Incarnation, Instant, OrderNumber, Rank, Sequence};

/// What a process keeps beyond its logs: each of these is bounded, whatever it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Control datagrams and repairs waiting for the network.
    pub outbox_datagrams: usize,
    /// The bytes kept for them.
    pub outbox_bytes: usize,
    /// Events waiting to be fetched.
    pub events: usize,
    /// Datagrams received beyond a gap that wait to be delivered unordered.
    pub early_datagrams: usize,
    /// Fragments put together.
    pub assembly_bytes: usize,
    /// Clients that have a place.
    pub clients: usize,
    /// Fragments of clients' messages put together.
    pub client_bytes: usize,
    /// Clients of which it is known what was delivered.
    pub client_watermarks: usize,
    /// Messages published in earlier views and not yet published again.
    pub unsettled: usize,
    /// Bytes of snapshots made or fetched.
    pub snapshot_bytes: usize,
    /// Direct messages waiting to be fetched.
    pub direct_messages: usize,
    /// Bytes of datagrams of the next view.
    pub ahead_bytes: usize,
    /// Locks, requests, elections, and messages about them that are not acknowledged.
    pub coordination: usize,
    /// Records to be stored, and what waits for some.
    pub records: usize,
    /// The logs of epochs that have ended.
    pub retained_bytes: usize,
    /// Epochs that have ended and whose datagrams are retained.
    pub retained_epochs: usize,
    /// Decisions retained.
    pub decisions: usize,
}

impl Process {
    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.cx.config
    }

    /// Its counters.
    pub fn counters(&self) -> &Counters {
        &self.cx.counters
    }

    /// Its role in the group.
    #[inline]
    pub fn standing(&self) -> Standing {
        self.state.standing()
    }

    /// The view it is in or follows; a view without members if there is none.
    pub fn view(&self) -> &View {
        &self.data.view
    }

    /// Whether the view is about to change: a ballot has been promised.
    pub fn is_wedged(&self) -> bool {
        !self.data.end.is_open()
    }

    /// Whether it has left and still answers members that may lack the decision: [`crate::Event::Left`] is to come.
    pub fn is_parting(&self) -> bool {
        self.state.farewell().is_some()
    }

    /// As [`crate::ControlPlane::accepted_members`], of a process that holds its control plane.
    pub fn accepted_members(&self) -> Option<&[Member]> {
        self.control.here.as_ref()?.accepted_members()
    }

    /// Whether it is in a view, or follows one, and has heard every member of it.
    pub fn is_formed(&self) -> bool {
        let begun = |member: &Member| self.data.streams[member.rank.index()].window.started;
        matches!(self.standing(), Standing::Member | Standing::Following)
            && self.cx.presence.missing(&self.data.view).is_empty()
            && self.data.view.members.iter().all(begun)
    }

    /// The members not heard yet: of the view, or, before the first view, of all that the configuration names.
    pub fn missing(&self) -> impl Iterator<Item = Rank> {
        let forming = View::forming(self.cx.config.members, self.cx.config.sequencer);
        let none_yet = self.data.view.members.is_empty();
        self.cx.presence.missing(if none_yet { &forming } else { &self.data.view }).into_iter()
    }

    /// The members heard lately in a view of another instance that has no majority, as bits: they keep the group from
    /// forming again.
    pub fn in_lost_instance(&self, now: Instant) -> u64 {
        self.discovery.without_majority(now, self.data.view.instance)
    }

    /// For how long a member of the view has not been heard; zero for this process, none if it was never heard.
    pub fn silence_ns(&self, member: Member, now: Instant) -> Option<u64> {
        if Some(member.rank) == self.cx.config.rank() {
            return Some(0);
        }
        let peer = self.cx.presence.get(member.rank).filter(|_| self.cx.presence.knows(member));
        peer.map(|peer| now.since(peer.heard_at))
    }

    /// The members of the view that an observer follows and did not hear lately. What they publish does not come, nor
    /// anything that a silent sequencer orders.
    pub fn unheard(&self, now: Instant) -> Ranks {
        let observes = self.standing() == Standing::Following && self.cx.config.rank().is_none();
        Ranks(if observes { self.data.view.bits() & !self.heard_lately(now) } else { 0 })
    }

    /// Whether an observer hears no majority of the view that it follows: no message may come.
    pub fn observes_no_majority(&self, now: Instant) -> bool {
        let (unheard, members) = (self.unheard(now), self.data.view.members.len());
        !unheard.is_empty() && 2 * unheard.len() as usize >= members
    }

    /// The members of the view that were heard lately, as bits.
    pub fn heard_lately(&self, now: Instant) -> u64 {
        let is_fresh = |member: &&Member| self.silence_ns(**member, now).is_some_and(|silence| silence < FRESH_NS);
        self.data.view.members.iter().filter(is_fresh).fold(0, |bits, member| bits | bit(member.rank))
    }

    /// Whether a member announced lately that it hears another process in the view with this process's rank.
    pub fn is_rank_in_use(&self, now: Instant) -> bool {
        let own = self.cx.config.rank().filter(|_| self.standing() != Standing::Member);
        own.is_some_and(|rank| self.discovery.hears(now, rank))
    }

    /// What this process waits for, since so long.
    #[cold]
    pub fn waiting(&self, now: Instant, waited_ns: u64) -> Waiting {
        let Ranks(missing) = self.missing().collect();
        let (standing, view) = (self.standing(), self.view());
        let common = Waiting { waited_ns, ..Waiting::default() };
        let unheard = self.unheard(now);
        if !unheard.is_empty() {
            return Waiting {
                missing: unheard,
                members: view.members.len() as u16,
                lacks_majority: self.observes_no_majority(now),
                observes: true,
                followed: Some(view.epoch),
                ..common
            };
        }
        let in_lost_instance = self.in_lost_instance(now);
        Waiting {
            missing: Ranks(missing & !in_lost_instance),
            members: self.cx.config.members,
            outside: standing != Standing::Forming,
            followed: (standing == Standing::Following).then_some(view.epoch),
            in_lost_instance: Ranks(in_lost_instance),
            configured_otherwise: Ranks(self.cx.presence.differing(now, HEARD_NS) & missing),
            rank_in_use: self.cx.config.rank().filter(|_| self.is_rank_in_use(now)),
            narrow: self.paths_without_long(now),
            storage_damaged: self.cx.config.storage_damaged,
            hears_no_other: self.hears_no_other(missing) && self.discovery.in_views(now, HEARD_NS) == 0,
            ..common
        }
    }

    /// Whether there are other members, and none was heard, not even one that is configured otherwise.
    fn hears_no_other(&self, missing: u64) -> bool {
        let others = u32::from(self.cx.config.members.saturating_sub(1));
        others > 0 && missing.count_ones() == others && !self.configuration_differs()
    }

    /// The suspicion level of a member: from 0; suspected from 1 on.
    pub fn suspicion(&self, rank: Rank, now: Instant) -> f64 {
        self.detector.level(rank, now)
    }

    /// The detectors.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Bit r: the member of rank r is suspected.
    pub fn suspects(&self) -> u64 {
        self.detector.suspects()
    }

    /// What the detectors of this member report of the other members of its view, for the channels that lean on them.
    pub fn judgement(&self) -> Option<Judgement> {
        (self.standing() == Standing::Member).then(|| self.detector.judgement())
    }

    /// Whether this process reaches no quorum of the view.
    pub fn lacks_majority(&self) -> bool {
        self.state.lacks_majority()
    }

    /// Its current incarnation: another one after each removal.
    pub fn incarnation(&self) -> Incarnation {
        self.cx.config.incarnation
    }

    /// Where the process of a rank is reached, if that is known; this process's own address included.
    pub fn address(&self, rank: Rank) -> Option<Address> {
        let is_own = self.cx.config.rank() == Some(rank);
        if is_own { Some(self.cx.config.address) } else { self.cx.presence.address(rank) }
    }

    /// Where this process is reached.
    pub fn own_address(&self) -> Address {
        self.cx.config.address
    }

    /// Where the links of the members of the view are: rank, incarnation, address, port.
    pub fn links(&self) -> impl Iterator<Item = (Member, Address, u16)> {
        let known = |member: &Member| {
            let peer = self.cx.presence.get(member.rank).filter(|peer| peer.incarnation == Some(member.incarnation))?;
            Some((*member, peer.address?, peer.link_port)).filter(|(.., port)| *port != 0)
        };
        let own = self.cx.config.rank();
        self.data.view.members.iter().filter(move |member| Some(member.rank) != own).filter_map(known)
    }

    /// In real-time order: how far this process's group time may be off, if that is known, and how long a message is
    /// held after it was sent, in nanoseconds. See `data/realtime.rs`.
    pub fn real_time_bounds(&self, now: Instant) -> Option<(Option<u64>, u64)> {
        // A better estimate may show that stamps were ahead: then they wait for the clock, because they never decrease.
        let stamped_ns = self.data.outbound.as_ref().map_or(0, |outbound| outbound.packer.closed_at_ns);
        let ahead_ns = stamped_ns.saturating_sub(self.cx.wall(now));
        let bound_ns = self.cx.clock_sync.bound_ns(now).map(|bound_ns| bound_ns + ahead_ns);
        self.data.real_time().map(|real_time| (bound_ns, real_time.hold_ns()))
    }

    /// How many barriers are complete.
    pub fn phase(&self) -> u64 {
        self.data.barrier.phase
    }

    /// Whether some process was configured otherwise.
    pub fn configuration_differs(&self) -> bool {
        self.cx.presence.any_differs()
    }

    /// How many sealed datagrams of its own stream wait for the network.
    #[inline]
    pub fn backlog(&self) -> u64 {
        if !self.data.end.is_open() {
            return 0; // after the promise, what was not sent is fetched, or published again
        }
        self.data.outbound.as_ref().map_or(0, |outbound| outbound.packer.open.since(outbound.packer.sent))
    }

    /// The number of the next message in total order.
    pub fn delivered_order(&self) -> OrderNumber {
        self.data.delivered_order()
    }

    /// How many messages of a member this process has delivered or given up.
    pub fn delivered(&self, rank: Rank) -> Sequence {
        self.data.streams.get(rank.index()).map_or(Sequence(0), |stream| stream.delivered)
    }

    /// Every datagram of a member's stream below this has been received here, in this view.
    pub fn received(&self, rank: Rank) -> DatagramNumber {
        self.data.streams.get(rank.index()).map_or(DatagramNumber(0), |stream| stream.window.next)
    }

    /// Every datagram of a member's stream below this has been delivered to the last frame, or given up, here.
    pub fn released(&self, rank: Rank) -> DatagramNumber {
        self.data.streams.get(rank.index()).map_or(DatagramNumber(0), |stream| stream.floor())
    }

    /// What it keeps beyond its logs, whose size is fixed.
    pub fn memory_use(&self) -> MemoryUse {
        let (outbox_datagrams, outbox_bytes) = self.cx.outbox.held();
        let (retained_epochs, decisions) = self.past.counts();
        MemoryUse {
            outbox_datagrams,
            outbox_bytes,
            events: self.cx.events(),
            early_datagrams: self.data.early(),
            assembly_bytes: self.data.streams.iter().map(|stream| stream.assembly.held_bytes()).sum(),
            clients: self.clients.len(),
            client_bytes: self.clients.fragments.held_bytes(),
            client_watermarks: self.clients.watermarks(),
            unsettled: self.unsettled.len(),
            snapshot_bytes: self.transfer.held_bytes(),
            direct_messages: self.direct.held(),
            ahead_bytes: self.ahead.held_bytes(),
            coordination: self.coordination.held() + self.control.held(),
            records: self.storage.as_ref().map_or(0, |storage| storage.held()),
            retained_bytes: self.past.bytes(),
            retained_epochs,
            decisions,
        }
    }

    /// The observers that this member waits for, in which incarnation, and how far each has delivered its stream.
    pub fn gates(&self) -> impl Iterator<Item = (Address, Incarnation, DatagramNumber)> {
        self.gates.marks()
    }

    /// What this process believes `member` has received of `stream`.
    pub fn acknowledged(&self, member: Rank, stream: Rank) -> DatagramNumber {
        self.data.stability.acknowledged(member, stream)
    }

    /// The datagram being filled, the window's limit, and what this member waits for or would wait for first: how far
    /// it may go and why.
    pub fn window(&self) -> Option<(DatagramNumber, DatagramNumber, Option<HeldBy>)> {
        let outbound = self.data.outbound.as_ref()?;
        let open = if outbound.packer.is_open() { outbound.packer.open.next() } else { outbound.packer.open };
        Some((open, outbound.flow.limit, outbound.flow.held_by(open)))
    }
}
