//! One process and the application around it; one client and its application.
//!
//! Applications are wilful: they publish in bursts, messages of every possible length, sometimes by a claim in place
//! that they then drop; when they are refused they come again. What was delivered to them is their state, which they
//! give and take as a snapshot.

use crate::clock::Clock;
use crate::control::Control;
use crate::disk::{Disk, Had};
use crate::history::{History, Published, Sent};
use crate::locker::Locker;
use crate::names::NAMES;
use crate::network::{Packet, hits};
use crate::plan::{GROUP, Plan};
use crate::violation::Violation;
use bourdon_protocol::control::detector::Judgement;
use bourdon_protocol::{
    Client, ClientEvent, Counter, Destination, Outgoing, Process, Refusal, SnapshotAnswer, SnapshotTicket, Start,
};
use bourdon_wire::{Address, ChannelId, ClientId, Datagram, Instant, TopicId, TopicName};
use fastrand::Rng;
use std::collections::VecDeque;

/// A message claimed in place stays well below a datagram, whatever headers precede it.
const CLAIM_PART: usize = 2;
/// The channel of the members' streams; requests and steps of ballots have another.
const STREAM_CHANNEL: ChannelId = ChannelId(0);

/// What an application will answer when it was asked for its state.
#[derive(Debug)]
pub(crate) struct SnapshotDue {
    pub(crate) due_ns: u64,
    pub(crate) ticket: SnapshotTicket,
    pub(crate) answer: SnapshotAnswer,
}

#[derive(Debug)]
pub(crate) struct Node {
    /// None before the process has come, and after a crash.
    pub(crate) process: Option<Process>,
    /// Where the plan has a hand-over: the member's control thread, which has the coordinator.
    pub(crate) control: Option<Control>,
    pub(crate) clock: Clock,
    /// Where an observer begins.
    pub(crate) start: Option<Start>,
    pub(crate) socket: VecDeque<Packet>,
    pub(crate) socket_bytes: usize,
    pub(crate) paused_until_ns: u64,
    /// When it is stepped next; `u64::MAX` for not at all.
    pub(crate) wakes_at_ns: u64,
    /// Messages the application will want to publish later, and wants to now.
    pub(crate) quota: u32,
    pub(crate) wanted: u32,
    /// Barriers it wants to ask for: whether with a message.
    pub(crate) syncs: VecDeque<bool>,
    /// Barriers asked for in this incarnation and not complete.
    pub(crate) asked: u64,
    /// The state that its application will give.
    pub(crate) snapshots: Vec<SnapshotDue>,
    /// The deliveries to its application.
    pub(crate) lineage: usize,
    /// It left for good, or was asked to.
    pub(crate) left: bool,
    /// What the detectors that its process leans on reported last.
    pub(crate) judgement: Judgement,
    /// Its last incarnation.
    pub(crate) incarnation: u32,
    /// The NAKs of its earlier incarnations.
    pub(crate) naks_before: u64,
    pub(crate) ballots: u64,
    /// What its application does with locks and elections, where there are any.
    pub(crate) locker: Option<Locker>,
    /// The highest birth of the group that it has stored: a file, which survives a crash.
    pub(crate) birth_floor: u64,
    /// Its process reports that it is out of the group, and ends with this step.
    pub(crate) is_out: bool,
    /// How far its wall clock has been set back.
    pub(crate) clock_back_ms: u64,
    /// Its process has reported, since it last entered a view, that it was removed or follows another instance.
    pub(crate) has_moved: bool,
    /// Datagrams of streams that came in another view or instance than its process's.
    pub(crate) data_refused: u64,
    /// Where members store what they report to others.
    pub(crate) disk: Disk,
    /// What its application had when its process crashed, and is delivered again.
    pub(crate) had: Option<Had>,
}

/// The datagrams that a process has discarded because they are of another view or instance.
fn elsewhere(process: &Process) -> u64 {
    let counters = process.counters();
    counters.get(Counter::DiscardedEpoch) + counters.get(Counter::DiscardedInstance)
}

/// Whether a datagram belongs to a member's stream: if it is discarded, it is retransmitted.
fn is_of_stream(bytes: &[u8]) -> bool {
    Datagram::parse(bytes, GROUP).is_ok_and(|datagram| datagram.header.channel() == STREAM_CHANNEL)
}

