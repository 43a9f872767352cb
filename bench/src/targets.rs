//! All promises in one run: met or not met.
//!
//! A promise that is checked by hand is checked once. So each is a line of a table (`targets/table.rs`) with the
//! command that measures it; this module runs the commands, as a user would, and reads the deciding figure from their
//! JSON. What can't be measured here (no root, no peer) is skipped, with the reason the command gave; a peer that
//! crashed or a result that was refused decides nothing in Bourdon's favour: the promise is not met.

mod table;

use crate::{Failure, machine};
use clap::Args;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use table::{Bound, Figure, PROMISES, Promise};

/// What to measure
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Only the promises whose names contain one of these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Few rounds and messages: shows that everything runs, and decides nothing
    #[arg(long)]
    quick: bool,
    /// List the promises and their commands, and measure nothing
    #[arg(long)]
    list: bool,
    /// One JSON object on stdout instead of lines
    #[arg(long)]
    json: bool,
}

/// What came of a promise.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Measured {
        figure: f64,
        spread: Option<(f64, f64)>,
        met: bool,
    },
    /// What was run failed, or its result was refused.
    Failed(String),
    /// It can't be measured here.
    Skipped(String),
}

/// What a command printed, or why it did not.
#[derive(Clone, Debug)]
enum Output {
    Json(Value),
    Failed(String),
    Unusable(String),
}

impl Promise {
    fn arguments(&self, quick: bool) -> Vec<&'static str> {
        [self.command, if quick { self.quick } else { self.full }].concat()
    }

    fn verdict(&self, output: &Output) -> Verdict {
        let document = match output {
            Output::Json(document) => document,
            Output::Failed(why) => return Verdict::Failed(why.clone()),
            Output::Unusable(why) => return Verdict::Skipped(why.clone()),
        };
        if let Some(why) = errors(document, |system| system == "bourdon") {
            return Verdict::Failed(why);
        }
        let figures = match self.figure {
            Figure::Ratio(name) => ratios(document, name),
            Figure::Row { keys, pointer } => numbers(document, keys, pointer),
            Figure::Lost => vec![lost(document)],
            Figure::FailedRuns(_) => vec![(document["failed"].as_f64().unwrap_or(f64::INFINITY), None)],
        };
        let worse = |a: &Spread, b: &Spread| match self.bound {
            Bound::AtMost(_) => a.0.total_cmp(&b.0),
            Bound::AtLeast(_) => b.0.total_cmp(&a.0),
        };
        match figures.into_iter().max_by(worse) {
            Some((figure, spread)) => Verdict::Measured { figure, spread, met: self.bound.holds(figure) },
            None => Verdict::Failed(errors(document, |_| true).unwrap_or("the command gave no such figure".to_owned())),
        }
    }
}

impl Figure {
    fn unit(self) -> &'static str {
        match self {
            Self::Ratio(_) => "ratio",
            Self::Row { pointer, .. } if pointer.contains("_ns/") => "ns",
            Self::Row { .. } | Self::Lost | Self::FailedRuns(_) => "count",
        }
    }
}

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }

    fn value(self) -> f64 {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => bound,
        }
    }
}

fn array<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

/// A figure, and the least and most of its rounds.
type Spread = (f64, Option<(f64, f64)>);

/// The ratios whose names begin so; a full name takes only itself. A ratio without rounds has no figure.
fn ratios(document: &Value, name: &str) -> Vec<Spread> {
    let begins = |ratio: &&Value| ratio["what"].as_str().is_some_and(|what| what.starts_with(name));
    let mut named: Vec<&Value> = array(document, "ratios").filter(begins).collect();
    if named.iter().any(|ratio| ratio["what"] == name) {
        named.retain(|ratio| ratio["what"] == name);
    }
    let spread = |ratio: &Value| Some((ratio["min"].as_f64()?, ratio["max"].as_f64()?));
    named.iter().filter_map(|ratio| Some((ratio["median"].as_f64()?, Some(spread(ratio)?)))).collect()
}

fn numbers(document: &Value, keys: &[(&str, &str)], pointer: &str) -> Vec<Spread> {
    let matching = array(document, "rows").filter(|row| keys.iter().all(|(key, value)| row[*key] == **value));
    matching.filter_map(|row| Some((row.pointer(pointer)?.as_f64()?, None))).collect()
}

fn lost(document: &Value) -> Spread {
    let checked = array(document, "rows").filter(|row| !row["system"].as_str().unwrap_or("raw").starts_with("raw"));
    let count = |row: &Value| row["lost"].as_u64().unwrap_or(0) + row["out_of_order"].as_u64().unwrap_or(0);
    (checked.map(count).sum::<u64>() as f64, None)
}

