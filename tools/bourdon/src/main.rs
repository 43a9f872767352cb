//! The `bourdon` command: one binary, with one file for each subcommand.
//!
//! Scripts and people read its output alike: data goes to stdout (one JSON object with `--json`, or one a line for a
//! stream), reports go to stderr, and the exit code is 0 (success), 1 (the check it makes failed, or what it ran
//! broke), 2 (bad usage, input or environment, with what to do on stderr) or 3 (not done in the time that was given).

mod admin;
mod archive;
mod demo;
mod elect;
mod event;
mod exit;
mod feedback;
mod held;
mod lock;
mod node;
mod place;
mod probe;
mod publish;
mod recover;
mod send;
mod session;
mod sim;
mod stat;
mod subscribe;
mod sync;
mod view;
mod wait;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Ordered, reliable group communication: run it, look at it, try to break it.
#[derive(Debug, Parser)]
#[command(name = "bourdon", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fan recorded or synthetic market data out to member and observer processes, and check what each delivered
    Demo(Box<demo::Args>),
    /// Publish lines or frames of stdin on a topic, as a client of the group
    Publish(publish::Args),
    /// Write what is published on a topic to stdout, as an observer of the group
    Subscribe(subscribe::Args),
    /// Describe, verify, replay, prune or export what `subscribe --archive` has recorded
    Archive(archive::Args),
    /// Send a message to one member, to the nearest, or to all that hear the network
    Send(send::Args),
    /// Run a member or observer from a configuration file
    Node(node::Args),
    /// Show the counters of the nodes running on this host
    Stat(stat::Args),
    /// Show the members of the group, as each node on this host sees them
    View(view::Args),
    /// Make the survivors a group again whose majority is gone for good
    Recover(recover::Args),
    /// Wait until everything sent before has been delivered everywhere
    Sync(sync::Args),
    /// Run a command while holding a lock of the group
    Lock(lock::Args),
    /// Stand in an election of the group, or watch it, and print the leader
    Elect(elect::Args),
    /// Run seeded groups in the simulator and check every guarantee
    Sim(sim::Args),
    /// One process of a demo; the demo starts these itself
    #[command(hide = true)]
    DemoProcess,
    /// The process that becomes the command of `bourdon lock`
    #[command(hide = true)]
    Held(held::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse(); // exits with 2 on bad usage
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(*args),
        Command::Publish(args) => publish::run(args),
        Command::Subscribe(args) => subscribe::run(args),
        Command::Archive(args) => archive::run(args),
        Command::Send(args) => send::run(args),
        Command::Node(args) => node::run(args),
        Command::Stat(args) => stat::run(args),
        Command::View(args) => view::run(args),
        Command::Recover(args) => recover::run(args),
        Command::Sync(args) => sync::run(args),
        Command::Lock(args) => lock::run(args),
        Command::Elect(args) => elect::run(args),
        Command::Held(args) => held::run(args),
        Command::Sim(args) => sim::run(args),
        Command::DemoProcess => demo::process::run(),
    };
    exit::code(outcome)
}
