//! The matrix on sockets: any reliability with any order, judged by the histories of the processes.
//!
//! Each cell is a separate demo: four members, three of which publish and answer each other, and two observers; with
//! and without barriers; over UDP multicast with datagrams lost, duplicated and reordered at every receiver, and over a
//! TCP mesh with connections closed in the middle. Where the level must survive it, a publisher kills itself half-way.
//! The demo's own verdict must be good, and the histories must pass the judge, which shares no code with the engine.

use crate::history;
use crate::judge::{Order, Reliability, Rules, judge};
use clap::ValueEnum;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What the matrix runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `bourdon` command.
    pub bourdon: PathBuf,
    /// Transports by their names on its command line.
    pub transports: Vec<String>,
    /// How many messages a cell publishes.
    pub messages: u64,
    /// Only these orders and levels, if any are named.
    pub orders: Vec<Order>,
    /// See `orders`.
    pub levels: Vec<Reliability>,
    /// The folder of the histories, with a subfolder for each cell.
    pub folder: PathBuf,
}

/// The outcome of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The transport.
    pub transport: String,
    /// The reliability; `reliable+relay` is a level of its own here.
    pub reliability: String,
    /// The order.
    pub order: String,
    /// Whether there were barriers.
    pub barriers: bool,
    /// Whether a publisher killed itself half-way.
    pub crash: bool,
    /// Messages published, all publishers together.
    pub messages: u64,
    /// Deliveries judged.
    pub deliveries: usize,
    /// Messages that processes recorded as given up.
    pub gaps: u64,
    /// How long the demo took.
    pub wall_ns: u64,
    /// Broken guarantees, and the demo's own errors.
    pub failures: Vec<String>,
}

/// All levels, each without relay, and the level that has it with relay.
const LEVELS: [(Reliability, bool); 6] = [
    (Reliability::Unreliable, false),
    (Reliability::BestEffort, false),
    (Reliability::Reliable, false),
    (Reliability::Reliable, true),
    (Reliability::Uniform, false),
    (Reliability::Stable, false),
];

pub(crate) const ORDERS: [Order; 6] =
    [Order::Unordered, Order::Fifo, Order::Causal, Order::Total, Order::TotalCausal, Order::Realtime];

pub(crate) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Runs every cell; `progress` is called after each.
///
/// # Errors
/// If a folder can't be made or the command can't be started.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&Cell)) -> std::io::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for transport in &plan.transports {
        for (reliability, relay) in LEVELS.into_iter().filter(|(level, _)| wanted(&plan.levels, *level)) {
            for order in ORDERS.into_iter().filter(|order| wanted(&plan.orders, *order)) {
                for barriers in [false, true] {
                    let cell = play(plan, transport, (reliability, relay), order, barriers)?;
                    progress(&cell);
                    cells.push(cell);
                }
            }
        }
    }
    Ok(cells)
}

fn wanted<T: PartialEq>(only: &[T], one: T) -> bool {
    only.is_empty() || only.contains(&one)
}

fn play(
    plan: &Plan,
    transport: &str,
    (reliability, relay): (Reliability, bool),
    order: Order,
    barriers: bool,
) -> std::io::Result<Cell> {
    let level = format!("{}{}", name(reliability), if relay { "+relay" } else { "" });
    let with = if barriers { "-barriers" } else { "" };
    let folder = plan.folder.join(format!("{transport}-{level}-{}{with}", name(order)));
    std::fs::create_dir_all(&folder)?;
    let messages = plan.messages;
    let mut demo = Command::new(&plan.bourdon);
    demo.args(["demo", "--json", "--members", "4", "--observers", "2", "--publishers", "3", "--workload", "reply"]);
    demo.args(["--rate", "x100", "--transport", transport, "--order", &name(order)]);
    demo.args(["--reliability", &name(reliability), "--messages", &messages.to_string(), "--history"]).arg(&folder);
    match transport {
        "tcp" => demo.args(["--break-links", "6"]),
        _ => demo.args(["--drop", "2", "--duplicate", "1", "--reorder", "2"]),
    };
    if relay {
        demo.arg("--relay");
    }
    if barriers {
        demo.args(["--barrier-every", &(messages / 5).max(1).to_string()]);
    }
    let crash = reliability >= Reliability::Reliable;
    if crash {
        demo.args(["--kill", &format!("member:1@{}", (messages / 2).max(1))]);
    }
    let began = Instant::now();
    let output = demo.output()?;
    let wall_ns = began.elapsed().as_nanos() as u64;
    let rules = Rules { order, reliability, allow_skips: false, running: false };
    let (deliveries, gaps, mut failures) = verdict(&folder, rules);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        failures.push(format!("the demo ended with {}: {}", output.status, stderr.trim()));
    }
    let (transport, order) = (transport.to_owned(), name(order));
    Ok(Cell { transport, reliability: level, order, barriers, crash, messages, deliveries, gaps, wall_ns, failures })
}

fn verdict(folder: &Path, rules: Rules) -> (usize, u64, Vec<String>) {
    match history::read(folder) {
        Ok(histories) => {
            let verdict = judge(&histories, rules);
            let gaps = histories
                .incarnations
                .iter()
                .flat_map(|incarnation| &incarnation.gaps)
                .map(|gap| gap.to - gap.from)
                .sum();
            let printed =
                verdict.violations.iter().map(|v| format!("invariant {}: {}: {}", v.invariant, v.process, v.detail));
            (verdict.deliveries, gaps, printed.collect())
        }
        Err(error) => (0, 0, vec![error.to_string()]),
    }
}

/// The table of the cells.
pub fn table(cells: &[Cell]) -> String {
    let mut text = format!(
        "{:<9} {:<15} {:<13} {:<8} {:<5} {:>10} {:>6} {:>7}  verdict\n",
        "transport", "reliability", "order", "barriers", "crash", "deliveries", "gaps", "ms"
    );
    let yes = |is: bool| if is { "yes" } else { "no" };
    for cell in cells {
        let verdict = if cell.failures.is_empty() { "kept" } else { "BROKEN" };
        let (barriers, crash, ms) = (yes(cell.barriers), yes(cell.crash), cell.wall_ns / 1_000_000);
        text += &format!(
            "{:<9} {:<15} {:<13} {barriers:<8} {crash:<5} {:>10} {:>6} {ms:>7}  {verdict}\n",
            cell.transport, cell.reliability, cell.order, cell.deliveries, cell.gaps
        );
    }
    for cell in cells.iter().filter(|cell| !cell.failures.is_empty()) {
        for failure in cell.failures.iter().take(3) {
            text += &format!("{} {} {}: {failure}\n", cell.transport, cell.reliability, cell.order);
        }
    }
    text
}
