//! How a session learns where to begin: from an archive, up to its own beginning.

use super::{Bridge, Member};
use crate::failure::{Failure, note};
use crate::position::{Known, Learner, Position};
use crate::wait::TICK;
use async_nats::jetstream::stream::Info;
use bourdon::{Guard, Topic};
use bourdon_archive::Archive;
use std::path::Path;

impl Bridge<'_> {
    /// The stream sequence to begin with; none after a signal, or if the session is lost.
    pub(super) fn learn(&self, member: &mut Member, guard: &Guard, info: &Info) -> Result<Option<u64>, Failure> {
        let beginning = self.position(guard, info);
        let topic = Topic::new(&Position::topic(&beginning.stream)).map_err(Failure::unusable)?;
        let from = self.args.history.as_deref().map_or(Ok(0), last_segment)?;
        if member.publish(self, guard, &topic, &beginning.encode())?.is_none() {
            return Ok(None);
        }
        let known = match &self.args.history {
            Some(path) => match self.read(path, member, guard, &beginning, from)? {
                Some(known) => known,
                None => return Ok(None),
            },
            None => Known::Unknown { at_least: 0 },
        };
        decide(&known, self.args.from_sequence, &beginning, info.state.last_sequence).map(Some)
    }

    /// Waits until the archive has the beginning, and reads what it has of the stream before it.
    fn read(
        &self,
        path: &Path,
        member: &mut Member,
        guard: &Guard,
        beginning: &Position,
        from: u64,
    ) -> Result<Option<Known>, Failure> {
        let (stream, token) = (beginning.stream.as_str(), beginning.token.as_str());
        loop {
            let mut beginnings = Learner::new(stream, token);
            match Archive::open(path) {
                Ok(archive) => {
                    let instance = member.node.view().instance.0;
                    if archive.instance() != instance {
                        return Err(Failure::unusable(format!(
                            "{} holds instance {:016x}, and the group is instance {instance:016x}: name the archive of \
                                 this instance",
                            path.display(),
                            archive.instance()
                        )));
                    }
                    archive.read(from, |archived| beginnings.take(&archived)).map_err(Failure::broken)?;
                    if beginnings.is_over() {
                        self.run.goes_on();
                        return read_back(&archive, stream, token).map(Some);
                    }
                }
                Err(error) if error.is_empty() => {}
                Err(error) => return Err(Failure::unusable(error)),
            }
            if member.is_lost(self, guard)? || self.run.is_over() {
                return Ok(None);
            }
            self.run.waits(
                "archive",
                format!("{}: what was published is not recorded yet: does its recorder run, for '**'?", path.display()),
            );
            std::thread::sleep(TICK / 5);
        }
    }
}

/// The first position of the segment that grows.
pub(super) fn last_segment(path: &Path) -> Result<u64, Failure> {
    match Archive::open(path) {
        Ok(archive) => Ok(archive.segments().last().map_or(0, |segment| segment.first_position)),
        Err(error) if error.is_empty() => Ok(0),
        Err(error) => Err(Failure::unusable(error)),
    }
}

/// Reads the last segments, twice as many each time, until there is a position among them.
fn read_back(archive: &Archive, stream: &str, token: &str) -> Result<Known, Failure> {
    let segments = archive.segments();
    let mut count = 1;
    loop {
        let first = segments.len().saturating_sub(count);
        let from = segments.get(first).map_or(0, |segment| segment.first_position);
        let mut learner = Learner::new(stream, token);
        archive.read(from, |archived| learner.take(&archived)).map_err(Failure::broken)?;
        if learner.has_position() || first == 0 {
            return Ok(learner.known());
        }
        count *= 2;
    }
}

/// Where to begin, by what the archive shows and what the user gave.
fn decide(known: &Known, given: Option<u64>, beginning: &Position, last: u64) -> Result<u64, Failure> {
    let stream = &beginning.stream;
    let next = match known {
        Known::Next { created, .. } if *created != beginning.created => {
            return Err(Failure::unusable(format!(
                "stream {stream:?} was created again on {}: what this group has is of the one created on {created}; \
                     give the new one another name",
                beginning.created
            )));
        }
        Known::Next { next, .. } => *next,
        Known::Nothing => given.unwrap_or(1),
        Known::Unknown { at_least } => match given {
            Some(given) if given < *at_least => {
                return Err(Failure::unusable(format!(
                    "the group has messages of stream {stream:?} up to {at_least} at least: begin with \
                         --from-sequence {at_least} or higher"
                )));
            }
            Some(given) => {
                note(format!("the archive can't show what the group has of {stream:?}: begins with {given}, as given"));
                given
            }
            None => {
                return Err(Failure::unusable(format!(
                    "the archive lacks messages, so it can't show how much of stream {stream:?} the group has \
                         ({at_least} messages at least): find the first that it lacks, and give --from-sequence"
                )));
            }
        },
    };
    if next > last + 1 {
        return Err(Failure::unusable(format!(
            "stream {stream:?} ends at sequence {last}, and the group has its messages before {next}: it has lost \
                 messages, or is another stream"
        )));
    }
    Ok(next)
}