impl Node {
    pub(crate) fn new(clock: Clock, start: Option<Start>) -> Self {
        Self {
            process: None,
            control: None,
            clock,
            start,
            socket: VecDeque::new(),
            socket_bytes: 0,
            paused_until_ns: 0,
            wakes_at_ns: u64::MAX,
            quota: 0,
            wanted: 0,
            syncs: VecDeque::new(),
            asked: 0,
            snapshots: Vec::new(),
            lineage: 0,
            left: false,
            judgement: Judgement::default(),
            incarnation: 0,
            naks_before: 0,
            ballots: 0,
            locker: None,
            birth_floor: 0,
            is_out: false,
            clock_back_ms: 0,
            has_moved: false,
            data_refused: 0,
            disk: Disk::default(),
            had: None,
        }
    }

    /// Its process is gone, and all that waited for it.
    pub(crate) fn crash(&mut self) -> Option<Process> {
        self.socket.clear();
        self.snapshots.clear();
        (self.socket_bytes, self.wakes_at_ns, self.paused_until_ns, self.asked) = (0, u64::MAX, 0, 0);
        (self.has_moved, self.control, self.judgement) = (false, None, Judgement::default());
        self.locker.iter_mut().for_each(Locker::crash);
        let process = self.process.take()?;
        self.naks_before += process.counters().get(Counter::NaksSent);
        self.incarnation = process.incarnation().0;
        self.birth_floor = process.birth_floor();
        Some(process)
    }

    /// Whether this member takes part, or will.
    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_some() && !self.left
    }

    /// Takes in what has arrived and what is due. Returns whether something is left.
    pub(crate) fn take_in(&mut self, now_ns: u64, batch: usize) -> bool {
        let now = self.clock.read(now_ns);
        let Some(process) = &mut self.process else { return false };
        for _ in 0..batch {
            let Some(Packet { bytes, to_all }) = self.socket.pop_front() else { break };
            self.socket_bytes -= bytes.len();
            let refused = elsewhere(process);
            process.take_in(now, &bytes, Some(now_ns), to_all);
            self.data_refused += u64::from(elsewhere(process) > refused && is_of_stream(&bytes));
        }
        if now >= process.next_deadline() {
            process.on_timer(now);
        }
        !self.socket.is_empty()
    }

    /// Asks for the barriers that are wanted. Returns whether it was refused.
    pub(crate) fn sync(&mut self, rank: u16, now_ns: u64, rng: &mut Rng, history: &mut History) -> bool {
        let now = self.clock.read(now_ns);
        let Some(process) = &mut self.process else { return false };
        while let Some(with_message) = self.syncs.front().copied() {
            let sequence = history.messages.len() as u64;
            let mut payload = sequence.to_le_bytes().to_vec();
            payload.resize(rng.usize(8..60), 7);
            if process.sync(now, with_message.then_some(&payload[..])).is_err() {
                return true;
            }
            self.syncs.pop_front();
            self.asked += 1;
            if with_message {
                let (publisher, at_ns) = (Some((rank, process.incarnation().0)), now_ns);
                let (after, phase, client, sent) = (None, None, None, None);
                let payload = payload.into();
                history.publish(Published {
                    payload,
                    topic: 0,
                    at_ns,
                    publisher,
                    sequence,
                    after,
                    sent,
                    phase,
                    client,
                    at_barrier: true,
                    generations: 0..=0,
                });
            }
        }
        false
    }

    /// Publishes what is wanted. Returns whether something was refused.
    pub(crate) fn publish(
        &mut self,
        rank: u16,
        plan: &Plan,
        now_ns: u64,
        rng: &mut Rng,
        history: &mut History,
    ) -> Result<bool, Violation> {
        let now = self.clock.read(now_ns);
        let Some(process) = &mut self.process else { return Ok(false) };
        while self.wanted > 0 {
            let payload = draw_payload(plan, plan.max_message_bytes, rng);
            let intended_send_ns = hits(rng, 200).then(|| rng.u64(..));
            let (topic, name) = draw_topic(plan, rng);
            let outgoing = Outgoing { topic, intended_send_ns, client: None, name, after: None };
            let sequence = match offer(process, now, plan, &outgoing, &payload, rng) {
                Ok(Some(sequence)) => sequence,
                Ok(None) => continue, // claimed and dropped
                Err(refusal @ (Refusal::TooLarge { .. } | Refusal::Role)) => {
                    let detail = format!("member {rank} could not publish {} bytes: {refusal}", payload.len());
                    return Err(Violation::new("completeness", detail));
                }
                Err(_) => return Ok(true),
            };
            self.wanted -= 1;
            let message = Published {
                payload: payload.into(),
                topic: outgoing.topic.0,
                at_ns: now_ns,
                publisher: Some((rank, process.incarnation().0)),
                sequence,
                after: Some((self.lineage, history.lineages[self.lineage].delivered.len())),
                sent: process.real_time_bounds(now).and_then(|(bound_ns, _)| Some((process.view().epoch.0, bound_ns?))),
                phase: Some(process.phase()),
                client: None,
                at_barrier: false,
                generations: 0..=0,
            };
            if !history.publish(message) {
                return Err(Violation::new("integrity", format!("{rank}:{sequence} names two messages")));
            }
        }
        Ok(false)
    }
}

