//! `bourdon view`: the members of the group, as each node on this host sees them.
//!
//! If nodes of one group show different views for a long time, they disagree about which members are alive: the node
//! with the lower epoch is cut off, or has been removed and does not know it yet.

use crate::admin::{Which, ask, find};
use crate::exit::{Failure, print};
use crate::stat::last_seen;
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// A node answers between two rounds of its work; no wait is explained later than after 2 s.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

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
        let (view, last_seen) = match answer {
            Ok(view) => (view, None),
            Err(failure) => {
                failures.push(failure.into_why());
                (Value::Null, Some(last_seen(node)))
            }
        };
        rows.push(json!({
            "group": about.group, "role": about.role, "rank": about.rank, "pid": node.pid, "view": view,
            "last_seen": last_seen,
        }));
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
        let last_seen = row["last_seen"].as_str().unwrap_or("");
        return format!("{group}: {role}{rank}, process {pid}: NO ANSWER: {last_seen}\n");
    }
    let word = |key: &str, is: bool, word: &str| if view[key] == is { format!(", {word}") } else { String::new() };
    let mut out = format!(
        "{group}: {role}{rank}, process {pid}: {}, {}, sequencer {}, barrier {}{}{}{}\n",
        quorum(view),
        view["standing"].as_str().unwrap_or(""),
        view["sequencer"],
        view["phase"],
        word("formed", false, "still forming"),
        word("changing", true, "changing"),
        missing(view),
    );
    out += &advice(view, role, group);
    out += &storage(&view["storage"]);
    for member in view["members"].as_array().into_iter().flatten() {
        let at = member["address"].as_str().map(|address| format!(", at {address}")).unwrap_or_default();
        let by = member["reached_by"].as_str().map(|way| format!(" by {way}")).unwrap_or_default();
        out += &format!("  member {:>2}  {}{at}{by}\n", member["rank"], state(view, member));
    }
    out
}

/// What this member waits for of its disk, or has lost on it.
fn storage(storage: &Value) -> String {
    let waited = storage["waited_ns"].as_u64().unwrap_or(0) as f64 / 1e9;
    match (storage["full"] == true, waited >= 1.0, storage["damaged"].as_u64().unwrap_or(0)) {
        (true, ..) => format!("  this member waits for room on the disk of storage.directory ({waited:.1} s)\n"),
        (_, true, _) => format!("  this member waits for the disk of storage.directory ({waited:.1} s)\n"),
        (.., 0) => String::new(),
        (.., count) => {
            format!("  damaged storage of this member was set aside {count} times, in damaged-{count} last\n")
        }
    }
}

/// What to do about a node without a network, or a group that lacks a majority or does not form, in one line.
fn advice(view: &Value, role: &str, group: &str) -> String {
    let is_silent = |member: &&Value| member["in_view"] == true && member["heard"] != true;
    let silent = view["members"].as_array().into_iter().flatten().filter(is_silent);
    let silent: Vec<_> = silent.map(|member| member["rank"].to_string()).collect();
    let recover = format!("if they are gone for good: bourdon recover --force-majority {group}");
    if view["network_lost"] == true {
        "  the network interface of this node is gone, down, or without its address: mend that (`ip address`); the \
           node comes back by itself\n"
            .to_owned()
    } else if view["majority"] == false {
        let back = if silent.is_empty() {
            "a majority is heard again".to_owned()
        } else {
            format!("enough of members {} are back", silent.join(", "))
        };
        let what = if role == "member" { recover } else { format!("{recover}, beside a member") };
        format!("  no majority: the group takes no message until {back}; {what}\n")
    } else if view["standing"] == "forming" && view["configuration_differs"] == true {
        "  no view: processes that are configured otherwise are heard, and do not count: give all the same \
           configuration\n"
            .to_owned()
    } else if role == "member" && view["standing"] == "forming" && !missing(view).is_empty() {
        format!("  no view: the group forms once all members are heard; {recover}\n")
    } else {
        String::new()
    }
}

/// The view, how many of the configured members are in it, and whether they are a quorum.
fn quorum(view: &Value) -> String {
    let members = view["members"].as_array().map_or(&[][..], Vec::as_slice);
    let (count, all) = (members.iter().filter(|member| member["in_view"] == true).count(), members.len());
    let heard = members.iter().filter(|member| member["in_view"] == true && member["heard"] == true).count();
    let word = if view["majority"] == false { format!("{heard} heard, NO MAJORITY") } else { "quorate".to_owned() };
    let since = view["installed_ns"].as_u64().map(|ns| format!(" since {}", time(ns))).unwrap_or_default();
    if count == 0 {
        "view 0".to_owned()
    } else {
        format!("view {}{since}, {count} of {all} members, {word}", view["epoch"])
    }
}

fn state(view: &Value, member: &Value) -> String {
    let silence = || member["silence_ns"].as_u64().map(|ns| format!("{:.1} s", ns as f64 / 1e9));
    match (member["in_view"] == true, member["suspected"] == true, member["heard"] == true) {
        (false, _, true) if view["standing"] == "forming" => "heard".to_owned(),
        (false, ..) if view["standing"] == "forming" => "not heard yet".to_owned(),
        (false, ..) => match member["absent_since_ns"].as_u64() {
            Some(ns) => format!("not in the view since {}", time(ns)),
            None => "not in the view".to_owned(),
        },
        (true, true, _) => {
            let heard = silence().map(|silence| format!(", last heard {silence} ago")).unwrap_or_default();
            format!("SUSPECTED{heard}")
        }
        (true, false, false) => {
            silence().map_or("not heard yet".to_owned(), |silence| format!("NOT HEARD for {silence}"))
        }
        (true, false, true) => match member["suspicion"].as_f64() {
            Some(level) => format!("suspicion {level}"),
            None => "in the view".to_owned(),
        },
    }
}

/// A point in time, in UTC.
fn time(ns: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(ns)).to_string()
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
                "rank": rank, "address": "10.0.0.1:40000", "in_view": in_view, "heard": rank < 3,
                "suspected": suspected, "suspicion": 1.5, "silence_ns": 4_500_000_000_u64,
                "absent_since_ns": (rank == 2).then_some(1_700_000_000_000_000_000_u64),
            })
        };
        let mut row = json!({ "group": "g", "role": "member", "rank": 0, "pid": 7, "view": {
            "epoch": 3, "standing": "member", "formed": true, "changing": false, "majority": false, "sequencer": 0,
            "phase": 2, "missing": [2],
            "members": [member(0, true, false), member(1, true, true), member(2, false, false), member(3, true, false)],
        }});
        let text = text(&row);
        for part in [
            "view 3",
            "3 of 4 members, 2 heard, NO MAJORITY",
            "missing members 2",
            "1  SUSPECTED, last heard 4.5 s ago",
            "2  not in the view since 2023-11-14T22:13:20Z, at 10.0.0.1:40000",
            "3  NOT HEARD for 4.5 s",
            "bourdon recover",
        ] {
            assert!(text.contains(part), "{text}");
        }
        row["view"]["network_lost"] = true.into();
        let text = super::text(&row);
        assert!(text.contains("interface of this node is gone") && !text.contains("recover"), "{text}");
    }
}
