//! Elections: one leader in each term, and every process can distinguish a former leader from the present one.
//!
//! A textbook algorithm finds the member that should lead: [`bully`] or [`ring`]. Alone, both elect two leaders as soon
//! as a message is late: they treat a silent process as crashed, and nothing stops a former leader from acting as
//! leader. This file adds what makes them safe; the algorithms only decide when a member may announce itself.
//!
//! **Announcement.** The winner sends COORDINATOR with a new term to all. A member accepts if it knows of no other
//! leader in this view; otherwise it refuses and names that leader. The winner leads once a quorum has accepted: before
//! that no member reports it as leader, itself included. It then sends LEADS to all, which report it. If two members
//! announce at once, the refusals decide: the lower withdraws, the higher tries again with the next term.
//!
//! **Views.** A leader that is not in the next view no longer leads. The view decides this, in the same way for all: no
//! timeout does. A leader that is in the next view announces at its beginning that it leads, like a holder of a lock.
//! No second leader can be accepted in a view before the first has left it or has resigned.
//!
//! **Fencing.** A leadership's token is (birth, epoch, term): the instance's birth, and the epoch and term of the
//! winner's announcement. A leader that can't reach a quorum of its view is no longer a leader from then on.
//!
//! Invariants: one leader for each (epoch, term); tokens grow; among members of one view at most one leads. A
//! leadership that was reported only at its leader may end with that leader's crash, and no other process learns of it.
//! Bound: [`NAMES_MAX`](super::coordination::NAMES_MAX) elections.

pub(crate) mod bully;
pub(crate) mod ring;

use super::coordination::{
    Coordination, CoordinationRefusal, ElectionKind, FencingToken, Leadership, Loss, NAMES_MAX, Participation,
    TOKEN_NUMBERS_END,
};
use super::mutex::Seat;
use super::perfect_link::LinkMessage;
use super::quorum::is_quorum;
use crate::mutant::Mutant;
use crate::view::{View, bit};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bourdon_wire::records::link_steps::{ACCEPTED, COORDINATOR, ELECTION, LEADS, OK, REFUSED, RESIGNED, STANDS};
use bourdon_wire::{Epoch, Rank, TopicName};

/// Elections that are known here, through this member's own part or another member's: all names of all members.
const ELECTIONS_MAX: usize = 64 * NAMES_MAX;

/// One election, at one member.
#[derive(Debug, Default)]
pub(crate) struct Election {
    /// How this member takes part.
    participation: Option<Participation>,
    /// Bit r: rank r is a candidate, as far as is known.
    candidates: u64,
    /// Bit r: rank r has announced in this view that it is no longer a candidate, and has not announced a candidacy
    /// since.
    resigned: u64,
    /// The member that leads or was accepted, and whether a quorum has accepted it.
    leader: Option<(Leadership, bool)>,
    /// The highest term heard of in this epoch, and the highest in which a member led.
    term: u64,
    led: u64,
    /// The latest leadership that was reported here, in any view.
    latest: FencingToken,
    /// This member's own announcement.
    announced: Option<Announced>,
    /// The members that this member would have accepted, had it not accepted another before, with their terms. It keeps
    /// all of them: any may be the member that does not withdraw.
    refused: BTreeMap<Rank, u64>,
    /// A leadership that this member heard of after it had accepted another member with a later term: it counts if that
    /// member withdraws.
    passed: Option<Leadership>,
    /// A member has begun an election, now or in an earlier view: the candidates must make sure that there is a leader.
    called: bool,
    /// This member began to campaign before all members had announced what they hold: it begins once they have.
    begins: bool,
    /// An announcement was withdrawn: in a ring all candidates begin again, because a member that has not heard of the
    /// withdrawal yet ends a round that the oldest begins alone.
    is_void: bool,
    /// The leader led in the previous view, and has not announced yet that it still does.
    unconfirmed: bool,
    /// The state of the algorithms.
    pub(super) bully: bully::Bully,
    pub(super) ring: ring::Ring,
}

