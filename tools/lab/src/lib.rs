//! Hosts to inject faults into, and a judge of the histories.
//!
//! A simulator runs the shipped code in an artificial world, so it finds only what its authors thought of. Real kernels
//! reorder, buffer, forget group memberships and answer late. And a program that checks its own deliveries agrees with
//! its own mistakes. So this crate has two parts, and neither uses any code of the engine (the members that
//! `bourdon-lab` starts do, and are no part of this library):
//!
//! - the lab: [`hosts`] are network namespaces on a bridge, in which any program runs, is stopped, killed or cut off;
//!   [`rounds`] injects one kind of fault again and again, [`matrix`] runs every guarantee once,
//!   [`deaths`] kills members while observers read on, [`locks`] kills the holder of a lock,
//!   [`subscriptions`] has subscribers of an archive stopped, slowed down and killed, [`chaos`] injects every
//!   kind of fault on a lossy network;
//! - the judge: [`history`] reads the files in which processes recorded their deliveries, [`judge`] checks the
//!   guarantees of an order and a reliability.
//!
//! The two parts share only files, so the judge judges a demo's histories just as well.
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
pub mod subscriptions;
