//! The matrix: the same seeds in every cell.

use crate::guarantee::Guarantee;
use crate::options::Options;
use crate::report::Report;
use crate::runner::run;
use std::ops::Range;

/// The result of a cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The cell.
    pub guarantee: Guarantee,
    /// Its seeds' report.
    pub report: Report,
}

/// Plays the same seeds in every cell. `progress` is called for each seed done.
pub fn matrix(seeds: &Range<u64>, options: Options, progress: &(dyn Fn(u64) + Sync)) -> Vec<Cell> {
    let play = |guarantee| {
        let options = Options { guarantee: Some(guarantee), ..options };
        Cell { guarantee, report: run(seeds.clone(), options, progress) }
    };
    Guarantee::all().map(play).collect()
}
