//! One way, at full speed: member 0 publishes in total order, member 1 checks every message.
//!
//! The rate is the receiver's: messages delivered over the time from the first to the last. Every message carries its
//! number, so a lost or misplaced message is detected. The raw peer sends datagrams of the same length, packed and
//! offloaded in the same way, with no numbering, order, retransmission or flow control: what it loses is not sent
//! again, and its rate is what arrived.

use crate::join::join;
use crate::row::{Ratio, Row, show};
use crate::worker::transport_name;
use crate::worker::{FarEnd, Found, Spec, WorkerKind, WorkerReport, cpu_ns, pin, report};
use crate::{Failure, Mode, Peer, Settings, raw};
use bourdon::settings::{FlowMode, Role};
use bourdon::{Counter, Refusal, TopicId};
use std::time::{Duration, Instant};

const TOPIC: TopicId = TopicId(1);
/// Messages published between two polls of the network: a few full segmentation runs.
const BURST: u64 = 4_096;
/// How long after the last message the far end may take to report its figures.
const PATIENCE: Duration = Duration::from_secs(30);

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

/// A publisher that is silent for this long is gone: longer than any stall of a loaded host.
const PUBLISHER_LOST: Duration = Duration::from_secs(5);

/// The far end: delivers `count` messages and checks that each is the next.
pub(crate) fn sink(spec: &Spec) -> Result<(), Failure> {
    let observer = spec.role == WorkerKind::Observer;
    let mut node = if observer { join(spec, Role::Observer, 0)? } else { join(spec, Role::Member, 1)? };
    if observer {
        report(&WorkerReport::Ready);
    }
    let clock = *node.clock();
    let (mut expected, mut received, mut out_of_order) = (0u64, 0u64, 0u64);
    let mut one_way = crate::row::histogram();
    let (mut first, mut last) = (None, Instant::now());
    let cpu_before = cpu_ns();
    let mut cpu_at_first = cpu_before;
    while expected < spec.count {
        let wall_ns = std::cell::Cell::new(0);
        let work = node
            .poll(|message| {
                let number = u64::from_le_bytes(message.payload[..8].try_into().expect("8 bytes"));
                out_of_order += u64::from(number < expected); // a later one means that an observer gave some up
                // Every 64th message is timed: enough to see the distribution, too few to change it.
                if number.is_multiple_of(64) {
                    if wall_ns.get() == 0 {
                        wall_ns.set(clock.wall_ns());
                    }
                    one_way.saturating_record(wall_ns.get().saturating_sub(message.send_time_ns).max(1));
                }
                (expected, received) = (number + 1, received + 1);
            })
            .map_err(broken)?;
        if expected > 0 && work > 0 {
            last = Instant::now();
            if first.is_none() {
                (first, cpu_at_first) = (Some(last), cpu_ns());
            }
        }
        if work == 0 {
            node.wait(Duration::from_millis(20)).map_err(broken)?;
        }
        if expected > 0 && last.elapsed() > PUBLISHER_LOST {
            return Err(broken("the publisher fell silent"));
        }
    }
    let elapsed_ns = first.map_or(0, |first| last.duration_since(first).as_nanos() as u64);
    report(&WorkerReport::Found(Found {
        received,
        out_of_order,
        elapsed_ns,
        cpu_ns: cpu_ns() - cpu_at_first,
        one_way_ns: one_way.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
        ..Found::default()
    }));
    // Other processes may still need this process's messages.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        node.poll(|_| {}).map_err(broken)?;
        node.wait(Duration::from_millis(20)).map_err(broken)?;
    }
    Ok(())
}

/// The figures of one round.
pub(crate) struct Round {
    pub(crate) sent: u64,
    pub(crate) found: Vec<Found>,
    pub(crate) publisher_cpu_ns: u64,
}

impl Round {
    /// Messages a second that the slowest receiver delivered.
    pub(crate) fn rate(&self) -> f64 {
        let rate = |found: &Found| found.received as f64 * 1e9 / found.elapsed_ns.max(1) as f64;
        self.found.iter().map(rate).fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.found.iter().map(|found| self.sent.saturating_sub(found.received)).sum()
    }
}

