//! The detectors, case by case.

use bourdon_protocol::control::detector::{Change, Detector, DetectorTiming, Figures, Judgement, Path, Why};
use bourdon_wire::{Instant, Rank};

const MS: u64 = 1_000_000;

/// Rank 0 watches rank 1 (and more), and every millisecond does what is due.
struct Watch {
    detector: Detector,
    now: Instant,
    rng: fastrand::Rng,
    changes: Vec<(u64, u16, Change)>,
    pings: Vec<(u16, u64)>,
}

impl Watch {
    fn new(members: usize, timing: &DetectorTiming) -> Self {
        let detector = Detector::new(Instant(0), Some(Rank(0)), members, timing);
        let rng = fastrand::Rng::with_seed(1);
        Self { detector, now: Instant(0), rng, changes: Vec::new(), pings: Vec::new() }
    }

    fn run(&mut self) {
        while self.detector.due() <= self.now {
            self.detector.pings(self.now, &mut self.rng, |rank, nonce| self.pings.push((rank.0, nonce)));
            let ms = self.now.0 / MS;
            self.detector.look(self.now, |rank, change| self.changes.push((ms, rank.0, change)));
        }
    }

    /// Calls `each` every millisecond for that long.
    fn wait(&mut self, ms: u64, mut each: impl FnMut(&mut Self)) {
        for _ in 0..ms {
            self.now = self.now + MS;
            each(self);
            self.run();
        }
    }

    /// The process is not scheduled for that long; `first` is the first input afterwards.
    fn stall(&mut self, ms: u64, first: impl FnOnce(&mut Self)) {
        self.now = self.now + ms * MS;
        first(self);
        self.run();
    }

    fn changes(&mut self) -> Vec<(u64, u16, Change)> {
        core::mem::take(&mut self.changes)
    }

    /// Of evidence, push, pull and phi.
    fn figures(&self) -> [(u64, u64, u64); 4] {
        [Why::Evidence, Why::Push, Why::Pull, Why::Phi].map(|why| {
            let Figures { suspicions, false_positives, false_negatives } = self.detector.figures(why);
            (suspicions, false_positives, false_negatives)
        })
    }
}

/// One detector alone.
fn only(why: Why) -> DetectorTiming {
    DetectorTiming {
        evidence: why == Why::Evidence,
        push: why == Why::Push,
        pull: why == Why::Pull,
        phi: why == Why::Phi,
        group_after_ns: (why == Why::Group).then_some(80 * MS),
        ..DetectorTiming::default()
    }
}

/// A heartbeat every 10 ms, by multicast.
fn beat(watch: &mut Watch) {
    if (watch.now.0 / MS).is_multiple_of(10) {
        watch.detector.heard(Rank(1), watch.now, Path::Multicast);
        watch.detector.heartbeat(Rank(1), watch.now);
    }
}

fn answer(watch: &mut Watch) {
    for (rank, nonce) in core::mem::take(&mut watch.pings) {
        watch.detector.pong(Rank(rank), watch.now, nonce);
    }
}

#[test]
fn push_suspects_silence_and_takes_it_back() {
    let mut watch = Watch::new(2, &only(Why::Push));
    watch.wait(100, beat);
    watch.wait(79, |_| {});
    assert_eq!(watch.changes(), []);
    assert!((watch.detector.level(Rank(1), watch.now) - 79.0 / 80.0).abs() < 1e-9);
    watch.wait(21, |_| {});
    assert_eq!(watch.changes(), [(180, 1, Change::Suspected(Why::Push))]);
    assert!(watch.detector.is_suspected(Rank(1)) && watch.detector.suspects() == 0b10);
    assert!(watch.detector.level(Rank(1), watch.now) >= 1.0);
    watch.wait(50, |watch| watch.detector.heard(Rank(1), watch.now, Path::Unicast));
    assert_eq!(watch.changes(), [], "the data path still stands");
    assert_eq!(watch.detector.silence_ns(Rank(1), watch.now, Path::Unicast), 0);
    watch.wait(10, beat);
    assert_eq!(watch.changes(), [(260, 1, Change::Trusted)]);
    assert_eq!(watch.figures(), [(0, 0, 0), (1, 1, 0), (0, 0, 0), (0, 0, 0)]);
}

