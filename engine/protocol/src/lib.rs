//! Bourdon's protocols as pure state machines.
//!
//! A protocol that reads a clock or a socket can be tested only by waiting and hoping. Here time, bytes and a seed come
//! in, effects go out, and nothing else happens: the simulator runs a thousand groups a second through every kind of
//! failure, and the real node runs the same code.
//!
//! # The step contract
//! One struct, [`Process`], is one group member or observer. Its owner calls, in any order, as often as it likes:
//!
//! - *inputs*: [`Process::on_datagram`] for each datagram received, [`Process::on_timer`] once
//!   [`Process::next_deadline`] has passed, [`Process::try_publish`] or [`Process::try_claim`] to send a message. `now`
//!   never falls.
//! - *effects*, drained after inputs: [`Process::transmit`] passes on what must be sent, [`Process::deliver`]
//!   the messages due to the application, [`Process::poll_event`] what else it should know.
//!
//! Nothing is sent or delivered but through these. A step costs no allocation once the group has settled.
//!
//! # The modules
//! [`data`] is every message: packing, windows, repair, order, stability, flow. [`control`] is rare decisions. They
//! meet only in `process.rs`.
//!
//! # Errors and panics
//! What comes from outside is discarded and counted ([`Counter`]); a call that can't be granted returns a [`Refusal`];
//! a panic is a bug in this crate.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
mod config;
pub mod control;
mod counters;
pub mod data;
mod event;
mod mutant;
mod names;
mod outbox;
mod process;
pub mod values;
pub mod view;

pub use client::DirectClient;
pub use client::{Client, ClientEvent, GroupState};
pub use config::{Config, ConfigError, Feedback, Limits, Order, Quorum, Reliability, Role, Start, Timing};
pub use control::coordination::{
    Coordination, CoordinationRefusal, ElectionKind, FencingToken, Leadership, LockId, LockNews, LockStanding, Loss,
    MutexKind, Participation, Patience,
};
pub use control::mutex::replicated::Grant;
pub use counters::{Counter, Counters};
pub use data::after::Satisfied;
pub use data::pack::{Claim, Outgoing};
pub use event::{CallId, Delivery, DirectFailure, DirectMessage, DirectOutcome, DirectRefusal, Event, Refusal};
pub use mutant::Mutant;
pub use outbox::Destination;
pub use process::{Held, Process, Standing, is_for_one};
pub use view::{Beginning, Member, View};
