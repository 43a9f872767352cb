//! Finds the group, follows it, and comes back to it.
//!
//! A process in no view hears heartbeats of a view and asks their sender for it: its members, and where each stream
//! begins. An observer then receives from there. A joiner first gets a snapshot (`transfer.rs`), follows like an
//! observer until it has caught up, and announces that it is ready. A follower receives each decision, delivers up to
//! its cut, and goes on with the next view: an observer as an observer, a joiner as a member if the view names it.
//!
//! An observer at `reliable` may have run ahead of the cut. What it delivered beyond the cut is void, and it reports
//! that.

use super::follower::{CUT_WAIT_NS, Chain};
use super::{Process, Standing, header};
use crate::config::{Order, Role, Start};
use crate::control::detector::Path;
use crate::control::view_change::{Ballot, Step, Value};
use crate::counters::Counter;
use crate::data::epoch_state::EpochState;
use crate::data::pipeline::Pipeline;
use crate::event::{Delivery, Event};
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::values::cut::Cut;
use crate::view::{Beginning, Member, View};
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{Heartbeat, ViewAsk, ViewEntry, ViewInfo, heartbeat_flags};
use bourdon_wire::{
    Address, DatagramHeader, DatagramNumber, Epoch, FRAME_HEADER_BYTES, HEADER_BYTES, Incarnation, InstanceId, Instant,
    Kind, OrderNumber, Rank, Sequence,
};
use zerocopy::IntoBytes;

/// How often a member is asked for the view.
const ASK_NS: u64 = 3_000_000;
/// How long requests for a view carry the same nonce: the path there and back, with a challenge between, takes longer
/// than [`ASK_NS`], and an answer must still match when the next request has been sent. A recorded answer is valid for
/// so long.
const NONCE_NS: u64 = 1_000_000_000;
/// How long a follower may hear nothing of its view before it accepts that another group of that name has begun.
pub(super) const LOST_NS: u64 = 1_000_000_000;
/// A member that is still in the view before counts as heard for so many suspicion times: it has a cut to fetch.
const LATE: u64 = 10;

/// What a process in no view knows of the group.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The nonce that an answer must repeat, since when it is in use, and which instance was asked.
    nonce: u64,
    nonce_since: Instant,
    asked_instance: InstanceId,
    /// It may not come back before this time.
    not_before: Instant,
    asked_at: Instant,
    /// When a process that is in a view was last heard.
    formed_at: Instant,
    /// When a member of the followed view was last heard.
    heard_at: Instant,
    /// When the current view was entered, its end was decided, or a datagram of its cut last arrived.
    pub(super) since: Instant,
    /// Since when this process has waited, beside an older instance that is alive, for the later instance that it was
    /// in; 0 if it does not.
    pub(super) older_since: Instant,
    /// The view that comes after the followed view.
    pub(super) next: Option<(View, Beginning)>,
    pub(super) decision: Option<Value>,
    /// The ballot whose value takes this process in, and the cut to hold before it is accepted.
    invitation: Option<(Ballot, Cut)>,
    /// The views between the followed view and the newest.
    pub(super) chain: Chain,
}

impl Process {
    /// Another incarnation draws another name, and starts forming again if it was forming.
    pub(super) fn renew_incarnation(&mut self) {
        let forming = self.standing == Standing::Forming;
        self.live_anew();
        if let (true, Some(rank)) = (forming, self.config.rank()) {
            let own = Member { rank, incarnation: self.config.incarnation };
            let view = View::forming(self.config.members, self.config.sequencer);
            self.change = Some(self.driver_of(own, view));
        }
    }

    /// Comes back, not before the given time.
    pub(super) fn search_again(&mut self, not_before: Instant) {
        let Search { formed_at, older_since, .. } = self.search;
        self.search = Search { not_before, formed_at, older_since, ..Search::default() };
        self.transfer.forget();
    }

