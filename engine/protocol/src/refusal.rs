//! Why a process takes no message now.
//!
//! A publisher must decide at once whether to wait, to wait for an event, or to give up. A list of reasons leaves that
//! to each application, and each new reason breaks those that listed the old ones. So every reason has one of three
//! classes, and an application asks for the class.

use crate::ranks::Ranks;
use bourdon_wire::Rank;
use core::fmt;

/// Why a message or a request was refused. Nothing of it was sent, and nothing has changed.
///
/// - **Back-pressure**, over in milliseconds: `Window`, `Paced`, `Queue`, `ViewChange`, `Barrier`, `TooMany`,
///   `TooManyClients`. Poll, wait, or drop the message.
/// - **Unavailable**, as long as an outage lasts: `Forming`, `Outside`, `NoMajority`, `Unheard`, `NoReceiver`,
///   `NoNetwork`. Wait for the event `View` or `Majority`.
/// - **Permanent**: `TooLarge`, `Role`, `Unreachable`, `Unsupported`, `Closed`, `Cancelled`. Change the message or
///   the settings; the node has ended, or its waits have.
///
/// [`Refusal::is_transient`] holds for the first two: the same call may succeed later.
///
/// ```
/// # extern crate bourdon_protocol as bourdon;
/// # mod event { pub use super::bourdon::Ranks; }
/// use bourdon::Refusal;
///
/// let refusal = Refusal::Forming { missing: event::Ranks(0b10) };
/// assert!(refusal.is_transient() && refusal.is_unavailable());
/// assert_eq!(refusal.to_string(), "the group is still forming (not heard: member 1)");
/// assert_eq!(format!("{refusal:?}"), "Forming { missing: member 1 }");
/// assert!(!Refusal::TooLarge { limit_bytes: 1 << 20 }.is_transient());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The window is full: a receiver has not acknowledged enough yet.
    #[error("the window is full: {} is a whole window behind", receiver(.slowest))]
    Window {
        /// The member that is furthest behind. `None` if it is an observer that gates, or this process itself: its own
        /// log is full of what it has not delivered or sent, as while one of its own subscriptions is full.
        slowest: Option<Rank>,
    },
    /// The message would be sent faster than `flow.rate_limit_bytes_per_s`, or than observers that are paced for can
    /// receive.
    #[error("the message would be sent too fast, for the configured rate or for observers that are paced for")]
    Paced,
    /// The ring to the data agent is full, and the agent waits for nothing else: it is behind.
    #[error("the publication's ring is full: the data agent is behind")]
    Queue,
    /// The view is about to change, or has just changed.
    #[error("the view is changing: what was published is kept, try again after the next view")]
    ViewChange,
    /// A barrier is under way.
    #[error("a barrier is under way: try again when it is complete")]
    Barrier,
    /// So many requests wait already.
    #[error("{limit} requests wait already: try again when one is complete")]
    TooMany {
        /// How many may wait.
        limit: usize,
    },
    /// The member serves as many clients as it can: this client waits until another one ends.
    #[error("the member serves {limit} clients, as many as it can: this client waits until another one ends")]
    TooManyClients {
        /// How many it serves.
        limit: usize,
    },
    /// The group has no view yet, or not every member of the first view is known.
    #[error("the group is still forming{}", unheard(.missing))]
    Forming {
        /// The members that have not been heard.
        missing: Ranks,
    },
    /// This process is in no view: it joins, or was removed, or left.
    #[error("this process is in no view yet: it joins, or comes back after it was removed")]
    Outside,
    /// No quorum of the view can be reached.
    #[error(
        "no majority of the view can be reached{}: restore the network, or let members that are paused go on; where a \
             majority is gone for good, run `bourdon recover` beside a survivor", unheard(.missing)
    )]
    NoMajority {
        /// The members that are suspected.
        missing: Ranks,
    },
    /// No heartbeat of this member was received: a direct message to it has no way.
    #[error("member {0} has not been heard: it does not run, or is not reachable from here")]
    Unheard(Rank),
    /// No heartbeat of any member that a direct message may go to was received.
    #[error("no eligible member has been heard from yet")]
    NoReceiver,
    /// The network interface of this process is gone, down, or without an address.
    #[error("the network interface of this process can't be used now: nothing is sent until it can")]
    NoNetwork,
    /// The message is longer than `max_message_bytes` or a quarter of the window. A request, a reply, a direct message
    /// and a claim at an inline node must fit one datagram (`limits.mtu_bytes`).
    #[error(
        "the message is longer than {limit_bytes} bytes, the least of max_message_bytes, a quarter of the slowest \
             member's window and, for a claim or a direct message, one datagram: split it, or raise \
             max_message_bytes and the receive buffers (net.core.rmem_max), or limits.mtu_bytes"
    )]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The role of this process rules it out.
    #[error("process.role rules that out: an inline observer can't publish, and a client is in no view")]
    Role,
    /// A direct message would go to this process itself, to a rank that no member has, or to an address at which there
    /// can be no process; or a request to [`To::All`](crate::To::All).
    #[error(
        "a direct message can't go to this process itself or to a rank beyond group.members, and only to an address \
             of one process, with a port"
    )]
    Unreachable,
    /// A setting rules it out.
    #[error("{setting} rules that out: choose another value, or do without")]
    Unsupported {
        /// Its key.
        setting: &'static str,
    },
    /// The node has ended, or is being closed.
    #[error("the node has ended, or is being closed")]
    Closed,
    /// The wait was cancelled, and so is every later one of this node.
    #[error("the wait was cancelled")]
    Cancelled,
}

