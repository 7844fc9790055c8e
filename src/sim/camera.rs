//! A camera that draws a moving picture with its frame number in it, and that can be unplugged.

use super::number;
use crate::device::{self, CameraMode, Error, Kind};
use crate::geometry::Size;
use crate::media::frame::Frame;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a silent camera is waited for.
const SILENCE: Duration = Duration::from_millis(900);

/// The cable of a simulated device.
#[derive(Clone, Debug)]
pub struct Cable {
    plugged: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    trouble: Arc<Mutex<Option<Kind>>>,
    grain: Arc<AtomicU8>,
}

impl Default for Cable {
    fn default() -> Self {
        Self {
            plugged: Arc::new(AtomicBool::new(true)),
            open: Arc::default(),
            trouble: Arc::default(),
            grain: Arc::default(),
        }
    }
}

impl Cable {
    pub fn set_plugged(&self, plugged: bool) {
        self.plugged.store(plugged, Ordering::Relaxed);
    }

    /// What is wrong with the device at its end although it is plugged in; devices other than cameras have none.
    pub fn set_trouble(&self, trouble: Option<Kind>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn trouble(&self) -> Option<Kind> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how much each pixel is off by chance, 0 (at first) to 64: what makes pictures as hard to code as those of
    /// a room in the evening.
    pub fn set_grain(&self, grain: u8) {
        self.grain.store(grain.min(64), Ordering::Relaxed);
    }

    pub(super) fn is_plugged(&self) -> bool {
        self.plugged.load(Ordering::Relaxed)
    }

    /// Whether the device at its end is open.
    pub fn is_in_use(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    pub(super) fn take(&self) -> InUse {
        self.open.fetch_add(1, Ordering::Relaxed);
        InUse(self.open.clone())
    }
}

/// An open device.
pub(super) struct InUse(Arc<AtomicUsize>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A simulated camera.
pub struct Camera {
    mode: CameraMode,
    cable: Cable,
    _in_use: InUse,
    /// What is the same in all its pictures.
    ground: Frame,
    /// When picture `first` was due.
    start: Instant,
    first: u64,
    number: u64,
}

impl Camera {
    /// Opens a camera that delivers `size` at `rate_hz`. `hue` (0–255, a circle) tells one camera from another.
    ///
    /// # Errors
    /// [`Kind::NotFound`] while the cable is out, and what else keeps a camera from being opened.
    pub fn open(name: &str, size: Size, rate_hz: u32, hue: u8, cable: Cable) -> Result<Self, Error> {
        let name = format!("sim-{name}");
        let refused = match cable.trouble() {
            _ if !cable.is_plugged() => Some(Kind::NotFound),
            Some(Kind::Gone | Kind::Stalled | Kind::BadFrame) | None => None,
            trouble => trouble,
        };
        if let Some(kind) = refused {
            return Err(Error { kind, operation: "open", errno: None, target: name });
        }
        let mode = CameraMode { name, fourcc: *b"YU12", size, rate_hz: f64::from(rate_hz) };
        // Pictures are numbered by the wall clock, so that each says when it was taken.
        let (period, now) = (Duration::from_secs_f64(1.0 / mode.rate_hz), since_epoch(SystemTime::now()));
        let number = periods(now, mode.rate_hz) as u64;
        let start = Instant::now() - now.saturating_sub(epoch(number, mode.rate_hz)).min(period);
        Ok(Self {
            mode,
            _in_use: cable.take(),
            cable,
            ground: ground(size, hue),
            start,
            first: number,
            number,
        })
    }
}

impl device::Camera for Camera {
    fn mode(&self) -> &CameraMode {
        &self.mode
    }

    fn capture(&mut self, frame: &mut Frame) -> Result<(), Error> {
        // Like a sensor, it does not wait for who is late: the number is that of the present period.
        let period = Duration::from_secs_f64(1.0 / self.mode.rate_hz);
        let due = self.first + (self.start.elapsed().as_secs_f64() * self.mode.rate_hz) as u64;
        self.number = due.max(self.number + 1);
        let at = self.start + period.mul_f64((self.number - self.first) as f64);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let failed = match self.cable.trouble() {
            _ if !self.cable.is_plugged() => Some(Kind::Gone),
            Some(kind @ (Kind::Gone | Kind::BadFrame)) => Some(kind),
            Some(Kind::Stalled) => {
                std::thread::sleep(SILENCE);
                Some(Kind::Stalled)
            }
            _ => None,
        };
        if let Some(kind) = failed {
            let target = self.mode.name.clone();
            return Err(Error { kind, operation: "capture", errno: None, target });
        }
        frame.resize(self.mode.size);
        draw(frame, &self.ground, self.number, self.cable.grain.load(Ordering::Relaxed));
        Ok(())
    }
}

/// How old the picture with this number is: the last one of a camera at `rate_hz` that had it before `now`.
pub fn age(number: u16, rate_hz: u32, now: SystemTime) -> Duration {
    let periods = periods(since_epoch(now), f64::from(rate_hz));
    let whole = (periods as u64 as u16).wrapping_sub(number);
    Duration::from_secs_f64((f64::from(whole) + periods.fract()) / f64::from(rate_hz))
}

/// A clock before 1970 is as good as one at its beginning.
fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn periods(since_epoch: Duration, rate_hz: f64) -> f64 {
    since_epoch.as_secs_f64() * rate_hz
}

fn epoch(number: u64, rate_hz: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate_hz)
}

/// A gradient with a bar that crosses the picture once in four seconds, and grain over it.
fn draw(frame: &mut Frame, ground: &Frame, number: u64, grain: u8) {
    let width = frame.size().width as usize;
    for (plane, ground) in frame.planes_mut().into_iter().zip(ground.planes()) {
        plane.copy_from_slice(ground);
    }
    let [luma, ..] = frame.planes_mut();
    let bar = number as usize * width / 120 % width;
    for row in luma.chunks_exact_mut(width) {
        row[bar..(bar + width / 40).min(width)].fill(200);
    }
    if grain > 0 {
        let mut chance = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for pixels in luma.chunks_mut(8) {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            for (pixel, byte) in pixels.iter_mut().zip(chance.to_le_bytes()) {
                *pixel = pixel.saturating_add(((u16::from(byte) * u16::from(grain)) >> 8) as u8);
            }
        }
    }
    number::draw(frame, number as u16);
}

/// The gradient, in the colour of `hue`.
fn ground(size: Size, hue: u8) -> Frame {
    let mut frame = Frame::new(size);
    let (width, height) = (size.width as usize, size.height as usize);
    let [luma, u, v] = frame.planes_mut();
    for (y, row) in luma.chunks_exact_mut(width).enumerate() {
        for (x, pixel) in row.iter_mut().enumerate() {
            *pixel = (70 + x * 60 / width + y * 60 / height) as u8;
        }
    }
    let angle = f32::from(hue) / 256.0 * std::f32::consts::TAU;
    for (plane, lean) in [(u, angle.cos()), (v, angle.sin())] {
        for (y, row) in plane.chunks_exact_mut(width / 2).enumerate() {
            let strength = 24.0 + 40.0 * (y as f32 / (height / 2) as f32);
            row.fill((128.0 + lean * strength) as u8);
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_when_its_picture_was_taken_for_half_an_hour() {
        let taken = 53_000_000_123_u64;
        let now = |later: u64| UNIX_EPOCH + epoch(taken, 30.0) + Duration::from_millis(later);

        for later in [5, 40, 60_000, 1_800_000] {
            let age = age(taken as u16, 30, now(later)).as_secs_f64();
            assert!((age - later as f64 / 1e3).abs() < 1e-4, "{age} after {later} ms");
        }
    }
}
