//! Feedback implosion, counted: what a thousand receivers send back to one sender.
//!
//! A multicast costs its sender one datagram, and each receiver's answer costs it one as well. If all receivers
//! acknowledge each datagram, or all report that it did not arrive, their answers bury the sender. There are two
//! obvious ways to learn how bad that is. Arithmetic knows nothing of timers and of requests that cross on the way; a
//! large network is something few have. So the shipped [`Process`] runs here a thousand times on one clock.
//!
//! One member publishes at a steady rate to observers. Loss hits each receiver by itself, in all that arrives there
//! ([`Loss::Independent`]), or it hits what the sender sends, for all receivers at once ([`Loss::Correlated`]). Or a
//! few receivers have links that bear less than is offered, and drop the rest ([`Loss::Overload`]); then the publisher
//! paces. Processes take no time and sockets hold everything: what is counted is what is offered to the sender's
//! socket, not what a sender could bear. Two things at one moment happen in the order in which they were put into the
//! queue; all chance comes from one seed.
//!
//! Invariant: every message is delivered to every observer, in order, or reported to it as lost.
//!
//! Source: Pingali, Towsley and Kurose (1994), RFC 5401 section 3.2.

use bourdon_protocol::{Config, Counter, Destination, Event, Feedback, Flow, Outgoing, Process, Rate, Role, View};
use bourdon_wire::records::Heartbeat;
use bourdon_wire::{Address, CONTROL_CHANNEL, Datagram, Epoch, GroupId, Incarnation, Instant, Kind, Rank};
use fastrand::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::rc::Rc;

const GROUP: GroupId = GroupId::of("feedback");
const MTU_BYTES: usize = 1408;
/// Datagrams in each log: a thousand times as many have to fit into memory.
const LOG_SLOTS: usize = 64;
const MESSAGE_BYTES: usize = 200;
const INTERVAL_NS: u64 = 1_000_000;
/// Where too much is offered: so many long messages an interval, of which the links of so many receivers bear two.
const OFFERED: u64 = 5;
const LONG_BYTES: usize = 1_200;
const SLOW: usize = 5;
const SLOW_BYTES_PER_S: u64 = 2_600_000;
/// A slow link drops what would wait longer.
const QUEUE_NS: u64 = 20_000_000;
/// The latency through a switch and two kernels.
const LATENCY_NS: u64 = 50_000;
const JITTER_NS: u64 = 20_000;
/// With this many receivers or fewer, requests are not suppressed, whatever [`bourdon_protocol::Limits::receivers`] is.
const QUIET: u32 = 8;
/// What is not delivered this long after the last message never is: a hundred of the longest pauses between requests.
const DRAIN_NS: u64 = 2_000_000_000;
/// Forming takes a few heartbeats, of which most arrive.
const FORM_NS: u64 = 10_000_000_000;
/// The publisher's index among the processes.
const SENDER: usize = 0;

/// How receivers report to the sender what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackMode {
    /// Each receiver acknowledges each datagram.
    AckEach,
    /// Each receiver sends a NAK for what it misses, at once.
    Nak,
    /// Each receiver sends a NAK after a random time; all hear it, and a receiver that misses the same stays silent.
    SuppressedNak,
}

impl FeedbackMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AckEach, Self::Nak, Self::SuppressedNak];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckEach => "ack-each",
            Self::Nak => "nak",
            Self::SuppressedNak => "nak-suppressed",
        }
    }
}

/// Which receivers a loss hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// One receiver, in whatever is sent to it.
    Independent,
    /// All receivers, in whatever the publisher sends: its link is bad.
    Correlated,
    /// The few receivers whose links bear less than the publisher offers; it sends more slowly for them. Nothing else
    /// is lost.
    Overload,
}

