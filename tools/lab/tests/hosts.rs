//! Hosts that hear each other, and the faults injected among them.
//!
//! No test here waits for silence. A cable in the kernel neither loses nor reorders, so a text that came later proves
//! that an earlier one did not pass: a witness has the first text, and the host that was cut off has only the second. A
//! machine where namespaces are not allowed skips these tests and reports why.

use bourdon_lab::hosts::{Lab, Process, ProcessError};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const PROBE: &str = env!("CARGO_BIN_EXE_bourdon-lab");
const GROUP: &str = "239.77.0.1:7700";
/// A text is sent again after this long, since a membership report may be in flight.
const AGAIN: Duration = Duration::from_millis(50);
/// After this long the test gives up and fails.
const TRIES: usize = 600;

fn lab(hosts: usize) -> Option<Lab> {
    match Lab::new(hosts) {
        Ok(lab) => Some(lab),
        Err(why) => {
            crate::skipped::report(why);
            None
        }
    }
}

/// A probe that listens on a host.
struct Ear {
    lines: Receiver<String>,
    process: Process,
}

impl Ear {
    fn new(lab: &Lab, host: usize, to: &str) -> Self {
        let host = lab.host(host);
        let mut command = host.command(PROBE);
        command.args(["probe", "receive", to, "--interface", &host.address().to_string()]).stdout(Stdio::piped());
        let mut process = Process::start(&mut command).expect("a probe starts");
        let stdout = process.child().stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        assert_eq!(lines.recv().as_deref(), Ok("ready"));
        Self { lines, process }
    }

    /// Sends a text until a text other than `old` is heard here, and returns that text.
    ///
    /// Texts are sent more than once, so earlier texts may come again.
    fn hears(&self, lab: &Lab, from: usize, to: &str, text: &str, old: &[&str]) -> Option<String> {
        for _ in 0..TRIES {
            send(lab, from, to, text);
            while let Some(heard) = self.next() {
                if !old.contains(&heard.as_str()) {
                    return Some(heard);
                }
            }
        }
        None
    }

    fn next(&self) -> Option<String> {
        match self.lines.recv_timeout(AGAIN) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the probe ended"),
        }
    }
}

fn send(lab: &Lab, from: usize, to: &str, text: &str) {
    let sent = lab.host(from).command(PROBE).args(["probe", "send", to, text]).status().expect("a probe runs");
    assert!(sent.success());
}

fn at(lab: &Lab, host: usize) -> String {
    SocketAddr::new(IpAddr::V4(lab.host(host).address()), 7701).to_string()
}

#[test]
fn unicast_and_multicast_cross() {
    let Some(lab) = lab(2) else { return };
    let (group, alone) = (Ear::new(&lab, 1, GROUP), Ear::new(&lab, 1, &at(&lab, 1)));
    assert_eq!(group.hears(&lab, 0, GROUP, "to all", &[]).as_deref(), Some("to all"));
    assert_eq!(alone.hears(&lab, 0, &at(&lab, 1), "to you", &[]).as_deref(), Some("to you"));
}

#[test]
fn ipv6_crosses_too() {
    let Some(lab) = lab(2) else { return };
    let unicast = SocketAddr::new(IpAddr::V6(lab.host(1).address_v6()), 7701).to_string();
    for to in [unicast.as_str(), "[ff05::77]:7702"] {
        let ear = Ear::new(&lab, 1, to);
        assert_eq!(ear.hears(&lab, 0, to, "six", &[]).as_deref(), Some("six"), "{to}");
    }
}

#[test]
fn a_host_that_is_cut_off_hears_nothing_until_restored() {
    let Some(lab) = lab(3) else { return };
    let (cut, witness) = (Ear::new(&lab, 1, GROUP), Ear::new(&lab, 2, GROUP));
    for ear in [&cut, &witness] {
        assert_eq!(ear.hears(&lab, 0, GROUP, "before", &[]).as_deref(), Some("before"));
    }
    lab.cut(1).expect("cut");
    assert_eq!(witness.hears(&lab, 0, GROUP, "during", &["before"]).as_deref(), Some("during"));
    // Its own kernel still gives it what it sends itself.
    assert_eq!(cut.hears(&lab, 1, GROUP, "to itself", &["before"]).as_deref(), Some("to itself"));
    lab.restore(1).expect("restored");
    assert_eq!(cut.hears(&lab, 0, GROUP, "after", &["before", "to itself"]).as_deref(), Some("after"));
    assert_eq!(witness.hears(&lab, 0, GROUP, "after", &["before", "during"]).as_deref(), Some("after"));
    assert!(lab.restore(1).is_err(), "it was not cut any more");
}