    pub(super) fn on_heartbeat(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((said, _)) = Heartbeat::read(body) else { return };
        let (epoch, rank) = (header.epoch(), header.rank());
        let from = Member { rank, incarnation: header.incarnation() };
        let differs = said.configuration.get() != self.config.fingerprint();
        if self.presence.note_differs(rank, differs) {
            self.event(Event::ConfigurationDiffers(rank));
        }
        if differs || self.note_sighting(now, header, said) {
            return; // configured otherwise than we are, or of another instance
        }
        let same =
            header.instance() == self.data.view.instance || self.config.mutant == Some(Mutant::OtherInstanceBelieved);
        if self.is_moved(from, said.address) {
            return;
        }
        if said.flags.get() & heartbeat_flags::FORMED != 0 {
            self.trust.announcements.note_formed(now, from, epoch);
        }
        let known = self.data.view.incarnation(rank);
        let formed = said.flags.get() & heartbeat_flags::FORMED != 0;
        if same && epoch == self.data.view.epoch && known == Some(from.incarnation) {
            return self.on_own_views_heartbeat(now, from, epoch, said);
        }
        if known.is_some_and(|incarnation| incarnation != from.incarnation) {
            // Another incarnation of a member: it waits until the incarnation in the view is out of it. A formed
            // incarnation is an earlier one whose heartbeat is late.
            if !formed && self.presence.refuse(from) {
                self.event(Event::Restarted { rank, incarnation: from.incarnation });
            }
            if self.standing == Standing::Member {
                // If the sender is in a later view, all members of this view may have ended since: then only it
                // answers.
                let is_own = header.instance() == self.data.view.instance;
                if formed && is_own && epoch > self.data.view.epoch {
                    self.ask_for_view(now, rank, said.address);
                }
                return;
            }
        }
        if formed {
            self.search.formed_at = now;
        }
        let other = self.presence.hear(now, from, epoch, said);
        // A process in no view may be the only process that knows how this view ended.
        let outside = !matches!(self.standing, Standing::Member | Standing::Forming);
        let past = header.instance() == self.data.view.instance || self.is_past_instance(header.instance());
        if outside && past && self.past.is_of(epoch, from) {
            if said.address.is_reachable() {
                self.tell_decision(now, epoch, said.address);
            }
            return;
        }
        self.follow_heartbeat(now, from, epoch, said, (formed, past, other));
    }

    /// Acts on the heartbeat of a process that is not in this process's view. What follows depends on whether its
    /// sender is a member, of this instance, and in another incarnation than it was heard in before.
    fn follow_heartbeat(
        &mut self,
        now: Instant,
        from: Member,
        epoch: Epoch,
        said: &Heartbeat,
        (formed, past, other): (bool, bool, bool),
    ) {
        let rank = from.rank;
        match self.standing {
            Standing::Gone
                if formed
                    && past
                    && let Some((without, _)) = self.farewell.filter(|(without, _)| epoch >= *without) =>
            {
                self.hear_successor(without, epoch, from);
            }
            Standing::Gone => {}
            // The group has formed: with this process, if it missed the decision, or without it.
            Standing::Forming if formed => {}
            Standing::Forming if epoch == Epoch(0) => {
                if other && let Some(change) = &mut self.change {
                    change.replace(from);
                }
                self.clock.look_due = now;
            }
            Standing::Following if epoch > self.data.view.epoch && formed => {
                self.ask_for_chain(now, rank, said.address)
            }
            Standing::Member if epoch > self.data.view.epoch && formed => self.ask_for_view(now, rank, said.address),
            // A process in no view has already asked the member at which it found the instance alive.
            Standing::Outside if formed => {}
            Standing::Member => self.on_earlier_heartbeat(now, from, epoch, said.address),
            Standing::Following if formed && now.since(self.search.heard_at) > LOST_NS => {
                self.lose_view();
                self.ask_for_view(now, rank, said.address);
            }
            Standing::Outside | Standing::Following if now.since(self.search.formed_at) > LOST_NS => {
                self.form_again(now)
            }
            _ => {}
        }
    }

