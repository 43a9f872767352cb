//! What a process tells its application: messages, news, refusals.

use crate::control::detector::Why;
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
    /// Whether it came too late to stand where its time of sending belongs, in real-time order.
    pub late: bool,
    /// Its topic.
    pub topic: TopicId,
    /// Its topic's name, if it was published by name.
    pub name: Option<&'a str>,
    /// When the application sent it (or meant to, if it said so), in nanoseconds since the UNIX epoch by the sender's
    /// clock.
    pub send_time_ns: u64,
    /// When the kernel received it, in nanoseconds since the UNIX epoch, where known.
    pub kernel_receive_ns: Option<u64>,
    /// When it was delivered: one clock reading a burst.
    pub delivered_at: Instant,
    /// The client that sent it through the member, if one did.
    pub client: Option<ClientTag>,
    /// The barrier it was delivered at, if it is a barrier's own message: then `sequence` is that of the sender's next.
    pub barrier: Option<u64>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// A barrier's own message.
    pub(crate) fn at_barrier(
        sender: Rank,
        sequence: Sequence,
        epoch: Epoch,
        phase: u64,
        now: Instant,
        payload: &'a [u8],
    ) -> Self {
        Self {
            sender,
            sequence,
            order: None,
            epoch,
            late: false,
            topic: TopicId(0),
            name: None,
            send_time_ns: 0,
            kernel_receive_ns: None,
            delivered_at: now,
            client: None,
            barrier: Some(phase),
            payload,
        }
    }
}

/// News.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A view was installed. Everything of the one before has been delivered, and nothing of this one yet.
    View {
        /// Its id.
        epoch: Epoch,
        /// Bit r: the process of rank r is a member.
        members: u64,
        /// Who gives the order.
        sequencer: Rank,
    },
    /// A member is suspected: it may be gone, or slow, or cut off.
    Suspected(Rank, Why),
    /// A suspected member was heard again.
    Trusted(Rank),
    /// No quorum of the view can be reached: nothing is published or decided until one is.
    NoMajority,
    /// A quorum can be reached again.
    Majority,
    /// The others went on without this process, in the view with this id: it comes back by itself, as another member.
    /// What it had published and not seen delivered is in doubt until [`Event::Settled`].
    Removed(Epoch),
    /// This process left, as it had been told to.
    Left(Epoch),
    /// Of this process's messages before it was removed, all below were delivered and no others ever will be.
    Settled {
        /// Its life before.
        incarnation: Incarnation,
        /// The first sequence not delivered.
        delivered: Sequence,
    },
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
    /// An observer had run ahead: these messages, delivered or given up here, belong to no view and are void. They may come
    /// in the next.
    Retracted {
        /// Whose.
        sender: Rank,
        /// The first of them.
        from: Sequence,
        /// The first one that is not.
        to: Sequence,
    },
    /// A barrier is complete: everything sent before it has been delivered everywhere.
    Synced {
        /// How many have been completed in this group.
        phase: u64,
        /// Whether it completes one that this process asked for.
        asked: bool,
    },
    /// Somebody joins: give it the application's state, as it is between two deliveries, with
    /// [`Process::give_snapshot`](crate::Process::give_snapshot).
    SnapshotWanted,
    /// The application's state at another member has come: take it with
    /// [`Process::take_snapshot`](crate::Process::take_snapshot); what follows it is delivered afterwards.
    SnapshotReady,
    /// The snapshot is longer than `max_snapshot_bytes` here or at its donor: this process can't join.
    SnapshotTooLarge {
        /// How long it is; 0 if only the donor knows.
        bytes: u64,
        /// The limit that it exceeds.
        limit_bytes: u64,
    },
    /// Another process uses this one's rank: one of the two has the wrong configuration.
    IdentityConflict(Rank),
    /// A member is back in another life; it joins as a new member once the old one is out of the view.
    Restarted {
        /// Which one.
        rank: Rank,
        /// Its new incarnation.
        incarnation: Incarnation,
    },
    /// A process was configured otherwise: members, order, reliability, mtu or message size differ.
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
    /// The view is about to change, or has just changed: try again when the next one is installed.
    #[error("the view is changing: what was published is kept, try again after the next view")]
    ViewChange,
    /// A barrier is under way.
    #[error("a barrier is under way: try again when it is complete")]
    Barrier,
    /// No quorum of the view can be reached.
    #[error("no majority of the view can be reached: restore the network, or restart the members that are gone")]
    NoMajority,
    /// This process is in no view: it joins, or was removed, or left.
    #[error("this process is in no view yet: it joins, or comes back after it was removed")]
    Outside,
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
