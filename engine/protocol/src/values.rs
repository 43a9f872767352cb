//! Values that the data plane and the control plane exchange. They know neither.

pub(crate) mod ballot_number;
pub mod cut;
pub(crate) mod position;

pub(crate) mod run;
