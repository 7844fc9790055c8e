//! What was done to the room so far, and what must be true because of it. A pure value: the same seed, the same steps.

use super::step::{Device, Garbage, Step, Stranger};
use crate::geometry::Fit;
use crate::room::document::{Layout, Mute};
use crate::room::fault::{Code, Severity};
use crate::room::{Position, clock};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Who can take part. The colours of their simulated cameras are far apart.
pub const IDS: [&str; 4] = ["depot", "lobby", "bridge", "nurse"];
pub const ROOM: &str = "soak";

/// Where a kiosk stands with the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Joined,
    /// Its document was cleared.
    Cleared,
    /// Its document does not list it.
    Unlisted,
    /// The time of its document is over.
    Over,
    /// Its document was cleared while it had no connection to the broker.
    Forgotten,
}

/// One kiosk.
#[derive(Clone, Debug)]
pub struct Place {
    pub id: &'static str,
    pub stage: Stage,
    /// Of the last document that can be read.
    pub rev: u64,
    pub position: Position,
    pub mute: Mute,
    pub unplugged: BTreeSet<Device>,
    /// Whether its line to the broker is whole.
    pub line: bool,
    /// What its last document is, if it cannot be read.
    pub spoilt: Option<Garbage>,
    /// When its document is over, since the Unix epoch.
    pub until: Duration,
}

/// A fault that stands, retained.
#[derive(Clone, Debug)]
pub struct Standing {
    pub part: String,
    /// One of these.
    pub codes: Vec<Code>,
    /// If not, it may stand or not.
    pub certain: bool,
}

/// The room and its surroundings.
#[derive(Clone, Debug)]
pub struct World {
    pub broker: bool,
    pub layout: Layout,
    pub places: Vec<Place>,
    rev: u64,
}

