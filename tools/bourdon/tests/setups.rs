//! Wrong set-ups as their users meet them: a process that can't work ends by itself, with 2, and names what is wrong.

use crate::common::{World, bourdon, fails, next, run};
use crate::skipped;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[test]
fn a_configuration_that_is_empty_cut_or_no_text_is_refused() {
    let world = World::new();
    let path = world.path().join("bourdon.toml");
    let config = path.display().to_string();
    for (text, what) in [
        (&b""[..], "bourdon.toml sets nothing (0 bytes)"),
        (b"[group]\nname = \"prices\"\n[proc", "ends in the middle of line 3, \"[proc\": it is truncated"),
        (b"[group]\nname = \"prices\"\nmem", "ends in the middle of line 3, \"mem\": it is truncated"),
        (b"[group]\nname = \"prices\xe2\x80\x8b\"\n", "character 7 of the name is U+200B"),
        (b"[group]\norder = \"fifo\"\nmutex = \"replicated\"\n", "group.mutex is \"replicated\", which needs"),
        (b"[limits]\nlog_bytes = 7\n", "limits.log_bytes is 7 bytes"),
        (b"[group]\naddress = \"10.0.0.1:7401\"\n", "group.address is 10.0.0.1:7401, not a multicast address"),
    ] {
        std::fs::write(&path, text).expect("it can be written");
        fails(&["node", "--config", &config], b"", 2, what);
        fails(&["subscribe", "default", "es", "--config", &config], b"", 2, "");
    }
    fails(&["publish", "prices", "or\u{202e}sred", "--group-address", &world.address], b"", 2, "U+202E");
}

/// Starts a node in a mount namespace whose /dev/shm is prepared by these commands, and returns its first event.
fn started_with_shm(world: &World, prepare: &str) -> Option<(Value, String)> {
    let config = world.path().join("node.toml");
    let address = &world.address;
    std::fs::write(&config, format!("[group]\nname = \"prices\"\naddress = \"{address}\"\n")).expect("there is room");
    let script = format!("{prepare} && mount -t tmpfs tmpfs /tmp && exec \"$0\" node --json --config /proc/self/fd/9 9<&0");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_bourdon")]).env_remove("XDG_RUNTIME_DIR");
    command.stdin(std::fs::File::open(&config).expect("it is there")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare(1) is there");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
    let _ = child.kill();
    let mut text = String::new();
    let _ = child.stderr.take().expect("piped").read_to_string(&mut text);
    let _ = child.wait();
    serde_json::from_str(&line).ok().map(|event| (event, text.clone())).or_else(|| panic!("{line:?}: {text}"))
}

#[test]
fn a_shared_memory_without_room_is_passed_over_and_named() {
    let can = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        return skipped::report("no right to make a mount namespace");
    }
    let full = "mount -t tmpfs -o size=4k tmpfs /dev/shm && { head -c 9999 /dev/zero > /dev/shm/full || true; }";
    let read_only = "mount -t tmpfs -o ro tmpfs /dev/shm";
    let no_inodes = "mount -t tmpfs -o nr_inodes=3 tmpfs /dev/shm";
    for (prepare, why) in [(full, "No space left"), (read_only, "Read-only file system"), (no_inodes, "No space left")] {
        let world = World::new();
        let Some((started, text)) = started_with_shm(&world, prepare) else { continue };
        let note = started["fallback"].as_str().unwrap_or_default();
        assert!(note.contains("can't use /dev/shm/bourdon-") && note.contains(why), "{started}: {text}");
        assert!(note.contains("are in /tmp/bourdon-") && text.contains("are in /tmp/bourdon-"), "{started}: {text}");
        assert!(started["counters"].as_str().is_some_and(|path| path.starts_with("/tmp/bourdon-")), "{started}");
    }
}
