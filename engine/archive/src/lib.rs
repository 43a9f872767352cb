//! Archives of what a group delivered, and subscriptions that go on from an archive to live.
//!
//! **Problem.** What was published is gone once no member retains it. A subscriber that joins late, falls behind or is
//! restarted has to read it from an archive, and then find the place where it may go on live. If it errs there, it
//! delivers messages twice, or not at all.
//!
//! **Rule.** A [`Recorder`] appends each message that a process delivers to a [log](bourdon_log), in the order of
//! delivery. An [`Archive`] reads it, also while it is recorded. [`Merge`] decides what one subscription delivers: it
//! is pure, takes live messages, archived messages and the time as arguments, and has no clock, file, thread or socket.
//! A [`Replay`] reads an archive for it on a thread of its own.
//!
//! The page is `docs/archive.md`.

mod archive;
mod entry;
mod error;
mod merge;
mod recorder;
mod replay;

pub use archive::{Archive, Archived};
pub use entry::{Entry, Recorded};
pub use error::Error;
pub use merge::{Merge, Mode, Notice, Output, Position, Rule, StartAt, Waiting, Why};
pub use recorder::{Recorder, wall_ns};
pub use replay::{Batch, Replay};
