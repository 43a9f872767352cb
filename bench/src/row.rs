//! The output of a measurement: rows, ratios, and the percentile file.

use crate::{Common, Failure, machine, report};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// Latencies are distinguished from 1 ns to this, to 3 digits.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// An empty histogram of latencies.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are valid")
}

/// What a histogram holds, as (latency, count) for each bucket: how a worker reports it.
pub(crate) fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

/// The histogram of these buckets.
pub(crate) fn histogram_of<'a>(buckets: impl IntoIterator<Item = &'a (u64, u64)>) -> Histogram<u64> {
    let mut all = histogram();
    buckets.into_iter().for_each(|(value, count)| all.saturating_record_n(*value, *count));
    all
}

/// The middle of some figures, if there are any.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// What a row's latencies are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latency {
    RoundTrip,
    OneWay,
    PublishToAck,
}

/// One system's figures.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) system: String,
    pub(crate) transport: String,
    pub(crate) size_bytes: u32,
    pub(crate) count: u64,
    pub(crate) lost: Option<u64>,
    pub(crate) out_of_order: Option<u64>,
    /// The median round's.
    pub(crate) rate_per_s: Option<u64>,
    pub(crate) latency: Option<(Latency, Histogram<u64>)>,
    pub(crate) cpu_ns_per_message: Option<u64>,
    pub(crate) settings: Value,
    /// What only rows of this measurement have.
    pub(crate) extra: Map<String, Value>,
}

/// Bourdon over a peer, round by round.
#[derive(Clone, Debug)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) rounds: Vec<f64>,
}

impl Ratio {
    pub(crate) fn sorted(&self) -> Vec<f64> {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds
    }

    pub(crate) fn object(&self) -> Value {
        let rounds = self.sorted();
        json!({
            "what": self.what,
            "median": rounds.get(rounds.len() / 2),
            "min": rounds.first(),
            "max": rounds.last(),
            "rounds": self.rounds,
        })
    }

    /// A line of it, if there were rounds.
    pub(crate) fn text(&self) -> Option<String> {
        let rounds = self.sorted();
        let (least, most) = (rounds.first()?, rounds.last()?);
        Some(format!("{}: {:.3}× [{least:.3}..{most:.3}]", self.what, rounds[rounds.len() / 2]))
    }
}

impl Row {
    pub(crate) fn object(&self) -> Value {
        let latency = |kind| match &self.latency {
            Some((is, histogram)) if *is == kind && !histogram.is_empty() => json!({
                "p50": histogram.value_at_quantile(0.5),
                "p90": histogram.value_at_quantile(0.9),
                "p99": histogram.value_at_quantile(0.99),
                "p999": histogram.value_at_quantile(0.999),
                "max": histogram.max(),
            }),
            _ => Value::Null,
        };
        let mut row = json!({
            "what": self.what,
            "system": self.system,
            "transport": self.transport,
            "size": self.size_bytes,
            "count": self.count,
            "lost": self.lost,
            "out_of_order": self.out_of_order,
            "rate_per_s": self.rate_per_s,
            "rtt_ns": latency(Latency::RoundTrip),
            "one_way_ns": latency(Latency::OneWay),
            "cpu_ns_per_message": self.cpu_ns_per_message,
            "settings": self.settings,
        });
        let to_ack = latency(Latency::PublishToAck);
        if !to_ack.is_null() {
            row["publish_to_ack_ns"] = to_ack;
        }
        if let Some((_, histogram)) = &self.latency {
            row["percentiles"] = percentiles(histogram);
        }
        self.extra.iter().for_each(|(key, value)| row[key] = value.clone());
        row
    }

    fn text(&self) -> String {
        let mut line = format!("{:<28} {:<15} {:>10}", self.what, self.system, self.count);
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let _ = write!(line, " {:>6} {:>12}", number(self.lost), number(self.rate_per_s));
        match &self.latency {
            Some((_, histogram)) if !histogram.is_empty() => {
                for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
                    let _ = write!(line, " {:>9.2}", histogram.value_at_quantile(q) as f64 / 1e3);
                }
            }
            _ => line.push_str(&format!(" {:>9}", "-").repeat(5)),
        }
        let _ = write!(line, " {:>7}", number(self.cpu_ns_per_message));
        line
    }
}

