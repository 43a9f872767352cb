//! All tests of this folder, in one program: it is built and linked once.

mod acknowledged;
mod after;
mod archives;
mod beside;
mod builder;
mod channels;
mod closing;
mod common;
mod configuration;
mod direct;
mod durable;
mod environment;
mod inline_locks;
mod locks;
mod mesh;
mod mixed;
mod order_book;
mod places;
mod requests;
mod roles;
mod setups;
mod shm;
mod snapshots;
#[cfg(feature = "tokio")]
mod stream;
mod subscriptions;
mod threaded;

#[path = "../../../tools/skipped.rs"]
mod skipped;
