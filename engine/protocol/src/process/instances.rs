//! Frames of another instance of the group, and what moves a process from one instance to another.
//!
//! Nothing of another instance changes any state: such a frame is discarded and counted. Heartbeats of
//! members are noted as sightings first (`control/discovery.rs`). A process in no view asks the newest instance that is
//! alive with a majority for its view; if that instance is older than an instance it was in, it first waits for the
//! later one. A member or follower of an older instance asks it as well, and moves to it once the answer has come: the
//! answer repeats the request's nonce, so a recording of a newer instance moves no process.

use super::standing::State;
use super::{Process, Standing};
use crate::config::{Config, Role};
use crate::control::discovery::{Announcement, FRESH_NS, INSTANCES_MAX};
use crate::control::view_change::floor_of;
use crate::counters::Counter;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::view::{Beginning, Member, View, bit};
use alloc::collections::VecDeque;
use bourdon_wire::records::{Heartbeat, heartbeat_flags};
use bourdon_wire::{Address, DatagramHeader, Epoch, Incarnation, InstanceId, Instant, Kind, Rank, Sequence};

/// How many of its own earlier incarnations a process remembers: their datagrams may still be in flight.
const EARLIER_MAX: usize = 16;
/// How long a process waits for a later instance that it was in before it joins an older one: over TCP with 10 % loss
/// the first connection to its members takes up to 7 s, four requests for it, in all but one of 1,000 cases.
const OLDER_WAIT_NS: u64 = 10_000_000_000;
/// How long the members must hear the process in the view with this process's rank before it counts as alive, at the
/// least: longer than any profile takes to suspect a process that has ended, 2 s.
const RANK_IN_USE_NS: u64 = 5_000_000_000;

/// A process that took no step for so long was stopped: its group may have gone on, or have been started again.
const STOPPED_NS: u64 = 1_000_000_000;
/// How long after that, or after it founded the group again, it takes a newer instance for its group's.
const RESUMED_NS: u64 = 10_000_000_000;
/// How long another instance must stay alive before it is reported: members of an older one that were stopped leave it
/// sooner.
const BESIDE_NS: u64 = 3_000_000_000;

/// Messages that an earlier incarnation published and did not see delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) incarnation: Incarnation,
    pub(super) instance: InstanceId,
    /// The first view without that incarnation.
    pub(super) epoch: Epoch,
    /// Not known of a process that was restarted since.
    pub(super) published: Option<Sequence>,
}

/// Another instance that is alive beside this member's.
#[derive(Debug)]
struct Beside {
    instance: InstanceId,
    since: Instant,
    at: Instant,
    is_reported: bool,
}

/// What a process knows of its own incarnations.
#[derive(Debug)]
pub(super) struct Identity {
    /// Draws incarnations, candidates and nonces.
    pub(super) rng: fastrand::Rng,
    /// Its own incarnations before this one.
    earlier: VecDeque<Incarnation>,
    /// When it started.
    started_wall_ns: u64,
    /// Its last step of time, and when it last took one after it was stopped, or founded the group again.
    timer_at: Instant,
    resumed_at: Option<Instant>,
    /// The instances that were alive beside this member's, the one heard last at the end: at most [`INSTANCES_MAX`].
    beside: VecDeque<Beside>,
    pub(super) doubt: Option<Doubt>,
}

impl Identity {
    pub(super) fn new(now: Instant, config: &Config) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(config.seed ^ u64::from(config.incarnation.0) << 32 ^ 0x1d5),
            earlier: VecDeque::new(),
            started_wall_ns: now.0.wrapping_add(config.wall_offset_ns),
            timer_at: now,
            resumed_at: None,
            beside: VecDeque::new(),
            doubt: None,
        }
    }

    /// Whether this process had another incarnation before.
    pub(super) fn returns(&self) -> bool {
        !self.earlier.is_empty()
    }
}

