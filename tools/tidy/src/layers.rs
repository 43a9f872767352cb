//! Which crate may depend on which.
//!
//! The crates of `docs/architecture.md`, as a table. A dependency that is not in it is a violation, so a new crate or a
//! new dependency needs a line here, and its author reads the page. Dependencies for tests count as well: a protocol
//! that is tested through a socket needs a socket.

use crate::tree::lines_with;
use crate::{File, Tree};
use cargo_metadata::MetadataCommand;

/// Each crate of the workspace and which others it may depend on.
pub const MAY_KNOW: &[(&str, &[&str])] = &[
    ("bourdon-wire", &[]),
    ("bourdon-protocol", &["bourdon-wire"]),
    ("bourdon-ring", &[]),
    ("bourdon-log", &[]),
    ("bourdon-archive", &["bourdon-log", "bourdon-protocol", "bourdon-wire"]),
    ("bourdon-sim", &["bourdon-log", "bourdon-protocol", "bourdon-wire"]),
    ("bourdon-model", &["bourdon-protocol", "bourdon-wire"]),
    ("bourdon-port", &[]),
    ("bourdon-udp", &["bourdon-port"]),
    ("bourdon-tcp", &["bourdon-port", "bourdon-udp"]), // multicast beside the mesh, and its options
    ("bourdon-xdp", &["bourdon-port", "bourdon-udp"]), // the port beneath the bypass
    ("bourdon-shm", &["bourdon-port", "bourdon-ring", "bourdon-udp"]), // udp in its tests
    ("bourdon-engine", &["bourdon-port", "bourdon-protocol", "bourdon-wire"]),
    (
        "bourdon",
        &[
            "bourdon-archive",
            "bourdon-engine",
            "bourdon-log",
            "bourdon-port",
            "bourdon-protocol",
            "bourdon-ring",
            "bourdon-shm",
            "bourdon-tcp",
            "bourdon-udp",
            "bourdon-wire",
            "bourdon-xdp",
        ],
    ),
    ("bourdon-bench", &["bourdon", "bourdon-ring", "bourdon-udp", "bourdon-xdp"]), // the last two for raw peers
    // the lab for its format of histories
    ("bourdon-cli", &["bourdon", "bourdon-archive", "bourdon-lab", "bourdon-log", "bourdon-sim"]),
    ("bourdon-bridge", &["bourdon", "bourdon-archive", "bourdon-log"]),
    ("bourdon-lab", &["bourdon"]), // its members only: see `ENGINE_IN_LAB`
    ("bourdon-perf", &["bourdon-engine", "bourdon-port", "bourdon-protocol", "bourdon-ring", "bourdon-wire"]),
    ("bourdon-tidy", &[]),
];

/// What the crates without a clock and a socket may use from outside: pure libraries, each without the OS.
pub const PURE_LIBRARIES: &[&str] =
    &["crc32c", "fastrand", "fearless_simd", "libm", "serde", "siphasher", "thiserror", "zerocopy"];

/// The crates that may use [`PURE_LIBRARIES`] only; for tests they may use others.
pub const PURE_CRATES: &[&str] = &["bourdon-wire", "bourdon-protocol"];

/// Where in the engine a transport's name may stand: (its crate's name, the files).
const NAMED_IN: &[(&str, &[&str])] = &[
    ("bourdon_udp", &["engine/node/src/transport.rs"]),
    ("bourdon_tcp", &["engine/node/src/transport.rs"]),
    ("bourdon_xdp", &["engine/node/src/transport.rs"]),
    ("bourdon_shm", &["engine/node/src/transport.rs"]),
];

/// Where in the lab the engine may be named: the judge must not share the engine's mistakes.
const ENGINE_IN_LAB: &str = "tools/lab/src/member/";

/// A dependency: which crate, on which crate, and whether for tests only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The crate that depends.
    pub from: String,
    /// The crate depended on.
    pub to: String,
    /// Whether only its tests, benches and examples depend on it.
    pub for_tests: bool,
}

/// Every dependency that a workspace crate's manifest names.
///
/// # Panics
/// If cargo can't read the workspace.
pub fn edges(tree: &Tree) -> Vec<Edge> {
    let mut command = MetadataCommand::new();
    command.manifest_path(tree.root.join("Cargo.toml")).no_deps().other_options(vec!["--offline".to_owned()]);
    let metadata = command.exec().expect("`cargo metadata --no-deps --offline` reads the workspace");
    let edges = metadata.packages.iter().flat_map(|package| {
        package.dependencies.iter().map(|dependency| Edge {
            from: package.name.to_string(),
            to: dependency.name.clone(),
            for_tests: dependency.kind == cargo_metadata::DependencyKind::Development,
        })
    });
    edges.collect()
}

/// Dependencies that no line of the table allows.
pub fn forbidden(edges: &[Edge]) -> Vec<String> {
    let known = |name: &str| MAY_KNOW.iter().find(|(room, _)| *room == name);
    let mut violations = Vec::new();
    for edge in edges {
        let Some((_, may_know)) = known(&edge.from) else {
            violations.push(format!("{} is in no room of tools/tidy/src/layers.rs", edge.from));
            continue;
        };
        let ours = edge.to == "bourdon" || edge.to.starts_with("bourdon-");
        if ours && !may_know.contains(&edge.to.as_str()) {
            let allowed = if may_know.is_empty() { "none of ours".to_owned() } else { may_know.join(", ") };
            violations.push(format!("{} depends on {}, but may know {allowed} only", edge.from, edge.to));
        }
        let pure = PURE_CRATES.contains(&edge.from.as_str());
        if !ours && pure && !edge.for_tests && !PURE_LIBRARIES.contains(&edge.to.as_str()) {
            let pure = PURE_LIBRARIES.join(", ");
            violations.push(format!("{} depends on {}, which is not known to be pure ({pure})", edge.from, edge.to));
        }
    }
    violations.dedup();
    violations
}

