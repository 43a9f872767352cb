//! `bourdon recover` as an operator runs it: two of three members are killed at once, and the third goes on.

use crate::common::{Running, World, bourdon, fails, next, run, signal};
use serde_json::{Value, json};
use std::io::BufReader;
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// Everything here takes seconds; a group that has not got there by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

type Node = (Running, BufReader<ChildStdout>);

fn start(world: &World, config: &str) -> Node {
    let (node, events, _) = world.node(config);
    (node, events)
}

/// Reads a node's events up to one of this name.
fn await_event(node: &mut Node, name: &str) -> Value {
    loop {
        let event = next(&mut node.1);
        if event["event"] == name {
            return event;
        }
    }
}

/// Ends members at one moment: one after the other, the group would go on without each.
fn kill_at_once(nodes: &mut [Node]) {
    nodes.iter().for_each(|(node, _)| signal(&node.0, "STOP"));
    nodes.iter_mut().for_each(|(node, _)| node.0.kill().expect("it runs"));
    nodes.iter_mut().for_each(|(node, _)| _ = node.0.wait().expect("it ends"));
}

fn view(world: &World) -> Value {
    let shown = run(&["view", "prices", "--json", "--directory", &world.runtime()], b"");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("one object");
    shown["nodes"][0]["view"].clone()
}

fn await_view(world: &World, is_it: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let view = view(world);
        if is_it(&view) {
            return view;
        }
        assert!(began.elapsed() < PATIENCE, "{view}");
        std::thread::yield_now();
    }
}

#[test]
fn a_survivor_goes_on_alone_once_its_operator_says_so_and_others_join_it() {
    let world = World::new();
    let configs = [0, 1, 2].map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, ""));
    let mut first = start(&world, &configs[0]);
    let mut others = [start(&world, &configs[1]), start(&world, &configs[2])];
    assert_eq!(await_event(&mut first, "view")["members"], json!([0, 1, 2]));
    let directory = world.runtime();
    let recover = ["recover", "--force-majority", "prices", "--directory", &directory];
    fails(&recover, b"", 1, "member 0: refused: this member reaches a majority of its view");
    fails(&["recover", "prices", "--directory", &directory], b"", 2, "--force-majority");
    kill_at_once(&mut others);
    let before = await_view(&world, |view| view["majority"] == false);
    let text = run(&["view", "prices", "--directory", &directory], b"");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let advice = "if they are gone for good: bourdon recover --force-majority prices";
    assert!(text.contains("NO MAJORITY") && text.lines().any(|line| line.ends_with(advice)), "{text}");
    // Without a terminal it shows what would be lost, and does nothing.
    let shown = run(&recover, b"y\n");
    let (out, err) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert_eq!(shown.status.code(), Some(2), "{out}{err}");
    for part in ["prices: member 0, view 1: founds a new instance", "silent, given up: 1, 2", "lost: locks"] {
        assert!(out.contains(part), "{out}");
    }
    assert!(err.contains("agree with --yes"), "{err}");
    assert_eq!(view(&world)["instance"], before["instance"]);
    let done = run(&[&recover[..], &["--yes", "--json"]].concat(), b"");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let done: Value = serde_json::from_slice(&done.stdout).expect("one object");
    let report = &done["recovery"];
    assert_eq!((&report["done"], &report["silent"], &done["rank"]), (&true.into(), &json!([1, 2]), &0.into()));
    assert!(report["birth"].as_u64() > before["birth"].as_u64(), "{report} after {before}");
    assert_eq!(await_event(&mut first, "recovered")["instance"], report["new_instance"]);
    assert_eq!(await_event(&mut first, "view")["members"], json!([0]));
    let after = view(&world);
    assert_eq!((&after["instance"], &after["quorate"]), (&report["new_instance"], &true.into()));
    let published = run(&["publish", "prices", "es", "--config", &configs[0]], b"goes on\n");
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let _second = start(&world, &configs[1]);
    assert_eq!(await_event(&mut first, "view")["members"], json!([0, 1]));
    let text = run(&["view", "prices", "--directory", &directory], b"");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("2 of 3 members, quorate"), "{text}");
}

#[test]
fn a_group_whose_third_member_never_comes_is_founded_without_it() {
    let world = World::new();
    let configs = [0, 1].map(|rank| world.configure(&format!("{rank}.toml"), 3, rank, ""));
    let mut nodes = configs.each_ref().map(|config| start(&world, config));
    await_view(&world, |view| view["missing"] == json!([2]));
    let directory = world.runtime();
    let text = run(&["view", "prices", "--directory", &directory], b"");
    assert!(String::from_utf8_lossy(&text.stdout).contains("bourdon recover --force-majority prices"));
    let recover = ["recover", "--force-majority", "--config", &configs[1], "--yes"];
    let done = run(&recover, b"");
    let out = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{out}{}", String::from_utf8_lossy(&done.stderr));
    for part in ["member 1, no view yet: founds", "never came: 2", "survivors: 0; they join", "nothing is lost"] {
        assert!(out.contains(part), "{out}");
    }
    for node in &mut nodes {
        while await_event(node, "view")["members"] != json!([0, 1]) {} // the founder is alone at first
    }
}

#[test]
fn two_survivors_of_five_are_recovered_at_one_of_them() {
    let world = World::new();
    let configs = [0, 1, 2, 3, 4].map(|rank| world.configure(&format!("{rank}.toml"), 5, rank, ""));
    let mut nodes: Vec<_> = configs.iter().map(|config| start(&world, config)).collect();
    assert_eq!(await_event(&mut nodes[0], "view")["members"], json!([0, 1, 2, 3, 4]));
    kill_at_once(&mut nodes[2..]);
    let directory = world.runtime();
    let done = run(&["recover", "--force-majority", "prices", "--directory", &directory, "--yes", "--json"], b"");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let done: Value = serde_json::from_slice(&done.stdout).expect("one object");
    assert_eq!((&done["recovery"]["survivors"], &done["recovery"]["silent"]), (&json!([1]), &json!([2, 3, 4])));
    while await_event(&mut nodes[0], "view")["members"] != json!([0, 1]) {}
    await_event(&mut nodes[1], "superseded");
    while await_event(&mut nodes[1], "view")["members"] != json!([0, 1]) {}
}

#[test]
fn where_no_node_runs_there_is_nothing_to_recover() {
    let world = World::new();
    std::fs::create_dir_all(world.runtime()).expect("it can be made");
    let command = bourdon(&["recover", "--force-majority", "prices", "--yes", "--directory", &world.runtime()])
        .stdin(Stdio::null())
        .output();
    let output = command.expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
