//! Clients: processes in no view that publish through any member.
//!
//! A client's request may be lost, and so may the answer; or the member that accepted it crashes. The client then sends
//! again, perhaps to another member, and the message must not be delivered twice. The client's id and its own sequence
//! travel with the message; every process keeps, for each client, which sequences it has *delivered* and skips those,
//! whichever member carried them. That is a watermark and, where orders weaker than causal let later messages overtake,
//! the runs beyond it. A member accepts exactly the next sequence it has neither delivered nor published, and answers
//! only once a quorum holds the message and, in causal and total order, what was delivered before it: a message that
//! was acknowledged to a client is delivered, whichever member crashes.
//!
//! A client sends with each request how many before it are still pending. Sequences below those are settled: another
//! member has accepted the message, or has refused it as too long, which only that member knows. In causal and total
//! order a member delivers what another member accepted before it publishes more of that client: otherwise nothing
//! would hold the later message back at other members, and the sequencer, which need not hold the earlier one, could
//! order it second.
//!
//! A client that ends sends a goodbye, and its place is free at once. What was delivered of it remains known
//! (`clients/delivered.rs`), so a copy of its messages that comes later is not delivered again, and a delayed request
//! is answered without a place. A goodbye counts only with the cookie that this member sent to the address of the
//! place's client, and only if nothing of the client is pending: a forged one frees no place, and a recorded one is of
//! a client that has ended.
//!
//! A message longer than a datagram comes in fragments (`clients/fragments.rs`), and is published once it is whole.
//!
//! Invariant: a client's messages are delivered once; in its order as well, where the group's order is causal or total.
//! Bound: [`CLIENTS_MAX`] places, with at most [`UNDER_WAY_MAX`] pending messages each; when all are occupied, the
//! client that has been quiet longest loses its place to another once it has been quiet for [`QUIET_NS`].
//!
//! At `reliable`, a message that another member carried counts as accepted once it is delivered here.

mod delivered;
mod fragments;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bourdon_wire::{Address, ClientId, ClientTag, DatagramNumber, Instant, Rank, Sequence};
use delivered::{Delivered, Watermarks};
pub(crate) use fragments::{Collected, Fragments};

/// How many clients one member serves: few enough for a linear search.
pub(crate) const CLIENTS_MAX: usize = 1024;
/// Messages of one client that were published here and that no quorum holds yet; twice what a client has pending.
pub(crate) const UNDER_WAY_MAX: usize = 64;
/// A client that was not heard for so long loses its place if another needs it: a client that waits for an answer sends
/// at least each second, so it has ended, or has nothing to publish. It gets a place again as any other.
pub(crate) const QUIET_NS: u64 = 10_000_000_000;
/// How long a message waits for those that another member accepted: longer than any repair, and than a view change
/// over links that retransmit for seconds.
const OTHERS_WAIT_NS: u64 = 5_000_000_000;

const _: () = assert!(OTHERS_WAIT_NS < QUIET_NS);

/// A client that this member serves.
#[derive(Debug)]
struct Place {
    client: ClientId,
    /// The next sequence to publish here.
    next: Sequence,
    /// A quorum holds everything below.
    taken: Sequence,
    /// The message of another member that a request waits for, and since when.
    waiting: Option<(Sequence, Instant)>,
    under_way: VecDeque<UnderWay>,
    reply_to: Address,
    heard_at: Instant,
}

/// A message published here.
#[derive(Clone, Debug)]
struct UnderWay {
    /// The sequence after it.
    next: Sequence,
    /// The datagram that it ends in.
    datagram: DatagramNumber,
    /// By rank: every datagram that may have to come first is below this; known once the message was delivered.
    after: Option<Arc<[DatagramNumber]>>,
}

/// What a quorum holds, for the clients that wait for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldByQuorum<'a> {
    /// This member.
    pub(crate) own: Rank,
    /// How far a quorum holds the stream of each rank.
    pub(crate) streams: &'a [DatagramNumber],
    /// In causal and total order: how far each stream has been delivered here.
    pub(crate) delivered: Option<&'a [DatagramNumber]>,
}

impl UnderWay {
    /// Whether the message survives any crash: a quorum holds it and, where messages of other senders come first, all
    /// that was delivered before it. If a view change lost one of those, the message itself could not be delivered.
    fn is_settled(&self, held: HeldByQuorum<'_>) -> bool {
        let is_after_held =
            |after: &Arc<[DatagramNumber]>| after.iter().zip(held.streams).all(|(mark, held)| mark <= held);
        self.datagram < held.streams[held.own.index()]
            && (held.delivered.is_none() || self.after.as_ref().is_some_and(is_after_held))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    places: Vec<Place>,
    delivered: Watermarks,
    /// Of the next message of each client.
    pub(crate) fragments: Fragments,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Publish it, then call [`Clients::published`].
    Publish,
    /// Only answer: everything below this was accepted.
    Answer(Sequence),
    /// No room for another client.
    TooMany,
}

impl Place {
    fn new(now: Instant, client: ClientId) -> Self {
        Self {
            client,
            next: Sequence(0),
            taken: Sequence(0),
            waiting: None,
            under_way: VecDeque::new(),
            reply_to: Address::default(),
            heard_at: now,
        }
    }

