//! DATA PLANE: what each thread does with a picture, from the camera to the others, and from the others to the glass.
//!
//! ```text
//!  capture ──► own Video ────────────────────────────────┐
//!     └──► mailbox ─► encode ─► Fanout ─► peers: a layer  ├─► show ─► canvas ─► screen
//!  peer ─► Sink ─► bounded queue ─► decode ─► its Video ─┘
//! ```
//! Sound has its own page: [`sound`].
//!
//! Pictures wait in mailboxes where the newest wins; coded packets wait in bounded queues that drop to the next keyframe.

mod codec;
mod decode;
mod encode;
mod paint;
mod show;
pub mod sound;

pub use codec::CodecChoice;
pub use decode::{Decoders, Jobs, decode};
pub use encode::{Coded, Fanout, Outlet, Sent, encode};
pub use show::{Glasswork, show};

use crate::clock::Clock;
use crate::device::{self, Camera, Kind};
use crate::geometry::{Rotation, Size};
use crate::mailbox::{Bell, Mailbox};
use crate::media::frame::{Frame, FramePool};
use crate::media::image::Image;
use crate::media::lip_sync::LipSync;
use crate::media::rotate::rotate;
use crate::media::stamps::{StageTimes, Stages, Stamps};
use crate::room::fault::{Cause, Code};
use crate::room::message::MemberId;
use crate::room::{self, Position};
use crate::supervise::{Failure, Stop};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// A thread that waits for pictures is woken when it is to end: it looks by itself once in this time all the same.
const LONG: Duration = Duration::from_secs(10);

/// How long a thread has worked since the start, waiting left out.
#[derive(Debug, Default)]
pub struct Work(AtomicU64);

impl Work {
    pub fn add(&self, worked: Duration) {
        self.0.fetch_add(worked.as_micros() as u64, Relaxed);
    }

    pub fn total(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }
}

/// A picture that may be shown from `due` on.
struct Ready {
    due: Duration,
    decoded: Duration,
    image: Arc<dyn Image>,
}

/// One member's moving picture on its way to the screen.
pub struct Video {
    pictures: Mailbox<Ready, { Video::MOST }>,
    /// Shared with the member's voice.
    pub lip_sync: Arc<Mutex<LipSync>>,
    /// Rung when the decoder cannot go on without a keyframe.
    pub keyframe_needed: Notify,
    /// There is no time for it: it is not decoded.
    paused: AtomicBool,
    pub meter: Meter,
}

/// Counts since the start; read as often as anyone likes.
#[derive(Debug, Default)]
pub struct Meter {
    /// Coded pictures that came.
    pub received: AtomicU64,
    /// Width and height of the last picture, the width in the upper half; 0 before the first.
    size: AtomicU64,
    /// Pictures that were drawn.
    pub shown: AtomicU64,
    /// Pictures that a newer one displaced before they were drawn.
    pub dropped: AtomicU64,
    /// When the last one was drawn, and how long after its arrival, in microseconds of the kiosk's clock.
    pub shown_at_us: AtomicU64,
    pub latency_us: AtomicU64,
    /// How late the sound is against the last picture, in microseconds, its wait included; [`i64::MIN`]: not known.
    pub sound_late_us: AtomicI64,
    /// The ways of the pictures that were drawn since [`Meter::take_stages`].
    stages: Mutex<Stages>,
}

impl Meter {
    fn passed(&self, stamps: &Stamps) {
        lock(&self.stages).add(stamps);
    }

    /// How long the pictures since the last call took from station to station; `None` if none was drawn.
    pub fn take_stages(&self) -> Option<StageTimes> {
        std::mem::take(&mut *lock(&self.stages)).times()
    }

    /// The size of the last picture; `None` before the first.
    pub fn size(&self) -> Option<Size> {
        let size = self.size.load(Relaxed);
        (size > 0).then_some(Size::new((size >> 32) as u32, size as u32))
    }
}