    fn on_own_views_heartbeat(&mut self, now: Instant, from: Member, epoch: Epoch, said: &Heartbeat) {
        let rank = from.rank;
        (self.search.heard_at, self.search.formed_at, self.search.older_since) = (now, now, Instant(0));
        self.detector.heard(rank, now, Path::Multicast);
        self.detector.heartbeat(rank, now);
        let before = self.presence.get(rank).map(|peer| (peer.heard_from, peer.flags, peer.epoch));
        self.presence.hear(now, from, epoch, said);
        if before != Some((said.heard_from.get(), said.flags.get(), epoch)) {
            self.clock.look_due = now;
        }
        // A joiner that knows how this view ends may be the only process left that does.
        let wedged = said.flags.get() & heartbeat_flags::WEDGED != 0 && said.address.is_reachable();
        if wedged {
            self.pass_decision_on(now, epoch, said.address);
        }
        self.trust.announcements.note_stream(now, rank, DatagramNumber(said.next_number.get()));
        self.renew_cookie(now, rank, said.address);
        let mtu = self.config.limits.mtu_bytes as u64;
        if let Some(outbound) = &mut self.data.outbound {
            outbound.flow.announce(rank, u64::from(said.window_bytes.get()) / mtu);
            if said.flags.get() & heartbeat_flags::SOLICIT != 0 && self.data.end.is_open() {
                outbound.ack.due = now;
            }
        }
        self.data.update_flow();
        self.data.barrier.note_row(rank, said.reached_phase.get());
        if said.flags.get() & heartbeat_flags::BARRIER != 0 && self.data.barrier.is_plausible(said.reached_phase.get())
        {
            self.data.barrier.note_marker(rank, said.reached_phase.get(), None);
        }
        let stream = &mut self.data.streams[rank.index()];
        if !stream.window.started {
            let (next, oldest) = (said.next_number.get(), said.oldest_number.get());
            let sequence = Sequence(said.next_sequence.get());
            match self.config.start {
                Start::Oldest => {
                    let first = self.data.beginning.first_of(rank);
                    stream.start_at_oldest(DatagramNumber(oldest.min(next)), first, sequence);
                }
                Start::Live | Start::Snapshot => stream.start_at(DatagramNumber(next), sequence),
            }
        }
        if matches!(self.data.end, EpochState::Open) {
            let end = DatagramNumber(said.next_number.get());
            if stream.is_loose {
                stream.hear_bounds(Sequence(said.first_sequence.get()), end, Sequence(said.next_sequence.get()));
            }
            self.data.note_end(now, rank, end);
            // A member that has promised a ballot orders nothing.
            let orders = rank == self.data.view.sequencer && said.flags.get() & heartbeat_flags::WEDGED == 0;
            if orders && self.data.is_lossy() {
                self.data.doubt_order(now, end);
            }
        }
    }

    /// A member hears a process of an earlier epoch than its view.
    fn on_earlier_heartbeat(&mut self, now: Instant, from: Member, epoch: Epoch, address: Address) {
        let late_ns = LATE * self.config.timing.detector.suspect_after_ns;
        if self.data.view.contains(from) && now.since(self.search.since) < late_ns {
            self.detector.heard(from.rank, now, Path::Multicast);
        }
        if (epoch == Epoch(0) || epoch == self.data.view.epoch) && !self.data.view.contains(from) {
            self.clock.look_due = now; // it may be ready to come in
            return;
        }
        // All members hear this. A process that they do not know asks a single member, with a cookie.
        if address.is_reachable() && self.is_proven(address) {
            self.tell_decision(now, epoch, address);
            if epoch.next() < self.data.view.epoch && self.decision_of(epoch).is_some() {
                // It may be unable to get the cut any more, and may hear only later incarnations, which it does not
                // ask.
                self.tell_view(now, Destination::Peer(address), 0);
            }
        }
    }

