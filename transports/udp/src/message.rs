//! One system call each: `recvmsg` and `sendmsg` with the control messages of segmentation offload.
//!
//! A run of datagrams crosses the kernel as one packet when the sender gives where to cut it (`UDP_SEGMENT`) and the
//! receiver learns where it is cut (`UDP_GRO`). Both are control messages beside the data, laid out as in cmsg(3):
//! length, level and kind, then the value, each part aligned to a word. They are written and read here as plain bytes,
//! because the C macros for it are pointer arithmetic.
//!
//! Source: udp(7), cmsg(3), socket(7) (`SO_TIMESTAMPNS`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use bourdon_port::Arrival;
use socket2::SockAddr;

/// Room for a receiver's control messages: a segment length (24 bytes) and a timestamp (32).
pub(crate) const CONTROL_BYTES: usize = 64;

const WORD_BYTES: usize = size_of::<usize>();
/// Length, level and kind.
const HEADER_BYTES: usize = WORD_BYTES + 8;
/// A header and one `u16`, padded to a word.
const SEGMENT_CONTROL_BYTES: usize = HEADER_BYTES + WORD_BYTES;

const _: () = assert!(WORD_BYTES == 8, "control messages are laid out here for 64-bit kernels");
const _: () = assert!(HEADER_BYTES == size_of::<libc::cmsghdr>());

/// Control messages lie on word boundaries.
#[repr(align(8))]
pub(crate) struct Control([u8; CONTROL_BYTES]);

impl Control {
    pub(crate) fn new() -> Self {
        Self([0; CONTROL_BYTES])
    }
}

/// The contents of a packet's control messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// The length of each datagram but the last; 0: there is one only.
    pub(crate) segment_bytes: usize,
    pub(crate) kernel_receive_ns: Option<u64>,
}

impl Notes {
    pub(crate) fn parse(mut control: &[u8]) -> Self {
        let mut notes = Self::default();
        while let Some((header, _)) = control.split_first_chunk::<HEADER_BYTES>() {
            let length = usize::from_ne_bytes(header[..8].try_into().expect("eight bytes"));
            let level = i32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
            let kind = i32::from_ne_bytes(header[12..].try_into().expect("four bytes"));
            let Some(value) = control.get(HEADER_BYTES..length) else { break };
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    if let Some(bytes) = value.first_chunk() {
                        notes.segment_bytes = i32::from_ne_bytes(*bytes).max(0) as usize;
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    if let Some((seconds, rest)) = value.split_first_chunk()
                        && let Some(nanoseconds) = rest.first_chunk()
                    {
                        let seconds = u64::from_ne_bytes(*seconds);
                        notes.kernel_receive_ns = Some(seconds * 1_000_000_000 + u64::from_ne_bytes(*nanoseconds));
                    }
                }
                _ => {}
            }
            control = control.get(length.next_multiple_of(WORD_BYTES)..).unwrap_or_default();
        }
        notes
    }

    /// Hands out the datagrams of a packet and returns how many they were.
    #[inline]
    pub(crate) fn hand_out(self, bytes: &[u8], to_all: bool, on_datagram: &mut impl FnMut(Arrival<'_>)) -> usize {
        let kernel_receive_ns = self.kernel_receive_ns;
        if self.segment_bytes == 0 || self.segment_bytes >= bytes.len() {
            on_datagram(Arrival { bytes, kernel_receive_ns, to_all });
            return 1;
        }
        let mut count = 0;
        for bytes in bytes.chunks(self.segment_bytes) {
            on_datagram(Arrival { bytes, kernel_receive_ns, to_all });
            count += 1;
        }
        count
    }
}

