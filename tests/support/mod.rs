//! What tests with real processes need: a temporary directory, a broker, children that die with the test.
#![allow(dead_code)] // each test binary uses its part

pub mod certificates;
pub mod coturn;
pub mod link;

use certificates::{Authority, Identity, Validity};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Longer than anything takes on a busy machine; only a failing test waits for it.
pub const LIMIT: Duration = Duration::from_secs(60);
pub const PREFIX: &str = "parlor/1";
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A directory that is removed with its content.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique =
            format!("parlor-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).expect("make a temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it and answers its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("write into the temporary directory");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child process, killed (SIGKILL) and reaped on drop.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        Self(
            command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("start {program:?}: {error}")),
        )
    }

    /// SIGKILL: no goodbye of any kind.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// Ports that were free a moment ago, no two the same.
fn free_ports<const N: usize>() -> [u16; N] {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind on loopback");
    let listeners: [TcpListener; N] = std::array::from_fn(bind);
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}

/// Debian's mosquitto with the configuration and access control of `board/mosquitto`, on loopback, in the clear and with
/// TLS. Users: `lobby`, `ward-3`, `dr-wang`, `controller`, and `admin`, who may do everything (for the tests only). The
/// password is the user name.
pub struct Mosquitto {
    pub port: u16,
    pub tls_port: u16,
    /// Who signed the broker's certificate, unless a test makes it [`Mosquitto::present`] another.
    pub authority: Authority,
    process: Process,
    directory: TempDir,
}

impl Mosquitto {
    pub const USERS: [&str; 5] = ["lobby", "ward-3", "dr-wang", "controller", "admin"];

    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With further lines for the listener that speaks TLS. The authority's certificate is `ca.crt` there.
    pub fn start_with(tls_options: &str) -> Self {
        assert!(
            Path::new(MOSQUITTO).exists(),
            "this test needs a real broker: apt-get install mosquitto ({MOSQUITTO} is missing)"
        );
        let directory = TempDir::new("mosquitto");
        let [port, tls_port] = free_ports();
        let authority = Authority::new();
        directory.write("ca.crt", &authority.certificate());
        write_certificate(&directory, &authority.issue("localhost", Validity::Now));
        write_configuration(&directory, port, tls_port, tls_options);
        let process = run(&directory, [port, tls_port]);
        Self { port, tls_port, authority, process, directory }
    }

    /// SIGKILL; retained messages and sessions are gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = run(&self.directory, [self.port, self.tls_port]);
    }

    /// Shows another certificate from the next start on.
    pub fn present(&self, server: &Identity) {
        write_certificate(&self.directory, server);
    }

    /// Gives a user another password, from the next start on.
    pub fn set_password(&self, user: &str, password: &str) {
        set_password(&self.directory, user, password);
    }

    /// The certificate of [`Mosquitto::authority`] as a file.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }
}

fn write_certificate(directory: &TempDir, server: &Identity) {
    directory.write("server.crt", &server.certificate);
    directory.write("server.key", &server.key);
}

fn set_password(directory: &TempDir, user: &str, password: &str) {
    let file = directory.path().join("parlor.passwd");
    let create: &[&str] = if file.exists() { &[] } else { &["-c"] };
    let mut command = Command::new("mosquitto_passwd");
    let status = status_of(command.args(create).arg("-b").arg(file).args([user, password]));
    assert!(status.success(), "mosquitto_passwd for {user}: {status}");
}

fn write_configuration(directory: &TempDir, port: u16, tls_port: u16, tls_options: &str) {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/board/mosquitto");
    let acl = std::fs::read_to_string(format!("{shipped}/parlor.acl")).expect("read parlor.acl");
    directory.write("parlor.acl", &format!("{acl}\nuser admin\ntopic readwrite #\n"));
    for user in Mosquitto::USERS {
        set_password(directory, user, user);
    }

    // The shipped file with this test's ports and paths, so that what is shipped is what is proven.
    let config = std::fs::read_to_string(format!("{shipped}/mosquitto.conf")).expect("read mosquitto.conf");
    let own = |name: &str| directory.path().join(name).display().to_string();
    let config = config
        .replace("listener 1883 127.0.0.1", &format!("listener {port} 127.0.0.1"))
        .replace("listener 8883\n", &format!("listener {tls_port} 127.0.0.1\n{tls_options}\n"))
        .replace("/etc/mosquitto/certs/server.crt", &own("server.crt"))
        .replace("/etc/mosquitto/certs/server.key", &own("server.key"))
        .replace("/etc/mosquitto/ca_certificates/parlor.crt", &own("ca.crt"))
        .replace("/etc/mosquitto/parlor.passwd", &own("parlor.passwd"))
        .replace("/etc/mosquitto/parlor.acl", &own("parlor.acl"))
        .replace("persistence true", "persistence false");
    // Run by root it would become the user `mosquitto`, who cannot read this directory.
    directory.write("mosquitto.conf", &format!("{config}\nuser root\n"));
}

fn status_of(command: &mut Command) -> std::process::ExitStatus {
    let program = command.get_program().to_owned();
    command.status().unwrap_or_else(|error| panic!("run {program:?} (apt-get install mosquitto): {error}"))
}

