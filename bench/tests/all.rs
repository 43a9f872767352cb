//! All tests of this folder, in one program: it is built and linked once.

mod detect;
mod elect;
mod lock;
mod total_order;

#[path = "../../tools/skipped.rs"]
mod skipped;
