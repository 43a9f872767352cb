//! The control plane on another thread: what it and the process hand to each other is late by any time.

use crate::common::{Bench, Effect, Step, To, Value, data, deliver, in_epoch, message, port, row, run, sends_control};
use bourdon_protocol::{
    ControlPlane, Coordination, CoordinationRefusal, Counter, Event, FromControl, LockNews, Loss, MutexKind, Order,
    Participation, Patience, Role,
};
use bourdon_wire::records::ballot_steps::{DECIDE, PREPARE};
use bourdon_wire::{Epoch, Rank, TopicName};

fn name() -> TopicName {
    TopicName::new("one").unwrap()
}

/// A member, and its control plane apart from it.
struct Apart {
    bench: Bench,
    control: Box<ControlPlane>,
}

impl Apart {
    /// The member of rank 1.
    fn new(order: Order, members: u16, mutex: MutexKind) -> Self {
        Self::of_rank(1, order, members, mutex)
    }

    fn of_rank(rank: u16, order: Order, members: u16, mutex: MutexKind) -> Self {
        let mut config = Bench::config(order, members, Role::Member(Rank(rank)));
        config.mutex = mutex;
        let mut bench = Bench::with(config).formed();
        for other in (0..members).filter(|other| *other != rank) {
            bench.take(&bench.heartbeat(other, |beat| beat.heard_from = ((1 << members) - 1).into()));
        }
        bench.settle();
        let control = bench.process.release_control();
        Self { bench, control }
    }

    /// The control plane takes what the process has reported.
    fn report(&mut self) {
        while let Some(report) = self.bench.process.poll_report() {
            self.control.take(self.bench.now, report);
        }
    }

    /// What the control plane gives.
    fn orders(&mut self) -> Vec<FromControl> {
        let mut orders = Vec::new();
        self.control.transmit(self.bench.now, |order| orders.push(order));
        orders
    }

    fn obey(&mut self, orders: Vec<FromControl>) {
        orders.into_iter().for_each(|order| self.bench.process.obey(self.bench.now, order));
    }

    /// Everything that either side gives reaches the other, until there is nothing more.
    fn exchange(&mut self) {
        loop {
            self.report();
            let orders = self.orders();
            if orders.is_empty() {
                return;
            }
            self.obey(orders);
        }
    }

    /// The process receives a datagram, and what both sides make of it reaches the other.
    fn take(&mut self, bytes: &[u8]) {
        self.bench.take(bytes);
        self.exchange();
    }

    fn news(&mut self) -> Vec<Coordination> {
        std::iter::from_fn(|| self.control.coordinator.poll_news()).collect()
    }

    fn links_sent(&mut self) -> usize {
        let is_link = |effect: &Effect| matches!(effect, Effect::Control(what, _) if what.starts_with("link"));
        self.bench.effects().iter().filter(|effect| is_link(effect)).count()
    }

    /// All go on to the next view.
    fn change_view(&mut self) {
        let epoch = self.bench.process.view().epoch;
        self.take(&Step::of(PREPARE, (1, 0)).from(0));
        self.take(&Step::with(DECIDE, (1, 0), Value(&[0, 1, 2], 0, &[0, 0, 0])).from(0));
        self.bench.effects();
        assert_eq!(self.bench.process.view().epoch, epoch.next());
    }
}

#[test]
fn a_promise_leaves_only_after_the_data_plane_has_stopped() {
    let mut apart = Apart::new(Order::Fifo, 3, MutexKind::Central);
    apart.exchange();
    apart.bench.news();
    apart.bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    apart.report();
    let orders = apart.orders();
    apart.bench.take(&data(0, 0, 0, 0, &[message(b"0:0")]));
    assert_eq!(apart.bench.news(), [deliver("0:0")], "nothing is promised yet");
    apart.obey(orders);
    apart.bench.take(&data(0, 1, 1, 0, &[message(b"0:1")]));
    assert_eq!(apart.bench.news(), [], "it has stopped; the promise waits until that was reported");
    apart.exchange();
    assert_eq!(apart.bench.news(), [sends_control("state 1.0 holds 1,0,0", To::Port(port(0)))]);
}

#[test]
fn what_follows_a_decision_in_one_batch_is_kept() {
    let mut apart = Apart::new(Order::Fifo, 3, MutexKind::Central);
    apart.take(&Step::of(PREPARE, (1, 0)).from(0));
    apart.bench.news();
    apart.bench.take(&Step::with(DECIDE, (1, 0), Value(&[0, 1, 2], 0, &[0, 0, 0])).from(0));
    apart.bench.take(&in_epoch(&data(0, 0, 0, 0, &[message(b"0:0")]), 2));
    assert_eq!(apart.bench.news(), [], "the control plane has not heard of the decision");
    apart.exchange();
    let mut news = apart.bench.news(); // up to the view's event
    news.extend(apart.bench.news());
    assert!(news.contains(&deliver("0:0")), "{news:?}");
    let asks = |effect: &Effect| matches!(effect, Effect::Control(what, _) if what.starts_with("nak"));
    assert!(!news.iter().any(asks), "nothing was lost: {news:?}");
}

