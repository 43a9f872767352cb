//! One member of a total-order measurement, for any system: sends, delivers, and keeps a ledger.
//!
//! Two systems are compared only if the same loop drives them. A member greets the group; when it has delivered a
//! greeting from every member the measurement begins, so no member waits on a barrier outside the system. Senders send
//! as fast as the system accepts, or one message at each due time, for a while; then each sends the number of its
//! messages in its own stream. A member that has delivered these last messages of all senders knows what is missing.
//!
//! A hash chain checks that all members delivered in one order: each delivery is mixed into a word that depends on all
//! deliveries before it, so that equal words at the end mean equal sequences. Latency is from the time a message was
//! due, not from when it could be sent, to its delivery at its own sender: no member's clock is compared with
//! another's.
//!
//! Invariant: a delivery is recorded in the callback, in the order of the callbacks, and nowhere else.

use crate::Failure;
use crate::row::{buckets, histogram};
use crate::task::Task;
use crate::worker::{Found, WorkerReport, cpu_ns, report};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Messages sent between two polls at full speed: a few datagrams, so that acknowledgements are not delayed.
const BURST: usize = 512;
/// The longest sleep of a sender that must wait until the system accepts.
const REFUSED_SLEEP: Duration = Duration::from_millis(1);
/// The longest sleep of a member that only receives.
const LISTEN_SLEEP: Duration = Duration::from_millis(20);
/// How long after the measured time a member waits for what it has not delivered.
const PATIENCE: Duration = Duration::from_secs(30);
/// One part in this many of a paced measurement is not recorded: caches and connections get warm.
const WARM_UP_SHARE: u64 = 10;

/// The operations of a system for a member. A call that sends or delivers may do so later.
pub(crate) trait Ordered {
    /// Passes one message to the system; returns whether it was accepted.
    fn try_send(&mut self, payload: &[u8]) -> Result<bool, Failure>;
    /// Sends accepted messages and delivers what is due, with its sender's rank; returns how much work there was.
    fn poll(&mut self, on_delivery: impl FnMut(u16, &[u8])) -> Result<usize, Failure>;
    /// After a round with this much work: continues at once, yields, or sleeps at most this long.
    fn idle(&mut self, work_count: usize, longest: Duration) -> Result<(), Failure>;
    /// CPU time of everything this member needs besides its own process.
    fn others_cpu_ns(&self) -> u64;
}

/// The contents of a message; the rest of its bytes is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// A member has joined.
    Greeting,
    /// The sender's message of this number, from 0, was due at this time by the sender's clock.
    Message { number: u64, due_ns: u64 },
    /// The sender has sent this many messages.
    End { count: u64 },
}

const GREETING: u64 = u64::MAX;
const END: u64 = u64::MAX - 1;

impl Word {
    fn write(self, payload: &mut [u8]) {
        let (due_ns, number) = match self {
            Self::Greeting => (GREETING, 0),
            Self::Message { number, due_ns } => (due_ns, number),
            Self::End { count } => (END, count),
        };
        payload[..8].copy_from_slice(&due_ns.to_le_bytes());
        payload[8..16].copy_from_slice(&number.to_le_bytes());
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (due_ns, rest) = payload.split_first_chunk::<8>()?;
        let (number, _) = rest.split_first_chunk::<8>()?;
        let number = u64::from_le_bytes(*number);
        Some(match u64::from_le_bytes(*due_ns) {
            GREETING => Self::Greeting,
            END => Self::End { count: number },
            due_ns => Self::Message { number, due_ns },
        })
    }
}

/// What a member has delivered.
struct Ledger {
    rank: u16,
    members: usize,
    senders: usize,
    greeted: usize,
    /// For each sender, the number of its next message.
    next: Vec<u64>,
    /// For each sender, how many messages it reports to have sent.
    counts: Vec<Option<u64>>,
    chain: u64,
    received: u64,
    out_of_order: u64,
    latency: Histogram<u64>,
}

impl Ledger {
    fn new(rank: u16, members: u16, senders: u16) -> Self {
        Self {
            rank,
            members: members.into(),
            senders: senders.into(),
            greeted: 0,
            next: vec![0; members.into()],
            counts: vec![None; members.into()],
            chain: 0,
            received: 0,
            out_of_order: 0,
            latency: histogram(),
        }
    }

