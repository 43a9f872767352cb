//! A thread that waits sleeps, and wakes for everything it should wake for.
//!
//! [`Port::wait`] may return early for no reason, so a single return proves nothing. What is checked is that a waiter
//! gets what it waits for, and that a wait with nothing to wait for is a sleep and not a busy loop. A wait that misses
//! its reason is caught by its length: such waits get a timeout of [`PATIENCE`] and must end well before.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Role, receive_count, receive_into, send_all};
use crate::{Idle, Port, To};

/// A wait that should end at once must end in this time, however loaded the host.
pub(super) const PROMPT: Duration = Duration::from_secs(PATIENCE.as_secs() / 2);

/// With nothing there, `receive` returns zero at once, also many times over.
pub fn empty_receive_returns_nothing<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut port = open(Role::new(idle));
    for _ in 0..1000 {
        assert_eq!(receive_into(&mut port, usize::MAX, &mut Vec::new()), 0);
    }
}

/// What came before the wait began ends it.
pub fn wait_returns_for_what_came_before<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    for _ in 0..20 {
        // Twice, since the first wait may consume what a port learns about an arrival.
        send_all(&mut sender, To::Group, b"before", 64);
        for _ in 0..2 {
            let started = Instant::now();
            receiver.wait(PATIENCE).expect("a wait that works");
            assert!(started.elapsed() < PROMPT, "slept over a datagram that was already there");
        }
        assert_eq!(receive_count(&mut receiver, 1)[0], b"before");
    }
}

/// With nothing to wake for, a few waits fill the time: it sleeps, and it comes back.
pub fn wait_sleeps_and_times_out<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut port = open(Role::new(idle));
    let started = Instant::now();
    let mut waits = 0;
    while started.elapsed() < Duration::from_millis(50) {
        port.wait(Duration::from_millis(5)).expect("a wait that works");
        assert_eq!(receive_into(&mut port, usize::MAX, &mut Vec::new()), 0);
        waits += 1;
    }
    // Ten, were it exact; a port may return early once in a while, but not as a rule.
    assert!(waits <= 30, "{waits} waits of 5 ms in 50 ms: that is no sleep");
    port.wait(Duration::ZERO).expect("a wait that works");
    assert!(started.elapsed() < PATIENCE);
}

/// A sleeping thread wakes for a multicast that another thread sends through a port handed to it.
pub fn wait_returns_on_arrival_from_another_thread<P: Port + Send>(idle: Idle, open: impl Fn(Role) -> P) {
    let receiver = open(Role::new(idle));
    arrivals_end_waits(open(Role::new(idle)), receiver, To::Group);
}

/// The same for a unicast.
pub fn wait_returns_on_unicast_arrival<P: Port + Send>(idle: Idle, open: impl Fn(Role) -> P) {
    let receiver = open(Role::new(idle));
    let to = To::Peer(receiver.local_address());
    arrivals_end_waits(open(Role::new(idle)), receiver, to);
}

fn arrivals_end_waits<P: Port + Send>(mut sender: P, mut receiver: P, to: To) {
    let (go, gone) = mpsc::channel::<u64>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in gone {
                send_all(&mut sender, to, &round.to_le_bytes(), 64);
            }
        });
        for round in 0..100u64 {
            go.send(round).expect("the sender's thread lives");
            let mut got = Vec::new();
            while got.is_empty() {
                let started = Instant::now();
                receiver.wait(PATIENCE).expect("a wait that works");
                assert!(started.elapsed() < PROMPT, "slept over an arrival");
                receive_into(&mut receiver, usize::MAX, &mut got);
            }
            assert_eq!(got, [round.to_le_bytes()]);
        }
        drop(go);
    });
}

/// What a receive left behind because of its limit ends the next wait, although nothing new comes.
pub fn wait_returns_for_what_a_limit_left<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut receiver) = (open(Role::new(idle)), open(Role::new(idle)));
    let peer = To::Peer(receiver.local_address());
    for round in 0..100u8 {
        send_all(&mut sender, To::Group, &[round], 64);
        send_all(&mut sender, peer, &[round], 64);
    }
    let mut got = Vec::new();
    while got.len() < 200 {
        let started = Instant::now();
        receiver.wait(PATIENCE).expect("a wait that works");
        assert!(started.elapsed() < PROMPT, "slept over what was left behind");
        receive_into(&mut receiver, 1, &mut got);
    }
    got.sort();
    assert!(got.iter().enumerate().all(|(place, datagram)| *datagram == [(place / 2) as u8]));
}

/// A wake while no thread waits ends the next wait.
pub fn wake_before_wait_is_not_lost<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut port = open(Role::new(idle));
    for _ in 0..20 {
        port.waker().wake();
        expect_prompt_wait(&mut port);
    }
    // Before the first wait, and many at once, which count as one or more.
    let waker = port.waker();
    (0..1000).for_each(|_| waker.wake());
    expect_prompt_wait(&mut port);
}

/// A receive between the wake and the wait does not swallow the wake.
pub fn wake_survives_a_receive<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let (mut sender, mut port) = (open(Role::new(idle)), open(Role::new(idle)));
    for _ in 0..20 {
        port.waker().wake();
        send_all(&mut sender, To::Group, b"besides", 64);
        assert_eq!(receive_count_without_wait(&mut port), 1);
        expect_prompt_wait(&mut port);
    }
}

fn receive_count_without_wait<P: Port>(port: &mut P) -> usize {
    let started = Instant::now();
    let mut got = Vec::new();
    while got.is_empty() {
        receive_into(port, usize::MAX, &mut got);
        assert!(started.elapsed() < PATIENCE, "what was sent never came");
    }
    got.len()
}

fn expect_prompt_wait<P: Port>(port: &mut P) {
    let started = Instant::now();
    port.wait(PATIENCE).expect("a wait that works");
    assert!(started.elapsed() < PROMPT, "a wake was lost");
}

/// Another thread's wakes end waits, one by one, however they interleave with them.
pub fn wake_from_another_thread<P: Port>(idle: Idle, open: impl Fn(Role) -> P) {
    let mut port = open(Role::new(idle));
    let waker = port.waker();
    let (go, gone) = mpsc::channel::<u32>();
    let (done, answers) = mpsc::channel::<u32>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in gone {
                // First the reason, then the wake: a thread that returns from the wait finds the reason.
                done.send(round).expect("the waiting thread lives");
                waker.wake();
            }
        });
        for round in 0..200 {
            go.send(round).expect("the waking thread lives");
            loop {
                expect_prompt_wait(&mut port);
                match answers.try_recv() {
                    Ok(answer) => break assert_eq!(answer, round),
                    Err(_) => continue, // returned early, for an earlier wake or for no reason
                }
            }
        }
        drop(go);
    });
}
