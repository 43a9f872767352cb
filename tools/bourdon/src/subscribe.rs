//! `bourdon subscribe`: writes what is published on topics to stdout, as an observer of the group.
//!
//! An observer never blocks the group, however slowly its output is read: messages that it can no longer get are
//! reported as lost on stderr. When stdout is closed there is no reader left, which is a good end, not an error. A
//! closed pipe is an error only to a writer, so stdout is also checked while nothing comes.

mod history;

use crate::archive::options::Options;
use crate::event;
use crate::exit::{Failure, is_stdout_closed, note};
use crate::node::signals;
use crate::place::{Place, Where, unheard, write_message};
use crate::send::received;
use crate::wait;
use bourdon::event::Ranks;
use bourdon::id::TopicId;
use bourdon::settings::{Flow, FlowSettings, Role, Transport};
use bourdon::topics::{Filter, Pattern, Verdict};
use bourdon::{Delivery, Discovery, Event, InlineNode, Message, Settings, discover};
use bourdon_archive::Recorder;
use history::{History, HistoryOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use std::collections::HashSet;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long to look for a member; members send heartbeats at least every 100 ms.
const LOOK_S: u64 = 5;
/// The longest sleep: how late a closed stdout or a signal is noticed.
const SLEEP: Duration = Duration::from_millis(100);

/// The most warnings about topics that were skipped: more than a user reads.
const DOUBTS_MAX: usize = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Topics: a name, or a pattern in which `*` stands for a part and `**` at the end for all the rest, as in
    /// 'md.*.trades'
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<Pattern>,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Write each message as a JSON object a line, with its topic, sender and sequence, and between them, as
    /// objects with the key event, what was lost or is waited for
    #[arg(long, conflicts_with = "frames")]
    json: bool,
    #[command(flatten)]
    archive: Options,
    #[command(flatten)]
    history: HistoryOptions,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let (mut settings, are_the_members) = args.place.at.settings()?;
    let recorder = args.archive.open(&settings.group.name)?;
    settings.process.role = Role::Observer;
    if !are_the_members {
        learn(&mut settings, &args.place.at)?;
    }
    let history = History::open(&args.history, &settings)?;
    if args.archive.is_given() || history.is_some() {
        // A disk holds no publisher back, nor does a reader that has an archive to return to.
        settings.flow.mode = Flow::Free;
        settings.flow.gating_timeout_ns = FlowSettings::default().gating_timeout_ns;
        settings.flow.rate_floor_bytes_per_s = None;
    }
    let signals = signals().map_err(Failure::unusable)?;
    let mut node = InlineNode::join(&settings).map_err(|why| args.place.at.unusable(why))?;
    if let Some(why) = node.fallback() {
        note(why);
    }
    let mut subscription = Subscription {
        filter: Filter::new(&args.patterns, &settings.group.topics),
        doubts: Doubts::default(),
        beginning: Beginning::default(),
        output: Output { out: BufWriter::new(std::io::stdout().lock()), args: &args, written: 0, failed: None },
        recorder,
        history,
        failure: None,
    };
    while !subscription.output.is_complete() && !is_over(&signals) {
        let mut events = Vec::new();
        let polled = node.poll(usize::MAX, |delivery| match delivery {
            Delivery::Event(event) => {
                subscription.take_event(event);
                events.push(event);
            }
            Delivery::Message(message) => subscription.take(&message),
            _ => {} // an observer without more subscriptions gets no other
        });
        let work_count = polled.map_err(Failure::of_node)? + subscription.advance()?;
        report(&node, &settings, events)?;
        while let Some(message) = node.poll_direct() {
            note(received(&message));
        }
        let sleep = subscription.recorder.as_mut().map_or(Ok(SLEEP), Recorder::sync).map_err(Failure::of_archive)?;
        if work_count == 0 {
            subscription.output.flush();
            node.wait(sleep.min(subscription.longest_sleep())).map_err(Failure::broken)?;
        }
    }
    subscription.close()
}

/// Writes what is subscribed to, records it, and keeps its place between an archive and the group.
struct Subscription<'a> {
    filter: Filter,
    doubts: Doubts,
    beginning: Beginning,
    output: Output<'a>,
    recorder: Option<Recorder>,
    history: Option<History>,
    /// What ends it.
    failure: Option<Failure>,
}

