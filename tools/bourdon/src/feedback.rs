//! `bourdon sim --feedback`: the feedback that receivers send to one sender, for each way to send it.

use crate::exit::Failure;
use bourdon_sim::{FeedbackMode, FeedbackOutcome, FeedbackPlan, Loss, play_feedback};
use std::fmt::Write;

/// Two seconds' worth, at one message a millisecond.
const MESSAGES: u64 = 2_000;

/// Runs each mode under each kind of loss and prints the results beside each other.
pub(crate) fn run(observers: u32, loss_percent: f64, seed: u64, json: bool) -> Result<(), Failure> {
    if !(0.0..=20.0).contains(&loss_percent) {
        return Err(Failure::unusable(format!("--loss is {loss_percent}; it must be 0 to 20 (percent)")));
    }
    let loss_rate = loss_percent / 100.0;
    let plan = move |mode, loss, messages| FeedbackPlan { mode, loss, loss_rate, observers, messages, seed };
    let random = Loss::RANDOM.into_iter().flat_map(|loss| FeedbackMode::ALL.map(|mode| plan(mode, loss, MESSAGES)));
    let overload = FeedbackPlan { loss_rate: 0.0, ..plan(FeedbackMode::SuppressedNak, Loss::Overload, 5 * MESSAGES) };
    let plans = random.chain([overload]);
    let rows: Vec<_> = plans.map(|plan| (plan, play_feedback(&plan))).collect();
    crate::exit::print(&if json { objects(&rows) } else { table(&rows) })?;
    match rows.iter().filter(|(_, outcome)| !outcome.is_complete()).count() {
        0 => Ok(()),
        failed => Err(Failure::broken(format!("{failed} of {} runs lost messages and did not report it", rows.len()))),
    }
}

fn table(rows: &[(FeedbackPlan, FeedbackOutcome)]) -> String {
    let mut out = format!(
        "{:<12} {:<15} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>19} {:>8} {:>10} {:>10}\n",
        "loss",
        "mode",
        "messages/s",
        "feedback/s",
        "% of bytes",
        "naks/s",
        "reports/s",
        "repairs/s",
        "delivered of",
        "lost",
        "p50 us",
        "p99 us"
    );
    for (plan, outcome) in rows {
        let [published, feedback] = [outcome.published, outcome.feedback].map(|count| outcome.per_s(count));
        let [naks, reports, repairs] =
            [outcome.naks, outcome.reports, outcome.repairs].map(|count| outcome.per_s(count));
        let share = 100.0 * outcome.feedback_bytes as f64 / outcome.data_bytes.max(1) as f64;
        let [p50, p99] = [50, 99].map(|percent| {
            outcome.repair_percentile_ns(percent).map_or_else(|| "-".to_owned(), |ns| (ns / 1000).to_string())
        });
        let delivered = format!("{}/{}", outcome.delivered, outcome.expected);
        let (loss, mode, lost) = (plan.loss.name(), plan.mode.name(), outcome.reported_lost);
        let _ = writeln!(
            out,
            "{loss:<12} {mode:<15} {published:>10} {feedback:>10} {share:>10.2} {naks:>10} {reports:>10} {repairs:>9} \
                 {delivered:>19} {lost:>8} {p50:>10} {p99:>10}"
        );
    }
    out + "feedback: datagrams offered to the sender's socket, and their part of the data's bytes; p50, p99: from a \
         loss being seen to the message's delivery\n\
         overload: the links of five observers bear two of the five messages of 1,200 bytes that are offered a \
         millisecond; the publisher sends more slowly for them\n"
}

fn objects(rows: &[(FeedbackPlan, FeedbackOutcome)]) -> String {
    let row = |(plan, outcome): &(FeedbackPlan, FeedbackOutcome)| {
        serde_json::json!({
            "loss": plan.loss.name(),
            "mode": plan.mode.name(),
            "loss_ppm": (plan.loss_rate * 1e6).round() as u64,
            "observers": plan.observers,
            "seed": plan.seed,
            "elapsed_ns": outcome.elapsed_ns,
            "published": outcome.published,
            "published_per_s": outcome.per_s(outcome.published),
            "feedback": outcome.feedback,
            "feedback_per_s": outcome.per_s(outcome.feedback),
            "feedback_bytes": outcome.feedback_bytes,
            "report_bytes": outcome.report_bytes,
            "data_bytes": outcome.data_bytes,
            "naks": outcome.naks,
            "naks_per_s": outcome.per_s(outcome.naks),
            "reports": outcome.reports,
            "reports_per_s": outcome.per_s(outcome.reports),
            "repairs": outcome.repairs,
            "repairs_per_s": outcome.per_s(outcome.repairs),
            "delivered": outcome.delivered,
            "reported_lost": outcome.reported_lost,
            "expected": outcome.expected,
            "misplaced": outcome.misplaced,
            "repair_p50_ns": outcome.repair_percentile_ns(50),
            "repair_p99_ns": outcome.repair_percentile_ns(99),
        })
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    format!("{}\n", serde_json::json!({ "rows": rows }))
}
