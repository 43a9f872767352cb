//! All tests of this folder, in one program: it is built and linked once.

mod detect;
mod durable;
mod elect;
mod fanout;
mod latency;
mod load;
mod lock;
mod peers;
mod report;
mod targets;
mod throughput;
mod total_order;

#[path = "../../tools/skipped.rs"]
mod skipped;

/// Runs `bourdon-bench` with these arguments. Peers in a program of their own are not there, whether or not it was
/// built.
fn bench(arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
    command.args(arguments).env("BOURDON_PEERS", "/nowhere/bourdon-peers").output().expect("the bench starts")
}

/// The JSON object that a run printed which worked.
fn document(output: &std::process::Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON object")
}

/// The row of a system in a document.
fn row<'a>(document: &'a serde_json::Value, system: &str) -> &'a serde_json::Value {
    let rows = document["rows"].as_array().expect("there are rows");
    rows.iter().find(|row| row["system"] == system).unwrap_or_else(|| panic!("{system} has a row: {document}"))
}
