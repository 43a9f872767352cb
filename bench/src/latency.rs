//! Round trips: member 0 publishes, member 1 answers, in total order, both spinning on their own core.
//!
//! Member 0 is the sequencer: its message is ordered by its position in its stream, the answer by an order run that is
//! sent with the next message. The figure is the time from publishing to the delivery of the answer. With `--rate`
//! round trips begin at even intervals and count from when they should have begun.

use crate::join::{PATIENCE, broken, join};
use crate::row::{Latency, Ratio, Row, histogram, show};
use crate::threaded::Threaded;
use crate::worker::{FarEnd, Spec, WorkerKind, pin};
use crate::{Failure, Mode, Peer, Settings, raw};
use bourdon::settings::Role;
use bourdon::{Rank, Refusal, TopicId};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

const TOPIC: TopicId = TopicId(1);
/// A spinning end looks at the clock only this often, so that looking costs nothing that can be measured.
const LOOK_EVERY: u32 = 64;

/// The far end: answers every message of member 0.
pub(crate) fn echo(spec: &Spec) -> Result<(), Failure> {
    let mut node = join(spec, Role::Member, 1)?;
    let mut answers: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut due = 0;
        let work = node.poll(|message| {
            if message.sender == Rank(0) {
                if answers.len() == due {
                    answers.push(Vec::new());
                }
                answers[due].clear();
                answers[due].extend_from_slice(message.payload);
                due += 1;
            }
        });
        let work = work.map_err(broken)?;
        for answer in &answers[..due] {
            while node.try_publish(TOPIC, answer).is_err() {
                node.poll_at_most(0, |_| {}).map_err(broken)?;
            }
        }
        if due > 0 {
            node.flush().map_err(broken)?;
        } else if work == 0 {
            node.wait(Duration::from_millis(50)).map_err(broken)?;
        }
    }
}

struct Round {
    histogram: Histogram<u64>,
    lost: u64,
}

impl Round {
    /// Makes `count` round trips after a tenth as many that do not count.
    fn run(
        settings: &Settings,
        count: u64,
        mut trip: impl FnMut(u64) -> Result<bool, Failure>,
    ) -> Result<Self, Failure> {
        let (mut round, warm_up) = (Self { histogram: histogram(), lost: 0 }, count / 10);
        let interval = settings.rate.map(|rate| Duration::from_nanos(1_000_000_000 / rate.max(1)));
        let began = Instant::now();
        for index in 0..count + warm_up {
            let start = match interval {
                None => Instant::now(),
                Some(interval) => {
                    let start = began + interval * index as u32;
                    while Instant::now() < start {
                        std::hint::spin_loop();
                    }
                    start
                }
            };
            let answered = trip(index)?;
            if index < warm_up {
                continue;
            }
            if answered {
                round.histogram.saturating_record(start.elapsed().as_nanos() as u64);
            } else {
                round.lost += 1;
            }
        }
        Ok(round)
    }
}

fn bourdon_round(settings: &Settings, count: u64) -> Result<Round, Failure> {
    let spec = Spec::new(settings, WorkerKind::Echo, count);
    let mut far = FarEnd::start(&spec)?;
    far.wait_until_ready()?;
    let mut node = join(&spec, Role::Member, 0)?;
    let mut payload = vec![0; settings.size as usize];
    Round::run(settings, count, |index| {
        payload[..8].copy_from_slice(&index.to_le_bytes());
        loop {
            match node.try_publish(TOPIC, &payload) {
                Ok(_) => break,
                Err(Refusal::Window | Refusal::Forming) => drop(node.poll(|_| {}).map_err(broken)?),
                Err(refusal) => return Err(broken(refusal)),
            }
        }
        node.flush().map_err(broken)?;
        let (mut answered, mut polls, began) = (false, 0u32, Instant::now());
        while !answered {
            let work = node
                .poll(|message| {
                    answered |= message.sender == Rank(1) && message.payload[..8] == index.to_le_bytes();
                })
                .map_err(broken)?;
            polls += 1;
            if work == 0 && polls.is_multiple_of(LOOK_EVERY) && began.elapsed() > PATIENCE {
                let what = if far.has_ended() { "the far end ended" } else { "no answer came for 5 s" };
                return Err(broken(what));
            }
            if work == 0 {
                node.wait(Duration::from_millis(50)).map_err(broken)?;
            }
        }
        Ok(true)
    })
}

