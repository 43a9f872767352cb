//! One group, one instance: nothing of an earlier formation changes anything in today's, and processes that were paused
//! through a restart of all leave the older instance for the newer instance.

use crate::common::net::address;
use crate::common::{GROUP, MTU};
use bourdon_protocol::{
    Config, Counter, Destination, Event, Mutant, Outgoing, Process, Role, SnapshotAnswer, Standing, Start,
};
use bourdon_wire::{ClientId, Datagram, Incarnation, InstanceId, Instant, Kind, Rank, TopicId};

const SECOND: u64 = 1_000_000_000;

/// A process and its place: several may share a rank, as yesterday's and today's do.
pub(crate) struct TestProcess {
    pub(crate) process: Process,
    address: usize,
    pub(crate) is_paused: bool,
    /// It runs, and nothing passes between it and the others.
    pub(crate) is_cut_off: bool,
    /// How many messages its application takes yet.
    pub(crate) takes: usize,
    pub(crate) delivered: Vec<(InstanceId, u16, u64)>,
    pub(crate) events: Vec<Event>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) processes: Vec<TestProcess>,
    /// Every datagram sent, if it is recorded.
    record: Option<Vec<(Destination, Vec<u8>)>>,
    mutant: Option<Mutant>,
    run: u64,
    /// Each so many processes, in the order in which they were added, hear only each other.
    apart_by: Option<usize>,
}

impl World {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self { now: Instant(SECOND), processes: Vec::new(), record: None, mutant, run: 0, apart_by: None }
    }

    pub(crate) fn config(&self, rank: Option<u16>, place: usize) -> Config {
        let role = rank.map_or(Role::Observer, |rank| Role::Member(Rank(rank)));
        let mut config = Config::new(GROUP, 3, role);
        config.address = address(place);
        config.incarnation = Incarnation(((self.run as u32) << 16) | (place as u32 + 1));
        config.instance_candidate = InstanceId(0xABC0 + self.run);
        config.seed = self.run << 32 | place as u64;
        config.start = Start::Oldest;
        config.wall_offset_ns = 1_700_000_000 * SECOND;
        config.limits.log_bytes = 1 << 20;
        config.limits.receive_log_bytes = 1 << 20;
        config.limits.window_bytes = 1 << 18;
        config.mutant = self.mutant;
        config
    }

    pub(crate) fn add(&mut self, config: Config, place: usize) -> usize {
        let process = Process::new(self.now, config).unwrap();
        self.processes.push(TestProcess {
            process,
            address: place,
            is_paused: false,
            is_cut_off: false,
            takes: usize::MAX,
            delivered: Vec::new(),
            events: Vec::new(),
        });
        self.processes.len() - 1
    }

    /// Starts all three members, each at its own place.
    pub(crate) fn start(&mut self, first_place: usize, floor: u64) -> [usize; 3] {
        self.run += 1;
        [0, 1, 2].map(|rank| {
            let place = first_place + usize::from(rank);
            let mut config = self.config(Some(rank), place);
            config.birth_floor = floor;
            self.add(config, place)
        })
    }

    pub(crate) fn observe(&mut self, place: usize) -> usize {
        let config = self.config(None, place);
        self.add(config, place)
    }

    fn hand(&mut self, from: Option<usize>, to: Destination, datagram: &[u8]) {
        let is_cut_off = from.is_some_and(|from| self.processes[from].is_cut_off);
        for (index, one) in self.processes.iter_mut().enumerate() {
            if is_cut_off || one.is_cut_off {
                continue;
            }
            let wanted = match to {
                Destination::Group | Destination::Broadcast => Some(index) != from,
                Destination::Peer(peer) => peer == address(one.address),
            };
            let is_apart = self.apart_by.zip(from).is_some_and(|(count, from)| index / count != from / count);
            if wanted && !one.is_paused && !is_apart {
                one.process.on_datagram(self.now, datagram, None);
            }
        }
    }

    fn pump(&mut self) {
        let mut wire = Vec::new();
        for (from, one) in self.processes.iter_mut().enumerate().filter(|(_, one)| !one.is_paused) {
            one.process.transmit(self.now, |to, bytes, segment_bytes| {
                let chunks: Vec<_> = bytes.chunks(segment_bytes).map(<[u8]>::to_vec).collect();
                let count = chunks.len();
                wire.extend(chunks.into_iter().map(|datagram| (from, to, datagram)));
                count
            });
        }
        for (from, to, datagram) in wire {
            self.hand(Some(from), to, &datagram);
            if let Some(record) = &mut self.record {
                record.push((to, datagram));
            }
        }
        let now = self.now;
        for one in self.processes.iter_mut().filter(|one| !one.is_paused) {
            loop {
                let delivered = &mut one.delivered;
                let count = one.process.deliver(now, one.takes, |delivery| {
                    delivered.push((delivery.instance, delivery.sender.0, delivery.sequence.0));
                });
                one.takes = one.takes.saturating_sub(count);
                while let Some(event) = one.process.poll_event() {
                    one.events.push(event);
                }
                let _ = one.process.take_snapshot();
                if let Some(ticket) = one.process.begin_snapshot(now) {
                    one.process.finish_snapshot(now, ticket, SnapshotAnswer::State(Vec::new()));
                }
                if count == 0 {
                    break;
                }
            }
        }
    }

    pub(crate) fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.pump();
            self.now = (self.now + 500_000).min(end);
            let now = self.now;
            for one in self.processes.iter_mut().filter(|one| !one.is_paused && one.process.next_deadline() <= now) {
                one.process.on_timer(now);
            }
        }
        self.pump();
    }

    pub(crate) fn publish(&mut self, index: usize, count: usize) {
        for _ in 0..count {
            let now = self.now;
            self.processes[index].process.try_publish(now, &Outgoing::default(), b"message").unwrap();
        }
    }

    pub(crate) fn are_members(&self, indices: &[usize]) -> bool {
        let first = self.processes[indices[0]].process.view();
        let is_in = |index: &usize| {
            let process = &self.processes[*index].process;
            process.standing() == Standing::Member && process.view() == first
        };
        first.members.len() == 3 && indices.iter().all(is_in)
    }

    pub(crate) fn instance(&self, index: usize) -> InstanceId {
        self.processes[index].process.view().instance
    }

    pub(crate) fn heard(&self, index: usize, is_it: impl Fn(&Event) -> bool) -> bool {
        self.processes[index].events.iter().any(is_it)
    }
}

