//! The loop that publishes: at most so many messages in flight, each timed from its publish to its acknowledgement.
//!
//! Invariant: every message of a phase is acknowledged before the next phase begins.

use crate::message::{Arrivals, read, stamp};
use crate::row::{buckets, histogram};
use crate::script::now_ns;
use crate::worker::{Found, Spec, WorkerReport, report};
use crate::{Failure, Link, broken};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Messages published between two polls of the link: a few full segmentation runs.
const BURST: u64 = 4_096;
/// An acknowledgement later than this will not come: longer than any stall of a loaded host and its disk.
const SILENCE: Duration = Duration::from_secs(30);
/// One part in this many of a phase is not recorded.
const WARM_UP_SHARE: u64 = 10;

/// What a process of a durable measurement does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub(crate) rank: u16,
    /// Where it stores: a name in a new folder on a disk.
    pub directory: PathBuf,
    /// Whether a peer syncs before it acknowledges, which is not its default.
    pub synced: bool,
    pub(crate) phases: Vec<Phase>,
    pub(crate) duration_ns: u64,
}

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) size_bytes: u32,
    /// The most messages that are published and not acknowledged.
    pub(crate) in_flight: u64,
}

/// Plays all phases over a link that gives each message back once it is acknowledged, and reports the figures of each.
pub(crate) fn publish(spec: &Spec, link: &mut impl Link) -> Result<(), Failure> {
    let task = spec.durable_task()?;
    for phase in &task.phases {
        report(&WorkerReport::Found(play(spec, task, *phase, link)?));
    }
    Ok(())
}

fn play(spec: &Spec, task: &Task, phase: Phase, link: &mut impl Link) -> Result<Found, Failure> {
    let mut message = vec![7; phase.size_bytes as usize];
    let (mut times, mut arrivals) = (histogram(), Arrivals::default());
    let begun_ns = now_ns();
    let warm_until = (spec.count / WARM_UP_SHARE, begun_ns + task.duration_ns / WARM_UP_SHARE);
    let (mut sent, mut ended, mut last) = (0, false, Instant::now());
    let (mut warm, mut last_ns) = (None, 0); // how many were acknowledged at the end of the warm-up, and when it was
    while !ended || arrivals.received < sent {
        let before = sent;
        let until = arrivals.received.saturating_add(phase.in_flight).min(sent + BURST).min(spec.count);
        ended |= sent == spec.count || now_ns() >= begun_ns + task.duration_ns;
        while !ended && sent < until {
            stamp(&mut message, sent, now_ns());
            if !link.try_send(&message)? {
                break;
            }
            sent += 1;
        }
        if sent > before {
            link.flush()?;
        }
        let came = link.poll(|acknowledged| {
            let Some((number, sent_ns)) = read(acknowledged) else { return };
            arrivals.take(number);
            if warm.is_some() {
                last_ns = now_ns();
                times.saturating_record(last_ns.saturating_sub(sent_ns).max(1));
            }
        })?;
        if came > 0 {
            last = Instant::now();
        } else if last.elapsed() > SILENCE {
            return Err(broken(format!("no acknowledgement of message {} came", arrivals.received)));
        } else if sent == before {
            link.wait(spec.idle)?;
        }
        if warm.is_none() && (arrivals.received >= warm_until.0 || now_ns() >= warm_until.1) {
            warm = Some(now_ns());
        }
    }
    Ok(Found {
        sent,
        received: times.len(),
        out_of_order: arrivals.out_of_order,
        elapsed_ns: last_ns.saturating_sub(warm.unwrap_or(begun_ns)),
        latency_ns: buckets(&times),
        ..Found::default()
    })
}
