//! From a leader's death to the next leader.
//!
//! An election is quick once it has begun; most time passes until a member notices that one is needed. So the whole
//! time is measured: the leader's process is killed, and the clock stops when the others have a leader again. Each
//! system shows that in its own way, and its row gives it (`settings.until`). Then the killed process is started again,
//! catches up, and the next leader is killed.
//!
//! The systems take turns, round by round. Each is started afresh and stopped after its round, so that no idle server
//! takes cores from another system.
//!
//! A system implements [`System`]: once started, it loses its leader and returns how long it was without one.

mod bourdon;
mod peers;

use crate::row::{Ratio, document, histogram};
use crate::settings::Mode;
use crate::{Failure, Idle};
use ::bourdon::settings::ElectionKind;
use bourdon::Bourdon;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use peers::Etcd;
use serde_json::{Value, json};

/// What to measure
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Measure these beside Bourdon, in turn [default: the installed ones]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', conflicts_with = "no_peer")]
    peer: Vec<Peer>,
    /// Measure Bourdon alone
    #[arg(long)]
    no_peer: bool,
    /// Leaders killed in a round
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    count: u64,
    /// Rounds, each of every system in turn
    #[arg(long, value_name = "R", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Members of every system
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=7))]
    members: u16,
    /// Bourdon's members: inline, or with threads of their own
    #[arg(long, value_enum, default_value = "inline")]
    mode: Mode,
    /// What Bourdon's members do while nothing arrives
    #[arg(long, value_enum, default_value = "park")]
    idle: Idle,
    /// One JSON object on stdout instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// etcd as delivered: heartbeats each 100 ms, an election after 1 s
    Etcd,
    /// etcd with heartbeats each 10 ms, an election after 100 ms
    EtcdTuned,
}

/// How one leader was followed by another.
#[derive(Clone, Debug)]
pub(crate) struct FailOver {
    pub(crate) fault_to_leader_ns: u64,
    /// Messages of the election, where they can be counted.
    pub(crate) messages: Option<u64>,
}

/// One system to measure.
pub(crate) trait System {
    fn name(&self) -> &'static str;
    /// Its election algorithm.
    fn algorithm(&self) -> &'static str;
    fn members(&self) -> u16;
    /// The settings that its rows report.
    fn settings(&self) -> Value;
    /// Starts it; dropping the returned value stops it.
    fn start(&self) -> Result<Box<dyn Running>, Failure>;
}

/// A system that runs.
pub(crate) trait Running {
    /// Kills its leader, waits for the next, and makes the system whole again.
    fn fail_over(&mut self) -> Result<FailOver, Failure>;
}

const BOURDON: &str = "bourdon";

