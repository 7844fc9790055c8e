//! One memory-to-memory node: what it is, its formats, controls, commands and events (videodev2.h, as `v4l` binds it;
//! kernel: "Memory-To-Memory Stateful Video Encoder Interface", "… Decoder Interface").
#![allow(unsafe_code)]

use super::super::ioctl::{error, finding, ioctl};
use super::super::v4l2::{meaning, text};
use super::super::{Error, Kind};
use crate::geometry::{Rect, Size};
use crate::media::frame::{Colour, Matrix};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

/// An ioctl's number, as the bindings have it.
type Request = vidioc::_IOC_TYPE;

/// What the bindings leave out: `_IOR`, `_IOW` or `_IOWR` of `V` (asm-generic/ioctl.h).
const fn request<T>(direction: Request, number: Request) -> Request {
    (direction << 30) | ((size_of::<T>() as Request) << 16) | ((b'V' as Request) << 8) | number
}
const VIDIOC_DQEVENT: Request = request::<sys::v4l2_event>(2, 89);
const VIDIOC_SUBSCRIBE_EVENT: Request = request::<sys::v4l2_event_subscription>(1, 90);
const VIDIOC_G_SELECTION: Request = request::<sys::v4l2_selection>(3, 94);
const VIDIOC_S_SELECTION: Request = request::<sys::v4l2_selection>(3, 95);
const VIDIOC_DECODER_CMD: Request = request::<sys::v4l2_decoder_cmd>(3, 96);

/// The two queues, in the kernel's words: what goes into the codec, and what comes out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Output,
    Capture,
}

impl Direction {
    /// As V4L2 numbers it in the multi-planar API.
    pub fn buffer_type(self) -> u32 {
        match self {
            Self::Output => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE,
            Self::Capture => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
        }
    }
}

/// What a queue carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub fourcc: [u8; 4],
    /// As the codec lays it out: at least what is seen.
    pub coded: Size,
    /// Bytes from one row of the first plane to the next; 0 for coded pictures.
    pub stride: usize,
    /// Bytes of a buffer.
    pub bytes: usize,
    pub colour: Colour,
}

impl Format {
    /// To ask for; the driver decides on stride and bytes.
    pub fn new(fourcc: [u8; 4], coded: Size, colour: Colour) -> Self {
        Self { fourcc, coded, stride: 0, bytes: 0, colour }
    }
}

/// An open node.
#[derive(Debug)]
pub struct Node {
    file: File,
    name: String,
}

