//! Lays out the page: the comparison first, then plots, all figures, and how they were measured.

use super::figures::{per_second, plots, text};
use super::input::Source;
use super::plot::{Plot, escape, number};
use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");

/// The page of these files.
pub(super) fn html(sources: &[Source]) -> String {
    let rows: Vec<&Value> = sources.iter().flat_map(|source| &source.rows).collect();
    let (promises, rows): (Vec<&Value>, Vec<&Value>) = rows.into_iter().partition(|row| row.get("target").is_some());
    let names: Vec<String> = sources.iter().map(|source| format!("<code>{}</code>", escape(&source.name))).collect();
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Bourdon: measurements</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Bourdon: measurements</h1>\n\
         <p>From {}. Systems were measured in turn, so ratios of one run can be trusted more than times.</p>\n",
        names.join(", ")
    );
    html.push_str(&verdicts(&promises, sources.iter().any(|source| source.is_quick)));
    html.push_str(&comparison(sources));
    plots(&rows).iter().for_each(|plot| html.push_str(&figure(plot)));
    html.push_str(&figures_table(&rows));
    html.push_str(&machines(sources));
    html.push_str(&all_settings(&rows));
    html.push_str("</body>\n</html>\n");
    html
}

fn section(html: &mut String, title: &str, about: &str) {
    let _ = writeln!(html, "<h2>{}</h2>\n<p>{}</p>", escape(title), escape(about));
}

/// A table; cells are HTML already.
fn table(html: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let head: String = head.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    let _ = writeln!(html, "<div class=\"wide\"><table>\n<tr>{head}</tr>");
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(html, "<tr>{cells}</tr>");
    }
    html.push_str("</table></div>\n");
}

fn figure(plot: &Plot) -> String {
    let svg = plot.svg();
    if svg.is_empty() {
        return String::new();
    }
    let (title, about, legend) = (escape(&plot.title), escape(&plot.about), plot.legend());
    format!("<h2>{title}</h2>\n<p>{about}</p>\n<figure>\n{svg}{legend}</figure>\n")
}

/// The promises, met or not; what a quick run measured decides none.
fn verdicts(rows: &[&Value], is_quick: bool) -> String {
    let mut html = String::new();
    if rows.is_empty() {
        return html;
    }
    let met = rows.iter().filter(|row| row["met"] == true).count();
    let skipped = rows.iter().filter(|row| row["met"].is_null()).count();
    let mut about = format!("{met} of {} promises are met; {skipped} could not be measured.", rows.len());
    if is_quick {
        about = format!(
            "A quick run decides nothing: it has few rounds and messages, and shows only that everything runs. By its \
             figures {met} of {} promises would be met; {skipped} could not be measured.",
            rows.len()
        );
    }
    section(&mut html, "Promises", &about);
    let cells = |row: &&Value| {
        let (class, word) = match row["met"].as_bool() {
            Some(_) if is_quick => ("", "undecided"),
            Some(true) => ("good", "met"),
            Some(false) => ("bad", "not met"),
            None => ("", "skipped"),
        };
        let figure = row["ratio"].as_f64().map(|ratio| format!("{} ×", number(ratio)));
        let measured = row["measured"].as_f64().map(|measured| match row["unit"].as_str() {
            Some("ns") => format!("{} ms", number(measured / 1e6)),
            _ => number(measured),
        });
        let figure = figure.or(measured);
        let spread = row["spread"].as_array().map(|spread| {
            let ends: Vec<String> = spread.iter().filter_map(Value::as_f64).map(number).collect();
            format!(" [{}]", ends.join(" … "))
        });
        let why = ["skipped", "error"].iter().find_map(|key| row[*key].as_str()).unwrap_or_default();
        vec![
            format!("<span class=\"{class}\">{word}</span>"),
            escape(&text(row, "what")),
            escape(&text(row, "target")),
            format!("{}{}{}", figure.unwrap_or_default(), spread.unwrap_or_default(), escape(why)),
        ]
    };
    table(&mut html, &["", "name", "promise", "measured"], &rows.iter().map(cells).collect::<Vec<_>>());
    html
}

