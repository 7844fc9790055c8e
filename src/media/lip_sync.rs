//! Whether a member's picture must wait: for its sound, by the times that RTCP sender reports tie together, or for
//! the picture before it, when several come at once that a lost packet had held up.
//!
//! Sound that comes up to 45 ms before its picture, or up to 125 ms after it, is not noticed (ITU-R BT.1359-1). Sound
//! waits in its jitter buffer and pictures do not, so it is the sound that comes late.

use super::sound;
use std::time::Duration;

/// How late sound may be against the picture: a little less than what is noticed.
const LATE: f64 = 0.100;
/// No picture waits longer, whatever a sender reports.
const LONGEST_WAIT: Duration = Duration::from_millis(400);
/// Pictures that have waited, for sound or for a missing packet, follow each other at twice their pace, but no slower than
/// a screen shows them one by one, 60 a second: all are seen, and what comes after them is soon in time again.
const QUICKER: f64 = 2.0;
const REFRESH: Duration = Duration::from_micros(16_700);
/// Sound that was not played for so long is no reason to wait.
const SILENT: Duration = Duration::from_millis(200);
/// The clock of pictures in RTP (RFC 6184).
const PICTURE_HZ: f64 = 90_000.0;

/// The RTP time that belongs to a moment of the sender's wall clock (RFC 3550, section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderTime {
    /// NTP format: seconds, and fractions of 2⁻³² s.
    pub ntp: u64,
    pub rtp: u32,
}

/// One member's two clocks.
#[derive(Clone, Debug, Default)]
pub struct LipSync {
    picture: Option<SenderTime>,
    sound: Option<SenderTime>,
    /// RTP time of a sample, and when it is heard.
    played: Option<(u32, Duration)>,
    /// RTP time of the last picture, and when it is shown.
    shown: Option<(u32, Duration)>,
}

impl LipSync {
    pub fn picture(&mut self, time: SenderTime) {
        self.picture = Some(time);
    }

    pub fn sound(&mut self, time: SenderTime) {
        self.sound = Some(time);
    }

    /// The sound with this RTP time leaves the speaker at that moment of the kiosk's clock.
    pub fn played(&mut self, rtp: u32, at: Duration) {
        self.played = Some((rtp, at));
    }

    /// How late the sound will be, in seconds, if this picture is shown at `now`; negative if early. `None` while there
    /// is no sound, or while its sender has not said how the two belong together.
    pub fn lateness(&self, picture: u32, now: Duration) -> Option<f64> {
        let (rtp, at) = self.played?;
        if now.saturating_sub(at) > SILENT {
            return None;
        }
        let (pictures, sounds) = (self.picture?, self.sound?);
        let of_picture = f64::from(picture.wrapping_sub(pictures.rtp) as i32) / PICTURE_HZ;
        let of_sound = f64::from(rtp.wrapping_sub(sounds.rtp) as i32) / f64::from(sound::RATE_HZ);
        let apart = pictures.ntp.wrapping_sub(sounds.ntp) as i64 as f64 / (1_u64 << 32) as f64;
        let since = now.as_secs_f64() - at.as_secs_f64();
        Some(apart + of_picture - of_sound - since)
    }

    /// How long the next picture, with this RTP time, is to wait: what its sound would be too late, and so that it does
    /// not run into the picture before it; 0.4 s at most.
    pub fn wait(&mut self, picture: u32, now: Duration) -> Duration {
        let excess = self.lateness(picture, now).unwrap_or_default() - LATE;
        let excess = Duration::try_from_secs_f64(excess).unwrap_or_default();
        let wait = excess.max(self.crowded(picture, now)).min(LONGEST_WAIT);
        self.shown = Some((picture, now + wait));
        wait
    }

    /// How much too soon after the picture before it this one would be.
    fn crowded(&self, picture: u32, now: Duration) -> Duration {
        let Some((before, at)) = self.shown else { return Duration::ZERO };
        let apart = f64::from(picture.wrapping_sub(before) as i32) / PICTURE_HZ;
        match Duration::try_from_secs_f64(apart) {
            Ok(apart) if apart <= LONGEST_WAIT => {
                (at + apart.div_f64(QUICKER).min(REFRESH)).saturating_sub(now)
            }
            // A sender that began anew, or a slide show.
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(50);

    /// The sender said that both RTP times belong to one moment; that moment's sound was heard `ago`.
    fn heard(ago: Duration) -> LipSync {
        let mut sync = LipSync::default();
        sync.picture(SenderTime { ntp: (7 << 32) | (1 << 31), rtp: u32::MAX - 44_999 });
        sync.sound(SenderTime { ntp: 8 << 32, rtp: 24_000 });
        sync.played(0, NOW - ago); // of half a second before, as the picture's report is
        sync
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// RTP time of the picture `ms` after that moment.
    fn picture(ms: u32) -> u32 {
        (u32::MAX - 44_999).wrapping_add(90 * ms)
    }

    #[test]
    fn a_picture_whose_sound_is_late_waits_what_is_too_much() {
        assert_eq!(heard(ms(0)).wait(picture(0), NOW), ms(0));
        assert_eq!(heard(ms(0)).wait(picture(99), NOW), ms(0));
        assert_eq!(heard(ms(0)).wait(picture(130), NOW).as_millis(), 30);
        assert_eq!(heard(ms(30)).wait(picture(130), NOW).as_micros() / 100, 0);
        assert_eq!(heard(ms(0)).wait(picture(60_000), NOW), LONGEST_WAIT);
    }

    #[test]
    fn when_the_sound_ends_the_pictures_that_waited_follow_faster() {
        let mut sync = heard(ms(195));

        let waits = [0, 10, 20, 30].map(|later| sync.wait(picture(315 + later), NOW + ms(later.into())));

        assert_eq!(waits.map(|wait| (wait.as_micros() + 500) / 1_000), [20, 15, 10, 5]);
    }

    #[test]
    fn pictures_that_a_lost_packet_had_held_up_are_all_shown_and_catch_up() {
        let mut sync = LipSync::default();
        sync.wait(picture(0), NOW);
        // One in 40 ms; the next five come with the sixth.
        let together = NOW + ms(240);

        let shown = (1..=6).map(|n| together + sync.wait(picture(40 * n), together)).collect::<Vec<_>>();
        let late = (7..=10).map(|n| sync.wait(picture(40 * n), NOW + ms(40) * n)).collect::<Vec<_>>();

        assert!(shown.windows(2).all(|two| two[1] - two[0] == REFRESH), "{shown:?}");
        let late = late.iter().map(Duration::as_micros).collect::<Vec<_>>();
        assert_eq!(late, [60_200, 36_900, 13_600, 0]);
    }

    #[test]
    fn another_clock_of_the_sender_holds_nothing_up() {
        let mut sync = LipSync::default();
        sync.wait(picture(0), NOW);

        assert_eq!(sync.wait(picture(10_000), NOW + ms(40)), ms(0));
        assert_eq!(sync.wait(picture(40), NOW + ms(80)), ms(0));
    }

    #[test]
    fn nothing_waits_for_a_silent_member_or_without_both_reports() {
        assert_eq!(heard(ms(201)).wait(picture(2000), NOW), ms(0));
        let mut sync = heard(ms(0));
        sync.sound = None;

        assert_eq!(sync.lateness(picture(2000), NOW), None);
        assert_eq!(sync.wait(picture(2000), NOW), ms(0));
    }
}
