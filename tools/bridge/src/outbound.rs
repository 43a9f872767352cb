//! From a group into a stream.
//!
//! **Problem.** A bridge that was killed, or lost an acknowledgement, does not know which of its messages the stream
//! has. A server drops what it has seen before only within a window of time, and a bridge may be away for longer.
//!
//! **Rule.** The messages of the group have one order, and so has the stream: the message at the stream's end has the
//! place of the last that was carried in its headers (`headers`). A session reads it, begins behind its place
//! (`source`), and publishes each message with the sequence that the stream's last message must have. So the server
//! takes each message at one sequence only, and a copy that comes late is refused there. Whatever goes wrong, the
//! session ends, and the next one reads the stream's end again.
//!
//! A second bridge is refused at its start, because the first answers on a subject of its own. Should both publish,
//! each message still goes into the stream once; the one that finds the other's message at the stream's end is over.

mod source;

use crate::failure::{Failure, note};
use crate::group;
use crate::headers::{BRIDGE, PUBLISHER, Place, TIME, TOPIC};
use crate::nats::{self, Nats, UNDER_WAY_MAX, takes};
use crate::wait::{Run, TICK};
use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bourdon::Settings;
use bourdon::topics::Pattern;
use futures_util::StreamExt;
use serde_json::json;
use source::{Item, Row, Source};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

/// How long another bridge has to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: group::Place,
    /// Topics: a name, or a pattern as of `bourdon subscribe`
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<Pattern>,
    #[command(flatten)]
    nats: nats::Place,
    /// The archive that is recorded on this host, of these topics at least: what was published while no bridge ran
    #[arg(long, value_name = "DIR")]
    history: PathBuf,
    /// The stream's messages are of an earlier instance of the group: begin with the archive's oldest message
    #[arg(long)]
    new_instance: bool,
    /// Print one JSON object at the end: what was carried, and what was waited for
    #[arg(long)]
    json: bool,
}

/// What was carried, over all sessions.
#[derive(Default)]
struct Counts {
    sessions: u64,
    /// Messages that the server acknowledged.
    acknowledged: u64,
    /// Messages that the stream had although no acknowledgement came.
    unacknowledged: u64,
    missing: u64,
    /// Messages in the stream that became void in the group.
    void: u64,
    /// Why the archive does not have what comes next, until it comes.
    no_recorder: Option<String>,
    /// The run that had published the stream's last message when this one began.
    predecessor: String,
    /// The last message that this run has found or published in the stream.
    last: Option<Place>,
    sequence: u64,
}

pub(crate) fn run(args: &Args, run: &Run) -> Result<(), Failure> {
    let settings = args.place.observer()?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::broken)?;
    let mut counts = Counts::default();
    let nats = runtime.block_on(Nats::open(&args.nats, run))?;
    let id = nats.client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned();
    let prefix = args.nats.prefix(&args.place.at.group);
    let bridge = Bridge { args, run, settings, nats: &nats, id, prefix };
    let outcome = runtime.block_on(bridge.carry(&mut counts));
    run.goes_on();
    if args.json {
        let last = counts.last.map(|last| {
            json!({
                "instance": format!("{:016x}", last.instance), "epoch": last.epoch, "order": last.order,
            })
        });
        let object = json!({
            "group": args.place.at.group, "stream": args.nats.stream, "acknowledged": counts.acknowledged,
            "unacknowledged": counts.unacknowledged, "missing": counts.missing, "void": counts.void,
            "sessions": counts.sessions, "connections": nats.connections(), "last": last,
            "sequence": counts.sequence, "waits": run.object(),
        });
        println!("{object}");
    }
    outcome
}

type Ack = Pin<Box<dyn Future<Output = Result<async_nats::jetstream::publish::PublishAck, PublishError>> + Send>>;

/// What all sessions share.
struct Bridge<'a> {
    args: &'a Args,
    run: &'a Run,
    settings: Settings,
    nats: &'a Nats,
    /// Of this run.
    id: String,
    prefix: String,
}

