//! `[detector]`: how failures are noticed.

use super::{Settings, SettingsError};
use serde::{Deserialize, Serialize};

/// Which profile of times a group is watched by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// Failures show within 100 ms; full load on a host rarely makes the group evict a member that lives.
    #[default]
    Default,
    /// Failures show within 20 ms, on hosts with cores to spare.
    Fast,
    /// Failures show within two seconds; a connection that retransmits evicts no member: for TCP where packets are
    /// lost.
    Patient,
}

/// How failures are noticed: any of four detectors suspects; see `bourdon_protocol::control::detector`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DetectorSettings {
    /// The times that are not given below.
    pub profile: Profile,
    /// Nothing heard on the multicast path.
    pub push: bool,
    /// Pings unanswered on the unicast path.
    pub pull: bool,
    /// Heartbeats later than the past makes likely.
    pub phi: bool,
    /// The process is gone: its links were reset.
    pub evidence: bool,
    /// Push suspects after so long.
    pub suspect_after_ns: Option<u64>,
    /// Pull suspects after so long.
    pub pull_after_ns: Option<u64>,
    /// Between two pings.
    pub ping_interval_ns: Option<u64>,
    /// Phi suspects at this level: a healthy gap is as long once in 10^φ.
    pub phi_threshold: Option<f64>,
    /// In a channel that leans on the group's detectors: its members' ranks in the group. All above is about the
    /// group's then. No file sets it: [`Settings::for_channel`] does.
    #[serde(skip)]
    pub leans: Option<Vec<u16>>,
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

impl Settings {
    /// Whether each time is in its range, and any detector is on.
    pub(super) fn check_detector(&self) -> Result<(), SettingsError> {
        const DAY_NS: f64 = 86_400e9;
        let detector = &self.detector;
        let ns = |value: Option<u64>| value.map(|value| (value as f64, DAY_NS));
        for (what, value) in [
            ("suspect_after_ns", ns(detector.suspect_after_ns)),
            ("pull_after_ns", ns(detector.pull_after_ns)),
            ("ping_interval_ns", ns(detector.ping_interval_ns)),
            ("phi_threshold", detector.phi_threshold.map(|value| (value, 300.0))),
        ] {
            if let Some((value, most)) = value
                && !(value > 0.0 && value < most)
            {
                return Err(SettingsError::Detector { what, value });
            }
        }
        let any = detector.push || detector.pull || detector.phi || detector.evidence;
        if any { Ok(()) } else { Err(SettingsError::NoDetector) }
    }
}
