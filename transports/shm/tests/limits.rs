//! What a process may take of the kernel is limited: it goes on, or reports which limit it met.

use crate::common::{fresh_number, open, options};
use crate::killed::{part, start};
use bourdon_port::PortError;
use bourdon_port::conformance::poll_until;
use bourdon_shm::{ShmOptions, ShmPort};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Has this process take no more than `current` of the resource. Returns what it could take before.
fn limit(resource: Resource, current: u64) -> Rlimit {
    let before = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(current), ..before }).expect("a process may take less");
    before
}

/// Runs `test` in a process of its own, which the limits hold for.
fn alone(name: &str, test: impl Fn(u16)) {
    match part() {
        Some((_, number)) => test(number),
        None => assert!(start(name, "limited", fresh_number()).status().expect("it starts").success()),
    }
}

#[test]
fn a_log_longer_than_a_file_may_be_is_refused() {
    alone("limits::a_log_longer_than_a_file_may_be_is_refused", |number| {
        let long = ShmOptions { ring_bytes: 16 << 20, ..options(number) };
        limit(Resource::Fsize, 1 << 20);
        match ShmPort::open(&long) {
            Err(error @ PortError::Unavailable { .. }) => {
                let text = error.to_string();
                assert!(text.contains("(`ulimit -f`) is 1048576 bytes and a log takes 16777728"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(open(number).peers(), 0, "a shorter one fits");
    });
}

#[test]
fn processes_without_descriptors_to_meet_meet_once_there_are_some() {
    alone("limits::processes_without_descriptors_to_meet_meet_once_there_are_some", |number| {
        let mut port = open(number);
        let used = std::fs::read_dir("/proc/self/fd").expect("Linux has it").count() as u64;
        let mut opened = 0;
        for few in used..used + 16 {
            let before = limit(Resource::Nofile, few);
            let other = ShmPort::open(&options(number));
            setrlimit(Resource::Nofile, before).expect("as it was");
            let Ok(mut other) = other else { continue };
            opened += 1;
            for port in [&mut port, &mut other] {
                poll_until(port, |port| port.peers() == 1);
            }
            drop(other);
            poll_until(&mut port, |port| port.peers() == 0);
        }
        assert!((1..16).contains(&opened), "{opened} of 16 limits were enough to open");
    });
}
