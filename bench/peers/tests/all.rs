//! All tests of this folder, in one program: it is built and linked once.

mod smoke;

#[path = "../../../tools/skipped.rs"]
mod skipped;
