//! What a process tells its application: messages, news, refusals.

use bourdon_wire::{ClientTag, Epoch, Incarnation, Instant, OrderNumber, Rank, Sequence, TopicId};

/// One message, delivered.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Who sent it; with `sequence` its name for ever.
    pub sender: Rank,
    /// The sender's numbering of its messages, from 0.
    pub sequence: Sequence,
    /// Its place in the total order, where there is one.
    pub order: Option<OrderNumber>,
    /// The view it was sent and delivered in.
    pub epoch: Epoch,
    /// Its topic.
    pub topic: TopicId,
    /// When the application sent it (or meant to, if it said so), in nanoseconds since the UNIX epoch by the sender's
    /// clock.
    pub send_time_ns: u64,
    /// When the kernel received it, in nanoseconds since the UNIX epoch, where known.
    pub kernel_receive_ns: Option<u64>,
    /// When it was delivered: one clock reading a burst.
    pub delivered_at: Instant,
    /// The client that sent it through the member, if one did.
    pub client: Option<ClientTag>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

/// News.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every member has been heard: publishing is possible.
    Formed,
    /// Nothing has come from this member for `silent_after_ns`; a static view stops until it comes back.
    MemberSilent(Rank),
    /// A silent member was heard again.
    MemberHeard(Rank),
    /// Datagrams of a stream were no longer retained anywhere; what stood in them is lost to this process. Messages
    /// are counted where the numbers on both sides of the gap tell.
    Gap {
        /// Whose stream.
        sender: Rank,
        /// The first message given up.
        from: Sequence,
        /// The first one delivered again.
        to: Sequence,
    },
    /// Another process uses this one's rank: one of the two has the wrong configuration.
    IdentityConflict(Rank),
    /// A member came back under a new incarnation; a static view can't take it in.
    Restarted {
        /// Which one.
        rank: Rank,
        /// Its new incarnation.
        incarnation: Incarnation,
    },
    /// A member was configured otherwise: members, order, mtu or message size differ.
    ConfigurationDiffers(Rank),
    /// Somebody on the address speaks another version.
    OtherVersion(u8),
}

/// Why a message was not taken. Nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The slowest member has not acknowledged enough yet: try again after the next step.
    #[error("the window is full: the slowest member is a whole window behind")]
    Window,
    /// Not every member has been heard yet.
    #[error("the group is still forming: not every member has been heard")]
    Forming,
    /// A member is silent, and a static view waits for it.
    #[error("member {0} is silent, and the group can't go on without it: restart it, or restart the group without it")]
    MemberSilent(Rank),
    /// The message is longer than `max_message_bytes` or a quarter of the window.
    #[error(
        "the message is longer than {limit_bytes} bytes, the least of max_message_bytes, a quarter of the slowest member's window and, for a claim, one datagram: split it, or raise max_message_bytes and the receive buffers (net.core.rmem_max)"
    )]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// An observer can't publish: be a member or a client.
    #[error("an observer can't publish: join as a member, or publish as a client")]
    Observer,
}
