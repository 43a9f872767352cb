//! Not there yet.

use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<(), Failure> {
    Err(Failure::unusable("not available yet"))
}
