//! `bourdon lock` and `bourdon elect` as their users run them: real nodes, real commands, real kills.

use crate::common::{Running, World, bourdon, fails, next, run, signal};
use serde_json::Value;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{ChildStdout, Stdio};

struct Group {
    world: World,
    nodes: Vec<(Running, BufReader<ChildStdout>)>,
}

impl Group {
    /// Three members on this host that all know each other.
    fn new() -> Self {
        let world = World::new();
        let configs: Vec<_> = (0..3).map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, "")).collect();
        let mut nodes: Vec<_> =
            configs.iter().map(|config| world.node(config)).map(|(node, out, _)| (node, out)).collect();
        for (_, events) in &mut nodes {
            while next(events)["event"] != "view" {}
        }
        Self { world, nodes }
    }

    /// `bourdon lock` or `elect` at the first member that accepts it.
    fn start(&self, arguments: &[&str]) -> (Running, BufReader<ChildStdout>) {
        let (what, rest) = arguments.split_at(1);
        let mut command = bourdon(&[what, &["--directory", &self.world.runtime()], rest].concat());
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("it runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        (Running(child), out)
    }

    fn kill(&mut self, rank: usize) {
        self.nodes[rank].0.0.kill().expect("it runs");
    }
}

fn line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).expect("readable");
    line.trim_end().to_owned()
}

fn rest(out: &mut impl Read) -> String {
    let mut text = String::new();
    out.read_to_string(&mut text).expect("readable");
    text
}

fn code(mut running: Running) -> Option<i32> {
    running.0.wait().expect("it ends").code()
}

/// A shell that prints its process id and reads its stdin until that ends.
const HOLD: &str = "echo $BOURDON_TOKEN $$; cat";

#[test]
fn two_commands_take_turns_and_their_tokens_grow() {
    let group = Group::new();
    let (mut first, mut out) = group.start(&["lock", "one", "--", "sh", "-c", HOLD]);
    let token = line(&mut out);
    assert_eq!(token.split(' ').next().map(str::len), Some(48));
    let refused = run(&["lock", "one", "--directory", &group.world.runtime(), "--try", "--", "true"], b"");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not free"));
    let refused =
        run(&["lock", "one", "--directory", &group.world.runtime(), "--timeout", "0.05", "--json", "--", "true"], b"");
    assert_eq!(refused.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&refused.stdout).expect("one object");
    assert_eq!((&report["token"], &report["exit_code"]), (&Value::Null, &Value::Null));
    assert_eq!(report["not_granted"], "the lock was not granted in time");
    let mut second =
        bourdon(&["lock", "one", "--directory", &group.world.runtime(), "--json", "--", "sh", "-c", "env; exit 7"]);
    let mut second = Running(second.spawn().expect("it runs"));
    let mut talk = BufReader::new(second.0.stderr.take().expect("piped"));
    assert_eq!(line(&mut talk), "bourdon: waiting for lock \"one\", at place 2 of the queue");
    drop(first.0.stdin.take());
    assert_eq!(code(first), Some(0));
    let shown = rest(second.0.stdout.as_mut().expect("piped"));
    let report: Value = serde_json::from_str(shown.lines().last().expect("a line")).expect("one object");
    assert_eq!((&report["exit_code"], &report["lost"]), (&7.into(), &Value::Null));
    let number = |key: &str| report["token"][key].as_u64().expect("a number");
    let own = format!("{:016x}{:016x}{:016x}", number("birth"), number("epoch"), number("number"));
    assert!(own.as_str() > &token[..48], "{own} after {token}");
    for part in [
        "BOURDON_LOCK=one".to_owned(),
        format!("BOURDON_TOKEN={own}"),
        format!("BOURDON_LOCK_NUMBER={}", number("number")),
    ] {
        assert!(shown.lines().any(|line| line == part), "{part} in {shown}");
    }
    assert_eq!(code(second), Some(7));
}

#[test]
fn a_killed_holder_takes_its_command_along_and_leaves_the_lock() {
    let group = Group::new();
    let orphan = "echo up; read -r line; echo survived";
    let (mut first, mut out) = group.start(&["lock", "one", "--", "sh", "-c", orphan]);
    assert_eq!(line(&mut out), "up");
    let stdin = first.0.stdin.take();
    first.0.kill().expect("it runs");
    let (second, mut after) = group.start(&["lock", "one", "--", "echo", "mine"]);
    assert_eq!((line(&mut after).as_str(), code(second)), ("mine", Some(0)));
    first.0.wait().expect("it ends");
    // The command would go on now, if it had not been killed when its parent ended.
    drop(stdin);
    assert_eq!(rest(&mut out), "");
}

