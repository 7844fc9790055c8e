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

/// A talker.
pub struct Speech {
    /// Of the voice, in hertz.
    pitch: f32,
    /// Samples talked so far.
    at: u64,
}

impl Speech {
    /// A talker with a voice of this pitch in hertz: 80 to 300 are people.
    pub fn new(pitch: f32) -> Self {
        Self { pitch, at: 0 }
    }

    /// The next 10 ms.
    pub fn talk(&mut self, block: &mut Block) {
        for sample in block {
            *sample = self.sample(self.at as f32 / RATE_HZ as f32);
            // A minute later everything is said again; the phase of a longer time has no digits left.
            self.at = (self.at + 1) % (60 * u64::from(RATE_HZ));
        }
    }

    fn sample(&self, at: f32) -> f32 {
        let syllable = at * SYLLABLES_HZ;
        // Loud in its middle, silent at its ends; every fifth is a pause for breath.
        let loudness = (std::f32::consts::PI * syllable.fract()).sin();
        if syllable as u32 % 5 == 4 {
            return 0.0;
        }
        let (first, second) = VOWELS[(syllable as usize * 7 + self.pitch as usize) % VOWELS.len()];
        let melody = self.pitch * (1.0 + 0.1 * (TAU * at * 0.7).sin());
        let resonance = |harmonic: f32, centre: f32| (-((harmonic - centre) / 150.0).powi(2)).exp();
        let voice: f32 = (1..20)
            .map(|number| {
                let harmonic = self.pitch * number as f32;
                let strength =
                    0.1 / number as f32 + resonance(harmonic, first) + 0.5 * resonance(harmonic, second);
                strength * (TAU * melody * number as f32 * at).sin()
            })
            .sum();
        (AMPLITUDE * loudness * voice * 0.5).clamp(-1.0, 1.0)
    }
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
