//! Whole daemons (`parlor run`, simulated devices) in processes of their own, run from outside over a real mosquitto:
//! with `mosquitto_pub` as from any shell, and with `parlor ctl`.
#![allow(clippy::unwrap_used)] // a test that fails may panic

mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{Client, Mosquitto, Process, TempDir};

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_made_changed_and_closed_with_mosquitto_pub() {
    let broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let _lobby = Daemon::start(broker.port, "lobby");
    let _ward = Daemon::start(broker.port, "ward-3");

    for kiosk in ["lobby", "ward-3"] {
        let document = json!({ "rev": 1, "room": "consult", "members": ["lobby", "ward-3"] });
        mosquitto_pub(broker.port, kiosk, &["-m", &document.to_string()]);
    }
    for kiosk in ["lobby", "ward-3"] {
        let all_live = |reported: &Value| {
            reported["rev"] == 1
                && tiles(reported).len() == 2
                && tiles(reported).iter().all(|tile| tile["state"] == "live")
        };
        observer.until(&format!("{kiosk}/reported"), all_live).await;
    }

    let own = json!({ "openid": "lobby", "device-position": "back", "object-fit": "cover" });
    let document = json!({ "rev": 2, "room": "consult", "members": [own, "ward-3", { "openid": "a b" }] });
    mosquitto_pub(broker.port, "lobby", &["-m", &document.to_string()]);
    let changed = |reported: &Value| {
        let own = tiles(reported).iter().find(|tile| tile["openid"] == "lobby");
        own.is_some_and(|own| own["device-position"] == "back" && own["state"] == "live")
            && reported["rev"] == 2
    };
    let reported = observer.until("lobby/reported", changed).await;
    assert_eq!(tiles(&reported)[0]["object-fit"], "cover");
    assert_eq!(reported["rejected"][0]["pointer"].as_str().unwrap().split('/').nth(2), Some("2"));

    mosquitto_pub(broker.port, "lobby", &["-m", "not a document"]);
    let refused = observer.until("lobby/error", |record| record["code"] == "DOCUMENT_INVALID").await;
    assert_eq!(refused["part"], "document");

    mosquitto_pub(broker.port, "lobby", &["-n"]);
    observer
        .until("lobby/reported", |reported| reported["room"].is_null() && tiles(reported).is_empty())
        .await;
    let alone = |reported: &Value| {
        tiles(reported).iter().any(|tile| tile["openid"] == "lobby" && tile["state"] != "live")
    };
    observer.until("ward-3/reported", alone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_takes_and_refuses_the_examples_of_the_contract() {
    let api = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/asyncapi.yaml")).unwrap();
    let api: Value = serde_yaml_ng::from_str(&api).unwrap();
    let messages = &api["components"]["messages"];
    let broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let _lobby = Daemon::start(broker.port, "lobby");
    observer.until("lobby/state", |state| state["state"] == "online").await;

    let desired = messages["desired"]["examples"].as_array().unwrap();
    for example in desired {
        observer.publish(example).await;
        observer.until("lobby/reported", |reported| reported["rev"] == example["payload"]["rev"]).await;
    }

    let mut refused = 0;
    for kind in ["desired", "command", "signal"] {
        for example in messages[kind]["x-invalid-examples"].as_array().unwrap() {
            // From a good document on, each bad one is news.
            refused += 1;
            let good = json!({ "rev": refused, "room": "r", "members": ["lobby"] });
            observer.client.publish("lobby/desired", true, &good.to_string()).await;
            observer.until("lobby/reported", |reported| reported["rev"] == refused).await;
            observer.newest.remove("lobby/error");

            observer.publish(example).await;

            let expected = &example["x-expected"];
            let as_expected =
                |error: &Value| error["code"] == expected["code"] && error["pointer"] == expected["pointer"];
            observer.until("lobby/error", as_expected).await;
        }
    }
    assert!(refused >= 25, "{refused} examples");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_hand_moves_real_kiosks() {
    let broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let _lobby = Daemon::start(broker.port, "lobby");
    let _ward = Daemon::start(broker.port, "ward-3");
    for kiosk in ["lobby/state", "ward-3/state"] {
        observer.until(kiosk, |state| state["state"] == "online").await;
    }
    let directory = TempDir::new("hand");
    let picture = directory.path().join("room.png");

    for line in [
        "room consult lobby ward-3=Ward",
        "camera lobby back",
        "fit lobby cover",
        "fit lobby contain ward-3",
        "mute lobby microphone",
        &format!("snapshot lobby {} --width 320", picture.display()),
        "identify lobby",
        "show",
        "remove consult ward-3",
        "leave lobby",
    ] {
        let output = ctl(broker.port, line);

        assert!(output.status.success(), "{line}: {output:?}");
    }
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    assert!(!ctl(broker.port, "camera nobody back").status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_is_offline_by_its_will_and_a_stopped_one_by_its_word() {
    let broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let mut killed = Daemon::start(broker.port, "lobby");
    let mut stopped = Daemon::start(broker.port, "ward-3");
    let online = observer.until("lobby/state", |state| state["state"] == "online").await;
    observer.until("ward-3/state", |state| state["state"] == "online").await;

    killed.process.kill();
    let terminated = Command::new("kill").arg(stopped.process.0.id().to_string()).status().unwrap();
    assert!(terminated.success());

    observer.until("ward-3/state", |state| state["state"] == "offline").await;
    let offline = observer.until("lobby/state", |state| state["state"] == "offline").await;
    assert_eq!(offline["boot"], online["boot"]);
    assert!(stopped.process.0.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_broker_came_back_the_daemon_says_again_what_it_is() {
    let mut broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let _lobby = Daemon::start(broker.port, "lobby");
    observer.until("lobby/state", |state| state["state"] == "online").await;

    broker.restart(); // nothing retained is left

    let mut observer = Observer::start(broker.port).await;
    observer.until("lobby/state", |state| state["state"] == "online").await;
    observer.until("lobby/info", |info| info["cameras"].is_array()).await;
    mosquitto_pub(broker.port, "lobby", &["-m", r#"{"rev":"later","room":"a","members":["lobby"]}"#]);
    observer.until("lobby/reported", |reported| reported["rev"] == "later").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_with_the_same_id_is_noticed() {
    let broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let _first = Daemon::start(broker.port, "lobby");
    let first = observer.until("lobby/state", |state| state["state"] == "online").await;

    let _second = Daemon::start(broker.port, "lobby");
    observer.until("lobby/state", |state| state["boot"] != first["boot"]).await;

    observer.until("lobby/error", |record| record["code"] == "BROKER_TAKEN_OVER").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_topic_leaves_the_daemon_at_work() {
    let broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let mut lobby = Daemon::start(broker.port, "lobby");
    let state = observer.until("lobby/state", |state| state["state"] == "online").await;
    let whole = [
        json!({ "room": "r", "members": ["lobby", { "openid": "ward-3", "name": "王" }], "mute": { "camera": true } }),
        json!({ "room": "r", "session": "00112233445566778899aabbccddeeff", "seq": 1, "kind": "offer", "sdp": "v=0" }),
    ];
    let topics =
        ["desired", "signal/ward-3", "signal/", "cmd/snapshot", "cmd/stats", "cmd/", "state", "fault/x"];

    // A fixed seed (Knuth's generator): what once failed fails again.
    let mut seed = 1_u64;
    let mut dice = |sides: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % sides
    };
    for round in 0..400 {
        let mut payload = whole[round % 2].to_string().into_bytes();
        payload.truncate(1 + dice(payload.len()) + dice(40));
        for _ in 0..dice(6) {
            let at = dice(payload.len());
            payload[at] = dice(256) as u8;
        }
        let topic = format!("lobby/{}", topics[dice(topics.len())]);
        observer.client.publish_with(&topic, dice(2) == 0, payload, Default::default()).await;
    }

    let document = json!({ "rev": "sane", "room": "consult", "members": ["lobby"] });
    mosquitto_pub(broker.port, "lobby", &["-m", &document.to_string()]);
    let live = |reported: &Value| reported["rev"] == "sane" && tiles(reported)[0]["state"] == "live";
    observer.until("lobby/reported", live).await;
    assert!(lobby.process.0.try_wait().unwrap().is_none());
    let reported = &observer.newest["lobby/reported"];
    assert_eq!(reported["boot"], state["boot"], "the same life");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_that_a_sweep_writes_is_what_the_daemon_publishes() {
    let (broker, directory) = (Mosquitto::start(), TempDir::new("budget"));
    let mut observer = Observer::start(broker.port).await;
    let budget = directory.path().join("budget.json");
    let sweep = "bench --sweep 1..3 --seconds 2 --size 320x240 --rate 15 --screen 640x480 --budget";
    let mut command = Command::new(PARLOR);
    command.args(sweep.split(' ')).arg(&budget).env("RUST_LOG", "parlor=error");

    let swept = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let _lobby = Daemon::start_with(broker.port, "lobby", &["--budget", budget.to_str().unwrap()]);
    let _ward = Daemon::start_with(broker.port, "ward-3", &["--budget", "/nowhere/budget.json"]);

    assert!(swept.status.success(), "{}", String::from_utf8_lossy(&swept.stderr));
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&budget).unwrap()).unwrap();
    assert_eq!((&written["tried"], &written["size"]), (&json!(3), &json!([320, 240])));
    let info = observer.until("lobby/info", |info| info["limits"].is_object()).await;
    assert_eq!(info["limits"]["capacity"], written);
    let info = observer.until("ward-3/info", |info| info["limits"].is_object()).await;
    assert_eq!(info["limits"]["capacity"], Value::Null);
}

/// Counted in the kernel, over a time in which the slowest of the daemon's own periods (10 s) comes by twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_room_wakes_up_at_most_five_times_a_second() {
    let broker = Mosquitto::start();
    let mut observer = Observer::start(broker.port).await;
    let lobby = Daemon::start(broker.port, "lobby");
    observer.until("lobby/state", |state| state["state"] == "online").await;
    // Whoever waits for the first one has seen the devices open and the connection become calm.
    observer.until("lobby/stats", |stats| stats["up_ms"].is_u64()).await;

    let (before, begun) = (sleeps(lobby.process.0.id()), std::time::Instant::now());
    for _ in 0..2 {
        observer.newest.remove("lobby/stats");
        observer.until("lobby/stats", |stats| stats["up_ms"].is_u64()).await;
    }
    let (slept, seconds) = (sleeps(lobby.process.0.id()) - before, begun.elapsed().as_secs_f64());

    println!("{slept} wake-ups in {seconds:.1} s: {:.1} a second", slept as f64 / seconds);
    assert!(slept > 0 && slept as f64 <= 5.0 * seconds, "{slept} in {seconds:.1} s");
}

/// How often the threads of this process went to sleep of themselves; each time something woke them again.
fn sleeps(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    tasks.map(|task| of_task(task.unwrap())).sum()
}

#[test]
fn settings_that_come_late_are_read_and_those_that_can_be_used_are_left_alone() {
    let directory = TempDir::new("late");
    let start = || {
        let mut command = Command::new(PARLOR);
        command
            .args(["run", "--problem", "/nonexistent/problem", "--config"])
            .arg(directory.path().join("kiosk.toml"));
        Process::start(command.env("RUST_LOG", "parlor=info").stderr(Stdio::piped()))
    };
    let settings = "id = \"lobby\"\n\
                    broker = { address = \"127.0.0.1:1\", password_in_clear = true }\n\
                    camera = { front = { device = \"sim\" } }\n\
                    screen = { device = \"sim\" }\n\
                    sound = { microphone = \"none\", speaker = \"none\" }\n";

    let mut without = start();
    until_said(&mut without, "the settings cannot be used");
    directory.write("kiosk.toml", settings);
    until_said(&mut without, "the settings have changed");
    assert!(without.0.wait().unwrap().success(), "it ends, to be started anew");

    let mut with = start();
    until_said(&mut with, "broker lost");
    directory.write("kiosk.toml", &format!("{settings}# and more\n"));
    std::thread::sleep(Duration::from_secs(5));
    assert!(with.0.try_wait().unwrap().is_none(), "nothing is taken over in the middle of a call");
}

/// Reads a daemon's log until it says `words`.
fn until_said(daemon: &mut Process, words: &str) {
    let log = BufReader::new(daemon.0.stderr.as_mut().unwrap());
    let found = log.lines().map_while(Result::ok).any(|line| line.contains(words));
    assert!(found, "it ended without saying: {words}");
}

/// `parlor run` with simulated cameras and screen. Killed on drop.
struct Daemon {
    process: Process,
    _directory: TempDir,
}

impl Daemon {
    fn start(port: u16, id: &str) -> Self {
        Self::start_with(port, id, &[])
    }

    fn start_with(port: u16, id: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::new(id);
        let password = directory.write("password", id);
        let config = directory.write(
            "kiosk.toml",
            &format!(
                "id = {id:?}\n\
                 broker = {{ address = \"127.0.0.1:{port}\", password_file = {password:?} }}\n\
                 camera = {{ front = {{ device = \"sim\" }}, back = {{ device = \"sim\" }} }}\n\
                 screen = {{ device = \"sim\" }}\n\
                 link = {{ bind = [\"127.0.0.1:0\"] }}\n"
            ),
        );
        let process = Process::start(
            Command::new(PARLOR)
                .arg("run")
                .arg("--config")
                .arg(config)
                .args(arguments)
                .env("RUST_LOG", "parlor=error"),
        );
        Self { process, _directory: directory }
    }
}

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");

/// Reads everything, and waits for what a test wants to see.
struct Observer {
    client: Client,
    /// The newest JSON message by its topic.
    newest: BTreeMap<String, Value>,
}

impl Observer {
    async fn start(port: u16) -> Self {
        let mut client = Client::connect(port, "admin").await;
        client.subscribe("#").await;
        Self { client, newest: BTreeMap::new() }
    }

    /// Publishes an example of docs/asyncapi.yaml as that file says; what is retained and no document is cleared.
    async fn publish(&mut self, example: &Value) {
        let topic = example["x-topic"].as_str().unwrap();
        let payload = match example["x-raw"].as_str() {
            Some(raw) => raw.repeat(example["x-repeat"].as_u64().unwrap_or(1) as usize),
            None => example["payload"].to_string(),
        };
        let document = topic.ends_with("/desired");
        self.client.publish(topic, document || example["x-retained"] == true, &payload).await;
        if example["x-retained"] == true {
            self.client.publish(topic, true, "").await;
        }
    }

    /// Waits until the newest message on this topic is as `wanted`.
    async fn until(&mut self, topic: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + support::LIMIT;
        loop {
            let newest = self.newest.get(topic);
            if let Some(found) = newest.filter(|newest| wanted(newest)) {
                return found.clone();
            }
            let Ok(message) = tokio::time::timeout_at(deadline, self.client.next()).await else {
                panic!("{topic}: not as wanted within {:?}, the newest is {newest:?}", support::LIMIT);
            };
            let text = support::text(&message);
            let (topic, payload) = text.split_once(' ').expect("a space between topic and payload");
            self.newest.insert(topic.to_owned(), serde_json::from_str(payload).unwrap_or_default());
        }
    }
}

fn tiles(reported: &Value) -> &[Value] {
    reported["tiles"].as_array().map_or(&[], Vec::as_slice)
}

/// Publishes a kiosk's document as a shell does.
fn mosquitto_pub(port: u16, kiosk: &str, payload: &[&str]) {
    let topic = format!("{}/{kiosk}/desired", support::PREFIX);
    let status = Command::new("mosquitto_pub")
        .args([
            "-V",
            "5",
            "-p",
            &port.to_string(),
            "-u",
            "controller",
            "-P",
            "controller",
            "-q",
            "1",
            "-r",
            "-t",
            &topic,
        ])
        .args(payload)
        .status();
    let status = status.expect("run mosquitto_pub (apt-get install mosquitto-clients)");
    assert!(status.success(), "mosquitto_pub: {status}");
}

fn ctl(port: u16, line: &str) -> Output {
    let broker = format!("127.0.0.1:{port}");
    Command::new(PARLOR)
        .args([
            "ctl",
            "--broker",
            &broker,
            "--username",
            "controller",
            "--password",
            "controller",
            "--timeout",
            "30",
        ])
        .args(line.split(' '))
        .output()
        .expect("run parlor ctl")
}
