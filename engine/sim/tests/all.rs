//! All tests of this folder, in one program: it is built and linked once.

mod corpus;
mod feedback;
mod named;
mod regressions;
mod smoke;

#[path = "../../../tools/corpus.rs"]
mod replay;
