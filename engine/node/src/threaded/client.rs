//! A client at its data agent: it publishes through a member, and calls single processes, from beside the group.
//!
//! A client is in no view. It delivers nothing, and takes no part in what the control thread decides; when it ends, it
//! sends a goodbye to the member that served it. So an agent runs it without most of what a group needs (`hosted.rs`).
//! What it has in common with a group are the application's ends: publications in rings, calls as commands, and an end
//! within a bound.
//!
//! A message counts as acknowledged once a member has answered that the group has taken it (`control/clients.rs` of the
//! protocol). A message that the group never takes is dropped, as at a member.

use crate::client_node::ClientNode;
use crate::close::{self, CloseReport};
use crate::closed::Closed;
use crate::config::Settings;
use crate::mailbox::Receiver;
use crate::node_error::Error;
use crate::threaded::closing::Closing;
use crate::threaded::commands::{COMMANDS_MAX, Command};
use crate::threaded::direct::Post;
use crate::threaded::end::End;
use crate::threaded::held_up;
use crate::threaded::hosted::{Ending, TAKE_LIMIT};
use crate::threaded::intake::Intake;
use bourdon_port::PortError;
use bourdon_protocol::{ClientEvent, Refusal};
use bourdon_ring::counters as cells;
use bourdon_wire::{Incarnation, Instant, Sequence};
use std::ops::RangeInclusive;

/// A client has one: what it publishes is numbered through.
const ONLY: Incarnation = Incarnation(0);

/// Its ends of the mailboxes.
pub(crate) struct ClientEnds {
    pub(crate) commands: Receiver<Command>,
    pub(crate) post: Post,
    /// Why publications are blocked, for the application to read.
    pub(crate) held_up: cells::Writer,
}

/// The client's state.
pub(crate) struct ClientSeat {
    pub(crate) node: ClientNode,
    /// Its group's name, for its warnings.
    group: Box<str>,
    /// In the order of their numbers.
    publications: Vec<Intake>,
    ends: ClientEnds,
    /// What was dropped, by publication.
    dropped: Vec<(usize, RangeInclusive<u64>)>,
    pub(crate) closing: Closing,
    /// Its port has failed.
    pub(crate) failure: Option<PortError>,
    /// Dropped last: what it wakes finds the rings gone.
    end: End,
}

impl ClientSeat {
    pub(crate) fn new(node: ClientNode, settings: &Settings, ends: ClientEnds, Ending { stop, end }: Ending) -> Self {
        Self {
            node,
            group: settings.group.name.as_str().into(),
            publications: Vec::new(),
            ends,
            dropped: Vec::new(),
            closing: Closing::new(stop, settings.threads.drop_timeout_ns),
            failure: None,
            end,
        }
    }

    /// Takes from one more publication.
    pub(crate) fn add_intake(&mut self, mut intake: Intake) {
        intake.announce_room(); // its publisher may sleep for a reason that has passed since
        self.publications.retain_mut(|intake| !intake.is_done());
        self.publications.push(intake);
    }

    /// Runs one round. Returns how much was done.
    pub(crate) fn round(&mut self) -> usize {
        self.work().unwrap_or_else(|error| {
            self.failure = Some(error);
            1 // it ends
        })
    }

    fn work(&mut self) -> Result<usize, PortError> {
        let mut work_count = self.take_publications();
        work_count += self.node.poll()?;
        while let Some(event) = self.node.poll_event() {
            self.settle(event);
        }
        work_count += self.obey();
        Ok(work_count + self.ends.post.work(&mut self.node, &mut []))
    }

    fn take_publications(&mut self) -> usize {
        let (node, mut held_up, mut count) = (&mut self.node, None, 0);
        for publication in &mut self.publications {
            let taken = publication.take(TAKE_LIMIT, ONLY, |outgoing, payload| node.try_publish(outgoing, payload));
            count += taken.count;
            held_up = taken.held_up.or(held_up);
        }
        self.note_held_up(held_up.or_else(|| self.node.unavailable()));
        count
    }

    fn note_held_up(&mut self, reason: Option<Refusal>) {
        let reason = if self.closing.has_begun() { Some(Refusal::Closed) } else { reason };
        if held_up::write(&mut self.ends.held_up, reason) {
            self.publications.iter_mut().for_each(Intake::announce_room);
        }
    }

    fn settle(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Taken(next) => self.advance(next),
            // The messages before it are taken: it is the oldest.
            ClientEvent::TooLarge(sequence) => {
                self.publications.iter_mut().for_each(|intake| intake.lose(ONLY, sequence..sequence.next()));
                self.advance(sequence);
            }
            _ => {} // as `ClientNode::unavailable` gives it
        }
    }

    fn advance(&mut self, acknowledged: Sequence) {
        let dropped = &mut self.dropped;
        for intake in &mut self.publications {
            let number = intake.number;
            intake.advance(ONLY, acknowledged, |numbers| close::note_dropped(dropped, number, numbers));
        }
    }

    /// Carries out commands. Returns how many.
    fn obey(&mut self) -> usize {
        let mut count = 0;
        while count < COMMANDS_MAX
            && let Some(command) = self.ends.commands.take()
        {
            count += 1;
            match command {
                Command::Call(command) => self.ends.post.call(&mut self.node, command),
                Command::EndLateCalls => self.ends.post.end_late(&mut self.node),
                Command::Publish(intake) => self.add_intake(*intake),
                _ => {} // of a process in a view
            }
        }
        count
    }

    /// Whether it has ended: its port has failed, or it was stopped and has settled what it can.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.failure.is_some() {
            return true;
        }
        let now = self.node.now();
        let Some(until) = self.closing.until(now) else { return false };
        self.note_held_up(None); // they take no more
        now >= until || !self.owes() && !self.node.is_leaving()
    }

    /// Whether messages that were accepted may be lost if it ended now.
    fn owes(&mut self) -> bool {
        let waiting = self.publications.iter_mut().any(Intake::has_frames);
        let owes_calls = self.ends.post.owes() || self.node.owes_calls();
        waiting || owes_calls || !self.node.is_idle() || self.ends.commands.has_values()
    }

    /// Reports the outcome.
    pub(crate) fn finish(mut self) {
        let outcome = match self.failure.take() {
            Some(error) => Err(error),
            None => self.node.poll().map(|_| ()), // what was called for last goes out
        };
        self.end.closed.set(match &outcome {
            Ok(()) => Closed::Ended,
            Err(error) => Closed::PortFailed { why: error.to_string().into() },
        });
        let ends = self.publications.iter_mut().map(|intake| (intake.number, intake.end()));
        let unacknowledged = close::lacking(ends);
        let report = CloseReport { unacknowledged, dropped: std::mem::take(&mut self.dropped), has_left: true };
        if !self.closing.is_reported() {
            close::warn(&self.group, &report);
        }
        let Self { end, .. } = { self }; // all else is dropped here
        let _ = end.outcome.send(outcome.map(|()| report).map_err(Error::from)); // its handle may be gone
    }

    /// Whether there is something that no ring of the bell announces, before a sleep.
    pub(crate) fn has_news(&mut self) -> bool {
        let may_take = !held_up::is_held_up(&self.ends.held_up);
        let publishable = may_take && self.publications.iter_mut().any(Intake::has_frames);
        publishable || self.closing.is_news() || self.ends.commands.has_values()
    }

    pub(crate) fn now(&self) -> Instant {
        self.node.now()
    }
}
