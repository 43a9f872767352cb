//! The XDP program: which frames the kernel hands to this port, and which it keeps.
//!
//! The program runs on every frame of the interface, so it takes exactly the datagrams of this port: whole UDP
//! datagrams to the group's address and port, and to this process's own address and port. Everything else passes on to
//! the kernel: other traffic, fragments, packets with options or a VLAN tag, and frames longer than any datagram, which
//! the kernel makes of several where the stack runs the program (it takes them apart again). Where no socket is bound
//! to the frame's queue, its datagrams pass on as well, so a port that is gone leaves an interface that works as
//! before.
//!
//! So they do while the process does not extend the time to which it takes frames: the group's datagrams would be lost
//! to other processes of this host, which a process that was stopped can't notice.
//!
//! Source: RFC 791, RFC 8200, RFC 768 for the layouts; the kernel's `Documentation/bpf/standardization` for the
//! instructions.

use crate::frame::{ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, UDP_BYTES};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What an XDP program answers where the kernel goes on with the frame.
const XDP_PASS: i32 = 2;
/// The helper `bpf_ktime_get_ns`.
const MONOTONIC_NS: i32 = 5;
/// The helper `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;
/// The marks of instructions that load a map, and the address of a map's value; the map is given by its descriptor.
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;

/// The registers: the result, the arguments of a call, and two that calls leave as they are.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const CONTEXT: u8 = 6;
const UNTIL: u8 = 7;

/// Where the fields of `xdp_md` lie.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

/// How many bytes a load reads.
#[derive(Clone, Copy)]
enum Size {
    B = 0x10,
    H = 0x08,
    W = 0x00,
    D = 0x18,
}

/// A place that jumps go to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Unicast,
    Redirect,
    Pass,
}

/// Instructions, with jumps to places further on.
#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn emit(&mut self, opcode: u8, registers: (u8, u8), offset: i16, immediate: i32) {
        let (to, from) = registers;
        self.code.push(
            u64::from(opcode)
                | u64::from(to) << 8
                | u64::from(from) << 12
                | u64::from(offset as u16) << 16
                | u64::from(immediate as u32) << 32,
        );
    }

    /// `to = from`
    fn copy(&mut self, to: u8, from: u8) {
        self.emit(0xbf, (to, from), 0, 0);
    }

    /// `to = value`
    fn set(&mut self, to: u8, value: i32) {
        self.emit(0xb7, (to, 0), 0, value);
    }

    /// `to += value`
    fn add(&mut self, to: u8, value: i32) {
        self.emit(0x07, (to, 0), 0, value);
    }

    /// `to &= mask`
    fn mask(&mut self, to: u8, mask: i32) {
        self.emit(0x57, (to, 0), 0, mask);
    }

    /// `to = *(size *)(from + offset)`
    fn load(&mut self, size: Size, to: u8, from: u8, offset: i16) {
        self.emit(0x61 | size as u8, (to, from), offset, 0);
    }

    /// Goes to `label` if a register's lower half is not `value`.
    fn unless(&mut self, register: u8, value: u32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x56, (register, 0), 0, value as i32);
    }

    /// Goes to `label` if one register is greater than another.
    fn if_greater(&mut self, one: u8, other: u8, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x2d, (one, other), 0, 0);
    }

    /// `to =` what is loaded of a map: itself, or the address of its value.
    fn load_map(&mut self, to: u8, what: u8, map: BorrowedFd<'_>) {
        self.emit(0x18, (to, what), 0, map.as_raw_fd());
        self.emit(0x00, (0, 0), 0, 0); // the upper half of the constant
    }

    fn call(&mut self, helper: i32) {
        self.emit(0x85, (0, 0), 0, helper);
    }

    /// Ends the program; the result is in register 0.
    fn exit(&mut self) {
        self.emit(0x95, (0, 0), 0, 0);
    }

    fn go(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x05, (0, 0), 0, 0);
    }

    /// Here is `label`: the jumps to it go here.
    fn place(&mut self, label: Label) {
        let here = self.code.len();
        for (at, _) in self.jumps.extract_if(.., |(_, to)| *to == label) {
            let offset = i16::try_from(here - at - 1).expect("the program is short");
            self.code[at] |= u64::from(offset as u16) << 16;
        }
    }
}

/// A value of several bytes of a packet, as a load of so many bytes gives it on this processor.
fn half(bytes: [u8; 2]) -> u32 {
    u16::from_ne_bytes(bytes).into()
}

