//! The connection to the broker: one task, bounded queues, back-off for ever.

use crate::room::Publication;
use crate::room::fault::{Cause, Code};
use crate::room::message::Incoming;
use tokio::sync::mpsc;

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    /// User name and client id.
    pub id: String,
    pub password: Option<String>,
    /// As `parlor/1`, without a slash at the end.
    pub prefix: String,
    /// `{id}/state` when the connection dies.
    pub will: Publication,
}

/// What the broker's side says.
#[derive(Clone, Debug)]
pub enum MqttEvent {
    /// CONNACK and every SUBACK have come.
    Up,
    Down {
        code: Code,
        cause: Cause,
    },
    /// A topic that the broker's access control refuses; the connection stays.
    Denied {
        topic: String,
    },
    Message(Incoming),
}

/// Keeps the session with the broker until `outgoing` is closed, then says goodbye (clean DISCONNECT, so
/// that the will is not sent) after all that was queued has been acknowledged or two seconds have passed.
pub async fn run(
    _settings: Settings,
    _outgoing: mpsc::Receiver<Publication>,
    _events: mpsc::Sender<MqttEvent>,
) {
}
