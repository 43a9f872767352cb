//! What events and outcomes mean, in plain English, for logs and terminals.
//!
//! An application that prints `Debug` shows its users Rust. So the texts stand here, beside the types: every tool
//! prints the same sentence for the same fact, and each has a name for machines that stays when its sentence is
//! improved.

use super::Event;
use super::network::write_lost;
use crate::control::detector::Why;
use bourdon_wire::{Epoch, InstanceId, Rank, Sequence};
use core::fmt::{Display, Formatter, Result};
use core::net::SocketAddr;

impl Event {
    /// Its name for machines: the same in every version.
    pub fn name(&self) -> &'static str {
        match self {
            Self::View { .. } => "view",
            Self::Suspected(..) => "suspected",
            Self::Trusted(_) => "trusted",
            Self::LongDatagramsLost { .. } => "long_datagrams_lost",
            Self::LongDatagramsRestored { .. } => "long_datagrams_restored",
            Self::NoMajority => "no_majority",
            Self::Majority => "majority",
            Self::Removed(_) => "removed",
            Self::Left(_) => "left",
            Self::Settled { .. } => "settled",
            Self::Gap { .. } => "gap",
            Self::Retracted { .. } => "retracted",
            Self::Synced { .. } => "synced",
            Self::SnapshotTooLarge { .. } => "snapshot_too_large",
            Self::IdentityConflict { .. } => "identity_conflict",
            Self::RankClaimed(_) => "rank_claimed",
            Self::Restarted { .. } => "restarted",
            Self::ConfigurationDiffers(..) => "configuration_differs",
            Self::Outvoted(..) => "outvoted",
            Self::Moved { .. } => "moved",
            Self::OtherVersion(_) => "other_version",
            Self::GateEnded(_) => "gate_ended",
            Self::GateDropped(_) => "gate_dropped",
            Self::Superseded { .. } => "superseded",
            Self::Recovered { .. } => "recovered",
            Self::OlderInstance { .. } => "older_instance",
            Self::OtherInstance { .. } => "other_instance",
            Self::NewInstance { .. } => "new_instance",
            Self::Waiting(_) => "waiting",
            Self::Reached(_) => "reached",
            Self::Dropped { .. } => "publication_dropped",
            Self::SyncRefused(_) => "sync_refused",
            Self::NetworkLost { .. } => "network_lost",
            Self::NetworkBack { .. } => "network_back",
            Self::BirthNotStored(_) => "birth_not_stored",
            Self::StorageWaits { .. } => "storage_waits",
            Self::StorageWorks { .. } => "storage_works",
            Self::NotRecorded(_) => "not_recorded",
            Self::Halted => "halted",
            Self::Resumed => "resumed",
            Self::Missed { .. } => "missed",
        }
    }

    /// The member, or the rank, that it is about, if it is about one.
    pub fn rank(&self) -> Option<Rank> {
        match *self {
            Self::Suspected(rank, _)
            | Self::Trusted(rank)
            | Self::RankClaimed(rank)
            | Self::IdentityConflict { rank, .. }
            | Self::ConfigurationDiffers(rank, _)
            | Self::Outvoted(rank, _)
            | Self::Restarted { rank, .. }
            | Self::Moved { rank, .. }
            | Self::GateEnded(rank)
            | Self::Gap { sender: rank, .. }
            | Self::Retracted { sender: rank, .. } => Some(rank),
            Self::LongDatagramsLost { at, .. } | Self::LongDatagramsRestored { at, .. } => at,
            _ => None,
        }
    }
}

impl Display for Why {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Evidence => "evidence that its process is gone",
            Self::Group => "the group's detectors",
            Self::Push => "push: it was silent",
            Self::Pull => "pull: it answers no pings",
            Self::Phi => "phi: its heartbeats are overdue",
        })
    }
}

fn write_superseded(f: &mut Formatter<'_>, instance: InstanceId) -> Result {
    let text = "formed after the one this member was in, and has a majority: this member was paused or cut off since; \
         it leaves the older instance and joins the newer one";
    write!(f, "instance {:016x} of the group {text}", instance.0)
}

fn write_recovered(f: &mut Formatter<'_>, instance: InstanceId) -> Result {
    let text = "was founded here by hand, with this member alone: its messages that were not acknowledged are in \
         doubt, and its locks are lost; the other members join as new members";
    write!(f, "instance {:016x} of the group {text}", instance.0)
}

fn write_older_instance(f: &mut Formatter<'_>, instance: InstanceId) -> Result {
    let text = "formed before one that this process was in: it waits up to 10 s for the later one, then joins this one";
    write!(f, "instance {:016x} of the group {text}", instance.0)
}

