//! All tests of this folder, in one program: it is built and linked once.

mod black_hole;
mod commands;
mod common;
mod demo;
mod lab;
mod lock;
mod locks;
mod topics;
