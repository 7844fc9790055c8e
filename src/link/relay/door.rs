//! A relay on loopback: what webrtc sends to it goes over TCP or TLS to the real one.

use super::{Server, stream};
use anyhow::Context;
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

/// Sockets of webrtc that use the door at a time: 16 members, each on a few interfaces. One more: who was silent
/// for longest has to go.
const CLIENTS: usize = 64;
/// Datagrams of one of them on their way out. Full: lost, as on any busy way.
const DATAGRAMS: usize = 64;
/// A client refreshes what it has at least every five minutes (RFC 8656, section 3.2).
const SILENCE: Duration = Duration::from_secs(330);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The largest datagram.
const LARGEST: usize = 1 << 16;

/// What is known of a door from outside.
#[derive(Clone)]
pub struct Handle {
    pub address: SocketAddr,
    /// Why the server could not be reached at the last attempt.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Handle {
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// One socket of webrtc.
struct Client {
    outward: mpsc::Sender<Bytes>,
    heard: Instant,
}

/// Binds a door; the future is its life.
///
/// # Errors
/// No socket on loopback.
pub fn open(server: Server) -> anyhow::Result<(impl Future<Output = ()> + Send, Handle)> {
    let bind = || -> io::Result<_> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        Ok((socket.local_addr()?, UdpSocket::from_std(socket)?))
    };
    let (address, socket) = bind().context("bind on loopback")?;
    let handle = Handle { address, trouble: Arc::default() };
    Ok((live(Arc::new(socket), server, handle.clone()), handle))
}

async fn live(socket: Arc<UdpSocket>, server: Server, handle: Handle) {
    let mut tasks = tokio::task::JoinSet::new();
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut datagram = vec![0; LARGEST];
    loop {
        // An error tells of a client that is gone.
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else { continue };
        while tasks.try_join_next().is_some() {}
        let Some(message) = stream::message(&datagram[..length]) else { continue };
        clients.retain(|_, client| !client.outward.is_closed());
        if clients.len() == CLIENTS && !clients.contains_key(&from) {
            let longest = clients.iter().min_by_key(|(_, client)| client.heard).map(|(&address, _)| address);
            longest.map(|address| clients.remove(&address));
        }
        let client = clients.entry(from).or_insert_with(|| {
            let (outward, leaving) = mpsc::channel(DATAGRAMS);
            let (socket, server, handle) = (socket.clone(), server.clone(), handle.clone());
            tasks.spawn(async move { carry(&socket, from, leaving, &server, &handle).await });
            Client { outward, heard: Instant::now() }
        });
        client.heard = Instant::now();
        let _ = client.outward.try_send(message);
    }
}

/// Connects for one client and carries both ways, until either side ends it.
async fn carry(
    socket: &UdpSocket,
    client: SocketAddr,
    mut leaving: mpsc::Receiver<Bytes>,
    server: &Server,
    handle: &Handle,
) {
    let stream = match timeout(CONNECT_LIMIT, stream::connect(server)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return handle.note(Some(format!("{error:#}"))),
        Err(_) => return handle.note(Some("connect: no answer".into())),
    };
    handle.note(None);
    let (mut from_server, mut to_server) = tokio::io::split(stream);
    let outward = async {
        loop {
            tokio::select! {
                message = leaving.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    to_server.write_all(&message).await?;
                    to_server.flush().await?;
                }
                () = sleep_until(Instant::now() + SILENCE) => return Ok(()),
            }
        }
    };
    let inward = async {
        loop {
            let message = stream::read(&mut from_server).await?;
            // A client that is gone, or has no room: lost, as on any way.
            let _ = socket.try_send_to(&message, client);
        }
    };
    let end: io::Result<()> = tokio::select! { end = outward => end, end = inward => end };
    debug!(%client, ?end, "the door closes");
}
