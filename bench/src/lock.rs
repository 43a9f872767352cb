//! What a lock costs: Bourdon's locks beside those of other systems, in one run.
//!
//! A lock that is fast without contention may be slow to hand over, and a lock that is fast to hand over may let a
//! client wait for ever. So each system gets two loads: one client that acquires and releases again and again, and
//! three that do so at once with no pause (`lock/clients.rs`). The figure is the time from the request to the grant.
//!
//! The systems take turns, round by round. Each is started afresh and stopped after its round, so that no idle server
//! takes cores from another system. A round ends after a number of entries or of seconds: some systems make a hundred
//! thousand contended entries in the time in which others make a hundred.
//!
//! A system implements [`System`]: once started, it plays a round of a [`Load`] and returns the figures.

mod bourdon;
mod clients;
mod peers;

use crate::row::{Ratio, document, histogram};
use crate::scratch::Storage;
use crate::settings::Mode;
use crate::{Failure, Idle};
use ::bourdon::settings::MutexKind;
use bourdon::Bourdon;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use peers::{Etcd, RedisKey};
use serde_json::{Value, json};
use std::time::Duration;

/// Clients that want a lock at one time.
const CLIENTS: usize = 3;
/// Entries of a round: enough that some twenty lie above the p99.
const ENTRIES: u64 = 2_000;

/// What to measure
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Measure these beside Bourdon, in turn [default: the installed ones]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', conflicts_with = "no_peer")]
    peer: Vec<Peer>,
    /// Measure Bourdon alone
    #[arg(long)]
    no_peer: bool,
    /// Entries of a round, at most
    #[arg(
        long,
        value_name = "K",
        default_value_t = ENTRIES,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000),
    )]
    count: u64,
    /// Seconds of a round, at most
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds, each of every system in turn
    #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Members of a group, and servers of a peer that has several
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=7))]
    members: u16,
    /// Only these of Bourdon's algorithms [default: all]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    algorithm: Vec<Algorithm>,
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
enum Algorithm {
    /// A table driven by the total order
    Replicated,
    /// The oldest member grants
    Central,
    /// Lamport's queues
    Lamport,
    /// Ricart and Agrawala's permissions
    RicartAgrawala,
    /// A token in a ring
    TokenRing,
}

impl From<Algorithm> for MutexKind {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Replicated => Self::Replicated,
            Algorithm::Central => Self::Central,
            Algorithm::Lamport => Self::Lamport,
            Algorithm::RicartAgrawala => Self::RicartAgrawala,
            Algorithm::TokenRing => Self::TokenRing,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// etcd's lock service, its log on a disk
    Etcd,
    /// The same, its log on tmpfs
    EtcdTmpfs,
    /// A key in Redis, which is no safe lock: the floor
    Redis,
}

/// The clients that request the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One client
    Uncontended,
    /// Several at once
    Contended,
}

impl Load {
    const ALL: [Self; 2] = [Self::Uncontended, Self::Contended];

    fn name(self) -> &'static str {
        match self {
            Self::Uncontended => "uncontended",
            Self::Contended => "contended",
        }
    }

    /// How many clients request it.
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::Uncontended => 1,
            Self::Contended => CLIENTS,
        }
    }
}

/// When a round ends: whichever comes first.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) entries: u64,
    pub(crate) duration: Duration,
}

/// The figures of one round.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// The time from request to grant, of every entry.
    pub(crate) acquire: Histogram<u64>,
    /// The most entries of other clients between one client's request and its grant.
    pub(crate) max_overtaken: Option<u64>,
    /// Messages that an entry cost the group, where they can be counted.
    pub(crate) messages_per_entry: Option<f64>,
}

/// One system to measure.
pub(crate) trait System {
    fn name(&self) -> &'static str;
    /// Its algorithm of mutual exclusion.
    fn algorithm(&self) -> &'static str;
    fn members(&self) -> u16;
    /// The settings that its rows report.
    fn settings(&self) -> Value;
    /// Starts it; dropping the returned value stops it.
    fn start(&self) -> Result<Box<dyn Running>, Failure>;
}

/// A system that runs.
pub(crate) trait Running {
    fn round(&mut self, load: Load, limits: &Limits) -> Result<Round, Failure>;
}

