//! What a member of the lab records: its deliveries and views, gaps and retractions, and the state that it hands over.

use super::Failure;
use super::messages::{LINE_BYTES, Line, Name, Publisher, bytes_of, line, payload, read_line, words_of, write_line};
use super::names::Names;
use bourdon::id::{Incarnation, InstanceId, Rank, Sequence};
use bourdon::{FencingToken, Message};
use bourdon_lab::history::writer::History;
use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest sleep: no work here is more urgent.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(10);
/// One message in this many answers the message that its publisher delivered last.
const ANSWER_EVERY: u64 = 8;
/// The most history lines: the state for a joiner stays below the largest snapshot.
const LINES_MAX: usize = 4_000_000;

/// What a member starts with beside its settings.
pub(super) struct Start {
    pub(super) own: Publisher,
    pub(super) deliveries: Deliveries,
    /// How many messages it publishes a second.
    pub(super) rate: u64,
    /// Where the token of its lock goes, if it is to take one.
    pub(super) tokens: Option<PathBuf>,
    pub(super) talk: bool,
}

/// What this process delivered, or took over from another process's state.
pub(super) struct Deliveries {
    pub(super) history: History,
    /// Its state is [`Deliveries::count`] and [`Deliveries::sum`], not all lines.
    short_state: bool,
    lines: Vec<u8>,
    /// The names of this instance's messages.
    names: Names,
    instance: InstanceId,
    /// The last view that was installed.
    view: u64,
    /// How many messages were delivered, including those of the initial state.
    count: u64,
    /// The sum of their hashes.
    sum: u64,
    last: Option<Name>,
    /// Messages that no lab member published.
    foreign: u64,
}

impl Deliveries {
    pub(super) fn new(history: History, short_state: bool) -> Self {
        Self {
            history,
            short_state,
            lines: Vec::new(),
            names: Names::default(),
            instance: InstanceId::NONE,
            view: 0,
            count: 0,
            sum: 0,
            last: None,
            foreign: 0,
        }
    }

    pub(super) fn deliver(&mut self, delivery: &Message<'_>) {
        self.record((delivery.sender, delivery.incarnation), delivery.sequence, line(delivery));
    }

    /// Records a delivery by its line; none means that no lab member published it.
    pub(super) fn record(
        &mut self,
        (sender, incarnation): (Rank, Incarnation),
        sequence: Sequence,
        line: Option<Line>,
    ) {
        let Some(line) = line else {
            self.foreign += 1;
            return;
        };
        self.names.note((sender.0, incarnation), sequence.0, line.view, (line.publisher, line.sequence));
        self.note(&line);
        self.lines.extend((!self.short_state).then(|| write_line(&line)).into_iter().flatten());
    }

    /// The payload of an own message.
    pub(super) fn payload(&self, own: Publisher, published: u64) -> Vec<u8> {
        let answers = published % ANSWER_EVERY == ANSWER_EVERY - 1;
        payload((own, published), self.last.filter(|_| answers))
    }

    /// A view begins; `instance` is that of the group.
    pub(super) fn enter(&mut self, instance: InstanceId, view: u64, members: &[u16]) {
        if self.instance != instance {
            self.names.clear();
        }
        (self.instance, self.view) = (instance, view);
        self.history.instance(instance.0);
        self.history.view(view, members);
    }

    pub(super) fn gap(&mut self, sender: Rank, from: Sequence, to: Sequence) {
        let missing = self.names.missing(sender.0, from.0..to.0);
        if missing.is_empty() {
            self.history.gap(sender.0, from.0, to.0); // the judge is to see that there was one
        }
        missing.iter().for_each(|(publisher, numbers)| self.history.gap(publisher, numbers.start, numbers.end));
    }

    pub(super) fn retraction(&mut self, sender: Rank, from: Sequence, to: Sequence) {
        for (publisher, number) in self.names.take(sender.0, from.0..to.0, self.view) {
            self.history.retraction(publisher, number, number + 1);
        }
    }

    /// The state for a joiner.
    pub(super) fn state(&self) -> Cow<'_, [u8]> {
        let sums = || bytes_of([self.count, self.sum]).collect();
        if self.short_state { Cow::Owned(sums()) } else { Cow::Borrowed(&self.lines) }
    }

    /// Begins with another member's state.
    pub(super) fn restore(&mut self, state: &[u8]) -> Result<(), Failure> {
        let short = || Failure::broken("a member's state is cut short");
        if self.short_state {
            [self.count, self.sum] = words_of(state).ok_or_else(short)?;
            self.history.state(self.count, self.sum);
            return Ok(());
        }
        for bytes in state.chunks(LINE_BYTES) {
            let line = read_line(bytes).ok_or_else(short)?;
            self.note(&line);
            self.lines.extend(write_line(&line));
        }
        Ok(())
    }

    /// Whether all of it could be recorded.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if let Some(why) = self.history.failure() {
            return Err(Failure::broken(why));
        }
        if self.foreign > 0 {
            return Err(Failure::broken("something else publishes in the lab's group"));
        }
        if self.lines.len() > LINES_MAX * LINE_BYTES {
            return Err(Failure::broken(
                "this campaign is too long for the state that members hand over: fewer rounds",
            ));
        }
        Ok(())
    }

    fn note(&mut self, line: &Line) {
        self.history.delivery(line);
        self.last = Some((line.publisher, line.sequence));
        (self.count, self.sum) = (self.count + 1, self.sum.wrapping_add(line.hash));
    }
}

/// The members of a view after one that is known: members that stay keep their places, joiners come last.
pub(super) fn by_seniority(before: &[u16], members: u64) -> Vec<u16> {
    let is_member = |rank: &u16| members >> rank & 1 == 1;
    let stayed: Vec<u16> = before.iter().copied().filter(is_member).collect();
    let joined = (0..64).filter(|rank| is_member(rank) && !stayed.contains(rank));
    stayed.iter().copied().chain(joined).collect()
}

/// Appends a token that was granted to the file of all tokens.
pub(super) fn note_token(path: &Path, token: FencingToken) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let noted = file.and_then(|mut file| writeln!(file, "{} {} {}", token.birth, token.epoch.0, token.number));
    noted.map_err(|error| Failure::unusable(format!("can't write {}: {error}", path.display())))
}

const _: () = assert!(LINES_MAX * LINE_BYTES < 256 << 20, "below the default max_snapshot_bytes");
