//! What follows from what the room knows: the camera, the picture, the reports; each asked for when it has changed.

use super::*;

impl Room {
    pub(super) fn settle(&mut self, now: Now) -> Vec<Command> {
        self.handle_due(now);
        self.watch_clock(now);
        self.judge_screen(now);
        self.judge_tiles(now);
        self.choose_camera(now);
        self.choose_sound(now);
        self.faults.handle_timeout(now);
        for saying in self.faults.sayings() {
            self.say(saying);
        }
        if std::mem::take(&mut self.disconnect) {
            // Before anything else is published under the other machine's id.
            self.out.push(Command::Disconnect { retry_in: TAKEN_OVER_PAUSE });
            self.broker_down();
        }
        let tiles = self.tiles();
        let picture = self.picture(&tiles);
        if self.said.picture.as_ref() != Some(&picture) {
            self.said.picture = Some(picture.clone());
            self.out.push(Command::Show(Box::new(picture)));
        }
        let video_members: Vec<String> = report::with_video(&tiles).into_iter().map(str::to_owned).collect();
        self.say_changes(video_members, now);
        self.publish_state(now);
        let document = self.joined_document();
        let mut reported =
            report::reported(&self.settings, self.stage.word(), document, &tiles, self.broken.as_ref());
        if document.is_none() {
            // A document that is not followed is still the one that was read.
            report::add_unfollowed(&mut reported, self.document.as_ref());
        }
        self.publish_reported(reported, now);
        std::mem::take(&mut self.out)
    }

    pub(super) fn handle_due(&mut self, now: Now) {
        let due = |at: Option<Duration>| at.is_some_and(|at| now.mono >= at);
        if due(self.absent_at) {
            self.absent_at = None;
            // With the document goes what was wrong with it.
            if let Some(broken) = self.broken.take() {
                self.heal_document(broken.code, now);
            }
            if self.document.is_some() {
                self.faults.heal(&Part::Document, now);
                self.close("document-absent", now);
                self.document = None;
            }
        }
        if self.is_over(now) && self.stage != Stage::Closed {
            self.close("until", now);
        }
        if due(self.identify_until) {
            self.identify_until = None;
        }
        if due(self.selftest_until) {
            self.selftest_until = None;
        }
        if due(self.heartbeat_at) {
            self.said.state = "";
        }
        if due(self.stats_at) {
            self.stats_at = self.next_stats(now);
            self.out.push(Command::Stats { request: None });
        }
        self.speakers.retain(|_, until| now.mono < *until);
        for stranger in self.held.expire(now.mono) {
            self.refuse_signal(&stranger, "not listed within 5 s", now);
        }
        let members: Vec<MemberId> = self.peers.keys().cloned().collect();
        for member in members {
            // Without the broker nobody hears an offer; the next connection to it starts anew.
            if let Some(peer) = self.peers.get_mut(&member) {
                let steps = peer.tick(self.online, &mut self.numbers, now.mono);
                self.carry_out(&member, steps, now);
            }
        }
    }

    /// What was wrong with a document that was never followed is over; not what is wrong with the one that stands.
    pub(super) fn heal_document(&mut self, code: Code, now: Now) {
        let standing = self.document.iter().flat_map(|document| &document.rejected);
        if standing.into_iter().all(|rejected| rejected.code != code) {
            self.faults.heal_if(|fault| fault.part == Part::Document && fault.code == code, now);
        }
    }

    pub(super) fn watch_clock(&mut self, now: Now) {
        let until = self.joined_document().and_then(|document| document.until);
        self.clock_missing = until.is_some() && now.wall.is_none();
        self.until_at = until.map(|until| match now.wall {
            Some(wall) => now.mono + until.saturating_sub(wall),
            None => now.mono + CLOCK_PAUSE,
        });
        let said = self.faults.is_active(&Part::System, Code::ClockUnsynced);
        if self.clock_missing && !said {
            self.raise(fault(Part::System, Code::ClockUnsynced), None, now);
        } else if !self.clock_missing && said {
            self.faults.heal_if(|fault| fault.code == Code::ClockUnsynced, now);
        }
    }

    /// A screen that works may still not flip.
    fn judge_screen(&mut self, now: Now) {
        let copies = self.screen_info.as_ref().is_some_and(|screen| !screen.flip);
        if copies && self.settings.wants_flip && !self.faults.is_active(&Part::Screen, Code::ScreenNoFlip) {
            self.raise(fault(Part::Screen, Code::ScreenNoFlip), None, now);
        }
    }

    /// A screen may have no room for every tile.
    fn judge_tiles(&mut self, now: Now) {
        let tiles = self.tiles().into_iter().filter(|tile| tile.area.is_empty());
        let unmade: Vec<Part> = tiles.map(|tile| Part::Tile(tile.member)).collect();
        for part in &unmade {
            if !self.faults.is_active(part, Code::TileCreateFailed) {
                self.raise(fault(part.clone(), Code::TileCreateFailed), None, now);
            }
        }
        let made = |fault: &Fault| fault.code == Code::TileCreateFailed && !unmade.contains(&fault.part);
        self.faults.heal_if(made, now);
    }

    pub(super) fn say_changes(&mut self, video_members: Vec<String>, now: Now) {
        if self.said.stage != Some(self.stage) {
            self.said.stage = Some(self.stage);
            self.event("state-changed", json!({ "state": self.stage.word() }), now);
        }
        let members: Vec<String> = self
            .joined_document()
            .map(|document| document.members.iter().map(|member| member.id.to_string()).collect())
            .unwrap_or_default();
        if self.said.members != members {
            self.event("members-changed", json!({ "openIdList": members }), now);
            self.said.members = members;
        }
        if self.said.video_members != video_members {
            self.event("video-members-changed", json!({ "openIdList": video_members }), now);
            self.said.video_members = video_members;
        }
        let speakers: Vec<MemberId> = self.speakers.keys().cloned().collect();
        if self.said.speakers != speakers {
            self.event("speakers-changed", json!({ "openIdList": speakers }), now);
            self.said.speakers = speakers;
        }
    }

    pub(super) fn publish_state(&mut self, now: Now) {
        let word = if self.faults.degraded() { "degraded" } else { "online" };
        if self.online && self.said.state != word {
            self.said.state = word;
            self.heartbeat_at = Some(now.mono + HEARTBEAT);
            self.publish(report::state(&self.settings, word));
        }
    }

    pub(super) fn publish_info(&mut self) {
        self.publish(report::info(
            &self.settings,
            &self.cameras,
            &self.sounds,
            (self.screen_info.as_ref(), self.codecs.as_ref()),
        ));
    }

    pub(super) fn codecs_chosen(&mut self, info: CodecInfo) {
        if self.codecs.replace(info.clone()).as_ref() != Some(&info) {
            self.publish_info();
        }
    }

    pub(super) fn publish_reported(&mut self, reported: Value, now: Now) {
        self.report_at = None;
        if !self.online || self.said.reported.as_ref() == Some(&reported) {
            return;
        }
        let not_before = self.said.reported_at.map(|at| at + REPORT_PAUSE);
        if not_before.is_some_and(|at| now.mono < at) {
            self.report_at = not_before;
            return;
        }
        self.said.reported_at = Some(now.mono);
        self.publish(report::retained(&self.settings, "reported", reported.clone()));
        self.said.reported = Some(reported);
    }
}
