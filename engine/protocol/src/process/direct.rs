//! Direct messages of a process: which process has a rank, which members are nearest, which are suspected. The protocol
//! is `control/direct.rs`.

use super::{Process, Standing};
use crate::config::Config;
use crate::control::direct::caller::{Health, Target, TargetChoice};
use crate::control::direct::{Direct, Out};
use crate::event::{CallId, DirectAnswer, DirectContent, DirectKind, DirectMessage, DirectOutcome, DirectRequest, To};
use crate::outbox::Outbox;
use crate::refusal::Refusal;
use crate::view::Member;
use alloc::vec;
use bourdon_wire::{Instant, Rank, records};
use zerocopy::IntoBytes;

/// The direct messages of a process that starts: with an incarnation of its own, which does not depend on its place in
/// the view.
pub(super) fn begin(config: &Config) -> Direct {
    let rank = config.rank().unwrap_or(Rank::OBSERVER);
    // What distinguishes two processes distinguishes their incarnations: their address, their start time, their role.
    let words = config.address.as_bytes().iter().map(|byte| u64::from(*byte));
    let words = words.chain([config.seed, u64::from(config.incarnation.0), u64::from(rank.0)]);
    let incarnation = words.fold(0, |seed, word| fastrand::Rng::with_seed(seed ^ word).u64(..));
    Direct::new(incarnation, config.address, config.limits.frame_bytes())
}

impl Process {
    /// Sends a message or a request of at most one datagram, beside the stream. [`Process::poll_outcome`] returns under
    /// the call's name whether it was accepted; a message to all has no name, and an answer no outcome.
    ///
    /// # Errors
    /// If it is too long, too many are pending, or no receiver was heard.
    pub fn send(&mut self, now: Instant, to: To<'_>, content: &DirectContent<'_>) -> Result<Option<CallId>, Refusal> {
        let (choice, targets) = match to {
            To::Rank(rank) => (TargetChoice::One, vec![self.target(rank)?]),
            To::Nearest => {
                let ranks = self.data.view.members.iter().map(|member| member.rank);
                (TargetChoice::Any, ranks.filter_map(|rank| self.target(rank).ok()).collect())
            }
            To::Among(ranks) => (TargetChoice::Any, ranks.iter().filter_map(|rank| self.target(*rank).ok()).collect()),
            To::Address(address) if !address.is_reachable() || address == self.cx.config.address => {
                return Err(Refusal::Unreachable);
            }
            To::Address(address) => {
                let is_proven = self.is_proven(address);
                // An answer to a member ends when it leaves the view.
                let is_there = |member: &&Member| {
                    self.cx.presence.knows(**member) && self.cx.presence.address(member.rank) == Some(address)
                };
                let mut members = self.data.view.members.iter().filter(|_| content.kind.is_answer());
                let member = members.find(is_there).map(|member| (member.rank, Some(member.incarnation)));
                (TargetChoice::One, vec![Target { member, address, is_proven, rtt_ns: None }])
            }
            To::All => {
                let mut out = out(&mut self.cx.outbox, &mut self.cx.counters);
                return self.direct.broadcast(now, content, &mut out).map(|()| None);
            }
        };
        let call = self.direct.call(now, choice, targets, content)?;
        self.tend_direct(now);
        Ok(Some(call))
    }

    /// The longest payload of a direct message of this kind.
    pub fn direct_limit_bytes(&self, kind: DirectKind) -> usize {
        self.direct.limit_bytes(kind)
    }

    /// The next direct message received. At most 256 wait to be fetched; further messages are refused.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.direct.poll_message()
    }

    /// The next request received. At most 256 wait to be fetched; further requests are refused.
    pub fn poll_request(&mut self) -> Option<DirectRequest> {
        self.direct.poll_request()
    }

    /// The next answer to a request of this process.
    pub fn poll_answer(&mut self) -> Option<DirectAnswer> {
        self.direct.poll_answer()
    }

    /// The outcome of the next direct message sent, in the order in which they ended.
    pub fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.direct.poll_outcome()
    }

    /// Whether there is a request, an answer or an outcome to fetch.
    #[inline]
    pub fn has_direct_news(&self) -> bool {
        self.direct.has_news()
    }

    /// Whether a direct message or an answer of this process was not acknowledged yet.
    pub fn owes_direct(&self) -> bool {
        self.direct.owes()
    }

    fn target(&self, rank: Rank) -> Result<Target, Refusal> {
        if Some(rank) == self.cx.config.rank() || rank.0 >= self.cx.config.members {
            return Err(Refusal::Unreachable);
        }
        let peer = self.cx.presence.get(rank);
        let address = peer.and_then(|peer| peer.address).ok_or(Refusal::Unheard(rank))?;
        let incarnation = peer.and_then(|peer| peer.incarnation).filter(|incarnation| {
            self.data.view.contains(Member { rank, incarnation: *incarnation }) // else it can't be missed
        });
        let rtt_ns = self.detector.rtt_ns(rank);
        Ok(Target { member: Some((rank, incarnation)), address, is_proven: false, rtt_ns }) // gets no answers
    }

    pub(super) fn on_direct(&mut self, now: Instant, rank: Rank, body: &[u8]) {
        let reply_to = records::Direct::read(body).map(|(record, _)| record.reply_to);
        let is_proven = reply_to.is_some_and(|address| self.is_proven(address));
        let cookies = Some(self.trust.cookies()).filter(|_| !is_proven);
        let mut out = out(&mut self.cx.outbox, &mut self.cx.counters);
        self.direct.receive(now, rank, body, cookies, &mut out);
    }

    pub(super) fn tend_direct(&mut self, now: Instant) {
        let (detector, view, presence) = (&self.detector, &self.data.view, &self.cx.presence);
        let is_inside = matches!(self.standing(), Standing::Member | Standing::Following);
        let health = |target: &Target| match target.member {
            Some((rank, Some(incarnation))) => {
                let elsewhere = presence.get(rank).is_some_and(|peer| peer.incarnation != Some(incarnation));
                let removed = is_inside && !view.contains(Member { rank, incarnation });
                match detector.is_suspected(rank) {
                    _ if elsewhere || removed => Health::Gone,
                    true => Health::Suspected,
                    false => Health::Well,
                }
            }
            Some((rank, None)) if detector.is_suspected(rank) => Health::Suspected,
            _ => Health::Well,
        };
        let mut out = out(&mut self.cx.outbox, &mut self.cx.counters);
        self.direct.tend(now, health, &mut out);
    }
}

fn out<'a>(outbox: &'a mut Outbox, counters: &'a mut crate::counters::Counters) -> Out<'a> {
    Out { outbox, counters }
}
