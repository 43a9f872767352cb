//! A process that comes late and the state it receives, through every kind of failure.

use crate::common::net::{Net, transfer_step};
use crate::common::{self, MS};
use bourdon_protocol::{Event, Order, Standing};
use bourdon_wire::records::transfer_steps::{PART, REFUSE, REQUEST_SNAPSHOT};
use std::cell::Cell;
use std::rc::Rc;

/// Three members with a state of some 200 KB, of which the last is gone.
fn group() -> Net {
    let mut net = Net::new(3, 0, |_| {});
    net.run(100 * MS);
    for one in &mut net.processes {
        one.state = (0..200_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    }
    net.publish(0, b"x").unwrap();
    net.kill(2);
    net.run(300 * MS);
    net
}

/// Brings the third back while the other members go on.
fn bring_back(net: &mut Net, ms: u64) {
    bring_back_as(net, 2, ms);
}

fn bring_back_as(net: &mut Net, index: usize, ms: u64) {
    net.start(index, 2);
    for i in 0..ms {
        if i < ms / 2 {
            net.publish(0, &i.to_le_bytes()).ok();
        }
        net.run(MS);
    }
}

#[test]
fn parts_that_are_lost_and_come_twice_are_put_together_all_the_same() {
    let mut net = group();
    let mut dice = fastrand::Rng::with_seed(3);
    net.alter = Box::new(move |_, _, datagram| match transfer_step(datagram) {
        Some(_) => dice.usize(0..3),
        None => 1,
    });
    bring_back(&mut net, 2000);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[2].events);
}

#[test]
fn a_damaged_part_is_noticed() {
    let mut net = group();
    let mut left = 40;
    net.alter = Box::new(move |_, _, datagram| {
        if transfer_step(datagram) == Some(PART) && left > 0 {
            left -= 1;
            // Damage that the datagram's own checksum does not reveal: as if the donor's memory were at fault.
            *datagram = common::altered(datagram, 64 + 8 + 56 + 5, &[0xAA]);
        }
        1
    });
    bring_back(&mut net, 3000);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[2].events);
}

#[test]
fn a_donor_that_dies_half_way_is_replaced() {
    let mut net = Net::new(5, 0, |_| {});
    net.run(100 * MS);
    net.processes.iter_mut().for_each(|one| one.state = vec![9; 300_000]);
    net.publish(0, b"x").unwrap();
    net.kill(4);
    net.run(300 * MS);
    let (count, donor) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (counts, donors) = (count.clone(), donor.clone());
    net.alter = Box::new(move |from, to, datagram| {
        if transfer_step(datagram) == Some(PART) && to == 4 && donors.get().is_none_or(|donor| donor == from) {
            donors.set(Some(from));
            counts.set(counts.get() + 1);
        }
        usize::from(counts.get() < 100 || donors.get() != Some(from)) // silent from then on
    });
    net.start(4, 2);
    while count.get() < 100 {
        net.run(MS);
        assert!(net.now.0 < 10_000 * MS, "no transfer: {:?}", net.processes[4].events);
    }
    let donor = donor.get().unwrap();
    net.kill(donor);
    for i in 0..6000u32 {
        net.publish(if donor == 0 { 1 } else { 0 }, &i.to_le_bytes()).ok();
        net.run(MS);
        if net.process(4).standing() == Standing::Member {
            break;
        }
    }
    net.run(50 * MS);
    let rest: Vec<usize> = (0..5).filter(|index| *index != donor).collect();
    assert!(net.agree(&rest, 4), "{:?}", net.processes[4].events);
}

#[test]
fn a_snapshot_beyond_the_limit_is_refused_by_name_and_harms_no_member() {
    let mut net = group();
    net.configure = |config| config.limits.max_snapshot_bytes = 100_000;
    bring_back(&mut net, 1500);
    assert_eq!(net.process(2).standing(), Standing::Outside);
    let too_large = |event: &Event| matches!(event, Event::SnapshotTooLarge { limit_bytes: 100_000, .. });
    assert!(net.processes[2].events.iter().any(too_large), "{:?}", net.processes[2].events);
    assert!(net.agree(&[0, 1], 2));
}

