//! `bourdon-bridge`: carries a group's messages into a stream of NATS JetStream, and a stream's messages into a group.
//!
//! A group spans one site. What goes further goes through a store that both sites reach, and each message must get
//! there once: a bridge is killed, a server restarts, an acknowledgement is lost. The bridge keeps no state of its
//! own. What has been carried stands in the stream (`outbound`) or in the group (`inbound`), and a second bridge is
//! refused.
#![forbid(unsafe_code)]

mod failure;
mod group;
mod headers;
mod inbound;
mod nats;
mod outbound;
mod position;
mod wait;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;
use wait::Run;

#[derive(Parser)]
#[command(name = "bourdon-bridge", version, about = "Carries messages between a group and a stream of NATS JetStream")]
struct Cli {
    #[command(subcommand)]
    direction: Direction,
}

#[derive(Subcommand)]
enum Direction {
    /// Publishes a group's messages into a stream, each once, in the group's order
    Out(outbound::Args),
    /// Publishes a stream's messages in a group, each once, in the stream's order
    In(inbound::Args),
}

fn main() -> ExitCode {
    let direction = Cli::parse().direction;
    let run = Run::until_signal().map_err(Failure::unusable);
    failure::code(run.and_then(|run| match direction {
        Direction::Out(args) => outbound::run(&args, &run),
        Direction::In(args) => inbound::run(&args, &run),
    }))
}