impl Subscription<'_> {
    fn take_event(&mut self, event: Event) {
        self.beginning.note_event(&event);
        self.output.write_event(event);
        if let Some(recorder) = &mut self.recorder {
            self.failure = recorder.record_event(&event).map_err(Failure::of_archive).err().or(self.failure.take());
        }
        if let Some(history) = &mut self.history {
            history.note_event(&event);
        }
    }

    fn take(&mut self, message: &Message<'_>) {
        if self.output.is_complete() || self.failure.is_some() {
            return;
        }
        if self.history.is_none() && self.beginning.is_late(message) {
            self.output.write_beginning(message);
        }
        let (verdict, name) = (self.filter.judge(message), self.filter.name(message));
        if let Some(history) = &mut self.history {
            match history.take(message, name, verdict == Verdict::Wanted) {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => return self.failure = Some(why),
            }
        }
        match verdict {
            Verdict::Wanted => {
                if let Some(recorder) = &mut self.recorder {
                    let has_begun = recorder.recovery().is_some();
                    if let Err(error) = recorder.record(message, name) {
                        return self.failure = Some(Failure::of_archive(error));
                    }
                    if !has_begun {
                        self.output.args.archive.report(recorder);
                    }
                }
                self.output.write(message, name);
            }
            Verdict::Unwanted => {}
            doubtful => self.doubts.warn(doubtful, message),
        }
    }

    /// Takes up what the archive has. Returns how much it did.
    fn advance(&mut self) -> Result<usize, Failure> {
        if let Some(why) = self.failure.take() {
            return Err(why);
        }
        let Some(history) = self.history.as_mut().filter(|_| !self.output.is_complete()) else { return Ok(0) };
        let (output, filter) = (&mut self.output, &self.filter);
        let count = history.advance(&mut |message| {
            if filter.judge(message) == Verdict::Wanted {
                output.write(message, filter.name(message));
            }
            !output.is_complete()
        })?;
        if history.is_due() {
            output.flush();
            history.save()?;
        }
        Ok(count)
    }

    fn longest_sleep(&self) -> Duration {
        self.history.as_ref().map_or(SLEEP, |history| history.longest_sleep(SLEEP))
    }

    fn close(mut self) -> Result<(), Failure> {
        self.output.flush();
        self.recorder.map_or(Ok(()), Recorder::close).map_err(Failure::of_archive)?;
        match self.output.failed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::broken(format!("writing: {error}"))),
            Some(_) => Ok(()),
            None => self.history.as_mut().map_or(Ok(()), History::save),
        }
    }
}

/// Learns from the members the settings that only their configuration holds.
fn learn(settings: &mut Settings, at: &Where) -> Result<(), Failure> {
    let mut found = discover(settings, wait::FIRST).map_err(|why| at.unusable(why))?;
    if found == Discovery::Silence {
        let (name, seconds) = (&settings.group.name, wait::FIRST.as_secs_f64());
        note(format!("no member of group {name:?} was heard for {seconds} s: it listens for up to {LOOK_S} s"));
        let rest = Duration::from_secs(LOOK_S) - wait::FIRST;
        found = discover(settings, rest).map_err(|why| at.unusable(why))?;
    }
    match found {
        Discovery::Found => Ok(()),
        Discovery::Silence => Err(unheard(settings, LOOK_S)),
        _ => Err(Failure::unusable(
            "the group's configuration is of another release, or does not fit the defaults: give it with --config",
        )),
    }
}

/// Reports what happened. A process that is configured otherwise ends no subscriber: a majority of the group does.
fn report(node: &InlineNode, settings: &Settings, events: Vec<Event>) -> Result<(), Failure> {
    for event in events {
        match event {
            Event::Outvoted(..) => return Err(Failure::unusable(event)),
            Event::View { members, .. } => {
                let (group, io, count) = (&settings.group, node.io(), members.len());
                let place = match settings.network.transport {
                    Transport::Tcp => "over tcp".to_owned(),
                    Transport::Shm => format!("on {} by shared memory", group.address),
                    _ => format!("on {}", group.address),
                };
                note(format!("observing {count} members of {:?} {place} by {io}: {event}", group.name));
            }
            _ => note(event::text(event, 0)),
        }
    }
    Ok(())
}

/// Whether a signal came, or stdout has no reader any more.
fn is_over(signals: &UnixStream) -> bool {
    let mut fds = [PollFd::new(signals, PollFlags::IN)];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    is_stdout_closed() || polled.is_ok() && !fds[0].revents().is_empty()
}

