//! One of a codec's two queues: its buffers, mapped, each of one piece of memory (kernel: "Streaming I/O (Memory Mapping)").
#![allow(unsafe_code)]

use super::super::ioctl::{Mapping, error, finding};
use super::super::{Error, Kind};
use super::node::{Direction, Node};
use std::mem::zeroed;
use std::sync::Arc;
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

const MMAP: u32 = sys::v4l2_memory_V4L2_MEMORY_MMAP;

/// A queue with its buffers. Dropping it stops it, unmaps and frees them, in this order.
#[derive(Debug)]
pub struct Queue {
    node: Arc<Node>,
    direction: Direction,
    buffers: Vec<Buffer>,
}

#[derive(Debug)]
struct Buffer {
    memory: Mapping,
    length: usize,
    /// Whether the driver has it.
    queued: bool,
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

impl Queue {
    /// Buffers that are ever had; a driver that gives more has them unused.
    const MOST: u32 = 32;

    /// Asks for buffers (the driver may give more or fewer), and maps them.
    pub fn new(node: &Arc<Node>, direction: Direction, count: u32) -> Result<Self, Error> {
        let mut queue = Self { node: node.clone(), direction, buffers: Vec::new() };
        let count = queue.request(count)?;
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
            let memory = Mapping::new(node.fd(), offset.into(), length, true);
            let memory = memory.map_err(|source| error("mmap", node.name(), &source))?;
            queue.buffers.push(Buffer { memory, length, queued: false });
        }
        if queue.buffers.is_empty() {
            return Err(finding(Kind::Format, "VIDIOC_REQBUFS", node.name()));
        }
        Ok(queue)
    }

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

    /// Gives all buffers that are ours to the driver, to be filled.
    pub fn offer_all(&mut self) -> Result<(), Error> {
        (0..self.buffers.len() as u32).try_for_each(|index| match self.buffers[index as usize].queued {
            true => Ok(()),
            false => self.offer(index, 0, 0),
        })
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
        buffer.memory.write(at, bytes);
    }

    /// VIDIOC_QBUF: gives a buffer to the driver, with so many bytes in it.
    pub fn offer(&mut self, index: u32, used: usize, stamp: u64) -> Result<(), Error> {
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
        unsafe { buffer.memory.bytes(done.end) }.get(done.begin..).unwrap_or_default()
    }

    /// VIDIOC_REQBUFS, and how many there are now; 0 frees them.
    fn request(&self, count: u32) -> Result<u32, Error> {
        // SAFETY: zero is a valid value; the request takes a v4l2_requestbuffers.
        unsafe {
            let mut request: sys::v4l2_requestbuffers = zeroed();
            (request.count, request.type_, request.memory) = (count, self.direction.buffer_type(), MMAP);
            self.node.call("VIDIOC_REQBUFS", vidioc::VIDIOC_REQBUFS, &mut request)?;
            Ok(request.count)
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

impl Drop for Queue {
    fn drop(&mut self) {
        // A device that is gone can do neither, and closing the file does both.
        let _ = self.stop();
        self.buffers.clear();
        let _ = self.request(0);
    }
}

fn plane() -> sys::v4l2_plane {
    // SAFETY: integers and a union of integers: zero is valid.
    unsafe { zeroed() }
}
