//! Networks, hosts and set-ups that are wrong, as operators meet them: each test asserts the sentence that names the
//! fault, and that the group works again, or ends with what to do. Hosts are a lab's; without root these tests are
//! skipped.
//!
//! The path:
//! 1. A switch port of a smaller MTU, from the start: the member behind it is left out, named everywhere, and returns.
//! 2. The long datagrams of one host vanish while it publishes: what was acknowledged arrives, once, in order.
//! 3. The same between hosts whose processes share memory: two on one host go on without the third.
//! 4. `limits.mtu_bytes` for jumbo frames, and no jumbo frames: the start names both numbers, and no path is blamed.
//!
//! The host:
//! 5. The interface does not exist when the node starts: the node reports it and waits.
//! 6. The IPv6 address changes under a member and its subscriber: both come back.
//! 7. A suspended host resumes with another interface and another address: its member comes back.
//!
//! The set-up:
//! 8. A configuration copied to a second host, with its rank: the second node ends and names the first.
//! 9. A second team with this name and port, and another number of members: it ends, and the first goes on.
//! 10. A configuration of a later version: every command ends and names the key and its line.
//! 11. Another setting at one member before the group forms: both values are named, and mended it forms.

use crate::common::{fails, signal};
use crate::skipped;
use bourdon_lab::hosts::{Lab, Process};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a loaded host; reached only by failing tests.
const PATIENCE: Duration = Duration::from_secs(90);
/// All members are in the view.
const WHOLE: &str = "members 0, 1, 2,";

/// Places for processes, each with a directory and on a host.
struct Site {
    lab: Lab,
    folder: TempDir,
    /// By place. Where each has its own host, a place is called by its host.
    hosts: Vec<usize>,
}

/// A running `bourdon`, and the lines that it has written.
struct Program {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    written: Vec<String>,
    /// How many of them `until` has passed.
    passed: usize,
}

impl Site {
    fn new(hosts: usize) -> Option<Self> {
        Self::with((0..hosts).collect())
    }

    fn with(hosts: Vec<usize>) -> Option<Self> {
        match Lab::new(hosts.iter().max().map_or(0, |last| last + 1)) {
            Ok(lab) => Some(Self { lab, folder: tempfile::tempdir().expect("a directory can be made"), hosts }),
            Err(why) => {
                skipped::report(why);
                None
            }
        }
    }

    /// Writes the configuration of a member of three on a host, changed in these places.
    fn configure(&self, host: usize, rank: usize, changes: &[(&str, &str)]) -> String {
        let directory = self.directory(host);
        let mut text = format!(
            "[group]\nname = \"prices\"\naddress = \"239.77.1.1:7401\"\nmembers = 3\n[process]\nrank = {rank}\n\
             [network]\ninterface = \"eth0\"\n[threads]\ndirectory = \"{directory}\"\n"
        );
        for (old, new) in changes {
            assert!(text.contains(old), "{old}: {text}");
            text = text.replace(old, new);
        }
        let path = self.config(host);
        std::fs::write(&path, text).expect("it can be written");
        path
    }

    fn config(&self, host: usize) -> String {
        self.folder.path().join(format!("{host}.toml")).display().to_string()
    }

    fn directory(&self, host: usize) -> String {
        self.folder.path().join(format!("host-{host}")).display().to_string()
    }

