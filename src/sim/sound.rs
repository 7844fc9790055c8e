//! A sound card that is not there: what is said into its microphone is made by the program, what its speaker plays can
//! be listened to, and both can be unplugged.

use super::camera::{Cable, InUse};
use crate::device::{self, Error, Kind, SoundMode};
use crate::media::sound::{BLOCK, Block, RATE_HZ, SILENCE};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Makes the microphone's next block; the time is that of its first sample.
type Mouth = Box<dyn FnMut(&mut Block, Instant) + Send>;
/// Hears each block that is played; the time is when its first sample leaves the speaker.
type Ear = Box<dyn FnMut(&Block, Instant) + Send>;

/// The air around a simulated sound card.
#[derive(Clone, Default)]
pub struct Air {
    mouth: Arc<Mutex<Option<Mouth>>>,
    ear: Arc<Mutex<Option<Ear>>>,
    pub microphone: Cable,
    pub speaker: Cable,
}

impl Air {
    /// Lets `mouth` speak into the microphone from now on, in place of whoever did.
    pub fn speak(&self, mouth: impl FnMut(&mut Block, Instant) + Send + 'static) {
        *lock(&self.mouth) = Some(Box::new(mouth));
    }

    /// Lets `ear` hear every block the speaker plays, in place of whoever did.
    pub fn listen(&self, ear: impl FnMut(&Block, Instant) + Send + 'static) {
        *lock(&self.ear) = Some(Box::new(ear));
    }
}

/// What a simulated device plays and records in one go.
const PERIOD: Duration = Duration::from_millis(1000 * BLOCK as u64 / RATE_HZ as u64);
/// Periods in its buffer.
const PERIODS: u32 = 2;

fn mode(name: &str) -> SoundMode {
    let (period, buffer) = (BLOCK as u32, PERIODS * BLOCK as u32);
    SoundMode { name: name.to_owned(), channels: 1, period, buffer }
}

fn open(name: &str, cable: &Cable) -> Result<SoundMode, Error> {
    match cable.is_plugged() {
        true => Ok(mode(name)),
        false => Err(Error { kind: Kind::NotFound, operation: "open", errno: None, target: name.into() }),
    }
}

/// Waits until `next`. A device that was not asked for long has lost what it could not keep: the periods that are over
/// are left out.
fn keep_pace(next: &mut Instant) -> u64 {
    let now = Instant::now();
    let late = now.saturating_duration_since(*next).as_micros() / PERIOD.as_micros();
    let lost = late.saturating_sub(u128::from(PERIODS)) as u32;
    *next += PERIOD * lost;
    std::thread::sleep(next.saturating_duration_since(now));
    u64::from(lost > 0)
}

/// A simulated microphone.
pub struct Microphone {
    mode: SoundMode,
    air: Air,
    _in_use: InUse,
    /// When the next block is whole.
    next: Instant,
    overruns: u64,
}

impl Microphone {
    /// # Errors
    /// [`Kind::NotFound`] while the cable is out.
    pub fn open(air: Air) -> Result<Self, Error> {
        let mode = open("sim-microphone", &air.microphone)?;
        Ok(Self { mode, _in_use: air.microphone.take(), air, next: Instant::now() + PERIOD, overruns: 0 })
    }
}

impl device::Microphone for Microphone {
    fn mode(&self) -> &SoundMode {
        &self.mode
    }

    fn capture(&mut self, block: &mut Block) -> Result<(), Error> {
        self.overruns += keep_pace(&mut self.next);
        gone_unless(self.air.microphone.is_plugged(), &self.mode)?;
        *block = SILENCE;
        if let Some(mouth) = &mut *lock(&self.air.mouth) {
            mouth(block, self.next - PERIOD);
        }
        self.next += PERIOD;
        Ok(())
    }

    fn delay(&self) -> Duration {
        (Instant::now() + PERIOD).saturating_duration_since(self.next)
    }

    fn overruns(&self) -> u64 {
        self.overruns
    }
}

/// A simulated speaker.
pub struct Speaker {
    mode: SoundMode,
    air: Air,
    _in_use: InUse,
    /// When the next block leaves it.
    next: Instant,
    underruns: u64,
}

impl Speaker {
    /// # Errors
    /// [`Kind::NotFound`] while the cable is out.
    pub fn open(air: Air) -> Result<Self, Error> {
        let mode = open("sim-speaker", &air.speaker)?;
        Ok(Self { mode, _in_use: air.speaker.take(), air, next: Instant::now(), underruns: 0 })
    }
}

impl device::Speaker for Speaker {
    fn mode(&self) -> &SoundMode {
        &self.mode
    }

    fn ready(&mut self) -> Result<(), Error> {
        // There is room as soon as all but one period have left.
        let mut room = self.next.checked_sub(PERIOD * (PERIODS - 1)).unwrap_or(self.next);
        let before = room;
        self.underruns += keep_pace(&mut room);
        self.next += room - before;
        gone_unless(self.air.speaker.is_plugged(), &self.mode)
    }

    fn play(&mut self, block: &Block) -> Result<(), Error> {
        self.ready()?;
        if let Some(ear) = &mut *lock(&self.air.ear) {
            ear(block, self.next);
        }
        self.next += PERIOD;
        Ok(())
    }

    fn delay(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    fn underruns(&self) -> u64 {
        self.underruns
    }
}

fn gone_unless(plugged: bool, mode: &SoundMode) -> Result<(), Error> {
    match plugged {
        true => Ok(()),
        false => {
            let target = mode.name.clone();
            Err(Error { kind: Kind::Gone, operation: "snd_pcm_wait", errno: None, target })
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
