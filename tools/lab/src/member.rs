//! The processes of a group that the lab starts: members and observers, clients, and members that share a lock.
//!
//! They are what the lab tests, so they run the shipped engine. Nothing else in this package does, above all not the
//! judge: it reads the files that they write.

mod client;
mod deliveries;
mod inline;
mod locker;
mod messages;
mod names;
mod process;
mod threaded;

pub(crate) use client::{Args as ClientArgs, run as run_client};
pub(crate) use locker::{Args as LockerArgs, run as run_locker};
pub(crate) use process::{Args as MemberArgs, run as run_member};

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};

/// Why a process did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What it ran broke: exit 1.
    Broken(String),
    /// Bad usage or environment: exit 2.
    Unusable(String),
}

impl Failure {
    fn broken(why: impl Display) -> Self {
        Self::Broken(why.to_string())
    }

    fn unusable(why: impl Display) -> Self {
        Self::Unusable(why.to_string())
    }
}

/// How a process ends: as an unusable environment does for every command of the lab, or with 1.
pub(crate) fn outcome(result: Result<(), Failure>) -> Result<ExitCode, String> {
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Failure::Unusable(why)) => Err(why),
        Err(Failure::Broken(why)) => {
            eprintln!("bourdon-lab: {why}");
            Ok(ExitCode::from(1))
        }
    }
}

/// Reads a value by its name in a configuration.
fn named<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// Disconnected once `wait` returns: this process is asked to end.
fn ending_of(wait: impl FnOnce() + Send + 'static, wake: impl FnOnce() + Send + 'static) -> Receiver<()> {
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        wait();
        drop(sender);
        wake();
    });
    ended
}
