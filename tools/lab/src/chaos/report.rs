//! What a campaign counts, and its result.

use super::faults::Fault;
use super::processes::Usage;
use super::{Mode, Plan, WHOLE_WITHIN};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A process may grow by this many bytes of resident memory over a campaign.
const GROWTH_MAX_BYTES: u64 = 64 << 20;
/// A process may have this many descriptors more than another of its kind had at first.
const DESCRIPTORS_MAX: u64 = 128;
/// The most violations of one invariant in the report.
const REPORTED_MAX: usize = 200;

/// Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// The median.
    pub p50: Option<u64>,
    /// The 99th percentile.
    pub p99: Option<u64>,
    /// The maximum.
    pub max: Option<u64>,
}

/// The first and the last value of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Once the group was whole for the first time.
    pub first: u64,
    /// At the end.
    pub last: u64,
}

/// The outcome of a campaign.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The requested campaign.
    pub transport: String,
    /// See above.
    pub mode: Mode,
    /// See above.
    pub members: usize,
    /// See above.
    pub observers: usize,
    /// See above.
    pub clients: usize,
    /// See above.
    pub seed: u64,
    /// See above.
    pub loss_percent: u8,
    /// How often each kind of fault was injected.
    pub faults: BTreeMap<String, u64>,
    /// How often the whole group was started.
    pub generations: usize,
    /// The broken guarantees.
    pub violations: Vec<String>,
    /// Faults after which the group was not whole within 10 s.
    pub not_whole: Vec<String>,
    /// How long the group took to be whole again.
    pub whole_again_ns: Times,
    /// Messages delivered, over all processes.
    pub deliveries: usize,
    /// Members that were removed and started again although no fault had hit them.
    pub removed: u64,
    /// Recorded tokens.
    pub tokens: usize,
    /// Messages that the group acknowledged to clients.
    pub acknowledged: u64,
    /// Resident memory of all processes together.
    pub rss_bytes: Span,
    /// Descriptors of all processes together.
    pub descriptors: Span,
}

impl Report {
    /// Whether every guarantee was kept.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.not_whole.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    faults: BTreeMap<String, u64>,
    pub(super) violations: Vec<String>,
    not_whole: Vec<String>,
    whole_ns: Vec<u64>,
    pub(super) deliveries: usize,
    pub(super) acknowledged: u64,
    pub(super) tokens: usize,
    removed: u64,
    rss: Span,
    descriptors: Span,
    first: Vec<Usage>,
}

impl Tally {
    pub(super) fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault.name()).or_default() += 1;
    }

    pub(super) fn violation(&mut self, what: String) {
        if self.violations.len() < REPORTED_MAX && !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    pub(super) fn broken(&mut self, (broken, removed): (Vec<String>, u64)) {
        broken.into_iter().for_each(|what| self.violation(what));
        self.removed += removed;
    }

    pub(super) fn whole(&mut self, after: &str, took: Duration) {
        self.whole_ns.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if took > WHOLE_WITHIN {
            self.not_whole.push(format!("{after}: whole only after {} ms", took.as_millis()));
        }
    }

    pub(super) fn not_whole(&mut self, after: &str, state: &str) {
        self.not_whole.push(format!("{after}: never; {state}"));
    }

    pub(super) fn first_use(&mut self, usage: Vec<Usage>) {
        self.rss.first = usage.iter().map(|usage| usage.rss_bytes).sum();
        self.descriptors.first = usage.iter().map(|usage| usage.descriptors).sum();
        self.first = usage;
    }

    pub(super) fn last_use(&mut self, usage: &[Usage]) {
        self.rss.last = usage.iter().map(|usage| usage.rss_bytes).sum();
        self.descriptors.last = usage.iter().map(|usage| usage.descriptors).sum();
        for (first, last) in self.first.clone().iter().zip(usage) {
            if last.rss_bytes > first.rss_bytes + GROWTH_MAX_BYTES {
                let (from, to) = (first.rss_bytes >> 20, last.rss_bytes >> 20);
                self.violation(format!(
                    "memory: {} has more than {} MiB above {from}",
                    last.name,
                    (to - from) / 64 * 64
                ));
            }
            if last.descriptors > first.descriptors + DESCRIPTORS_MAX {
                self.violation(format!("descriptors: {} has {} above {DESCRIPTORS_MAX}", last.name, last.descriptors));
            }
        }
    }

    /// A summary of the campaign so far, for people.
    pub(super) fn progress(&self) -> String {
        format!(
            "{} faults, {} violations, {} not whole, {} removed by mistake, {} MiB, {} descriptors",
            self.faults.values().sum::<u64>(),
            self.violations.len(),
            self.not_whole.len(),
            self.removed,
            self.rss.last >> 20,
            self.descriptors.last
        )
    }

    pub(super) fn report(mut self, plan: &Plan, generations: usize) -> Report {
        self.whole_ns.sort_unstable();
        if plan.restarts.is_some() && self.removed > 0 {
            let removed = self.removed;
            self.violation(format!("{removed} members were removed although no fault had hit them"));
        }
        let quantile = |share: f64| {
            let place = (self.whole_ns.len() as f64 * share).ceil() as usize;
            self.whole_ns.get(place.saturating_sub(1)).copied()
        };
        Report {
            transport: plan.transport.clone(),
            mode: plan.mode,
            members: plan.members,
            observers: plan.observers,
            clients: plan.clients,
            seed: plan.seed,
            loss_percent: plan.loss,
            faults: self.faults,
            generations,
            violations: self.violations,
            not_whole: self.not_whole,
            whole_again_ns: Times { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1.0) },
            deliveries: self.deliveries,
            removed: self.removed,
            tokens: self.tokens,
            acknowledged: self.acknowledged,
            rss_bytes: self.rss,
            descriptors: self.descriptors,
        }
    }
}

/// For people.
pub fn text(report: &Report) -> String {
    let faults: Vec<_> = report.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let ms = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), |ns| (ns / 1_000_000).to_string());
    let times = report.whole_again_ns;
    let mut text = format!(
        "{} deliveries over {} in {} generations; {} messages of clients acknowledged\nfaults: {}\n\
         whole again after {} / {} / {} ms (p50, p99, max)\nmemory {} -> {} MiB, descriptors {} -> {}\n",
        report.deliveries,
        report.transport,
        report.generations,
        report.acknowledged,
        faults.join(", "),
        ms(times.p50),
        ms(times.p99),
        ms(times.max),
        report.rss_bytes.first >> 20,
        report.rss_bytes.last >> 20,
        report.descriptors.first,
        report.descriptors.last,
    );
    report.not_whole.iter().for_each(|what| text += &format!("not whole: {what}\n"));
    report.violations.iter().for_each(|what| text += &format!("violation: {what}\n"));
    text + if report.is_good() { "Every guarantee was kept.\n" } else { "BROKEN\n" }
}
