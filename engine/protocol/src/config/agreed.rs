//! What must be the same at every member, as one number: heartbeats and views carry it.
//!
//! A hash would show that two processes are configured otherwise, and not in what. The settings have few values, so all
//! of them fit 64 bits as the digits of one number: a receiver reads each of them, and names those that differ.
//!
//! Invariant: [`Agreed::read`] gives back what [`Agreed::number`] was made from, but for a longest message of more than
//! 16 MiB, which is rounded down to a multiple of 64 bytes.

use super::{Config, ElectionKind, Feedback, Limits, MutexKind, Order, Quorum, Reliability};
use bourdon_wire::{MTU_MIN_BYTES, Rank};
use core::fmt::{self, Display, Formatter};

const ORDERS: [Order; 5] = [Order::Unordered, Order::Fifo, Order::Causal, Order::Total, Order::RealTime];
const RELIABILITIES: [Reliability; 6] = [
    Reliability::Unreliable,
    Reliability::BestEffort,
    Reliability::Reliable,
    Reliability::Uniform,
    Reliability::Stable,
    Reliability::Durable,
];
const QUORUMS: [Quorum; 2] = [Quorum::View, Quorum::Members];
const MUTEXES: [MutexKind; 5] =
    [MutexKind::Replicated, MutexKind::Central, MutexKind::Lamport, MutexKind::RicartAgrawala, MutexKind::TokenRing];
const ELECTIONS: [ElectionKind; 2] = [ElectionKind::Bully, ElectionKind::Ring];
const ORDER_NAMES: [&str; 5] = ["unordered", "fifo", "causal", "total", "realtime"];
const RELIABILITY_NAMES: [&str; 6] = ["unreliable", "best-effort", "reliable", "uniform", "stable", "durable"];
const QUORUM_NAMES: [&str; 2] = ["view", "members"];
const MUTEX_NAMES: [&str; 5] = ["replicated", "central", "lamport", "ricart-agrawala", "token-ring"];
const ELECTION_NAMES: [&str; 2] = ["bully", "ring"];

/// A longest message up to this is in the number to the byte.
const EXACT_MAX: u64 = 16 << 20;
/// A longer one in steps of this.
const STEP: u64 = 64;
/// Above every setting's longest message, 256 MiB.
const LONG_COUNT: u64 = EXACT_MAX + (256 << 20) / STEP;
const MTU_COUNT: u64 = (Limits::MTU_MAX_BYTES - MTU_MIN_BYTES) as u64 + 1;
/// Members, and a sequencer that is one of them.
const SEATS: u64 = 64 * 65 / 2;
/// The digits' ranges, from the lowest.
const RANGES: [u64; 11] = [2, 2, 2, 5, 6, 2, 5, 2, SEATS, MTU_COUNT, LONG_COUNT];

/// Every number that a configuration can have fits 64 bits.
const _: () = {
    let (mut room, mut index) = (u64::MAX, 0);
    while index < RANGES.len() {
        room /= RANGES[index];
        index += 1;
    }
    assert!(room >= 1);
};

/// What must be the same at every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// How many members the group has.
    pub members: u16,
    /// The order of delivery.
    pub order: Order,
    /// When a message may be delivered.
    pub reliability: Reliability,
    /// Whether members relay.
    pub relay: bool,
    /// How receivers report.
    pub feedback: Feedback,
    /// The first sequencer.
    pub sequencer: Rank,
    /// Of which members a quorum goes on.
    pub quorum: Quorum,
    /// Which algorithm grants locks.
    pub mutex: MutexKind,
    /// Which algorithm elects leaders.
    pub election: ElectionKind,
    /// Whether a channel leans on the detectors of its group.
    pub leans: bool,
    /// Bytes of the longest datagram.
    pub mtu_bytes: usize,
    /// Bytes of the longest message.
    pub max_message_bytes: usize,
}

fn place<T: PartialEq>(all: &[T], value: &T) -> u64 {
    all.iter().position(|other| other == value).unwrap_or_default() as u64
}

