//! One HTML page from the JSON output of the other subcommands.
//!
//! Tables of percentiles do not show where two systems part, nor where goodput breaks down. So the page has plots. It
//! is one file without scripts, fonts or addresses of other hosts: it can be attached to a mail and opened with
//! networking off.
//!
//! `report/input.rs` reads the files, `report/figures.rs` decides which plots the rows allow, `report/plot.rs` draws
//! one, `report/page.rs` lays out the page.

mod figures;
mod input;
mod page;
mod plot;

use crate::Failure;
use clap::Args;
use input::Source;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A larger page takes long to open; the points of the plots are few, so none comes near it.
const PAGE_BYTES: usize = 1_000_000;

/// What to report
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Files with what the other subcommands printed with --json
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

/// Reads the files and writes the page.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    if let Some(input) = settings.files.iter().find(|input| is_same_file(input, &settings.html)) {
        return Err(Failure::Unusable(format!(
            "--html {} is the measurement {} itself: give the page another name",
            settings.html.display(),
            input.display()
        )));
    }
    let sources = settings.files.iter().map(|path| input::read(path)).collect::<Result<Vec<_>, _>>()?;
    write(&settings.html, &sources)
}

/// Whether both paths lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Writes the page of one measurement from what it prints with `--json`.
pub(crate) fn write_one(path: &Path, document: &Value) -> Result<(), Failure> {
    write(path, &[input::measured(document)])
}

fn write(path: &Path, sources: &[Source]) -> Result<(), Failure> {
    let html = page::html(sources);
    if html.len() > PAGE_BYTES {
        let bytes = html.len();
        return Err(Failure::Unusable(format!(
            "the page would have {bytes} bytes, more than {PAGE_BYTES}: name fewer files"
        )));
    }
    std::fs::write(path, html).map_err(|error| Failure::Unusable(format!("can't write {}: {error}", path.display())))
}