/// A pending announcement.
#[derive(Clone, Copy, Debug)]
struct Announced {
    term: u64,
    /// Bit r: rank r accepted.
    accepted: u64,
}

/// The link messages that an election sends.
pub(crate) type LinkMessages = Vec<(Rank, LinkMessage)>;

/// One process's elections.
#[derive(Debug)]
pub(crate) struct Elections {
    kind: ElectionKind,
    seat: Seat,
    /// The view's members, oldest first.
    members: Vec<Rank>,
    elections: BTreeMap<TopicName, Election>,
    is_open: bool,
    /// Bits of suspected members.
    suspects: u64,
    /// This member can't reach a quorum of the view: while it is cut off it does not announce itself.
    is_cut: bool,
    won: u64,
    pub(crate) news: Vec<Coordination>,
    messages: LinkMessages,
}

impl Election {
    fn stands(&self) -> bool {
        self.participation >= Some(Participation::StandBy)
    }

    /// No member leads, and none is accepted that may come to lead.
    fn is_vacant(&self) -> bool {
        self.leader.is_none()
    }

    fn shown(&self) -> Option<Leadership> {
        self.leader.filter(|(_, shown)| *shown).map(|(leadership, _)| leadership)
    }

    /// Candidates above this member.
    pub(super) fn above(&self, seat: &Seat) -> u64 {
        self.candidates & seat.members & !(bit(seat.own) | bit(seat.own).wrapping_sub(1))
    }

    /// All candidates in the view.
    pub(super) fn standing(&self, seat: &Seat) -> u64 {
        self.candidates & seat.members
    }
}

impl Elections {
    pub(crate) fn new(kind: ElectionKind) -> Self {
        Self {
            kind,
            seat: Seat::default(),
            members: Vec::new(),
            elections: BTreeMap::new(),
            is_open: false,
            suspects: 0,
            is_cut: false,
            won: 0,
            news: Vec::new(),
            messages: Vec::new(),
        }
    }

    // ---- the application ------------------------------------------------------------------------------------------

    /// Takes part in an election, or changes how this member takes part.
    pub(crate) fn take_part(
        &mut self,
        name: TopicName,
        participation: Participation,
    ) -> Result<(), CoordinationRefusal> {
        let has_part = |election: &&Election| election.participation.is_some();
        let is_new = self.elections.get(&name).filter(has_part).is_none();
        if is_new && self.elections.values().filter(has_part).count() >= NAMES_MAX {
            return Err(CoordinationRefusal::TooMany);
        }
        let seat = self.seat.clone();
        let election = self.elections.entry(name).or_default();
        let stood = election.stands();
        election.participation = Some(participation);
        let stands = election.stands();
        election.called |= participation == Participation::Campaign;
        election.begins = participation == Participation::Campaign && !self.is_open;
        if stands && !stood {
            election.candidates |= bit(seat.own);
            let message =
                LinkMessage { other: u64::from(election.called), rank: seat.own, ..LinkMessage::new(STANDS, name) };
            self.messages.extend(seat.others().map(|to| (to, message)));
        }
        if stood && !stands {
            self.resign(name);
        }
        assert!(self.elections.values().filter(has_part).count() <= NAMES_MAX, "too many elections");
        self.begin(name);
        self.vacant(name); // if the election was begun before and no member has been elected
        if let Some(leadership) = self.leader(&name) {
            self.news.push(Coordination::Leader(name, Some(leadership)));
        }
        Ok(())
    }

    /// Gives up leadership and candidacy; still receives news of the leader. Returns whether it led.
    pub(crate) fn resign(&mut self, name: TopicName) {
        let own = self.seat.own;
        let Some(election) = self.elections.get_mut(&name) else { return };
        election.participation = election.participation.min(Some(Participation::Watch));
        election.candidates &= !bit(own);
        self.step_down(name);
        self.send_to_all(name, RESIGNED, 0);
    }

    /// No longer takes part in the election.
    pub(crate) fn leave(&mut self, name: TopicName) {
        self.resign(name);
        if let Some(election) = self.elections.get_mut(&name) {
            election.participation = None;
        }
    }

