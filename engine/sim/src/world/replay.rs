//! Recorded datagrams that arrive again, at any later time.
//!
//! A switch holds a frame back, a host was suspended with a full queue, or an attacker has a packet capture: a datagram
//! with a correct checksum arrives once more, in the instance in which it was sent or in a later one. The rare kinds do
//! the harm, so a few of each kind are kept.
//!
//! Invariant: what is sent again was sent before, byte for byte.

use super::{What, World};
use crate::network::{Arrival, Packet, hits};
use crate::plan::{GROUP, ReplayPlan};
use bourdon_wire::{Datagram, Kind};
use fastrand::Rng;
use std::rc::Rc;

/// Datagrams kept of each kind and generation.
const KEPT: usize = 24;
/// Kinds, by their numbers on the wire.
const KINDS: usize = 64;

#[derive(Clone, Debug)]
struct Recorded {
    from: usize,
    bytes: Rc<[u8]>,
}

/// The datagrams of one kind in one generation: a fair sample of all.
#[derive(Clone, Debug, Default)]
struct Sample {
    kept: Vec<Recorded>,
    seen: usize,
}

/// What was recorded.
#[derive(Debug)]
pub(super) struct Recorder {
    plan: ReplayPlan,
    rng: Rng,
    /// By generation, then kind.
    samples: Vec<Vec<Sample>>,
}

impl Recorder {
    pub(super) fn new(plan: ReplayPlan, seed: u64) -> Self {
        Self { plan, rng: Rng::with_seed(seed ^ 0x2e91a), samples: Vec::new() }
    }

    pub(super) fn record(&mut self, generation: u32, from: usize, bytes: &Rc<[u8]>) {
        let Ok(datagram) = Datagram::parse(bytes, GROUP) else { return };
        self.samples.resize(generation as usize + 1, vec![Sample::default(); KINDS]);
        let mut kinds: Vec<usize> = datagram.frames().filter_map(|frame| frame.kind()).map(kind_number).collect();
        kinds.dedup();
        for kind in kinds {
            let sample = &mut self.samples[generation as usize][kind];
            sample.seen += 1;
            let recorded = Recorded { from, bytes: Rc::clone(bytes) };
            if sample.kept.len() < KEPT {
                sample.kept.push(recorded);
            } else if let Some(place) = sample.kept.get_mut(self.rng.usize(0..sample.seen)) {
                *place = recorded;
            }
        }
    }

    /// One datagram of this generation or of an earlier one, of any kind.
    fn draw(&mut self, generation: u32) -> Option<Recorded> {
        let own = generation == 0 || hits(&mut self.rng, self.plan.own_permille);
        let of = if own { generation } else { self.rng.u32(0..generation) };
        let kinds: Vec<&Sample> = self.samples.get(of as usize)?.iter().filter(|s| !s.kept.is_empty()).collect();
        let sample = kinds.get(self.rng.usize(0..kinds.len().max(1)))?;
        sample.kept.get(self.rng.usize(0..sample.kept.len())).cloned()
    }
}

fn kind_number(kind: Kind) -> usize {
    (kind as usize).min(KINDS - 1)
}

impl World<'_> {
    pub(super) fn replay(&mut self) {
        let generation = self.generation;
        let Some(recorder) = self.recorder.as_mut().filter(|_| self.phase == super::Phase::Faulty) else { return };
        let mut towards = Vec::new();
        if let Some(Recorded { from, bytes }) = recorder.draw(generation) {
            let ends = self.ends.len();
            let to_all = recorder.rng.bool();
            let only = recorder.rng.usize(0..ends);
            let packet = Packet { bytes, to_all };
            let wanted = (0..ends).filter(|end| *end != from && (to_all || *end == only));
            towards.extend(wanted.map(|end| (end, packet.clone())));
        }
        let again_ns = self.now_ns + recorder.rng.u64(0..=2 * recorder.plan.interval_ns);
        for (to, packet) in towards {
            self.network.faults.replay += 1;
            self.network.trouble[to] += 1;
            self.push(self.now_ns + self.plan.latency_ns, What::Arrive(Arrival { at_ns: 0, to, packet }));
        }
        self.push(again_ns, What::Replay);
    }
}
