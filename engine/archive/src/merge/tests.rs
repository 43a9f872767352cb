//! The merge, driven by a model of a group: what is published is recorded and comes live, with losses.
