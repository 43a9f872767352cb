//! Processes that come late, are slow, are many, or belong to another user.
#![allow(unsafe_code)] // a thread of another user

use crate::common::{fresh_number, open, options};
use crate::skipped;
use bourdon_port::conformance::{pattern, receive_count, receive_into, send_all};
use bourdon_port::{Port, PortError, To};
use bourdon_shm::ShmPort;

#[test]
fn a_latecomer_receives_what_is_sent_from_now_on() {
    let number = fresh_number();
    let mut sender = open(number);
    for round in 0..50u8 {
        send_all(&mut sender, To::Group, &[round, 0], 2);
        let mut latecomer = open(number);
        assert_eq!((latecomer.peers(), latecomer.lost_bytes()), (1, 0));
        send_all(&mut sender, To::Group, &[round, 1], 2);
        assert_eq!(receive_count(&mut latecomer, 1), [[round, 1]]);
    }
}

#[test]
fn processes_that_open_at_the_same_time_hear_each_other() {
    for _ in 0..20 {
        let number = fresh_number();
        let mut ports: Vec<ShmPort> = std::thread::scope(|scope| {
            let opening: Vec<_> = (0..6).map(|_| scope.spawn(|| open(number))).collect();
            opening.into_iter().map(|it| it.join().expect("it opens")).collect()
        });
        for sender in 0..ports.len() {
            assert_eq!(ports[sender].peers(), 5);
            send_all(&mut ports[sender], To::Group, &[sender as u8], 1);
            for receiver in (0..ports.len()).filter(|receiver| *receiver != sender) {
                assert_eq!(receive_count(&mut ports[receiver], 1), [[sender as u8]]);
            }
        }
    }
}

#[test]
fn a_slow_reader_loses_the_oldest_and_counts_them() {
    let number = fresh_number();
    let (mut sender, mut receiver) = (open(number), open(number));
    const SIZE: usize = 1000;
    let datagrams = 2 * options(number).ring_bytes / SIZE;
    for round in 0..datagrams as u64 {
        send_all(&mut sender, To::Group, &pattern(round, SIZE), SIZE);
    }
    let mut got = Vec::new();
    while got.is_empty() {
        receive_into(&mut receiver, usize::MAX, &mut got);
    }
    let lost = receiver.lost_bytes() as usize / (SIZE + 8);
    assert_eq!(lost + got.len(), datagrams);
    assert!(got.len() * (SIZE + 8) > receiver.limits().receive_buffer_bytes - SIZE, "{} are left", got.len());
    assert!(got.iter().zip(lost as u64..).all(|(datagram, round)| *datagram == pattern(round, SIZE)));
}

#[test]
fn a_port_number_without_a_free_place_is_refused() {
    let number = fresh_number();
    let user = rustix::process::geteuid().as_raw();
    // Not by ports: with a connection between each two, one process has too few descriptors for them.
    let taken: Vec<_> =
        (1..=128).map(|at| crate::hostile::listen(&format!("bourdon-shm/{user}/{number}/{at}"))).collect();
    match ShmPort::open(&options(number)) {
        Err(PortError::Unavailable { why, .. }) => {
            assert!(why.contains("all 128 places") && why.contains("perhaps by processes of another user"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    drop(taken);
    assert_eq!(open(number).local_address().port(), 1, "a place is free once its holder is gone");
}

/// Makes the calling thread, and those that it starts, belong to another user than root.
fn become_another_user() {
    // SAFETY: takes numbers only. By this way, unlike by libc's, it is this thread alone that changes, which ends with
    // the test.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
    assert_eq!(result, 0, "root may become any user");
}

#[test]
fn a_process_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return skipped::report("only root can be another user");
    }
    let number = fresh_number();
    let mut port = open(number);
    let name = format!("bourdon-shm/0/{number}/");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            become_another_user();
            let socket = crate::hostile::connect(&format!("{name}1")).expect("the name is open to all");
            crate::hostile::introduce(&socket, number, 2);
            assert_eq!(crate::hostile::answer(&socket), 0, "the connection is ended without an answer");
            // It takes the name that root's next port would dial, too.
            let listener = crate::hostile::listen(&format!("{name}2"));
            let other = std::thread::scope(|scope| {
                // Of this user too: it meets no process of root's.
                scope.spawn(|| open(number).peers()).join().expect("it opens")
            });
            assert_eq!(other, 0);
            (socket, listener)
        });
    });
    assert_eq!(port.peers(), 0);
    let mut honest = open(number);
    send_all(&mut honest, To::Group, b"from root", 16);
    assert_eq!(receive_count(&mut port, 1), [b"from root"]);
}

#[test]
fn a_name_that_another_user_took_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        return skipped::report("only root can be another user");
    }
    let number = fresh_number();
    let listen = || {
        become_another_user();
        crate::hostile::listen(&format!("bourdon-shm/0/{number}/1"))
    };
    let taken = std::thread::scope(|scope| scope.spawn(listen).join().expect("the name is open to all"));
    let mut port = open(number);
    assert_eq!((port.local_address().port(), port.peers()), (2, 0));
    drop(taken);
}
