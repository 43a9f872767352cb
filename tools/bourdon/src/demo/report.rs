//! What a demo prints at its end: a table and a chart for people, one JSON object for scripts.

use super::link::LATENCY_MAX_NS;
use super::runner::{Outcome, Plan, Row};
use crate::exit::Failure;
use bourdon::settings::Role;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The names of the flags' values.
pub(crate) struct Names {
    pub(crate) order: String,
    pub(crate) reliability: String,
    pub(crate) transport: String,
    pub(crate) rate: String,
}

/// Prints the outcome on stdout.
pub(crate) fn show(plan: &Plan, names: &Names, outcome: &Outcome, as_json: bool) -> Result<(), Failure> {
    let shown = if as_json { format!("{}\n", object(plan, names, outcome)) } else { text(plan, names, outcome) };
    crate::exit::print(&shown)
}

fn latencies<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Histogram<u64> {
    let mut all = Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are valid");
    for (value, count) in rows.into_iter().filter_map(|row| row.tally.as_ref()).flat_map(|tally| &tally.latency_ns) {
        all.saturating_record_n(*value, *count);
    }
    all
}

fn object(plan: &Plan, names: &Names, outcome: &Outcome) -> Value {
    json!({
        "messages": outcome.messages,
        "order_agrees": outcome.order_agrees,
        "order": names.order,
        "reliability": names.reliability,
        "members": plan.settings.group.members,
        "observers": plan.observers,
        "publishers": plan.publishers,
        "transport": names.transport,
        "io": outcome.io,
        "rate": names.rate,
        "input_sha256": outcome.input_sha256,
        "links_broken": links_broken(outcome),
        "gaps_shortened": outcome.gaps_shortened,
        "wall_ns": outcome.wall_ns,
        "processes": outcome.rows.iter().map(row_object).collect::<Vec<_>>(),
        "failures": outcome.failures,
        "lost": lost(outcome).0,
        "verdict": verdict(names, outcome),
    })
}

/// The messages that processes did not deliver, and how many processes these are.
fn lost(outcome: &Outcome) -> (u64, usize) {
    let tallies = outcome.rows.iter().filter_map(|row| row.tally.as_ref());
    let lost = tallies.map(|tally| outcome.messages.saturating_sub(tally.delivered)).filter(|lost| *lost > 0);
    lost.fold((0, 0), |(sum, count), lost| (sum + lost, count + 1))
}

/// The outcome in one sentence.
fn verdict(names: &Names, outcome: &Outcome) -> String {
    let duration = duration(outcome.wall_ns);
    if !outcome.failures.is_empty() {
        return format!("FAILED after {duration}.");
    }
    match lost(outcome) {
        (0, _) => {
            let killed = outcome.rows.iter().any(|row| row.killed);
            let process = if killed { "Every process that lived" } else { "Every process" };
            let same = if outcome.order_agrees { "all in the same order" } else { "in each its own order" };
            format!("{process} delivered every message once, {same}, in {duration}.")
        }
        (lost, count) => {
            let (all, order) = (outcome.rows.len(), if outcome.order_agrees { "kept" } else { "not the same" });
            let reliability = &names.reliability;
            format!(
                "{lost} messages lost, at {count} of {all} processes, as {reliability} allows; order {order}; in \
                 {duration}."
            )
        }
    }
}

/// TCP connections that processes closed on purpose.
pub(super) fn links_broken(outcome: &Outcome) -> u64 {
    outcome.rows.iter().filter_map(|row| Some(row.tally.as_ref()?.links_broken)).sum()
}

