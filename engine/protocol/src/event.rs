//! What a process gives its application: messages, events, refusals.

mod network;
mod text;
mod waiting;

pub use network::{InterfaceName, NarrowPaths, NetworkLoss};
pub use waiting::{Reach, Waiting};

use crate::config::Difference;
use crate::control::detector::Why;
use crate::ranks::Ranks;
use crate::refusal::Refusal;
use crate::view::Member;
use alloc::vec::Vec;
use bourdon_wire::{
    Address, ClientTag, Epoch, GroupId, Incarnation, InstanceId, Instant, MessageName, OrderNumber, Rank, Sequence,
    TopicId,
};

/// One message, delivered.
///
/// ```
/// # extern crate bourdon_protocol as bourdon;
/// use bourdon::Message;
///
/// fn print(message: &Message<'_>) {
///     let Message { sender, sequence, payload, .. } = message;
///     println!("{sender} {sequence} {:?}: {} bytes", message.name, payload.len());
/// }
/// # let _ = print;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its sender; with `instance`, `incarnation` and `sequence` its name for ever.
    pub sender: Rank,
    /// The incarnation of the sender that sent it.
    pub incarnation: Incarnation,
    /// The instance of the group.
    pub instance: InstanceId,
    /// The sender's numbering of its messages, from 0, over all topics: a subscription to some topics sees holes, and
    /// only [`Event::Gap`] is a loss. A publication numbers its own messages, from 1.
    pub sequence: Sequence,
    /// Its place in the total order, from 0, where there is one; in real-time order, the group time at which it was
    /// sent in nanoseconds since the UNIX epoch, unless it is late.
    pub order: Option<OrderNumber>,
    /// The view it was sent and delivered in.
    pub epoch: Epoch,
    /// Whether it came too late for the place of its time of sending, in real-time order.
    pub late: bool,
    /// Its topic.
    pub topic: TopicId,
    /// Its topic's name, if it was published by name.
    pub name: Option<&'a str>,
    /// When the application sent it (or the intended time, if the application gave one), in nanoseconds since the UNIX
    /// epoch by the sender's clock.
    pub send_time_ns: u64,
    /// When the kernel received it, in nanoseconds since the UNIX epoch, where known.
    pub kernel_receive_ns: Option<u64>,
    /// When it was delivered: one clock reading a burst.
    pub delivered_at: Instant,
    /// The client that sent it through the member, if any did.
    pub client: Option<ClientTag>,
    /// The barrier it was delivered at, if it is a barrier's own message: then `sequence` is that of the sender's next.
    pub barrier: Option<u64>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Its name, for a message of another group that comes after it; `group` is the group in which it was delivered.
    pub fn message_name(&self, group: GroupId) -> MessageName {
        MessageName::new(group, (self.instance, self.epoch), (self.sender, self.incarnation), self.sequence)
    }

    /// A barrier's own message.
    pub(crate) fn at_barrier(
        sender: Member,
        sequence: Sequence,
        (instance, epoch): (InstanceId, Epoch),
        phase: u64,
        now: Instant,
        payload: &'a [u8],
    ) -> Self {
        Self {
            sender: sender.rank,
            incarnation: sender.incarnation,
            instance,
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

/// What happened beside the messages. Some events have their place among the messages: [`Event::is_ordered`]. The last
/// ones, from `Waiting` on, come from the node that runs the process.
///
/// ```
/// # extern crate bourdon_protocol as bourdon;
/// use bourdon::Event;
///
/// fn print(event: Event) {
///     match event {
///         Event::View { members, .. } => println!("{} members", members.len()),
///         event if event.is_ordered() => println!("at this place among the messages: {event}"),
///         event => println!("{event}"),
///     }
/// }
/// # let _ = print;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A view was installed. Everything of the view before has been delivered, and nothing of this view yet.
    ///
    /// It may be without this process: an observer is in none, and a member that was removed follows the group until
    /// it joins.
    View {
        /// Its id.
        epoch: Epoch,
        /// Its members.
        members: Ranks,
        /// The sequencer.
        sequencer: Rank,
        /// Members of the view before that asked to leave, as far as this process has heard.
        left: Ranks,
        /// The other members of the view before that are not in this one: the group went on without them, because they
        /// crashed, were restarted, or were not heard.
        failed: Ranks,
    },
    /// A member is suspected: it may be gone, or slow, or cut off.
    Suspected(Rank, Why),
    /// A suspected member was heard again.
    Trusted(Rank),
    /// Short datagrams come from a member and long ones do not: the path between the two carries no datagram of this
    /// length, or drops fragments. A member that lacks them can't keep up, and is removed if the others can go on
    /// without it; it comes back once they arrive.
    LongDatagramsLost {
        /// The member that lacks them, which has reported it; `None` for this observer.
        at: Option<Rank>,
        /// Their sender.
        from: Rank,
        /// Their length.
        bytes: u16,
    },
    /// Long datagrams come from a member again.
    LongDatagramsRestored {
        /// The member that receives them; `None` for this observer.
        at: Option<Rank>,
        /// Their sender.
        from: Rank,
        /// Their length.
        bytes: u16,
    },
    /// No quorum of the view can be reached: nothing is published or decided until a quorum can be reached again.
    NoMajority,
    /// A quorum can be reached again.
    Majority,
    /// The other members went on without this process, in the view with this id. It comes back by itself, as a new
    /// member.
    ///
    /// The group may deliver messages meanwhile that this process never delivers, and no [`Event::Gap`] reports them:
    /// the application gets this event, [`Event::Settled`], and later an [`Event::View`] that has its rank. A state
    /// that was kept up from the messages is behind the group's from here on. The application takes a
    /// snapshot (`Subscribe::snapshots`), or begins with an empty state.
    ///
    /// The messages that this process published and has not delivered are in doubt until [`Event::Settled`].
    Removed(Epoch),
    /// This process left, as its application requested. The view with this id is without it; 0 if it has heard of none.
    Left(Epoch),
    /// Of the messages that this process published before it was removed, all below `delivered` were delivered and no
    /// others ever will be: nothing is lost if that is `published`. It does not come at levels that lose messages, nor
    /// after [`Event::Superseded`] or [`Event::Recovered`]: then no process knows.
    Settled {
        /// Its incarnation before.
        incarnation: Incarnation,
        /// The first sequence not delivered.
        delivered: Sequence,
        /// The first sequence that it had not published.
        published: Sequence,
    },
    /// Datagrams of a stream were no longer retained anywhere, or were given up at a level that allows it; their
    /// messages are lost to this process. Messages are counted where the numbers on both sides of the gap show how many
    /// there are. An empty gap reports datagrams that held no numbered message: a barrier's own message may be lost
    /// with them.
    Gap {
        /// The stream's sender.
        sender: Rank,
        /// The first message given up.
        from: Sequence,
        /// The next message delivered.
        to: Sequence,
    },
    /// An observer had run ahead: these messages, delivered or given up here, belong to no view and are void. They may
    /// come in the next view.
    Retracted {
        /// Their sender.
        sender: Rank,
        /// The first of them.
        from: Sequence,
        /// The first message after them.
        to: Sequence,
    },
    /// A barrier is complete: everything sent before it has been delivered everywhere.
    Synced {
        /// How many have been completed in this group.
        phase: u64,
        /// Whether it completes a barrier that this process requested.
        asked: bool,
    },
    /// The snapshot is longer than `max_snapshot_bytes` here or at its donor: this process can't join.
    SnapshotTooLarge {
        /// Its length; 0 if only the donor knows it.
        bytes: u64,
        /// The limit that it exceeds.
        limit_bytes: u64,
    },
    /// This process can't become a member: for 5 s, a member has heard another process that is in the view with this
    /// process's rank. That process keeps the rank; this process should end.
    IdentityConflict {
        /// The rank.
        rank: Rank,
        /// Where the process that has it is reached.
        address: Address,
        /// The instance of the group that it is a member of.
        instance: InstanceId,
    },
    /// Another process uses this process's rank as well. A member of a view keeps its rank; of two processes outside
    /// the view, the first that joins gets the rank.
    RankClaimed(Rank),
    /// A member is back in another incarnation; it joins as a new member once the old one is out of the view.
    Restarted {
        /// The rank.
        rank: Rank,
        /// Its new incarnation.
        incarnation: Incarnation,
    },
    /// A process of this rank announces another configuration than this process has. It does not count as one of the
    /// group, whichever of the two is wrong.
    ConfigurationDiffers(Rank, Difference),
    /// The group is configured otherwise than this process: a majority of it, which has this member, has proved that it
    /// receives. This process was in no view yet; it can't join, and should end.
    Outvoted(Rank, Difference),
    /// Another instance of the group's name stays alive beside this member's: two groups have one name and one address.
    /// Each takes nothing from the other. Give one of them another name or address. Reported once for each other
    /// instance.
    OtherInstance {
        /// This process's instance.
        own: InstanceId,
        /// The other one.
        other: InstanceId,
        /// Where a member of it is reached.
        address: Address,
    },
    /// A newer instance of the group is alive with a majority. This process was in an older instance, resumed or cut
    /// off, or founded it by hand as another process founded the newer, and has left it. It joins the newer instance as
    /// a new member. State kept up from the older instance is not the newer one's: take a snapshot, or begin with an
    /// empty state.
    Superseded {
        /// The newer instance.
        instance: InstanceId,
    },
    /// An operator had this member found a new instance of the group with itself as the only member, because the
    /// majority of the older instance was gone. The other members of the older instance join it as new members. The
    /// application's state stays as it is; messages that this member received and did not deliver are void here, its
    /// own that were not acknowledged are in doubt, and its locks are lost.
    Recovered {
        /// The new instance.
        instance: InstanceId,
    },
    /// An instance is alive that formed before an instance that this process was in. This process joins it only if the
    /// later instance stays silent for 10 s.
    OlderInstance {
        /// The older instance.
        instance: InstanceId,
    },
    /// The instance that this observer followed ended, and it follows another from now on. This observer does not know
    /// what the earlier instance delivered after it last heard it; sequences and order numbers begin again at 0.
    NewInstance {
        /// The instance before.
        from: InstanceId,
        /// The instance followed now.
        to: InstanceId,
    },
    /// A member waits for this observer no longer: it was silent, or held the member up and delivered less than a
    /// window in the time allowed. It is let in again after a while, once it has caught up.
    GateEnded(Rank),
    /// This member waits for the observer at this address no longer, for that reason.
    GateDropped(Address),
    /// A member is reached at another address, as it has proved: its host has got another one.
    Moved {
        /// The member.
        rank: Rank,
        /// Its address from now on.
        address: Address,
        /// The view that this process is in, or follows.
        epoch: Epoch,
        /// Its members. The move changes no view.
        members: Ranks,
    },
    /// A process on the address uses another version.
    OtherVersion(u8),
    /// This process is in no view yet.
    Waiting(Waiting),
    /// Over the transport `auto`: how peers are reached has changed.
    Reached(Reach),
    /// Messages that a publication had accepted were dropped: the group can't take them, or this process was removed
    /// from it before they were delivered.
    ///
    /// At `reliable` and above no process delivers them, and the application may publish them again, as new messages;
    /// after [`Event::Removed`] only if [`Event::Settled`] has come since. At the levels `unreliable` and
    /// `best-effort`, and where no `Settled` comes (after [`Event::Superseded`] or
    /// [`Event::Recovered`]), other processes may have delivered
    /// them: published again, they may come twice. The refusal does not decide that: it is the last reason of any drop.
    Dropped {
        /// The publication's place in the order in which they were made.
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
    /// This process can use its network interface no longer: it sends and receives nothing until
    /// [`Event::NetworkBack`].
    NetworkLost {
        /// The interface.
        interface: InterfaceName,
        /// Why not.
        why: NetworkLoss,
    },
    /// The sockets of this process were opened again: its interface is back, or has got another address.
    NetworkBack {
        /// The interface.
        interface: InterfaceName,
        /// The address of this process from now on.
        address: Address,
        /// Its address before.
        before: Address,
    },
    /// This member reports nothing to others, because what it reports must be stored first, and the disk of
    /// `storage.directory` does not take it: until [`Event::StorageWorks`].
    StorageWaits {
        /// Whether the disk is full; else a sync takes long.
        is_full: bool,
        /// For how long it has waited.
        waited_ns: u64,
    },
    /// The disk of `storage.directory` takes what this member stores again.
    StorageWorks {
        /// For how long it has waited.
        waited_ns: u64,
    },
    /// The group's birth could not be stored after the start: the path, the reason and what is lost by it.
    BirthNotStored(&'static str),
    /// What is delivered is not recorded in the archive: why, and what to do.
    NotRecorded(&'static str),
    /// The control thread takes nothing: this node has stopped sending, acknowledging and delivering.
    Halted,
    /// The control thread is back, and this node goes on.
    Resumed,
    /// A subscription has left so many events unread that this many after them were not kept for it. None of them has
    /// its place among the messages.
    Missed {
        /// How many.
        count: u64,
    },
}

impl Event {
    /// Whether it has its place in the order: the application sees it after all that was delivered before it, and
    /// before all that is delivered after it. The other events report how things stand.
    pub const fn is_ordered(&self) -> bool {
        match self {
            Self::View { .. }
            | Self::Removed(_)
            | Self::Left(_)
            | Self::Settled { .. }
            | Self::Gap { .. }
            | Self::Retracted { .. }
            | Self::Synced { .. }
            | Self::Superseded { .. }
            | Self::Recovered { .. }
            | Self::NewInstance { .. } => true,
            Self::Suspected(..)
            | Self::Trusted(_)
            | Self::LongDatagramsLost { .. }
            | Self::LongDatagramsRestored { .. }
            | Self::NoMajority
            | Self::Majority
            | Self::SnapshotTooLarge { .. }
            | Self::IdentityConflict { .. }
            | Self::RankClaimed(_)
            | Self::Restarted { .. }
            | Self::ConfigurationDiffers(..)
            | Self::Outvoted(..)
            | Self::OlderInstance { .. }
            | Self::OtherInstance { .. }
            | Self::GateEnded(_)
            | Self::GateDropped(_)
            | Self::Moved { .. }
            | Self::OtherVersion(_)
            | Self::NetworkLost { .. }
            | Self::NetworkBack { .. }
            | Self::Waiting(_)
            | Self::Reached(_)
            | Self::Dropped { .. }
            | Self::SyncRefused(_)
            | Self::BirthNotStored(_)
            | Self::StorageWaits { .. }
            | Self::StorageWorks { .. }
            | Self::NotRecorded(_)
            | Self::Halted
            | Self::Resumed
            | Self::Missed { .. } => false,
        }
    }
}

/// The receivers of a direct message or a request, which travel beside the group's stream.
///
/// ```
/// # extern crate bourdon_protocol as bourdon;
/// # mod id { pub use bourdon_wire::Rank; }
/// use bourdon::To;
///
/// let receivers = [To::Nearest, To::Rank(id::Rank(2)), To::Among(&[id::Rank(0), id::Rank(2)])];
/// # let _ = receivers;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum To<'a> {
    /// One member.
    Rank(Rank),
    /// The nearest of the other members, by measured round trip; the next nearest if that one does not take it within
    /// 100 ms, or is suspected. Two members may have taken it then.
    Nearest,
    /// The same, of these members.
    Among(&'a [Rank]),
    /// The process at this address, as a message or a request of it gave it: an observer or a client, too.
    Address(Address),
    /// Every process of the group that hears the network, once and unacknowledged. Not for requests:
    /// these are refused as [`Refusal::Unreachable`].
    All,
}

/// Names a direct message that was sent, at its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a direct message is to its receiver's application. Numbers are those of requests, by their senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectKind {
    /// A message that needs no reply.
    Message,
    /// A request.
    Request(u64),
    /// The reply to a request of the receiver.
    Reply(u64),
    /// The application did not reply to a request of the receiver.
    Decline(u64),
}

impl DirectKind {
    /// Whether it answers a request.
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Reply(_) | Self::Decline(_))
    }
}

/// A direct message to send.
#[derive(Clone, Copy, Debug)]
pub struct DirectContent<'a> {
    /// What it is to the application.
    pub kind: DirectKind,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// For how long it is sent again at most; for 5 s at the longest. A request carries it, as the time for which its
    /// sender waits for the reply.
    pub lasts_ns: u64,
}

