//! Groups that lose and gain members, in one thread on a clock that is a number: what each process delivers and hears.

use bourdon_protocol::{
    Config, Destination, Event, Order, Outgoing, Process, Refusal, Reliability, Role, Standing, Start,
};
use bourdon_wire::{Address, GroupId, Incarnation, Instant, Rank};
use std::net::SocketAddr;

const GROUP: GroupId = GroupId::of("views");
const MS: u64 = 1_000_000;

fn address(index: usize) -> Address {
    SocketAddr::from(([10, 0, 0, 1], 100 + index as u16)).into()
}

/// What a process showed its application, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Message(u16, u64, Option<u64>),
    Barrier(u64, Vec<u8>),
    View(u64, u64),
    Synced(u64),
}

struct One {
    process: Option<Process>,
    shown: Vec<Shown>,
    events: Vec<Event>,
    /// What the application keeps, and gives and takes as a snapshot.
    state: Vec<u8>,
}

struct Net {
    now: Instant,
    ones: Vec<One>,
    members: usize,
    /// From, to: whether it gets lost.
    lose: Box<dyn FnMut(usize, usize) -> bool>,
    configure: fn(&mut Config),
}

impl Net {
    fn new(members: u16, observers: u16, configure: fn(&mut Config)) -> Self {
        let mut net = Self {
            now: Instant(0),
            ones: Vec::new(),
            members: usize::from(members),
            lose: Box::new(|_, _| false),
            configure,
        };
        for index in 0..usize::from(members + observers) {
            net.ones.push(One { process: None, shown: Vec::new(), events: Vec::new(), state: Vec::new() });
            net.start(index, 1);
        }
        net
    }

    fn start(&mut self, index: usize, life: u32) {
        let role = if index < self.members { Role::Member(Rank(index as u16)) } else { Role::Observer };
        let mut config = Config::new(GROUP, self.members as u16, role);
        config.incarnation = Incarnation(life);
        config.address = address(index);
        config.snapshots = true;
        config.start = Start::Oldest;
        config.seed = index as u64 + u64::from(life) * 1000;
        config.limits.log_bytes = 1 << 20;
        config.limits.receive_log_bytes = 1 << 20;
        config.limits.window_bytes = 1 << 18;
        (self.configure)(&mut config);
        self.ones[index].process = Some(Process::new(self.now, config).unwrap());
        self.ones[index].shown.clear();
        self.ones[index].state.clear();
    }

    fn kill(&mut self, index: usize) {
        self.ones[index].process = None;
    }

    fn process(&mut self, index: usize) -> &mut Process {
        self.ones[index].process.as_mut().unwrap()
    }

    fn pump(&mut self) {
        let mut wire = Vec::new();
        for (from, one) in self.ones.iter_mut().enumerate() {
            let Some(process) = &mut one.process else { continue };
            process.transmit(self.now, |to, bytes, segment_bytes| {
                let chunks: Vec<_> = bytes.chunks(segment_bytes).map(<[u8]>::to_vec).collect();
                let count = chunks.len();
                wire.extend(chunks.into_iter().map(|datagram| (from, to, datagram)));
                count
            });
        }
        for (from, to, datagram) in wire {
            for target in 0..self.ones.len() {
                let wanted = match to {
                    Destination::Group => target != from,
                    Destination::Peer(peer) => peer == address(target),
                };
                if wanted
                    && !(self.lose)(from, target)
                    && let Some(process) = &mut self.ones[target].process
                {
                    process.on_datagram(self.now, &datagram, None);
                }
            }
        }
        for one in &mut self.ones {
            let Some(process) = &mut one.process else { continue };
            loop {
                let (shown, state) = (&mut one.shown, &mut one.state);
                let count = process.deliver(self.now, usize::MAX, |d| match d.barrier {
                    Some(phase) => shown.push(Shown::Barrier(phase, d.payload.to_vec())),
                    None => {
                        shown.push(Shown::Message(d.sender.0, d.sequence.0, d.order.map(|o| o.0)));
                        state.extend_from_slice(&d.sequence.0.to_le_bytes());
                    }
                });
                while let Some(event) = process.poll_event() {
                    match event {
                        Event::View { epoch, members, .. } => one.shown.push(Shown::View(epoch.0, members)),
                        Event::Synced { phase, .. } => one.shown.push(Shown::Synced(phase)),
                        Event::SnapshotWanted => process.give_snapshot(self.now, &one.state).unwrap(),
                        Event::SnapshotReady => one.state = process.take_snapshot().unwrap(),
                        _ => {}
                    }
                    one.events.push(event);
                }
                if count == 0 {
                    break;
                }
            }
        }
    }

    fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.pump();
            let live = || self.ones.iter().filter_map(|one| one.process.as_ref());
            let next = live().map(Process::next_deadline).min().unwrap();
            self.now = next.max(self.now + 20_000).min(end);
            for process in self.ones.iter_mut().filter_map(|one| one.process.as_mut()) {
                if process.next_deadline() <= self.now {
                    process.on_timer(self.now);
                }
            }
        }
        self.pump();
    }

    fn publish(&mut self, index: usize, payload: &[u8]) -> Result<u64, Refusal> {
        let now = self.now;
        self.process(index).try_publish(now, &Outgoing::default(), payload).map(|sequence| sequence.0)
    }

    fn messages(&self, index: usize) -> Vec<(u16, u64)> {
        let name = |shown: &Shown| if let Shown::Message(s, n, _) = shown { Some((*s, *n)) } else { None };
        self.ones[index].shown.iter().filter_map(name).collect()
    }

    fn views(&self, index: usize) -> Vec<(u64, u64)> {
        let view = |shown: &Shown| if let Shown::View(e, m) = shown { Some((*e, *m)) } else { None };
        self.ones[index].shown.iter().filter_map(view).collect()
    }
}

fn uniform(config: &mut Config) {
    config.reliability = Reliability::Uniform;
}

#[test]
fn a_group_forms_and_delivers() {
    let mut net = Net::new(3, 1, |_| {});
    net.run(100 * MS);
    for index in 0..4 {
        assert_eq!(net.views(index), [(1, 0b111)], "{index}");
    }
    for i in 0..3 {
        net.publish(i, b"x").unwrap();
    }
    net.run(20 * MS);
    for index in 0..4 {
        assert_eq!(net.messages(index).len(), 3, "{index}");
        assert_eq!(net.ones[index].shown, net.ones[0].shown);
    }
}

#[test]
fn the_survivors_of_a_crash_deliver_the_same_and_go_on() {
    for victim in 0..3 {
        for configure in [(|_: &mut Config| {}) as fn(&mut Config), uniform] {
            let mut net = Net::new(3, 2, configure);
            net.run(100 * MS);
            let mut dice = fastrand::Rng::with_seed(7);
            net.lose = Box::new(move |_, _| dice.u32(0..9) == 0);
            for i in 0..60u32 {
                for member in 0..3 {
                    net.publish(member, &i.to_le_bytes()).unwrap();
                }
                net.run(100_000);
            }
            net.kill(victim);
            let survivors: Vec<usize> = (0..3).filter(|i| *i != victim).collect();
            let mut published = [60u64; 3];
            for i in 0..6000 {
                net.run(100_000);
                for member in &survivors {
                    if i % 10 == 0 && published[*member] < 120 && net.publish(*member, b"again").is_ok() {
                        published[*member] += 1;
                    }
                }
            }
            net.run(500 * MS);
            let views = net.views(survivors[0]);
            assert_eq!(
                views.last(),
                Some(&(2, 0b111 & !(1 << victim))),
                "{victim}: {:?}",
                net.ones[survivors[0]].events
            );
            let first = net.ones[survivors[0]].shown.clone();
            for index in survivors.iter().copied().chain([3, 4]) {
                assert!(net.ones[index].shown == first, "{victim}: process {index} was shown something else");
                for member in &survivors {
                    let count = net.messages(index).iter().filter(|name| name.0 == *member as u16).count();
                    assert_eq!(count as u64, published[*member], "{victim}: of {member} at {index}");
                }
            }
        }
    }
}

