//! How long a sound takes from one kiosk's microphone to another's speaker.

use crate::media::sound::RATE_HZ;
use crate::sim::sound::Air;
use std::f32::consts::TAU;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two bursts of sound, and how long one lasts.
const PAUSE: Duration = Duration::from_millis(700);
const BURST: Duration = Duration::from_millis(60);
/// Louder is the burst; it is played at half of full scale.
const HEARD: f32 = 0.05;

/// Bursts in one air, and what is heard of them in another.
#[derive(Clone, Default)]
pub struct MouthToEar {
    times: Arc<Mutex<Times>>,
}

#[derive(Default)]
struct Times {
    /// The newest burst's number, and when it began, until it is heard.
    burst: Option<u128>,
    said: Option<Instant>,
    heard: Vec<Duration>,
}

impl Times {
    fn say(&mut self, burst: u128, at: Instant) {
        if self.burst.replace(burst) != Some(burst) {
            self.said = Some(at);
        }
    }

    fn hear(&mut self, at: Instant) {
        if let Some(said) = self.said.take() {
            self.heard.push(at.saturating_duration_since(said));
        }
    }
}

impl MouthToEar {
    /// Bursts of a tone in `from`, measured in `to` from now on.
    pub fn measure(from: &Air, to: &Air) -> Self {
        let measured = Self::default();
        let (mouth, ear, begun) = (measured.clone(), measured.clone(), Instant::now());
        from.speak(move |block, at| {
            for (index, sample) in (0..).zip(block) {
                let at = at + Duration::from_secs(1) * index / RATE_HZ;
                let since = at.saturating_duration_since(begun);
                let into = Duration::from_nanos((since.as_nanos() % PAUSE.as_nanos()) as u64);
                if into < BURST {
                    mouth.times().say(since.as_nanos() / PAUSE.as_nanos(), at);
                    *sample = 0.5 * (TAU * 800.0 * into.as_secs_f32()).sin();
                }
            }
        });
        to.listen(move |block, at| {
            let Some(index) = block.iter().position(|sample| sample.abs() > HEARD) else { return };
            let heard = at + Duration::from_secs(1) * index as u32 / RATE_HZ;
            ear.times().hear(heard);
        });
        measured
    }

    /// What was measured so far, sorted.
    pub fn sorted(&self) -> Vec<Duration> {
        let mut heard = self.times().heard.clone();
        heard.sort();
        heard
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
