//! `[detector]`: how failures are noticed.

use super::SettingsError;
use serde::{Deserialize, Serialize};

/// Which profile of times a group is watched by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// `default`, the default: failures show within 100 ms. Full load on a host rarely makes the group evict a member
    /// that lives.
    #[default]
    Default,
    /// `fast`: failures show within 20 ms, on hosts with cores to spare.
    Fast,
    /// `patient`: failures show within two seconds. For TCP over networks that lose packets, where a connection stalls
    /// 200 ms, then 400 and 800, for a segment whose retransmissions are lost. Also where members that live are
    /// removed though nothing failed: hosts with too few cores, virtual machines that are paused, debuggers.
    Patient,
}

/// How failures are noticed: each of four detectors suspects a member by itself. The group evicts a member once there
/// is hard evidence, or once more than half of the other members suspect it. Each process may have its own times.
///
/// ```toml
/// [detector]
/// profile = "default"
/// push = true
/// pull = true
/// phi = true
/// evidence = true
/// # suspect_after_ns = 80000000 # default: by the profile
/// # pull_after_ns = 70000000 # default: by the profile
/// # ping_interval_ns = 10000000 # default: by the profile
/// # phi_threshold = 8.0 # default: by the profile
/// ```
///
/// With all four off it is refused ([`NoDetector`](super::SettingsError::NoDetector)): no failure would ever be
/// noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DetectorSettings {
    /// The times that are not given below.
    ///
    /// Default [`Profile::Default`].
    pub profile: Profile,
    /// Whether a member is suspected that is not heard on the multicast path.
    ///
    /// Default `true`.
    pub push: bool,
    /// Whether a member is suspected that does not answer pings on the unicast path.
    ///
    /// Default `true`.
    pub pull: bool,
    /// Whether a member is suspected whose heartbeat is later than its history makes likely (phi accrual).
    ///
    /// Default `true`.
    pub phi: bool,
    /// Whether a member is taken for gone when its links are reset. It needs
    /// [`network.links`](super::NetworkSettings::links).
    ///
    /// Default `true`.
    pub evidence: bool,
    /// After how long a silence push suspects a member, in nanoseconds.
    ///
    /// Default: by the profile, 80 ms, 10 ms (`fast`) or 1.5 s (`patient`). More than 0 and less than a day
    /// ([`Detector`](super::SettingsError::Detector)).
    pub suspect_after_ns: Option<u64>,
    /// For how long pings stay unanswered until pull suspects a member, in nanoseconds.
    ///
    /// Default: by the profile, 70 ms, 10 ms (`fast`) or 1.5 s (`patient`). More than 0 and less than a day
    /// ([`Detector`](super::SettingsError::Detector)).
    pub pull_after_ns: Option<u64>,
    /// The time between two pings, in nanoseconds.
    ///
    /// Default: by the profile, 10 ms, 3 ms (`fast`) or 20 ms (`patient`). More than 0 and less than a day
    /// ([`Detector`](super::SettingsError::Detector)).
    pub ping_interval_ns: Option<u64>,
    /// The level φ from which phi suspects a member: one healthy gap between heartbeats in 10^φ is that long.
    ///
    /// Default: 8, in each profile. More than 0 and less than 300 ([`Detector`](super::SettingsError::Detector)).
    pub phi_threshold: Option<f64>,
    /// In a channel that leans on the group's detectors: its members' ranks in the group. All above is about the
    /// group's then. [`Settings::for_channel`](super::Settings::for_channel) sets it.
    #[serde(skip)]
    pub(crate) leans: Option<Vec<u16>>,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self {
            profile: Profile::Default,
            push: true,
            pull: true,
            phi: true,
            evidence: true,
            suspect_after_ns: None,
            pull_after_ns: None,
            ping_interval_ns: None,
            phi_threshold: None,
            leans: None,
        }
    }
}

impl DetectorSettings {
    /// Whether each time is in its range, and any detector is on.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        const DAY_NS: f64 = 86_400e9;
        let ns = |value: Option<u64>| value.map(|value| (value as f64, DAY_NS));
        for (what, value) in [
            ("suspect_after_ns", ns(self.suspect_after_ns)),
            ("pull_after_ns", ns(self.pull_after_ns)),
            ("ping_interval_ns", ns(self.ping_interval_ns)),
            ("phi_threshold", self.phi_threshold.map(|value| (value, 300.0))),
        ] {
            if let Some((value, most)) = value
                && !(value > 0.0 && value < most)
            {
                return Err(SettingsError::Detector { what, value });
            }
        }
        let any = self.push || self.pull || self.phi || self.evidence;
        if any { Ok(()) } else { Err(SettingsError::NoDetector) }
    }
}
