//! The sizes that a node allocates: bounded by name, and requested from the kernel before anything is opened.
//!
//! A size that can't be allocated ends the process by an abort, without a word about the option. So each size has an
//! upper bound, and those that are allocated at the start are reserved once and released again.

use super::{Role, Settings, SettingsError};
use std::hint::black_box;

/// The most bytes of a log or a snapshot: minutes of a stream at full speed.
pub(super) const LOG_MAX_BYTES: usize = 16 << 30;
/// The kernel counts a receive buffer in 31 bits, and doubles what is requested.
const RECEIVE_BUFFER_MAX_BYTES: usize = 1 << 30;
/// A message's share of a ring that its header and its topic's name take.
const MESSAGE_HEAD_BYTES: usize = 256;
/// Four messages and what their headers take fit the largest ring.
pub(super) const MESSAGE_MAX_BYTES: usize = bourdon_ring::spsc::MAX_CAPACITY_BYTES / 4 - MESSAGE_HEAD_BYTES;

impl Settings {
    /// Whether each size is at most its bound.
    pub(super) fn check_sizes(&self) -> Result<(), SettingsError> {
        let limits = &self.limits;
        for (what, bytes, most) in [
            ("limits.log_bytes", limits.log_bytes, LOG_MAX_BYTES),
            ("limits.receive_log_bytes", limits.receive_log_bytes, LOG_MAX_BYTES),
            ("limits.max_snapshot_bytes", limits.max_snapshot_bytes, LOG_MAX_BYTES),
            ("limits.max_message_bytes", limits.max_message_bytes, MESSAGE_MAX_BYTES),
            ("network.receive_buffer_bytes", self.network.receive_buffer_bytes, RECEIVE_BUFFER_MAX_BYTES),
        ] {
            if bytes > most {
                return Err(SettingsError::TooLarge { what, bytes, most });
            }
        }
        self.check_rings()
    }

    /// Four of the longest messages fit a ring: with half, one might never fit behind what is left of another.
    fn check_rings(&self) -> Result<(), SettingsError> {
        let most = bourdon_ring::spsc::MAX_CAPACITY_BYTES;
        let least = self.limits.max_message_bytes.saturating_add(MESSAGE_HEAD_BYTES).saturating_mul(4);
        let threads = &self.threads;
        for (what, bytes) in [
            ("publication_ring_bytes", threads.publication_ring_bytes),
            ("subscription_ring_bytes", threads.subscription_ring_bytes),
        ] {
            if !(least..=most).contains(&bytes) {
                return Err(SettingsError::Ring { what, bytes, least, most });
            }
        }
        Ok(())
    }

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
