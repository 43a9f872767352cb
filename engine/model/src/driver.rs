//! What a process does around `ViewChange`, as `process/change.rs` does it.
//!
//! - A step to answer is answered to its sender.
//! - A value proposed is accepted once its cut is here, at once if it is here already.
//! - Who leads decides as soon as it may. Waiting for all who go on changes nothing but when, and a message that has not
//!   been taken in yet is the same wait.
//! - Who knows the decision installs it once its cut is here, keeps that cut, and begins the next epoch anew.

use crate::group::{Group, bits};
use crate::properties::{self, Property};
use crate::state::{Delivered, Node, Packet, State, kind, rank};
use bourdon_protocol::Mutant;
use bourdon_protocol::control::view_change::{Ballot, Reaction, Step, Value, ViewChange, Wish};
use bourdon_protocol::view::Member;
use bourdon_wire::{Incarnation, Rank};
use std::sync::Arc;

/// The one life each process has here.
pub fn life(index: u8) -> Member {
    Member { rank: rank(index), incarnation: Incarnation(1) }
}

/// Begins a ballot.
pub fn lead(group: &Group, state: &mut State, own: u8, wish: Wish) {
    let node = state.node(own);
    let epoch = node.epoch;
    let held = node.held();
    let (ballot, step) = node.change.lead(wish, held);
    state.ballots[usize::from(epoch)] += 1;
    state.post(Packet { epoch, from: own, to: None, ballot, step });
    settle(group, state, own);
}

/// Chooses the value of a ballot that has states enough.
pub fn choose(group: &Group, state: &mut State, own: u8) {
    let node = state.node(own);
    let epoch = node.epoch;
    if let Some((ballot, step)) = node.change.choose() {
        state.post(Packet { epoch, from: own, to: None, ballot, step });
    }
    settle(group, state, own);
}

/// Takes a step in.
pub fn hand(group: &Group, state: &mut State, to: u8, packet: &Packet) {
    let node = state.node(to);
    let held = node.held();
    let reaction = node.change.on_step(life(packet.from), packet.ballot, packet.step.clone(), || held);
    if let Reaction::Answer(ballot, step) = reaction
        && (group.refusals || step != Step::Refuse)
    {
        state.post(Packet { epoch: packet.epoch, from: to, to: Some(packet.from), ballot, step });
    }
    settle(group, state, to);
}

/// Hears what was decided.
pub fn learn(group: &Group, state: &mut State, own: u8, value: Value) {
    let node = state.node(own);
    let reaction =
        node.change.on_step(life(own), Ballot(0), Step::Decide(value), || unreachable!("a decision asks nothing"));
    assert_eq!(reaction, Reaction::Decided);
    settle(group, state, own);
}

/// Does all that a process does without waiting for anybody.
pub fn settle(group: &Group, state: &mut State, own: u8) {
    let node = state.node(own);
    let epoch = node.epoch;
    if node.frozen.is_none() && (node.change.is_wedged() || node.change.decided().is_some()) {
        node.frozen = Some(node.ends.clone());
    }
    if node.change.decided().is_none() {
        let ready = |cut| group.mutant == Some(Mutant::AcceptBeforeFetch) || node.holds(cut);
        let members = node.change.wanted().filter(|value| ready(&value.cut)).map(|value| bits(&value.members));
        if let Some(members) = members
            && let Some((ballot, step)) = node.change.fetched()
        {
            node.accepted = members;
            let to = Some(ballot.proposer().0 as u8);
            state.post(Packet { epoch, from: own, to, ballot, step });
        }
        let node = state.node(own);
        if node.change.may_decide(false)
            && let Some((ballot, Step::Decide(value))) = node.change.decide()
        {
            record(state, epoch, ballot, value);
        }
    }
    let node = state.node(own);
    if let Some(value) = node.change.decided().cloned() {
        let hole = group.mutant == Some(Mutant::InstallWithHole);
        if value.members.contains(&life(own)) && (hole || node.holds(&value.cut)) {
            install(group, state, own, &value);
        } else {
            rest(group, state, own, value);
        }
    }
}

/// Notes a decision and looks at it.
fn record(state: &mut State, epoch: u8, ballot: Ballot, value: Value) {
    properties::on_decision(state, epoch, ballot, &value);
    let at = usize::from(epoch);
    if state.decided[at].is_empty() {
        let view = value.view(state.view(epoch).epoch.next());
        Arc::make_mut(&mut state.views).push(view);
        let ranks = state.nodes.len();
        state.streams.push(Arc::new(vec![Vec::new(); ranks]));
        state.decided.push(Arc::default());
        state.ballots.push(0);
    }
    if !state.decided[at].contains(&value) {
        Arc::make_mut(&mut state.decided[at]).push(value);
    }
}

