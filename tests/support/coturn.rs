//! A real relay.

use super::certificates::{Authority, Identity, Validity};
use super::{LIMIT, Process, TempDir, free_port};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TURNSERVER: &str = "/usr/bin/turnserver";

/// Debian's coturn on loopback, with a certificate for `localhost`.
pub struct Coturn {
    pub port: u16,
    pub tls_port: u16,
    process: Process,
    directory: TempDir,
}

impl Coturn {
    pub const USER: (&str, &str) = ("lobby", "secret");

    pub fn start() -> Self {
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

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn restart(&mut self) {
        self.process.kill();
        self.process = run(&self.directory, self.port, self.tls_port);
    }

    /// A file of its: `authority.pem` is whom to trust.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
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
    command.args([
        format!("--user={}:{}", Coturn::USER.0, Coturn::USER.1),
        format!("--userdb={}", file("users")),
    ]);
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
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let request = [[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 1], [2; 10]].concat();
    while {
        let _ = socket.send_to(&request, (Ipv4Addr::LOCALHOST, port));
        socket.recv(&mut [0; 512]).is_err()
    } {
        assert!(start.elapsed() < LIMIT, "coturn does not answer");
    }
    process
}
