//! Bourdon's protocols as pure state machines.
//!
//! A protocol that reads a clock or a socket can be tested only by waiting and hoping. Here time, bytes and a seed come
//! in, effects go out, and nothing else happens: the simulator runs a thousand groups a second through every kind of
//! failure, and the real node runs the same code.
//!
//! # The step contract
//! One struct, [`Process`], is one group member or observer. It acts only in its owner's calls. In each, `now` is not
//! below the `now` of the call before. A round of an owner is, in this order:
//!
//! 1. *What has come*: [`Process::take_in`] or [`Process::on_datagram`] for each datagram received,
//!    [`Process::on_evidence`] for a connection that ended with its process. [`Process::order`] orders it at once; if
//!    it is not called, [`Process::transmit`] does.
//! 2. *What is due to the application*: [`Process::deliver`] until it returns 0, or [`Process::deliver_after`] where
//!    messages may depend on another group. It stops where an event has its place between the messages
//!    ([`Event::is_ordered`]), and goes on once that event was fetched. After each call the owner fetches
//!    [`Process::poll_event`] until it is empty; then [`Process::take_snapshot`], before which nothing is delivered if
//!    a snapshot has come, and [`Process::begin_snapshot`], which [`Process::finish_snapshot`] completes in any later
//!    round; then [`Process::poll_coordination`], [`Process::poll_direct`], [`Process::poll_outcome`].
//! 3. *Time*: [`Process::on_timer`] if [`Process::next_deadline`] has passed. Once all of a decided epoch has been
//!    delivered, that deadline is due, and this call enters the view that comes next.
//! 4. *What the application asks*, each granted or refused at once: [`Process::try_publish`], [`Process::try_claim`],
//!    [`Process::sync`], [`Process::leave`], [`Process::hand_over`]; [`Process::lock`], [`Process::unlock`],
//!    [`Process::elect`], [`Process::resign`], [`Process::leave_election`]; [`Process::send`].
//! 5. *What must be sent*: [`Process::transmit`]. What the network does not take is offered again in the next round.
//!
//! Another order is safe, and only slower: nothing is lost and no promise is broken by a step that is late. Nothing is
//! sent, delivered or reported but through these calls; all else that is public only reads. A step costs no allocation
//! once the group has settled.
//!
//! # The modules
//! [`data`] is every message: packing, windows, repair, order, stability, flow. [`control`] is rare decisions. They
//! meet only in `process.rs` and `process/`, whose parts are handed what all of them need as one `Context`.
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
mod ranks;
mod refusal;
pub mod values;
pub mod view;

pub use client::{Client, ClientEvent, GroupState};
pub use config::{
    Agreed, Config, ConfigError, Difference, Feedback, Flow, Limits, Order, Quorum, Rate, Reliability, Role,
    SettingValue, Start, Timing,
};
pub use control::coordination::{
    Coordination, CoordinationRefusal, ElectionKind, FencingToken, Leadership, LockId, LockNews, LockStanding, Loss,
    MutexKind, Participation, Patience,
};
pub use control::coordinator::{Coordinator, FromCoordinator, ToCoordinator};
pub use control::mutex::replicated::Grant;
pub use control::recovery::{Obstacle, Recovery};
pub use control::state_transfer::{SnapshotAnswer, SnapshotTicket};
pub use control::{ControlPlane, FromControl, ToControl};
pub use counters::{Counter, Counters};
pub use data::after::Satisfied;
pub use data::flow::HeldBy;
pub use data::pack::{Claim, Outgoing};
pub use event::{
    CallId, DirectAnswer, DirectContent, DirectFailure, DirectKind, DirectMessage, DirectOutcome, DirectRequest, Event,
    InterfaceName, Message, NarrowPaths, NetworkLoss, Reach, To, Waiting,
};
pub use mutant::Mutant;
pub use outbox::Destination;
pub use process::{Again, MemoryUse, Process, Standing, begins_view, ends_stored_state, is_for_one};
pub use ranks::Ranks;
pub use refusal::Refusal;
pub use view::{Beginning, Member, View};
