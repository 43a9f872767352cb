//! A topic, and all that goes with a message beside its bytes.
//!
//! A verb for every combination of name, time and order would be eight verbs, twice. So what goes with a message rides
//! on its topic, which is made once and lent to each call.

use bourdon_protocol::{Message, Outgoing};
use bourdon_wire::{MessageName, NameError, TopicId, TopicName};
use std::fmt;
use std::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a message's payload may be: bytes, or a structure of plain fields without padding or alignment, which is read
/// in place. Every type has it that derives zerocopy's `FromBytes`, `IntoBytes`, `KnownLayout`, `Immutable` and
/// `Unaligned`.
pub trait Payload: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {}

impl<P: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + ?Sized> Payload for P {}

/// Where messages go, of payloads `P`: a topic's id, and what is sent with them.
///
/// ```
/// use bourdon::Topic;
/// use zerocopy::little_endian::{I64, U32};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
/// #[repr(C)]
/// struct Trade {
///     instrument: U32,
///     price: I64,
/// }
///
/// let quotes = Topic::new("md.es.quotes")?; // payloads are bytes
/// let trades = Topic::<Trade>::typed("md.es.trades")?;
/// let timed = quotes.sent_at_ns(1_800_000_000_000_000_000); // as a replay means it
/// # let _ = (trades, timed);
/// # Ok::<(), bourdon::error::NameError>(())
/// ```
pub struct Topic<P: ?Sized = [u8]> {
    outgoing: Outgoing,
    /// Nothing goes with the message but its topic's id.
    is_plain: bool,
    payload: PhantomData<fn(&P)>,
}

impl Topic {
    /// The topic of this name. Each message carries the name, its length and a byte: subscribers can choose it by
    /// patterns. [`Topic::unnamed`] saves these bytes.
    ///
    /// ```
    /// use bourdon::Topic;
    ///
    /// let trades = Topic::new("md.es.trades")?;
    /// assert!(Topic::new("md..trades").is_err()); // no part is empty
    /// # let _ = trades;
    /// # Ok::<(), bourdon::error::NameError>(())
    /// ```
    ///
    /// # Errors
    /// If the name is empty, longer than 64 bytes, or has another form than `parts.between.dots`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Self::typed(name)
    }

    /// A topic by its id alone. Subscribers choose it by name if `group.topics` lists that.
    ///
    /// ```
    /// use bourdon::Topic;
    /// use bourdon::id::TopicId;
    ///
    /// const TRADES: Topic = Topic::of_id(TopicId::of("md.es.trades"));
    /// # let _ = TRADES;
    /// ```
    pub const fn of_id(id: TopicId) -> Self {
        Self::with(Outgoing { topic: id, intended_send_ns: None, client: None, name: None, after: None })
    }
}

impl<P: Payload + ?Sized> Topic<P> {
    /// As [`Topic::new`], of payloads of this type.
    ///
    /// ```
    /// use bourdon::Topic;
    /// use zerocopy::little_endian::U64;
    ///
    /// let counts = Topic::<U64>::typed("counts")?; // its payloads are 8 bytes
    /// # let _ = counts;
    /// # Ok::<(), bourdon::error::NameError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Topic::new`].
    pub fn typed(name: &str) -> Result<Self, NameError> {
        Ok(Self::with(Outgoing::named(TopicName::new(name)?)))
    }

    /// The payload of a message of this topic, in place; none if the message has another topic or length. Two names may
    /// have the same id: names are compared where both this topic and the message have one.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(counts: &Topic<zerocopy::little_endian::U64>, message: &Message<'_>) {
    /// if let Some(count) = counts.read(message) {
    ///     println!("{count}");
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn read<'m>(&self, message: &Message<'m>) -> Option<&'m P> {
        let names = self.outgoing.name.as_ref().zip(message.name);
        let is_ours = message.topic == self.outgoing.topic && names.is_none_or(|(own, its)| own.as_str() == its);
        P::ref_from_bytes(message.payload).ok().filter(|_| is_ours)
    }
}

