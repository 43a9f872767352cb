//! Which claims a process accepts, and to which addresses it sends long answers: `control/plausibility.rs` and
//! `control/cookie.rs` have the rules, this file applies them to the process's state.

use super::{Process, Standing};
use crate::config::Config;
use crate::control::cookie::{ANSWER_TIMES, Cookies, HeldCookies};
use crate::control::plausibility::{Announcements, is_ballot_plausible, observed_end};
use crate::control::presence::Peer;
use crate::control::view_change::{Ballot, Step};
use crate::counters::Counter;
use crate::event::Event;
use crate::outbox::Destination;
use crate::ranks::Ranks;
use crate::values::cut::Cut;
use crate::view::{Member, View, ranks};
use bourdon_wire::records::{self, Challenge};
use bourdon_wire::{Address, DatagramNumber, Epoch, FRAME_HEADER_BYTES, Frame, HEADER_BYTES, Instant, Kind, Rank};
use zerocopy::IntoBytes;

/// The shortest ballot that is answered: a forger must send at least so much.
const BALLOT_BYTES: usize = HEADER_BYTES + FRAME_HEADER_BYTES + records::BallotStep::BYTES;

/// A member has moved, perhaps, if its known address was not announced for so many of the longest intervals between
/// heartbeats: soon enough that no member is suspected for a move.
const MOVE_SILENCE: u64 = 3;

/// A challenge that comes later renews a cookie: the losses that were reported so long ago are not reported again.
const LOSSES_REPEATED_NS: u64 = 100_000_000;

/// Whether a frame is only ever sent to a single process: a request to it, or its answer.
pub fn is_for_one(frame: &Frame<'_>) -> bool {
    match frame.kind() {
        Some(Kind::ClientRequest | Kind::ClientAnswer | Kind::ViewAsk | Kind::Challenge) => true,
        Some(Kind::Ping | Kind::Transfer | Kind::Link | Kind::Progress) => true,
        Some(Kind::Direct) => {
            let step = records::Direct::read(frame.body).map(|(record, _)| record.step.get());
            step != Some(records::direct_steps::BROADCAST)
        }
        _ => false,
    }
}

/// What a process keeps to check the claims of others.
#[derive(Debug)]
pub(super) struct Trust {
    cookies: Cookies,
    held: HeldCookies,
    pub(super) announcements: Announcements,
    /// How many bytes may still be sent in answer to the current datagram, to an address that has not proved that it
    /// receives.
    allowance: usize,
    /// Whether the current datagram was sent to all.
    to_all: bool,
    /// A datagram of another version of the protocol was reported.
    pub(super) version_reported: bool,
    /// When another address that a heartbeat names is next pinged.
    move_ping_due: Instant,
}

impl Trust {
    pub(super) fn new(now: Instant, config: &Config) -> Self {
        Self {
            cookies: Cookies::new(config.secret),
            held: HeldCookies::new(config.members),
            announcements: Announcements::new(now, config.members),
            allowance: 0,
            to_all: false,
            version_reported: false,
            move_ping_due: now,
        }
    }

    pub(super) fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// A view begins: another incarnation of a rank has issued none of the cookies that are held.
    pub(super) fn enter(&mut self, now: Instant, before: &View, view: &View) {
        self.announcements.enter(now);
        self.held.forget(|rank| before.incarnation(rank) != view.incarnation(rank));
    }

    /// A control datagram of so many bytes came. If it was sent to all, others may answer it too, so no process answers
    /// an address that has not proved that it receives.
    pub(super) fn received(&mut self, bytes: usize, to_all: bool) {
        self.allowance = if to_all { 0 } else { ANSWER_TIMES * bytes };
        self.to_all = to_all;
    }

    /// The address of the current datagram receives: its answers may be of any length.
    fn unbound(&mut self) -> bool {
        self.allowance = usize::MAX;
        true
    }
}

impl Process {
    // ---- addresses ------------------------------------------------------------------------------------------------

    /// Whether an address has proved that it receives: a member of this view or of a retained one announced it, and
    /// moved there, if it did, by [`Process::note_move`].
    pub(super) fn is_proven(&self, address: Address) -> bool {
        let is_there =
            |member: &Member| self.cx.presence.knows(*member) && self.cx.presence.address(member.rank) == Some(address);
        let mut past = self.past.members();
        self.data.view.members.iter().any(is_there) || past.any(is_there)
    }

