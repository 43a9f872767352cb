//! Which plots the rows of a report allow.
//!
//! Rows are compared in one plot only if they measured the same: the same subcommand, size, rate, flow and observers.
//! What differs within a plot is the system, and it names the line.

use super::plot::{Axis, Plot, Scale, Series, number};
use serde_json::Value;
use std::collections::BTreeMap;

/// All plots of the rows.
pub(super) fn plots(rows: &[&Value]) -> Vec<Plot> {
    let mut plots = goodput(rows);
    plots.extend(percentiles(rows));
    plots.extend(iterations(rows));
    plots
}

pub(super) fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or("-").to_owned()
}

/// A rate with its unit.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        1e6.. => format!("{} M/s", number(rate / 1e6)),
        1e4.. => format!("{} k/s", number(rate / 1e3)),
        _ => format!("{}/s", number(rate)),
    }
}

/// The settings in which rows of one plot must agree, in words.
fn conditions(row: &Value) -> String {
    let settings = &row["settings"];
    let mut words = Vec::new();
    if let Some(size) = row["size"].as_u64() {
        words.push(format!("{size} B"));
    }
    if let Some(rate) = settings["rate"].as_f64() {
        words.push(format!("{} in bursts of {}", per_second(rate), settings["burst"].as_u64().unwrap_or(1)));
    }
    if let Some(observers) = settings["observers"].as_u64() {
        words.push(format!("{observers} observers"));
    }
    if let Some(flow) = settings["flow"].as_str().filter(|_| row["what"] == "fanout") {
        words.push(format!("flow {flow}"));
    }
    words.join(", ")
}

/// Which times the row has: of round trips or of one way.
fn times(row: &Value) -> Option<(&'static str, &Value)> {
    let kinds = [
        ("round trip", &row["rtt_ns"]),
        ("one way", &row["one_way_ns"]),
        ("publish to ack", &row["publish_to_ack_ns"]),
    ];
    kinds.into_iter().find(|(_, times)| times.is_object())
}

/// The rows by what they have in common, in the order of that name.
fn grouped<'a>(rows: &[&'a Value], name: impl Fn(&Value) -> Option<String>) -> BTreeMap<String, Vec<&'a Value>> {
    let mut groups: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for row in rows {
        if let Some(name) = name(row) {
            groups.entry(name).or_default().push(row);
        }
    }
    groups
}

/// The system of a row, and what else names its line; a result that was refused is marked.
fn line_name(row: &Value) -> String {
    let mut name = text(row, "system");
    if let Some(offered) = row["settings"]["offered_per_s"].as_f64() {
        name.push_str(&format!(", {} offered", per_second(offered)));
    }
    if row["valid"] == false {
        name.push_str(" (refused as a result)");
    }
    name
}

/// One plot of percentiles for each group.
fn percentiles(rows: &[&Value]) -> Vec<Plot> {
    let has_times = |row: &Value| row["percentiles"].as_array().is_some_and(|points| !points.is_empty());
    let groups = grouped(rows, |row| {
        let (kind, _) = times(row).filter(|_| has_times(row))?;
        Some(format!("{}, {kind}: {}", text(row, "what"), conditions(row)))
    });
    let plot = |(title, rows): (String, Vec<&Value>)| {
        let kind = rows.first().and_then(|row| times(row)).map_or("", |(kind, _)| kind);
        Plot {
            about: format!(
                "Time ({kind}) at each percentile, all rounds of a system in one line; where messages are due at a \
                 rate, from when a message was due. Lower is better; the right end is the slowest message."
            ),
            title,
            x: Axis { label: "percentile".into(), scale: Scale::Percentile, includes: None },
            y: Axis { label: format!("{kind}, µs"), scale: Scale::Log, includes: None },
            series: rows.iter().map(|row| percentile_line(row)).collect(),
        }
    };
    groups.into_iter().map(plot).collect()
}

fn percentile_line(row: &Value) -> Series {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for pair in row["percentiles"].as_array().into_iter().flatten() {
        let (Some(percentile), Some(ns)) = (pair[0].as_f64(), pair[1].as_f64()) else { continue };
        // The slowest message has no place on this axis: it follows the last one that has.
        let after_last = points.last().map_or(1.0, |(inverse, _)| 2.0 * inverse);
        let inverse = if percentile < 100.0 { 100.0 / (100.0 - percentile) } else { after_last };
        points.push((inverse, ns / 1e3));
    }
    Series { name: line_name(row), points, marked: false }
}

