//! V4L2 capture: which node, which format, and its newest picture as I420.

use super::ioctl::{error, finding};
use super::v4l2::{Arrival, Granted, Node, Offer, Stream, distance};
use super::{Camera, CameraMode, Error, Kind};
use crate::geometry::Size;
use crate::media::convert::convert;
use crate::media::frame::Frame;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::debug;

/// The pixel formats we can turn into I420, cheapest first.
pub const FORMATS: [[u8; 4]; 4] = [*b"YU12", *b"NV12", *b"YUYV", *b"MJPG"];

/// Which camera is wanted, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// A path (`/dev/video0`, `/dev/v4l/by-id/…`), the name of a link in `/dev/v4l/by-id` or `by-path`, a stable
    /// name from [`list`], or a card name or its beginning (case does not matter; the first node wins).
    pub device: String,
    pub size: Size,
    /// Frames a second, at least 1.
    pub rate_hz: u32,
}

/// A camera of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node, as `/dev/video0`.
    pub path: PathBuf,
    /// Stable name: see [`CameraMode::name`].
    pub name: String,
    pub card: String,
    pub bus: String,
    /// FourCCs it delivers, ours or not.
    pub formats: Vec<[u8; 4]>,
}

/// All nodes that deliver pictures, by number. Those that cannot be opened are passed over.
pub fn list() -> Vec<Found> {
    nodes().iter().filter_map(|path| look(path).ok()?).map(|(found, _)| found).collect()
}

/// Opens the chosen camera in its best format and starts it.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::Busy`], [`Kind::NotAuthorized`], [`Kind::Format`] (nothing of ours),
/// [`Kind::NoBandwidth`] (the bus cannot carry it as well), [`Kind::Gone`]: try again later.
pub fn open(choice: &Choice) -> Result<V4l2Camera, Error> {
    open_among(choice, &FORMATS)
}

/// As [`open`], in one of `formats`; of equal ones the first is taken.
///
/// # Errors
/// As [`open`].
pub fn open_among(choice: &Choice, formats: &[[u8; 4]]) -> Result<V4l2Camera, Error> {
    let (found, node) = find(&choice.device)?;
    let offers = found
        .formats
        .iter()
        .filter(|format| formats.contains(format) && FORMATS.contains(format))
        .map(|&format| node.offer(format, choice.size))
        .collect::<Vec<_>>();
    debug!(camera = found.name, ?offers, "camera offers");
    let offer = best(&offers, formats, choice)
        .ok_or_else(|| finding(Kind::Format, "VIDIOC_ENUM_FMT", &found.name))?;
    let granted = node
        .set_format(offer.fourcc, offer.size)
        .map_err(|source| error("VIDIOC_S_FMT", &found.name, &source))?;
    if !FORMATS.contains(&granted.fourcc) || granted.size.is_empty() {
        return Err(finding(Kind::Format, "VIDIOC_S_FMT", &found.name));
    }
    // A camera that knows no rates delivers at its own.
    let rate_hz = node.set_rate(choice.rate_hz.max(1)).unwrap_or(f64::from(choice.rate_hz));
    let stream = Stream::start(node).map_err(|(call, source)| error(call, &found.name, &source))?;
    let mode = CameraMode { name: found.name, fourcc: granted.fourcc, size: granted.size, rate_hz };
    debug!(
        camera = mode.name,
        path = %found.path.display(),
        format = %String::from_utf8_lossy(&mode.fourcc),
        size = %mode.size,
        rate_hz,
        "camera streams"
    );
    Ok(V4l2Camera { mode, granted, stream, patience: V4l2Camera::START })
}

/// An open V4L2 camera. Dropping it closes its file.
pub struct V4l2Camera {
    mode: CameraMode,
    granted: Granted,
    stream: Stream,
    /// How long to wait for the next picture.
    patience: Duration,
}

impl V4l2Camera {
    /// How long a camera may take to its first picture: some USB cameras need two seconds after STREAMON.
    const START: Duration = Duration::from_secs(3);
    /// How long it may be silent later, or for three pictures: a second from the last one it is said.
    const SILENCE: Duration = Duration::from_millis(900);

    /// How long to wait once it has delivered.
    fn steady(&self) -> Duration {
        Self::SILENCE.max(Duration::from_secs_f64(3.0 / self.mode.rate_hz.max(0.1)))
    }