#[test]
fn a_command_ends_when_its_node_is_killed() {
    let mut group = Group::new();
    // The command ignores SIGTERM, so that the second signal is seen.
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let (first, mut out) = group.start(&["lock", "one", "--json", "--grace", "0.1", "--", "sh", "-c", stubborn]);
    assert_eq!(line(&mut out), "up");
    group.kill(0);
    let report: Value = serde_json::from_str(&line(&mut out)).expect("one object");
    assert!(report["lost"].as_str().is_some_and(|why| why.contains("is gone")), "{report}");
    assert_eq!((&report["exit_code"], code(first)), (&137.into(), Some(1)));
    let (second, mut after) = group.start(&["lock", "one", "--", "echo", "mine"]);
    assert_eq!((line(&mut after).as_str(), code(second)), ("mine", Some(0)));
}

/// Others may be restored before the deadline: a request that waits for its turn waits for that too.
#[test]
fn a_request_outlives_a_passing_loss_of_the_majority() {
    let mut group = Group::new();
    let stop = |group: &Group, name: &str| (1..3).for_each(|rank| signal(&group.nodes[rank].0.0, name));
    stop(&group, "STOP");
    while next(&mut group.nodes[0].1)["event"] != "no_majority" {}
    let config = group.world.path().join("0.toml").display().to_string();
    let mut command = bourdon(&["lock", "--config", &config, "--timeout", "60", "one", "--", "sh", "-c", "echo held"]);
    let mut child = command.spawn().expect("it runs");
    let mut talk = BufReader::new(child.stderr.take().expect("piped"));
    assert!(line(&mut talk).contains("waiting for lock \"one\""));
    stop(&group, "CONT");
    assert_eq!(line(&mut BufReader::new(child.stdout.take().expect("piped"))), "held");
    assert_eq!(code(Running(child)), Some(0));
}

#[test]
fn signals_are_passed_on() {
    let group = Group::new();
    let trap = "trap 'echo got; exit 3' INT; echo up; while :; do sleep 0.05; done";
    let (first, mut out) = group.start(&["lock", "one", "--", "sh", "-c", trap]);
    assert_eq!(line(&mut out), "up");
    signal(&first.0, "INT");
    assert_eq!(line(&mut out), "got");
    assert_eq!(code(first), Some(3));
}

#[test]
fn leaders_are_shown_and_follow_each_other() {
    let mut group = Group::new();
    let (first, mut out) = group.start(&["elect", "one", "--json"]);
    let mut seen = next(&mut out);
    while seen["leader"].is_null() {
        seen = next(&mut out);
    }
    assert_eq!((&seen["leader"], &seen["own"], &seen["name"]), (&0.into(), &true.into(), &"one".into()));
    let (watch, mut watched) = group.start(&["elect", "one", "--watch", "--json", "--until-leader"]);
    let mut same = next(&mut watched);
    while same["leader"].is_null() {
        same = next(&mut watched);
    }
    assert_eq!((&same["token"], &same["own"], code(watch)), (&seen["token"], &false.into(), Some(0)));
    signal(&first.0, "TERM");
    assert_eq!(code(first), Some(0));
    let (again, mut out) = group.start(&["elect", "one"]);
    let mut text = line(&mut out);
    if text == "one: no leader" {
        text = line(&mut out);
    }
    assert!(text.starts_with("one: member 0 leads, by this command, token "), "{text}");
    group.kill(0);
    assert_eq!(code(again), Some(1));
    let no_node = run(
        &["elect", "none", "--watch", "--for", "0.05", "--until-leader", "--directory", &group.world.runtime()],
        b"",
    );
    assert_eq!(no_node.status.code(), Some(1));
}

#[test]
fn of_several_members_here_the_configured_one_is_asked() {
    let group = Group::new();
    let config = group.world.path().join("2.toml").display().to_string();
    let leads = run(&["elect", "one", "--config", &config, "--until-leader"], b"");
    let text = String::from_utf8_lossy(&leads.stdout);
    assert!(text.contains("one: member 2 leads, by this command"), "{text}");
}

#[test]
fn a_group_that_does_not_form_in_time_grants_nothing_in_time() {
    let world = World::new();
    let config = world.configure("node.toml", 2, 0, "");
    let (_node, _events, _) = world.node(&config);
    let late = run(&["lock", "one", "--config", &config, "--timeout", "0.05", "--json", "--", "true"], b"");
    assert_eq!(late.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&late.stdout).expect("one object");
    assert!(report["not_granted"].as_str().is_some_and(|why| why.contains("still forming")), "{report}");
    // A command that does not wait reports what the user must do.
    fails(&["lock", "one", "--config", &config, "--try", "--", "true"], b"", 2, "still forming");
}

