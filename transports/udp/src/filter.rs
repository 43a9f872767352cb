//! Drops this process's own multicasts in the kernel.
//!
//! On one host every multicast comes back to its sender, since `IP_MULTICAST_LOOP` must be on for the other processes
//! and has no effect on `lo` at all. Received and then discarded, an echo costs a system call and a copy for each run;
//! a classic BPF program on the socket discards it before it is queued, and needs no privilege.
//!
//! The program sees the UDP header first, and one packet of segmentation offload as a whole, of which it judges the
//! first segment: that is why all of a run must be alike. A load beyond the end of a packet would drop it, so the
//! length is checked first and what is too short passes.
//!
//! Source: `Documentation/networking/filter.rst` in the kernel; socket(7), `SO_ATTACH_FILTER`.

use bourdon_port::Echo;
use socket2::SockFilter;

const UDP_HEADER_BYTES: u32 = 8;

/// Passes everything but what carries `echo`.
pub(crate) fn echo_filter(echo: Echo) -> Option<[SockFilter; 8]> {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_RET, BPF_W};
    let statement = |code: u32, k: u32| SockFilter::new(code as u16, 0, 0, k);
    let jump = |code: u32, k: u32, is_true: u8, is_false: u8| SockFilter::new(code as u16, is_true, is_false, k);
    // No datagram is as long as an offset that does not fit: then there is nothing to drop.
    let at = u32::try_from(echo.offset).ok()?.checked_add(UDP_HEADER_BYTES)?;
    let end = at.checked_add(8)?;
    let [high, low] = [&echo.bytes[..4], &echo.bytes[4..]]
        .map(|half| u32::from_be_bytes(half.try_into().expect("half of eight bytes")));
    Some([
        statement(BPF_LD | BPF_W | BPF_LEN, 0),
        jump(BPF_JMP | BPF_JGE | BPF_K, end, 0, 4),
        statement(BPF_LD | BPF_W | BPF_ABS, at),
        jump(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 2),
        statement(BPF_LD | BPF_W | BPF_ABS, at + 4),
        jump(BPF_JMP | BPF_JEQ | BPF_K, low, 1, 0),
        statement(BPF_RET | BPF_K, u32::MAX), // pass, all of it
        statement(BPF_RET | BPF_K, 0),        // drop
    ])
}