    fn error(&self, (call, source): super::v4l2::Failure) -> Error {
        match error(call, &self.mode.name, &source) {
            // The format was settled when it was opened: what a stream calls invalid is lost.
            invalid if invalid.kind == Kind::Format => Error { kind: Kind::Gone, ..invalid },
            error => error,
        }
    }
}

impl Camera for V4l2Camera {
    fn mode(&self) -> &CameraMode {
        &self.mode
    }

    fn capture(&mut self, frame: &mut Frame) -> Result<(), Error> {
        let (index, used) = match self.stream.wait(self.patience).map_err(|failure| self.error(failure))? {
            Arrival::Picture { index, used } => (index, used),
            Arrival::Damaged => return Err(finding(Kind::BadFrame, "VIDIOC_DQBUF", &self.mode.name)),
            Arrival::Timeout => return Err(finding(Kind::Stalled, "VIDIOC_DQBUF", &self.mode.name)),
        };
        self.patience = self.steady();
        let Granted { fourcc, size, stride, colour } = self.granted;
        let converted = convert(fourcc, size, stride, self.stream.picture(index, used), frame);
        self.stream.give_back(index).map_err(|failure| self.error(failure))?;
        converted.map_err(|_| finding(Kind::BadFrame, "convert", &self.mode.name))?;
        // Coded pictures are JFIF, whatever the driver says.
        if &fourcc != b"MJPG" {
            frame.colour = colour;
        }
        Ok(())
    }
}

/// The offer to take: nearest size first, then the rate, then the order of `formats` (ours has raw before MJPG).
fn best<'a>(offers: &'a [Offer], formats: &[[u8; 4]], choice: &Choice) -> Option<&'a Offer> {
    let wanted_hz = f64::from(choice.rate_hz);
    offers.iter().min_by(|left, right| {
        let rank = |offer: &Offer| formats.iter().position(|format| *format == offer.fourcc);
        // 29.97 is 30; an unknown rate is taken on trust.
        let shortfall = |offer: &Offer| (wanted_hz * 0.99 - offer.fastest_hz.unwrap_or(wanted_hz)).max(0.0);
        distance(left.size, choice.size)
            .cmp(&distance(right.size, choice.size))
            .then(shortfall(left).total_cmp(&shortfall(right)))
            .then(rank(left).cmp(&rank(right)))
    })
}

/// The capture node that `device` names, open.
fn find(device: &str) -> Result<(Found, Node), Error> {
    let links = ["/dev", "/dev/v4l/by-id", "/dev/v4l/by-path"].map(|folder| Path::new(folder).join(device));
    if let Some(path) = links.into_iter().find(|path| !device.is_empty() && path.exists()) {
        let path = fs::canonicalize(&path).map_err(|source| error("open", device, &source))?;
        return look(&path)?.ok_or_else(|| finding(Kind::NotFound, "VIDIOC_QUERYCAP", device));
    }
    let mut closed = None;
    let mut cameras = Vec::new();
    for path in nodes() {
        match look(&path) {
            Ok(camera) => cameras.extend(camera),
            Err(error) => closed = closed.or(Some(error)),
        }
    }
    match matching(device, &cameras.iter().map(|(found, _)| found).collect::<Vec<_>>()) {
        Some(index) => Ok(cameras.swap_remove(index)),
        // It may be the one that could not be looked at.
        None => Err(closed
            .filter(|error| error.kind == Kind::NotAuthorized)
            .unwrap_or_else(|| finding(Kind::NotFound, "open", device))),
    }
}

/// The first camera of that stable name, else of that card, else whose card begins so.
fn matching(device: &str, cameras: &[&Found]) -> Option<usize> {
    let wanted = device.to_lowercase();
    let first = |test: &dyn Fn(&Found) -> bool| cameras.iter().position(|found| test(found));
    first(&|found| found.name.to_lowercase() == wanted)
        .or_else(|| first(&|found| found.card.to_lowercase() == wanted))
        .or_else(|| first(&|found| !wanted.is_empty() && found.card.to_lowercase().starts_with(&wanted)))
}

