//! Where io_uring is forbidden, opening a parked port reports it, and a spinning one works. Where blocking a source is
//! forbidden, own multicasts are filtered.
//!
//! Containers forbid calls by a seccomp filter, which is what is done here: a filter holds for the thread that installs
//! it, so each case has a thread of its own.
//!
//! Source: seccomp(2).
#![allow(unsafe_code)] // installs a seccomp filter

use std::io;
use std::thread;

use crate::common::{fresh_group, world};
use bourdon_port::conformance::{Role, receive_count, receive_up_to, send_all};
use bourdon_port::{Echo, Idle, Port, PortError, To};
use bourdon_udp::{UdpOptions, UdpPort};

/// Makes `system_call` fail with `errno` on this thread, for good: each call, or those with this third argument.
fn forbid(system_call: libc::c_long, third: Option<i32>, errno: i32) -> io::Result<()> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first field of what the filter sees; its arguments are 64 bits each.
    let third_at =
        std::mem::offset_of!(libc::seccomp_data, args) + 2 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, system_call as u32, 0, 4),
        statement(libc::BPF_JMP | libc::BPF_JA, if third.is_some() { 0 } else { 2 }, 0, 0),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, third_at as u32, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, third.unwrap_or(0) as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel copies the program, whose pointer and length are those of `filter`, alive through the call.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn expect_unavailable(system_call: libc::c_long, name: &'static str, errno: i32) {
    let case = thread::spawn(move || {
        if let Err(error) = forbid(system_call, None, errno) {
            crate::skipped::report(format_args!("no seccomp filter can be installed here: {error}"));
            return;
        }
        let options = UdpOptions { idle: Idle::Park, ..UdpOptions::new(fresh_group()) };
        match UdpPort::open(&options) {
            Err(PortError::Unavailable { mechanism: "io_uring", why }) => assert!(why.starts_with(name), "{why}"),
            other => panic!("{name} was forbidden, but: {other:?}"),
        }
        let open = world(|_| {});
        let (mut sender, mut receiver) = (open(Role::new(Idle::Spin)), open(Role::new(Idle::Spin)));
        send_all(&mut sender, To::Group, b"spinning needs no ring", 64);
        receive_up_to(&mut receiver, b"spinning needs no ring");
        assert_eq!(receiver.io(), "socket-spin");
    });
    case.join().expect("the case passes");
}

#[test]
fn issue_a_port_did_not_open_where_no_source_can_be_blocked() {
    let case = thread::spawn(|| {
        if let Err(error) = forbid(libc::SYS_setsockopt, Some(libc::MCAST_BLOCK_SOURCE), libc::EPERM) {
            crate::skipped::report(format_args!("no seccomp filter can be installed here: {error}"));
            return;
        }
        let open = world(|_| {});
        let echo = Echo { offset: 0, bytes: *b"own echo" };
        let mut own = open(Role { echo: Some(echo), ..Role::new(Idle::Spin) });
        let mut other = open(Role::new(Idle::Spin));
        send_all(&mut own, To::Group, &echo.bytes, 100);
        assert_eq!(receive_count(&mut other, 1).len(), 1);
        send_all(&mut other, To::Group, b"last", 100);
        assert!(receive_up_to(&mut own, b"last").is_empty(), "an echo came in");
    });
    case.join().expect("the case passes");
}

#[test]
fn forbidden_setup() {
    expect_unavailable(libc::SYS_io_uring_setup, "io_uring_setup", libc::EPERM);
}

#[test]
fn missing_setup() {
    expect_unavailable(libc::SYS_io_uring_setup, "io_uring_setup", libc::ENOSYS);
}

#[test]
fn forbidden_register() {
    expect_unavailable(libc::SYS_io_uring_register, "io_uring_register", libc::EPERM);
}

#[test]
fn forbidden_enter() {
    expect_unavailable(libc::SYS_io_uring_enter, "io_uring_enter", libc::EPERM);
}