/// The systems of a run. A requested peer must be installed; of the others, the installed ones are used.
fn systems(settings: &Settings) -> Result<Vec<Box<dyn System>>, Failure> {
    let ours = [ElectionKind::Bully, ElectionKind::Ring];
    let ours = ours.map(|algorithm| Bourdon::new(algorithm, settings.members, settings.mode, settings.idle));
    let mut systems: Vec<Box<dyn System>> = ours.into_iter().map(|ours| Box::new(ours) as _).collect();
    for peer in Peer::value_variants().iter().filter(|_| !settings.no_peer) {
        if !settings.peer.is_empty() && !settings.peer.contains(peer) {
            continue;
        }
        let system = match peer {
            Peer::Etcd => Etcd::new("etcd", settings.members, false),
            Peer::EtcdTuned => Etcd::new("etcd-tuned", settings.members, true),
        };
        match system {
            Ok(system) => systems.push(Box::new(system)),
            Err(Failure::Unusable(why)) if settings.peer.is_empty() => {
                let name = peer.to_possible_value().expect("every peer has a name");
                eprintln!("{} is left out: {why}", name.get_name());
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(systems)
}

/// Measures fail-over and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let systems = systems(settings)?;
    let mut rounds: Vec<Vec<Vec<FailOver>>> = systems.iter().map(|_| Vec::new()).collect();
    for index in 1..=settings.rounds {
        for (system, rounds) in systems.iter().zip(&mut rounds) {
            crate::round::announce(index, settings.rounds, &format!("{} {}", system.name(), system.algorithm()));
            let mut running = system.start()?;
            let round: Result<_, Failure> = (0..settings.count).map(|_| running.fail_over()).collect();
            rounds.push(round?);
        }
    }
    let rows: Vec<Value> = systems.iter().zip(&rounds).map(|(system, rounds)| row(&**system, rounds)).collect();
    show(settings, &rows, &compare(&systems, &rounds));
    Ok(())
}

fn times<'a>(fail_overs: impl IntoIterator<Item = &'a FailOver>) -> Histogram<u64> {
    let mut times = histogram();
    fail_overs.into_iter().for_each(|fail_over| times.saturating_record(fail_over.fault_to_leader_ns));
    times
}

/// Bourdon's medians over each peer's, round by round.
fn compare(systems: &[Box<dyn System>], rounds: &[Vec<Vec<FailOver>>]) -> Vec<Ratio> {
    let median = |round: &Vec<FailOver>| times(round).value_at_quantile(0.5) as f64;
    let all = || systems.iter().zip(rounds);
    let mut ratios = Vec::new();
    for (ours, our_rounds) in all().filter(|(system, _)| system.name() == BOURDON) {
        for (peer, its_rounds) in all().filter(|(system, _)| system.name() != BOURDON) {
            ratios.push(Ratio {
                what: format!("fail-over: {BOURDON} {} p50 over {}", ours.algorithm(), peer.name()),
                rounds: our_rounds.iter().zip(its_rounds).map(|(ours, its)| median(ours) / median(its)).collect(),
            });
        }
    }
    ratios
}

/// A row over rounds: every time, the median election's messages.
fn row(system: &dyn System, rounds: &[Vec<FailOver>]) -> Value {
    let times = times(rounds.iter().flatten());
    let mut messages: Vec<u64> = rounds.iter().flatten().filter_map(|fail_over| fail_over.messages).collect();
    messages.sort_unstable();
    let mut settings = system.settings();
    settings["rounds"] = rounds.len().into();
    json!({
        "what": "fail-over",
        "system": system.name(),
        "algorithm": system.algorithm(),
        "members": system.members(),
        "count": times.len(),
        "messages": messages.get(messages.len() / 2),
        "fault_to_leader_ns": {
            "p50": times.value_at_quantile(0.5),
            "p99": times.value_at_quantile(0.99),
            "max": times.max(),
        },
        "settings": settings,
    })
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let number = |key: &str| row[key].as_u64().map_or("-".to_owned(), |number| number.to_string());
    let mut line = format!("{:<10} {:<11} {:<10}", text("what"), text("system"), text("algorithm"));
    for (key, width) in [("members", 7), ("count", 6), ("messages", 8)] {
        line.push_str(&format!(" {:>width$}", number(key)));
    }
    for key in ["p50", "p99", "max"] {
        let ns = row["fault_to_leader_ns"][key].as_f64();
        line.push_str(&format!(" {:>10}", ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns / 1e6))));
    }
    line
}

fn show(settings: &Settings, rows: &[Value], ratios: &[Ratio]) {
    if settings.json {
        println!("{}", document(rows, ratios));
        return;
    }
    let head = ["what", "system", "algorithm", "members", "count", "messages", "p50 ms", "p99", "max"];
    let [what, system, algorithm, members, count, messages, p50, p99, max] = head;
    print!("{what:<10} {system:<11} {algorithm:<10} {members:>7} {count:>6} {messages:>8}");
    println!(" {p50:>10} {p99:>10} {max:>10}");
    rows.iter().for_each(|row| println!("{}", line(row)));
    ratios.iter().filter_map(Ratio::text).for_each(|line| println!("{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system that is never started.
    struct Named(&'static str);

    impl System for Named {
        fn name(&self) -> &'static str {
            self.0
        }

        fn algorithm(&self) -> &'static str {
            "fixed"
        }

        fn members(&self) -> u16 {
            3
        }

        fn settings(&self) -> Value {
            json!({})
        }

        fn start(&self) -> Result<Box<dyn Running>, Failure> {
            Err(Failure::Unusable("it is never started".into()))
        }
    }

    fn round(times_ns: &[u64]) -> Vec<FailOver> {
        let fail_over = |ns: &u64| FailOver { fault_to_leader_ns: *ns, messages: Some(*ns) };
        times_ns.iter().map(fail_over).collect()
    }

    #[test]
    fn bourdons_median_is_set_over_each_peers() {
        let systems: Vec<Box<dyn System>> = vec![Box::new(Named("peer")), Box::new(Named(BOURDON))];
        let rounds = [vec![round(&[10, 20, 90]), round(&[40])], vec![round(&[10]), round(&[10])]];
        let ratios = compare(&systems, &rounds);
        assert_eq!((ratios.len(), &ratios[0].rounds), (1, &vec![0.5, 0.25]));
        let row = row(&Named("peer"), &rounds[0]);
        assert_eq!(
            (&row["count"], &row["messages"], &row["fault_to_leader_ns"]["max"]),
            (&4.into(), &40.into(), &90.into())
        );
    }
}
