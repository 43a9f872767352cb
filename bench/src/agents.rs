//! Several data agents: what a second one adds, and what it costs the first.
//!
//! A node runs groups of one member each. A thread a group publishes as fast as its ring takes messages, and waits
//! until all are acknowledged; the agents pack, send and acknowledge them. With one agent both groups share its core,
//! with two each has a core of its own. Agents that wrote to one cache line would slow each other down: then a message
//! costs the agents more CPU time when both run than when one runs alone. Publishers need cores as well, so on a host
//! with fewer than four cores the rate of two agents is a lower bound; the agents' CPU time is not.

use crate::round::announce;
use crate::row::{Ratio, Row, median, show};
use crate::worker::{Spec, WorkerKind};
use crate::{Failure, Settings, broken};
use bourdon::id::TopicId;
use bourdon::settings::{Role, Settings as NodeSettings};
use bourdon::{Node, Publication, Topic};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const TOPIC: Topic = Topic::of_id(TopicId(1));
/// A group of one forms, or takes the rest of its messages, in less.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the groups are spread.
struct Spread {
    what: &'static str,
    agents: usize,
    groups: usize,
}

const SPREADS: [Spread; 3] = [
    Spread { what: "1-agent-1-group", agents: 1, groups: 1 },
    Spread { what: "1-agent-2-groups", agents: 1, groups: 2 },
    Spread { what: "2-agents-2-groups", agents: 2, groups: 2 },
];

/// A round: messages a second of all groups, and the agents' CPU time for one.
#[derive(Clone, Copy)]
struct Measured {
    rate_per_s: f64,
    agent_ns: f64,
}

/// Measures the agents and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let (count, common) = (settings.count.unwrap_or(5_000_000), &settings.common);
    let spec = Spec { members: 1, receivers: 0, ..Spec::new(common, WorkerKind::Pair, count) };
    let mut rounds: [Vec<Measured>; 3] = Default::default();
    for round in 1..=common.rounds {
        for (spread, measured) in SPREADS.iter().zip(&mut rounds) {
            announce(round, common.rounds, spread.what);
            measured.push(measure(&spec, spread)?);
        }
    }
    let row = |(spread, measured): (&Spread, &Vec<Measured>)| Row {
        what: spread.what.into(),
        system: "bourdon".into(),
        transport: spec.transport.name().into(),
        size_bytes: common.size,
        count: count * spread.groups as u64 * u64::from(common.rounds),
        lost: Some(0),         // each message was acknowledged
        out_of_order: Some(0), // by a group of one
        rate_per_s: median(measured.iter().map(|it| it.rate_per_s)).map(|rate| rate as u64),
        latency: None,
        cpu_ns_per_message: median(measured.iter().map(|it| it.agent_ns)).map(|ns| ns as u64),
        settings: Spec { mode: crate::settings::Mode::Threaded, ..spec.clone() }.settings(),
        extra: Default::default(),
    };
    let rows: Vec<_> = SPREADS.iter().zip(&rounds).map(row).collect();
    let ratio = |what: &str, of: fn(&Measured) -> f64| Ratio {
        what: what.to_owned(),
        rounds: rounds[2].iter().zip(&rounds[1]).map(|(two, one)| of(two) / of(one)).collect(),
    };
    let ratios = [
        ratio("rate of two agents over one", |it| it.rate_per_s),
        ratio("agent CPU time a message, two agents over one", |it| it.agent_ns),
    ];
    show(common, &rows, &ratios)
}

/// The settings of a group of one.
fn group(spec: &Spec, index: usize, agents: usize) -> NodeSettings {
    let mut settings = spec.node(Role::Member, 0);
    settings.group.name = format!("{}-{index}", spec.group);
    if index > 0 {
        settings.group.address = spec.back_address;
    }
    (settings.threads.data_agents, settings.threads.core) = (agents, Some(0));
    settings
}

fn measure(spec: &Spec, spread: &Spread) -> Result<Measured, Failure> {
    let unusable = |error: bourdon::Error| Failure::Unusable(error.to_string());
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..spread.groups {
        let settings = group(spec, index, spread.agents);
        let node = match nodes.first() {
            None => Node::open(&settings),
            Some(first) => first.open_beside(&settings),
        };
        nodes.push(node.map_err(unusable)?);
    }
    let mut publications = Vec::new();
    for node in &nodes {
        let mut publication = node.publication().map_err(unusable)?;
        node.join().map_err(unusable)?;
        let number = publication.publish(&TOPIC, &vec![7; spec.size_bytes as usize][..], PATIENCE).map_err(broken)?;
        publication.wait_acknowledged(number, PATIENCE).map_err(broken)?;
        publications.push(publication);
    }
    let (start, message) = (Barrier::new(spread.groups + 1), vec![7; spec.size_bytes as usize]);
    let (before_ns, began, outcomes) = std::thread::scope(|scope| {
        let threads: Vec<_> = publications
            .iter_mut()
            .map(|publication| {
                let (start, message) = (&start, &message);
                scope.spawn(move || {
                    start.wait();
                    publish_all(publication, message, spec.count)
                })
            })
            .collect();
        let before_ns = agents_cpu_ns();
        start.wait();
        let began = Instant::now();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("publishing does not panic");
        (before_ns, began, threads.into_iter().map(join).collect::<Vec<Result<(), Failure>>>())
    });
    let (elapsed, agents_ns) = (began.elapsed(), agents_cpu_ns() - before_ns);
    outcomes.into_iter().collect::<Result<(), _>>()?;
    let messages = (spec.count * spread.groups as u64) as f64;
    Ok(Measured { rate_per_s: messages / elapsed.as_secs_f64(), agent_ns: agents_ns as f64 / messages })
}

fn publish_all(publication: &mut Publication, message: &[u8], count: u64) -> Result<(), Failure> {
    let mut last = 0;
    for _ in 0..count {
        last = loop {
            match publication.try_publish(&TOPIC, message) {
                Ok(number) => break number,
                Err(refusal) if refusal.is_transient() => std::thread::yield_now(),
                Err(refusal) => return Err(broken(refusal)),
            }
        };
    }
    publication.wait_acknowledged(last, PATIENCE).map_err(broken)
}

/// CPU time of this process's data agents so far, by the scheduler's own count: see proc(5), `schedstat`.
fn agents_cpu_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    let read = |task: std::fs::DirEntry, name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
    let is_agent = |task: &std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.starts_with("bourdon-data")
    };
    let on_cpu = |task| read(task, "schedstat").split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
    tasks.filter(is_agent).filter_map(on_cpu).sum()
}