fn offer(
    process: &mut Process,
    now: Instant,
    plan: &Plan,
    outgoing: &Outgoing,
    payload: &[u8],
    rng: &mut Rng,
) -> Result<Option<u64>, Refusal> {
    if payload.len() > plan.frame_bytes() / CLAIM_PART || !hits(rng, 300) {
        return process.try_publish(now, outgoing, payload).map(|sequence| Some(sequence.0));
    }
    let mut claim = process.try_claim(now, outgoing, payload.len())?;
    if hits(rng, 100) {
        return Ok(None);
    }
    claim.copy_from_slice(payload);
    Ok(Some(claim.commit().0))
}

fn draw_topic(plan: &Plan, rng: &mut Rng) -> (TopicId, Option<TopicName>) {
    let number = rng.u16(0..4);
    let name = NAMES.get(usize::from(number)).filter(|_| plan.named).and_then(|name| TopicName::new(name).ok());
    (name.map_or(TopicId(number), |name| name.id()), name)
}

fn draw_payload(plan: &Plan, most: usize, rng: &mut Rng) -> Vec<u8> {
    let length = if !hits(rng, plan.large_permille) {
        rng.usize(0..=64)
    } else if hits(rng, 200) {
        most
    } else {
        rng.usize(0..=most)
    };
    let mut payload = vec![0; length.min(most)];
    rng.fill(&mut payload);
    payload
}

#[derive(Debug)]
pub(crate) struct ClientNode {
    pub(crate) client: Client,
    pub(crate) wakes_at_ns: u64,
    id: u64,
    sequence: u64,
    quota: u32,
    /// Every message below this one was acknowledged.
    taken: u64,
    /// When it publishes next at the earliest.
    due_ns: u64,
}

impl ClientNode {
    pub(crate) fn new(id: u64, address: Address, quota: u32, mtu_bytes: usize) -> Self {
        let client = Client::new(Instant(0), GROUP, ClientId(id), address, mtu_bytes);
        Self { client, wakes_at_ns: u64::MAX, id, sequence: 0, quota, taken: 0, due_ns: 0 }
    }

    /// Its id, and the sequence below which everything was acknowledged.
    pub(crate) fn taken(&self) -> (u64, u64) {
        (self.id, self.taken)
    }

    /// When it has something to do even if nothing arrives.
    pub(crate) fn next_deadline(&self, plan: &Plan) -> u64 {
        let is_paced = plan.client_interval_ns > 0 && self.quota > 0;
        self.client.next_deadline().0.min(if is_paced { self.due_ns } else { u64::MAX })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.quota > 0 || !self.client.is_idle()
    }

    /// Publishes what fits and returns what goes to the network. Some messages are longer than the group allows.
    pub(crate) fn step(
        &mut self,
        now_ns: u64,
        plan: &Plan,
        rng: &mut Rng,
        mut sends: impl FnMut(Sent),
    ) -> Vec<(Address, Vec<u8>)> {
        while self.quota > 0 && now_ns >= self.due_ns && self.client.has_room() && hits(rng, 700) {
            self.due_ns = now_ns + plan.client_interval_ns;
            let payload = draw_payload(plan, plan.client_max_bytes(), rng);
            let (topic, name) = draw_topic(plan, rng);
            let sequence = match name {
                Some(name) => self.client.publish_named(&name, &payload).0,
                None => self.client.publish(topic, &payload).0,
            };
            sends(Sent { client: (self.id, sequence), topic: topic.0, payload: payload.into(), at_ns: now_ns });
            self.sequence = sequence;
            self.quota -= 1;
        }
        if !self.is_busy() {
            self.client.leave(); // late copies of its requests may still be under way
        }
        let mut datagrams = Vec::new();
        self.client.transmit(Instant(now_ns), |to, bytes, _| {
            let Destination::Peer(to) = to else { unreachable!("a client that broadcasts nothing") };
            datagrams.push((to, bytes.to_vec()));
            1
        });
        while let Some(event) = self.client.poll_event() {
            debug_assert!(event != ClientEvent::TooManyClients);
            if let ClientEvent::Taken(below) = event {
                self.taken = below.0;
            }
        }
        datagrams
    }
}