    /// No view is left to come back to: its members are gone. All processes form the first view again; a process that
    /// is in a view takes no part in that.
    fn form_again(&mut self, now: Instant) {
        if let Some(rank) = self.config.rank() {
            self.lose_view();
            self.search.formed_at = now;
            self.standing = Standing::Forming;
            let own = Member { rank, incarnation: self.config.incarnation };
            let view = View::forming(self.config.members, self.config.sequencer);
            self.change = Some(self.driver_of(own, view));
            self.clock.look_due = now;
        }
    }

    /// Forgets the view it follows. A joiner may have been added and removed without hearing of it, so it comes back as
    /// another incarnation.
    pub(super) fn lose_view(&mut self) {
        let own = matches!(self.config.role, Role::Member(_));
        if own {
            self.live_anew();
        }
        if !self.data.view.members.is_empty() {
            self.transfer.note_passed(self.data.view.instance, self.data.view.epoch, self.data.passed());
        }
        self.data = Pipeline::idle(self.config.clone(), Epoch(0));
        self.standing = Standing::Outside;
        self.search_again(Instant(0));
    }

    /// A process comes back as another incarnation: what this incarnation promised or owed no longer counts.
    pub(super) fn live_anew(&mut self) {
        self.draw_incarnation();
        self.data.config.incarnation = self.config.incarnation;
        self.outbox.enter(header(&self.config, InstanceId::NONE, Epoch(0)));
    }

    // ---- requests and answers -------------------------------------------------------------------------------------

    pub(super) fn ask_for_view(&mut self, now: Instant, from: Rank, address: Address) {
        self.ask_instance(now, self.data.view.instance, from, address);
    }

    /// Asks a member of an instance for its view: of this process's own instance, or of another, which it would enter
    /// from outside.
    pub(super) fn ask_instance(&mut self, now: Instant, instance: InstanceId, from: Rank, address: Address) {
        let busy = self.standing == Standing::Outside && (self.transfer.is_asking() || now < self.search.not_before);
        if busy || now.since(self.search.asked_at) < ASK_NS || !address.is_reachable() {
            return;
        }
        self.search.asked_at = now;
        let search = &mut self.search;
        if search.nonce == 0 || search.asked_instance != instance || now.since(search.nonce_since) >= NONCE_NS {
            (search.nonce, search.nonce_since, search.asked_instance) = (self.rng.u64(1..), now, instance);
        }
        self.send_view_ask(now, from, address);
    }

    /// Sends the request for a view, the first time or again with a cookie.
    pub(super) fn send_view_ask(&mut self, now: Instant, from: Rank, address: Address) {
        let (nonce, instance) = (self.search.nonce, self.search.asked_instance);
        let cookie = self.word_for_view(from, address);
        let ask = ViewAsk { reply_to: self.config.address, nonce: nonce.into(), cookie: cookie.into() };
        // The answer depends on the instance and the epoch that the request names.
        let (own, epoch) = (self.data.view.instance, self.data.view.epoch);
        // A process in no view, or of another instance, needs the newest view, not the view after its own.
        let inside = self.standing != Standing::Outside && instance == own;
        let (own, epoch) = if inside { (own, epoch) } else { (InstanceId::NONE, Epoch(0)) };
        let header = super::header(&self.config, own, epoch);
        let to = Destination::Peer(address);
        self.outbox.record_as(header, now, to, Kind::ViewAsk, [ask.as_bytes(), &[]], &mut self.counters);
    }

    pub(super) fn say_decision(&mut self, now: Instant, header: DatagramHeader, to: Address, value: Value) {
        let bytes = super::steps::encode(Default::default(), &Step::Decide(value));
        if !self.may_tell(to, HEADER_BYTES + FRAME_HEADER_BYTES + bytes.len()) {
            return;
        }
        let to = Destination::Peer(to);
        self.outbox.record_as(header, now, to, Kind::Ballot, [&bytes, &[]], &mut self.counters);
    }

