//! Topics and JSON ⇄ [`Event`](super::Event) and [`Publication`](super::Publication). The only maker of [`MemberId`].

use super::Event;
use bytes::Bytes;

/// A member's openid: `[A-Za-z0-9_-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(heapless::String<64>);

/// A room's id: the same alphabet as [`MemberId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomId(heapless::String<64>);

/// A signalling session: 16 bytes as 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId(heapless::String<32>);

/// A name for people: UTF-8, at most 64 bytes.
pub type Name = heapless::String<64>;

/// A kiosk's `desired` document, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {}

/// Why a message was not acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {}

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
    Snapshot { width: Option<u32> },
    Identify,
    Stats,
    Restart,
}

/// One signalling message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {}

impl MemberId {
    /// `None` if `text` is not `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (!text.is_empty() && text.bytes().all(allowed))
            .then(|| heapless::String::try_from(text).ok().map(Self))?
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

/// Reads one message for the kiosk `own`. `None` where there is nothing to say (a topic of no interest).
pub fn parse(_own: &MemberId, _message: &Incoming) -> Option<Event> {
    None
}
