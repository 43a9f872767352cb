//! Gates: the observers that a publisher waits for.
//!
//! An observer that must not lose a message, and that has no place in a view, asks to *gate*: it reports its progress
//! to each publisher, and a publisher's window then ends where the slowest of its gates has room. A gate counts in no
//! quorum, delays no view change, and is waited for only within bounds: an observer that has crashed, or reads too
//! slowly, must not stop the group. So a gate ends when it has been silent for a timeout; and when it has held the
//! publisher up, has not caught up since, and has delivered less than its own window within a timeout. It is not let in
//! again for a while.
//!
//! Invariants: at most [`GATES_MAX`] gates; a gate's mark never falls and never passes what was sent; a gate that
//! held the publisher up and has not caught up within a timeout has delivered its own window in that time, or it ends.
//! Source: the tagged flow control of Aeron, made safe against the slowest receiver.

use crate::mutant::Mutant;
use alloc::vec::Vec;
use bourdon_wire::{Address, DatagramNumber, Incarnation, Instant};

/// The most observers that one publisher waits for: as many as a view has members.
pub(crate) const GATES_MAX: usize = 64;
/// A smaller window is taken for this: no honest observer has so small a receive buffer, and a publisher that fills it
/// at once still sends whole runs.
const WINDOW_MIN: u64 = 64;
/// An observer that a publisher has stopped waiting for is let in again after so many timeouts.
const TIMEOUTS_OUT: u64 = 10;

#[derive(Clone, Copy, Debug)]
struct Gate {
    address: Address,
    incarnation: Incarnation,
    delivered: DatagramNumber,
    window: u64,
    heard_at: Instant,
    /// Since when it has been behind without a break after it held the publisher up, and how far it had come then.
    holding: Option<(Instant, DatagramNumber)>,
}

/// What a report of progress means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// The publisher waits for this observer from now on.
    Begins,
    /// The publisher waits for this observer.
    Gates,
    /// It is further behind than its window, or there are too many gates: it is not waited for yet.
    Behind,
    /// It was silent or too slow, and is not let in again yet.
    Ended,
}

/// The observers that one publisher waits for.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    gates: Vec<Gate>,
    /// Those that it stopped waiting for, and when.
    ended: Vec<(Address, Instant)>,
}

impl Gates {
    /// An observer reports how far it has come in a stream of which `sent` datagrams were sent.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        (address, incarnation): (Address, Incarnation),
        (delivered, window): (DatagramNumber, u64),
        sent: DatagramNumber,
    ) -> Noted {
        let (delivered, window) = (delivered.min(sent), window.max(WINDOW_MIN));
        // An observer that started again at its address has delivered nothing of what it had delivered before.
        let again = self.gates.iter().position(|gate| gate.address == address && gate.incarnation != incarnation);
        let before = again.map(|index| self.gates.remove(index));
        let holding = before.and_then(|gate| gate.holding);
        if let Some(gate) = self.gates.iter_mut().find(|gate| gate.address == address) {
            gate.delivered = gate.delivered.max(delivered);
            (gate.window, gate.heard_at) = (window, now);
            return Noted::Gates;
        }
        if self.ended.iter().any(|(of, _)| *of == address) {
            return Noted::Ended;
        }
        if self.gates.len() == GATES_MAX || delivered + window < sent {
            if holding.is_some() {
                self.note_ended(now, address); // it may not hold the publisher up again under another name
            }
            return Noted::Behind;
        }
        self.gates.push(Gate { address, incarnation, delivered, window, heard_at: now, holding });
        debug_assert!(self.gates.len() <= GATES_MAX);
        Noted::Begins
    }

    fn note_ended(&mut self, now: Instant, address: Address) {
        if self.ended.len() == GATES_MAX {
            self.ended.remove(0);
        }
        self.ended.push((address, now));
    }

    /// The first datagram that some gate has no room for, and whose gate that is.
    pub(crate) fn limit(&self) -> Option<(DatagramNumber, Address)> {
        self.gates.iter().map(|gate| (gate.delivered + gate.window, gate.address)).min_by_key(|(limit, _)| *limit)
    }

    /// Ends the gates that have been silent or too slow for the timeout, and reports them. `holder`: the gate that has
    /// held the publisher up since the last call; `sent`: how far the stream has been sent.
    pub(crate) fn tend(
        &mut self,
        now: Instant,
        timeout_ns: u64,
        (holder, sent): (Option<Address>, DatagramNumber),
        mutant: Option<Mutant>,
        mut ended: impl FnMut(Address),
    ) {
        if mutant == Some(Mutant::GateNeverEnds) {
            return;
        }
        let out_ns = timeout_ns.saturating_mul(TIMEOUTS_OUT);
        self.ended.retain(|(_, at)| now.since(*at) < out_ns);
        let out = &mut self.ended;
        self.gates.retain_mut(|gate| {
            let is_slow = gate.is_too_slow(now, timeout_ns, holder == Some(gate.address), sent);
            if !is_slow && now.since(gate.heard_at) < timeout_ns {
                return true;
            }
            if out.len() == GATES_MAX {
                out.remove(0);
            }
            out.push((gate.address, now));
            ended(gate.address);
            false
        });
    }

    /// A view begins: every stream begins again.
    pub(crate) fn enter(&mut self, now: Instant) {
        for gate in &mut self.gates {
            (gate.delivered, gate.heard_at, gate.holding) = (DatagramNumber(0), now, None);
        }
    }

    /// Each gate's address and incarnation, and how far it has delivered.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (Address, Incarnation, DatagramNumber)> {
        self.gates.iter().map(|gate| (gate.address, gate.incarnation, gate.delivered))
    }

    /// Whether there are none, and none that ended lately.
    pub(crate) fn is_empty(&self) -> bool {
        self.gates.is_empty() && self.ended.is_empty()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.gates.len()
    }
}