    /// Sends this view and where it began.
    pub(super) fn tell_view(&mut self, now: Instant, to: Destination, nonce: u64) {
        let (view, beginning) = (self.data.view.clone(), self.data.beginning.clone());
        let barriers = self.data.barrier.phase.wrapping_sub(beginning.phase);
        let header = header(&self.config, view.instance, view.epoch);
        self.send_view(now, header, (&view, &beginning, barriers), to, nonce);
    }

    /// Sends a view: where it began, and how many barriers have been completed in it.
    pub(super) fn send_view(
        &mut self,
        now: Instant,
        header: DatagramHeader,
        (view, beginning, barriers): (&View, &Beginning, u64),
        to: Destination,
        nonce: u64,
    ) {
        let entry = |rank: Rank, incarnation: Incarnation| ViewEntry {
            rank: rank.0.into(),
            incarnation: incarnation.0.into(),
            first_sequence: beginning.first_of(rank).0.into(),
        };
        let mut entries: Vec<_> = view.members.iter().map(|member| entry(member.rank, member.incarnation)).collect();
        let others = (0..self.config.members).map(Rank).filter(|rank| view.incarnation(*rank).is_none());
        entries.extend(others.map(|rank| entry(rank, Incarnation(0))));
        let info = ViewInfo {
            entries: (entries.len() as u16).into(),
            members: (view.members.len() as u16).into(),
            sequencer: view.sequencer.0.into(),
            barriers: (barriers.min(u64::from(u16::MAX)) as u16).into(),
            first_order: beginning.order.0.into(),
            phase: beginning.phase.into(),
            configuration: self.config.fingerprint().into(),
            birth: view.birth.into(),
            nonce: nonce.into(),
        };
        let parts = [info.as_bytes(), entries.as_bytes()];
        self.outbox.record_as(header, now, to, Kind::View, parts, &mut self.counters);
    }

    pub(super) fn on_view_info(&mut self, now: Instant, header: &DatagramHeader, body: &[u8]) {
        let Some((info, entries)) = ViewInfo::read_all(body) else { return };
        if info.configuration.get() != self.config.fingerprint() {
            return;
        }
        let Some((view, beginning)) = self.read_view(header, info, entries) else {
            return self.counters.add(Counter::DiscardedMalformed, 1);
        };
        if !view.contains(Member { rank: header.rank(), incarnation: header.incarnation() }) {
            return self.counters.add(Counter::DiscardedSender, 1);
        }
        let is_other =
            view.instance != self.data.view.instance && self.config.mutant != Some(Mutant::OtherInstanceBelieved);
        if is_other {
            // Only an answer to this process's own request proves that the instance is not a recording.
            let answers = info.nonce.get() != 0 && info.nonce.get() == self.search.nonce;
            if !answers || view.instance != self.search.asked_instance {
                return self.counters.add(Counter::DiscardedInstance, 1);
            }
        } else if view.instance == self.data.view.instance && view.birth != self.data.view.birth {
            return self.counters.add(Counter::DiscardedMalformed, 1);
        }
        // A process that comes late begins after the barriers that are complete; a process that was there from the
        // start passes them itself.
        let late = Beginning { phase: beginning.phase.saturating_add(info.barriers.get().into()), ..beginning.clone() };
        let (ahead, next) = (view.epoch > self.data.view.epoch, view.epoch == self.data.view.epoch.next());
        let believes = match self.standing {
            Standing::Following => ahead && !next,
            Standing::Member => ahead && !self.is_in(&view),
            _ => false,
        };
        if believes && !self.is_plausible_view(now, &view) {
            return;
        }
        match self.standing {
            Standing::Gone => {}
            Standing::Member | Standing::Following if is_other => self.change_instance(now, view, late),
            // The decision that makes it a member comes together with this.
            Standing::Forming if self.is_in(&view) => {}
            Standing::Forming => {
                (self.standing, self.change) = (Standing::Outside, None);
                self.live_anew(); // it may have been in the first view, and out of it, without hearing of it
                self.found(now, view, late);
            }
            Standing::Outside if now >= self.search.not_before => self.found(now, view, late),
            Standing::Outside => {}
            Standing::Following if next => self.search.next = Some((view, beginning)),
            Standing::Following if ahead => self.hear_later_view(now, header.rank(), view, late),
            Standing::Following => {}
            // A member that finds itself in the next view waits for the decision, which comes together with this.
            Standing::Member if ahead && !self.is_in(&view) => self.find_out_removed(now, view.epoch),
            Standing::Member => {}
        }
    }

