//! One AF_XDP socket: the frames' memory, and the four rings around it.
//!
//! A frame goes round: this process gives it to the kernel by the *fill* ring and gets it back with a datagram by the
//! *receive* ring; for sending, by the *send* ring and back by the *completion* ring. Frames for receiving and for
//! sending are apart, so that neither can use up the other's.
//!
//! Invariants: each frame is with the kernel or with this process, never with both; what the kernel has is in a ring or
//! in flight.
//!
//! Source: the kernel's `Documentation/networking/af_xdp.rst`.

use crate::refusal::{refused, unavailable};
use crate::ring::{Consumer, Layout, Mapping, Producer};
use bourdon_port::PortError;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Frames for receiving: as many full datagrams as the kernel's own sockets hold by default.
pub(crate) const RECEIVE_FRAMES: u32 = 4096;
/// Places for frames to fill. The kernel hands a frame over before it shows that it took its place from this ring; at
/// worst it shows nothing until it has taken all that it had seen. With twice as many places as frames, a frame that
/// was handed over always finds one.
const FILL_ENTRIES: u32 = 2 * RECEIVE_FRAMES;
/// Frames for sending: a burst of the longest runs that the engine hands over at once.
pub(crate) const SEND_FRAMES: u32 = 1024;
/// The kernel writes a frame behind so many bytes, which programs may use.
pub(crate) const HEADROOM_BYTES: usize = 256;
/// A frame lies within a page.
const FRAME_MAX_BYTES: usize = 4096;
/// The kernel needs a moment to let go of a queue that another socket has just left.
const RELEASED_WITHIN: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile.
pub(crate) const RELEASE_LOOK: Duration = Duration::from_millis(2);

/// The bytes of a frame that holds a packet of so many; none if no frame can.
pub(crate) fn frame_bytes(packet_bytes: usize) -> Option<usize> {
    [2048, FRAME_MAX_BYTES].into_iter().find(|bytes| packet_bytes + HEADROOM_BYTES <= *bytes)
}

/// A socket bound to one queue of an interface.
#[derive(Debug)]
pub(crate) struct XdpSocket {
    // The rings and the memory after the socket: the kernel lets go of them when it closes.
    socket: OwnedFd,
    fill: Producer<u64>,
    receive: Consumer<libc::xdp_desc>,
    send: Producer<libc::xdp_desc>,
    completion: Consumer<u64>,
    memory: Mapping,
    frame_bytes: usize,
    /// The frames for sending that the kernel does not have.
    free: Vec<u64>,
    /// Something was published that the kernel was not called for.
    is_pending: bool,
    is_zero_copy: bool,
}

impl XdpSocket {
    /// Opens a socket on a queue.
    pub(crate) fn open(ifindex: u32, queue: u32, frame_bytes: usize, zero_copy: bool) -> Result<Self, PortError> {
        // SAFETY: takes numbers only.
        let descriptor = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if descriptor < 0 {
            return Err(refused("opening a socket of AF_XDP", &io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just returned this descriptor to this call alone.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let memory = Mapping::anonymous((RECEIVE_FRAMES + SEND_FRAMES) as usize * frame_bytes)?;
        let registered = libc::xdp_umem_reg_v1 {
            addr: memory.address() as u64,
            len: memory.len() as u64,
            chunk_size: frame_bytes as u32,
            headroom: 0,
        };
        set_option(&socket, libc::XDP_UMEM_REG, &registered).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOBUFS) => unavailable(format!(
                "{} KiB of frames must be locked for each queue, more than `ulimit -l` allows: raise it \
                 (`LimitMEMLOCK=` of a service), or give the program CAP_IPC_LOCK",
                memory.len() / 1024
            )),
            _ => refused("registering frames", &error),
        })?;
        for (ring, entries) in [
            (libc::XDP_UMEM_FILL_RING, FILL_ENTRIES),
            (libc::XDP_RX_RING, RECEIVE_FRAMES),
            (libc::XDP_UMEM_COMPLETION_RING, SEND_FRAMES),
            (libc::XDP_TX_RING, SEND_FRAMES),
        ] {
            set_option(&socket, ring, &entries).map_err(|error| refused("making a ring", &error))?;
        }
        let offsets = ring_offsets(&socket).map_err(|error| refused("asking where the rings lie", &error))?;
        let layout = |offset: u64, parts, entries| Layout { offset, parts, entries };
        let fill = layout(libc::XDP_UMEM_PGOFF_FILL_RING, offsets.fr, FILL_ENTRIES);
        let completion = layout(libc::XDP_UMEM_PGOFF_COMPLETION_RING, offsets.cr, SEND_FRAMES);
        let mut opened = Self {
            fill: Producer::map(socket.as_fd(), fill)?,
            receive: Consumer::map(socket.as_fd(), layout(libc::XDP_PGOFF_RX_RING as u64, offsets.rx, RECEIVE_FRAMES))?,
            send: Producer::map(socket.as_fd(), layout(libc::XDP_PGOFF_TX_RING as u64, offsets.tx, SEND_FRAMES))?,
            completion: Consumer::map(socket.as_fd(), completion)?,
            socket,
            memory,
            frame_bytes,
            free: (0..SEND_FRAMES).map(|i| u64::from(RECEIVE_FRAMES + i) * frame_bytes as u64).collect(),
            is_pending: false,
            is_zero_copy: zero_copy,
        };
        for frame in 0..RECEIVE_FRAMES {
            opened.fill.push(u64::from(frame) * frame_bytes as u64);
        }
        opened.fill.publish();
        opened.bind(ifindex, queue)?;
        Ok(opened)
    }