impl<'a> DirectContent<'a> {
    /// A message that needs no reply.
    pub fn message(payload: &'a [u8]) -> Self {
        Self { kind: DirectKind::Message, payload, lasts_ns: u64::MAX }
    }
}

/// A direct message that needs no reply, received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMessage {
    /// The sender's rank; [`Rank::OBSERVER`] or [`Rank::CLIENT`] if it has none.
    pub from: Rank,
    /// The sender's address.
    pub address: Address,
    /// Whether it was sent to all that hear the network, rather than to this process.
    pub broadcast: bool,
    /// The application's bytes.
    pub payload: Vec<u8>,
}

/// A request, received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectRequest {
    /// Its number at its sender, which the reply carries.
    pub call: u64,
    /// The sender's rank; [`Rank::OBSERVER`] or [`Rank::CLIENT`] if it has none.
    pub from: Rank,
    /// Where to send the reply.
    pub address: Address,
    /// How long its sender waits for the reply, from the first copy of the request on.
    pub patience_ns: u64,
    /// The application's bytes.
    pub payload: Vec<u8>,
}

/// An answer to a request of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectAnswer {
    /// The request's number.
    pub call: u64,
    /// The rank of the process that answers.
    pub from: Rank,
    /// Its address.
    pub address: Address,
    /// The reply, unless the application has declined.
    pub payload: Option<Vec<u8>>,
}

/// The outcome of a direct message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectOutcome {
    /// It was taken.
    Done {
        /// Which message.
        call: CallId,
        /// The process that took it.
        by: Rank,
        /// And its address.
        address: Address,
        /// The round trip of the copy that was acknowledged.
        rtt_ns: u64,
        /// How many copies were sent.
        attempts: u32,
    },
    /// No acknowledgement came in time. A receiver may have taken it all the same.
    Failed {
        /// Which message.
        call: CallId,
        /// Why not.
        why: DirectFailure,
        /// How many copies were sent.
        attempts: u32,
    },
}

/// Why a direct message failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectFailure {
    /// No process replied.
    #[error("no process replied within 5 s: check with `bourdon view` whether the process runs")]
    NoAnswer,
    /// The last reply was that there is no room.
    #[error("its application takes no direct messages, or not fast enough: its queue was full for 5 s")]
    Busy,
    /// The member is no longer in the view, or was restarted.
    #[error("that incarnation of the member is gone: it left, failed or was restarted")]
    Gone,
}