/// Why rows of these systems are no result.
fn errors(document: &Value, of: impl Fn(&str) -> bool) -> Option<String> {
    let rows = array(document, "rows").filter(|row| row["system"].as_str().is_some_and(&of));
    let errors: Vec<&str> = rows.filter_map(|row| row["error"].as_str()).collect();
    (!errors.is_empty()).then(|| errors.join("; "))
}

/// The program of this name beside this one.
fn program(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name(name);
    path.is_file().then_some(path).ok_or_else(|| {
        format!("{name} is not beside {}: build it with `cargo build --release -p bourdon-cli`", own.display())
    })
}

/// Runs a command once and reads what it printed.
fn run_once(arguments: &[&str]) -> Output {
    let path = match program(arguments[0]) {
        Ok(path) => path,
        Err(why) => return Output::Unusable(why),
    };
    let output = match Command::new(path).args(&arguments[1..]).arg("--json").output() {
        Ok(output) => output,
        Err(error) => return Output::Unusable(format!("can't start {}: {error}", arguments[0])),
    };
    let talk = String::from_utf8_lossy(&output.stderr);
    let last = talk.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason").to_owned();
    match output.status.code() {
        Some(0) => match serde_json::from_slice(&output.stdout) {
            Ok(document) => Output::Json(document),
            Err(error) => Output::Failed(format!("its output is no JSON: {error}")),
        },
        Some(2) => Output::Unusable(reason(&talk).unwrap_or(last)),
        _ => Output::Failed(last),
    }
}

/// The first line that names an error: clap prints the usage after it.
fn reason(talk: &str) -> Option<String> {
    talk.lines()
        .find_map(|line| line.strip_prefix("error: ").or(line.strip_prefix("bourdon-bench: ")))
        .map(str::to_owned)
}

/// Runs a promise's command, as often as it must.
fn measure(promise: &Promise, quick: bool) -> Output {
    let arguments = promise.arguments(quick);
    let Figure::FailedRuns(runs) = promise.figure else { return run_once(&arguments) };
    let runs = if quick { runs.min(3) } else { runs };
    let (mut failed, mut reasons) = (0, Vec::new());
    for _ in 0..runs {
        match run_once(&arguments) {
            Output::Json(_) => {}
            Output::Failed(why) => {
                failed += 1;
                reasons.push(why);
            }
            unusable => return unusable,
        }
    }
    reasons.dedup();
    reasons.iter().for_each(|why| eprintln!("{}: {why}", promise.name));
    Output::Json(json!({ "failed": failed, "runs": runs }))
}

/// Measures the promises and prints the verdicts.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let wanted = |promise: &&Promise| {
        settings.only.is_empty() || settings.only.iter().any(|name| promise.name.contains(name.as_str()))
    };
    let promises: Vec<&Promise> = PROMISES.iter().filter(wanted).collect();
    if promises.is_empty() {
        let only = settings.only.join(", ");
        return Err(Failure::Unusable(format!("no promise's name contains {only}; --list prints them all")));
    }
    let mut outputs: HashMap<Vec<&str>, Output> = HashMap::new();
    let (mut rows, mut not_met) = (Vec::new(), 0);
    for promise in promises {
        let arguments = promise.arguments(settings.quick);
        if settings.list {
            println!("{:<26} {}\n{:<26} {}", promise.name, promise.text, "", arguments.join(" "));
            continue;
        }
        if !outputs.contains_key(&arguments) {
            eprintln!("{} --json", arguments.join(" "));
            outputs.insert(arguments.clone(), measure(promise, settings.quick));
        }
        let verdict = promise.verdict(&outputs[&arguments]);
        not_met += u32::from(matches!(verdict, Verdict::Measured { met: false, .. } | Verdict::Failed(_)));
        if settings.json {
            rows.push(row(promise, &verdict, &arguments));
        } else {
            println!("{}", line(promise, &verdict));
        }
    }
    if settings.json && !settings.list {
        println!("{}", json!({ "rows": rows, "quick": settings.quick, "machine": machine::describe() }));
    }
    if settings.quick && !settings.list {
        eprintln!("a quick run has few rounds and messages: it shows that everything runs, and decides nothing");
    }
    match not_met {
        1.. if !settings.json => Err(Failure::Broken(format!("{not_met} promises are not met"))),
        _ => Ok(()),
    }
}

