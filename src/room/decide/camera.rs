//! The own camera: which one is open, and what happens at a switch.

use super::*;
use crate::room::Mode;
use crate::room::document::Member;

impl Room {
    /// The camera that is to be open.
    pub(in crate::room) fn wanted_camera(&self) -> Option<Position> {
        let document = self.joined_document()?;
        let position = self.position_of(document.member(&self.settings.id)?);
        let allowed = self.settings.may_look
            && !document.mute.camera
            && !self.clock_missing
            && self.settings.cameras.contains(&position);
        allowed.then_some(position)
    }

    /// Which camera a member's tile shows: the document's, or the one before it while that does not work.
    pub(in crate::room) fn position_of(&self, member: &Member) -> Position {
        self.fallback.filter(|_| member.mode == Mode::Camera).unwrap_or(member.position)
    }

    pub(super) fn choose_camera(&mut self, now: Now) {
        let wanted = self.wanted_camera();
        if wanted != self.said.camera {
            let back = wanted.is_some() && wanted == self.fallback;
            self.said.switching = self.said.camera.zip(wanted).filter(|_| !back);
            self.said.camera = wanted;
            // What is seen is of the camera before.
            let own = self.settings.id.clone();
            self.forget_stall(&own, now);
            self.flows.remove(&own);
            self.out.push(Command::Camera(wanted));
        }
        let document = self.joined_document();
        let own = document.and_then(|document| document.member(&self.settings.id)).map(|own| own.position);
        let asked = document.is_some_and(|document| !document.mute.camera);
        let missing = own.filter(|at| !self.settings.cameras.contains(at));
        let refused = own.filter(|_| asked && !self.settings.may_look);
        for (at, code) in [(missing, Code::CameraNotFound), (refused, Code::CameraNotAuthorized)] {
            if let Some(part) = at.map(Part::Camera)
                && !self.faults.is_active(&part, code)
            {
                self.raise(fault(part, code), None, now);
            }
        }
        // A camera that is not wanted is not missed.
        let failed = own.filter(|_| self.fallback.is_some());
        let missed = [wanted, missing, refused, failed];
        let unwanted = |part: &Part| matches!(part, Part::Camera(at) if !missed.contains(&Some(*at)));
        self.faults.heal_if(|fault| unwanted(&fault.part), now);
    }

    pub(super) fn camera_opened(&mut self, position: Position, info: CameraInfo, now: Now) {
        // An open camera may still send nothing: a stall is over with the first picture.
        let part = Part::Camera(position);
        self.faults.heal_if(|fault| fault.part == part && fault.code != Code::CameraStalled, now);
        if self.cameras.insert(position, info.clone()) != Some(info) {
            self.publish_info();
        }
        if self.said.switching.is_some_and(|(_, to)| to == position) && self.said.camera == Some(position) {
            self.said.switching = None;
            self.event("camera-switched", json!({ "device-position": position }), now);
        }
    }

    /// Where the camera that was switched to fails, the one before it is better than none.
    pub(super) fn fall_back(&mut self, fault: &Fault) {
        if let Some((from, to)) = self.said.switching
            && fault.part == Part::Camera(to)
            && fault.code.severity() >= Severity::Error
        {
            self.fallback = Some(from);
        }
    }
}
