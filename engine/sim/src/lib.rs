//! A deterministic world for the shipped protocol code.
//!
//! A protocol that has only met a quiet network has not been tested, and a failure that cannot be repeated cannot be
//! mended. So whole groups run here in one thread on a clock that is a number: a seed draws a [`Plan`] (which members
//! take part, how large everything is, what goes wrong), the [`world`] plays it with the very
//! [`Process`](bourdon_protocol::Process) that the real node runs, and the [`checkers`] judge the result without
//! sharing a line with the protocol. The same seed gives the same run, event for event.
//!
//! Checkers that have never failed may be unable to, so [`check_mutants`] plants known bugs and requires that each one
//! is caught, by the invariant that it breaks; harmless changes must pass.
//!
//! `docs/simulator.md` is the page to this crate.

#![forbid(unsafe_code)]

mod campaign;
pub mod checkers;
mod clock;
mod control;
mod demand;
mod disk;
mod enumerate;
mod feedback;
mod guarantee;
mod history;
pub mod hostile;
mod locker;
mod matrix;
mod mutation;
mod names;
mod network;
mod node;
mod options;
mod plan;
mod regression;
mod report;
mod runner;
mod shrink;
mod violation;
mod world;

pub use bourdon_protocol::{ElectionKind, Mutant, MutexKind, Order, Reliability, Start};
pub use campaign::check_mutants;
pub use demand::{Demand, Demands};
pub use enumerate::{ScriptedCrash, enumerate_crashes, run_scripted_crash};
pub use feedback::{FeedbackMode, FeedbackOutcome, FeedbackPlan, Loss, play_feedback};
pub use guarantee::Guarantee;
pub use matrix::{Cell, matrix};
pub use network::Faults;
pub use options::{CrashPoint, Mode, Options};
pub use plan::{
    DetectorPlan, EventPlan, Family, FaultPlan, HandOverPlan, Happening, Kinds, LockPlan, ObserverPlan, Plan,
    ReplayPlan, RestartPlan, StallPlan,
};
pub use regression::{Regression, RegressionRun};
pub use report::{Failure, Report};
pub use runner::{plan_of, run, run_plan};
pub use world::{Outcome, play};
