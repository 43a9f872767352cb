//! A client's messages at the member that it sends them to: taken, published in this member's stream, and answered.

use super::{Process, Standing};
use crate::config::Order;
use crate::control::clients::{Collected, HeldByQuorum, Request};
use crate::counters::Counter;
use crate::data::cut::Unsettled;
use crate::data::pack::Outgoing;
use crate::mutant::Mutant;
use crate::outbox::Destination;
use crate::refusal::Refusal;
use alloc::vec::Vec;
use bourdon_wire::records::{ClientAnswer, ClientMessage, ClientPlace, ClientRequest, refusals, request_flags};
use bourdon_wire::{
    Address, ClientId, ClientTag, DatagramNumber, Frame, InstanceId, Instant, Kind, Rank, Sequence, TopicId, TopicName,
};
use zerocopy::IntoBytes;

impl Process {
    pub(super) fn on_client(&mut self, now: Instant, instance: InstanceId, frame: &Frame<'_>) {
        let Some(message) = ClientRequest::read_all(frame.body) else { return };
        let request = message.request;
        let is_false = request.client.get() == ClientId::GROUP.0;
        if self.standing() != Standing::Member || !request.reply_to.is_reachable() || is_false {
            return;
        }
        let (client, sequence) = (ClientId(request.client.get()), Sequence(request.sequence.get()));
        if instance != self.data.view.instance && self.cx.config.mutant != Some(Mutant::OtherInstanceBelieved) {
            // Perhaps a recording. The answer names this instance, and a live client sends the message again in it.
            self.cx.count(Counter::DiscardedInstance);
            return self.answer_client(now, request.reply_to, &ClientAnswer::new(client, Sequence(0), refusals::BUSY));
        }
        let has_place = frame.body.len() >= ClientRequest::WITH_PLACE_BYTES;
        if request.flags.get() & (request_flags::HELLO | request_flags::GOODBYE) != 0 {
            let leaves = request.flags.get() & request_flags::GOODBYE != 0;
            let is_gone = leaves && self.on_goodbye(now, client, request, message.payload);
            let refusal = if is_gone { refusals::GONE } else { refusals::NONE };
            let answer = ClientAnswer::new(client, self.clients.taken(client), refusal);
            return self.answer_with_place(now, request.reply_to, &answer, has_place);
        }
        let skip = request.flags.get() & request_flags::SKIP != 0;
        let oldest = Sequence(sequence.0.saturating_sub(u64::from(request.under_way.get())));
        let is_ordered = matches!(self.cx.config.order, Order::Causal | Order::Total) && !self.data.is_lossy();
        // What another member took comes first.
        let since_taken = u64::from(request.since_taken.get());
        let before = (is_ordered && since_taken > 0).then(|| Sequence(oldest.0.saturating_sub(since_taken)));
        let answer = match self.clients.request(now, client, (oldest, sequence), request.reply_to, before) {
            Request::Answer(taken) => ClientAnswer::new(client, taken, refusals::NONE),
            Request::TooMany => ClientAnswer::new(client, self.clients.taken(client), refusals::TOO_MANY_CLIENTS),
            Request::Publish if skip => ClientAnswer::new(client, self.clients.skip(client), refusals::NONE),
            Request::Publish => match self.take_message(now, (client, sequence), frame.topic, &message) {
                Some(answer) => answer,
                None => return, // answered once a quorum holds it
            },
        };
        self.answer_with_place(now, request.reply_to, &answer, message.fragment.is_some());
    }

    /// Publishes the next message of a client, if it is whole. Returns the answer, if it was not published.
    fn take_message(
        &mut self,
        now: Instant,
        (client, sequence): (ClientId, Sequence),
        topic: TopicId,
        message: &ClientMessage<'_>,
    ) -> Option<ClientAnswer> {
        let mut collected = Vec::new();
        if let Some(fragment) = message.fragment {
            if fragment.total_bytes() > self.cx.config.limits.max_message_bytes {
                return Some(self.refuse_message((client, sequence), true));
            }
            let misplaces = self.cx.config.mutant == Some(Mutant::FragmentMisplaced);
            match self.clients.fragments.add(now, (client, sequence), fragment, message.payload, misplaces) {
                Collected::Whole(bytes) => collected = bytes,
                Collected::Unfinished => {
                    return Some(ClientAnswer::new(client, self.clients.taken(client), refusals::NONE));
                }
                Collected::NoRoom => return Some(self.refuse_message((client, sequence), false)),
            }
        }
        let payload = if message.fragment.is_some() { &collected[..] } else { message.payload };
        let outgoing = Outgoing {
            topic,
            intended_send_ns: None,
            client: Some(ClientTag::new(client, sequence)),
            name: message.name.and_then(|name| TopicName::new(name).ok()),
            after: None,
        };
        match self.try_publish(now, &outgoing, payload) {
            Ok(_) => {
                let open = self.data.outbound.as_ref().map_or(DatagramNumber(0), |o| o.packer.open);
                self.clients.published(client, sequence, open);
                None
            }
            Err(refusal) => {
                if let Some(fragment) = message.fragment {
                    collected.truncate(fragment.offset());
                    self.clients.fragments.keep(now, client, sequence, collected);
                }
                Some(self.refuse_message((client, sequence), matches!(refusal, Refusal::TooLarge { .. })))
            }
        }
    }

