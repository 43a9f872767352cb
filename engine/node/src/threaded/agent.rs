//! The data agent: the thread that runs a threaded node's engine.
//!
//! An application thread that is slow must not slow the group's protocol: acknowledgements, repairs and timers have
//! to go on while it computes. So the engine has a thread of its own, and meets the application only at rings, for
//! messages, and mailboxes, for all else. The obvious danger is at their ends: an agent that waits for room in a full
//! ring blocks everything in it.
//!
//! Here it never waits. A publication the engine refuses stays in its ring until the engine takes it. Delivery goes on
//! only while every subscription ring of a member has room; then it stops, the delivered watermark with it, and the
//! window holds the senders up. So it does at an observer that gates. Any other observer holds no sender up: what does
//! not fit is skipped and counted.
//!
//! Invariants: a round ([`Agent::do_work`]) makes no system call but the port's, and wakes others only if they sleep. A
//! member, and an observer that gates, lose no message: what was taken from the protocol and did not fit is kept
//! ([`Outlet`]) and goes first. That is at most one batch, sized by the room there was and the longest message seen,
//! and never more than the receive logs held.

use crate::admin::view::ViewReport;
use crate::counters::{AgentFigures, CountersWriter};
use crate::engine::DELIVER_LIMIT;
use crate::idle::Idler;
use crate::inline::Node;
use crate::mailbox::{Receiver, Sender};
use crate::threaded::commands::{COMMANDS_MAX, Command, Reply};
use crate::threaded::control::DataEnd;
use crate::threaded::direct::Post;
use crate::threaded::events::NodeEvent;
use crate::threaded::frames::{DELIVERED_BYTES, Delivered, Published};
use crate::threaded::held_up;
use crate::threaded::waits::{FOLLOWING_NS, ViewWait, Waiting};
use crate::topics::Filter;
use crate::transport::Reach;
use bourdon_port::{PortError, Waker};
use bourdon_protocol::{Delivery, Standing};
use bourdon_ring::counters as cells;
use bourdon_ring::signal::{Bell, Flag, Sleeper, WatermarkWriter};
use bourdon_ring::spsc::{self, ClaimError};
use bourdon_wire::Instant;
use std::collections::VecDeque;
use std::sync::mpsc::TrySendError;
use std::time::Duration;
use zerocopy::IntoBytes;

/// The most messages taken from one publication ring a round, so that one publisher can't starve the network.
const TAKE_LIMIT: usize = 256;
/// How long a round is recent at least.
const RECENT_NS: u64 = 1_000_000_000;
/// How long a stopping node keeps running to get its last messages acknowledged.
const LINGER_NS: u64 = 1_000_000_000;
/// The assumed length of the longest message until a longer message arrives: a datagram's worth.
const FRAME_GUESS_BYTES: usize = 1536;
/// Between two judgements whether an observer hears a majority.
const HEARING_INTERVAL_NS: u64 = 250_000_000;
/// How long an agent that stands still sleeps before it looks for its control thread again.
const HALTED_SLEEP: Duration = Duration::from_millis(1);
/// The longest sleep meanwhile.
const LINGER_SLEEP: Duration = Duration::from_millis(1);

/// Where delivered messages of some topics go: one subscription's ring.
pub(crate) struct Outlet {
    pub(crate) producer: spsc::Producer,
    /// Which those are.
    pub(crate) filter: Filter,
    /// Whole frames that the ring had no room for; only at a member.
    pub(crate) overflow: VecDeque<Vec<u8>>,
    /// Messages an observer's ring had no room for.
    pub(crate) overruns: WatermarkWriter,
    /// Wakes the subscriber.
    pub(crate) bell: Bell,
    pub(crate) waker: Waker,
    pub(crate) longest_bytes: usize,
}

impl Outlet {
    /// Moves what was kept into the ring. Returns whether all of it fitted.
    fn drain(&mut self) -> bool {
        if self.overflow.is_empty() {
            return true;
        }
        if self.producer.is_abandoned() {
            self.overflow.clear();
        }
        while let Some(frame) = self.overflow.front() {
            match self.producer.try_push(0, frame) {
                Ok(()) => drop(self.overflow.pop_front()),
                Err(ClaimError::Full) => break,
                Err(error) => unreachable!("rings are made for the longest message: {error}"),
            }
        }
        self.show();
        self.overflow.is_empty()
    }

