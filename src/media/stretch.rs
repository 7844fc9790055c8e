//! Makes sound shorter or longer by a period of itself, faded where it is alike (overlap-add): nothing clicks.

/// Samples over which two like passages are faded into each other: 5 ms.
const FADE: usize = 240;
/// A period is 2.5 to 10 ms long: one or more of a voice's own.
const PERIODS: std::ops::RangeInclusive<usize> = 120..=480;
/// The search looks at each fourth period and eighth sample, each 1.25 ms; then closely around the best.
const COARSE: usize = 4;
const SPARSE: usize = 8;
const STRIDE: usize = 60;
/// What is quieter than this (mean square; −60 dB of full scale) can be cut anywhere.
const QUIET: f32 = 1e-6;

/// Two passages of a sound that are alike: the second begins one period after the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seam {
    at: usize,
    /// Samples between the two, 120 to 480: what the sound loses or gains.
    pub period: usize,
    /// How alike they are: 1 is the same or silence, 0 nothing in common.
    pub likeness: f32,
}

impl Seam {
    /// The best seam in `samples`; `None` if they are too few (under 7.5 ms).
    pub fn find(samples: &[f32]) -> Option<Self> {
        let anywhere = (0..samples.len()).step_by(STRIDE);
        let rough = anywhere.flat_map(|at| PERIODS.step_by(COARSE).map(move |period| (at, period)));
        let Self { at, period, .. } = Self::best(samples, rough, SPARSE)?;
        let near = period.saturating_sub(COARSE)..=period + COARSE;
        let near = near.filter(|period| PERIODS.contains(period)).map(|period| (at, period));
        Self::best(samples, near, 1)
    }

    fn best(samples: &[f32], places: impl Iterator<Item = (usize, usize)>, sparse: usize) -> Option<Self> {
        places
            .filter(|(at, period)| at + period + FADE <= samples.len())
            .map(|(at, period)| {
                let (first, second) = (&samples[at..at + FADE], &samples[at + period..at + period + FADE]);
                Self { at, period, likeness: likeness(first, second, sparse) }
            })
            .max_by(|a, b| a.likeness.total_cmp(&b.likeness))
    }

    /// Takes one period out of the samples in which the seam was found.
    pub fn shorten(self, samples: &mut Vec<f32>) {
        for n in 0..FADE {
            let (from, to) = (samples[self.at + n], samples[self.at + self.period + n]);
            samples[self.at + self.period + n] = faded(from, to, n);
        }
        samples.drain(self.at..self.at + self.period);
    }

    /// Says one period twice.
    pub fn lengthen(self, samples: &mut Vec<f32>) {
        let again: Vec<f32> = samples[self.at..self.at + self.period].to_vec();
        let (first, second) = (self.at, self.at + self.period);
        let blend: Vec<f32> = (0..FADE).map(|n| faded(samples[second + n], samples[first + n], n)).collect();
        samples.splice(first..first, again);
        // Where the first passage comes the second time, it begins as the second one would have.
        samples[second..second + FADE].copy_from_slice(&blend);
    }
}

fn faded(from: f32, to: f32, step: usize) -> f32 {
    from + (to - from) * (step as f32 + 0.5) / FADE as f32
}

/// Correlation of the two, 1 for the same shape and loudness.
fn likeness(a: &[f32], b: &[f32], step: usize) -> f32 {
    let (mut along, mut first, mut second, mut count) = (0.0, 0.0, 0.0, 0.0);
    for (x, y) in a.iter().step_by(step).zip(b.iter().step_by(step)) {
        along += x * y;
        first += x * x;
        second += y * y;
        count += 1.0;
    }
    if first.max(second) < QUIET * count { 1.0 } else { 2.0 * along / (first + second) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(period: f32, length: usize) -> Vec<f32> {
        (0..length).map(|n| 0.5 * (std::f32::consts::TAU * n as f32 / period).sin()).collect()
    }

    fn steepest(samples: &[f32]) -> f32 {
        samples.windows(2).map(|w| (w[0] - w[1]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_loses_or_gains_whole_periods_and_stays_the_tone() {
        for period in [100.0_f32, 137.0, 218.0, 333.3, 450.0] {
            let whole = tone(period, 960);
            let seam = Seam::find(&whole).unwrap();
            assert!(seam.likeness > 0.99, "{period}: {seam:?}");

            let (mut short, mut long) = (whole.clone(), whole.clone());
            seam.shorten(&mut short);
            seam.lengthen(&mut long);

            assert_eq!((short.len(), long.len()), (960 - seam.period, 960 + seam.period));
            for changed in [&short, &long] {
                assert!(steepest(changed) < steepest(&whole) * 1.05, "{period}");
                assert_eq!((changed[0], changed.last()), (whole[0], whole.last()));
            }
        }
    }

    #[test]
    fn silence_is_alike_everywhere_and_noise_nowhere() {
        let mut state = 7_u32;
        let noise: Vec<f32> = (0..960)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect();

        assert_eq!(Seam::find(&[0.0; 960]).unwrap().likeness, 1.0);
        assert!(Seam::find(&noise).unwrap().likeness < 0.6);
    }

    #[test]
    fn too_few_samples_have_no_seam() {
        assert_eq!(Seam::find(&[0.1; 359]), None);
        assert!(Seam::find(&[0.1; 360]).is_some());
    }
}