impl Agreed {
    /// Of a configuration that was checked.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            members: config.members,
            order: config.order,
            reliability: config.reliability,
            relay: config.relay,
            feedback: config.feedback,
            sequencer: config.sequencer,
            quorum: config.quorum,
            mutex: config.mutex,
            election: config.election,
            leans: config.timing.detector.group_after_ns.is_some(),
            mtu_bytes: config.limits.mtu_bytes,
            max_message_bytes: config.limits.max_message_bytes,
        }
    }

    /// As one number.
    pub fn number(&self) -> u64 {
        let members = u64::from(self.members.clamp(1, Rank::MAX.0 + 1));
        let sequencer = u64::from(self.sequencer.0).min(members - 1);
        let mtu = self.mtu_bytes.clamp(MTU_MIN_BYTES, Limits::MTU_MAX_BYTES) - MTU_MIN_BYTES;
        let message = self.max_message_bytes as u64;
        let message = if message <= EXACT_MAX { message } else { EXACT_MAX + (message - EXACT_MAX) / STEP };
        let digits = [
            u64::from(self.relay),
            u64::from(self.feedback == Feedback::AckEach),
            u64::from(self.leans),
            place(&ORDERS, &self.order),
            place(&RELIABILITIES, &self.reliability),
            place(&QUORUMS, &self.quorum),
            place(&MUTEXES, &self.mutex),
            place(&ELECTIONS, &self.election),
            (members - 1) * members / 2 + sequencer,
            mtu as u64,
            message.min(LONG_COUNT - 1),
        ];
        debug_assert!(digits.iter().zip(RANGES).all(|(digit, range)| *digit < range), "{digits:?}");
        digits.iter().zip(RANGES).rev().fold(0, |number, (digit, range)| number * range + digit)
    }

    /// The settings of a number; none if no configuration has it.
    pub fn read(number: u64) -> Option<Self> {
        let (mut rest, mut digits) = (number, [0; RANGES.len()]);
        for (digit, range) in digits.iter_mut().zip(RANGES) {
            (*digit, rest) = (rest % range, rest / range);
        }
        let [relay, ack_each, leans, order, reliability, quorum, mutex, election, seat, mtu, message] = digits;
        let members = (1..=u64::from(Rank::MAX.0) + 1).find(|members| seat < members * (members + 1) / 2)?;
        let index = |digit: u64| digit as usize;
        let exact = if message <= EXACT_MAX { message } else { EXACT_MAX + (message - EXACT_MAX) * STEP };
        (rest == 0).then_some(Self {
            members: members as u16,
            order: *ORDERS.get(index(order))?,
            reliability: *RELIABILITIES.get(index(reliability))?,
            relay: relay == 1,
            feedback: if ack_each == 1 { Feedback::AckEach } else { Feedback::Nak },
            sequencer: Rank((seat - (members - 1) * members / 2) as u16),
            quorum: *QUORUMS.get(index(quorum))?,
            mutex: *MUTEXES.get(index(mutex))?,
            election: *ELECTIONS.get(index(election))?,
            leans: leans == 1,
            mtu_bytes: index(mtu) + MTU_MIN_BYTES,
            max_message_bytes: index(exact),
        })
    }

    /// Each setting's key and value.
    fn values(&self) -> [(&'static str, SettingValue); 12] {
        let named =
            |names: &[&'static str], place: u64| SettingValue::Name(names.get(place as usize).copied().unwrap_or("?"));
        let count = |count: usize| SettingValue::Number(count as u64);
        [
            ("group.members", count(self.members.into())),
            ("group.order", named(&ORDER_NAMES, place(&ORDERS, &self.order))),
            ("group.reliability", named(&RELIABILITY_NAMES, place(&RELIABILITIES, &self.reliability))),
            ("group.relay", SettingValue::Flag(self.relay)),
            ("group.ack_each", SettingValue::Flag(self.feedback == Feedback::AckEach)),
            ("group.sequencer", count(self.sequencer.index())),
            ("group.quorum", named(&QUORUM_NAMES, place(&QUORUMS, &self.quorum))),
            ("group.mutex", named(&MUTEX_NAMES, place(&MUTEXES, &self.mutex))),
            ("group.election", named(&ELECTION_NAMES, place(&ELECTIONS, &self.election))),
            ("channel.detector", SettingValue::Name(if self.leans { "group" } else { "own" })),
            ("limits.mtu_bytes", count(self.mtu_bytes)),
            ("limits.max_message_bytes", count(self.max_message_bytes)),
        ]
    }
}

/// A setting's value, as a configuration file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingValue {
    /// A word.
    Name(&'static str),
    /// A number.
    Number(u64),
    /// True or false.
    Flag(bool),
}

impl Display for SettingValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

/// What two processes of one group must have alike and have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// This process's settings, as [`Agreed::number`].
    pub own: u64,
    /// The other process's.
    pub other: u64,
}

