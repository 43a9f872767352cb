//! Observers that can't catch up go on at the present.

use crate::common::net::{Net, Output};
use bourdon_protocol::{Config, Counter, Event};

const PAYLOAD: [u8; 1000] = [7; 1000];
/// Datagrams in an observer's receive log, and in the sender's.
const SLOTS: u64 = 64;
const RETAINED: u64 = 4 * SLOTS;

fn small(config: &mut Config) {
    config.snapshots = false;
    config.limits.receive_log_bytes = SLOTS as usize * config.limits.mtu_bytes;
    config.limits.log_bytes = RETAINED as usize * config.limits.mtu_bytes;
    config.limits.repairs_per_s = 1_000;
}

fn received(net: &Net, index: usize) -> Vec<u64> {
    let sequence = |output: &Output| if let Output::Message(_, sequence, _) = output { Some(*sequence) } else { None };
    net.processes[index].shown.iter().filter_map(sequence).collect()
}

/// What was reported as lost.
fn lost(net: &Net, index: usize) -> u64 {
    let gaps = net.processes[index].events.iter();
    gaps.map(|event| if let Event::Gap { from, to, .. } = event { to.0 - from.0 } else { 0 }).sum()
}

/// A stream that loses every third datagram on its way to one observer, faster than repairs are sent.
#[test]
fn an_observer_that_repairs_can_t_serve_delivers_what_arrives() {
    let mut net = Net::new(1, 1, small);
    net.run(100_000_000);
    let mut count = 0;
    net.alter = Box::new(move |_, to, datagram| {
        count += usize::from(to == 1 && datagram.len() > 600);
        usize::from(to != 1 || datagram.len() <= 600 || count % 3 != 0)
    });
    let mut taken = 0;
    for _ in 0..1_000 {
        taken += (0..10).filter(|_| net.publish(0, &PAYLOAD).is_ok()).count() as u64;
        net.run(200_000); // 50,000 a second
    }
    net.alter = Box::new(|_, _, _| 1);
    net.run(500_000_000);
    let (received, lost) = (received(&net, 1), lost(&net, 1));
    assert!(received.is_sorted(), "in order, each once");
    assert_eq!(received.len() as u64 + lost, taken, "what was lost was reported");
    assert!(received.len() as u64 >= taken * 62 / 100, "{} of {taken}: two of three arrived", received.len());
    assert!(net.process(1).counters().get(Counter::FellBehind) > 0);
}

/// It is far behind, but the stream is slow: it fetches everything.
#[test]
fn an_observer_that_gains_gives_nothing_up() {
    let mut net = Net::new(1, 1, small);
    net.run(100_000_000);
    net.alter = Box::new(|_, to, datagram| usize::from(to != 1 || datagram.len() <= 600));
    let mut taken = 0;
    for _ in 0..RETAINED - SLOTS {
        taken += u64::from(net.publish(0, &PAYLOAD).is_ok());
        net.run(100_000);
    }
    net.alter = Box::new(|_, _, _| 1);
    for _ in 0..400 {
        taken += u64::from(net.publish(0, &PAYLOAD).is_ok());
        net.run(10_000_000); // a hundred a second
    }
    net.run(500_000_000);
    assert_eq!(received(&net, 1), (0..taken).collect::<Vec<_>>());
    assert_eq!(net.process(1).counters().get(Counter::FellBehind), 0);
}
