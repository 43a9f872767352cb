//! One member for the lab whose node has threads of its own.
//!
//! A judge must know the view of each delivery. The subscription gives views and losses at their place among the
//! messages, so each line is written when its item comes. A message of another view than the last is a fault of the
//! node, and ends the member.
//!
//! An event names a view's members, but not their seniority or the group's instance: these come from the node's admin
//! socket. A joiner delivers messages of views that it follows; it has no state to which they could be added, so they
//! are not recorded.
//!
//! The node acknowledges what it has put into the ring. So of a process that is killed the last lines may be missing
//! although the others count on them: the history is a prefix of what the node delivered.
//!
//! Invariant: a line of a view is written after the view's own line, and before the next view's.

use super::deliveries::{Deliveries, LONGEST_SLEEP, Start, by_seniority, note_token};
use super::messages::{Line, Publisher, line};
use super::{Failure, ending_of};
use bourdon::id::{Incarnation, InstanceId, Rank, Sequence, TopicId};
use bourdon::settings::{Role, Settings};
use bourdon::{Delivery, Event, LockRequest, Message, Node, Publication, Refusal, Subscribe, Subscription, Topic};
use bourdon_lab::interrupt::Interrupt;
use serde_json::Value;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// The longest wait for an answer of the node's admin socket: a halted node goes on, or its group is restarted.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Runs until it is asked to end, or this incarnation is over.
pub(super) fn run(settings: &Settings, start: Start, interrupt: Interrupt) -> Result<(), Failure> {
    let is_member = settings.process.role == Role::Member;
    let node = Node::open(settings).map_err(Failure::unusable)?;
    let publication = is_member.then(|| node.publication()).transpose().map_err(Failure::unusable)?;
    let subscription = node.subscribe(Subscribe::all().events()).map_err(Failure::unusable)?;
    node.join().map_err(Failure::unusable)?;
    let ended = ending_of(move || interrupt.wait(), || {});
    let Start { own, deliveries, rate, tokens, talk } = start;
    let mut member = Member {
        own,
        publication,
        subscription,
        node,
        deliveries,
        view: None,
        entered: Vec::new(),
        published: 0,
        interval: Duration::from_nanos(1_000_000_000 / rate),
        due: Instant::now(),
        tokens,
        request: None,
        begun: Instant::now(),
        is_ending: false,
        talk,
    };
    member.print(format_args!("begins"));
    while ended.try_recv() == Err(TryRecvError::Empty) {
        if !member.step()? {
            member.print(format_args!("ends"));
            return Ok(());
        }
    }
    member.print(format_args!("is asked to end"));
    member.end()
}

/// The view that was reported last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reported {
    instance: InstanceId,
    epoch: u64,
    /// Whether this process is in it; an observer is in each view.
    is_in: bool,
}

/// What the subscription gave, to be handled once it is free again.
enum Item {
    Message(Shown),
    Event(Event),
}

/// What is recorded of a message.
struct Shown {
    instance: InstanceId,
    sender: (Rank, Incarnation),
    sequence: Sequence,
    line: Option<Line>,
    epoch: u64,
}

impl Shown {
    fn new(message: &Message<'_>) -> Self {
        Self {
            instance: message.instance,
            sender: (message.sender, message.incarnation),
            sequence: message.sequence,
            line: line(message),
            epoch: message.epoch.0,
        }
    }
}

struct Member {
    own: Publisher,
    node: Node,
    /// None at an observer.
    publication: Option<Publication>,
    subscription: Subscription,
    deliveries: Deliveries,
    view: Option<Reported>,
    /// The members of the last recorded view, the most senior first.
    entered: Vec<u16>,
    published: u64,
    interval: Duration,
    /// When the next message is to be published.
    due: Instant,
    /// The file that the token is written to, until it is written.
    tokens: Option<PathBuf>,
    /// The request for the lock.
    request: Option<LockRequest>,
    begun: Instant,
    is_ending: bool,
    talk: bool,
}

impl Member {
    fn print(&self, what: fmt::Arguments<'_>) {
        if self.talk {
            eprintln!("{} {}: {what}", self.begun.elapsed().as_millis(), self.own);
        }
    }

    /// Publishes, delivers and handles events; returns false if this incarnation is over.
    fn step(&mut self) -> Result<bool, Failure> {
        self.publish()?;
        let goes_on = self.deliver()?;
        self.deliveries.history.flush();
        self.deliveries.check()?;
        self.take_token()?;
        if goes_on {
            let until_due = self.due.saturating_duration_since(Instant::now());
            let longest = if self.publication.is_some() { until_due.min(LONGEST_SLEEP) } else { LONGEST_SLEEP };
            self.subscription.wait(longest).map_err(Failure::broken)?;
        }
        Ok(goes_on)
    }

    /// Stops the node, and records what it delivers meanwhile, up to the next view.
    fn end(&mut self) -> Result<(), Failure> {
        self.request = None;
        self.ask("stop")?;
        self.is_ending = true;
        while self.deliver()? {
            let _ = self.subscription.wait(LONGEST_SLEEP); // the next delivery looks for the end
        }
        while self.subscription.next(LONGEST_SLEEP).is_ok() {}
        self.deliveries.history.flush();
        self.deliveries.check()
    }

    fn publish(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(publication) = self.publication.as_mut().filter(|_| now >= self.due) else { return Ok(()) };
        // A process that was stopped does not catch up.
        self.due = (self.due + self.interval).max(now);
        match publication
            .try_publish(&Topic::of_id(TopicId::of("lab")), &self.deliveries.payload(self.own, self.published))
        {
            Ok(_) => self.published += 1,
            Err(refusal) if refusal.is_transient() || refusal == Refusal::Closed => {}
            Err(refusal) => return Err(Failure::broken(refusal)),
        }
        Ok(())
    }

