//! What may happen next in a group.
//!
//! Time is absent: every process that could act may act, or not, so the model tries every delay, loss and false
//! suspicion. The bounds are on the ballots begun in an epoch, the crashes, the datagrams of a sender and the view
//! changes.

pub use crate::bounds::{Group, bits};
use crate::driver;
use crate::properties::{self, Property};
use crate::state::{Item, Node, Packet, State, Streams, ToData, kind, rank};
use bourdon_protocol::Mutant;
use bourdon_protocol::control::view_change::driver::Timer;
use bourdon_protocol::control::view_change::{Proposal, Step};
use bourdon_protocol::view::{Member, View};
use bourdon_wire::{Epoch, InstanceId, Rank};
use std::sync::Arc;

/// The property that ends a search whose budget is spent.
pub const STOPPED: &str = "stopped";

/// One thing that may happen. The first field is the process that it happens to.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Sends a datagram: the next message of its own, or the place of another member's message.
    Send(u8, Option<u8>),
    /// Receives the next datagram of a stream.
    Receive(u8, u8),
    /// Begins a ballot that is to keep the first set of members, and lets the second go.
    Lead(u8, u64, u64),
    /// A timer expires while the detectors suspect these members.
    Expire(u8, Timer, u64),
    /// Takes in a step.
    Hand(u8, Arc<Packet>),
    /// Its data plane obeys the oldest order that waits.
    Obey(u8, Arc<ToData>),
    /// Gets what the cut wants of a stream from a living holder.
    Fetch(u8, u8),
    /// Hears what was decided.
    Learn(u8),
    /// Joins with the state of another member.
    Join(u8, u8),
    /// Knows that it is removed, and goes.
    Go(u8),
    /// Stops for good.
    Crash(u8),
    /// Restarts and has forgotten what it promised: a bug.
    Forget(u8),
}

impl Group {
    /// The first state.
    pub fn first(&self) -> State {
        let members: Vec<Member> = (0..self.members).map(driver::member).collect();
        let view = View { epoch: Epoch(1), members, sequencer: Rank(0), instance: InstanceId(1), birth: 1 };
        let ranks = usize::from(self.all());
        let node = |own: u8| Node {
            alive: true,
            left: false,
            member: own < self.members,
            epoch: 0,
            driver: driver::driver(self, own, view.clone()),
            to_data: Vec::new(),
            fetching: None,
            ends: vec![0; ranks],
            frozen: None,
            retained: None,
            history: Vec::new(),
            accepted: 0,
        };
        State {
            nodes: (0..self.all()).map(|own| Arc::new(node(own))).collect(),
            views: Arc::new(vec![view.clone()]),
            streams: vec![Arc::new(vec![Vec::new(); ranks])],
            packets: Vec::new(),
            decided: vec![Arc::default()],
            ballots: vec![0],
            crashes: 0,
            broken: 0,
        }
    }

    /// All that may happen.
    pub fn possible(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken != 0 {
            return;
        }
        for (own, node) in (0u8..).zip(&state.nodes).filter(|(_, node)| node.alive) {
            if node.member {
                actions.extend(node.to_data.first().map(|order| Action::Obey(own, Arc::clone(order))));
                if node.epoch < self.changes {
                    self.possible_data(state, own, node, actions);
                    self.possible_ballot(state, own, node, actions);
                }
            } else {
                let donor = (0u8..).zip(&state.nodes).find(|(_, donor)| {
                    let view = state.view(donor.epoch);
                    donor.alive && donor.member && view.contains(driver::member(own))
                });
                actions.extend(donor.map(|(donor, _)| Action::Join(own, donor)));
            }
            if state.crashes < self.crashes && node.member {
                let action = if self.is(Mutant::Amnesia) { Action::Forget } else { Action::Crash };
                actions.push(action(own));
            }
        }
        self.possible_steps(state, actions);
    }

