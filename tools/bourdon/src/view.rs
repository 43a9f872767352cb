//! `bourdon view`: the members of the group, as each node on this host sees them.
//!
//! If nodes of one group show different views for a long time, they disagree about which members are alive: the node
//! with the lower epoch is cut off, or has been removed and does not know it yet.

use crate::admin::{Which, ask, find};
use crate::exit::{Failure, print};
use serde_json::{Value, json};
use std::time::Duration;

/// A node answers between two rounds of its work.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    let nodes = find(&args.which)?;
    // All at once: nodes that are stopped are waited for together.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            nodes.iter().map(|node| scope.spawn(move || ask(node, "view", "view", ANSWER_MAX))).collect();
        asked.into_iter().map(|thread| thread.join().expect("asking does not panic")).collect()
    });
    for (node, answer) in nodes.iter().zip(answers) {
        let about = &node.description;
        let view = match answer {
            Ok(view) => view,
            Err(Failure::Broken(why) | Failure::Unusable(why)) => {
                failures.push(why);
                Value::Null
            }
        };
        rows.push(
            json!({ "group": about.group, "role": about.role, "rank": about.rank, "pid": node.pid, "view": view }),
        );
    }
    let shown = if args.json { format!("{}\n", json!({ "nodes": rows })) } else { rows.iter().map(text).collect() };
    print(&shown)?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::broken(failures.join("; "))) }
}

fn text(row: &Value) -> String {
    let rank = row["rank"].as_u64().map(|rank| format!(" {rank}")).unwrap_or_default();
    let (group, role, pid) = (row["group"].as_str().unwrap_or(""), row["role"].as_str().unwrap_or(""), &row["pid"]);
    let view = &row["view"];
    if view.is_null() {
        return format!("{group}: {role}{rank}, process {pid}: no answer\n");
    }
    let word = |key: &str, is: bool, word: &str| if view[key] == is { format!(", {word}") } else { String::new() };
    let mut out = format!(
        "{group}: {role}{rank}, process {pid}: view {}, {}, sequencer {}, barrier {}{}{}{}{}\n",
        view["epoch"],
        view["standing"].as_str().unwrap_or(""),
        view["sequencer"],
        view["phase"],
        word("formed", false, "still forming"),
        word("changing", true, "changing"),
        word("majority", false, "NO MAJORITY"),
        missing(view),
    );
    for member in view["members"].as_array().into_iter().flatten() {
        let what = match (member["in_view"] == true, member["suspected"] == true, member["heard"] == true) {
            (false, _, true) if view["standing"] == "forming" => "heard".to_owned(),
            (false, ..) if view["standing"] == "forming" => "not heard yet".to_owned(),
            (false, ..) => "not in the view".to_owned(),
            (true, true, _) => format!("SUSPECTED, level {}", member["suspicion"]),
            (true, false, false) => match member["silence_ns"].as_u64() {
                Some(ns) => format!("NOT HEARD for {} s", ns / 1_000_000_000),
                None => "not heard yet".to_owned(),
            },
            (true, false, true) => format!("suspicion {}", member["suspicion"]),
        };
        out += &format!("  member {:>2}  {what}\n", member["rank"]);
    }
    out
}

/// The configured members that the view lacks or, before the first view, that have not been heard.
fn missing(view: &Value) -> String {
    let ranks: Vec<_> = view["missing"].as_array().into_iter().flatten().map(Value::to_string).collect();
    let what = if view["standing"] == "forming" { "waits for members" } else { "missing members" };
    if ranks.is_empty() { String::new() } else { format!(", {what} {}", ranks.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_must_know_stands_out() {
        let member = |rank, in_view, suspected| {
            json!({
                "rank": rank, "in_view": in_view, "heard": rank < 3, "suspected": suspected, "suspicion": 1.5,
                "silence_ns": 4_500_000_000_u64,
            })
        };
        let row = json!({ "group": "g", "role": "member", "rank": 0, "pid": 7, "view": {
            "epoch": 3, "standing": "member", "formed": true, "changing": false, "majority": false, "sequencer": 0,
            "phase": 2, "missing": [2],
            "members": [member(0, true, false), member(1, true, true), member(2, false, false), member(3, true, false)],
        }});
        let text = text(&row);
        for part in [
            "view 3",
            "NO MAJORITY",
            "missing members 2",
            "1  SUSPECTED, level 1.5",
            "2  not in the view",
            "3  NOT HEARD for 4 s",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
