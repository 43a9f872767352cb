//! What must hold, stated without the help of the code that is checked. The numbers are those of the invariants.
//!
//! The properties take what may have been delivered at its worst. Agreed: a member that has not promised has delivered
//! all it holds. Uniform: whatever a quorum has acknowledged, some member has delivered, and has crashed. Both count
//! each stream by itself, as FIFO channels do; in total order less is delivered, and what is delivered is a prefix of
//! the same walk.

use crate::bounds::{Group, bits};
use crate::state::{Node, State, kind};
use bourdon_protocol::Mutant;
use bourdon_protocol::control::view_change::{Ballot, Step, Value};
use bourdon_protocol::view::View;

/// One property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// 1: delivered at most once.
    AtMostOnce,
    /// 4: one value an epoch.
    OneValue,
    /// 5: a quorum of the view and one of the next accepted what was decided.
    DecidingQuorum,
    /// 7: members that move on together delivered the same.
    SameSet,
    /// 8: one order, of which every member delivered a beginning.
    OneOrder,
    /// 11: what may have been delivered uniformly is in the cut.
    Uniform,
    /// 24: a member that installs holds the whole cut; with the planes apart, one that accepts as well.
    WholeCut,
    /// 26: the continuing members of a view, with those that asked to leave, are a quorum of the view before.
    Continuation,
}

impl Property {
    /// All properties.
    pub const ALL: [Self; 8] = [
        Self::AtMostOnce,
        Self::OneValue,
        Self::DecidingQuorum,
        Self::SameSet,
        Self::OneOrder,
        Self::Uniform,
        Self::WholeCut,
        Self::Continuation,
    ];

    /// Its number and name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AtMostOnce => "1 at most once",
            Self::OneValue => "4 one value an epoch",
            Self::DecidingQuorum => "5 decided by quorums",
            Self::SameSet => "7 same set",
            Self::OneOrder => "8 one order",
            Self::Uniform => "11 uniform",
            Self::WholeCut => "24 whole cut",
            Self::Continuation => "26 a quorum continues",
        }
    }

    /// Records that it did not hold.
    pub fn break_in(self, state: &mut State) {
        state.broken |= 1 << self as u16;
    }

    /// Whether it holds so far.
    pub fn holds_in(self, state: &State) -> bool {
        state.broken & (1 << self as u16) == 0
    }
}

/// More than half of a view, or half with its first member.
pub fn is_quorum(view: &View, votes: u64) -> bool {
    let count = (votes & bits(&view.members)).count_ones() as usize;
    let first = view.members.first().is_some_and(|first| votes >> first.rank.0 & 1 == 1);
    2 * count > view.members.len() || (2 * count == view.members.len() && first)
}

/// 4, 5 and 26, when a value is decided in a ballot.
pub fn on_decision(group: &Group, state: &mut State, epoch: u8, ballot: Ballot, value: &Value) {
    if state.decided[usize::from(epoch)].iter().any(|other| other != value) {
        Property::OneValue.break_in(state);
    }
    let accepts = state.packets.iter().filter(|packet| packet.epoch == epoch && packet.ballot == ballot);
    let accepts = accepts.filter(|packet| kind(&packet.step) == kind(&Step::Accept));
    let accepts = accepts.fold(0, |bits, packet| bits | 1 << packet.from);
    let view = state.view(epoch);
    let next = value.view(view.epoch.next());
    let continuing = accepts & bits(&view.members);
    let decided = is_quorum(view, accepts) && is_quorum(&next, continuing);
    let consenting = bits(&value.members) | value.leavers & group.leaving();
    let continued = is_quorum(view, consenting);
    if !decided {
        Property::DecidingQuorum.break_in(state);
    }
    if !continued {
        Property::Continuation.break_in(state);
    }
}

/// What a member has delivered as agreed, stream by stream.
fn agreed(group: &Group, node: &Node) -> Vec<u8> {
    match group.mutant {
        Some(Mutant::DeliverAfterPromise) => node.ends.clone(),
        _ => node.acknowledged().to_vec(),
    }
}

/// 7 and 24, when a member installs.
pub fn on_install(group: &Group, state: &mut State, own: u8, value: &Value) {
    let node = &state.nodes[usize::from(own)];
    let beyond = agreed(group, node).iter().zip(&value.cut.ends).any(|(end, cut)| u64::from(*end) > cut.0);
    let whole = node.holds(&value.cut);
    if beyond {
        Property::SameSet.break_in(state);
    }
    if !whole {
        Property::WholeCut.break_in(state);
    }
}

/// 24, when a member accepts. Where the planes are not apart, the model itself reports a cut only once it is held.
pub fn on_accept(group: &Group, state: &mut State, own: u8, value: &Value) {
    if group.apart && !state.nodes[usize::from(own)].holds(&value.cut) {
        Property::WholeCut.break_in(state);
    }
}

/// 8 and 11, after every step.
pub fn after_step(group: &Group, state: &mut State) {
    let uniform = (0..state.views.len() as u8).all(|epoch| uniform_in(group, state, epoch));
    if !uniform {
        Property::Uniform.break_in(state);
    }
    let in_view = |node: &&std::sync::Arc<Node>| node.member && node.epoch > 0;
    let histories: Vec<_> = state.nodes.iter().filter(in_view).map(|node| (node.epoch, &node.history)).collect();
    let ordered = histories.iter().all(|(epoch, one)| {
        let older = histories.iter().filter(|(other, _)| other <= epoch);
        older.into_iter().all(|(_, other)| one.starts_with(other))
    });
    if !ordered {
        Property::OneOrder.break_in(state);
    }
}

/// Whether all that a quorum has acknowledged in an epoch is in the cut, if one is decided.
fn uniform_in(group: &Group, state: &State, epoch: u8) -> bool {
    let Some(value) = state.decided[usize::from(epoch)].first() else { return true };
    let view = state.view(epoch);
    let late = group.mutant == Some(Mutant::AckAfterPromise);
    value.cut.ends.iter().enumerate().all(|(stream, cut)| {
        let beyond = |node: &Node| {
            let announced = if late { &node.ends[..] } else { node.acknowledged() };
            node.member && node.epoch == epoch && u64::from(announced[stream]) > cut.0
        };
        let holders = state.nodes.iter().enumerate().filter(|(_, node)| beyond(node));
        let holders = holders.fold(0, |bits, (at, _)| bits | 1u64 << at);
        let enough = if group.mutant == Some(Mutant::UniformAtOne) { holders != 0 } else { is_quorum(view, holders) };
        !enough
    })
}