#[test]
fn one_way_is_one_way() {
    let Some(lab) = lab(3) else { return };
    let ears = [0, 1, 2].map(|host| Ear::new(&lab, host, GROUP));
    lab.cut_one_way(0, 1).expect("cut");
    assert_eq!(ears[2].hears(&lab, 0, GROUP, "dropped", &[]).as_deref(), Some("dropped"));
    assert_eq!(ears[0].hears(&lab, 1, GROUP, "the other way", &["dropped"]).as_deref(), Some("the other way"));
    lab.restore_one_way(0, 1).expect("restored");
    assert_eq!(ears[1].hears(&lab, 0, GROUP, "healed", &["the other way"]).as_deref(), Some("healed"));
}

#[test]
fn one_way_leaves_unicast_the_other_way() {
    let Some(lab) = lab(2) else { return };
    // No host knows the other's link address yet: the query and its answer must pass.
    lab.cut_one_way(0, 1).expect("cut");
    let (zero, one) = (Ear::new(&lab, 0, &at(&lab, 0)), Ear::new(&lab, 1, &at(&lab, 1)));
    send(&lab, 0, &at(&lab, 1), "dropped");
    assert_eq!(zero.hears(&lab, 1, &at(&lab, 0), "passed", &[]).as_deref(), Some("passed"));
    lab.restore_one_way(0, 1).expect("restored");
    assert_eq!(one.hears(&lab, 0, &at(&lab, 1), "healed", &[]).as_deref(), Some("healed"));
}

#[test]
fn a_process_that_is_stopped_hears_it_later() {
    let Some(lab) = lab(2) else { return };
    let to = at(&lab, 1);
    let mut ear = Ear::new(&lab, 1, &to);
    assert_eq!(ear.hears(&lab, 0, &to, "first", &[]).as_deref(), Some("first"));
    ear.process.stop().expect("stopped");
    send(&lab, 0, &to, "second");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", ear.process.child().id())).expect("it is alive");
    assert!(stat.contains(") T "), "stopped by its own id, not a helper's: {stat}");
    ear.process.resume().expect("resumed");
    assert_eq!(ear.hears(&lab, 0, &to, "third", &["first"]).as_deref(), Some("second"));
    ear.process.kill().expect("killed");
    assert!(matches!(ear.process.kill(), Err(ProcessError::Ended(_))));
}

#[test]
fn nothing_is_left_behind() {
    let Some(lab) = lab(2) else { return };
    let namespaces = lab.namespaces();
    let exists = |name: &String| Path::new("/run/netns").join(name).exists();
    assert!(namespaces.iter().all(exists));
    // Not a `Process`: only the lab ends it.
    let mut command = lab.host(0).command("sh");
    let mut child = command.args(["-c", "echo in; exec sleep 1000"]).stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it entered");
    let panicked = std::thread::spawn(move || {
        let _lab = lab;
        panic!("as a test that fails");
    });
    assert!(panicked.join().is_err());
    assert!(!namespaces.iter().any(exists));
    assert!(!child.wait().expect("it has ended").success());
}

#[test]
fn a_dead_harness_s_leftovers_are_removed() {
    let Some(_lab) = lab(1) else { return };
    // A process that has ended and been waited for; its id is free.
    let mut dead = Command::new("true").spawn().expect("started");
    dead.wait().expect("ended");
    let name = format!("bdlab-{}-1-h0", dead.id());
    assert!(Command::new("ip").args(["netns", "add", &name]).status().expect("ip runs").success());
    let Some(_another) = lab(1) else { return };
    assert!(!Path::new("/run/netns").join(&name).exists());
}
