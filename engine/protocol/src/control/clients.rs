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
//! Invariant: a client's messages are delivered once; in its order as well, where the group's order is causal or total.
//! Bound: [`CLIENTS_MAX`] clients at a time, with at most [`UNDER_WAY_MAX`] pending messages each; the client that has
//! been quiet longest is evicted once it has been quiet for [`QUIET_NS`].
//!
//! At `reliable`, a message that another member carried counts as accepted once it is delivered here.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bourdon_wire::{Address, ClientId, ClientTag, DatagramNumber, Instant, Rank, Sequence};

/// How many clients one member serves: few enough for a linear search.
pub(crate) const CLIENTS_MAX: usize = 1024;
/// Messages of one client that were published here and that no quorum holds yet; twice what a client has pending.
pub(crate) const UNDER_WAY_MAX: usize = 64;
/// Runs of one client's messages delivered beyond what is missing. Each gap is a message that some member has published
/// and this process has not delivered, or one that was given up: more than so many can only be of the latter kind.
const BEYOND_MAX: usize = 256;
/// A client not heard for so long may be forgotten: longer than any client goes on trying.
pub(crate) const QUIET_NS: u64 = 60_000_000_000;
/// How long a message waits for those that another member accepted: longer than any repair, and than a view change
/// over links that retransmit for seconds.
const OTHERS_WAIT_NS: u64 = 5_000_000_000;

const _: () = assert!(OTHERS_WAIT_NS < QUIET_NS);

#[derive(Debug)]
struct Known {
    client: ClientId,
    /// The next sequence to publish here.
    next: Sequence,
    /// Everything below was delivered here, or given up by the client.
    delivered: Sequence,
    /// What was delivered beyond, in order: first and one past the last of each run.
    beyond: Vec<(Sequence, Sequence)>,
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
pub(crate) struct Clients(Vec<Known>);

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

impl Known {
    /// Whether the message before `next` was delivered here.
    fn has_delivered(&self, next: Sequence) -> bool {
        next <= self.delivered || self.beyond.iter().any(|(first, end)| *first < next && next <= *end)
    }

    /// Notes for each message that was delivered by now what may have to come before it.
    fn mark(&mut self, delivered: &[DatagramNumber], marks: &mut Option<Arc<[DatagramNumber]>>) {
        for place in 0..self.under_way.len() {
            let under_way = &self.under_way[place];
            if under_way.after.is_none() && self.has_delivered(under_way.next) {
                let marks = marks.get_or_insert_with(|| Arc::from(delivered));
                self.under_way[place].after = Some(Arc::clone(marks));
            }
        }
    }

    /// Whether the message `before`, which another member took, is still to be delivered here.
    fn waits_for(&mut self, now: Instant, before: Sequence) -> bool {
        let next = before.next();
        if next <= self.next || self.has_delivered(next) {
            self.waiting = None;
            return false;
        }
        let waiting = self.waiting.filter(|(first, _)| *first == before);
        let (_, since) = *self.waiting.insert(waiting.unwrap_or((before, now)));
        now.since(since) < OTHERS_WAIT_NS
    }

    /// If nothing published here is pending, what was delivered counts as accepted: whichever member carried it, and
    /// whatever was given up before.
    fn take_delivered(&mut self) {
        if !self.under_way.is_empty() {
            return;
        }
        self.taken = self.taken.max(self.delivered);
        for (first, end) in &self.beyond {
            if *first <= self.taken {
                self.taken = self.taken.max(*end);
            }
        }
        self.next = self.next.max(self.taken);
        debug_assert!(self.taken >= self.delivered, "what was delivered counts as accepted: {self:?}");
    }

    fn new(now: Instant, client: ClientId, delivered: Sequence) -> Self {
        Self {
            client,
            next: delivered,
            delivered,
            beyond: Vec::new(),
            taken: delivered,
            waiting: None,
            under_way: VecDeque::new(),
            reply_to: Address::default(),
            heard_at: now,
        }
    }

    /// Notes a delivery; returns false if the message was delivered before.
    fn deliver(&mut self, sequence: Sequence) -> bool {
        let place = self.beyond.partition_point(|(_, end)| *end < sequence);
        let has = |(first, end): &(Sequence, Sequence)| *first <= sequence && sequence < *end;
        if sequence < self.delivered || self.beyond[place..].iter().take(2).any(has) {
            return false;
        }
        self.beyond.insert(place, (sequence, sequence.next()));
        self.tidy();
        true
    }

    /// Joins runs that meet, and moves the watermark over the runs that follow it.
    fn tidy(&mut self) {
        self.beyond.sort_unstable();
        self.beyond.dedup_by(|next, before| {
            let meets = next.0 <= before.1;
            before.1 = if meets { before.1.max(next.1) } else { before.1 };
            meets
        });
        while let Some((first, end)) = self.beyond.first().copied()
            && (first <= self.delivered || self.beyond.len() > BEYOND_MAX)
        {
            self.delivered = self.delivered.max(end);
            self.beyond.remove(0);
        }
        debug_assert!(self.beyond.len() <= BEYOND_MAX, "{} runs", self.beyond.len());
        debug_assert!(self.beyond.first().is_none_or(|(first, _)| *first > self.delivered), "{self:?}");
        debug_assert!(self.beyond.windows(2).all(|runs| runs[0].1 < runs[1].0), "runs that meet are one run: {self:?}");
    }
}

impl Clients {
    fn get(&mut self, client: ClientId) -> Option<&mut Known> {
        self.0.iter_mut().find(|known| known.client == client)
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
        let index = self.0.iter().position(|known| known.client == client).or_else(|| self.enter(now, client));
        let Some(known) = index.map(|index| &mut self.0[index]) else { return Request::TooMany };
        (known.heard_at, known.reply_to) = (now, reply_to);
        if before.is_some_and(|before| known.waits_for(now, before)) {
            return Request::Answer(known.taken);
        }
        known.next = known.next.max(known.delivered).max(oldest);
        known.taken = known.taken.max(oldest);
        known.take_delivered();
        debug_assert!(known.taken <= known.next, "what is acknowledged was published: {known:?}");
        if sequence == known.next && known.under_way.len() < UNDER_WAY_MAX {
            return Request::Publish;
        }
        Request::Answer(known.taken)
    }

