//! One moment of the group: what each member holds and has promised, and what is on its way.
//!
//! The fewer states differ only in what cannot matter, the more of the states that matter can be visited. So nothing is
//! kept that follows from something else: what has been delivered follows from what is held, and what may have been
//! delivered uniformly from what has been acknowledged. The messages under way are a set: taking a message out of it
//! and leaving it in is duplication, and never taking it is loss.

use bourdon_protocol::control::view_change::driver::Driver;
use bourdon_protocol::control::view_change::{Ballot, Step, Value, ViewChange};
use bourdon_protocol::values::cut::Cut;
use bourdon_protocol::view::View;
use bourdon_wire::{DatagramNumber, Rank};
use std::sync::Arc;

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// A message of its sender's: its sequence.
    Message(u8),
    /// From the sequencer: the next datagram of this rank comes now.
    Order(u8),
}

/// The datagrams sent in one epoch, by rank.
pub type Streams = Vec<Vec<Item>>;

/// A message in the order of delivery: its sender, and its sequence.
pub type Delivered = (u8, u8);

/// One step of a ballot under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The index of the epoch it is about.
    pub epoch: u8,
    /// Its sender.
    pub from: u8,
    /// Its receiver; none if it is for all.
    pub to: Option<u8>,
    /// Its ballot.
    pub ballot: Ballot,
    /// Its content.
    pub step: Step,
}

/// An order of the control plane to its data plane, as in `values/handover.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToData {
    /// Stop, as the promise of this ballot requires. The bug `held-before-wedged` gives with it what it reports.
    Wedge(Ballot, Option<Cut>),
    /// Fetch what is missing of the cut that was proposed in this ballot.
    Fetch(Ballot, Cut),
    /// The cut is decided: deliver up to it.
    Conclude,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Whether it has not crashed.
    pub alive: bool,
    /// Whether it went because it was removed, and did not crash.
    pub left: bool,
    /// Whether it is in the view of its epoch; a joiner is not yet.
    pub member: bool,
    /// The index of the epoch it is in.
    pub epoch: u8,
    /// The shipped driver of the view change, and in it the ballots.
    pub driver: Driver,
    /// The orders that its data plane has not obeyed yet, oldest first; none unless the planes are apart.
    pub to_data: Vec<Arc<ToData>>,
    /// The cut that its data plane was ordered to fetch and its ballot, as long as not all of it is held.
    pub fetching: Option<(Ballot, Cut)>,
    /// What it holds in its epoch, by rank.
    pub ends: Vec<u8>,
    /// What it held when its data plane stopped: what it has acknowledged, and delivered as agreed.
    pub frozen: Option<Vec<u8>>,
    /// The cut of the epoch before, retained for the members that have not installed yet.
    pub retained: Option<Vec<u8>>,
    /// What it delivered in the epochs before.
    pub history: Vec<Delivered>,
    /// The members of the value it accepted last, as bits; zero if none.
    pub accepted: u64,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// By rank.
    pub nodes: Vec<Arc<Node>>,
    /// By epoch: its view.
    pub views: Arc<Vec<View>>,
    /// By epoch: what was sent.
    pub streams: Vec<Arc<Streams>>,
    /// Steps under way, in a fixed order.
    pub packets: Vec<Arc<Packet>>,
    /// By epoch: each value that was decided, of which there may be one.
    pub decided: Vec<Arc<Vec<Value>>>,
    /// By epoch: how many ballots were begun.
    pub ballots: Vec<u8>,
    /// How many have crashed.
    pub crashes: u8,
    /// The properties that did not hold, as bits.
    pub broken: u16,
}

impl Node {
    /// What it has acknowledged to others, and so what they may count.
    pub fn acknowledged(&self) -> &[u8] {
        self.frozen.as_ref().unwrap_or(&self.ends)
    }

    /// Whether it neither sends nor delivers any more in its epoch.
    pub fn is_wedged(&self) -> bool {
        self.frozen.is_some()
    }

    /// Gives its data plane an order. One that waits already is not given again: the step that gave it may be received
    /// again once it is obeyed.
    pub fn order(&mut self, order: ToData) {
        if !self.to_data.iter().any(|waiting| **waiting == order) {
            self.to_data.push(Arc::new(order));
        }
    }

