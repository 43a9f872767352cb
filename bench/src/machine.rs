//! The machine that a measurement ran on: figures without it can't be compared with others.

use serde_json::{Value, json};

/// What the kernel reports of this machine; a key that it does not report is null.
pub(crate) fn describe() -> Value {
    let file = |path: &str| std::fs::read_to_string(path).ok();
    let after = |text: Option<String>, key: &str| {
        let text = text?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    json!({
        "processor": after(file("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": after(file("/proc/meminfo"), "MemTotal"),
        "kernel": file("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        "load_average": file("/proc/loadavg").map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        "bourdon": env!("CARGO_PKG_VERSION"),
        "measured_at_unix_s": seconds,
    })
}
