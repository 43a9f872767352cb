//! All tests of this folder, in one program: it is built and linked once.

mod detect;
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

/// Runs `bourdon-bench` with these arguments.
fn bench(arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bourdon-bench"));
    command.args(arguments).env_remove("BOURDON_PEERS").output().expect("the bench starts")
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
