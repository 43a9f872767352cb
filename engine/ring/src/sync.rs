//! The only access to atomics, so that a model checker can replace them.
//!
//! **Problem.** A test on one machine sees only the interleavings and reorderings that machine makes.
//! **Why the obvious way fails.** Stress tests pass for weeks on x86 with an ordering that is wrong,
//! since x86 hardly reorders.
//! **What this does.** Under `--cfg loom` the same names are loom's, which enumerates executions that
//! the C11 memory model allows; otherwise they are std's. It is a cfg and not a cargo feature because
//! features unify: one crate asking for loom would silently give it to all.
//! **Invariant.** No other file of this crate, and no other crate of the project, names an atomic type
//! from core or std.
//! **Source.** Norris and Demsky, "CDSChecker" (OOPSLA 2013), which loom implements.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
