//! The daemon as systemd starts it on a board, under `systemd/parlor.service` as it is: what the unit takes away must
//! not be missed by the camera, the screen, the console, the sound cards or the network.

use crate::bed::{COLOUR_SQUARES, out, pattern};
use crate::screen::text_is_shown;
use crate::support::{Client, Process, TempDir, text};
use parlor::sim::broker;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::time::timeout;

/// Longer than anything takes: connections are made at a hundredth of their speed, and a hang is one after 30 s.
const LIMIT: Duration = Duration::from_secs(120);
/// Five times what the daemon may take to say goodbye on a board.
const GOODBYE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_lacks_nothing_under_its_unit_comes_back_from_a_hang_and_says_goodbye() {
    as_on_a_board();
    pattern("/dev/video0", COLOUR_SQUARES);
    let port = broker::start(0).expect("a broker").port;
    let mut ear = Ear::new(port, "controller").await;
    let sound = "[sound]\nmicrophone = 'hw:Loopback,1,0'\nspeaker = 'hw:Loopback,0,1'\n";
    let devices = "screen = { device = '/dev/fb0', flip = false }\n\
                   camera.front = { device = '/dev/video0', width = 640, height = 360, rate_hz = 10 }\n";
    let lobby = format!("id = 'lobby'\nbroker.address = '127.0.0.1:{port}'\n{devices}{sound}");
    fs::write("/etc/parlor/kiosk.toml", lobby).expect("the configuration can be written");
    run("systemd-tmpfiles --create /usr/lib/tmpfiles.d/parlor.conf");
    let _ward = ward(port);

    run("systemctl start parlor.service");
    for id in ["lobby", "ward"] {
        let document = json!({ "room": "r", "members": ["lobby", "ward"] });
        ear.client.publish(&format!("{id}/desired"), true, &document.to_string()).await;
    }
    ear.until("all is well", |ear| ear.is_well()).await;
    assert_eq!(["ActiveState", "NRestarts"].map(property), ["active", "0"], "{}", journal());
    assert!(!journal().contains("no console to take"), "{}", journal());
    assert_confined(&property("MainPID"));

    let first = ear.newest("lobby/state")["boot"].clone();
    run(&format!("kill -STOP {}", property("MainPID")));
    ear.until("it hangs and is ended", |ear| ear.newest("lobby/state")["state"] == "offline").await;
    ear.newest.clear();
    ear.until("word of the hang", |ear| ear.newest("lobby/error")["code"] == "WATCHDOG_RESTART").await;
    assert_eq!(ear.newest("lobby/error")["severity"], "warning");
    ear.until("all is well again", |ear| ear.is_well()).await;
    assert_eq!(["ActiveState", "NRestarts"].map(property), ["active", "1"], "{}", journal());
    let second = ear.newest("lobby/state")["boot"].clone();
    assert_ne!(first, second);

    let stopped = tokio::task::spawn_blocking(|| run("systemctl stop parlor.service"));
    let goodbye = ear.until("goodbye", |ear| ear.newest("lobby/state")["state"] == "offline");
    timeout(GOODBYE, goodbye).await.expect("in time");
    stopped.await.expect("stopped");
    assert_eq!(["ActiveState", "Result"].map(property), ["inactive", "success"], "{}", journal());
    let after = property("ExecStopPost");
    assert!(after.contains("code=exited ; status=0 "), "{after}");
    assert!(!Path::new("/run/parlor").exists(), "no word of a hang is left");
    let mut late = Ear::new(port, "late").await;
    late.until("the state that the broker keeps", |ear| ear.newest.contains_key("lobby/state")).await;
    let kept = late.newest("lobby/state");
    assert_eq!((&kept["state"], &kept["boot"]), (&json!("offline"), &second));
    text_is_shown();
}

/// A controller that remembers the newest of each topic.
struct Ear {
    client: Client,
    newest: BTreeMap<String, Value>,
}

impl Ear {
    async fn new(port: u16, id: &str) -> Self {
        let mut client = Client::connect(port, id).await;
        client.subscribe("#").await;
        Self { client, newest: BTreeMap::new() }
    }

    async fn until(&mut self, what: &str, finished: impl Fn(&Self) -> bool) {
        let hear = async {
            while !finished(self) {
                let message = text(&self.client.next().await);
                let (topic, payload) = message.split_once(' ').expect("topic and payload");
                self.newest.insert(topic.to_owned(), serde_json::from_str(payload).unwrap_or(Value::Null));
            }
        };
        let in_time = timeout(LIMIT, hear).await;
        assert!(in_time.is_ok(), "{what}: {:#?}\n{}", self.newest, journal());
    }

