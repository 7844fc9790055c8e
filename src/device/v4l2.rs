//! One V4L2 capture node: what it is, what it can do, its buffers.
//!
//! `v4l` opens the node and enumerates formats. Its streams panic while they are dropped if the kernel answers
//! anything but ENODEV, and its capabilities and formats panic on words they do not know, so those calls are made
//! here, with the kernel's structures as `v4l` binds them (videodev2.h; Linux "Video for Linux API").
#![allow(unsafe_code)]

use super::ioctl::{Mapping, ioctl};
use crate::geometry::Size;
use crate::media::frame::{Colour, Matrix};
use std::io;
use std::mem::zeroed;
use std::path::Path;
use std::time::{Duration, Instant};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;
use v4l::video::Capture;
use v4l::{Device, FourCC, Fraction};

const CAPTURE: u32 = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
const MMAP: u32 = sys::v4l2_memory_V4L2_MEMORY_MMAP;

/// Who a node says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub card: String,
    pub bus: String,
    /// Whether pictures can be streamed from it through the single-planar API.
    pub captures: bool,
}

/// What a node can deliver in one format.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub fourcc: [u8; 4],
    /// The offered size nearest to the wanted one.
    pub size: Size,
    /// The fastest rate at that size, if it says.
    pub fastest_hz: Option<f64>,
}

/// What the kernel granted.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    pub fourcc: [u8; 4],
    pub size: Size,
    /// Bytes from one row of the first plane to the next; 0 for compressed formats.
    pub stride: usize,
    pub colour: Colour,
}

/// An open node. Dropping it closes the file: until then a camera that was unplugged cannot come back.
pub struct Node(Device);

impl Node {
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Device::with_path(path).map(Self)
    }

    /// VIDIOC_QUERYCAP.
    pub fn identity(&self) -> io::Result<Identity> {
        // SAFETY: plain integers and arrays, zero is a valid value; the request takes a v4l2_capability.
        let answer = unsafe {
            let mut answer: sys::v4l2_capability = zeroed();
            self.call(vidioc::VIDIOC_QUERYCAP, &mut answer)?;
            answer
        };
        let own = if answer.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0 {
            answer.device_caps
        } else {
            answer.capabilities
        };
        let needed = sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_STREAMING;
        Ok(Identity {
            card: text(&answer.card),
            bus: text(&answer.bus_info),
            captures: own & needed == needed,
        })
    }

    /// The formats of the node, in the driver's order.
    pub fn formats(&self) -> Vec<[u8; 4]> {
        let described = self.0.enum_formats().unwrap_or_default();
        described.into_iter().map(|format| format.fourcc.repr).collect()
    }

    /// What it offers in `fourcc` near to `wanted`.
    pub fn offer(&self, fourcc: [u8; 4], wanted: Size) -> Offer {
        let code = FourCC::new(&fourcc);
        // A driver that does not enumerate decides when the format is set.
        let sizes = self.0.enum_framesizes(code).unwrap_or_default();
        let size = sizes
            .into_iter()
            .map(|offered| nearest(&offered.size, wanted))
            .min_by_key(|&size| distance(size, wanted))
            .unwrap_or(wanted);
        let intervals = self.0.enum_frameintervals(code, size.width, size.height).unwrap_or_default();
        let fastest_hz = intervals
            .into_iter()
            .filter_map(|offered| match offered.interval {
                FrameIntervalEnum::Discrete(interval) => hertz(interval),
                FrameIntervalEnum::Stepwise(steps) => hertz(steps.min),
            })
            .reduce(f64::max);
        Offer { fourcc, size, fastest_hz }
    }

    /// VIDIOC_S_FMT, and what came of it.
    pub fn set_format(&self, fourcc: [u8; 4], size: Size) -> io::Result<Granted> {
        // SAFETY: zero is a valid value of the structure; `pix` is its member for single-planar capture,
        // and the request takes a v4l2_format.
        let pix = unsafe {
            let mut format: sys::v4l2_format = zeroed();
            format.type_ = CAPTURE;
            format.fmt.pix = sys::v4l2_pix_format {
                width: size.width,
                height: size.height,
                pixelformat: u32::from_le_bytes(fourcc),
                field: sys::v4l2_field_V4L2_FIELD_NONE,
                ..zeroed()
            };
            self.call(vidioc::VIDIOC_S_FMT, &mut format)?;
            format.fmt.pix
        };
        Ok(Granted {
            fourcc: pix.pixelformat.to_le_bytes(),
            size: Size::new(pix.width, pix.height),
            stride: pix.bytesperline as usize,
            colour: colour(&pix),
        })
    }

    /// VIDIOC_S_PARM: asks for a rate, and says which came of it if the driver knows.
    pub fn set_rate(&self, rate_hz: u32) -> Option<f64> {
        // SAFETY: zero is a valid value of the structure; `capture` is its member for capture, and the
        // request takes a v4l2_streamparm.
        let granted = unsafe {
            let mut parameters: sys::v4l2_streamparm = zeroed();
            parameters.type_ = CAPTURE;
            parameters.parm.capture.timeperframe = sys::v4l2_fract { numerator: 1, denominator: rate_hz };
            self.call(vidioc::VIDIOC_S_PARM, &mut parameters).ok()?;
            parameters.parm.capture.timeperframe
        };
        hertz(Fraction::new(granted.numerator, granted.denominator))
    }

    /// # Safety
    /// As for [`ioctl`].
    unsafe fn call<T>(&self, request: vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
        // SAFETY: the caller's.
        unsafe { ioctl(self.0.handle().fd(), request as libc::c_ulong, argument) }
    }
}

