//! DECIDES: the room as one pure value. Events in, commands out; the time is a parameter.
//!
//! ```text
//!  link/mqtt ─ bytes ─► message::parse ─► Event ─┐                       ┌─► Publish, Show, Camera, Open, Close …
//!  link/peer ─ state, SDP, candidates ─► Event ──┼─► Room::handle(now) ──┤
//!  pipeline, supervise ─ pictures, faults ───────┘                       └─► next_timeout()
//! ```

pub mod budget;
pub mod capacity;
pub mod clock;
mod decide;
pub mod document;
pub mod fault;
mod held;
pub mod layers;
pub mod layout;
pub mod message;
mod picture;
mod report;
pub mod session;
pub mod wish;

pub use decide::Room;
pub use report::will;

use crate::geometry::{Fit, Rect, Size};
use budget::Share;
use bytes::Bytes;
use fault::Fault;
use message::{Document, MemberId, Name, Refusal, Request, Signal};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The time, as a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the process started; never goes back.
    pub mono: Duration,
    /// Since the Unix epoch; `None` while the clock has not been set.
    pub wall: Option<Duration>,
}

/// Which of the two cameras.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    #[default]
    Front,
    Back,
}

/// Whose picture a tile shows: the kiosk's own camera or another member's video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Camera,
    Video,
}

/// How a tile is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TileState {
    Connecting,
    Live,
    Stalled,
    Failed,
    Paused,
    Off,
}

/// One member's place on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    pub member: MemberId,
    pub mode: Mode,
    /// Logical pixels: upright for the viewer.
    pub area: Rect,
    pub fit: Fit,
    pub mirror: bool,
    pub position: Position,
    pub name: Name,
    pub state: TileState,
    /// Why there is no picture, in words for people; empty while there is one.
    pub reason: String,
    /// Whether this member is heard to speak now.
    pub speaking: bool,
    /// Whether nobody hears this member because its microphone is muted; known of the own tile only.
    pub microphone_muted: bool,
    /// Whether nobody is heard here because the earphone is muted; known of the own tile only.
    pub earphone_muted: bool,
    /// How much of the video the machine has time for.
    pub share: Share,
}

/// All that the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scene {
    /// No room: the kiosk's id and what it waits for.
    Idle {
        title: String,
        line: String,
    },
    Grid {
        tiles: Vec<Tile>,
    },
}

/// Scene plus what lies over everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub scene: Scene,
    /// The id in large letters (`cmd/identify`).
    pub identify: Option<String>,
    /// One line at the foot: broker away, clock not set.
    pub notice: Option<String>,
    /// What of this kiosk others can see and hear now: shown over everything else.
    pub live: Live,
}

/// What is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    pub camera: bool,
    pub microphone: bool,
}

/// What the room must know of the kiosk before anything happens.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: MemberId,
    /// Random, 16 hex digits, one a process start.
    pub boot: String,
    pub version: &'static str,
    /// Logical size of the screen until one is opened.
    pub screen: Size,
    /// Which cameras the configuration names.
    pub cameras: Vec<Position>,
    /// Whether the configuration asks for page flips.
    pub wants_flip: bool,
    /// Whether the own tile is mirrored where the document does not say.
    pub mirror: bool,
    /// Whether the kiosk may look: if not, no camera is ever opened.
    pub may_look: bool,
    /// Whether the kiosk may listen: if not, the microphone is never opened.
    pub may_listen: bool,
    /// Whether there is to be a microphone at all.
    pub has_microphone: bool,
    /// How long a call outlives its document.
    pub absent_grace: Duration,
    /// How long `stats` waits between two publications; zero is never.
    pub stats_interval: Duration,
    /// What the board was measured to be able to; `None`: it was not measured.
    pub capacity: Option<capacity::Capacity>,
}

/// Which side of a connection makes the offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Offer,
    /// Answers this SDP.
    Answer(String),
}

/// What a peer connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Its offer or answer, to be signalled.
    Offer(String),
    Answer(String),
    /// A local ICE candidate as the JSON of `RTCIceCandidateInit`, to be signalled.
    Candidate(String),
    Connected,
    /// Nothing passes at the moment and another way is looked for; with the reason in words. [`PeerEvent::Connected`] or
    /// [`PeerEvent::Failed`] follows.
    Interrupted(String),
    /// Not connected any more and not going to be; with the reason in words.
    Failed(String),
}

