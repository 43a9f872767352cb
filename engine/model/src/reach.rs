//! Whether the group can always go on: progress, as far as a model without time can state it.
//!
//! Liveness in general asks for fair schedules. This search asks for less, which is enough to find what blocks for
//! good: from every state in which a majority lives there is *some* way to a state in which all living members of the
//! next view have installed it, if one more ballot may be begun. The way must not count on luck: what a crashed process
//! had sent is taken as lost, and what only that process knew as unknown.
//!
//! All states are visited forwards, and the search records from which states each was reached by an edge that needs no
//! luck; then it goes backwards from the states that are good. A state that must be good and was not met is stuck.

use crate::budget::{Budget, Spent};
use crate::driver::ranks;
use crate::group::{Action, Group, bits};
use crate::properties::is_quorum;
use crate::state::{Node, State};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The result.
#[derive(Debug)]
pub struct Reach {
    /// How many states were visited.
    pub states: usize,
    /// How many of them had to be good.
    pub judged: usize,
    /// Whether all states were visited.
    pub exhausted: bool,
    /// If not: what was used up before.
    pub spent: Option<Spent>,
    /// The trace to the nearest state from which there is no way on.
    pub stuck: Option<Vec<Action>>,
}

/// Visits all states of a group whose last ballot is kept for the way on.
pub fn reach(group: &Group, budget: Budget) -> Reach {
    let mut known = HashMap::new();
    let mut came: Vec<u32> = vec![0]; // by state: from which it was reached first
    let (mut edges, mut good, mut judged) = (Vec::<(u32, u32)>::new(), Vec::<u32>::new(), Vec::<u32>::new());
    let first = group.first();
    known.insert(fingerprint(&first), 0);
    let (mut layer, mut spent, mut actions) = (vec![(0u32, first)], None, Vec::new());
    while !layer.is_empty() && spent.is_none() {
        let mut later = Vec::new();
        for (at, state) in layer.drain(..) {
            if is_good(group, &state) {
                good.push(at);
                continue;
            }
            if must_be_good(group, &state) {
                judged.push(at);
            }
            group.possible(&state, &mut actions);
            for action in actions.drain(..) {
                let next = group.next(&state, &action);
                let fresh = came.len() as u32;
                let to = match known.entry(fingerprint(&next)) {
                    Entry::Occupied(entry) => *entry.get(),
                    Entry::Vacant(entry) => {
                        entry.insert(fresh);
                        came.push(at);
                        later.push((fresh, next));
                        fresh
                    }
                };
                if to != at && needs_no_luck(&state, &action) {
                    edges.push((to, at));
                }
            }
            if at % 16_384 == 0 && spent.is_none() {
                spent = budget.spent();
            }
        }
        layer = later;
    }
    let exhausted = spent.is_none();
    let stuck = if exhausted { nearest_stuck(came.len(), edges, &good, &judged) } else { None };
    let stuck = stuck.map(|at| way(group, &known, &came, at));
    Reach { states: came.len(), judged: judged.len(), exhausted, spent, stuck }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// The first state that must be good and from which no good state is reached.
fn nearest_stuck(states: usize, mut edges: Vec<(u32, u32)>, good: &[u32], judged: &[u32]) -> Option<u32> {
    edges.sort_unstable();
    let mut met = vec![false; states];
    let mut open = good.to_vec();
    while let Some(at) = open.pop() {
        if core::mem::replace(&mut met[at as usize], true) {
            continue;
        }
        let begin = edges.partition_point(|(to, _)| *to < at);
        let before = edges[begin..].iter().take_while(|(to, _)| *to == at).map(|(_, from)| *from);
        open.extend(before.filter(|from| !met[*from as usize]));
    }
    judged.iter().copied().find(|at| !met[*at as usize])
}

/// The actions that lead to a state, found by walking the shortest way there a second time.
fn way(group: &Group, known: &HashMap<u64, u32>, came: &[u32], at: u32) -> Vec<Action> {
    let mut path = vec![at];
    while let Some(last) = path.last().filter(|last| **last != 0) {
        path.push(came[*last as usize]);
    }
    let (mut state, mut taken) = (group.first(), Vec::new());
    for to in path.iter().rev().skip(1) {
        let mut actions = Vec::new();
        group.possible(&state, &mut actions);
        let leads = |action: &Action| known.get(&fingerprint(&group.next(&state, action))) == Some(to);
        let action = actions.into_iter().find(leads).expect("the way was walked before");
        state = group.next(&state, &action);
        taken.push(action);
    }
    taken
}

/// Whether the next view was decided and all its living members are in it.
fn is_good(group: &Group, state: &State) -> bool {
    let last = usize::from(group.changes) - 1;
    let Some(value) = state.decided.get(last).and_then(|values| values.first()) else { return false };
    ranks(bits(&value.members)).all(|rank| {
        let node = &state.nodes[rank.index()];
        !node.alive || !node.member || node.epoch == group.changes
    })
}

/// Whether the living members are a quorum of the view and of every next view that a living member has accepted, or
/// that is decided, and a ballot is left.
fn must_be_good(group: &Group, state: &State) -> bool {
    // A member that went when it was removed is no crash: the group must not need it.
    let living = |(at, node): (usize, &Arc<Node>)| u64::from(node.alive || node.left) << at;
    let living = state.nodes.iter().enumerate().map(living).fold(0, |bits, bit| bits | bit);
    let views = state.views.iter().all(|view| is_quorum(view, living));
    let accepted = state.nodes.iter().filter(|node| node.accepted != 0).all(|node| {
        let mut view = state.view(node.epoch).clone();
        view.members.retain(|member| node.accepted >> member.rank.0 & 1 == 1);
        is_quorum(&view, living)
    });
    let ballots = state.ballots.iter().all(|begun| *begun < group.ballots);
    views && accepted && ballots
}

/// Whether the living processes can take the action by themselves.
fn needs_no_luck(state: &State, action: &Action) -> bool {
    let lives = |rank: u8| state.nodes[usize::from(rank)].alive;
    match action {
        Action::Crash(_) | Action::Forget(_) | Action::Go(_) => false,
        Action::Receive(_, stream) => lives(*stream),
        Action::Hand(_, packet) => lives(packet.from),
        Action::Learn(own) => {
            let epoch = state.nodes[usize::from(*own)].epoch;
            let knows =
                |node: &&Arc<Node>| node.epoch > epoch || (node.epoch == epoch && node.ballots().decided().is_some());
            state.nodes.iter().filter(|node| node.alive && node.member).any(|node| knows(&node))
        }
        _ => true,
    }
}
