//! One of a codec's two queues: its buffers, mapped, each of one piece of memory (kernel: "Streaming I/O (Memory Mapping)").
//!
//! ```text
//!   driver's ──DQBUF──► ours ──lend──► lent, to be read by whoever holds it
//!       ▲                │               │
//!       └──────QBUF──────┴◄──all let go──┘
//! ```
#![allow(unsafe_code)]

use super::super::ioctl::{Mapping, error, finding};
use super::super::{Error, Kind};
use super::node::{Direction, Node};
use std::hint::black_box;
use std::mem::zeroed;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

const MMAP: u32 = sys::v4l2_memory_V4L2_MEMORY_MMAP;

/// A queue with its buffers. Dropping it stops it and frees them, in this order; what is lent is freed by its last holder.
#[derive(Debug)]
pub struct Queue<T = ()> {
    node: Arc<Node>,
    direction: Direction,
    buffers: Vec<Buffer<T>>,
    /// Whether the kernel frees buffers while they are still mapped.
    orphans: bool,
}

#[derive(Debug)]
struct Buffer<T> {
    /// Held by nobody else while it is the driver's.
    content: Arc<Content<T>>,
    length: usize,
    /// Whether the driver has it.
    queued: bool,
}

/// What a buffer holds that is not the driver's, and what is `said` of it.
#[derive(Debug)]
pub struct Content<T> {
    memory: Mapping,
    filled: Range<usize>,
    pub said: T,
}

impl<T> Content<T> {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a content leaves its queue by `Queue::lend` only, which takes one that the driver does not have; it gets
        // it again by `Queue::offer` only, which takes one that nobody else holds. A driver may read a picture that was
        // dequeued, as a reference for others; it does not write it.
        unsafe { self.memory.bytes(self.filled.end) }.get(self.filled.start..).unwrap_or_default()
    }
}

/// What came off a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub index: u32,
    /// Where the content begins and ends.
    begin: usize,
    end: usize,
    /// What the picture was given to the codec with.
    pub stamp: u64,
    pub keyframe: bool,
    /// The driver could not make a whole picture.
    pub damaged: bool,
    /// Nothing more comes until the queue is started anew.
    pub last: bool,
}

impl Done {
    pub fn is_empty(&self) -> bool {
        self.end <= self.begin
    }
}

/// What looking at a queue brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Buffer(Done),
    Nothing,
    /// The last buffer was taken before.
    Ended,
}

impl<T: Default> Queue<T> {
    /// Buffers that are ever had; a driver that gives more has them unused.
    const MOST: u32 = 32;

    /// Asks for buffers (the driver may give more or fewer), and maps them.
    pub fn new(node: &Arc<Node>, direction: Direction, count: u32) -> Result<Self, Error> {
        let mut queue = Self { node: node.clone(), direction, buffers: Vec::new(), orphans: false };
        let (count, capabilities) = queue.request(count)?;
        queue.orphans = capabilities & sys::V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS != 0;
        for index in 0..count.min(Self::MOST) {
            let mut plane = plane();
            let mut buffer = queue.descriptor(index, &mut plane);
            // SAFETY: the request takes a v4l2_buffer, whose one plane outlives the call; `mem_offset` is the union's
            // member for mapped buffers.
            let offset = unsafe {
                node.call("VIDIOC_QUERYBUF", vidioc::VIDIOC_QUERYBUF, &mut buffer)?;
                plane.m.mem_offset
            };
            let length = plane.length as usize;
            let memory = Mapping::new(node.fd(), offset.into(), length, direction == Direction::Output);
            let memory = memory.map_err(|source| error("mmap", node.name(), &source))?;
            let content = Arc::new(Content { memory, filled: 0..0, said: T::default() });
            queue.buffers.push(Buffer { content, length, queued: false });
        }
        if queue.buffers.is_empty() {
            return Err(finding(Kind::Format, "VIDIOC_REQBUFS", node.name()));
        }
        Ok(queue)
    }
}

impl<T> Queue<T> {
    /// VIDIOC_STREAMON.
    pub fn start(&mut self) -> Result<(), Error> {
        let mut kind = self.direction.buffer_type() as libc::c_int;
        // SAFETY: the request takes an int.
        unsafe { self.node.call("VIDIOC_STREAMON", vidioc::VIDIOC_STREAMON, &mut kind) }
    }

