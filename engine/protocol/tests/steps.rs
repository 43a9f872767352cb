//! The step contract from outside: what goes in, and exactly what comes out.

use bourdon_protocol::{Config, Counter, Destination, Event, HeldBy, Order, Outgoing, Process, Ranks, Refusal, Role};
use bourdon_wire::{Address, Epoch, GroupId, Incarnation, Instant, Rank, TopicId};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Sender, sequence, order number, bytes.
type Delivered = (u16, u64, Option<u64>, Vec<u8>);
type Lose = Box<dyn FnMut(usize, &[u8]) -> bool>;

/// Some processes and a network that loses what the test wants.
struct Net {
    processes: Vec<Process>,
    now: Instant,
    queue: VecDeque<(usize, Vec<u8>)>,
    delivered: Vec<Vec<Delivered>>,
    events: Vec<Vec<Event>>,
    lose: Lose,
}

fn address(index: usize) -> Address {
    SocketAddr::from(([127, 0, 0, 1], 1000 + index as u16)).into()
}

impl Net {
    fn new(members: u16, observers: u16, order: Order) -> Self {
        let roles = (0..members).map(|r| Role::Member(Rank(r))).chain((0..observers).map(|_| Role::Observer));
        let processes = roles.enumerate().map(|(index, role)| {
            let mut config = Config::new(GroupId::of("test"), members, role);
            config.order = order;
            config.address = address(index);
            config.incarnation = Incarnation(index as u32 + 1);
            Process::new(Instant(0), config).unwrap()
        });
        let processes: Vec<_> = processes.collect();
        let (delivered, events) = (vec![Vec::new(); processes.len()], vec![Vec::new(); processes.len()]);
        Self { processes, now: Instant(0), queue: VecDeque::new(), delivered, events, lose: Box::new(|_, _| false) }
    }

    fn pump(&mut self) {
        for index in 0..self.processes.len() {
            let count = self.processes.len();
            let queue = &mut self.queue;
            self.processes[index].transmit(self.now, |to, bytes, segment_bytes| {
                for datagram in bytes.chunks(segment_bytes) {
                    for target in 0..count {
                        let wanted = match to {
                            Destination::Group | Destination::Broadcast => target != index,
                            Destination::Peer(peer) => peer == address(target),
                        };
                        if wanted {
                            queue.push_back((target, datagram.to_vec()));
                        }
                    }
                }
                bytes.len().div_ceil(segment_bytes)
            });
        }
        while let Some((target, datagram)) = self.queue.pop_front() {
            if !(self.lose)(target, &datagram) {
                self.processes[target].on_datagram(self.now, &datagram, None);
            }
        }
        let shown = self.delivered.iter_mut().zip(&mut self.events);
        for (process, (delivered, events)) in self.processes.iter_mut().zip(shown) {
            if self.now.0.is_multiple_of(20_000) {
                process.order(self.now);
            }
            loop {
                let count = process.deliver(self.now, usize::MAX, |d| {
                    delivered.push((d.sender.0, d.sequence.0, d.order.map(|o| o.0), d.payload.to_vec()));
                });
                events.extend(std::iter::from_fn(|| process.poll_event()));
                if count == 0 {
                    break;
                }
            }
        }
    }

    /// Runs until `ns` have passed.
    fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.pump();
            let next = self.processes.iter().map(Process::next_deadline).min().unwrap();
            self.now = next.max(self.now + 10_000).min(end);
            for process in &mut self.processes {
                if process.next_deadline() <= self.now {
                    process.on_timer(self.now);
                }
            }
        }
        self.pump();
    }

    fn publish(&mut self, index: usize, payload: &[u8]) -> Result<(), Refusal> {
        let outgoing = Outgoing { topic: TopicId(7), ..Outgoing::default() };
        self.processes[index].try_publish(self.now, &outgoing, payload).map(drop)
    }
}

#[test]
fn total_order_is_the_same_everywhere_through_loss() {
    let mut net = Net::new(3, 2, Order::Total);
    net.run(100_000_000);
    for events in &net.events {
        assert_eq!(events[0].to_string(), "view 1: members 0, 1, 2, sequencer 0");
    }
    let mut count = 0u32;
    net.lose = Box::new(move |_, _| {
        count += 1;
        count.is_multiple_of(11)
    });
    let large = vec![9u8; 10_000];
    for i in 0..200u32 {
        for member in 0..3 {
            let small = i.to_le_bytes();
            net.publish(member, if i % 50 == 7 { &large } else { &small }).unwrap();
        }
        net.run(50_000);
    }
    net.run(1_000_000_000);
    assert_eq!(net.delivered[0].len(), 600);
    for (index, (_, _, order, _)) in net.delivered[0].iter().enumerate() {
        assert_eq!(*order, Some(index as u64));
    }
    for delivered in &net.delivered {
        assert!(*delivered == net.delivered[0]);
    }
    assert!(net.processes[4].counters().get(Counter::RepairsReceived) > 0);
    assert_eq!(net.processes[4].counters().get(Counter::Gaps), 0);
}

#[test]
fn every_order_delivers_everything_once_through_loss() {
    for order in [Order::Unordered, Order::Fifo, Order::Causal] {
        let mut net = Net::new(3, 1, order);
        net.run(100_000_000);
        let mut count = 0u32;
        net.lose = Box::new(move |_, _| {
            count += 1;
            count.is_multiple_of(7)
        });
        for i in 0..300u32 {
            for member in 0..3 {
                net.publish(member, &i.to_le_bytes()).unwrap();
            }
            net.run(20_000);
        }
        net.run(1_000_000_000);
        for delivered in &net.delivered {
            let mut names: Vec<_> = delivered.iter().map(|d| (d.0, d.1)).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!((names.len(), delivered.len()), (900, 900), "{order:?}");
        }
    }
}

