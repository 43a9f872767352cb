//! `bourdon publish`: sends lines or frames of stdin to a group as a client of one of its members. Each message carries
//! its topic's name, so that subscribers can choose by patterns. `bourdon node --publish` does the same as a member.
//!
//! Reading stdin blocks, and a command that finds no group reports it though nothing comes. So a thread reads messages
//! and passes them over a bounded queue.

use crate::exit::{Failure, note, print};
use crate::place::{Messages, Place, of_client, unheard};
use crate::wait::{Wait, class, why};
use bourdon::error::NotAcknowledged;
use bourdon::id::TopicName;
use bourdon::{Node, Publication, Refusal, Settings, Topic};
use serde_json::{Value, json};
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Messages read ahead: enough for the client's window, few enough to notice a stop soon and to hold long ones.
const READ_AHEAD: usize = 32;
/// How long to look for a member; members send heartbeats at least every 100 ms.
const LOOK_S: u64 = 5;
/// The longest sleep, so that a member's silence is noticed.
const SLEEP: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// The topic's name: parts joined by dots
    topic: TopicName,
    /// Give up, with exit code 3, when the group has taken no message for so many seconds [default: wait on]
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Report at the end what was published and what was waited for, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let settings = of_client(args.place.at.settings()?.0);
    let node = Node::open(&settings).map_err(|why| args.place.at.unusable(why))?;
    if let Some(why) = &node.info().fallback {
        note(why);
    }
    let publication = node.publication().map_err(Failure::unusable)?;
    node.join().map_err(Failure::broken)?;
    let topic = Topic::new(args.topic.as_str()).map_err(Failure::unusable)?;
    let mut waits = Vec::new();
    let mut report = |text: String, object: Value| {
        note(text);
        waits.push(object);
    };
    let search = Search { settings: &settings, since: Instant::now(), is_heard: false, timeout: args.timeout };
    let mut publisher = Publisher::new(publication, args.place.frames, Some(search), &mut report);
    let input = read_stdin(args.place.frames, settings.limits.max_message_bytes);
    let (outcome, bytes) = publisher.run(&topic, &input);
    let read = publisher.read;
    let mut publication = publisher.publication;
    if args.json {
        let (group, topic, messages) = (&args.place.at.group, args.topic.as_str(), publication.published());
        let report = json!({
            "group": group, "topic": topic, "read": read, "messages": messages, "bytes": bytes, "io": node.info().io,
            "acknowledged": publication.acknowledged(), "waits": waits,
        });
        print(&format!("{report}\n"))?;
    }
    outcome
}

/// A number of seconds, from a millisecond on.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|it| it.as_millis() > 0).ok_or_else(|| format!("{text:?} is no number of seconds above 0.001"))
}

/// Publishes what comes from stdin.
pub(crate) struct Publisher<'a> {
    /// What a message of stdin is.
    what: &'static str,
    publication: Publication,
    /// Of a client: what it knows of the group's members. A node goes on whatever becomes of them.
    search: Option<Search<'a>>,
    /// How many messages were taken from stdin.
    read: u64,
    /// All messages up to this number are known to be taken.
    checked: u64,
    wait: Wait,
    stalled_since: Option<Instant>,
    /// Takes a report of what is waited for: as text, and as an object.
    report: &'a mut dyn FnMut(String, Value),
}

/// What a client knows of the group's members.
pub(crate) struct Search<'a> {
    settings: &'a Settings,
    /// When it began to look for a member.
    since: Instant,
    /// A member was heard.
    is_heard: bool,
    /// For how long the group may take no message.
    timeout: Option<Duration>,
}

impl Search<'_> {
    /// Gives up where no member is heard, or none any more.
    fn check(&mut self, refusal: Option<Refusal>, counts: Counts) -> Result<(), Failure> {
        let is_unheard = refusal == Some(Refusal::NoReceiver);
        match refusal {
            Some(Refusal::NoReceiver) if self.is_heard => {
                return Err(Failure::broken(format!("the member no longer answers; {counts}")));
            }
            Some(Refusal::NoNetwork) => {} // no news of members
            _ => self.is_heard |= !is_unheard,
        }
        if is_unheard && self.since.elapsed() >= Duration::from_secs(LOOK_S) {
            return Err(unheard(self.settings, LOOK_S));
        }
        Ok(())
    }
}

/// How far a publisher has come.
#[derive(Clone, Copy)]
struct Counts {
    /// What a message of stdin is.
    what: &'static str,
    read: u64,
    accepted: u64,
    acknowledged: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, read, accepted, acknowledged } = self;
        let s = if *read == 1 { "" } else { "s" };
        write!(
            f,
            "of {read} {what}{s} read, {accepted} were accepted here and {acknowledged} acknowledged by the group"
        )
    }
}

