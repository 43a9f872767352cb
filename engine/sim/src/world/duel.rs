//! Duels: every step of a ballot reaches only some of the members that it is meant for.
//!
//! A mistake with ballots shows where one member has accepted a value, a second decides another without hearing of it
//! and falls silent, and a third has to find out what was decided. Cuts at random moments never produce this. So in a
//! plan of duels the network reads the datagrams it carries: when a `PREPARE`, `PROPOSE` or `DECIDE` is sent for the
//! first time, its sender is cut off from some of the others, or from all, for about as long as it takes another to
//! take over.

use crate::network::Network;
use crate::plan::{GROUP, Plan};
use bourdon_wire::records::{BallotStep, ballot_steps};
use bourdon_wire::{Datagram, Kind};
use fastrand::Rng;

#[derive(Debug)]
pub(super) struct Duels {
    members: usize,
    takeover_ns: u64,
    /// By member: the ballot and step that it sent last.
    seen: Vec<(u64, u8)>,
}

impl Duels {
    pub(super) fn new(plan: &Plan) -> Self {
        let members = usize::from(plan.members);
        Self { members, takeover_ns: plan.timing().membership.takeover_after_ns, seen: vec![(0, 0); members] }
    }

    /// Cuts off the sender of a datagram that holds a new step of a ballot.
    pub(super) fn hinder(&mut self, now_ns: u64, from: usize, datagram: &[u8], rng: &mut Rng, network: &mut Network) {
        let Some(step) = step(datagram).filter(|step| from < self.members && self.seen[from] != *step) else {
            return;
        };
        self.seen[from] = step;
        // By thousandths: the sender is cut off from no other, from all; else from each or not, at random.
        let (none, all) = match step.1 {
            ballot_steps::PREPARE => (500, 0),
            ballot_steps::PROPOSE => (250, 350),
            _ => (200, 600),
        };
        let dice = rng.u32(0..1000);
        if dice < none {
            return;
        }
        let some = if dice < none + all { u64::MAX } else { rng.u64(..) };
        let (deaf, dumb) = [(true, true), (true, true), (true, false), (false, true)][rng.usize(0..4)];
        let until_ns = now_ns + rng.u64(self.takeover_ns / 2..6 * self.takeover_ns);
        for other in (0..self.members).filter(|other| *other != from && some & 1 << other != 0) {
            if dumb {
                network.cut(from, other, until_ns);
            }
            if deaf {
                network.cut(other, from, until_ns);
            }
        }
        network.faults.cut += 1;
    }
}

/// The ballot and the step that a proposer sends in this datagram.
fn step(datagram: &[u8]) -> Option<(u64, u8)> {
    let datagram = Datagram::parse(datagram, GROUP).ok().filter(|datagram| datagram.has(Kind::Ballot))?;
    let ballots = datagram.frames().filter(|frame| frame.kind() == Some(Kind::Ballot));
    let steps = ballots.filter_map(|frame| BallotStep::read_all(frame.body).map(|(step, _)| step));
    let seen = steps.map(|step| (step.ballot.get(), step.step));
    { seen }.find(|(_, step)| [ballot_steps::PREPARE, ballot_steps::PROPOSE, ballot_steps::DECIDE].contains(step))
}