#[test]
fn a_donor_that_may_not_give_so_much_reports_it() {
    let mut net = Net::new(3, 0, |config| config.limits.max_snapshot_bytes = 100_000);
    net.run(100 * MS);
    net.processes.iter_mut().for_each(|one| one.state = vec![9; 200_000]);
    net.kill(2);
    net.run(300 * MS);
    bring_back(&mut net, 1000);
    assert_eq!(net.process(2).standing(), Standing::Outside);
    let too_large = |event: &Event| matches!(event, Event::SnapshotTooLarge { bytes: 0, limit_bytes: 100_000 });
    assert!(net.processes[2].events.iter().any(too_large), "{:?}", net.processes[2].events);
}

#[test]
fn a_joiner_that_is_refused_asks_another() {
    let mut net = Net::new(4, 0, |_| {});
    net.run(100 * MS);
    net.processes.iter_mut().for_each(|one| one.state = vec![9; 50_000]);
    net.publish(0, b"x").unwrap();
    net.kill(3);
    net.run(300 * MS);
    let asked = Rc::new(Cell::new(0u64));
    let asks = asked.clone();
    net.alter = Box::new(move |from, to, datagram| {
        match transfer_step(datagram) {
            // The first donor that gets the request is busy.
            Some(REQUEST_SNAPSHOT) if from == 3 && asks.get() & (1 << to) == 0 && asks.get() == 0 => asks.set(1 << to),
            Some(REQUEST_SNAPSHOT) if from == 3 => asks.set(asks.get() | 1 << to),
            Some(PART) if asks.get() & (1 << from) != 0 && asks.get().count_ones() == 1 => {
                *datagram = common::altered(datagram, 64 + 8, &REFUSE.to_le_bytes());
            }
            _ => {}
        }
        1
    });
    net.start(3, 2);
    net.run(2000 * MS);
    assert!(asked.get().count_ones() >= 2, "{:b}", asked.get());
    assert!(net.agree(&[0, 1, 2, 3], 4), "{:?}", net.processes[3].events);
}

#[test]
fn a_state_that_is_given_late_is_the_one_at_the_place_where_it_was_asked_for() {
    let mut net = group();
    net.processes.iter_mut().for_each(|one| one.answers_after_ns = 7 * MS);
    bring_back(&mut net, 1000);
    assert_eq!(net.processes[2].snapshots, 1);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[2].events);
    let states = [0, 1, 2].map(|index: usize| &net.processes[index].state);
    assert!(states[0] == states[1] && states[1] == states[2], "lengths: {:?}", states.map(Vec::len));
}

#[test]
fn an_application_that_takes_seconds_is_waited_for() {
    let mut net = group();
    net.processes.iter_mut().for_each(|one| one.answers_after_ns = 3_000 * MS);
    net.start(2, 2);
    for i in 0..400u64 {
        net.publish(0, &i.to_le_bytes()).unwrap();
        net.run(10 * MS);
    }
    assert_eq!(net.processes[2].snapshots, 1);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[2].events);
}

#[test]
fn a_state_whose_successors_no_member_retains_is_refused() {
    let mut net = Net::new(3, 0, |config| config.limits.log_bytes = 64 * 1500);
    net.run(100 * MS);
    net.publish(0, b"x").unwrap();
    net.kill(2);
    net.run(300 * MS);
    net.processes.iter_mut().for_each(|one| one.answers_after_ns = 300 * MS);
    net.start(2, 2);
    for i in 0..1_500u64 {
        net.publish(0, &i.to_le_bytes()).unwrap(); // more datagrams than rank 0 keeps
        net.run(MS);
    }
    assert!(net.processes.iter().any(|one| !one.asked.is_empty()), "it has asked");
    assert_eq!(net.processes[2].snapshots, 0, "{:?}", net.processes[2].events);
    net.run(3_000 * MS);
    assert_eq!(net.processes[2].snapshots, 1, "{:?}", net.processes[2].events);
    assert!(net.agree(&[0, 1, 2], 3), "{:?}", net.processes[2].events);
}

