//! A stream one way: a publisher sends numbered messages, each receiver checks every one.
//!
//! The publisher sends as fast as the system takes messages, or offers them at a rate: then a message is due at a time
//! whether or not the one before was taken, and nothing is dropped here, so a system that refuses gets it later. The
//! rate is the receiver's: messages over the time from the first to the last. Every message carries its number, so a
//! lost or misplaced message is detected.
//!
//! Every 64th message is timed, from when it was due or offered: enough to see the distribution, too few to change it.

use crate::message::{Arrivals, read, stamp};
use crate::row::{buckets, histogram};
use crate::schedule::Schedule;
use crate::script::now_ns;
use crate::worker::{Found, Spec, cpu_ns};
use crate::{Failure, Link, broken};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Messages sent between two polls of the link: a few full segmentation runs.
const BURST: u64 = 4_096;
/// One message in this many is timed.
const TIMED: u64 = 64;
/// A publisher that is silent for this long has ended: longer than any stall of a loaded host.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the first message may take: all other ends must have started.
const FIRST: Duration = Duration::from_secs(60);

/// Sends the stream.
pub(crate) fn publish(spec: &Spec, link: &mut impl Link) -> Result<Found, Failure> {
    let mut message = vec![7; spec.size_bytes as usize];
    let offered = spec.offered_per_s.map(|rate_per_s| Schedule { rate_per_s, burst: 1 });
    let (mut sent, mut refused, mut refused_until) = (0, 0, 0);
    let (begun_ns, cpu_before) = (now_ns(), cpu_ns());
    while sent < spec.count {
        let due = offered.map_or(spec.count, |offered| offered.due(now_ns() - begun_ns));
        let (before, until) = (sent, due.min(spec.count).min(sent + BURST));
        while sent < until {
            if sent.is_multiple_of(TIMED) {
                let due_ns = offered.map_or_else(now_ns, |offered| begun_ns + offered.time_ns(sent));
                stamp(&mut message, sent, due_ns);
            } else {
                message[..8].copy_from_slice(&sent.to_le_bytes());
            }
            if !link.try_send(&message)? {
                if sent >= refused_until {
                    (refused, refused_until) = (refused + 1, sent + 1);
                }
                break;
            }
            sent += 1;
        }
        if sent > before {
            link.flush()?;
        }
        if link.poll(|_| {})? == 0 && sent == before {
            link.wait(spec.idle)?;
        }
    }
    Ok(Found {
        due: spec.count,
        sent,
        refused,
        elapsed_ns: now_ns() - begun_ns,
        cpu_ns: cpu_ns() - cpu_before,
        ..Found::default()
    })
}

/// Receives the stream to its end, or to a silence after which nothing more is expected.
pub(crate) fn receive(spec: &Spec, link: &mut impl Link) -> Result<Found, Failure> {
    let mut arrivals = Arrivals::default();
    let mut one_way = histogram();
    let (mut first, mut last, mut cpu_at_first) = (None, Instant::now(), 0);
    while arrivals.expected < spec.count {
        let now = Cell::new(0);
        let came = link.poll(|message| {
            let Some((number, due_ns)) = read(message) else { return };
            arrivals.take(number);
            if number.is_multiple_of(TIMED) {
                if now.get() == 0 {
                    now.set(now_ns());
                }
                one_way.saturating_record(now.get().saturating_sub(due_ns).max(1));
            }
        })?;
        if came > 0 {
            last = Instant::now();
            if first.is_none() {
                (first, cpu_at_first) = (Some(last), cpu_ns());
            }
            continue;
        }
        link.wait(spec.idle)?;
        match first {
            Some(_) if last.elapsed() > SILENCE => break,
            None if last.elapsed() > FIRST => return Err(broken("no message arrived")),
            _ => {}
        }
    }
    Ok(Found {
        received: arrivals.received,
        out_of_order: arrivals.out_of_order,
        elapsed_ns: first.map_or(0, |first| last.duration_since(first).as_nanos() as u64),
        cpu_ns: cpu_ns() - cpu_at_first,
        latency_ns: buckets(&one_way),
        ..Found::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::WorkerKind;
    use clap::Parser;
    use std::collections::VecDeque;

    /// A link to itself with room for a few messages, which hands them over at every second poll.
    #[derive(Default)]
    struct Loop {
        queue: VecDeque<Vec<u8>>,
        polls: u32,
        received: Vec<u64>,
    }

    const ROOM: usize = 10;

    impl Link for Loop {
        fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
            if self.queue.len() == ROOM {
                return Ok(false);
            }
            self.queue.push_back(message.to_vec());
            Ok(true)
        }

        fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
            self.polls += 1;
            if !self.polls.is_multiple_of(2) {
                return Ok(0);
            }
            let count = self.queue.len();
            for message in self.queue.drain(..) {
                self.received.push(read(&message).expect("it is stamped").0);
                on_message(&message);
            }
            Ok(count)
        }
    }

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        common: crate::Common,
    }

    fn spec(count: u64) -> Spec {
        Spec::new(&Cli::parse_from(["test"]).common, WorkerKind::Publisher, count)
    }

    #[test]
    fn a_refused_message_is_sent_later_and_counted_once() {
        let mut link = Loop::default();
        let found = publish(&spec(35), &mut link).expect("it is sent");
        assert_eq!((found.sent, found.refused), (35, 3), "at 10, 20 and 30");
        let sent: Vec<u64> = link.queue.iter().map(|message| read(message).expect("it is stamped").0).collect();
        assert_eq!([link.received, sent].concat(), (0..35).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_offered_at_a_rate_takes_its_time() {
        let spec = Spec { offered_per_s: Some(10_000), ..spec(101) };
        let found = publish(&spec, &mut Loop::default()).expect("it is sent");
        assert!(found.elapsed_ns >= 10_000_000, "the last is due after 10 ms: {found:?}");
        assert_eq!(found.sent, 101);
    }

    #[test]
    fn a_receiver_counts_what_is_late() {
        let mut link = Loop::default();
        for number in [0u64, 2, 1, 3] {
            let mut message = vec![0; 64];
            stamp(&mut message, number, 0);
            link.queue.push_back(message);
        }
        let found = receive(&spec(4), &mut link).expect("all arrive");
        assert_eq!((found.received, found.out_of_order), (4, 1));
    }
}