    /// How many messages fit for sure, if none is longer than the longest so far.
    fn room(&mut self) -> usize {
        if self.producer.is_abandoned() {
            return usize::MAX;
        }
        if !self.overflow.is_empty() && self.producer.free_bytes() < self.producer.capacity_bytes() / 2 {
            return 0;
        }
        let frame_bytes = self.longest_bytes + spsc::HEADER_BYTES;
        (self.producer.free_bytes() / frame_bytes).saturating_sub(1)
    }

    #[inline]
    fn put(&mut self, delivery: &Delivery<'_>, keeps_all: bool) {
        let name = delivery.name.unwrap_or_default();
        let length = DELIVERED_BYTES + name.len() + delivery.payload.len();
        self.longest_bytes = self.longest_bytes.max(length.next_multiple_of(8));
        let head = Delivered::new(delivery);
        if self.overflow.is_empty()
            && let Ok(mut claim) = self.producer.try_claim(0, length)
        {
            let (front, rest) = claim.split_at_mut(DELIVERED_BYTES);
            front.copy_from_slice(head.as_bytes());
            let (front, rest) = rest.split_at_mut(name.len());
            front.copy_from_slice(name.as_bytes());
            rest.copy_from_slice(delivery.payload);
            return claim.stage();
        }
        if self.producer.is_abandoned() {
            return;
        }
        if keeps_all {
            self.overflow.push_back([head.as_bytes(), name.as_bytes(), delivery.payload].concat());
        } else {
            self.overruns.advance(self.overruns.get() + 1);
        }
    }

    /// Publishes what was put to the subscriber, and wakes it if it sleeps.
    fn show(&mut self) {
        self.producer.publish();
        if self.bell.must_ring() {
            self.waker.wake();
        }
    }
}

/// The longest rounds of this second and of the one before: the round that installs a view hides all later ones from a
/// figure that never falls.
#[derive(Debug, Default)]
struct RecentCycles {
    until: Instant,
    longest_ns: u64,
    before_ns: u64,
}

impl RecentCycles {
    /// Notes a round that ended now. Returns the longest one.
    #[inline]
    fn note(&mut self, now: Instant, cycle_ns: u64) -> u64 {
        if now >= self.until {
            self.before_ns = std::mem::take(&mut self.longest_ns);
            self.until = now + RECENT_NS;
        }
        self.longest_ns = self.longest_ns.max(cycle_ns);
        self.longest_ns.max(self.before_ns)
    }
}

/// The data agent's state, made on its own thread.
pub(crate) struct Agent {
    pub(crate) node: Node,
    pub(crate) publications: Vec<spsc::Consumer>,
    pub(crate) outlets: Vec<Outlet>,
    /// The receivers of events: the application and the admin thread.
    pub(crate) listeners: [Sender<NodeEvent>; 2],
    pub(crate) commands: Receiver<Command>,
    /// The answers to the admin thread.
    pub(crate) replies: Sender<Reply>,
    /// The application's direct messages.
    pub(crate) post: Post,
    /// The control thread, which has its locks and elections.
    pub(crate) control: DataEnd,
    /// It was reported that this agent has stopped.
    pub(crate) is_halted: bool,
    /// Why publications are blocked: cell 0, for the application to read.
    pub(crate) held_up: cells::Writer,
    /// Rung by publishers and senders of commands.
    pub(crate) sleeper: Sleeper,
    /// Rung by subscribers that made room, while delivery waits for it.
    pub(crate) gate: Sleeper,
    pub(crate) stop: Flag,
    pub(crate) counters: CountersWriter,
    pub(crate) figures: AgentFigures,
    /// What was last reported about it.
    pub(crate) reach: Option<Reach>,
    pub(crate) view_wait: ViewWait,
    /// When it is judged again whether an observer hears a majority, and the last judgement.
    pub(crate) hearing_due: Instant,
    pub(crate) hears_no_majority: bool,
    pub(crate) is_member: bool,
    /// What does not fit a ring stops delivery, instead of being skipped: at a member, and at an observer that gates.
    pub(crate) keeps_all: bool,
}