    fn bind(&mut self, ifindex: u32, queue: u32) -> Result<(), PortError> {
        let copies = if self.is_zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: copies | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let begun = Instant::now();
        loop {
            // SAFETY: the kernel reads the address, which is borrowed through the call and has no padding.
            let result = unsafe {
                libc::bind(
                    self.socket.as_raw_fd(),
                    std::ptr::from_ref(&address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                )
            };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                _ if result == 0 => return Ok(()),
                Some(libc::EBUSY) if begun.elapsed() < RELEASED_WITHIN => std::thread::sleep(RELEASE_LOOK),
                Some(libc::EOPNOTSUPP) if self.is_zero_copy => {
                    let why = "the interface's driver can't do without copies: set network.xdp_zero_copy = false";
                    return Err(unavailable(why.to_owned()));
                }
                _ => return Err(refused("binding to a queue of the interface", &error)),
            }
        }
    }

    pub(crate) fn is_zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    /// Whether a frame has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.receive.is_empty()
    }

    /// Hands out up to `limit` frames that have come; returns how many.
    #[inline]
    pub(crate) fn receive(&mut self, limit: usize, mut on_frame: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(descriptor) = self.receive.next()
        {
            count += 1;
            on_frame(self.received(&descriptor));
            // The kernel writes it at its own offset within the frame, so the frame's beginning goes back.
            let first = descriptor.addr & !(self.frame_bytes as u64 - 1);
            if first < u64::from(RECEIVE_FRAMES) * self.frame_bytes as u64 {
                self.fill.push(first);
            }
        }
        if count > 0 {
            self.receive.release();
            self.fill.publish();
        }
        count
    }

    /// The bytes of a frame that came; none where the kernel's descriptor leaves the frames for receiving.
    fn received(&self, descriptor: &libc::xdp_desc) -> &[u8] {
        let (at, length) = (descriptor.addr as usize, descriptor.len as usize);
        let end = RECEIVE_FRAMES as usize * self.frame_bytes;
        if at > end || length > end - at || length > self.frame_bytes {
            return &[];
        }
        // SAFETY: the range lies within the memory, in a frame that the kernel has given to this process and does not
        // write before it gets it back by the fill ring, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.address().add(at), length) }
    }

    /// Calls `write` with a free frame, and sends what it wrote, of the length that it returns, with the next
    /// [`XdpSocket::flush`]. False if no frame is free: the kernel has all of them.
    #[inline]
    pub(crate) fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.free.is_empty() {
            self.reclaim();
        }
        if !self.send.has_room() {
            return false;
        }
        let Some(addr) = self.free.pop() else { return false };
        // SAFETY: a free frame lies within the memory and is this process's alone: it is in `free` once, and was not
        // given to the kernel since it came back. `&mut self` makes this the only slice of it.
        let frame =
            unsafe { std::slice::from_raw_parts_mut(self.memory.address().add(addr as usize), self.frame_bytes) };
        let len = write(frame);
        assert!(len <= self.frame_bytes, "a packet lies within its frame");
        self.send.push(libc::xdp_desc { addr, len: len as u32, options: 0 });
        self.is_pending = true;
        true
    }

    /// Takes back the frames that were sent.
    fn reclaim(&mut self) {
        let first = u64::from(RECEIVE_FRAMES) * self.frame_bytes as u64;
        while let Some(addr) = self.completion.next() {
            debug_assert!(addr >= first && addr < self.memory.len() as u64, "only frames for sending complete");
            if addr >= first && addr < self.memory.len() as u64 {
                self.free.push(addr & !(self.frame_bytes as u64 - 1));
            }
        }
        self.completion.release();
    }

    /// Lets the kernel send what was written.
    pub(crate) fn flush(&mut self) {
        if !self.is_pending {
            return;
        }
        self.send.publish();
        self.is_pending = false;
        // Where frames are copied, the kernel sends some with each call, and only with a call. It has stopped when a
        // call takes none: its queue is full, or the interface is down; what is left goes with a later call.
        while self.send.needs_wakeup() && !self.send.is_drained() {
            let before = self.send.taken();
            // SAFETY: sends nothing of this process's memory: the call only wakes the kernel.
            unsafe {
                libc::sendto(self.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            if self.send.taken() == before {
                self.is_pending = true;
                break;
            }
        }
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The values that [`set_option`] may hand to the kernel: plain C data without padding.
trait OptionValue {}
impl OptionValue for u32 {}
impl OptionValue for libc::xdp_umem_reg_v1 {}

fn set_option<T: OptionValue>(socket: &OwnedFd, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of_val(value)` initialised bytes from `value`, which is borrowed through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            name,
            std::ptr::from_ref(value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn ring_offsets(socket: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: plain C data for which all zeroes is a valid value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&offsets) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `offsets`, which lives through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of_val(&offsets) {
        return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT)); // a kernel without the wake-up flag, before 5.4
    }
    Ok(offsets)
}