#[test]
fn a_command_does_not_wait_for_a_stopped_node_beyond_its_timeout() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (node, mut events, _) = world.node(&config);
    while next(&mut events)["event"] != "view" {}
    signal(&node.0, "STOP");
    fails(&["lock", "one", "--config", &config, "--timeout", "0.05", "--", "true"], b"", 2, "does not answer");
    // It is not the election that has no leader.
    for more in [&["--until-leader", "--watch"][..], &["--json"]] {
        let arguments = [&["elect", "one", "--config", &config, "--for", "0.3"], more].concat();
        fails(&arguments, b"", 2, "did not answer within 1.3 s");
    }
    // Without a timeout, each waits and reports why.
    for command in [&["lock", "one", "--config", &config, "--", "true"][..], &["elect", "one", "--config", &config]] {
        let mut child = bourdon(command).spawn().expect("it runs");
        let mut talk = BufReader::new(child.stderr.take().expect("piped"));
        let _running = Running(child);
        while !line(&mut talk).contains("has not answered for") {}
    }
    signal(&node.0, "CONT");
}

#[test]
fn issue_try_waited_without_end_for_a_stopped_node_and_a_timeout_of_0_refused_a_free_lock() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (node, mut events, _) = world.node(&config);
    while next(&mut events)["event"] != "view" {}
    let granted = run(&["lock", "one", "--config", &config, "--timeout", "0", "--", "echo", "mine"], b"");
    assert_eq!((granted.status.code(), &granted.stdout[..]), (Some(0), &b"mine\n"[..]));
    signal(&node.0, "STOP");
    fails(&["lock", "one", "--config", &config, "--try", "--", "true"], b"", 2, "has not answered for 2 s");
    signal(&node.0, "CONT");
}

/// The group removes a stopped node and grants its lock to another member; the holder's command must not go on.
#[test]
fn issue_a_command_went_on_while_its_node_was_stopped_and_another_member_had_the_lock() {
    let group = Group::new();
    let (first, mut out) = group.start(&["lock", "one", "--json", "--", "sh", "-c", "echo up; exec sleep 1000"]);
    assert_eq!(line(&mut out), "up");
    signal(&group.nodes[0].0.0, "STOP");
    let other = group.world.path().join("1.toml").display().to_string();
    let granted = run(&["lock", "one", "--config", &other, "--", "echo", "mine"], b"");
    assert_eq!(granted.stdout, b"mine\n");
    let report: Value = serde_json::from_str(&line(&mut out)).expect("one object");
    assert!(report["lost"].as_str().is_some_and(|why| why.contains("has not answered for 2 s")), "{report}");
    assert_eq!((&report["exit_code"], code(first)), (&143.into(), Some(1)));
}

#[test]
fn a_request_that_cannot_be_met_is_refused_with_what_to_do() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    fails(&["lock", "one", "--config", &config, "--", "true"], b"", 2, "bourdon node");
    let unordered =
        std::fs::read_to_string(&config).expect("readable").replace("[process]", "order = \"fifo\"\n[process]");
    std::fs::write(&config, unordered).expect("it can be written");
    let (_node, mut events, _) = world.node(&config);
    while next(&mut events)["event"] != "view" {}
    fails(&["lock", "one", "--config", &config, "--", "true"], b"", 2, "choose mutex = ");
    fails(&["lock", "a b", "--config", &config, "--", "true"], b"", 2, "names nothing");
    fails(&["lock", "one", "--group", "other", "--config", &config, "--", "true"], b"", 2, "\"other\"");
    fails(&["lock", "one", "--config", &config], b"", 2, "COMMAND");
}

/// A full pipe that no process reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("a pipe can be made");
    rustix::io::ioctl_fionbio(&writer, true).expect("it can be set");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("it can be set");
    (reader, writer)
}

/// The report about the lost lock must not wait for a reader, or the end of the command would wait too.
#[test]
fn issue_a_command_outlived_its_lock_while_no_process_read_stderr() {
    let mut group = Group::new();
    let (_reader, writer) = full_pipe();
    let runtime = group.world.runtime();
    let mut command = bourdon(&["lock", "one", "--directory", &runtime, "--", "sh", "-c", "echo up; exec sleep 1000"]);
    let mut holder = Running(command.stderr(writer).spawn().expect("it runs"));
    let mut out = BufReader::new(holder.0.stdout.take().expect("piped"));
    assert_eq!(line(&mut out), "up");
    group.kill(0);
    assert_eq!(rest(&mut out), "", "the end of its output is the end of the command");
}

/// A command that waits for a reader of stdout must still notice a signal.
#[test]
fn issue_a_candidate_whose_stdout_is_full_took_no_notice_of_signals() {
    let group = Group::new();
    let (_reader, writer) = full_pipe();
    let runtime = group.world.runtime();
    let mut command = bourdon(&["elect", "one", "--json", "--directory", &runtime]);
    let candidate = Running(command.stdout(writer).spawn().expect("it runs"));
    let (watch, _) = group.start(&["elect", "one", "--watch", "--until-leader"]);
    assert_eq!(code(watch), Some(0), "it leads, and has a line to print");
    signal(&candidate.0, "TERM");
    assert_eq!(code(candidate), Some(0));
}