impl Node {
    /// Formats of one queue that are looked at.
    const MOST_FORMATS: u32 = 256;

    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = path.to_string_lossy().into_owned();
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        Ok(Self { file: file.map_err(|source| error("open", &name, &source))?, name })
    }

    /// The node, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// VIDIOC_QUERYCAP: the card's name of a multi-planar memory-to-memory device, `None` of another.
    pub fn card(&self) -> Result<Option<String>, Error> {
        // SAFETY: plain integers and arrays, zero is a valid value; the request takes a v4l2_capability.
        let answer = unsafe {
            let mut answer: sys::v4l2_capability = zeroed();
            self.call("VIDIOC_QUERYCAP", vidioc::VIDIOC_QUERYCAP, &mut answer)?;
            answer
        };
        let own = if answer.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0 {
            answer.device_caps
        } else {
            answer.capabilities
        };
        let needed = sys::V4L2_CAP_VIDEO_M2M_MPLANE | sys::V4L2_CAP_STREAMING;
        Ok((own & needed == needed).then(|| text(&answer.card)))
    }

    /// VIDIOC_ENUM_FMT: the formats of a queue, in the driver's order.
    pub fn formats(&self, direction: Direction) -> Vec<[u8; 4]> {
        let described = |index| {
            // SAFETY: zero is a valid value; the request takes a v4l2_fmtdesc.
            unsafe {
                let mut description: sys::v4l2_fmtdesc = zeroed();
                (description.index, description.type_) = (index, direction.buffer_type());
                self.attempt(vidioc::VIDIOC_ENUM_FMT, &mut description).ok()?;
                Some(description.pixelformat.to_le_bytes())
            }
        };
        (0..Self::MOST_FORMATS).map_while(described).collect()
    }

    /// VIDIOC_S_FMT, and what came of it.
    ///
    /// # Errors
    /// [`Kind::Format`] also when another format was granted, or one in several pieces of memory.
    pub fn set_format(&self, direction: Direction, wanted: &Format) -> Result<Format, Error> {
        const CALL: &str = "VIDIOC_S_FMT";
        // SAFETY: zero is a valid value of the structure; `pix_mp` is its member for the multi-planar queues, and the
        // request takes a v4l2_format.
        let granted = unsafe {
            let mut format: sys::v4l2_format = zeroed();
            format.type_ = direction.buffer_type();
            let mut picture: sys::v4l2_pix_format_mplane = zeroed();
            (picture.width, picture.height) = (wanted.coded.width, wanted.coded.height);
            picture.pixelformat = u32::from_le_bytes(wanted.fourcc);
            picture.field = sys::v4l2_field_V4L2_FIELD_NONE;
            picture.num_planes = 1;
            picture.plane_fmt[0].sizeimage = wanted.bytes as u32;
            let quantization = match wanted.colour.full_range {
                true => sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE,
                false => sys::v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE,
            };
            let (space, encoding) = match wanted.colour.matrix {
                Matrix::Bt601 => (
                    sys::v4l2_colorspace_V4L2_COLORSPACE_SMPTE170M,
                    sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_601,
                ),
                Matrix::Bt709 => {
                    (sys::v4l2_colorspace_V4L2_COLORSPACE_REC709, sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709)
                }
            };
            picture.colorspace = space;
            picture.__bindgen_anon_1.ycbcr_enc = encoding as u8;
            picture.quantization = quantization as u8;
            format.fmt.pix_mp = picture;
            self.call(CALL, vidioc::VIDIOC_S_FMT, &mut format)?;
            format.fmt.pix_mp
        };
        let format = self.described(&granted, CALL)?;
        if format.fourcc != wanted.fourcc {
            return Err(finding(Kind::Format, CALL, &self.name));
        }
        Ok(format)
    }

    /// VIDIOC_G_FMT.
    pub fn format(&self, direction: Direction) -> Result<Format, Error> {
        const CALL: &str = "VIDIOC_G_FMT";
        // SAFETY: as in `set_format`.
        let picture = unsafe {
            let mut format: sys::v4l2_format = zeroed();
            format.type_ = direction.buffer_type();
            self.call(CALL, vidioc::VIDIOC_G_FMT, &mut format)?;
            format.fmt.pix_mp
        };
        self.described(&picture, CALL)
    }

    fn described(&self, picture: &sys::v4l2_pix_format_mplane, call: &'static str) -> Result<Format, Error> {
        if picture.num_planes != 1 {
            return Err(finding(Kind::Format, call, &self.name));
        }
        // The structure is packed: by value.
        let (plane, colorspace, quantization) =
            (picture.plane_fmt[0], picture.colorspace, u32::from(picture.quantization));
        // SAFETY: both members of the union are the same kind of integer.
        let encoding = u32::from(unsafe { picture.__bindgen_anon_1.ycbcr_enc });
        Ok(Format {
            fourcc: picture.pixelformat.to_le_bytes(),
            coded: Size::new(picture.width, picture.height),
            stride: plane.bytesperline as usize,
            bytes: plane.sizeimage as usize,
            colour: meaning(colorspace, encoding, quantization, false),
        })
    }

    /// VIDIOC_S_PARM of what goes in: rate control counts by it. A driver that knows no rates is left alone.
    pub fn set_rate(&self, rate_hz: f32) {
        // SAFETY: zero is a valid value; `output` is the member for the queue of what goes in, and the request takes a
        // v4l2_streamparm.
        unsafe {
            let mut parameters: sys::v4l2_streamparm = zeroed();
            parameters.type_ = Direction::Output.buffer_type();
            parameters.parm.output.timeperframe =
                sys::v4l2_fract { numerator: 1000, denominator: (rate_hz * 1000.0) as u32 };
            let _ = self.attempt(vidioc::VIDIOC_S_PARM, &mut parameters);
        }
    }

    /// VIDIOC_S_SELECTION: of what goes in, only this much from the upper left corner is the picture. What came of it;
    /// `None` where nothing can be cut.
    pub fn crop(&self, size: Size) -> Option<Rect> {
        let whole = Rect::of(size);
        self.select(VIDIOC_S_SELECTION, Direction::Output, sys::V4L2_SEL_TGT_CROP, whole)
    }

    /// VIDIOC_G_SELECTION: what is to be seen of what comes out. `None` where the driver does not say: all of it.
    pub fn visible(&self) -> Option<Rect> {
        let nothing = Rect::of(Size::new(0, 0));
        self.select(VIDIOC_G_SELECTION, Direction::Capture, sys::V4L2_SEL_TGT_COMPOSE, nothing)
    }

    fn select(&self, request: Request, direction: Direction, target: u32, area: Rect) -> Option<Rect> {
        // The calls name the queues as if they were single-planar (kernel: "Cropping, composing and scaling").
        let kind = match direction {
            Direction::Output => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT,
            Direction::Capture => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
        };
        // SAFETY: plain integers, zero is a valid value; both requests take a v4l2_selection.
        let answer = unsafe {
            let mut selection: sys::v4l2_selection = zeroed();
            (selection.type_, selection.target) = (kind, target);
            selection.r = sys::v4l2_rect {
                left: area.x as i32,
                top: area.y as i32,
                width: area.width,
                height: area.height,
            };
            self.attempt(request, &mut selection).ok()?;
            selection.r
        };
        let (x, y) = (u32::try_from(answer.left).ok()?, u32::try_from(answer.top).ok()?);
        Some(Rect { x, y, width: answer.width, height: answer.height })
    }

    /// VIDIOC_S_CTRL.
    pub fn set_control(&self, id: u32, value: i32) -> io::Result<()> {
        let mut control = sys::v4l2_control { id, value };
        // SAFETY: the request takes a v4l2_control.
        unsafe { self.attempt(vidioc::VIDIOC_S_CTRL, &mut control) }
    }

    /// VIDIOC_G_CTRL; `None` if the driver does not have it.
    pub fn control(&self, id: u32) -> Option<i32> {
        let mut control = sys::v4l2_control { id, value: 0 };
        // SAFETY: the request takes a v4l2_control.
        unsafe { self.attempt(vidioc::VIDIOC_G_CTRL, &mut control) }.ok()?;
        Some(control.value)
    }

    /// VIDIOC_QUERYCTRL: whether the driver has a control.
    pub fn has_control(&self, id: u32) -> bool {
        // SAFETY: plain integers and arrays, zero is a valid value; the request takes a v4l2_queryctrl.
        unsafe {
            let mut query: sys::v4l2_queryctrl = zeroed();
            query.id = id;
            self.attempt(vidioc::VIDIOC_QUERYCTRL, &mut query).is_ok()
        }
    }

    /// VIDIOC_ENCODER_CMD: stop when all that was given is coded.
    pub fn stop_encoder(&self) -> Result<(), Error> {
        // SAFETY: plain integers, zero is a valid value; the request takes a v4l2_encoder_cmd.
        unsafe {
            let mut command: sys::v4l2_encoder_cmd = zeroed();
            command.cmd = sys::V4L2_ENC_CMD_STOP;
            self.call("VIDIOC_ENCODER_CMD", vidioc::VIDIOC_ENCODER_CMD, &mut command)
        }
    }

    /// VIDIOC_DECODER_CMD: stop when all that was given is decoded.
    pub fn stop_decoder(&self) -> Result<(), Error> {
        // SAFETY: plain integers, zero is a valid value; the request takes a v4l2_decoder_cmd.
        unsafe {
            let mut command: sys::v4l2_decoder_cmd = zeroed();
            command.cmd = sys::V4L2_DEC_CMD_STOP;
            self.call("VIDIOC_DECODER_CMD", VIDIOC_DECODER_CMD, &mut command)
        }
    }

    /// VIDIOC_SUBSCRIBE_EVENT: to be told when the stream's size or format changes.
    pub fn subscribe_to_changes(&self) -> Result<(), Error> {
        // SAFETY: plain integers, zero is a valid value; the request takes a v4l2_event_subscription.
        unsafe {
            let mut subscription: sys::v4l2_event_subscription = zeroed();
            subscription.type_ = sys::V4L2_EVENT_SOURCE_CHANGE;
            self.call("VIDIOC_SUBSCRIBE_EVENT", VIDIOC_SUBSCRIBE_EVENT, &mut subscription)
        }
    }

    /// VIDIOC_DQEVENT: whether the stream has changed since the last call.
    pub fn has_changed(&self) -> Result<bool, Error> {
        let mut changed = false;
        loop {
            // SAFETY: integers and a union of integers, zero is a valid value; the request takes a v4l2_event.
            let answer = unsafe {
                let mut event: sys::v4l2_event = zeroed();
                self.attempt(VIDIOC_DQEVENT, &mut event).map(|()| event)
            };
            match answer {
                Ok(event) => {
                    changed |= event.type_ == sys::V4L2_EVENT_SOURCE_CHANGE;
                    if event.pending == 0 {
                        return Ok(changed);
                    }
                }
                // There is no event, in both words that drivers have for it.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAGAIN)) => {
                    return Ok(changed);
                }
                Err(source) => return Err(error("VIDIOC_DQEVENT", &self.name, &source)),
            }
        }
    }

    /// Waits for one of `events` of poll(2), until `limit` at most.
    ///
    /// # Errors
    /// [`Kind::Gone`]: the device complains, and has nothing else to say.
    pub fn wait(&self, events: libc::c_short, limit: Instant) -> Result<(), Error> {
        let mut waiting = libc::pollfd { fd: self.fd(), events, revents: 0 };
        // Rounded up, so that the limit has passed when nothing came.
        let left = limit.saturating_duration_since(Instant::now()).as_millis().min(60_000) + 1;
        // SAFETY: one valid pollfd for the time of the call.
        if unsafe { libc::poll(&mut waiting, 1, left as libc::c_int) } == -1 {
            let source = io::Error::last_os_error();
            return match source.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error("poll", &self.name, &source)),
            };
        }
        let complains = waiting.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        match complains && waiting.revents & events == 0 {
            true => Err(finding(Kind::Gone, "poll", &self.name)),
            false => Ok(()),
        }
    }

    /// As [`Node::attempt`], with an error that says what was being done to what.
    ///
    /// # Safety
    /// As for [`ioctl`].
    pub unsafe fn call<T>(
        &self,
        operation: &'static str,
        request: Request,
        argument: &mut T,
    ) -> Result<(), Error> {
        // SAFETY: the caller's.
        unsafe { self.attempt(request, argument) }.map_err(|source| error(operation, &self.name, &source))
    }

    /// # Safety
    /// As for [`ioctl`].
    pub unsafe fn attempt<T>(&self, request: Request, argument: &mut T) -> io::Result<()> {
        // SAFETY: the caller's.
        unsafe { ioctl(self.fd(), request as libc::c_ulong, argument) }
    }
}
