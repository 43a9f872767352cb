//! How seeds are run, and what is asked of each run.

use crate::demand::Demands;
use crate::guarantee::Guarantee;
use crate::plan::{Family, Kinds};
use bourdon_protocol::Mutant;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is judged in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing wrong happens, with faults to the end.
    Safety,
    /// Everything good happens once the faults freeze.
    Liveness,
    /// Both, in one run.
    #[default]
    Both,
}

/// Where power fails in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// At this member.
    pub member: usize,
    /// In this call to its disk that changes something, counted from 0.
    pub call: usize,
    /// Which of the states that the disk may be in it leaves.
    pub part: usize,
    /// Whether all members lose power then.
    pub all: bool,
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { member, call, part, all } = self;
        write!(f, "{member}:{call}:{part}{}", if *all { ":all" } else { "" })
    }
}

/// How to run seeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is judged in each run.
    pub mode: Mode,
    /// A bug to plant.
    pub mutate: Option<Mutant>,
    /// The one cell of the matrix that is played; without it, whatever the seeds draw.
    pub guarantee: Option<Guarantee>,
    /// Only plans of locks and elections are played, with these algorithms.
    pub locks: Option<Kinds>,
    /// Only plans of this family are played.
    pub family: Option<Family>,
    /// Every plan is played with members' control planes beside their processes.
    pub apart: bool,
    /// What is demanded beyond the invariants that every run is judged by.
    pub demands: Demands,
    /// Where power fails in a run, if it does.
    pub crash_point: Option<CrashPoint>,
    /// Threads to run seeds on; 0 counts as 1.
    pub threads: usize,
}