    fn read_view(&self, header: &DatagramHeader, info: &ViewInfo, entries: &[ViewEntry]) -> Option<(View, Beginning)> {
        let (instance, epoch) = (header.instance(), header.epoch());
        let mut first = vec![Sequence(0); usize::from(self.config.members)];
        for entry in entries {
            *first.get_mut(usize::from(entry.rank.get()))? = Sequence(entry.first_sequence.get());
        }
        let member = |entry: &ViewEntry| Member {
            rank: Rank(entry.rank.get()),
            incarnation: Incarnation(entry.incarnation.get()),
        };
        let members: Vec<_> = entries.iter().take(usize::from(info.members.get())).map(member).collect();
        let view = View { epoch, members, sequencer: Rank(info.sequencer.get()), instance, birth: info.birth.get() };
        let beginning = Beginning { order: OrderNumber(info.first_order.get()), first, phase: info.phase.get() };
        let members = &view.members;
        let distinct = (1..members.len()).all(|i| members[..i].iter().all(|other| other.rank != members[i].rank));
        let sound = distinct && view.incarnation(view.sequencer).is_some() && epoch != Epoch(0);
        let sound = sound && instance != InstanceId::NONE;
        sound.then_some((view, beginning))
    }

    fn is_in(&self, view: &View) -> bool {
        self.config.rank().is_some_and(|rank| view.incarnation(rank) == Some(self.config.incarnation))
    }

    /// A member learns that the others went on without it, but not with which decision: the others no longer retain it.
    fn find_out_removed(&mut self, now: Instant, epoch: Epoch) {
        if epoch == self.data.view.epoch.next() && self.search.decision.is_none() {
            // The decision may still come, and has more information. It was requested together with this.
            if now.since(self.search.asked_at) < ASK_NS {
                return;
            }
        }
        let value = self.decision_of(self.data.view.epoch).cloned();
        self.removed(now, value, epoch);
    }

    // ---- following ------------------------------------------------------------------------------------------------

    pub(super) fn found(&mut self, now: Instant, view: View, beginning: Beginning) {
        let fetches = matches!(self.config.role, Role::Member(_)) || self.config.start != Start::Oldest;
        if fetches {
            self.begin_transfer(now, view, beginning);
        } else {
            self.follow(now, view, &beginning);
        }
    }

    /// Enters a view as a follower.
    pub(super) fn follow(&mut self, now: Instant, view: View, beginning: &Beginning) {
        self.search = Search { since: now, heard_at: now, formed_at: now, ..Search::default() };
        self.enter(now, view, beginning);
        self.search.since = now;
    }

    /// Receives ballot steps from members of the followed view about its end.
    pub(super) fn follow_step(&mut self, now: Instant, from: Member, ballot: Ballot, step: Step) {
        let told = matches!(&step, Step::Decide(value) if self.goes_on(from, value));
        if !self.data.view.contains(from) && !told {
            return self.counters.add(Counter::DiscardedSender, 1);
        }
        if matches!(&step, Step::Decide(value) | Step::Propose(value) if !self.may_follow(value)) {
            return self.counters.add(Counter::DiscardedImplausible, 1);
        }
        match step {
            Step::Decide(value) => self.follow_decision(now, value),
            Step::Propose(value) if ballot.proposer() == from.rank && self.is_among(&value.members) => {
                let stay = self.stay(&value);
                self.data.ask_for(now, &value.cut, stay);
                self.search.invitation = Some((ballot, value.cut));
                self.accept_invitation(now);
            }
            _ => {}
        }
    }

