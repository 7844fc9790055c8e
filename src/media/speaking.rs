//! Whether somebody speaks, from the levels of the packets: slow to begin, so that a cough is no speech.

use super::sound::Level;
use std::time::Duration;

/// Quieter is not speech to anybody in the room.
const AUDIBLE_DB: u8 = 50;
/// Louder is speech even if the sender does not mark it so: some never do (RFC 6464 leaves it to them).
const LOUD_DB: u8 = 30;
/// Packets of 20 ms in which speech must be heard before it counts; each without it takes half of one back.
const BEGIN: u8 = 2 * 5;
const ENOUGH: u8 = 2 * 25;
/// What lasts is said again in this time.
const AGAIN: Duration = Duration::from_millis(400);

/// One member's speech.
#[derive(Debug, Default)]
pub struct Speaking {
    /// Half packets of speech heard of late, at most [`ENOUGH`].
    heard: u8,
    said: Option<Duration>,
}

impl Speaking {
    /// Takes the level of the next packet. True when it is to be said that somebody speaks: as it begins, and again
    /// every 0.4 s while it lasts.
    pub fn hear(&mut self, level: Level, now: Duration) -> bool {
        let speech = level.below_full_db <= LOUD_DB || level.voice && level.below_full_db <= AUDIBLE_DB;
        self.heard = match speech {
            true => (self.heard + 2).min(ENOUGH),
            false => self.heard.saturating_sub(1),
        };
        let due =
            speech && self.heard >= BEGIN && self.said.is_none_or(|said| now.saturating_sub(said) >= AGAIN);
        if due {
            self.said = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEECH: Level = Level { below_full_db: 35, voice: true };
    const NOISE: Level = Level { below_full_db: 35, voice: false };

    /// When it was said, in packets of 20 ms.
    fn said(levels: impl Iterator<Item = Level>) -> Vec<usize> {
        let mut speaking = Speaking::default();
        let told = levels
            .enumerate()
            .filter(|(index, level)| speaking.hear(*level, Duration::from_millis(20 * *index as u64)));
        told.map(|(index, _)| index).collect()
    }

    #[test]
    fn speech_is_said_after_a_tenth_of_a_second_and_again_while_it_lasts() {
        assert_eq!(said((0..60).map(|_| SPEECH)), [4, 24, 44]);
    }

    #[test]
    fn a_cough_noise_and_whispers_are_not_speech() {
        let cough = (0..100).map(|index| if index % 50 < 4 { SPEECH } else { NOISE });

        assert_eq!(said(cough), [0; 0]);
        assert_eq!(said((0..100).map(|_| Level { below_full_db: 60, voice: true })), [0; 0]);
    }

    #[test]
    fn pauses_between_words_do_not_end_it_and_the_unmarked_voice_of_a_loud_sender_counts() {
        let words = (0..100).map(|index| if index % 10 < 6 { SPEECH } else { NOISE });

        assert!(said(words).windows(2).all(|pair| pair[1] - pair[0] <= 30));
        assert_eq!(said((0..10).map(|_| Level { below_full_db: 20, voice: false })), [4]);
    }
}
