//! The microphone's sound without the speaker's, without noise and evenly loud; and whether somebody speaks.

use super::sound::{Block, RATE_HZ, SILENCE};
use sonora::config::{
    AdaptiveDigital, EchoCanceller, GainController2, HighPassFilter, MaxProcessingRate, NoiseSuppression,
    Pipeline,
};
use sonora::{AudioProcessing, Config, StreamConfig};
use std::time::Duration;

/// What is done to the microphone's sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// Takes out what the speaker played.
    pub echo_cancellation: bool,
    /// Turns down what is steady, as fans; and what is left of the echo.
    pub noise_suppression: bool,
    /// Brings speech to an even level.
    pub gain_control: bool,
}

impl Switches {
    /// Nothing is done: blocks stay as they were recorded.
    pub const OFF: Self = Self { echo_cancellation: false, noise_suppression: false, gain_control: false };
}

impl Default for Switches {
    fn default() -> Self {
        Self { echo_cancellation: true, noise_suppression: true, gain_control: true }
    }
}

/// Works on the microphone's blocks, knowing the speaker's.
pub struct Voice {
    /// `None` if everything is switched off.
    processing: Option<AudioProcessing>,
    scratch: Block,
    activity: Activity,
}

impl Voice {
    pub fn new(switches: Switches) -> Self {
        let processing = (switches != Switches::OFF).then(|| {
            let mono = StreamConfig::new(RATE_HZ, 1);
            let builder = AudioProcessing::builder().config(config(switches));
            builder.capture_config(mono).render_config(mono).build()
        });
        Self { processing, scratch: SILENCE, activity: Activity::default() }
    }

    /// Learns the next 10 ms that the speaker plays; to be called before they are heard.
    pub fn render(&mut self, played: &Block) {
        if let Some(processing) = &mut self.processing {
            // Fails only for blocks of another length than was agreed, which the types rule out.
            let _ = processing.process_render_f32(&[played], &mut [&mut self.scratch]);
        }
    }

    /// Cleans the next 10 ms of the microphone; untouched if everything is off, otherwise 9 ms later, or 15 ms
    /// with noise suppression.
    ///
    /// `delay` passes from [`Self::render`] of a sample until its echo is given to this: the speaker's delay and
    /// the microphone's. More than 500 ms count as 500.
    pub fn capture(&mut self, recorded: &mut Block, delay: Duration) {
        if let Some(processing) = &mut self.processing {
            // Neither fails: the delay is in range, the lengths are as agreed.
            let _ = processing.set_stream_delay_ms(delay.as_millis().min(500) as i32);
            self.scratch = *recorded;
            let _ = processing.process_capture_f32(&[&self.scratch], &mut [recorded]);
        }
        self.activity.note(recorded);
    }

    /// Whether the block captured last belongs to speech, for [`super::sound::Level`].
    pub fn voice(&self) -> bool {
        self.activity.held > 0
    }
}

fn config(switches: Switches) -> Config {
    // It begins at 0 dB, not at the library's 15: what is left of the echo would be raised by them until
    // somebody has spoken.
    let gain = || GainController2 {
        adaptive_digital: Some(AdaptiveDigital { initial_gain_db: 0.0, ..AdaptiveDigital::default() }),
        ..GainController2::default()
    };
    Config {
        // At 32 kHz nothing above 16 kHz would be left, for an eighth less work.
        pipeline: Pipeline {
            maximum_internal_processing_rate: MaxProcessingRate::Rate48kHz,
            ..Pipeline::default()
        },
        // Takes hum away, which the others would otherwise work on.
        high_pass_filter: Some(HighPassFilter::default()),
        echo_canceller: switches.echo_cancellation.then(EchoCanceller::default),
        noise_suppression: switches.noise_suppression.then(NoiseSuppression::default),
        gain_controller2: switches.gain_control.then(gain),
        ..Config::default()
    }
}