impl World {
    /// `count` kiosks (1 to 4), nobody in the room.
    pub fn new(count: usize) -> Self {
        let place = |id: &&'static str| Place {
            id,
            stage: Stage::Cleared,
            rev: 0,
            position: Position::Front,
            mute: Mute::default(),
            unplugged: BTreeSet::new(),
            line: true,
            spoilt: None,
            until: Duration::ZERO,
        };
        Self {
            broker: true,
            layout: Layout::Grid,
            places: IDS.iter().take(count).map(place).collect(),
            rev: 0,
        }
    }

    pub fn online(&self, of: usize) -> bool {
        self.broker && self.places[of].line
    }

    /// Whose tiles this kiosk shows, its own included.
    pub fn shown_on(&self, kiosk: usize) -> Vec<usize> {
        let joined = (0..self.places.len()).filter(|of| self.places[*of].stage == Stage::Joined);
        if self.places[kiosk].stage == Stage::Joined { joined.collect() } else { Vec::new() }
    }

    /// Does the step on paper.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Leave(of, how) => self.places[*of].stage = *how,
            Step::Join(of) => self.places[*of].stage = Stage::Joined,
            Step::Unplug(of, device) => {
                self.places[*of].unplugged.insert(*device);
            }
            Step::Plug(of, device) => {
                self.places[*of].unplugged.remove(device);
            }
            Step::BrokerKilled => self.broker = false,
            Step::BrokerStarted => self.broker = true,
            Step::LineCut(of) => self.places[*of].line = false,
            Step::LineMended(of) => self.places[*of].line = true,
            Step::Arrange(layout) | Step::Twice(layout) => self.layout = *layout,
            Step::Mute(of, mute) => self.places[*of].mute = *mute,
            Step::Switch(of) => {
                let place = &mut self.places[*of];
                place.position = other(place.position);
            }
            Step::Spoil(of, garbage) => self.places[*of].spoilt = Some(*garbage),
            Step::Rest => {
                let rev = self.rev;
                *self = Self::new(self.places.len());
                self.rev = rev;
                self.places.iter_mut().for_each(|place| place.stage = Stage::Joined);
            }
            Step::Restart(_) | Step::Command(_) | Step::Stranger(..) => {}
        }
    }

    /// New documents for all: what is to be published, by kiosk. A forgotten kiosk is not told anything.
    pub fn documents(&mut self) -> Vec<(usize, Option<Value>)> {
        self.rev += 1;
        let rev = self.rev;
        let joined: Vec<&str> =
            self.places.iter().filter(|place| place.stage == Stage::Joined).map(|place| place.id).collect();
        let layout = self.layout;
        // In a narrow tile `cover` cuts off what is looked for.
        let fit = if layout == Layout::Grid { Fit::Cover } else { Fit::Contain };
        let told = self.places.iter_mut().enumerate().filter(|(_, place)| place.stage != Stage::Forgotten);
        told.map(|(index, place)| {
            (place.rev, place.spoilt) = (rev, None);
            let own = json!({ "openid": place.id, "device-position": place.position });
            let member = |id: &&str| if *id == place.id { own.clone() } else { json!(id) };
            let mut members: Vec<Value> = joined.iter().map(member).collect();
            let mut document = json!({ "rev": rev, "room": ROOM, "object-fit": fit, "layout": layout });
            document["mute"] = json!(place.mute);
            match place.stage {
                Stage::Cleared | Stage::Forgotten => return (index, None),
                Stage::Joined | Stage::Unlisted => {}
                Stage::Over => {
                    members.push(own);
                    document["until"] = json!(clock::to_text(place.until));
                }
            }
            document["members"] = json!(members);
            (index, Some(document))
        })
        .collect()
    }

    /// Whether this kiosk's camera makes pictures.
    pub fn sends(&self, of: usize) -> bool {
        let place = &self.places[of];
        self.wants(of, camera(place.position)) && !place.unplugged.contains(&camera(place.position))
    }

    /// Whether this kiosk is to have this device open, if it is there.
    pub fn wants(&self, of: usize, device: Device) -> bool {
        let place = &self.places[of];
        let joined = place.stage == Stage::Joined;
        match device {
            Device::Front | Device::Back => joined && !place.mute.camera && device == camera(place.position),
            Device::Microphone | Device::Speaker => joined,
        }
    }

    /// The `state` of `reported`: one of these.
    pub fn words(&self, of: usize) -> &'static [&'static str] {
        match self.places[of].stage {
            Stage::Joined => &["joined"],
            // A kiosk that was started anew has heard of no document.
            Stage::Cleared => &["idle", "waiting"],
            Stage::Unlisted => &["not-a-member"],
            Stage::Over | Stage::Forgotten => &["closed"],
        }
    }

    /// The state of the tile of `member` on this kiosk: one of these.
    pub fn tile_states(&self, kiosk: usize, member: usize) -> &'static [&'static str] {
        let place = &self.places[member];
        match (kiosk == member, self.sends(member)) {
            (_, true) => &["live"],
            (true, false) if place.mute.camera => &["paused"],
            (true, false) => &["failed"],
            // Nothing came ever, or nothing more.
            (false, false) => &["connecting", "stalled"],
        }
    }

    /// The faults that stand on this kiosk.
    pub fn faults(&self, of: usize) -> Vec<Standing> {
        let place = &self.places[of];
        let certain =
            |part: &str, codes: &[Code]| Standing { part: part.into(), codes: codes.into(), certain: true };
        let document = match place.stage {
            Stage::Joined => place.spoilt.map(Garbage::code),
            Stage::Unlisted => Some(Code::NotAMember),
            Stage::Over | Stage::Forgotten => Some(Code::RoomClosed),
            Stage::Cleared => None,
        };
        let mut faults: Vec<Standing> = document.iter().map(|code| certain("document", &[*code])).collect();
        for device in Device::ALL.into_iter().filter(|device| self.wants(of, *device)) {
            if place.unplugged.contains(&device) {
                faults.push(certain(device.part(), device.codes()));
            }
        }
        // Nothing that is done here makes a sound card wait: when one does, the machine is busy with other things.
        let starved = [Device::Microphone, Device::Speaker]
            .map(|device| Standing { certain: false, ..certain(device.part(), &[Code::SoundXrun]) });
        faults.extend(starved);
        let silent = self.shown_on(of).into_iter().filter(|member| *member != of && !self.sends(*member));
        faults.extend(silent.map(|member| Standing {
            certain: false,
            ..certain(&format!("tile-{}", self.places[member].id), &[Code::TileStalled])
        }));
        faults
    }

    /// Whether this kiosk's `state` is `degraded`.
    pub fn degraded(&self, of: usize) -> bool {
        let grave = |fault: &Standing| fault.codes.iter().all(|code| code.severity() >= Severity::Error);
        self.faults(of).iter().any(|fault| fault.certain && grave(fault))
    }

    /// What can be done next, by kind.
    pub fn choices(&self) -> Vec<Vec<Step>> {
        let all = || 0..self.places.len();
        let joined = |of: &usize| self.places[*of].stage == Stage::Joined;
        let unplug = |of: usize| {
            let plugged = move |device: &Device| !self.places[of].unplugged.contains(device);
            Device::ALL.into_iter().filter(plugged).map(move |device| Step::Unplug(of, device))
        };
        let plug = |of: usize| self.places[of].unplugged.iter().map(move |device| Step::Plug(of, *device));
        let mut choices: Vec<Vec<Step>> =
            vec![all().flat_map(unplug).collect(), all().flat_map(plug).collect()];
        if !self.broker {
            // More likely than what else can be done: the longer it is away, the more rarely it is tried again.
            choices.resize_with(choices.len() + 4, || vec![Step::BrokerStarted]);
        } else if let Some(of) = all().find(|of| !self.places[*of].line) {
            choices.push(vec![Step::LineMended(of)]);
        } else {
            let hows = [Stage::Cleared, Stage::Unlisted, Stage::Over, Stage::Forgotten];
            if all().filter(joined).count() > 1 {
                let leave = |of| hows.into_iter().map(move |how| Step::Leave(of, how));
                choices.push(all().filter(joined).flat_map(leave).collect());
            }
            choices.push(all().filter(|of| !joined(of)).map(Step::Join).collect());
            choices.push(vec![Step::BrokerKilled]);
            choices.push(all().map(Step::LineCut).collect());
            // Started anew, a kiosk knows only what the broker does.
            let known =
                |of: &usize| self.places[*of].stage != Stage::Forgotten && self.places[*of].spoilt.is_none();
            choices.push(all().filter(known).flat_map(|of| [Step::Restart(of), Step::Command(of)]).collect());
            let layouts = [Layout::Grid, Layout::Speaker, Layout::Pip];
            choices.push(layouts.into_iter().flat_map(|to| [Step::Arrange(to), Step::Twice(to)]).collect());
            choices.push(all().filter(joined).flat_map(|of| self.mutes(of)).collect());
            let ready = |of: &usize| {
                let to = camera(other(self.places[*of].position));
                joined(of) && !self.places[*of].unplugged.contains(&to)
            };
            choices.push(all().filter(ready).map(Step::Switch).collect());
            // The same twice is said once.
            let new = |of: usize| {
                Garbage::ALL.into_iter().filter(move |garbage| self.places[of].spoilt != Some(*garbage))
            };
            let spoil = |of: usize| new(of).map(move |garbage| Step::Spoil(of, garbage));
            choices.push(all().filter(joined).flat_map(spoil).collect());
            choices.push(
                all().flat_map(|of| Stranger::ALL.map(|stranger| Step::Stranger(of, stranger))).collect(),
            );
        }
        choices.retain(|kind| !kind.is_empty());
        choices
    }

    fn mutes(&self, of: usize) -> Vec<Step> {
        let mute = self.places[of].mute;
        let flipped = [
            Mute { microphone: !mute.microphone, ..mute },
            Mute { earphone: !mute.earphone, ..mute },
            Mute { camera: !mute.camera, ..mute },
        ];
        flipped.map(|mute| Step::Mute(of, mute)).into()
    }
}