fn threaded_round(settings: &Settings, count: u64) -> Result<Round, Failure> {
    let spec = Spec::new(settings, WorkerKind::ThreadedEcho, count);
    let mut far = FarEnd::start(&spec)?;
    far.wait_until_ready()?;
    let mut node = Threaded::start(&spec, 0)?;
    let mut payload = vec![0; settings.size as usize];
    Round::run(settings, count, |index| {
        payload[..8].copy_from_slice(&index.to_le_bytes());
        node.publish(&payload)?;
        let (mut answered, mut polls, began) = (false, 0u32, Instant::now());
        while !answered {
            node.receive(Rank(1), |answer| answered |= answer[..8] == index.to_le_bytes())?;
            polls += 1;
            if polls.is_multiple_of(LOOK_EVERY) && began.elapsed() > PATIENCE {
                return Err(broken("no answer came for 5 s"));
            }
        }
        Ok(true)
    })
}

fn raw_round(settings: &Settings, count: u64) -> Result<Round, Failure> {
    let spec = Spec::new(settings, WorkerKind::RawEcho, count);
    let mut pinger = raw::Pinger::new(&spec)?;
    let mut far = FarEnd::start(&spec)?;
    far.wait_until_ready()?;
    let payload = vec![7; settings.size as usize];
    Round::run(settings, count, |_| Ok(pinger.ping(&payload)))
}

/// Measures round trips and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let threaded = settings.mode == Mode::Threaded;
    if !threaded {
        pin(0);
    }
    let count = settings.count.unwrap_or(50_000);
    let beside_raw = settings.measures(Peer::Raw)?;
    let (mut bourdon, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        if beside_raw {
            raw.push(raw_round(settings, count)?);
        }
        bourdon.push(if threaded { threaded_round(settings, count)? } else { bourdon_round(settings, count)? });
    }
    let spec = Spec::new(settings, WorkerKind::Echo, count);
    let mut rows =
        vec![row(settings, "bourdon", &bourdon, spec.settings(if threaded { "threaded" } else { "inline" }))];
    let mut ratios = Vec::new();
    if beside_raw {
        rows.push(row(settings, "raw-spin", &raw, serde_json::json!({ "interface": "lo" })));
        for (name, q) in [("rtt p50 over raw", 0.5), ("rtt p99 over raw", 0.99)] {
            let at = |round: &Round| round.histogram.value_at_quantile(q) as f64;
            let rounds = bourdon.iter().zip(&raw).map(|(ours, floor)| at(ours) / at(floor)).collect();
            ratios.push(Ratio { what: name.into(), rounds });
        }
    }
    show(settings, &rows, &ratios)
}

fn row(settings: &Settings, system: &str, rounds: &[Round], how: serde_json::Value) -> Row {
    let mut all = histogram();
    rounds.iter().for_each(|round| all.add(&round.histogram).expect("the bounds are the same"));
    let mut p50: Vec<u64> = rounds.iter().map(|round| round.histogram.value_at_quantile(0.5)).collect();
    p50.sort_unstable();
    Row {
        what: "latency".into(),
        system: system.into(),
        transport: crate::worker::transport_name(settings),
        size_bytes: settings.size,
        count: all.len(),
        lost: Some(rounds.iter().map(|round| round.lost).sum()),
        out_of_order: Some(0), // an answer out of order is never taken for the one waited for
        rate_per_s: p50.get(p50.len() / 2).map(|ns| 1_000_000_000 / ns.max(&1)),
        latency: Some((Latency::RoundTrip, all)),
        cpu_ns_per_message: None, // both ends spin
        settings: how,
    }
}
