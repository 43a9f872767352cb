//! The merge beside a model of a group: what is published is recorded after a while, and comes live with losses.
//!
//! The subscriber must deliver each message once and in order. A merge that is wrong on purpose must be caught.

use super::*;
use bourdon_wire::{Epoch, Incarnation, InstanceId, OrderNumber, TopicId};

const DENSE: Rule = Rule { start: StartAt::Oldest, is_dense: true, skips: false };

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// The message at which the two meet is delivered twice.
    Twice,
    /// It is left out.
    Skips,
}

/// A message of the model: its number is its payload, which no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    number: u64,
    epoch: u64,
    order: Option<u64>,
    phase: Option<u64>,
}

impl Sent {
    fn with<T>(&self, take: impl FnOnce(&Message<'_>) -> T) -> T {
        let payload = self.number.to_le_bytes();
        take(&Message {
            sender: Rank(0),
            incarnation: Incarnation(1),
            instance: InstanceId(7),
            sequence: Sequence(self.number),
            order: self.order.map(OrderNumber),
            epoch: Epoch(self.epoch),
            late: false,
            topic: TopicId(0),
            name: None,
            send_time_ns: 0,
            kernel_receive_ns: None,
            delivered_at: Instant(0),
            client: None,
            barrier: self.phase,
            payload: &payload,
        })
    }
}

/// A group, its archive, and one subscriber.
struct World {
    rng: fastrand::Rng,
    sent: Vec<Sent>,
    next_order: u64,
    epoch: u64,
    phase: u64,
    recorded: usize,
    /// What comes live next.
    live: usize,
    merge: Merge,
    bug: Option<Bug>,
    switches: u64,
    got: Vec<u64>,
    now: u64,
    /// What is being read of the archive: the next record and the end.
    read: Option<(usize, usize)>,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let merge = Merge::new(DENSE, None);
        let rng = fastrand::Rng::with_seed(seed);
        let (sent, got) = (Vec::new(), Vec::new());
        Self {
            rng,
            sent,
            next_order: 0,
            epoch: 1,
            phase: 0,
            recorded: 0,
            live: 0,
            merge,
            bug,
            switches: 0,
            got,
            now: 0,
            read: None,
        }
    }

    fn publish(&mut self) {
        self.epoch += u64::from(self.rng.u8(..) < 4);
        let is_barrier = self.rng.u8(..) < 16;
        let (order, phase) = ((!is_barrier).then_some(self.next_order), is_barrier.then_some(self.phase));
        self.next_order += u64::from(!is_barrier);
        self.phase += u64::from(is_barrier);
        self.sent.push(Sent { number: self.sent.len() as u64, epoch: self.epoch, order, phase });
    }

    fn step(&mut self) {
        self.now += 1_000_000;
        match self.rng.u8(..16) {
            0..=5 => (0..self.rng.usize(..8)).for_each(|_| self.publish()),
            6..=8 => self.recorded = self.rng.usize(self.recorded..=self.sent.len()),
            9 if self.live < self.sent.len() => self.lose(),
            10 if self.rng.u8(..) < 40 => self.restart(),
            _ => (0..self.rng.usize(..8)).for_each(|_| self.take_live()),
        }
        self.turn();
    }

    fn take_live(&mut self) {
        let Some(sent) = self.sent.get(self.live) else { return };
        self.live += 1;
        if sent.with(|message| self.merge.live(message, None, true)).expect("it has a place") {
            self.got.push(sent.number);
        }
    }

    /// Live messages are lost. An event reports it, or a hole in the order numbers shows it with the next message.
    fn lose(&mut self) {
        let first = self.live;
        self.live = self.rng.usize(first..=self.sent.len());
        let has_order = |sent: &Sent| sent.order.is_some();
        let is_shown =
            self.sent[first..self.live].iter().any(has_order) && self.sent.get(self.live).is_some_and(has_order);
        if self.rng.bool() || !is_shown {
            self.merge.event(&Event::Gap { sender: Rank(0), from: Sequence(0), to: Sequence(0) });
        }
    }

    /// The subscriber ends, and goes on from its position; what comes live then begins later.
    fn restart(&mut self) {
        let position = self.merge.position();
        self.switches += self.merge.switches();
        (self.merge, self.read) = (Merge::new(DENSE, Some(position)), None);
        self.live = self.sent.len();
    }

    /// A poll. Reading takes several, and so does handing out what waits.
    fn turn(&mut self) {
        if let Some((from, _)) = self.merge.take_request() {
            assert_eq!(self.read, None, "one request at a time");
            self.read = Some(((from as usize).min(self.recorded), self.recorded));
        }
        if let Some((next, end)) = self.read {
            let until = self.rng.usize(next..=end);
            (next..until).for_each(|index| self.take_read(index));
            self.read = (until < end).then_some((until, end));
            if until == end {
                self.merge.end(end as u64, Instant(self.now));
            }
        }
        self.merge.keep_time(Instant(self.now));
        if self.bug.is_some() && self.merge.mode() == Mode::Joining {
            self.apply_bug();
        }
        for _ in 0..self.rng.usize(..20) {
            let Some(waiting) = self.merge.pop() else { break };
            self.got.extend(waiting.message().map(|message| message.sequence.0));
        }
        while self.merge.take_notice().is_some() {}
    }