impl Gate {
    /// Whether it held the publisher up, has not caught up since, and has delivered less than a window within the
    /// timeout. It counts that it was the slowest at some time: two gates that crawl may take turns at it.
    fn is_too_slow(&mut self, now: Instant, timeout_ns: u64, holds: bool, sent: DatagramNumber) -> bool {
        if self.delivered >= sent {
            self.holding = None;
            return false;
        }
        if !holds && self.holding.is_none() {
            return false;
        }
        let (since, mark) = *self.holding.get_or_insert((now, self.delivered));
        if now.since(since) < timeout_ns {
            return false;
        }
        self.holding = Some((now, self.delivered));
        self.delivered.since(mark) < self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT_NS: u64 = 1_000;
    const FIRST: Incarnation = Incarnation(1);

    fn address(port: u16) -> Address {
        core::net::SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    fn ended(gates: &mut Gates, now: u64, holder: Option<Address>) -> Vec<Address> {
        let (mut ended, sent) = (Vec::new(), DatagramNumber(1 << 40));
        gates.tend(Instant(now), TIMEOUT_NS, (holder, sent), None, |address| ended.push(address));
        ended
    }

    #[test]
    fn the_slowest_gate_sets_the_limit_and_claims_no_more_than_was_sent() {
        let mut gates = Gates::default();
        assert_eq!(gates.limit(), None);
        let sent = DatagramNumber(100);
        assert_eq!(gates.note(Instant(0), (address(1), FIRST), (DatagramNumber(900), 500), sent), Noted::Begins);
        assert_eq!(gates.limit(), Some((DatagramNumber(600), address(1))));
        assert_eq!(gates.note(Instant(0), (address(2), FIRST), (DatagramNumber(60), 70), sent), Noted::Begins);
        assert_eq!(gates.limit(), Some((DatagramNumber(130), address(2))));
        gates.note(Instant(0), (address(2), FIRST), (DatagramNumber(10), 70), sent);
        assert_eq!(gates.limit(), Some((DatagramNumber(130), address(2))), "a mark never falls");
    }

    #[test]
    fn an_observer_that_started_again_at_its_address_begins_where_it_is() {
        let mut gates = Gates::default();
        let sent = DatagramNumber(100);
        gates.note(Instant(0), (address(1), FIRST), (DatagramNumber(90), 500), sent);
        let again = gates.note(Instant(1), (address(1), Incarnation(2)), (DatagramNumber(20), 500), sent);
        assert_eq!((again, gates.count()), (Noted::Begins, 1));
        assert_eq!(gates.limit(), Some((DatagramNumber(520), address(1))));
    }

    /// Under another incarnation before each timeout it holds the publisher up no longer than under one.
    #[test]
    fn an_observer_that_starts_again_and_again_is_waited_for_once() {
        let (mut gates, sent) = (Gates::default(), DatagramNumber(10_000));
        let report = |gates: &mut Gates, at, incarnation| {
            gates.note(Instant(at), (address(1), Incarnation(incarnation)), (DatagramNumber(9_900), 100), sent)
        };
        let mut all = Vec::new();
        for step in 0..12 {
            report(&mut gates, step * 100, step as u32 + 1);
            all.extend(ended(&mut gates, step * 100, Some(address(1))));
        }
        assert_eq!(all, [address(1)]);
    }

    #[test]
    fn an_observer_that_is_far_behind_is_not_waited_for_yet() {
        let mut gates = Gates::default();
        let sent = DatagramNumber(1000);
        assert_eq!(gates.note(Instant(0), (address(1), FIRST), (DatagramNumber(0), 500), sent), Noted::Behind);
        assert_eq!(gates.limit(), None);
        assert_eq!(gates.note(Instant(0), (address(1), FIRST), (DatagramNumber(500), 500), sent), Noted::Begins);
    }

    #[test]
    fn a_silent_gate_ends_after_the_timeout_and_stays_out_for_a_while() {
        let mut gates = Gates::default();
        let report = (DatagramNumber(0), 500);
        gates.note(Instant(0), (address(1), FIRST), report, DatagramNumber(0));
        assert_eq!(ended(&mut gates, 999, None), []);
        assert_eq!(ended(&mut gates, 1_000, None), [address(1)]);
        assert_eq!(gates.note(Instant(1_001), (address(1), FIRST), report, DatagramNumber(0)), Noted::Ended);
        assert_eq!(ended(&mut gates, 11_000, None), []);
        assert_eq!(gates.note(Instant(11_001), (address(1), FIRST), report, DatagramNumber(0)), Noted::Begins);
    }

    /// An observer that reports all the time and hardly delivers holds the publisher up for one timeout.
    #[test]
    fn a_gate_that_crawls_ends() {
        let mut gates = Gates::default();
        let (own, sent) = (address(1), DatagramNumber(10_000));
        gates.note(Instant(0), (own, FIRST), (DatagramNumber(9_900), 100), sent);
        for step in 0..10 {
            gates.note(Instant(step * 100), (own, FIRST), (DatagramNumber(9_900 + step), 100), sent);
            assert_eq!(ended(&mut gates, step * 100, Some(own)), [], "step {step}");
        }
        gates.note(Instant(1_000), (own, FIRST), (DatagramNumber(9_910), 100), sent);
        assert_eq!(ended(&mut gates, 1_000, Some(own)), [own]);
    }

    /// Each of two that crawl is the slowest at times only: both end after a timeout.
    #[test]
    fn gates_that_crawl_in_turns_end() {
        let mut gates = Gates::default();
        let sent = DatagramNumber(10_000);
        for port in [1, 2] {
            gates.note(Instant(0), (address(port), FIRST), (DatagramNumber(9_900), 100), sent);
        }
        let mut all = Vec::new();
        for step in 0..=11 {
            for port in [1, 2] {
                gates.note(Instant(step * 100), (address(port), FIRST), (DatagramNumber(9_900 + step), 100), sent);
            }
            all.extend(ended(&mut gates, step * 100, Some(address(1 + step as u16 % 2))));
        }
        assert_eq!(all, [address(1), address(2)]);
    }

    #[test]
    fn a_gate_that_passes_a_window_in_the_timeout_goes_on() {
        let mut gates = Gates::default();
        let own = address(1);
        gates.note(Instant(0), (own, FIRST), (DatagramNumber(0), 100), DatagramNumber(0));
        for step in 0..50_u64 {
            let at = DatagramNumber(step * 20);
            gates.note(Instant(step * 100), (own, FIRST), (at, 100), at + 100);
            assert_eq!(ended(&mut gates, step * 100, Some(own)), []);
        }
    }
}