impl Bridge<'_> {
    async fn carry(&self, counts: &mut Counts) -> Result<(), Failure> {
        if !self.begin().await? {
            return Ok(());
        }
        while !self.run.is_over() {
            counts.sessions += 1;
            let Some(after) = self.look(counts).await? else { break };
            let source = Source::start(self.settings.clone(), &self.args.patterns, self.args.history.clone(), after)?;
            let (sequence, connections) = (counts.sequence, self.nats.connections());
            let mut session =
                Session { bridge: self, source, counts, sequence, connections, under_way: VecDeque::new() };
            if let Err(Stop::Failure(failure)) = session.publish_all().await {
                return Err(failure);
            }
            if !self.run.is_over() {
                self.nats.pause().await;
            }
        }
        Ok(())
    }

    /// Refuses to begin beside another bridge. False after a signal.
    async fn begin(&self) -> Result<bool, Failure> {
        let Some((_, info)) = self.nats.stream().await? else { return Ok(false) };
        if !info.config.subjects.iter().any(|subject| takes(subject, &self.prefix)) {
            return Err(Failure::unusable(format!(
                "stream {:?} takes the subjects {}, and messages would have {:?}: add it to the stream's subjects, or \
                     give another --subject-prefix",
                self.args.nats.stream,
                info.config.subjects.join(", "),
                format!("{}.>", self.prefix)
            )));
        }
        let (client, subject) = (&self.nats.client, format!("_BOURDON.bridge.{}", self.args.nats.stream));
        let asked = tokio::time::timeout(ANSWERS_WITHIN, client.request(subject.clone(), "".into())).await;
        if let Ok(Ok(answer)) = asked {
            return Err(Failure::unusable(format!(
                "another bridge ({}) publishes into stream {:?}: end that one first, or give each its own stream",
                String::from_utf8_lossy(&answer.payload),
                self.args.nats.stream
            )));
        }
        let mut questions = client.subscribe(subject).await.map_err(Failure::broken)?;
        let (client, answer) = (client.clone(), format!("run {}, process {}", self.id, std::process::id()));
        tokio::spawn(async move {
            while let Some(question) = questions.next().await {
                if let Some(reply) = question.reply {
                    let _ = client.publish(reply, answer.clone().into()).await; // the other finds the stream's end
                }
            }
        });
        Ok(true)
    }

    /// Reads at the stream's end how far it has come. None after a signal; no place if the stream is new.
    async fn look(&self, counts: &mut Counts) -> Result<Option<Option<Place>>, Failure> {
        let Some((stream, info)) = self.nats.stream().await? else { return Ok(None) };
        let (name, last) = (&self.args.nats.stream, info.state.last_sequence);
        let place = if last == 0 {
            None
        } else {
            let Some(message) = self.nats.message(&stream, last).await? else { return Ok(None) };
            let message = message.ok_or_else(|| {
                Failure::unusable(format!(
                    "stream {name:?} has no message {last}, its last: it was removed, and its headers show how far a \
                         bridge has come; carry into a new stream"
                ))
            })?;
            let place = Place::of(&message.headers).ok_or_else(|| {
                Failure::unusable(format!(
                    "message {last} of stream {name:?}, subject {:?}, is no bridge's: nothing else may publish in it; \
                         give the bridge a stream of its own",
                    message.subject
                ))
            })?;
            let author = message.headers.get(BRIDGE).map_or("", |id| id.as_str());
            if counts.sessions == 1 {
                author.clone_into(&mut counts.predecessor);
            }
            // The server may take late what a bridge had under way when it was killed.
            let is_known = author == self.id || author == counts.predecessor;
            if last > counts.sequence && !is_known {
                return Err(Failure::unusable(format!(
                    "another bridge (run {author}) publishes into stream {name:?}, and has taken over: end one of them"
                )));
            }
            Some(place)
        };
        if counts.sessions > 1 {
            counts.unacknowledged += last.saturating_sub(counts.sequence);
        }
        (counts.sequence, counts.last) = (last, place);
        let text = place.map_or("with the archive's oldest message".to_owned(), |place| format!("behind {place}"));
        note(format!("stream {name:?} has {last} messages: goes on {text}"));
        if counts.no_recorder.is_none() {
            self.run.goes_on();
        }
        Ok(Some(self.in_this_instance(place)?))
    }

    /// The archive of the group's later instance has nothing of the earlier one.
    fn in_this_instance(&self, place: Option<Place>) -> Result<Option<Place>, Failure> {
        let Some(place) = place else { return Ok(None) };
        match bourdon_archive::Archive::open(&self.args.history) {
            Ok(archive) if archive.instance() != place.instance => {
                if self.args.new_instance {
                    return Ok(None);
                }
                Err(Failure::unusable(format!(
                    "stream {:?} ends with instance {:016x} of the group, and {} holds instance {:016x}: if the group \
                         has formed again since, give --new-instance once",
                    self.args.nats.stream,
                    place.instance,
                    self.args.history.display(),
                    archive.instance()
                )))
            }
            _ => Ok(Some(place)), // the source reports what is wrong with it
        }
    }
}