    /// Whether a heartbeat names another address than the same incarnation of its sender did before; then it is
    /// discarded. The host of a member may have got another address, so if the known address has been silent, the other
    /// one is pinged.
    pub(super) fn is_moved(&mut self, now: Instant, from: Member, address: Address) -> bool {
        let known = self.cx.presence.get(from.rank).filter(|peer| peer.introduced);
        let known = known.filter(|peer| peer.incarnation == Some(from.incarnation));
        let is_moved = known.is_some_and(|peer| peer.address != Some(address).filter(Address::is_reachable));
        if is_moved {
            self.cx.count(Counter::DiscardedAddress);
            // At most one a heartbeat interval: the address may be a victim's that a forged heartbeat names.
            if address.is_reachable() && now >= self.trust.move_ping_due && self.may_have_moved(now, from) {
                self.trust.move_ping_due = now + self.cx.config.timing.heartbeat_max_ns;
                let nonce = self.trust.cookies.ping_nonce(now, &address);
                let ping = records::Ping { nonce: nonce.into(), reply_to: self.cx.config.address, answer: 0.into() };
                self.cx.send(now, Destination::Peer(address), Kind::Ping, [ping.as_bytes(), &[]]);
            }
        }
        is_moved
    }

    /// Whether a process has announced its known address no longer for a while. It may be in no view here, and in one
    /// that this process does not know yet.
    fn may_have_moved(&self, now: Instant, from: Member) -> bool {
        let silence_ns = MOVE_SILENCE * self.cx.config.timing.heartbeat_max_ns;
        let is_silent = |peer: &Peer| now.since(peer.heard_at) >= silence_ns;
        self.standing() != Standing::Gone && self.cx.presence.get(from.rank).is_some_and(is_silent)
    }

    /// A member has answered a ping: whether it was one to the address to which the member may have moved. That address
    /// is its address from now on, unless the known one was heard again.
    pub(super) fn note_move(&mut self, now: Instant, from: Member, answer: &records::Ping) -> bool {
        let (rank, address) = (from.rank, answer.reply_to);
        if !self.trust.cookies.is_valid_ping_nonce(now, &address, answer.nonce.get()) {
            return false;
        }
        let before = self.cx.presence.address(rank);
        if before != Some(address) && self.cx.presence.knows(from) && self.may_have_moved(now, from) {
            self.cx.presence.relocate(rank, address);
            if let Some(before) = before {
                self.direct.relocate(before, address);
            }
            let (epoch, members) = (self.data.view.epoch, self.data.view.bits());
            self.cx.event(Event::Moved { rank, address, epoch, members: Ranks(members) });
        }
        true
    }

    /// Whether an answer of so many bytes may go to an address that has sent no request.
    pub(super) fn may_answer_unasked(&mut self, to: Address, bytes: usize) -> bool {
        if self.is_proven(to) {
            return true;
        }
        let left = self.trust.allowance.checked_sub(bytes);
        self.trust.allowance = left.unwrap_or(self.trust.allowance);
        if left.is_none() {
            self.cx.count(Counter::AnswersRefused);
        }
        left.is_some()
    }

    /// Whether a request may get a long answer; if not, its sender is challenged.
    pub(super) fn is_proven_by(&mut self, now: Instant, epoch: Epoch, to: Address, cookie: u64) -> bool {
        self.is_proven(to) && self.trust.unbound() || self.has_cookie(now, epoch, to, cookie)
    }

    /// Whether a request carries the cookie of its address; if not, its sender is challenged. Any process can name a
    /// member's address: what changes how this process sends needs the cookie whatever the address.
    pub(super) fn has_cookie(&mut self, now: Instant, epoch: Epoch, to: Address, cookie: u64) -> bool {
        if self.trust.cookies.is_valid(now, &to, cookie) {
            return self.trust.unbound();
        }
        if self.trust.to_all {
            self.cx.count(Counter::AnswersRefused);
            return false;
        }
        self.cx.count(Counter::ChallengesSent);
        let record = Challenge { asked: cookie.into(), cookie: self.trust.cookies.cookie(now, &to).into() };
        let header = self.cx.header(self.data.view.instance, epoch);
        let (to, parts) = (Destination::Peer(to), [record.as_bytes(), &[]]);
        self.cx.send_as(header, now, to, Kind::Challenge, parts);
        false
    }

