//! Microphone and speaker: when they are open, and who is heard to speak.

use super::*;
use crate::room::document::Mute;

/// Who was heard to speak counts as speaking for this long: pauses between words do not count.
const SPEECH_PAUSE: Duration = Duration::from_millis(1200);

impl Room {
    /// What is to be done with the sound.
    pub(in crate::room) fn wanted_sound(&self) -> SoundUse {
        let idle = if self.selftest_until.is_some() { Use::Muted } else { Use::Closed };
        let of = |muted: fn(&Mute) -> bool| match self.joined_document() {
            Some(document) if muted(&document.mute) => Use::Muted,
            Some(_) => Use::Open,
            None => idle,
        };
        let may_listen = self.settings.may_listen && !self.clock_missing;
        let microphone = if may_listen { of(|mute| mute.microphone) } else { Use::Closed };
        SoundUse { microphone, speaker: of(|mute| mute.earphone) }
    }

    pub(super) fn choose_sound(&mut self, now: Now) {
        let wanted = self.wanted_sound();
        if wanted != self.said.sound {
            self.said.sound = wanted;
            self.out.push(Command::Sound(wanted));
        }
        if wanted.microphone != Use::Open {
            self.speakers.remove(&self.settings.id);
        }
        let refused = self.joined_document().is_some_and(|document| !document.mute.microphone)
            && !self.settings.may_listen;
        let said = self.faults.is_active(&Part::Microphone, Code::MicrophoneNotAuthorized);
        if refused && !said {
            self.raise(fault(Part::Microphone, Code::MicrophoneNotAuthorized), None, now);
        }
        // What is not wanted is not missed.
        let unwanted = |fault: &Fault| match fault.part {
            Part::Microphone => wanted.microphone == Use::Closed && !refused,
            Part::Speaker => wanted.speaker == Use::Closed,
            _ => false,
        };
        self.faults.heal_if(unwanted, now);
    }

    pub(super) fn speaks(&mut self, member: MemberId, now: Now) {
        let listed = self.joined_document().is_some_and(|document| document.member(&member).is_some());
        let muted = member == self.settings.id && self.wanted_sound().microphone != Use::Open;
        if !listed || muted {
            return;
        }
        // Who already speaks keeps the large tile until somebody new begins.
        if self.speakers.insert(member.clone(), now.mono + SPEECH_PAUSE).is_none()
            && member != self.settings.id
        {
            self.budget.spare(&member);
            self.spoke_last = Some(member);
        }
    }

    pub(super) fn sound_opened(&mut self, info: SoundInfo) {
        if self.sounds.insert(info.part.clone(), info.clone()).as_ref() != Some(&info) {
            self.publish_info();
        }
    }
}