#[test]
fn a_group_forms_with_the_proposers_candidate_and_a_birth_above_every_floor() {
    let mut world = World::new(None);
    let all = world.start(0, 0);
    world.run(SECOND);
    assert!(world.are_members(&all));
    let view = world.processes[0].process.view().clone();
    assert_eq!(view.instance, InstanceId(0xABC1));
    assert!(view.birth >= 1_700_000_001_000 && view.birth < 1_700_000_002_000, "{}", view.birth);
    // One founding member knows of a birth in the future: the next birth is above it, and so is every token.
    let mut world = World::new(None);
    let mut processes = Vec::new();
    for rank in 0..3 {
        let mut config = world.config(Some(rank), rank.into());
        config.birth_floor = if rank == 2 { 2_000_000_000_000 } else { 0 };
        processes.push(world.add(config, rank.into()));
    }
    world.run(SECOND);
    assert!(world.are_members(&processes));
    assert_eq!(world.processes[0].process.view().birth, 2_000_000_000_064);
    assert_eq!(world.processes[1].process.birth_floor(), 2_000_000_000_064);
}

/// Yesterday's group ran, changed its view, and was recorded; today's runs. Everything recorded comes again.
fn replayed(mutant: Option<Mutant>) -> (World, [usize; 3]) {
    let mut world = World::new(mutant);
    world.record = Some(Vec::new());
    let yesterday = world.start(0, 0);
    world.run(SECOND);
    world.publish(yesterday[0], 5);
    world.run(SECOND);
    let now = world.now;
    world.processes[yesterday[2]].process.leave(now);
    world.run(SECOND);
    assert_eq!(world.processes[yesterday[0]].process.view().members.len(), 2);
    let record = world.record.take().unwrap();
    world.processes.clear();
    let today = world.start(0, 0);
    world.run(SECOND);
    assert!(world.are_members(&today));
    world.publish(today[0], 1);
    world.run(SECOND / 10);
    // Twice: a view that is shown once removes no member, which waits for the decision.
    for some in record.chunks(20).chain(record.chunks(20)) {
        // To every process: an address proves nothing.
        some.iter().for_each(|(_, datagram)| world.hand(None, Destination::Group, datagram));
        world.run(5_000_000);
    }
    world.run(SECOND);
    (world, today)
}

