//! A killed process leaves its address to the next incarnation at once.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use bourdon_port::{Idle, Port, PortError};
use bourdon_tcp::{TcpOptions, TcpPort};

/// In the environment of the process that is killed.
const CHILD: &str = "BOURDON_TEST_LISTENS";
/// Often enough to see a listener that closes late.
const TIMES: usize = 10;

/// Listens until it is killed.
fn listen() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut port = match TcpPort::open(&TcpOptions { idle: Idle::Park, ..TcpOptions::new(address) }) {
        Ok(port) => port,
        Err(PortError::Unavailable { .. }) => return println!("\nno io_uring"),
        Err(error) => panic!("{error}"),
    };
    port.wait(Duration::ZERO).expect("it waits"); // its requests are under way from now on
    println!("\nlistening {}", port.local_address());
    loop {
        port.wait(Duration::from_secs(1)).expect("it waits");
    }
}

#[test]
fn the_address_of_a_killed_process_is_free_at_once() {
    if env::var_os(CHILD).is_some() {
        return listen();
    }
    for _ in 0..TIMES {
        let mut command = Command::new(env::current_exe().expect("a test has a program"));
        command.args(["--exact", "killed::the_address_of_a_killed_process_is_free_at_once", "--nocapture"]);
        let mut child = command.env(CHILD, "1").stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let address = lines.map_while(Result::ok).find_map(|line| {
            let address = line.strip_prefix("listening ").map(|address| address.parse::<SocketAddr>().ok());
            address.or_else(|| (line == "no io_uring").then_some(None))
        });
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
        let Some(address) = address.expect("it reports where it listens") else {
            return crate::skipped::report("io_uring is not available here");
        };
        TcpListener::bind(address).expect("the address is free");
    }
}
