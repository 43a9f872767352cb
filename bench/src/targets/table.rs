//! The promises: what is promised, the command that measures it, and the figure that decides.
//!
//! This table is the only place that has them; `docs/performance.md` explains how they are measured.

/// What a promise bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// Where the deciding figure is in a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// The ratio of this name, its median; of several whose names begin so, the worst.
    Ratio(&'static str),
    /// This number in the rows whose keys have these values; of several rows, the worst.
    Row { keys: &'static [(&'static str, &'static str)], pointer: &'static str },
    /// Messages lost or out of order, over all rows except those of raw sockets.
    Lost,
    /// How many of this many runs of the command failed.
    FailedRuns(u32),
}

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Promise {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) bound: Bound,
    pub(super) figure: Figure,
    /// The program and its arguments; promises with the same command share its run.
    pub(super) command: &'static [&'static str],
    /// Further arguments of a run that decides, and of a quick one.
    pub(super) full: &'static [&'static str],
    pub(super) quick: &'static [&'static str],
}

use Bound::{AtLeast, AtMost};
use Figure::{FailedRuns, Lost, Ratio, Row};

const BENCH: &str = "bourdon-bench";
const ROUNDS: &[&str] = &["--rounds", "5"];
const QUICK_TRIPS: &[&str] = &["--rounds", "1", "--count", "5000"];
const QUICK_STREAM: &[&str] = &["--rounds", "1", "--count", "1000000"];
const QUICK_LOAD: &[&str] = &["--rounds", "1", "--warm-up", "1", "--iterations", "2"];

