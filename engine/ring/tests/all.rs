//! All tests of this folder, in one program: it is built and linked once.

mod broadcast;
mod counters;
mod log;
mod spsc;

#[path = "../../../tools/corpus.rs"]
mod replay;
