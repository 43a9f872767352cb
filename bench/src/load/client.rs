//! The near end of `load`: sends messages when they are due, and times the replies from then.
//!
//! All that is due is sent before the next poll, so that a client that was held up offers at once what it owes, as a
//! host would that receives orders from elsewhere. A message that the system refuses is offered again, and its time
//! runs. What is still unsent when its iteration's time is over counts as not sent: the rate was missed.

use crate::message::{Arrivals, read, stamp};
use crate::row::{buckets, histogram};
use crate::schedule::{Iteration, Schedule, Shape};
use crate::script::now_ns;
use crate::worker::{Found, Spec, cpu_ns};
use crate::{Failure, Idle, Link, Stage, broken};
use hdrhistogram::Histogram;

/// Messages sent between two polls at most: a client that owes more must receive in between.
const AT_ONCE: u64 = 1_024;
/// How long after the last message a reply may come (Aeron's own rule).
const REPLY_PATIENCE_NS: u64 = 3_000_000_000;

/// Plays the client: the warm-up, then the iterations.
pub(crate) fn client(spec: &Spec, link: &mut impl Link) -> Result<Found, Failure> {
    let shape = spec.load.ok_or_else(|| broken("a client got no load"))?;
    let mut client = Client {
        link,
        idle: spec.idle,
        message: vec![7; spec.size_bytes as usize],
        next: 0,
        refused: 0,
        refused_until: 0,
        arrivals: Arrivals::default(),
    };
    client.link.enter(Stage::WarmUp)?;
    client.offer(shape.warm_up(), shape.warm_up_ns, |_, _| {})?;
    client.link.enter(Stage::Measured)?;
    let (warm_up, refused, out_of_order) = (client.arrivals.received, client.refused, client.arrivals.out_of_order);
    let (first, due) = (client.next, shape.measured().within(shape.measured_ns()));
    let mut times = Times::new(&shape);
    let (begun_ns, cpu_before) = (now_ns(), cpu_ns());
    client.offer(shape.measured(), shape.measured_ns(), |number, rtt_ns| {
        if number >= first {
            times.record(number - first, rtt_ns);
        }
    })?;
    let (sent, received) = (client.next - first, client.arrivals.received - warm_up);
    Ok(Found {
        due,
        sent,
        refused: client.refused - refused,
        received,
        lost: sent.saturating_sub(times.all.len()),
        out_of_order: client.arrivals.out_of_order - out_of_order,
        elapsed_ns: (now_ns() - begun_ns).min(shape.measured_ns()),
        cpu_ns: cpu_ns() - cpu_before,
        latency_ns: buckets(&times.all),
        iterations: times.iterations(),
        node: client.link.enter(Stage::Done)?.map(Box::new),
        ..Found::default()
    })
}

struct Client<'a, L> {
    link: &'a mut L,
    idle: Idle,
    message: Vec<u8>,
    /// The number of the next message.
    next: u64,
    refused: u64,
    /// The number after the last message that was counted as refused.
    refused_until: u64,
    arrivals: Arrivals,
}

impl<L: Link> Client<'_, L> {
    /// Sends by a schedule for a while, then waits for the replies that are missing. Each reply is reported with its
    /// message's number and its time from when that message was due.
    fn offer(
        &mut self,
        schedule: Schedule,
        duration_ns: u64,
        mut on_reply: impl FnMut(u64, u64),
    ) -> Result<(), Failure> {
        let (first, begun_ns) = (self.next, now_ns());
        let end = first + schedule.within(duration_ns);
        let mut now = begun_ns;
        while self.next < end && now < begun_ns + duration_ns {
            let (before, due) = (self.next, first + schedule.due(now - begun_ns));
            let until = due.min(end).min(before + AT_ONCE);
            while self.next < until {
                stamp(&mut self.message, self.next, begun_ns + schedule.time_ns(self.next - first));
                if !self.link.try_send(&self.message)? {
                    self.refused += u64::from(self.next >= self.refused_until);
                    self.refused_until = self.next + 1;
                    break;
                }
                self.next += 1;
            }
            if self.next > before {
                self.link.flush()?;
            }
            self.receive(&mut on_reply)?;
            now = now_ns();
        }
        let deadline_ns = now + REPLY_PATIENCE_NS;
        while self.arrivals.received < self.next && now_ns() < deadline_ns {
            self.receive(&mut on_reply)?;
        }
        Ok(())
    }

    fn receive(&mut self, on_reply: &mut impl FnMut(u64, u64)) -> Result<(), Failure> {
        let arrivals = &mut self.arrivals;
        let came = self.link.poll(|reply| {
            if let Some((number, due_ns)) = read(reply) {
                arrivals.take(number);
                on_reply(number, now_ns().saturating_sub(due_ns));
            }
        })?;
        // A client that sleeps sends late, so it may only give its core away.
        if came == 0 && self.idle != Idle::Spin {
            self.link.wait(Idle::Yield)?;
        }
        Ok(())
    }
}

