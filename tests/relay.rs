//! Members that reach each other over a relay only: Debian's coturn, over UDP, TCP and TLS with a certificate authority
//! of one's own; and what is said when it cannot be used.

#![allow(clippy::unwrap_used)]

#[path = "peers/side.rs"]
mod side;
mod support;

use parlor::link::peer::Settings;
use parlor::link::relay::{Relays, Server};
use parlor::room::fault::{Code, Part};
use parlor::room::{Event, PeerEvent, Role};
use side::{Camera, Side, introduce, settings};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;
use support::certificates::Authority;
use support::coturn::Coturn;
use support::{LIMIT, TempDir};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

const USER: (&str, &str) = Coturn::USER;

/// This relay over datagrams, and over TLS trusting its authority and no other.
fn servers(coturn: &Coturn, credential: &str) -> [Server; 2] {
    let tls = format!("turns:localhost:{}", coturn.tls_port);
    let authority = coturn.file("authority.pem");
    [
        server(&format!("turn:127.0.0.1:{}", coturn.port), credential, None),
        server(&tls, credential, Some(&authority)),
    ]
}

fn server(url: &str, credential: &str, ca_file: Option<&Path>) -> Server {
    Server::new(url, USER.0, &credential.into(), ca_file).unwrap()
}

/// Uses this server alone; what is said of it comes out of the channel.
fn open(server: Server) -> (Relays, mpsc::UnboundedReceiver<Event>) {
    let (say, said) = mpsc::unbounded_channel();
    let relays = Relays::open(&[server], move |event| drop(say.send(event))).unwrap();
    (relays, said)
}

async fn raised(said: &mut mpsc::UnboundedReceiver<Event>) -> (Code, String) {
    match timeout(LIMIT, said.recv()).await.expect("something is said in time") {
        Some(Event::Raised(fault)) if fault.part == Part::Relay(1) => {
            (fault.code, fault.cause.and_then(|cause| cause.errno).unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

/// Two members who see each other over this server and no other way.
async fn meet(relays: &Relays) {
    let settings = Settings { ice_servers: relays.servers(), relay_only: true, ..settings() };
    let mut left = Side::with(&settings, Role::Offer);
    let PeerEvent::Offer(offer) = left.state().await else { panic!("an offer first") };
    let mut right = Side::with(&settings, Role::Answer(offer));
    introduce(&mut left, &mut right, None, |answer| answer).await;
    let (mut camera_left, mut camera_right) = (Camera::new(1), Camera::new(2));
    let mut seen = [0; 2];
    let mut due = interval(Duration::from_millis(33));
    let pictures = async {
        while seen.iter().any(|&seen| seen < 30) {
            due.tick().await;
            // webrtc drops what comes over a relay before the track is known: a keyframe is asked for again.
            for (side, camera) in [(&mut left, &mut camera_left), (&mut right, &mut camera_right)] {
                let unit = if side.wants_keyframe() { camera.keyframe() } else { camera.shoot() };
                side.peer.send(&unit);
            }
            for (side, seen) in [&mut left, &mut right].into_iter().zip(&mut seen) {
                *seen += std::iter::from_fn(|| side.units.try_recv().ok()).count();
            }
        }
    };
    timeout(LIMIT, pictures).await.expect("pictures both ways in time");
    left.peer.close().await;
    right.peer.close().await;
}

#[tokio::test]
async fn members_meet_on_a_relay_over_datagrams() {
    let coturn = Coturn::start();
    let [datagrams, _] = servers(&coturn, USER.1);
    let (relays, mut said) = open(datagrams);

    meet(&relays).await;

    assert!(said.try_recv().is_err());
}

#[tokio::test]
async fn members_meet_on_a_relay_over_tls_with_an_authority_of_their_own() {
    let coturn = Coturn::start();
    let [_, tls] = servers(&coturn, USER.1);
    let (relays, mut said) = open(tls);

    meet(&relays).await;

    assert!(said.try_recv().is_err());
}

#[tokio::test]
async fn members_meet_on_a_relay_over_tcp() {
    let coturn = Coturn::start();
    let url = format!("turn:localhost:{}?transport=tcp", coturn.port);
    let (relays, mut said) = open(server(&url, USER.1, None));

    meet(&relays).await;

    assert!(said.try_recv().is_err());
}

#[tokio::test]
async fn a_wrong_credential_is_said() {
    let coturn = Coturn::start();
    for server in servers(&coturn, "wrong") {
        let (_relays, mut said) = open(server);

        assert_eq!(raised(&mut said).await.0, Code::TurnAuth);
    }
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_said_and_so_is_its_return() {
    let mut coturn = Coturn::start();
    coturn.kill();
    for server in servers(&coturn, USER.1) {
        coturn.kill();
        let (_relays, mut said) = open(server);
        let (code, why) = raised(&mut said).await;
        assert_eq!(code, Code::TurnUnreachable);
        assert!(why.contains("refused"), "{why}");

        coturn.restart();

        let healed = async { while !matches!(said.recv().await, Some(Event::Healed(Part::Relay(1)))) {} };
        timeout(LIMIT, healed).await.expect("healed in time");
    }
}

#[tokio::test]
async fn a_relay_that_does_not_answer_is_said() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("turn:127.0.0.1:{}", silent.local_addr().unwrap().port());
    let (_relays, mut said) = open(server(&url, USER.1, None));

    assert_eq!(raised(&mut said).await, (Code::TurnUnreachable, "no answer".into()));
}

#[tokio::test]
async fn a_relay_whose_certificate_is_of_somebody_else_is_not_used() {
    let (coturn, directory) = (Coturn::start(), TempDir::new("stranger"));
    let stranger = directory.write("stranger.pem", &Authority::named("a stranger").certificate());
    let authority = coturn.file("authority.pem");
    for (host, ca_file, words) in
        [("localhost", &stranger, "unknown issuer"), ("127.0.0.1", &authority, "not valid for name")]
    {
        let url = format!("turns:{host}:{}", coturn.tls_port);
        let (_relays, mut said) = open(server(&url, USER.1, Some(ca_file)));

        let (code, why) = raised(&mut said).await;
        assert_eq!(code, Code::TurnUnreachable);
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn a_url_that_cannot_be_used_is_refused_in_words() {
    for url in ["turn.example", "stuns:stun.example", "http://turn.example"] {
        let refused = Server::new(url, "a", &"b".into(), None);
        assert!(refused.is_err_and(|error| error.to_string().contains(url)), "{url}");
    }
    assert!(Server::new("turn:turn.example", "", &"b".into(), None).is_err());
}
