//! How the harness and its members communicate: a line of JSON each way, over pipes.
//!
//! A member of a measured group is a process that the harness starts, configures, and sends commands while it runs.
//! Both ends read the one monotonic clock of their host, so that the times of one can be compared with the times of the
//! other.
//!
//! Invariant: a member ends when its harness does, by the end of its stdin or by its parent's death.

use crate::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The monotonic clock that all processes of a host share.
pub(crate) fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub(crate) fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

fn line(what: &impl Serialize) -> String {
    serde_json::to_string(what).expect("plain data becomes JSON") + "\n"
}

// ---- the harness ---------------------------------------------------------------------------------------------------

/// What a member of this rank, in this incarnation, has sent; `None` when it has ended.
pub(crate) type Word<S> = (u16, u32, Option<S>);

/// Starts a member by a command of this program, and forwards all that it sends.
pub(crate) fn start<S: DeserializeOwned + Send + 'static>(
    command: &mut Command,
    (rank, incarnation): (u16, u32),
    sender: Sender<Word<S>>,
) -> Result<Child, Failure> {
    let unusable = |error: std::io::Error| Failure::Unusable(format!("can't start a member: {error}"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(unusable)?;
    let stdout = child.stdout.take().expect("stdout is piped");
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let report = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let ends = report.is_none();
            if sender.send((rank, incarnation, report)).is_err() || ends {
                return;
            }
        }
        let _ = sender.send((rank, incarnation, None)); // the receiver is gone when the group ends
    });
    Ok(child)
}

/// Sends a member a command.
pub(crate) fn send(child: &mut Child, what: &impl Serialize) -> Result<(), Failure> {
    let stdin = child.stdin.as_mut().expect("stdin is piped");
    stdin.write_all(line(what).as_bytes()).map_err(broken)
}

// ---- the member ----------------------------------------------------------------------------------------------------

/// Sends the harness a report.
pub(crate) fn report(report: &impl Serialize) {
    // A harness that is gone has closed stdin too.
    let _ = std::io::stdout().write_all(line(report).as_bytes());
}

/// The configuration that the harness sends this process: the first line.
pub(crate) fn task<T: DeserializeOwned>() -> Result<T, Failure> {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut line = String::new();
    let task = std::io::stdin().read_line(&mut line).ok().and_then(|_| serde_json::from_str(&line).ok());
    task.ok_or_else(|| Failure::Unusable("this command is part of the harness, which starts it itself".into()))
}

/// The commands from then on; disconnected when stdin has ended.
pub(crate) fn listen<O: DeserializeOwned + Send + 'static>() -> Receiver<O> {
    let (sender, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if sender.send(order).is_err() {
                break;
            }
        }
    });
    orders
}
