//! The memory that a node allocates at its start: requested from the kernel before anything is opened.
//!
//! A size that can't be allocated ends the process by an abort, without a word about the option. So each size has an
//! upper bound, and those that are allocated at the start are reserved once and released again.

use super::{Role, Settings, SettingsError};
use std::hint::black_box;

/// A message's share of a ring that its header and its topic's name take.
pub(super) const MESSAGE_HEAD_BYTES: usize = 256;

impl Settings {
    /// Whether the kernel grants this process the memory of its logs.
    pub(crate) fn check_log_memory(&self) -> Result<(), SettingsError> {
        let (limits, is_member) = (&self.limits, self.process.role == Role::Member);
        reserve(&[
            ("limits.log_bytes", limits.log_bytes, usize::from(is_member)),
            (
                "limits.receive_log_bytes",
                limits.receive_log_bytes,
                usize::from(self.group.members.saturating_sub(u16::from(is_member))),
            ),
        ])
    }

    /// Whether the kernel grants this process the memory of so many rings.
    pub(crate) fn check_ring_memory(&self, publications: usize, subscriptions: usize) -> Result<(), SettingsError> {
        let threads = &self.threads;
        reserve(&[
            ("threads.publication_ring_bytes", threads.publication_ring_bytes, publications),
            ("threads.subscription_ring_bytes", threads.subscription_ring_bytes, subscriptions),
        ])
    }
}

/// Reserves all of it at once, each size so many times, and releases it.
fn reserve(sizes: &[(&'static str, usize, usize)]) -> Result<(), SettingsError> {
    let mut held = Vec::new();
    for (what, bytes, count) in sizes.iter().copied() {
        for _ in 0..count {
            let mut probe = Vec::<u8>::new();
            // With the bookkeeping: some 50 bytes for each datagram.
            let reserved = probe.try_reserve_exact(bytes + bytes / 16);
            reserved.map_err(|_| SettingsError::NoMemory { what, bytes, count })?;
            held.push(probe);
        }
    }
    black_box(held); // otherwise the compiler may leave the reservation out
    Ok(())
}
