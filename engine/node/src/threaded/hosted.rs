//! A group that a data agent runs: the node, and its ends of all rings and mailboxes.
//!
//! An application thread that is slow must not slow the group's protocol: acknowledgements, repairs and timers have
//! to go on while it computes. So the group meets the application only at rings, for messages, and mailboxes, for all
//! else. The obvious danger is at their ends: an agent that waits for room in a full ring blocks everything in it.
//!
//! Here it never waits. A publication the engine refuses stays in its ring until the engine takes it. Delivery goes on
//! only while every subscription ring of a member has room; then it stops, the delivered watermark with it, and the
//! window holds the senders up. So it does at an observer that gates. Any other observer holds no sender up: what does
//! not fit is skipped and counted.
//!
//! Invariant: a round ([`Hosted::work`]) makes no system call but the port's, and wakes others only if they sleep.

use crate::admin::recovery::RecoveryReport;
use crate::admin::view::{Since, ViewReport};
use crate::close::{self, CloseReport};
use crate::closed::Closed;
use crate::counters::{AgentFigures, CountersWriter};
use crate::delivery::Delivery;
use crate::inline::InlineNode;
use crate::mailbox::{Receiver, Sender};
use crate::node_error::Error;
use crate::snapshot::{Snapshot, SnapshotRequest};
use crate::threaded::closing::{Closing, Stop};
use crate::threaded::commands::{COMMANDS_MAX, Command, Reply};
use crate::threaded::control::DataEnd;
use crate::threaded::direct::Post;
use crate::threaded::end::{End, lock};
use crate::threaded::frames::Value;
use crate::threaded::held_up;
use crate::threaded::intake::Intake;
use crate::threaded::outlet::Outlet;
use bourdon_engine::DELIVER_LIMIT;
use bourdon_port::PortError;
use bourdon_protocol::{ControlPlane, DirectMessage, Event, Refusal, Satisfied, Standing, View};
use bourdon_ring::counters as cells;
use bourdon_wire::{Incarnation, Instant, MessageName, Sequence};
use std::ops::RangeInclusive;
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Mutex};

/// The most messages taken from one publication ring a round, so that one publisher can't starve the network.
pub(crate) const TAKE_LIMIT: usize = 256;

/// Its ends of the mailboxes.
pub(crate) struct Ends {
    /// Why publications are blocked: cell 0, for the application to read.
    pub(crate) held_up: cells::Writer,
    /// Where the admin thread receives events.
    pub(crate) listener: Sender<Event>,
    /// The answers to the admin thread.
    pub(crate) replies: Sender<Reply>,
    /// The application's direct messages.
    pub(crate) messages: Sender<DirectMessage>,
}

/// How it is stopped, and how it reports its end.
pub(crate) struct Ending {
    pub(crate) stop: Stop,
    pub(crate) end: End,
}

/// The group's state.
pub(crate) struct Hosted {
    pub(crate) node: InlineNode,
    /// In the order of their numbers.
    publications: Vec<Intake>,
    outlets: Vec<Outlet>,
    /// Messages that subscriptions have skipped which are gone.
    overruns_before: u64,
    /// Messages were delivered: the state that begins now lacks them.
    has_delivered: bool,
    /// A snapshot waits for a subscription that takes it: one may still be made (`process.snapshots`).
    awaits_taker: bool,
    /// The view that the next message is delivered in, as it was handed out.
    view: Option<Event>,
    /// Since when it is as it is.
    since: Since,
    /// The view, for the application to read.
    pub(crate) shown_view: Arc<Mutex<View>>,
    /// Where the admin thread receives events.
    listener: Sender<Event>,
    /// Events handed out in this round.
    events: Vec<Event>,
    commands: Receiver<Command>,
    /// The answers to the admin thread.
    replies: Sender<Reply>,
    /// The application's direct messages.
    post: Post,
    /// The control thread, which has its locks and elections.
    control: DataEnd,
    /// The control thread does not know what the detectors suspect.
    owes_judgement: bool,
    /// It was reported that this group stands still.
    pub(crate) is_halted: bool,
    /// Why publications are blocked: cell 0, for the application to read.
    held_up: cells::Writer,
    /// Why messages were dropped that are not reported yet.
    refused: Option<Refusal>,
    /// In which incarnation the last messages of a publication were taken.
    published_as: Incarnation,
    /// What was dropped, by publication.
    dropped: Vec<(usize, RangeInclusive<u64>)>,
    /// It has left its group for good.
    has_left: bool,
    /// Delivery waited for room in a subscription's ring before the last sleep.
    is_gated: bool,
    /// Whether and until when it runs on, once it is to end.
    pub(crate) closing: Closing,
    pub(crate) counters: CountersWriter,
    pub(crate) figures: AgentFigures,
    /// Its port has failed.
    pub(crate) failure: Option<PortError>,
    /// Dropped last: what it wakes finds the rings gone.
    end: End,
}