/// Receives a packet without control messages; its length.
#[inline]
pub(crate) fn receive_plain(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, which is borrowed exclusively.
    let received =
        unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Receives a packet; returns its length and the contents of its control messages.
#[inline]
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], control: &mut Control) -> io::Result<(usize, Notes)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: &mut part,
        msg_iovlen: 1,
        msg_control: control.0.as_mut_ptr().cast(),
        msg_controllen: CONTROL_BYTES,
        msg_flags: 0,
    };
    // SAFETY: `message` points to `part`, and they to `buffer` and `control` with their true lengths; all four are
    // live and borrowed exclusively through the call, and the kernel keeps no reference.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    Ok((length, Notes::parse(&control.0[..message.msg_controllen.min(CONTROL_BYTES)])))
}

/// Sends `bytes` to `to`, or to where the socket is connected to; cut into datagrams of `segment_bytes` if given.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    to: Option<&SockAddr>,
    bytes: &[u8],
    segment_bytes: Option<u16>,
) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if to.is_none() && segment_bytes.is_none() {
        // The latency path: without a message header the kernel has 56 bytes and a vector less to fetch and check.
        // SAFETY: `bytes` is borrowed through the call and read only, within its length.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        return if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control::new();
    let mut message = libc::msghdr {
        msg_name: to.map_or(ptr::null_mut(), |to| to.as_ptr().cast_mut().cast()),
        msg_namelen: to.map_or(0, SockAddr::len),
        msg_iov: &mut part,
        msg_iovlen: 1,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    };
    if let Some(segment_bytes) = segment_bytes {
        let length = HEADER_BYTES + size_of::<u16>();
        control.0[..8].copy_from_slice(&length.to_ne_bytes());
        control.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        control.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        control.0[16..18].copy_from_slice(&segment_bytes.to_ne_bytes());
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = SEGMENT_CONTROL_BYTES;
    }
    // SAFETY: every pointer in `message` is null with length 0 or points to a live value with its true length: `to`
    // and `bytes` are borrowed through the call, `part` and `control` are locals. sendmsg only reads what they point
    // to, so the casts to mutable pointers, which its C type asks for, write nothing.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(level: i32, kind: i32, value: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_BYTES + value.len()).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn notes_are_found_in_any_order_and_beside_others() {
        let segment = control(libc::SOL_UDP, libc::UDP_GRO, &1408i32.to_ne_bytes());
        let mut time = 3u64.to_ne_bytes().to_vec();
        time.extend_from_slice(&7u64.to_ne_bytes());
        let time = control(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time);
        let other = control(libc::SOL_SOCKET, 12345, &[1]);
        let expected = Notes { segment_bytes: 1408, kernel_receive_ns: Some(3_000_000_007) };
        assert_eq!(Notes::parse(&[segment.clone(), time.clone(), other.clone()].concat()), expected);
        assert_eq!(Notes::parse(&[other, time, segment].concat()), expected);
        assert_eq!(Notes::parse(&[]), Notes::default());
    }

    #[test]
    fn broken_notes_are_no_notes() {
        let whole = control(libc::SOL_UDP, libc::UDP_GRO, &1408i32.to_ne_bytes());
        for length in 0..HEADER_BYTES + 4 {
            assert_eq!(Notes::parse(&whole[..length]), Notes::default(), "cut to {length}");
        }
        for claimed in [0usize, 1, 15, 16, 17, 25, usize::MAX] {
            let mut lying = whole.clone();
            lying[..8].copy_from_slice(&claimed.to_ne_bytes());
            assert_eq!(Notes::parse(&lying), Notes::default(), "claiming {claimed}");
        }
    }

    #[test]
    fn runs_are_cut_and_single_datagrams_are_not() {
        let cut = |segment_bytes, bytes: &[u8]| {
            let mut lengths = Vec::new();
            let notes = Notes { segment_bytes, kernel_receive_ns: None };
            let count = notes.hand_out(bytes, true, &mut |arrival| lengths.push(arrival.bytes.len()));
            assert_eq!(count, lengths.len());
            lengths
        };
        assert_eq!(cut(0, &[0; 10]), [10]);
        assert_eq!(cut(0, &[]), [0]);
        assert_eq!(cut(10, &[0; 10]), [10]);
        assert_eq!(cut(4, &[0; 10]), [4, 4, 2]);
    }
}