    /// Records a delivery; `now_ns` is called only where a latency is recorded.
    #[inline]
    fn deliver(&mut self, sender: u16, payload: &[u8], record_from_ns: Option<u64>, now_ns: impl FnOnce() -> u64) {
        let (from, Some(word)) = (usize::from(sender), Word::read(payload)) else {
            self.out_of_order += 1; // no member sends a shorter one
            return;
        };
        match word {
            Word::Greeting => self.greeted += 1,
            Word::End { count } => self.counts[from] = Some(count),
            Word::Message { number, due_ns } => {
                self.out_of_order += u64::from(number < self.next[from]);
                self.next[from] = number + 1;
                self.received += 1;
                self.chain = mix(self.chain ^ mix(number ^ (u64::from(sender) << 48)));
                if sender == self.rank && record_from_ns.is_some_and(|from_ns| due_ns >= from_ns) {
                    self.latency.saturating_record(now_ns().saturating_sub(due_ns).max(1));
                }
            }
        }
    }

    fn has_begun(&self) -> bool {
        self.greeted == self.members
    }

    fn is_complete(&self) -> bool {
        self.counts.iter().flatten().count() == self.senders
    }

    fn sent(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }
}

/// Spreads every bit of a word over all (the finisher of SplitMix64).
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// What a member still has to send.
struct Speaker {
    payload: Vec<u8>,
    greeted: bool,
    ended: bool,
    sends: bool,
    interval_ns: Option<u64>,
    begun_ns: u64,
    number: u64,
}

impl Speaker {
    /// When the next message is due.
    fn due_ns(&self) -> Option<u64> {
        self.interval_ns.map(|interval_ns| self.begun_ns + self.number * interval_ns)
    }

    fn report(&mut self, system: &mut impl Ordered, word: Word) -> Result<bool, Failure> {
        word.write(&mut self.payload);
        system.try_send(&self.payload)
    }

    /// Sends what is due, as far as the system accepts it; returns how many messages were accepted.
    fn speak(&mut self, system: &mut impl Ordered, task: &Task, begun: bool, now_ns: u64) -> Result<usize, Failure> {
        if !self.greeted {
            self.greeted = self.report(system, Word::Greeting)?;
        }
        if !begun || !self.sends || self.ended {
            return Ok(0);
        }
        let mut taken = 0;
        while taken < BURST {
            let due_ns = self.due_ns().unwrap_or(now_ns);
            if self.number >= task.count || due_ns >= self.begun_ns + task.duration_ns {
                self.ended = self.report(system, Word::End { count: self.number })?;
                break;
            }
            if due_ns > now_ns || !self.report(system, Word::Message { number: self.number, due_ns })? {
                break;
            }
            self.number += 1;
            taken += 1;
        }
        Ok(taken)
    }

    /// How long this member may sleep.
    fn longest_sleep(&self, begun: bool, now_ns: u64) -> Duration {
        match self.due_ns() {
            _ if !begun || !self.greeted => REFUSED_SLEEP,
            _ if !self.sends || self.ended => LISTEN_SLEEP,
            Some(due_ns) if due_ns > now_ns => Duration::from_nanos(due_ns - now_ns).min(LISTEN_SLEEP),
            _ => REFUSED_SLEEP,
        }
    }
}

/// Runs a member to the end and reports its figures; then serves the others until the harness ends it.
pub(crate) fn play(system: &mut impl Ordered, size_bytes: u32, task: &Task) -> Result<(), Failure> {
    // A sleep may end 50 µs late, and this would be counted as the system's latency.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    report(&WorkerReport::Found(run(system, size_bytes, task)?));
    loop {
        let work = system.poll(|_, _| {})?;
        system.idle(work, LISTEN_SLEEP)?;
    }
}