/// The distribution as (percentile, latency) pairs, denser towards the end.
fn percentiles(histogram: &Histogram<u64>) -> Value {
    let steps = histogram.iter_quantiles(5).filter(|_| !histogram.is_empty());
    steps.map(|step| json!([100.0 * step.quantile_iterated_to(), step.value_iterated_to()])).collect()
}

/// What a command with `--json` prints: the rows, the ratios, and the machine that they were measured on.
pub(crate) fn document(rows: &[Value], ratios: &[Ratio]) -> Value {
    let ratios: Vec<_> = ratios.iter().map(Ratio::object).collect();
    json!({ "rows": rows, "ratios": ratios, "machine": machine::describe() })
}

/// Prints the result on stdout and writes the requested files.
pub(crate) fn show(common: &Common, rows: &[Row], ratios: &[Ratio]) -> Result<(), Failure> {
    let objects: Vec<_> = rows.iter().map(Row::object).collect();
    if let Some(path) = &common.html {
        report::write_one(path, &document(&objects, ratios))?;
    }
    if common.json {
        println!("{}", document(&objects, ratios));
    } else {
        println!(
            "{:<28} {:<15} {:>10} {:>6} {:>12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}",
            "what", "system", "count", "lost", "per second", "p50 µs", "p90", "p99", "p99.9", "max", "cpu ns"
        );
        rows.iter().for_each(|row| println!("{}", row.text()));
        ratios.iter().filter_map(Ratio::text).for_each(|line| println!("{line}"));
    }
    let bourdon = rows.iter().filter(|row| row.system == "bourdon").find_map(|row| row.latency.as_ref());
    match (&common.hgrm, bourdon) {
        (Some(path), Some((_, histogram))) => write_hgrm(path, histogram),
        (Some(_), None) => {
            Err(Failure::Unusable("this measurement has no latencies to write: leave out --hgrm".into()))
        }
        (None, _) => Ok(()),
    }
}

/// Writes the percentile distribution in HdrHistogram's text format, in microseconds.
fn write_hgrm(path: &Path, histogram: &Histogram<u64>) -> Result<(), Failure> {
    std::fs::write(path, hgrm(histogram))
        .map_err(|error| Failure::Unusable(format!("can't write {}: {error}", path.display())))
}

fn hgrm(histogram: &Histogram<u64>) -> String {
    const NS_PER_US: f64 = 1_000.0;
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for step in histogram.iter_quantiles(5) {
        let (value, quantile) = (step.value_iterated_to() as f64 / NS_PER_US, step.quantile_iterated_to());
        let count = histogram.count_between(0, step.value_iterated_to());
        let _ = write!(text, "{value:>12.3} {quantile:>2.12} {count:>10}");
        let inverse = if quantile < 1.0 { format!(" {:>14.2}", 1.0 / (1.0 - quantile)) } else { String::new() };
        text.push_str(&inverse);
        text.push('\n');
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_US, histogram.stdev() / NS_PER_US);
    let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let (max, total) = (histogram.max() as f64 / NS_PER_US, histogram.len());
    let _ = writeln!(text, "#[Max     = {max:>12.3}, Total count    = {total:>12}]");
    let _ = writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", histogram.buckets(), 2048);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_file_has_its_four_columns_and_ends_at_one() {
        let mut latency = histogram();
        (1..=1000).for_each(|us| latency.record(us * 1_000).unwrap());
        let text = hgrm(&latency);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(rows[..rows.len() - 1].iter().all(|row| row.len() == 4), "{text}");
        let last = rows.last().unwrap();
        assert_eq!((last.len(), last[1], last[2]), (3, "1.000000000000", "1000"), "{text}");
    }
}