impl Process {
    /// Whether a control frame of another instance than this process's may be handled: frames that processes in no view
    /// send to members, and frames in the opposite direction. Each handler checks the rest.
    pub(super) fn admits_instance(&mut self, header: &DatagramHeader, kind: Option<Kind>) -> bool {
        let (own, other) = (self.data.view.instance, header.instance());
        if own == other && own != InstanceId::NONE || self.cx.config.mutant == Some(Mutant::OtherInstanceBelieved) {
            return true;
        }
        let outside = own == InstanceId::NONE;
        let admitted = match kind {
            // A heartbeat announces its sender; a client's request is answered and never accepted; the others answer a
            // nonce or a cookie's word.
            Some(Kind::Heartbeat | Kind::ClientRequest | Kind::View | Kind::Challenge) => true,
            Some(Kind::ViewAsk | Kind::Direct | Kind::Ping) => outside || other == InstanceId::NONE,
            // The proposer's candidate before the first view; a snapshot's ticket.
            Some(Kind::Ballot) => self.standing() == Standing::Forming && header.epoch() == Epoch(0),
            Some(Kind::Transfer) => outside,
            // Of the view that this process was in last.
            Some(Kind::Nak) => outside && self.is_past_instance(other),
            _ => false,
        };
        if !admitted {
            self.cx.count(Counter::DiscardedInstance);
        }
        admitted
    }

    /// Whether the retained epoch belongs to this instance.
    pub(super) fn is_past_instance(&self, instance: InstanceId) -> bool {
        self.past.is_of_instance(instance)
    }

    /// Notes a member's heartbeat; returns whether it is of another instance than this process's and has been handled.
    pub(super) fn note_sighting(&mut self, now: Instant, header: &DatagramHeader, heartbeat: &Heartbeat) -> bool {
        let (own, other) = (self.data.view.instance, header.instance());
        let formed = heartbeat.flags.get() & heartbeat_flags::FORMED != 0;
        if self.cx.config.mutant == Some(Mutant::OtherInstanceBelieved) {
            return false;
        }
        if other == InstanceId::NONE {
            // A member names its instance.
            if formed {
                self.cx.count(Counter::DiscardedMalformed);
            }
            return formed;
        }
        let announced = Announcement {
            instance: other,
            birth: heartbeat.birth.get(),
            epoch: header.epoch(),
            members: heartbeat.members.get(),
            heard_from: heartbeat.heard_from.get(),
        };
        // A member needs no proof that its own instance is alive: it has its detectors.
        let notes = formed && (other != own || self.standing() == Standing::Following);
        if notes {
            self.discovery.hear(now, header.rank(), &announced);
        }
        if other == own || !formed && self.is_past_instance(other) {
            return false;
        }
        self.cx.counters.add(Counter::DiscardedInstance, u64::from(own != InstanceId::NONE));
        if notes {
            self.note_beside(now, &announced, heartbeat.address);
            self.seek(now, &announced, header.rank(), heartbeat.address);
        }
        // A process that has been removed sends members of its last view the decision that ended it, and hears the
        // group go on.
        let outside = matches!(self.standing(), Standing::Outside | Standing::Gone);
        let newest = self.discovery.newest(now) == Some((announced.instance, announced.birth));
        !(outside && (self.is_past_instance(other) || newest))
    }

    /// Notes a step of time, and whether this process was stopped before it.
    #[inline]
    pub(super) fn note_step(&mut self, now: Instant) {
        if now.since(self.identity.timer_at) > STOPPED_NS {
            self.note_resumed(now);
        }
        self.identity.timer_at = now;
    }

    /// For [`RESUMED_NS`] this process takes a newer instance for its group's.
    pub(super) fn note_resumed(&mut self, now: Instant) {
        self.identity.resumed_at = Some(now);
    }

    /// Whether the group may have been started or founded again, and this process has not heard of it.
    fn may_have_missed_one(&self, now: Instant) -> bool {
        let is_stopped = now.since(self.identity.timer_at) > STOPPED_NS;
        is_stopped || self.identity.resumed_at.is_some_and(|at| now.since(at) < RESUMED_NS)
    }

