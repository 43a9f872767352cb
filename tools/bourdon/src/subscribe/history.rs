//! One subscription over an archive and the live group, as the command has it.

use crate::exit::{Failure, note};
use bourdon::settings::{Order, Settings};
use bourdon::{Event, Message};
use bourdon_archive::{Archive, Batch, Error, Merge, Mode, Output, Position, Replay, Rule, StartAt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Batches of the archive that are taken before what is live is looked at again.
const BATCHES: usize = 4;
/// How soon it looks whether more of the archive has been read.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
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

/// A subscription over an archive.
pub(super) struct History {
    merge: Merge,
    replay: Replay,
    batch: Batch,
    /// How much of the batch has been taken.
    taken: usize,
    file: Option<PathBuf>,
    saved: (Instant, Position),
    begun: Instant,
}

impl History {
    pub(super) fn open(options: &HistoryOptions, settings: &Settings) -> Result<Option<Self>, Failure> {
        let Some(path) = options.history.clone() else { return Ok(None) };
        let instance = match Archive::open(&path) {
            Ok(archive) => archive.instance(),
            Err(Error::Open { source: bourdon_log::Error::Empty, .. }) => 0,
            Err(error) => return Err(Failure::unusable(error)),
        };
        let stored = options.position.as_deref().map_or(Ok(None), load)?;
        if let Some(expected) = stored.map(|position| position.instance).filter(|_| instance != 0)
            && expected != instance
        {
            return Err(Failure::of_archive(Error::OtherInstance { found: instance, expected }));
        }
        let is_dense = settings.group.order == Order::Total;
        let rule = Rule { start: options.from.unwrap_or_default(), is_dense, skips: false };
        let (merge, replay) = (Merge::new(rule, stored), Replay::start(path).map_err(Failure::of_archive)?);
        let (now, batch, file) = (Instant::now(), Batch::default(), options.position.clone());
        let saved = (now, Position::default());
        let mut history = Self { merge, replay, batch, taken: 0, file, saved, begun: now };
        history.settle()?;
        Ok(Some(history))
    }

    /// Asks for what is to be read, and reports what has changed.
    fn settle(&mut self) -> Result<(), Failure> {
        while let Some(notice) = self.merge.take_notice() {
            note(notice);
        }
        if let Some((from, place)) = self.merge.take_request() {
            self.replay.request(from, place).map_err(Failure::of_archive)?;
        }
        Ok(())
    }

    /// A message came live; returns whether it is to be written now.
    ///
    /// # Errors
    /// If it is of another instance than the archive, or has no place.
    pub(super) fn take(&mut self, message: &Message<'_>, name: Option<&str>, is_wanted: bool) -> Result<bool, Failure> {
        self.merge.live(message, name, is_wanted).map_err(Failure::of_archive)
    }

    /// Something happened among the live messages.
    pub(super) fn note_event(&mut self, event: &Event) {
        self.merge.event(event);
    }

    /// Takes up what the archive has, and what waits, until `write` takes no more after it. Returns how much it did.
    ///
    /// # Errors
    /// If the archive can't be read, or is of another instance.
    pub(super) fn advance(&mut self, write: &mut impl FnMut(&Message<'_>) -> bool) -> Result<usize, Failure> {
        let mut count = 0;
        self.settle()?;
        for _ in 0..BATCHES {
            while let Some(archived) = self.batch.get(self.taken) {
                (self.taken, count) = (self.taken + 1, count + 1);
                let output = self.merge.archived(self.batch.instance, &archived).map_err(Failure::of_archive)?;
                if let Some(Output::Message(message)) = output
                    && !write(&message)
                {
                    return Ok(count);
                }
            }
            let now = bourdon::time::Instant(self.begun.elapsed().as_nanos() as u64);
            if let Some(end) = self.batch.end.take() {
                self.merge.end(end.map_err(Failure::of_archive)?, now);
            }
            self.merge.keep_time(now);
            (self.batch, self.taken) = match self.replay.next().map_err(Failure::of_archive)? {
                Some(batch) => (batch, 0),
                None => break,
            };
        }
        while let Some(waiting) = self.merge.pop() {
            count += 1;
            if let Some(message) = waiting.message()
                && !write(&message)
            {
                break;
            }
        }
        self.settle()?;
        Ok(count)
    }

    /// How long its owner may sleep, where otherwise it may sleep so `long`: while the archive is read there is soon
    /// something to do.
    pub(super) fn longest_sleep(&self, long: Duration) -> Duration {
        let is_idle = match self.merge.mode() {
            Mode::Live => true,
            Mode::AtEnd => self.merge.queue_bytes() == 0,
            _ => false,
        };
        if is_idle { long } else { long.min(LOOK_AGAIN) }
    }

    /// Whether what was written is to be flushed, and the position stored behind it.
    pub(super) fn is_due(&self) -> bool {
        self.file.is_some() && self.saved.1 != self.merge.position() && self.saved.0.elapsed() >= SAVE_EVERY
    }

    /// Stores the position. All that lies before it has been written.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn save(&mut self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        let position = self.merge.position();
        self.saved = (Instant::now(), position);
        let text = serde_json::to_string(&position).expect("numbers");
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
