//! From a stream into a group.
//!
//! **Problem.** The bridge is killed, or removed from the view, with messages under way: were they delivered? If it
//! publishes them again, a subscriber may get them twice, else not at all.
//!
//! **Rule.** The bridge is a member of the group, so the end of its view settles what of its messages is delivered. It
//! works in sessions. Each joins, acquires the lock `bridge.STREAM`, publishes a beginning, waits until the archive on
//! this host has it, and reads there how far the stream has been carried (`position`). Then it publishes the stream's
//! messages from there on, and now and then a position. A session ends once its lock is lost or a message was dropped;
//! the next one learns again. Nothing else decides what is carried next.
//!
//! The lock keeps a second bridge away. It is given to another member only after a view without its holder, so the
//! messages of the holder stand before the next bridge's beginning.

mod feed;
mod learn;

use crate::failure::{Failure, note};
use crate::group::Configured;
use crate::nats::{Nats, Place};
use crate::position::Position;
use crate::wait::{Run, TICK};
use async_nats::jetstream::stream::Info;
use bourdon::error::{LockError, NotAcknowledged};
use bourdon::{
    Delivery, Event, Guard, LockRequest, Node, Publication, Refusal, Settings, Subscribe, Subscription, Topic,
};
use feed::{Fed, Feed};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A position stands at least once in so many messages, so soon after a message, and so often while there is none: an
/// archive is read back to it at most, and what is old is removed from archives.
const POSITION_EVERY: u64 = 1_024;
const POSITION_AFTER: Duration = Duration::from_secs(1);
const POSITION_AGAIN: Duration = Duration::from_secs(60);
/// How long another process may hold the lock: longer than a group takes to remove a member that was killed.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// A bridge that did not run for so long may have been removed: shorter than a group takes for that.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long the last messages have, at the end, until the group has them.
const CLOSE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    group: Configured,
    #[command(flatten)]
    nats: Place,
    /// The archive of all topics ('**') that is recorded on this host: it shows what the group has already
    #[arg(long, value_name = "DIR", required_unless_present = "from_sequence")]
    history: Option<PathBuf>,
    /// Begin with this message of the stream where the archive can't show what the group has
    #[arg(long, value_name = "N")]
    from_sequence: Option<u64>,
    /// Publish everything on this topic, instead of the subject without its prefix
    #[arg(long, value_name = "TOPIC")]
    topic: Option<bourdon::id::TopicName>,
    /// Print one JSON object at the end: what was carried, and what was waited for
    #[arg(long)]
    json: bool,
}

/// How a session ended.
enum End {
    /// A signal came.
    Signal,
    /// It must learn again what the group has.
    Lost(String),
}

/// What was carried, over all sessions.
#[derive(Default)]
struct Counts {
    sessions: u64,
    /// Messages that the group has accepted; what it dropped when a session ended was published again.
    published: u64,
    positions: u64,
    /// Where the first session began.
    first: Option<u64>,
    /// The stream sequence that comes next.
    next: u64,
}

pub(crate) fn run(args: &Args, run: &Run) -> Result<(), Failure> {
    let settings = args.group.member()?;
    Topic::<[u8]>::new(&Position::topic(&args.nats.stream))
        .map_err(|why| Failure::unusable(format!("stream {:?} can't name a topic: {why}", args.nats.stream)))?;
    args.history.as_deref().map_or(Ok(0), learn::last_segment)?; // a wrong directory is refused before it joins
    let runtime = Runtime::new().map_err(Failure::broken)?;
    let nats = runtime.block_on(Nats::open(&args.nats, run))?;
    let bridge = Bridge { args, run, settings: &settings, runtime: &runtime, nats: &nats };
    let mut counts = Counts::default();
    let outcome = loop {
        match bridge.session(&mut counts) {
            Ok(End::Signal) => break Ok(()),
            Ok(End::Lost(why)) => note(format!("{why}: joins again, and learns what the group has")),
            Err(failure) => break Err(failure),
        }
    };
    run.goes_on();
    if args.json {
        let object = json!({
            "group": args.group.group, "stream": args.nats.stream, "published": counts.published,
            "from_sequence": counts.first, "next_sequence": counts.next, "positions": counts.positions,
            "sessions": counts.sessions, "connections": nats.connections(), "waits": run.object(),
        });
        println!("{object}");
    }
    outcome
}

