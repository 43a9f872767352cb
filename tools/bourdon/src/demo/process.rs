//! One member or observer of a demo, in a process of its own.
//!
//! It publishes its share of the records at their intended times, delivers everybody's, and keeps what proves that it
//! did: a hash over all payloads in delivery order, and a running hash over the messages' names, so that two processes
//! can be compared at any length. After its last delivery it goes on serving repairs until the demo says it is over.

use super::input::Record;
use super::link::{Assignment, LATENCY_MAX_NS, Order, Said, Tally};
use super::schedule::Schedule;
use crate::exit::Failure;
use bourdon::{Counter, Delivery, Event, Node, Outgoing, Port, Rank, Refusal, TopicId};
use hdrhistogram::Histogram;
use sha2::{Digest, Sha256};
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Messages published between two looks at the network: a few full segmentation runs.
const PUBLISH_BURST: usize = 2_048;
/// The longest sleep: how late an order of the demo is noticed where nothing wakes the node.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// How often progress is told.
const PROGRESS_NS: u64 = 50_000_000;

fn say(said: &Said) {
    let mut line = serde_json::to_string(said).expect("plain data becomes JSON");
    line.push('\n');
    // A demo that no longer listens is gone; the end of stdin ends this process too.
    let _ = std::io::stdout().write_all(line.as_bytes());
    let _ = std::io::stdout().flush();
}

/// Runs one process of a demo, as told on stdin.
pub(crate) fn run() -> Result<(), Failure> {
    // Both ways of noticing that the demo died: the kernel's signal is sooner, the end of stdin is certain.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut first = String::new();
    let read = std::io::stdin().read_line(&mut first);
    let assignment = read.ok().and_then(|_| serde_json::from_str::<Assignment>(&first).ok());
    let Some(assignment) = assignment else {
        return Err(Failure::unusable("this command is part of `bourdon demo`, which starts it itself"));
    };
    let mut process = match DemoProcess::new(assignment) {
        Ok(process) => process,
        Err(why) => {
            say(&Said::Unusable { why });
            return Ok(());
        }
    };
    let orders = listen(&process.node);
    match process.serve(&orders) {
        Ok(()) => Ok(()),
        Err(why) => {
            say(&Said::Stuck { why });
            // The demo decides what happens next: it may still want the result.
            process.answer(&orders);
            Ok(())
        }
    }
}

fn listen(node: &Node) -> Receiver<Order> {
    let (sender, orders) = channel();
    let waker = node.port().waker();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if sender.send(order).is_err() {
                break;
            }
            waker.wake();
        }
        std::process::exit(0);
    });
    orders
}

struct DemoProcess {
    assignment: Assignment,
    node: Node,
    share: Option<Share>,
    proof: Proof,
    said_ready: bool,
    said_progress: (u64, u64),
}

/// What a publisher has to publish.
struct Share {
    records: Vec<Record>,
    schedule: Schedule,
    /// Its next record, and the step to the one after.
    next: usize,
    step: usize,
    /// When the next record was first tried, at full speed.
    first_try_ns: Option<u64>,
    start_ns: Option<u64>,
}

/// What has been delivered.
struct Proof {
    payloads: Sha256,
    chain: Vec<u64>,
    /// Per sender, a bit a message.
    seen: Vec<Vec<u64>>,
    duplicates: u64,
    latency_ns: Histogram<u64>,
}

impl DemoProcess {
    fn new(assignment: Assignment) -> Result<Self, String> {
        let settings = &assignment.settings;
        let rank = settings.process.rank;
        let publishes = settings.process.role == bourdon::settings::Role::Member && rank < assignment.publishers;
        let share = if publishes {
            let records = assignment.source.load().map_err(|failure| format!("{failure:?}"))?;
            let schedule = Schedule::new(&records, assignment.rate, assignment.max_gap_ns);
            let step = usize::from(assignment.publishers);
            Some(Share { records, schedule, next: usize::from(rank), step, first_try_ns: None, start_ns: None })
        } else {
            None
        };
        let node = Node::join(settings).map_err(|error| error.to_string())?;
        let members = usize::from(settings.group.members);
        let proof = Proof {
            payloads: Sha256::new(),
            chain: Vec::with_capacity(assignment.messages as usize),
            seen: vec![vec![0; assignment.messages as usize / 64 + 1]; members],
            duplicates: 0,
            latency_ns: Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are valid"),
        };
        Ok(Self { assignment, node, share, proof, said_ready: false, said_progress: (0, 0) })
    }

