//! How long pictures take from station to station, as distributions in little memory.

use serde::Serialize;
use std::time::Duration;

/// When one picture passed each station, on the kiosk's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// The own camera's: captured. A member's: whole, its last packet taken from the connection.
    pub received: Duration,
    /// Ready to be drawn; the own camera's has no decoder to pass.
    pub decoded: Duration,
    /// Drawn onto the canvas; before that it waited for its sound and for the screen.
    pub composed: Duration,
    /// On the glass.
    pub flipped: Duration,
}

/// The shortest time that is told from none, in microseconds.
const FLOOR_US: f64 = 50.0;
/// Steps to twice the time: each is 9 %.
const STEPS: f64 = 8.0;
/// Up to three seconds.
const BUCKETS: usize = 128;

/// Counts durations in steps of 9 % from 50 µs to 3 s; what is longer counts as the longest.
#[derive(Clone, Debug)]
pub struct Histogram([u32; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    pub fn add(&mut self, duration: Duration) {
        let step = (duration.as_secs_f64() * 1e6 / FLOOR_US).max(1.0).log2() * STEPS;
        let count = &mut self.0[(step as usize).min(BUCKETS - 1)];
        *count = count.saturating_add(1);
    }

    /// The time that this part (0 to 1) of all is not above, rounded up to its step. `None` of an empty one.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let total: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let wanted = ((total as f64 * part).ceil() as u64).max(1);
        let mut sum = 0;
        let step = self.0.iter().position(|count| {
            sum += u64::from(*count);
            sum >= wanted
        })?;
        Some(Duration::from_secs_f64(FLOOR_US / 1e6 * ((step + 1) as f64 / STEPS).exp2()))
    }
}

/// The way of many pictures, station by station.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    decode: Histogram,
    compose: Histogram,
    flip: Histogram,
    total: Histogram,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

/// What [`Stages`] say: from station to station, and from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageTimes {
    pub received_decoded: Quantiles,
    pub decoded_composed: Quantiles,
    pub composed_flipped: Quantiles,
    pub total: Quantiles,
}

impl Stages {
    pub fn add(&mut self, stamps: &Stamps) {
        self.decode.add(stamps.decoded.saturating_sub(stamps.received));
        self.compose.add(stamps.composed.saturating_sub(stamps.decoded));
        self.flip.add(stamps.flipped.saturating_sub(stamps.composed));
        self.total.add(stamps.flipped.saturating_sub(stamps.received));
    }

    /// `None` while there was no picture.
    pub fn times(&self) -> Option<StageTimes> {
        let quantiles = |histogram: &Histogram| {
            let ms = |part| Some((histogram.quantile(part)?.as_secs_f64() * 1e5).round() / 1e2);
            Some(Quantiles { p50: ms(0.5)?, p99: ms(0.99)? })
        };
        Some(StageTimes {
            received_decoded: quantiles(&self.decode)?,
            decoded_composed: quantiles(&self.compose)?,
            composed_flipped: quantiles(&self.flip)?,
            total: quantiles(&self.total)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_to_nine_percent_and_never_too_small() {
        let mut histogram = Histogram::default();
        for ms in 1..=1000 {
            histogram.add(Duration::from_millis(ms));
        }

        for (part, exact) in [(0.01, 0.010), (0.5, 0.5), (0.99, 0.99), (1.0, 1.0)] {
            let found = histogram.quantile(part).expect("not empty").as_secs_f64();
            assert!((exact..exact * 1.0906).contains(&found), "{part}: {found} for {exact}");
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_counts_at_the_ends() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.add(Duration::ZERO);
        assert!(histogram.quantile(1.0).expect("one") < Duration::from_micros(55));
        histogram.add(Duration::MAX);
        assert!(histogram.quantile(1.0).expect("two") > Duration::from_secs(3));
    }

    #[test]
    fn stages_are_between_stations_and_the_total_is_of_all() {
        let at = Duration::from_millis;
        let stamps = Stamps { received: at(100), decoded: at(102), composed: at(110), flipped: at(150) };
        let mut stages = Stages::default();
        assert_eq!(stages.times(), None);
        stages.add(&stamps);

        let times = stages.times().expect("one picture");

        let near =
            |found: f64, exact: f64| assert!((exact..exact * 1.0906).contains(&found), "{found} {exact}");
        near(times.received_decoded.p50, 2.0);
        near(times.decoded_composed.p99, 8.0);
        near(times.composed_flipped.p50, 40.0);
        near(times.total.p99, 50.0);
    }
}