    /// Records what was delivered, and handles events; returns false if this incarnation is over.
    fn deliver(&mut self) -> Result<bool, Failure> {
        loop {
            let item = match self.subscription.try_next() {
                Ok(None) => return Ok(true),
                Ok(Some(Delivery::Message(message))) => Item::Message(Shown::new(&message)),
                Ok(Some(Delivery::Event(event))) => Item::Event(event),
                Ok(Some(other)) => return Err(Failure::broken(format!("the lab reads all, but {other:?}"))),
                Err(_) if self.is_ending => return Ok(false),
                Err(closed) => return Err(Failure::broken(closed)),
            };
            match item {
                Item::Message(shown) => self.record(shown)?,
                Item::Event(event) if !self.hear(event)? => return Ok(false),
                Item::Event(_) => {}
            }
        }
    }

    /// Records a message, if this process is in its view.
    fn record(&mut self, shown: Shown) -> Result<(), Failure> {
        match self.view {
            Some(view) if (view.instance, view.epoch) == (shown.instance, shown.epoch) => {
                if view.is_in {
                    self.deliveries.record(shown.sender, shown.sequence, shown.line);
                }
                Ok(())
            }
            view => Err(Failure::broken(format!("a message of view {} came in {view:?}", shown.epoch))),
        }
    }

    /// Handles an event at its place; returns false if this incarnation is over.
    fn hear(&mut self, event: Event) -> Result<bool, Failure> {
        self.print(format_args!("{event}"));
        match event {
            Event::IdentityConflict { .. }
            | Event::Outvoted(..)
            | Event::Dropped { refusal: Some(Refusal::TooLarge { .. } | Refusal::Role), .. } => {
                return Err(Failure::broken(event));
            }
            Event::View { .. } if self.is_ending => return Ok(false), // its node can't be asked any more
            Event::View { epoch, members, .. } => self.enter(epoch.0, members.0)?,
            // The next instance's views do not follow from those of the instance before.
            Event::NewInstance { .. } | Event::Superseded { .. } | Event::Recovered { .. } => {
                self.entered.clear();
                self.view = None;
            }
            Event::Removed(_) | Event::Left(_) => return Ok(false),
            // A member must never do this, so it is recorded for the judge.
            Event::Gap { sender, from, to } => self.deliveries.gap(sender, from, to),
            Event::Retracted { sender, from, to } => self.deliveries.retraction(sender, from, to),
            _ => {}
        }
        Ok(true)
    }

    /// Records a view that this process is in.
    fn enter(&mut self, epoch: u64, members: u64) -> Result<(), Failure> {
        let answer = self.ask("view")?;
        let view = &answer["view"];
        let instance = view["instance"].as_str().and_then(|text| u64::from_str_radix(text, 16).ok()).map(InstanceId);
        let is_observer = self.publication.is_none();
        let (instance, is_in, ranks) = if view["epoch"].as_u64() == Some(epoch) {
            (instance, is_observer || view["standing"] == "member", seniority(view))
        } else {
            // The node has installed the next view already.
            let (known, own) = (self.view.map(|view| view.instance), self.own.rank);
            let is_in = !self.entered.is_empty() && (is_observer || members >> own & 1 == 1);
            (known.or(instance), is_in, by_seniority(&self.entered, members))
        };
        let instance = instance.unwrap_or(InstanceId::NONE);
        self.view = Some(Reported { instance, epoch, is_in });
        if is_in {
            self.deliveries.enter(instance, epoch, &ranks);
            self.entered = ranks;
        }
        Ok(())
    }

    /// Sends the node's admin socket a request; returns the answer.
    fn ask(&self, request: &str) -> Result<Value, Failure> {
        let ask = || -> std::io::Result<Value> {
            let mut stream = UnixStream::connect(&self.node.info().socket_path)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            writeln!(stream, "{{\"request\":\"{request}\"}}")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        ask().map_err(|error| Failure::broken(format!("the admin socket, asked for {request}: {error}")))
    }

    /// Requests the lock once, and records the token that is granted.
    fn take_token(&mut self) -> Result<(), Failure> {
        let Some(path) = &self.tokens else { return Ok(()) };
        if self.request.is_none() {
            self.request = Some(self.node.request_lock("lab").map_err(Failure::broken)?);
        }
        let Some(request) = &mut self.request else { return Ok(()) };
        let Ok(Some(guard)) = request.try_guard() else { return Ok(()) };
        note_token(path, guard.token())?;
        (self.tokens, self.request) = (None, None);
        self.print(format_args!("has the lock under token {}", guard.token()));
        Ok(())
    }
}

/// The members of a view that the admin socket reports, the most senior first.
fn seniority(view: &Value) -> Vec<u16> {
    let members = view["members"].as_array().into_iter().flatten();
    let place = |member: &Value| Some((member["seniority"].as_u64()?, member["rank"].as_u64()? as u16));
    let mut places: Vec<(u64, u16)> = members.filter_map(place).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, rank)| rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_sorted_by_seniority_and_those_outside_left_out() {
        let member = |rank: u16, place: Option<u64>| json!({ "rank": rank, "seniority": place });
        let view = json!({ "members": [member(0, Some(1)), member(1, None), member(2, Some(0))] });
        assert_eq!(seniority(&view), [2, 0]);
        assert_eq!(by_seniority(&[2, 0], 0b1011), [0, 1, 3]);
    }
}