#[test]
fn a_silent_member_is_suspected_and_left_out() {
    let mut net = Net::new(3, 0, Order::Total);
    assert_eq!(net.publish(0, b"early"), Err(Refusal::Forming { missing: Ranks(0b110) }));
    net.run(100_000_000);
    net.publish(0, b"now").unwrap();
    net.run(1_000_000);
    net.events.iter_mut().for_each(Vec::clear);
    net.lose = Box::new(|target, _| target == 0);
    net.run(1_000_000_000);
    // A process that hears no member suspects both others and can't decide alone; these go on without it.
    let reported = std::mem::take(&mut net.events[0]);
    for rank in [1, 2] {
        assert!(
            reported.iter().any(|event| matches!(event, Event::Suspected(Rank(r), _) if *r == rank)),
            "{reported:?}"
        );
    }
    assert!(reported.contains(&Event::NoMajority), "{reported:?}");
    assert_eq!(net.publish(0, b"late"), Err(Refusal::NoMajority { missing: Ranks(0b110) }));
    let (members, failed) = (Ranks(0b110), Ranks(1));
    let view = Event::View { epoch: Epoch(2), members, sequencer: Rank(1), left: Ranks::default(), failed };
    for rank in [1, 2] {
        let reported = std::mem::take(&mut net.events[rank]);
        assert_eq!(reported.last(), Some(&view), "{reported:?}");
        net.publish(rank, b"on").unwrap();
    }
    // It hears them again: it learns that it was removed, and comes back as another member.
    net.lose = Box::new(|_, _| false);
    net.run(2_000_000_000);
    let reported = std::mem::take(&mut net.events[0]);
    assert!(reported.contains(&Event::Removed(Epoch(2))), "{reported:?}");
    assert_eq!(net.processes[0].view().bits(), 0b111);
    net.publish(0, b"back").unwrap();
}

#[test]
fn the_window_refuses_and_opens_again() {
    let mut net = Net::new(2, 0, Order::Total);
    net.run(100_000_000);
    let payload = [1u8; 1000];
    let mut taken = 0u64;
    while net.publish(0, &payload).is_ok() {
        taken += 1;
    }
    let (open, limit, slowest) = net.processes[0].window().unwrap();
    assert!(open <= limit && taken > 1000 && slowest == Some(HeldBy::Member(Rank(1))), "{open:?} {limit:?} {taken}");
    net.run(10_000_000);
    assert!(net.publish(0, &payload).is_ok());
    net.run(1_000_000_000);
    assert_eq!(net.delivered[1].len() as u64, taken + 1);
}

#[test]
fn the_sequencer_delivers_before_it_sends_and_answers_in_the_same_datagram() {
    let mut net = Net::new(2, 0, Order::Total);
    net.run(100_000_000);
    net.publish(1, b"question").unwrap();
    let mut question = Vec::new();
    net.processes[1].transmit(net.now, |_, bytes, _| {
        question = bytes.to_vec();
        1
    });
    let (now, sequencer) = (net.now, &mut net.processes[0]);
    sequencer.on_datagram(now, &question, None);
    sequencer.order(now);
    let mut delivered = Vec::new();
    sequencer.deliver(now, usize::MAX, |d| delivered.push((d.order.unwrap().0, d.payload.to_vec())));
    assert_eq!(delivered, [(0, b"question".to_vec())]);
    net.publish(0, b"answer").unwrap();
    let mut sent = Vec::new();
    net.processes[0].transmit(now, |to, bytes, _| {
        sent.push((to, bytes.to_vec()));
        1
    });
    assert_eq!(sent.len(), 1, "the order run and the reply share a datagram");
    net.processes[1].on_datagram(now, &sent[0].1, None);
    for process in &mut net.processes {
        process.deliver(now, usize::MAX, |d| delivered.push((d.order.unwrap().0, d.payload.to_vec())));
    }
    let both = [(1, b"answer".to_vec()), (0, b"question".to_vec()), (1, b"answer".to_vec())];
    assert_eq!(delivered[1..], both);
}

#[test]
fn a_burst_that_goes_on_sends_only_full_datagrams() {
    let mut net = Net::new(1, 0, Order::Total);
    net.pump();
    let (process, now) = (&mut net.processes[0], net.now);
    let mtu_bytes = Config::new(GroupId::of("test"), 1, Role::Member(Rank(0))).limits.mtu_bytes;
    let lengths = |process: &mut Process, seals| {
        let mut lengths = Vec::new();
        process.transmit_packed(now, seals, |to, bytes, segment_bytes| {
            let datagrams = bytes.chunks(segment_bytes);
            lengths.extend(datagrams.map(<[u8]>::len).filter(|_| to == Destination::Group));
            bytes.len().div_ceil(segment_bytes)
        });
        lengths
    };
    lengths(process, true); // what it announces of itself
    for _ in 0..3 {
        process.try_publish(now, &Outgoing::default(), &[7; 1000]).unwrap();
    }
    assert_eq!(lengths(process, false), [mtu_bytes; 2], "two are full, the third is being filled");
    assert_eq!(lengths(process, false), []);
    process.try_publish(now, &Outgoing::default(), &[7; 50]).unwrap();
    assert_eq!(lengths(process, true), [64 + 8 + 1000 + 8 + 50], "the last message shares its datagram");
}
