//! All tests of this folder, in one program: it is built and linked once.

mod adversaries;
mod black_hole;
mod common;
mod conformance;
mod killed;

#[path = "../../../tools/skipped.rs"]
mod skipped;
