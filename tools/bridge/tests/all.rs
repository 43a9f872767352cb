//! All tests of this folder, in one program: it is built and linked once.

mod common;
mod inbound;
mod outbound;
mod refusals;

#[path = "../../../tools/skipped.rs"]
mod skipped;