/// The program for these two destinations of one family, for frames of at most so many bytes; `until` is the map with
/// the time to which this process takes frames, and `sockets` the one with its sockets by queue.
pub(crate) fn assemble(
    group: SocketAddr,
    own: SocketAddr,
    frame_max_bytes: usize,
    (until, sockets): (BorrowedFd<'_>, BorrowedFd<'_>),
) -> Vec<u64> {
    assert!(group.is_ipv4() == own.is_ipv4(), "a group and its members have one family");
    let mut program = Assembler::default();
    program.copy(CONTEXT, R1);
    program.load(Size::W, R2, R1, DATA);
    program.load(Size::W, R3, R1, DATA_END);
    program.copy(R4, R2);
    program.add(R4, frame_max_bytes as i32);
    program.if_greater(R3, R4, Label::Pass);
    let port_at = if group.is_ipv4() { is_ipv4_datagram(&mut program) } else { is_ipv6_datagram(&mut program) };
    program.load(Size::H, R4, R2, port_at);
    is_destination(&mut program, group, Label::Unicast);
    program.go(Label::Redirect);
    program.place(Label::Unicast);
    is_destination(&mut program, own, Label::Pass);
    program.place(Label::Redirect);
    program.load_map(R1, PSEUDO_MAP_VALUE, until);
    program.load(Size::D, UNTIL, R1, 0);
    program.call(MONOTONIC_NS);
    program.if_greater(R0, UNTIL, Label::Pass);
    program.load(Size::W, R2, CONTEXT, RX_QUEUE_INDEX);
    program.load_map(R1, PSEUDO_MAP_FD, sockets);
    program.set(R3, XDP_PASS); // where the map has no socket
    program.call(REDIRECT_MAP);
    program.exit();
    program.place(Label::Pass);
    program.set(R0, XDP_PASS);
    program.exit();
    assert!(program.jumps.is_empty(), "every jump has a place");
    program.code
}

/// Passes on what is no whole UDP datagram over IPv4; returns where the destination's port is.
fn is_ipv4_datagram(program: &mut Assembler) -> i16 {
    is_long_enough(program, IPV4_BYTES);
    is_ethertype(program, [0x08, 0x00]);
    program.load(Size::B, R5, R2, ETHERNET_BYTES as i16);
    program.unless(R5, 0x45, Label::Pass); // version 4, no options
    program.load(Size::H, R5, R2, ETHERNET_BYTES as i16 + 6);
    program.mask(R5, half([0x3f, 0xff]) as i32); // more fragments follow, or come before
    program.unless(R5, 0, Label::Pass);
    program.load(Size::B, R5, R2, ETHERNET_BYTES as i16 + 9);
    program.unless(R5, libc::IPPROTO_UDP as u32, Label::Pass);
    (ETHERNET_BYTES + IPV4_BYTES) as i16 + 2
}

/// Passes on what is no whole UDP datagram over IPv6; returns where the destination's port is.
fn is_ipv6_datagram(program: &mut Assembler) -> i16 {
    is_long_enough(program, IPV6_BYTES);
    is_ethertype(program, [0x86, 0xdd]);
    program.load(Size::B, R5, R2, ETHERNET_BYTES as i16 + 6);
    program.unless(R5, libc::IPPROTO_UDP as u32, Label::Pass); // a fragment names another header here
    (ETHERNET_BYTES + IPV6_BYTES) as i16 + 2
}

fn is_long_enough(program: &mut Assembler, ip_bytes: usize) {
    program.copy(R4, R2);
    program.add(R4, (ETHERNET_BYTES + ip_bytes + UDP_BYTES) as i32);
    program.if_greater(R4, R3, Label::Pass);
}

fn is_ethertype(program: &mut Assembler, ethertype: [u8; 2]) {
    program.load(Size::H, R5, R2, ETHERNET_BYTES as i16 - 2);
    program.unless(R5, half(ethertype), Label::Pass);
}

/// Goes to `otherwise` if the datagram is for another address, and passes it on if it is for another port; its port is
/// in register 4.
fn is_destination(program: &mut Assembler, address: SocketAddr, otherwise: Label) {
    let (octets, at) = match address.ip() {
        IpAddr::V4(ip) => (ip.octets().to_vec(), ETHERNET_BYTES + 16),
        IpAddr::V6(ip) => (ip.octets().to_vec(), ETHERNET_BYTES + 24),
    };
    for (i, word) in octets.chunks_exact(4).enumerate() {
        let word = u32::from_ne_bytes(word.try_into().expect("chunks of four"));
        program.load(Size::W, R5, R2, (at + 4 * i) as i16);
        program.unless(R5, word, otherwise);
    }
    program.unless(R4, half(address.port().to_be_bytes()), Label::Pass);
}
