//! Every command with a stdout and a stderr that take nothing: a full disk, a reader that is gone, a closed descriptor.

use crate::common::{Running, World, next, run, signal};
use std::fs::OpenOptions;
use std::process::{Command, Stdio};

/// A command of the shell that runs the command of `arguments` with these redirections.
fn redirected(arguments: &[&str], redirections: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" {redirections}"), env!("CARGO_BIN_EXE_bourdon")]).args(arguments);
    command.stdin(Stdio::null());
    command
}

#[test]
fn no_command_panics_where_its_output_is_full_or_closed() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let (_node, mut events, _) = world.node(&config);
    assert_eq!(next(&mut events)["event"], "view");
    let runtime = world.runtime();
    let commands: [&[&str]; 10] = [
        &["stat", "--directory", &runtime],
        &["stat", "--json", "--directory", &runtime],
        &["view", "--directory", &runtime],
        &["view", "--json", "--directory", &runtime],
        &["sync", "prices", "--directory", &runtime],
        &["sim", "--seeds", "1"],
        &["demo", "--messages", "10", "--rate", "max", "--json"],
        &["publish", "prices", "es", "--json", "--config", &config],
        &["elect", "leader", "--once", "--directory", &runtime],
        &["stat", "--directory", "/nowhere"],
    ];
    for redirections in [">/dev/full", ">&-", ">/dev/full 2>/dev/full", ">&- 2>&-"] {
        for arguments in commands {
            let output = redirected(arguments, redirections).output().expect("sh is there");
            let code = output.status.code().expect("no signal ends it");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!([0, 1, 2].contains(&code), "{arguments:?} {redirections}: exit code {code}: {stderr}");
            assert!(!stderr.contains("panicked"), "{arguments:?} {redirections}: {stderr}");
        }
    }
}

#[test]
fn a_node_goes_on_where_its_outputs_are_full() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    for redirections in [">/dev/full 2>/dev/full", ">&- 2>&-"] {
        let mut node = Running(redirected(&["node", "--json", "--config", &config], redirections).spawn().expect("sh"));
        let view = ["view", "prices", "--json", "--directory", &world.runtime()];
        let begun = std::time::Instant::now();
        while !String::from_utf8_lossy(&run(&view, b"").stdout).contains("\"quorate\":true") {
            assert!(begun.elapsed().as_secs() < 60 && node.0.try_wait().expect("a child").is_none());
        }
        signal(&node.0, "TERM");
        assert_eq!(node.0.wait().expect("it ends").code(), Some(0));
    }
}

#[test]
fn a_log_line_has_its_time_its_level_and_its_member() {
    let world = World::new();
    let config = world.configure("node.toml", 1, 0, "");
    let log = world.path().join("log");
    let file = OpenOptions::new().create(true).append(true).open(&log).expect("it can be made");
    let mut node = super::common::bourdon(&["node", "--json", "--config", &config]);
    let mut node = Running(node.stderr(file).spawn().expect("it runs"));
    let mut events = std::io::BufReader::new(node.0.stdout.take().expect("piped"));
    while next(&mut events)["event"] != "view" {}
    signal(&node.0, "TERM");
    node.0.wait().expect("it ends");
    let text = std::fs::read_to_string(log).expect("it is text");
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').expect("two words");
        assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
        assert!(
            ["info", "warning"].iter().any(|level| rest.starts_with(&format!("{level} prices member 0: "))),
            "{line}"
        );
    }
    assert!(text.contains("info prices member 0: view 1: members 0"), "{text}");
    let leaks = ["Park", "Some(", "None", "null"];
    assert!(leaks.iter().all(|leak| !text.contains(leak)), "{text}");
}
