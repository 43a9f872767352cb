//! `[limits]`: sizes and rates.

use super::SettingsError;
use super::memory::MESSAGE_HEAD_BYTES;
use super::ranges::{in_range, is_at_most};
use bourdon_protocol::Limits;
use bourdon_wire::MTU_MIN_BYTES;
use serde::{Deserialize, Serialize};

/// The most bytes of a log or a snapshot: minutes of a stream at full speed.
const LOG_MAX_BYTES: usize = 16 << 30;
/// Four messages and what their headers take fit the largest ring.
const MESSAGE_MAX_BYTES: usize = bourdon_ring::spsc::MAX_CAPACITY_BYTES / 4 - MESSAGE_HEAD_BYTES;
/// More repairs than any host sends.
const REPAIRS_MAX: u32 = 100_000_000;
/// The ranks and as many observers as any group has.
const RECEIVERS_MAX: u32 = 1_000_000;

/// Sizes and rates: the bounds of everything that can grow.
///
/// ```toml
/// [limits]
/// mtu_bytes = 1408
/// log_bytes = 67108864
/// receive_log_bytes = 16777216
/// max_message_bytes = 1048576
/// receivers = 8
/// repairs_per_s = 50000
/// max_snapshot_bytes = 268435456
/// prefault = false
/// ```
///
/// Memory that the kernel does not grant this process is refused before anything is opened
/// ([`NoMemory`](super::SettingsError::NoMemory)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitSettings {
    /// The longest datagram's payload, in bytes. More than the path's MTU makes IP fragments. A process
    /// reports at its start, in [`Info::fallback`](crate::Info::fallback), that its interface's MTU is smaller.
    ///
    /// Default 1408. From 1280 to 65507 ([`Range`](super::SettingsError::Range)). The same at all processes.
    pub mtu_bytes: usize,
    /// How many bytes of its own stream a member retains: its window, and what other processes may still request.
    ///
    /// Default 64 MiB. At least 16 × `mtu_bytes` ([`Protocol`](super::SettingsError::Protocol)), at most 16 GiB
    /// ([`TooLarge`](super::SettingsError::TooLarge)). Each process may have its own.
    pub log_bytes: usize,
    /// How many bytes of each other member's stream a process retains.
    ///
    /// Default 16 MiB. At least 16 × `mtu_bytes` ([`Protocol`](super::SettingsError::Protocol)), at most 16 GiB
    /// ([`TooLarge`](super::SettingsError::TooLarge)). Each process may have its own.
    pub receive_log_bytes: usize,
    /// The longest message, in bytes. A sender also refuses a message that is longer than a quarter of its window.
    ///
    /// Default 1 MiB. From 1 ([`Range`](super::SettingsError::Range)) to a quarter of 1 GiB less 256 bytes
    /// ([`TooLarge`](super::SettingsError::TooLarge)), and a quarter of each ring of
    /// [`threads`](super::ThreadSettings). The same at all processes.
    pub max_message_bytes: usize,
    /// An estimate of how many processes receive each multicast. If it is more than 8, receivers wait a random time
    /// before they request a repair.
    ///
    /// Default 8. From 1 to 1,000,000 ([`Range`](super::SettingsError::Range)). Each process may have its own.
    pub receivers: u32,
    /// The most repairs that this process sends in a second, so that one receiver can't take the network down.
    ///
    /// Default 50,000. From 1 to 100,000,000 ([`Range`](super::SettingsError::Range)). Each process may have its own.
    pub repairs_per_s: u32,
    /// The longest snapshot that this process gives or takes, in bytes; it is kept in memory whole.
    ///
    /// Default 256 MiB. From 1 ([`Range`](super::SettingsError::Range)) to 16 GiB
    /// ([`TooLarge`](super::SettingsError::TooLarge)). Each process may have its own; a snapshot that is longer here or
    /// at its donor keeps a joiner out ([`SnapshotTooLarge`](crate::Event::SnapshotTooLarge)).
    pub max_snapshot_bytes: usize,
    /// Whether the logs' memory is touched at the start instead of at first use: for latency. The process then takes
    /// `log_bytes`, and `receive_log_bytes` for each other member, at once.
    ///
    /// Default `false`. Each process may have its own.
    pub prefault: bool,
}

impl Default for LimitSettings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            mtu_bytes: limits.mtu_bytes,
            log_bytes: limits.log_bytes,
            receive_log_bytes: limits.receive_log_bytes,
            max_message_bytes: limits.max_message_bytes,
            receivers: limits.receivers,
            repairs_per_s: limits.repairs_per_s,
            max_snapshot_bytes: limits.max_snapshot_bytes,
            prefault: limits.prefault,
        }
    }
}

impl LimitSettings {
    /// The protocol's limits, with a window and a stored view of so many bytes.
    pub(super) fn protocol(&self, window_bytes: usize, stored_view_bytes: u64) -> Limits {
        Limits {
            mtu_bytes: self.mtu_bytes,
            log_bytes: self.log_bytes,
            receive_log_bytes: self.receive_log_bytes,
            window_bytes,
            max_message_bytes: self.max_message_bytes,
            receivers: self.receivers,
            repairs_per_s: self.repairs_per_s,
            max_snapshot_bytes: self.max_snapshot_bytes,
            stored_view_bytes,
            prefault: self.prefault,
        }
    }

    /// Whether each size and count is in its range.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        in_range("limits.mtu_bytes", self.mtu_bytes as u64, MTU_MIN_BYTES as u64, Limits::MTU_MAX_BYTES as u64)?;
        is_at_most("limits.log_bytes", self.log_bytes, LOG_MAX_BYTES)?;
        is_at_most("limits.receive_log_bytes", self.receive_log_bytes, LOG_MAX_BYTES)?;
        is_at_most("limits.max_snapshot_bytes", self.max_snapshot_bytes, LOG_MAX_BYTES)?;
        is_at_most("limits.max_message_bytes", self.max_message_bytes, MESSAGE_MAX_BYTES)?;
        in_range("limits.max_message_bytes", self.max_message_bytes as u64, 1, MESSAGE_MAX_BYTES as u64)?;
        in_range("limits.max_snapshot_bytes", self.max_snapshot_bytes as u64, 1, LOG_MAX_BYTES as u64)?;
        in_range("limits.receivers", self.receivers, 1, RECEIVERS_MAX)?;
        in_range("limits.repairs_per_s", self.repairs_per_s, 1, REPAIRS_MAX)
    }
}
