//! One subscription over an archive and the live group, as the command has it.

use super::{Args, Output, SLEEP, is_over, report};
use crate::exit::{Failure, note};
use bourdon::archive::Position;
use bourdon::topics::Filter;
use bourdon::{Delivery, History, HistorySubscription, InlineNode, Overrun, Settings, StartAt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Messages that are written before what is live is looked at again.
const BATCH: usize = 1_024;
/// How often the position is written to its file.
const SAVE_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Default, clap::Args)]
pub(super) struct HistoryOptions {
    /// Read this archive first, go on live without gap or duplicate, and return to it after a loss: an archive that
    /// `bourdon subscribe --archive` records on this host, of a group in total order
    #[arg(long, value_name = "DIR", conflicts_with = "archive")]
    history: Option<PathBuf>,
    /// Where to begin: oldest (the default), live, position:N (of the archive) or time:NS (since 1970)
    #[arg(long, value_name = "WHERE", requires = "history", value_parser = start)]
    from: Option<StartAt>,
    /// Write how far this subscription is to this file, and go on there the next time
    #[arg(long, value_name = "FILE", requires = "history")]
    position: Option<PathBuf>,
    /// What to do when messages come faster than they are read from stdout: replay (the default) them from the archive,
    /// skip them, or write of each topic only the latest
    #[arg(long, value_name = "HOW", requires = "history", value_parser = overrun)]
    on_overrun: Option<Overrun>,
}

impl HistoryOptions {
    /// Which archive to read, and where to begin; none if no archive is given.
    pub(super) fn open(&self) -> Result<Option<History>, Failure> {
        let Some(path) = &self.history else { return Ok(None) };
        let stored = self.position.as_deref().map_or(Ok(None), load)?;
        let history = History::at(path).from(self.from.unwrap_or_default()).resume(stored);
        Ok(Some(history.overrun(self.on_overrun.unwrap_or(Overrun::Replay))))
    }
}

fn overrun(text: &str) -> Result<Overrun, String> {
    match text {
        "replay" => Ok(Overrun::Replay),
        "skip" => Ok(Overrun::Skip),
        "latest" => Ok(Overrun::Latest),
        _ => Err("replay, skip or latest is expected".to_owned()),
    }
}

fn start(text: &str) -> Result<StartAt, String> {
    let number = |digits: &str| digits.parse().map_err(|_| format!("{digits:?} is no number"));
    match text.split_once(':') {
        None if text == "oldest" => Ok(StartAt::Oldest),
        None if text == "live" => Ok(StartAt::Live),
        Some(("position", digits)) => number(digits).map(StartAt::Position),
        Some(("time", digits)) => number(digits).map(StartAt::Time),
        _ => Err("oldest, live, position:N or time:NS is expected".to_owned()),
    }
}

/// Writes what is subscribed to until it is complete or ended.
pub(super) fn run(
    mut subscription: HistorySubscription<InlineNode>,
    args: &Args,
    settings: &Settings,
    signals: &UnixStream,
    mut output: Output<'_>,
) -> Result<(), Failure> {
    let filter = Filter::new(&args.patterns, &settings.group.topics);
    let mut stored = Stored { file: args.history.position.as_deref(), at: Instant::now(), last: None };
    while !output.is_complete() && !is_over(signals) {
        let left = args.count.map_or(BATCH, |count| BATCH.min((count - output.written) as usize));
        let mut events = Vec::new();
        let takes_more = takes_more(args);
        let polled = subscription.poll(if takes_more { left } else { 0 }, |delivery| match delivery {
            Delivery::Message(message) => output.write(&message, filter.name(&message)),
            Delivery::Event(event) => {
                output.write_event(event);
                events.push(event);
            }
            Delivery::Notice(notice) => {
                output.write_notice(notice);
                note(notice);
            }
            other => note(other),
        });
        let work_count = polled.map_err(Failure::of_node)?;
        report(subscription.live_mut(), settings, events)?;
        if stored.is_due(&subscription.position()) {
            output.flush();
            stored.save(&subscription.position())?;
        }
        if work_count == 0 {
            if takes_more {
                output.flush();
            }
            subscription.wait(SLEEP).map_err(Failure::of_node)?;
        }
    }
    output.flush();
    if output.failed.is_none() {
        stored.save(&subscription.position())?;
    }
    output.end()
}

/// Whether more is written now: the latest messages wait until the reader of stdout takes them, all others in its pipe.
fn takes_more(args: &Args) -> bool {
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    args.history.on_overrun != Some(Overrun::Latest) || poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
}

/// The file of a position.
struct Stored<'a> {
    file: Option<&'a Path>,
    at: Instant,
    last: Option<Position>,
}

impl Stored<'_> {
    /// Whether what was written is to be flushed, and the position stored behind it.
    fn is_due(&self, position: &Position) -> bool {
        self.file.is_some() && self.last.as_ref() != Some(position) && self.at.elapsed() >= SAVE_EVERY
    }

    /// Stores the position. All that lies before it has been written.
    fn save(&mut self, position: &Position) -> Result<(), Failure> {
        let Some(file) = self.file else { return Ok(()) };
        (self.at, self.last) = (Instant::now(), Some(*position));
        let text = serde_json::to_string(position).expect("numbers");
        let beside = file.with_extension("new");
        let stored = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file));
        stored.map_err(|error| Failure::broken(format!("writing {}: {error}", file.display())))
    }
}

/// The position in a file; none if there is no file yet.
fn load(file: &Path) -> Result<Option<Position>, Failure> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::unusable(format!("{}: {error}", file.display()))),
    };
    let position = serde_json::from_str(&text)
        .map_err(|error| Failure::unusable(format!("{} is no position of a subscription: {error}", file.display())))?;
    Ok(Some(position))
}
