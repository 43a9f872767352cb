//! What a threaded node reports to its application and to the clients of its admin socket, and in which words.
//!
//! Events are values in a mailbox for each receiver. An application that fetches none must not stop the engine, so an
//! event that finds its mailbox full is dropped and counted (`events_dropped`).

use crate::threaded::waits::{Waiting, ranks};
use crate::transport::Reach;
use bourdon_protocol::control::detector::Why;
use bourdon_protocol::{Event, Refusal};
use bourdon_wire::{Epoch, InstanceId, Rank, Sequence};
use std::net::SocketAddr;

/// Events that a receiver has not fetched: as many as the protocol itself keeps.
pub(crate) const EVENTS_MAX: usize = 256;

/// News from a threaded node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// The group's.
    Group(Event),
    /// Messages that a publication had accepted were dropped: the group can't take them, or this process was removed
    /// from it before they were delivered.
    Dropped {
        /// The publication's place among those that the node was started with.
        publication: usize,
        /// The number of the first of them.
        first: u64,
        /// The number of the last.
        last: u64,
        /// Why the group can't take them, the last reason.
        refusal: Option<Refusal>,
    },
    /// A barrier that the application asked for was refused.
    SyncRefused(Refusal),
    /// Over the transport `auto`: how peers are reached has changed.
    Reached(Reach),
    /// This process is in no view yet.
    Waiting(Waiting),
    /// The group's birth could not be stored after the start: the path, the reason and what is lost by it.
    BirthNotStored(Box<str>),
    /// The control thread takes nothing: this node has stopped sending, acknowledging and delivering.
    Halted,
    /// The control thread is back, and this node goes on.
    Resumed,
}

impl From<Event> for NodeEvent {
    fn from(event: Event) -> Self {
        Self::Group(event)
    }
}

fn write_superseded(f: &mut std::fmt::Formatter<'_>, instance: InstanceId) -> std::fmt::Result {
    let text = "formed after the one this member was in, and has a majority: this member was paused or cut off since; \
         it leaves the older instance and joins the newer one";
    write!(f, "instance {:016x} of the group {text}", instance.0)
}

fn write_older_instance(f: &mut std::fmt::Formatter<'_>, instance: InstanceId) -> std::fmt::Result {
    let text = "formed before one that this process was in: it waits up to 10 s for the later one, then joins this one";
    write!(f, "instance {:016x} of the group {text}", instance.0)
}

fn write_new_instance(f: &mut std::fmt::Formatter<'_>, from: InstanceId, to: InstanceId) -> std::fmt::Result {
    let text = "is followed from now on: what the earlier one published after it was last heard is not known here";
    write!(f, "instance {:016x} of the group ended, and {:016x} {text}", from.0, to.0)
}

/// Messages, or datagrams without any, are lost.
fn write_gap(f: &mut std::fmt::Formatter<'_>, sender: Rank, count: u64, from: Sequence) -> std::fmt::Result {
    if count > 0 {
        return write!(f, "{count} messages of member {sender} from {from} on are lost: no longer retained");
    }
    write!(
        f,
        "datagrams of member {sender} that held no numbered message are lost: no longer retained; a barrier's own \
         message may have been in them"
    )
}

/// A publisher waits for an observer no longer.
fn write_gate(f: &mut std::fmt::Formatter<'_>, event: &Event) -> std::fmt::Result {
    match event {
        Event::GateEnded(rank) => write!(
            f,
            "member {rank} waits for this observer no longer: it was silent, or delivered less than a window within \
                 flow.gating_timeout_ns; it may lose messages until it has caught up"
        ),
        Event::GateDropped(address) => write!(
            f,
            "the observer at {} was silent, or delivered less than a window within flow.gating_timeout_ns: this member \
                 waits for it no longer",
            SocketAddr::from(*address)
        ),
        _ => unreachable!("{event:?} is of no gate"),
    }
}