/// What went wrong in a stream: the call and the kernel's answer.
pub type Failure = (&'static str, io::Error);

/// A node that streams into mapped buffers. Dropping it stops the stream, unmaps and closes, in this order.
pub struct Stream {
    buffers: Vec<Mapping>,
    node: Node,
}

/// What waiting brought.
pub enum Arrival {
    /// The buffer `index` holds `used` bytes; it is ours until [`Stream::give_back`].
    Picture {
        index: u32,
        used: usize,
    },
    /// The driver says the buffer's content is damaged; it has been given back.
    Damaged,
    Timeout,
}

impl Stream {
    /// Buffers asked for: one with us, one being filled, two waiting. When none waits the driver drops pictures.
    const BUFFERS: u32 = 4;

    /// Requests, maps and queues the buffers and starts the stream.
    pub fn start(node: Node) -> Result<Self, Failure> {
        let mut stream = Self { buffers: Vec::new(), node };
        // SAFETY: zero is a valid value; the request takes a v4l2_requestbuffers.
        let count = unsafe {
            let mut request: sys::v4l2_requestbuffers = zeroed();
            (request.count, request.type_, request.memory) = (Self::BUFFERS, CAPTURE, MMAP);
            let answer = stream.node.call(vidioc::VIDIOC_REQBUFS, &mut request);
            answer.map_err(|error| ("VIDIOC_REQBUFS", error))?;
            request.count
        };
        for index in 0..count {
            let mut buffer = descriptor(index);
            // SAFETY: the request takes a v4l2_buffer; `offset` is the union's member for mapped buffers.
            let offset = unsafe {
                let answer = stream.node.call(vidioc::VIDIOC_QUERYBUF, &mut buffer);
                answer.map_err(|error| ("VIDIOC_QUERYBUF", error))?;
                buffer.m.offset
            };
            let fd = stream.node.0.handle().fd();
            let mapping = Mapping::new(fd, offset.into(), buffer.length as usize, false);
            stream.buffers.push(mapping.map_err(|error| ("mmap", error))?);
            stream.give_back(index)?;
        }
        stream.switch(vidioc::VIDIOC_STREAMON).map_err(|error| ("VIDIOC_STREAMON", error))?;
        Ok(stream)
    }

    /// Waits for a picture, `timeout` at most, and takes the newest; those before it go back unseen.
    pub fn wait(&mut self, timeout: Duration) -> Result<Arrival, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let events = self.poll(left).map_err(|error| ("poll", error))?;
            let mut newest = None;
            // As many as there are buffers can be ready; more is no news.
            for _ in 0..self.buffers.len() {
                match self.take() {
                    Ok(buffer) => {
                        if let Some(older) = newest.replace(buffer) {
                            self.give_back(older.index)?;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(("VIDIOC_DQBUF", error)),
                }
            }
            match newest {
                Some(buffer) if buffer.flags & sys::V4L2_BUF_FLAG_ERROR != 0 => {
                    self.give_back(buffer.index)?;
                    return Ok(Arrival::Damaged);
                }
                Some(buffer) => {
                    return Ok(Arrival::Picture { index: buffer.index, used: buffer.bytesused as usize });
                }
                // The device complains but has no answer of its own: it is as good as gone.
                None if events & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => {
                    return Err(("poll", io::Error::from_raw_os_error(libc::ENODEV)));
                }
                None if left.is_zero() => return Ok(Arrival::Timeout),
                None => {}
            }
        }
    }

    /// The content of a buffer that [`Stream::wait`] handed out and that has not been given back.
    pub fn picture(&self, index: u32, used: usize) -> &[u8] {
        let Some(mapping) = self.buffers.get(index as usize) else { return &[] };
        // SAFETY: the driver does not touch a buffer between DQBUF and QBUF, and QBUF needs `&mut self`.
        unsafe { mapping.bytes(used) }
    }

    /// Queues a buffer again.
    pub fn give_back(&mut self, index: u32) -> Result<(), Failure> {
        // SAFETY: the request takes a v4l2_buffer.
        let answer = unsafe { self.node.call(vidioc::VIDIOC_QBUF, &mut descriptor(index)) };
        answer.map_err(|error| ("VIDIOC_QBUF", error))
    }

    fn take(&mut self) -> io::Result<sys::v4l2_buffer> {
        let mut buffer = descriptor(0);
        // SAFETY: the request takes a v4l2_buffer.
        unsafe { self.node.call(vidioc::VIDIOC_DQBUF, &mut buffer) }?;
        Ok(buffer)
    }

    fn switch(&self, request: vidioc::_IOC_TYPE) -> io::Result<()> {
        let mut kind = CAPTURE as libc::c_int;
        // SAFETY: STREAMON and STREAMOFF take an int.
        unsafe { self.node.call(request, &mut kind) }
    }

    /// The events of the node, 0 after `timeout` or a signal.
    fn poll(&self, timeout: Duration) -> io::Result<libc::c_short> {
        let mut waiting = libc::pollfd { fd: self.node.0.handle().fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = timeout.as_millis().min(60_000) as libc::c_int;
        // SAFETY: one valid pollfd for the time of the call.
        if unsafe { libc::poll(&mut waiting, 1, milliseconds) } != -1 {
            return Ok(waiting.revents);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A device that is gone cannot be stopped, and closing the file stops it as well.
        let _ = self.switch(vidioc::VIDIOC_STREAMOFF);
    }
}

/// How far a size is from the wanted one: the pixels that must be made up or thrown away.
pub fn distance(size: Size, wanted: Size) -> u64 {
    u64::from(size.width.abs_diff(wanted.width)) * u64::from(wanted.height.max(size.height))
        + u64::from(size.height.abs_diff(wanted.height)) * u64::from(wanted.width.max(size.width))
}

fn nearest(offered: &FrameSizeEnum, wanted: Size) -> Size {
    let stepped = |wanted: u32, min: u32, max: u32, step: u32| {
        let steps = wanted.clamp(min, max.max(min)).saturating_sub(min) / step.max(1);
        min + steps * step
    };
    match offered {
        FrameSizeEnum::Discrete(size) => Size::new(size.width, size.height),
        FrameSizeEnum::Stepwise(steps) => Size::new(
            stepped(wanted.width, steps.min_width, steps.max_width, steps.step_width),
            stepped(wanted.height, steps.min_height, steps.max_height, steps.step_height),
        ),
    }
}

fn hertz(interval: Fraction) -> Option<f64> {
    let known = interval.numerator != 0 && interval.denominator != 0;
    known.then(|| f64::from(interval.denominator) / f64::from(interval.numerator))
}

/// Colour as V4L2 defines its defaults (V4L2_MAP_YCBCR_ENC_DEFAULT, V4L2_MAP_QUANTIZATION_DEFAULT): BT.709 only
/// where it is said, limited range but for JPEG.
fn colour(pix: &sys::v4l2_pix_format) -> Colour {
    // SAFETY: both members of the union are the same kind of integer.
    let encoding = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
    let jpeg = &pix.pixelformat.to_le_bytes() == b"MJPG";
    meaning(pix.colorspace, encoding, pix.quantization, jpeg)
}

/// As [`colour`], of the single fields.
pub fn meaning(colorspace: u32, encoding: u32, quantization: u32, jpeg: bool) -> Colour {
    let bt709 = match encoding {
        0 => colorspace == sys::v4l2_colorspace_V4L2_COLORSPACE_REC709,
        encoding => {
            encoding == sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709
                || encoding == sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709
        }
    };
    let jpeg = jpeg || colorspace == sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG;
    let full_range = match quantization {
        sys::v4l2_quantization_V4L2_QUANTIZATION_DEFAULT => jpeg,
        quantization => quantization == sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE,
    };
    Colour { matrix: if bt709 { Matrix::Bt709 } else { Matrix::Bt601 }, full_range }
}

/// A buffer's descriptor for the calls that name it by its index.
fn descriptor(index: u32) -> sys::v4l2_buffer {
    // SAFETY: integers and a union of integers and a pointer that is not read: zero is valid.
    let mut buffer: sys::v4l2_buffer = unsafe { zeroed() };
    (buffer.index, buffer.type_, buffer.memory) = (index, CAPTURE, MMAP);
    buffer
}

/// The text of a fixed array, up to its first NUL; what is not UTF-8 (names are cut anywhere) is replaced.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}