/// Warns the subscriber about messages that were skipped, once for each topic.
#[derive(Default)]
struct Doubts(HashSet<(TopicId, Option<String>)>);

impl Doubts {
    fn warn(&mut self, verdict: Verdict, message: &Message<'_>) {
        let doubt = (message.topic, message.name.map(str::to_owned));
        if self.0.len() >= DOUBTS_MAX || !self.0.insert(doubt) {
            return;
        }
        let topic = message.topic;
        match (verdict, message.name) {
            (Verdict::Nameless, _) => note(format!(
                "warning: messages of topic {topic} carry no name, so no pattern can tell whether they are \
                     meant: publish them by name, or list it in group.topics"
            )),
            (_, Some(name)) => note(format!(
                "warning: topic {name:?} has the id of a topic that is subscribed to ({topic}): messages \
                     that carry no name can't be distinguished"
            )),
            _ => {}
        }
    }
}

/// Where this observer began. What was published before is no loss, so no event reports it; the first message of each
/// member shows how many there were.
#[derive(Default)]
struct Beginning {
    has_view: bool,
    /// The members of its first view of which no message has come yet.
    awaited: Ranks,
}

impl Beginning {
    fn note_event(&mut self, event: &Event) {
        match event {
            Event::View { members, .. } if !self.has_view => (self.has_view, self.awaited) = (true, *members),
            Event::View { left, failed, .. } => self.awaited.0 &= !(left.0 | failed.0),
            Event::NewInstance { .. } => self.has_view = false,
            _ => {}
        }
    }

    /// Whether it is the first message of its sender here, and not the first that it published.
    fn is_late(&mut self, message: &Message<'_>) -> bool {
        if !self.awaited.contains(message.sender) || message.barrier.is_some() {
            return false;
        }
        self.awaited.0 &= !(1 << message.sender.0);
        message.sequence.0 > 0
    }
}

struct Output<'a> {
    out: BufWriter<std::io::StdoutLock<'a>>,
    args: &'a Args,
    written: u64,
    failed: Option<std::io::Error>,
}

impl Output<'_> {
    fn is_complete(&self) -> bool {
        self.failed.is_some() || self.args.count.is_some_and(|count| self.written >= count)
    }

    fn write(&mut self, message: &Message<'_>, topic: Option<&str>) {
        if self.is_complete() {
            return;
        }
        let written = if self.args.json {
            writeln!(self.out, "{}", self.row(message, topic))
        } else {
            write_message(&mut self.out, self.args.place.frames, message.payload)
        };
        self.written += 1;
        self.failed = written.err();
    }

    fn write_event(&mut self, event: Event) {
        let matters = event::is_warning(&event) || matches!(event, Event::NewInstance { .. });
        if self.args.json && matters && !self.is_complete() {
            let mut object = event::object(event, 0);
            object["group"] = self.args.place.at.group.as_str().into();
            self.failed = writeln!(self.out, "{object}").err();
        }
    }

    /// People and programs learn what they did not get from the start.
    fn write_beginning(&mut self, message: &Message<'_>) {
        let (sender, sequence) = (message.sender, message.sequence);
        let text = format!(
            "begins with message {sequence} of member {sender}: those before were published before this observer \
                 followed the group, or are no longer retained"
        );
        if self.args.json && !self.is_complete() {
            let (group, sender, sequence) = (self.args.place.at.group.as_str(), sender.0, sequence.0);
            let object = json!({
                "event": "begins", "group": group, "sender": sender, "sequence": sequence, "text": text,
            });
            self.failed = writeln!(self.out, "{object}").err();
        }
        note(text);
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
    }

    fn row(&self, message: &Message<'_>, topic: Option<&str>) -> serde_json::Value {
        let text = std::str::from_utf8(message.payload).ok();
        let hex = || message.payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        json!({
            "group": self.args.place.at.group,
            "topic": topic,
            "sender": message.sender.0,
            "sequence": message.sequence.0,
            "order": message.order.map(|order| order.0),
            "epoch": message.epoch.0,
            "send_time_ns": message.send_time_ns,
            "kernel_receive_ns": message.kernel_receive_ns,
            "payload": text,
            "payload_hex": text.is_none().then(hex),
        })
    }
}
