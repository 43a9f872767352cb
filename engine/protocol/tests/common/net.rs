//! Groups in one thread on a clock that is a number: what each process delivers and hears, whatever happens to it and
//! to the network.

use super::GROUP;
use bourdon_protocol::{
    Again, Config, Destination, Event, Outgoing, Process, Refusal, Role, SnapshotAnswer, SnapshotTicket, Standing,
    Start,
};
use bourdon_wire::records::{BallotStep, Transfer};
use bourdon_wire::{Address, Datagram, Incarnation, Instant, Kind, Rank};
use std::net::SocketAddr;

pub fn address(index: usize) -> Address {
    SocketAddr::from(([10, 0, 0, 1], 100 + index as u16)).into()
}

/// What a process delivered to its application, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Message(u16, u64, Option<u64>),
    Barrier(u64, Vec<u8>),
    View(u64, u64),
    Synced(u64),
}

pub struct TestProcess {
    pub process: Option<Process>,
    pub shown: Vec<Output>,
    pub events: Vec<Event>,
    /// Of each message: its topic, its topic's name, its first byte.
    pub topics: Vec<(u16, Option<String>, Option<u8>)>,
    /// Of each message that was flagged as late: sender and sequence.
    pub late: Vec<(u16, u64)>,
    /// What the application keeps, and gives and takes as a snapshot.
    pub state: Vec<u8>,
    /// How many snapshots it took.
    pub snapshots: usize,
    /// It declines to give its state.
    pub declines: bool,
    /// How long it takes to give its state.
    pub answers_after_ns: u64,
    /// What it will answer, and when.
    pub asked: Vec<(Instant, SnapshotTicket, Vec<u8>)>,
    /// Its records; how many are stored, and how many will be at this time.
    pub disk: Vec<Vec<u8>>,
    pub synced: usize,
    pub written: usize,
    pub syncs_at: Option<Instant>,
}

type Alter = Box<dyn FnMut(usize, usize, &mut Vec<u8>) -> usize>;

pub struct Net {
    pub now: Instant,
    pub processes: Vec<TestProcess>,
    pub members: usize,
    /// From, to: whether it is lost.
    pub lose: Box<dyn FnMut(usize, usize) -> bool>,
    /// From, to, datagram: may change it, and returns how many copies arrive.
    pub alter: Alter,
    pub configure: fn(&mut Config),
    /// How long a sync of the disk takes.
    pub sync_ns: u64,
}

impl Net {
    pub fn new(members: u16, observers: u16, configure: fn(&mut Config)) -> Self {
        let mut net = Self {
            now: Instant(0),
            processes: Vec::new(),
            members: usize::from(members),
            lose: Box::new(|_, _| false),
            alter: Box::new(|_, _, _| 1),
            configure,
            sync_ns: 0,
        };
        for index in 0..usize::from(members + observers) {
            net.processes.push(TestProcess {
                process: None,
                shown: Vec::new(),
                events: Vec::new(),
                topics: Vec::new(),
                late: Vec::new(),
                state: Vec::new(),
                snapshots: 0,
                declines: false,
                answers_after_ns: 0,
                asked: Vec::new(),
                disk: Vec::new(),
                synced: 0,
                written: 0,
                syncs_at: None,
            });
            net.start(index, 1);
        }
        net
    }

    pub fn start(&mut self, index: usize, incarnation: u32) {
        let role = if index < self.members { Role::Member(Rank(index as u16)) } else { Role::Observer };
        self.start_as(index, incarnation, role);
    }

    pub fn start_as(&mut self, index: usize, incarnation: u32, role: Role) {
        let config = self.config(index, incarnation, role);
        self.processes[index].process = Some(Process::new(self.now, config).unwrap());
        self.processes[index].shown.clear();
        self.processes[index].state.clear();
        self.processes[index].asked.clear();
        self.processes[index].disk.clear();
        let one = &mut self.processes[index];
        (one.synced, one.written, one.syncs_at) = (0, 0, None);
    }