/// Enters the next epoch.
fn install(group: &Group, state: &mut State, own: u8, value: &Value) {
    properties::on_install(group, state, own, value);
    let epoch = state.nodes[usize::from(own)].epoch;
    let view = state.view(epoch + 1).clone();
    let delivered = {
        let node = &state.nodes[usize::from(own)];
        let least = |(end, cut): (&u8, &bourdon_wire::DatagramNumber)| (*end).min(cut.0 as u8);
        let ends: Vec<u8> = node.ends.iter().zip(&value.cut.ends).map(least).collect();
        state.walk(epoch, &ends)
    };
    let node = state.node(own);
    let keeps = group.mutant != Some(Mutant::CutNotRetained);
    let ends = vec![0; node.ends.len()];
    node.retained = keeps.then(|| core::mem::replace(&mut node.ends, ends.clone()));
    node.ends = ends;
    node.epoch = epoch + 1;
    node.frozen = None;
    node.accepted = 0;
    node.change = ViewChange::new(life(own), view, group.mutant);
    node.history.extend(delivered);
    let twice = |(at, one): (usize, &Delivered)| node.history[..at].contains(one);
    if node.history.iter().enumerate().any(twice) {
        Property::AtMostOnce.break_in(state);
    }
}

/// Knows the decision, and is removed by it or still lacks something: nothing else of its ballots matters any more.
fn rest(group: &Group, state: &mut State, own: u8, value: Value) {
    let view = state.view(state.nodes[usize::from(own)].epoch).clone();
    let node = state.node(own);
    node.change = ViewChange::new(life(own), view, group.mutant);
    node.change.on_step(life(own), Ballot(0), Step::Decide(value), || unreachable!("a decision asks nothing"));
    node.accepted = 0;
}

/// Stops for good. What it has acknowledged stays said.
pub fn crash(group: &Group, state: &mut State, own: u8) {
    let view = state.view(state.nodes[usize::from(own)].epoch).clone();
    let node = state.node(own);
    node.alive = false;
    let said = node.acknowledged().to_vec();
    node.ends = said.clone();
    node.frozen = Some(said);
    node.retained = None;
    node.accepted = 0;
    node.change = ViewChange::new(life(own), view, group.mutant);
    state.crashes += 1;
}

/// Restarts under its old life and remembers no promise.
pub fn forget(group: &Group, state: &mut State, own: u8) {
    let view = state.view(state.nodes[usize::from(own)].epoch).clone();
    let node = state.node(own);
    node.change = ViewChange::new(life(own), view, group.mutant);
    state.crashes += 1;
}

/// A joiner has the state of a member of its first view.
pub fn join(group: &Group, state: &mut State, own: u8, donor: u8) {
    let donor: Node = (*state.nodes[usize::from(donor)]).clone();
    let view = state.view(donor.epoch).clone();
    let node = state.node(own);
    (node.member, node.epoch, node.history) = (true, donor.epoch, donor.history);
    node.retained = Some(vec![0; node.ends.len()]);
    node.change = ViewChange::new(life(own), view, group.mutant);
}

/// Takes away what can have no effect any more, so that states which differ in nothing else are one.
pub fn sweep(group: &Group, state: &mut State) {
    let mutant = group.mutant;
    let nodes = &state.nodes;
    state.packets.retain(|packet| {
        let leader = packet.to.map(|to| &nodes[usize::from(to)]);
        let leads = |node: &Node| node.votes(packet.epoch) && node.change.leads() == Some(packet.ballot);
        match &packet.step {
            Step::State { .. } => leader.is_some_and(|node| {
                let stale = mutant == Some(Mutant::StaleState) && node.votes(packet.epoch);
                stale || (leads(node) && node.change.again().is_some_and(|(_, step)| kind(&step) == 0))
            }),
            Step::Accept => leader.is_some_and(|node| leads(node)),
            Step::Refuse => {
                leader.is_some_and(|node| node.votes(packet.epoch) && node.change.promised() < packet.ballot)
            }
            Step::Prepare | Step::Propose(_) => nodes.iter().any(|node| {
                let late = mutant == Some(Mutant::AcceptBelowPromise);
                node.votes(packet.epoch) && (late || node.change.promised() <= packet.ballot)
            }),
            Step::Decide(_) => false,
        }
    });
}

/// The ranks of a bitmap.
pub fn ranks(bits: u64) -> impl Iterator<Item = Rank> {
    (0..64).filter(move |at| bits >> at & 1 == 1).map(Rank)
}
