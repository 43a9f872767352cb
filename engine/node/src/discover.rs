//! Learns a group's configuration from its heartbeats, for observers that were told only where it is.
//!
//! An observer must know how many members there are and who orders what, or it delivers something else than the
//! members do. Asking its user to repeat the members' configuration invites mistakes; heartbeats don't carry it, only
//! a 64-bit fingerprint of it, by which processes tell whether they agree. But few configurations are possible: members,
//! order and sequencer make some eight thousand, and a fingerprint can be computed for each in a millisecond. The one
//! that fits is the group's; that another fits by chance has a probability of 2^-50.
//!
//! What can't be learned: an mtu or a message size that is not the default, of which there are too many. Then a
//! configuration file is needed, and the error says so.

use crate::clock::Clock;
use crate::inline::NodeError;
use crate::settings::{Order, Role, Settings};
use crate::transport::pick;
use bourdon_port::{Echo, Port};
use bourdon_wire::records::Heartbeat;
use bourdon_wire::{CONTROL_CHANNEL, Datagram, ECHO_OFFSET, GroupId, Incarnation, Kind, Rank, echo_bytes};
use std::time::Duration;

/// What was learned about the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// The settings' group section is now as the members have it.
    Found,
    /// No member of this group was heard.
    Silence,
    /// A member was heard, but its mtu or message size are not these settings'.
    Unknown,
}

/// Listens for a member's heartbeat, at most for `longest`, and fills in members, order and sequencer.
///
/// # Errors
/// If the network can't be used.
pub fn discover(settings: &mut Settings, longest: Duration) -> Result<Discovery, NodeError> {
    let clock = Clock::start();
    let bytes = echo_bytes(Rank::OBSERVER, CONTROL_CHANNEL, Incarnation(0));
    // Who only listens is no member, and in a mesh dials all of them.
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
    let found = fingerprint.is_some_and(|fingerprint| search(settings, fingerprint));
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

/// Sets the members, order and sequencer that have this fingerprint; says whether there are any.
fn search(settings: &mut Settings, fingerprint: u64) -> bool {
    let mut candidate = settings.clone();
    candidate.process.role = Role::Observer;
    for members in 1..=Rank::MAX.0 + 1 {
        for order in [Order::Total, Order::Fifo, Order::Causal, Order::Unordered] {
            for sequencer in 0..members {
                let group = &mut candidate.group;
                (group.members, group.order, group.sequencer) = (members, order, sequencer);
                if candidate.protocol(usize::MAX).fingerprint() == fingerprint {
                    settings.group = candidate.group;
                    return true;
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_is_found_and_a_strange_one_is_not() {
        let mut members = Settings::default();
        (members.group.members, members.group.order, members.group.sequencer) = (64, Order::Unordered, 63);
        let fingerprint = members.protocol(usize::MAX).fingerprint();
        let mut settings = Settings::default();
        assert!(search(&mut settings, fingerprint));
        assert_eq!(
            (settings.group.members, settings.group.order, settings.group.sequencer),
            (64, Order::Unordered, 63)
        );
        assert!(!search(&mut settings, fingerprint ^ 1));
    }
}
