//! How late packets are against the fastest of the last seconds, and the delay that covers nearly all of them.

use super::sound::{BLOCK, RATE_HZ};

/// Samples of a millisecond.
pub const MS: i64 = RATE_HZ as i64 / 1_000;
/// The delay that is aimed at is never less or more.
const LEAST: i64 = 20 * MS;
const MOST: i64 = 200 * MS;
/// The fastest packet is looked for among those of two windows.
const WINDOW: i64 = 2_000 * MS;
const BUCKETS: usize = 128;
const BUCKET: i64 = 2 * MS;
/// What a new packet weighs, once enough are known.
const WEIGHT: f32 = 0.005;
/// The share of packets that must be in time; the others are repaired.
const IN_TIME: f32 = 0.96;
/// The lateness that is assumed before anything is known.
const ASSUMED: i64 = 30 * MS;

/// What the arrivals of one member's packets tell of the network. Times count samples, without wraps.
pub struct Arrivals {
    /// Arrival less time of the fastest packet in this window and in the one before it.
    fastest: [i64; 2],
    window_began: i64,
    /// Share of packets by lateness; recent ones weigh more.
    shares: [f32; BUCKETS],
    noted: f32,
    target: i64,
}

impl Default for Arrivals {
    /// Nothing is known: 42 ms is a good delay to begin with.
    fn default() -> Self {
        let mut shares = [0.0; BUCKETS];
        shares[(ASSUMED / BUCKET) as usize] = 1.0;
        let mut arrivals = Self { fastest: [0; 2], window_began: 0, shares, noted: 0.0, target: 0 };
        arrivals.target = arrivals.covering();
        arrivals
    }
}

impl Arrivals {
    /// Forgets the sender's clock, not the network.
    pub fn restart(&mut self, now: i64, time: i64) {
        (self.fastest, self.window_began) = ([now - time; 2], now);
    }

    /// Learns from a packet of that time which arrived `now`.
    pub fn note(&mut self, now: i64, time: i64) {
        let way = now - time;
        if now - self.window_began > WINDOW {
            let before = if now - self.window_began > 2 * WINDOW { way } else { self.fastest[0] };
            (self.fastest, self.window_began) = ([way, before], now);
        }
        self.fastest[0] = self.fastest[0].min(way);
        self.noted += 1.0;
        let weight = WEIGHT.max(1.0 / (1.0 + self.noted));
        self.shares.iter_mut().for_each(|share| *share *= 1.0 - weight);
        let bucket = (self.lateness(now, time) / BUCKET).clamp(0, BUCKETS as i64 - 1);
        self.shares[bucket as usize] += weight;
        self.target = self.covering();
    }

    /// How much later than the fastest packet what has that time would come `now`.
    pub fn lateness(&self, now: i64, time: i64) -> i64 {
        now - time - self.fastest[0].min(self.fastest[1])
    }

    /// The delay to aim at, 20 to 200 ms.
    pub fn target(&self) -> i64 {
        self.target
    }

    /// The lateness that `IN_TIME` of the packets do not exceed, and a block, as packets are decoded up to
    /// one before they are heard.
    fn covering(&self) -> i64 {
        let mut sum = 0.0;
        let bucket = self.shares.iter().position(|share| {
            sum += share;
            sum >= IN_TIME
        });
        let lateness = (bucket.unwrap_or(BUCKETS) as i64 + 1) * BUCKET;
        (lateness + BLOCK as i64).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 20 ms, each as many milliseconds late as said, from `begin_ms` on.
    fn note(arrivals: &mut Arrivals, begin_ms: i64, late_ms: impl Iterator<Item = i64>) {
        for (n, late) in late_ms.enumerate() {
            let time = (begin_ms + 20 * n as i64) * MS;
            arrivals.note(time + late * MS, time);
        }
    }

    fn begun() -> Arrivals {
        let mut arrivals = Arrivals::default();
        arrivals.restart(0, 0);
        arrivals
    }

    #[test]
    fn an_even_network_gets_the_least_delay_and_a_bad_one_the_most() {
        let (mut even, mut bad) = (begun(), begun());
        assert_eq!(even.target(), 42 * MS);
        note(&mut even, 0, (0..200).map(|n| n % 3));
        note(&mut bad, 0, (0..200).map(|n| n * 37 % 600));

        assert_eq!((even.target(), bad.target()), (LEAST, MOST));
    }

    #[test]
    fn the_delay_covers_nearly_all_packets() {
        let mut arrivals = begun();
        note(&mut arrivals, 0, (0..1_000).map(|n| n * 37 % 61));

        assert!((66..=74).contains(&(arrivals.target() / MS)), "{} ms", arrivals.target() / MS);
    }

    #[test]
    fn one_late_packet_changes_nothing_and_ten_do() {
        let mut arrivals = begun();
        note(&mut arrivals, 0, (0..500).map(|_| 0));
        note(&mut arrivals, 10_000, (0..3).map(|_| 90));
        assert_eq!(arrivals.target(), LEAST);

        note(&mut arrivals, 10_060, (0..10).map(|_| 90));
        assert!(arrivals.target() > 90 * MS);
    }

    #[test]
    fn a_sender_whose_clock_drifts_is_no_later_after_an_hour() {
        for drift in [-1, 1] {
            let mut arrivals = begun();
            for n in 0..180_000 {
                // 100 ppm: 2 µs a packet.
                let time = 20 * n * MS;
                arrivals.note(time + drift * n * 2 * MS / 1_000, time);
            }

            assert_eq!(arrivals.target(), LEAST);
        }
    }

    #[test]
    fn a_way_that_became_longer_for_good_is_the_measure_after_4_seconds() {
        let mut arrivals = begun();
        note(&mut arrivals, 0, (0..500).map(|_| 0));
        note(&mut arrivals, 10_000, (0..210).map(|_| 150));

        assert_eq!(arrivals.lateness(14_350 * MS, 14_200 * MS), 0);
    }
}