/// Why a session ends.
enum Stop {
    /// The next one looks at the stream's end.
    Again,
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

struct Session<'a> {
    bridge: &'a Bridge<'a>,
    source: Source,
    counts: &'a mut Counts,
    /// The stream sequence of the last message that was sent.
    sequence: u64,
    /// How often it had connected when the session began.
    connections: u64,
    /// What was sent and is not acknowledged, in its order.
    under_way: VecDeque<(Place, Ack)>,
}

impl Session<'_> {
    /// Publishes what comes, until a signal.
    async fn publish_all(&mut self) -> Result<(), Stop> {
        while !self.bridge.run.is_over() {
            let has_room = self.under_way.len() < UNDER_WAY_MAX;
            if has_room && let Some(item) = self.source.try_next()? {
                self.take(item).await?;
                continue;
            }
            let front = self.under_way.front_mut();
            tokio::select! {
                acknowledged = async { front.expect("there is one").1.as_mut().await }, if front.is_some() => {
                    self.acknowledged(acknowledged)?;
                }
                item = self.source.next(), if has_room => {
                    let item = item?;
                    self.take(item).await?;
                }
                () = tokio::time::sleep(TICK) => {
                    self.wait()?;
                }
            }
        }
        while let Some((_, ack)) = self.under_way.front_mut() {
            let acknowledged = ack.as_mut().await;
            self.acknowledged(acknowledged)?;
        }
        Ok(())
    }

    /// Nothing has come.
    fn wait(&self) -> Result<(), Stop> {
        let nats = self.bridge.nats;
        if self.under_way.is_empty() {
            match &self.counts.no_recorder {
                Some(why) => self.bridge.run.waits("archive", why),
                None => self.bridge.run.goes_on(),
            }
        } else if nats.is_connected() && nats.connections() != self.connections {
            note("acknowledgements were lost with the connection: reads the end of the stream");
            return Err(Stop::Again);
        } else {
            nats.waits("the server has not acknowledged what was sent");
        }
        Ok(())
    }

    async fn take(&mut self, item: Item) -> Result<(), Stop> {
        match item {
            Item::Message(row) => {
                self.counts.no_recorder = None;
                self.publish(row).await?;
            }
            Item::Missing(count) => self.counts.missing += count,
            Item::Void(count) => self.counts.void += count,
            Item::NoRecorder(why) => {
                self.counts.no_recorder = Some(why);
                return Err(Stop::Again);
            }
        }
        Ok(())
    }

    async fn publish(&mut self, row: Row) -> Result<(), Stop> {
        let (rank, incarnation, sequence) = row.publisher;
        let mut headers = HeaderMap::new();
        row.place.write(&mut headers);
        headers.insert(PUBLISHER, format!("{rank}.{incarnation}.{sequence}"));
        headers.insert(TOPIC, row.topic.as_str());
        headers.insert(TIME, row.send_time_ns.to_string());
        headers.insert(BRIDGE, self.bridge.id.as_str());
        let subject = format!("{}.{}", self.bridge.prefix, row.topic);
        let message = PublishMessage::build().payload(row.payload).headers(headers);
        let message = message.expected_last_sequence(self.sequence).expected_stream(&self.bridge.args.nats.stream);
        match self.bridge.nats.context.send_publish(subject, message).await {
            Ok(ack) => {
                self.sequence += 1;
                self.under_way.push_back((row.place, IntoFuture::into_future(ack)));
                Ok(())
            }
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Err(Stop::Failure(
                Failure::unusable(format!("the message at {}: {error}: raise the server's max_payload", row.place)),
            )),
            Err(error) => Err(self.again(&error)),
        }
    }

    /// The first message under way has an answer.
    fn acknowledged(
        &mut self,
        ack: Result<async_nats::jetstream::publish::PublishAck, PublishError>,
    ) -> Result<(), Stop> {
        let Some((place, _)) = self.under_way.pop_front() else { return Ok(()) };
        let ack = ack.map_err(|error| self.again(&error))?;
        if ack.sequence != self.counts.sequence + 1 {
            return Err(Stop::Again);
        }
        (self.counts.sequence, self.counts.last) = (ack.sequence, Some(place));
        self.counts.acknowledged += 1;
        let counts = &self.counts;
        self.bridge.run.goes_on();
        self.bridge.run.progress(counts.acknowledged, || format!("up to {place}"));
        Ok(())
    }

    /// Something went wrong; whether the stream has the message is to be read.
    fn again(&self, error: &PublishError) -> Stop {
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
        note(format!("message {}: {why}; reads the end of the stream", self.counts.sequence + 1));
        Stop::Again
    }
}