#[test]
fn frames_recorded_before_the_restart_remove_no_member_and_deliver_nothing() {
    let (world, today) = replayed(None);
    assert!(world.are_members(&today));
    for index in today {
        assert_eq!(world.processes[index].delivered, [(InstanceId(0xABC2), 0, 0)]);
        assert!(world.processes[index].process.counters().get(Counter::DiscardedInstance) > 100);
        assert!(!world.heard(index, |event| matches!(event, Event::Removed(_) | Event::Superseded { .. })));
    }
    // The same, where the instance is not checked.
    let (world, today) = replayed(Some(Mutant::OtherInstanceBelieved));
    let removed = |index: &usize| world.heard(*index, |event| matches!(event, Event::Removed(_)));
    assert!(!world.are_members(&today) || today.iter().any(removed), "the bug does not show");
}

#[test]
fn processes_of_yesterday_that_are_resumed_are_superseded_and_take_nothing_over() {
    let mut world = World::new(None);
    let yesterday = world.start(0, 0);
    world.run(SECOND);
    world.publish(yesterday[1], 5);
    world.run(SECOND);
    for index in yesterday {
        world.processes[index].is_paused = true;
    }
    let today = world.start(10, 0);
    world.run(SECOND);
    assert!(world.are_members(&today));
    world.publish(today[0], 500);
    world.run(SECOND);
    let new = world.instance(today[0]);
    for index in &yesterday[1..] {
        world.processes[*index].is_paused = false;
    }
    world.run(3 * SECOND);
    assert!(world.are_members(&today) && world.instance(today[0]) == new);
    for index in today {
        assert_eq!(world.processes[index].delivered.len(), 500);
        assert!(!world.heard(index, |event| matches!(event, Event::Removed(_) | Event::Superseded { .. })));
    }
    for index in &yesterday[1..] {
        assert!(world.heard(*index, |event| *event == Event::Superseded { instance: new }), "{:?}", {
            &world.processes[*index].events
        });
        assert_ne!(world.processes[*index].process.standing(), Standing::Member);
    }
}

/// Three teams chose one name, and their networks meet. The newer groups took the older groups' members away, and of
/// two other groups neither was reported.
#[test]
fn groups_that_formed_apart_stay_apart_and_each_reports_every_other() {
    let mut world = World::new(None);
    world.apart_by = Some(3);
    let groups = [0, 10, 20].map(|place| {
        let group = world.start(place, 0);
        world.run(2 * SECOND);
        group
    });
    let instances = groups.map(|group| world.instance(group[0]));
    world.apart_by = None;
    world.run(10 * SECOND);
    for (group, own) in groups.into_iter().zip(instances) {
        assert!(world.are_members(&group));
        for index in group {
            assert_eq!(world.instance(index), own);
            let reported = world.processes[index].events.iter().filter_map(|event| match event {
                Event::OtherInstance { own: here, other, .. } if *here == own => Some(*other),
                _ => None,
            });
            let mut reported: Vec<_> = reported.collect();
            reported.sort();
            let others: Vec<_> = instances.into_iter().filter(|other| *other != own).collect();
            assert_eq!(reported, others, "{index}");
            assert!(!world.heard(index, |event| matches!(event, Event::Superseded { .. } | Event::Removed(_))));
        }
    }
}