/// What arrives over what is offered.
fn goodput(rows: &[&Value]) -> Vec<Plot> {
    let offered = |row: &Value| row["settings"]["offered_per_s"].as_f64();
    let groups = grouped(rows, |row| {
        let observers = row["settings"]["observers"].as_u64()?;
        offered(row).map(|_| format!("goodput: {} B to {observers} observers", row["size"]))
    });
    let mut plots = Vec::new();
    for (title, rows) in groups {
        let lines =
            grouped(&rows, |row| Some(format!("{}, flow {}", text(row, "system"), text(&row["settings"], "flow"))));
        let mut series: Vec<Series> = Vec::new();
        for (name, rows) in lines {
            let mut points: Vec<(f64, f64)> =
                rows.iter().filter_map(|row| Some((offered(row)? / 1e6, row["rate_per_s"].as_f64()? / 1e6))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            series.push(Series { name, points, marked: true });
        }
        let best = series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max);
        let ideal = vec![(0.0, 0.0), (best, best)];
        series.push(Series { name: "all that is offered arrives".into(), points: ideal, marked: false });
        plots.push(Plot {
            title,
            about: "Messages a second that the slowest observer received, over the messages a second that were due at \
                    the publisher. A system that is stable under overload stays level to the right."
                .into(),
            x: Axis { label: "offered, million messages/s".into(), scale: Scale::Linear, includes: Some(0.0) },
            y: Axis { label: "received, million messages/s".into(), scale: Scale::Linear, includes: Some(0.0) },
            series,
        });
    }
    plots
}

/// The iterations of a load, one after the other.
fn iterations(rows: &[&Value]) -> Vec<Plot> {
    let has = |row: &Value| row["iterations"].as_array().is_some_and(|iterations| !iterations.is_empty());
    let groups = grouped(rows, |row| {
        has(row).then(|| format!("{}, iteration by iteration: {}", text(row, "what"), conditions(row)))
    });
    let line = |row: &Value, key: &str| {
        let iterations = row["iterations"].as_array().into_iter().flatten().enumerate();
        let points = iterations.filter_map(|(index, found)| Some((index as f64 + 1.0, found[key].as_f64()? / 1e3)));
        Series { name: format!("{} {key}", line_name(row)), points: points.collect(), marked: true }
    };
    let plot = |(title, rows): (String, Vec<&Value>)| Plot {
        title,
        about: "Median and 99th percentile of the round trips that were due in each iteration, the rounds one after \
                the other. A system that slows down, or stalls once, shows here."
            .into(),
        x: Axis { label: "iteration".into(), scale: Scale::Linear, includes: Some(1.0) },
        y: Axis { label: "round trip, µs".into(), scale: Scale::Log, includes: None },
        series: rows.iter().flat_map(|row| ["p50", "p99"].map(|key| line(row, key))).collect(),
    };
    groups.into_iter().map(plot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn load(system: &str, rate: u64) -> Value {
        json!({
            "what": "load", "system": system, "size": 64, "count": 1000,
            "rtt_ns": { "p50": 9000 }, "percentiles": [[0.0, 8000], [50.0, 9000], [100.0, 90000]],
            "iterations": [{ "p50": 9000, "p99": 12000 }], "settings": { "rate": rate, "burst": 1 },
        })
    }

    #[test]
    fn systems_share_a_plot_and_rates_do_not() {
        let rows = [load("bourdon", 10_000), load("aeron", 10_000), load("bourdon", 100_000)];
        let plots = plots(&rows.iter().collect::<Vec<_>>());
        let lines: Vec<usize> = plots.iter().map(|plot| plot.series.len()).collect();
        assert_eq!(lines, [2, 1, 4, 2], "percentiles, then iterations with two lines each: {plots:?}");
        let points = &plots[0].series[0].points;
        assert_eq!([points[0].0, points[1].0, points[2].0], [1.0, 2.0, 4.0], "the slowest comes last");
    }

    #[test]
    fn goodput_has_a_line_for_each_flow_and_one_for_the_ideal() {
        let fanout = |flow: &str, offered: u64, rate: u64| {
            json!({
                "what": "fanout", "system": "bourdon", "size": 64, "rate_per_s": rate,
                "settings": { "flow": flow, "offered_per_s": offered, "observers": 3 },
            })
        };
        let rows = [fanout("free", 4_000_000, 800_000), fanout("free", 1_000_000, 1_000_000), fanout("paced", 1, 1)];
        let plots = plots(&rows.iter().collect::<Vec<_>>());
        assert_eq!(plots.len(), 1);
        let names: Vec<&str> = plots[0].series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["bourdon, flow free", "bourdon, flow paced", "all that is offered arrives"]);
        assert_eq!(plots[0].series[0].points, [(1.0, 1.0), (4.0, 0.8)]);
    }
}
