//! The group-communication protocols as pure state machines: time and bytes in, effects out
