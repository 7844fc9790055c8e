//! Faults: what is wrong, where, since when; which change is said and when.

use super::message::MemberId;
use super::{Now, Position, clock};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a part must be well before its fault is over.
const HEALTHY_FOR: Duration = Duration::from_secs(2);
/// How often a lasting fault is said again.
const REMINDER: Duration = Duration::from_secs(60);
/// Records that may be said at once, and each second in the long run.
const RECORDS_PER_SECOND: u32 = 20;
/// Faults that are kept; a further one is only counted as dropped.
const MOST_FAULTS: usize = 128;

/// A place where something can be wrong. A fault is de-duplicated, cleared and retained by its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Broker,
    Screen,
    Camera(Position),
    Microphone,
    Speaker,
    Peer(MemberId),
    Tile(MemberId),
    /// By its place in `ice_servers`, from 1.
    Relay(u8),
    Document,
    /// What codes and decodes pictures.
    Codec,
    System,
}

/// What is wrong: a stable word for machines. The README has the table with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    BrokerUnreachable,
    BrokerTls,
    BrokerAuth,
    BrokerDenied,
    BrokerTakenOver,
    CmdUnknown,
    CmdInvalid,
    CmdRetained,
    DocumentInvalid,
    DocumentTooLarge,
    NotAMember,
    RoomFull,
    RoomClosed,
    MemberInvalid,
    MemberDuplicate,
    SignalRefused,
    CameraNotFound,
    CameraBusy,
    CameraNotAuthorized,
    CameraFormat,
    CameraNoBandwidth,
    CameraGone,
    CameraStalled,
    CameraBadFrame,
    ScreenOpen,
    ScreenFormat,
    ScreenNoFlip,
    ScreenModeChanged,
    TileCreateFailed,
    TileStalled,
    TileOverBudget,
    PeerUnreachable,
    PeerLost,
    NoKeyframe,
    CodecMismatch,
    DecodeFailed,
    CodecSoftware,
    TurnAuth,
    TurnUnreachable,
    MicrophoneNotAuthorized,
    MicrophoneBusy,
    MicrophoneGone,
    SpeakerGone,
    SoundNone,
    SoundXrun,
    ClockUnsynced,
    Overheated,
    MemoryHigh,
    WatchdogRestart,
    ConfigInvalid,
    Internal,
}

/// The step that failed, for the record's `cause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What was being done, as `VIDIOC_DQBUF`.
    pub op: String,
    /// The kernel's name for the error, as `ENODEV`, or the message.
    pub errno: Option<String>,
    /// What it was done to.
    pub target: Option<String>,
}

/// One thing that is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub part: Part,
    pub code: Code,
    pub cause: Option<Cause>,
    /// When the next attempt is made, if one is.
    pub retry_in: Option<Duration>,
}

/// How much it matters; a retained fault is the most severe one of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Fatal,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broker => f.write_str("broker"),
            Self::Screen => f.write_str("screen"),
            Self::Camera(Position::Front) => f.write_str("camera-front"),
            Self::Camera(Position::Back) => f.write_str("camera-back"),
            Self::Microphone => f.write_str("microphone"),
            Self::Speaker => f.write_str("speaker"),
            Self::Peer(member) => write!(f, "peer-{member}"),
            Self::Tile(member) => write!(f, "tile-{member}"),
            Self::Relay(place) => write!(f, "relay-{place}"),
            Self::Document => f.write_str("document"),
            Self::Codec => f.write_str("codec"),
            Self::System => f.write_str("system"),
        }
    }
}

