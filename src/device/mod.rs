//! TOUCHES: what a camera and a screen are, whether real (`device/`) or pretended (`sim/`).

pub mod camera;
pub mod console;
mod ioctl;
pub mod screen;
mod v4l2;

use crate::geometry::{Rect, Size};
use crate::media::canvas::{Canvas, PixelLayout};
use crate::media::frame::Frame;

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

/// An open screen.
pub trait Screen: Send {
    fn mode(&self) -> &ScreenMode;

    /// Brings `canvas` (of the mode's size and layout) to the glass. `changed` (physical) bounds what
    /// differs from the canvas presented before; the first call shows everything.
    ///
    /// # Errors
    /// Drop the screen and open it anew.
    fn present(&mut self, canvas: &Canvas, changed: &[Rect]) -> Result<(), Error>;
}