    fn is_among(&self, members: &[Member]) -> bool {
        let own = self.config.rank().map(|rank| Member { rank, incarnation: self.config.incarnation });
        own.is_some_and(|own| members.contains(&own))
    }

    /// A joiner accepts the view that adds it, once it holds the cut as its members do.
    pub(super) fn accept_invitation(&mut self, now: Instant) {
        let open = self.standing == Standing::Following && self.data.end.is_open();
        // A joiner that ran ahead of the cut will start again in another incarnation, and the ballot must not count on
        // it.
        let is_void = |cut: &Cut, rank: Rank| {
            let void = self.data.beyond(cut, rank);
            !self.data.is_lossy() && (void.nameless || !void.runs.is_empty())
        };
        let fits = |cut: &Cut| {
            let mut present = self.data.view.members.iter();
            self.data.holds_cut(cut) && !present.any(|member| is_void(cut, member.rank))
        };
        if !open || self.search.invitation.as_ref().is_none_or(|(_, cut)| !fits(cut)) {
            return;
        }
        let Some((ballot, _)) = self.search.invitation.take() else { return };
        if let Some(address) = self.presence.address(ballot.proposer()) {
            let header = super::header(&self.config, self.data.view.instance, self.data.view.epoch);
            let bytes = super::steps::encode(ballot, &Step::Accept);
            let to = Destination::Peer(address);
            self.outbox.record_as(header, now, to, Kind::Ballot, [&bytes, &[]], &mut self.counters);
        }
    }

    /// Receives the decision that ends the followed view.
    pub(super) fn follow_decision(&mut self, now: Instant, value: Value) {
        if !matches!(self.data.end, EpochState::Decided(_)) {
            let stay = self.stay(&value);
            self.data.conclude(now, &value.cut, stay);
            self.search.decision = Some(value);
            self.search.since = now;
        }
    }

