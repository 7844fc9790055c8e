//! The devices: opened and closed as the room says, each on a thread of its own that its supervisor keeps alive.

use super::{Kiosk, say, send};
use crate::config;
use crate::device::{self, Board, Camera, Microphone, Screen, Speaker};
use crate::link::peer;
use crate::media::codec::Codecs;
use crate::pipeline;
use crate::room::fault::{Code, Part};
use crate::room::{Event, Position, SoundUse, Use};
use crate::supervise::{Failure, Stop, Verdict, keep};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Opens a device.
pub type Open<T> = dyn Fn() -> Result<Box<T>, device::Error> + Send + Sync;
/// Opens one of the cameras.
pub type OpenCamera = dyn Fn(Position) -> Result<Box<dyn Camera>, device::Error> + Send + Sync;

/// The machine, real or pretended: `main` and `demo` choose.
#[derive(Clone)]
pub struct Devices {
    pub camera: Arc<OpenCamera>,
    pub screen: Arc<Open<dyn Screen>>,
    pub microphone: Arc<Open<dyn Microphone>>,
    pub speaker: Arc<Open<dyn Speaker>>,
    /// What connections get their sockets from; `None`: the kernel.
    pub network: Option<Arc<dyn peer::Runtime>>,
    pub board: Arc<dyn Board>,
    /// The machine's own codecs; `None`: the software's only.
    pub codecs: Option<Arc<dyn Codecs>>,
}

/// What is open.
#[derive(Default)]
pub struct Seats {
    position: Option<Position>,
    camera: Seat,
    microphone: Seat,
    speaker: Seat,
}

impl Seats {
    /// Tells all to go, and gives the threads that are to be waited for.
    pub fn end(self) -> Vec<JoinHandle<()>> {
        [self.camera, self.microphone, self.speaker].into_iter().flat_map(Seat::end).collect()
    }
}

impl Kiosk {
    /// Sees to it that this camera and no other is open.
    pub(super) fn use_camera(&mut self, position: Option<Position>) {
        if self.seats.position == position {
            return;
        }
        self.seats.camera.leave();
        self.seats.position = position;
        let Some(position) = position else { return };
        let rotation =
            self.config.cameras.get(&position).map_or_else(Default::default, |camera| camera.rotation);
        let (open, clock, tell) = (self.devices.camera.clone(), self.clock, self.tell.clone());
        let (video, inbox) = (self.stage.video(&self.config.id), self.inbox.clone());
        let name = match position {
            Position::Front => "camera-front",
            Position::Back => "camera-back",
        };
        self.seats.camera.take(name, Part::Camera(position), say(self.tell.clone()), move |works, stop| {
            let mut camera = open(position).map_err(pipeline::camera_failure)?;
            let info = pipeline::camera_info(position, camera.mode());
            tracing::info!(?position, info.name, info.format, info.width, info.height, "camera open");
            send(&tell, Event::CameraOpened { position, info });
            pipeline::capture(camera.as_mut(), rotation, clock, (&video, &inbox), works, stop)
        });
    }

    /// Sees to it that microphone and speaker are open, muted or closed.
    pub(super) fn use_sound(&mut self, sound: SoundUse) {
        self.sound.set(sound);
        let settings = self.config.sound.clone();
        let wanted = |of: Use, pcm: &str| of != Use::Closed && pcm != config::NONE;

        let (open, tell, shared) = (self.devices.microphone.clone(), self.tell.clone(), self.sound.clone());
        let own = self.config.id.clone();
        match (wanted(sound.microphone, &settings.microphone), self.seats.microphone.is_taken()) {
            (true, false) => {
                let mut absent = Absent::of(Part::Microphone, &settings.microphone);
                let voice = say(self.tell.clone());
                self.seats.microphone.take("microphone", Part::Microphone, voice, move |works, stop| {
                    let mut microphone = open().map_err(|error| absent.failure(error))?;
                    absent.was_there = true;
                    let tell = |event| send(&tell, event);
                    pipeline::sound::listen(microphone.as_mut(), (&shared, &own), &tell, works, stop)
                });
            }
            (false, true) => self.seats.microphone.leave(),
            _ => {}
        }
        let (open, tell, shared) = (self.devices.speaker.clone(), self.tell.clone(), self.sound.clone());
        match (wanted(sound.speaker, &settings.speaker), self.seats.speaker.is_taken()) {
            (true, false) => {
                let mut absent = Absent::of(Part::Speaker, &settings.speaker);
                let voice = say(self.tell.clone());
                self.seats.speaker.take("speaker", Part::Speaker, voice, move |works, stop| {
                    let mut speaker = open().map_err(|error| absent.failure(error))?;
                    absent.was_there = true;
                    let tell = |event| send(&tell, event);
                    pipeline::sound::play(speaker.as_mut(), &shared, &tell, works, stop)
                });
            }
            (false, true) => self.seats.speaker.leave(),
            _ => {}
        }
    }
}

/// Tells a board that has no sound card, which is no fault, from a sound card that is missing.
struct Absent {
    part: Part,
    named: bool,
    was_there: bool,
}

impl Absent {
    fn of(part: Part, pcm: &str) -> Self {
        Self { part, named: pcm != config::DEFAULT_PCM, was_there: false }
    }

    fn failure(&self, error: device::Error) -> Failure {
        let none = error.kind == device::Kind::NotFound && !self.named && !self.was_there;
        let failure = pipeline::sound::failure(self.part.clone(), error);
        if none { Failure { code: Code::SoundNone, ..failure } } else { failure }
    }
}

/// The place of one device's thread: at most one sits there, and the next waits until the one before has gone, so that
/// both may use the same device.
#[derive(Default)]
struct Seat {
    seated: Option<(Stop, JoinHandle<()>)>,
    leaving: Vec<JoinHandle<()>>,
}

impl Seat {
    fn is_taken(&self) -> bool {
        self.seated.is_some()
    }

    /// Tells whoever sits here to go; does not wait.
    fn leave(&mut self) {
        self.leaving.retain(|thread| !thread.is_finished());
        if let Some((stop, thread)) = self.seated.take() {
            stop.tell();
            self.leaving.push(thread);
        }
    }

    /// Seats a session on a thread of this name, in place of whoever sits here.
    fn take(
        &mut self,
        name: &str,
        part: Part,
        say: impl Fn(Verdict) + Send + 'static,
        mut session: impl FnMut(&dyn Fn(), &Stop) -> Result<(), Failure> + Send + 'static,
    ) {
        self.leave();
        let mut before = std::mem::take(&mut self.leaving);
        let stop = Stop::default();
        let told = stop.clone();
        let thread = keep(name, part, stop.clone(), say, move |works| {
            // A panic in one of them was reported by its own supervisor.
            before.drain(..).for_each(|thread| drop(thread.join()));
            session(works, &told)
        });
        match thread {
            Ok(thread) => self.seated = Some((stop, thread)),
            Err(error) => tracing::error!(%error, name, "no thread"),
        }
    }

    /// Tells whoever sits here to go, and gives all threads that are still to be waited for.
    fn end(mut self) -> Vec<JoinHandle<()>> {
        self.leave();
        self.leaving
    }
}