    /// A member starts again with what it had stored; what its application is given again counts as shown.
    pub fn restore(&mut self, index: usize, incarnation: u32) {
        let config = self.config(index, incarnation, Role::Member(Rank(index as u16)));
        let one = &mut self.processes[index];
        one.disk.truncate(one.synced);
        (one.written, one.syncs_at, one.asked) = (one.synced, None, Vec::new());
        one.shown.clear();
        let (shown, mut behind) = (&mut one.shown, Vec::new());
        let emit = |again: Again<'_>| {
            let Again::Message(d) = again else { return };
            shown.push(Output::Message(d.sender.0, d.sequence.0, d.order.map(|o| o.0)));
            behind.extend_from_slice(&d.sequence.0.to_le_bytes());
        };
        let mut process = Process::restore(self.now, config, &one.disk, emit).unwrap();
        one.state = process.take_snapshot().unwrap_or_default();
        one.state.extend(behind);
        one.process = Some(process);
    }

    /// Hands records to the disk, and what has been synced back.
    fn store(&mut self) {
        let (now, sync_ns) = (self.now, self.sync_ns);
        for one in &mut self.processes {
            let Some(process) = &mut one.process else { continue };
            if one.syncs_at.take_if(|at| *at <= now).is_some() {
                one.synced = one.written;
                process.stored(now, one.synced as u64);
            }
            let taken = process.take_records(now, |record| one.disk.push(record.to_vec()));
            assert!(taken == 0 || taken == one.disk.len() as u64);
            if one.disk.len() > one.written && one.syncs_at.is_none() {
                (one.written, one.syncs_at) = (one.disk.len(), Some(now + sync_ns));
            }
        }
    }

    fn config(&mut self, index: usize, incarnation: u32, role: Role) -> Config {
        let mut config = Config::new(GROUP, self.members as u16, role);
        config.incarnation = Incarnation(incarnation);
        config.address = address(index);
        config.snapshots = true;
        config.start = Start::Oldest;
        config.seed = index as u64 + u64::from(incarnation) * 1000;
        config.limits.log_bytes = 1 << 20;
        config.limits.receive_log_bytes = 1 << 20;
        config.limits.window_bytes = 1 << 18;
        (self.configure)(&mut config);
        config
    }

    fn is_at(&self, index: usize, address: Address) -> bool {
        self.processes[index].process.as_ref().is_some_and(|process| process.config().address == address)
    }

    /// The host of a process gets another address: what is under way to the earlier one is lost.
    pub fn move_to(&mut self, index: usize, address: Address) {
        let now = self.now;
        self.process(index).move_to(now, address, 0);
    }

    pub fn kill(&mut self, index: usize) {
        self.processes[index].process = None;
    }

    pub fn process(&mut self, index: usize) -> &mut Process {
        self.processes[index].process.as_mut().unwrap()
    }

    pub fn pump(&mut self) {
        self.store();
        let mut wire = Vec::new();
        for (from, one) in self.processes.iter_mut().enumerate() {
            let Some(process) = &mut one.process else { continue };
            process.transmit(self.now, |to, bytes, segment_bytes| {
                let chunks: Vec<_> = bytes.chunks(segment_bytes).map(<[u8]>::to_vec).collect();
                let count = chunks.len();
                wire.extend(chunks.into_iter().map(|datagram| (from, to, datagram)));
                count
            });
        }
        for (from, to, datagram) in wire {
            for target in 0..self.processes.len() {
                let wanted = match to {
                    Destination::Group | Destination::Broadcast => target != from,
                    Destination::Peer(peer) => self.is_at(target, peer),
                };
                if wanted
                    && !(self.lose)(from, target)
                    && let Some(process) = &mut self.processes[target].process
                {
                    let mut copy = datagram.clone();
                    for _ in 0..(self.alter)(from, target, &mut copy) {
                        process.take_in(self.now, &copy, None, !matches!(to, Destination::Peer(_)));
                    }
                }
            }
        }
        for one in &mut self.processes {
            let Some(process) = &mut one.process else { continue };
            loop {
                let (shown, state, topics, late) = (&mut one.shown, &mut one.state, &mut one.topics, &mut one.late);
                let count = process.deliver(self.now, usize::MAX, |d| match d.barrier {
                    Some(phase) => shown.push(Output::Barrier(phase, d.payload.to_vec())),
                    None => {
                        late.extend(Some((d.sender.0, d.sequence.0)).filter(|_| d.late));
                        topics.push((d.topic.0, d.name.map(str::to_owned), d.payload.first().copied()));
                        shown.push(Output::Message(d.sender.0, d.sequence.0, d.order.map(|o| o.0)));
                        state.extend_from_slice(&d.sequence.0.to_le_bytes());
                    }
                });
                while let Some(event) = process.poll_event() {
                    match event {
                        Event::View { epoch, members, .. } => one.shown.push(Output::View(epoch.0, members.0)),
                        Event::Synced { phase, .. } => one.shown.push(Output::Synced(phase)),
                        _ => {}
                    }
                    one.events.push(event);
                }
                if let Some(state) = process.take_snapshot() {
                    (one.state, one.snapshots) = (state, one.snapshots + 1);
                }
                if let Some(ticket) = process.begin_snapshot(self.now) {
                    one.asked.push((self.now + one.answers_after_ns, ticket, one.state.clone()));
                }
                for (_, ticket, state) in one.asked.extract_if(.., |(due, ..)| *due <= self.now) {
                    let state = SnapshotAnswer::State(state);
                    process.finish_snapshot(
                        self.now,
                        ticket,
                        if one.declines { SnapshotAnswer::Declined } else { state },
                    );
                }
                if count == 0 {
                    break;
                }
            }
        }
    }

    pub fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.pump();
            let live = || self.processes.iter().filter_map(|one| one.process.as_ref());
            let next = live().map(Process::next_deadline).min().unwrap();
            self.now = next.max(self.now + 20_000).min(end);
            for process in self.processes.iter_mut().filter_map(|one| one.process.as_mut()) {
                if process.next_deadline() <= self.now {
                    process.on_timer(self.now);
                }
            }
        }
        self.pump();
    }

    pub fn publish(&mut self, index: usize, payload: &[u8]) -> Result<u64, Refusal> {
        let now = self.now;
        self.process(index).try_publish(now, &Outgoing::default(), payload).map(|sequence| sequence.0)
    }

    pub fn messages(&self, index: usize) -> Vec<(u16, u64)> {
        let name = |shown: &Output| if let Output::Message(s, n, _) = shown { Some((*s, *n)) } else { None };
        self.processes[index].shown.iter().filter_map(name).collect()
    }

    pub fn views(&self, index: usize) -> Vec<(u64, u64)> {
        let view = |shown: &Output| if let Output::View(e, m) = shown { Some((*e, *m)) } else { None };
        self.processes[index].shown.iter().filter_map(view).collect()
    }

    /// Whether a process got this event.
    pub fn heard(&self, index: usize, event: Event) -> bool {
        self.processes[index].events.contains(&event)
    }

    /// Whether all of these are members of one view of that many members, and have the same state.
    pub fn agree(&mut self, indices: &[usize], members: u32) -> bool {
        let view = self.process(indices[0]).view().clone();
        let state = self.processes[indices[0]].state.clone();
        view.members.len() as u32 == members
            && indices.iter().all(|index| {
                let process = self.processes[*index].process.as_ref().unwrap();
                process.standing() == Standing::Member
                    && *process.view() == view
                    && self.processes[*index].state == state
            })
    }
}

/// The step of a view change in a datagram, and its ballot.
pub fn ballot_step(datagram: &[u8]) -> Option<(u8, u64)> {
    let datagram = Datagram::parse(datagram, GROUP).ok()?;
    let frame = datagram.frames().find(|frame| frame.kind() == Some(Kind::Ballot))?;
    let (record, _) = BallotStep::read(frame.body)?;
    Some((record.step, record.ballot.get()))
}

/// The step of a state transfer in a datagram.
pub fn transfer_step(datagram: &[u8]) -> Option<u16> {
    let datagram = Datagram::parse(datagram, GROUP).ok()?;
    let frame = datagram.frames().find(|frame| frame.kind() == Some(Kind::Transfer))?;
    Some(Transfer::read(frame.body)?.0.step.get())
}
