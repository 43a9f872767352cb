//! Loads the program and attaches it, by `bpf`(2) alone.
//!
//! Everything lives as long as its descriptor: map, program, and the link that attaches the program to the interface.
//! So a process that is killed leaves nothing attached, whatever it was doing.
//!
//! Source: bpf(2); `include/uapi/linux/bpf.h` for the layouts, of which only the fields in use are here (the kernel
//! takes shorter structures and treats the rest as zeroes).

use crate::refusal::refused;
use crate::ring::{Mapping, Ordering};
use bourdon_port::PortError;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_XSKMAP: u32 = 17;
const MAP_MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

/// How often loading is tried while signals end it: as often as libbpf does.
const LOAD_ATTEMPTS: u32 = 5;

/// Which part of the kernel runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The interface's driver, before it has made anything of the frame.
    Native,
    /// The kernel's stack, for a driver that can't.
    Generic,
}

impl Mode {
    const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,  // XDP_FLAGS_DRV_MODE
            Self::Generic => 1 << 1, // XDP_FLAGS_SKB_MODE
        }
    }
}

#[repr(C)]
struct CreateMap {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct UpdateElement {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LoadProgram {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct CreateLink {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The structures of the calls above.
trait Attributes {}
impl Attributes for CreateMap {}
impl Attributes for UpdateElement {}
impl Attributes for LoadProgram {}
impl Attributes for CreateLink {}

fn bpf<T: Attributes>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads `size_of_val(attributes)` bytes, which are initialised: the structures above are plain C
    // data without padding. The addresses in them are those of live values that the callers borrow through the call;
    // none is written to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to this call alone.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// The map from an interface's queues to the sockets that take their frames.
#[derive(Debug)]
pub(crate) struct SocketMap(OwnedFd);

impl SocketMap {
    pub(crate) fn new(queues: u32) -> io::Result<Self> {
        let map_type = MAP_TYPE_XSKMAP;
        let attributes = CreateMap { map_type, key_size: 4, value_size: 4, max_entries: queues, map_flags: 0 };
        bpf(MAP_CREATE, &attributes).map(|descriptor| Self(owned(descriptor)))
    }

    /// Frames of `queue` go to `socket` from now on.
    pub(crate) fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let descriptor = socket.as_raw_fd() as u32;
        let attributes = UpdateElement {
            map_fd: self.0.as_raw_fd() as u32,
            reserved: 0,
            key: std::ptr::from_ref(&queue) as u64,
            value: std::ptr::from_ref(&descriptor) as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &attributes).map(drop)
    }
}

impl AsFd for SocketMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The time to which the program gives frames to this process, in a map of one value that both reach.
#[derive(Debug)]
pub(crate) struct Until {
    map: OwnedFd,
    value: Mapping,
}

impl Until {
    pub(crate) fn new() -> Result<Self, PortError> {
        let attributes =
            CreateMap { map_type: MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: 1, map_flags: MAP_MMAPABLE };
        let map = bpf(MAP_CREATE, &attributes).map(owned).map_err(|error| refused("creating a map", &error))?;
        let value = Mapping::shared(map.as_fd(), rustix::param::page_size(), 0, "mapping a map of BPF")?;
        Ok(Self { map, value })
    }

    /// Frames come here for so long from now on.
    pub(crate) fn extend(&self, by: Duration) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        self.value.first_word().store(now_ns + by.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Frames pass on to the kernel.
    pub(crate) fn end(&self) {
        self.value.first_word().store(0, Ordering::Relaxed);
    }
}

impl AsFd for Until {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A program that the kernel has verified.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    pub(crate) fn load(code: &[u64]) -> io::Result<Self> {
        let license = c"Dual MIT/GPL";
        let attributes = LoadProgram {
            program_type: PROG_TYPE_XDP,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_bytes: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: *b"bourdon\0\0\0\0\0\0\0\0\0",
            ifindex: 0,
            expected_attach_type: ATTACH_XDP,
        };
        // A signal ends the kernel's check of the program, and so does work of io_uring for this thread: both are done
        // when the call returns.
        let mut attempts = 1;
        loop {
            match bpf(PROG_LOAD, &attributes) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempts < LOAD_ATTEMPTS => attempts += 1,
                result => return result.map(|descriptor| Self(owned(descriptor))),
            }
        }
    }

    /// Attaches it to an interface for as long as the link lives.
    pub(crate) fn attach(&self, ifindex: u32, mode: Mode) -> io::Result<Link> {
        let program_fd = self.0.as_raw_fd() as u32;
        let attributes = CreateLink { program_fd, ifindex, attach_type: ATTACH_XDP, flags: mode.flags() };
        bpf(LINK_CREATE, &attributes).map(|descriptor| Link(owned(descriptor)))
    }
}

/// A program attached to an interface; dropped, the interface is as before.
#[derive(Debug)]
pub(crate) struct Link(#[allow(dead_code)] OwnedFd); // held for what closing it does