#[test]
fn pull_suspects_a_peer_that_does_not_answer() {
    let mut watch = Watch::new(2, &only(Why::Pull));
    watch.wait(100, answer);
    assert_eq!(watch.detector.level(Rank(1), watch.now), 0.0);
    watch.wait(200, beat);
    assert_eq!(watch.changes(), [(171, 1, Change::Suspected(Why::Pull))], "whatever else it sends");
    answer(&mut watch);
    watch.run();
    assert_eq!(watch.changes(), [(300, 1, Change::Trusted)]);
    assert_eq!(watch.figures(), [(0, 0, 0), (0, 0, 0), (1, 1, 0), (0, 0, 0)]);
}

#[test]
fn a_ping_goes_to_every_peer_and_only_its_answer_counts() {
    let timing = DetectorTiming { ping_interval_ns: 20 * MS, pull_after_ns: 80 * MS, ..only(Why::Pull) };
    let mut watch = Watch::new(3, &timing);
    watch.run();
    watch.wait(59, |_| {});
    let to: Vec<_> = watch.pings.iter().map(|(rank, _)| *rank).collect();
    assert_eq!(to, [1, 2, 1, 2, 1, 2]);
    let (nonces, others): (Vec<_>, Vec<_>) = watch.pings.iter().map(|(_, nonce)| *nonce).partition(|nonce| {
        let ping = watch.pings.iter().find(|(_, n)| n == nonce).unwrap();
        ping.0 == 1
    });
    watch.wait(15, |_| {});
    for nonce in others.iter().chain(&[nonces[0] ^ 1]) {
        watch.detector.pong(Rank(1), watch.now, *nonce);
    }
    assert!(watch.detector.level(Rank(1), watch.now) > 0.9, "the reply of another member, and a forged reply");
    watch.detector.pong(Rank(1), watch.now, nonces[1]);
    assert_eq!(watch.detector.level(Rank(1), watch.now), 0.0);
    watch.wait(5, |_| {});
    watch.detector.pong(Rank(1), watch.now, nonces[1]);
    watch.detector.pong(Rank(1), watch.now, nonces[0]);
    assert!(watch.detector.level(Rank(1), watch.now) > 0.06, "replied already");
}

#[test]
fn a_peer_that_is_not_asked_is_not_late() {
    let mut detector = Detector::new(Instant(0), Some(Rank(0)), 2, &only(Why::Pull));
    for ms in 1..1000 {
        detector.look(Instant(ms * MS), |_, _| panic!("no peer was pinged"));
    }
}

#[test]
fn phi_suspects_a_regular_peer_sooner() {
    let timing = DetectorTiming { phi_deviation_min_ns: MS, ..only(Why::Phi) };
    let mut watch = Watch::new(2, &timing);
    watch.wait(100_000, beat);
    assert_eq!(watch.changes(), []);
    watch.wait(100, |_| {});
    let [(at, 1, Change::Suspected(Why::Phi))] = watch.changes()[..] else { panic!() };
    assert!((115..150).contains(&(at - 100_000 + 100)), "{at}");
    watch.wait(10, beat);
    assert_eq!(watch.changes(), [(100_110, 1, Change::Trusted)]);
}

#[test]
fn phi_alone_finds_a_peer_that_never_sent_a_heartbeat() {
    let mut watch = Watch::new(2, &only(Why::Phi));
    watch.wait(200, |_| {});
    assert_eq!(watch.changes().len(), 1);
}

