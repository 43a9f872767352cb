//! What a process waits for, and how it reaches its peers: parts of events that the node adds to its process's own.

use super::NarrowPaths;
use crate::ranks::Ranks;
use bourdon_wire::{Epoch, Rank};
use core::fmt::{Display, Formatter, Result};

/// What a process that is in no view waits for, or an observer that does not hear all members of its view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The members that have not been heard; by an observer of a view, not lately.
    pub missing: Ranks,
    /// How many members are configured; to an observer of a view, how many its view has.
    pub members: u16,
    /// Whether it is an observer that follows a view and does not hear some of its members.
    pub observes: bool,
    /// Whether it is an observer that hears no majority of the view that it follows.
    pub lacks_majority: bool,
    /// Whether there is a group outside of which it is.
    pub outside: bool,
    /// The view that it follows until the members let it in.
    pub followed: Option<Epoch>,
    /// The members that are in a view of an earlier instance that has lost its majority.
    pub in_lost_instance: Ranks,
    /// The ranks of processes that are heard and configured otherwise, so that they do not count.
    pub configured_otherwise: Ranks,
    /// Its own rank, if the members hear another process in their view with this rank.
    pub rank_in_use: Option<Rank>,
    /// The paths that long datagrams do not pass: over these the members let no process in.
    pub narrow: NarrowPaths,
    /// How many times its storage was damaged and set aside, if it was in no view since: it forms no group.
    pub storage_damaged: u16,
    /// Whether no other member was heard at all.
    pub hears_no_other: bool,
    /// How long it has waited.
    pub waited_ns: u64,
}

impl Waiting {
    fn write_damage(&self, f: &mut Formatter<'_>) -> Result {
        if self.storage_damaged == 0 {
            return Ok(());
        }
        write!(
            f,
            "; its storage was damaged and is set aside in damaged-{} of storage.directory, so it forms no group and \
                 waits until a majority of its group is in a view; if the storage of a majority was damaged, run \
                 `bourdon recover` beside a member whose storage was not or, if there is none, move damaged-* out of \
                 storage.directory at all members: what the group had stored is lost then",
            self.storage_damaged
        )
    }
}

impl Display for Waiting {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let members = self.members;
        match (self.followed, self.outside) {
            (Some(epoch), _) if self.lacks_majority => {
                let (count, silent) = (u32::from(members) - self.missing.len(), self.missing);
                return write!(
                    f,
                    "{count} of {members} members of view {epoch} are heard, no majority; not heard now: {silent}: no \
                     message may come until they are restored or, where they are gone for good, `bourdon recover` \
                     is run beside a survivor"
                );
            }
            (Some(epoch), _) if self.observes => {
                let (count, silent) = (u32::from(members) - self.missing.len(), self.missing);
                return write!(
                    f,
                    "{count} of {members} members of view {epoch} are heard; not heard now: {silent}: what they \
                     publish does not come, nor anything that one of them orders, until the path from them is mended"
                );
            }
            (Some(epoch), _) => write!(f, "this process follows view {epoch} and waits to be let in")?,
            (None, true) => f.write_str("this process waits to join the group")?,
            (None, false) => f.write_str("this process waits for the first view")?,
        }
        self.write_damage(f)?;
        if let Some(rank) = self.rank_in_use {
            return write!(
                f,
                ": the members still hear a process in their view with this rank, {rank}: if it is an earlier process \
                     of this member, stop it; if it is another member, give one of the two another process.rank (and \
                     over tcp its own place in network.peers)"
            );
        }
        if !self.in_lost_instance.is_empty() {
            let is_one = self.in_lost_instance.len() == 1;
            let (is, it) = if is_one { ("is", "it") } else { ("are", "them") };
            write!(
                f,
                "; {:?} {is} in a view that has lost its majority: resume its other members, if they are only \
                     paused or cut off; if they are gone for good, run `bourdon recover` beside {it}, or stop {it} so \
                     that the group forms again without what {it} {} delivered",
                self.in_lost_instance,
                if is_one { "has" } else { "have" }
            )?;
            return if self.missing.is_empty() { Ok(()) } else { write!(f, "; not heard: {}", self.missing) };
        }
        if !self.configured_otherwise.is_empty() {
            write!(f, "; heard, but configured otherwise: {}", self.configured_otherwise)?;
        }
        match self.missing.0 & !self.configured_otherwise.0 {
            0 if !self.configured_otherwise.is_empty() => f.write_str(": give all processes the same configuration"),
            0 if self.followed.is_some() && !self.narrow.is_empty() => write!(f, ": {}", self.narrow),
            0 if self.followed.is_some() => write!(f, ": all members of that view have been heard"),
            0 => write!(f, ": all {members} configured members have been heard; check that they hear this process"),
            missing if self.hears_no_other => write!(
                f,
                "; not heard yet: {} (of {members} configured members): no other process of the group is heard: \
                     start them, or set network.interface to the interface that reaches them, and group.name, \
                     group.address and network.transport to theirs (over tcp network.peers)",
                Ranks(missing)
            ),
            missing => write!(
                f,
                "; not heard yet: {} (of {members} configured members): start them, or check that group.name, \
                     group.address, network.transport and network.interface (over tcp network.peers) are right at all",
                Ranks(missing)
            ),
        }
    }
}