/// Tells speech from what is steady by its level alone: it stands out from the quietest of the last seconds.
#[derive(Default)]
struct Activity {
    /// Mean square of the last blocks; the newest weighs a third.
    level: f32,
    /// The least level in this window and in the one before it.
    quietest: [f32; 2],
    /// Blocks noted since sound began, and in this window.
    noted: u32,
    window: u32,
    /// Blocks for which speech still counts as going on.
    held: u32,
}

/// Blocks (10 ms each) of one window: 2 s.
const WINDOW: u32 = 200;
/// Speech is this many times the power of the noise: 9 dB.
const ABOVE: f32 = 8.0;
/// Nothing below −55 dB of full scale is speech.
const FAINTEST: f32 = 3.2e-6;
/// A microphone that is muted or has just begun: below −100 dB. Nothing is learnt from it, nor soon after it.
const NO_SOUND: f32 = 1e-10;
const SETTLED: u32 = 10;
/// Speech goes on for 200 ms after it was last heard: between syllables.
const HOLD: u32 = 20;

impl Activity {
    fn note(&mut self, block: &Block) {
        self.held = self.held.saturating_sub(1);
        let power = block.iter().map(|sample| sample * sample).sum::<f32>() / block.len() as f32;
        if power.is_nan() || power <= NO_SOUND {
            self.noted = 0;
            return;
        }
        self.noted = self.noted.saturating_add(1);
        if self.noted <= SETTLED {
            (self.level, self.quietest, self.window) = (power, [power; 2], 0);
            return;
        }
        self.level += (power - self.level) / 3.0;
        self.window += 1;
        if self.window > WINDOW {
            (self.quietest, self.window) = ([self.level, self.quietest[0]], 0);
        }
        self.quietest[0] = self.quietest[0].min(self.level);
        let noise = self.quietest[0].min(self.quietest[1]);
        if self.level > (noise * ABOVE).max(FAINTEST) {
            self.held = HOLD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sound::BLOCK;
    use proptest::prelude::*;

    const ALL: [Switches; 4] = [
        Switches { echo_cancellation: true, noise_suppression: false, gain_control: false },
        Switches { echo_cancellation: false, noise_suppression: true, gain_control: false },
        Switches { echo_cancellation: false, noise_suppression: false, gain_control: true },
        Switches { echo_cancellation: true, noise_suppression: true, gain_control: true },
    ];

    /// Noise with the power of `amplitude` squared, by a linear congruence.
    fn noise(state: &mut u32, amplitude: f32) -> Block {
        std::array::from_fn(|_| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((*state >> 8) as f32 / 8_388_608.0 - 1.0) * amplitude * 3_f32.sqrt()
        })
    }

    /// Four syllables a second.
    fn syllables(block: usize) -> Block {
        std::array::from_fn(|n| {
            let t = (block * BLOCK + n) as f32 / RATE_HZ as f32 * std::f32::consts::TAU;
            (150.0 * t).sin() * 0.2 * (4.0 * t).sin().max(0.0)
        })
    }

    fn sum(a: &Block, b: &Block) -> Block {
        std::array::from_fn(|n| a[n] + b[n])
    }

    fn power_db(blocks: &[Block]) -> f32 {
        let samples = blocks.as_flattened();
        10.0 * (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32 + 1e-12)
            .log10()
    }

    #[test]
    fn with_everything_off_a_block_is_not_touched() {
        let mut voice = Voice::new(Switches::OFF);
        let mut state = 1;

        for _ in 0..20 {
            let recorded = noise(&mut state, 0.3);
            let mut block = recorded;
            voice.render(&noise(&mut state, 0.3));
            voice.capture(&mut block, Duration::from_millis(30));
            assert_eq!(block, recorded);
        }
    }

    #[test]
    fn the_echo_goes_only_with_the_cancellation() {
        let [cancelled, left] = [true, false].map(|echo_cancellation| {
            let mut voice = Voice::new(Switches { echo_cancellation, ..Switches::OFF });
            let mut state = 9;
            let mut played = vec![SILENCE; 6];
            let mut out = Vec::new();
            for block in 0..400 {
                played.push(sum(&syllables(block), &noise(&mut state, 0.02)));
                voice.render(played.last().unwrap());
                let mut echo = played[block].map(|sample| sample * 0.3);
                voice.capture(&mut echo, Duration::from_millis(60));
                out.push(echo);
            }
            power_db(&out[200..])
        });

        assert!(cancelled < left - 20.0, "{cancelled:.1} dB with, {left:.1} dB without");
    }

    #[test]
    fn steady_noise_is_turned_down() {
        let mut voice = Voice::new(Switches { noise_suppression: true, ..Switches::OFF });
        let mut state = 5;
        let mut out = Vec::new();

        for _ in 0..400 {
            let mut block = noise(&mut state, 0.01);
            voice.capture(&mut block, Duration::ZERO);
            out.push(block);
        }

        assert!(power_db(&out[300..]) < -46.0, "{} dB of -40", power_db(&out[300..]));
    }

    #[test]
    fn steady_noise_or_hum_is_no_voice_however_loud() {
        for amplitude in [0.000_1, 0.003, 0.03, 0.3] {
            let (mut hissing, mut humming) = (Voice::new(Switches::OFF), Voice::new(Switches::OFF));
            let mut state = 3;
            for block in 0..1_000 {
                hissing.capture(&mut noise(&mut state, amplitude), Duration::ZERO);
                let mut hum = std::array::from_fn(|n| {
                    amplitude
                        * ((block * BLOCK + n) as f32 * 120.0 / RATE_HZ as f32 * std::f32::consts::TAU).sin()
                });
                humming.capture(&mut hum, Duration::ZERO);
                assert!(!hissing.voice() && !humming.voice(), "{amplitude} in block {block}");
            }
        }
    }

    #[test]
    fn syllables_in_noise_are_a_voice_until_shortly_after_the_last() {
        let mut voice = Voice::new(Switches::OFF);
        let mut state = 3;
        let mut hear = |voice: &mut Voice, block: Option<usize>| {
            let mut sound = sum(&noise(&mut state, 0.01), &block.map_or(SILENCE, syllables));
            voice.capture(&mut sound, Duration::ZERO);
            voice.voice()
        };
        assert!((0..100).all(|_| !hear(&mut voice, None)));

        let spoken = (0..500).filter(|block| hear(&mut voice, Some(*block))).count();
        let after = (0..100).filter(|_| hear(&mut voice, None)).count();

        assert!(spoken > 450, "{spoken} of 500 blocks");
        assert!((1..40).contains(&after), "{after} blocks after the last");
    }

    #[test]
    fn a_fan_that_starts_is_taken_for_a_voice_for_4_seconds_at_most() {
        let mut voice = Voice::new(Switches::OFF);
        let mut state = 3;
        (0..300).for_each(|_| voice.capture(&mut noise(&mut state, 0.002), Duration::ZERO));
        (0..450).for_each(|_| voice.capture(&mut noise(&mut state, 0.05), Duration::ZERO));

        assert!(!voice.voice());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn whatever_is_played_and_recorded_it_stays_finite_numbers(blocks in prop::collection::vec((-4.0_f32..4.0, -4.0_f32..4.0, 0_u64..2_000), 1..40)) {
            for switches in ALL {
                let mut voice = Voice::new(switches);
                for (played, recorded, delay) in &blocks {
                    voice.render(&std::array::from_fn(|n| if n % 7 < 3 { *played } else { -*played }));
                    let mut block = std::array::from_fn(|n| if n % 11 < 5 { *recorded } else { -*recorded });
                    voice.capture(&mut block, Duration::from_millis(*delay));
                    prop_assert!(block.iter().all(|sample| sample.is_finite()));
                }
            }
        }
    }
}
