//! One publisher to several observers: the pattern of market data.
//!
//! The publisher, a group of one, waits for its observers unless `--flow free` is given: then no observer slows it, and
//! an observer that is too slow requests what it misses, and loses the rest. The rate is the slowest observer's. On a
//! host with fewer cores than processes use `--idle park`.

use crate::row::show;
use crate::throughput::{publish, row};
use crate::worker::{FarEnd, Spec, WorkerKind, pin};
use crate::{Failure, Mode, Settings};

/// Measures fan-out and prints the result.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    if settings.mode == Mode::Threaded {
        return Err(Failure::Unusable("fan-out is measured inline; leave out --mode".into()));
    }
    pin(0);
    let count = settings.count.unwrap_or(2_000_000);
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        let mut spec = Spec::new(settings, WorkerKind::Observer, count);
        spec.members = 1;
        let far =
            (0..settings.observers).map(|index| FarEnd::start(&Spec { core: 1 + usize::from(index), ..spec.clone() }));
        let far: Result<Vec<_>, _> = far.collect();
        rounds.push(publish(&spec, far?)?);
    }
    let mut how = Spec { members: 1, ..Spec::new(settings, WorkerKind::Observer, count) }.settings("inline");
    how["observers"] = settings.observers.into();
    show(settings, &[row(settings, "fanout", "bourdon", &rounds, how)], &[])
}