impl Loss {
    /// Those that a rate of loss describes.
    pub const RANDOM: [Self; 2] = [Self::Independent, Self::Correlated];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Correlated => "correlated",
            Self::Overload => "overload",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct FeedbackPlan {
    /// How receivers answer.
    pub mode: FeedbackMode,
    /// Which receivers losses hit.
    pub loss: Loss,
    /// How likely a datagram is lost, from 0 to 1.
    pub loss_rate: f64,
    /// How many observers receive.
    pub observers: u32,
    /// How many messages are offered, one per millisecond, five where it is too much; each in a datagram of its own.
    pub messages: u64,
    /// Seeds losses, jitter and back-off.
    pub seed: u64,
}

/// The result of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedbackOutcome {
    /// From the first message until all were delivered everywhere.
    pub elapsed_ns: u64,
    /// Messages published.
    pub published: u64,
    /// Datagrams offered to the sender's socket.
    pub feedback: u64,
    /// Their bytes.
    pub feedback_bytes: u64,
    /// The bytes of the publisher's new data.
    pub data_bytes: u64,
    /// Of the feedback, requests for repair.
    pub naks: u64,
    /// Of these, where too much is offered, those of the observers whose links bear it: they lose nothing.
    pub needless_naks: u64,
    /// Of the feedback, reports that too much is lost.
    pub reports: u64,
    /// Their bytes.
    pub report_bytes: u64,
    /// Repairs sent.
    pub repairs: u64,
    /// Messages delivered to observers, all together.
    pub delivered: u64,
    /// Messages that were reported to observers as lost.
    pub reported_lost: u64,
    /// What should have been delivered.
    pub expected: u64,
    /// Messages delivered twice, or out of order.
    pub misplaced: u64,
    /// By repaired message, ascending: the time from when its observer could know that it was missing to its delivery.
    pub repair_ns: Vec<u64>,
}

impl FeedbackOutcome {
    /// Whether each message was delivered to each observer once, in order, or reported to it as lost.
    pub fn is_complete(&self) -> bool {
        self.delivered + self.reported_lost == self.expected && self.misplaced == 0
    }

    /// The rate of a count, per second.
    pub fn per_s(&self, count: u64) -> u64 {
        (u128::from(count) * 1_000_000_000 / u128::from(self.elapsed_ns.max(1))) as u64
    }

    /// The time within which this percentage of the repairs came; `None` if there were none.
    pub fn repair_percentile_ns(&self, percent: usize) -> Option<u64> {
        let place = (self.repair_ns.len() * percent).div_ceil(100).saturating_sub(1);
        self.repair_ns.get(place).copied()
    }
}

/// Plays one run.
///
/// # Panics
/// If the protocol does, or if the group does not form because nearly everything is lost.
pub fn play_feedback(plan: &FeedbackPlan) -> FeedbackOutcome {
    let mut room = Room::new(plan);
    let formed = room.run(FORM_NS, |room| room.ends.iter().all(|end| end.process.is_formed()));
    assert!(formed, "with so much lost, not every observer found the group within {} s", FORM_NS / 1_000_000_000);
    room.publish_all()
}

/// A datagram under way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    bytes: Rc<[u8]>,
    to_all: bool,
    /// Its receiver knows of all messages below.
    announces: u64,
    /// Whether it has the last of them in it.
    carries: bool,
    is_nak: bool,
    is_report: bool,
}

impl Packet {
    fn new(bytes: &[u8], to: Destination) -> Self {
        let to_all = !matches!(to, Destination::Peer(_));
        let (announces, carries) = (0, false);
        let mut packet = Self { bytes: bytes.into(), to_all, announces, carries, is_nak: false, is_report: false };
        let Ok(datagram) = Datagram::parse(bytes, GROUP) else { return packet };
        if datagram.header.channel() != CONTROL_CHANNEL {
            (packet.announces, packet.carries) = (datagram.header.first_sequence().0 + 1, true);
        }
        for frame in datagram.frames() {
            packet.is_nak |= frame.kind() == Some(Kind::Nak);
            packet.is_report |= frame.kind() == Some(Kind::Congestion);
            let beat = Heartbeat::read(frame.body).filter(|_| frame.kind() == Some(Kind::Heartbeat));
            packet.announces = packet.announces.max(beat.map_or(0, |(beat, _)| beat.next_sequence.get()));
        }
        packet
    }
}

/// One process, and what its application and its network have seen.
#[derive(Debug)]
struct End {
    process: Process,
    wakes_at_ns: u64,
    /// The message due next.
    next: u64,
    /// The process can know of all messages below.
    announced: u64,
    /// Which of them are missing, and since when.
    missing: Vec<(u64, u64)>,
}

impl End {
    fn hear_of(&mut self, now_ns: u64, packet: &Packet) {
        if packet.announces > self.announced {
            let missing = self.announced..packet.announces - u64::from(packet.carries);
            self.missing.extend(missing.map(|sequence| (sequence, now_ns)));
            self.announced = packet.announces;
        }
    }

    /// Delivers what is due to its application.
    fn show(&mut self, now_ns: u64, outcome: &mut FeedbackOutcome) {
        let Self { process, next, missing, .. } = self;
        loop {
            let count = process.deliver(Instant(now_ns), usize::MAX, |delivery| {
                let sequence = delivery.sequence.0;
                outcome.delivered += 1;
                outcome.misplaced += u64::from(sequence < *next);
                *next = sequence + 1;
                if let Some(place) = missing.iter().position(|(missed, _)| *missed == sequence) {
                    outcome.repair_ns.push(now_ns - missing.swap_remove(place).1);
                }
            });
            while let Some(event) = process.poll_event() {
                if let Event::Gap { from, to, .. } = event {
                    outcome.reported_lost += to.0 - from.0;
                    *next = to.0.max(*next);
                    missing.retain(|(missed, _)| !(from.0..to.0).contains(missed));
                }
            }
            if count == 0 {
                break;
            }
        }
    }
}

