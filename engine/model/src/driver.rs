//! Carries out what the shipped driver commands, as `process/change.rs` does it in a process.
//!
//! There is no protocol here: inputs go to the driver, its commands change what a node holds, has promised and has
//! delivered. What the driver orders of the data plane is done at once, or waits if the planes are apart
//! ([`ToData`]): then the data plane sends, receives, acknowledges and delivers until it obeys. A report comes as soon
//! as it can be given, because the model tries what a late one could do anyhow: a late `Wedged` is a late `STATE` or
//! `PREPARE`, or one that is lost if a higher promise overtakes it; a late `CutHeld` is a late fetch, which a higher
//! promise overtakes while its own `Wedge` waits.

use crate::bounds::{Group, bits};
use crate::properties::{self, Property};
use crate::state::{Delivered, Node, Packet, State, ToData, kind, rank};
use bourdon_protocol::Mutant;
use bourdon_protocol::control::view_change::driver::{Command, Commands, DetectorReport, Driver, Timer, To};
use bourdon_protocol::control::view_change::{Ballot, Proposal, Step, Value};
use bourdon_protocol::view::{Member, View};
use bourdon_wire::{Incarnation, Rank};
use std::sync::Arc;

/// The one incarnation that each process has here.
pub fn member(index: u8) -> Member {
    Member { rank: rank(index), incarnation: Incarnation(1) }
}

/// A driver at the beginning of a view.
pub fn driver(group: &Group, own: u8, view: View) -> Driver {
    Driver::new(member(own), view, 0, group.mutant)
}

/// The detectors suspect all members, so that nothing waits: to wait for more answers is to take them in first.
const IMPATIENT: DetectorReport = DetectorReport { suspects: u64::MAX, evidence: 0, narrow: 0 };

/// Begins a ballot.
pub fn lead(group: &Group, state: &mut State, own: u8, proposal: Proposal) {
    drive(group, state, own, &IMPATIENT, |driver, _, out| driver.lead(proposal, out));
}

/// A timer expires while the detectors report these suspects.
pub fn expire(group: &Group, state: &mut State, own: u8, timer: Timer, suspects: u64) {
    let detectors = DetectorReport { suspects, evidence: 0, narrow: 0 };
    drive(group, state, own, &detectors, |driver, detectors, out| driver.on_timer(timer, detectors, out));
}

/// Takes a step in.
pub fn hand(group: &Group, state: &mut State, to: u8, packet: &Packet) {
    let (from, ballot, step) = (member(packet.from), packet.ballot, packet.step.clone());
    // A value may be chosen with the states of a quorum or with more: the proposer waits until `Patience` expires.
    let detectors = if kind(&step) == kind(&Step::Accept) { IMPATIENT } else { DetectorReport::default() };
    drive(group, state, to, &detectors, |driver, detectors, out| {
        let taken = driver.on_step(from, ballot, step, detectors, out);
        // What a planted bug proposes may be implausible to others, as in a process.
        assert!(taken.is_ok() || group.mutant.is_some(), "only members send here: {taken:?}");
    });
}

/// A member hears what was decided.
pub fn learn(group: &Group, state: &mut State, own: u8, value: Value) {
    drive(group, state, own, &IMPATIENT, |driver, detectors, out| {
        let step = Step::Decide(value);
        driver.on_step(member(own), Ballot(0), step, detectors, out).expect("it was decided");
    });
}

/// Something was received: the data plane reports what the driver waits for.
pub fn settle(group: &Group, state: &mut State, own: u8) {
    drive(group, state, own, &IMPATIENT, |_, _, _| {});
}

/// Gives an input to a node's driver, and carries out what the driver commands.
fn drive(
    group: &Group,
    state: &mut State,
    own: u8,
    detectors: &DetectorReport,
    input: impl FnOnce(&mut Driver, &DetectorReport, &mut Commands),
) {
    let mut commands = Commands::new();
    let led = state.nodes[usize::from(own)].ballots().leads();
    let epoch = state.nodes[usize::from(own)].epoch;
    input(&mut state.node(own).driver, detectors, &mut commands);
    carry_out_all(group, state, own, detectors, commands);
    let node = &state.nodes[usize::from(own)];
    if node.epoch == epoch && node.ballots().leads().is_some_and(|ballot| Some(ballot) != led) {
        state.ballots[usize::from(epoch)] += 1;
    }
}

fn carry_out_all(group: &Group, state: &mut State, own: u8, detectors: &DetectorReport, mut commands: Commands) {
    loop {
        while let Some(command) = commands.pop_front() {
            carry_out(group, state, own, detectors, command, &mut commands);
        }
        report(group, state, own, detectors, &mut commands);
        let next = state.nodes[usize::from(own)].to_data.first().cloned();
        if let Some(order) = next.filter(|order| !waits(group, &state.nodes[usize::from(own)], order)) {
            state.node(own).to_data.remove(0);
            carry_out_order(group, state.node(own), &order, detectors, &mut commands);
        } else if commands.is_empty() {
            break;
        }
    }
}

