//! A peer's server process: it reports why it failed, and ends with the harness.
//!
//! A daemon that a killed measurement leaves behind holds its ports and a core. So each is started to die with the
//! thread that starts it (`setpriv --pdeathsig`), and a thread that stays must start it: the harness's main thread. Its
//! output goes to a file, and the end of the file is printed if it fails.

use crate::Failure;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Lines of its log that are printed when it failed.
const LINES: usize = 5;

/// A process that runs a server.
pub struct Server {
    child: Child,
    log: PathBuf,
    program: &'static str,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts a program, found on the path, with nothing of this environment that begins with `hidden_prefix`.
    pub fn start(
        program: &'static str,
        arguments: &[String],
        hidden_prefix: &str,
        log: &Path,
    ) -> Result<Self, Failure> {
        let unusable = |error: std::io::Error| Failure::Unusable(format!("can't start {program}: {error}"));
        let words = File::options().create(true).append(true).open(log).map_err(unusable)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments);
        let hidden = std::env::vars_os().map(|(name, _)| name);
        hidden.filter(|name| name.to_string_lossy().starts_with(hidden_prefix)).for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(Stdio::null()).stdout(words.try_clone().map_err(unusable)?).stderr(words);
        Ok(Self { child: command.spawn().map_err(unusable)?, log: log.to_owned(), program })
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as a power cut would and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Describes a failure, with the last output of the server.
    pub fn broken(&self, why: impl std::fmt::Display) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        Failure::Broken(format!("{}: {why}; its log ends with:\n{last}", self.program))
    }
}

/// A program's version output; `None` if it is not installed.
pub fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Ports are searched from here on: below those that the kernel assigns to outgoing connections. Otherwise a client
/// that connects to a server that is down could be assigned that server's port, and block the server.
const FIRST_PORT: u16 = 10_000;
/// Measurements on one host begin at different ports, in a range of this size.
const PORTS: u16 = 20_000;

/// This many free ports on the loopback interface, all different. Another process may take one before it is used; then
/// the server that needs it fails and reports this.
///
/// # Errors
/// If there are not so many.
pub fn free_ports(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let begin = (std::process::id().wrapping_mul(0x9E37_79B9) >> 8) as u16 % PORTS;
    let all = (0..PORTS).map(|index| FIRST_PORT + (begin + index) % PORTS);
    // All ports are held until the last is found.
    let held = all.filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()).take(count);
    let held: Vec<TcpListener> = held.collect();
    let addresses: Vec<SocketAddr> = held.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    if addresses.len() < count {
        return Err(Failure::Unusable(format!("no {count} free ports on 127.0.0.1 from {FIRST_PORT} on")));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let mut ports = free_ports(6).expect("there are some");
        let held: Vec<_> = ports.iter().map(|port| TcpListener::bind(port).expect("it is free")).collect();
        ports.sort();
        ports.dedup();
        assert_eq!((ports.len(), held.len()), (6, 6));
    }
}
