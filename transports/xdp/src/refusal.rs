//! Why the bypass can't be had, and what to do.
//!
//! The kernel answers with a number that stands for many causes: a capability that the process lacks, a user namespace
//! whose capabilities do not count, a sandbox, a kernel that is too old. What `/proc` lists of the calling
//! thread separates them.
//!
//! Source: bpf(2), capabilities(7), seccomp(2), user_namespaces(7), proc(5).

use bourdon_port::PortError;
use std::io;

/// What AF_XDP needs of a process, by bit of its capability set.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (39, "CAP_BPF")];
/// This one stands for all of them but CAP_NET_RAW, and for CAP_BPF on kernels before 5.8.
const SYS_ADMIN: u32 = 21;
/// The map of users in a namespace that has all of them: the host's.
const ALL_USERS: [&str; 3] = ["0", "0", "4294967295"];

/// The error for a port that goes on without the bypass.
pub(crate) fn unavailable(why: String) -> PortError {
    PortError::Unavailable { mechanism: "af_xdp", why }
}

/// Why the kernel refused something of AF_XDP.
pub(crate) fn refused(doing: &str, error: &io::Error) -> PortError {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let why = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => forbidden(&status, error),
        Some(libc::EAFNOSUPPORT | libc::ENOSYS | libc::ENOPROTOOPT) => {
            let or = if has_seccomp(&status) { ", or a seccomp filter hides it" } else { "" };
            format!("{error}: this kernel lacks it{or}; it takes Linux 5.9 or later with CONFIG_XDP_SOCKETS")
        }
        _ => error.to_string(),
    };
    unavailable(format!("{doing}: {why}"))
}

/// What forbids it to a thread of this status.
fn forbidden(status: &str, error: &io::Error) -> String {
    let missing = missing_capabilities(status);
    if !missing.is_empty() {
        return format!(
            "this process lacks {}: `setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep` gives a program all \
             that it takes, `--cap-add` a container",
            missing.join(", ")
        );
    }
    let users = std::fs::read_to_string("/proc/thread-self/uid_map").unwrap_or_default();
    let in_namespace = !users.is_empty() && !users.split_whitespace().eq(ALL_USERS);
    let why = match (in_namespace, has_seccomp(status)) {
        (true, _) => "capabilities of a user namespace don't count here: start the process outside of it",
        (_, true) => "a seccomp filter forbids it: let the filter allow bpf(2) and sockets of AF_XDP",
        _ => "a security module (SELinux, AppArmor) or the kernel's lockdown forbids it: allow it there",
    };
    format!("{error}: {why}")
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn has_seccomp(status: &str) -> bool {
    field(status, "Seccomp:").is_some_and(|mode| mode != "0")
}

/// Which capabilities a thread of this status lacks; none where they can't be read.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = field(status, "CapEff:").and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or(u64::MAX);
    let has = |bit: u32| effective & 1 << bit != 0;
    let is_missing = |bit: u32, name: &str| !has(bit) && (name == "CAP_NET_RAW" || !has(SYS_ADMIN));
    NEEDED.iter().filter(|(bit, name)| is_missing(*bit, name)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_that_another_one_stands_for_is_not_missing() {
        let missing = |set: u64| missing_capabilities(&format!("Name:\tx\nCapEff:\t{set:016x}\nSeccomp:\t0\n"));
        let (admin, raw, bpf, all_but_raw) = (1 << 12, 1 << 13, 1 << 39, 1 << SYS_ADMIN);
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
        assert_eq!(missing(admin | raw), ["CAP_BPF"]);
        assert_eq!(missing(all_but_raw), ["CAP_NET_RAW"]);
        assert!(missing(admin | raw | bpf).is_empty() && missing(raw | all_but_raw).is_empty());
        assert!(missing_capabilities("").is_empty(), "nothing is claimed where nothing is known");
    }
}