#[test]
fn a_state_of_a_view_that_is_over_is_not_taken() {
    let mut net = Net::new(4, 0, |_| {});
    net.run(100 * MS);
    net.publish(0, b"x").unwrap();
    net.kill(3);
    net.run(300 * MS);
    net.processes.iter_mut().for_each(|one| one.answers_after_ns = 500 * MS);
    net.start(3, 2);
    while net.processes[..3].iter().all(|one| one.asked.is_empty()) {
        net.run(MS);
    }
    let donor = net.processes.iter().position(|one| !one.asked.is_empty()).unwrap();
    let (gone, rest) = if donor == 2 { (1, [0, 2, 3]) } else { (2, [0, 1, 3]) };
    net.kill(gone);
    for i in 0..4000u64 {
        net.publish(0, &i.to_le_bytes()).ok();
        net.run(MS);
    }
    assert_eq!(net.processes[3].snapshots, 1);
    assert!(net.agree(&rest, 3), "{:?}", net.processes[3].events);
    let states = rest.map(|index| &net.processes[index].state);
    assert!(states[0] == states[1] && states[1] == states[2], "lengths: {:?}", states.map(Vec::len));
}

#[test]
fn a_joiner_takes_another_donor_if_an_application_gives_no_state() {
    let mut net = Net::new(4, 0, |_| {});
    net.run(100 * MS);
    net.publish(0, b"x").unwrap();
    net.kill(3);
    net.run(300 * MS);
    net.processes[1].declines = true;
    net.processes[2].declines = true;
    bring_back_as(&mut net, 3, 2000);
    assert!(net.agree(&[0, 1, 2, 3], 4), "{:?}", net.processes[3].events);
    assert_eq!(net.processes[3].state, net.processes[0].state);
}

#[test]
fn a_joiner_delivers_only_what_a_quorum_holds() {
    let mut net = Net::new(4, 0, |config| config.order = Order::Fifo);
    net.run(100 * MS);
    net.kill(3);
    net.run(300 * MS);
    net.start(3, 2);
    while net.process(3).standing() != Standing::Following {
        net.run(MS / 10);
        assert!(net.now.0 < 10_000 * MS, "no transfer: {:?}", net.processes[3].events);
    }
    // Only the joiner receives what rank 2 sends from now on, and no member hears that the joiner is ready.
    net.lose = Box::new(|from, to| from == 2 && to != 3 || from == 3);
    net.publish(2, b"x").unwrap();
    net.run(MS);
    assert_eq!(net.messages(3), [], "rank 2 is one of three members");
    // The others evict rank 2 with its message. The joiner, which has delivered no more than they have, enters their
    // view.
    net.lose = Box::new(|from, to| from == 2 && to != 3);
    net.run(1_000 * MS);
    assert!(net.agree(&[0, 1, 3], 3), "{:?}", net.processes[3].events);
    assert_eq!(net.views(3), [(2, 0b111), (3, 0b1011)], "it enters the view that evicts rank 2");
}

#[test]
fn a_joiner_with_a_state_that_no_quorum_holds_is_not_ready() {
    let mut net = Net::new(5, 0, |config| config.order = Order::Fifo);
    net.run(100 * MS);
    net.kill(4);
    net.run(300 * MS);
    // Ranks 1 and 3 hold a message that ranks 0 and 2 do not receive, and rank 1 gives its state to the joiner.
    net.lose = Box::new(|from, to| [1, 3].contains(&from) && [0, 2].contains(&to));
    net.publish(3, b"x").unwrap();
    net.run(MS);
    net.start(4, 2);
    net.run(3_000 * MS);
    // Ranks 0 and 2 go on as half of the view with its first member. The joiner starts over before they add it.
    assert!(net.messages(1).contains(&(3, 0)) && !net.messages(0).contains(&(3, 0)));
    assert_eq!(net.views(0)[2..], [(3, 0b101), (4, 0b10101)], "{:?}", net.processes[4].events);
    assert!(net.agree(&[0, 2, 4], 3), "{:?}", net.processes[4].events);
}
