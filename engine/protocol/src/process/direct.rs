//! Direct messages of a process: which process has a rank, which members are nearest, which are suspected. The protocol
//! is `control/direct.rs`.

use super::{Process, Standing};
use crate::config::Config;
use crate::control::direct::caller::{Health, Target, TargetChoice};
use crate::control::direct::{Direct, Out};
use crate::event::{CallId, DirectMessage, DirectOutcome, DirectRefusal};
use crate::outbox::Outbox;
use crate::view::Member;
use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::{Address, Instant, Rank};
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
    /// Sends a message of at most one datagram to one member. [`Process::poll_outcome`] returns whether it was
    /// accepted.
    ///
    /// # Errors
    /// If it is too long, too many are pending, or the member was not heard.
    pub fn send_to(&mut self, now: Instant, rank: Rank, payload: &[u8]) -> Result<CallId, DirectRefusal> {
        let target = self.target(rank)?;
        self.call(now, TargetChoice::One, vec![target], payload)
    }

    /// The same to any process of the group by its address: an observer's or a client's, as given in a message.
    ///
    /// # Errors
    /// If it is too long, too many are pending, or nothing can be sent there.
    pub fn send_to_address(&mut self, now: Instant, to: Address, payload: &[u8]) -> Result<CallId, DirectRefusal> {
        if !to.is_reachable() || to == self.cx.config.address {
            return Err(DirectRefusal::Unreachable);
        }
        self.call(now, TargetChoice::One, vec![Target { member: None, address: to, rtt_ns: None }], payload)
    }

    /// Sends a message to the nearest of some members, by measured round trip; if that member does not accept it in
    /// time or is suspected, to the next nearest. An empty list means all other members of the view.
    ///
    /// # Errors
    /// If it is too long, too many are pending, or none of them was heard.
    pub fn send_any(&mut self, now: Instant, among: &[Rank], payload: &[u8]) -> Result<CallId, DirectRefusal> {
        let view: Vec<Rank> = self.data.view.members.iter().map(|member| member.rank).collect();
        let among = if among.is_empty() { &view[..] } else { among };
        let targets: Vec<_> = among.iter().filter_map(|rank| self.target(*rank).ok()).collect();
        self.call(now, TargetChoice::Any, targets, payload)
    }

    /// Sends a message once to all processes of the group that hear the network, without an acknowledgement.
    ///
    /// # Errors
    /// If it is too long.
    pub fn broadcast(&mut self, now: Instant, payload: &[u8]) -> Result<(), DirectRefusal> {
        let mut out = out(&mut self.cx.outbox, &mut self.cx.counters);
        self.direct.broadcast(now, payload, &mut out)
    }

    /// The next direct message received. At most 256 wait to be fetched; further messages are refused.
    pub fn poll_direct(&mut self) -> Option<DirectMessage> {
        self.direct.poll_message()
    }

    /// The outcome of the next direct message sent, in the order in which they ended.
    pub fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.direct.poll_outcome()
    }

    fn call(
        &mut self,
        now: Instant,
        choice: TargetChoice,
        targets: Vec<Target>,
        payload: &[u8],
    ) -> Result<CallId, DirectRefusal> {
        let call = self.direct.call(now, choice, targets, payload)?;
        self.tend_direct(now);
        Ok(call)
    }

    fn target(&self, rank: Rank) -> Result<Target, DirectRefusal> {
        if Some(rank) == self.cx.config.rank() {
            return Err(DirectRefusal::Own(rank));
        }
        let peer = self.cx.presence.get(rank);
        let address = peer.and_then(|peer| peer.address).ok_or(DirectRefusal::Unheard(rank))?;
        let incarnation = peer.and_then(|peer| peer.incarnation).filter(|incarnation| {
            self.data.view.contains(Member { rank, incarnation: *incarnation }) // else it can't be missed
        });
        Ok(Target { member: Some((rank, incarnation)), address, rtt_ns: self.detector.rtt_ns(rank) })
    }

    pub(super) fn on_direct(&mut self, now: Instant, rank: Rank, body: &[u8]) {
        let mut out = out(&mut self.cx.outbox, &mut self.cx.counters);
        self.direct.receive(now, rank, body, &mut out);
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
