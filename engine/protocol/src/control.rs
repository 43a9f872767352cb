//! The control plane: rare decisions. It meets the data plane only in `process.rs`.

pub(crate) mod clients;
pub(crate) mod clock_sync;
pub(crate) mod cookie;
pub mod coordination;
pub mod coordinator;
pub mod detector;
pub(crate) mod direct;
pub mod discovery;
pub(crate) mod election;
pub(crate) mod heartbeat;
pub mod membership;
pub(crate) mod mutex;
pub(crate) mod perfect_link;
pub(crate) mod plausibility;
pub(crate) mod presence;
pub mod quorum;
pub(crate) mod state_transfer;
pub mod view_change;