/// Events that keep a process out of the group, or another one.
fn write_obstacle(f: &mut std::fmt::Formatter<'_>, event: &Event) -> std::fmt::Result {
    match event {
        Event::SnapshotTooLarge { bytes, limit_bytes } => write!(
            f,
            "the group's state is too large to join with ({bytes} bytes; 0 if only its donor knows): raise \
                 limits.max_snapshot_bytes, now {limit_bytes}, here and at the members"
        ),
        Event::IdentityConflict(rank) => {
            write!(
                f,
                "another process is a member with rank {rank} and is alive: this process can't join; stop one of the \
                 two, or give this process another process.rank"
            )
        }
        Event::RankClaimed(rank) => {
            write!(f, "another process uses rank {rank} too: one of the two has the wrong process.rank")
        }
        Event::Restarted { rank, .. } => write!(
            f,
            "member {rank} was restarted, or two processes have its rank: the new one joins once the old one is \
                 out of the view"
        ),
        Event::ConfigurationDiffers(rank) => write!(
            f,
            "member {rank} is configured otherwise: group.members, order, reliability, relay, ack_each, sequencer, \
                 quorum, mutex and election, limits.mtu_bytes and max_message_bytes, and channel.detector must be the \
                 same everywhere"
        ),
        Event::Superseded { instance } => write_superseded(f, *instance),
        Event::OlderInstance { instance } => write_older_instance(f, *instance),
        Event::NewInstance { from, to } => write_new_instance(f, *from, *to),
        Event::OtherVersion(version) => write!(
            f,
            "a process on the group's address uses version {version} of the wire format: run the same release \
                 everywhere"
        ),
        _ => unreachable!("{event:?} is no obstacle"),
    }
}

