//! Does what the speaker plays come back through the microphone? A chirp is played, and found again in what was heard.

use super::sound::RATE_HZ;
use std::f32::consts::TAU;
use std::time::Duration;

/// Samples of the chirp: 0.4 s.
const LENGTH: usize = RATE_HZ as usize * 2 / 5;
/// Samples that are recorded from the moment the chirp begins to be played: it may come back 0.6 s later.
pub const RECORDED: usize = RATE_HZ as usize;
/// It sweeps what small speakers can play and voices use, in hertz.
const SWEEP: (f32, f32) = (300.0, 3_400.0);
/// A quarter of full scale: loud enough, and no fright.
const AMPLITUDE: f32 = 0.25;
/// Fades at both ends, in samples, so that it does not click.
const FADE: usize = RATE_HZ as usize / 100;
/// How alike what was heard must be to the chirp at its best place, 0 to 1: noise stays under a twentieth.
const ALIKE: f32 = 0.15;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Level of what the microphone heard while the chirp was there, in decibels of full scale.
    pub loudness_db: f32,
    /// From the program to the speaker, through the air, and back to the program.
    pub delay: Duration,
    /// What of the chirp came back, in decibels of what was played.
    pub echo_return_db: f32,
}

/// The chirp: what to play.
pub fn chirp() -> Vec<f32> {
    (0..LENGTH)
        .map(|index| {
            let (at, whole) = (index as f32 / RATE_HZ as f32, LENGTH as f32 / RATE_HZ as f32);
            let turns = SWEEP.0 * at + (SWEEP.1 - SWEEP.0) * at * at / (2.0 * whole);
            let edge = index.min(LENGTH - 1 - index).min(FADE) as f32 / FADE as f32;
            AMPLITUDE * edge * (TAU * turns).sin()
        })
        .collect()
}

/// Looks for the chirp in what was heard since it began to be played; `None` if it is not there.
pub fn find(heard: &[f32]) -> Option<Found> {
    let chirp = chirp();
    let energy = |samples: &[f32]| samples.iter().map(|sample| sample * sample).sum::<f32>();
    let played = energy(&chirp);
    let (delay, product) = heard
        .windows(LENGTH)
        .map(|window| window.iter().zip(&chirp).map(|(one, other)| one * other).sum::<f32>())
        .enumerate()
        .max_by(|(_, one), (_, other)| one.abs().total_cmp(&other.abs()))?;
    let there = energy(&heard[delay..delay + LENGTH]);
    if product.abs() <= ALIKE * (there * played).sqrt() {
        return None;
    }
    Some(Found {
        loudness_db: 10.0 * (there / LENGTH as f32).log10(),
        delay: Duration::from_secs_f64(delay as f64 / f64::from(RATE_HZ)),
        echo_return_db: 20.0 * (product.abs() / played).log10(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard of the chirp after `delay` samples, times `gain`, in this much noise.
    fn heard(delay: usize, gain: f32, noise: f32) -> Vec<f32> {
        let mut seed = 1_u32;
        let mut heard: Vec<f32> = (0..RECORDED)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise * (seed as f32 / u32::MAX as f32 * 2.0 - 1.0)
            })
            .collect();
        for (sample, chirp) in heard[delay..].iter_mut().zip(chirp()) {
            *sample += gain * chirp;
        }
        heard
    }

    #[test]
    fn the_chirp_is_found_where_it_is_and_as_loud_as_it_is() {
        for (delay, gain, noise) in [(0, 1.0, 0.0), (3_456, -0.1, 0.01), (28_000, 0.05, 0.02)] {
            let found = find(&heard(delay, gain, noise)).expect("it is there");

            assert_eq!(found.delay, Duration::from_secs_f64(delay as f64 / 48_000.0));
            assert!((found.echo_return_db - 20.0 * gain.abs().log10()).abs() < 1.0, "{found:?}");
        }
    }

    #[test]
    fn noise_and_silence_are_no_chirp() {
        assert_eq!(find(&heard(0, 0.0, 0.3)), None);
        assert_eq!(find(&[0.0; RECORDED]), None);
        assert_eq!(find(&[]), None);
    }
}
