//! Whether a relay would relay: a place on it is asked for, and given back.

use super::{Server, door};
use crate::room::fault::{Cause, Code};
use bytes::BytesMut;
use rtc::crypto::default_provider;
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext};
use rtc::turn::client::{Client, ClientConfig, Event};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{sleep_until, timeout};

/// How long the server may take for everything.
const LIMIT: Duration = Duration::from_secs(6);
/// The largest answer that is read.
const LARGEST: usize = 2_048;
/// Error codes that say who we are not (RFC 8489, section 14.8): unauthorized, forbidden, stale or wrong credentials.
const NOT_US: [&str; 4] = ["error 401", "error 403", "error 438", "error 441"];

/// How webrtc gets there.
pub enum Way {
    Direct,
    Door(door::Handle),
}

/// Asks the server for a relayed address as webrtc would, and gives it back.
///
/// # Errors
/// [`Code::TurnAuth`] or [`Code::TurnUnreachable`].
pub async fn check(server: &Server, way: &Way) -> Result<(), (Code, Cause)> {
    let trouble = || match way {
        Way::Direct => None,
        Way::Door(door) => door.trouble(),
    };
    let cause =
        |op: &str, why| Cause { op: op.into(), errno: Some(why), target: Some(server.url.to_string()) };
    let unreachable = |op: &str, why: String| (Code::TurnUnreachable, cause(op, why));
    let address = match way {
        Way::Door(door) => door.address,
        Way::Direct => {
            let found = timeout(LIMIT, lookup_host(server.address())).await;
            let found = found.map_err(|_| unreachable("resolve", "no answer".into()))?;
            let mut found = found.map_err(|error| unreachable("resolve", error.to_string()))?;
            found.next().ok_or_else(|| unreachable("resolve", "no address".into()))?
        }
    };
    match timeout(LIMIT, allocate(server, address)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) if NOT_US.iter().any(|code| why.contains(code)) => {
            Err((Code::TurnAuth, cause("allocate", why)))
        }
        Ok(Err(why)) => Err(unreachable("allocate", why)),
        Err(_) => Err(unreachable("allocate", trouble().unwrap_or_else(|| "no answer".into()))),
    }
}

async fn allocate(server: &Server, address: SocketAddr) -> Result<(), String> {
    let words = |error: std::io::Error| error.to_string();
    let local = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(local).await.map_err(words)?;
    socket.connect(address).await.map_err(words)?;
    let transport = TransportContext {
        local_addr: socket.local_addr().map_err(words)?,
        peer_addr: address,
        ..TransportContext::default()
    };
    let config = ClientConfig {
        stun_serv_addr: address.to_string(),
        turn_serv_addr: address.to_string(),
        local_addr: transport.local_addr,
        username: server.username.clone(),
        password: server.credential.reveal().to_owned(),
        ..ClientConfig::default()
    };
    let provider = default_provider().map_err(|error| error.to_string())?;
    let mut client = Client::new(config, provider).map_err(|error| error.to_string())?;
    client.allocate(Instant::now()).map_err(|error| error.to_string())?;
    let mut answer = [0; LARGEST];
    loop {
        while let Some(request) = client.poll_write() {
            socket.send(&request.message).await.map_err(words)?;
        }
        match client.poll_event() {
            Some(Event::AllocateResponse(_, relayed)) => {
                // Given back, as far as one datagram can say it; else it runs out in ten minutes.
                let closed = client.relay(relayed).and_then(|mut relay| relay.close(Instant::now()));
                if let (Ok(()), Some(request)) = (closed, client.poll_write()) {
                    let _ = socket.send(&request.message).await;
                }
                return Ok(());
            }
            Some(Event::AllocateError(_, error)) => return Err(error.to_string()),
            Some(Event::TransactionTimeout(_)) => return Err("no answer".into()),
            Some(_) => continue,
            None => {}
        }
        let due = client.poll_timeout().unwrap_or_else(|| Instant::now() + LIMIT);
        tokio::select! {
            length = socket.recv(&mut answer) => {
                let message = BytesMut::from(&answer[..length.map_err(words)?]);
                // What is no answer to us is none.
                let _ = client.handle_read(TaggedBytesMut { now: Instant::now(), transport, message });
            }
            () = sleep_until(due.into()) => {
                client.handle_timeout(Instant::now()).map_err(|error| error.to_string())?;
            }
        }
    }
}