impl Code {
    /// How much it matters, whether it can go away without a change of configuration, and a sentence for people: what
    /// it means and what happens or is to be done next.
    pub fn about(self) -> (Severity, bool, &'static str) {
        use Severity::{Error, Info, Warning};
        match self {
            Self::BrokerUnreachable => {
                (Error, true, "The broker cannot be reached. It is tried again for ever.")
            }
            Self::BrokerTls => (
                Error,
                true,
                "TLS with the broker fails; the cause says why. A wrong clock does it too. It is tried for ever.",
            ),
            Self::BrokerAuth => {
                (Error, true, "The broker refuses the user name or password. Check kiosk.toml.")
            }
            Self::BrokerDenied => {
                (Error, false, "The broker's access control refuses this topic. Check its ACL.")
            }
            Self::BrokerTakenOver => (
                Error,
                true,
                "Another machine uses this kiosk's id. Give each its own; tried again in 10 minutes.",
            ),
            Self::CmdUnknown => (Warning, false, "There is no such command."),
            Self::CmdInvalid => {
                (Warning, false, "The command's arguments are wrong; the pointer says where.")
            }
            Self::CmdRetained => {
                (Warning, false, "A retained command is never carried out. Clear it on the broker.")
            }
            Self::DocumentInvalid => (
                Error,
                false,
                "The document cannot be read as it is; the pointer says where. What could be kept stands.",
            ),
            Self::DocumentTooLarge => {
                (Error, false, "The document is over 64 KiB. The last good one stands.")
            }
            Self::NotAMember => {
                (Warning, false, "The document does not list this kiosk, so it takes no part.")
            }
            Self::RoomFull => (Warning, false, "A room has at most 16 members. The first 16 take part."),
            Self::RoomClosed => (Warning, true, "The room was closed. A new document opens one."),
            Self::MemberInvalid => {
                (Warning, false, "A member is written wrong and left out; the pointer says where.")
            }
            Self::MemberDuplicate => (Warning, false, "A member is listed twice. The first entry counts."),
            Self::SignalRefused => {
                (Warning, false, "A signal was refused: of nobody listed here, or written wrong.")
            }
            Self::CameraNotFound => {
                (Error, true, "There is no such camera. It is opened when it is plugged in.")
            }
            Self::CameraBusy => (Error, true, "Another program uses the camera. It is tried again."),
            Self::CameraNotAuthorized => {
                (Error, false, "The camera may not be opened: authorize.camera, or the group video.")
            }
            Self::CameraFormat => (Error, false, "The camera offers no format that can be used."),
            Self::CameraNoBandwidth => {
                (Error, true, "The USB bus is too busy for this camera. Use another port or size.")
            }
            Self::CameraGone => {
                (Error, true, "The camera was unplugged. It is opened again when it returns.")
            }
            Self::CameraStalled => (Error, true, "The camera sends no pictures. It is opened again."),
            Self::CameraBadFrame => (Warning, true, "The camera sent broken pictures. They were left out."),
            Self::ScreenOpen => (Error, true, "The screen cannot be opened. It is tried again."),
            Self::ScreenFormat => (Error, false, "The screen's pixel format is not supported."),
            Self::ScreenNoFlip => {
                (Info, false, "The screen cannot flip pages; changed rows are copied instead.")
            }
            Self::ScreenModeChanged => (Info, true, "The screen's mode was changed. The room is drawn anew."),
            Self::TileCreateFailed => (
                Error,
                true,
                "The screen has no room for this member's tile. Fewer members, or a larger screen.",
            ),
            Self::TileStalled => (Warning, true, "No new pictures arrive from this member."),
            Self::TileOverBudget => {
                (Warning, true, "This machine is too busy to show everyone: this member's video is cut.")
            }
            Self::PeerUnreachable => (Warning, true, "This member cannot be reached. It is tried again."),
            Self::PeerLost => (Error, true, "The connection to this member was lost. It is made anew."),
            Self::NoKeyframe => {
                (Warning, true, "This member sends no whole picture. One is asked for again.")
            }
            Self::CodecMismatch => (Error, false, "This member offers no video that can be decoded (H.264)."),
            Self::DecodeFailed => {
                (Error, true, "This member's video cannot be decoded. A whole picture is asked for.")
            }
            Self::CodecSoftware => (
                Info,
                false,
                "The machine's own codec failed. Pictures are coded in software until the next start.",
            ),
            Self::TurnAuth => {
                (Error, true, "The relay refuses the user name or credential. Check link.ice_servers.")
            }
            Self::TurnUnreachable => {
                (Error, true, "The relay cannot be reached. Members behind a firewall may be out of reach.")
            }
            Self::MicrophoneNotAuthorized => {
                (Warning, false, "The kiosk may not listen (authorize.microphone), so nobody hears it.")
            }
            Self::MicrophoneBusy => (Error, true, "Another program uses the microphone. It is tried again."),
            Self::MicrophoneGone => {
                (Error, true, "The microphone is not there. It is opened again when it returns.")
            }
            Self::SpeakerGone => {
                (Error, true, "The speaker is not there or in use. It is opened again when it returns.")
            }
            Self::SoundNone => {
                (Info, true, "This machine has no sound card: the kiosk is seen and not heard.")
            }
            Self::SoundXrun => {
                (Warning, true, "Sound was lost because the machine was too busy for its sound card.")
            }
            Self::ClockUnsynced => {
                (Error, true, "The clock is not set, so the camera stays closed. Check the time server.")
            }
            Self::Overheated => (Warning, true, "The board is so hot that it slows down. Give it air."),
            Self::MemoryHigh => (Warning, true, "The program has nearly all the memory it may have."),
            Self::WatchdogRestart => {
                (Warning, false, "The program hung and was started again. Please report it.")
            }
            Self::ConfigInvalid => (
                Error,
                false,
                "The settings cannot be used; the cause says where. The last good ones stand, if there are any.",
            ),
            Self::Internal => (Error, true, "Something went wrong inside the program. Please report it."),
        }
    }