fn carry_out(
    group: &Group,
    state: &mut State,
    own: u8,
    detectors: &DetectorReport,
    command: Command,
    commands: &mut Commands,
) {
    let epoch = state.nodes[usize::from(own)].epoch;
    match command {
        Command::Send { to, ballot, step: Step::Decide(value) } => {
            debug_assert_eq!(to, To::All);
            record(group, state, epoch, ballot, value); // other members learn it by `Action::Learn`
        }
        Command::Send { step: Step::Refuse, .. } if !group.refusals => {}
        Command::Send { to, ballot, step } => {
            let to = match to {
                To::All => None,
                To::Member(rank) => Some(rank.0 as u8),
            };
            state.post(Packet { epoch, from: own, to, ballot, step });
        }
        Command::Wedge(ballot) => {
            let node = state.node(own);
            let held = group.is(Mutant::HeldBeforeWedged).then(|| node.held());
            if group.is(Mutant::PromiseBeforeWedged) {
                let held = node.held();
                node.driver.on_wedged(ballot, held, detectors, commands);
            }
            node.order(ToData::Wedge(ballot, held));
        }
        Command::Fetch { ballot, cut, .. } => state.node(own).order(ToData::Fetch(ballot, cut)),
        Command::Conclude { .. } => state.node(own).order(ToData::Conclude),
        Command::Install(value) => {
            if value.members.contains(&member(own)) {
                install(group, state, own, &value);
            }
        }
        Command::Arm(_) => {} // every timer may expire at any time
    }
}

/// Whether the data plane may obey its oldest order later. It need not where that comes to the same as something else
/// that may be late. If it has stopped and receives nothing more, only the `STATE` or `PREPARE` is late; at a member
/// that does not lead, a late fetch is a late `PROPOSE`; a decision that is carried out late is a late `DECIDE`.
fn waits(group: &Group, node: &Node, order: &ToData) -> bool {
    let matters = match order {
        ToData::Wedge(..) => node.frozen.is_none() || node.fetching.is_some() || group.late,
        ToData::Fetch(ballot, _) => node.ballots().leads() == Some(*ballot),
        ToData::Conclude => false,
    };
    group.apart && matters
}

/// The data plane obeys its oldest order.
pub fn obey(group: &Group, state: &mut State, own: u8) {
    let (node, mut commands) = (state.node(own), Commands::new());
    let order = node.to_data.remove(0);
    carry_out_order(group, node, &order, &IMPATIENT, &mut commands);
    carry_out_all(group, state, own, &IMPATIENT, commands);
}

/// What the data plane does when it obeys.
fn carry_out_order(
    group: &Group,
    node: &mut Node,
    order: &ToData,
    detectors: &DetectorReport,
    commands: &mut Commands,
) {
    if let ToData::Fetch(ballot, cut) = order {
        node.fetching = Some((*ballot, cut.clone()));
        return;
    }
    if node.frozen.is_none() {
        node.frozen = Some(node.ends.clone());
    }
    node.fetching = None;
    if let ToData::Wedge(ballot, held) = order {
        let held = held.clone().unwrap_or_else(|| node.held());
        let patient = DetectorReport::default(); // as in `hand`: a proposer waits for states until `Patience` expires
        let detectors = if group.apart { &patient } else { detectors };
        node.driver.on_wedged(*ballot, held, detectors, commands);
    }
}

/// Reports a cut that is held, and a decision that is delivered.
fn report(group: &Group, state: &mut State, own: u8, detectors: &DetectorReport, commands: &mut Commands) {
    let node = state.node(own);
    let early = group.mutant == Some(Mutant::AcceptBeforeFetch);
    if let Some((fetched_in, _)) = node.fetching.clone().filter(|(_, cut)| early || node.holds(cut)) {
        node.fetching = None;
        cut_held(group, state, own, fetched_in, detectors, commands);
        return;
    }
    let Some(value) = node.ballots().decided().filter(|_| node.to_data.is_empty()).cloned() else { return };
    let hole = group.mutant == Some(Mutant::InstallWithHole);
    if value.members.contains(&member(own)) && (hole || node.holds(&value.cut)) {
        node.driver.on_concluded(commands);
    } else if node.accepted != 0 || node.ballots().is_wedged() {
        rest(group, state, own, value);
    }
}

/// The driver accepts the value whose cut is held, unless its ballot is over.
fn cut_held(
    group: &Group,
    state: &mut State,
    own: u8,
    fetched_in: Ballot,
    detectors: &DetectorReport,
    commands: &mut Commands,
) {
    let (epoch, node) = (state.nodes[usize::from(own)].epoch, state.node(own));
    let before = node.ballots().accepted().cloned();
    let ballots = node.ballots();
    let is_current = ballots.promised() == fetched_in || group.mutant.is_some();
    if let Some(value) = ballots.wanted().filter(|_| is_current && ballots.decided().is_none()) {
        let (members, leads) = (bits(&value.members), ballots.leads());
        node.accepted = members;
        if let Some(ballot) = leads {
            // The driver counts its own acceptance without sending it; the properties count what was sent.
            state.post(Packet { epoch, from: own, to: Some(own), ballot, step: Step::Accept });
        }
    }
    state.node(own).driver.on_cut_held(fetched_in, detectors, commands);
    let accepted = state.nodes[usize::from(own)].ballots().accepted().cloned();
    if let Some(value) = accepted.filter(|value| before.as_ref() != Some(value)) {
        properties::on_accept(group, state, own, &value);
    }
}