impl Refusal {
    /// Whether the same call may succeed later without a change by the application: back-pressure or an outage.
    pub fn is_transient(self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. }
                | Self::Role
                | Self::Unreachable
                | Self::Unsupported { .. }
                | Self::Closed
                | Self::Cancelled
        )
    }

    /// Whether it lasts as long as an outage: this process is in no view, or reaches no majority.
    #[inline]
    pub fn is_unavailable(self) -> bool {
        matches!(
            self,
            Self::Forming { .. }
                | Self::Outside
                | Self::NoMajority { .. }
                | Self::Unheard(_)
                | Self::NoReceiver
                | Self::NoNetwork
        )
    }
}

fn receiver(slowest: &Option<Rank>) -> impl fmt::Display {
    fmt::from_fn(move |f| match slowest {
        Some(rank) => write!(f, "member {rank}"),
        None => f.write_str("an observer that gates, or this process,"),
    })
}

fn unheard(missing: &Ranks) -> impl fmt::Display {
    fmt::from_fn(move |f| if missing.is_empty() { Ok(()) } else { write!(f, " (not heard: {missing:?})") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn reasons_have_one_class_each_and_name_the_members() {
        let back_pressure = [
            Refusal::Window { slowest: Some(Rank(2)) },
            Refusal::Window { slowest: None },
            Refusal::Paced,
            Refusal::Queue,
            Refusal::ViewChange,
            Refusal::Barrier,
            Refusal::TooMany { limit: 64 },
        ];
        let unavailable = [
            Refusal::Forming { missing: Ranks(0b1010) },
            Refusal::Outside,
            Refusal::NoMajority { missing: Ranks(1 << 63) },
            Refusal::Unheard(Rank(3)),
            Refusal::NoReceiver,
            Refusal::NoNetwork,
        ];
        let unsupported = Refusal::Unsupported { setting: "network.transport" };
        let too_large = Refusal::TooLarge { limit_bytes: 9 };
        let permanent = [too_large, Refusal::Role, Refusal::Unreachable, unsupported, Refusal::Closed];
        for (refusals, is_transient, is_unavailable) in
            [(&back_pressure[..], true, false), (&unavailable, true, true), (&permanent, false, false)]
        {
            for refusal in refusals {
                assert_eq!((refusal.is_transient(), refusal.is_unavailable()), (is_transient, is_unavailable));
            }
        }
        assert!(back_pressure[0].to_string().contains("member 2") && back_pressure[1].to_string().contains("observer"));
        assert_eq!(unavailable[0].to_string(), "the group is still forming (not heard: members 1, 3)");
        assert_eq!(Refusal::Forming { missing: Ranks(0) }.to_string(), "the group is still forming");
        assert!(unavailable[2].to_string().contains("(not heard: member 63): restore"));
    }
}
