//! What the protocol is configured with: the sections together, and the receive buffer that was really granted.

use super::{Profile, Role, Settings, Transport};

impl Settings {
    /// The times of the profile, with what was set by hand.
    fn timing(&self) -> bourdon_protocol::Timing {
        let (timing, detector) = (&self.timing, &self.detector);
        let mut times = match detector.profile {
            Profile::Default => bourdon_protocol::Timing::default(),
            Profile::Fast => bourdon_protocol::Timing::fast(),
            Profile::Patient => bourdon_protocol::Timing::patient(),
        };
        times.ack_delay_ns = timing.ack_delay_ns;
        times.heartbeat_min_ns = timing.heartbeat_min_ns;
        times.heartbeat_max_ns = timing.heartbeat_max_ns.unwrap_or(times.heartbeat_max_ns);
        times.nak_retry_min_ns = timing.nak_retry_min_ns;
        times.nak_retry_max_ns = timing.nak_retry_max_ns;
        times.reorder_grace_ns = timing.reorder_grace_ns;
        times.gating_timeout_ns = self.flow.gating_timeout_ns;
        let watch = &mut times.detector;
        watch.heartbeat_ns = times.heartbeat_max_ns;
        (watch.push, watch.pull, watch.phi) = (detector.push, detector.pull, detector.phi);
        watch.evidence = detector.evidence;
        watch.suspect_after_ns = detector.suspect_after_ns.unwrap_or(watch.suspect_after_ns);
        watch.pull_after_ns = detector.pull_after_ns.unwrap_or(watch.pull_after_ns);
        watch.ping_interval_ns = detector.ping_interval_ns.unwrap_or(watch.ping_interval_ns);
        watch.phi_threshold = detector.phi_threshold.unwrap_or(watch.phi_threshold);
        if detector.leans.is_some() { times.leaning() } else { times }
    }

    /// How many members' streams come through one receive buffer: over tcp and shared memory each has its own.
    fn streams_a_buffer(&self) -> u16 {
        if matches!(self.network.transport, Transport::Tcp | Transport::Shm) { 1 } else { self.group.members }
    }

    /// The protocol's share of it, given the receive buffer that was really granted.
    pub(crate) fn protocol(&self, granted_bytes: usize) -> bourdon_protocol::Config {
        use bourdon_protocol as p;
        use bourdon_wire::{GroupId, Rank};
        let role = match self.process.role {
            Role::Member => p::Role::Member(Rank(self.process.rank)),
            Role::Observer | Role::Client => p::Role::Observer,
        };
        let limits = &self.limits;
        let mut config = p::Config::new(GroupId::of(&self.group.name), self.group.members, role);
        (config.order, config.reliability) = (self.group.order, self.group.reliability);
        (config.relay, config.deadline_ns) = (self.group.relay, self.group.deadline_ns);
        config.feedback = if self.group.ack_each { p::Feedback::AckEach } else { p::Feedback::Nak };
        config.pads_heartbeats = match self.network.transport {
            Transport::Udp | Transport::Portable | Transport::Xdp => true,
            // With peers, the mesh serves those whose multicasts are lost.
            Transport::Auto => self.network.peers.is_empty(),
            Transport::Tcp | Transport::Shm => false,
        };
        config.sequencer = Rank(self.group.sequencer);
        config.quorum = self.group.quorum;
        (config.flow, config.rate) = (self.flow.mode, self.flow.rate());
        (config.mutex, config.election) = (self.group.mutex.unwrap_or_default(), self.group.election);
        config.start = self.process.start;
        let window_bytes = window_bytes(granted_bytes, limits.mtu_bytes, self.streams_a_buffer());
        let window_bytes = window_bytes.min(limits.receive_log_bytes / 2).min(limits.log_bytes / 2);
        config.limits = limits.protocol(window_bytes, self.storage.view_bytes);
        config.timing = self.timing();
        config.snapshots = self.process.snapshots;
        config.stores_snapshots = self.storage.snapshots;
        config
    }
}

/// How many bytes of one stream a receive buffer holds: the kernel charges each datagram the power of two it allocates
/// for it and its own 256 bytes of bookkeeping, gives freed space back late (so a quarter stays unused), and every
/// stream that shares it may come at once.
fn window_bytes(granted_bytes: usize, mtu_bytes: usize, streams: u16) -> usize {
    let charged_bytes = (mtu_bytes + 448).next_power_of_two() + 256;
    granted_bytes / 4 * 3 / charged_bytes / usize::from(streams.max(1)) * mtu_bytes
}