    fn enter(&mut self, now: Instant, client: ClientId) -> Option<usize> {
        let known = Known::new(now, client, Sequence(0));
        if self.0.len() < CLIENTS_MAX {
            self.0.push(known);
            return Some(self.0.len() - 1);
        }
        let (quietest, entry) = self.0.iter_mut().enumerate().min_by_key(|(_, known)| known.heard_at)?;
        if now.since(entry.heard_at) < QUIET_NS {
            return None;
        }
        *entry = known;
        Some(quietest)
    }

    /// How many clients are known.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A message of a client was published here; `open` is the datagram that it ends in.
    pub(crate) fn published(&mut self, client: ClientId, sequence: Sequence, open: DatagramNumber) {
        if let Some(known) = self.get(client) {
            known.next = known.next.max(sequence.next());
            debug_assert!(known.under_way.back().is_none_or(|last| last.datagram <= open), "{known:?}, then {open}");
            known.under_way.push_back(UnderWay { next: sequence.next(), datagram: open, after: None });
        }
    }

    /// A message was refused for good: its sequence is used up, once everything before it is settled. Until then the
    /// client repeats the request: a message that is to be published again in another view is not pending and may yet
    /// be lost. Returns the sequence to acknowledge to the client.
    pub(crate) fn skip(&mut self, client: ClientId) -> Sequence {
        let Some(known) = self.get(client) else { return Sequence(0) };
        assert!(known.taken <= known.next, "what is acknowledged was published: {known:?}");
        if known.taken == known.next {
            known.next = known.next.next();
            known.taken = known.next;
        }
        known.taken
    }

    /// The sequence to acknowledge to a client.
    pub(crate) fn taken(&mut self, client: ClientId) -> Sequence {
        self.get(client).map_or(Sequence(0), |known| known.taken)
    }

    /// Whether any client waits for a quorum.
    #[inline]
    pub(crate) fn awaits_answers(&self) -> bool {
        self.0.iter().any(|known| !known.under_way.is_empty())
    }

    /// A quorum holds more than before: passes to `notify` the clients to answer and what to acknowledge.
    pub(crate) fn settle(&mut self, held: HeldByQuorum<'_>, mut notify: impl FnMut(ClientId, Sequence, Address)) {
        let mut marks = None;
        for known in &mut self.0 {
            let before = known.taken;
            if let Some(delivered) = held.delivered {
                known.mark(delivered, &mut marks);
            }
            while let Some(first) = known.under_way.pop_front_if(|first| first.is_settled(held)) {
                known.taken = known.taken.max(first.next);
            }
            debug_assert!(known.taken <= known.next, "what is acknowledged was published: {known:?}");
            if known.taken > before {
                notify(known.client, known.taken, known.reply_to);
            }
        }
    }

    /// A new view numbers datagrams from the start: what was pending has been delivered, or will be published again.
    pub(crate) fn renumber(&mut self) {
        for known in &mut self.0 {
            known.under_way.clear();
            known.take_delivered();
        }
    }

    /// Whether a message of a client was delivered here.
    pub(crate) fn has_delivered(&mut self, tag: ClientTag) -> bool {
        self.get(tag.client()).is_some_and(|known| known.has_delivered(tag.sequence().next()))
    }

    /// A message of a client is due: returns whether it has not been delivered before.
    pub(crate) fn deliver(&mut self, tag: ClientTag) -> bool {
        let (client, sequence) = (tag.client(), tag.sequence());
        if self.get(client).is_none() {
            if self.0.len() >= CLIENTS_MAX {
                let Some(quietest) = (0..self.0.len()).min_by_key(|index| self.0[*index].heard_at) else { return true };
                self.0.swap_remove(quietest);
            }
            self.0.push(Known::new(Instant(0), client, Sequence(0)));
        }
        let Some(known) = self.get(client) else { return true };
        if !known.deliver(sequence) {
            return false;
        }
        known.take_delivered();
        debug_assert!(self.0.len() <= CLIENTS_MAX, "{} clients", self.0.len());
        true
    }

    /// What has been delivered of each client, for a joiner: client, first and one past the last of each run.
    pub(crate) fn runs(&self) -> Vec<(ClientId, Sequence, Sequence)> {
        let below = |known: &Known| (known.client, Sequence(0), known.delivered);
        let beyond = |known: &Known| -> Vec<_> {
            known.beyond.iter().map(|(first, end)| (known.client, *first, *end)).collect()
        };
        self.0.iter().flat_map(|known| core::iter::once(below(known)).chain(beyond(known))).collect()
    }

    /// Starts with what another process has delivered.
    pub(crate) fn take_over(&mut self, runs: &[(ClientId, Sequence, Sequence)]) {
        self.0.clear();
        for (client, first, end) in runs {
            if self.get(*client).is_none() && self.0.len() < CLIENTS_MAX {
                self.0.push(Known::new(Instant(0), *client, Sequence(0)));
            }
            if let Some(known) = self.get(*client) {
                known.beyond.push((*first, *end));
                known.tidy();
                (known.next, known.taken) = (known.delivered, known.delivered);
            }
        }
    }
}