pub fn camera(position: Position) -> Device {
    match position {
        Position::Front => Device::Front,
        Position::Back => Device::Back,
    }
}

fn other(position: Position) -> Position {
    match position {
        Position::Front => Position::Back,
        Position::Back => Position::Front,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unplugged_camera_is_missed_only_while_it_is_wanted() {
        let mut world = World::new(2);
        world.apply(&Step::Rest);
        let certain =
            |world: &World| world.faults(0).into_iter().filter(|fault| fault.certain).collect::<Vec<_>>();
        world.apply(&Step::Unplug(0, Device::Front));
        assert_eq!((certain(&world).len(), world.degraded(0)), (1, true));
        assert_eq!((world.tile_states(0, 0), world.tile_states(1, 0)[1]), (&["failed"][..], "stalled"));

        world.apply(&Step::Switch(0));
        assert!(certain(&world).is_empty() && world.sends(0));

        world.apply(&Step::Leave(0, Stage::Unlisted));
        assert_eq!(world.faults(0)[0].codes, [Code::NotAMember]);
        assert!(world.shown_on(0).is_empty() && world.shown_on(1) == [1]);
    }

    #[test]
    fn without_the_broker_only_devices_change_until_it_is_back() {
        let mut world = World::new(4);
        world.apply(&Step::Rest);
        world.apply(&Step::BrokerKilled);

        for step in world.choices().into_iter().flatten() {
            assert!(matches!(step, Step::Unplug(..) | Step::BrokerStarted), "{step:?}");
        }
    }

    #[test]
    fn who_is_not_in_the_room_is_in_nobodys_document() {
        let mut world = World::new(3);
        world.apply(&Step::Rest);
        world.apply(&Step::Leave(1, Stage::Forgotten));

        let documents = world.documents();

        let told: Vec<usize> = documents.iter().map(|(of, _)| *of).collect();
        assert_eq!(told, [0, 2]);
        let members = documents[0].1.as_ref().expect("a document")["members"].to_string();
        assert!(members.contains("depot") && !members.contains("lobby"), "{members}");
    }
}