/// The ratios of the files.
fn comparison(sources: &[Source]) -> String {
    let mut html = String::new();
    let mut rows = Vec::new();
    for source in sources {
        for ratio in &source.ratios {
            let figure = |key: &str| ratio[key].as_f64();
            let (Some(median), Some(least), Some(most)) = (figure("median"), figure("min"), figure("max")) else {
                continue;
            };
            rows.push(vec![
                escape(&text(ratio, "what")),
                format!("<b>{} ×</b>", number(median)),
                format!("{} … {}", number(least), number(most)),
                ratio["rounds"].as_array().map_or(0, Vec::len).to_string(),
                range(least, median, most),
                escape(&source.name),
            ]);
        }
    }
    if rows.is_empty() {
        return html;
    }
    let about = "Bourdon's figure over another system's, or over its own best, round by round: the median, and the \
                 least and most of the rounds. Below 1 is better for times, above 1 for rates. The line is from 1/100 \
                 to 100 times, 1 in the middle.";
    section(&mut html, "Ratios", about);
    table(&mut html, &["ratio", "median", "least … most", "rounds", "", "file"], &rows);
    html
}

/// A ratio with its spread on a logarithmic line from 1/100 to 100.
fn range(least: f64, median: f64, most: f64) -> String {
    let place = |ratio: f64| 80.0 + 38.0 * ratio.max(1e-9).log10().clamp(-2.0, 2.0);
    let (least, median, most) = (place(least), place(median), place(most));
    format!(
        "<svg class=\"range\" width=\"160\" height=\"16\" aria-hidden=\"true\">\
         <path class=\"grid\" d=\"M4 8H156M80 1V15\"/><path class=\"s s0\" d=\"M{least:.1} 8H{most:.1}\"/>\
         <circle class=\"m m0\" cx=\"{median:.1}\" cy=\"8\" r=\"4\"/></svg>"
    )
}

const HEAD: [&str; 14] = [
    "what",
    "system",
    "size",
    "conditions",
    "count",
    "lost",
    "out of order",
    "a second",
    "p50 µs",
    "p90",
    "p99",
    "p99.9",
    "max",
    "CPU ns",
];

/// The main figures of every row.
fn figures_table(rows: &[&Value]) -> String {
    let mut html = String::new();
    if rows.is_empty() {
        return html;
    }
    let about = "Every row of the files. Times are of round trips or of one way, in microseconds; CPU is the time of \
                 all processes for a message. A row that was refused missed its rate, or lost or reordered messages.";
    section(&mut html, "All figures", about);
    table(&mut html, &HEAD, &rows.iter().map(|row| cells(row)).collect::<Vec<_>>());
    html
}

fn cells(row: &Value) -> Vec<String> {
    let count = |key: &str| row[key].as_u64().map_or("-".to_owned(), |count| count.to_string());
    // Some subcommands call their times otherwise: the first object with a median is the row's time.
    let fields = || row.as_object().into_iter().flatten();
    let times = fields().find(|(_, value)| value["p50"].is_number()).map_or(&Value::Null, |(_, times)| times);
    let time = |key: &str| times[key].as_f64().map_or("-".to_owned(), |ns| number(ns / 1e3));
    let mut conditions: Vec<String> = ["algorithm", "fault", "detector", "profile"]
        .iter()
        .filter_map(|key| row[*key].as_str().map(str::to_owned))
        .collect();
    for (key, unit) in
        [("rate", "/s"), ("burst", " a burst"), ("observers", " observers"), ("offered_per_s", "/s offered")]
    {
        conditions.extend(row["settings"][key].as_u64().map(|value| format!("{value}{unit}")));
    }
    conditions.extend(row["settings"]["flow"].as_str().map(str::to_owned));
    let refused = row["error"].as_str().map(|why| format!("<span class=\"bad\">refused</span>: {}", escape(why)));
    let mut cells = vec![escape(&text(row, "what")), escape(&text(row, "system")), count("size")];
    cells.push([Some(escape(&conditions.join(", "))), refused].into_iter().flatten().collect::<Vec<_>>().join("<br>"));
    cells.extend(["count", "lost", "out_of_order"].map(count));
    cells.push(row["rate_per_s"].as_f64().map_or("-".to_owned(), per_second));
    cells.extend(["p50", "p90", "p99", "p999", "max"].map(time));
    cells.push(count("cpu_ns_per_message"));
    cells
}