    /// Notes for each message that was delivered by now what may have to come before it.
    fn mark(&mut self, known: &Delivered, delivered: &[DatagramNumber], marks: &mut Option<Arc<[DatagramNumber]>>) {
        for under_way in self.under_way.iter_mut().filter(|under_way| under_way.after.is_none()) {
            if known.has(under_way.next) {
                under_way.after = Some(Arc::clone(marks.get_or_insert_with(|| Arc::from(delivered))));
            }
        }
    }

    /// Whether the message `before`, which another member took, is still to be delivered here.
    fn waits_for(&mut self, now: Instant, known: &Delivered, before: Sequence) -> bool {
        let next = before.next();
        if next <= self.next || known.has(next) {
            self.waiting = None;
            return false;
        }
        let waiting = self.waiting.filter(|(first, _)| *first == before);
        let (_, since) = *self.waiting.insert(waiting.unwrap_or((before, now)));
        now.since(since) < OTHERS_WAIT_NS
    }

    /// If nothing published here is pending, what was delivered counts as accepted: whichever member carried it, and
    /// whatever was given up before.
    fn take_delivered(&mut self, known: &Delivered) {
        if !self.under_way.is_empty() {
            return;
        }
        self.taken = known.past(self.taken);
        self.next = self.next.max(self.taken);
        debug_assert!(self.taken >= known.below, "what was delivered counts as accepted: {self:?}");
    }
}

/// Of a client of which nothing was delivered.
static NOTHING: Delivered = Delivered::NOTHING;

impl Clients {
    fn place(&mut self, client: ClientId) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.client == client)
    }

    /// The client's place, with what was delivered of it.
    fn known(&mut self, client: ClientId) -> Option<(&mut Place, &Delivered)> {
        let place = self.places.iter_mut().find(|place| place.client == client)?;
        Some((place, self.delivered.get(client).unwrap_or(&NOTHING)))
    }

    /// A client requests that `sequence` be published; everything below `oldest` is settled. `before`: the last
    /// message that any member took, which must be delivered here first.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        client: ClientId,
        (oldest, sequence): (Sequence, Sequence),
        reply_to: Address,
        before: Option<Sequence>,
    ) -> Request {
        let Some(index) = self.places.iter().position(|place| place.client == client) else {
            return self.request_place(now, client, (oldest, sequence), reply_to, before);
        };
        let (place, known) = (&mut self.places[index], self.delivered.get(client).unwrap_or(&NOTHING));
        (place.heard_at, place.reply_to) = (now, reply_to);
        if before.is_some_and(|before| place.waits_for(now, known, before)) {
            return Request::Answer(place.taken);
        }
        place.next = place.next.max(known.below).max(oldest);
        place.taken = place.taken.max(oldest);
        place.take_delivered(known);
        debug_assert!(place.taken <= place.next, "what is acknowledged was published: {place:?}");
        if sequence == place.next && place.under_way.len() < UNDER_WAY_MAX {
            return Request::Publish;
        }
        Request::Answer(place.taken)
    }

    /// The same of a client without a place. A message that was delivered here needs none: its client may have ended,
    /// and this is a late copy.
    #[cold]
    fn request_place(
        &mut self,
        now: Instant,
        client: ClientId,
        (oldest, sequence): (Sequence, Sequence),
        reply_to: Address,
        before: Option<Sequence>,
    ) -> Request {
        if let Some(known) = self.delivered.get(client).filter(|known| known.has(sequence.next())) {
            return Request::Answer(known.past(oldest)); // below, an earlier instance may have taken some
        }
        if !self.enter(now, client) {
            return Request::TooMany;
        }
        self.request(now, client, (oldest, sequence), reply_to, before)
    }

    fn enter(&mut self, now: Instant, client: ClientId) -> bool {
        if self.places.len() >= CLIENTS_MAX {
            let quietest = (0..self.places.len()).min_by_key(|index| self.places[*index].heard_at);
            let is_quiet = |index: &usize| now.since(self.places[*index].heard_at) >= QUIET_NS;
            let Some(quietest) = quietest.filter(is_quiet) else { return false };
            let gone = self.places.swap_remove(quietest);
            self.fragments.forget(gone.client);
        }
        self.places.push(Place::new(now, client));
        debug_assert!(self.places.len() <= CLIENTS_MAX, "{} clients", self.places.len());
        true
    }

    /// A client that is at this address ends: `next` is the sequence that it would publish next. Returns whether it has
    /// no place here now. `is_proven`: the client has proved that it receives at that address.
    pub(crate) fn leave(&mut self, client: ClientId, next: Sequence, reply_to: Address, is_proven: bool) -> bool {
        let Some(index) = self.places.iter().position(|place| place.client == client) else { return true };
        let place = &self.places[index];
        let leaves = is_proven && place.reply_to == reply_to && place.under_way.is_empty() && next >= place.taken;
        if leaves {
            self.places.swap_remove(index);
            self.fragments.forget(client);
        }
        leaves
    }

    /// How many clients have a place.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Of how many clients it is known what was delivered.
    pub(crate) fn watermarks(&self) -> usize {
        self.delivered.len()
    }

    /// A message of a client was published here; `open` is the datagram that it ends in.
    pub(crate) fn published(&mut self, client: ClientId, sequence: Sequence, open: DatagramNumber) {
        if let Some(place) = self.place(client) {
            place.next = place.next.max(sequence.next());
            debug_assert!(place.under_way.back().is_none_or(|last| last.datagram <= open), "{place:?}, then {open}");
            place.under_way.push_back(UnderWay { next: sequence.next(), datagram: open, after: None });
        }
    }

    /// A message was refused for good: its sequence is used up, once everything before it is settled. Until then the
    /// client repeats the request: a message that is to be published again in another view is not pending and may yet
    /// be lost. Returns the sequence to acknowledge to the client.
    pub(crate) fn skip(&mut self, client: ClientId) -> Sequence {
        let Some(place) = self.place(client) else { return self.taken(client) };
        assert!(place.taken <= place.next, "what is acknowledged was published: {place:?}");
        if place.taken == place.next {
            place.next = place.next.next();
            place.taken = place.next;
        }
        place.taken
    }

    /// The sequence to acknowledge to a client.
    pub(crate) fn taken(&mut self, client: ClientId) -> Sequence {
        match self.place(client) {
            Some(place) => place.taken,
            None => self.delivered.get(client).map_or(Sequence(0), |known| known.past(Sequence(0))),
        }
    }

    /// The sequence that is published next here for a client, and how many bytes of that message are here.
    pub(crate) fn next(&mut self, client: ClientId) -> (Sequence, usize) {
        let next = self.place(client).map(|place| place.next).unwrap_or_else(|| self.taken(client));
        (next, self.fragments.received_bytes(client, next))
    }

    /// Whether any client waits for a quorum.
    #[inline]
    pub(crate) fn awaits_answers(&self) -> bool {
        self.places.iter().any(|place| !place.under_way.is_empty())
    }

    /// A quorum holds more than before: passes to `notify` the clients to answer and what to acknowledge.
    pub(crate) fn settle(&mut self, held: HeldByQuorum<'_>, mut notify: impl FnMut(ClientId, Sequence, Address)) {
        let mut marks = None;
        for place in self.places.iter_mut().filter(|place| !place.under_way.is_empty()) {
            let before = place.taken;
            if let Some(delivered) = held.delivered {
                place.mark(self.delivered.get(place.client).unwrap_or(&NOTHING), delivered, &mut marks);
            }
            while let Some(first) = place.under_way.pop_front_if(|first| first.is_settled(held)) {
                place.taken = place.taken.max(first.next);
            }
            debug_assert!(place.taken <= place.next, "what is acknowledged was published: {place:?}");
            if place.taken > before {
                notify(place.client, place.taken, place.reply_to);
            }
        }
    }

    /// A new view numbers datagrams from the start: what was pending has been delivered, or will be published again.
    pub(crate) fn renumber(&mut self) {
        for place in &mut self.places {
            place.under_way.clear();
            place.take_delivered(self.delivered.get(place.client).unwrap_or(&NOTHING));
        }
    }

    /// Whether a message of a client was delivered here.
    pub(crate) fn has_delivered(&self, tag: ClientTag) -> bool {
        self.delivered.get(tag.client()).is_some_and(|known| known.has(tag.sequence().next()))
    }

    /// A message of a client is due: returns whether it has not been delivered before.
    pub(crate) fn deliver(&mut self, tag: ClientTag) -> bool {
        let client = tag.client();
        if !self.delivered.deliver(client, tag.sequence()) {
            return false;
        }
        if let Some((place, known)) = self.known(client) {
            place.take_delivered(known);
        }
        true
    }

    /// What has been delivered of each client, for a joiner: client, first and one past the last of each run.
    pub(crate) fn runs(&self) -> Vec<(ClientId, Sequence, Sequence)> {
        self.delivered.runs()
    }

    /// Starts with what another process has delivered.
    pub(crate) fn take_over(&mut self, runs: &[(ClientId, Sequence, Sequence)]) {
        self.places.clear();
        self.fragments = Fragments::default();
        self.delivered.take_over(runs);
    }
}
