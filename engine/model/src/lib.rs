//! Every state of a small group that changes its view.
//!
//! A view change goes wrong in schedules that no author thinks of: a proposer dies between two acceptances, a promise
//! for one ballot is counted in another, a datagram is acknowledged a moment after its acknowledger promised to stop.
//! Random simulation finds some of them. Here the shipped code ([`bourdon_protocol::control::view_change::ViewChange`])
//! is put into a group of three to five members with a handful of datagrams, and *every* order of sending, losing,
//! repeating, suspecting, crashing and deciding is tried. The search is breadth first, so that a failure is found in as
//! few steps as possible.
//!
//! - [`state`]: one moment of the group; [`trace`]: what led to it, in words.
//! - [`group`]: what may happen next; [`driver`]: what a process does around `ViewChange`.
//! - [`properties`]: what must hold; [`search`]: whether it holds in every state.
//! - [`reach`]: whether the group can always go on; [`budget`]: when a search gives up.
//! - [`plan`]: the planted bugs, and the smallest group that shows each.
//!
//! `docs/model.md` lists what is left out. Source of the method: Lamport, "Specifying systems" (2002), chapter 14.

#![forbid(unsafe_code)]

pub mod bounds;
pub mod budget;
pub mod driver;
pub mod group;
pub mod plan;
pub mod properties;
pub mod reach;
pub mod search;
pub mod state;
pub mod trace;