    fn newest(&self, topic: &str) -> &Value {
        self.newest.get(topic).unwrap_or(&Value::Null)
    }

    /// Whether the kiosk shows both tiles, has all its devices, and nothing is wrong.
    fn is_well(&self) -> bool {
        let of = |topic: &str| self.newest(&format!("lobby/{topic}"));
        let tiles = of("reported")["tiles"].as_array().map_or(&[][..], Vec::as_slice);
        let info = of("info");
        of("state")["state"] == "online"
            && tiles.len() == 2
            && tiles.iter().all(|tile| tile["state"] == "live")
            && info["microphone"]["name"].as_str().is_some_and(|name| name.contains("Loopback"))
            && info["speaker"]["name"].as_str().is_some_and(|name| name.contains("Loopback"))
            && info["screen"]["width"] == 1280
            && info["cameras"][0]["width"] == 640
            && self.newest.iter().all(|(topic, fault)| !topic.starts_with("lobby/fault/") || fault.is_null())
    }
}

/// The kernel's word that the unit was applied.
fn assert_confined(process: &str) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{name} in {status}")).to_owned()
    };
    let only_tty_config = format!("{:016x}", 1 << 26);

    assert_ne!(field("Uid").split('\t').next(), Some("0"));
    assert_eq!([field("NoNewPrivs"), field("Seccomp")], ["1", "2"]);
    assert_eq!([field("CapEff"), field("CapBnd")], [only_tty_config.clone(), only_tty_config]);
}

/// Installs the daemon as board/README.md says, gives the devices the groups and modes of Debian's udev rules, and makes
/// a network interface besides `lo`.
fn as_on_a_board() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let daemon = std::env::var("PARLOR_DAEMON").expect("these tests are run by board/testbed/test-kernel");
    fs::copy(daemon, "/usr/bin/parlor").expect("the daemon can be installed");
    for (file, place) in [
        ("parlor.service", "/usr/lib/systemd/system/parlor.service"),
        ("parlor.sysusers", "/usr/lib/sysusers.d/parlor.conf"),
        ("parlor.tmpfiles", "/usr/lib/tmpfiles.d/parlor.conf"),
    ] {
        fs::copy(here.join(file), place).expect("the unit can be installed");
    }
    // systemd forgets how a service ended that nobody wants.
    let wanting = Path::new("/run/systemd/system/testbed.service.d");
    fs::create_dir_all(wanting).expect("a folder");
    fs::write(wanting.join("wants.conf"), "[Unit]\nWants=parlor.service\n").expect("a drop-in");
    for command in [
        "systemd-sysusers",
        "systemd-tmpfiles --create /usr/lib/tmpfiles.d/parlor.conf",
        "systemctl daemon-reload",
        "chgrp video /dev/video0 /dev/fb0",
        "chgrp -R audio /dev/snd",
        "chmod -R u=rwX,g=rwX /dev/video0 /dev/fb0 /dev/snd",
        "chgrp tty /dev/tty0",
        "chmod 620 /dev/tty0",
        "busybox ip addr add 192.0.2.1/24 dev dummy0",
        "busybox ip link set dummy0 up",
    ] {
        run(command);
    }
}

/// The other member: without the unit, with a pretended camera.
fn ward(port: u16) -> (Process, TempDir) {
    let folder = TempDir::new("ward");
    let text = format!(
        "id = 'ward'\nbroker.address = '127.0.0.1:{port}'\nscreen = {{ device = 'sim', width = 320, height = 240 }}\n\
         camera.front = {{ device = 'sim', width = 320, height = 240, rate_hz = 10 }}\n\
         [sound]\nmicrophone = 'sim'\nspeaker = 'sim'\n"
    );
    let file = folder.write("kiosk.toml", &text);
    let log = File::create(out().join("daemon-ward.log")).expect("a log");
    let process =
        Process::start(Command::new("/usr/bin/parlor").arg("run").arg("--config").arg(file).stderr(log));
    (process, folder)
}

/// What systemd says of the service.
fn property(name: &str) -> String {
    run(&format!("systemctl show --value --property={name} parlor.service")).trim().to_owned()
}

/// What the service has said.
fn journal() -> String {
    run("journalctl --no-pager --unit=parlor.service")
}

/// Runs a command of words without blanks; answers what it says.
fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a word")).args(words).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
