//! TOUCHES: what a camera, a screen, a microphone and a speaker are, whether real (`device/`) or pretended (`sim/`).

pub mod board;
pub mod camera;
pub mod codec;
pub mod console;
mod file;
mod ioctl;
pub mod screen;
pub mod sound;
mod v4l2;

use crate::geometry::Size;
use crate::media::canvas::{PixelLayout, Surface};
use crate::media::frame::Frame;
use crate::media::sound::Block;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What went wrong with a device, in the words the kiosk decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Busy,
    NotAuthorized,
    /// None of its formats can be used.
    Format,
    /// The bus has no bandwidth left (ENOSPC).
    NoBandwidth,
    /// It was there and is not any more.
    Gone,
    /// It is there and delivers nothing.
    Stalled,
    /// It delivered a picture that cannot be decoded.
    BadFrame,
}

/// A device's failure: what was being done to what, and the kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// The system call or ioctl, as `VIDIOC_DQBUF`.
    pub operation: &'static str,
    /// The kernel's error number, if it gave one.
    pub errno: Option<i32>,
    /// The device's stable name.
    pub target: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}: {:?}", self.operation, self.target, self.kind)?;
        match self.errno {
            Some(errno) => write!(f, " ({})", std::io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// What a camera agreed to deliver.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraMode {
    /// Stable name: the by-id link if there is one, else card and bus.
    pub name: String,
    /// FourCC of what comes over the bus: `YUYV`, `NV12`, `YU12`, `MJPG`.
    pub fourcc: [u8; 4],
    pub size: Size,
    /// Frames a second.
    pub rate_hz: f64,
}

/// An open camera that streams.
pub trait Camera: Send {
    fn mode(&self) -> &CameraMode;

    /// Waits for the next picture (newest first: older ones that piled up are passed over) and writes it
    /// into `frame`, resized to the mode's size. Sets the frame's colour; not its time of capture.
    ///
    /// # Errors
    /// [`Kind::BadFrame`]: this one is lost, go on. Any other: drop the camera and open it anew.
    fn capture(&mut self, frame: &mut Frame) -> Result<(), Error>;
}

/// What the screen is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenMode {
    /// The driver's name, as `vc4drmfb`.
    pub name: String,
    /// Physical pixels.
    pub size: Size,
    pub layout: PixelLayout,
    /// Whether pictures change by page flip.
    pub flip: bool,
}

/// Pages a screen has at most.
pub const MOST_PAGES: usize = 2;

/// An open screen.
pub trait Screen: Send {
    fn mode(&self) -> &ScreenMode;

    /// Lets `paint` draw on a page, of physical orientation, and brings it to the glass. `paint` is told which page it
    /// is, from 0 up to [`MOST_PAGES`]; what a page showed when it was drawn on last is still on it. Nothing is on a page
    /// that was never drawn on since the screen was opened.
    ///
    /// # Errors
    /// Drop the screen and open it anew.
    fn present(&mut self, paint: &mut dyn FnMut(usize, Surface<'_>)) -> Result<(), Error>;

    /// Sees whether the screen is still what it was: it may have been taken away or changed.
    ///
    /// # Errors
    /// Drop the screen and open it anew.
    fn check(&mut self) -> Result<(), Error>;
}

/// Something that is used up: what it is now, and where it becomes too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauge {
    pub now: u64,
    pub limit: u64,
    /// What was measured.
    pub name: String,
}

/// The board itself.
pub trait Board: Send + Sync {
    /// The hottest place, in thousandths of a degree Celsius, and where the kernel slows the board down. `None` on a
    /// board that does not measure.
    fn heat(&self) -> Option<Gauge>;

    /// The service's memory and its limit, in bytes. `None` without a limit.
    fn memory(&self) -> Option<Gauge>;

    /// An installed file, which nobody writes in place: only what is read of it takes memory.
    ///
    /// # Errors
    /// What opening or mapping answers; an empty file is [`io::ErrorKind::InvalidData`].
    fn file(&self, path: &Path) -> io::Result<Bytes>;
}

/// What a sound device agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoundMode {
    /// The PCM's name and, if it has one, the card's: `plughw:1,0 (USB Audio)`.
    pub name: String,
    /// Channels of the device; the house has one, which is spread over or mixed from them.
    pub channels: u32,
    /// Samples a channel of one period, and of the device's whole buffer.
    pub period: u32,
    pub buffer: u32,
}

/// An open microphone that records.
pub trait Microphone: Send {
    fn mode(&self) -> &SoundMode;

    /// Waits for the next 10 ms and writes them into `block`. An overrun is recovered inside and counted.
    ///
    /// # Errors
    /// Drop the microphone and open it anew.
    fn capture(&mut self, block: &mut Block) -> Result<(), Error>;

    /// How old the newest sample of the last block was when `capture` returned.
    fn delay(&self) -> Duration;

    /// Overruns recovered since it was opened.
    fn overruns(&self) -> u64;
}

/// An open speaker that plays.
pub trait Speaker: Send {
    fn mode(&self) -> &SoundMode;

    /// Waits until the device's buffer has room for 10 ms, so that what is played is made no sooner than it must be.
    /// An underrun is recovered inside and counted.
    ///
    /// # Errors
    /// Drop the speaker and open it anew.
    fn ready(&mut self) -> Result<(), Error>;

    /// Queues these 10 ms, as soon as there is room. An underrun is recovered inside and counted.
    ///
    /// # Errors
    /// Drop the speaker and open it anew.
    fn play(&mut self, block: &Block) -> Result<(), Error>;

    /// How long it takes until a sample given to `play` now is heard.
    fn delay(&self) -> Duration;

    /// Underruns recovered since it was opened.
    fn underruns(&self) -> u64;
}
