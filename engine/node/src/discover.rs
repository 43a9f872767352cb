//! Learns a group's configuration from its heartbeats, for observers that know only where it is.
//!
//! An observer must know how many members there are and which member orders which messages, or it delivers
//! something else than the members do. Asking its user to repeat the members' configuration invites mistakes.
//! Heartbeats carry all that must be the same at every process, as one number: see `Agreed` of the protocol.

use crate::config::{MutexKind, Role, Settings};
use crate::node_error::Error;
use crate::transport::pick;
use bourdon_engine::Clock;
use bourdon_port::{Echo, Port};
use bourdon_protocol::{Agreed, Feedback};
use bourdon_wire::records::Heartbeat;
use bourdon_wire::{CONTROL_CHANNEL, Datagram, ECHO_OFFSET, GroupId, Incarnation, Kind, Rank, echo_bytes};
use std::time::Duration;

/// What was learned about the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discovery {
    /// The settings' group section is now as the members have it.
    Found,
    /// No member of this group was heard.
    Silence,
    /// A member was heard, but its configuration is one that this release does not have, or does not fit these
    /// settings.
    Unknown,
}

/// Listens for a member's heartbeat, at most for `longest`, and fills in what must be the same at all processes.
///
/// ```
/// # use bourdon::*;
/// # fn show() -> Result<(), Error> {
/// let mut settings = Settings::default();
/// settings.group.name = "prices".into();
/// if discover(&mut settings, std::time::Duration::from_secs(2))? == Discovery::Found {
///     let observer = NodeBuilder::from(settings).observer().join()?;
/// #   let _ = observer;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the network can't be used.
pub fn discover(settings: &mut Settings, longest: Duration) -> Result<Discovery, Error> {
    let clock = Clock::start();
    let bytes = echo_bytes(Rank::OBSERVER, CONTROL_CHANNEL, Incarnation(0));
    // A process that only listens is no member, and in a mesh dials all of them.
    settings.process.role = Role::Observer;
    let mut port = pick(settings, Echo { offset: ECHO_OFFSET, bytes })?.port;
    let group = GroupId::of(&settings.group.name);
    let until = clock.now() + longest.as_nanos() as u64;
    let mut fingerprint = None;
    while fingerprint.is_none() {
        let left_ns = until.since(clock.now());
        if left_ns == 0 {
            return Ok(Discovery::Silence);
        }
        port.wait(Duration::from_nanos(left_ns))?;
        port.receive(1, |arrival| fingerprint = fingerprint.or(heartbeat_fingerprint(arrival.bytes, group)))?;
    }
    let found = fingerprint.is_some_and(|fingerprint| set(settings, fingerprint));
    Ok(if found { Discovery::Found } else { Discovery::Unknown })
}

fn heartbeat_fingerprint(bytes: &[u8], group: GroupId) -> Option<u64> {
    let datagram = Datagram::parse(bytes, group).ok()?;
    if datagram.header.rank() > Rank::MAX {
        return None;
    }
    let frame = datagram.frames().find(|frame| frame.kind() == Some(Kind::Heartbeat))?;
    Some(Heartbeat::read(frame.body)?.0.configuration.get())
}

/// Sets what [`discover`] fills in to what has this number. Returns whether a configuration has it.
fn set(settings: &mut Settings, number: u64) -> bool {
    let Some(agreed) = Agreed::read(number) else { return false };
    let (group, limits) = (&mut settings.group, &mut settings.limits);
    (group.members, group.sequencer) = (agreed.members, agreed.sequencer.0);
    (group.order, group.reliability, group.relay) = (agreed.order, agreed.reliability, agreed.relay);
    group.ack_each = agreed.feedback == Feedback::AckEach;
    (group.quorum, group.election) = (agreed.quorum, agreed.election);
    group.mutex = Some(agreed.mutex).filter(|mutex| *mutex != MutexKind::default());
    (limits.mtu_bytes, limits.max_message_bytes) = (agreed.mtu_bytes, agreed.max_message_bytes);
    settings.detector.leans = agreed.leans.then(|| (0..agreed.members).collect());
    settings.process.role = Role::Observer;
    settings.protocol(usize::MAX).fingerprint() == number && settings.check().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ElectionKind, Order, Quorum, Reliability};

    #[test]
    fn every_configuration_is_learned_and_a_strange_one_is_not() {
        let mut members = Settings::default();
        (members.group.members, members.group.sequencer) = (64, 63);
        (members.group.order, members.group.reliability) = (Order::Fifo, Reliability::Uniform);
        (members.group.relay, members.group.ack_each, members.group.quorum) = (true, true, Quorum::Members);
        (members.group.mutex, members.group.election) = (Some(MutexKind::TokenRing), ElectionKind::Ring);
        (members.limits.mtu_bytes, members.limits.max_message_bytes) = (8972, 1 << 16);
        for leans in [None, Some((0..64).collect())] {
            members.detector.leans = leans;
            let mut settings = Settings::default();
            assert!(set(&mut settings, members.protocol(usize::MAX).fingerprint()));
            assert_eq!((&settings.group, &settings.limits), (&members.group, &members.limits));
            assert_eq!(settings.detector.leans, members.detector.leans);
        }
        assert!(!set(&mut Settings::default(), u64::MAX));
    }
}
