//! Two hosts of three processes each: on a host they share memory, between the hosts there is UDP. The group has one
//! order, through deaths, a process whose shared memory is malformed, a host whose network is gone, and a host whose
//! processes hear each other by shared memory only.
//!
//! Without root there is no lab, and this test is skipped.

use bourdon_lab::hosts::{Lab, Process};
use bourdon_lab::judge::{Order, Reliability, Rules, judge};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The processes of each host: members by rank, and an observer, so that one host has a majority.
const PLACES: [(&str, u16, usize); 6] =
    [("member", 0, 0), ("member", 1, 0), ("member", 2, 0), ("member", 3, 1), ("member", 4, 1), ("observer", 0, 1)];
const MEMBERS: usize = 5;
/// Longer than anything here takes on a loaded host; reached only by failing tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where in a log it is written how far it reaches.
const LOG_TAIL_BYTES: u64 = 128;
const LOOK: Duration = Duration::from_millis(5);

struct Running<'a> {
    lab: &'a Lab,
    place: usize,
    incarnation: u32,
    folder: &'a Path,
    process: Process,
    lines: Receiver<String>,
    /// The last report on how others are reached.
    reached: String,
}

impl<'a> Running<'a> {
    fn start(lab: &'a Lab, place: usize, incarnation: u32, folder: &'a Path) -> Self {
        let mut command = lab.host(PLACES[place].2).command(env!("CARGO_BIN_EXE_bourdon-lab"));
        command.args(["member", "--members", &MEMBERS.to_string(), "--reliability", "uniform", "--talk"]);
        command.args(["--transport", "auto", "--history"]).arg(history(folder, place, incarnation));
        let mut process = Process::start(command.stderr(Stdio::piped())).expect("it starts");
        let (sender, lines) = channel();
        let talk = BufReader::new(process.child().stderr.take().expect("piped"));
        std::thread::spawn(move || talk.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { lab, place, incarnation, folder, process, lines, reached: String::new() }
    }

    /// Begins the next incarnation if this one is over.
    fn look(&mut self) {
        while let Ok(line) = self.lines.recv_timeout(LOOK) {
            println!("{line}");
            if line.contains("shared memory reaches") || line.contains("shares memory") {
                self.reached = line;
            }
        }
        if let Ok(Some(status)) = self.process.child().try_wait() {
            assert!(status.success(), "{} ended: {status}", self.place);
            *self = Self::start(self.lab, self.place, self.incarnation + 1, self.folder);
        }
    }

    /// Makes its log one that no reader can follow, for as long as it writes nothing: another process of the host that
    /// reads there meanwhile shares no memory with it any more.
    fn garble_log(&self) {
        let process = format!("/proc/{}", self.process.id());
        let maps = std::fs::read_to_string(format!("{process}/maps")).expect("it runs");
        let is_own = |line: &&str| line.contains(" rw-s ") && line.contains("/memfd:bourdon-log");
        let (at, _) = maps.lines().find(is_own).and_then(|line| line.split_once('-')).expect("it has a log");
        let at = u64::from_str_radix(at, 16).expect("an address");
        let memory = OpenOptions::new().write(true).open(format!("{process}/mem")).expect("root may");
        memory.write_all_at(&1u64.to_le_bytes(), at + LOG_TAIL_BYTES).expect("it is mapped");
    }

    /// How many messages this incarnation has delivered.
    fn delivered(&self) -> usize {
        let text = std::fs::read_to_string(history(self.folder, self.place, self.incarnation)).unwrap_or_default();
        text.lines().filter(|line| line.starts_with('D')).count()
    }
}

fn history(folder: &Path, place: usize, incarnation: u32) -> PathBuf {
    let (role, rank, _) = PLACES[place];
    folder.join(match (role, incarnation) {
        ("member", 1) => format!("{role}-{rank}.tsv"),
        _ => format!("{role}-{rank}.{incarnation}.tsv"),
    })
}

fn until(running: &mut [Running<'_>], what: &str, done: impl Fn(&Running<'_>) -> bool) {
    let begun = Instant::now();
    while !running.iter().all(&done) {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        running.iter_mut().for_each(Running::look);
    }
}

/// Waits until each process that `which` names has delivered many more messages.
fn until_more(running: &mut [Running<'_>], what: &str, which: impl Fn(&Running<'_>) -> bool) {
    let before: Vec<_> = running.iter().map(|it| (it.place, it.incarnation, it.delivered())).collect();
    until(running, what, |it| {
        let (.., incarnation, count) = *before.iter().find(|before| before.0 == it.place).expect("one for each");
        !which(it) || it.delivered() >= 200 + if incarnation == it.incarnation { count } else { 0 }
    });
}

fn until_shared(running: &mut [Running<'_>]) {
    until(running, "that all share memory", |it| it.reached.contains("reaches 2 processes of this host"));
}

#[test]
fn two_hosts_of_three_processes_have_one_order_through_every_fault() {
    let lab = match Lab::new(2) {
        Ok(lab) => lab,
        Err(why) => return crate::skipped::report(why),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut running: Vec<_> = (0..PLACES.len()).map(|place| Running::start(&lab, place, 1, folder.path())).collect();
    let all = |_: &Running<'_>| true;
    let first_host = |it: &Running<'_>| PLACES[it.place].2 == 0;
    until_more(&mut running, "messages at all", all);
    until_shared(&mut running);

    // The shared memory of one process: the network carries everything between it and its host.
    let begun = Instant::now();
    let is_apart = |it: &Running<'_>| match it.place {
        1 => it.reached.contains("no process of this host"),
        _ => !first_host(it) || it.reached.contains("reaches 1 process of this host"),
    };
    while !running.iter().all(is_apart) {
        assert!(begun.elapsed() < PATIENCE, "member 1 still shares memory");
        running[1].garble_log();
        running.iter_mut().for_each(Running::look);
    }
    until_more(&mut running, "messages at all without the shared memory of member 1", all);

    // A process of each host is killed, and started again.
    for place in [1, 4] {
        let mut killed = running.remove(place);
        killed.process.kill().expect("it runs");
        until_more(&mut running, "the others go on", all);
        until(&mut running, "that its host notices", |it| {
            PLACES[it.place].2 != PLACES[place].2 || it.reached.contains("reaches 1 process of this host")
        });
        running.insert(place, Running::start(&lab, place, killed.incarnation + 1, folder.path()));
        until_more(&mut running, "messages at all again", all);
        until_shared(&mut running);
    }

    // The cable of the other host: the first has the majority.
    lab.cut(1).expect("the cable is there");
    until_more(&mut running, "the majority goes on alone", first_host);
    lab.restore(1).expect("the cable is there");
    until_more(&mut running, "messages at all after the cut", all);

    // The first host's interface: nothing but shared memory is left to the majority there.
    lab.bring_down(0).expect("it is there");
    until_more(&mut running, "the majority goes on by shared memory alone", first_host);
    lab.bring_up(0).expect("it is there");
    until_more(&mut running, "messages at all after that", all);
    until_shared(&mut running);

    drop(running);
    let rules = Rules { order: Order::Total, reliability: Reliability::Uniform, allow_skips: false, running: true };
    let histories = bourdon_lab::history::read(folder.path()).expect("histories");
    let verdict = judge(&histories, rules);
    assert_eq!(verdict.violations, [], "{verdict:?}");
    assert!(verdict.deliveries > 1000, "{verdict:?}");
}