impl Hosted {
    /// The group of a node that is open.
    pub(crate) fn new(
        mut node: InlineNode,
        ends: Ends,
        commands: Receiver<Command>,
        control: DataEnd,
        counters: CountersWriter,
        Ending { stop, end }: Ending,
    ) -> Self {
        let drop_timeout_ns = std::mem::take(&mut node.drop_timeout_ns); // its rings are emptied first
        let (published_as, view) = (node.engine.process().incarnation(), node.view().clone());
        let awaits_taker = node.engine.process().config().snapshots;
        Self {
            node,
            publications: Vec::new(),
            outlets: Vec::new(),
            overruns_before: 0,
            has_delivered: false,
            awaits_taker,
            view: None,
            since: Since::NEVER,
            shown_view: Arc::new(Mutex::new(view)),
            listener: ends.listener,
            events: Vec::new(),
            commands,
            replies: ends.replies,
            post: Post::new(ends.messages),
            control,
            owes_judgement: false,
            is_halted: false,
            held_up: ends.held_up,
            refused: None,
            published_as,
            dropped: Vec::new(),
            has_left: false,
            is_gated: false,
            closing: Closing::new(stop, drop_timeout_ns),
            counters,
            figures: AgentFigures::default(),
            failure: None,
            end,
        }
    }

    /// The group runs from now on. Gives its control plane.
    pub(crate) fn begin(&mut self) -> Box<ControlPlane> {
        self.node.engine.begin(self.outlets.iter().any(Outlet::takes_snapshots));
        self.control.begin(self.node.engine.now());
        self.node.engine.release_control()
    }

    /// Delivers to one more subscription. If a view has been handed out, it begins with that.
    pub(crate) fn add_outlet(&mut self, mut outlet: Outlet) {
        let gone = self.outlets.extract_if(.., |outlet| outlet.is_gone());
        self.overruns_before += gone.map(|outlet| outlet.overruns.get()).sum::<u64>();
        if let Some(view) = self.view {
            outlet.put_event(view);
            outlet.show();
        }
        outlet.is_whole = !self.has_delivered;
        self.outlets.push(outlet);
    }

    /// Takes from one more publication.
    pub(crate) fn add_intake(&mut self, mut intake: Intake) {
        intake.announce_room(); // its publisher may sleep for a reason that has passed since
        self.publications.retain_mut(|intake| !intake.is_done());
        self.publications.push(intake);
    }

    // ---- a round --------------------------------------------------------------------------------------------------

    /// Runs one round. Returns how much was done.
    pub(crate) fn round(&mut self, passed: Satisfied<'_>) -> usize {
        self.work(passed).unwrap_or_else(|error| {
            self.failure = Some(error);
            1 // it ends
        })
    }