/// An event to come: its time, its place in the order at that time, its process, and the packet that arrives; a timer
/// if there is none.
type Coming = Reverse<(u64, u64, usize, Option<Rc<Packet>>)>;

#[derive(Debug)]
struct Room<'p> {
    plan: &'p FeedbackPlan,
    rng: Rng,
    now_ns: u64,
    ties: u64,
    queue: BinaryHeap<Coming>,
    ends: Vec<End>,
    /// When the link of each of the first observers is free again.
    links_free_ns: [u64; SLOW],
    outcome: FeedbackOutcome,
}

impl<'p> Room<'p> {
    fn new(plan: &'p FeedbackPlan) -> Self {
        let end = |index| End {
            process: Process::new(Instant(0), config(plan, index)).expect("every plan makes a good configuration"),
            wakes_at_ns: u64::MAX,
            next: 0,
            announced: 0,
            missing: Vec::new(),
        };
        let ends: Vec<_> = (0..=plan.observers as usize).map(end).collect();
        let (queue, outcome) = (BinaryHeap::new(), FeedbackOutcome::default());
        let (rng, links_free_ns) = (Rng::with_seed(plan.seed), [0; SLOW]);
        let mut room = Self { plan, rng, now_ns: 0, ties: 0, queue, ends, links_free_ns, outcome };
        (0..room.ends.len()).for_each(|index| room.follow_up(index));
        room
    }

    /// Lets time pass until the condition `led` holds, or the time limit is reached. Returns whether the condition
    /// holds.
    fn run(&mut self, limit_ns: u64, led: impl Fn(&Self) -> bool) -> bool {
        let until_ns = self.now_ns + limit_ns;
        while self.now_ns < until_ns && !led(self) {
            self.pass(INTERVAL_NS);
        }
        led(self)
    }

    /// Lets so much time pass.
    fn pass(&mut self, ns: u64) {
        let until_ns = self.now_ns + ns;
        while self.queue.peek().is_some_and(|Reverse((at_ns, ..))| *at_ns <= until_ns) {
            let Some(Reverse((at_ns, _, index, packet))) = self.queue.pop() else { break };
            self.now_ns = at_ns;
            let end = &mut self.ends[index];
            match packet {
                Some(packet) => {
                    end.hear_of(at_ns, &packet);
                    end.process.take_in(Instant(at_ns), &packet.bytes, None, packet.to_all);
                }
                None if end.wakes_at_ns == at_ns => end.wakes_at_ns = u64::MAX,
                None => continue, // it was woken earlier and has another deadline now
            }
            self.follow_up(index);
        }
        self.now_ns = until_ns;
    }

    fn publish_all(mut self) -> FeedbackOutcome {
        let began_ns = self.now_ns;
        let repairs = self.repairs();
        self.outcome = FeedbackOutcome::default();
        let is_overload = self.plan.loss == Loss::Overload;
        let (at_once, length) = if is_overload { (OFFERED, LONG_BYTES) } else { (1, MESSAGE_BYTES) };
        for _ in 0..self.plan.messages / at_once {
            for _ in 0..at_once {
                let sender = &mut self.ends[SENDER].process;
                if sender.try_publish(Instant(self.now_ns), &Outgoing::default(), &[7; LONG_BYTES][..length]).is_ok() {
                    self.outcome.published += 1;
                    self.outcome.expected += u64::from(self.plan.observers);
                    self.outcome.data_bytes += length as u64;
                }
                self.follow_up(SENDER);
            }
            self.pass(INTERVAL_NS);
        }
        self.run(DRAIN_NS, |room| room.outcome.is_complete());
        self.outcome.elapsed_ns = self.now_ns - began_ns;
        self.outcome.repairs = self.repairs() - repairs;
        self.outcome.repair_ns.sort_unstable();
        self.outcome
    }

    fn repairs(&self) -> u64 {
        self.ends[SENDER].process.counters().get(Counter::RepairsSent)
    }