const BOURDON: &str = "bourdon";

/// The systems of a run. A requested peer must be installed; of the others, the installed ones are used.
fn systems(settings: &Settings) -> Result<Vec<Box<dyn System>>, Failure> {
    let wanted = |algorithm: &Algorithm| settings.algorithm.is_empty() || settings.algorithm.contains(algorithm);
    let ours = Algorithm::value_variants().iter().filter(|algorithm| wanted(algorithm));
    let ours = ours.map(|algorithm| Bourdon::new((*algorithm).into(), settings.members, settings.mode, settings.idle));
    let mut systems: Vec<Box<dyn System>> = ours.map(|ours| Box::new(ours) as _).collect();
    for peer in Peer::value_variants().iter().filter(|_| !settings.no_peer) {
        if !settings.peer.is_empty() && !settings.peer.contains(peer) {
            continue;
        }
        let system: Result<Box<dyn System>, Failure> = match peer {
            Peer::Etcd => Etcd::new("etcd", settings.members, Storage::Disk).map(|it| Box::new(it) as _),
            Peer::EtcdTmpfs => Etcd::new("etcd-tmpfs", settings.members, Storage::Tmpfs).map(|it| Box::new(it) as _),
            Peer::Redis => RedisKey::new().map(|it| Box::new(it) as _),
        };
        match system {
            Ok(system) => systems.push(system),
            Err(Failure::Unusable(why)) if settings.peer.is_empty() => {
                let name = peer.to_possible_value().expect("every peer has a name");
                eprintln!("{} is left out: {why}", name.get_name());
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(systems)
}

/// Measures locks and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let systems = systems(settings)?;
    let limits = Limits { entries: settings.count, duration: Duration::from_secs(settings.seconds) };
    let mut rounds: Vec<[Vec<Round>; 2]> = systems.iter().map(|_| Default::default()).collect();
    for index in 1..=settings.rounds {
        for (system, rounds) in systems.iter().zip(&mut rounds) {
            let name = format!("{} {}", system.name(), system.algorithm());
            crate::round::announce(index, settings.rounds, &name);
            let mut running = system.start()?;
            for (load, rounds) in Load::ALL.into_iter().zip(rounds) {
                rounds.push(running.round(load, &limits)?);
            }
        }
    }
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    for (index, load) in Load::ALL.into_iter().enumerate() {
        let of_load: Vec<&[Round]> = rounds.iter().map(|rounds| &rounds[index][..]).collect();
        rows.extend(systems.iter().zip(&of_load).map(|(system, rounds)| row(load, &**system, rounds)));
        ratios.extend(compare(load, &systems, &of_load));
    }
    show(settings, &rows, &ratios);
    Ok(())
}

fn quantile(round: &Round, quantile: f64) -> f64 {
    round.acquire.value_at_quantile(quantile) as f64
}

/// Bourdon's ratio to each peer under a load, round by round.
fn compare(load: Load, systems: &[Box<dyn System>], rounds: &[&[Round]]) -> Vec<Ratio> {
    let all = || systems.iter().zip(rounds);
    let mut ratios = Vec::new();
    for (ours, our_rounds) in all().filter(|(system, _)| system.name() == BOURDON) {
        for (peer, its_rounds) in all().filter(|(system, _)| system.name() != BOURDON) {
            for (figure, q) in [("p50", 0.5), ("p99", 0.99)] {
                let over = |(ours, its): (&Round, &Round)| quantile(ours, q) / quantile(its, q);
                ratios.push(Ratio {
                    what: format!("{}: {BOURDON} {} {figure} over {}", load.name(), ours.algorithm(), peer.name()),
                    rounds: our_rounds.iter().zip(*its_rounds).map(over).collect(),
                });
            }
        }
    }
    ratios
}

/// A row over rounds: every latency, the worst overtaking, the median round's messages.
fn row(load: Load, system: &dyn System, rounds: &[Round]) -> Value {
    let mut acquire = histogram();
    rounds.iter().for_each(|round| acquire.add(&round.acquire).expect("the bounds are the same"));
    let mut messages: Vec<f64> = rounds.iter().filter_map(|round| round.messages_per_entry).collect();
    messages.sort_by(f64::total_cmp);
    let mut settings = system.settings();
    settings["clients"] = load.clients().into();
    settings["rounds"] = rounds.len().into();
    json!({
        "what": load.name(),
        "system": system.name(),
        "algorithm": system.algorithm(),
        "members": system.members(),
        "count": acquire.len(),
        "messages_per_entry": messages.get(messages.len() / 2),
        "max_overtaken": rounds.iter().map(|round| round.max_overtaken).max().flatten(),
        "acquire_ns": {
            "p50": acquire.value_at_quantile(0.5),
            "p90": acquire.value_at_quantile(0.9),
            "p99": acquire.value_at_quantile(0.99),
            "p999": acquire.value_at_quantile(0.999),
            "max": acquire.max(),
        },
        "settings": settings,
    })
}

const QUANTILES: [&str; 5] = ["p50", "p90", "p99", "p999", "max"];

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let number = |key: &str, digits| row[key].as_f64().map_or("-".to_owned(), |number| format!("{number:.digits$}"));
    let mut line = format!("{:<12} {:<11} {:<16}", text("what"), text("system"), text("algorithm"));
    let numbers = [("members", 7, 0), ("count", 8, 0), ("messages_per_entry", 14, 2), ("max_overtaken", 10, 0)];
    for (key, width, digits) in numbers {
        line.push_str(&format!(" {:>width$}", number(key, digits)));
    }
    for key in QUANTILES {
        let ns = row["acquire_ns"][key].as_f64();
        line.push_str(&format!(" {:>10}", ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns / 1e3))));
    }
    line
}