    fn work(&mut self, passed: Satisfied<'_>) -> Result<usize, PortError> {
        self.figures.rounds += 1;
        if self.halts() {
            return Ok(0);
        }
        let mut work_count = self.take_publications();
        let was_behind = self.is_gated || self.outlets.iter().any(Outlet::is_behind);
        let limit = self.delivery_limit();
        work_count += usize::from(was_behind && !self.is_gated); // another group may wait for what has found room
        self.node.takes_snapshot = !self.awaits_taker || self.outlets.iter().any(Outlet::takes_snapshots);
        let (outlets, events, view) = (&mut self.outlets, &mut self.events, &mut self.view);
        let has_delivered = &mut self.has_delivered;
        let (mut shown, mut dropped) = (false, 0);
        work_count += self.node.poll_after(limit, passed, |delivery| {
            shown = true;
            match delivery {
                Delivery::Message(message) => {
                    *has_delivered = true;
                    for outlet in outlets.iter_mut().filter(|outlet| outlet.wants(&message)) {
                        outlet.put(&message);
                    }
                }
                Delivery::Event(event) => {
                    events.push(event);
                    match event {
                        Event::View { .. } => *view = Some(event),
                        Event::Removed(_) | Event::Left(_) => *view = None,
                        _ => {}
                    }
                    outlets.iter_mut().for_each(|outlet| dropped += u64::from(!outlet.put_event(event)));
                }
                Delivery::SnapshotRequest(request) => hand_request_over(outlets, request),
                Delivery::Snapshot(snapshot) => {
                    *has_delivered = true; // a subscription that is made later lacks it
                    hand_snapshot_over(outlets, snapshot);
                }
                other => unreachable!("a node that an agent polls delivers neither skips nor requests: {other:?}"),
            }
        })?;
        if shown {
            let changes = |event: &Event| {
                matches!(event, Event::View { .. } | Event::Removed(_) | Event::Left(_) | Event::NewInstance { .. })
            };
            if events.iter().any(changes) {
                lock(&self.shown_view).clone_from(self.node.view()); // before a subscriber can read the event
                let engine = &self.node.engine;
                self.since.note(self.node.view().bits(), engine.now().0.wrapping_add(engine.clock().wall_offset_ns()));
            }
            outlets.iter_mut().for_each(Outlet::show);
            self.figures.events_dropped += dropped;
            let overruns = outlets.iter().map(|outlet| outlet.overruns.get());
            self.figures.overruns = self.overruns_before + overruns.sum::<u64>();
        }
        work_count += self.control.exchange(&mut self.node);
        self.figures.control_full = self.control.full;
        self.figures.waited_ns = self.node.waited_ns();
        self.figures.archive = self.node.archive_figures();
        self.figures.network_lost = self.node.engine.port().transport().is_cut_off();
        self.report_events();
        self.acknowledge();
        if self.owes_judgement {
            self.owes_judgement = !self.control.report_judgement(&self.node);
        }
        work_count += self.obey();
        work_count += self.post.work(&mut self.node, &mut self.outlets);
        Ok(work_count)
    }

    /// Whether this group stands still, because its control thread does.
    #[inline]
    fn halts(&mut self) -> bool {
        let is_halted = self.control.is_halted(self.now(), &self.node);
        if is_halted != self.is_halted {
            self.is_halted = is_halted;
            self.report(if is_halted { Event::Halted } else { Event::Resumed });
        }
        if is_halted {
            self.control.exchange(&mut self.node);
        }
        is_halted
    }

    fn take_publications(&mut self) -> usize {
        let (node, mut held_up, mut count) = (&mut self.node, None, 0);
        let incarnation = node.engine.process().incarnation();
        let mut dropped = None;
        for publication in &mut self.publications {
            let taken = publication
                .take(TAKE_LIMIT, incarnation, |outgoing, payload| node.engine.try_publish_with(outgoing, payload));
            count += taken.count;
            held_up = taken.held_up.or(held_up);
            dropped = taken.dropped.or(dropped);
        }
        if count > 0 {
            self.published_as = incarnation;
        }
        self.note_held_up(held_up.or_else(|| self.node.engine.process().unavailable()));
        self.refused = dropped.or(self.refused);
        count
    }

    /// Publishers learn why their messages wait, or why they are refused; those that sleep are woken where that changes
    /// what they may do.
    #[inline]
    fn note_held_up(&mut self, reason: Option<Refusal>) {
        let reason = if self.closing.has_begun() { Some(Refusal::Closed) } else { reason };
        if held_up::write(&mut self.held_up, reason) {
            self.publications.iter_mut().for_each(Intake::announce_room);
        }
    }