/// What all sessions share.
struct Bridge<'a> {
    args: &'a Args,
    run: &'a Run,
    settings: &'a Settings,
    runtime: &'a Runtime,
    nats: &'a Nats,
}

impl Bridge<'_> {
    /// Joins, learns what the group has, and carries what comes.
    fn session(&self, counts: &mut Counts) -> Result<End, Failure> {
        counts.sessions += 1;
        let node = Node::open(self.settings).map_err(Failure::unusable)?;
        let events = node.subscribe(Subscribe::none().events().overrun(bourdon::Overrun::Skip));
        let events = events.map_err(Failure::unusable)?;
        let publication = node.publication().map_err(Failure::unusable)?;
        node.join().map_err(Failure::broken)?;
        let group = &self.settings.group.name;
        note(format!("member {} of {group:?}: joins", self.settings.process.rank));
        let mut member = Member { node, events, publication, lost: None, looked_at: None };
        let Some(guard) = self.lock(&mut member)? else { return Ok(End::Signal) };
        let Some((stream, info)) = self.runtime.block_on(self.nats.stream())? else { return Ok(End::Signal) };
        let Some(next) = self.learn(&mut member, &guard, &info)? else {
            return Ok(member.lost.map_or(End::Signal, End::Lost));
        };
        counts.first.get_or_insert(next);
        counts.next = next;
        note(format!("carries stream {:?} into {group:?} from sequence {next} on", self.args.nats.stream));
        let feed = Feed::start(self.runtime, self.nats, stream, next);
        let carrier = Carrier {
            bridge: self,
            position: self.position(&guard, &info),
            guard,
            feed,
            topic: None,
            counts,
            placed_at: None,
            unplaced: 0,
        };
        carrier.carry(member)
    }

    /// Acquires the stream's lock. None after a signal.
    fn lock(&self, member: &mut Member) -> Result<Option<Guard>, Failure> {
        let name = Position::topic(&self.args.nats.stream);
        let mut request: LockRequest = member.node.request_lock(&name).map_err(Failure::unusable)?;
        let mut taken_since = None;
        while !self.run.is_over() {
            match request.wait(TICK) {
                Ok(Some(guard)) => {
                    self.run.goes_on();
                    return Ok(Some(guard));
                }
                Ok(None) => {}
                Err(error @ LockError::Refused(_)) => return Err(Failure::unusable(format!("lock {name:?}: {error}"))),
                Err(error) => return Err(Failure::broken(format!("lock {name:?}: {error}"))),
            }
            member.look(&self.settings.group.name)?;
            if request.ahead().is_some_and(|ahead| ahead > 0) {
                if taken_since.get_or_insert_with(Instant::now).elapsed() > LOCK_WAIT {
                    return Err(Failure::unusable(format!(
                        "another bridge carries stream {:?} into this group (it holds lock {name:?}): end it first",
                        self.args.nats.stream
                    )));
                }
                self.run.waits("lock", format!("another bridge, or one that was killed, holds lock {name:?}"));
            } else {
                taken_since = None;
                let why = member.publication.held_up_by().map_or("for its view".to_owned(), |why| why.to_string());
                self.run.waits("group", format!("to be a member of the group: {why}"));
            }
        }
        Ok(None)
    }

    /// The topic for a subject.
    fn topic(&self, subject: &str) -> Result<Topic, String> {
        let prefix = self.args.nats.prefix(&self.args.group.group);
        let name = match &self.args.topic {
            Some(topic) => topic.as_str(),
            None => subject.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('.')).ok_or_else(|| {
                format!(
                    "it does not begin with {prefix:?} and a dot: give another --subject-prefix, or a --topic for all"
                )
            })?,
        };
        Topic::new(name).map_err(|why| format!("{why}: give a --topic for all"))
    }

    /// A beginning of this stream.
    fn position(&self, guard: &Guard, info: &Info) -> Position {
        Position {
            stream: self.args.nats.stream.clone(),
            created: info.created.to_string(),
            token: guard.token().to_hex(),
            next: None,
        }
    }
}