#[test]
fn an_observer_does_not_follow_a_frozen_member_of_a_dead_group_and_reports_the_change() {
    let mut world = World::new(None);
    let yesterday = world.start(0, 0);
    let follower = world.observe(5);
    world.run(SECOND);
    world.publish(yesterday[0], 5);
    world.run(SECOND);
    assert_eq!(world.processes[follower].delivered.len(), 5);
    let old = world.instance(follower);
    for index in yesterday {
        world.processes[index].is_paused = true;
    }
    // One member is resumed; an observer that comes now does not follow it.
    world.processes[yesterday[0]].is_paused = false;
    let late = world.observe(6);
    world.run(2 * SECOND);
    assert_eq!(world.processes[late].process.standing(), Standing::Outside);
    let today = world.start(10, 0);
    world.run(3 * SECOND);
    assert!(world.are_members(&today));
    let new = world.instance(today[0]);
    world.publish(today[0], 7);
    world.run(SECOND);
    assert!(world.heard(follower, |event| *event == Event::NewInstance { from: old, to: new }));
    for index in [follower, late] {
        assert_eq!(world.instance(index), new);
        let of_today = world.processes[index].delivered.iter().filter(|(instance, ..)| *instance == new);
        assert_eq!(of_today.count(), 7);
    }
    assert!(!world.heard(follower, |event| matches!(event, Event::Retracted { .. })));
}

#[test]
fn a_recording_of_a_newer_instance_moves_no_process() {
    // Yesterday's clocks were ahead: its birth is higher, and only its heartbeats are left.
    let mut world = World::new(None);
    world.record = Some(Vec::new());
    let yesterday = world.start(0, 2_000_000_000_000);
    world.run(2 * SECOND);
    assert!(world.are_members(&yesterday));
    let record = world.record.take().unwrap();
    world.processes.clear();
    let today = world.start(0, 0);
    world.run(SECOND);
    for _ in 0..5 {
        for (_, datagram) in record.iter().rev().take(400) {
            world.hand(None, Destination::Group, datagram);
        }
        world.run(SECOND / 10);
    }
    assert!(world.are_members(&today));
    assert!(today.iter().all(|index| !world.heard(*index, |event| matches!(event, Event::Superseded { .. }))));
}

#[test]
fn requests_of_a_client_recorded_yesterday_deliver_nothing_and_a_living_client_goes_on() {
    let mut requests: Vec<Vec<u8>> = Vec::new();
    let mut world = World::new(None);
    let mut client = bourdon_protocol::Client::new(world.now, GROUP, ClientId(77), address(20), MTU);
    let mut delivered = Vec::new();
    for _ in 0..2 {
        world.processes.clear();
        let all = world.start(0, 0);
        world.run(SECOND);
        assert!(world.are_members(&all));
        for request in &requests {
            world.hand(None, Destination::Peer(address(0)), request);
        }
        world.run(SECOND / 10);
        assert_eq!(world.processes[0].delivered, [], "a recording was taken");
        for _ in 0..5 {
            client.publish(TopicId(0), b"order");
        }
        for _ in 0..100 {
            world.record = Some(Vec::new());
            world.run(SECOND / 100);
            for (to, datagram) in world.record.take().unwrap() {
                if matches!(to, Destination::Group) || to == Destination::Peer(address(20)) {
                    client.on_datagram(world.now, &datagram, to == Destination::Group);
                }
            }
            let mut out = Vec::new();
            client.transmit(world.now, |to, bytes, _| {
                out.push((to, bytes.to_vec()));
                1
            });
            for (to, request) in out {
                world.hand(None, to, &request);
                requests.push(request);
            }
        }
        assert!(client.is_idle());
        delivered.push(world.processes[1].delivered.len());
    }
    assert_eq!(delivered, [5, 5]);
    assert!(requests.iter().all(|bytes| Datagram::parse(bytes, GROUP).unwrap().has(Kind::ClientRequest)));
}

#[test]
fn births_grow_over_restarts_of_all_with_a_stored_floor_and_with_the_clock_alone() {
    let mut births = Vec::new();
    let mut world = World::new(None);
    for run in 0..6 {
        world.processes.clear();
        // Every other time the clock was set back by a day, and the floor was stored.
        let floor = births.last().copied().filter(|_| run % 2 == 1).unwrap_or(0);
        world.run += 1;
        let all = [0, 1, 2].map(|rank| {
            let mut config = world.config(Some(rank), rank.into());
            config.birth_floor = floor;
            config.wall_offset_ns -= if run % 2 == 1 { 86_400 * SECOND } else { 0 };
            world.add(config, rank.into())
        });
        world.run(SECOND);
        assert!(world.are_members(&all));
        births.push(world.processes[0].process.view().birth);
    }
    assert!(births.windows(2).all(|pair| pair[0] < pair[1]), "{births:?}");
}

