//! `bourdon elect NAME`: stands in an election of the group, or watches it, and prints the leader whenever it changes.
//!
//! The leadership lasts as long as this process, like a lock of `bourdon lock`: the process resigns when it ends,
//! however it ends.

use crate::exit::{Failure, note, print};
use crate::probe::LATE;
use crate::session::{At, NodeReply, Session, may_print, named, seconds, signals};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::time::{Duration, Instant};

/// How long after its end the node may take to answer for the first time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The election's name, like a topic's: words with dots between
    name: String,
    #[command(flatten)]
    at: At,
    /// Only watch
    #[arg(long, conflicts_with = "stand_by")]
    watch: bool,
    /// Stand, but let other candidates begin the first election
    #[arg(long)]
    stand_by: bool,
    /// End after this many seconds
    #[arg(long = "for", value_name = "S", value_parser = seconds)]
    limit: Option<Duration>,
    /// End with 0 once there is a leader, and so resign if it is this command: mostly with --watch; with --for, end
    /// with 1 if there is none in time
    #[arg(long)]
    until_leader: bool,
    /// Print each change as a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut request = named(&args.name)?;
    request["part"] = match (args.watch, args.stand_by) {
        (true, _) => "watch",
        (_, true) => "stand-by",
        _ => "campaign",
    }
    .into();
    let end = signals(&[SIGINT, SIGTERM, SIGHUP])?;
    let mut session = Session::begin(&args.at, "elect", request)?;
    let begun_at = Instant::now();
    let until = args.limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut shown = Value::Null;
    loop {
        let next = session.next()?;
        // A node that runs answers at once: on a busy host, so much later.
        let until = if session.is_answered { until } else { until.map(|until| until + ANSWERS_WITHIN) };
        let line = match next {
            NodeReply::Line(line) => line,
            NodeReply::Gone => return Err(Failure::broken(format!("the node (process {}) is gone", session.pid))),
            NodeReply::Nothing if crate::session::has_come(&end) => return Ok(()),
            NodeReply::Nothing if until.is_some_and(|until| Instant::now() >= until) => {
                let name = &args.name;
                if !session.is_answered || session.probe.silence() >= LATE {
                    let (pid, waited) = (session.pid, begun_at.elapsed().as_secs_f64());
                    return Err(Failure::unusable(format!(
                        "election {name:?}: the node (process {pid}) did not answer within {waited:.1} s; it may be \
                             stopped"
                    )));
                }
                let no_leader = Failure::broken(format!("{name:?} has no leader so far"));
                return if args.until_leader { Err(no_leader) } else { Ok(()) };
            }
            NodeReply::Nothing => {
                session.probe.report().iter().for_each(note);
                session.sleep(&[&end], until.into_iter().chain([session.probe.look_at()]).min())?;
                continue;
            }
        };
        let why = line["why"].as_str();
        match line["state"].as_str() {
            Some("known") => {}
            Some("pending") => {
                note(format!("waiting to take part in {:?}: {}", args.name, why.unwrap_or_default()));
                continue;
            }
            state => {
                let why = format!("election {:?}: {}", args.name, why.unwrap_or_default());
                let is_unusable = state == Some("refused");
                return Err(if is_unusable { Failure::unusable(why) } else { Failure::broken(why) });
            }
        }
        if let Some(why) = why.filter(|_| line["leader"].is_null()) {
            note(format!("{:?}: no longer leads: {why}", args.name));
        }
        let row = json!({ "name": args.name, "leader": line["leader"], "token": line["token"], "own": line["own"] });
        if row != shown {
            if !may_print(&end)? {
                return Ok(());
            }
            print(&if args.json { format!("{row}\n") } else { text(&row) })?;
            shown = row;
        }
        if args.until_leader && line["leader"].is_u64() {
            return Ok(());
        }
    }
}

fn text(row: &Value) -> String {
    let name = row["name"].as_str().unwrap_or_default();
    let Some(leader) = row["leader"].as_u64() else { return format!("{name}: no leader\n") };
    let own = if row["own"] == true { ", by this command" } else { "" };
    let token = &row["token"];
    format!("{name}: member {leader} leads{own}, token {}.{}\n", token["epoch"], token["number"])
}
