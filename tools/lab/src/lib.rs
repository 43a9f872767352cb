//! Hosts to make trouble with, and a judge of what came out.
//!
//! A simulator runs the shipped code in a world of our own making, so it can only find what we thought of. Real kernels
//! reorder, buffer, forget group memberships and answer late. And a program that checks its own deliveries agrees with
//! its own mistakes. So this crate has two rooms, and neither knows a line of the engine:
//!
//! - the lab: [`hosts`] are network namespaces on a bridge, to run any program in, stop it, kill it, cut it off;
//!   [`rounds`] makes one kind of trouble again and again, [`matrix`] runs every guarantee once,
//!   [`deaths`] kills members while observers read on, [`locks`] kills the holder of a lock, [`chaos`] makes every kind of fault on a lossy network;
//! - the judge: [`history`] reads the files in which processes noted what they delivered, [`judge`] holds them to the
//!   guarantees of an order and a reliability.
//!
//! They meet only in files, so the judge judges a demo's histories just as well.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod deaths;
pub mod history;
pub mod hosts;
pub mod interrupt;
pub mod judge;
pub mod locks;
pub mod matrix;
pub mod probe;
pub mod record;
pub mod rounds;