impl Difference {
    /// Each setting that differs: its key, the value here, and the other process's. None if the other process's release
    /// has other settings.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, SettingValue, SettingValue)> + use<> {
        let both = Agreed::read(self.own).zip(Agreed::read(self.other));
        let pairs = both.map(|(own, other)| own.values().into_iter().zip(other.values()));
        pairs
            .into_iter()
            .flatten()
            .filter(|(own, other)| own != other)
            .map(|((key, own), (_, other))| (key, own, other))
    }

    /// Writes each setting that differs, with both values.
    pub(crate) fn write(&self, f: &mut Formatter<'_>, rank: Rank) -> fmt::Result {
        let mut is_first = true;
        for (key, own, other) in self.settings() {
            let before = if core::mem::take(&mut is_first) { "" } else { ", " };
            write!(f, "{before}{key} is {own} here and {other} at member {rank}")?;
        }
        if is_first { write!(f, "member {rank} has settings of another release") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use bourdon_wire::GroupId;

    fn all() -> impl Iterator<Item = Agreed> {
        let base = Agreed::of(&Config::new(GroupId(1), 1, Role::Observer));
        let kinds = MUTEXES.into_iter().flat_map(|mutex| ELECTIONS.map(|election| (mutex, election)));
        let seats = [(1, 0), (2, 1), (3, 0), (64, 0), (64, 63)];
        let sizes = [(1280, 1), (1408, 1 << 20), (9000, EXACT_MAX + 1), (65_507, 268_435_392)];
        kinds.flat_map(move |(mutex, election)| {
            ORDERS.into_iter().flat_map(move |order| {
                RELIABILITIES.into_iter().flat_map(move |reliability| {
                    seats.into_iter().flat_map(move |(members, sequencer)| {
                        sizes.map(|(mtu_bytes, bytes)| {
                            let (sequencer, max_message_bytes) = (Rank(sequencer), bytes as usize);
                            let (mutex, election) = (mutex, election);
                            Agreed {
                                members,
                                order,
                                reliability,
                                sequencer,
                                mutex,
                                election,
                                mtu_bytes,
                                max_message_bytes,
                                ..base
                            }
                        })
                    })
                })
            })
        })
    }

    #[test]
    fn a_number_is_read_as_what_it_was_made_from() {
        for mut agreed in all() {
            for bits in 0..16 {
                (agreed.relay, agreed.leans) = (bits & 1 != 0, bits & 2 != 0);
                agreed.feedback = if bits & 4 != 0 { Feedback::AckEach } else { Feedback::Nak };
                agreed.quorum = if bits & 8 != 0 { Quorum::Members } else { Quorum::View };
                let read = Agreed::read(agreed.number());
                let rounded = |agreed: Agreed| {
                    let bytes = agreed.max_message_bytes as u64;
                    let over = bytes.saturating_sub(EXACT_MAX) % STEP;
                    Agreed { max_message_bytes: (bytes - over) as usize, ..agreed }
                };
                assert_eq!(read, Some(rounded(agreed)));
            }
        }
    }

    #[test]
    fn no_number_panics_and_what_no_configuration_has_is_none() {
        assert_eq!(Agreed::read(u64::MAX), None);
        let mut rng = fastrand::Rng::with_seed(7);
        for number in core::iter::repeat_with(|| rng.u64(..)).take(100_000) {
            assert!(Agreed::read(number).is_none_or(|agreed| agreed.number() == number), "{number}");
        }
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let own = Agreed::of(&Config::new(GroupId(1), 3, Role::Observer));
        let other = Agreed { order: Order::Fifo, mtu_bytes: 9000, ..own };
        let difference = Difference { own: own.number(), other: other.number() };
        let named: alloc::vec::Vec<_> = difference.settings().collect();
        assert_eq!(
            named,
            [
                ("group.order", SettingValue::Name("total"), SettingValue::Name("fifo")),
                ("limits.mtu_bytes", SettingValue::Number(1408), SettingValue::Number(9000))
            ]
        );
        assert_eq!(Difference { own: 0, other: u64::MAX }.settings().count(), 0);
    }
}
