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
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::certificates::{Authority, Identity, Validity};
use support::{LIMIT, Process, TempDir, free_port};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

const TURNSERVER: &str = "/usr/bin/turnserver";
const USER: (&str, &str) = ("lobby", "secret");

/// Debian's coturn on loopback, with a certificate for `localhost`.
struct Coturn {
    port: u16,
    tls_port: u16,
    process: Process,
    directory: TempDir,
}

impl Coturn {
    fn start() -> Self {
        assert!(Path::new(TURNSERVER).exists(), "this test needs a real relay: apt-get install coturn");
        let directory = TempDir::new("coturn");
        let authority = Authority::new();
        let Identity { certificate, key } = authority.issue("localhost", Validity::Now);
        let pems =
            [("certificate.pem", certificate), ("key.pem", key), ("authority.pem", authority.certificate())];
        for (name, pem) in pems {
            directory.write(name, &pem);
        }

        let (port, tls_port) = (free_port(), free_port());
        let process = run(&directory, port, tls_port);
        Self { port, tls_port, process, directory }
    }

    fn restart(&mut self) {
        self.process.kill();
        self.process = run(&self.directory, self.port, self.tls_port);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// This relay over datagrams, and over TLS trusting its authority and no other.
    fn servers(&self, credential: &str) -> [Server; 2] {
        let tls = format!("turns:localhost:{}", self.tls_port);
        let authority = self.file("authority.pem");
        [
            server(&format!("turn:127.0.0.1:{}", self.port), credential, None),
            server(&tls, credential, Some(&authority)),
        ]
    }
}

fn run(directory: &TempDir, port: u16, tls_port: u16) -> Process {
    let file = |name: &str| directory.path().join(name).display().to_string();
    let mut command = Command::new(TURNSERVER);
    command.args(["-n", "--no-cli", "--log-file=stdout", "--lt-cred-mech", "--realm=parlor.test"]);
    command.args([
        "--listening-ip=127.0.0.1",
        "--relay-ip=127.0.0.1",
        "--allow-loopback-peers",
        "--no-dtls",
        "--no-rfc5780",
    ]);
    command.args([format!("--listening-port={port}"), format!("--tls-listening-port={tls_port}")]);
    command.args([format!("--user={}:{}", USER.0, USER.1), format!("--userdb={}", file("users"))]);
    command.args([format!("--cert={}", file("certificate.pem")), format!("--pkey={}", file("key.pem"))]);
    command.arg(format!("--pidfile={}", file("pid")));
    let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let start = Instant::now();
    for listening in [port, tls_port] {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, listening)).is_err() {
            assert!(start.elapsed() < LIMIT, "coturn does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // It takes datagrams when it answers one: a STUN binding request.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let request = [[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 1], [2; 10]].concat();
    while {
        let _ = socket.send_to(&request, (Ipv4Addr::LOCALHOST, port));
        socket.recv(&mut [0; 512]).is_err()
    } {
        assert!(start.elapsed() < LIMIT, "coturn does not answer");
    }
    process
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
    let [datagrams, _] = coturn.servers(USER.1);
    let (relays, mut said) = open(datagrams);

    meet(&relays).await;

    assert!(said.try_recv().is_err());
}

#[tokio::test]
async fn members_meet_on_a_relay_over_tls_with_an_authority_of_their_own() {
    let coturn = Coturn::start();
    let [_, tls] = coturn.servers(USER.1);
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
    for server in coturn.servers("wrong") {
        let (_relays, mut said) = open(server);

        assert_eq!(raised(&mut said).await.0, Code::TurnAuth);
    }
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_said_and_so_is_its_return() {
    let mut coturn = Coturn::start();
    coturn.process.kill();
    for server in coturn.servers(USER.1) {
        coturn.process.kill();
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
    let coturn = Coturn::start();
    let stranger = coturn.directory.write("stranger.pem", &Authority::named("a stranger").certificate());
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
