//! Finds the group, and comes back to it.
//!
//! A process in no view hears heartbeats of a view and asks their sender for it: its members, and where each stream
//! begins. An observer then receives from there. A joiner first gets a snapshot (`transfer.rs`), follows like an
//! observer until it has caught up, and announces that it is ready. A follower receives each decision, delivers up to
//! its cut, and goes on with the next view: an observer as an observer, a joiner as a member if the view names it.
//!
//! An observer at `reliable` may have run ahead of the cut. What it delivered beyond the cut is void, and it reports
//! that.

use super::search::Search;
use super::standing::{Outside, State};
use super::{Process, Standing};
use crate::config::{Role, Start};
use crate::counters::Counter;
use crate::data::loss::CUT_WAIT_NS;
use crate::data::pipeline::Pipeline;
use crate::outbox::Destination;
use crate::view::{Beginning, View};
use bourdon_wire::records::ViewAsk;
use bourdon_wire::{Address, Epoch, InstanceId, Instant, Kind, Rank};
use zerocopy::IntoBytes;

/// How often a member is asked for the view.
const ASK_NS: u64 = 3_000_000;
/// How long requests for a view carry the same nonce: the path there and back, with a challenge between, takes longer
/// than [`ASK_NS`], and an answer must still match when the next request has been sent. A recorded answer is valid for
/// so long.
const NONCE_NS: u64 = 1_000_000_000;
/// How long a member that the others went on without waits for the decision, which was requested together with the view
/// that shows it: an answer may have overtaken another.
const DECISION_WAIT_NS: u64 = 50_000_000;
/// How long a follower may hear nothing of its view before it accepts that another group of that name has begun.
pub(super) const LOST_NS: u64 = 1_000_000_000;

impl Process {
    /// Comes back, not before the given time.
    pub(super) fn search_again(&mut self, not_before: Instant) {
        let Search { formed_at, older_since, .. } = self.search;
        self.search = Search { formed_at, older_since, ..Search::default() };
        self.change_standing(State::Outside(Outside { not_before }));
        self.transfer.forget();
    }

    /// Forgets the view it follows. A joiner may have been added and removed without hearing of it, so it comes back as
    /// another incarnation.
    pub(super) fn lose_view(&mut self) {
        let own = matches!(self.cx.config.role, Role::Member(_));
        if own {
            self.bump_incarnation();
        }
        if !self.data.view.members.is_empty() {
            self.transfer.note_passed(self.data.view.instance, self.data.view.epoch, self.data.passed());
        }
        self.data = Pipeline::idle(self.cx.config.clone(), Epoch(0));
        self.search_again(Instant(0));
    }

    /// A process comes back as another incarnation: what this incarnation promised or owed no longer counts.
    pub(super) fn bump_incarnation(&mut self) {
        self.draw_incarnation();
        self.data.config.incarnation = self.cx.config.incarnation;
        self.cx.outbox.enter(self.cx.header(InstanceId::NONE, Epoch(0)));
    }

    // ---- requests and answers -------------------------------------------------------------------------------------

    pub(super) fn request_view(&mut self, now: Instant, from: Rank, address: Address) {
        self.ask_instance(now, self.data.view.instance, from, address);
    }

    /// Asks a member of an instance for its view: of this process's own instance, or of another, which it would enter
    /// from outside.
    pub(super) fn ask_instance(&mut self, now: Instant, instance: InstanceId, from: Rank, address: Address) {
        let busy =
            matches!(&self.state, State::Outside(outside) if self.transfer.is_asking() || now < outside.not_before);
        if busy || now.since(self.search.asked_at) < ASK_NS || !address.is_reachable() {
            return;
        }
        self.search.asked_at = now;
        let search = &mut self.search;
        if search.nonce == 0 || search.asked_instance != instance || now.since(search.nonce_since) >= NONCE_NS {
            (search.nonce, search.nonce_since, search.asked_instance) = (self.identity.rng.u64(1..), now, instance);
        }
        self.send_view_ask(now, from, address);
    }

    /// Sends the request for a view, the first time or again with a cookie.
    pub(super) fn send_view_ask(&mut self, now: Instant, from: Rank, address: Address) {
        let (nonce, instance) = (self.search.nonce, self.search.asked_instance);
        let cookie = self.word_for_view(from, address);
        let ask = ViewAsk { reply_to: self.cx.config.address, nonce: nonce.into(), cookie: cookie.into() };
        // The answer depends on the instance and the epoch that the request names.
        let (own, epoch) = (self.data.view.instance, self.data.view.epoch);
        // A process in no view, or of another instance, needs the newest view, not the view after its own.
        let inside = self.standing() != Standing::Outside && instance == own;
        let (own, epoch) = if inside { (own, epoch) } else { (InstanceId::NONE, Epoch(0)) };
        let header = self.cx.header(own, epoch);
        let to = Destination::Peer(address);
        self.cx.send_as(header, now, to, Kind::ViewAsk, [ask.as_bytes(), &[]]);
    }

    pub(super) fn is_in(&self, view: &View) -> bool {
        self.cx.config.rank().is_some_and(|rank| view.incarnation(rank) == Some(self.cx.config.incarnation))
    }

    /// A member learns that the others went on without it. How its own view ended may still come: the decision was
    /// requested together with this, and members send the cut again. It gives that up when none of it comes any more,
    /// as over a path that carries no long datagrams.
    pub(super) fn find_out_removed(&mut self, now: Instant, epoch: Epoch) {
        let received = self.cx.counters.get(Counter::DatagramsReceived);
        let wait_ns = if self.state.decided().is_some() { CUT_WAIT_NS } else { DECISION_WAIT_NS };
        let State::Member(joined) = &mut self.state else { return };
        let (since, before) = *joined.left_out.get_or_insert((now, received));
        if before != received {
            joined.left_out = Some((now, received));
        }
        let is_next = epoch == self.data.view.epoch.next();
        if is_next && (before != received || now.since(since) < wait_ns) {
            return;
        }
        let value = self.decision_of(self.data.view.epoch).cloned();
        self.removed(now, value, epoch);
    }

    /// A process in no view receives one, unless it comes back too early.
    pub(super) fn find_view(&mut self, now: Instant, view: View, beginning: Beginning) {
        if matches!(&self.state, State::Outside(outside) if now >= outside.not_before) {
            self.found(now, view, beginning);
        }
    }

    pub(super) fn found(&mut self, now: Instant, view: View, beginning: Beginning) {
        let fetches = matches!(self.cx.config.role, Role::Member(_)) || self.cx.config.start != Start::Oldest;
        if fetches {
            self.begin_transfer(now, view, beginning);
        } else {
            self.follow(now, view, &beginning);
        }
    }
}
