//! `bourdon sync GROUP`: returns once everything that was sent before has been delivered everywhere.
//!
//! A member requests the barrier, so a member of this user must run on this host; any member will do.

use crate::admin::{Which, ask, find};
use crate::exit::{Failure, note, print};
use crate::wait;
use bourdon::counters::Found;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The group's name, or GROUP/CHANNEL
    group: String,
    /// Where the nodes keep their counters, if threads.directory is set
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How many seconds to wait
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let which = Which { group: Some(args.group.clone()), directory: args.directory };
    let members = find(&which)?
        .into_iter()
        .filter(|node| node.description.role == "member" && node.description.group == args.group);
    let Some(member) = members.min_by_key(|node| node.description.rank) else {
        let group = &args.group;
        return Err(Failure::unusable(format!(
            "no member of group {group:?} runs here, only observers: run this beside a member"
        )));
    };
    let asked_at = Instant::now();
    let limit = Duration::from_secs(args.timeout);
    let synced = ask_and_report(&member, limit).map_err(|failure| explain(&member, failure))?;
    let wall_ns = asked_at.elapsed().as_nanos() as u64;
    let (group, rank, phase) = (&args.group, member.description.rank, &synced["phase"]);
    print(&if args.json {
        format!("{}\n", json!({ "group": group, "rank": rank, "phase": phase, "wall_ns": wall_ns }))
    } else {
        let took_ms = wall_ns as f64 / 1e6;
        format!(
            "{group}: barrier {phase} is complete: everything sent before it has been delivered everywhere \
                 ({took_ms:.2} ms)\n"
        )
    })
}

/// Requests the barrier, and reports what it waits for as long as it waits.
fn ask_and_report(member: &Found, limit: Duration) -> Result<Value, Failure> {
    let asked_at = Instant::now();
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.send(ask(member, "sync", "synced", limit)));
        let mut patience = wait::FIRST;
        loop {
            match receiver.recv_timeout(patience) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => unreachable!("the thread sends its answer"),
                Err(RecvTimeoutError::Timeout) => patience = wait::INTERVAL,
            }
            let seconds = asked_at.elapsed().as_secs();
            note(format!("the barrier is not complete after {seconds} s: {}", awaited(member)));
        }
    })
}

/// What the barrier waits for, by the member's view.
fn awaited(member: &Found) -> String {
    match ask(member, "view", "view", Duration::from_secs(2)) {
        Err(_) => format!("process {} does not answer; it may be paused", member.pid),
        Ok(view) if view["formed"] == false => "the group is still forming; see `bourdon view`".to_owned(),
        Ok(view) if view["majority"] == false => {
            format!("the member reaches no majority of view {}: restore the others; see `bourdon view`", view["epoch"])
        }
        Ok(view) => {
            format!("a member of view {} has not delivered everything sent before; see `bourdon view`", view["epoch"])
        }
    }
}

/// Explains a missing answer, if the member's view gives a reason.
fn explain(member: &Found, failure: Failure) -> Failure {
    let view = ask(member, "view", "view", Duration::from_secs(2));
    match (failure, view) {
        (Failure::Broken(why), Ok(view)) if view["majority"] == false => {
            Failure::Broken(format!("{why}: it reaches no majority of view {}; see `bourdon view`", view["epoch"]))
        }
        (failure, _) => failure,
    }
}
