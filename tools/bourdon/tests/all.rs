//! All tests of this folder, in one program: it is built and linked once.

mod archive;
mod commands;
mod common;
mod demo;
mod disk;
mod hosts;
mod lock;
mod matrix;
mod outputs;
mod recover;
mod setups;
mod topics;
mod waits;

#[path = "../../../tools/skipped.rs"]
mod skipped;
