//! Topics and JSON ⇄ [`Event`](super::Event) and [`Publication`](super::Publication). The only maker of [`MemberId`].

use super::document;
use super::fault::{Code, Part};
use super::{Event, Publication};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use super::document::{Document, Layout, Member, Mute, Rejected};

/// The largest payload that is read, in bytes.
pub const LARGEST_PAYLOAD: usize = 64 * 1024;
/// Levels of nesting of the JSON that is read; the root counts as one.
pub const DEEPEST: usize = 6;
/// The widths in pixels a snapshot may be asked for.
pub const SNAPSHOT_WIDTHS: std::ops::RangeInclusive<u64> = 16..=1920;
/// Commands and signals do not outlive this.
const SIGNAL_EXPIRY_S: u32 = 30;
/// Correlation Data above this many bytes is not echoed.
const LARGEST_CORRELATION: usize = 256;

/// A member's openid: `[A-Za-z0-9_-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct MemberId(heapless::String<64>);

/// A room's id: the same alphabet as [`MemberId`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoomId(heapless::String<64>);

/// A signalling session: 16 bytes as 32 hex digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionId(heapless::String<32>);

/// A name for people: UTF-8, at most 64 bytes.
pub type Name = heapless::String<64>;

/// Why a message was not acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the message was about; [`Part::Document`] leaves the last good document standing.
    pub part: Part,
    pub code: Code,
    /// RFC 6901: the value that is wrong, if one can be named.
    pub pointer: Option<String>,
    /// What is wrong with it, in words.
    pub reason: String,
    /// Where a refused command is answered.
    pub reply_to: Option<ReplyTo>,
}

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// `{id}/reply/{client}`.
    pub topic: String,
    pub correlation: Option<Bytes>,
}

/// A command, with where to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub verb: Verb,
    /// `{id}/reply/{client}`; a request without one is carried out and not answered.
    pub reply_topic: Option<String>,
    pub correlation: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    Snapshot {
        width: Option<u32>,
    },
    Identify,
    /// Play a chirp and listen for it.
    Selftest,
    Stats,
    Restart,
}

/// One signalling message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    pub room: RoomId,
    pub session: SessionId,
    /// Rises with every message of one sender in one session.
    pub seq: u64,
    pub body: SignalBody,
}

/// What a signalling message says. SDP and candidates are bounded by [`LARGEST_PAYLOAD`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalBody {
    /// "I am here and not connected to you", or in a running session "I am still here".
    Hello,
    Offer(String),
    Answer(String),
    /// The JSON of an `RTCIceCandidateInit`.
    Candidate(String),
    Bye,
}

/// An MQTT message as `link/mqtt` hands it over.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Below the prefix: `{id}/desired`, `{id}/signal/{from}`, …
    pub topic: String,
    pub payload: Bytes,
    pub retained: bool,
    /// MQTT 5 Response Topic, the prefix taken off; `None` if it lies outside the prefix.
    pub response_topic: Option<String>,
    pub correlation: Option<Bytes>,
}

/// A topic filter to subscribe to, below the prefix, with QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub topic: String,
    /// Retain Handling 2 (MQTT 5, section 3.8.3.1): retained messages are not sent at the subscription.
    pub retain_handling_never: bool,
}

/// All that a kiosk listens to.
pub fn subscriptions(own: &MemberId) -> [Subscription; 5] {
    ["desired", "cmd/#", "signal/+", "state", "fault/+"].map(|below| Subscription {
        topic: format!("{own}/{below}"),
        retain_handling_never: below == "cmd/#",
    })
}

/// Reads one message for the kiosk `own`. `None` where there is nothing to say (a topic of no interest).
pub fn parse(own: &MemberId, message: &Incoming) -> Option<Event> {
    let below = message.topic.strip_prefix(own.as_str())?.strip_prefix('/')?;
    match below.split_once('/').unwrap_or((below, "")) {
        ("desired", "") if message.payload.is_empty() => Some(Event::DocumentCleared),
        ("desired", "") => Some(match document::read(own, &message.payload) {
            Ok(document) => Event::Document(Box::new(document)),
            Err(refusal) => Event::Refused(*refusal),
        }),
        // Retained commands are cleared with an empty payload: that is no command.
        ("cmd", _) if message.retained && message.payload.is_empty() => None,
        ("cmd", verb) => Some(match command(own, verb, message) {
            Ok(request) => Event::Request(request),
            Err(refusal) => Event::Refused(*refusal),
        }),
        ("signal", from) => {
            let from = MemberId::parse(from)?;
            Some(match signal_of(own, &from, message) {
                Ok(signal) => Event::Signal { from, signal: Box::new(signal) },
                Err(refusal) => Event::Refused(*refusal),
            })
        }
        ("state", "") => own_state(&message.payload),
        ("fault", part) => own_fault(part, &message.payload),
        _ => None,
    }
}

