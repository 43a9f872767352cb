//! `bourdon-model`: visits every state of a small group that changes its view.

#![forbid(unsafe_code)]

use bourdon_model::budget::{Budget, Spent};
use bourdon_model::group::{Action, Group};
use bourdon_model::plan::{self, Caught, STUCK};
use bourdon_model::reach::reach;
use bourdon_model::search::search;
use clap::Parser;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Visits every state of a small group that changes its view, and checks the shipped ballots in each.
///
/// Exit code: 0 if nothing broke (or every planted bug was caught), 1 if something did, 2 if the arguments are wrong.
#[derive(Debug, Parser)]
#[command(name = "bourdon-model", version)]
struct Asked {
    /// Members of the first view
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    members: u8,
    /// Processes that want to join
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    joiners: u8,
    /// Members, the last ones, that ask to leave
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=7))]
    leavers: u8,
    /// Ballots begun in an epoch, at most
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    ballots: u8,
    /// Crashes, at most
    #[arg(long, default_value_t = 1)]
    crashes: u8,
    /// Members that send
    #[arg(long, default_value_t = 2)]
    senders: u8,
    /// Datagrams each of them sends in an epoch, at most
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=4))]
    datagrams: u8,
    /// View changes in a row
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    changes: u8,
    /// Proposers go on with all that answer: none has evidence against another
    #[arg(long)]
    no_suspects: bool,
    /// What comes after a promise is still received
    #[arg(long)]
    late: bool,
    /// Proposers get a REFUSE for higher ballots
    #[arg(long)]
    refusals: bool,
    /// The control plane's orders to the data plane wait, and are obeyed at any later place
    #[arg(long)]
    apart: bool,
    /// Search for a way on from every state instead, with the last ballot kept for it
    #[arg(long)]
    reach: bool,
    /// Plant this bug, or each of `all`, in the smallest group that shows it
    #[arg(long, value_name = "NAME")]
    mutate: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Stop at so much resident memory, in MiB; by default at 70 % of what is free
    #[arg(long)]
    memory_mib: Option<u64>,
}

fn main() -> ExitCode {
    let asked = Asked::parse();
    let (found, good) = match &asked.mutate {
        Some(name) => match mutate(&asked, name) {
            Some(found) => found,
            None => {
                let names: Vec<_> = plan::planted().iter().map(|planted| planted.mutant.name()).collect();
                eprintln!("error: the model has no bug {name:?}; take `all` or one of: {}", names.join(", "));
                return ExitCode::from(2);
            }
        },
        None => check(&asked),
    };
    if asked.json {
        println!("{found}");
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn words(trace: &[Action]) -> Vec<String> {
    trace.iter().map(ToString::to_string).collect()
}

/// Checks the shipped code in the group asked for.
fn check(asked: &Asked) -> (Value, bool) {
    let group = Group {
        members: asked.members,
        joiners: asked.joiners,
        leavers: asked.leavers.min(asked.members - 1),
        ballots: asked.ballots,
        crashes: asked.crashes,
        senders: asked.senders,
        datagrams: asked.datagrams,
        changes: asked.changes,
        suspects: !asked.no_suspects,
        late: asked.late,
        refusals: asked.refusals,
        apart: asked.apart,
        spent: Arc::default(),
        mutant: None,
    };
    let free = Budget::of(Duration::from_secs(asked.seconds));
    let budget = Budget { memory_mib: asked.memory_mib.or(free.memory_mib), ..free };
    let (found, spent, broken) = if asked.reach {
        let found = reach(&group, budget);
        let json = json!({ "states": found.states, "judged": found.judged, "exhausted": found.exhausted });
        (json, found.spent, found.stuck.map(|trace| (STUCK, trace)))
    } else {
        let found = search(&group, budget, true);
        let (generated, states, depth) = (found.generated, found.states, found.depth);
        let json = json!({ "generated": generated, "states": states, "depth": depth, "exhausted": found.exhausted });
        (json, found.spent, found.broken.map(|(property, trace)| (property.name(), trace)))
    };
    let mut found = found;
    found["spent"] = json!(spent.map(Spent::name));
    found["broken"] = json!(broken.as_ref().map(|(name, _)| name));
    found["trace"] = json!(broken.as_ref().map(|(_, trace)| words(trace)));
    if !asked.json {
        for field in ["generated", "states", "judged", "depth", "exhausted"] {
            found.get(field).into_iter().for_each(|value| println!("{field:<10} {value}"));
        }
        if let Some(spent) = spent {
            println!("spent      {}, before all states were visited", spent.name());
        }
        match &broken {
            None => println!("broken     nothing"),
            Some((name, trace)) => {
                println!("broken     {name}, in {} steps", trace.len());
                words(trace).iter().for_each(|line| println!("  {line}"));
            }
        }
    }
    (found, broken.is_none())
}

/// Plants bugs and checks whether they are caught; returns nothing if no bug has that name.
fn mutate(asked: &Asked, name: &str) -> Option<(Value, bool)> {
    let mut planted = plan::planted();
    planted.retain(|planted| name == "all" || planted.mutant.name() == name);
    let (mut rows, mut good) = (Vec::new(), !planted.is_empty());
    for planted in &planted {
        eprintln!("{}…", planted.mutant.name());
        let caught = planted.look(Duration::from_secs(asked.seconds));
        good &= caught.is_some();
        let figures = |caught: &Caught| (caught.by, caught.trace.len(), caught.states);
        let (by, steps, states) = caught.as_ref().map_or(("nothing", 0, 0), figures);
        let trace = caught.map(|caught| words(&caught.trace)).unwrap_or_default();
        if !asked.json {
            println!("{:<24} {by:<22} {steps:>2} steps {states:>9} states", planted.mutant.name());
            if name != "all" {
                trace.iter().for_each(|line| println!("  {line}"));
            }
        }
        let mutant = planted.mutant.name();
        rows.push(json!({ "mutant": mutant, "by": by, "steps": steps, "states": states, "trace": trace }));
    }
    (!planted.is_empty()).then(|| (json!({ "mutants": rows }), good))
}
