//! Relays (TURN servers, RFC 8656): what webrtc is told of them, and whether they would relay at all.
//!
//! ```text
//!  webrtc ──UDP──────────────────────────────► turn:host
//!  webrtc ──UDP──► door on loopback ──TCP/TLS─► turn:host?transport=tcp, turns:host
//! ```
//! webrtc speaks UDP to relays and nothing else. Networks that let only TLS out are reached through a [`door`]: to
//! webrtc it is a relay on this machine.

mod check;
mod door;
mod stream;

use super::peer::IceServer;
use super::tls::Tls;
use crate::room::Event;
use crate::room::fault::{Code, Fault, Part};
use crate::secret::Secret;
use anyhow::{Context, ensure};
use rtc::ice::url::{ProtoType, SchemeType, Url};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often a relay that works is asked again.
const CALM: Duration = Duration::from_secs(60);
/// How soon one that does not is.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(30);
/// Servers that are used, at most.
pub const MOST: usize = 8;

/// A server that helps connections through address translation.
#[derive(Clone)]
pub struct Server {
    url: Url,
    username: String,
    credential: Secret,
    /// Whom to trust where it is spoken to over TLS.
    tls: Option<Tls>,
}

impl Server {
    /// `url` as RFC 7064 and 7065 write it: `stun:host`, `turn:host:port?transport=tcp`, `turns:host`. A `turns` server
    /// has a certificate of an authority in the PEM file `ca_file`, or of one that the system trusts.
    ///
    /// # Errors
    /// What is wrong with the URL or the file, for people.
    pub fn new(
        url: &str,
        username: &str,
        credential: &Secret,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let written = url;
        let url = Url::parse_url(written)
            .with_context(|| format!("{written:?} is not like stun:host, turn:host:port or turns:host"))?;
        ensure!(url.scheme != SchemeType::Stuns, "{written}: only stun is supported, not stuns");
        let tls = (url.scheme == SchemeType::Turns).then(|| Tls::load(ca_file, None)).transpose()?;
        ensure!(tls.is_some() || ca_file.is_none(), "{written}: ca_file is for turns");
        let server = Self { url, username: username.to_owned(), credential: credential.clone(), tls };
        let known = !server.username.is_empty() && !server.credential.reveal().is_empty();
        ensure!(known || !server.relays(), "{written}: no username or no credential");
        Ok(server)
    }

    fn relays(&self) -> bool {
        matches!(self.url.scheme, SchemeType::Turn | SchemeType::Turns)
    }

    /// Whether webrtc can speak to it by itself.
    fn takes_datagrams(&self) -> bool {
        self.url.scheme == SchemeType::Turn && self.url.proto == ProtoType::Udp
    }

    /// `host:port`
    fn address(&self) -> String {
        match self.url.host.contains(':') {
            true => format!("[{}]:{}", self.url.host, self.url.port),
            false => format!("{}:{}", self.url.host, self.url.port),
        }
    }
}

/// The servers while they are used; dropped: their doors close.
pub struct Relays {
    servers: Vec<IceServer>,
    _tasks: JoinSet<()>,
}

impl Relays {
    /// Opens the doors, and says by `say` which relay does not work, [`Part::Relay`] being its place in `servers`
    /// from 1.
    ///
    /// # Errors
    /// No socket on loopback.
    pub fn open(
        servers: &[Server],
        say: impl Fn(Event) + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let mut known = Vec::new();
        for (place, server) in (1..).zip(servers.iter().take(MOST)) {
            let mut url = server.url.to_string();
            if server.relays() {
                let mut way = check::Way::Direct;
                if !server.takes_datagrams() {
                    let (door, handle) = door::open(server.clone())?;
                    url = format!("turn:{}?transport=udp", handle.address);
                    tasks.spawn(door);
                    way = check::Way::Door(handle);
                }
                tasks.spawn(watch(server.clone(), way, Part::Relay(place), say.clone()));
            }
            let (username, credential) = (server.username.clone(), server.credential.clone());
            known.push(IceServer { url, username, credential });
        }
        Ok(Self { servers: known, _tasks: tasks })
    }

    /// What webrtc is to be told.
    pub fn servers(&self) -> Vec<IceServer> {
        self.servers.clone()
    }
}

/// Asks one relay again and again.
async fn watch(server: Server, way: check::Way, part: Part, say: impl Fn(Event)) {
    let mut told: Option<Code> = None;
    let mut wait = *RETRY.start();
    loop {
        match check::check(&server, &way).await {
            Ok(()) => {
                if told.take().is_some() {
                    say(Event::Healed(part.clone()));
                }
                wait = *RETRY.start();
                sleep(CALM).await;
            }
            Err((code, cause)) => {
                if told.replace(code).is_some_and(|before| before != code) {
                    say(Event::Healed(part.clone()));
                }
                let (part, cause) = (part.clone(), Some(cause));
                say(Event::Raised(Fault { part, code, cause, retry_in: Some(wait) }));
                sleep(wait).await;
                wait = (wait * 2).min(*RETRY.end());
            }
        }
    }
}