    fn start(&self, host: usize, arguments: &[&str]) -> Program {
        let mut command = self.lab.host(self.hosts[host]).command(env!("CARGO_BIN_EXE_bourdon"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command).expect("it starts");
        let (sender, lines) = channel();
        let child = process.child();
        let stdin = child.stdin.take();
        read(child.stdout.take().expect("piped"), sender.clone());
        read(child.stderr.take().expect("piped"), sender);
        Program { process, stdin, lines, written: Vec::new(), passed: 0 }
    }

    fn node(&self, host: usize) -> Program {
        self.start(host, &["node", "--config", &self.config(host)])
    }

    /// Three members, at the first three places, configured with these changes.
    fn nodes(&self, changes: &[(&str, &str)]) -> [Program; 3] {
        [0, 1, 2].map(|host| {
            self.configure(host, host, changes);
            self.node(host)
        })
    }

    /// The same, in their first view.
    fn formed(&self, changes: &[(&str, &str)]) -> [Program; 3] {
        let mut nodes = self.nodes(changes);
        whole(&mut nodes);
        nodes
    }

    fn publisher(&self, host: usize) -> Program {
        self.start(host, &["publish", "prices", "es", "--config", &self.config(host)])
    }

    fn subscriber(&self, host: usize) -> Program {
        let mut subscriber = self.start(host, &["subscribe", "prices", "es", "--config", &self.config(host)]);
        subscriber.until(&["observing"]);
        subscriber
    }

    /// Runs a command to its end; what it wrote.
    fn shown(&self, host: usize, command: &str) -> String {
        let (code, text) = self.start(host, &[command, "--directory", &self.directory(host)]).ended();
        assert_eq!(code, Some(0), "{text}");
        text
    }

    /// Waits until the node on a host has a view of all members. A member that the kernel does not run for a while is
    /// removed, and comes back.
    fn has_whole_view(&self, host: usize) {
        let begun = Instant::now();
        loop {
            let text = self.shown(host, "view");
            if text.contains(", 3 of 3 members, quorate") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{text}");
        }
    }

    /// Runs `ip` on a host.
    fn ip(&self, host: usize, arguments: &str) {
        let status = self.lab.host(host).command("ip").args(arguments.split(' ')).status().expect("ip runs");
        assert!(status.success(), "ip {arguments}");
    }
}

fn read(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
}

/// Waits until each has entered a view of all.
fn whole(nodes: &mut [Program]) {
    for node in nodes {
        node.until(&["view ", WHOLE]);
    }
}

impl Program {
    /// Waits for the next line that has all of these parts, and returns it.
    fn until(&mut self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(line) = self.written.get(self.passed) {
                self.passed += 1;
                if parts.iter().all(|part| line.contains(part)) {
                    return line.clone();
                }
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.written.push(line),
                Err(why) => panic!("no line with {parts:?}, {why}: {:#?}", self.written),
            }
        }
    }

    /// Whether a line written so far has all of these parts.
    fn has(&mut self, parts: &[&str]) -> bool {
        self.written.extend(self.lines.try_iter());
        self.written.iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }

    /// Publishes numbered lines of more than 1,000 bytes: each takes a long datagram.
    fn feed(&mut self, numbers: Range<usize>) {
        let padding = "x".repeat(1_100);
        let text: String = numbers.map(|number| format!("{number} {padding}\n")).collect();
        self.stdin.as_mut().expect("open").write_all(text.as_bytes()).expect("it reads");
    }

    /// Waits until it ends by itself: its exit code, and all that it wrote.
    fn ended(mut self) -> (Option<i32>, String) {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.written.push(line);
        }
        let text = self.written.join("\n");
        assert!(Instant::now() < deadline, "it goes on: {text}");
        (self.process.wait().expect("it ends").code(), text)
    }

    /// All was published and acknowledged.
    fn has_published(self) {
        let (code, text) = self.ended();
        assert_eq!(code, Some(0), "{text}");
    }

    /// Waits for these numbered lines: each once, in order, and no others.
    fn receives(&mut self, numbers: Range<usize>) {
        for number in numbers {
            let line = self.until(&["xxxx"]);
            assert!(line.starts_with(&format!("{number} ")), "{number}: {:.60}", line);
        }
    }
}

#[test]
fn a_member_behind_a_narrow_port_is_named_left_out_and_comes_back() {
    let Some(site) = Site::new(3) else { return };
    site.lab.set_port_mtu(2, 1_000).expect("set");
    let mut nodes = site.formed(&[("[threads]", "offload = false\n[threads]")]);
    let (mut subscriber, mut publisher) = (site.subscriber(1), site.publisher(0));
    publisher.feed(0..50);
    nodes[0].until(&["member 0 receives no datagrams of", "from member 2"]);
    nodes[2].until(&["member 2 receives no datagrams of", "limits.mtu_bytes"]);
    nodes[0].until(&["view ", "members 0, 1,"]);
    publisher.feed(50..100);
    publisher.has_published();
    subscriber.receives(0..100);
    // It waits, and names the reason; so do `stat` and `view`.
    nodes[2].until(&["waits to be let in", "long datagrams", "0, 1"]);
    for (host, others) in [(0, "2"), (2, "0, 1")] {
        let text = site.shown(host, "stat");
        assert!(text.contains("NARROW PATH") && text.contains(others) && !text.contains("healthy"), "{text}");
    }
    site.lab.set_port_mtu(2, 1_500).expect("set");
    whole(&mut nodes);
    // Its last report of the path counts for a second or so.
    let begun = Instant::now();
    loop {
        let text = site.shown(0, "stat");
        if text.contains("healthy: ") && !text.contains("NARROW") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
    }
}