    /// The answer that a message is refused: for good only once everything before it is settled, because that answer
    /// acknowledges it too.
    fn refuse_message(&mut self, (client, sequence): (ClientId, Sequence), is_for_good: bool) -> ClientAnswer {
        let taken = self.clients.taken(client);
        let refusal = if is_for_good && taken == sequence { refusals::TOO_LARGE } else { refusals::BUSY };
        ClientAnswer::new(client, taken, refusal)
    }

    /// A client ends. Returns whether it has no place here now.
    fn on_goodbye(&mut self, now: Instant, client: ClientId, request: &ClientRequest, cookie: &[u8]) -> bool {
        let cookie = cookie.first_chunk().map_or(0, |cookie| u64::from_le_bytes(*cookie));
        let is_proven = self.trust.cookies().is_valid(now, &request.reply_to, cookie);
        self.clients.leave(client, Sequence(request.sequence.get()), request.reply_to, is_proven)
    }

    /// Answers with what the client may know of its member, if its request was as long.
    fn answer_with_place(&mut self, now: Instant, to: Address, answer: &ClientAnswer, has_place: bool) {
        if !has_place {
            return self.answer_client(now, to, answer);
        }
        let (next, received_bytes) = self.clients.next(ClientId(answer.client.get()));
        let place = ClientPlace {
            cookie: self.trust.cookies().cookie(now, &to).into(),
            max_message_bytes: u32::try_from(self.data.longest_message_bytes()).unwrap_or(u32::MAX).into(),
            received_bytes: u32::try_from(received_bytes).unwrap_or(u32::MAX).into(),
            next: next.0.into(),
        };
        let parts = [answer.as_bytes(), place.as_bytes()];
        self.cx.send(now, Destination::Peer(to), Kind::ClientAnswer, parts);
    }

    pub(super) fn answer_client(&mut self, now: Instant, to: Address, answer: &ClientAnswer) {
        let (to, parts) = (Destination::Peer(to), [answer.as_bytes(), &[]]);
        self.cx.send(now, to, Kind::ClientAnswer, parts);
    }

    /// All of a view has been delivered: what is to be published again in the next, and was delivered through another
    /// member, keeps its number there and nothing else. An observer that gave up the first copy, or begins in the next
    /// view, would deliver the second.
    pub(super) fn void_copies(&mut self) {
        let clients = &mut self.clients;
        let is_copy = |message: &&mut Unsettled| message.outgoing.client.is_some_and(|tag| clients.has_delivered(tag));
        self.unsettled.iter_mut().filter(is_copy).for_each(Unsettled::void);
    }

    /// Answers clients whose messages a quorum holds by now.
    #[inline]
    pub(super) fn settle_clients(&mut self, now: Instant) {
        if self.clients.awaits_answers() {
            self.answer_settled(now);
        }
    }

    #[cold]
    fn answer_settled(&mut self, now: Instant) {
        let Some(own) = self.data.own() else { return };
        let order = self.cx.config.order;
        let marks = matches!(order, Order::Causal | Order::Total).then(|| self.data.marks());
        if let Some(marks) = marks.as_ref().filter(|_| order == Order::Total) {
            self.data.note_sequencer_holds(marks);
        }
        let ranks = (0..self.data.streams.len()).map(|rank| Rank(rank as u16));
        let held: Vec<DatagramNumber> = ranks.map(|rank| self.data.held_by_quorum(rank)).collect();
        let held = HeldByQuorum { own, streams: &held, delivered: marks.as_deref() };
        let (outbox, counters) = (&mut self.cx.outbox, &mut self.cx.counters);
        self.clients.settle(held, |client, taken, to| {
            let answer = ClientAnswer::new(client, taken, refusals::NONE);
            let (to, parts) = (Destination::Peer(to), [answer.as_bytes(), &[]]);
            outbox.record(now, to, Kind::ClientAnswer, parts, counters);
        });
    }
}