impl std::fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let event = match self {
            Self::Group(event) => event,
            Self::Dropped { publication, first, last, refusal } => {
                let why = "this process was removed from the group before they were delivered";
                let why = refusal.map_or_else(|| why.to_owned(), |refusal| refusal.to_string());
                return write!(f, "messages {first} to {last} of publication {publication} were dropped: {why}");
            }
            Self::SyncRefused(refusal) => return write!(f, "there is no barrier: {refusal}"),
            Self::Reached(Reach { by_multicast, by_mesh }) => {
                let all = by_multicast + by_mesh;
                let rest = if *by_mesh == 0 { "" } else { "; the others get everything over tcp" };
                return write!(f, "multicast reaches {by_multicast} of {all} peers{rest}");
            }
            Self::BirthNotStored(why) => return f.write_str(why),
            Self::Halted => {
                return f.write_str(
                    "the control thread has taken nothing for 1 s: this node sends, acknowledges and delivers nothing \
                     until it goes on; a callback of a lock or an election may block it, or the host is overloaded",
                );
            }
            Self::Resumed => return f.write_str("the control thread goes on, and this node with it"),
            Self::Waiting(waiting) => return waiting.fmt(f),
        };
        match event {
            Event::View { epoch, members, sequencer } => {
                write!(f, "view {epoch}: members {}, sequencer {sequencer}", ranks(*members))
            }
            Event::Suspected(rank, Why::Evidence) => write!(f, "the process of member {rank} is gone"),
            Event::Suspected(rank, Why::Group) => write!(f, "member {rank} is suspected, by the group's detectors"),
            Event::Suspected(rank, why) => write!(f, "member {rank} is suspected, by {why:?}"),
            Event::Trusted(rank) => write!(f, "member {rank} was heard again"),
            Event::NoMajority => f.write_str(
                "no majority of the view can be reached: restore the network, or let members that are paused go on; \
                     members that were restarted have forgotten what they promised and do not count, so if a majority \
                     is gone for good, stop all members and start the group again",
            ),
            Event::Majority => f.write_str("a majority of the view can be reached again"),
            Event::Removed(epoch) => write!(
                f,
                "the others went on without this process, in view {epoch}: it was silent for too long; \
                     it comes back by itself, as a new member"
            ),
            Event::Left(Epoch(0)) => f.write_str("this process left; it has heard of no view"),
            Event::Left(epoch) => write!(f, "this process left; view {epoch} is without it"),
            Event::Settled { delivered: Sequence(0), .. } => f.write_str(
                "no message that this process had published before the removal was delivered, and none will be; if it \
                     had published none, none is lost",
            ),
            Event::Settled { delivered, .. } => write!(
                f,
                "of what this process had published before the removal, messages below {delivered} were delivered; \
                     later ones, if there were any, never will be"
            ),
            Event::Gap { sender, from, to } => write_gap(f, *sender, to.since(*from), *from),
            Event::Retracted { sender, from, to } => {
                write!(
                    f,
                    "{} messages of member {sender} from {from} on belong to no view: they are \
                     void",
                    to.since(*from)
                )
            }
            Event::Synced { phase, .. } => write!(f, "barrier {phase} is complete"),
            Event::SnapshotWanted => f.write_str("a joiner requests the application's state"),
            Event::SnapshotReady => f.write_str("the application's state at another member has come"),
            Event::GateEnded(_) | Event::GateDropped(_) => write_gate(f, event),
            other => write_obstacle(f, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_wire::Incarnation;

    #[test]
    fn a_removed_member_without_messages_reads_of_no_number() {
        let settled = |delivered| NodeEvent::Group(Event::Settled { incarnation: Incarnation(7), delivered });
        let text = settled(Sequence(0)).to_string();
        assert!(text.starts_with("no message that this process had published") && !text.contains("below"), "{text}");
        assert!(settled(Sequence(5)).to_string().contains("messages below 5 were delivered"));
    }

    #[test]
    fn issue_an_empty_gap_was_reported_as_a_loss_of_0_messages() {
        let gap = |to| NodeEvent::Group(Event::Gap { sender: Rank(0), from: Sequence(3), to }).to_string();
        assert!(gap(Sequence(5)).starts_with("2 messages of member 0 from 3 on are lost"));
        let empty = gap(Sequence(3));
        assert!(!empty.contains("0 messages") && empty.contains("a barrier's own message"), "{empty}");
    }

    #[test]
    fn every_event_has_a_text() {
        let rank = Rank(5);
        let refusals = [
            Refusal::Window { slowest: None },
            Refusal::Forming { missing: 0 },
            Refusal::ViewChange,
            Refusal::TooLarge { limit_bytes: 1 << 20 },
            Refusal::Role,
            Refusal::Barrier,
            Refusal::NoMajority { missing: 0 },
            Refusal::Outside,
        ];
        let (from, to) = (Sequence(3), Sequence(9));
        let named = [Event::Trusted, Event::IdentityConflict, Event::RankClaimed, Event::ConfigurationDiffers]
            .map(|event| event(rank));
        let others = [
            Event::View { epoch: Epoch(4), members: 0b101, sequencer: rank },
            Event::NoMajority,
            Event::Majority,
            Event::Removed(Epoch(9)),
            Event::Left(Epoch(9)),
            Event::Settled { incarnation: Incarnation(7), delivered: to },
            Event::Gap { sender: rank, from, to },
            Event::Retracted { sender: rank, from, to },
            Event::Synced { phase: 3, asked: true },
            Event::SnapshotWanted,
            Event::SnapshotReady,
            Event::SnapshotTooLarge { bytes: 1 << 40, limit_bytes: 7 },
            Event::Restarted { rank, incarnation: Incarnation(77) },
            Event::OtherVersion(9),
            Event::Superseded { instance: InstanceId(1 << 63) },
            Event::NewInstance { from: InstanceId(1), to: InstanceId(u64::MAX) },
            Event::OlderInstance { instance: InstanceId(5) },
            Event::GateEnded(rank),
            Event::GateDropped(bourdon_wire::Address::default()),
        ];
        let suspected = Why::ALL.map(|why| Event::Suspected(rank, why));
        let events = named.into_iter().chain(others).chain(suspected).map(NodeEvent::Group);
        let refused = refusals.into_iter().flat_map(|refusal| {
            let dropped = NodeEvent::Dropped { publication: 0, first: 3, last: 4, refusal: Some(refusal) };
            [dropped, NodeEvent::SyncRefused(refusal)]
        });
        let reached = [NodeEvent::Reached(Reach { by_multicast: 3, by_mesh: 4 })];
        let unstored = [NodeEvent::BirthNotStored("can't keep it".into())];
        let first = Waiting { missing: 0b110, members: 3, waited_ns: 1 << 40, ..Waiting::default() };
        let followed =
            Waiting { outside: true, followed: Some(Epoch(7)), rank_in_use: Some(rank), in_lost_instance: 1, ..first };
        let waiting = [first, followed].map(NodeEvent::Waiting);
        for event in events.chain(refused).chain(reached).chain(unstored).chain(waiting) {
            assert!(!event.to_string().is_empty(), "{event:?}");
        }
    }
}
