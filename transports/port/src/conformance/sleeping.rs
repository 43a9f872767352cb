//! A thread that sleeps for several ports at once wakes for everything that it should wake for at any of them.
//!
//! As in `waiting.rs`, a single return proves nothing: what is checked is that a sleeper gets what it sleeps for, and
//! that it sleeps. All sleeps have a timeout of [`PATIENCE`] and must end well before.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::waiting::PROMPT;
use super::{PATIENCE, Role, receive_into, send_all};
use crate::{Idle, Port, Sleep, To};

/// Two ports of one thread, in two groups.
fn two<P: Port>(idle: Idle, open: &impl Fn(Role) -> P) -> [P; 2] {
    [0, 1].map(|group| open(Role { group, ..Role::new(idle) }))
}

/// Sleeps for both as the engine would. Returns whether the thread was to sleep.
fn sleep_for<P: Port>(ports: &mut [P; 2], longest: Duration) -> bool {
    let [first, second] = ports.each_mut().map(|port| port.sleeper(longest).expect("a sleeper"));
    let sleeps: Vec<Sleep<'_>> = first.into_iter().chain(second).collect();
    let may_sleep = sleeps.len() == 2;
    if may_sleep {
        assert!(sleeps.iter().all(|sleep| sleep.longest <= longest), "longer than was asked for");
        Sleep::all(&sleeps).expect("a sleep that works");
    }
    for port in ports {
        port.wait(Duration::ZERO).expect("a wait that works");
    }
    may_sleep
}

/// The same, and fails if the sleep did not end in time.
fn expect_prompt_end<P: Port>(ports: &mut [P; 2]) {
    let started = Instant::now();
    sleep_for(ports, PATIENCE);
    assert!(started.elapsed() < PROMPT, "slept over what should end a sleep");
}

/// What came to one of the ports, at most `limit` from each.
fn receive_from<P: Port>(ports: &mut [P; 2], limit: usize, got: &mut [Vec<Vec<u8>>; 2]) {
    for (port, got) in ports.iter_mut().zip(got) {
        receive_into(port, limit, got);
    }
}

/// Ports that sleep and ports that spin hand out what comes by the same calls.
pub fn two_ports_hand_out_what_comes<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut ports, mut senders) = (two(idle, &open), two(idle, &open));
    for round in 0..100u8 {
        for sender in &mut senders {
            send_all(sender, To::Group, &[round], 64);
        }
        let mut got = [Vec::new(), Vec::new()];
        while got.iter().any(Vec::is_empty) {
            let started = Instant::now();
            let slept = sleep_for(&mut ports, PATIENCE);
            assert!(!slept || idle == Idle::Park, "a port that spins lets its thread sleep");
            assert!(started.elapsed() < PROMPT, "slept over a datagram that was already there");
            receive_from(&mut ports, usize::MAX, &mut got);
        }
        assert_eq!(got, [[[round]], [[round]]]);
    }
}

/// With nothing to wake for, a few sleeps fill the time.
pub fn a_sleep_with_nothing_to_wake_for_lasts<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut ports = two(idle, &open);
    let (started, mut rounds, mut got) = (Instant::now(), 0, [Vec::new(), Vec::new()]);
    while started.elapsed() < Duration::from_millis(50) {
        sleep_for(&mut ports, Duration::from_millis(5));
        receive_from(&mut ports, usize::MAX, &mut got);
        rounds += 1;
    }
    assert_eq!(got, [[[0; 0]; 0], [[0; 0]; 0]]);
    // Ten, were it exact, and some more before the first sleep; a port may return early, but not as a rule.
    assert!(rounds <= 40, "{rounds} sleeps of 5 ms in 50 ms: that is no sleep");
}

/// What ends a sleep.
#[derive(Clone, Copy, Debug)]
enum Reason {
    Group,
    Unicast,
    Wake,
}

/// A multicast and a unicast to either port, and a wake of either, end the sleep, one by one, however they interleave
/// with it.
pub fn either_of_two_ports_ends_a_sleep<P: Port + Send>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut ports = two(idle, &open);
    let mut senders = two(idle, &open);
    let addresses = ports.each_ref().map(Port::local_address);
    let wakers = ports.each_ref().map(Port::waker);
    let (go, gone) = mpsc::channel::<(u64, usize, Reason)>();
    let (done, answers) = mpsc::channel::<u64>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for (round, port, reason) in gone {
                let bytes = round.to_le_bytes();
                match reason {
                    Reason::Group => send_all(&mut senders[port], To::Group, &bytes, 64),
                    Reason::Unicast => send_all(&mut senders[port], To::Peer(addresses[port]), &bytes, 64),
                    Reason::Wake => {
                        // First the reason, then the wake: a thread that returns from the sleep finds the reason.
                        done.send(round).expect("the sleeping thread lives");
                        wakers[port].wake();
                    }
                }
            }
        });
        for round in 0..600u64 {
            let port = (round % 2) as usize;
            let reason = [Reason::Group, Reason::Unicast, Reason::Wake][(round / 2 % 3) as usize];
            go.send((round, port, reason)).expect("the other thread lives");
            let mut got = [Vec::new(), Vec::new()];
            let mut is_woken = false;
            // Not that it alone came: a port over two ways may hand a datagram out twice.
            let is_there = |got: &[Vec<Vec<u8>>; 2]| got[port].iter().any(|it| *it == round.to_le_bytes());
            while !is_there(&got) && !is_woken {
                expect_prompt_end(&mut ports);
                receive_from(&mut ports, usize::MAX, &mut got);
                is_woken = answers.try_recv().is_ok_and(|answer| answer == round);
            }
            assert_eq!(is_woken, matches!(reason, Reason::Wake), "round {round}: {got:?}");
        }
        drop(go);
    });
}

/// What a receive left behind because of its limit lets the thread not sleep, although nothing new comes.
pub fn no_sleep_over_what_a_limit_left<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut ports, mut senders) = (two(idle, &open), two(idle, &open));
    for round in 0..100u8 {
        for (sender, port) in senders.iter_mut().zip(&ports) {
            send_all(sender, To::Group, &[round], 64);
            send_all(sender, To::Peer(port.local_address()), &[round], 64);
        }
    }
    let mut got = [Vec::new(), Vec::new()];
    while got.iter().any(|got| got.len() < 200) {
        expect_prompt_end(&mut ports);
        receive_from(&mut ports, 1, &mut got);
    }
    for got in &mut got {
        got.sort();
        assert!(got.iter().enumerate().all(|(place, datagram)| *datagram == [(place / 2) as u8]));
    }
}

/// A wake before the sleep ends it, also if a receive comes between them.
pub fn no_wake_is_slept_over<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut ports, mut senders) = (two(idle, &open), two(idle, &open));
    for round in 0..20 {
        ports[round % 2].waker().wake();
        expect_prompt_end(&mut ports);
        ports[round % 2].waker().wake();
        send_all(&mut senders[round % 2], To::Group, b"besides", 64);
        let started = Instant::now();
        let mut got = [Vec::new(), Vec::new()];
        while got.iter().all(Vec::is_empty) {
            receive_from(&mut ports, usize::MAX, &mut got);
            assert!(started.elapsed() < PATIENCE, "what was sent never came");
        }
        expect_prompt_end(&mut ports);
    }
}
