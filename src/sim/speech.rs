//! Somebody who talks without saying anything: syllables of a buzz, coloured by the resonances of a mouth.

use crate::media::sound::{Block, RATE_HZ};
use std::f32::consts::TAU;

/// Syllables a second, as people talk.
const SYLLABLES_HZ: f32 = 4.0;
/// Two resonances of each vowel, in hertz: a, i, o, e, u.
const VOWELS: [(f32, f32); 5] =
    [(730.0, 1090.0), (270.0, 2290.0), (570.0, 840.0), (530.0, 1840.0), (300.0, 870.0)];
/// About as loud as somebody close to a microphone.
const AMPLITUDE: f32 = 0.25;

/// Harmonics of a voice.
const HARMONICS: usize = 19;

/// A talker.
pub struct Speech {
    /// Of the voice, in hertz.
    pitch: f32,
    /// Samples talked so far.
    at: u64,
    /// Which syllable is talked, and how strong each harmonic is in it.
    syllable: usize,
    strengths: [f32; HARMONICS],
}

impl Speech {
    /// A talker with a voice of this pitch in hertz: 80 to 300 are people.
    pub fn new(pitch: f32) -> Self {
        Self { pitch, at: 0, syllable: 0, strengths: strengths(pitch, 0) }
    }

    /// The next 10 ms.
    pub fn talk(&mut self, block: &mut Block) {
        for sample in block {
            *sample = self.sample(self.at as f32 / RATE_HZ as f32);
            // A minute later everything is said again; the phase of a longer time has no digits left.
            self.at = (self.at + 1) % (60 * u64::from(RATE_HZ));
        }
    }

    fn sample(&mut self, at: f32) -> f32 {
        let syllable = at * SYLLABLES_HZ;
        // Loud in its middle, silent at its ends; every fifth is a pause for breath.
        let loudness = (std::f32::consts::PI * syllable.fract()).sin();
        if syllable as u32 % 5 == 4 {
            return 0.0;
        }
        if self.syllable != syllable as usize {
            self.syllable = syllable as usize;
            self.strengths = strengths(self.pitch, self.syllable);
        }
        let melody = self.pitch * (1.0 + 0.1 * (TAU * at * 0.7).sin());
        let (sin, cos) = (TAU * (melody * at).fract()).sin_cos();
        // sin (n + 1) x = 2 cos x sin n x - sin (n - 1) x
        let (mut before, mut harmonic, mut voice) = (0.0, sin, 0.0);
        for strength in self.strengths {
            voice += strength * harmonic;
            (before, harmonic) = (harmonic, 2.0 * cos * harmonic - before);
        }
        (AMPLITUDE * loudness * voice * 0.5).clamp(-1.0, 1.0)
    }
}

/// How strong the harmonics of a voice are in the vowel of a syllable.
fn strengths(pitch: f32, syllable: usize) -> [f32; HARMONICS] {
    let (first, second) = VOWELS[(syllable * 7 + pitch as usize) % VOWELS.len()];
    std::array::from_fn(|index| {
        let number = (index + 1) as f32;
        let resonance = |centre: f32| (-((pitch * number - centre) / 150.0).powi(2)).exp();
        0.1 / number + resonance(first) + 0.5 * resonance(second)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sound::{Level, SILENCE};

    #[test]
    fn it_is_as_loud_as_speech_and_pauses() {
        let mut speech = Speech::new(120.0);
        let mut block = SILENCE;
        let levels: Vec<u8> = (0..500)
            .map(|_| {
                speech.talk(&mut block);
                Level::of(&block, true).below_full_db
            })
            .collect();

        assert!(levels.iter().all(|level| *level >= 6), "it is not too loud");
        assert!(levels.iter().filter(|level| **level <= 40).count() > 250, "{levels:?}");
        assert!(levels.iter().filter(|level| **level > 60).count() > 50, "{levels:?}");
    }
}