impl Video {
    /// As many as may wait for their sound, at 30 a second.
    const MOST: usize = 12;
    /// Of those that may be shown only so many wait: more, and the screen is behind.
    const MOST_DUE: usize = 2;

    fn new(bell: Arc<Bell>) -> Self {
        Self {
            pictures: Mailbox::new(bell),
            lip_sync: Arc::default(),
            keyframe_needed: Notify::new(),
            paused: AtomicBool::new(false),
            meter: Meter { sound_late_us: AtomicI64::new(i64::MIN), ..Meter::default() },
        }
    }

    /// Takes the newest picture of this member, `decoded` at that time, to be shown at `due`.
    fn put(&self, image: Arc<dyn Image>, decoded: Duration, due: Duration) {
        let Size { width, height } = image.size();
        self.meter.size.store(u64::from(width) << 32 | u64::from(height), Relaxed);
        if self.pictures.put(Ready { due, decoded, image }) {
            self.meter.dropped.fetch_add(1, Relaxed);
        }
    }

    /// The next picture that is due.
    fn take(&self, now: Duration) -> Option<Ready> {
        let due = |picture: &Ready| picture.due <= now;
        while self.pictures.waiting(due) > Self::MOST_DUE {
            self.pictures.take();
            self.meter.dropped.fetch_add(1, Relaxed);
        }
        self.pictures.take_if(due)
    }
}

/// What the screen thread reads: what to show, and everybody's pictures.
pub struct Stage {
    bell: Arc<Bell>,
    picture: Mutex<Option<Arc<room::Picture>>>,
    videos: Mutex<BTreeMap<MemberId, Arc<Video>>>,
    /// Who wants to see the canvas; answered after the next round. At most [`Stage::MOST_SNAPSHOTS`].
    snapshots: Mutex<Vec<oneshot::Sender<crate::media::canvas::Canvas>>>,
    /// Rounds of the screen loop.
    turns: AtomicU64,
    /// What the screen loop has worked.
    work: Arc<Work>,
}

impl Default for Stage {
    fn default() -> Self {
        let bell = Arc::new(Bell::default());
        Self {
            bell,
            picture: Mutex::default(),
            videos: Mutex::default(),
            snapshots: Mutex::default(),
            turns: AtomicU64::new(0),
            work: Arc::default(),
        }
    }
}

impl Stage {
    const MOST_SNAPSHOTS: usize = 4;

    /// Says what is to be shown from now on.
    pub fn set(&self, picture: room::Picture) {
        *lock(&self.picture) = Some(Arc::new(picture));
        self.bell.ring();
    }

    /// The member's video, made if there is none.
    pub fn video(&self, member: &MemberId) -> Arc<Video> {
        let mut videos = lock(&self.videos);
        videos.entry(member.clone()).or_insert_with(|| Arc::new(Video::new(self.bell.clone()))).clone()
    }

    /// Forgets the member's video and its last picture.
    pub fn forget(&self, member: &MemberId) {
        lock(&self.videos).remove(member);
        self.bell.ring();
    }

    /// All videos there are.
    pub fn videos(&self) -> Vec<(MemberId, Arc<Video>)> {
        lock(&self.videos).iter().map(|(member, video)| (member.clone(), video.clone())).collect()
    }

    /// Asks for the canvas as it is after the next round; refused (sender dropped) when too many wait.
    pub fn snapshot(&self) -> oneshot::Receiver<crate::media::canvas::Canvas> {
        let (answer, canvas) = oneshot::channel();
        let mut waiting = lock(&self.snapshots);
        if waiting.len() < Self::MOST_SNAPSHOTS {
            waiting.push(answer);
        }
        self.bell.ring();
        canvas
    }