/// Forged steps need no more than a member's address, and a control thread takes them one by one.
#[test]
fn a_flood_of_steps_leaves_room_for_other_reports() {
    let mut apart = Apart::new(Order::Fifo, 3, MutexKind::Central);
    apart.exchange();
    apart.bench.news();
    for _ in 0..10_000 {
        apart.bench.take(&Step::of(PREPARE, (1, 0)).from(0));
    }
    let waiting = apart.bench.process.reports_waiting();
    assert!(waiting < 1100, "{waiting} reports wait");
    let dropped = apart.bench.process.counters().get(Counter::DroppedSteps);
    assert!(dropped > 8_900, "{dropped} were dropped");
    // A decision has room beside them.
    apart.take(&Step::with(DECIDE, (1, 0), Value(&[0, 1, 2], 0, &[0, 0, 0])).from(0));
    apart.bench.effects();
    assert_eq!(apart.bench.process.view().epoch, Epoch(2));
    assert_eq!(apart.bench.process.counters().get(Counter::DroppedSteps), dropped);
}

#[test]
fn a_flood_of_decisions_is_bounded_too() {
    let mut apart = Apart::new(Order::Fifo, 3, MutexKind::Central);
    apart.exchange();
    for _ in 0..10_000 {
        apart.bench.take(&Step::with(DECIDE, (1, 0), Value(&[0, 1, 2], 0, &[0, 0, 0])).from(0));
    }
    let waiting = apart.bench.process.reports_waiting();
    assert!(waiting < 2200, "{waiting} reports wait");
    apart.exchange();
    apart.bench.effects();
    assert_eq!(apart.bench.process.view().epoch, Epoch(2));
}

#[test]
fn a_link_message_of_an_earlier_view_is_not_sent() {
    let mut apart = Apart::new(Order::Fifo, 3, MutexKind::Central);
    apart.control.tend(apart.bench.now + 1_000_000_000);
    let late = apart.orders();
    assert!(!late.is_empty(), "what it announces is repeated until it is acknowledged");
    apart.change_view();
    assert_eq!(apart.bench.process.view().epoch, Epoch(2));
    apart.obey(late);
    assert_eq!(apart.links_sent(), 0, "it would count as the first of this view");
    apart.report();
    let orders = apart.orders();
    apart.obey(orders);
    assert_eq!(apart.links_sent(), 2, "this view's announcement, to each of the others");
}

#[test]
fn a_grant_waits_until_a_quorum_is_reported() {
    let mut apart = Apart::new(Order::Total, 5, MutexKind::Replicated);
    let id = apart.control.coordinator.lock(name(), Patience::Forever).unwrap();
    let orders = apart.orders();
    apart.obey(orders);
    apart.bench.effects();
    apart.bench.take(&data(0, 0, 0, 0, &[run(1, 0, 1)]));
    apart.bench.effects();
    apart.report();
    assert_eq!(apart.news(), [], "two of five hold it");
    apart.bench.take(&row(2, &[(1, 0), (1, 0), (0, 0), (0, 0), (0, 0)]));
    assert_eq!(apart.news(), [], "that was not reported yet");
    apart.report();
    let news = apart.news();
    assert!(matches!(news[..], [Coordination::Lock(of, LockNews::Granted(_))] if of == id), "{news:?}");
}

#[test]
fn a_command_given_before_the_removal_is_not_published_after_it() {
    let mut apart = Apart::new(Order::Total, 3, MutexKind::Replicated);
    apart.control.coordinator.lock(name(), Patience::Forever).unwrap();
    let late = apart.orders();
    apart.take(&Step::of(PREPARE, (1, 0)).from(0));
    apart.take(&Step::with(DECIDE, (1, 0), Value(&[0, 2], 0, &[0, 0, 0])).from(0));
    apart.bench.effects();
    apart.obey(late);
    assert!(!apart.bench.process.has_to_send(), "this incarnation publishes nothing any more");
    apart.report();
    let news = apart.news();
    assert!(matches!(news[..], [Coordination::Lock(_, LockNews::Lost(Loss::Removed))]), "{news:?}");
}

#[test]
fn a_process_that_has_left_reports_it() {
    let mut apart = Apart::of_rank(0, Order::Total, 1, MutexKind::Replicated);
    apart.report();
    apart.bench.process.leave(apart.bench.now);
    for _ in 0..3 {
        apart.exchange();
        apart.bench.wait(1_000_000_000);
    }
    let effects = apart.bench.effects();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Event(Event::Left(_)))), "{effects:?}");
    apart.report();
    assert!(apart.control.coordinator.has_left(), "no timer runs any more, and callers wait for this");
}

/// Its data plane stood still for a moment, and no other member has suspected it.
#[test]
fn a_leader_leads_again_after_a_silence() {
    let mut apart = Apart::of_rank(0, Order::Total, 1, MutexKind::Replicated);
    apart.report();
    apart.control.coordinator.elect(name(), Participation::Campaign).unwrap();
    assert!(apart.control.coordinator.leader(&name()).is_some());
    apart.news();
    apart.control.coordinator.note_silence(true);
    assert_eq!(apart.control.coordinator.leader(&name()), None);
    apart.control.coordinator.note_silence(false);
    assert!(apart.control.coordinator.leader(&name()).is_some());
}

#[test]
fn a_silent_data_plane_fences() {
    let mut apart = Apart::new(Order::Total, 3, MutexKind::Replicated);
    let id = apart.control.coordinator.lock(name(), Patience::Forever).unwrap();
    apart.control.coordinator.note_silence(true);
    let lost = Coordination::Lock(id, LockNews::Lost(Loss::Stalled));
    assert_eq!(apart.news(), [lost]);
    let refused = apart.control.coordinator.lock(name(), Patience::Forever);
    assert_eq!(refused.err(), Some(CoordinationRefusal::NoMajority));
    apart.control.coordinator.note_silence(false);
    assert!(apart.control.coordinator.lock(name(), Patience::Forever).is_ok(), "it is heard again");
}