/// Everything the room hears of.
#[derive(Clone, Debug)]
pub enum Event {
    /// The broker has accepted the session and every subscription.
    BrokerUp,
    BrokerDown,
    /// A new document for this kiosk.
    Document(Box<Document>),
    /// The document was cleared.
    DocumentCleared,
    /// A message that is not acted on; a document that leaves the last good one standing.
    Refused(Refusal),
    Signal {
        from: MemberId,
        signal: Box<Signal>,
    },
    Request(Request),
    /// This kiosk's own retained `state` as the broker has it; `boot` of who wrote it.
    OwnState {
        boot: String,
    },
    /// A retained `fault/{part}` of this kiosk's own that the broker still has.
    OwnFault {
        part: String,
        boot: String,
    },
    Peer {
        member: MemberId,
        session: message::SessionId,
        event: PeerEvent,
    },
    /// The tile got its first picture, or pictures again.
    TileLive {
        member: MemberId,
    },
    /// The tile had no new picture for over a second.
    TileStalled {
        member: MemberId,
    },
    /// The member, or the kiosk itself, is heard to speak; said again while it lasts, twice a second at least.
    Speaks {
        member: MemberId,
    },
    /// How much of the last second the busiest thread worked, from 0 to 1.
    Busy(f32),
    /// What pictures are coded and decoded with, from now on.
    CodecsChosen {
        info: CodecInfo,
    },
    SoundOpened {
        info: SoundInfo,
    },
    CameraOpened {
        position: Position,
        info: CameraInfo,
    },
    ScreenOpened {
        info: ScreenInfo,
    },
    Raised(Fault),
    /// This is over, wherever it was.
    Over(fault::Code),
    /// Whatever was wrong with this part is over.
    Healed(fault::Part),
}

/// A camera as `info` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CameraInfo {
    pub position: Position,
    pub name: String,
    pub format: String,
    pub width: u32,
    pub height: u32,
    pub rate_hz: f64,
}

/// What pictures are coded and decoded with, as `info` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodecInfo {
    pub encoder: String,
    pub decoder: String,
}

/// A microphone or a speaker as `info` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SoundInfo {
    #[serde(skip)]
    pub part: fault::Part,
    pub name: String,
    pub channels: u32,
    /// Samples a channel of the device's period and of its buffer, at 48 kHz.
    pub period: u32,
    pub buffer: u32,
}

/// What is to be done with a microphone or a speaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// Not opened.
    #[default]
    Closed,
    /// Open, so that it is there at once, but not a sound goes through.
    Muted,
    Open,
}

/// What is to be done with the sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoundUse {
    pub microphone: Use,
    pub speaker: Use,
}

/// The screen as `info` shows it; sizes are logical.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScreenInfo {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub bits_per_pixel: u32,
    pub flip: bool,
}

/// Where a message goes, below `{prefix}/`; `link/mqtt` knows the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// `{id}/reported`, `{to}/signal/{id}`, …
    pub topic: String,
    pub payload: Bytes,
    pub retained: bool,
    /// 0 or 1.
    pub qos: u8,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// MQTT 5 Correlation Data of a reply.
    pub correlation: Option<Bytes>,
}

/// Everything the room can ask for. `kiosk.rs` carries it out.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Publish(Publication),
    /// This camera and no other is to be open (`None`: none).
    Camera(Option<Position>),
    Sound(SoundUse),
    Show(Box<Picture>),
    /// Open a connection to a member; replaces the one there is.
    Open {
        member: MemberId,
        session: message::SessionId,
        role: Role,
    },
    /// A remote answer for this session.
    RemoteAnswer {
        member: MemberId,
        session: message::SessionId,
        sdp: String,
    },
    /// A remote candidate for this session, JSON of `RTCIceCandidateInit`.
    RemoteCandidate {
        member: MemberId,
        session: message::SessionId,
        candidate: String,
    },
    Close {
        member: MemberId,
    },
    /// Take a picture of the screen, scaled to this width, and answer the request with it.
    Snapshot {
        request: Request,
        width: u32,
    },
    /// Measure, and answer the request, or publish `stats` if there is none.
    Stats {
        request: Option<Request>,
    },
    /// Play a chirp, listen for it, and answer the request with what was heard.
    Selftest {
        request: Request,
    },
    /// Leave the process with success: systemd starts it anew.
    Restart,
    /// Another machine has this id: leave the broker and try again after this time.
    Disconnect {
        retry_in: Duration,
    },
}
