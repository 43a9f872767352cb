//! All tests of this folder, in one program: it is built and linked once.

mod bypass;
mod common;
mod conformance;
mod host;
mod refusals;

#[path = "../../../tools/skipped.rs"]
mod skipped;
