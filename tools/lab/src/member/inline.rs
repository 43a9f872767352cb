//! A member whose node runs in the main thread.
//!
//! Invariant: a line is in the file before any consequence of it leaves the process.

use super::deliveries::{Deliveries, LONGEST_SLEEP, Start, by_seniority, note_token};
use super::messages::Publisher;
use super::{Failure, ending_of};
use bourdon::id::TopicId;
use bourdon::settings::{Role, Settings};
use bourdon::{Delivery, Event, InlineNode, LockRequest, Refusal, Snapshot, Standing, Topic};
use bourdon_lab::interrupt::Interrupt;
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

/// Runs until it is asked to end, or this incarnation is over.
pub(super) fn run(settings: &Settings, start: Start, interrupt: Interrupt) -> Result<(), Failure> {
    let node = InlineNode::join(settings).map_err(Failure::unusable)?;
    let waker = node.waker();
    let ended = ending_of(move || interrupt.wait(), move || waker.wake());
    let Start { own, deliveries, rate, tokens, talk } = start;
    let mut member = Member {
        own,
        is_member: settings.process.role == Role::Member,
        node,
        deliveries,
        entered: Vec::new(),
        published: 0,
        interval_ns: 1_000_000_000 / rate,
        due_ns: 0,
        has_state: false,
        tokens,
        request: None,
        talk,
    };
    member.print(format_args!("begins"));
    while ended.try_recv() == Err(TryRecvError::Empty) && member.step()? {}
    member.print(format_args!("ends"));
    Ok(())
}

struct Member {
    own: Publisher,
    /// Whether it publishes; an observer does not.
    is_member: bool,
    node: InlineNode,
    deliveries: Deliveries,
    /// The members of the last recorded view, the most senior first.
    entered: Vec<u16>,
    published: u64,
    interval_ns: u64,
    /// When the next message is to be published.
    due_ns: u64,
    /// Whether it began with a member's state.
    has_state: bool,
    /// The file that the token is written to, until it is written.
    tokens: Option<PathBuf>,
    /// The request for the lock.
    request: Option<LockRequest>,
    talk: bool,
}

impl Member {
    fn print(&self, what: fmt::Arguments<'_>) {
        if self.talk {
            eprintln!("{} {}: {what}", self.node.clock().wall_ns() / 1_000_000 % 1_000_000, self.own);
        }
    }

    /// Publishes, delivers and handles events; returns false if this incarnation is over.
    fn step(&mut self) -> Result<bool, Failure> {
        self.publish()?;
        let (deliveries, mut events) = (&mut self.deliveries, Vec::new());
        let (mut snapshot, mut request) = (None, None); // both come last in a poll
        // This comes first, because a member that is removed still records what it delivered.
        let work = self.node.poll(usize::MAX, |delivery| match delivery {
            Delivery::Message(message) => deliveries.deliver(&message),
            Delivery::Event(event) => events.push(event),
            Delivery::Snapshot(state) => snapshot = Some(state),
            Delivery::SnapshotRequest(asked) => request = Some(asked),
            _ => {}
        });
        // The next poll sends whatever follows from a delivery.
        self.deliveries.history.flush();
        let work = work.map_err(Failure::broken)?;
        self.deliveries.check()?;
        let goes_on = self.hear(events)? && self.restore(snapshot)? && self.take_token()?;
        if let Some(request) = request {
            let given = request.give(&self.deliveries.state());
            given.map_err(|refusal| Failure::broken(format!("a process can't join: {refusal}")))?;
        }
        self.deliveries.history.flush();
        if work == 0 && goes_on {
            let until_due = Duration::from_nanos(self.due_ns.saturating_sub(self.node.clock().now().0));
            // Only a member publishes: for any other process the time at which it is due has passed.
            let longest = if self.is_member { until_due.min(LONGEST_SLEEP) } else { LONGEST_SLEEP };
            self.node.wait(longest).map_err(Failure::broken)?;
        }
        Ok(goes_on)
    }

    fn publish(&mut self) -> Result<(), Failure> {
        let now_ns = self.node.clock().now().0;
        if now_ns < self.due_ns || !self.is_member {
            return Ok(());
        }
        // A process that was stopped does not catch up.
        self.due_ns = (self.due_ns + self.interval_ns).max(now_ns);
        let payload = self.deliveries.payload(self.own, self.published);
        match self.node.try_publish(&Topic::of_id(TopicId::of("lab")), &payload) {
            Ok(_) => self.published += 1,
            // A member that leaves handles the event next.
            Err(refusal) if refusal.is_transient() || refusal == Refusal::Closed => {}
            Err(refusal) => return Err(Failure::broken(refusal)),
        }
        Ok(())
    }

    /// Handles all events; returns false if this incarnation is over.
    fn hear(&mut self, events: Vec<Event>) -> Result<bool, Failure> {
        for event in events {
            self.print(format_args!("{event}"));
            match event {
                Event::View { epoch, members, .. } => self.enter(epoch.0, members.0),
                Event::Removed(_) | Event::Left(_) => return Ok(false),
                Event::SnapshotTooLarge { .. } | Event::IdentityConflict { .. } | Event::Outvoted(..) => {
                    return Err(Failure::broken(event));
                }
                // A member must never do this, so it is recorded for the judge.
                Event::Gap { sender, from, to } => self.deliveries.gap(sender, from, to),
                Event::Retracted { sender, from, to } => self.deliveries.retraction(sender, from, to),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Records a view that this process is in; a joiner follows earlier views that it is not in.
    fn enter(&mut self, epoch: u64, members: u64) {
        let view = self.node.view();
        let is_in = self.node.standing() == Standing::Member || !self.is_member;
        let ranks: Vec<u16> = if view.epoch.0 == epoch {
            view.members.iter().map(|member| member.rank.0).collect()
        } else if self.entered.is_empty() {
            return; // it followed: the view that it is in comes next
        } else {
            by_seniority(&self.entered, members) // the process has installed the next view already
        };
        if is_in {
            self.deliveries.enter(view.instance, epoch, &ranks);
            self.entered = ranks;
        }
    }

    /// Begins with a member's state; returns false if this incarnation is over.
    fn restore(&mut self, snapshot: Option<Snapshot>) -> Result<bool, Failure> {
        let Some(snapshot) = snapshot else { return Ok(true) };
        if self.has_state {
            return Ok(false); // its lines are already in the file and may differ from the lines of the second state
        }
        self.has_state = true;
        self.deliveries.restore(snapshot.bytes())?;
        Ok(true)
    }

    /// Requests the lock once a member, and records the token that is granted.
    fn take_token(&mut self) -> Result<bool, Failure> {
        let Some(path) = &self.tokens else { return Ok(true) };
        if self.request.is_none() && self.node.standing() == Standing::Member {
            self.request = Some(self.node.request_lock("lab").map_err(Failure::broken)?);
        }
        let Some(request) = &mut self.request else { return Ok(true) };
        match request.try_guard() {
            Ok(None) => {}
            Ok(Some(guard)) => {
                note_token(path, guard.token())?;
                (self.tokens, self.request) = (None, None);
                self.print(format_args!("has the lock under token {}", guard.token()));
            }
            Err(_) => self.request = None, // refused for now: asked again
        }
        Ok(true)
    }
}
