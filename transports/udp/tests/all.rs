//! All tests of this folder, in one program: it is built and linked once.

mod common;
mod conformance;
mod epoll;
mod interfaces;
mod ipv6;
mod sockets;
mod sources;
mod without_io_uring;

#[path = "../../../tools/skipped.rs"]
mod skipped;
