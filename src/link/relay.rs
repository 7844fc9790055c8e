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
use crate::room::fault::{Code, Fault, Part};
use crate::supervise::{Failure, Verdict};
use anyhow::{Context, ensure};
use rtc::ice::url::{ProtoType, SchemeType, Url};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::rustls::ClientConfig;

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
    credential: String,
    /// How a server over TLS proves who it is.
    tls: Arc<ClientConfig>,
}

impl Server {
    /// `url` as RFC 7064 and 7065 write it: `stun:host`, `turn:host:port?transport=tcp`, `turns:host`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(
        url: &str,
        username: String,
        credential: String,
        tls: Arc<ClientConfig>,
    ) -> anyhow::Result<Self> {
        let url = Url::parse_url(url)
            .with_context(|| format!("{url:?} is not like stun:host, turn:host:port or turns:host"))?;
        let datagrams = url.proto == ProtoType::Udp;
        ensure!(url.scheme != SchemeType::Stuns, "{url}: stuns is not supported, stun is");
        ensure!(!(url.scheme == SchemeType::Turns && datagrams), "{url}: turns goes over TCP");
        let relays = matches!(url.scheme, SchemeType::Turn | SchemeType::Turns);
        ensure!(
            !relays || !username.is_empty() && !credential.is_empty(),
            "{url}: no username or credential"
        );
        Ok(Self { url, username, credential, tls })
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
        say: impl Fn(Verdict) + Clone + Send + Sync + 'static,
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
async fn watch(server: Server, way: check::Way, part: Part, say: impl Fn(Verdict)) {
    let mut told: Option<Code> = None;
    let mut wait = *RETRY.start();
    loop {
        match check::check(&server, &way).await {
            Ok(()) => {
                if told.take().is_some() {
                    say(Verdict::Healed(part.clone()));
                }
                wait = *RETRY.start();
                sleep(CALM).await;
            }
            Err(Failure { code, cause }) => {
                if told.replace(code).is_some_and(|before| before != code) {
                    say(Verdict::Healed(part.clone()));
                }
                let (part, cause) = (part.clone(), Some(cause));
                say(Verdict::Raised(Fault { part, code, cause, retry_in: Some(wait) }));
                sleep(wait).await;
                wait = (wait * 2).min(*RETRY.end());
            }
        }
    }
}
