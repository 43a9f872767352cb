//! All tests of this folder, in one program: it is built and linked once.

mod adversaries;
mod black_hole;
mod common;
mod conformance;
mod host;
mod killed;

#[path = "../../udp/tests/common/mod.rs"]
mod network;

#[path = "../../../tools/skipped.rs"]
mod skipped;
