//! A ring of descriptors shared with the kernel: one side writes, the other reads.
//!
//! Both indices run on for ever and are masked when used. The producer's index is published after the descriptors
//! before it are written, the consumer's after those before it were read; each side keeps its last sight of the other's
//! index and looks again only when that leaves nothing to do, so that a burst moves no cache line for each frame.
//!
//! Source: the kernel's `Documentation/networking/af_xdp.rst`.

use bourdon_port::PortError;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
pub(crate) use std::sync::atomic::Ordering;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Where the parts of a ring lie in its mapping, and how many descriptors it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) offset: u64,
    pub(crate) parts: libc::xdp_ring_offset,
    pub(crate) entries: u32,
}

/// Memory mapped from the kernel.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; it is unmapped once, by its only owner.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Memory of this process alone, zeroed.
    pub(crate) fn anonymous(bytes: usize) -> Result<Self, PortError> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without a fixed address the kernel chooses one that nothing else uses.
        let address =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE | MapFlags::POPULATE) };
        Self::of(address, bytes, "mapping memory for frames")
    }

    /// Memory that the kernel shares by a descriptor: a socket's ring, or a map's values.
    pub(crate) fn shared(
        of: BorrowedFd<'_>,
        bytes: usize,
        offset: u64,
        doing: &'static str,
    ) -> Result<Self, PortError> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: as above; the kernel maps memory of its own, which it keeps as long as the mapping lives.
        let address = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, of, offset) };
        Self::of(address, bytes, doing)
    }

    fn of(address: rustix::io::Result<*mut c_void>, bytes: usize, doing: &'static str) -> Result<Self, PortError> {
        let address = address.map_err(|error| PortError::Io { doing, source: error.into() })?;
        Ok(Self { address: NonNull::new(address).expect("no mapping is at address 0"), bytes })
    }

    pub(crate) fn address(&self) -> *mut u8 {
        self.address.as_ptr().cast()
    }

    /// The first eight bytes.
    pub(crate) fn first_word(&self) -> &AtomicU64 {
        assert!(self.bytes >= size_of::<u64>(), "a mapping has a page at least");
        // SAFETY: a mapping begins at a page, so the word is aligned and within; it lives as long as `self`, and this
        // process reaches it by atomic operations only, as the program does.
        unsafe { AtomicU64::from_ptr(self.address().cast()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr(), self.bytes) };
    }
}

/// What the rings carry: plain values of which every bit pattern is one.
pub(crate) trait Descriptor: Copy {}
impl Descriptor for u64 {}
impl Descriptor for libc::xdp_desc {}

/// One ring, as one of its two sides.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    mapping: Mapping,
    parts: libc::xdp_ring_offset,
    mask: u32,
    /// This side's index, and its last sight of the other's.
    own: u32,
    other: u32,
    of: PhantomData<T>,
}

impl<T: Descriptor> Ring<T> {
    fn map(socket: BorrowedFd<'_>, layout: Layout) -> Result<Self, PortError> {
        let Layout { offset, parts, entries } = layout;
        assert!(entries.is_power_of_two(), "a mask finds an entry");
        let bytes = parts.desc as usize + entries as usize * size_of::<T>();
        let mapping = Mapping::shared(socket, bytes, offset, "mapping a ring of AF_XDP")?;
        let words = [parts.producer, parts.consumer, parts.flags];
        assert!(
            words.iter().all(|word| word.is_multiple_of(4) && *word as usize + 4 <= bytes),
            "the kernel's offsets lie within"
        );
        assert!((parts.desc as usize).is_multiple_of(align_of::<T>()), "the kernel's descriptors are aligned");
        Ok(Self { mapping, parts, mask: entries - 1, own: 0, other: 0, of: PhantomData })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: `map` has checked that the word lies within the mapping and is aligned; the mapping lives as long as
        // `self`, and this process reaches the word by atomic operations only, as the kernel does.
        unsafe { AtomicU32::from_ptr(self.mapping.address().add(offset as usize).cast()) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.parts.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.parts.consumer)
    }

    fn entries(&self) -> u32 {
        self.mask + 1
    }

    fn place(&self, index: u32) -> *mut T {
        let at = self.parts.desc as usize + (index & self.mask) as usize * size_of::<T>();
        // SAFETY: the masked index is less than the number of entries, so its descriptor lies within the mapping.
        unsafe { self.mapping.address().add(at).cast() }
    }

    /// Whether the kernel asks for a call before it goes on.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.word(self.parts.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that this process writes: frames to fill, and frames to send.
#[derive(Debug)]
pub(crate) struct Producer<T>(Ring<T>);

impl<T: Descriptor> Producer<T> {
    pub(crate) fn map(socket: BorrowedFd<'_>, layout: Layout) -> Result<Self, PortError> {
        Ring::map(socket, layout).map(Self)
    }

    /// Whether there is room for one more.
    pub(crate) fn has_room(&mut self) -> bool {
        let ring = &mut self.0;
        if ring.own.wrapping_sub(ring.other) < ring.entries() {
            return true;
        }
        ring.other = ring.consumer().load(Ordering::Acquire);
        ring.own.wrapping_sub(ring.other) < ring.entries()
    }

    /// Writes one more, which the kernel sees with the next [`Producer::publish`].
    pub(crate) fn push(&mut self, descriptor: T) {
        assert!(self.has_room(), "the caller has looked whether there is room");
        let ring = &mut self.0;
        // SAFETY: the place lies within the mapping and is aligned (`map`). The consumer has passed it, by the
        // consumer's index that `has_room` has seen, and does not read it before `publish`.
        unsafe { ring.place(ring.own).write(descriptor) };
        ring.own = ring.own.wrapping_add(1);
    }

    pub(crate) fn publish(&mut self) {
        self.0.producer().store(self.0.own, Ordering::Release);
    }

    /// Whether the kernel has taken all that was published.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.0.other = self.0.consumer().load(Ordering::Acquire);
        self.0.own == self.0.other
    }

    /// How far the kernel has come.
    pub(crate) fn taken(&self) -> u32 {
        self.0.consumer().load(Ordering::Acquire)
    }

    pub(crate) fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }
}

/// A ring that this process reads: frames that came, and frames that were sent.
#[derive(Debug)]
pub(crate) struct Consumer<T>(Ring<T>);

impl<T: Descriptor> Consumer<T> {
    pub(crate) fn map(socket: BorrowedFd<'_>, layout: Layout) -> Result<Self, PortError> {
        Ring::map(socket, layout).map(Self)
    }

    /// The next descriptor, if there is one; the kernel gets its place back with [`Consumer::release`].
    pub(crate) fn next(&mut self) -> Option<T> {
        let ring = &mut self.0;
        if ring.own == ring.other {
            ring.other = ring.producer().load(Ordering::Acquire);
            if ring.own == ring.other {
                return None;
            }
        }
        // SAFETY: the place lies within the mapping and is aligned (`map`). The producer has written it, by its index
        // that was loaded above, and does not write it again before `release`; every bit pattern is a descriptor.
        let descriptor = unsafe { ring.place(ring.own).read() };
        ring.own = ring.own.wrapping_add(1);
        Some(descriptor)
    }

    pub(crate) fn release(&mut self) {
        self.0.consumer().store(self.0.own, Ordering::Release);
    }

    /// Whether there is anything that was not read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.own == self.0.producer().load(Ordering::Acquire)
    }
}