/// The times of the replies, all and by iteration.
struct Times {
    all: Histogram<u64>,
    by_iteration: Vec<Histogram<u64>>,
    per_iteration: u64,
}

impl Times {
    fn new(shape: &Shape) -> Self {
        Self {
            all: histogram(),
            by_iteration: (0..shape.iterations).map(|_| histogram()).collect(),
            per_iteration: shape.measured().within(shape.iteration_ns).max(1),
        }
    }

    /// Records the reply to the measured message of this index.
    fn record(&mut self, index: u64, rtt_ns: u64) {
        self.all.saturating_record(rtt_ns);
        let last = self.by_iteration.len() - 1;
        let iteration = usize::try_from(index / self.per_iteration).map_or(last, |iteration| iteration.min(last));
        self.by_iteration[iteration].saturating_record(rtt_ns);
    }

    fn iterations(&self) -> Vec<Iteration> {
        let iteration = |times: &Histogram<u64>| Iteration {
            count: times.len(),
            p50: times.value_at_quantile(0.5),
            p99: times.value_at_quantile(0.99),
            max: times.max(),
        };
        self.by_iteration.iter().map(iteration).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const BURST: u64 = 5;

    /// An echo that holds everything up for a while after the first burst, and loses a message.
    #[derive(Default)]
    struct Holding {
        queue: VecDeque<Vec<u8>>,
        held_ns: u64,
        first_ns: Option<u64>,
        loses: Option<u64>,
    }

    impl Holding {
        fn holds(&self) -> bool {
            self.first_ns.is_some_and(|first_ns| now_ns() < first_ns + self.held_ns)
        }
    }

    impl Link for Holding {
        fn try_send(&mut self, message: &[u8]) -> Result<bool, Failure> {
            let number = read(message).expect("it is stamped").0;
            if number >= BURST && self.holds() {
                return Ok(false);
            }
            self.first_ns.get_or_insert_with(now_ns);
            if self.loses != Some(number) {
                self.queue.push_back(message.to_vec());
            }
            Ok(true)
        }

        fn poll(&mut self, mut on_message: impl FnMut(&[u8])) -> Result<usize, Failure> {
            if self.holds() {
                return Ok(0);
            }
            let count = self.queue.len();
            self.queue.drain(..).for_each(|message| on_message(&message));
            Ok(count)
        }
    }

    /// Offers 500 messages in 500 ms, in bursts of 5; returns the times of those sent.
    fn times(link: &mut Holding) -> Vec<Option<u64>> {
        let mut client = Client {
            link,
            idle: Idle::Spin,
            message: vec![0; 64],
            next: 0,
            refused: 0,
            refused_until: 0,
            arrivals: Arrivals::default(),
        };
        let mut times = vec![None; 500];
        let schedule = Schedule { rate_per_s: 1_000, burst: BURST };
        let outcome = client.offer(schedule, 500_000_000, |number, rtt_ns| times[number as usize] = Some(rtt_ns));
        outcome.expect("the link works");
        times.truncate(client.next as usize);
        times
    }

    #[test]
    fn a_stall_counts_for_every_message_that_was_due_in_it() {
        let times = times(&mut Holding { held_ns: 20_000_000, ..Holding::default() });
        // Messages 0 to 4 are due at the beginning, 5 to 9 five milliseconds later, and so on.
        for (index, held_ns) in [(0, 20_000_000), (4, 20_000_000), (5, 15_000_000), (14, 10_000_000)] {
            assert!(times[index] >= Some(held_ns), "{index}: {times:?}");
        }
    }

    #[test]
    fn a_lost_reply_is_missed() {
        let times = times(&mut Holding { loses: Some(7), ..Holding::default() });
        let missing: Vec<_> = times.iter().enumerate().filter(|(_, time)| time.is_none()).collect();
        assert_eq!(missing, [(7, &None)]);
    }
}