    /// Where a ballot's answer goes: to its proposer, or, if that address may be a stranger's and the answer is long,
    /// to all, including the proposer.
    pub(super) fn ballot_path(&self, to: Rank, answer_bytes: usize) -> Destination {
        let bytes = HEADER_BYTES + FRAME_HEADER_BYTES + answer_bytes;
        let address = self.cx.presence.address(to);
        let address = address.filter(|to| bytes <= ANSWER_TIMES * BALLOT_BYTES || self.is_proven(*to));
        address.map_or(Destination::Group, Destination::Peer)
    }

    // ---- proving one's own ----------------------------------------------------------------------------------------

    /// This process is reached at another address from now on, and members find evidence of its end at another port:
    /// its host has got another address, or its interface was made again.
    ///
    /// A member keeps its incarnation, and the others believe the address once it has answered their pings there. A
    /// process in no view has no such proof to give: it begins again as another incarnation.
    pub fn move_to(&mut self, now: Instant, address: Address, link_port: u16) {
        let is_same = self.cx.config.address == address;
        for config in [&mut self.cx.config, &mut self.data.config] {
            (config.address, config.link_port) = (address, link_port);
        }
        self.heartbeat.due = now;
        if is_same {
            return;
        }
        self.direct.move_to(address);
        self.trust.held = HeldCookies::new(self.cx.config.members); // they are for the address before
        match self.standing() {
            _ if self.cx.config.rank().is_none() => {}
            Standing::Following => self.lose_view(),
            Standing::Forming | Standing::Outside => self.renew_incarnation(),
            Standing::Member | Standing::Gone => {}
        }
    }

    /// The word for a request for repair, to the process that is asked.
    pub(super) fn word_for_repair(&mut self, to: Rank, stream: Rank) -> u64 {
        self.trust.held.word(&self.trust.cookies, to, |waiting| waiting.streams |= crate::view::bit(stream))
    }

    /// The word for a report of progress.
    pub(super) fn word_for_report(&mut self, to: Rank) -> u64 {
        self.trust.held.word(&self.trust.cookies, to, |waiting| waiting.progress = true)
    }

    /// The word for a report of losses, and whether it is a cookie that is valid.
    pub(super) fn word_for_losses(&mut self, now: Instant, to: Rank, losses: (DatagramNumber, u16)) -> (u64, bool) {
        let word = self.trust.held.word(&self.trust.cookies, to, |waiting| waiting.losses = Some((now, losses)));
        (word, self.trust.held.is_fresh(now, to))
    }

    /// The word for a request for the view.
    pub(super) fn word_for_view(&mut self, to: Rank, address: Address) -> u64 {
        self.trust.held.word(&self.trust.cookies, to, |waiting| waiting.view = Some(address))
    }

    /// The word for a request for parts of a snapshot.
    pub(super) fn word_for_snapshot(&mut self, to: Rank) -> u64 {
        self.trust.held.word(&self.trust.cookies, to, |waiting| waiting.snapshot = true)
    }

    /// A process that is not a member, and asks single members for repairs, fetches its cookies before it needs them.
    pub(super) fn renew_cookie(&mut self, now: Instant, member: Rank, address: Address) {
        let reports = self.data.reports.is_some() || !self.data.meters.is_empty();
        let asks = self.data.repairs() && !self.data.asks_all() || reports;
        let asks = asks && self.standing() == Standing::Following;
        if !asks || !address.is_reachable() {
            return;
        }
        let Some(nonce) = self.trust.held.renew(&self.trust.cookies, now, member) else { return };
        // A nonce is not a cookie, so the only answer is a challenge.
        let ask = records::ViewAsk { reply_to: self.cx.config.address, nonce: 0.into(), cookie: nonce.into() };
        let header = self.cx.header(self.data.view.instance, self.data.view.epoch);
        let (to, parts) = (Destination::Peer(address), [ask.as_bytes(), &[]]);
        self.cx.send_as(header, now, to, Kind::ViewAsk, parts);
    }

