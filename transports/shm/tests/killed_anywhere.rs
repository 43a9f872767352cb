//! Processes that are killed at any instant of creating, attaching, publishing and reading: nothing of them stays
//! behind, the next process attaches at once, and no survivor waits.

use crate::common::{fresh_number, open};
use crate::killed::{mapped, part, start};
use bourdon_port::conformance::PATIENCE;
use bourdon_port::{Port, To};
use bourdon_shm::ShmPort;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TEST: &str = "killed_anywhere::a_process_may_be_killed_at_any_instant";
/// What a victim is doing; it reports each step before it begins.
const STEPS: [&str; 4] = ["creating and attaching", "publishing", "reading", "ending"];
/// Of those, the byte that stands for the first on the victim's stdout, where the test harness writes letters.
const FIRST_STEP: u8 = 1;
/// The length of a victim's datagrams.
const LENGTH: usize = 700;
/// The first byte of a datagram between the survivors; a victim's begins with another.
const OWN: u8 = 0;

fn victim(number: u16) {
    let step = |step| {
        let mut out = std::io::stdout();
        out.write_all(&[FIRST_STEP + step]).and_then(|()| out.flush()).expect("the parent reads it");
    };
    for round in 0u8.. {
        step(0);
        let mut port = open(number);
        for _ in 0..500 {
            step(1);
            let datagrams = [1 + round % 200; 5 * LENGTH];
            port.send(To::Group, &datagrams, LENGTH).expect("a send that works");
            step(2);
            port.receive(usize::MAX, check).expect("a receive that works");
        }
        step(3);
    }
}

/// Each datagram of a victim consists of one byte, over and over: a torn one would not.
fn check(arrival: bourdon_port::Arrival<'_>) {
    let first = arrival.bytes[0];
    assert!(first == OWN || arrival.bytes == [first; LENGTH], "torn: {:?}", arrival.bytes);
}

/// What the survivors' thread reports while it runs.
#[derive(Default)]
struct Survivors {
    is_over: AtomicBool,
    /// How many processes they read, each other included.
    peers: AtomicU64,
    /// The longest round of theirs since it was last taken.
    longest_ns: AtomicU64,
    rounds: AtomicU64,
}

impl Survivors {
    /// One sends, both receive; each datagram must come in its round.
    fn run(&self, mut sender: ShmPort, mut receiver: ShmPort) {
        for round in 0u64.. {
            let begun = Instant::now();
            let mut sent = [OWN; 16];
            sent[8..].copy_from_slice(&round.to_le_bytes());
            sender.send(To::Group, &sent, sent.len()).expect("a send that works");
            sender.receive(usize::MAX, check).expect("a receive that works");
            let mut own = 0;
            let take = |arrival: bourdon_port::Arrival<'_>| {
                own += u32::from(arrival.bytes[0] == OWN);
                assert!(arrival.bytes[0] != OWN || arrival.bytes == sent, "another round's datagram");
                check(arrival);
            };
            receiver.receive(usize::MAX, take).expect("a receive that works");
            assert_eq!(own, 1, "round {round}");
            self.longest_ns.fetch_max(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
            self.peers.store((sender.peers() + receiver.peers()) as u64, Ordering::Relaxed);
            self.rounds.store(round + 1, Ordering::Release);
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// The longest round since the last call.
    fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.swap(0, Ordering::Relaxed))
    }
}

/// Ends the survivors' thread, also when an assert fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts a process and kills it; returns at which of its steps.
fn kill_one(number: u16, pause: Duration) -> usize {
    let mut victim = start(TEST, "victim", number).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut out = victim.stdout.take().expect("it is piped");
    let (mut byte, mut rest) = ([0], Vec::new());
    while byte[0] != FIRST_STEP {
        out.read_exact(&mut byte).expect("it begins");
    }
    std::thread::sleep(pause); // to any instant of its life: nothing is awaited
    victim.kill().expect("it runs");
    victim.wait().expect("it has ended");
    out.read_to_end(&mut rest).expect("a pipe whose writer is gone");
    usize::from(rest.last().unwrap_or(&byte[0]) - FIRST_STEP)
}

/// How many descriptors this process has.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux has it").count()
}

/// How many names of sockets there are at this port number.
fn names(number: u16) -> usize {
    let name = format!("@bourdon-shm/{}/{number}/", rustix::process::geteuid().as_raw());
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("Linux has it");
    let places = sockets.lines().filter_map(|line| line.split_once(&name)).map(|(_, place)| place);
    places.collect::<std::collections::HashSet<_>>().len()
}

/// A process with two ports, beside which others are killed.
fn survive(number: u16) {
    let kills = std::env::var("BOURDON_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(40);
    let survivors = Survivors::default();
    let (sender, receiver) = (open(number), open(number));
    let (before, mut at, mut longest) = (descriptors(), [0; STEPS.len()], Duration::ZERO);
    std::thread::scope(|scope| {
        scope.spawn(|| survivors.run(sender, receiver));
        let _end = End(&survivors.is_over);
        while survivors.rounds.load(Ordering::Relaxed) < 100_000 {
            std::thread::yield_now();
        }
        let undisturbed = survivors.longest();
        for round in 0..kills {
            at[kill_one(number, Duration::from_micros(round * 7_919 % 12_000))] += 1;
            assert_eq!(names(number), 2, "round {round}: its name stays behind");
            let begun = Instant::now();
            let successor = open(number);
            longest = longest.max(begun.elapsed());
            assert_eq!(successor.local_address().port(), 3, "round {round}: its place is free");
            drop(successor);
            let begun = Instant::now();
            // Each of the two has mapped its own log and the other's.
            while (survivors.peers.load(Ordering::Relaxed), mapped(), descriptors()) != (2, 4, before) {
                assert!(begun.elapsed() < PATIENCE, "round {round}: {} logs, {} descriptors", mapped(), descriptors());
                std::thread::yield_now();
            }
        }
        let steps: Vec<_> = STEPS.iter().zip(at).map(|(step, count)| format!("{count} {step}")).collect();
        let (steps, waited) = (steps.join(", "), survivors.longest());
        println!("\n{kills} kills ({steps}); attaching again took at most {longest:?}");
        println!("the longest round of the survivors: {undisturbed:?} before the kills, {waited:?} during them");
    });
}

#[test]
fn a_process_may_be_killed_at_any_instant() {
    match part() {
        Some((part, number)) if part == "victim" => victim(number),
        Some((_, number)) => survive(number),
        None => assert!(start(TEST, "survive", fresh_number()).status().expect("it starts").success()),
    }
}
