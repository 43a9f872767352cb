//! Phi must mean what it claims.

use bourdon_protocol::control::detector::DetectorTiming;
use bourdon_protocol::control::detector::phi::Phi;
use bourdon_wire::Instant;

const MS: f64 = 1e6;
const GAPS: usize = 100_000;

/// A floor so low that it never matters.
fn timing() -> DetectorTiming {
    DetectorTiming { phi_deviation_min_ns: 1_000, ..DetectorTiming::default() }
}

/// Box and Muller.
fn normal(rng: &mut fastrand::Rng, mean: f64, deviation: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    mean + deviation * radius * (core::f64::consts::TAU * rng.f64()).cos()
}

fn exponential(rng: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// The gap with this number.
type Gaps<'a> = &'a dyn Fn(usize, &mut fastrand::Rng) -> f64;

/// The shares of healthy gaps at whose end phi was at least 1, 2, 3, each judged by the gaps before it only.
fn shares(mut gap_ns: impl FnMut(usize, &mut fastrand::Rng) -> f64) -> [f64; 3] {
    let timing = timing();
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut phi, mut now) = (Phi::new(Instant(0), timing.heartbeat_ns), Instant(0));
    let mut counts = [0; 3];
    phi.heartbeat(now, true);
    for i in 0..GAPS {
        let gap_ns = gap_ns(i, &mut rng).max(1.0) as u64;
        now = now + gap_ns;
        let value = phi.phi(gap_ns, &timing);
        (0..3).filter(|k| value >= (k + 1) as f64).for_each(|k| counts[k] += 1);
        phi.heartbeat(now, true);
    }
    counts.map(|count| f64::from(count) / GAPS as f64)
}

fn assert_calibrated(name: &str, shares: [f64; 3]) {
    for (k, share) in (1..).zip(shares) {
        let promised = 10f64.powi(-k);
        assert!(promised / 3.0 <= share && share <= promised * 3.0, "{name}: {share} of the gaps have phi {k}");
    }
}

#[test]
fn a_phi_of_k_is_reached_by_one_healthy_gap_in_ten_to_the_k() {
    let cases: [(&str, Gaps); 10] = [
        ("normal", &|_, rng| normal(rng, 10.0 * MS, MS)),
        ("narrow normal", &|_, rng| normal(rng, 10.0 * MS, 0.05 * MS)),
        ("all alike", &|_, _| 10.0 * MS),
        ("exponential", &|_, rng| exponential(rng, 10.0 * MS)),
        ("a stall in 1,000", &|_, rng| stalls(rng, 0.001)),
        ("a stall in 200", &|_, rng| stalls(rng, 0.005)),
        ("a stall in 50", &|_, rng| stalls(rng, 0.02)),
        ("Pareto", &|_, rng| 5.0 * MS * (1.0 - rng.f64()).powf(-1.0 / 1.5)),
        ("slow all of a sudden", &|i, rng| normal(rng, if i < GAPS / 2 { 10.0 } else { 40.0 } * MS, MS)),
        ("loaded now and then", &|i, rng| stalls(rng, if i / 5_000 % 2 == 0 { 0.0 } else { 0.02 })),
    ];
    for (name, gap_ns) in cases {
        let shares = shares(gap_ns);
        assert_calibrated(name, shares);
    }
}

/// A normal gap, or once in a while one ten times as long.
fn stalls(rng: &mut fastrand::Rng, share: f64) -> f64 {
    let longer = if rng.f64() < share { 10.0 } else { 1.0 };
    longer * normal(rng, 10.0 * MS, MS)
}

#[test]
fn phi_grows_with_silence_and_the_deadline_is_where_it_reaches_the_threshold() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut phi = Phi::new(Instant(0), 10_000_000);
    let mut now = Instant(0);
    for _ in 0..500 {
        phi.heartbeat(now, true);
        for phi_threshold in [0.5, 1.0, 1.5, 2.5, 3.0, 8.0] {
            let timing = DetectorTiming { phi_threshold, ..timing() };
            let deadline = phi.deadline(&timing);
            assert!((phi.level(deadline, &timing) - 1.0).abs() < 1e-2);
            assert!(phi.level(Instant(deadline.0 - 2), &timing) < 1.0);
        }
        let values: Vec<_> = (0..300).map(|ms| phi.phi(ms * 1_000_000, &timing())).collect();
        assert!(values.is_sorted());
        now = now + exponential(&mut rng, 10.0 * MS) as u64;
    }
}

#[test]
fn perfect_regularity_does_not_make_a_hiccup_a_failure() {
    let timing = DetectorTiming::default();
    let mut phi = Phi::new(Instant(0), timing.heartbeat_ns);
    for i in 0..GAPS as u64 {
        phi.heartbeat(Instant(i * 10_000_000), true);
    }
    let silence_ns = phi.deadline(&timing).since(Instant((GAPS as u64 - 1) * 10_000_000));
    assert!((50_000_000..90_000_000).contains(&silence_ns), "{silence_ns} ns");
}

#[test]
fn a_host_that_has_become_slow_is_believed_within_a_few_gaps() {
    let timing = timing();
    let mut phi = Phi::new(Instant(0), timing.heartbeat_ns);
    let mut now = Instant(0);
    for _ in 0..GAPS {
        now = now + 10_000_000;
        phi.heartbeat(now, true);
    }
    assert!(phi.phi(100_000_000, &timing) > 8.0);
    for _ in 0..15 {
        now = now + 100_000_000;
        phi.heartbeat(now, true);
    }
    assert!(phi.phi(100_000_000, &timing) < 3.0);
}

#[test]
fn what_piled_up_teaches_nothing() {
    let mut phi = Phi::new(Instant(0), 10_000_000);
    phi.heartbeat(Instant(0), true);
    let before = phi.phi(15_000_000, &timing());
    for i in 0..100 {
        phi.heartbeat(Instant(1_000_000_000 + i), false);
    }
    assert_eq!(phi.phi(15_000_000, &timing()), before);
}
