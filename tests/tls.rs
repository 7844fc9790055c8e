//! The broker over TLS: a real mosquitto with the configuration that is shipped, certificates made on the spot. Who is
//! refused, by whom and in which words; that what is wrong heals; that nobody reads or writes for another; that secrets
//! stay secret.
#![allow(clippy::unwrap_used)] // a test that fails may panic

mod support;

use clap::Parser;
use parlor::link::mqtt::Settings;
use parlor::link::tls::Tls;
use parlor::room::fault::Code;
use parlor::secret::Secret;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::certificates::{Authority, Identity, Validity};
use support::link::{Link, message, settings, subscriptions};
use support::{Client, Mosquitto, Process, TempDir, within};

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");

#[tokio::test]
async fn with_the_authority_known_and_a_password_the_session_is_up_and_carries_messages() {
    let broker = Mosquitto::start();
    let mut controller = Client::connect_tls(&broker, "controller").await;
    controller.subscribe("lobby/reported").await;
    let mut link = Link::start(encrypted(&broker, "lobby"));

    link.expect_up().await;
    controller.publish("lobby/desired", false, "document").await;
    link.send(message("lobby/reported", "tiles")).await;

    assert_eq!(link.expect_message().await.payload, "document");
    assert_eq!(controller.next_text().await, "lobby/reported tiles");
    link.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_no_fault_of_tls() {
    let broker = Mosquitto::start();

    let mut link =
        Link::start(Settings { password: Some(Secret::from("guess")), ..encrypted(&broker, "lobby") });

    assert_eq!(link.expect_down().await, Code::BrokerAuth);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_told_in_words_and_a_good_one_heals_it() {
    let mut broker = Mosquitto::start();
    let stranger = Authority::named("a stranger");
    for (certificate, words) in [
        (stranger.issue("localhost", Validity::Now), "unknown issuer"),
        (broker.authority.issue("broker.example", Validity::Now), "not valid for name \"localhost\""),
        (broker.authority.issue("localhost", Validity::Expired), "certificate expired"),
        // As after a start without a clock: every certificate is of tomorrow.
        (broker.authority.issue("localhost", Validity::NotYet), "certificate not valid yet"),
    ] {
        let good = broker.authority.issue("localhost", Validity::Now);
        broker.present(&certificate);
        broker.restart();
        let mut link = Link::start(encrypted(&broker, "lobby"));

        let (code, cause) = link.expect_down_by().await;
        broker.present(&good);
        broker.restart();

        let reason = cause.errno.unwrap();
        assert_eq!((code, cause.op.as_str()), (Code::BrokerTls, "tls"), "{reason}");
        assert!(reason.contains(words), "{words}: {reason}");
        link.expect_up_at_last().await;
        link.close().await;
    }
}

#[test]
fn the_hint_for_a_certificate_speaks_of_the_clock() {
    assert!(Code::BrokerTls.hint().contains("clock"));
}

#[tokio::test]
async fn an_authority_of_the_same_name_and_another_key_is_unknown() {
    let broker = Mosquitto::start();
    let directory = TempDir::new("tls");
    let ca_file = directory.write("ca.crt", &Authority::new().certificate());
    let tls = Tls::load(Some(&ca_file), None).unwrap();
    let mut link = Link::start(Settings { tls: Some(tls), ..encrypted(&broker, "lobby") });

    let (code, cause) = link.expect_down_by().await;

    assert_eq!(code, Code::BrokerTls);
    assert!(cause.errno.unwrap().starts_with("unknown issuer"));
}

#[tokio::test]
async fn a_client_certificate_is_the_user_name_where_the_broker_demands_one() {
    let broker = Mosquitto::start_with(CLIENT_CERTIFICATES);
    let mut controller = Client::connect(broker.port, "controller").await;
    let mut link = Link::start(identified(&broker, "lobby", &broker.authority.issue("lobby", Validity::Now)));

    // Were it not `lobby`, it would not get this.
    link.expect_up().await;
    controller.publish("lobby/desired", false, "for lobby").await;
    assert_eq!(link.expect_message().await.payload, "for lobby");
    link.close().await;

    // The name comes from the certificate: another one in CONNECT does not help.
    let ward = broker.authority.issue("ward-3", Validity::Now);
    let mut pretender = Link::start(identified(&broker, "lobby", &ward));
    pretender.expect_up().await;
    pretender.send(message("lobby/reported", "mine")).await;
    assert_eq!(pretender.expect_denied().await, "lobby/reported");
}

#[tokio::test]
async fn without_a_client_certificate_or_with_a_bad_one_the_broker_ends_the_handshake() {
    let broker = Mosquitto::start_with(CLIENT_CERTIFICATES);
    let mut link = Link::start(encrypted(&broker, "lobby"));

    let (code, cause) = link.expect_down_by().await;

    assert_eq!(code, Code::BrokerTls, "{cause:?}");
    assert_eq!(cause.errno.as_deref(), Some("the server demands a client certificate"));
    for certificate in [
        Authority::named("a stranger").issue("lobby", Validity::Now),
        Authority::new().issue("lobby", Validity::Now),
        broker.authority.issue("lobby", Validity::Expired),
    ] {
        let mut link = Link::start(identified(&broker, "lobby", &certificate));

        let (code, cause) = link.expect_down_by().await;

        let reason = cause.errno.unwrap();
        assert_eq!(code, Code::BrokerTls, "{reason}");
        assert!(reason.starts_with("the server refuses the client certificate"), "{reason}");
    }
}

#[tokio::test]
async fn tls_to_a_port_without_is_a_fault_of_tls_and_its_words_say_so() {
    let broker = Mosquitto::start();
    let mut link = Link::start(Settings { port: broker.port, ..encrypted(&broker, "lobby") });

    let (code, cause) = link.expect_down_by().await;

    let reason = cause.errno.unwrap();
    assert_eq!(code, Code::BrokerTls, "{reason}");
    assert!(reason.contains("TLS"), "{reason}");
}

#[tokio::test]
async fn a_port_with_tls_is_no_broker_to_who_speaks_without() {
    let broker = Mosquitto::start();
    let mut link = Link::start(settings(broker.tls_port, "lobby"));

    assert_eq!(link.expect_down().await, Code::BrokerUnreachable);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let directory = TempDir::new("tls");
    let authority = Authority::new();
    let [one, other] = [0, 1].map(|_| authority.issue("lobby", Validity::Now));
    let certificate = directory.write("one.crt", &one.certificate);
    let key = directory.write("one.key", &one.key);
    let other_key = directory.write("other.key", &other.key);
    let garbage = directory.write("garbage", "-----BEGIN CERTIFICATE-----\nopen sesame\n");
    let missing = directory.path().join("missing");

    let identity = |certificate: &Path, key: &Path| Some((certificate.to_owned(), key.to_owned()));
    for (ca_file, identity, words) in [
        (Some(&missing), None, ["ca_file", "/missing"]),
        (Some(&garbage), None, ["ca_file", "/garbage"]),
        (Some(&key), None, ["ca_file", "/one.key"]),
        (Some(&certificate), identity(&missing, &key), ["certificate_file", "/missing"]),
        (Some(&certificate), identity(&certificate, &missing), ["key_file", "/missing"]),
        (Some(&certificate), identity(&certificate, &certificate), ["no private key", "/one.crt"]),
        (Some(&certificate), identity(&certificate, &other_key), ["is not the key of", "/other.key"]),
    ] {
        let error = Tls::load(ca_file.map(PathBuf::as_path), identity.as_ref()).unwrap_err();

        let said = format!("{error:#}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(!said.contains("sesame") && !said.contains(secret_line(&one)), "{said}");
    }
    assert_eq!(format!("{:?}", Tls::load(Some(&certificate), None).unwrap()), "Tls(…)");
}

#[tokio::test]
async fn a_kiosk_speaks_for_nobody_else_and_reads_nobody_elses_documents_whatever_it_subscribes_to() {
    let broker = Mosquitto::start();
    let mut admin = Client::connect_tls(&broker, "admin").await;
    let mut lobby = Client::connect_tls(&broker, "lobby").await;
    // What is retained comes with the subscription, what is not comes later.
    admin.publish("ward-3/desired", true, "secret").await;
    for filter in [
        "#",
        "parlor/1/#",
        "parlor/1/+/desired",
        "parlor/1/ward-3/#",
        "parlor/1/ward-3/desired",
        "+/1/ward-3/desired",
        "parlor/1/+/signal/+",
        "$share/group/parlor/1/#",
        "$share/group/parlor/1/+/desired",
        "$share/group/parlor/1/ward-3/desired",
        "$SYS/#",
    ] {
        lobby.subscribe_to(filter).await;
    }

    for topic in
        ["desired", "cmd/snapshot", "signal/dr-wang", "reported", "state", "fault/screen", "reply/ctl"]
    {
        admin.publish(&format!("ward-3/{topic}"), false, "secret").await;
    }
    admin.subscribe("#").await;
    for topic in ["reported", "state", "desired", "error", "fault/screen", "signal/dr-wang", "cmd/restart"] {
        let answer = lobby.publish(&format!("ward-3/{topic}"), false, "forged").await;
        assert_eq!(answer, PubAckReason::NotAuthorized, "{topic}");
    }
    let answer = lobby.publish("ward-3/signal/dr-wang", false, "forged").await;
    assert_eq!(answer, PubAckReason::NotAuthorized, "in the name of another");
    admin.publish("lobby/desired", false, "own").await;

    // A subscription of each kind matches, so it may come more than once; nothing else comes before it.
    assert_eq!(lobby.next_text().await, "lobby/desired own");
    // All that the admin sees is its own: the retained document first.
    assert_eq!(admin.next_text().await, "ward-3/desired secret");
    assert_eq!(admin.next_text().await, "lobby/desired own");

    // The same to the daemon's link: it is told what it may not do.
    let subscriptions = subscriptions(&["#", "+/desired"]);
    let mut link = Link::start(Settings { subscriptions, ..encrypted(&broker, "dr-wang") });
    link.expect_up().await;
    link.send(message("ward-3/reported", "forged")).await;
    assert_eq!(link.expect_denied().await, "ward-3/reported");
    admin.publish("ward-3/desired", false, "secret").await;
    admin.publish("dr-wang/desired", false, "own").await;
    let received = link.expect_message().await;
    assert_eq!((received.topic.as_str(), &received.payload[..]), ("dr-wang/desired", &b"own"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_trust_its_broker_says_so_once_and_heals() {
    let mut broker = Mosquitto::start();
    broker.present(&Authority::new().issue("localhost", Validity::Now));
    broker.restart();
    let directory = TempDir::new("distrust");
    let config = kiosk(&directory, "lobby", &broker, "");
    let lobby = Daemon::start(&directory, &config, "parlor=info");
    lobby.until_logged("BrokerTls").await;

    broker.present(&broker.authority.issue("localhost", Validity::Now));
    broker.restart();
    let mut observer = Client::connect(broker.port, "admin").await;
    observer.subscribe("lobby/error").await;
    observer.subscribe("lobby/fault/broker").await;

    // The queue of the time without a broker: said once, with what was wrong; then that it is over.
    let mut said = Vec::new();
    loop {
        let text = observer.next_text().await;
        let Some(record) = text.strip_prefix("lobby/error ") else { continue };
        let record: Value = serde_json::from_str(record).unwrap();
        let tls = record["code"] == "BROKER_TLS";
        if tls {
            said.push(record["active"] == true);
            let reason = record["cause"]["errno"].as_str().unwrap_or_default();
            assert!(reason.starts_with("unknown issuer"), "{record}");
        }
        if tls && record["active"] == false {
            break;
        }
    }
    assert_eq!(said, [true, false]);
    while observer.next_text().await != "lobby/fault/broker " {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_refuses_to_start_with_what_would_betray_or_not_work() {
    let directory = TempDir::new("refusal");
    let password = directory.write("password", "open sesame");
    let missing = directory.path().join("missing.crt");
    for (broker, words) in [
        (format!("address = 'broker.example'\npassword_file = {password:?}"), "password_in_clear"),
        (format!("address = 'mqtts://localhost'\nca_file = {missing:?}"), "missing.crt"),
    ] {
        let config = directory.write("kiosk.toml", &format!("id = 'lobby'\n[broker]\n{broker}\n"));

        for check in [&["--check"][..], &[]] {
            let output = parlor(["run", "--config"], [&config], check);

            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(words), "{check:?}: {said}");
            assert!(!said.contains("sesame"), "{said}");
        }
    }
    let told = "address = 'broker.example'\npassword_in_clear = true";
    let told = format!("id = 'lobby'\n[broker]\n{told}\npassword_file = {password:?}\n");
    let config = directory.write("kiosk.toml", &told);
    assert!(parlor(["run", "--config"], [&config], &["--check"]).status.success());
}

#[test]
fn a_password_file_that_everyone_can_read_is_a_warning_with_its_name() {
    let directory = TempDir::new("readers");
    let password = directory.write("password", "open sesame");
    let config = format!("id = 'lobby'\n[broker]\naddress = 'localhost'\npassword_file = {password:?}\n");
    let config = directory.write("kiosk.toml", &config);
    let warned = |mode| {
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = parlor(["run", "--config"], [&config], &["--check"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).contains(password.to_str().unwrap())
    };

    assert_eq!([0o644, 0o640, 0o600].map(warned), [true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_authorities_are_trusted_where_no_other_is_named() {
    let broker = Mosquitto::start();
    let directory = TempDir::new("system");
    let config = kiosk(&directory, "lobby", &broker, "");
    let own = std::fs::read_to_string(&config).unwrap();
    let config = directory.write("kiosk.toml", &own.replace("ca_file", "# ca_file"));
    let mut observer = Client::connect(broker.port, "admin").await;
    observer.subscribe("lobby/state").await;

    // OpenSSL's name for the file of the system.
    let file = broker.ca_file();
    let _lobby = Daemon::start_in(&directory, &config, "parlor=info", &[("SSL_CERT_FILE", &file)]);

    assert!(observer.next_text().await.starts_with("lobby/state {"));
}

#[tokio::test]
async fn the_operators_hand_speaks_tls_by_the_same_options() {
    let broker = Mosquitto::start();
    let demanding = Mosquitto::start_with(CLIENT_CERTIFICATES);
    let directory = TempDir::new("hand");
    let password = directory.write("password", "controller\n");
    let identity = demanding.authority.issue("controller", Validity::Now);
    let [certificate, key] = [("c.crt", &identity.certificate), ("c.key", &identity.key)]
        .map(|(name, pem)| directory.write(name, pem));
    let own = format!("--broker mqtts://localhost:{}", broker.tls_port);
    let [ca, other_ca] =
        [&broker, &demanding].map(|broker| format!("--ca-file {}", broker.ca_file().display()));
    let login = format!("--username controller --password-file {}", password.display());
    let with_certificate = format!(
        "--broker mqtts://localhost:{} {other_ca} --certificate-file {} --key-file {}",
        demanding.tls_port,
        certificate.display(),
        key.display()
    );

    for (line, outcome) in [
        (format!("{own} {ca} {login} show"), Ok(())),
        (format!("{own} {ca} --username controller --password controller show"), Ok(())),
        (format!("{with_certificate} show"), Ok(())),
        (format!("{own} {other_ca} {login} show"), Err("unknown issuer")),
        (format!("{own} {ca} --username controller --password guess show"), Err("NotAuthorized")),
        (format!("--broker broker.example {login} show"), Err("in the clear")),
        ("--broker broker.example --username a --password b show".to_owned(), Err("in the clear")),
        (format!("{own} {ca} --password guess show"), Err("--username")),
    ] {
        let args = Line::try_parse_from(line.split(' ')).unwrap().args;

        let said = within(&line, parlor::ctl::run_into(args, &mut Vec::new())).await;

        let said = said.map_err(|error| format!("{error:#} {error:?}"));
        match (&said, outcome) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(words)) => {
                assert!(error.contains(words) && !error.contains("guess"), "{line}: {error}");
            }
            _ => panic!("{line}: {said:?}"),
        }
    }
}

/// All that a daemon says while it is refused and while it is in a room, at the most talkative; all that it publishes.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_printed_or_published() {
    let mut broker = Mosquitto::start();
    let directories = ["lobby", "ward-3"].map(TempDir::new);
    let identity = broker.authority.issue("lobby", Validity::Now);
    let mut daemons = Vec::new();
    for (directory, id) in std::iter::zip(&directories, ["lobby", "ward-3"]) {
        let certificate = directory.write("own.crt", &identity.certificate);
        let key = directory.write("own.key", &identity.key);
        let more = format!("certificate_file = {certificate:?}\nkey_file = {key:?}\n");
        let config = kiosk(directory, id, &broker, &more);
        directory.write("password", PASSWORD);
        daemons.push(Daemon::start(directory, &config, "trace"));
    }
    // Refused first: the broker knows another password.
    for daemon in &daemons {
        daemon.until_logged("BrokerAuth").await;
    }
    broker.set_password("lobby", PASSWORD);
    broker.set_password("ward-3", PASSWORD);
    broker.restart();
    let mut observer = Client::connect(broker.port, "admin").await;
    observer.subscribe("#").await;

    for kiosk in ["lobby", "ward-3"] {
        let document = json!({ "room": "consult", "members": ["lobby", "ward-3"] });
        observer.publish(&format!("{kiosk}/desired"), true, &document.to_string()).await;
    }
    let mut published = String::new();
    let mut live = 0;
    while live < 2 {
        let text = observer.next_text().await;
        if let Some(reported) = text.strip_prefix("lobby/reported ") {
            let reported: Value = serde_json::from_str(reported).unwrap();
            let tiles = reported["tiles"].as_array().unwrap();
            live = tiles.iter().filter(|tile| tile["state"] == "live").count();
        }
        published.push_str(&text);
    }
    for daemon in &mut daemons {
        daemon.process.kill();
    }

    assert!(published.contains("BROKER_AUTH") && published.contains("lobby/info"));
    let mut logged = daemons.iter().map(Daemon::log).collect::<String>();
    assert!(logged.contains("TRACE") && logged.contains("broker up"));
    logged.push_str(&published);
    // As text, and as `Debug` prints bytes.
    for secret in [PASSWORD, CREDENTIAL, secret_line(&identity)] {
        let bytes = format!("{:?}", secret.as_bytes());
        let found = [secret, bytes.trim_matches(['[', ']'])].map(|form| logged.find(form));
        assert_eq!(
            found,
            [None, None],
            "{:?}",
            found.into_iter().flatten().next().map(|at| around(&logged, at))
        );
    }
}

/// What board/README.md tells to do, done.
#[tokio::test]
async fn the_certificates_that_the_readme_makes_are_taken_by_both_sides() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/board/README.md")).unwrap();
    let (_, recipe) = page.split_once("\n## Certificates\n").expect("a section of its own");
    let (_, recipe) = recipe.split_once("```sh\n").expect("commands");
    let (commands, _) = recipe.split_once("```").expect("their end");
    let directory = TempDir::new("recipe");
    let commands = commands.replace("broker.example", "localhost");

    let made =
        Command::new("sh").args(["-e", "-c", &commands]).current_dir(directory.path()).output().unwrap();

    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let mut broker = Mosquitto::start_with(CLIENT_CERTIFICATES);
    std::fs::copy(directory.path().join("parlor.crt"), broker.ca_file()).unwrap();
    broker.present(&Identity { certificate: read("server.crt"), key: read("server.key") });
    broker.restart();
    let [ca, certificate, key] =
        ["parlor.crt", "lobby.crt", "lobby.key"].map(|name| directory.path().join(name));
    let tls = Tls::load(Some(&ca), Some(&(certificate, key))).unwrap();
    let mut link = Link::start(Settings { tls: Some(tls), password: None, ..encrypted(&broker, "lobby") });
    link.expect_up().await;
    link.close().await;
}

/// Of the broker: who has no certificate does not enter, and the certificate's name is the user's.
const CLIENT_CERTIFICATES: &str = "cafile /etc/mosquitto/ca_certificates/parlor.crt\n\
                                   require_certificate true\n\
                                   use_identity_as_username true";
const PASSWORD: &str = "open-sesame-4711";
const CREDENTIAL: &str = "turn-sesame-4712";

/// `lobby` and the like with TLS and its password; the broker's authority is known.
fn encrypted(broker: &Mosquitto, id: &str) -> Settings {
    let tls = Tls::load(Some(&broker.ca_file()), None).unwrap();
    Settings { host: "localhost".into(), tls: Some(tls), ..settings(broker.tls_port, id) }
}

/// With a client certificate and no password.
fn identified(broker: &Mosquitto, id: &str, identity: &Identity) -> Settings {
    let directory = TempDir::new("identity");
    let files =
        (directory.write("own.crt", &identity.certificate), directory.write("own.key", &identity.key));
    let tls = Tls::load(Some(&broker.ca_file()), Some(&files)).unwrap();
    Settings { tls: Some(tls), password: None, ..encrypted(broker, id) }
}

/// A line of the private key.
fn secret_line(identity: &Identity) -> &str {
    identity.key.lines().nth(1).unwrap()
}

/// Some text before and after a place.
fn around(text: &str, at: usize) -> &str {
    text.get(at.saturating_sub(300)..(at + 100).min(text.len())).unwrap_or("between two letters")
}

/// A kiosk.toml with simulated devices; `more` belongs to `[broker]`.
fn kiosk(directory: &TempDir, id: &str, broker: &Mosquitto, more: &str) -> PathBuf {
    let password = directory.write("password", id);
    let (port, ca_file) = (broker.tls_port, broker.ca_file());
    directory.write(
        "kiosk.toml",
        &format!(
            "id = {id:?}\n\
             camera = {{ front = {{ device = \"sim\" }} }}\n\
             screen = {{ device = \"sim\" }}\n\
             sound = {{ microphone = \"none\", speaker = \"none\" }}\n\
             link = {{ bind = [\"127.0.0.1:0\"], ice_servers = [\n\
             {{ url = \"turn:127.0.0.1:9\", username = \"lobby\", credential = {CREDENTIAL:?} }} ] }}\n\
             [broker]\n\
             address = \"mqtts://localhost:{port}\"\n\
             password_file = {password:?}\n\
             ca_file = {ca_file:?}\n\
             {more}"
        ),
    )
}

/// `parlor run`, its log in a file. Killed on drop.
struct Daemon {
    process: Process,
    log: PathBuf,
}

impl Daemon {
    fn start(directory: &TempDir, config: &Path, log: &str) -> Self {
        Self::start_in(directory, config, log, &[])
    }

    fn start_in(directory: &TempDir, config: &Path, level: &str, environment: &[(&str, &PathBuf)]) -> Self {
        let log = directory.path().join("log");
        let mut command = Command::new(PARLOR);
        command.args(["run", "--config"]).arg(config).env("RUST_LOG", level);
        command.envs(environment.iter().copied()).stderr(std::fs::File::create(&log).unwrap());
        Self { process: Process::start(&mut command), log }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it says this.
    async fn until_logged(&self, words: &str) {
        let look = async {
            while !self.log().contains(words) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        within(words, look).await;
    }
}

fn parlor<const N: usize>(command: [&str; N], files: [&PathBuf; 1], more: &[&str]) -> Output {
    let mut parlor = Command::new(PARLOR);
    parlor.args(command).args(files).args(more).stdin(Stdio::null()).output().expect("run parlor")
}

/// As `main.rs` embeds it.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: parlor::ctl::Args,
}
