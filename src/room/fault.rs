//! Faults: what is wrong, where, since when; which change is said and when.

use super::Position;
use super::message::MemberId;
use serde::Serialize;

/// A place where something can be wrong. A fault is de-duplicated, cleared and retained by its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Broker,
    Screen,
    Camera(Position),
    Peer(MemberId),
    Tile(MemberId),
    Document,
    System,
}

/// What is wrong: a stable word for machines. The README has the table with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    BrokerUnreachable,
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
    PeerUnreachable,
    PeerLost,
    NoKeyframe,
    CodecMismatch,
    DecodeFailed,
    ClockUnsynced,
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
    pub retry_in: Option<std::time::Duration>,
}