    pub fn severity(self) -> Severity {
        self.about().0
    }

    pub fn hint(self) -> &'static str {
        self.about().2
    }
}

/// Whose faults are recorded.
#[derive(Clone, Debug)]
pub struct Reporter {
    pub id: MemberId,
    pub boot: String,
}

/// What the policy wants said.
#[derive(Clone, Debug, PartialEq)]
pub enum Saying {
    /// For `error`: one record.
    Edge(Value),
    /// For `fault/{part}`: the record while it lasts, `None` when it is over.
    Level { part: Part, record: Option<Value> },
}

/// All that is wrong now, and the policy of saying it: at once and once a change, again while it lasts, over only after
/// a time of health, so that a flapping fault is one fault with a count.
#[derive(Debug)]
pub struct Faults {
    reporter: Reporter,
    active: BTreeMap<(Part, Code), Active>,
    /// Records that may still be said in this second, and when that was counted.
    credit: f64,
    credited_at: Duration,
    /// Records that were not said since the last one that was.
    dropped: u64,
    /// Not yet fetched. Bounded by the credit (edges) and by [`MOST_FAULTS`] (levels).
    sayings: Vec<Saying>,
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    pointer: Option<String>,
    room: Option<String>,
    count: u64,
    /// When it was raised first, and said last.
    since: Now,
    said: Duration,
    healthy_since: Option<Duration>,
}

impl Active {
    /// What is no more than good to know is said once.
    fn reminder_at(&self) -> Option<Duration> {
        (self.fault.code.severity() > Severity::Info).then_some(self.said + REMINDER)
    }
}

impl Faults {
    pub fn new(reporter: Reporter) -> Self {
        Self {
            reporter,
            active: BTreeMap::new(),
            credit: RECORDS_PER_SECOND as f64,
            credited_at: Duration::ZERO,
            dropped: 0,
            sayings: Vec::new(),
        }
    }

    /// What is to be said since the last call, in order.
    pub fn sayings(&mut self) -> Vec<Saying> {
        std::mem::take(&mut self.sayings)
    }