fn heading() -> String {
    let mut line = format!("{:<12} {:<11} {:<16}", "what", "system", "algorithm");
    line.push_str(&format!(" {:>7} {:>8} {:>14} {:>10}", "members", "count", "messages/entry", "overtaken"));
    ["p50 µs", "p90", "p99", "p99.9", "max"].iter().for_each(|text| line.push_str(&format!(" {text:>10}")));
    line
}

fn show(settings: &Settings, rows: &[Value], ratios: &[Ratio]) {
    if settings.json {
        println!("{}", document(rows, ratios));
        return;
    }
    println!("{}", heading());
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

    fn round(acquire_ns: u64, max_overtaken: Option<u64>) -> Round {
        let mut acquire = histogram();
        acquire.record(acquire_ns).expect("it is in range");
        Round { acquire, max_overtaken, messages_per_entry: None }
    }

    #[test]
    fn a_row_is_over_all_rounds() {
        let rounds = [round(10, Some(2)), round(30, Some(7)), round(20, Some(1))];
        let row = row(Load::Contended, &Named("peer"), &rounds);
        assert_eq!(
            (&row["count"], &row["max_overtaken"], &row["acquire_ns"]["max"]),
            (&3.into(), &7.into(), &30.into())
        );
        assert_eq!((&row["messages_per_entry"], &row["settings"]["clients"]), (&Value::Null, &3.into()));
    }

    #[test]
    fn a_row_is_as_wide_as_its_heading() {
        let third = Round { messages_per_entry: Some(8.0 / 3.0), ..round(10, Some(2)) };
        let line = line(&row(Load::Contended, &Named("peer"), &[third]));
        assert!(line.contains(" 2.67 "), "{line}");
        assert_eq!(line.chars().count(), heading().chars().count(), "{line}");
    }

    #[test]
    fn bourdon_is_set_over_every_peer_round_by_round() {
        let systems: Vec<Box<dyn System>> = vec![Box::new(Named("a")), Box::new(Named(BOURDON)), Box::new(Named("b"))];
        let (a, ours, b) = ([round(10, None), round(20, None)], [round(20, None), round(20, None)], [round(40, None)]);
        let ratios = compare(Load::Uncontended, &systems, &[&a, &ours, &b]);
        let whats: Vec<&str> = ratios.iter().map(|ratio| &ratio.what[..]).collect();
        assert_eq!(whats[..2], ["uncontended: bourdon fixed p50 over a", "uncontended: bourdon fixed p99 over a"]);
        assert_eq!((&ratios[0].rounds, &ratios[2].rounds), (&vec![2.0, 1.0], &vec![0.5]));
        assert_eq!(ratios.len(), 4);
    }
}