fn row_object(row: &Row) -> Value {
    let latency = latencies([row]);
    let known = row.tally.as_ref();
    let percentile = |q| known.filter(|_| !latency.is_empty()).map(|_| latency.value_at_quantile(q));
    json!({
        "role": if row.role == Role::Member { "member" } else { "observer" },
        "rank": row.rank,
        "delivered": row.delivered,
        "gaps": known.map(|tally| tally.gaps),
        "duplicates": known.map(|tally| tally.duplicates),
        "payload_sha256": known.map(|tally| &tally.payload_sha256),
        "views": known.map(|tally| tally.views),
        "latency_ns": {
            "p50": percentile(0.5),
            "p99": percentile(0.99),
            "p999": percentile(0.999),
            "max": percentile(1.0),
        },
        "naks_sent": known.map(|tally| tally.naks_sent),
        "repairs_received": known.map(|tally| tally.repairs_received),
        "killed": row.killed,
        "restarted": known.is_some_and(|tally| tally.restarted),
    })
}

fn text(plan: &Plan, names: &Names, outcome: &Outcome) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&format!(
        "{} messages, {} members, {} observers, {} order, {}, rate {}, {} over {}",
        outcome.messages,
        plan.settings.group.members,
        plan.observers,
        names.order,
        names.reliability,
        names.rate,
        names.transport,
        outcome.io,
    ));
    if plan.break_links > 0 {
        line(&format!("{} connections closed", links_broken(outcome)));
    }
    if outcome.gaps_shortened > 0 {
        line(&format!("{} recorded gaps shortened to {} ms", outcome.gaps_shortened, plan.max_gap_ns / 1_000_000));
    }
    line("");
    line("process      delivered  gaps  twice  sha256    naks  repairs      p50      p99    p99.9      max");
    for row in &outcome.rows {
        let Some(tally) = &row.tally else {
            line(&format!(
                "{:<11} {:>10}  {}",
                row.name(),
                row.delivered,
                if row.killed { "killed" } else { "no answer" }
            ));
            continue;
        };
        let latency = latencies([row]);
        let at = |q| duration(latency.value_at_quantile(q));
        line(&format!(
            "{:<11} {:>10} {:>5} {:>6}  {:<8} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8}",
            row.name(),
            tally.delivered,
            tally.gaps,
            tally.duplicates,
            &tally.payload_sha256[..8],
            tally.naks_sent,
            tally.repairs_received,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
        ));
    }
    line("");
    line("Latency from intended send to delivery, all processes");
    chart(&latencies(&outcome.rows)).lines().for_each(&mut line);
    line("");
    line(&verdict(names, outcome));
    out
}

/// A bar chart of latencies, with three bars a decade.
fn chart(latency: &Histogram<u64>) -> String {
    const WIDTH: f64 = 60.0;
    if latency.is_empty() {
        return "  nothing was delivered\n".to_owned();
    }
    let edges = (2..=11).flat_map(|decade| [1u64, 2, 5].map(|step| step * 10u64.pow(decade)));
    let (mut bars, mut below) = (Vec::new(), 0);
    for edge in edges {
        let upto = latency.count_between(0, edge);
        bars.push((edge, upto - below));
        below = upto;
    }
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let first = bars.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    let last = bars.iter().rposition(|(_, count)| *count > 0).unwrap_or(0);
    let mut out = String::new();
    for (edge, count) in &bars[first..=last] {
        let eighths = (*count as f64 / most as f64 * WIDTH * 8.0).ceil() as usize;
        let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let share = 100.0 * *count as f64 / latency.len() as f64;
        out.push_str(&format!("  ≤ {:>8} {:>6.2} % {}{part}\n", duration(*edge), share, "█".repeat(eighths / 8)));
    }
    out
}

/// A duration in a unit that people read.
fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_shows_every_bucket_between_the_ends() {
        let mut latency = Histogram::<u64>::new(3).unwrap();
        latency.record_n(15_000, 90).unwrap();
        latency.record_n(1_500_000, 10).unwrap();
        let chart = chart(&latency);
        let lines: Vec<_> = chart.lines().collect();
        assert_eq!(lines.len(), 7, "{chart}");
        assert!(lines[0].contains("20.0 µs") && lines[0].contains("90.00 %"), "{chart}");
        assert!(lines[6].contains("2.0 ms") && lines[6].contains("10.00 %"), "{chart}");
    }
}