impl Agent {
    /// Runs until it is stopped or the port fails.
    pub(crate) fn run(mut self, mut idler: Idler) -> Result<(), PortError> {
        let mut woke_at: Option<Instant> = None;
        let mut recent = RecentCycles::default();
        let mut linger_until = None;
        loop {
            let work_count = self.do_work()?;
            let now = self.node.now();
            if let Some(before) = woke_at.replace(now) {
                let cycle_ns = now.since(before);
                self.figures.longest_cycle_ns = self.figures.longest_cycle_ns.max(cycle_ns);
                self.figures.longest_recent_cycle_ns = recent.note(now, cycle_ns);
            }
            self.counters.update(&self.node, &self.figures);
            if self.control.is_gone() {
                return Ok(()); // its panic is the node's outcome
            }
            if self.stop.is_set() {
                let until = *linger_until.get_or_insert(now + LINGER_NS);
                let is_settled = self.control.settles(&self.node);
                if now >= until || is_settled && !self.owes_messages() {
                    self.node.flush()?;
                    self.counters.copy(&self.node, &self.figures);
                    return Ok(());
                }
            }
            let stopping = linger_until.is_some();
            idler.idle(work_count, |longest| {
                woke_at = None;
                self.sleep(if stopping { LINGER_SLEEP } else { longest }, stopping)
            })?;
        }
    }

    /// Runs one round. Returns how much was done.
    fn do_work(&mut self) -> Result<usize, PortError> {
        self.figures.rounds += 1;
        if self.halts() {
            return Ok(0);
        }
        let mut work_count = self.take_publications();
        let limit = self.delivery_limit();
        let (outlets, keeps) = (&mut self.outlets, self.keeps_all);
        let mut shown = false;
        work_count += self.node.poll_at_most(limit, |delivery| {
            shown = true;
            for outlet in outlets.iter_mut().filter(|outlet| outlet.filter.wants(&delivery)) {
                outlet.put(&delivery, keeps);
            }
        })?;
        if shown {
            outlets.iter_mut().for_each(Outlet::show);
            self.figures.overruns = outlets.iter().map(|outlet| outlet.overruns.get()).sum();
        }
        // First: a lock that an application asks for because of an event is asked for after what caused the event.
        work_count += self.control.exchange(&mut self.node);
        self.figures.control_full = self.control.full;
        while self.node.process().reports_waiting() == 0
            && let Some(event) = self.node.poll_event()
        {
            work_count += 1;
            self.report(event.into());
        }
        if let Some(why) = self.node.poll_birth_problem() {
            self.report(NodeEvent::BirthNotStored(why.into()));
        }
        let standing = self.node.process().standing();
        let waits_from_ns = match standing {
            Standing::Forming | Standing::Outside => Some(0),
            Standing::Following if self.is_member => Some(FOLLOWING_NS),
            Standing::Following if self.is_unheard() => Some(FOLLOWING_NS),
            _ => None,
        };
        if let Some(waited_ns) = self.view_wait.report(self.node.now(), waits_from_ns) {
            self.report(NodeEvent::Waiting(Waiting::of(self.node.process(), self.node.now(), waited_ns)));
        }
        work_count += self.obey();
        work_count += self.post.collect(&mut self.node);
        let reach = self.node.reach();
        if reach != self.reach {
            self.reach = reach;
            reach.into_iter().for_each(|reach| self.report(NodeEvent::Reached(reach)));
        }
        Ok(work_count)
    }

    /// Whether an observer hears no majority of its view, judged at intervals.
    #[inline]
    fn is_unheard(&mut self) -> bool {
        let now = self.node.now();
        if now >= self.hearing_due {
            self.hearing_due = now + HEARING_INTERVAL_NS;
            self.hears_no_majority = self.node.process().observes_no_majority(now);
        }
        self.hears_no_majority
    }

