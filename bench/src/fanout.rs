//! One publisher to several observers: what market data does.
//!
//! Observers acknowledge nothing, so the publisher, a group of one, is held back by nobody; what an observer misses it
//! asks for. The rate is the slowest observer's. On a host with fewer cores than processes use `--idle park`.

use crate::part::{FarEnd, Part, Spec, pin};
use crate::row::show;
use crate::throughput::{publish, row};
use crate::{Failure, Mode, Settings};

/// Measures fan-out and shows it.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    if settings.mode == Mode::Threaded {
        return Err(Failure::Unusable("fan-out is measured inline; leave out --mode".into()));
    }
    pin(0);
    let count = settings.count.unwrap_or(2_000_000);
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        let mut spec = Spec::new(settings, Part::Observer, count);
        spec.members = 1;
        let far =
            (0..settings.observers).map(|index| FarEnd::start(&Spec { core: 1 + usize::from(index), ..spec.clone() }));
        let far: Result<Vec<_>, _> = far.collect();
        rounds.push(publish(&spec, far?)?);
    }
    let mut how = Spec { members: 1, ..Spec::new(settings, Part::Observer, count) }.settings("inline");
    how["observers"] = settings.observers.into();
    show(settings, &[row(settings, "fanout", "bourdon", &rounds, how)], &[])
}