impl<P: ?Sized> Topic<P> {
    const fn with(outgoing: Outgoing) -> Self {
        let is_plain = outgoing.name.is_none() && outgoing.after.is_none() && outgoing.intended_send_ns.is_none();
        Self { outgoing, is_plain, payload: PhantomData }
    }

    /// The same topic, whose messages do not carry its name: subscribers know it if `group.topics` lists it.
    ///
    /// ```
    /// use bourdon::Topic;
    ///
    /// let trades = Topic::new("md.es.trades")?.unnamed(); // 13 bytes less on the network
    /// # let _ = trades;
    /// # Ok::<(), bourdon::error::NameError>(())
    /// ```
    pub fn unnamed(&self) -> Self {
        Self::with(Outgoing { name: None, ..self.outgoing })
    }

    /// The same topic, whose messages come after one of another channel: a process that runs both channels delivers
    /// them in that order. Costs 34 bytes on the network.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(group: id::GroupId, order: &Message<'_>, fills: &mut Publication, to: &Topic) -> Result<(), Refusal> {
    /// // `order` was delivered on another channel: a process that runs both delivers the fill after it.
    /// fills.try_publish(&to.after(order.message_name(group)), b"filled")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn after(&self, message: MessageName) -> Self {
        Self::with(Outgoing { after: Some(message), ..self.outgoing })
    }

    /// The same topic, whose messages were meant to be sent then, in nanoseconds since the UNIX epoch: receivers see
    /// that as their time of sending. Costs 8 bytes on the network.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(quotes: &mut Publication, topic: &Topic, recorded_at_ns: u64) -> Result<(), Refusal> {
    /// quotes.try_publish(&topic.sent_at_ns(recorded_at_ns), b"4750.25")?; // a replay
    /// # Ok(())
    /// # }
    /// ```
    pub fn sent_at_ns(&self, sent_at_ns: u64) -> Self {
        Self::with(Outgoing { intended_send_ns: Some(sent_at_ns), ..self.outgoing })
    }

    /// The id, which every message carries.
    pub fn id(&self) -> TopicId {
        self.outgoing.topic
    }

    /// The id, if nothing else goes with a message.
    #[inline]
    pub(crate) fn plain(&self) -> Option<TopicId> {
        self.is_plain.then_some(self.outgoing.topic)
    }

    /// All that goes with a message.
    #[inline]
    pub(crate) fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }
}

impl<P: ?Sized> Clone for Topic<P> {
    fn clone(&self) -> Self {
        Self::with(self.outgoing)
    }
}

impl<P: ?Sized> fmt::Debug for Topic<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outgoing { topic, name, .. } = &self.outgoing;
        f.debug_struct("Topic").field("id", topic).field("name", name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_topic_with_nothing_beside_its_id_is_plain() {
        let named = Topic::new("md.es").expect("a name");
        let plain = named.unnamed();
        assert_eq!((named.plain(), plain.plain()), (None, Some(named.id())));
        assert_eq!(Topic::of_id(named.id()).plain(), Some(named.id()));
        assert_eq!((plain.sent_at_ns(5).plain(), plain.clone().plain()), (None, Some(named.id())));
        assert!(Topic::new("md..es").is_err());
    }

    #[test]
    fn a_message_of_another_name_with_the_same_id_is_not_read() {
        let topic = Topic::new("md.es").expect("a name");
        let mut message = Message {
            sender: bourdon_wire::Rank(0),
            incarnation: bourdon_wire::Incarnation(1),
            instance: bourdon_wire::InstanceId(1),
            sequence: bourdon_wire::Sequence(0),
            order: None,
            epoch: bourdon_wire::Epoch(1),
            late: false,
            topic: topic.id(),
            name: Some("md.es"),
            send_time_ns: 0,
            kernel_receive_ns: None,
            delivered_at: bourdon_wire::Instant(0),
            client: None,
            barrier: None,
            payload: b"x",
        };
        assert!(topic.read(&message).is_some());
        message.name = Some("md.nq");
        assert!(topic.read(&message).is_none() && topic.unnamed().read(&message).is_some());
        message.name = None;
        assert!(topic.read(&message).is_some());
    }
}
