//! All tests of this folder, in one program: it is built and linked once.

mod common;
mod conformance;
mod epoll;
mod host;
mod interfaces;
mod ipv6;
mod sandbox;
mod sockets;
mod sources;

#[path = "../../../tools/skipped.rs"]
mod skipped;
