//! Everything lock-free in Bourdon, and every raw atomic.
//!
//! **Problem.** The threads of a node pass frames and figures to each other millions of times a second. A lock or a
//! channel of boxed messages costs more than the message.
//!
//! **Why the obvious way fails.** Atomics placed wherever they are needed cannot be reviewed or model-checked: an
//! ordering bug is a line that looks right and fails once a month on another CPU.
//!
//! **What is here instead.** A few structures, each with one writer for each word, each model-checked:
//!
//! | module | what it carries | when the receiver is slow |
//! |---|---|---|
//! | [`spsc`] | frames from one thread to one other, in place | the producer gets `Full` |
//! | [`broadcast`] | frames from one thread to any number | it loses frames and gets their number, or gates |
//! | [`log`] | records from one process to any number of others | it loses the oldest |
//! | [`counters`] | figures for any thread to read, other processes too | nothing is queued |
//! | [`signal`] | a stop flag; a watermark that publishes what lies below it; a doorbell | nothing is queued |
//!
//! **Invariants.** No word has two writers, so there is no compare-and-swap and no locked instruction
//! on any path. Positions are `u64` byte counts that never wrap (58 years at 10 GB/s). No operation
//! waits, and none allocates after construction.
//!
//! **Checked by** `RUSTFLAGS="--cfg loom" cargo test -p bourdon-ring --release --test loom --test loom_doorbell --test
//! loom_log`, which explores the interleavings and the weak-memory outcomes of each structure.

pub mod broadcast;
mod buffer;
mod cells;
pub mod counters;
mod frame;
pub mod log;
mod marks;
pub mod signal;
pub mod spsc;
mod sync;
