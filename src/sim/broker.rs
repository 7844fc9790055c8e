//! A broker in the process, on loopback (rumqttd), for `parlor demo` and tests. No access control, no memory on
//! disk, and it cannot be stopped: it ends with the process. It logs every visitor; a log filter wants `rumqttd=off`.

use anyhow::{Context, bail};
use rumqttd::{Config, ConnectionSettings, RouterConfig, ServerSettings};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long the broker may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two attempts to reach it.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// As the link's own limit: a snapshot fits.
const MAX_PAYLOAD: usize = 256 << 10;
/// Retained messages to a QoS 1 subscriber are cut at this number and the rest never comes.
const MAX_INFLIGHT: usize = 1000;
const MAX_CONNECTIONS: usize = 100;

/// A running broker: MQTT 5 on TCP, loopback only.
#[derive(Clone, Copy, Debug)]
pub struct Broker {
    pub port: u16,
}

/// Starts the broker on `port` (0: any free one) and waits until it answers a CONNECT.
///
/// # Errors
/// The port is taken, or the broker does not answer within five seconds.
pub fn start(port: u16) -> anyhow::Result<Broker> {
    // The broker only logs a failed bind, so it is tried here first; the listener is closed before it starts.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .and_then(|listener| listener.local_addr())
        .with_context(|| format!("start the broker on 127.0.0.1:{port}"))?;
    let config = config(address);
    std::thread::Builder::new()
        .name("broker".into())
        .spawn(move || {
            if let Err(error) = rumqttd::Broker::new(config).start() {
                tracing::error!(%error, "the broker ended");
            }
        })
        .context("start the broker's thread")?;

    let deadline = Instant::now() + START_LIMIT;
    while let Err(error) = probe(address) {
        if Instant::now() > deadline {
            bail!("the broker on {address} does not answer: {error}");
        }
        std::thread::sleep(PROBE_PAUSE);
    }
    Ok(Broker { port: address.port() })
}

fn config(address: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: MAX_PAYLOAD,
        max_inflight_count: MAX_INFLIGHT,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "broker-v5".into(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    Config {
        router: RouterConfig {
            max_connections: MAX_CONNECTIONS,
            max_outgoing_packet_count: 200,
            max_segment_size: 1 << 20,
            max_segment_count: 4,
            ..Default::default()
        },
        v5: Some(HashMap::from([("1".into(), server)])),
        ..Default::default()
    }
}

/// CONNECT of MQTT 5: client id `probe`, Clean Start, keep alive 5 s (MQTT 5 section 3.1).
const CONNECT: &[u8] = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x05probe";
/// Normal disconnection (section 3.14).
const DISCONNECT: &[u8] = b"\xe0\x00";
/// First byte of CONNACK (section 3.2).
const CONNACK: u8 = 0x20;

/// Asks whether a broker answers at this address.
fn probe(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, START_LIMIT)?;
    stream.set_read_timeout(Some(START_LIMIT))?;
    stream.write_all(CONNECT)?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    stream.write_all(DISCONNECT)?;
    match first[0] {
        CONNACK => Ok(()),
        byte => Err(std::io::Error::other(format!("answered CONNECT with packet type {byte:#04x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_on_any_free_port_answers() {
        let broker = start(0).unwrap();

        assert_ne!(broker.port, 0);
        probe((Ipv4Addr::LOCALHOST, broker.port).into()).unwrap();
    }

    #[test]
    fn a_taken_port_is_a_clear_error() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();

        let error = start(port).unwrap_err();

        assert_eq!(error.to_string(), format!("start the broker on 127.0.0.1:{port}"));
    }
}