impl<'a> Publisher<'a> {
    /// Publishes here; `report` takes what is waited for.
    pub(crate) fn new(
        publication: Publication,
        frames: bool,
        search: Option<Search<'a>>,
        report: &'a mut dyn FnMut(String, Value),
    ) -> Self {
        let what = if frames { "frame" } else { "line" };
        Self { what, publication, search, read: 0, checked: 0, wait: Wait::default(), stalled_since: None, report }
    }

    /// Publishes all of the input. Returns how many bytes that were.
    pub(crate) fn run(
        &mut self,
        topic: &Topic,
        input: &Receiver<Result<Vec<u8>, Failure>>,
    ) -> (Result<(), Failure>, u64) {
        let (mut failed, mut bytes) = (None, 0);
        let mut read = || loop {
            match input.recv_timeout(SLEEP) {
                Ok(Ok(payload)) => {
                    self.read += 1;
                    self.publish(topic, &payload)?;
                    bytes += payload.len() as u64;
                }
                Ok(Err(failure)) => failed = Some(failure),
                Err(RecvTimeoutError::Timeout) => self.check(false)?,
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
        };
        (read().and(failed.map_or(Ok(()), Err)), bytes)
    }

    fn counts(&mut self) -> Counts {
        let (what, read, publication) = (self.what, self.read, &mut self.publication);
        Counts { what, read, accepted: publication.published(), acknowledged: publication.acknowledged() }
    }

    /// How many messages were published.
    pub(crate) fn published(&self) -> u64 {
        self.publication.published()
    }

    /// Publishes a message, and waits as long as the group takes none.
    fn publish(&mut self, topic: &Topic, payload: &[u8]) -> Result<(), Failure> {
        loop {
            match self.publication.publish(topic, payload, SLEEP) {
                Ok(_) => return Ok(()),
                Err(Refusal::TooLarge { limit_bytes }) => {
                    return Err(Failure::unusable(format!(
                        "{} {} is longer than {limit_bytes} bytes, the group's limits.max_message_bytes: split it",
                        self.what,
                        self.publication.published() + 1
                    )));
                }
                Err(refusal) if refusal.is_transient() => self.check(true)?,
                Err(refusal) => return Err(Failure::broken(refusal)),
            }
        }
    }

    /// Waits until the group has taken everything.
    fn finish(&mut self) -> Result<(), Failure> {
        while self.checked < self.publication.published() {
            let waited = self.publication.wait_acknowledged(self.publication.published(), SLEEP);
            if let Err(error @ (NotAcknowledged::Closed { .. } | NotAcknowledged::Cancelled { .. })) = waited {
                return Err(Failure::broken(error));
            }
            self.check(false)?; // a message at a time
        }
        Ok(())
    }

    /// Whether it may go on, and reports what it waits for. `has_next`: a message waits to be published.
    fn check(&mut self, has_next: bool) -> Result<(), Failure> {
        let before = self.checked;
        while self.checked < self.publication.acknowledged() {
            self.checked += 1;
            if let Err(NotAcknowledged::Dropped { number }) =
                self.publication.wait_acknowledged(self.checked, Duration::ZERO)
                && self.search.is_some()
            {
                return Err(Failure::unusable(format!(
                    "message {number} is longer than the group's max_message_bytes"
                )));
            } // a node reports that as an event
        }
        let (refusal, counts) = (self.publication.held_up_by(), self.counts());
        if let Some(search) = &mut self.search {
            search.check(refusal, counts)?;
        }
        let is_held_up = refusal.is_some() && (has_next || self.search.is_some());
        let waits = self.checked == before && (counts.accepted > self.checked || is_held_up);
        let now = Instant::now();
        if let Some(waited) = self.wait.report(now, waits) {
            let why = match (&self.search, refusal) {
                (Some(_), refusal) => why(refusal),
                (None, Some(refusal)) => refusal.to_string(),
                (None, None) => "the other members have not acknowledged what was sent".to_owned(),
            };
            let seconds = waited.as_secs_f64();
            let object = json!({ "waited_ns": waited.as_nanos() as u64, "why": why, "class": class(refusal) });
            (self.report)(format!("no message has been taken for {seconds:.1} s: {why}"), object);
        }
        self.stalled_since = waits.then(|| self.stalled_since.unwrap_or(now));
        let timeout = self.search.as_ref().and_then(|search| search.timeout);
        match (timeout, self.stalled_since) {
            (Some(timeout), Some(since)) if now - since >= timeout => Err(Failure::Late(format!(
                "gave up: no message has been taken for {} s: {}; {counts}",
                timeout.as_secs_f64(),
                why(refusal),
            ))),
            _ => Ok(()),
        }
    }
}

/// The messages of stdin, and an error at the end if reading failed.
pub(crate) fn read_stdin(frames: bool, max_message_bytes: usize) -> Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = sync_channel(READ_AHEAD);
    std::thread::spawn(move || {
        let mut messages = Messages::new(std::io::stdin().lock(), frames, max_message_bytes);
        while let Some(message) = messages.next().transpose() {
            let is_last = message.is_err();
            if sender.send(message).is_err() || is_last {
                break;
            }
        }
    });
    receiver
}