/// Places that name what their crate may know and their file may not: a transport in the engine outside the files that
/// pick one, frames in a transport, the engine in the lab outside its members.
pub fn named_out_of_place(tree: &Tree) -> Vec<String> {
    tree.rust().flat_map(named_in_file).collect()
}

fn named_in_file(file: &File) -> Vec<String> {
    let mut violations = Vec::new();
    let mut check = |code: &str, name: &str, why: &str| {
        for (line, _) in lines_with(code, name) {
            violations.push(format!("{}:{line} names {name}: {why}", file.path));
        }
    };
    if file.path.starts_with("engine/") {
        for (name, files) in NAMED_IN.iter().filter(|(_, files)| !files.contains(&file.path.as_str())) {
            // Tests may select a transport by its name to read its counters.
            check(file.shipped(), name, &format!("only {} may", files.join(" and ")));
        }
    }
    if file.path.starts_with("tools/lab/src/") && !file.path.starts_with(ENGINE_IN_LAB) {
        // A field may be called like the crate.
        let paths: String = file
            .code
            .lines()
            .map(|line| if line.contains("bourdon::") { line } else { "" }.to_owned() + "\n")
            .collect();
        check(&paths, "bourdon", &format!("only {ENGINE_IN_LAB} may, the judge above all not"));
    }
    if file.path.starts_with("transports/") {
        for name in ["bourdon_wire", "bourdon_protocol"] {
            check(&file.code, name, "transports move bytes and never look into them");
        }
    }
    violations
}

/// Crates that the architecture page does not list.
pub fn rooms_without_a_line(tree: &Tree) -> Vec<String> {
    let page = tree.file("docs/architecture.md").map_or("", |file| &file.text);
    let missing = tree.files.iter().filter_map(|file| {
        let folder = file.path.strip_suffix("/Cargo.toml").filter(|folder| *folder != "engine/fuzz")?;
        // The transports share a line, so the last part of the path must do.
        let last = folder.rsplit('/').next().unwrap_or(folder);
        let row = page.lines().any(|line| {
            let room = line.strip_prefix("| `").and_then(|rest| rest.split('|').next()).unwrap_or("");
            room.contains(folder) || room.contains(&format!("`{last}`")) || room.contains(&format!("/{last}`"))
        });
        (!row).then(|| format!("{folder} has no line in the rooms table of docs/architecture.md"))
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str) -> Edge {
        Edge { from: from.into(), to: to.into(), for_tests: false }
    }

    #[test]
    fn planted_dependencies_are_found() {
        for (from, to) in [
            ("bourdon-protocol", "bourdon-udp"),
            ("bourdon-protocol", "bourdon-port"),
            ("bourdon-wire", "bourdon-protocol"),
            ("bourdon-udp", "bourdon-wire"),
            ("bourdon-port", "bourdon-protocol"),
            ("bourdon-sim", "bourdon"),
            ("bourdon-sim", "bourdon-port"),
            ("bourdon-ring", "bourdon-wire"),
            ("bourdon", "bourdon-cli"),
            ("bourdon-cli", "bourdon-udp"),
            ("bourdon-newcomer", "bourdon-wire"),
            ("bourdon-protocol", "tokio"),
            ("bourdon-wire", "getrandom"),
        ] {
            assert_eq!(forbidden(&[edge(from, to)]).len(), 1, "{from} -> {to}");
        }
        let for_tests = Edge { for_tests: true, ..edge("bourdon-protocol", "bourdon-udp") };
        assert_eq!(forbidden(&[for_tests]).len(), 1, "tests of the protocol need no socket either");
    }

    #[test]
    fn allowed_dependencies_pass() {
        let for_tests = Edge { for_tests: true, ..edge("bourdon-wire", "proptest") };
        let allowed = [edge("bourdon-protocol", "bourdon-wire"), edge("bourdon", "bourdon-udp"), for_tests];
        assert_eq!(forbidden(&allowed), [""; 0]);
    }

    #[test]
    fn planted_names_are_found() {
        let found = |path: &str, text: &str| named_in_file(&File::new(path, text)).len();
        assert_eq!(found("engine/node/src/agent.rs", "use bourdon_udp::UdpPort;"), 1);
        assert_eq!(found("engine/node/src/transport.rs", "use bourdon_udp::UdpPort;"), 0);
        assert_eq!(found("engine/node/src/agent.rs", "// not bourdon_udp\n"), 0);
        assert_eq!(found("tools/lab/src/judge/fifo.rs", "let bourdon = 1;\nuse bourdon::Epoch;"), 1);
        assert_eq!(found("tools/lab/src/member/client.rs", "use bourdon::Epoch;"), 0);
        assert_eq!(found("transports/udp/src/send.rs", "use bourdon_wire::Datagram;"), 1);
    }
}