/// Records a decision and checks it.
fn record(group: &Group, state: &mut State, epoch: u8, ballot: Ballot, value: Value) {
    properties::on_decision(group, state, epoch, ballot, &value);
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
    debug_assert!(node.to_data.is_empty(), "a decision is the last order of an epoch");
    let keeps = group.mutant != Some(Mutant::CutNotRetained);
    let ends = vec![0; node.ends.len()];
    node.retained = keeps.then(|| core::mem::replace(&mut node.ends, ends.clone()));
    node.ends = ends;
    node.epoch = epoch + 1;
    node.frozen = None;
    node.accepted = 0;
    node.driver = driver(group, own, view);
    node.history.extend(delivered);
    let twice = |(at, one): (usize, &Delivered)| node.history[..at].contains(one);
    if node.history.iter().enumerate().any(twice) {
        Property::AtMostOnce.break_in(state);
    }
}

/// The member knows the decision, and is removed by it or still lacks something: nothing else of its ballots matters
/// any more.
fn rest(group: &Group, state: &mut State, own: u8, value: Value) {
    let view = state.view(state.nodes[usize::from(own)].epoch).clone();
    let node = state.node(own);
    node.driver = driver(group, own, view);
    let (detectors, mut commands) = (DetectorReport::default(), Commands::new());
    let step = Step::Decide(value);
    node.driver.on_step(member(own), Ballot(0), step, &detectors, &mut commands).expect("it was decided");
    node.accepted = 0;
}

/// A member stops for good. What it has acknowledged stays acknowledged.
pub fn crash(group: &Group, state: &mut State, own: u8) {
    let view = state.view(state.nodes[usize::from(own)].epoch).clone();
    let node = state.node(own);
    node.alive = false;
    let acknowledged = node.acknowledged().to_vec();
    node.ends = acknowledged.clone();
    node.frozen = Some(acknowledged);
    node.retained = None;
    (node.accepted, node.fetching) = (0, None);
    node.to_data.clear();
    node.driver = driver(group, own, view);
    state.crashes += 1;
}

/// A member knows that it is removed, and goes.
pub fn go(group: &Group, state: &mut State, own: u8) {
    crash(group, state, own);
    state.crashes -= 1;
    state.node(own).left = true;
}

/// A member restarts as its old incarnation and remembers no promise.
pub fn forget(group: &Group, state: &mut State, own: u8) {
    let view = state.view(state.nodes[usize::from(own)].epoch).clone();
    let node = state.node(own);
    node.fetching = None;
    node.to_data.clear();
    node.driver = driver(group, own, view);
    state.crashes += 1;
}

/// A joiner has the state of a member of its first view.
pub fn join(group: &Group, state: &mut State, own: u8, donor: u8) {
    let donor: Node = (*state.nodes[usize::from(donor)]).clone();
    let view = state.view(donor.epoch).clone();
    let node = state.node(own);
    (node.member, node.epoch, node.history) = (true, donor.epoch, donor.history);
    node.retained = Some(vec![0; node.ends.len()]);
    node.driver = driver(group, own, view);
}

/// Takes away what can have no effect any more, so that states that differ in nothing else are equal.
pub fn sweep(group: &Group, state: &mut State) {
    let mutant = group.mutant;
    let nodes = &state.nodes;
    state.packets.retain(|packet| {
        let leader = packet.to.map(|to| &nodes[usize::from(to)]);
        let leads = |node: &Node| node.votes(packet.epoch) && node.ballots().leads() == Some(packet.ballot);
        match &packet.step {
            Step::State { .. } => leader.is_some_and(|node| {
                let stale = mutant == Some(Mutant::StaleState) && node.votes(packet.epoch);
                stale || (leads(node) && node.ballots().again().is_some_and(|(_, step)| kind(&step) == 0))
            }),
            Step::Accept => leader.is_some_and(|node| leads(node)),
            Step::Refuse => {
                leader.is_some_and(|node| node.votes(packet.epoch) && node.ballots().promised() < packet.ballot)
            }
            Step::Prepare | Step::Propose(_) => nodes.iter().any(|node| {
                let late = mutant == Some(Mutant::AcceptBelowPromise);
                node.votes(packet.epoch) && (late || node.ballots().promised() <= packet.ballot)
            }),
            Step::Decide(_) => false,
        }
    });
}

/// The ranks of a bitmap.
pub fn ranks(bits: u64) -> impl Iterator<Item = Rank> {
    (0..64).filter(move |at| bits >> at & 1 == 1).map(Rank)
}
