//! Values that the data plane and the control plane exchange. They know neither.

pub mod cut;
pub(crate) mod handover;
pub(crate) mod position;

pub(crate) mod run;
