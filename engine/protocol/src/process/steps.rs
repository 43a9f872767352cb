//! Encodes and decodes ballot steps: `control/view_change.rs` knows no bytes, `bourdon-wire` knows no ballots.

use crate::control::view_change::{Ballot, Step, Value};
use crate::data::unordered::{EARLY_RANGES_OF_ALL, early_ranges_max};
use crate::values::cut::{Cut, Range};
use crate::view::Member;
use alloc::vec::Vec;
use bourdon_wire::records::{BallotLists, BallotStep, End, HeldRange, MemberEntry, ballot_steps};
use bourdon_wire::{DatagramNumber, Incarnation, InstanceId, Rank};
use zerocopy::IntoBytes;

fn put_members(bytes: &mut Vec<u8>, members: &[Member]) {
    for member in members {
        let entry = MemberEntry { rank: member.rank.0.into(), incarnation: member.incarnation.0.into() };
        bytes.extend_from_slice(entry.as_bytes());
    }
}

fn put_cut(bytes: &mut Vec<u8>, cut: &Cut) {
    cut.ends.iter().for_each(|end| bytes.extend_from_slice(End::new(*end).as_bytes()));
    for range in &cut.ranges {
        let first = End::new(range.first);
        let range = HeldRange { rank: range.rank.0.into(), count: range.count.into(), first };
        bytes.extend_from_slice(range.as_bytes());
    }
}

/// A step as a record's bytes, followed by its lists.
pub(super) fn encode(ballot: Ballot, step: &Step) -> Vec<u8> {
    let mut birth = 0;
    let (kind, held, accepted, value) = match step {
        Step::Prepare => (ballot_steps::PREPARE, None, Ballot(0), None),
        Step::State { held, accepted, birth_floor } => {
            birth = *birth_floor;
            let (accepted, value) = accepted.as_ref().map_or((Ballot(0), None), |(b, value)| (*b, Some(value)));
            (ballot_steps::STATE, Some(held), accepted, value)
        }
        Step::Propose(value) => (ballot_steps::PROPOSE, None, Ballot(0), Some(value)),
        Step::Accept => (ballot_steps::ACCEPT, None, Ballot(0), None),
        Step::Refuse => (ballot_steps::REFUSE, None, Ballot(0), None),
        Step::Decide(value) => (ballot_steps::DECIDE, None, Ballot(0), Some(value)),
    };
    let (none, no_members) = (Cut::default(), Vec::new());
    let (held, cut) = (held.unwrap_or(&none), value.map_or(&none, |value| &value.cut));
    let members = value.map_or(&no_members, |value| &value.members);
    let record = BallotStep {
        step: kind,
        members: members.len() as u8,
        held: held.ends.len() as u8,
        held_ranges: held.ranges.len() as u8,
        cut: cut.ends.len() as u8,
        cut_ranges: cut.ranges.len() as u8,
        sequencer: value.map_or(0, |value| value.sequencer.0 as u8),
        reserved: 0,
        ballot: ballot.0.into(),
        accepted: accepted.0.into(),
        phase: held.phase.into(),
        cut_phase: cut.phase.into(),
        birth: value.map_or(birth, |value| value.birth).into(),
        leavers: value.map_or(0, |value| value.leavers).into(),
    };
    let mut bytes = record.as_bytes().to_vec();
    put_members(&mut bytes, members);
    put_cut(&mut bytes, held);
    put_cut(&mut bytes, cut);
    bytes
}

fn cut(ends: &[End], ranges: &[HeldRange], phase: u64) -> Cut {
    let range =
        |range: &HeldRange| Range { rank: Rank(range.rank.get()), first: range.first.get(), count: range.count.get() };
    let ends: Vec<DatagramNumber> = ends.iter().map(End::get).collect();
    Cut { ends, ranges: ranges.iter().map(range).collect(), phase }
}

/// A record's step, in the instance that its datagram names; `None` if it is invalid for so many ranks, or claims more
/// than any member can.
pub(super) fn decode(
    record: &BallotStep,
    lists: &BallotLists<'_>,
    ranks: u16,
    instance: InstanceId,
) -> Option<(Ballot, Step)> {
    let member = |entry: &MemberEntry| Member {
        rank: Rank(entry.rank.get()),
        incarnation: Incarnation(entry.incarnation.get()),
    };
    let value = || {
        let members: Vec<Member> = lists.members.iter().map(member).collect();
        let sequencer = Rank(record.sequencer.into());
        let known = members.iter().all(|member| member.rank.0 < ranks);
        let distinct = (1..members.len()).all(|i| members[..i].iter().all(|other| other.rank != members[i].rank));
        let sound = known && distinct && members.iter().any(|member| member.rank == sequencer);
        let cut = cut(lists.cut, lists.cut_ranges, record.cut_phase.get());
        (sound && fits(&cut, ranks, EARLY_RANGES_OF_ALL)).then_some(Value {
            members,
            sequencer,
            leavers: record.leavers.get(),
            cut,
            instance,
            birth: record.birth.get(),
        })
    };
    let step = match record.step {
        ballot_steps::PREPARE => Step::Prepare,
        ballot_steps::STATE => {
            let held = cut(lists.held, lists.held_ranges, record.phase.get());
            if !fits(&held, ranks, early_ranges_max(ranks)) {
                return None;
            }
            let accepted = Ballot(record.accepted.get());
            let accepted = if accepted == Ballot(0) { None } else { Some((accepted, value()?)) };
            Step::State { held, accepted, birth_floor: record.birth.get() }
        }
        ballot_steps::PROPOSE => Step::Propose(value()?),
        ballot_steps::ACCEPT => Step::Accept,
        ballot_steps::REFUSE => Step::Refuse,
        ballot_steps::DECIDE => Step::Decide(value()?),
        _ => return None,
    };
    let ballot = Ballot(record.ballot.get());
    // Only a decision is valid without its ballot.
    (ballot != Ballot(0) || matches!(step, Step::Decide(_))).then_some((ballot, step))
}

/// Whether a cut has an end for each rank, and no more ranges than its holders may report, none of them empty.
fn fits(cut: &Cut, ranks: u16, ranges_max: usize) -> bool {
    let sound = |range: &Range| range.rank.0 < ranks && range.count > 0;
    cut.ends.len() == usize::from(ranks) && cut.ranges.len() <= ranges_max && cut.ranges.iter().all(sound)
}