    fn possible_data(&self, state: &State, own: u8, node: &Node, actions: &mut Vec<Action>) {
        let (epoch, at) = (usize::from(node.epoch), usize::from(own));
        let streams = &state.streams[epoch];
        let sequencer = state.view(node.epoch).sequencer == rank(own);
        let decided = node.ballots().decided().is_some();
        if (!node.is_wedged() || self.is(Mutant::SendAfterPromise) && !decided)
            && streams[at].len() < usize::from(self.datagrams)
        {
            if own < self.senders {
                actions.push(Action::Send(own, None));
            }
            if sequencer {
                let unordered = |other: &u8| {
                    let ordered = streams[at].iter().filter(|item| **item == Item::Order(*other)).count();
                    *other != own && ordered < usize::from(node.ends[usize::from(*other)])
                };
                actions.extend((0..self.all()).filter(unordered).map(|other| Action::Send(own, Some(other))));
            }
        }
        if !node.is_wedged() || self.late && !decided {
            let more = |stream: &u8| streams[usize::from(*stream)].len() > usize::from(node.ends[usize::from(*stream)]);
            actions.extend((0..self.all()).filter(more).map(|stream| Action::Receive(own, stream)));
        }
    }

    fn possible_ballot(&self, state: &State, own: u8, node: &Node, actions: &mut Vec<Action>) {
        let epoch = usize::from(node.epoch);
        if let Some(cut) = node.fetches() {
            for (stream, end) in (0u8..).zip(&cut.ends) {
                let at = usize::from(stream);
                if u64::from(node.ends[at]) < end.0 && state.has_holder(node.epoch, at, end.0) {
                    actions.push(Action::Fetch(own, stream));
                }
            }
        }
        if let Some(value) = node.ballots().decided() {
            let gone_on = |other: &&Arc<Node>| other.alive && other.member && other.epoch > node.epoch;
            let may_go = state.nodes.iter().any(|other| gone_on(&other)) || self.is(Mutant::DecisionForgotten);
            if may_go && !value.members.contains(&driver::member(own)) && self.leavers > 0 {
                actions.push(Action::Go(own));
            }
            return;
        }
        if !state.decided[epoch].is_empty() {
            actions.push(Action::Learn(own));
        }
        let all_members = bits(&state.view(node.epoch).members);
        let others = all_members & !(1 << own);
        // A suspicion changes only whether the proposer waits, except where a bug makes more of it.
        let believes = self.is(Mutant::TakeoverAlone) || self.is(Mutant::RespondersLeftOut);
        let reports = [0, others];
        let reports = if believes { &reports[..] } else { &reports[..1] };
        let more = state.ballots[epoch] < self.ballots;
        let ballots = node.ballots();
        let timer = match (ballots.leads(), ballots.is_wedged()) {
            (Some(_), _) if ballots.may_choose() || ballots.may_decide() || more => Some(Timer::Patience),
            (None, true) if more => Some(Timer::Takeover),
            _ => None,
        };
        actions.extend(timer.into_iter().flat_map(|timer| reports.iter().map(move |s| Action::Expire(own, timer, *s))));
        if more && !ballots.is_wedged() {
            actions.push(Action::Lead(own, all_members, 0));
            if self.leavers > 0 && state.view(node.epoch).epoch == Epoch(1) {
                actions.push(Action::Lead(own, all_members & !self.leaving(), self.leaving()));
            }
            if self.suspects {
                let gone = driver::ranks(others);
                actions.extend(gone.map(|gone| Action::Lead(own, all_members & !(1 << gone.0), 0)));
            }
        }
    }

    fn possible_steps(&self, state: &State, actions: &mut Vec<Action>) {
        for packet in &state.packets {
            for (own, node) in (0u8..).zip(&state.nodes).filter(|(_, node)| node.votes(packet.epoch)) {
                let late = self.is(Mutant::AcceptBelowPromise);
                let passed = kind(&packet.step) != kind(&Step::Refuse) && packet.ballot < node.ballots().promised();
                if packet.from != own
                    && packet.to.is_none_or(|to| to == own)
                    && (!passed || late || self.refusals || self.stale(packet))
                {
                    actions.push(Action::Hand(own, Arc::clone(packet)));
                }
            }
        }
    }

    fn stale(&self, packet: &Packet) -> bool {
        self.is(Mutant::StaleState) && matches!(packet.step, Step::State { .. })
    }