    /// Whether this agent stands still, because its control thread does.
    #[inline]
    fn halts(&mut self) -> bool {
        // The last poll's time, while there are polls.
        let now = if self.is_halted { self.node.clock().now() } else { self.node.now() };
        let is_halted = self.control.is_halted(now, &self.node);
        if is_halted != self.is_halted {
            self.is_halted = is_halted;
            self.report(if is_halted { NodeEvent::Halted } else { NodeEvent::Resumed });
        }
        if is_halted {
            self.control.exchange(&mut self.node);
            std::thread::sleep(HALTED_SLEEP);
        }
        is_halted
    }

    fn take_publications(&mut self) -> usize {
        let (node, mut held_up, mut dropped, mut taken) = (&mut self.node, None, None, 0);
        for consumer in &mut self.publications {
            taken += consumer.read_while(TAKE_LIMIT, |_, frame| {
                let (outgoing, payload) = Published::read(frame);
                match node.try_publish_with(&outgoing, payload) {
                    Ok(_) => true,
                    Err(refusal) if held_up::may_pass(refusal) => {
                        held_up = Some(refusal);
                        false
                    }
                    Err(refusal) => {
                        dropped = Some(refusal);
                        self.figures.publications_dropped += 1;
                        true
                    }
                }
            });
        }
        held_up::write(&mut self.held_up, held_up);
        if let Some(refusal) = dropped {
            self.report(NodeEvent::PublicationDropped(refusal));
        }
        taken
    }

    /// How many messages may be delivered now.
    fn delivery_limit(&mut self) -> usize {
        if !self.keeps_all {
            return DELIVER_LIMIT;
        }
        let room_at = |outlet: &mut Outlet| if outlet.drain() { outlet.room() } else { 0 };
        let room = self.outlets.iter_mut().map(room_at).min().unwrap_or(DELIVER_LIMIT).min(DELIVER_LIMIT);
        self.figures.gated += u64::from(room == 0);
        room
    }

    fn is_gated(&mut self) -> bool {
        self.keeps_all && self.outlets.iter_mut().any(|outlet| outlet.room() == 0)
    }

    #[cold]
    fn report(&mut self, event: NodeEvent) {
        for listener in &self.listeners {
            if let Err(TrySendError::Full(_)) = listener.try_send(event.clone()) {
                self.figures.events_dropped += 1;
            }
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
            Command::Sync => {
                if let Err(refusal) = node.sync(None) {
                    self.report(NodeEvent::SyncRefused(refusal));
                }
            }
            Command::SyncForClient => {
                if let Err(refusal) = node.sync(None) {
                    self.reply(Reply::SyncRefused(refusal));
                }
            }
            Command::Leave => node.leave(),
            Command::Direct(command) => {
                let is_known = self.post.send(node, command);
                self.figures.events_dropped += u64::from(!is_known);
            }
            Command::View => {
                let report = ViewReport::of(node.process(), node.now());
                self.reply(Reply::View(Box::new(report)));
            }
        }
    }

    fn reply(&mut self, reply: Reply) {
        // Each command that waits has room for its answer; the admin thread takes all answers before it sends more.
        if let Err(TrySendError::Full(_)) = self.replies.try_send(reply) {
            self.figures.events_dropped += 1;
        }
    }

    /// Whether publications wait, or own messages are not acknowledged by all.
    fn owes_messages(&mut self) -> bool {
        let waiting = self.publications.iter_mut().any(spsc::Consumer::has_frames);
        let process = self.node.process();
        let (Some(rank), Some((open, ..))) = (process.config().rank(), process.window()) else { return false };
        let unheard = |member| process.acknowledged(bourdon_wire::Rank(member), rank) < open;
        let present = process.view().bits() & !process.suspects();
        let others = (0..process.config().members).filter(|member| *member != rank.0 && present >> member & 1 == 1);
        process.is_formed() && ({ others }.any(unheard) || waiting || process.backlog() > 0)
    }