    /// Wakes the screen loop, so that it sees that it is to end.
    pub fn wake(&self) -> impl Fn() + Send + 'static + use<> {
        let bell = self.bell.clone();
        move || bell.ring()
    }

    /// What the screen loop has worked.
    pub fn work(&self) -> Arc<Work> {
        self.work.clone()
    }

    /// How many rounds the screen loop has made: stands still when it hangs.
    pub fn turns(&self) -> u64 {
        self.turns.load(Relaxed)
    }
}

/// The camera's newest picture for the encoder.
pub struct Inbox {
    bell: Arc<Bell>,
    pictures: Mailbox<Arc<Frame>, 2>,
}

impl Default for Inbox {
    fn default() -> Self {
        let bell = Arc::new(Bell::default());
        Self { pictures: Mailbox::new(bell.clone()), bell }
    }
}

impl Inbox {
    /// Wakes the encoder, so that it sees that it is to end.
    pub fn wake(&self) -> impl Fn() + Send + 'static + use<> {
        let bell = self.bell.clone();
        move || bell.ring()
    }
}

/// Takes pictures from `camera`, brings them upright, and hands them to the own tile and the encoder until told to stop.
///
/// # Errors
/// The camera's failure; a camera that delivers nothing but bad frames for nine tenths of a second is one too.
pub fn capture(
    camera: &mut dyn Camera,
    rotation: Rotation,
    clock: Clock,
    (own, inbox): (&Video, &Inbox),
    works: &dyn Fn(),
    stop: &Stop,
) -> Result<(), Failure> {
    let (mut raw, mut upright) = (FramePool::default(), FramePool::default());
    let (size, most_bad) = (camera.mode().size, (0.9 * camera.mode().rate_hz) as u32);
    let mut bad = 0;
    while !stop.is_told() {
        let captured = raw.produce(size, |frame| {
            camera.capture(frame)?;
            frame.captured = clock.mono();
            Ok(())
        });
        let frame = match captured {
            Ok(frame) => frame,
            Err(device::Error { kind: Kind::BadFrame, .. }) if bad < most_bad => {
                bad += 1;
                continue;
            }
            Err(error) => return Err(camera_failure(error)),
        };
        bad = 0;
        let frame = match rotation {
            Rotation::None => frame,
            _ => upright.produce(rotation.size(size), |turned| {
                rotate(&frame, rotation, turned);
                Ok::<_, Failure>(())
            })?,
        };
        own.put(frame.clone(), frame.captured, frame.captured);
        inbox.pictures.put(frame);
        works();
    }
    Ok(())
}

/// A camera's failure in the words of faults.
pub fn camera_failure(error: device::Error) -> Failure {
    let code = match error.kind {
        Kind::NotFound => Code::CameraNotFound,
        Kind::Busy => Code::CameraBusy,
        Kind::NotAuthorized => Code::CameraNotAuthorized,
        Kind::Format => Code::CameraFormat,
        Kind::NoBandwidth => Code::CameraNoBandwidth,
        Kind::Gone => Code::CameraGone,
        Kind::Stalled => Code::CameraStalled,
        Kind::BadFrame => Code::CameraBadFrame,
    };
    Failure { code, cause: cause(error) }
}

/// A screen's failure in the words of faults.
pub fn screen_failure(error: device::Error) -> Failure {
    let code = match error.kind {
        Kind::Format => Code::ScreenFormat,
        Kind::Gone => Code::ScreenModeChanged,
        _ => Code::ScreenOpen,
    };
    Failure { code, cause: cause(error) }
}

fn cause(error: device::Error) -> Cause {
    let errno = error.errno.map(|errno| std::io::Error::from_raw_os_error(errno).to_string());
    Cause { op: error.operation.into(), errno, target: Some(error.target) }
}

/// A camera's mode as `info` shows it.
pub fn camera_info(position: Position, mode: &device::CameraMode) -> room::CameraInfo {
    room::CameraInfo {
        position,
        name: mode.name.clone(),
        format: String::from_utf8_lossy(&mode.fourcc).into_owned(),
        width: mode.size.width,
        height: mode.size.height,
        rate_hz: mode.rate_hz,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
