//! Cookies: a requester proves that it receives at its address before it gets long answers.
//!
//! A request names the address to answer to, because a port reports no source addresses. An attacker that names another
//! host's address makes the group flood that host: one request for repair of a whole log causes a thousand datagrams.
//! The source address of a datagram would not help, since with UDP any sender can forge it.
//!
//! So a process answers an address that it does not know with a [`Challenge`](bourdon_wire::records::Challenge), which
//! is no longer than the request, and the requester repeats its request with the cookie from it. The cookie is a keyed
//! hash of the address and the time in coarse steps, so the process that issues it keeps nothing of the requester: a
//! million requests cost no memory. A cookie is valid in the step in which it was issued and in the next.
//!
//! The requester keeps one word for each rank: its cookie, or a nonce as long as it has no cookie. A challenge repeats
//! the word; a challenge that does not is forged or late, and is discarded. An observer fetches its cookies before it
//! needs them and renews them in time, so that no repair waits for an extra round trip. It discards the word of a rank
//! that has another incarnation: a request to all is not challenged, so it would keep on using a cookie that is not
//! valid.
//!
//! Invariant: an address that has not proved that it receives is sent at most three bytes for each byte received.
//! Source: the cookies of DTLS (RFC 6347, §4.2.1) and QUIC's address validation (RFC 9000, §8.1), whose factor of three
//! this is. SipHash: Aumasson and Bernstein (2012).

use alloc::vec;
use alloc::vec::Vec;
use bourdon_wire::records::{Challenge, Nak, Transfer, ViewAsk};
use bourdon_wire::{Address, DatagramNumber, Instant, Rank};
use core::hash::Hasher;
use siphasher::sip::SipHasher13;
use zerocopy::IntoBytes;

/// A cookie is valid for one to two of these: long enough that requesters renew it rarely, short enough that an address
/// that has changed hands is soon unproven again.
const STEP_NS: u64 = 30_000_000_000;
/// A requester renews a cookie that it has held for so long: before the first moment at which it may be invalid.
const RENEW_NS: u64 = 20_000_000_000;
/// How long a requester waits for a challenge that renews before it asks again.
const RENEW_RETRY_NS: u64 = 1_000_000_000;

/// Bytes answered for each byte of a request, to an address that has not proved that it receives.
pub(crate) const ANSWER_TIMES: usize = 3;

// A cookie is renewed, a lost request for it included, before the first moment at which it may be invalid.
const _: () = assert!(RENEW_NS + RENEW_RETRY_NS < STEP_NS);
// A challenge is no longer than any request that it answers.
const _: () = assert!(Challenge::BYTES <= Nak::BYTES && Challenge::BYTES <= ViewAsk::BYTES);
const _: () = assert!(Challenge::BYTES <= Transfer::BYTES);

/// Issues cookies and checks them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cookies {
    secret: [u64; 2],
}

impl Cookies {
    /// Creates them with a secret that no other process knows.
    pub(crate) fn new(secret: [u64; 2]) -> Self {
        Self { secret }
    }

    fn hash(&self, words: [u64; 2], address: &Address) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.secret[0], self.secret[1]);
        hasher.write(words.as_bytes());
        hasher.write(address.as_bytes());
        hasher.finish()
    }

    /// The cookie for an address.
    pub(crate) fn cookie(&self, now: Instant, address: &Address) -> u64 {
        self.hash([0, now.0 / STEP_NS], address)
    }

    /// Whether this process issued this cookie for that address recently.
    pub(crate) fn is_valid(&self, now: Instant, address: &Address, cookie: u64) -> bool {
        let step = now.0 / STEP_NS;
        [step, step.wrapping_sub(1)].iter().any(|step| self.hash([0, *step], address) == cookie)
    }

    /// The cookie for an address as the number of a probe, which comes back from there.
    pub(crate) fn number(&self, now: Instant, address: &Address) -> u64 {
        self.number_of(now.0 / STEP_NS, address)
    }

    /// Whether a probe with this number was sent to that address recently.
    pub(crate) fn is_valid_number(&self, now: Instant, address: &Address, number: u64) -> bool {
        let step = now.0 / STEP_NS;
        [step, step.wrapping_sub(1)].iter().any(|step| self.number_of(*step, address) == number)
    }

    /// Below 2^63, as all numbers in records.
    fn number_of(&self, step: u64, address: &Address) -> u64 {
        self.hash([2, step], address) >> 1
    }

    /// The nonce of a ping to an address that a member may have moved to: its answer proves that the member receives
    /// there.
    pub(crate) fn ping_nonce(&self, now: Instant, address: &Address) -> u64 {
        self.hash([3, now.0 / STEP_NS], address)
    }

    /// Whether a ping with this nonce was sent to that address recently.
    pub(crate) fn is_valid_ping_nonce(&self, now: Instant, address: &Address, nonce: u64) -> bool {
        let step = now.0 / STEP_NS;
        [step, step.wrapping_sub(1)].iter().any(|step| self.hash([3, *step], address) == nonce)
    }

    /// The n-th nonce of this process.
    fn nonce(&self, n: u64) -> u64 {
        self.hash([1, n], &Address::default())
    }
}

