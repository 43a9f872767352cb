//! Hosts whose network drops multicast: with the transport `auto` the group still forms and delivers, reports what it
//! found, uses multicast again where it works again, and survives when it fails in the middle of a stream.
//!
//! Each host drops the multicast that arrives at it by its own rule, so that no process gets an error. Without root
//! there is no lab, and these tests are skipped.

use bourdon_lab::hosts::{Lab, Process};
use bourdon_lab::judge::{Order, Reliability, Rules, judge};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const MEMBERS: usize = 3;
/// Longer than anything here takes on a loaded host; reached only by failing tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a member may be silent before the others are checked.
const LOOK: Duration = Duration::from_millis(5);
/// What a host drops and counts.
const HOLE: &str = "\
table inet hole {
    chain arriving {
        type filter hook input priority 0;
        ip daddr 224.0.0.0/4 udp dport 7401 counter drop
    }
}
";

/// Runs `nft` on a host; returns its output.
fn nft(lab: &Lab, host: usize, rules: &str) -> String {
    let mut command = lab.host(host).command("nft");
    let mut child =
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nft is there");
    child.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{rules}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A lab's member and its incarnations so far; a removed member begins its next incarnation.
struct Member<'a> {
    lab: &'a Lab,
    rank: usize,
    incarnation: u32,
    folder: PathBuf,
    process: Process,
    lines: Receiver<String>,
    last_line: String,
}

impl<'a> Member<'a> {
    fn start(lab: &'a Lab, rank: usize, incarnation: u32, folder: &Path) -> Self {
        let peers: Vec<String> = lab.hosts().map(|host| format!("{}:7500", host.address())).collect();
        let suffix = if incarnation == 1 { String::new() } else { format!(".{incarnation}") };
        let history = folder.join(format!("member-{rank}{suffix}.tsv"));
        let mut command = lab.host(rank).command(env!("CARGO_BIN_EXE_bourdon-lab"));
        command.args(["member", "--members", &MEMBERS.to_string(), "--reliability", "uniform", "--talk"]);
        command.args(["--transport", "auto", "--peers", &peers.join(","), "--history"]).arg(history);
        let mut process = Process::start(command.stderr(Stdio::piped())).expect("it starts");
        let (sender, lines) = channel();
        let talk = BufReader::new(process.child().stderr.take().expect("piped"));
        std::thread::spawn(move || talk.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { lab, rank, incarnation, folder: folder.to_owned(), process, lines, last_line: String::new() }
    }

    /// Begins the next incarnation if this one is over; keeps the last report on how each peer is reached.
    fn look(&mut self) {
        while let Ok(line) = self.lines.recv_timeout(LOOK) {
            println!("{line}");
            if line.contains("multicast reaches") {
                self.last_line = line;
            }
        }
        if let Ok(Some(status)) = self.process.child().try_wait() {
            assert!(status.success(), "member {} ended: {status}", self.rank);
            *self = Self::start(self.lab, self.rank, self.incarnation + 1, &self.folder);
        }
    }

    /// The lines of this incarnation that begin with this prefix.
    fn count(&self, begin: &str) -> usize {
        let suffix = if self.incarnation == 1 { String::new() } else { format!(".{}", self.incarnation) };
        let path = self.folder.join(format!("member-{}{suffix}.tsv", self.rank));
        std::fs::read_to_string(path).unwrap_or_default().lines().filter(|line| line.starts_with(begin)).count()
    }
}

fn until(members: &mut [Member<'_>], what: &str, done: impl Fn(&Member<'_>) -> bool) -> Duration {
    let begun = Instant::now();
    while !members.iter().all(&done) {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        members.iter_mut().for_each(Member::look);
    }
    begun.elapsed()
}

/// Waits until each has delivered this many more messages.
fn until_more(members: &mut [Member<'_>], what: &str) {
    let before: Vec<(u32, usize)> = members.iter().map(|member| (member.incarnation, member.count("D"))).collect();
    until(members, what, |member| {
        let (incarnation, count) = before[member.rank];
        member.count("D") >= 200 + if incarnation == member.incarnation { count } else { 0 }
    });
}

#[test]
fn a_group_forms_and_delivers_where_multicast_is_swallowed() {
    let lab = match Lab::new(MEMBERS) {
        Ok(lab) => lab,
        Err(why) => return crate::skipped::report(why),
    };
    let folder = tempfile::tempdir().expect("a folder");
    (0..MEMBERS).for_each(|host| _ = nft(&lab, host, HOLE));
    let mut members: Vec<_> = (0..MEMBERS).map(|rank| Member::start(&lab, rank, 1, folder.path())).collect();
    until_more(&mut members, "a group in a black hole");
    until(&mut members, "that all say so", |it| {
        it.last_line.ends_with("reaches 0 of 2 peers; the others get everything over tcp")
    });
    let dropped = nft(&lab, 1, "list table inet hole");
    assert!(!dropped.contains("counter packets 0 "), "multicasts came and were dropped: {dropped}");

    (0..MEMBERS).for_each(|host| _ = nft(&lab, host, "delete table inet hole"));
    let took = until(&mut members, "that the way is free", |it| it.last_line.ends_with("reaches 2 of 2 peers"));
    println!("multicast was found {took:?} after it worked again");
    until_more(&mut members, "more by multicast");

    nft(&lab, 2, HOLE);
    until(&mut members, "that one is deaf", |it| {
        let expected = if it.rank == 2 { "2 of 2 peers" } else { "1 of 2 peers; the others get everything over tcp" };
        it.last_line.ends_with(expected)
    });
    until_more(&mut members, "more with a member that receives no multicast");
    let incarnations: Vec<u32> = members.iter().map(|member| member.incarnation).collect();
    println!("incarnations: {incarnations:?}");

    drop(members);
    let rules = Rules { order: Order::Total, reliability: Reliability::Uniform, allow_skips: false, running: true };
    let histories = bourdon_lab::history::read(folder.path()).expect("histories");
    let verdict = judge(&histories, rules);
    assert_eq!(verdict.violations, [], "{verdict:?}");
    assert!(verdict.deliveries > 1000, "{verdict:?}");
}