/// Starts mosquitto and waits until it accepts connections.
fn run(directory: &TempDir, ports: [u16; 2]) -> Process {
    let log = directory.path().join("mosquitto.log");
    let output = std::fs::File::create(&log).expect("make mosquitto's log");
    let mut process = Process::start(
        Command::new(MOSQUITTO)
            .arg("-c")
            .arg(directory.path().join("mosquitto.conf"))
            .stdout(output.try_clone().expect("share the log"))
            .stderr(output),
    );
    let deadline = Instant::now() + LIMIT;
    let listens = |port: u16| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    while !ports.into_iter().all(listens) {
        let ended = process.0.try_wait().expect("ask for mosquitto's state");
        if ended.is_some() || Instant::now() > deadline {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("mosquitto does not listen on {ports:?} ({ended:?}):\n{log}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}

/// Fails the test by name if `future` takes longer than [`LIMIT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what}: nothing within {LIMIT:?}"))
}

/// A plain MQTT 5 client, so that the link is not tested against itself.
pub struct Client {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    /// Messages that came while something else was waited for.
    messages: std::collections::VecDeque<Publish>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Connects as `user` (password: the same).
    pub async fn connect(port: u16, user: &str) -> Self {
        Self::connect_as(port, user, user).await
    }

    pub async fn connect_as(port: u16, user: &str, client_id: &str) -> Self {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
        options.set_credentials(user, user);
        Self::connect_with(options).await
    }

    /// Connects as `user` (password: the same) with TLS.
    pub async fn connect_tls(broker: &Mosquitto, user: &str) -> Self {
        let mut options = MqttOptions::new(user, "localhost", broker.tls_port);
        let ca = broker.authority.certificate().into_bytes();
        let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth: None };
        options.set_credentials(user, user).set_transport(Transport::Tls(tls));
        Self::connect_with(options).await
    }

    async fn connect_with(mut options: MqttOptions) -> Self {
        options.set_max_packet_size(Some(256 << 10));
        let (client, mut event_loop) = AsyncClient::new(options, 64);
        let (sender, packets) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok(event) = event_loop.poll().await {
                if let Event::Incoming(packet) = event {
                    let _ = sender.send(packet);
                }
            }
        });
        let mut client = Self { client, packets, messages: Default::default(), task };
        client.wait_for("CONNACK", |packet| matches!(packet, Packet::ConnAck(_))).await;
        client
    }

    /// Subscribes below the prefix, at QoS 1.
    pub async fn subscribe(&mut self, topic: &str) {
        self.subscribe_to(&format!("{PREFIX}/{topic}")).await;
    }

    /// Subscribes to a filter as it stands, at QoS 1.
    pub async fn subscribe_to(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.expect("the client runs");
        self.wait_for("SUBACK", |packet| matches!(packet, Packet::SubAck(_))).await;
    }

    /// Publishes below the prefix at QoS 1 and answers what the broker says.
    pub async fn publish(&mut self, topic: &str, retain: bool, payload: &str) -> PubAckReason {
        self.publish_with(topic, retain, payload, PublishProperties::default()).await
    }

    pub async fn publish_with(
        &mut self,
        topic: &str,
        retain: bool,
        payload: impl Into<Vec<u8>>,
        properties: PublishProperties,
    ) -> PubAckReason {
        let topic = format!("{PREFIX}/{topic}");
        let sent =
            self.client.publish_with_properties(topic, QoS::AtLeastOnce, retain, payload.into(), properties);
        sent.await.expect("the client runs");
        match self.wait_for("PUBACK", |packet| matches!(packet, Packet::PubAck(_))).await {
            Packet::PubAck(ack) => ack.reason,
            _ => unreachable!("waited for a PUBACK"),
        }
    }

    /// The next message.
    pub async fn next(&mut self) -> Publish {
        if let Some(publish) = self.messages.pop_front() {
            return publish;
        }
        match self.wait_for("message", |packet| matches!(packet, Packet::Publish(_))).await {
            Packet::Publish(publish) => publish,
            _ => unreachable!("waited for a PUBLISH"),
        }
    }

    /// The next message as `topic payload`, the prefix taken off.
    pub async fn next_text(&mut self) -> String {
        text(&self.next().await)
    }

    async fn wait_for(&mut self, what: &str, wanted: impl Fn(&Packet) -> bool) -> Packet {
        loop {
            let packet = within(what, self.packets.recv()).await;
            let packet = packet.unwrap_or_else(|| panic!("the connection ended before a {what}"));
            if wanted(&packet) {
                return packet;
            }
            if let Packet::Publish(publish) = packet {
                self.messages.push_back(publish);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `topic payload`, the prefix taken off.
pub fn text(publish: &Publish) -> String {
    let topic = String::from_utf8_lossy(&publish.topic);
    let topic =
        topic.strip_prefix(PREFIX).and_then(|topic| topic.strip_prefix('/')).unwrap_or(&topic).to_owned();
    format!("{topic} {}", String::from_utf8_lossy(&publish.payload))
}