    /// Passes on which publications are acknowledged by now, once all events are reported that bear on it.
    #[inline]
    fn acknowledge(&mut self) {
        if self.publications.iter().any(Intake::is_under_way) && !self.node.engine.process().has_events() {
            self.acknowledge_some();
        }
    }

    #[inline(never)]
    fn acknowledge_some(&mut self) {
        let Some(acknowledged) = self.node.engine.own_acknowledged() else {
            return if self.has_left {
                self.give_up()
            };
        };
        let incarnation = self.node.engine.process().incarnation();
        // Their event came before, if they are settled.
        self.publications.iter_mut().for_each(|intake| intake.lose_earlier(incarnation));
        self.advance(incarnation, acknowledged);
    }

    fn advance(&mut self, incarnation: Incarnation, acknowledged: Sequence) {
        let mut dropped = Vec::new();
        for intake in &mut self.publications {
            let publication = intake.number;
            intake.advance(incarnation, acknowledged, |numbers| dropped.push((publication, numbers)));
        }
        self.report_dropped(dropped);
    }

    fn report_dropped(&mut self, dropped: Vec<(usize, RangeInclusive<u64>)>) {
        for (publication, numbers) in dropped {
            let (first, last, refusal) = (*numbers.start(), *numbers.end(), self.refused.take());
            self.figures.publications_dropped += last - first + 1;
            self.report(Event::Dropped { publication, first, last, refusal });
            close::note_dropped(&mut self.dropped, publication, numbers);
        }
    }

    /// An event decides about messages that were published before this process was removed, or before the view ended.
    fn settle(&mut self, event: &Event) {
        let config = self.node.engine.process().config();
        let (own, is_lossy) = (config.rank(), config.reliability.is_lossy());
        let (incarnation, lost) = match *event {
            Event::Settled { incarnation, delivered, .. } => (incarnation, delivered..Sequence(u64::MAX)),
            // This process may have been removed since. At the other levels a gap is what was not received here, only.
            Event::Gap { sender, from, to } if is_lossy && Some(sender) == own => (self.published_as, from..to),
            Event::Left(_) => return self.end_acknowledgement(),
            _ => return,
        };
        let delivered = lost.start;
        self.publications.iter_mut().for_each(|intake| intake.lose(incarnation, lost.clone()));
        self.advance(incarnation, delivered);
    }

    /// This process has left for good: what is not acknowledged by now will never be.
    fn end_acknowledgement(&mut self) {
        self.has_left = true;
        if let Some((incarnation, behind)) = self.node.engine.process().own_left_behind() {
            self.advance(incarnation, behind.start);
        }
        self.give_up();
    }

    /// Publishers learn that nothing more will be acknowledged, and what was dropped.
    fn give_up(&mut self) {
        let mut dropped = Vec::new();
        for intake in &mut self.publications {
            let publication = intake.number;
            intake.give_up(|numbers| dropped.push((publication, numbers)));
        }
        self.report_dropped(dropped);
    }

    /// How many messages may be delivered now.
    fn delivery_limit(&mut self) -> usize {
        let mut room = DELIVER_LIMIT;
        self.is_gated = false;
        for outlet in &mut self.outlets {
            // What waits for room is shown as soon as there is some.
            let is_drained = outlet.drain();
            self.is_gated |= !is_drained;
            if outlet.keeps_all {
                room = room.min(if is_drained { outlet.room() } else { 0 });
            }
        }
        self.is_gated |= room == 0;
        self.figures.gated += u64::from(room == 0);
        room
    }

    /// Whether a message is of this group.
    pub(crate) fn is_named(&self, name: &MessageName) -> bool {
        name.group() == self.node.engine.process().config().group
    }