/// Opens a node and looks who it is; `None` if it delivers no pictures (metadata, output, codec).
fn look(path: &Path) -> Result<Option<(Found, Node)>, Error> {
    let target = path.to_string_lossy();
    let node = Node::open(path).map_err(|source| error("open", &target, &source))?;
    let identity = node.identity().map_err(|source| error("VIDIOC_QUERYCAP", &target, &source))?;
    if !identity.captures {
        return Ok(None);
    }
    let name = link_of(path).unwrap_or_else(|| format!("{} ({})", identity.card, identity.bus));
    let formats = node.formats();
    Ok(Some((Found { path: path.to_owned(), name, card: identity.card, bus: identity.bus, formats }, node)))
}

/// The name of the link in `/dev/v4l/by-id` that leads to the node.
fn link_of(node: &Path) -> Option<String> {
    let entries = fs::read_dir("/dev/v4l/by-id").ok()?;
    let mut names = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|link| fs::canonicalize(link).is_ok_and(|target| target == node))
        .filter_map(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
        .collect::<Vec<_>>();
    names.sort();
    names.into_iter().next()
}

/// All `/dev/videoN`, by number.
pub(super) fn nodes() -> Vec<PathBuf> {
    let mut numbered = v4l::context::enum_devices()
        .iter()
        .filter_map(|node| {
            let number = node.path().file_name()?.to_str()?.strip_prefix("video")?.parse::<u32>().ok()?;
            Some((number, node.path().to_owned()))
        })
        .collect::<Vec<_>>();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VGA: Size = Size::new(640, 480);
    const HD: Size = Size::new(1280, 720);

    fn offer(fourcc: &[u8; 4], size: Size, fastest_hz: f64) -> Offer {
        Offer { fourcc: *fourcc, size, fastest_hz: Some(fastest_hz) }
    }

    fn chosen(offers: &[Offer], size: Size, rate_hz: u32) -> [u8; 4] {
        let choice = Choice { device: String::new(), size, rate_hz };
        best(offers, &FORMATS, &choice).expect("there are offers").fourcc
    }

    #[test]
    fn raw_pictures_are_taken_where_they_are_fast_enough() {
        let offers = [offer(b"MJPG", VGA, 30.0), offer(b"YUYV", VGA, 29.97)];

        assert_eq!(&chosen(&offers, VGA, 30), b"YUYV");
    }

    #[test]
    fn jpeg_is_taken_where_raw_pictures_are_too_slow() {
        let offers = [offer(b"YUYV", HD, 10.0), offer(b"MJPG", HD, 30.0)];

        assert_eq!(&chosen(&offers, HD, 30), b"MJPG");
        assert_eq!(&chosen(&offers, HD, 10), b"YUYV");
    }

    #[test]
    fn the_nearest_size_comes_before_the_format() {
        let offers = [offer(b"YUYV", VGA, 30.0), offer(b"MJPG", HD, 30.0)];

        assert_eq!(&chosen(&offers, HD, 30), b"MJPG");
        assert_eq!(&chosen(&offers, Size::new(800, 500), 30), b"YUYV");
    }

    #[test]
    fn no_offer_is_no_choice() {
        let choice = Choice { device: String::new(), size: VGA, rate_hz: 30 };

        assert_eq!(best(&[], &FORMATS, &choice), None);
    }

    #[test]
    fn a_whole_name_comes_before_a_beginning() {
        let found = |card: &str, bus: &str| Found {
            path: PathBuf::new(),
            name: format!("{card} ({bus})"),
            card: card.into(),
            bus: bus.into(),
            formats: Vec::new(),
        };
        let cameras =
            [found("HD Webcam C270", "usb-1"), found("HD Webcam", "usb-2"), found("HD Webcam", "usb-3")];
        let cameras = cameras.iter().collect::<Vec<_>>();

        assert_eq!(matching("hd webcam", &cameras), Some(1));
        assert_eq!(matching("HD Webcam (usb-3)", &cameras), Some(2));
        assert_eq!(matching("hd", &cameras), Some(0));
        assert_eq!(matching("", &cameras), None);
        assert_eq!(matching("C270", &cameras), None);
    }

    #[test]
    fn a_camera_that_is_not_there_is_not_found() {
        for device in ["/dev/video-none", "no such camera", "", "/dev/v4l/by-id/\0"] {
            let choice = Choice { device: device.into(), size: VGA, rate_hz: 30 };

            assert_eq!(open(&choice).err().map(|error| error.kind), Some(Kind::NotFound), "{device:?}");
        }
    }
}
