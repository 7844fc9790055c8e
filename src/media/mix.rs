//! One sound from those of all members: their sum, held below full scale without delay.

use super::sound::{Block, RATE_HZ, SILENCE};

/// The loudest sample that leaves: −0.1 dB of full scale, for the converters' sake.
const CEILING: f32 = 0.988;
/// The gain comes down over this many samples (1 ms), or fewer if the peak comes sooner.
const ATTACK: f32 = 48.0;
/// Seconds in which the gain comes back by a factor of e.
const RELEASE_SECONDS: f32 = 0.2;
/// From here up the gain counts as one, so that the sum is untouched again.
const WHOLE: f32 = 0.999;

/// Sums blocks that are heard at the same time and limits what is too loud.
pub struct Mixer {
    sum: Block,
    /// The limiter's factor after the last sample taken: 1 when nothing is limited.
    gain: f32,
}

impl Default for Mixer {
    fn default() -> Self {
        Self { sum: SILENCE, gain: 1.0 }
    }
}

impl Mixer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one member's 10 ms. Samples that are no numbers count as silence.
    pub fn add(&mut self, block: &Block) {
        for (sum, sample) in self.sum.iter_mut().zip(block) {
            *sum += if sample.is_finite() { *sample } else { 0.0 };
        }
    }

    /// Moves the sum into `out` and begins the next 10 ms. The exact sum while it stays below full scale,
    /// otherwise turned down, never clipped.
    pub fn take(&mut self, out: &mut Block) {
        *out = std::mem::replace(&mut self.sum, SILENCE);
        let loudest = out.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
        if self.gain == 1.0 && loudest <= CEILING {
            return;
        }
        // No sample of this block needs a lower gain than its loudest.
        let needed = CEILING / loudest.max(CEILING);
        if needed < self.gain {
            self.attack(needed, out);
        } else {
            self.release(needed, out);
        }
    }

    /// Lowers the gain to `needed` in a line that is steep enough for the first peak, and keeps it there.
    fn attack(&mut self, needed: f32, out: &mut Block) {
        let fall = self.gain - needed;
        let too_loud = out.iter().enumerate().filter_map(|(at, sample)| {
            let short = self.gain - CEILING / sample.abs();
            (short > 0.0).then(|| at as f32 * fall / short)
        });
        let steps = too_loud.fold(ATTACK, f32::min);
        for (at, sample) in out.iter_mut().enumerate() {
            let way = if steps > 0.0 { (at as f32 / steps).min(1.0) } else { 1.0 };
            *sample = held(*sample * (self.gain - fall * way));
        }
        self.gain = needed;
    }

    /// Lets the gain come back, as far as this block allows.
    fn release(&mut self, needed: f32, out: &mut Block) {
        for sample in out {
            self.gain = (self.gain + (1.0 - self.gain) / (RELEASE_SECONDS * RATE_HZ as f32)).min(needed);
            *sample = held(*sample * self.gain);
        }
        if self.gain > WHOLE {
            self.gain = 1.0;
        }
    }
}

/// Takes off what rounding may have put above the ceiling.
fn held(sample: f32) -> f32 {
    sample.clamp(-CEILING, CEILING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sound::BLOCK;

    fn tone(hz: f32, amplitude: f32, block: usize) -> Block {
        std::array::from_fn(|n| {
            let t = (block * BLOCK + n) as f32 / RATE_HZ as f32;
            amplitude * (std::f32::consts::TAU * hz * t).sin()
        })
    }

    #[test]
    fn below_full_scale_the_mix_is_the_plain_sum() {
        let mut mixer = Mixer::new();
        let mut out = SILENCE;

        for block in 0..20 {
            let (a, b) = (tone(300.0, 0.4, block), tone(710.0, 0.5, block));
            mixer.add(&a);
            mixer.add(&b);
            mixer.take(&mut out);
            assert_eq!(out, std::array::from_fn(|n| a[n] + b[n]));
        }
    }

    #[test]
    fn sixteen_members_at_full_scale_do_not_clip() {
        let mut mixer = Mixer::new();
        let mut out = SILENCE;
        let mut flat = 0;

        for block in 0..100 {
            for member in 0..16 {
                mixer.add(&tone(200.0 + 37.0 * member as f32, 1.0, block));
            }
            mixer.take(&mut out);
            assert!(out.iter().all(|sample| sample.abs() <= CEILING));
            flat += out.windows(3).filter(|w| w[0] == w[1] && w[1] == w[2] && w[0].abs() > 0.9).count();
        }

        assert_eq!(flat, 0, "peaks are cut flat");
    }

    #[test]
    fn a_limited_tone_stays_the_tone_it_was() {
        let mut mixer = Mixer::new();
        let mut out = SILENCE;
        let (mut along, mut whole, mut power) = (0.0_f64, 0.0_f64, 0.0_f64);

        for block in 0..100 {
            let loud = tone(440.0, 3.0, block);
            mixer.add(&loud);
            mixer.take(&mut out);
            if block < 20 {
                continue;
            }
            for (a, b) in loud.iter().zip(&out) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                (along, whole, power) = (along + a * b, whole + b * b, power + a * a);
            }
        }

        let distortion_db = 10.0 * ((whole - along * along / power) / whole).log10();
        assert!(distortion_db < -40.0, "{distortion_db:.1} dB");
    }

    #[test]
    fn the_gain_comes_back_after_a_loud_moment_and_then_the_sum_is_exact_again() {
        let mut mixer = Mixer::new();
        let mut out = SILENCE;
        mixer.add(&tone(500.0, 4.0, 0));
        mixer.take(&mut out);
        let quiet = tone(300.0, 0.5, 1);
        let mut gains = Vec::new();

        for _ in 0..200 {
            mixer.add(&quiet);
            mixer.take(&mut out);
            gains.push(out[100] / quiet[100]);
        }

        assert!(gains[0] < 0.4 && gains[20] > gains[0] && gains[20] < 0.95, "{} {}", gains[0], gains[20]);
        assert_eq!(out, quiet);
    }

    #[test]
    fn nothing_is_said_twice_and_what_is_no_number_is_silence() {
        let mut mixer = Mixer::new();
        let mut out = SILENCE;
        mixer.add(&[f32::NAN; BLOCK]);
        mixer.add(&[0.25; BLOCK]);

        mixer.take(&mut out);
        assert_eq!(out, [0.25; BLOCK]);
        mixer.take(&mut out);
        assert_eq!(out, SILENCE);
    }

    #[test]
    fn a_peak_is_turned_down_in_its_own_block_without_a_step() {
        let mut mixer = Mixer::new();
        let mut out = SILENCE;
        let mut block = [0.5; BLOCK];
        block[240] = 2.0;
        mixer.add(&block);

        mixer.take(&mut out);

        assert!(out[240] <= CEILING && out[240] > 0.9);
        let steepest = out[..240].windows(2).map(|w| (w[0] - w[1]).abs()).fold(0.0_f32, f32::max);
        assert!(steepest < 0.02, "{steepest}");
    }
}
