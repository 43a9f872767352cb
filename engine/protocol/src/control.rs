//! The control plane: rare decisions. It meets the data plane only in `process.rs`.

pub(crate) mod clients;
pub(crate) mod heartbeat;
pub(crate) mod presence;
pub mod view_change;
