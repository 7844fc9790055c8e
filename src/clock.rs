//! The one place where the time is read.

use crate::room::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z. A clock that says less has not been set since the board was built.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// The kiosk's clock: zero when the process started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start.
    pub fn mono(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok().filter(|wall| *wall >= EARLIEST);
        Now { mono: self.mono(), wall }
    }

    /// The instant at which [`Clock::mono`] says `mono`.
    pub fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}