fn write_other_instance(f: &mut Formatter<'_>, own: InstanceId, other: InstanceId, address: SocketAddr) -> Result {
    write!(
        f,
        "instance {:016x} of a group of this name is alive at {address} beside this process's instance {:016x}: two \
         groups have one group.name and group.address, and take nothing from each other; give one of them another name \
         or address",
        other.0, own.0
    )
}

fn write_new_instance(f: &mut Formatter<'_>, from: InstanceId, to: InstanceId) -> Result {
    let text = "is followed from now on: what the earlier one published after it was last heard is not known here";
    write!(f, "instance {:016x} of the group ended, and {:016x} {text}", from.0, to.0)
}

/// Messages, or datagrams without any, are lost.
fn write_gap(f: &mut Formatter<'_>, sender: Rank, count: u64, from: Sequence) -> Result {
    if count > 0 {
        return write!(f, "{count} messages of member {sender} from {from} on are lost: no longer retained");
    }
    write!(
        f,
        "datagrams of member {sender} that held no numbered message are lost: no longer retained; a barrier's own \
         message may have been in them"
    )
}

/// Long datagrams do not come to a process, or come again.
fn write_path(f: &mut Formatter<'_>, event: &Event) -> Result {
    let receiver = |f: &mut Formatter<'_>, at: &Option<Rank>| match at {
        Some(rank) => write!(f, "member {rank} receives "),
        None => f.write_str("this observer receives "),
    };
    match event {
        Event::LongDatagramsLost { at, from, bytes } => {
            receiver(f, at)?;
            let text = "lower limits.mtu_bytes at all processes, or mend the path";
            write!(f, "no datagrams of {bytes} bytes from member {from}, only shorter ones: {text}")
        }
        Event::LongDatagramsRestored { at, from, bytes } => {
            receiver(f, at)?;
            write!(f, "datagrams of {bytes} bytes from member {from} again")
        }
        _ => unreachable!("{event:?} is of no path"),
    }
}