    /// Whether no message of another group waits for this one: it has passed here, and none of the subscriptions that
    /// hold delivery up lacks room for it.
    pub(crate) fn has_passed(&self, name: &MessageName) -> bool {
        if !self.is_named(name) {
            return true;
        }
        !self.outlets.iter().any(Outlet::is_behind) && self.node.engine.process().has_passed(name)
    }

    // ---- between rounds -------------------------------------------------------------------------------------------

    /// The last poll's time, while there are polls.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        if self.is_halted { self.node.clock().now() } else { self.node.engine.now() }
    }

    /// Whether it has ended: its port or its control thread has failed, or it was stopped and has settled what it can.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.failure.is_some() || self.control.is_gone() {
            return true; // a panic of the control thread is the node's outcome
        }
        let now = self.now();
        let Some(until) = self.closing.until(now) else { return false };
        self.note_held_up(None); // they take no more
        // A control thread that waits for this end, in a callback, does nothing more.
        let is_settled = self.closing.is_in_callback() || self.control.settles(&self.node);
        now >= until || is_settled && !self.owes_messages() && (!self.closing.leaves() || self.leave())
    }

    /// Leaves the view. Returns whether it has been left, or can't be.
    fn leave(&mut self) -> bool {
        let process = self.node.engine.process();
        if close::has_left(process) || !process.may_leave() {
            return true;
        }
        if !std::mem::replace(&mut self.closing.has_asked, true) {
            self.node.leave();
        }
        false
    }

    /// Sends what is left, and reports the outcome.
    pub(crate) fn finish(mut self) {
        let outcome = match self.failure.take() {
            Some(error) => Err(error),
            None => self.node.flush(),
        };
        let report = self.report_of_close();
        let has_control = !self.control.is_gone();
        if has_control {
            let why = outcome
                .as_ref()
                .map_or_else(|error| Closed::PortFailed { why: error.to_string().into() }, |()| Closed::Ended);
            self.end.closed.set(why);
        }
        if !self.closing.is_reported() {
            close::warn(&self.node.group, &report);
        }
        self.counters.copy(&self.node.engine, &self.figures);
        let Self { end, .. } = { self }; // all else is dropped here: no socket, ring or mailbox is left
        if !has_control {
            return; // no outcome: the handle passes the panic on
        }
        let _ = end.outcome.send(outcome.map(|()| report).map_err(Error::from)); // its handle may be gone
    }

    /// Ends a group that was never joined.
    pub(crate) fn discard(mut self) {
        let report = CloseReport { has_left: true, ..self.report_of_close() };
        self.end.closed.set(Closed::Ended);
        let Self { end, .. } = { self };
        let _ = end.outcome.send(Ok(report)); // its handle receives it next
    }

    /// Whether there is something that no ring of the bell announces, before a sleep. Called after the sleep was
    /// announced: from here on every thread that adds work sees that it must ring.
    pub(crate) fn has_news(&mut self) -> bool {
        if self.is_halted {
            return self.control.has_orders(); // it takes nothing else
        }
        let may_take = self.has_left || !held_up::is_held_up(&self.held_up);
        let publishable = may_take && self.publications.iter_mut().any(Intake::has_frames);
        let has_room = self.is_gated && !self.waits_for_room();
        publishable || self.closing.is_news() || has_room || self.commands.has_values() || self.control.has_orders()
    }

    /// Prepares for a sleep. Returns whether delivery waits for room in a ring.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        self.counters.copy(&self.node.engine, &self.figures);
        // Also if a round found no room: the subscriber that made some since saw no need to ring.
        self.is_gated |= self.waits_for_room();
        self.is_gated
    }

    fn waits_for_room(&mut self) -> bool {
        self.outlets.iter_mut().any(Outlet::waits)
    }

    /// Reports the events that were handed out in this round.
    #[inline]
    fn report_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.owes_judgement |= matches!(
                event,
                Event::View { .. } | Event::Suspected(..) | Event::Trusted(_) | Event::Removed(_) | Event::Left(_)
            );
            self.settle(&event);
            self.report_to_admin(event);
        }
        self.events = events; // its room is used again
    }

    /// Reports an event that comes from here.
    #[cold]
    fn report(&mut self, event: Event) {
        for outlet in &mut self.outlets {
            self.figures.events_dropped += u64::from(!outlet.put_event(event));
            outlet.show();
        }
        self.report_to_admin(event);
    }

    #[cold]
    fn report_to_admin(&mut self, event: Event) {
        if let Err(TrySendError::Full(_)) = self.listener.try_send(event) {
            self.figures.events_dropped += 1;
        }
    }

    /// Carries out commands. Returns how many.
    fn obey(&mut self) -> usize {
        let mut count = 0;
        // No more in a round: the group's own work waits meanwhile, and callers may send faster than this.
        while count < COMMANDS_MAX
            && let Some(command) = self.commands.take()
        {
            count += 1;
            self.carry_out(command);
        }
        count
    }

    #[cold]
    fn carry_out(&mut self, command: Command) {
        let node = &mut self.node;
        match command {
            Command::Sync(payload) => {
                if let Err(refusal) = node.sync(payload.as_deref()) {
                    self.report(Event::SyncRefused(refusal));
                }
            }
            Command::SyncForClient => {
                if let Err(refusal) = node.sync(None) {
                    self.reply(Reply::SyncRefused(refusal));
                }
            }
            Command::Leave => node.leave(),
            Command::Call(command) => self.post.call(node, command),
            Command::EndLateCalls => self.post.end_late(node),
            Command::View => {
                let report = ViewReport::of(&node.engine, &self.since);
                self.reply(Reply::View(Box::new(report)));
            }
            Command::Recover(ended) => {
                let report = RecoveryReport::of(node, ended);
                self.reply(Reply::Recovery(Box::new(report)));
            }
            Command::Subscribe(outlet) => self.add_outlet(*outlet),
            Command::Publish(intake) => self.add_intake(*intake),
        }
    }

    fn reply(&mut self, reply: Reply) {
        // Each command that waits has room for its answer; the admin thread takes all answers before it sends more.
        if let Err(TrySendError::Full(_)) = self.replies.try_send(reply) {
            self.figures.events_dropped += 1;
        }
    }

    /// Whether messages that were accepted may be lost if this group ended now: they wait in a ring, or not every
    /// member of the view holds them. A group that has no view yet, or no majority, may still send what waits.
    fn owes_messages(&mut self) -> bool {
        let waiting = self.publications.iter_mut().any(Intake::has_frames);
        let unsettled = self.publications.iter().any(Intake::has_unacknowledged);
        let owes_calls = self.post.owes() || self.node.owes_calls();
        let is_gone = self.node.engine.process().standing() == Standing::Gone;
        self.node.engine.owes_own() || owes_calls || (waiting || unsettled) && !is_gone
    }

    /// What is not acknowledged at the end.
    fn report_of_close(&mut self) -> CloseReport {
        let ends = self.publications.iter_mut().map(|intake| (intake.number, intake.end()));
        let unacknowledged = close::lacking(ends);
        let mut dropped = std::mem::take(&mut self.dropped);
        dropped.sort_by_key(|(publication, numbers)| (*publication, *numbers.start()));
        CloseReport { unacknowledged, dropped, has_left: close::has_left(self.node.engine.process()) }
    }
}

/// One subscription has to do with snapshots. A request for which there is none that has everything, or no room, is
/// dropped: it declines.
#[cold]
fn hand_request_over(outlets: &mut [Outlet], request: SnapshotRequest) {
    let mut takers = outlets.iter_mut().filter(|outlet| outlet.is_whole && outlet.takes_snapshots());
    takers.next().map(|outlet| outlet.put_value(Value::SnapshotRequest(request)));
}

/// From here on all of them have what the application has.
#[cold]
fn hand_snapshot_over(outlets: &mut [Outlet], snapshot: Snapshot) {
    outlets.iter_mut().for_each(|outlet| outlet.is_whole = true);
    outlets
        .iter_mut()
        .find(|outlet| outlet.takes_snapshots())
        .map(|outlet| outlet.put_value(Value::Snapshot(snapshot)));
}
