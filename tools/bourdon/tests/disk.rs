//! A durable member's disk that fails under it, on a file system of its own in a mount namespace; without root these
//! tests are skipped.

use crate::common::{Running, World, bourdon, next_of_all, run};
use crate::skipped;
use serde_json::Value;
use std::io::{BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};

/// A node whose storage is on a small file system.
struct Small {
    world: World,
    node: Running,
    events: BufReader<ChildStdout>,
}

impl Small {
    /// None without the right to make mount namespaces.
    fn new(bytes: &str) -> Option<Self> {
        let world = World::new();
        let disk = world.path().join("disk");
        std::fs::create_dir(&disk).expect("it can be made");
        let more = format!("[storage]\ndirectory = \"{}\"\n", disk.join("log").display());
        let config = world.configure("0.toml", 1, 0, &more);
        let text = std::fs::read_to_string(&config).expect("it was written");
        let text = text.replace("[process]", "reliability = \"durable\"\n[process]");
        std::fs::write(&config, text).expect("it can be written");
        let script = format!("mount -t tmpfs -o size={bytes} none \"$0\" && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).arg(&disk).arg(env!("CARGO_BIN_EXE_bourdon"));
        command.args(["node", "--config", &config, "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
        let mut events = BufReader::new(child.stdout.take().expect("piped"));
        if std::io::BufRead::fill_buf(&mut events).is_ok_and(<[u8]>::is_empty) {
            let output = child.wait_with_output().expect("it ends");
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(why.contains("unshare") || why.contains("mount"), "{why}");
            skipped::report(format_args!("no file system can be mounted here: {why}"));
            return None;
        }
        Some(Self { world, node: Running(child), events })
    }

    /// The next event of this name.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let event = next_of_all(&mut self.events);
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Runs a command in the node's mount namespace; the shell names the disk `$0`.
    fn within(&self, script: &str) {
        let (pid, disk) = (self.node.0.id().to_string(), self.world.path().join("disk"));
        let status = Command::new("nsenter").args(["-t", &pid, "-m", "sh", "-c", script]).arg(disk).status();
        assert!(status.is_ok_and(|status| status.success()), "{script}");
    }
}

#[test]
fn a_member_on_a_full_disk_waits_for_room_and_loses_nothing() {
    let Some(mut small) = Small::new("8m") else { return };
    let waits = small.event("storage_waits");
    assert_eq!(waits["is_full"], true, "{waits}");
    let text = waits["text"].as_str().unwrap_or_default();
    assert!(text.contains("for room on the disk of storage.directory"), "{text}");
    let address = small.world.address.clone();
    let mut publisher = bourdon(&["publish", "prices", "es", "--group-address", &address, "--interface", "lo"]);
    let mut publisher = publisher.spawn().expect("it runs");
    publisher.stdin.take().expect("piped").write_all(b"one\ntwo\n").expect("it reads");
    for (command, text) in [("stat", "WAITS FOR ROOM on the disk"), ("view", "waits for room on the disk")] {
        let output = run(&[command, "--directory", &small.world.runtime()], b"");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(text), "{command}: {printed}");
    }
    assert!(publisher.try_wait().is_ok_and(|status| status.is_none()), "nothing is acknowledged yet");
    small.within("mount -o remount,size=300m \"$0\"");
    small.event("storage_works");
    let published = publisher.wait_with_output().expect("it ends");
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
}