fn run(system: &mut impl Ordered, size_bytes: u32, task: &Task) -> Result<Found, Failure> {
    let start = Instant::now();
    let clock_ns = || start.elapsed().as_nanos() as u64;
    let mut ledger = Ledger::new(task.rank, task.members, task.senders);
    let mut speaker = Speaker {
        payload: vec![7; size_bytes as usize],
        greeted: false,
        ended: false,
        sends: task.rank < task.senders,
        interval_ns: task.rate_per_s.map(|rate| 1_000_000_000 / rate.max(1)),
        begun_ns: 0,
        number: 0,
    };
    let (mut begun, mut last_ns, mut cpu_at_begin) = (false, 0, 0);
    let mut deadline_ns = PATIENCE.as_nanos() as u64;
    while !ledger.is_complete() {
        let now_ns = clock_ns();
        let taken = speaker.speak(system, task, begun, now_ns)?;
        let record_from_ns = task.rate_per_s.map(|_| speaker.begun_ns + task.duration_ns / WARM_UP_SHARE);
        let received = ledger.received;
        let work = system.poll(|sender, payload| ledger.deliver(sender, payload, record_from_ns, clock_ns))?;
        if ledger.received > received {
            last_ns = clock_ns();
        }
        if !begun && ledger.has_begun() {
            (begun, speaker.begun_ns, cpu_at_begin) = (true, clock_ns(), cpu_ns() + system.others_cpu_ns());
            deadline_ns = speaker.begun_ns + task.duration_ns + PATIENCE.as_nanos() as u64;
        }
        if now_ns > deadline_ns {
            return Err(too_late(&ledger));
        }
        system.idle(taken + work, speaker.longest_sleep(begun, now_ns))?;
    }
    Ok(Found {
        received: ledger.received,
        lost: ledger.sent().saturating_sub(ledger.received),
        out_of_order: ledger.out_of_order,
        chain: ledger.chain,
        elapsed_ns: last_ns.saturating_sub(speaker.begun_ns),
        cpu_ns: (cpu_ns() + system.others_cpu_ns()).saturating_sub(cpu_at_begin),
        latency_ns: buckets(&ledger.latency),
        ..Found::default()
    })
}

fn too_late(ledger: &Ledger) -> Failure {
    let (rank, seconds) = (ledger.rank, PATIENCE.as_secs());
    Failure::Broken(if ledger.has_begun() {
        let (received, ends) = (ledger.received, ledger.counts.iter().flatten().count());
        format!("member {rank} had {received} messages and {ends} senders' last messages {seconds} s after the end")
    } else {
        format!("member {rank} heard {} of {} members within {seconds} s", ledger.greeted, ledger.members)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(word: Word) -> [u8; 16] {
        let mut payload = [0; 16];
        word.write(&mut payload);
        payload
    }

    /// The ledger of a member that delivered these (sender, number), each 5 ns after it was due at 10 ns.
    fn ledger(deliveries: &[(u16, u64)]) -> Ledger {
        let mut ledger = Ledger::new(0, 3, 3);
        for (sender, number) in deliveries {
            let message = payload(Word::Message { number: *number, due_ns: 10 });
            ledger.deliver(*sender, &message, Some(10), || 15);
        }
        ledger
    }

    #[test]
    fn words_survive_the_way() {
        for word in [Word::Greeting, Word::Message { number: 3, due_ns: 9 }, Word::End { count: 12 }] {
            assert_eq!(Word::read(&payload(word)), Some(word));
        }
        assert_eq!(Word::read(&[0; 15]), None);
    }

    #[test]
    fn the_chain_distinguishes_orders() {
        let same = ledger(&[(0, 0), (1, 0), (2, 0)]).chain;
        assert_eq!(ledger(&[(0, 0), (1, 0), (2, 0)]).chain, same);
        for other in [&[(1, 0), (0, 0), (2, 0)][..], &[(0, 0), (1, 0)], &[(0, 0), (1, 0), (2, 1)], &[]] {
            assert_ne!(ledger(other).chain, same, "{other:?}");
        }
    }

    #[test]
    fn repeated_and_missing_messages_are_found() {
        assert_eq!(ledger(&[(1, 0), (1, 1), (2, 0)]).out_of_order, 0);
        assert_eq!(ledger(&[(1, 0), (1, 0)]).out_of_order, 1);
        let mut short = ledger(&[(1, 0), (1, 2)]);
        for (sender, count) in [(0, 0), (1, 3), (2, 0)] {
            assert!(!short.is_complete());
            short.deliver(sender, &payload(Word::End { count }), None, || 0);
        }
        assert!(short.is_complete());
        assert_eq!(short.sent() - short.received, 1);
    }

    #[test]
    fn only_own_messages_are_timed() {
        let ledger = ledger(&[(0, 0), (1, 0), (0, 1)]);
        assert_eq!((ledger.latency.len(), ledger.latency.max()), (2, 5));
    }
}