#[test]
fn one_that_restarts_takes_the_state_over_and_comes_back() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    for i in 0..50u32 {
        net.publish(0, &i.to_le_bytes()).unwrap();
        net.publish(1, &i.to_le_bytes()).unwrap();
        net.run(MS);
    }
    net.kill(1);
    net.run(300 * MS);
    for i in 0..50u32 {
        net.publish(0, &i.to_le_bytes()).unwrap();
        net.run(MS);
    }
    net.start(1, 2);
    for i in 0..500u32 {
        net.publish(0, &i.to_le_bytes()).ok();
        net.run(MS);
    }
    net.run(500 * MS);
    assert_eq!(net.process(1).standing(), Standing::Member, "{:?} {:?}", net.ones[1].events, net.ones[0].events);
    assert_eq!(net.views(0).last(), Some(&(3, 0b111)));
    assert!(net.ones[1].state == net.ones[0].state && net.ones[2].state == net.ones[0].state);
    let number = net.publish(1, b"back").unwrap();
    assert_eq!(number, 50, "its messages are numbered on");
    net.run(20 * MS);
    assert!(net.ones[1].state == net.ones[0].state);
}

#[test]
fn a_barrier_stands_between_the_same_messages_everywhere() {
    for order in [Order::Fifo, Order::Total, Order::Causal, Order::Unordered] {
        let mut net = Net::new(3, 2, |_| {});
        net.configure = match order {
            Order::Fifo => |config| config.order = Order::Fifo,
            Order::Total => |config| config.order = Order::Total,
            Order::Causal => |config| config.order = Order::Causal,
            Order::Unordered => |config| config.order = Order::Unordered,
        };
        (0..5).for_each(|index| net.start(index, 1));
        net.run(100 * MS);
        let mut dice = fastrand::Rng::with_seed(7);
        net.lose = Box::new(move |_, _| dice.u32(0..7) == 0);
        for i in 0..200u32 {
            for member in 0..3 {
                net.publish(member, &i.to_le_bytes()).ok();
            }
            if i % 50 == 20 {
                let now = net.now;
                net.process(1).sync(now, (i == 20).then_some(b"between".as_slice())).unwrap();
            }
            net.run(200_000);
        }
        net.run(500 * MS);
        let parts = |index: usize| {
            let synced = |shown: &Shown| matches!(shown, Shown::Synced(_));
            let parts = net.ones[index].shown.split(synced).map(|part| {
                let mut names: Vec<_> = part.iter().map(|shown| format!("{shown:?}")).collect();
                names.sort();
                names
            });
            parts.collect::<Vec<_>>()
        };
        for index in 0..5 {
            let shown = &net.ones[index].shown;
            assert_eq!(
                parts(index).len(),
                5,
                "{order:?} {index} {:?} {:?}",
                net.ones[index].events,
                &shown[shown.len() - 5..]
            );
            assert!(parts(index) == parts(0), "{order:?}: {index} crossed a barrier");
        }
        assert!(net.ones[4].shown.contains(&Shown::Barrier(0, b"between".to_vec())), "{order:?}");
    }
}

#[test]
fn one_that_leaves_is_missed_by_nobody() {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    net.publish(0, b"last words").unwrap();
    let now = net.now;
    net.process(0).leave(now);
    net.run(50 * MS);
    assert_eq!(net.process(0).standing(), Standing::Gone, "{:?}", net.ones[0].events);
    assert_eq!(net.views(1), [(1, 0b111), (2, 0b110)]);
    assert_eq!(net.messages(2), [(0, 0)]);
    net.publish(2, b"on").unwrap();
    net.run(20 * MS);
    assert_eq!(net.messages(1), [(0, 0), (2, 0)]);
}

#[test]
fn a_minority_stops_and_says_so_and_comes_back() {
    let mut net = Net::new(5, 0, |_| {});
    net.run(100 * MS);
    net.lose = Box::new(|from, to| (from < 2) != (to < 2));
    net.run(500 * MS);
    assert_eq!(net.publish(0, b"lost"), Err(Refusal::NoMajority), "{:?}", net.ones[0].events);
    assert_eq!(net.views(2).last(), Some(&(2, 0b11100)));
    net.publish(3, b"on").unwrap();
    net.run(20 * MS);
    net.lose = Box::new(|_, _| false);
    net.run(1500 * MS);
    for index in 0..5 {
        assert_eq!(net.process(index).standing(), Standing::Member, "{index} {:?}", net.ones[index].events);
        assert_eq!(net.process(index).view().bits(), 0b11111, "{index}");
        assert!(net.ones[index].state == net.ones[3].state, "{index}");
    }
}
