//! A group in one process, to measure the engine's own cost by.
//!
//! Wall time on a shared host depends more on the neighbours than on a change of ten instructions, and a kernel
//! socket costs a hundred times what is to be measured. So here [`Process`](bourdon_protocol::Process) runs over the
//! port in memory with a clock that is a number: the same work is the same instructions, run after run.
//!
//! [`group`] is that group, [`workload`] what it is made to do, [`gates`] counts instructions and compares them with
//! `gates.toml`. [`costs`] counts what each [`guarantee`] costs, to be read and not gated. `benches/hot_path.rs` takes
//! wall time over the same group.

pub mod costs;
pub mod gates;
pub mod group;
pub mod guarantee;
pub mod workload;