/// The bridge as a member.
struct Member {
    node: Node,
    events: Subscription,
    publication: Publication,
    /// Why what is under way is in doubt.
    lost: Option<String>,
    /// When a carrier looked last whether it is.
    looked_at: Option<Instant>,
}

impl Member {
    /// Takes what has happened in the group.
    fn look(&mut self, group: &str) -> Result<(), Failure> {
        let mut refused = None;
        let lost = &mut self.lost;
        let polled = self.events.poll(usize::MAX, |delivery| match delivery {
            Delivery::Event(event @ (Event::Outvoted(..) | Event::IdentityConflict { .. })) => refused = Some(event),
            Delivery::Event(event @ (Event::Removed(_) | Event::Dropped { .. } | Event::Superseded { .. })) => {
                lost.get_or_insert_with(|| event.to_string());
            }
            Delivery::Event(event @ (Event::RankClaimed(_) | Event::NoMajority | Event::Majority)) => note(event),
            Delivery::Event(Event::Waiting(waiting)) => note(waiting),
            _ => {}
        });
        polled.map_err(|closed| Failure::unusable(format!("group {group:?}: {closed}")))?;
        refused.map_or(Ok(()), |event| Err(Failure::unusable(event)))
    }

    /// Publishes, and waits as long as the group takes nothing. Returns the message's number; none after a signal, or
    /// once the session is lost.
    fn publish(
        &mut self,
        bridge: &Bridge<'_>,
        guard: &Guard,
        topic: &Topic,
        payload: &[u8],
    ) -> Result<Option<u64>, Failure> {
        loop {
            if self.is_lost(bridge, guard)? {
                return Ok(None);
            }
            match self.publication.publish(topic, payload, TICK) {
                Ok(number) => {
                    bridge.run.goes_on();
                    return Ok(Some(number));
                }
                Err(refusal) if refusal.is_transient() => {
                    bridge.run.waits("group", format!("the group takes no message: {refusal}"));
                }
                Err(Refusal::TooLarge { limit_bytes }) => {
                    return Err(Failure::unusable(format!(
                        "a message of {} bytes is longer than limits.max_message_bytes of the group, {limit_bytes}",
                        payload.len()
                    )));
                }
                Err(refusal) => return Err(Failure::broken(refusal)),
            }
            if bridge.run.is_over() {
                return Ok(None);
            }
        }
    }

    /// Whether this session can't go on.
    fn is_lost(&mut self, bridge: &Bridge<'_>, guard: &Guard) -> Result<bool, Failure> {
        self.look(&bridge.settings.group.name)?;
        if let Some(looked_at) = &mut self.looked_at
            && std::mem::replace(looked_at, Instant::now()).elapsed() > PAUSE_MAX
        {
            self.lost.get_or_insert_with(|| format!("did not run for {} ms", PAUSE_MAX.as_millis()));
        }
        if let Some(lost) = guard.lost() {
            self.lost.get_or_insert_with(|| format!("the lock is lost: {lost}"));
        }
        Ok(self.lost.is_some())
    }
}

/// Carries a stream in one session.
struct Carrier<'a> {
    bridge: &'a Bridge<'a>,
    counts: &'a mut Counts,
    guard: Guard,
    /// The beginning, of which positions are made.
    position: Position,
    feed: Feed,
    /// The last message's subject, and its topic.
    topic: Option<(String, Topic)>,
    /// When the last position was published.
    placed_at: Option<Instant>,
    /// Messages since then.
    unplaced: u64,
}