    /// The leader, as far as this member may report it.
    pub(crate) fn leader(&self, name: &TopicName) -> Option<Leadership> {
        self.elections.get(name).and_then(Election::shown).filter(|_| !self.is_cut)
    }

    /// The elections this member has won.
    pub(crate) fn won(&self) -> u64 {
        self.won
    }

    /// The elections in which this member leads.
    pub(crate) fn leads(&self) -> impl Iterator<Item = (&TopicName, FencingToken)> {
        let own = self.seat.own;
        let of = move |election: &Election| election.shown().filter(|leadership| leadership.leader == own);
        self.elections.iter().filter_map(move |(name, election)| Some((name, of(election)?.token)))
    }

    /// The elections that it takes part in, and their leaders.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&TopicName, Option<Leadership>)> {
        let has_part = |(_, election): &(&TopicName, &Election)| election.participation.is_some();
        self.elections.iter().filter(has_part).map(|(name, _)| (name, self.leader(name)))
    }

    /// The number of entries kept.
    pub(crate) fn held(&self) -> usize {
        self.elections.len()
    }

    fn send_to_all(&mut self, name: TopicName, step: u16, number: u64) {
        let own = self.seat.own;
        let message = LinkMessage { rank: own, number, epoch: self.seat.epoch, ..LinkMessage::new(step, name) };
        self.messages.extend(self.seat.others().map(|to| (to, message)));
    }

    /// The link messages to be sent to other members.
    pub(crate) fn take_link_messages(&mut self) -> LinkMessages {
        core::mem::take(&mut self.messages)
    }

    // ---- the leader -----------------------------------------------------------------------------------------------

    /// Sets the leader, or that there is none.
    fn set_leader(&mut self, name: TopicName, leader: Option<(Leadership, bool)>) {
        let Some(election) = self.elections.get_mut(&name) else { return };
        let before = election.shown();
        election.leader = leader;
        election.called |= leader.is_some();
        if let Some((leadership, shown)) = leader.filter(|(l, _)| l.token.epoch == self.seat.epoch) {
            election.term = election.term.max(leadership.token.number);
            election.led = if shown { election.led.max(leadership.token.number) } else { election.led };
        }
        let after = election.shown();
        election.latest = election.latest.max(after.map_or(FencingToken::default(), |leadership| leadership.token));
        election.passed = election.passed.filter(|leadership| leadership.token > election.latest);
        if before != after && election.participation.is_some() && !self.is_cut {
            self.news.push(Coordination::Leader(name, after));
        }
    }

    /// This member no longer leads, and its announcement is void.
    fn step_down(&mut self, name: TopicName) {
        let own = self.seat.own;
        let Some(election) = self.elections.get_mut(&name) else { return };
        election.announced = None;
        if election.leader.is_some_and(|(leadership, _)| leadership.leader == own) {
            // Another member may have announced meanwhile that it leads.
            let passed = election.passed.take();
            self.set_leader(name, passed.map(|leadership| (leadership, true)));
        }
    }

    /// Begins an election if there is no leader, at the start, or if the leader is suspected.
    fn begin(&mut self, name: TopicName) {
        let seat = self.seat.clone();
        let Some(election) = self.elections.get_mut(&name) else { return };
        let campaigns = election.participation == Some(Participation::Campaign) && self.is_open;
        let leads = election.leader.is_some_and(|(l, _)| self.suspects & bit(l.leader) == 0);
        if !campaigns || leads || election.announced.is_some() {
            return;
        }
        match self.kind {
            ElectionKind::Bully => election.bully.begin(&seat, name, election.candidates, &mut self.messages),
            ElectionKind::Ring => election.ring.begin(&seat, name, &mut self.messages),
        }
        self.consider(name);
    }

    /// Announces this member, if it has won by its algorithm and no other member leads.
    fn consider(&mut self, name: TopicName) {
        let seat = self.seat.clone();
        let Some(election) = self.elections.get_mut(&name) else { return };
        let stands = election.stands() && election.called && self.is_open && election.announced.is_none();
        if !stands || !election.is_vacant() || self.is_cut {
            return;
        }
        let has_won = match self.kind {
            ElectionKind::Bully => election.bully.has_won(election.above(&seat)),
            ElectionKind::Ring => election.ring.has_won(),
        };
        if has_won {
            self.announce(name);
        }
    }

    fn announce(&mut self, name: TopicName) {
        let (own, epoch, birth) = (self.seat.own, self.seat.epoch, self.seat.birth);
        let Some(election) = self.elections.get_mut(&name) else { return };
        let may_announce = election.stands() && election.is_vacant() && election.announced.is_none();
        assert!(may_announce && self.is_open && !self.is_cut, "a candidate announces itself where no member leads");
        election.term = election.term.saturating_add(1);
        let term = election.term;
        election.announced = Some(Announced { term, accepted: bit(own) });
        let token = FencingToken { birth, epoch, number: term };
        self.set_leader(name, Some((Leadership { leader: own, token }, false)));
        match self.kind {
            ElectionKind::Bully => self.send_to_all(name, COORDINATOR, term),
            ElectionKind::Ring if self.seat.successor() != own => {
                let message = LinkMessage { rank: own, number: term, epoch, ..LinkMessage::new(COORDINATOR, name) };
                self.messages.push((self.seat.successor(), message));
            }
            ElectionKind::Ring => {}
        }
        self.count(name);
    }

    /// Leads, if a quorum has accepted.
    fn count(&mut self, name: TopicName) {
        let own = self.seat.own;
        let Some(election) = self.elections.get_mut(&name) else { return };
        let Some(announced) = election.announced else { return };
        let early = self.seat.mutant == Some(Mutant::LeadBeforeAccepted);
        if !is_quorum(&self.members, announced.accepted) && !early {
            return;
        }
        assert!(announced.accepted & bit(own) != 0, "a winner has accepted itself");
        election.announced = None;
        let term = announced.term;
        let token = FencingToken { birth: self.seat.birth, epoch: self.seat.epoch, number: term };
        self.won += 1;
        self.set_leader(name, Some((Leadership { leader: own, token }, true)));
        self.send_to_all(name, LEADS, term);
    }

    // ---- link messages of other members ---------------------------------------------------------------------------

    /// Receives a link message of another member.
    pub(crate) fn receive(&mut self, from: Rank, message: &LinkMessage) {
        let Some(name) = message.name else { return };
        if message.number.max(message.epoch.0) >= TOKEN_NUMBERS_END
            || message.step == LEADS && message.epoch > self.seat.epoch
        {
            return; // no honest member counts so far, or leads in a later view
        }
        if !self.elections.contains_key(&name) && self.elections.len() >= ELECTIONS_MAX {
            return; // no honest group has more names
        }
        let is_about_rank = matches!(message.step, ELECTION | COORDINATOR);
        if is_about_rank && self.seat.members & bit(message.rank) == 0 {
            return; // a link message about no member would go round a ring for ever
        }
        let seat = self.seat.clone();
        let election = self.elections.entry(name).or_default();
        match message.step {
            STANDS => {
                election.candidates |= bit(from);
                election.resigned &= !bit(from);
                election.called |= message.other != 0;
                self.consider(name);
            }
            LEADS => self.on_leads(name, from, message),
            RESIGNED => self.on_resigned(name, from, message.number == 0),
            ELECTION | OK => self.on_election(name, from, message),
            COORDINATOR => self.on_coordinator(name, message),
            ACCEPTED => {
                if let Some(announced) = election.announced.as_mut().filter(|own| own.term == message.number) {
                    announced.accepted |= bit(from);
                    self.count(name);
                }
            }
            REFUSED => {
                let is_ours = election.announced.is_some_and(|own| own.term == message.number);
                // A member that leads, or is higher, has priority; a lower member withdraws when it hears of us. In a
                // ring a refused announcement goes no further.
                let yields = message.other != 0 || message.rank > seat.own || self.kind == ElectionKind::Ring;
                if is_ours && message.rank == seat.own {
                    // A member led in that term or a later one, and that leadership has ended: this member needs
                    // another term.
                    election.term = election.term.max(message.epoch.0);
                    self.withdraw(name);
                    self.vacant(name);
                } else if is_ours && yields {
                    // If the member with priority has resigned meanwhile, its resignation came before the refusal: no
                    // other message will follow.
                    let has_led = message.other != 0 && election.led >= message.epoch.0;
                    let has_gone = message.other == 0 && election.resigned & bit(message.rank) != 0;
                    if has_led && self.kind == ElectionKind::Bully {
                        return; // it has noted our announcement, and accepts it once it has heard what we have
                    }
                    self.withdraw(name);
                    if has_gone || self.kind == ElectionKind::Ring {
                        self.vacant(name);
                    }
                }
            }
            _ => {}
        }
    }

    /// Withdraws an announcement: the members that accepted it are free again.
    fn withdraw(&mut self, name: TopicName) {
        self.step_down(name);
        if let Some(election) = self.elections.get_mut(&name) {
            election.ring.is_over(); // every candidate that hears of it begins again
            election.is_void = true;
        }
        self.send_to_all(name, RESIGNED, 1);
    }

    fn on_election(&mut self, name: TopicName, from: Rank, message: &LinkMessage) {
        let seat = self.seat.clone();
        let Some(election) = self.elections.get_mut(&name) else { return };
        if let Some((leadership, true)) = election.leader
            && leadership.leader == seat.own
        {
            // There is a leader: this member. In a ring the message goes no further.
            let (number, epoch) = (leadership.token.number, leadership.token.epoch);
            let to = if self.kind == ElectionKind::Ring { message.rank } else { from };
            if to != seat.own {
                self.messages
                    .push((to, LinkMessage { rank: seat.own, number, epoch, ..LinkMessage::new(LEADS, name) }));
            }
            return;
        }
        let stands = election.stands();
        election.called = true;
        match (self.kind, message.step) {
            (ElectionKind::Bully, ELECTION) => {
                let begins = election.bully.on_election(&seat, (name, from), stands, &mut self.messages);
                if begins && self.is_open && election.announced.is_none() {
                    election.bully.begin(&seat, name, election.candidates, &mut self.messages);
                }
            }
            (ElectionKind::Bully, _) => election.bully.on_ok(from),
            (ElectionKind::Ring, ELECTION) => {
                if election.announced.is_some() {
                    return; // this member has won already
                }
                let stands = stands && self.is_open;
                election.ring.on_election(&seat, name, message, stands, &mut self.messages);
            }
            (ElectionKind::Ring, _) => {}
        }
        self.consider(name);
    }

    fn on_coordinator(&mut self, name: TopicName, message: &LinkMessage) {
        let (seat, winner, term) = (self.seat.clone(), message.rank, message.number);
        let Some(election) = self.elections.get_mut(&name) else { return };
        if winner == seat.own {
            // The announcement has been round the whole ring.
            if let Some(announced) = election.announced.as_mut().filter(|own| own.term == term) {
                announced.accepted = seat.members;
                self.count(name);
            }
            return;
        }
        let is_rival = election.announced.is_some() && winner > seat.own && self.kind == ElectionKind::Bully;
        if is_rival {
            self.withdraw(name); // the higher rank has priority
        }
        let Some(election) = self.elections.get_mut(&name) else { return };
        let blind = seat.mutant == Some(Mutant::StaleCoordinator);
        let other = election.leader.filter(|(l, _)| l.leader != winner && seat.members & bit(l.leader) != 0);
        if blind || other.is_none() && term > election.led {
            return self.accept(name, winner, term);
        }
        election.refused.insert(winner, term);
        let (rank, leads) = other.map_or((winner, false), |(l, shown)| (l.leader, shown));
        let (other, epoch) = (u64::from(leads), Epoch(election.led));
        let refusal = LinkMessage { rank, number: term, other, epoch, ..LinkMessage::new(REFUSED, name) };
        self.messages.push((winner, refusal));
    }

    /// Accepts an announcement: this member accepts no other leader until the winner withdraws, resigns or leaves the
    /// view.
    fn accept(&mut self, name: TopicName, winner: Rank, term: u64) {
        let seat = self.seat.clone();
        assert!(winner != seat.own && seat.members & bit(winner) != 0, "{winner} is another member");
        let token = FencingToken { birth: seat.birth, epoch: seat.epoch, number: term };
        let Some(election) = self.elections.get_mut(&name) else { return };
        election.announced = None;
        election.refused.remove(&winner);
        election.bully.is_over();
        election.ring.is_over();
        self.set_leader(name, Some((Leadership { leader: winner, token }, false)));
        if self.kind == ElectionKind::Ring {
            let on =
                LinkMessage { rank: winner, number: term, epoch: seat.epoch, ..LinkMessage::new(COORDINATOR, name) };
            return self.messages.push((seat.successor(), on));
        }
        self.messages.push((winner, LinkMessage { number: term, ..LinkMessage::new(ACCEPTED, name) }));
    }

    fn on_leads(&mut self, name: TopicName, from: Rank, message: &LinkMessage) {
        let token = FencingToken { birth: self.seat.birth, epoch: message.epoch, number: message.number };
        let Some(election) = self.elections.get_mut(&name) else { return };
        if token < election.latest {
            return; // another member has led since: the sender has resigned, and announces that next
        }
        if election.leader.is_some_and(|(known, _)| known.token > token && known.leader != from) {
            // The sender will hear of the newer leader, whose acceptance here counts; or of its withdrawal.
            election.passed = Some(Leadership { leader: from, token });
            return;
        }
        (election.announced, election.passed, election.unconfirmed) = (None, None, false);
        // A winner with a later term still waits for this member: a leader of an earlier view confirms its leadership,
        // and may have resigned since.
        let is_later = |term: u64| (self.seat.epoch, term) > (token.epoch, token.number);
        election.refused.retain(|_, term| is_later(*term));
        election.bully.is_over();
        election.ring.is_over();
        self.set_leader(name, Some((Leadership { leader: from, token }, true)));
    }

    /// A member no longer leads, or has withdrawn its announcement. `leaves`: it is no longer a candidate either.
    fn on_resigned(&mut self, name: TopicName, from: Rank, leaves: bool) {
        let Some(election) = self.elections.get_mut(&name) else { return };
        if leaves {
            election.candidates &= !bit(from);
            election.resigned |= bit(from);
            election.bully.forget(from);
        }
        let has_led = election.shown().is_some_and(|leadership| leadership.leader == from);
        if !leaves || !has_led {
            election.ring.is_over(); // its round is void, and rounds that ended at it may have to begin again
            election.is_void = true;
        } else {
            election.ring.renew(); // the former leader may have ended a round that began while it led
        }
        election.refused.remove(&from);
        election.passed = election.passed.filter(|leadership| leadership.leader != from);
        let is_free = election.leader.is_some_and(|(leadership, _)| leadership.leader == from);
        if is_free && self.replace_leader(name) {
            return;
        }
        self.vacant(name);
    }

    /// The leader no longer leads: a leadership that this member heard of meanwhile counts; without one, this member
    /// accepts the highest winner that it refused only because of that leader. Returns whether it accepts one.
    fn replace_leader(&mut self, name: TopicName) -> bool {
        let Some(election) = self.elections.get_mut(&name) else { return false };
        let (passed, led) = (election.passed.take(), election.led);
        let next = election.refused.iter().next_back().map(|(winner, term)| (*winner, *term));
        self.set_leader(name, passed.map(|leadership| (leadership, true)));
        let is_bully = self.kind == ElectionKind::Bully && passed.is_none();
        let Some((winner, term)) = next.filter(|(_, term)| is_bully && *term > led) else { return false };
        self.accept(name, winner, term);
        true
    }

    /// There is no leader any more, and all members know: the algorithm begins again.
    fn vacant(&mut self, name: TopicName) {
        let seat = self.seat.clone();
        let Some(election) = self.elections.get_mut(&name) else { return };
        if !election.is_vacant() || !election.stands() || !election.called || !self.is_open {
            return;
        }
        let standing = election.standing(&seat);
        let is_void = core::mem::take(&mut election.is_void);
        let eldest = self.members.iter().find(|rank| standing & bit(**rank) != 0).copied();
        if self.kind == ElectionKind::Ring && (is_void || eldest == Some(seat.own)) {
            election.ring.begin(&seat, name, &mut self.messages);
        }
        self.consider(name);
    }

    // ---- the view -------------------------------------------------------------------------------------------------

    /// A view begins: leaders that are not in it no longer lead.
    pub(crate) fn enter(&mut self, seat: Seat, view: &View) {
        assert!(seat.members == view.bits() && seat.epoch == view.epoch, "{seat:?} in {view:?}");
        self.members = view.members.iter().map(|member| member.rank).collect();
        self.seat = seat;
        (self.is_open, self.suspects) = (false, 0);
        if core::mem::replace(&mut self.is_cut, false) {
            self.report_leaders();
        }
        self.messages.clear();
        let own = self.seat.own;
        self.elections.retain(|_, election| election.participation.is_some());
        let names: Vec<TopicName> = self.elections.keys().copied().collect();
        for name in names {
            let members = self.seat.members;
            let Some(election) = self.elections.get_mut(&name) else { continue };
            election.candidates = if election.stands() { bit(own) } else { 0 };
            (election.term, election.led, election.announced, election.passed) = (0, 0, None, None);
            election.refused.clear();
            election.resigned = 0;
            election.is_void = false;
            election.begins = false; // STANDS announces to all that the election was begun
            election.bully.is_over();
            election.ring.is_over();
            let keeps = election.leader.filter(|(l, shown)| *shown && members & bit(l.leader) != 0);
            let keeps = if self.seat.mutant == Some(Mutant::LeaderNotVoided) { election.leader } else { keeps };
            election.unconfirmed = true;
            self.set_leader(name, keeps);
        }
    }

    /// What this member announces at the beginning of a view.
    pub(crate) fn announcements(&self) -> Vec<LinkMessage> {
        let (own, mut messages) = (self.seat.own, Vec::new());
        for (name, election) in &self.elections {
            if election.stands() {
                messages.push(LinkMessage {
                    rank: own,
                    other: u64::from(election.called),
                    ..LinkMessage::new(STANDS, *name)
                });
            }
            if let Some(leadership) = election.shown().filter(|leadership| leadership.leader == own) {
                let (number, epoch) = (leadership.token.number, leadership.token.epoch);
                messages.push(LinkMessage { rank: own, number, epoch, ..LinkMessage::new(LEADS, *name) });
            }
        }
        messages
    }

    /// A member has announced all that it holds: elections that it did not name it does not lead.
    pub(crate) fn on_state_sent(&mut self, from: Rank) {
        let silent =
            |election: &Election| election.unconfirmed && election.leader.is_some_and(|(l, _)| l.leader == from);
        let names: Vec<TopicName> =
            self.elections.iter().filter(|(_, election)| silent(election)).map(|(name, _)| *name).collect();
        for name in names {
            self.replace_leader(name);
        }
    }

    /// Every member has announced what it holds.
    pub(crate) fn open(&mut self) {
        self.is_open = true;
        let names: Vec<TopicName> = self.elections.keys().copied().collect();
        for name in names {
            self.vacant(name);
            if self.elections.get_mut(&name).is_some_and(|election| core::mem::take(&mut election.begins)) {
                self.begin(name);
            }
        }
    }

    /// Reports that the known leaders no longer count, because other members may have elected one; or that they count
    /// again.
    fn report_leaders(&mut self) {
        for (name, election) in &self.elections {
            if let Some(leadership) = election.shown().filter(|_| election.participation.is_some()) {
                self.news.push(Coordination::Leader(*name, Some(leadership).filter(|_| !self.is_cut)));
            }
        }
    }

    /// The set of suspected members has changed. `is_cut`: this member can reach no quorum.
    pub(crate) fn suspect(&mut self, suspects: u64, is_cut: bool) {
        let risen = suspects & !self.suspects;
        self.suspects = suspects;
        let was_cut = core::mem::replace(&mut self.is_cut, is_cut);
        if was_cut != is_cut {
            self.report_leaders();
        }
        if was_cut && !is_cut {
            let names: Vec<TopicName> = self.elections.keys().copied().collect();
            names.into_iter().for_each(|name| self.vacant(name));
        }
        let of_leader = |election: &Election| election.leader.is_some_and(|(l, _)| risen & bit(l.leader) != 0);
        let names: Vec<TopicName> =
            self.elections.iter().filter(|(_, election)| of_leader(election)).map(|(name, _)| *name).collect();
        names.into_iter().for_each(|name| self.begin(name));
    }

    /// From now on this member leads nothing.
    pub(crate) fn fence(&mut self, why: Loss) {
        let names: Vec<TopicName> = self.elections.keys().copied().collect();
        let own = self.seat.own;
        for name in names {
            let Some(election) = self.elections.get(&name) else { continue };
            if election.leader.is_none_or(|(leadership, _)| leadership.leader != own) && election.announced.is_none() {
                continue;
            }
            let led = election.shown().is_some();
            self.step_down(name);
            self.send_to_all(name, RESIGNED, 1);
            if led {
                self.news.push(Coordination::Deposed(name, why));
            }
        }
    }

    /// This process is no longer in the view: it knows of no leader.
    pub(crate) fn removed(&mut self) {
        self.fence(Loss::Removed);
        let names: Vec<TopicName> = self.elections.keys().copied().collect();
        names.into_iter().for_each(|name| self.set_leader(name, None));
        (self.seat, self.is_open) = (Seat { own: self.seat.own, epoch: Epoch(0), ..Seat::default() }, false);
        self.messages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Member;
    use alloc::vec;
    use bourdon_wire::{Incarnation, InstanceId};

    fn view(epoch: u64) -> View {
        let members = vec![Rank(0), Rank(1), Rank(4)];
        let members = members.into_iter().map(|rank| Member { rank, incarnation: Incarnation(1) }).collect();
        View { epoch: Epoch(epoch), members, sequencer: Rank(0), instance: InstanceId(1), birth: 1 }
    }

    fn steps(elections: &mut Elections) -> Vec<(Rank, u16)> {
        elections.take_link_messages().into_iter().map(|(to, message)| (to, message.step)).collect()
    }

    /// Rank 0 has entered view 2, believes that rank 1 leads since view 1, and refuses rank 4.
    fn refused(name: TopicName) -> Elections {
        let mut elections = Elections::new(ElectionKind::Bully);
        elections.enter(Seat::new(Rank(0), &view(1), None), &view(1));
        elections.take_part(name, Participation::Watch).unwrap();
        elections.receive(Rank(1), &leads(name));
        elections.enter(Seat::new(Rank(0), &view(2), None), &view(2));
        let epoch = Epoch(2);
        let message = LinkMessage { rank: Rank(4), number: 1, epoch, ..LinkMessage::new(COORDINATOR, name) };
        elections.receive(Rank(4), &message);
        assert_eq!(steps(&mut elections), [(Rank(4), REFUSED)]);
        elections
    }

    fn leads(name: TopicName) -> LinkMessage {
        LinkMessage { rank: Rank(1), number: 6, epoch: Epoch(1), ..LinkMessage::new(LEADS, name) }
    }

    #[test]
    fn a_refused_winner_is_accepted_when_a_leader_of_an_earlier_view_confirms_and_resigns() {
        let name = TopicName::new("chief").unwrap();
        let mut elections = refused(name);
        elections.receive(Rank(1), &leads(name));
        elections.receive(Rank(1), &LinkMessage { rank: Rank(1), ..LinkMessage::new(RESIGNED, name) });
        assert_eq!(steps(&mut elections), [(Rank(4), ACCEPTED)]);
    }

    #[test]
    fn a_refused_winner_is_accepted_when_the_leader_does_not_confirm() {
        let name = TopicName::new("chief").unwrap();
        let mut elections = refused(name);
        elections.on_state_sent(Rank(1));
        assert_eq!(steps(&mut elections), [(Rank(4), ACCEPTED)]);
    }
}