/// The requests to repeat once the cookie is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Bit r: a request for repair of rank r's stream.
    pub(crate) streams: u64,
    /// A request for the view, sent to this address.
    pub(crate) view: Option<Address>,
    /// A request for parts of a snapshot.
    pub(crate) snapshot: bool,
    /// A report of progress.
    pub(crate) progress: bool,
    /// A report of losses: when it was sent, and from where on which part was lost.
    pub(crate) losses: Option<(Instant, (DatagramNumber, u16))>,
}

/// The word that goes with requests to one rank.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    value: u64,
    /// When it was issued, if it is a cookie.
    cookie_at: Option<Instant>,
    /// The nonce of the last request for another cookie, and when it was sent.
    renewal: Option<(u64, Instant)>,
    waiting: Waiting,
}

impl Word {
    /// Whether this is a cookie that is valid for a while yet.
    fn is_fresh(&self, now: Instant) -> bool {
        self.cookie_at.is_some_and(|at| now.since(at) < RENEW_NS)
    }
}

/// The cookies that this process holds, by the rank of the process that issued them.
#[derive(Debug)]
pub(crate) struct HeldCookies {
    words: Vec<Word>,
    nonces: u64,
}

impl HeldCookies {
    /// No cookies yet, for requests to so many ranks.
    pub(crate) fn new(ranks: u16) -> Self {
        Self { words: vec![Word::default(); usize::from(ranks)], nonces: 0 }
    }

    /// The word for a request to a rank; `wait` notes what to repeat if a challenge comes.
    pub(crate) fn word(&mut self, cookies: &Cookies, to: Rank, wait: impl FnOnce(&mut Waiting)) -> u64 {
        let Some(word) = self.words.get_mut(to.index()) else { return 0 };
        if word.value == 0 {
            word.value = cookies.nonce(self.nonces);
            self.nonces += 1;
        }
        wait(&mut word.waiting);
        word.value
    }

    /// Whether the word for a rank is a cookie that is still valid, and no nonce.
    pub(crate) fn is_fresh(&self, now: Instant, of: Rank) -> bool {
        self.words.get(of.index()).is_some_and(|word| word.is_fresh(now))
    }

    /// Discards the words of the ranks that have another incarnation now.
    pub(crate) fn forget(&mut self, is_other: impl Fn(Rank) -> bool) {
        let words = (0..).map(Rank).zip(&mut self.words);
        words.filter(|(rank, _)| is_other(*rank)).for_each(|(_, word)| *word = Word::default());
    }

    /// If this process must request a cookie of this rank before it needs it: the nonce for the request.
    pub(crate) fn renew(&mut self, cookies: &Cookies, now: Instant, from: Rank) -> Option<u64> {
        let word = self.words.get_mut(from.index())?;
        if word.is_fresh(now) || word.renewal.is_some_and(|(_, at)| now.since(at) < RENEW_RETRY_NS) {
            return None;
        }
        let nonce = cookies.nonce(self.nonces);
        self.nonces += 1;
        word.renewal = Some((nonce, now));
        Some(nonce)
    }

    /// Receives a challenge of a rank; returns what to repeat, unless it answers no request of this process.
    pub(crate) fn take(&mut self, now: Instant, from: Rank, challenge: &Challenge) -> Option<Waiting> {
        let asked = challenge.asked.get();
        let word = self.words.get_mut(from.index())?;
        let renews = word.renewal.is_some_and(|(nonce, _)| nonce == asked);
        if asked == 0 || word.value != asked && !renews {
            return None;
        }
        let waiting = core::mem::take(&mut word.waiting);
        *word = Word { value: challenge.cookie.get(), cookie_at: Some(now), ..Word::default() };
        Some(waiting)
    }
}