    /// Its ballots.
    pub fn ballots(&self) -> &ViewChange {
        self.driver.ballots()
    }

    /// The cut that its data plane fetches: what it was ordered to report, or else what it was ordered last.
    pub fn fetches(&self) -> Option<&Cut> {
        let last = self.ballots().wanted().filter(|_| self.to_data.is_empty());
        self.fetching.as_ref().map(|(_, cut)| cut).or(last.map(|value| &value.cut))
    }

    /// Whether it takes part in the ballots of this epoch.
    pub fn votes(&self, epoch: u8) -> bool {
        self.alive && self.member && self.epoch == epoch && self.ballots().decided().is_none()
    }

    /// Whether all below these ends is here.
    pub fn holds(&self, cut: &Cut) -> bool {
        self.ends.iter().zip(&cut.ends).all(|(end, wanted)| u64::from(*end) >= wanted.0)
    }

    /// What it reports as held.
    pub fn held(&self) -> Cut {
        let ends = self.ends.iter().map(|end| DatagramNumber(u64::from(*end))).collect();
        Cut { ends, ..Cut::default() }
    }
}

impl State {
    /// A node, to be changed.
    pub fn node(&mut self, rank: u8) -> &mut Node {
        Arc::make_mut(&mut self.nodes[usize::from(rank)])
    }

    /// The view of an epoch.
    pub fn view(&self, epoch: u8) -> &View {
        &self.views[usize::from(epoch)]
    }

    /// Puts a step under way, once.
    pub fn post(&mut self, packet: Packet) {
        let key = |packet: &Packet| (packet.epoch, packet.ballot, kind(&packet.step), packet.from);
        let at = self.packets.partition_point(|known| key(known) < key(&packet));
        let same = self.packets[at..].iter().take_while(|known| key(known) == key(&packet));
        if !same.clone().any(|known| **known == packet) {
            // Two packets that differ only in their step are in the order of its text.
            let text = |packet: &Packet| format!("{:?}", packet.step);
            let after = same.filter(|known| text(known) < text(&packet)).count();
            self.packets.insert(at + after, Arc::new(packet));
        }
    }

    /// The messages of an epoch that a member which holds these ends and nothing more delivers in total order.
    pub fn walk(&self, epoch: u8, ends: &[u8]) -> Vec<Delivered> {
        let streams = &self.streams[usize::from(epoch)];
        let sequencer = self.view(epoch).sequencer;
        let (own, mut next) = (sequencer.index(), vec![0usize; ends.len()]);
        let mut delivered = Vec::new();
        for item in streams[own].iter().take(usize::from(ends[own])) {
            let (rank, sequence) = match *item {
                Item::Message(sequence) => (own as u8, sequence),
                Item::Order(rank) => {
                    let at = next[usize::from(rank)];
                    if at >= usize::from(ends[usize::from(rank)]) {
                        break;
                    }
                    next[usize::from(rank)] += 1;
                    let Item::Message(sequence) = streams[usize::from(rank)][at] else { break };
                    (rank, sequence)
                }
            };
            delivered.push((rank, sequence));
        }
        delivered
    }

    /// Whether a process is alive and holds this datagram, which is wanted from this epoch.
    pub fn has_holder(&self, epoch: u8, stream: usize, end: u64) -> bool {
        self.nodes.iter().filter(|node| node.alive && node.member).any(|node| {
            let kept = if node.epoch == epoch {
                Some(&node.ends)
            } else {
                node.retained.as_ref().filter(|_| node.epoch == epoch + 1)
            };
            kept.is_some_and(|ends| u64::from(ends[stream]) >= end)
        })
    }
}

/// A step's index among the kinds of steps.
pub fn kind(step: &Step) -> u8 {
    match step {
        Step::Prepare => 0,
        Step::State { .. } => 1,
        Step::Propose(_) => 2,
        Step::Accept => 3,
        Step::Refuse => 4,
        Step::Decide(_) => 5,
    }
}

/// A rank as the protocol names it.
pub fn rank(index: u8) -> Rank {
    Rank(u16::from(index))
}