const LATENCY_RAW: Promise = Promise {
    name: "rtt-p50-raw",
    text: "round trip p50 at most 1.15 x a raw spinning socket's",
    bound: AtMost(1.15),
    figure: Ratio("rtt p50 over raw"),
    command: &[BENCH, "latency", "--peer", "raw"],
    full: ROUNDS,
    quick: QUICK_TRIPS,
};
const LATENCY_AERON: Promise = Promise {
    name: "rtt-p50-aeron",
    text: "round trip p50 below Aeron's",
    bound: AtMost(1.0),
    figure: Ratio("rtt p50 over aeron"),
    command: &[BENCH, "latency", "--peer", "aeron"],
    ..LATENCY_RAW
};
const XDP_RAW: Promise = Promise {
    name: "xdp-p50-raw",
    text: "past the kernel's stack, over veth: round trip p50 at most 1.15 x a raw socket's of AF_XDP",
    figure: Ratio("rtt p50 over raw-xdp, veth"),
    command: &[BENCH, "latency", "--transport", "xdp", "--also", "udp", "--peer", "raw-xdp,raw", "--over", "veth"],
    ..LATENCY_RAW
};
const SHM_AERON: Promise = Promise {
    name: "shm-p50-aeron-ipc",
    text: "over shared memory: round trip p50 below Aeron's IPC",
    figure: Ratio("rtt p50 over aeron-ipc"),
    command: &[BENCH, "latency", "--transport", "shm", "--over", "lo", "--peer", "aeron-ipc"],
    ..LATENCY_AERON
};
const LOAD_10K: Promise = Promise {
    name: "load-10k-p50-aeron",
    text: "p50 at 10,000 messages/s below Aeron's",
    bound: AtMost(1.0),
    figure: Ratio("load rtt p50 over aeron"),
    command: &[BENCH, "load", "--peer", "aeron", "--rate", "10000"],
    full: ROUNDS,
    quick: QUICK_LOAD,
};
const LOAD_100K: Promise = Promise {
    name: "load-100k-p50-aeron",
    text: "p50 at 100,000 messages/s below Aeron's",
    command: &[BENCH, "load", "--peer", "aeron", "--rate", "100000"],
    ..LOAD_10K
};
const LOAD_500K: Promise = Promise {
    name: "load-500k-p50-aeron",
    text: "p50 at 500,000 messages/s below Aeron's",
    command: &[BENCH, "load", "--peer", "aeron", "--rate", "500000"],
    ..LOAD_10K
};
const LOAD_P99: Figure = Ratio("load rtt p99 over aeron");
const ONE_WAY_RAW: Promise = Promise {
    name: "one-way-raw",
    text: "ordered, reliable, one way at least 0.15 x raw packed datagrams",
    bound: AtLeast(0.15),
    figure: Ratio("rate over raw"),
    command: &[BENCH, "throughput", "--peer", "raw"],
    full: ROUNDS,
    quick: QUICK_STREAM,
};
const ONE_WAY_AERON: Promise = Promise {
    name: "one-way-aeron",
    text: "one way at least 8 x Aeron, MTU 1,408",
    bound: AtLeast(8.0),
    figure: Ratio("rate over aeron"),
    command: &[BENCH, "throughput", "--peer", "aeron"],
    ..ONE_WAY_RAW
};
const ONE_WAY_AERON_1K: Promise = Promise {
    name: "one-way-1k-aeron",
    text: "one way, messages of 1 KiB, at least 3 x Aeron",
    bound: AtLeast(3.0),
    command: &[BENCH, "throughput", "--peer", "aeron", "--size", "1024"],
    full: &["--rounds", "5", "--count", "3000000"],
    quick: &["--rounds", "1", "--count", "200000"],
    ..ONE_WAY_AERON
};
const SHM_ONE_WAY: Promise = Promise {
    name: "shm-one-way-aeron-ipc",
    text: "one way over shared memory at least 2.5 x Aeron's IPC",
    bound: AtLeast(2.5),
    figure: Ratio("rate over aeron-ipc"),
    command: &[BENCH, "throughput", "--transport", "shm", "--peer", "aeron-ipc"],
    ..ONE_WAY_RAW
};
const FANOUT_3: Promise = Promise {
    name: "fanout-3-aeron",
    text: "to three observers that gate at least 4 x Aeron with its min flow control",
    bound: AtLeast(4.0),
    figure: Ratio("fanout rate over aeron"),
    command: &[BENCH, "fanout", "--peer", "aeron", "--idle", "park", "--flow", "gating"],
    full: ROUNDS,
    quick: &["--rounds", "1", "--count", "500000"],
};
const FANOUT_8: Promise = Promise {
    name: "fanout-8-aeron",
    text: "to eight observers that gate at least 3 x Aeron",
    bound: AtLeast(3.0),
    command: &[BENCH, "fanout", "--peer", "aeron", "--idle", "park", "--flow", "gating", "--observers", "8"],
    ..FANOUT_3
};
const FANOUT_3_1K: Promise = Promise {
    name: "fanout-3-1k-aeron",
    text: "to three observers that gate, messages of 1 KiB, at least 3 x Aeron",
    bound: AtLeast(3.0),
    command: &[BENCH, "fanout", "--peer", "aeron", "--idle", "park", "--flow", "gating", "--size", "1024"],
    full: &["--rounds", "5", "--count", "500000"],
    quick: &["--rounds", "1", "--count", "100000"],
    ..FANOUT_3
};
/// Without a peer: what is lost needs none.
const FANOUT_ALONE: Promise = Promise {
    name: "fanout-3-lossless",
    text: "to three observers that gate, none lost or out of order",
    bound: AtMost(0.0),
    figure: Lost,
    command: &[BENCH, "fanout", "--no-peer", "--idle", "park", "--flow", "gating"],
    ..FANOUT_3
};
const FANOUT_SHM: Promise = Promise {
    name: "shm-fanout-lossless",
    text: "over shared memory to three observers that gate, none lost or out of order",
    command: &[BENCH, "fanout", "--transport", "shm", "--no-peer", "--idle", "park", "--flow", "gating"],
    ..FANOUT_ALONE
};
const FANOUT_XDP: Promise = Promise {
    name: "xdp-fanout-lossless",
    text: "past the kernel's stack to three observers that gate, each on a host, none lost or out of order",
    command: &[BENCH, "fanout", "--transport", "xdp", "--also", "udp", "--over", "veth", "--no-peer", "--idle", "park"],
    ..FANOUT_ALONE
};
const SWEEP_FREE: Promise = Promise {
    name: "overload-free",
    text: "offered up to 4 x the best lossless rate, observers that are free receive at least 0.8 x the best",
    bound: AtLeast(0.8),
    figure: Ratio("goodput at"),
    command: &[BENCH, "fanout", "--sweep", "--idle", "park", "--flow", "free"],
    full: ROUNDS,
    quick: &["--rounds", "1"],
};
const TOTAL_ORDER: Promise = Promise {
    name: "total-order-all-send",
    text: "three members send, one order: at least 173 x Corosync's rate",
    bound: AtLeast(173.0),
    figure: Ratio("throughput-all-send: bourdon rate over corosync"),
    command: &[BENCH, "total-order", "--peer", "corosync"],
    full: ROUNDS,
    quick: &["--rounds", "1", "--seconds", "1"],
};
const KILL: Promise = Promise {
    name: "detect-kill-p50",
    text: "a killed member is out of every survivor's view within 10 ms (p50)",
    bound: AtMost(10e6),
    figure: Row { keys: &[("what", "detect"), ("fault", "kill")], pointer: "/fault_to_view_ns/p50" },
    command: &[BENCH, "detect", "--fault", "kill", "--profile", "default"],
    full: &["--count", "50"],
    quick: &["--count", "5"],
};
const FROZEN: Promise = Promise {
    name: "detect-frozen-p50",
    text: "a frozen or cut member within 100 ms (p50) by push, pull or phi",
    bound: AtMost(100e6),
    figure: Row { keys: &[("what", "detect")], pointer: "/fault_to_view_ns/p50" },
    command: &[BENCH, "detect", "--fault", "stop,cut", "--profile", "default"],
    ..KILL
};
const LOCK: Promise = Promise {
    name: "lock-uncontended",
    text: "an uncontended lock in a tenth of etcd's time (p50)",
    bound: AtMost(0.1),
    figure: Ratio("uncontended: bourdon replicated p50 over etcd"),
    command: &[BENCH, "lock", "--peer", "etcd", "--algorithm", "replicated"],
    full: ROUNDS,
    quick: &["--rounds", "1", "--count", "200"],
};