    /// Does what is due at a process, and takes from it what it sends and delivers.
    fn follow_up(&mut self, index: usize) {
        let now = Instant(self.now_ns);
        let end = &mut self.ends[index];
        while now >= end.process.next_deadline() {
            end.process.on_timer(now);
        }
        let mut sent = Vec::new();
        end.process.transmit(now, |to, bytes, segment_bytes| {
            let before = sent.len();
            sent.extend(bytes.chunks(segment_bytes).map(|bytes| (to, Rc::new(Packet::new(bytes, to)))));
            sent.len() - before
        });
        if index == SENDER {
            end.process.deliver(now, usize::MAX, |_| {});
            while end.process.poll_event().is_some() {}
        } else {
            end.show(self.now_ns, &mut self.outcome);
        }
        let due_ns = end.process.next_deadline().0;
        if due_ns < end.wakes_at_ns {
            end.wakes_at_ns = due_ns;
            self.push(due_ns, index, None);
        }
        sent.into_iter().for_each(|(to, packet)| self.send(index, to, &packet));
    }

    fn send(&mut self, from: usize, to: Destination, packet: &Rc<Packet>) {
        let is_correlated = self.plan.loss == Loss::Correlated;
        if is_correlated && from == SENDER && self.rng.f64() < self.plan.loss_rate {
            return;
        }
        let receivers = match to {
            Destination::Peer(address) => {
                let index = index_of(address);
                index..index + 1
            }
            Destination::Group | Destination::Broadcast => 0..self.ends.len(),
        };
        for index in receivers.filter(|index| *index != from) {
            if index == SENDER {
                self.outcome.feedback += 1;
                self.outcome.feedback_bytes += packet.bytes.len() as u64;
                self.outcome.naks += u64::from(packet.is_nak);
                let loses = self.plan.loss != Loss::Overload || from <= SLOW;
                self.outcome.needless_naks += u64::from(packet.is_nak && !loses);
                self.outcome.reports += u64::from(packet.is_report);
                self.outcome.report_bytes += if packet.is_report { packet.bytes.len() as u64 } else { 0 };
            }
            let Some(wait_ns) = self.wait_ns(index, packet.bytes.len()) else { continue };
            let at_ns = self.now_ns + wait_ns + LATENCY_NS + self.rng.u64(0..=JITTER_NS);
            if is_correlated || self.rng.f64() >= self.plan.loss_rate {
                self.push(at_ns, index, Some(Rc::clone(packet)));
            }
        }
    }

    /// How long a datagram waits before a receiver's link; `None` if it is dropped there.
    fn wait_ns(&mut self, index: usize, bytes: usize) -> Option<u64> {
        let links = self.links_free_ns.iter_mut().filter(|_| self.plan.loss == Loss::Overload);
        let Some(free_ns) = links.zip(1..).find(|(_, of)| *of == index).map(|(free_ns, _)| free_ns) else {
            return Some(0);
        };
        let wait_ns = free_ns.saturating_sub(self.now_ns);
        if wait_ns > QUEUE_NS {
            return None;
        }
        *free_ns = self.now_ns + wait_ns + bytes as u64 * 1_000_000_000 / SLOW_BYTES_PER_S;
        Some(wait_ns)
    }

    fn push(&mut self, at_ns: u64, index: usize, packet: Option<Rc<Packet>>) {
        self.ties += 1;
        self.queue.push(Reverse((at_ns, self.ties, index, packet)));
    }
}

fn config(plan: &FeedbackPlan, index: usize) -> Config {
    let role = if index == SENDER { Role::Member(Rank(0)) } else { Role::Observer };
    let mut config = Config::new(GROUP, 1, role);
    config.view = Some(View::of_all(Epoch(1), 1, Incarnation(1), Rank(0)));
    config.address = address(index);
    config.seed = plan.seed ^ (index as u64) << 32;
    if plan.mode == FeedbackMode::AckEach {
        config.feedback = Feedback::AckEach;
    }
    if plan.loss == Loss::Overload {
        (config.flow, config.rate.floor_bytes_per_s) = (Flow::Paced, Rate::FLOOR_MIN_BYTES_PER_S);
    }
    let limits = &mut config.limits;
    limits.mtu_bytes = MTU_BYTES;
    limits.log_bytes = LOG_SLOTS * MTU_BYTES;
    limits.receive_log_bytes = LOG_SLOTS * MTU_BYTES;
    limits.window_bytes = LOG_SLOTS * MTU_BYTES;
    limits.max_message_bytes = MTU_BYTES;
    limits.receivers = if plan.mode == FeedbackMode::SuppressedNak { plan.observers.max(QUIET + 1) } else { QUIET };
    config
}

/// Ports begin here.
const PORT: u16 = 1000;

fn address(index: usize) -> Address {
    SocketAddr::from(([10, 0, 0, 1], PORT + index as u16)).into()
}

fn index_of(address: Address) -> usize {
    usize::from(SocketAddr::from(address).port() - PORT)
}