    /// Delivers what is left of the followed view and goes on with the next; returns how many messages.
    pub(super) fn follow_on(&mut self, now: Instant, holds: bool, emit: &mut impl FnMut(Delivery<'_>)) -> usize {
        if holds {
            let mut own = (&mut self.clients, &mut self.coordination);
            let mut emit = |delivery: Delivery<'_>| super::show(&mut own, delivery, emit);
            let ranges = self.data.deliver_ranges(now, &mut emit);
            if ranges > 0 {
                return ranges;
            }
        }
        self.note_progress(now);
        self.seek_next(now, holds);
        let Some((_, beginning)) = &self.search.next else { return 0 };
        let present = self.data.view.members.iter().map(|member| member.rank);
        let behind = |rank: &Rank| self.data.streams[rank.index()].delivered < beginning.first[rank.index()];
        let joins = matches!(self.config.role, Role::Member(_));
        // A barrier's own messages have no numbers: they are missing as long as the barrier is.
        let at_barrier = self.data.barrier.phase < beginning.phase;
        let waits = joins || at_barrier || present.clone().any(|rank| behind(&rank));
        if waits && !holds && now.since(self.search.since) < CUT_WAIT_NS {
            return 0;
        }
        let Some((view, mut beginning)) = self.search.next.take() else { return 0 };
        let void = |rank: Rank| self.data.void(rank);
        // A joiner that ran ahead of the cut, or lacks a part of it, has a state that no member has.
        let differs = |rank: Rank| {
            let void = void(rank);
            let first = beginning.first[rank.index()];
            self.data.streams[rank.index()].delivered != first || void.nameless || !void.runs.is_empty()
        };
        // The same holds if a barrier that it completed with a marker beyond the cut is set again.
        let past_barrier = self.data.barrier.phase > beginning.phase;
        let begins_anew = if self.data.is_lossy() {
            false // no two processes have the same state
        } else if joins {
            !holds || past_barrier || present.clone().any(differs)
        } else {
            self.config.start == Start::Snapshot && present.clone().any(|rank| void(rank).nameless)
        };
        if begins_anew {
            self.lose_view();
            self.found(now, view, beginning);
            return 0;
        }
        self.reconcile(&mut beginning, holds);
        beginning.phase = beginning.phase.max(self.data.barrier.phase);
        // A joiner holds the cut, and may be asked for it and for the decision like any other member.
        let (decision, newest) = (self.search.decision.take(), self.take_newest());
        self.retire(now, decision);
        self.enter_from_start(now, view, &beginning);
        self.continue_chain(now, newest);
        1
    }

    /// Enters the next view, in which every stream is received from its first datagram.
    fn enter_from_start(&mut self, now: Instant, view: View, beginning: &Beginning) {
        self.search = Search { since: now, heard_at: now, formed_at: now, ..Search::default() };
        self.enter(now, view, beginning);
        self.data.streams.iter_mut().for_each(|stream| stream.window.started = true);
        self.search.chain.is_whole = true;
        self.receive_ahead(now);
    }

    /// Reports what was delivered or given up beyond where the next view begins, and, unless the whole cut is here,
    /// what was not delivered before it.
    fn reconcile(&mut self, beginning: &mut Beginning, all: bool) {
        if self.data.is_lossy() {
            // It goes on at its position; the next view's headers show what it has missed.
            return beginning.first = self.data.passed();
        }
        for (index, passed) in self.data.passed().into_iter().enumerate() {
            let first = beginning.first.get(index).copied().unwrap_or(passed);
            let sender = Rank(index as u16);
            let void = self.data.void(sender).runs;
            let below = void.iter().map(|(from, to)| (*from, (*to).min(first)));
            let beyond = core::iter::once((first, passed));
            // Some of it may have run ahead of a gap.
            let early = void.iter().map(|(from, to)| ((*from).max(first).max(passed), *to));
            // Messages from before this process began do not concern it, unless it took another process's state.
            let began = if self.takes_state() { Sequence(0) } else { self.data.streams[index].began };
            let own = |(from, to): (Sequence, Sequence)| (from.max(began), to);
            for (from, to) in { below }.chain(beyond).chain(early).map(own).filter(|(from, to)| from < to) {
                self.counters.add(Counter::Retracted, to.since(from));
                self.event(Event::Retracted { sender, from, to });
            }
            // With the whole cut here, messages may still lack their order, which was in a hole that was given up.
            // Where they need no order, the next view begins beyond what ran ahead of a gap.
            let lacks = !all || self.config.order != Order::Unordered;
            if lacks && passed < first && self.data.streams[index].is_anchored() {
                self.counters.add(Counter::Gaps, first.since(passed));
                self.event(Event::Gap { sender, from: passed, to: first });
            }
        }
    }

    /// The group is more than a view ahead of a follower: the follower loses what lies between.
    pub(super) fn leap(&mut self, now: Instant, view: View, mut beginning: Beginning) {
        // A snapshot that the application has not taken yet would be mistaken for a later one.
        if matches!(self.config.role, Role::Member(_)) || self.transfer.holds_back() {
            self.lose_view();
            return self.found(now, view, beginning);
        }
        self.reconcile(&mut beginning, false);
        self.retire(now, None);
        self.enter_from_start(now, view, &beginning);
    }

    /// Whether a joiner has nearly everything that the members have.
    pub(super) fn is_caught_up(&self) -> bool {
        let near = crate::data::flow::own_window(&self.config) / 4;
        let members = self.data.view.members.iter().map(|member| &self.data.streams[member.rank.index()]);
        self.standing == Standing::Following && !self.transfer.holds_back() && self.data.end.is_open() && { members }
            .all(|stream| stream.window.started && stream.window.known_end.since(stream.floor()) <= near)
    }
}
