//! Settings that have no effect beside another: refused at the start, whichever way they were given.
//!
//! A key that does nothing beside another is a mistake in one of the two, and is found only when what it was set for is
//! missing. A default is no such mistake: it adapts, or has no effect.

use super::{Flow, FlowSettings, MutexKind, Order, Settings, SettingsError, TimingSettings, Transport};
use crate::config::GroupSettings;
use serde::Serialize;

impl GroupSettings {
    /// Whether all members deliver the same messages in one order: what replicated locks follow.
    pub(super) fn has_total_order(&self) -> bool {
        self.order == Order::Total && !self.reliability.is_lossy()
    }
}

/// Refuses a key whose value has no effect.
fn refuse(is_void: bool, key: &'static str, value: impl Serialize, why: &'static str) -> Result<(), SettingsError> {
    if !is_void {
        return Ok(());
    }
    let value = serde_json::to_value(value).map(|value| value.to_string()).unwrap_or_default();
    Err(SettingsError::NoEffect { key, value, why })
}

impl Settings {
    /// Whether every value that was set has an effect.
    pub(super) fn check_effects(&self) -> Result<(), SettingsError> {
        self.check_group_effects()?;
        self.check_detector_effects()?;
        self.check_network_effects()?;
        let (timing, flow) = (&self.timing, &self.flow);
        refuse(
            timing.nak_retry_min_ns > timing.nak_retry_max_ns,
            "timing.nak_retry_min_ns",
            timing.nak_retry_min_ns,
            "more than timing.nak_retry_max_ns: lower it, or raise the other",
        )?;
        let is_set = timing.heartbeat_min_ns != TimingSettings::default().heartbeat_min_ns;
        let heartbeat_max_ns = self.protocol(usize::MAX).timing.heartbeat_max_ns;
        refuse(
            is_set && timing.heartbeat_min_ns > heartbeat_max_ns,
            "timing.heartbeat_min_ns",
            timing.heartbeat_min_ns,
            "more than timing.heartbeat_max_ns, which is by detector.profile unless it is set: lower it, or raise the \
             other",
        )?;
        let modes = || self.channels.iter().filter_map(|channel| channel.flow).chain([flow.mode]);
        let is_set = flow.gating_timeout_ns != FlowSettings::default().gating_timeout_ns;
        refuse(
            is_set && !modes().any(|mode| mode == Flow::Gating),
            "flow.gating_timeout_ns",
            flow.gating_timeout_ns,
            "and no publisher waits for observers: set flow.mode = \"gating\", or remove it",
        )?;
        refuse(
            flow.rate_floor_bytes_per_s.is_some() && modes().all(|mode| mode == Flow::Free),
            "flow.rate_floor_bytes_per_s",
            flow.rate_floor_bytes_per_s,
            "and observers lower no publisher's rate: set flow.mode = \"paced\", or remove it",
        )
    }

    fn check_group_effects(&self) -> Result<(), SettingsError> {
        let group = &self.group;
        refuse(
            group.mutex == Some(MutexKind::Replicated) && !group.has_total_order(),
            "group.mutex",
            group.mutex,
            "which needs group.order = \"total\" and group.reliability = \"reliable\" or above: set these, or \
             group.mutex = \"central\", \"lamport\", \"ricart-agrawala\" or \"token-ring\"",
        )
    }

    fn check_detector_effects(&self) -> Result<(), SettingsError> {
        let detector = &self.detector;
        refuse(
            detector.pull_after_ns.is_some() && !detector.pull,
            "detector.pull_after_ns",
            detector.pull_after_ns,
            "and detector.pull is off: turn it on, or remove the time",
        )?;
        refuse(
            detector.ping_interval_ns.is_some() && !detector.pull,
            "detector.ping_interval_ns",
            detector.ping_interval_ns,
            "and detector.pull is off: turn it on, or remove the time",
        )?;
        refuse(
            detector.phi_threshold.is_some() && !detector.phi,
            "detector.phi_threshold",
            detector.phi_threshold,
            "and detector.phi is off: turn it on, or remove the threshold",
        )
    }

    fn check_network_effects(&self) -> Result<(), SettingsError> {
        let network = &self.network;
        let has_mesh = matches!(network.transport, Transport::Tcp | Transport::Auto);
        refuse(
            !has_mesh && !network.peers.is_empty(),
            "network.peers",
            &network.peers,
            "which is for connections: set network.transport = \"tcp\" or \"auto\", or remove it",
        )?;
        refuse(
            !has_mesh && network.listen.is_some(),
            "network.listen",
            network.listen,
            "which is for connections: set network.transport = \"tcp\" or \"auto\", or remove it",
        )?;
        refuse(
            network.xdp_zero_copy && network.transport != Transport::Xdp,
            "network.xdp_zero_copy",
            network.xdp_zero_copy,
            "which is for AF_XDP: set network.transport = \"xdp\", or remove it",
        )?;
        refuse(
            network.transport == Transport::Tcp && network.ttl != 1,
            "network.ttl",
            network.ttl,
            "which is for multicast: remove it, or set network.transport = \"auto\"",
        )?;
        let is_shared = network.transport == Transport::Shm;
        refuse(
            is_shared && network.interface != "lo",
            "network.interface",
            &network.interface,
            "and shared memory reaches the processes of this host only: remove it, or set network.transport = \"udp\" \
             at all processes",
        )?;
        refuse(
            is_shared && !network.sources.is_empty(),
            "network.sources",
            &network.sources,
            "which chooses among multicasts: remove it, or set network.transport = \"udp\" at all processes",
        )?;
        refuse(
            is_shared && network.ttl != 1,
            "network.ttl",
            network.ttl,
            "which is for multicast: remove it, or set network.transport = \"udp\" at all processes",
        )
    }
}