impl Carrier<'_> {
    fn carry(mut self, mut member: Member) -> Result<End, Failure> {
        let topic = Topic::new(&Position::topic(&self.position.stream)).map_err(Failure::unusable)?;
        member.looked_at = Some(Instant::now());
        loop {
            if self.bridge.run.is_over() {
                return self.close(member);
            }
            if member.is_lost(self.bridge, &self.guard)? {
                let why = member.lost.unwrap_or_default();
                return Ok(End::Lost(why));
            }
            let fed = self.feed.next(self.bridge.runtime, TICK)?;
            if self.is_position_due(fed.as_ref()) {
                let next = fed.as_ref().map_or(self.counts.next, |fed| fed.sequence);
                let payload = Position { next: Some(next), ..self.position.clone() }.encode();
                if member.publish(self.bridge, &self.guard, &topic, &payload)?.is_none() {
                    continue;
                }
                (self.placed_at, self.unplaced) = (Some(Instant::now()), 0);
                (self.counts.next, self.counts.positions) = (next, self.counts.positions + 1);
            }
            match fed {
                Some(fed) => self.take(&mut member, &fed)?,
                None => self.wait(),
            }
            let counts = &self.counts;
            self.bridge.run.progress(counts.published, || format!("up to sequence {}", counts.next - 1));
        }
    }

    /// Whether a position must stand before what comes next.
    fn is_position_due(&self, fed: Option<&Fed>) -> bool {
        let Some(placed_at) = self.placed_at else { return true };
        let after = if self.unplaced > 0 { POSITION_AFTER } else { POSITION_AGAIN };
        let is_hole = fed.is_some_and(|fed| fed.sequence != self.counts.next);
        is_hole || self.unplaced >= POSITION_EVERY || placed_at.elapsed() >= after
    }

    /// Publishes a message of the stream.
    fn take(&mut self, member: &mut Member, fed: &Fed) -> Result<(), Failure> {
        let at = |why: &dyn std::fmt::Display| {
            let (sequence, stream, subject) = (fed.sequence, &self.position.stream, &fed.subject);
            Failure::unusable(format!("message {sequence} of stream {stream:?}, subject {subject:?}: {why}"))
        };
        if fed.instance == Some(member.node.view().instance.0) {
            return Err(at(&"it comes from this very group: carry it into another group"));
        }
        let topic = match self.topic.take() {
            Some((subject, topic)) if subject == fed.subject => topic,
            _ => self.bridge.topic(&fed.subject).map_err(|why| at(&why))?,
        };
        let published = member.publish(self.bridge, &self.guard, &topic, &fed.payload);
        let published = published.map_err(|failure| match failure {
            Failure::Unusable(why) => at(&why),
            broken => broken,
        })?;
        if published.is_some() {
            (self.counts.published, self.counts.next) = (self.counts.published + 1, fed.sequence + 1);
            self.unplaced += 1;
        }
        self.topic = Some((fed.subject.clone(), topic));
        Ok(())
    }

    /// Nothing has come.
    fn wait(&self) {
        match self.feed.trouble() {
            Some(why) => self.bridge.nats.waits(&why),
            None => self.bridge.run.goes_on(),
        }
    }

    /// Gives the group a while to acknowledge what is under way; the next bridge learns what it has.
    fn close(self, mut member: Member) -> Result<End, Failure> {
        let (until, last) = (Instant::now() + CLOSE, member.publication.published());
        while Instant::now() < until && !member.is_lost(self.bridge, &self.guard)? {
            if !matches!(member.publication.wait_acknowledged(last, TICK), Err(NotAcknowledged::Late { .. })) {
                break;
            }
        }
        drop(self.guard); // the next bridge may begin
        member.node.close(CLOSE).map_err(Failure::broken)?;
        Ok(End::Signal)
    }
}
