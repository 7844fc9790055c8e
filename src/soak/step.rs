//! What can be done to the room, one at a time. Network cuts between the kiosks have their place here too.

use super::world::{IDS, Stage};
use crate::room::document::{Layout, Mute};
use crate::room::fault::Code;

/// One step; kiosks are numbered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Takes part no more, in this way.
    Leave(usize, Stage),
    Join(usize),
    Unplug(usize, Device),
    Plug(usize, Device),
    BrokerKilled,
    /// On the same port, with nothing in its memory.
    BrokerStarted,
    /// A kiosk's line to the broker.
    LineCut(usize),
    LineMended(usize),
    /// Ended cleanly and started again.
    Restart(usize),
    /// The same, by `cmd/restart`.
    Command(usize),
    Arrange(Layout),
    /// The same after another document in the same instant.
    Twice(Layout),
    Mute(usize, Mute),
    /// To the other camera.
    Switch(usize),
    /// A document that cannot be read.
    Spoil(usize, Garbage),
    /// Signals of somebody who is not listed.
    Stranger(usize, Stranger),
    /// All is plugged in, whole and in the room, as in the beginning.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    Front,
    Back,
    Microphone,
    Speaker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    NoJson,
    NoRoom,
    TooDeep,
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    NoJson,
    /// Nobody lists them in time.
    Offer,
    /// More than is kept.
    Flood,
}

impl Device {
    pub const ALL: [Self; 4] = [Self::Front, Self::Back, Self::Microphone, Self::Speaker];

    /// The part of the fault when it is missed, and the fault's code.
    pub fn part(self) -> &'static str {
        match self {
            Self::Front => "camera-front",
            Self::Back => "camera-back",
            Self::Microphone => "microphone",
            Self::Speaker => "speaker",
        }
    }

    pub fn codes(self) -> &'static [Code] {
        match self {
            Self::Front | Self::Back => &[Code::CameraGone, Code::CameraNotFound],
            Self::Microphone => &[Code::MicrophoneGone],
            Self::Speaker => &[Code::SpeakerGone],
        }
    }
}

impl Garbage {
    pub const ALL: [Self; 4] = [Self::NoJson, Self::NoRoom, Self::TooDeep, Self::TooLarge];

    pub fn text(self) -> String {
        match self {
            Self::NoJson => "{".into(),
            Self::NoRoom => r#"{"room":5,"members":[]}"#.into(),
            Self::TooDeep => "[".repeat(100),
            Self::TooLarge => format!(r#"{{"room":"r","x":"{}"}}"#, "x".repeat(70_000)),
        }
    }

    pub fn code(self) -> Code {
        match self {
            Self::TooLarge => Code::DocumentTooLarge,
            _ => Code::DocumentInvalid,
        }
    }
}

impl Stranger {
    pub const ALL: [Self; 3] = [Self::NoJson, Self::Offer, Self::Flood];
}

impl Step {
    /// The word under which the table counts it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Leave(_, Stage::Cleared) => "leave: document cleared",
            Self::Leave(_, Stage::Unlisted) => "leave: not listed",
            Self::Leave(_, Stage::Over) => "leave: until passes",
            Self::Leave(..) => "leave: cleared while away",
            Self::Join(_) => "join",
            Self::Unplug(_, Device::Front | Device::Back) => "camera unplugged",
            Self::Unplug(_, Device::Microphone) => "microphone unplugged",
            Self::Unplug(..) => "speaker unplugged",
            Self::Plug(_, Device::Front | Device::Back) => "camera plugged in",
            Self::Plug(_, Device::Microphone) => "microphone plugged in",
            Self::Plug(..) => "speaker plugged in",
            Self::BrokerKilled => "broker killed",
            Self::BrokerStarted => "broker started empty",
            Self::LineCut(_) => "line to the broker cut",
            Self::LineMended(_) => "line to the broker mended",
            Self::Restart(_) => "kiosk restarted",
            Self::Command(_) => "kiosk restarted by cmd",
            Self::Arrange(_) => "layout",
            Self::Twice(_) => "two documents at once",
            Self::Mute(..) => "muted or unmuted",
            Self::Switch(_) => "camera switched",
            Self::Spoil(..) => "document of garbage",
            Self::Stranger(..) => "signals of a stranger",
            Self::Rest => "all healed at once",
        }
    }

    /// What the kiosks may say on the way besides the faults that stand before and after.
    pub fn may_say(&self) -> &'static [Code] {
        match self {
            Self::BrokerKilled
            | Self::LineCut(_)
            | Self::BrokerStarted
            | Self::LineMended(_)
            | Self::Rest => &[Code::BrokerUnreachable],
            // The goodbyes of the others are not heard, and it calls those who list it no more.
            Self::Leave(_, Stage::Forgotten) => {
                &[Code::BrokerUnreachable, Code::PeerLost, Code::SignalRefused]
            }
            _ => &[],
        }
    }

    /// A record that must be said once, and by whom.
    pub fn must_say(&self) -> Option<(usize, Code)> {
        match self {
            Self::Stranger(of, _) => Some((*of, Code::SignalRefused)),
            Self::Spoil(of, garbage) => Some((*of, garbage.code())),
            _ => None,
        }
    }

    fn of(&self) -> Option<usize> {
        match self {
            Self::Leave(of, _)
            | Self::Join(of)
            | Self::Unplug(of, _)
            | Self::Plug(of, _)
            | Self::LineCut(of)
            | Self::LineMended(of)
            | Self::Restart(of)
            | Self::Command(of)
            | Self::Mute(of, _)
            | Self::Switch(of)
            | Self::Spoil(of, _)
            | Self::Stranger(of, _) => Some(*of),
            Self::BrokerKilled | Self::BrokerStarted | Self::Arrange(_) | Self::Twice(_) | Self::Rest => None,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(id) = self.of().and_then(|of| IDS.get(of)) {
            write!(f, "{id}: ")?;
        }
        write!(f, "{}", self.kind())?;
        match self {
            Self::Unplug(_, device) | Self::Plug(_, device) => write!(f, " ({})", device.part()),
            Self::Arrange(layout) | Self::Twice(layout) => write!(f, " ({layout:?})"),
            Self::Mute(_, Mute { microphone, earphone, camera }) => {
                write!(f, " (microphone {microphone}, earphone {earphone}, camera {camera})")
            }
            Self::Spoil(_, garbage) => write!(f, " ({garbage:?})"),
            Self::Stranger(_, stranger) => write!(f, " ({stranger:?})"),
            _ => Ok(()),
        }
    }
}
