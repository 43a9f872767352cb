//! The tree's own rules, as tests.
//!
//! An architecture page states which crate may depend on which, and a month later the code differs, because authors do
//! not read the page while they fix a bug. So each rule that a person would have to remember is a function from the
//! [`Tree`] to the places that break it; `tests/tree.rs` runs them all with the ordinary tests, and each reports what
//! to do. Rules have tests of their own with planted violations: a rule that has never failed may be unable to.
//!
//! - [`api`]: the public API of crate `bourdon` is the one that is listed, and described.
//! - [`circles`]: no circle of files inside a crate, and none between the planes of the protocols.
//! - [`layers`]: which crate may depend on which, and where transports may be named.
//! - [`purity`]: no clock, thread, socket or randomness in the protocols.
//! - [`safety`]: raw atomics and unsafe code stay in their files, with a proof.
//! - [`words`]: no words that hide which process does what.
//! - [`shape`]: headers, file and function sizes, asserts, lints.
//! - [`pages`]: every protocol and frame has its page, every link a target, no text what it shouldn't.

pub mod api;
pub mod circles;
pub mod layers;
pub mod pages;
pub mod purity;
pub mod safety;
pub mod shape;
mod source;
mod tree;
pub mod words;

pub use source::code;
pub use tree::{File, Tree};