/// Heartbeats alone prove nothing: a recording, or a forgery, of an instance with a later birth must not move the birth
/// that the next group has to exceed, or its tokens could reach their end.
#[test]
fn heartbeats_alone_raise_no_birth() {
    let mut world = World::new(None);
    world.record = Some(Vec::new());
    let later = world.start(0, 2_000_000_000_000);
    world.run(SECOND);
    assert!(world.are_members(&later));
    let record = world.record.take().unwrap();
    world.processes.clear();
    let today = world.start(0, 0);
    world.run(SECOND);
    assert!(world.are_members(&today));
    let birth = world.processes[today[0]].process.view().birth;
    for some in record.chunks(20) {
        some.iter().for_each(|(_, datagram)| world.hand(None, Destination::Group, datagram));
        world.run(5_000_000);
    }
    for index in today {
        assert_eq!(world.processes[index].process.birth_floor(), birth);
    }
}

/// No founding member's birth is accepted if it is so far in the future that tokens would soon end.
#[test]
fn an_absurd_birth_is_not_built_upon() {
    let mut world = World::new(None);
    let processes = world.start(0, (1 << 48) - 1);
    world.run(SECOND);
    assert!(world.are_members(&processes));
    let birth = world.processes[processes[0]].process.view().birth;
    assert!(birth < 1_700_000_010_000, "{birth}");
}

/// A majority of an older instance that was frozen and resumed is alive. A process that was in a later instance waits
/// for that one, and joins the older instance only when the later has stayed silent.
#[test]
fn a_process_that_was_in_a_later_instance_waits_for_it_beside_an_older_one() {
    for (floor, waits) in [(0, false), (2_000_000_000_000, true)] {
        let mut world = World::new(None);
        let older = world.start(0, 0);
        world.run(SECOND);
        assert!(world.are_members(&older));
        world.processes[older[2]].is_paused = true;
        world.run(SECOND);
        let mut config = world.config(Some(2), 7);
        config.birth_floor = floor;
        let restarted = world.add(config, 7);
        world.run(5 * SECOND);
        assert_eq!(world.are_members(&[older[0], older[1], restarted]), !waits);
        let event = Event::OlderInstance { instance: world.processes[older[0]].process.view().instance };
        assert_eq!(world.processes[restarted].events.contains(&event), waits);
        if waits {
            world.run(6 * SECOND);
            assert!(world.are_members(&[older[0], older[1], restarted]), "the later instance stayed silent");
        }
    }
}

/// The process joined the older instance after a wait, and waited again after each removal from it.
#[test]
fn issue_a_process_waited_for_a_later_instance_at_each_removal_from_the_older_one() {
    let mut world = World::new(None);
    let older = world.start(0, 0);
    world.run(SECOND);
    world.processes[older[2]].is_paused = true;
    world.run(SECOND);
    let mut config = world.config(Some(2), 7);
    config.birth_floor = 2_000_000_000_000;
    let joiner = world.add(config, 7);
    world.run(12 * SECOND);
    let members = [older[0], older[1], joiner];
    assert!(world.are_members(&members), "the later instance stayed silent");
    for removals in 1..=2 {
        world.processes[joiner].is_cut_off = true;
        world.run(SECOND);
        world.processes[joiner].is_cut_off = false;
        world.run(2 * SECOND);
        let events = &world.processes[joiner].events;
        let count = |is_it: fn(&Event) -> bool| events.iter().filter(|event| is_it(event)).count();
        assert_eq!(count(|event| matches!(event, Event::Removed(_))), removals, "{events:?}");
        assert_eq!(count(|event| matches!(event, Event::OlderInstance { .. })), 1, "{events:?}");
        assert!(world.are_members(&members), "{events:?}");
    }
}
