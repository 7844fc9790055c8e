//! What the screen shows, as a function of what the room knows.

use super::budget::Share;
use super::decide::{Flow, Room, Stage};
use super::document::{Document, Layout, Member};
use super::fault::{Code, Fault, Part, Severity};
use super::session::Link;
use super::{Live, Mode, Picture, Scene, Tile, TileState, Use, layout};
use crate::geometry::Rect;

impl Room {
    pub(super) fn picture(&self, tiles: &[Tile]) -> Picture {
        let scene = if self.stage == Stage::Joined {
            Scene::Grid { tiles: tiles.to_vec() }
        } else {
            Scene::Idle { title: self.settings.id.to_string(), line: self.waiting_line() }
        };
        let identify = self.identify_until.map(|_| self.settings.id.to_string());
        let live = Live {
            camera: self.wanted_camera().is_some_and(|at| self.may_work(&Part::Camera(at))),
            microphone: self.listens() && self.may_work(&Part::Microphone),
        };
        Picture { scene, identify, notice: self.notice(), live }
    }

    fn listens(&self) -> bool {
        self.settings.has_microphone && self.wanted_sound().microphone == Use::Open
    }

    /// Whether nothing is known that keeps this device from working.
    fn may_work(&self, part: &Part) -> bool {
        self.faults.of(part).is_none_or(|fault| !is_error(fault) && fault.code != Code::SoundNone)
    }

    /// Pinned members first, in the layouts with a large tile then who spoke last, then in document order.
    pub(super) fn tiles(&self) -> Vec<Tile> {
        let Some(document) = self.joined_document() else {
            return Vec::new();
        };
        let areas = layout::arrange(document.layout, self.screen, document.members.len());
        self.in_order(document)
            .into_iter()
            .zip(areas)
            .map(|(member, area)| self.tile(document, member, area))
            .collect()
    }

    fn tile(&self, document: &Document, member: &Member, area: Rect) -> Tile {
        let (state, reason) = match member.mode {
            Mode::Camera => self.camera_tile(document, member),
            Mode::Video => self.video_tile(member),
        };
        let mirror = member.mirror.unwrap_or(member.mode == Mode::Camera && self.settings.mirror);
        Tile {
            member: member.id.clone(),
            mode: member.mode,
            area,
            fit: member.fit,
            mirror,
            position: self.position_of(member),
            name: member.name.clone(),
            state,
            reason: reason.to_owned(),
            speaking: self.speakers.contains_key(&member.id),
            share: self.budget.share(&member.id),
            earphone_muted: member.mode == Mode::Camera && document.mute.earphone,
            microphone_muted: member.mode == Mode::Camera && !self.listens(),
        }
    }

    fn in_order<'a>(&self, document: &'a Document) -> Vec<&'a Member> {
        let mut members: Vec<&Member> = document.members.iter().collect();
        // Stable: document order stands among equals.
        members.sort_by_key(|member| {
            let own_last = document.layout == Layout::Pip && member.mode == Mode::Camera;
            let spoke_last = document.layout != Layout::Grid && self.spoke_last.as_ref() == Some(&member.id);
            (own_last, !member.pin, !spoke_last)
        });
        members
    }

    fn camera_tile(&self, document: &Document, member: &Member) -> (TileState, &'static str) {
        if document.mute.camera {
            return (TileState::Paused, "The camera is muted.");
        }
        if self.clock_missing {
            return (TileState::Off, Code::ClockUnsynced.hint());
        }
        let position = self.position_of(member);
        let camera = self.faults.of(&Part::Camera(position)).filter(|fault| is_error(fault));
        if !self.settings.may_look || !self.settings.cameras.contains(&position) {
            return (TileState::Off, camera.map_or("", |fault| fault.code.hint()));
        }
        if let Some(fault) = camera.or(self.not_made(member)) {
            return (TileState::Failed, fault.code.hint());
        }
        match self.flows.get(&member.id) {
            Some(Flow::Live) => (TileState::Live, ""),
            Some(Flow::Stalled) => (TileState::Stalled, Code::CameraStalled.hint()),
            None => (TileState::Connecting, "The camera is being opened."),
        }
    }

    fn video_tile(&self, member: &Member) -> (TileState, &'static str) {
        if let Some(fault) = self.not_made(member) {
            return (TileState::Failed, fault.code.hint());
        }
        let peer = self.peers.get(&member.id);
        if peer.is_some_and(|peer| peer.link() == Link::Connected) {
            if self.budget.share(&member.id) == Share::None {
                return (TileState::Paused, Code::TileOverBudget.hint());
            }
            let fault = self.faults.of(&Part::Tile(member.id.clone()));
            return match (self.flows.get(&member.id), fault) {
                (Some(Flow::Live), _) => (TileState::Live, ""),
                (_, Some(fault)) if is_error(fault) => (TileState::Failed, fault.code.hint()),
                (Some(Flow::Stalled), _) => (TileState::Stalled, Code::TileStalled.hint()),
                (None, Some(fault)) => (TileState::Connecting, fault.code.hint()),
                (None, None) => (TileState::Connecting, "Connected; waiting for the first picture."),
            };
        }
        if peer.is_some_and(|peer| peer.link() == Link::Interrupted) {
            return (TileState::Stalled, Code::PeerLost.hint());
        }
        if peer.is_some_and(|peer| peer.has_left()) {
            return (TileState::Off, "Has left the room.");
        }
        match self.faults.of(&Part::Peer(member.id.clone())) {
            Some(fault) => (TileState::Failed, fault.code.hint()),
            None => (TileState::Connecting, "Connecting."),
        }
    }

    fn not_made(&self, member: &Member) -> Option<&Fault> {
        let fault = self.faults.of(&Part::Tile(member.id.clone()))?;
        (fault.code == Code::TileCreateFailed).then_some(fault)
    }

    fn waiting_line(&self) -> String {
        match self.stage {
            Stage::Waiting if !self.online => {
                self.unusable().unwrap_or_else(|| "Waiting for the broker.".to_owned())
            }
            Stage::Waiting => "Waiting for a room.".to_owned(),
            Stage::NotAMember => match &self.document {
                Some(document) => format!("Not a member of room {}.", document.room),
                None => Code::NotAMember.hint().to_owned(),
            },
            Stage::Closed => "The room was closed.".to_owned(),
            Stage::Idle | Stage::Joined => "In no room.".to_owned(),
        }
    }

    fn notice(&self) -> Option<String> {
        if self.faults.is_active(&Part::Broker, Code::BrokerTakenOver) {
            Some(Code::BrokerTakenOver.hint().to_owned())
        } else if let Some(reason) = self.unusable() {
            Some(reason)
        } else if !self.online && self.was_online {
            Some("No connection to the broker. It is tried again.".to_owned())
        } else if self.clock_missing {
            Some(Code::ClockUnsynced.hint().to_owned())
        } else {
            None
        }
    }

    /// What is wrong with the settings.
    fn unusable(&self) -> Option<String> {
        let fault = self.faults.of(&Part::System).filter(|fault| fault.code == Code::ConfigInvalid)?;
        let reason = fault.cause.as_ref().map_or("", |cause| &cause.op);
        Some(format!("The settings cannot be used. {reason}"))
    }
}

fn is_error(fault: &Fault) -> bool {
    fault.code.severity() >= Severity::Error
}