#[test]
fn a_publisher_whose_long_datagrams_vanish_loses_nothing_that_was_acknowledged() {
    let Some(site) = Site::new(3) else { return };
    let mut nodes = site.formed(&[]);
    let (mut subscriber, mut publisher) = (site.subscriber(0), site.publisher(2));
    publisher.feed(0..20);
    subscriber.receives(0..20);
    site.lab.drop_long(2).expect("dropped");
    publisher.feed(20..40);
    publisher.until(&["no message has been taken for", "limits.mtu_bytes", "bourdon stat"]);
    nodes[2].until(&["receives no datagrams of", "from member 2"]);
    let text = site.shown(2, "stat");
    assert!(text.contains("NARROW PATH: no long datagrams of this process reach member"), "{text}");
    site.lab.pass_long(2).expect("passed");
    publisher.has_published();
    subscriber.receives(20..40);
    let mut after = site.publisher(1);
    after.feed(40..41);
    after.has_published();
    subscriber.receives(40..41);
    assert!(nodes.iter_mut().all(|node| node.process.ended().expect("it can be asked").is_none()));
}

#[test]
fn processes_that_share_memory_go_on_without_one_behind_a_narrow_port() {
    let Some(site) = Site::with(vec![0, 0, 1]) else { return };
    site.lab.set_port_mtu(1, 1_000).expect("set");
    let mut nodes = site.formed(&[("[threads]", "offload = false\ntransport = \"auto\"\n[threads]")]);
    let text = site.shown(0, "view");
    for (rank, way) in [("member 1 ", " by shm"), ("member 2 ", " by multicast")] {
        assert!(text.lines().any(|line| line.contains(rank) && line.ends_with(way)), "{rank}{way}: {text}");
    }
    assert_eq!(text.matches(" by ").count(), 2, "{text}");
    let (mut subscriber, mut publisher) = (site.subscriber(1), site.publisher(0));
    publisher.feed(0..50);
    nodes[0].until(&["member 0 receives no datagrams of", "from member 2"]);
    nodes[0].until(&["view ", "members 0, 1,"]);
    publisher.feed(50..100);
    publisher.has_published();
    subscriber.receives(0..100);
    nodes[2].until(&["waits to be let in", "long datagrams", "0, 1"]);
    site.lab.set_port_mtu(1, 1_500).expect("set");
    whole(&mut nodes);
    assert!(!nodes[0].has(&["member 0 receives no datagrams of", "from member 1"]), "shared memory is as wide as ever");
}

#[test]
fn jumbo_datagrams_on_an_interface_without_them_are_reported_at_the_start_and_blame_no_path() {
    let Some(site) = Site::new(3) else { return };
    let mut nodes = site.nodes(&[("[process]", "[limits]\nmtu_bytes = 8900\n[process]")]);
    for node in &mut nodes {
        node.until(&["limits.mtu_bytes is 8900", "MTU of eth0 is 1500"]);
    }
    whole(&mut nodes);
    let (mut subscriber, mut publisher) = (site.subscriber(1), site.publisher(0));
    publisher.feed(0..400);
    publisher.has_published();
    subscriber.receives(0..400);
    assert!(!nodes.iter_mut().any(|node| node.has(&["receives no datagrams"])));
}

#[test]
fn a_node_waits_for_an_interface_that_does_not_exist_yet() {
    let Some(site) = Site::new(3) else { return };
    site.lab.remove_interface(2).expect("removed");
    let mut nodes = site.nodes(&[]);
    nodes[2].until(&["interface eth0 does not exist", "waiting", "lo"]);
    nodes[0].until(&["waits for the first view", "not heard yet: 2"]);
    site.lab.make_interface(2).expect("made");
    whole(&mut nodes);
    // A name that is spelt wrong reads the same, with the interfaces that there are; the node can be ended meanwhile.
    site.configure(1, 1, &[("eth0", "eht0")]);
    let mut wrong = site.node(1);
    wrong.until(&["interface eht0 does not exist", "eth0"]);
    signal(wrong.process.child(), "TERM");
    let (code, text) = wrong.ended();
    assert_eq!(code, Some(0), "{text}");
    // A command that a user waits for does not wait itself.
    let (code, text) = site.publisher(1).ended();
    assert!(code == Some(2) && text.contains("eht0"), "{text}");
}

#[test]
fn a_member_whose_ipv6_address_changes_comes_back_and_so_does_its_subscriber() {
    let Some(site) = Site::new(3) else { return };
    let mut nodes = site.formed(&[("239.77.1.1:7401", "[ff15::77:1]:7401")]);
    let (mut subscriber, mut publisher) = (site.subscriber(2), site.publisher(0));
    publisher.feed(0..20);
    subscriber.receives(0..20);
    site.ip(2, "-6 address delete fd77::3/64 dev eth0");
    site.ip(2, "-6 address add fd77::33/64 dev eth0 nodad");
    nodes[2].until(&["interface eth0 has the address", "fd77::3"]);
    publisher.feed(20..40);
    subscriber.receives(20..40);
    publisher.has_published();
    // Whether it was quick enough to keep its place or not: it is in the view in the end.
    let mut own = site.publisher(2);
    own.feed(40..60);
    own.has_published();
    subscriber.receives(40..60);
    while !site.shown(0, "stat").contains("of 3 members") {}
}