/// The machines of the files, each once.
fn machines(sources: &[Source]) -> String {
    let mut html = String::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for source in sources {
        for (key, value) in source.machine.iter().filter_map(Value::as_object).flatten() {
            rows.push(vec![escape(&source.name), escape(&key.replace('_', " ")), escape(&plain(value))]);
        }
    }
    if !rows.is_empty() {
        section(&mut html, "Machine", "What each file was measured on, as the kernel reports it.");
        table(&mut html, &["file", "", ""], &rows);
    }
    html
}

/// A value without the marks of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The settings of every row, folded.
fn all_settings(rows: &[&Value]) -> String {
    let mut html = String::new();
    section(&mut html, "Settings", "How each row was measured.");
    for row in rows {
        let settings = row["settings"].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let cells: Vec<Vec<String>> =
            settings.map(|(key, value)| vec![escape(&key.replace('_', " ")), escape(&plain(value))]).collect();
        let (what, system, size) = (escape(&text(row, "what")), escape(&text(row, "system")), &row["size"]);
        let _ = writeln!(html, "<details><summary>{what}, {system}, {size} B</summary>");
        table(&mut html, &["setting", "value"], &cells);
        html.push_str("</details>\n");
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source() -> Source {
        Source {
            name: "a<b>.json".into(),
            rows: vec![
                json!({
                    "what": "load", "system": "bourdon", "size": 64, "count": 10, "lost": 0, "rate_per_s": 10000,
                    "rtt_ns": { "p50": 9000, "p99": 10000, "max": 20000 },
                    "percentiles": [[50.0, 9000], [100.0, 20000]],
                    "settings": { "rate": 10000, "burst": 1, "peer": null },
                    "error": null,
                }),
                json!({
                    "what": "rtt-p50-raw", "target": "at most 1", "measured": 2.0, "ratio": 2.0, "spread": [1.5, 2.5],
                    "met": false,
                }),
            ],
            ratios: vec![
                json!({ "what": "rtt p50 over raw", "median": 1.5, "min": 1.2, "max": 1.9, "rounds": [1.5, 1.2, 1.9] }),
            ],
            machine: Some(json!({ "cores": 2, "processor": "P & Q" })),
            is_quick: false,
        }
    }

    #[test]
    fn the_page_has_all_sections_and_needs_no_other_host() {
        let page = html(&[source()]);
        for part in
            ["Promises", "not met", "Ratios", "<b>1.5 ×</b>", "<svg", "All figures", "P &amp; Q", "a&lt;b&gt;.json"]
        {
            assert!(page.contains(part), "{part} is missing: {page}");
        }
        for foreign in ["http://", "https://", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn issue_a_quick_run_was_reported_as_if_it_decided_promises() {
        let promise = json!({ "what": "rtt-p50-raw", "target": "at most 1", "measured": 0.5, "met": true });
        let source = |is_quick| Source { rows: vec![promise.clone()], is_quick, ..Source::default() };
        let page = html(&[source(true)]);
        assert!(page.contains("A quick run decides nothing") && page.contains(">undecided<"), "{page}");
        assert!(!page.contains("1 of 1 promises are met") && !page.contains(">met<"), "{page}");
        assert!(html(&[source(false)]).contains("1 of 1 promises are met"));
    }

    #[test]
    fn a_file_with_little_gives_a_page() {
        let page = html(&[Source { rows: vec![json!({ "what": "phi" })], ..Source::default() }]);
        assert!(page.contains("phi") && page.ends_with("</html>\n"));
    }
}
