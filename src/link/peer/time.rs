//! Lip sync: which RTP times of video and sound belong to the same moment (RFC 3550, section 6.4.1).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds from 1900, where NTP begins, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// The clocks that the RTP times of what is sent follow; one pair serves every connection.
#[derive(Clone, Debug)]
pub struct Clocks {
    pub video: Arc<RtpClock>,
    pub sound: Arc<RtpClock>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { video: Arc::new(RtpClock::new(90_000)), sound: Arc::new(RtpClock::new(48_000)) }
    }
}

/// Which RTP time a source is at. Sound follows the crystal of its sound card, so it is set again and again.
#[derive(Debug)]
pub struct RtpClock {
    rate_hz: u32,
    anchor: Mutex<Option<(Instant, u32)>>,
}

impl RtpClock {
    fn new(rate_hz: u32) -> Self {
        Self { rate_hz, anchor: Mutex::new(None) }
    }

    /// What was captured at `at` has the RTP time `time`.
    pub fn set(&self, at: Instant, time: u32) {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, time));
    }

    /// The RTP time of what is captured at `now`; `None` until the clock is set.
    pub fn time(&self, now: Instant) -> Option<u32> {
        let (at, time) = (*self.anchor.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(advance(time, at, now, self.rate_hz))
    }

    pub(super) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }
}

/// The RTP time at `now`, if it was `time` at `at`; both wrap.
pub(super) fn advance(time: u32, at: Instant, now: Instant, rate_hz: u32) -> u32 {
    let ticks = |span: Duration| (span.as_nanos() * u128::from(rate_hz) / 1_000_000_000) as u32;
    match now.checked_duration_since(at) {
        Some(since) => time.wrapping_add(ticks(since)),
        None => time.wrapping_sub(ticks(at.duration_since(now))),
    }
}

/// A wall clock that runs evenly: what the system's clock said once, and the time since. A board sets its clock from
/// the network while it talks; a jump in one report would tear picture and sound apart.
pub(super) struct WallClock {
    start: Instant,
    unix: Duration,
}

impl WallClock {
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), unix }
    }

    /// `now` as 32 bits of seconds since 1900 and 32 bits of their fraction.
    pub fn ntp(&self, now: Instant) -> u64 {
        let unix = self.unix + now.saturating_duration_since(self.start);
        let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
        // The seconds wrap in 2036, as NTP's do.
        (unix.as_secs().wrapping_add(NTP_TO_UNIX) << 32) | fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_runs_on_from_where_it_was_set() {
        let clock = RtpClock::new(48_000);
        let start = Instant::now();
        assert_eq!(clock.time(start), None);

        clock.set(start + Duration::from_secs(1), u32::MAX);

        assert_eq!(clock.time(start + Duration::from_secs(1)), Some(u32::MAX));
        assert_eq!(clock.time(start + Duration::from_millis(1_020)), Some(959));
        assert_eq!(clock.time(start), Some(u32::MAX - 48_000));
    }

    #[test]
    fn times_stay_exact_over_weeks() {
        let start = Instant::now();
        let weeks = Duration::from_secs(60 * 60 * 24 * 30);

        let time = advance(0, start, start + weeks, 90_000);

        assert_eq!(u64::from(time), (weeks.as_secs() * 90_000) % (1 << 32));
    }

    #[test]
    fn ntp_counts_from_1900_with_a_binary_fraction() {
        let start = Instant::now();
        let clock = WallClock { start, unix: Duration::from_secs(1) };

        assert_eq!(clock.ntp(start), (NTP_TO_UNIX + 1) << 32);
        assert_eq!(clock.ntp(start + Duration::from_millis(500)), ((NTP_TO_UNIX + 1) << 32) | 1 << 31);
    }
}