    /// A request was challenged: repeats it with the cookie.
    pub(super) fn on_challenge(&mut self, now: Instant, from: Rank, body: &[u8]) {
        let Some((challenge, _)) = Challenge::read(body) else { return };
        let Some(waiting) = self.trust.held.take(now, from, challenge) else {
            return self.cx.count(Counter::DiscardedSender);
        };
        self.cx.count(Counter::ChallengesTaken);
        for stream in ranks(waiting.streams) {
            if let Some(stream) = self.data.streams.get_mut(stream.index()) {
                stream.nak_sender.repeat(now, &stream.window);
            }
        }
        self.data.note_nak_due();
        if let Some(address) = waiting.view {
            self.send_view_ask(now, from, address);
        }
        if waiting.snapshot {
            self.transfer.hurry(now);
        }
        if let Some(reports) = self.data.reports.as_mut().filter(|_| waiting.progress) {
            reports.due = now;
        }
        if let Some((at, losses)) = waiting.losses
            && now.since(at) < LOSSES_REPEATED_NS
            && self.data.is_present(from)
        {
            self.report_congestion(now, from, losses);
        }
    }

    // ---- numbers --------------------------------------------------------------------------------------------------

    /// Whether an honest member can have sent this step of a ballot; counts it if not.
    pub(super) fn is_plausible_step(&mut self, now: Instant, ballot: Ballot, step: &Step) -> bool {
        let elapsed_ns = now.since(self.trust.announcements.view_since);
        let takeover_after_ns = self.cx.config.timing.membership.takeover_after_ns;
        let fits = |ballot: Ballot| is_ballot_plausible(ballot, elapsed_ns, takeover_after_ns);
        // A follower has promised nothing, and may have come late.
        let promises = self.standing() != Standing::Following && !matches!(step, Step::Decide(_));
        let accepted = match step {
            Step::State { accepted: Some((accepted, _)), .. } => *accepted,
            _ => Ballot(0),
        };
        if promises && !(fits(ballot) && fits(accepted)) {
            self.cx.count(Counter::DiscardedBallot);
            return false;
        }
        let mut cuts = match step {
            Step::State { held, accepted, .. } => {
                [Some(held), accepted.as_ref().map(|(_, value)| &value.cut)].into_iter().flatten()
            }
            Step::Propose(value) | Step::Decide(value) => [Some(&value.cut), None].into_iter().flatten(),
            _ => [None, None].into_iter().flatten(),
        };
        let sound = cuts.all(|cut| self.is_plausible_cut(now, cut));
        if !sound {
            self.cx.count(Counter::DiscardedCut);
        }
        sound
    }

    fn is_plausible_cut(&self, now: Instant, cut: &Cut) -> bool {
        let bound = |rank: Rank| self.stream_bound(now, rank);
        let ends = (0..).map(Rank).zip(&cut.ends);
        let fits = |rank: Rank, end: DatagramNumber| bound(rank).is_none_or(|bound| end <= bound);
        let of_members = self.standing() == Standing::Following || cut.phase <= self.data.barrier.phase + 2;
        of_members
            && { ends }.all(|(rank, end)| fits(rank, *end))
            && cut.ranges.iter().all(|range| fits(range.rank, range.end()))
    }

    /// The furthest number that a stream of this view can have reached, if anything is known of it.
    fn stream_bound(&self, now: Instant, rank: Rank) -> Option<DatagramNumber> {
        let stream = self.data.streams.get(rank.index())?;
        if self.standing() == Standing::Following {
            let limits = &self.cx.config.limits;
            let slots = limits.slots(limits.log_bytes.max(limits.receive_log_bytes)) as u64;
            let (announced, at) = self.trust.announcements.stream(rank);
            let announced = announced.max(stream.window.known_end);
            return stream.window.started.then(|| observed_end(announced, slots, now.since(at)));
        }
        match &self.data.outbound {
            // The content of the open datagram counts as held once a ballot is promised.
            Some(outbound) if outbound.rank == rank => Some(outbound.packer.open.next()),
            _ => Some(stream.window.next + stream.log.capacity()),
        }
    }

    /// Whether the members of a view have announced it; counts it if not.
    pub(super) fn is_plausible_view(&mut self, now: Instant, view: &View) -> bool {
        let follows = self.standing() != Standing::Member;
        let announced = self.trust.announcements.announces(now, view, follows);
        if !announced {
            self.cx.count(Counter::DiscardedView);
        }
        announced
    }
}
