//! `bourdon-lab judge` as scripts use it: what it prints and how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn judge(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourdon-lab"));
    command.arg("judge").arg(folder).args(more).output().expect("it runs")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn exit_codes_distinguish_kept_broken_and_unreadable() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    let missing = judge(folder.path(), &["--json"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(missing.stdout.is_empty() && String::from_utf8_lossy(&missing.stderr).contains("ROLE-RANK.tsv"));

    let (first, second) = ("D\t1\t0\t0\t0\t-\t00000000000000aa\n", "D\t1\t1\t1\t0\t0:0\t00000000000000ab\n");
    write("member-0.tsv", &format!("V\t1\t0,1\n{first}{second}"));
    write("member-1.tsv", &format!("V\t1\t0,1\n{first}{second}"));
    let kept = judge(folder.path(), &["--order", "total-causal", "--reliability", "uniform", "--json"]);
    assert_eq!(kept.status.code(), Some(0));
    assert_eq!(json(&kept)["deliveries"], 4);
    assert_eq!(json(&kept)["violations"], serde_json::json!([]));

    write("member-1.tsv", &format!("V\t1\t0,1\n{first}"));
    let broken = judge(folder.path(), &["--json"]);
    assert_eq!(broken.status.code(), Some(1));
    assert_eq!(json(&broken)["violations"][0]["invariant"], 7);
    assert_eq!(json(&broken)["violations"][0]["process"], "member:1");
    assert_eq!(judge(folder.path(), &["--running"]).status.code(), Some(0), "it may not have got there yet");
    write("killed", "member:1\n");
    assert_eq!(judge(folder.path(), &["--json"]).status.code(), Some(0), "it died before");

    write("member-0.tsv", "V 1 0,1\n");
    assert_eq!(judge(folder.path(), &[]).status.code(), Some(2));
    assert_eq!(judge(folder.path(), &["--order", "alphabetical"]).status.code(), Some(2));
}
