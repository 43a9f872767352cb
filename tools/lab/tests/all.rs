//! All tests of this folder, in one program: it is built and linked once.

mod black_hole;
mod campaigns;
mod hosts;
mod judge;
mod locks;
mod mixed;
mod rounds;

#[path = "../../../tools/skipped.rs"]
mod skipped;