#[test]
fn evidence_is_final_until_the_peer_is_watched_again() {
    let mut watch = Watch::new(3, &DetectorTiming::default());
    watch.wait(50, beat);
    watch.detector.evidence(Rank(1), watch.now);
    assert!(watch.detector.has_evidence(Rank(1)));
    assert_eq!(watch.detector.level(Rank(1), watch.now), f64::INFINITY);
    watch.run();
    watch.wait(20, beat);
    assert_eq!(watch.changes(), [(50, 1, Change::Suspected(Why::Evidence))]);
    assert_eq!(watch.figures(), [(1, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 1)], "the other detectors had seen nothing");
    watch.detector.forget(Rank(1));
    assert_eq!(watch.figures(), [(1, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 1)], "and do not count twice");
    watch.detector.watch(Rank(1), watch.now);
    watch.run();
    assert!(!watch.detector.is_suspected(Rank(1)) && !watch.detector.has_evidence(Rank(1)));
    assert_eq!(watch.detector.level(Rank(1), watch.now), 0.0);
}

#[test]
fn evidence_joins_suspicion_and_is_refuted_by_a_long_life() {
    let mut watch = Watch::new(2, &DetectorTiming { pull: false, phi: false, ..DetectorTiming::default() });
    watch.wait(100, |_| {});
    watch.detector.evidence(Rank(1), watch.now);
    watch.run();
    assert_eq!(watch.changes(), [(80, 1, Change::Suspected(Why::Push)), (100, 1, Change::Suspected(Why::Evidence))]);
    watch.wait(79, beat);
    assert_eq!(watch.figures(), [(1, 0, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0)]);
    watch.wait(50, beat);
    assert_eq!(watch.figures(), [(1, 1, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0)]);
    assert_eq!(watch.changes(), []);
}

#[test]
fn a_detector_that_is_off_neither_suspects_nor_misses() {
    let mut watch = Watch::new(2, &only(Why::Evidence));
    watch.wait(1000, |_| {});
    assert_eq!((watch.changes(), watch.pings.len()), (vec![], 0));
    let mut watch = Watch::new(2, &only(Why::Push));
    watch.detector.evidence(Rank(1), watch.now);
    assert!(!watch.detector.has_evidence(Rank(1)));
    watch.detector.forget(Rank(1));
    assert_eq!(watch.figures(), [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]);
}

#[test]
fn no_member_suspected_a_leaver() {
    let mut watch = Watch::new(2, &DetectorTiming::default());
    watch.detector.left(Rank(1));
    watch.wait(1000, |_| {});
    assert_eq!((watch.changes(), watch.figures()), (vec![], [(0, 0, 0); 4]));
    watch.detector.heard(Rank(1), watch.now, Path::Multicast);
    watch.detector.heard(Rank(900), watch.now, Path::Multicast);
    assert_eq!(watch.detector.level(Rank(900), watch.now), 0.0);
}

/// What the group's detectors report counts once, when it changes: the peer may be another incarnation since.
#[test]
fn a_judgement_is_one_more_detector() {
    let (suspected, trusted) =
        (Judgement { watched: 0b110, suspects: 0b10 }, Judgement { watched: 0b110, suspects: 0 });
    let mut watch = Watch::new(3, &only(Why::Group));
    let judge = |watch: &mut Watch, judgement| {
        watch.detector.judge(watch.now, judgement);
        watch.run();
    };
    watch.wait(50, |_| {});
    judge(&mut watch, suspected);
    assert!(watch.detector.level(Rank(1), watch.now) == 1.0 && watch.detector.suspects() == 0b10);
    judge(&mut watch, trusted);
    assert_eq!(watch.changes(), [(50, 1, Change::Suspected(Why::Group)), (50, 1, Change::Trusted)]);
    judge(&mut watch, suspected);
    watch.detector.forget(Rank(1));
    watch.detector.watch(Rank(1), watch.now);
    judge(&mut watch, suspected);
    assert_eq!(watch.detector.suspects(), 0, "it is another incarnation since that was reported");
    judge(&mut watch, Judgement { watched: 0b100, suspects: 0 });
    judge(&mut watch, suspected);
    assert_eq!(watch.detector.suspects(), 0b10, "they began to watch it again");
    watch.detector.forget(Rank(2));
    let Figures { suspicions, false_positives, false_negatives } = watch.detector.figures(Why::Group);
    assert_eq!((suspicions, false_positives, false_negatives), (3, 1, 1));
}