/// A publisher waits for an observer no longer.
fn write_gate(f: &mut Formatter<'_>, event: &Event) -> Result {
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
fn write_obstacle(f: &mut Formatter<'_>, event: &Event) -> Result {
    match event {
        Event::SnapshotTooLarge { bytes, limit_bytes } => write!(
            f,
            "the group's state is too large to join with ({bytes} bytes; 0 if only its donor knows): raise \
                 limits.max_snapshot_bytes, now {limit_bytes}, here and at the members"
        ),
        Event::IdentityConflict { rank, address, instance } => {
            let address = SocketAddr::from(*address);
            write!(
                f,
                "the process at {address} is the member with rank {rank} of the group's instance {:016x}, and is \
                     alive: this process can't join; stop one of the two, give this process another process.rank \
                     or, if it belongs to another group, another group.name or group.address",
                instance.0
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
        Event::ConfigurationDiffers(rank, difference) => {
            difference.write(f, *rank)?;
            f.write_str("; these must be the same everywhere: the two don't count as one group")
        }
        Event::Outvoted(rank, difference) => {
            f.write_str("the group is configured otherwise: ")?;
            difference.write(f, *rank)?;
            f.write_str("; a majority of it has that, so mend the configuration of this process and start it again")
        }
        Event::Superseded { instance } => write_superseded(f, *instance),
        Event::Recovered { instance } => write_recovered(f, *instance),
        Event::OlderInstance { instance } => write_older_instance(f, *instance),
        Event::OtherInstance { own, other, address } => write_other_instance(f, *own, *other, (*address).into()),
        Event::NewInstance { from, to } => write_new_instance(f, *from, *to),
        Event::OtherVersion(version) => write!(
            f,
            "a process on the group's address uses version {version} of the wire format: run the same release \
                 everywhere"
        ),
        _ => unreachable!("{event:?} is no obstacle"),
    }
}

/// The disk takes nothing, or does again.
fn write_storage(f: &mut Formatter<'_>, event: &Event) -> Result {
    let what = match event {
        Event::StorageWaits { is_full: true, .. } => "for room on the disk of storage.directory: free space there",
        Event::StorageWaits { .. } => "for the disk of storage.directory: a sync takes long",
        _ => return f.write_str("the disk of storage.directory takes what this member stores again"),
    };
    write!(f, "this member waits {what}; publishers may wait for it, nothing is lost, and it goes on by itself")
}

/// How processes are reached has changed.
fn write_network(f: &mut Formatter<'_>, event: &Event) -> Result {
    match event {
        Event::Moved { rank, address, epoch, members } => {
            write!(f, "member {rank} is at {} now", SocketAddr::from(*address))?;
            if members.is_empty() { Ok(()) } else { write!(f, "; view {epoch} stays: members {members}") }
        }
        Event::NetworkLost { interface, why } => write_lost(f, *interface, *why),
        Event::NetworkBack { interface, address, before } => {
            let (address, before) = (SocketAddr::from(*address), SocketAddr::from(*before));
            let (ip, ip_before) = (address.ip(), before.ip());
            if ip == ip_before {
                write!(f, "interface {interface} can be used again: sockets are bound to {address} again")
            } else {
                write!(
                    f,
                    "interface {interface} has the address {ip} now (this process was at {ip_before}): sockets are \
                     bound to {address}"
                )
            }
        }
        _ => unreachable!("{event:?} is about no address"),
    }
}

/// What the node could not do for its application.
fn write_hindrance(f: &mut Formatter<'_>, event: &Event) -> Result {
    match event {
        Event::Dropped { publication, first, last, refusal } => {
            write!(f, "messages {first} to {last} of publication {publication} were dropped: ")?;
            match refusal {
                Some(refusal) => refusal.fmt(f),
                None => f.write_str("this process was removed from the group before they were delivered"),
            }
        }
        Event::SyncRefused(refusal) => write!(f, "there is no barrier: {refusal}"),
        Event::Halted => f.write_str(
            "the control thread has taken nothing for 1 s: this node sends, acknowledges and delivers nothing until it \
                 goes on; a debugger may have stopped it, or the host is overloaded",
        ),
        Event::Resumed => f.write_str("the control thread goes on, and this node with it"),
        _ => unreachable!("{event:?} hinders nothing"),
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Event::View { epoch, members, sequencer, left, failed } => {
                write!(f, "view {epoch}: members {members}, sequencer {sequencer}")?;
                if !left.is_empty() {
                    write!(f, "; {left:?} left")?;
                }
                if failed.is_empty() {
                    Ok(())
                } else {
                    write!(f, "; {failed:?} failed: crashed, restarted or not heard")
                }
            }
            Event::Suspected(rank, Why::Evidence) => write!(f, "the process of member {rank} is gone"),
            Event::Suspected(rank, why) => write!(f, "member {rank} is suspected, by {why}"),
            Event::Trusted(rank) => write!(f, "member {rank} was heard again"),
            Event::LongDatagramsLost { .. } | Event::LongDatagramsRestored { .. } => write_path(f, self),
            Event::NoMajority => f.write_str(
                "no majority of the view can be reached: restore the network, or let members that are paused go on; \
                     members that were restarted have forgotten what they promised and do not count, so if a majority \
                     is gone for good, run `bourdon recover` beside a survivor",
            ),
            Event::Majority => f.write_str("a majority of the view can be reached again"),
            Event::Removed(epoch) => write!(
                f,
                "the others went on without this process, in view {epoch}: it was silent for too long, or long \
                     datagrams did not pass between them; it comes back by itself, as a new member"
            ),
            Event::Left(Epoch(0)) => f.write_str("this process left; it has heard of no view"),
            Event::Left(epoch) => write!(f, "this process left; view {epoch} is without it"),
            Event::Settled { delivered, published, .. } if delivered == published => {
                f.write_str("nothing that this process had published before the removal is lost")
            }
            Event::Settled { delivered, published, .. } => write!(
                f,
                "{} messages that this process had published before the removal, from {delivered} on, were not \
                     delivered and never will be",
                published.since(*delivered)
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
            Event::GateEnded(_) | Event::GateDropped(_) => write_gate(f, self),
            Event::Waiting(waiting) => waiting.fmt(f),
            Event::Reached(reach) => reach.fmt(f),
            Event::Dropped { .. } | Event::SyncRefused(_) | Event::Halted | Event::Resumed => write_hindrance(f, self),
            Event::Moved { .. } | Event::NetworkLost { .. } | Event::NetworkBack { .. } => write_network(f, self),
            Event::StorageWaits { .. } | Event::StorageWorks { .. } => write_storage(f, self),
            Event::BirthNotStored(why) | Event::NotRecorded(why) => f.write_str(why),
            Event::Missed { count } => {
                write!(f, "{count} events were not kept for a subscription that left those before them unread")
            }
            other => write_obstacle(f, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Difference;
    use crate::event::{InterfaceName, NetworkLoss, Reach, Waiting};
    use crate::ranks::Ranks;
    use crate::refusal::Refusal;
    use alloc::string::ToString;
    use bourdon_wire::{Address, Incarnation};

    #[test]
    fn issue_a_removed_member_that_had_published_nothing_was_alarmed() {
        let settled = |delivered, published| {
            let (delivered, published) = (Sequence(delivered), Sequence(published));
            Event::Settled { incarnation: Incarnation(7), delivered, published }.to_string()
        };
        for count in [0, 5] {
            assert!(settled(count, count).starts_with("nothing that this process had published"));
        }
        assert!(settled(0, 2).starts_with("2 messages") && settled(5, 8).contains("from 5 on, were not delivered"));
    }

    #[test]
    fn issue_a_view_did_not_tell_a_leave_from_a_failure() {
        let view = |left, failed| {
            let (members, left, failed) = (Ranks(0b101), Ranks(left), Ranks(failed));
            Event::View { epoch: Epoch(4), members, sequencer: Rank(0), left, failed }.to_string()
        };
        assert_eq!(view(0, 0), "view 4: members 0, 2, sequencer 0");
        assert!(view(0b10, 0).ends_with("sequencer 0; member 1 left"));
        assert!(view(0b10, 0b11000).contains("; member 1 left; members 3, 4 failed"));
    }

    #[test]
    fn issue_an_empty_gap_was_reported_as_a_loss_of_0_messages() {
        let gap = |to| Event::Gap { sender: Rank(0), from: Sequence(3), to }.to_string();
        assert!(gap(Sequence(5)).starts_with("2 messages of member 0 from 3 on are lost"));
        let empty = gap(Sequence(3));
        assert!(!empty.contains("0 messages") && empty.contains("a barrier's own message"), "{empty}");
    }

    #[test]
    fn every_event_has_a_text_and_a_name_of_its_own() {
        let rank = Rank(5);
        let (from, to) = (Sequence(3), Sequence(9));
        let (members, left) = (Ranks(0b101), Ranks(0b10));
        let view = Event::View { epoch: Epoch(4), members, sequencer: rank, left, failed: Ranks::default() };
        let named = [Event::Trusted, Event::RankClaimed].map(|event| event(rank));
        let difference = Difference { own: 0, other: 1 };
        let others = [
            view,
            Event::IdentityConflict { rank, address: Address::default(), instance: InstanceId(7) },
            Event::ConfigurationDiffers(rank, difference),
            Event::Outvoted(rank, difference),
            Event::NoMajority,
            Event::Majority,
            Event::Removed(Epoch(9)),
            Event::Left(Epoch(9)),
            Event::Settled { incarnation: Incarnation(7), delivered: from, published: to },
            Event::Gap { sender: rank, from, to },
            Event::Retracted { sender: rank, from, to },
            Event::Synced { phase: 3, asked: true },
            Event::SnapshotTooLarge { bytes: 1 << 40, limit_bytes: 7 },
            Event::Restarted { rank, incarnation: Incarnation(77) },
            Event::LongDatagramsLost { at: Some(Rank(2)), from: rank, bytes: 1408 },
            Event::LongDatagramsRestored { at: None, from: rank, bytes: 1408 },
            Event::OtherVersion(9),
            Event::Superseded { instance: InstanceId(1 << 63) },
            Event::NewInstance { from: InstanceId(1), to: InstanceId(u64::MAX) },
            Event::OlderInstance { instance: InstanceId(5) },
            Event::OtherInstance { own: InstanceId(5), other: InstanceId(6), address: Address::default() },
            Event::GateEnded(rank),
            Event::GateDropped(Address::default()),
            Event::Waiting(Waiting { missing: Ranks(0b110), members: 3, waited_ns: 1 << 40, ..Waiting::default() }),
            Event::Reached(Reach { by_multicast: 3, by_mesh: 4, by_shm: 5 }),
            Event::Dropped { publication: 0, first: 3, last: 4, refusal: Some(Refusal::Role) },
            Event::SyncRefused(Refusal::ViewChange),
            Event::BirthNotStored("can't keep it"),
            Event::StorageWaits { is_full: true, waited_ns: 1 },
            Event::StorageWorks { waited_ns: 1 },
            Event::NotRecorded("it is full"),
            Event::Halted,
            Event::Resumed,
            Event::Moved { rank, address: Address::default(), epoch: Epoch(4), members: Ranks(0b101) },
            Event::NetworkLost { interface: InterfaceName::new("eth0"), why: NetworkLoss::Down },
            Event::NetworkBack {
                interface: InterfaceName::new("an-interface-with-a-long-name"),
                address: Address::default(),
                before: Address::default(),
            },
            Event::Missed { count: 3 },
        ];
        let suspected = Why::ALL.map(|why| Event::Suspected(rank, why));
        let mut names: alloc::vec::Vec<_> = named.iter().chain(&others).map(Event::name).collect();
        names.push(Event::Suspected(rank, Why::Push).name());
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "two events have one name: {names:?}");
        for event in named.into_iter().chain(others).chain(suspected) {
            let (text, debug) = (event.to_string(), alloc::format!("{event:?}"));
            assert!(text.contains(' ') && !text.contains(" {") && text != debug, "{text}");
        }
    }
}
