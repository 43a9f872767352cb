//! All tests of this folder, in one program: it is built and linked once.

mod common;
mod conformance;
mod hostile;
mod killed;
mod killed_anywhere;
mod limits;
mod meet;
mod mixed;
mod peers;

#[path = "../../udp/tests/common/mod.rs"]
mod udp;

#[path = "../../../tools/skipped.rs"]
mod skipped;

#[path = "../../../tools/corpus.rs"]
mod replay;