    /// Reports each other instance that stays alive beside this member's, once.
    fn note_beside(&mut self, now: Instant, other: &Announcement, address: Address) {
        let own = self.data.view.instance;
        if self.standing() != Standing::Member || !self.discovery.is_alive(now, other.instance, other.birth) {
            return;
        }
        let all = &mut self.identity.beside;
        let known = all.iter().position(|beside| beside.instance == other.instance);
        let known = known.and_then(|index| all.remove(index));
        let new = Beside { instance: other.instance, since: now, at: now, is_reported: false };
        let mut beside = known.unwrap_or(new);
        if now.since(beside.at) > FRESH_NS {
            beside.since = now;
        }
        beside.at = now;
        let is_due = !beside.is_reported && now.since(beside.since) > BESIDE_NS;
        beside.is_reported |= is_due;
        if all.len() == INSTANCES_MAX {
            all.pop_front();
        }
        all.push_back(beside);
        if is_due {
            self.cx.event(Event::OtherInstance { own, other: other.instance, address });
        }
    }

    /// Asks another instance for its view, if this process belongs there.
    fn seek(&mut self, now: Instant, announced: &Announcement, from: Rank, address: Address) {
        let (instance, birth) = (announced.instance, announced.birth);
        if self.standing() != Standing::Gone
            && self.belongs_to(now, instance, birth)
            && !self.awaits_later(now, announced)
        {
            // The birth is noted once the answer has come: heartbeats alone prove nothing.
            self.ask_instance(now, instance, from, address);
        }
    }

    /// Whether this process should be in another instance than it is: the newest that is alive; or, for a follower of
    /// an instance whose majority is silent, any that is alive.
    fn belongs_to(&self, now: Instant, instance: InstanceId, birth: u64) -> bool {
        let view = &self.data.view;
        let is_newest = self.discovery.newest(now) == Some((instance, birth));
        match self.standing() {
            Standing::Forming | Standing::Outside => is_newest,
            // A member that was not stopped, and reaches a majority, is where it belongs: the newer instance is another
            // group's of the same name.
            Standing::Member => {
                let reaches_majority = !self.state.lacks_majority() && self.reaches_quorum();
                is_newest && birth > view.birth && (self.may_have_missed_one(now) || !reaches_majority)
            }
            Standing::Following => {
                let since = self.state.following().map_or(now, |following| following.since);
                let silent = now.since(since) > super::discovery::LOST_NS
                    && !self.discovery.is_alive(now, view.instance, view.birth);
                is_newest && (birth > view.birth || silent)
            }
            Standing::Gone => false,
        }
    }

    /// Whether this process waits for a later instance that it was in, beside an older one: a majority of the older one
    /// may have been frozen and resumed, and may be heard first where processes hear only the addresses that they know.
    /// The older instance that it has entered since is its group's: it has waited before.
    fn awaits_later(&mut self, now: Instant, older: &Announcement) -> bool {
        if older.birth >= self.cx.config.birth_floor || older.instance == self.entry.instance() {
            self.search.older_since = Instant(0);
            return false;
        }
        if self.search.older_since == Instant(0) {
            self.search.older_since = now;
            self.cx.event(Event::OlderInstance { instance: older.instance });
        }
        now.since(self.search.older_since) < OLDER_WAIT_NS
    }

    /// The highest birth heard of an instance that is alive with a majority, or stored, or this process's own.
    pub fn birth_floor(&self) -> u64 {
        self.cx.config.birth_floor.max(self.data.view.birth)
    }

    pub(super) fn note_birth(&mut self, birth: u64) {
        self.cx.config.birth_floor = self.cx.config.birth_floor.max(floor_of(birth));
    }

    /// Moves to another instance, whose view came in answer to this process's own request.
    pub(super) fn change_instance(&mut self, now: Instant, view: View, beginning: Beginning) {
        if !self.belongs_to(now, view.instance, view.birth) {
            return self.cx.count(Counter::DiscardedInstance);
        }
        let from = self.data.view.instance;
        debug_assert!(from != view.instance);
        let event = match self.cx.config.role {
            Role::Member(_) => Event::Superseded { instance: view.instance },
            Role::Observer => Event::NewInstance { from, to: view.instance },
        };
        self.leave_instance(now);
        self.past.forget();
        self.cx.event(event);
        self.lose_view();
        self.found(now, view, beginning);
    }

