//! A killed process leaves nothing behind, and what it had published still arrives.

use crate::common::{fresh_number, open};
use bourdon_port::conformance::{PATIENCE, poll_until};
use bourdon_port::{Port, To};
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// In the environment of the processes that this test starts: which of them it is.
const PART: &str = "BOURDON_TEST_SHM_PART";
/// And the port number.
const NUMBER: &str = "BOURDON_TEST_SHM_NUMBER";
const DATAGRAMS: u64 = 500;
const TEST: &str = "killed::a_killed_process_leaves_nothing_behind";

/// This program again, as a process that plays a part in one test.
pub(crate) fn start(test: &str, part: &str, number: u16) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test has a program"));
    command.args(["--exact", test, "--nocapture"]);
    command.env(PART, part).env(NUMBER, number.to_string());
    command
}

/// The part that this process plays, and its port number; none in the process that runs the tests.
pub(crate) fn part() -> Option<(String, u16)> {
    Some((env::var(PART).ok()?, env::var(NUMBER).ok()?.parse().ok()?))
}

/// Sends, and is killed.
fn write(number: u16) {
    let mut port = open(number);
    for datagram in 0..DATAGRAMS {
        port.send(To::Group, &datagram.to_le_bytes(), 8).expect("a send that works");
    }
    println!("\nsent from {}", port.local_address());
    loop {
        std::thread::park(); // until it is killed
    }
}

/// How many logs this process has mapped, its own included.
pub(crate) fn mapped() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    maps.lines().filter(|line| line.contains("/memfd:bourdon-log")).count()
}

/// A process without any other port.
fn read(number: u16) {
    let mut port = open(number);
    let mut writer = start(TEST, "write", number).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(writer.stdout.take().expect("it is piped")).lines();
    let sent = lines.map_while(Result::ok).find(|line| line.starts_with("sent from "));
    let place = sent.expect("it sends").rsplit(':').next().expect("a port").to_owned();
    assert_eq!((port.peers(), mapped()), (1, 2));
    writer.kill().expect("it runs");
    writer.wait().expect("it has ended");
    let name = format!("@bourdon-shm/{}/{number}/{place}", rustix::process::geteuid().as_raw());
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("Linux has it");
    assert!(!sockets.lines().any(|line| line.ends_with(&name)), "{name} stays behind");
    let files = std::fs::read_dir("/dev/shm").into_iter().flatten().map_while(Result::ok);
    // The nodes' own files, of other groups, may be there.
    let left = files.map(|file| file.file_name().to_string_lossy().into_owned());
    assert!(!left.into_iter().any(|name| name.contains("bourdon-log") || name.contains("bourdon-shm")));
    let mut next = 0;
    poll_until(&mut port, |port| {
        port.receive(7, |arrival| {
            assert_eq!(arrival.bytes, u64::to_le_bytes(next));
            next += 1;
        })
        .expect("a receive that works");
        next == DATAGRAMS
    });
    let started = Instant::now();
    while port.peers() > 0 {
        port.receive(7, |_| {}).expect("a receive that works");
        assert!(started.elapsed() < PATIENCE, "the process is gone, and still read");
    }
    assert_eq!(mapped(), 1, "its log stays mapped");
    let successor = open(number);
    assert_eq!(successor.local_address().port().to_string(), place, "its place is free");
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    match part() {
        Some((part, number)) if part == "write" => write(number),
        Some((_, number)) => read(number),
        None => assert!(start(TEST, "read", fresh_number()).status().expect("it starts").success()),
    }
}
