//! One publisher to several observers: the pattern of market data.
//!
//! The publisher, a group of one, waits for its observers unless `--flow free` is given: then no observer slows it, and
//! an observer that is too slow requests what it misses, and loses the rest. The rate is the slowest observer's. On a
//! host with fewer cores than processes use `--idle park`.
//!
//! With `--offered` messages are due at a rate, and nothing is dropped at the publisher: what the system refuses it
//! gets later. `--sweep` shows whether goodput falls as the offered load rises (`fanout/sweep.rs`).

mod sweep;

use crate::hosts::{Hosts, INTERFACE};
use crate::round::Round;
use crate::row::{Row, show};
use crate::settings::Place;
use crate::systems::{System, measurable};
use crate::throughput::{self, ratios, rounds};
use crate::worker::{Spec, WorkerKind};
use crate::{Common, Failure, Peer, Transport, settings};
use bourdon::settings::Flow;
use clap::Args;

/// What can be measured beside Bourdon here.
const PEERS: &[Peer] = &[Peer::Aeron, Peer::AeronIpc, Peer::Iceoryx2, Peer::Zeromq, Peer::Nats];

/// What is measured and how
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    common: Common,
    /// Messages a round
    #[arg(long, value_name = "K", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Observers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    observers: u16,
    /// Whether observers slow the publisher down: the modes of `flow.mode`
    #[arg(long, value_name = "MODE", default_value = "gating", value_parser = settings::flow)]
    flow: Flow,
    /// Messages due a second [default: as many as the system takes]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    offered: Option<u64>,
    /// Where the publisher and its observers are
    #[arg(long, value_enum, value_name = "PLACE", default_value = "lo")]
    over: Place,
    /// Measure Bourdon over these transports as well, in the same rounds
    #[arg(long, value_enum, value_name = "TRANSPORT", value_delimiter = ',')]
    also: Vec<Transport>,
    /// Find the best lossless rate, then offer 0.25, 0.5, 1, 2 and 4 times as much, for a second each
    #[arg(long, conflicts_with_all = ["offered", "count", "peer", "over", "also"])]
    sweep: bool,
}

impl Settings {
    fn spec(&self) -> Spec {
        let spec = Spec::new(&self.common, WorkerKind::Publisher, self.count);
        let interface = if self.over == Place::Veth { INTERFACE.to_owned() } else { spec.interface };
        let (receivers, flow, offered_per_s) = (self.observers, self.flow, self.offered);
        Spec { members: 1, receivers, flow, offered_per_s, interface, ..spec }
    }
}

/// Measures fan-out and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let (common, spec) = (&settings.common, settings.spec());
    let mut systems = common.systems(PEERS, &[], &settings.also)?;
    if settings.sweep {
        return sweep::run(settings, &systems[0]);
    }
    let hosts = (settings.over == Place::Veth).then(|| Hosts::make(1 + settings.observers)).transpose()?;
    systems = match &hosts {
        Some(_) => measurable(&systems, "between hosts", |system| system.spans_hosts(common)),
        None => measurable(&systems, "on lo", |system| system.shares_a_host(common)),
    };
    if systems.is_empty() {
        return Err(Failure::Unusable("none of the systems can be measured there: choose --over veth, as root".into()));
    }
    let rounds = rounds(common, hosts.as_ref(), &systems, &spec)?;
    let rows: Vec<Row> =
        systems.iter().zip(&rounds).map(|(system, rounds)| row(common, system, &spec, rounds)).collect();
    show(common, &rows, &ratios(&systems, &rounds, "fanout rate"))
}

/// A row over rounds; the settings have what was offered and to how many.
fn row(common: &Common, system: &System, spec: &Spec, rounds: &[Round]) -> Row {
    let mut row = throughput::row(common, "fanout", system, spec, rounds);
    row.settings["over"] = if spec.interface == INTERFACE { "veth" } else { "lo" }.into();
    row.settings["observers"] = spec.receivers.into();
    row.settings["flow"] = serde_json::json!(spec.flow);
    row.settings["offered_per_s"] = spec.offered_per_s.into();
    let refused: u64 = rounds.iter().map(|round| round.near.refused).sum();
    row.extra.insert("refused".into(), refused.into());
    row
}
