//! The names of things, each a type of its own, so that the compiler catches a sequence used as an order number.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), " {}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        id!($(#[$doc])* $name(u64));

        impl $name {
            /// The next number. Never wraps: 2^64 is out of reach, and a number from the network saturates.
            #[inline]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// How far this is beyond `earlier`; zero when it is not.
            #[inline]
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl core::ops::Add<u64> for $name {
            type Output = Self;

            #[inline]
            fn add(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }
        }
    };
}

id!(/// A group, by a hash of its name; a datagram of another group is discarded.
    GroupId(u32));
id!(/// One formation of a group: drawn at random when the group forms, the same at all its members until all of them
/// end.
    /// Zero means none: its sender forms a group, or is outside one.
    InstanceId(u64));
id!(/// A view's id and nothing else.
    Epoch(u64));
id!(/// A member's number in the configuration, from 0. [`Rank::OBSERVER`] and [`Rank::CLIENT`] mark processes in no
    /// view.
    Rank(u16));
id!(/// Distinguishes the incarnations of a process at the same rank. Random, so it has no order; zero is none.
    Incarnation(u32));
id!(/// A channel of a group: streams of different channels share no numbering.
    ChannelId(u16));
id!(/// A topic, by a hash of its name.
    TopicId(u16));
id!(/// A client that publishes through a member.
    ClientId(u64));

number!(/// Counts the datagrams of one stream: what can be lost, requested again and retained.
    DatagramNumber);
number!(/// Counts the messages of one sender on one channel, from 0, over all topics; with the sender it names a
    /// message for ever.
    Sequence);
number!(/// Counts the messages of a group in their total order, from 0.
    OrderNumber);

impl Epoch {
    /// The epoch that follows.
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl InstanceId {
    /// No instance: the sender forms a group, or is outside one.
    pub const NONE: Self = Self(0);
}

impl Rank {
    /// The rank in the header of a datagram whose sender observes only.
    pub const OBSERVER: Self = Self(0xFFFF);
    /// The rank in the header of a datagram whose sender is a client.
    pub const CLIENT: Self = Self(0xFFFE);
    /// The highest rank a member can have: the bitmaps have 64 bits.
    pub const MAX: Self = Self(63);

    /// As an index into what is kept per member.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// FNV-1a over a name: small, fixed for ever, the same on every machine.
const fn hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

impl ClientId {
    /// The client of messages that are the group's own commands: they have their place in the order, and no application
    /// receives them.
    pub const GROUP: Self = Self(u64::MAX);
}

impl GroupId {
    /// The id of a group's name. Two names have the same id by chance once in 4 billion pairs; the groups would then
    /// have to share address and port as well to hear each other.
    pub const fn of(name: &str) -> Self {
        let hash = hash(name);
        Self((hash ^ (hash >> 32)) as u32)
    }
}

impl TopicId {
    /// The id of a topic's name. Sixteen bits collide by chance: a configuration that declares two topics with the same
    /// id is refused when it is read.
    pub const fn of(name: &str) -> Self {
        let hash = hash(name);
        let half = (hash ^ (hash >> 32)) as u32;
        Self((half ^ (half >> 16)) as u16)
    }
}