/// How many peers are reached which way, where that can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Peers that multicast reaches; not counted without connections to them, `network.peers`.
    pub by_multicast: u16,
    /// Peers that get everything over TCP.
    pub by_mesh: u16,
    /// Processes of this host that share memory with this one.
    pub by_shm: u16,
}

impl Display for Reach {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { by_multicast, by_mesh, by_shm } = self;
        let remote = by_multicast + by_mesh;
        if *by_shm > 0 {
            let s = if *by_shm == 1 { "" } else { "es" };
            write!(f, "shared memory reaches {by_shm} process{s} of this host")?;
        } else if remote == 0 {
            write!(f, "no process of this host shares memory with this one")?;
        }
        if remote > 0 {
            let (and, other) = if *by_shm > 0 { ("; ", "other ") } else { ("", "") };
            let rest = if *by_mesh == 0 { "" } else { "; the others get everything over tcp" };
            write!(f, "{and}multicast reaches {by_multicast} of {remote} {other}peers{rest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_wait_names_its_cause_and_what_to_do() {
        let first = Waiting { members: 3, ..Waiting::default() };
        let outside = Waiting { outside: true, ..first };
        for (waiting, parts) in [
            (first, ["for the first view", "all 3 configured members have been heard"]),
            (Waiting { missing: Ranks(0b110), ..first }, ["not heard yet: 1, 2 (of 3", "start them"]),
            (
                Waiting { missing: Ranks(0b110), hears_no_other: true, ..first },
                ["not heard yet: 1, 2 (of 3", "no other process of the group is heard"],
            ),
            (Waiting { in_lost_instance: Ranks(1), ..first }, ["member 0 is in a view that", "its majority: resume"]),
            (
                Waiting { missing: Ranks(0b110), configured_otherwise: Ranks(0b100), ..first },
                ["heard, but configured otherwise: 2; not heard yet: 1", "start them"],
            ),
            (
                Waiting { in_lost_instance: Ranks(3), missing: Ranks(4), ..first },
                ["members 0, 1 are in a view that", "not heard: 2"],
            ),
            (Waiting { followed: Some(Epoch(7)), ..outside }, ["follows view 7 and waits to be let in", "heard"]),
            (
                Waiting {
                    followed: Some(Epoch(7)),
                    narrow: NarrowPaths { from: Ranks(1), to: Ranks(0b11) },
                    ..outside
                },
                [
                    "let in: no long datagrams come from member 0, and none",
                    "reach members 0, 1: lower limits.mtu_bytes",
                ],
            ),
            (
                Waiting { followed: Some(Epoch(7)), lacks_majority: true, missing: Ranks(0b110), ..first },
                ["1 of 3 members of view 7 are heard, no majority", "not heard now: 1, 2"],
            ),
            (
                Waiting { followed: Some(Epoch(7)), observes: true, missing: Ranks(1), ..first },
                ["2 of 3 members of view 7 are heard; not heard now: 0", "until the path from them is mended"],
            ),
            (
                Waiting { storage_damaged: 2, ..outside },
                ["to join the group; its storage", "set aside in damaged-2 of"],
            ),
            (Waiting { rank_in_use: Some(Rank(2)), ..outside }, ["to join", "with this rank, 2: if"]),
        ] {
            let text = waiting.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(!Waiting { in_lost_instance: Ranks(1), ..first }.to_string().contains("not heard"));
    }

    #[test]
    fn issue_debug_showed_the_members_waited_for_as_a_number() {
        let waiting =
            Waiting { missing: Ranks(0b10), in_lost_instance: Ranks(0b101), members: 3, ..Waiting::default() };
        let text = alloc::format!("{waiting:?}");
        assert!(text.contains("missing: member 1,") && text.contains("in_lost_instance: members 0, 2,"), "{text}");
        assert!(text.contains("configured_otherwise: no member,"), "{text}");
    }
}
