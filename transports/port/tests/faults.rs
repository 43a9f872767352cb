//! Each fault does what its name states, as often as configured, and the same for the same seed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bourdon_port::conformance::{PATIENCE, poll_until, receive_count, receive_into, send_all};
use bourdon_port::faults::{Faults, Faulty, HELD_MAX, Injected, REORDER_DISTANCE_MAX, REORDER_HOLD};
use bourdon_port::memory::{Hub, MemoryOptions, MemoryPort};
use bourdon_port::{Idle, Port, To};

const DATAGRAMS: u32 = 10_000;

fn pair(faults: Faults) -> (MemoryPort, Faulty<MemoryPort>) {
    let hub = Hub::new();
    let options = MemoryOptions {
        idle: Idle::Park,
        receive_buffer_bytes: 8 << 20,
        ..MemoryOptions::new(SocketAddr::from(([239, 0, 0, 1], 4000)))
    };
    let sender = hub.open(options).expect("a port");
    (sender, Faulty::new(hub.open(options).expect("a port"), faults))
}

/// Sends numbered datagrams and returns the numbers as they come, all at once.
fn numbers(faults: Faults, datagrams: u32) -> (Vec<u32>, Injected) {
    let (mut sender, mut receiver) = pair(faults);
    let bytes: Vec<u8> = (0..datagrams).flat_map(u32::to_le_bytes).collect();
    send_all(&mut sender, To::Group, &bytes, 4);
    let mut got = Vec::new();
    poll_until(&mut receiver, |receiver| {
        receive_into(receiver, usize::MAX, &mut got);
        let injected = receiver.injected();
        let due = injected.arrivals - injected.drops + injected.duplicates;
        assert!(got.len() as u64 <= due, "more came out than went in");
        injected.arrivals == u64::from(datagrams) && got.len() as u64 == due
    });
    let numbers = got.iter().map(|bytes| u32::from_le_bytes(bytes[..].try_into().expect("four bytes"))).collect();
    (numbers, receiver.injected())
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn all_duplicated_is_exactly_two_of_each_in_order() {
    let (got, injected) = numbers(Faults { duplicate_percent: 100.0, ..Faults::default() }, 1000);
    assert_eq!(got, (0..1000).flat_map(|number| [number, number]).collect::<Vec<_>>());
    assert_eq!(injected, Injected { arrivals: 1000, duplicates: 1000, ..Injected::default() });
}

#[test]
fn all_dropped_is_nothing() {
    let (got, injected) = numbers(Faults { drop_percent: 100.0, duplicate_percent: 100.0, ..Faults::default() }, 1000);
    assert!(got.is_empty());
    assert_eq!(injected, Injected { arrivals: 1000, drops: 1000, ..Injected::default() });
}

#[test]
fn percentages_are_kept() {
    for (percent, seed) in [(5.0, 1), (5.0, 2), (0.5, 3), (50.0, 4)] {
        let faults = Faults { drop_percent: percent, seed, ..Faults::default() };
        let (got, injected) = numbers(faults, DATAGRAMS);
        let expected = f64::from(DATAGRAMS) * percent / 100.0;
        let deviation = (expected * (1.0 - percent / 100.0)).sqrt();
        assert!((injected.drops as f64 - expected).abs() < 4.0 * deviation, "{percent} %: {injected:?}");
        assert_eq!(got.len() as u64, u64::from(DATAGRAMS) - injected.drops);
        assert!(got.is_sorted(), "loss alone keeps the order");
    }
}

#[test]
fn the_same_seed_is_the_same_fate() {
    let faults =
        Faults { drop_percent: 5.0, duplicate_percent: 5.0, reorder_percent: 5.0, seed: 7, ..Faults::default() };
    let first = numbers(faults, DATAGRAMS);
    assert_eq!(first, numbers(faults, DATAGRAMS));
    assert_ne!(first.0, numbers(Faults { seed: 8, ..faults }, DATAGRAMS).0);
}

#[test]
fn raising_one_percentage_leaves_the_victims_of_the_others() {
    let lost = |faults: Faults| {
        let (got, _) = numbers(faults, DATAGRAMS);
        let mut is_there = vec![false; DATAGRAMS as usize];
        got.iter().for_each(|number| is_there[*number as usize] = true);
        is_there
    };
    let faults = Faults { drop_percent: 5.0, seed: 7, ..Faults::default() };
    assert_eq!(lost(faults), lost(Faults { duplicate_percent: 30.0, reorder_percent: 30.0, ..faults }));
}

#[test]
fn reordered_are_late_by_a_few_and_never_lost() {
    let (got, injected) = numbers(Faults { reorder_percent: 10.0, seed: 1, ..Faults::default() }, DATAGRAMS);
    assert_eq!(sorted(got.clone()), (0..DATAGRAMS).collect::<Vec<_>>());
    assert!(!got.is_sorted() && injected.reorders > 800 && injected.reorders < 1200, "{injected:?}");
    for (place, number) in got.iter().enumerate() {
        let shift = (place as i64 - i64::from(*number)).unsigned_abs();
        assert!(shift <= REORDER_DISTANCE_MAX, "{number} came at place {place}");
    }
}

#[test]
fn a_last_one_held_for_reordering_comes_in_time() {
    let (mut sender, mut receiver) = pair(Faults { reorder_percent: 100.0, ..Faults::default() });
    send_all(&mut sender, To::Group, b"the last one", 64);
    let started = Instant::now();
    let mut got = Vec::new();
    while got.is_empty() {
        // A wait that forgets what is held would sleep for all of this.
        receiver.wait(PATIENCE).expect("a wait that works");
        receive_into(&mut receiver, usize::MAX, &mut got);
    }
    assert!(started.elapsed() >= REORDER_HOLD && started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    assert_eq!(got, [b"the last one"]);
}

#[test]
fn a_sleep_beside_other_ports_ends_in_time_for_what_is_held() {
    let (mut sender, mut receiver) = pair(Faults { reorder_percent: 100.0, ..Faults::default() });
    send_all(&mut sender, To::Group, b"the last one", 64);
    let mut got = Vec::new();
    poll_until(&mut receiver, |receiver| {
        receive_into(receiver, usize::MAX, &mut got);
        receiver.injected().arrivals == 1
    });
    while got.is_empty() {
        let longest = receiver.sleeper(PATIENCE).expect("a sleeper").map_or(Duration::ZERO, |sleep| sleep.longest);
        assert!(longest <= REORDER_HOLD, "{longest:?}");
        receiver.wait(longest).expect("a wait that works");
        receive_into(&mut receiver, usize::MAX, &mut got);
    }
    assert!(receiver.sleeper(PATIENCE).expect("a sleeper").is_some_and(|sleep| sleep.longest == PATIENCE));
}

#[test]
fn delayed_come_after_the_delay_in_order() {
    let faults = Faults { delay_percent: 100.0, delay: Duration::from_millis(5), ..Faults::default() };
    let (mut sender, mut receiver) = pair(faults);
    let started = Instant::now();
    send_all(&mut sender, To::Group, &[1, 2, 3, 4], 1);
    let got = receive_count(&mut receiver, 4);
    assert!(started.elapsed() >= faults.delay);
    assert_eq!(got, [[1], [2], [3], [4]]);
    assert_eq!(receiver.injected().delays, 4);
}

#[test]
fn some_delayed_lose_nothing() {
    let faults = Faults { delay_percent: 10.0, delay: Duration::from_millis(3), seed: 3, ..Faults::default() };
    let (got, injected) = numbers(faults, DATAGRAMS);
    assert_eq!(sorted(got), (0..DATAGRAMS).collect::<Vec<_>>());
    assert!(injected.delays > 800 && injected.delays < 1200, "{injected:?}");
}

#[test]
fn what_is_held_is_bounded_and_the_rest_passes() {
    let faults = Faults { delay_percent: 100.0, delay: PATIENCE, ..Faults::default() };
    let (mut sender, mut receiver) = pair(faults);
    let total = HELD_MAX + 100;
    send_all(&mut sender, To::Group, &vec![0; total], 1);
    let mut passed = 0;
    poll_until(&mut receiver, |receiver| {
        passed += receiver.receive(usize::MAX, |_| {}).expect("received");
        receiver.injected().arrivals == total as u64
    });
    assert_eq!(passed, 100);
    assert_eq!(receiver.injected().passed_for_want_of_room, 100);
}

#[test]
fn limits_hold_for_what_was_held() {
    let faults = Faults { delay_percent: 100.0, delay: Duration::from_millis(1), ..Faults::default() };
    let (mut sender, mut receiver) = pair(faults);
    send_all(&mut sender, To::Group, &[0; 100], 1);
    let mut got = Vec::new();
    poll_until(&mut receiver, |receiver| {
        assert!(receive_into(receiver, 10, &mut got) <= 10);
        got.len() == 100
    });
}

#[test]
fn the_mechanism_names_both() {
    assert_eq!(pair(Faults::default()).1.io(), "memory");
}