/// The answer to a request; `None` if it named no topic to answer to.
pub fn reply(request: &Request, payload: Bytes) -> Option<Publication> {
    let topic = request.reply_topic.clone()?;
    Some(answer(&ReplyTo { topic, correlation: request.correlation.clone() }, payload))
}

/// An answer to whoever asked.
pub fn answer(to: &ReplyTo, payload: Bytes) -> Publication {
    Publication {
        topic: to.topic.clone(),
        payload,
        retained: false,
        qos: 1,
        expiry_s: None,
        correlation: to.correlation.clone(),
    }
}

/// A signalling message from `own` to `to`.
pub fn signal(own: &MemberId, to: &MemberId, signal: &Signal) -> Publication {
    let (kind, field, text) = match &signal.body {
        SignalBody::Hello => ("hello", "", Value::Null),
        SignalBody::Bye => ("bye", "", Value::Null),
        SignalBody::Offer(sdp) => ("offer", "sdp", sdp.as_str().into()),
        SignalBody::Answer(sdp) => ("answer", "sdp", sdp.as_str().into()),
        SignalBody::Candidate(candidate) => (
            "candidate",
            "candidate",
            // What a connection hands over is JSON; the text itself is the candidate if it is not.
            serde_json::from_str(candidate).unwrap_or_else(|_| candidate.as_str().into()),
        ),
    };
    let mut body = json!({ "room": signal.room, "session": signal.session, "seq": signal.seq, "kind": kind });
    if !field.is_empty() {
        body[field] = text;
    }
    Publication {
        topic: format!("{to}/signal/{own}"),
        payload: body.to_string().into(),
        retained: false,
        qos: 1,
        expiry_s: Some(SIGNAL_EXPIRY_S),
        correlation: None,
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

impl MemberId {
    /// `None` if `text` is not `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Option<Self> {
        is_id(text).then(|| heapless::String::try_from(text).ok().map(Self))?
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RoomId {
    /// `None` if `text` is not `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Option<Self> {
        is_id(text).then(|| heapless::String::try_from(text).ok().map(Self))?
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SessionId {
    /// `None` if `text` is not 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| heapless::String::try_from(text.to_ascii_lowercase().as_str()).ok().map(Self))?
    }

    /// The `counter`-th session of the process `boot` (16 hex digits).
    pub fn numbered(boot: &str, counter: u64) -> Self {
        let digits = boot.chars().map(|digit| if digit.is_ascii_hexdigit() { digit } else { '0' });
        let text: String =
            digits.chain(std::iter::repeat('0')).take(16).chain(format!("{counter:016x}").chars()).collect();
        Self::parse(&text).expect("32 hex digits were put together")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for RoomId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The request that answers go to, if its Response Topic is `{own}/reply/{client}`.
fn reply_to(own: &MemberId, message: &Incoming) -> Option<ReplyTo> {
    let topic = message.response_topic.as_deref()?;
    let client = topic.strip_prefix(own.as_str())?.strip_prefix("/reply/")?;
    MemberId::parse(client)?;
    let correlation = message.correlation.clone().filter(|data| data.len() <= LARGEST_CORRELATION);
    Some(ReplyTo { topic: topic.to_owned(), correlation })
}

fn command(own: &MemberId, verb: &str, message: &Incoming) -> Result<Request, Box<Refusal>> {
    let reply_to = reply_to(own, message);
    let refuse = |code, pointer: Option<&str>, reason: &str| {
        Box::new(Refusal {
            part: Part::System,
            code,
            pointer: pointer.map(str::to_owned),
            reason: reason.to_owned(),
            reply_to: reply_to.clone(),
        })
    };
    if message.retained {
        return Err(refuse(Code::CmdRetained, None, "a command must not be retained"));
    }
    if !["snapshot", "identify", "selftest", "stats", "restart"].contains(&verb) {
        let shown: String = verb.chars().take(32).collect();
        return Err(refuse(Code::CmdUnknown, None, &format!("no such command: {shown}")));
    }
    let arguments = if message.payload.is_empty() {
        Map::new()
    } else {
        match read_json(&message.payload) {
            Ok(Value::Object(arguments)) => arguments,
            Ok(_) => return Err(refuse(Code::CmdInvalid, Some(""), "the arguments are not a JSON object")),
            Err(unread) => return Err(refuse(Code::CmdInvalid, Some(""), &unread.to_string())),
        }
    };
    let verb = match verb {
        "identify" => Verb::Identify,
        "selftest" => Verb::Selftest,
        "stats" => Verb::Stats,
        "restart" => Verb::Restart,
        _ => match arguments.get("width") {
            None => Verb::Snapshot { width: None },
            Some(width) => {
                let width =
                    width.as_u64().filter(|width| SNAPSHOT_WIDTHS.contains(width)).ok_or_else(|| {
                        refuse(Code::CmdInvalid, Some("/width"), "not a whole number from 16 to 1920")
                    })?;
                Verb::Snapshot { width: Some(width as u32) }
            }
        },
    };
    let (reply_topic, correlation) = match reply_to {
        Some(to) => (Some(to.topic), to.correlation),
        None => (None, None),
    };
    Ok(Request { verb, reply_topic, correlation })
}

fn signal_of(own: &MemberId, from: &MemberId, message: &Incoming) -> Result<Signal, Box<Refusal>> {
    let refuse = |pointer: &str, reason: &str| {
        Box::new(Refusal {
            part: Part::Peer(from.clone()),
            code: Code::SignalRefused,
            pointer: Some(pointer.to_owned()),
            reason: reason.to_owned(),
            reply_to: None,
        })
    };
    if from == own {
        return Err(refuse("", "a signal from this kiosk to itself"));
    }
    if message.retained {
        return Err(refuse("", "a signal must not be retained"));
    }
    let root = match read_json(&message.payload) {
        Ok(Value::Object(root)) => root,
        Ok(_) => return Err(refuse("", "not a JSON object")),
        Err(unread) => return Err(refuse("", &unread.to_string())),
    };
    let text = |name: &str| root.get(name).and_then(Value::as_str);
    let room = text("room").and_then(RoomId::parse).ok_or_else(|| refuse("/room", "not a room id"))?;
    let session = text("session")
        .and_then(SessionId::parse)
        .ok_or_else(|| refuse("/session", "not 32 hexadecimal digits"))?;
    let seq = root.get("seq").and_then(Value::as_u64).ok_or_else(|| refuse("/seq", "not a whole number"))?;
    let sdp = || {
        text("sdp")
            .filter(|sdp| !sdp.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| refuse("/sdp", "not a session description"))
    };
    let body = match text("kind") {
        Some("hello") => SignalBody::Hello,
        Some("bye") => SignalBody::Bye,
        Some("offer") => SignalBody::Offer(sdp()?),
        Some("answer") => SignalBody::Answer(sdp()?),
        Some("candidate") => match root.get("candidate") {
            Some(candidate @ Value::Object(fields))
                if fields.get("candidate").is_some_and(Value::is_string) =>
            {
                SignalBody::Candidate(candidate.to_string())
            }
            Some(Value::Object(_)) => return Err(refuse("/candidate/candidate", "not a string")),
            _ => return Err(refuse("/candidate", "not an RTCIceCandidateInit object")),
        },
        _ => return Err(refuse("/kind", "not hello, offer, answer, candidate or bye")),
    };
    Ok(Signal { room, session, seq, body })
}

/// A state that says "offline" is somebody's last will and no sign of another machine.
fn own_state(payload: &Bytes) -> Option<Event> {
    let state = read_json(payload).ok()?;
    if state.get("state")?.as_str()? == "offline" {
        return None;
    }
    Some(Event::OwnState { boot: boot_of(&state)? })
}

fn own_fault(part: &str, payload: &Bytes) -> Option<Event> {
    if payload.is_empty() || !is_id(part) || part.len() > 80 {
        return None;
    }
    // Whatever lies there and is not a record of this process is history, readable or not.
    let boot = read_json(payload).ok().and_then(|record| boot_of(&record)).unwrap_or_default();
    Some(Event::OwnFault { part: part.to_owned(), boot })
}

fn boot_of(record: &Value) -> Option<String> {
    record.get("boot")?.as_str().filter(|boot| boot.len() <= 64).map(str::to_owned)
}

/// Why bytes are not JSON that is read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge,
    TooDeep,
    NotJson(String),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => write!(f, "over 64 KiB"),
            Self::TooDeep => write!(f, "nested deeper than {DEEPEST}"),
            Self::NotJson(error) => write!(f, "not JSON: {error}"),
        }
    }
}

/// Parses JSON whose size and depth have been looked at before.
pub(super) fn read_json(payload: &[u8]) -> Result<Value, Unread> {
    if payload.len() > LARGEST_PAYLOAD {
        return Err(Unread::TooLarge);
    }
    if depth(payload) > DEEPEST {
        return Err(Unread::TooDeep);
    }
    serde_json::from_slice(payload).map_err(|error| Unread::NotJson(error.to_string()))
}

/// The deepest nesting of brackets outside of strings.
fn depth(json: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests;