    fn take_read(&mut self, index: usize) {
        let (sent, mut bytes) = (self.sent[index], Vec::new());
        sent.with(|message| Entry::of(message, None).encode(&mut bytes));
        let record = Record { position: sent.number, epoch: sent.epoch, time_ns: 0, bytes: &bytes };
        let archived = Archived::Record(record, Entry::decode(&bytes));
        if let Some(Output::Message(message)) = self.merge.archived(7, &archived).expect("of this instance") {
            self.got.push(message.sequence.0);
        }
    }

    fn apply_bug(&mut self) {
        match self.bug {
            Some(Bug::Twice) => self.got.extend(self.got.last().copied()),
            _ => drop(self.merge.pop()),
        }
    }

    /// All that was published is delivered in the end, once and in order.
    fn finish(&mut self) -> Result<u64, String> {
        (0..50).for_each(|_| {
            self.publish();
            self.take_live();
        });
        for _ in 0..1_000 {
            self.recorded = self.sent.len();
            self.now += 30_000_000;
            self.take_live();
            self.turn();
        }
        let expected: Vec<u64> = (0..self.sent.len() as u64).collect();
        let differs = self.got.iter().zip(&expected).position(|(got, expected)| got != expected);
        match differs {
            None if self.got.len() == expected.len() => Ok(self.switches + self.merge.switches()),
            _ => Err(format!("at {differs:?}: {} of {}", self.got.len(), expected.len())),
        }
    }
}

fn run(seed: u64, bug: Option<Bug>) -> Result<u64, String> {
    let mut world = World::new(seed, bug);
    (0..2_000).for_each(|_| world.step());
    world.finish()
}

#[test]
fn each_message_is_delivered_once_and_in_order_whatever_is_lost() {
    let switches: u64 = (0..40).map(|seed| run(seed, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"))).sum();
    assert!(switches > 1_000, "{switches} switches");
}

#[test]
fn a_meeting_message_that_comes_twice_or_not_at_all_is_caught() {
    for bug in [Bug::Twice, Bug::Skips] {
        assert!((0..5).any(|seed| run(seed, Some(bug)).is_err()), "{bug:?}");
    }
}

fn sent(number: u64, epoch: u64, order: u64) -> Sent {
    Sent { number, epoch, order: Some(order), phase: None }
}

/// An observer had run ahead of a view: numbers that became void are used again.
#[test]
fn messages_after_a_retraction_are_delivered() {
    let archive = [sent(0, 1, 0), sent(1, 1, 1), sent(2, 1, 2)];
    let again = [sent(4, 2, 1), sent(5, 2, 2)];
    let mut merge = Merge::new(DENSE, None);
    let mut batch = Vec::new();
    let mut add = |entry: Entry<'_>, epoch| {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        batch.push((epoch, bytes));
    };
    archive.iter().for_each(|sent| sent.with(|message| add(Entry::of(message, None), sent.epoch)));
    add(Entry::Retracted { sender: 0, from: 1, to: 3 }, 0);
    again.iter().for_each(|sent| sent.with(|message| add(Entry::of(message, None), sent.epoch)));
    merge.take_request().expect("it reads");
    let mut got = Vec::new();
    for (position, (epoch, bytes)) in batch.iter().enumerate() {
        let record = Record { position: position as u64, epoch: *epoch, time_ns: 0, bytes };
        match merge.archived(7, &Archived::Record(record, Entry::decode(bytes))).expect("of this instance") {
            Some(Output::Message(message)) => got.push(message.sequence.0),
            Some(Output::Event(event)) => {
                assert!(matches!(event, Event::Retracted { .. }), "{event:?}");
                got.push(3);
            }
            None => {}
        }
    }
    assert_eq!(got, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn without_a_recorder_it_goes_on_live_after_a_while_and_reports_what_may_be_missing() {
    let mut merge = Merge::new(DENSE, None);
    merge.take_request().expect("it reads");
    merge.end(0, Instant(0));
    assert!(!sent(5, 1, 5).with(|message| merge.live(message, None, true)).expect("it has a place"));
    let mut waited = 0;
    while merge.mode() != Mode::Joining {
        waited += READ_AGAIN_NS;
        merge.keep_time(Instant(waited));
        if merge.take_request().is_some() {
            merge.end(0, Instant(waited));
        }
        assert!(waited < 2 * RECORDER_WAIT_NS);
    }
    let notices: Vec<Notice> = std::iter::from_fn(|| merge.take_notice()).collect();
    assert_eq!(notices.last(), Some(&Notice::NoRecorder { from: 0, to: 5 }));
}