/// Publishes `count` messages and collects the far ends' figures.
pub(crate) fn publish(spec: &Spec, mut far: Vec<FarEnd>) -> Result<Round, Failure> {
    for end in far.iter_mut().filter(|_| spec.role == WorkerKind::Sink) {
        end.wait_until_ready()?;
    }
    let mut node = join(spec, Role::Member, 0)?;
    if spec.role == WorkerKind::Observer {
        // No member hears observers: they report themselves that they have heard this member.
        for end in &mut far {
            let (ready, listening) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(move || ready.send(end.wait_until_ready()));
                loop {
                    match listening.try_recv() {
                        Ok(outcome) => return outcome,
                        Err(_) => drop(node.poll(|_| {}).map_err(broken)?),
                    }
                }
            })?;
        }
    }
    // Publishing begins once every observer that asks is waited for.
    let gates = if spec.flow == FlowMode::Gating && spec.role == WorkerKind::Observer { far.len() as u64 } else { 0 };
    let began = Instant::now();
    while node.process().counters().get(Counter::GatingObservers) < gates {
        node.poll(|_| {}).map_err(broken)?;
        if began.elapsed() > PATIENCE {
            return Err(broken("an observer did not ask to be waited for"));
        }
    }
    let cpu_before = cpu_ns();
    let mut payload = vec![7; spec.size_bytes as usize];
    let mut next = 0u64;
    while next < spec.count {
        let burst_end = (next + BURST).min(spec.count);
        while next < burst_end {
            payload[..8].copy_from_slice(&next.to_le_bytes());
            match node.try_publish(TOPIC, &payload) {
                Ok(_) => next += 1,
                Err(Refusal::Window | Refusal::Forming) => break,
                Err(refusal) => return Err(broken(refusal)),
            }
        }
        if node.poll(|_| {}).map_err(broken)? == 0 {
            node.wait(Duration::from_millis(1)).map_err(broken)?;
        }
    }
    let publisher_cpu_ns = cpu_ns() - cpu_before;
    let (sender, findings) = std::sync::mpsc::channel();
    let ends = far.len();
    for mut end in far {
        let sender = sender.clone();
        std::thread::spawn(move || sender.send(end.found()));
    }
    // Keep serving retransmissions and acknowledgements until all are done.
    let (mut found, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while found.len() < ends {
        if let Ok(finding) = findings.try_recv() {
            found.push(finding?);
        }
        if node.poll(|_| {}).map_err(broken)? == 0 {
            node.wait(Duration::from_millis(1)).map_err(broken)?;
        }
        if Instant::now() > deadline {
            return Err(broken("a receiver did not get everything within 30 s"));
        }
    }
    Ok(Round { sent: spec.count, found, publisher_cpu_ns })
}

fn bourdon_round(settings: &Settings, count: u64) -> Result<Round, Failure> {
    let spec = Spec::new(settings, WorkerKind::Sink, count);
    let far = FarEnd::start(&spec)?;
    publish(&spec, vec![far])
}

fn raw_round(settings: &Settings, count: u64) -> Result<Round, Failure> {
    let spec = Spec::new(settings, WorkerKind::RawSink, count);
    let mut far = FarEnd::start(&spec)?;
    far.wait_until_ready()?;
    let cpu_before = cpu_ns();
    let sent = raw::flood(&spec)?;
    let publisher_cpu_ns = cpu_ns() - cpu_before;
    Ok(Round { sent, found: vec![far.found()?], publisher_cpu_ns })
}

/// Measures throughput and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    if settings.mode == Mode::Threaded {
        return Err(Failure::Unusable("throughput is measured inline; leave out --mode".into()));
    }
    pin(0);
    let count = settings.count.unwrap_or(if settings.no_offload { 2_000_000 } else { 20_000_000 });
    let beside_raw = settings.measures(Peer::Raw)?;
    let (mut bourdon, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        if beside_raw {
            raw.push(raw_round(settings, count)?);
        }
        bourdon.push(bourdon_round(settings, count)?);
    }
    let spec = Spec::new(settings, WorkerKind::Sink, count);
    let mut rows = vec![row(settings, "throughput", "bourdon", &bourdon, spec.settings("inline"))];
    let mut ratios = Vec::new();
    if beside_raw {
        let how =
            serde_json::json!({ "interface": "lo", "offload": spec.offload, "datagram_bytes": raw::DATAGRAM_BYTES });
        rows.push(row(settings, "throughput", "raw-packed", &raw, how));
        let rounds = bourdon.iter().zip(&raw).map(|(ours, floor)| ours.rate() / floor.rate()).collect();
        ratios.push(Ratio { what: "rate over raw".into(), rounds });
    }
    show(settings, &rows, &ratios)
}

/// A row over rounds: the median rate, everything that was lost.
pub(crate) fn row(settings: &Settings, what: &str, system: &str, rounds: &[Round], how: serde_json::Value) -> Row {
    let mut rates: Vec<f64> = rounds.iter().map(Round::rate).collect();
    rates.sort_by(f64::total_cmp);
    let found = || rounds.iter().flat_map(|round| &round.found);
    let mut one_way = crate::row::histogram();
    for (value, count) in found().flat_map(|found| &found.one_way_ns) {
        one_way.saturating_record_n(*value, *count);
    }
    let received: u64 = found().map(|found| found.received).sum();
    let cpu_ns: u64 =
        rounds.iter().map(|round| round.publisher_cpu_ns).sum::<u64>() + found().map(|found| found.cpu_ns).sum::<u64>();
    Row {
        what: what.into(),
        system: system.into(),
        transport: transport_name(settings),
        size_bytes: settings.size,
        count: received,
        lost: Some(rounds.iter().map(Round::lost).sum()),
        out_of_order: (system == "bourdon").then(|| found().map(|found| found.out_of_order).sum()),
        rate_per_s: rates.get(rates.len() / 2).map(|rate| *rate as u64),
        latency: Some((crate::row::Latency::OneWay, one_way)),
        cpu_ns_per_message: Some(cpu_ns / received.max(1)),
        settings: how,
    }
}