fn row(promise: &Promise, verdict: &Verdict, arguments: &[&str]) -> Value {
    let mut row = json!({
        "what": promise.name,
        "system": "bourdon",
        "target": promise.text,
        "bound": promise.bound.value(),
        "unit": promise.figure.unit(),
        "measured": null,
        "ratio": null,
        "spread": null,
        "met": null,
        "skipped": null,
        "error": null,
        "command": arguments.join(" "),
    });
    match verdict {
        Verdict::Measured { figure, spread, met } => {
            row["measured"] = json!(figure);
            row["met"] = (*met).into();
            if promise.figure.unit() == "ratio" {
                row["ratio"] = json!(figure);
                row["spread"] = json!(spread.map(|(least, most)| [least, most]));
            }
        }
        Verdict::Failed(why) => {
            row["met"] = false.into();
            row["error"] = why.clone().into();
        }
        Verdict::Skipped(why) => row["skipped"] = why.clone().into(),
    }
    row
}

/// A figure in the unit of its bound: times are read in milliseconds.
fn shown(promise: &Promise, figure: f64) -> String {
    match promise.figure.unit() {
        "ratio" => format!("{figure:.3}×"),
        "ns" => format!("{:.2} ms", figure / 1e6),
        _ => format!("{figure}"),
    }
}

fn line(promise: &Promise, verdict: &Verdict) -> String {
    let (word, found) = match verdict {
        Verdict::Measured { figure, spread, met } => {
            let spread = spread.map_or_else(String::new, |(least, most)| format!(" [{least:.3}..{most:.3}]"));
            (if *met { "met" } else { "not met" }, format!("{}{spread}", shown(promise, *figure)))
        }
        Verdict::Failed(why) => ("not met", format!("no figure: {why}")),
        Verdict::Skipped(why) => ("skipped", why.clone()),
    };
    format!("{word:<8} {:<26} {}: {found}", promise.name, promise.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(figure: Figure, bound: Bound) -> Promise {
        Promise { figure, bound, ..PROMISES[0] }
    }

    fn verdict(figure: Figure, bound: Bound, document: Value) -> Verdict {
        promise(figure, bound).verdict(&Output::Json(document))
    }

    #[test]
    fn the_worst_of_several_figures_decides() {
        let document = json!({ "ratios": [
            { "what": "goodput at 1 x", "median": 0.95, "min": 0.9, "max": 1.0 },
            { "what": "goodput at 4 x", "median": 0.5, "min": 0.4, "max": 0.6 },
            { "what": "other", "median": 0.1, "min": 0.1, "max": 0.1 },
        ]});
        let expected = Verdict::Measured { figure: 0.5, spread: Some((0.4, 0.6)), met: false };
        assert_eq!(verdict(Figure::Ratio("goodput at"), Bound::AtLeast(0.9), document.clone()), expected);
        let expected = Verdict::Measured { figure: 0.95, spread: Some((0.9, 1.0)), met: true };
        assert_eq!(verdict(Figure::Ratio("goodput at"), Bound::AtMost(1.0), document.clone()), expected);
        let exact = verdict(Figure::Ratio("goodput at 1 x"), Bound::AtLeast(0.9), document);
        assert!(matches!(exact, Verdict::Measured { met: true, .. }), "a full name takes no other: {exact:?}");
    }

    #[test]
    fn a_result_that_was_refused_is_no_win() {
        let document = json!({
            "rows": [{ "system": "aeron", "error": "aeron's client crashed (signal 11) before it was done" }],
            "ratios": [{ "what": "load rtt p50 over aeron", "median": null, "min": null, "max": null }],
        });
        let found = verdict(Figure::Ratio("load rtt p50 over aeron"), Bound::AtMost(1.0), document);
        assert!(matches!(&found, Verdict::Failed(why) if why.contains("crashed")), "{found:?}");
    }

    #[test]
    fn a_round_of_bourdon_that_was_refused_decides_against_it() {
        let document = json!({
            "rows": [{ "system": "bourdon", "error": "bourdon: 1 of 10 replies did not come" }],
            "ratios": [{ "what": "load rtt p50 over aeron", "median": 0.5, "min": 0.5, "max": 0.5 }],
        });
        let found = verdict(Figure::Ratio("load rtt p50 over aeron"), Bound::AtMost(1.0), document);
        assert!(matches!(&found, Verdict::Failed(why) if why.contains("did not come")), "{found:?}");
    }

    #[test]
    fn losses_count_except_those_of_raw_sockets() {
        let rows = json!([
            { "system": "bourdon", "lost": 1, "out_of_order": 2 },
            { "system": "raw-packed", "lost": 9, "out_of_order": null },
        ]);
        let found = verdict(Figure::Lost, Bound::AtMost(0.0), json!({ "rows": rows }));
        assert_eq!(found, Verdict::Measured { figure: 3.0, spread: None, met: false });
    }

    #[test]
    fn what_cannot_run_here_is_skipped() {
        let output = Output::Unusable("run this as root".into());
        assert_eq!(PROMISES[0].verdict(&output), Verdict::Skipped("run this as root".into()));
    }
}