    /// Something is wrong, or still wrong.
    pub fn raise(&mut self, fault: Fault, pointer: Option<String>, room: Option<&str>, now: Now) {
        let key = (fault.part.clone(), fault.code);
        if let Some(active) = self.active.get_mut(&key) {
            // A document that is wrong in another way, or after a good one, is another document; devices flap.
            let other = fault.part == Part::Document
                && (active.fault.cause != fault.cause || active.healthy_since.is_some());
            let moved = active.pointer != pointer || other;
            active.count = active.count.saturating_add(1);
            active.healthy_since = None;
            active.fault = fault;
            active.pointer = pointer;
            if moved {
                self.say(&key, now);
            }
            return;
        }
        if self.active.len() >= MOST_FAULTS {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let active = Active {
            fault,
            pointer,
            room: room.map(str::to_owned),
            count: 1,
            since: now,
            said: now.mono,
            healthy_since: None,
        };
        self.active.insert(key.clone(), active);
        self.say(&key, now);
    }

    /// Something went wrong once and is no state: a refused command, a refused signal.
    pub fn once(&mut self, fault: Fault, pointer: Option<String>, room: Option<&str>, now: Now) {
        let room = room.map(str::to_owned);
        let active =
            Active { fault, pointer, room, count: 1, since: now, said: now.mono, healthy_since: None };
        let record = record(&self.reporter, &active, false, now);
        self.edge(record, now);
    }

    /// Whatever was wrong with this part is over, if it stays so.
    pub fn heal(&mut self, part: &Part, now: Now) {
        self.heal_if(|fault| fault.part == *part, now);
    }

    /// What `over` says of is over, if it stays so.
    pub fn heal_if(&mut self, over: impl Fn(&Fault) -> bool, now: Now) {
        for active in self.active.values_mut().filter(|active| over(&active.fault)) {
            active.healthy_since.get_or_insert(now.mono);
        }
    }

    /// What is wrong with this part at this moment, the worst first known; not what is healing.
    pub fn of(&self, part: &Part) -> Option<&Fault> {
        self.entries(part)
            .filter(|active| active.healthy_since.is_none())
            .max_by_key(|active| active.fault.code.severity())
            .map(|active| &active.fault)
    }

    pub fn is_active(&self, part: &Part, code: Code) -> bool {
        self.active.get(&(part.clone(), code)).is_some_and(|active| active.healthy_since.is_none())
    }

    /// Whether a fault of severity error or fatal is active or healing.
    pub fn degraded(&self) -> bool {
        self.active.values().any(|active| active.fault.code.severity() >= Severity::Error)
    }

    /// Every retained record anew, for a broker that may have forgotten.
    pub fn levels(&self) -> Vec<Saying> {
        let mut parts: Vec<&Part> = self.active.keys().map(|(part, _)| part).collect();
        parts.dedup();
        parts.into_iter().map(|part| self.level(part)).collect()
    }

    /// Whether anything retained stands for the part of this name.
    pub fn has_part_named(&self, name: &str) -> bool {
        self.active.keys().any(|(part, _)| part.to_string() == name)
    }

    pub fn next_timeout(&self) -> Option<Duration> {
        self.active
            .values()
            .filter_map(|active| match active.healthy_since {
                Some(since) => Some(since + HEALTHY_FOR),
                None => active.reminder_at(),
            })
            .min()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        let due: Vec<_> = self
            .active
            .iter()
            .filter(|(_, active)| match active.healthy_since {
                Some(since) => now.mono >= since + HEALTHY_FOR,
                None => active.reminder_at().is_some_and(|at| now.mono >= at),
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            if self.active.get(&key).is_some_and(|active| active.healthy_since.is_none()) {
                self.say(&key, now);
            } else if let Some(over) = self.active.remove(&key) {
                let record = record(&self.reporter, &over, false, now);
                self.edge(record, now);
                let level = self.level(&key.0);
                self.sayings.push(level);
            }
        }
    }

    fn entries(&self, part: &Part) -> impl Iterator<Item = &Active> {
        self.active.values().filter(move |active| active.fault.part == *part)
    }

    fn say(&mut self, key: &(Part, Code), now: Now) {
        let Some(active) = self.active.get_mut(key) else {
            return;
        };
        active.said = now.mono;
        let record = record(&self.reporter, active, true, now);
        self.edge(record, now);
        let level = self.level(&key.0);
        self.sayings.push(level);
    }

    /// The worst fault of the part; of equals the newest.
    fn level(&self, part: &Part) -> Saying {
        let worst = self.entries(part).max_by_key(|active| (active.fault.code.severity(), active.since.mono));
        let record = worst.map(|active| record(&self.reporter, active, true, active.since));
        Saying::Level { part: part.clone(), record }
    }

    fn edge(&mut self, mut record: Value, now: Now) {
        let earned = now.mono.saturating_sub(self.credited_at).as_secs_f64() * RECORDS_PER_SECOND as f64;
        self.credit = (self.credit + earned).min(RECORDS_PER_SECOND as f64);
        self.credited_at = now.mono;
        if self.credit < 1.0 {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.credit -= 1.0;
        if self.dropped > 0 {
            record["dropped"] = self.dropped.into();
            self.dropped = 0;
        }
        self.sayings.push(Saying::Edge(record));
    }
}

/// The error record of the contract.
fn record(reporter: &Reporter, fault: &Active, active: bool, now: Now) -> Value {
    let (severity, retryable, hint) = fault.fault.code.about();
    let (tile, openid) = match &fault.fault.part {
        Part::Camera(_) | Part::Microphone | Part::Speaker => (Some(&reporter.id), Some(&reporter.id)),
        Part::Peer(member) | Part::Tile(member) => (Some(member), Some(member)),
        Part::Broker | Part::Screen | Part::Relay(_) | Part::Document | Part::Codec | Part::System => {
            (None, None)
        }
    };
    json!({
        "code": fault.fault.code,
        "severity": severity,
        "part": fault.fault.part.to_string(),
        "tile": tile,
        "openid": openid,
        "room": fault.room,
        "boot": reporter.boot,
        "active": active,
        "retryable": retryable,
        "retry_in_ms": fault.fault.retry_in.map(|wait| wait.as_millis() as u64),
        "count": fault.count,
        "at": now.wall.map(clock::to_text),
        "clock": if now.wall.is_some() { "synced" } else { "unsynced" },
        "up_ms": now.mono.as_millis() as u64,
        "cause": fault.fault.cause,
        "pointer": fault.pointer,
        "wx_err_code": null,
        "hint": hint,
    })
}

#[cfg(test)]
mod tests;