/// All of them, those with a common command together.
pub(super) const PROMISES: &[Promise] = &[
    LATENCY_RAW,
    Promise {
        name: "rtt-p50-raw-step",
        text: "round trip p50 at most 1.25 x a raw spinning socket's, the first step",
        bound: AtMost(1.25),
        ..LATENCY_RAW
    },
    Promise {
        name: "rtt-p99-raw",
        text: "round trip p99 at most 1.3 x a raw spinning socket's",
        bound: AtMost(1.3),
        figure: Ratio("rtt p99 over raw"),
        ..LATENCY_RAW
    },
    LATENCY_AERON,
    Promise {
        name: "rtt-p99-aeron",
        text: "round trip p99 below Aeron's",
        figure: Ratio("rtt p99 over aeron"),
        ..LATENCY_AERON
    },
    Promise {
        name: "rtt-no-hang",
        text: "200 measurements of round trips in a row end",
        bound: AtMost(0.0),
        figure: FailedRuns(200),
        command: &[BENCH, "latency", "--no-peer", "--rounds", "1"],
        full: &["--count", "5000"],
        quick: &["--count", "500"],
    },
    XDP_RAW,
    SHM_AERON,
    LOAD_10K,
    Promise {
        name: "load-10k-p99-aeron",
        text: "p99 at 10,000 messages/s below Aeron's",
        figure: LOAD_P99,
        ..LOAD_10K
    },
    LOAD_100K,
    Promise {
        name: "load-100k-p99-aeron",
        text: "p99 at 100,000 messages/s below Aeron's",
        figure: LOAD_P99,
        ..LOAD_100K
    },
    LOAD_500K,
    Promise {
        name: "load-500k-p99-aeron",
        text: "p99 at 500,000 messages/s below Aeron's",
        figure: LOAD_P99,
        ..LOAD_500K
    },
    ONE_WAY_RAW,
    Promise {
        name: "one-way-raw-step",
        text: "one way at least 0.3 x raw packed datagrams",
        bound: AtLeast(0.3),
        ..ONE_WAY_RAW
    },
    Promise {
        name: "one-way-lossless",
        text: "one way, none lost or out of order",
        bound: AtMost(0.0),
        figure: Lost,
        ..ONE_WAY_RAW
    },
    ONE_WAY_AERON,
    Promise {
        name: "one-way-8k-aeron",
        text: "one way at least 3 x Aeron, MTU 8,192",
        bound: AtLeast(3.0),
        command: &[BENCH, "throughput", "--peer", "aeron", "--mtu", "8192"],
        ..ONE_WAY_AERON
    },
    ONE_WAY_AERON_1K,
    SHM_ONE_WAY,
    FANOUT_ALONE,
    FANOUT_SHM,
    FANOUT_XDP,
    FANOUT_3,
    FANOUT_8,
    Promise {
        name: "fanout-8-lossless",
        text: "to eight observers that gate, none lost or out of order, nor by Aeron",
        bound: AtMost(0.0),
        figure: Lost,
        ..FANOUT_8
    },
    FANOUT_3_1K,
    SWEEP_FREE,
    Promise {
        name: "overload-paced",
        text: "offered up to 4 x the best lossless rate, observers that pace receive at least 0.9 x the best",
        bound: AtLeast(0.9),
        command: &[BENCH, "fanout", "--sweep", "--idle", "park", "--flow", "paced"],
        ..SWEEP_FREE
    },
    Promise {
        name: "demo-complete",
        text: "5 million messages at full speed are complete at three observers",
        bound: AtMost(0.0),
        figure: FailedRuns(1),
        command: &["bourdon", "demo", "--rate", "max", "--members", "1", "--observers", "3"],
        full: &["--messages", "5000000"],
        quick: &["--messages", "200000"],
    },
    TOTAL_ORDER,
    Promise {
        name: "total-order-one-sends",
        text: "one of three members sends, one order: at least 157 x Corosync's rate",
        bound: AtLeast(157.0),
        figure: Ratio("throughput-one-sends: bourdon rate over corosync"),
        ..TOTAL_ORDER
    },
    Promise {
        name: "total-order-p50",
        text: "total order, reliable: p50 at most 0.34 x Corosync's",
        bound: AtMost(0.34),
        figure: Ratio("latency: bourdon p50 over corosync"),
        ..TOTAL_ORDER
    },
    Promise {
        name: "total-order-uniform-p50",
        text: "total order, uniform: p50 at most 0.61 x Corosync's",
        bound: AtMost(0.61),
        figure: Ratio("latency: bourdon-uniform p50 over corosync"),
        ..TOTAL_ORDER
    },
    KILL,
    Promise {
        name: "detect-kill-p99",
        text: "a killed member within 50 ms (p99)",
        bound: AtMost(50e6),
        figure: Row { keys: &[("what", "detect"), ("fault", "kill")], pointer: "/fault_to_view_ns/p99" },
        ..KILL
    },
    FROZEN,
    Promise {
        name: "detect-no-false-eviction",
        text: "no member is evicted without a fault meanwhile",
        bound: AtMost(0.0),
        figure: Row { keys: &[("what", "detect")], pointer: "/false_evictions" },
        ..FROZEN
    },
    Promise {
        name: "detect-fast-p50",
        text: "a frozen member in the fast profile within 20 ms (p50), on a quiet machine",
        bound: AtMost(20e6),
        command: &[BENCH, "detect", "--fault", "stop", "--profile", "fast"],
        ..FROZEN
    },
    LOCK,
    Promise {
        name: "lock-contended",
        text: "a lock that three members contend for in a hundredth of etcd's time (p50)",
        bound: AtMost(0.01),
        figure: Ratio("contended: bourdon replicated p50 over etcd"),
        ..LOCK
    },
    Promise {
        name: "elect-p50",
        text: "a new leader within 50 ms of a kill (p50)",
        bound: AtMost(50e6),
        figure: Row { keys: &[("system", "bourdon")], pointer: "/fault_to_leader_ns/p50" },
        command: &[BENCH, "elect", "--no-peer"],
        full: &["--count", "20"],
        quick: &["--count", "3", "--rounds", "1"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_promise_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = PROMISES.iter().map(|promise| promise.name).collect();
        assert_eq!(names.len(), PROMISES.len());
    }
}
