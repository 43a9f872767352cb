//! Learns a group's configuration from its heartbeats, for observers that know only where it is.
//!
//! An observer must know how many members there are and which member orders which messages, or it delivers
//! something else than the members do. Asking its user to repeat the members' configuration invites mistakes;
//! heartbeats don't carry it, only a 64-bit fingerprint of it, by which processes check that they agree. But few
//! configurations are possible: members, order, reliability, relay, acknowledgement and sequencer make some 210,000,
//! and a fingerprint can be computed for each in milliseconds. The configuration that fits is the group's; that another
//! fits by chance has a probability of 2^-46.
//!
//! What can't be learned: an mtu or a message size that is not the default, of which there are too many. Then a
//! configuration file is needed, and the error states this.

use crate::config::{Order, Reliability, Role, Settings};
use crate::node_error::Error;
use crate::transport::pick;
use bourdon_engine::Clock;
use bourdon_port::{Echo, Port};
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
    /// A member was heard, but its mtu or message size are not these settings'.
    Unknown,
}

/// Listens for a member's heartbeat, at most for `longest`, and fills in members, order, reliability, relay,
/// acknowledgement and sequencer.
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

/// Sets what [`discover`] fills in to what has this fingerprint. Returns whether there is any.
fn search(settings: &mut Settings, fingerprint: u64) -> bool {
    let mut candidate = settings.clone();
    candidate.process.role = Role::Observer;
    for (order, reliability, relay, ack_each) in guarantees() {
        let group = &mut candidate.group;
        (group.order, group.reliability, group.relay, group.ack_each) = (order, reliability, relay, ack_each);
        for members in 1..=Rank::MAX.0 + 1 {
            candidate.group.members = members;
            let mut config = candidate.protocol(usize::MAX);
            for sequencer in 0..members {
                config.sequencer = Rank(sequencer);
                if config.fingerprint() == fingerprint {
                    candidate.group.sequencer = sequencer;
                    settings.group = candidate.group;
                    return true;
                }
            }
        }
    }
    false
}

/// Every order at every level, without relay and with, with each way to acknowledge: the usual ones first.
fn guarantees() -> impl Iterator<Item = (Order, Reliability, bool, bool)> {
    let orders = [Order::Total, Order::Fifo, Order::Causal, Order::Unordered, Order::RealTime];
    let levels = [
        Reliability::Reliable,
        Reliability::Uniform,
        Reliability::Stable,
        Reliability::BestEffort,
        Reliability::Unreliable,
    ];
    let rare = [(false, false), (true, false), (false, true), (true, true)];
    rare.into_iter().flat_map(move |(relay, ack_each)| {
        orders.into_iter().flat_map(move |order| levels.map(|level| (order, level, relay, ack_each)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_is_found_and_a_strange_one_is_not() {
        let of = |group: &crate::config::GroupSettings| {
            (group.members, group.sequencer, group.order, group.reliability, group.relay, group.ack_each)
        };
        for (order, reliability, relay, ack_each) in guarantees() {
            let mut members = Settings::default();
            let group = &mut members.group;
            (group.members, group.sequencer) = (64, 63);
            (group.order, group.reliability, group.relay, group.ack_each) = (order, reliability, relay, ack_each);
            let fingerprint = members.protocol(usize::MAX).fingerprint();
            let mut settings = Settings::default();
            assert!(search(&mut settings, fingerprint), "{:?}", members.group);
            assert_eq!(of(&settings.group), of(&members.group));
        }
        assert!(!search(&mut Settings::default(), 1));
    }
}