    /// A member leaves its view without a decision, because it goes on in another instance.
    pub(super) fn leave_instance(&mut self, now: Instant) {
        if self.standing() == Standing::Member {
            debug_assert!(self.data.view.epoch != Epoch(0));
            self.leave_own_behind();
            self.unsettled.clear();
            self.transfer.removed();
            self.end_coordination(now);
            (0..self.cx.config.members).for_each(|rank| self.detector.left(Rank(rank)));
            self.identity.doubt = None;
            self.look_due = Instant::NEVER;
        }
    }

    // ---- incarnations ---------------------------------------------------------------------------------------------

    /// Draws another incarnation at random, so that no two processes have the same incarnation, whenever they start.
    pub(super) fn draw_incarnation(&mut self) {
        if self.identity.earlier.len() == EARLIER_MAX {
            self.identity.earlier.pop_front();
        }
        self.identity.earlier.push_back(self.cx.config.incarnation);
        let drawn = loop {
            let drawn = Incarnation(self.identity.rng.u32(1..));
            if !self.identity.earlier.contains(&drawn) {
                break drawn;
            }
        };
        self.cx.config.incarnation = drawn;
        self.cx.config.instance_candidate = InstanceId(self.identity.rng.u64(1..));
    }

    /// Whether a datagram with this process's rank and another incarnation comes from another process: not from an
    /// earlier incarnation of this process, whose datagrams were sent before or which it remembers.
    pub(super) fn is_another_process(&self, header: &DatagramHeader) -> bool {
        let earlier = self.identity.earlier.contains(&header.incarnation()) || header.is_retransmitted();
        !earlier && header.send_time_ns() >= self.identity.started_wall_ns
    }

    /// Notes whether a member of the followed view hears another process that is in the view with this process's rank:
    /// it has the rank for as long as it is heard, so this process can't join.
    pub(super) fn note_rival(&mut self, now: Instant, heard_from: u64) {
        let (Some(rank), State::Following(following)) = (self.cx.config.rank(), &mut self.state) else { return };
        let detector = &self.cx.config.timing.detector;
        // The members suspect a process that has ended in this time, if they are configured as this process is.
        let suspect_ns = detector.suspect_after_ns.max(detector.pull_after_ns);
        let rank_in_use_ns = RANK_IN_USE_NS.max(2 * suspect_ns);
        let is_own =
            |incarnation| incarnation == self.cx.config.incarnation || self.identity.earlier.contains(&incarnation);
        let is_rival = self.data.view.incarnation(rank).is_some_and(|incarnation| !is_own(incarnation));
        if !is_rival || heard_from & bit(rank) == 0 {
            following.rival_since = Instant(0);
        } else if following.rival_since == Instant(0) {
            following.rival_since = now;
        } else if now.since(following.rival_since) > rank_in_use_ns {
            following.rival_since = Instant(u64::MAX); // reported once a view
            let (address, instance) = (self.cx.presence.address(rank).unwrap_or_default(), self.data.view.instance);
            self.cx.event(Event::IdentityConflict { rank, address, instance });
        }
    }

    /// Two processes have drawn the same incarnation at the same rank: the process that is in no view draws another.
    pub(super) fn note_collision(&mut self, header: &DatagramHeader, heartbeat: &Heartbeat) {
        let collides = header.incarnation() == self.cx.config.incarnation
            && heartbeat.address != self.cx.config.address
            && heartbeat.address.is_reachable()
            && self.cx.config.address.is_reachable();
        if collides && self.standing() != Standing::Member {
            let own = Member { rank: header.rank(), incarnation: header.incarnation() };
            if self.cx.presence.refuse(own) {
                self.cx.event(Event::RankClaimed(header.rank()));
            }
            self.renew_incarnation();
        }
    }
}