#[test]
fn a_suspended_host_resumes_with_another_interface_and_address() {
    let Some(mut site) = Site::new(3) else { return };
    let mut nodes = site.formed(&[]);
    let (mut subscriber, mut publisher) = (site.subscriber(2), site.publisher(0));
    publisher.feed(0..20);
    subscriber.receives(0..20);
    nodes[2].process.stop().expect("stopped");
    subscriber.process.stop().expect("stopped");
    nodes[0].until(&["view ", "members 0, 1,"]);
    publisher.feed(20..40);
    site.lab.remove_interface(2).expect("removed");
    site.lab.make_interface(2).expect("made");
    site.lab.take_address(2).expect("taken");
    site.lab.give_address(2, true).expect("given");
    publisher.has_published();
    nodes[2].process.resume().expect("resumed");
    subscriber.process.resume().expect("resumed");
    nodes[2].until(&["interface eth0 has the address 10.77.0.131 now (this process was at 10.77.0.3)"]);
    nodes[2].until(&["the others went on without this process"]);
    whole(&mut nodes);
    for (host, command) in [(2, "stat"), (2, "view"), (0, "view")] {
        let text = site.shown(host, command);
        assert!(text.contains("10.77.0.131:") && !text.contains("10.77.0.3:"), "{command} at {host}: {text}");
    }
    let mut own = site.publisher(2);
    own.feed(40..60);
    own.has_published();
    subscriber.receives(20..60);
}

#[test]
fn a_configuration_copied_to_a_second_host_ends_there_and_names_the_first() {
    let Some(site) = Site::new(4) else { return };
    let _nodes = site.formed(&[]);
    site.configure(3, 1, &[]);
    let (code, text) = site.node(3).ended();
    assert!(code == Some(2) && text.contains("10.77.0.2") && text.contains("rank 1"), "{code:?}: {text}");
    let (mut subscriber, mut publisher) = (site.subscriber(2), site.publisher(3));
    publisher.feed(0..20);
    publisher.has_published();
    subscriber.receives(0..20);
    site.has_whole_view(1);
}

#[test]
fn a_second_team_with_another_number_of_members_ends_and_the_first_goes_on() {
    let Some(site) = Site::new(5) else { return };
    let _nodes = site.formed(&[]);
    let second = [(3, 0), (4, 1)].map(|(host, rank)| {
        site.configure(host, rank, &[("members = 3", "members = 2")]);
        site.node(host)
    });
    for node in second {
        let (code, text) = node.ended();
        let names = text.contains("group.members is 2 here and 3 at member");
        assert!(code == Some(2) && names, "{code:?}: {text}");
    }
    let (mut subscriber, mut publisher) = (site.subscriber(2), site.publisher(0));
    publisher.feed(0..20);
    publisher.has_published();
    subscriber.receives(0..20);
    site.has_whole_view(2);
}

#[test]
fn a_configuration_of_a_later_version_is_refused_by_every_command_with_the_key_and_its_line() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let path = folder.path().join("bourdon.toml");
    let config = path.display().to_string();
    for (text, parts) in [
        ("[group]\nname = \"prices\"\n[network]\nneighbour_watch_ns = 5\n", &["line 4", "neighbour_watch_ns"]),
        ("[group]\nname = \"prices\"\n[vault]\nsegments = 4\n", &["line 3", "vault"]),
        ("[network]\ntransport = \"quic\"\n", &["line 2", "quic"]),
    ] {
        std::fs::write(&path, text).expect("it can be written");
        for command in [&["node"][..], &["publish", "prices", "es"], &["subscribe", "prices", "es"]] {
            let arguments = [command, &["--config", &config]].concat();
            parts.iter().chain(&["bourdon.toml"]).for_each(|part| fails(&arguments, b"", 2, part));
        }
    }
}

#[test]
fn another_setting_at_one_member_is_named_with_both_values_before_the_group_forms() {
    let Some(site) = Site::new(3) else { return };
    let mut nodes = [0, 1].map(|host| {
        site.configure(host, host, &[]);
        site.node(host)
    });
    site.configure(2, 2, &[("members = 3", "members = 4")]);
    let (code, text) = site.node(2).ended();
    assert!(code == Some(2) && text.contains("group.members is 4 here and 3 at member"), "{code:?}: {text}");
    for node in &mut nodes {
        node.until(&["group.members is 3 here and 4 at member 2"]);
    }
    site.configure(2, 2, &[]);
    let mut mended = site.node(2);
    whole(&mut nodes);
    mended.until(&["view ", WHOLE]);
}