    /// VIDIOC_STREAMOFF: all buffers are ours again, whatever was in them.
    pub fn stop(&mut self) -> Result<(), Error> {
        let mut kind = self.direction.buffer_type() as libc::c_int;
        // SAFETY: the request takes an int.
        unsafe { self.node.call("VIDIOC_STREAMOFF", vidioc::VIDIOC_STREAMOFF, &mut kind) }?;
        self.buffers.iter_mut().for_each(|buffer| buffer.queued = false);
        Ok(())
    }

    /// Gives all buffers that are ours, and those that were lent and are held no more, to the driver, to be filled.
    pub fn offer_all(&mut self) -> Result<(), Error> {
        for index in 0..self.buffers.len() {
            let Buffer { content, queued, .. } = &mut self.buffers[index];
            if !*queued && Arc::get_mut(content).is_some() {
                self.offer(index as u32, 0, 0)?;
            }
        }
        Ok(())
    }

    /// A buffer that is ours, and its bytes.
    pub fn free(&self) -> Option<(u32, usize)> {
        let index = self.buffers.iter().position(|buffer| !buffer.queued)?;
        Some((index as u32, self.buffers[index].length))
    }

    /// Whether the driver has any buffer.
    pub fn is_queued(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.queued)
    }

    /// Copies bytes to a place in a buffer that is ours; what lies beyond its end is cut off.
    pub fn write(&mut self, index: u32, at: usize, bytes: &[u8]) {
        let buffer = &mut self.buffers[index as usize];
        debug_assert!(!buffer.queued);
        if let Some(content) = Arc::get_mut(&mut buffer.content) {
            content.memory.write(at, bytes);
        }
    }

    /// VIDIOC_QBUF: gives a buffer to the driver, with so many bytes in it.
    ///
    /// # Errors
    /// [`Kind::Busy`] also when it is lent.
    pub fn offer(&mut self, index: u32, used: usize, stamp: u64) -> Result<(), Error> {
        if Arc::get_mut(&mut self.buffers[index as usize].content).is_none() {
            return Err(finding(Kind::Busy, "VIDIOC_QBUF", self.node.name()));
        }
        let mut plane = plane();
        plane.bytesused = used as u32;
        let mut buffer = self.descriptor(index, &mut plane);
        buffer.timestamp.tv_sec = (stamp / 1_000_000) as _;
        buffer.timestamp.tv_usec = (stamp % 1_000_000) as _;
        // SAFETY: the request takes a v4l2_buffer, whose one plane outlives the call.
        unsafe { self.node.call("VIDIOC_QBUF", vidioc::VIDIOC_QBUF, &mut buffer) }?;
        self.buffers[index as usize].queued = true;
        Ok(())
    }

    /// VIDIOC_DQBUF: a buffer the driver is done with; does not wait.
    pub fn take(&mut self) -> Result<Taken, Error> {
        let mut plane = plane();
        let mut buffer = self.descriptor(0, &mut plane);
        // SAFETY: the request takes a v4l2_buffer, whose one plane outlives the call.
        if let Err(source) = unsafe { self.node.attempt(vidioc::VIDIOC_DQBUF, &mut buffer) } {
            return match source.raw_os_error() {
                Some(libc::EAGAIN) => Ok(Taken::Nothing),
                Some(libc::EPIPE) => Ok(Taken::Ended),
                _ => Err(error("VIDIOC_DQBUF", self.node.name(), &source)),
            };
        }
        let Some(ours) = self.buffers.get_mut(buffer.index as usize) else {
            return Err(finding(Kind::Gone, "VIDIOC_DQBUF", self.node.name()));
        };
        ours.queued = false;
        let stamp = buffer.timestamp.tv_sec as u64 * 1_000_000 + buffer.timestamp.tv_usec as u64;
        Ok(Taken::Buffer(Done {
            index: buffer.index,
            begin: plane.data_offset as usize,
            end: plane.bytesused as usize,
            stamp,
            keyframe: buffer.flags & sys::V4L2_BUF_FLAG_KEYFRAME != 0,
            damaged: buffer.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
            last: buffer.flags & sys::V4L2_BUF_FLAG_LAST != 0,
        }))
    }

    /// The content of a buffer that is ours.
    pub fn content(&self, done: &Done) -> &[u8] {
        let Some(buffer) = self.buffers.get(done.index as usize).filter(|buffer| !buffer.queued) else {
            return &[];
        };
        // SAFETY: the driver does not touch a buffer between DQBUF and QBUF, and QBUF needs `&mut self`.
        unsafe { buffer.content.memory.bytes(done.end) }.get(done.begin..).unwrap_or_default()
    }

    /// How many buffers are the driver's or could be: all but those that are lent.
    pub fn at_hand(&self) -> usize {
        self.buffers.iter().filter(|buffer| Arc::strong_count(&buffer.content) == 1).count()
    }

    /// Lends the content of a buffer that is ours, without copying it: [`Queue::offer_all`] gives it to the driver when
    /// nobody holds it any more. `None`: it is not ours, or lent.
    pub fn lend(&mut self, done: &Done, said: T) -> Option<Arc<Content<T>>> {
        let buffer = self.buffers.get_mut(done.index as usize).filter(|buffer| !buffer.queued)?;
        let content = Arc::get_mut(&mut buffer.content)?;
        (content.filled, content.said) = (done.begin..done.end, said);
        Some(buffer.content.clone())
    }

    /// Whether what is lent may outlive this queue. Before Linux 5.0 the kernel refuses new buffers, for another size of
    /// pictures, as long as an old one is mapped (kernel: "ioctl VIDIOC_REQBUFS", `V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS`).
    pub fn can_lend(&self) -> bool {
        self.orphans
    }

    /// Whether the processor reads these buffers about as fast as memory of its own. Where a device does not see the
    /// processor's caches its driver may map them without: then reading a sample takes tens of times as long.
    pub fn is_cached(&self) -> bool {
        const SAMPLE: usize = 64 << 10;
        const TRIES: usize = 5;
        let Some(buffer) = self.buffers.iter().find(|buffer| !buffer.queued) else { return false };
        // SAFETY: the driver does not have it, and to give it needs `&mut self`.
        let mapped = unsafe { buffer.content.memory.bytes(SAMPLE) };
        let (own, mut to) = (vec![1; mapped.len()], vec![0; mapped.len()]);
        let mut fastest = |from: &[u8]| {
            let copy = |_| {
                let start = Instant::now();
                to.copy_from_slice(black_box(from));
                black_box(&mut to);
                start.elapsed()
            };
            (0..TRIES).map(copy).min().unwrap_or(Duration::MAX)
        };
        fastest(mapped) <= 4 * fastest(&own)
    }

    /// VIDIOC_REQBUFS: how many there are now, and what the queue can (`V4L2_BUF_CAP_…`); 0 frees them.
    fn request(&self, count: u32) -> Result<(u32, u32), Error> {
        // SAFETY: zero is a valid value; the request takes a v4l2_requestbuffers.
        unsafe {
            let mut request: sys::v4l2_requestbuffers = zeroed();
            (request.count, request.type_, request.memory) = (count, self.direction.buffer_type(), MMAP);
            if self.direction == Direction::Capture {
                // What is read is to be cached, where the driver can: DQBUF then takes care of the caches.
                request.flags = sys::V4L2_MEMORY_FLAG_NON_COHERENT as u8;
            }
            self.node.call("VIDIOC_REQBUFS", vidioc::VIDIOC_REQBUFS, &mut request)?;
            Ok((request.count, request.capabilities))
        }
    }

    /// A buffer's descriptor. It points to `plane`, which has to outlive its use.
    fn descriptor(&self, index: u32, plane: &mut sys::v4l2_plane) -> sys::v4l2_buffer {
        // SAFETY: integers and a union of integers and pointers: zero is valid.
        let mut buffer: sys::v4l2_buffer = unsafe { zeroed() };
        (buffer.index, buffer.type_, buffer.memory) = (index, self.direction.buffer_type(), MMAP);
        buffer.field = sys::v4l2_field_V4L2_FIELD_NONE;
        buffer.length = 1;
        buffer.m.planes = plane;
        buffer
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // A device that is gone can do neither, and closing the file does both; a mapping that is lent keeps it open.
        let _ = self.stop();
        self.buffers.clear();
        let _ = self.request(0);
    }
}

fn plane() -> sys::v4l2_plane {
    // SAFETY: integers and a union of integers: zero is valid.
    unsafe { zeroed() }
}