/// Where no channel leans, a judgement changes nothing.
#[test]
fn a_judgement_counts_only_where_the_channel_leans() {
    let mut watch = Watch::new(2, &only(Why::Push));
    watch.detector.judge(watch.now, Judgement { watched: 0b10, suspects: 0b10 });
    watch.wait(50, |_| {});
    watch.detector.forget(Rank(1));
    assert_eq!((watch.changes(), watch.detector.figures(Why::Group)), (vec![], Figures::default()));
}

/// Whichever input is first after the stall, and although the backlog is read only afterwards.
#[test]
fn a_member_that_was_stopped_itself_suspects_no_other() {
    let firsts: [fn(&mut Watch); 3] = [
        |_| {},
        |watch| watch.detector.heard(Rank(1), watch.now, Path::Unicast),
        |watch| (0..100).for_each(|_| watch.detector.heartbeat(Rank(1), watch.now)),
    ];
    for first in firsts {
        let mut watch = Watch::new(2, &DetectorTiming::default());
        let both = |watch: &mut Watch| {
            beat(watch);
            answer(watch);
        };
        watch.wait(10_000, both);
        watch.stall(60_000, first);
        watch.wait(9, |_| {});
        watch.wait(10_000, both);
        assert_eq!(watch.changes(), []);
    }
}

/// Neither the gap with the stall in it nor the gaps in the backlog are the peer's.
#[test]
fn an_own_stall_teaches_phi_nothing() {
    let level = |watch: &Watch| watch.detector.level_by(Why::Phi, Rank(1), watch.now + 15 * MS);
    let mut watch = Watch::new(2, &only(Why::Phi));
    watch.wait(1000, beat);
    let before = level(&watch);
    watch.stall(1000, |watch| (0..100).for_each(|_| watch.detector.heartbeat(Rank(1), watch.now)));
    assert_eq!(level(&watch), before);
    watch.stall(1000, |_| {});
    (0..100).for_each(|_| watch.detector.heartbeat(Rank(1), watch.now));
    assert_eq!(level(&watch), before);
    watch.stall(1000, |_| {});
    watch.wait(12, |_| {});
    watch.detector.heartbeat(Rank(1), watch.now);
    assert_eq!(level(&watch), before, "the first gap after the stall, later than the grace");
    watch.wait(10, |_| {});
    watch.detector.heartbeat(Rank(1), watch.now);
    assert_ne!(level(&watch), before, "and then it learns again");
}

/// Each stall is deducted; grace is given once.
#[test]
fn a_member_that_always_stalls_still_finds_the_dead() {
    let mut watch = Watch::new(2, &only(Why::Push));
    for _ in 0..12 {
        watch.stall(500, |_| {});
    }
    assert_eq!(watch.changes().len(), 1);
}

#[test]
fn the_fast_profile_finds_a_crash_within_ten_milliseconds() {
    let mut watch = Watch::new(2, &DetectorTiming::fast());
    let both = |watch: &mut Watch| {
        if (watch.now.0 / MS).is_multiple_of(2) {
            watch.detector.heard(Rank(1), watch.now, Path::Multicast);
            watch.detector.heartbeat(Rank(1), watch.now);
        }
        answer(watch);
    };
    watch.wait(20_000, both);
    assert_eq!(watch.changes(), []);
    watch.wait(20, |_| {});
    let (at, _, change) = watch.changes()[0];
    assert!(at <= 20_010 && change != Change::Trusted, "{at}");
}

#[test]
fn gaps_are_counted_by_the_phi_they_reached() {
    let mut watch = Watch::new(2, &only(Why::Phi));
    watch.wait(100, beat);
    let before = watch.detector.gaps();
    assert_eq!((before.count, before.reached), (9, [0; 3]), "the first heartbeat ends no gap");
    watch.wait(50, |_| {});
    watch.wait(10, beat);
    let after = watch.detector.gaps();
    assert_eq!((after.count, after.reached, after.reached_unfloored), (10, [1; 3], [1; 3]));
}