    /// Runs until told to finish.
    fn serve(&mut self, orders: &Receiver<Order>) -> Result<(), String> {
        loop {
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Go { start_ns } => {
                        if let Some(share) = &mut self.share {
                            share.start_ns = Some(start_ns);
                        }
                    }
                    order => self.obey(order),
                }
            }
            self.publish()?;
            let (proof, clock) = (&mut self.proof, *self.node.clock());
            let work = self
                .node
                .poll(|delivery| proof.deliver(&delivery, clock.wall_ns()))
                .map_err(|error| error.to_string())?;
            self.tell()?;
            if work == 0 {
                let sleep = self.until_next_record().min(LONGEST_SLEEP);
                if !sleep.is_zero() {
                    self.node.wait(sleep).map_err(|error| error.to_string())?;
                }
            }
        }
    }

    /// Publishes what is due, as far as the group takes it.
    fn publish(&mut self) -> Result<(), String> {
        let Some(share) = &mut self.share else { return Ok(()) };
        let Some(start_ns) = share.start_ns else { return Ok(()) };
        let offset_ns = self.node.clock().wall_offset_ns();
        for _ in 0..PUBLISH_BURST {
            let Some(record) = share.records.get(share.next) else { return Ok(()) };
            let now_ns = self.node.clock().now().0;
            let intended_ns = match share.schedule.at_ns(share.next) {
                Some(at_ns) if start_ns + at_ns > now_ns => return Ok(()),
                Some(at_ns) => start_ns + at_ns,
                None => *share.first_try_ns.get_or_insert(now_ns),
            };
            let outgoing = Outgoing {
                topic: TopicId::of("demo"),
                intended_send_ns: Some(intended_ns.wrapping_add(offset_ns)),
                ..Outgoing::default()
            };
            match self.node.try_publish_with(&outgoing, &record.payload) {
                Ok(_) => {
                    share.next += share.step;
                    share.first_try_ns = None;
                }
                Err(Refusal::Window | Refusal::Forming) => return Ok(()),
                Err(refusal) => return Err(refusal.to_string()),
            }
        }
        Ok(())
    }

    fn until_next_record(&self) -> Duration {
        let due_ns = self.share.as_ref().and_then(|share| {
            (share.next < share.records.len()).then_some(())?;
            Some(share.start_ns? + share.schedule.at_ns(share.next)?)
        });
        due_ns.map_or(LONGEST_SLEEP, |due| Duration::from_nanos(due.saturating_sub(self.node.clock().now().0)))
    }

    /// Tells the demo what it should know by now.
    fn tell(&mut self) -> Result<(), String> {
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::MemberSilent(rank) => return Err(Refusal::MemberSilent(rank).to_string()),
                // Once the group has formed, a stranger who says such things is none of ours.
                Event::IdentityConflict(_) | Event::ConfigurationDiffers(_) if self.said_ready => {}
                Event::IdentityConflict(rank) => return Err(format!("another process uses rank {rank} as well")),
                Event::ConfigurationDiffers(rank) => return Err(format!("member {rank} is configured otherwise")),
                _ => {}
            }
        }
        if !self.said_ready && self.node.process().is_formed() {
            self.said_ready = true;
            say(&Said::Ready {
                io: self.node.io().to_owned(),
                fallback: self.node.fallback().map(str::to_owned),
                receive_buffer_bytes: self.node.port().limits().receive_buffer_bytes,
            });
        }
        let (delivered, now_ns) = (self.proof.chain.len() as u64, self.node.clock().now().0);
        let (said, said_ns) = self.said_progress;
        let complete = delivered + self.node.counters().get(Counter::Gaps) >= self.assignment.messages;
        if delivered > said && (complete || now_ns >= said_ns + PROGRESS_NS) {
            self.said_progress = (delivered, now_ns);
            say(&Said::Progress { delivered });
        }
        Ok(())
    }

    /// Only answers, until the demo ends: the node can't go on.
    fn answer(&mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            self.obey(order);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Go { .. } => {}
            Order::Finish => say(&Said::Result(Box::new(self.tally()))),
            Order::Chain { counts } => {
                let at = |count: &u64| match *count {
                    0 => Some(0),
                    count => self.proof.chain.get(count as usize - 1).copied(),
                };
                say(&Said::Chain { hashes: counts.iter().map(at).collect() });
            }
        }
    }

    fn tally(&self) -> Tally {
        let (counters, proof) = (self.node.counters(), &self.proof);
        Tally {
            delivered: proof.chain.len() as u64,
            duplicates: proof.duplicates,
            gaps: counters.get(Counter::Gaps),
            payload_sha256: hex(&proof.payloads.clone().finalize()),
            views: 1, // a static view is the only one there is
            latency_ns: proof.latency_ns.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
            naks_sent: counters.get(Counter::NaksSent),
            repairs_received: counters.get(Counter::RepairsReceived),
        }
    }
}

impl Proof {
    fn deliver(&mut self, delivery: &Delivery<'_>, wall_ns: u64) {
        self.payloads.update((delivery.payload.len() as u32).to_le_bytes());
        self.payloads.update(delivery.payload);
        let Rank(rank) = delivery.sender;
        let sequence = delivery.sequence.0;
        let last = self.chain.last().copied().unwrap_or(0);
        let name = (u64::from(rank) << 48) ^ sequence;
        self.chain.push((last ^ name).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ name);
        match self.seen.get_mut(usize::from(rank)).and_then(|bits| bits.get_mut(sequence as usize / 64)) {
            Some(bits) if *bits & (1 << (sequence % 64)) == 0 => *bits |= 1 << (sequence % 64),
            _ => self.duplicates += 1,
        }
        self.latency_ns.saturating_record(wall_ns.saturating_sub(delivery.send_time_ns));
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
