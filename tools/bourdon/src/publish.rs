//! `bourdon publish`: sends lines or frames of stdin to a group as a client of one of its members. Each message carries
//! its topic's name, so that subscribers can choose by patterns.
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
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Messages read ahead: enough for the client's window, few enough to notice a stop soon.
const READ_AHEAD: usize = 256;
/// How long to look for a member; members send heartbeats at least every 100 ms.
const LOOK_S: u64 = 5;
/// The longest sleep, so that a member's silence is noticed.
const SLEEP: Duration = Duration::from_millis(100);
/// No datagram is longer; what a client can publish is checked when a message is published.
const MESSAGE_MAX_BYTES: usize = 1 << 16;

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
    let mut publisher = Publisher {
        settings: &settings,
        what: if args.place.frames { "frame" } else { "line" },
        publication,
        since: Instant::now(),
        checked: 0,
        is_heard: false,
        wait: Wait::default(),
        timeout: args.timeout,
        stalled_since: None,
        waits: Vec::new(),
    };
    let (outcome, bytes) = publisher.run(&topic, &read_stdin(&args));
    if args.json {
        let (group, topic, messages) = (&args.place.at.group, args.topic.as_str(), publisher.publication.published());
        let report = json!({
            "group": group, "topic": topic, "messages": messages, "bytes": bytes, "io": node.info().io,
            "acknowledged": publisher.publication.acknowledged(), "waits": publisher.waits,
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

/// The publication, and what is known of the group's members.
struct Publisher<'a> {
    settings: &'a Settings,
    /// What a message of stdin is.
    what: &'static str,
    publication: Publication,
    /// When it began to look for a member.
    since: Instant,
    /// All messages up to this number are known to be taken.
    checked: u64,
    /// A member was heard.
    is_heard: bool,
    wait: Wait,
    /// For how long the group may take no message.
    timeout: Option<Duration>,
    stalled_since: Option<Instant>,
    /// What was waited for, as it was reported.
    waits: Vec<Value>,
}

impl Publisher<'_> {
    /// Publishes all of the input. Returns how many bytes that were.
    fn run(&mut self, topic: &Topic, input: &Receiver<Result<Vec<u8>, Failure>>) -> (Result<(), Failure>, u64) {
        let (mut failed, mut bytes) = (None, 0);
        let mut read = || loop {
            match input.recv_timeout(SLEEP) {
                Ok(Ok(payload)) => {
                    self.publish(topic, &payload)?;
                    bytes += payload.len() as u64;
                }
                Ok(Err(failure)) => failed = Some(failure),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
        };
        (read().and(failed.map_or(Ok(()), Err)), bytes)
    }

    /// Publishes a message, and waits as long as no member takes it.
    fn publish(&mut self, topic: &Topic, payload: &[u8]) -> Result<(), Failure> {
        loop {
            match self.publication.publish(topic, payload, SLEEP) {
                Ok(_) => return Ok(()),
                Err(Refusal::TooLarge { limit_bytes }) => {
                    return Err(Failure::unusable(format!(
                        "{} {} is longer than {limit_bytes} bytes, the most a client can publish: split it, or \
                             publish from a member",
                        self.what,
                        self.publication.published() + 1
                    )));
                }
                Err(refusal) if refusal.is_transient() => self.check()?,
                Err(refusal) => return Err(Failure::broken(refusal)),
            }
        }
    }

    /// Waits until the group has taken everything.
    fn finish(&mut self) -> Result<(), Failure> {
        while self.checked < self.publication.published() {
            // What it returns is looked at below, a message at a time.
            let _ = self.publication.wait_acknowledged(self.publication.published(), SLEEP);
            self.check()?;
        }
        Ok(())
    }

    /// Whether it may go on, and reports what it waits for.
    fn check(&mut self) -> Result<(), Failure> {
        let before = self.checked;
        while self.checked < self.publication.acknowledged() {
            self.checked += 1;
            if let Err(NotAcknowledged::Dropped { number }) =
                self.publication.wait_acknowledged(self.checked, Duration::ZERO)
            {
                return Err(Failure::unusable(format!(
                    "message {number} is longer than the group's max_message_bytes"
                )));
            }
        }
        let (refusal, published) = (self.publication.held_up_by(), self.publication.published());
        let is_unheard = refusal == Some(Refusal::NoReceiver);
        let gone = |what: &str| Failure::broken(format!("{what}; of {published} messages sent, not all were taken"));
        match refusal {
            Some(Refusal::NoReceiver) if self.is_heard => return Err(gone("the member no longer answers")),
            Some(Refusal::NoNetwork) => {} // no news of members
            _ => self.is_heard |= !is_unheard,
        }
        if is_unheard && self.since.elapsed() >= Duration::from_secs(LOOK_S) {
            return Err(unheard(self.settings, LOOK_S));
        }
        let waits = self.checked == before && (published > self.checked || refusal.is_some());
        let now = Instant::now();
        if let Some(waited) = self.wait.report(now, waits) {
            let (seconds, why) = (waited.as_secs_f64(), why(refusal));
            note(format!("no message has been taken for {seconds:.1} s: {why}"));
            self.waits.push(json!({ "waited_ns": waited.as_nanos() as u64, "why": why, "class": class(refusal) }));
        }
        self.stalled_since = waits.then(|| self.stalled_since.unwrap_or(now));
        match (self.timeout, self.stalled_since) {
            (Some(timeout), Some(since)) if now - since >= timeout => Err(Failure::Late(format!(
                "gave up: no message has been taken for {} s: {}; of {published} messages sent, {} were taken",
                timeout.as_secs_f64(),
                why(refusal),
                self.publication.acknowledged()
            ))),
            _ => Ok(()),
        }
    }
}

/// The messages of stdin, and an error at the end if reading failed.
fn read_stdin(args: &Args) -> Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = sync_channel(READ_AHEAD);
    let frames = args.place.frames;
    std::thread::spawn(move || {
        let mut messages = Messages::new(std::io::stdin().lock(), frames, MESSAGE_MAX_BYTES);
        while let Some(message) = messages.next().transpose() {
            let is_last = message.is_err();
            if sender.send(message).is_err() || is_last {
                break;
            }
        }
    });
    receiver
}