    /// The state after an action.
    pub fn next(&self, before: &State, action: &Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Send(own, order) => self.send(&mut state, *own, *order),
            Action::Receive(own, stream) => {
                state.node(*own).ends[usize::from(*stream)] += 1;
                driver::settle(self, &mut state, *own);
            }
            Action::Lead(own, keep, leavers) => {
                let joiners = (self.members..self.all()).map(driver::member).collect();
                let proposal = Proposal { keep: *keep, leavers: *leavers, joiners, ..Proposal::default() };
                driver::lead(self, &mut state, *own, proposal);
            }
            Action::Expire(own, timer, suspects) => driver::expire(self, &mut state, *own, *timer, *suspects),
            Action::Hand(own, packet) => driver::hand(self, &mut state, *own, packet),
            Action::Fetch(own, stream) => {
                let node = state.node(*own);
                let end = node.fetches().map(|cut| cut.ends[usize::from(*stream)].0);
                node.ends[usize::from(*stream)] = end.expect("the fetch wants an end of this stream") as u8;
                driver::settle(self, &mut state, *own);
            }
            Action::Obey(own, _) => driver::obey(self, &mut state, *own),
            Action::Learn(own) => {
                let epoch = usize::from(state.nodes[usize::from(*own)].epoch);
                let value = state.decided[epoch][0].clone();
                driver::learn(self, &mut state, *own, value);
            }
            Action::Join(own, donor) => driver::join(self, &mut state, *own, *donor),
            Action::Go(own) => driver::go(self, &mut state, *own),
            Action::Crash(own) => driver::crash(self, &mut state, *own),
            Action::Forget(own) => driver::forget(self, &mut state, *own),
        }
        driver::sweep(self, &mut state);
        properties::after_step(self, &mut state);
        state
    }

    fn send(&self, state: &mut State, own: u8, order: Option<u8>) {
        let at = usize::from(own);
        let epoch = state.nodes[at].epoch;
        let item = order.map_or_else(|| Item::Message(self.sequence(state, own)), Item::Order);
        let streams: &mut Streams = Arc::make_mut(&mut state.streams[usize::from(epoch)]);
        streams[at].push(item);
        let node = state.node(own);
        node.ends[at] += 1;
        if let Some(frozen) = &mut node.frozen {
            frozen[at] += 1; // only a member that ignores its promise: it delivers its own as it sends
        }
    }

    /// The next message of a sender: the first that it has neither seen delivered nor sent again in this epoch.
    fn sequence(&self, state: &State, own: u8) -> u8 {
        let node = &state.nodes[usize::from(own)];
        let again = &state.streams[usize::from(node.epoch)][usize::from(own)];
        let free = |sequence: &u8| {
            let delivered = !self.is(Mutant::ResubmitAll) && node.history.contains(&(own, *sequence));
            !delivered && !again.contains(&Item::Message(*sequence))
        };
        (0..u8::MAX).find(free).expect("a group sends fewer than 255 messages")
    }
}

impl stateright::Model for Group {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.possible(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(self.next(state, &action))
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        use stateright::Property as Check;
        vec![
            Check::always(Property::AtMostOnce.name(), |_, state| Property::AtMostOnce.holds_in(state)),
            Check::always(Property::OneValue.name(), |_, state| Property::OneValue.holds_in(state)),
            Check::always(Property::DecidingQuorum.name(), |_, state| Property::DecidingQuorum.holds_in(state)),
            Check::always(Property::SameSet.name(), |_, state| Property::SameSet.holds_in(state)),
            Check::always(Property::OneOrder.name(), |_, state| Property::OneOrder.holds_in(state)),
            Check::always(Property::Uniform.name(), |_, state| Property::Uniform.holds_in(state)),
            Check::always(Property::WholeCut.name(), |_, state| Property::WholeCut.holds_in(state)),
            Check::always(Property::Continuation.name(), |_, state| Property::Continuation.holds_in(state)),
            // Not a property of the group: with a single thread the checker does not check its own bound on time.
            Check::sometimes(STOPPED, |group: &Self, _: &State| group.spent.get().is_some()),
        ]
    }
}