    /// Sleeps until the network, a timer, a publisher, a subscriber or the control thread has something.
    fn sleep(&mut self, longest: Duration, stopping: bool) -> Result<(), PortError> {
        self.counters.copy(&self.node, &self.figures);
        self.sleeper.lie_down();
        let is_gated = self.is_gated();
        if is_gated {
            self.gate.lie_down();
        }
        // From here on every thread that adds work sees that it must ring; work added before is seen here.
        let publishable = self.held_up.get(0) == 0 && self.publications.iter_mut().any(spsc::Consumer::has_frames);
        let stop_is_news = self.stop.is_set() && !stopping;
        let has_room = is_gated && !self.is_gated();
        let is_commanded = self.commands.has_values() || self.control.has_orders();
        let slept = if publishable || stop_is_news || has_room || is_commanded {
            Ok(())
        } else {
            self.figures.sleeps += 1;
            self.node.wait(longest)
        };
        self.gate.get_up();
        self.sleeper.get_up();
        slept
    }
}

/// What a new outlet takes for the longest frame.
pub(crate) const fn frame_guess_bytes() -> usize {
    FRAME_GUESS_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon_ring::signal::{doorbell, watermark};
    use bourdon_wire::{Epoch, Rank, Sequence, TopicId};

    fn outlet() -> (Outlet, spsc::Consumer) {
        let (producer, consumer) = spsc::channel(1 << 16);
        let outlet = Outlet {
            producer,
            filter: Filter::default(),
            overflow: VecDeque::new(),
            overruns: watermark(0).0,
            bell: doorbell().1,
            waker: Waker::new().expect("eventfds are allowed"),
            longest_bytes: FRAME_GUESS_BYTES,
        };
        (outlet, consumer)
    }

    fn put(outlet: &mut Outlet, sequence: u64, is_member: bool) {
        let delivery = Delivery {
            sender: Rank(0),
            incarnation: bourdon_wire::Incarnation(1),
            instance: bourdon_wire::InstanceId(1),
            sequence: Sequence(sequence),
            order: None,
            epoch: Epoch(1),
            late: false,
            topic: TopicId(0),
            name: None,
            send_time_ns: 0,
            kernel_receive_ns: None,
            delivered_at: Instant(0),
            client: None,
            barrier: None,
            payload: &[7; 20_000],
        };
        outlet.put(&delivery, is_member);
    }

    #[test]
    fn a_long_round_is_recent_for_a_second_at_least_and_for_two_at_most() {
        let mut recent = RecentCycles::default();
        let begun = Instant(7 * RECENT_NS);
        assert_eq!(recent.note(begun, 10), 10);
        assert_eq!(recent.note(begun + (RECENT_NS - 1), 500), 500);
        assert_eq!(recent.note(begun + (2 * RECENT_NS - 1), 20), 500, "it is a second old");
        assert_eq!(recent.note(begun + (3 * RECENT_NS - 1), 30), 30, "it is two seconds old");
    }

    #[test]
    fn a_member_keeps_what_does_not_fit_and_hands_it_out_in_order() {
        let (mut outlet, mut consumer) = outlet();
        assert!(outlet.room() > 20, "the first batch is sized by a guess");
        (0..20).for_each(|sequence| put(&mut outlet, sequence, true));
        assert!(!outlet.overflow.is_empty() && outlet.overruns.get() == 0);
        let mut read = Vec::new();
        for _ in 0..40 {
            assert!(!outlet.drain() || outlet.overflow.is_empty());
            consumer.read(1, |_, frame| read.push(Delivered::read(frame).sequence.0));
        }
        assert_eq!(read, (0..20).collect::<Vec<_>>());
        assert!(outlet.drain() && outlet.room() < 3, "now it knows how long they are");
    }

    #[test]
    fn an_observer_counts_what_does_not_fit() {
        let (mut outlet, mut consumer) = outlet();
        (0..20).for_each(|sequence| put(&mut outlet, sequence, false));
        outlet.show();
        let count = consumer.read(usize::MAX, |_, _| {}) as u64;
        assert!(outlet.overflow.is_empty() && count > 0);
        assert_eq!(count + outlet.overruns.get(), 20);
    }

    #[test]
    fn a_subscriber_that_has_gone_blocks_no_other() {
        let (mut outlet, consumer) = outlet();
        (0..20).for_each(|sequence| put(&mut outlet, sequence, true));
        drop(consumer);
        assert!(outlet.drain() && outlet.room() == usize::MAX);
    }
}
