//! Goodput over offered load: whether overload makes the observers receive less.
//!
//! The best lossless rate is searched first: the highest at which every observer received every message, at the
//! offered rate. A publisher that waits for its observers gives the upper end of the search. Then multiples of that
//! rate are offered, below and above what is sustainable.

use super::{Settings, row};
use crate::Failure;
use crate::round::{self, Round};
use crate::row::{Ratio, Row, show};
use crate::systems::System;
use crate::throughput::limit;
use crate::worker::{Spec, WorkerKind};
use bourdon::settings::Flow;

/// What is offered, as multiples of the best lossless rate.
const FACTORS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Halvings of the interval in which the best lossless rate lies: to 2 % of it.
const HALVINGS: u32 = 5;
/// The search begins between these multiples of the rate of a publisher that waits.
const SEARCHED: (f64, f64) = (0.25, 1.5);
/// The share of the offered rate that the slowest observer must reach where nothing is lost.
const KEPT_SHARE: f64 = 0.95;

/// Measures the sweep and prints a row for each offered rate.
pub(super) fn run(settings: &Settings, system: &System) -> Result<(), Failure> {
    let measure = |spec: &Spec| Round::measure(system, spec, WorkerKind::Receiver, limit(spec));
    let spec = settings.spec();
    let waiting = measure(&Spec { flow: Flow::Gating, ..spec.clone() })?;
    let best = best_lossless(waiting.rate(), |rate| measure(&offering(&spec, rate)))?;
    eprintln!("the best lossless rate is {best:.0} messages/s to each observer");
    let mut rounds: Vec<Vec<Round>> = FACTORS.iter().map(|_| Vec::new()).collect();
    for index in 1..=settings.common.rounds {
        for (factor, rounds) in FACTORS.iter().zip(&mut rounds) {
            round::announce(index, settings.common.rounds, &format!("{factor} x the best lossless rate"));
            rounds.push(measure(&offering(&spec, factor * best))?);
        }
    }
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    for (factor, rounds) in FACTORS.iter().zip(&rounds) {
        let mut row: Row = row(&settings.common, system, &offering(&spec, factor * best), rounds);
        row.extra.insert("offered_over_best".into(), (*factor).into());
        row.extra.insert("best_lossless_per_s".into(), (best as u64).into());
        rows.push(row);
        // Below the best rate no more than what is offered can arrive.
        let possible = best * factor.min(1.0);
        let what = format!("goodput at {factor} x over the best lossless");
        ratios.push(Ratio { what, rounds: rounds.iter().map(|round| round.rate() / possible).collect() });
    }
    show(&settings.common, &rows, &ratios)
}

/// The spec with this rate offered for about a second.
fn offering(spec: &Spec, rate: f64) -> Spec {
    let rate_per_s = (rate as u64).max(1);
    Spec { offered_per_s: Some(rate_per_s), count: rate_per_s, ..spec.clone() }
}

/// Searches the highest rate at which a round loses nothing and keeps up.
fn best_lossless(waiting: f64, mut measure: impl FnMut(f64) -> Result<Round, Failure>) -> Result<f64, Failure> {
    let (mut low, mut high) = (SEARCHED.0 * waiting, SEARCHED.1 * waiting);
    let mut best = None;
    for _ in 0..=HALVINGS {
        let rate = (low + high) / 2.0;
        let round = measure(rate)?;
        if round.lost() == 0 && round.rate() >= KEPT_SHARE * rate {
            (best, low) = (Some(rate), rate);
        } else {
            high = rate;
        }
    }
    best.ok_or_else(|| {
        Failure::Broken(format!("even {high:.0} messages/s are lost or late: on a host with few cores use --idle park"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Found;

    #[test]
    fn the_best_lossless_rate_is_found() {
        for truth in [300.0, 1_000.0, 1_400.0] {
            let measure = |rate: f64| {
                let (near, received) =
                    (Found { sent: 1_000, ..Found::default() }, if rate > truth { 999 } else { 1_000 });
                let elapsed_ns = (1e12 / rate) as u64;
                let far = vec![Found { received, elapsed_ns, ..Found::default() }];
                Ok(Round { near, far, ..Round::default() })
            };
            let found = best_lossless(1_000.0, measure).expect("there is one");
            assert!(found <= truth && found > 0.93 * truth, "{found} of {truth}");
        }
        assert!(
            best_lossless(1_000.0, |_| Ok(Round {
                near: Found { sent: 1, ..Found::default() },
                far: vec![Found::default()],
                ..Round::default()
            }))
            .is_err()
        );
    }
}
