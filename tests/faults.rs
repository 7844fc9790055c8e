//! Every fault that can be made on this machine: made, reported by its code, healed, and measured. One table of all:
//! `make faults`.

#[path = "endpoint/house.rs"]
mod house;
mod support;

use house::{House, Kiosk};
use parlor::config::{Broker, Config, IceServer};
use parlor::device::{self, Camera, Kind};
use parlor::geometry::{Fit, Rect, Size};
use parlor::kiosk::Devices;
use parlor::machine::{self, Simulation};
use parlor::media::canvas::PixelLayout;
use parlor::sim::camera::Cable;
use parlor::sim::line::Line;
use parlor::sim::number;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::coturn::Coturn;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// These machines are shared: what is promised, and how much longer it may take in a test.
const MARGIN: u32 = 5;
/// Pictures that a busy machine may lose by itself; the figure is printed, and is to be 0.
const LOST: u32 = 3;
const REPORTED: Duration = Duration::from_secs(1);
const HEALED: Duration = Duration::from_secs(2);
/// What the kiosks' cameras deliver, and where their tiles are on the screen.
const CAMERA: Size = Size::new(320, 240);
const TILES: [Rect; 2] = [Rect::new(0, 0, 320, 360), Rect::new(320, 0, 320, 360)];
const OWN: usize = 0;
const OTHER: usize = 1;

/// A line of the table.
struct Row {
    code: &'static str,
    made: &'static str,
    reported: Duration,
    /// From when it could be well again to when it was seen to be.
    healed: Option<Duration>,
    /// Pictures of the other member that were not shown meanwhile.
    lost: Option<u32>,
}

impl Row {
    fn line(&self) -> String {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let healed = self.healed.map_or("–".into(), seconds);
        let lost = self.lost.map_or("–".into(), |lost| lost.to_string());
        format!("| `{}` | {} | {} | {healed} | {lost} |", self.code, self.made, seconds(self.reported))
    }

    fn judge(&self, (reported, healed): (Duration, Duration)) {
        let line = self.line();
        assert!(self.reported <= reported * MARGIN, "reported late: {line}");
        assert!(self.healed.is_none_or(|time| time <= healed * MARGIN), "healed late: {line}");
        assert!(self.lost.is_none_or(|lost| lost <= LOST), "pictures lost: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_is_reported_by_its_code_heals_and_costs_the_others_nothing() {
    let limits = (REPORTED, HEALED);
    let mut cases = JoinSet::new();
    cases.spawn(async move { (limits, cameras().await) });
    cases.spawn(async move { (limits, cameras_that_do_not_open().await) });
    cases.spawn(async move { (limits, sound().await) });
    cases.spawn(async move { (limits, screen_and_session().await) });
    // Six seconds without a sign are the end of a connection; the broker is tried again after up to three quarters of a second.
    cases.spawn(async move { ((6 * REPORTED, 3 * HEALED), members().await) });
    // The broker is tried again after half a minute at most.
    cases.spawn(async move { ((7 * REPORTED, 4 * HEALED), broker().await) });
    // A relay is asked for six seconds at most, and again after two.
    cases.spawn(async move { ((6 * REPORTED, 4 * HEALED), relay().await) });
    // Two seconds of too much work, five of rest.
    cases.spawn(async move { ((3 * REPORTED, 5 * HEALED), work().await) });
    cases.spawn(async move { (limits, words().await) });
    let mut rows = Vec::new();
    while let Some(case) = cases.join_next().await {
        rows.push(case.expect("no case fails"));
    }
    rows.sort_by_key(|(_, rows)| rows[0].code);
    println!("| fault | made by | reported after | healed after | pictures lost elsewhere |");
    println!("|---|---|---|---|---|");
    rows.iter().flat_map(|(_, rows)| rows).for_each(|row| println!("{}", row.line()));
    for (limits, rows) in &rows {
        rows.iter().for_each(|row| row.judge(*limits));
    }
}

/// Sees the numbers that the cameras draw into their pictures, on one kiosk's glass.
#[derive(Clone, Default)]
struct Eyes(Arc<Mutex<[Seen; 2]>>);

#[derive(Default)]
struct Seen {
    number: Option<u16>,
    pictures: u32,
    missing: u32,
}

impl Eyes {
    fn on(kiosk: &Kiosk) -> Self {
        let eyes = Self::default();
        let seen = eyes.0.clone();
        kiosk.simulation.glass.watch(move |canvas| {
            for (tile, seen) in TILES.iter().zip(&mut *seen.lock().expect("no panic")) {
                let Some(number) = number::read(canvas, CAMERA, *tile, Fit::Fill) else { continue };
                let step = seen.number.replace(number).map_or(1, |before| number.wrapping_sub(before));
                seen.pictures += u32::from(step > 0);
                // A camera that was opened anew begins anew.
                seen.missing += u32::from(if (2..300).contains(&step) { step - 1 } else { 0 });
            }
        });
        eyes
    }

    fn missing(&self, tile: usize) -> u32 {
        self.0.lock().expect("no panic")[tile].missing
    }

    /// Waits until a tile moves.
    async fn moves(&self, tile: usize) {
        let pictures = || self.0.lock().expect("no panic")[tile].pictures;
        let before = pictures();
        let start = Instant::now();
        while pictures() < before + 2 {
            assert!(start.elapsed() < support::LIMIT, "tile {tile} stands still");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A room of lobby and ward, as it is seen in the lobby.
struct Scene {
    house: House,
    lobby: Kiosk,
    eyes: Eyes,
}

impl Scene {
    async fn open() -> Self {
        Self::in_house(House::open().await, |_| {}).await
    }

    async fn in_house(mut house: House, change: impl Fn(&mut Config)) -> Self {
        let mut config = house.configuration("lobby");
        change(&mut config);
        let lobby = house.kiosk_with(config, PixelLayout::XRGB8888).await;
        house.kiosk("ward").await;
        let eyes = Eyes::on(&lobby);
        let mut scene = Self { house, lobby, eyes };
        scene.room(json!({})).await;
        scene.eyes.moves(OTHER).await;
        scene
    }

    /// The room's document for both, with some keys of its own.
    async fn room(&mut self, keys: Value) {
        let mut document = json!({ "room": "r", "members": ["lobby", "ward"], "object-fit": "fill" });
        let all = document.as_object_mut().expect("an object");
        all.extend(keys.as_object().expect("an object").clone());
        for kiosk in ["lobby", "ward"] {
            self.house.desire(kiosk, document.clone()).await;
        }
    }

    /// Waits until this part says this code.
    async fn fault(&mut self, part: &str, code: &str) {
        let wanted = |fault: &Value| fault["active"] == true && fault["code"] == code;
        self.house.until(&format!("lobby/fault/{part}"), wanted).await;
    }

    /// Makes a fault, ends it, and takes the times; `cable` leads to the device that is to be back.
    async fn row(
        &mut self,
        code: &'static str,
        made: &'static str,
        (part, cable): (&str, &Cable),
        (make, heal): (impl AsyncFnOnce(&mut Self), impl AsyncFnOnce(&mut Self)),
    ) -> Row {
        let missing = self.eyes.missing(OTHER);
        let start = Instant::now();
        make(self).await;
        self.fault(part, code).await;
        let reported = start.elapsed();
        let start = Instant::now();
        heal(self).await;
        while !cable.is_in_use() {
            assert!(start.elapsed() < support::LIMIT, "{part} does not come back");
            sleep(Duration::from_millis(5)).await;
        }
        if part.starts_with("camera") {
            self.eyes.moves(OWN).await;
        }
        let healed = Some(start.elapsed());
        self.house.until_cleared(&format!("lobby/fault/{part}")).await;
        Row { code, made, reported, healed, lost: Some(self.eyes.missing(OTHER) - missing) }
    }

    /// The other member, or who can write in its name, sends ten thousand candidates.
    async fn flood(&mut self) -> Row {
        let missing = self.eyes.missing(OTHER);
        let signal = self.house.until("lobby/signal/ward", |signal| signal["kind"] == "answer").await;
        let mut member = support::Client::connect(self.house.port(), "flood").await;
        let flood = |seq: u64| {
            let candidate = json!({ "candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0" });
            let session = &signal["session"];
            json!({ "room": "r", "session": session, "seq": seq, "kind": "candidate", "candidate": candidate }).to_string()
        };
        let start = Instant::now();
        for seq in 1_000..1_100 {
            member.publish("lobby/signal/ward", false, &flood(seq)).await;
        }
        self.house.until_error("lobby", |error| error["code"] == "SIGNAL_REFUSED").await;
        let reported = start.elapsed();
        for seq in 1_100..11_000 {
            member.publish("lobby/signal/ward", false, &flood(seq)).await;
        }
        self.eyes.moves(OTHER).await;
        let lost = Some(self.eyes.missing(OTHER) - missing);
        let made = "10,000 candidates from a member";
        Row { code: "SIGNAL_REFUSED", made, reported, healed: None, lost }
    }

    async fn close(self) {
        self.house.close().await;
    }
}

/// An open camera that fails.
async fn cameras() -> Vec<Row> {
    let mut scene = Scene::open().await;
    let front = scene.lobby.simulation.front.clone();
    let device = ("camera-front", &front);
    let mut rows = Vec::new();
    let plug = |plugged| {
        let front = front.clone();
        async move |_: &mut Scene| front.set_plugged(plugged)
    };
    scene.eyes.moves(OWN).await;
    rows.push(scene.row("CAMERA_GONE", "unplugged", device, (plug(false), plug(true))).await);
    for (code, made, kind) in [
        ("CAMERA_STALLED", "open, and silent", Kind::Stalled),
        ("CAMERA_BAD_FRAME", "broken pictures only", Kind::BadFrame),
    ] {
        let trouble = |trouble| {
            let front = front.clone();
            async move |_: &mut Scene| front.set_trouble(trouble)
        };
        rows.push(scene.row(code, made, device, (trouble(Some(kind)), trouble(None))).await);
    }
    scene.close().await;
    rows
}

/// A camera that is asked for and cannot be opened.
async fn cameras_that_do_not_open() -> Vec<Row> {
    let mut scene = Scene::open().await;
    let front = scene.lobby.simulation.front.clone();
    let mut rows = Vec::new();
    for (code, made, trouble) in [
        ("CAMERA_NOT_FOUND", "absent when it is wanted, plugged in later", None),
        ("CAMERA_BUSY", "in use by another program", Some(Kind::Busy)),
        ("CAMERA_NOT_AUTHORIZED", "its node may not be opened", Some(Kind::NotAuthorized)),
        ("CAMERA_FORMAT", "offers no format that can be used", Some(Kind::Format)),
        ("CAMERA_NO_BANDWIDTH", "the bus is full", Some(Kind::NoBandwidth)),
    ] {
        scene.room(json!({ "mute": { "camera": true } })).await;
        while front.is_in_use() {
            sleep(Duration::from_millis(5)).await;
        }
        let make = async |scene: &mut Scene| {
            front.set_plugged(trouble.is_some());
            front.set_trouble(trouble);
            scene.room(json!({})).await;
        };
        let heal = async |_: &mut Scene| {
            front.set_plugged(true);
            front.set_trouble(None);
        };
        rows.push(scene.row(code, made, ("camera-front", &front), (make, heal)).await);
    }
    scene.close().await;
    rows
}

async fn sound() -> Vec<Row> {
    let mut scene = Scene::open().await;
    let air = scene.lobby.simulation.air.clone();
    let mut rows = Vec::new();
    for (code, part, cable) in
        [("MICROPHONE_GONE", "microphone", &air.microphone), ("SPEAKER_GONE", "speaker", &air.speaker)]
    {
        let plug = |plugged| async move |_: &mut Scene| cable.set_plugged(plugged);
        rows.push(scene.row(code, "unplugged", (part, cable), (plug(false), plug(true))).await);
    }
    scene.close().await;
    rows
}

/// A screen that cannot be opened at first, and a camera whose driver panics once.
async fn screen_and_session() -> Vec<Row> {
    let mut house = House::open().await;
    let config = house.configuration("lobby");
    let there = Arc::new(AtomicBool::new(false));
    let panics = Arc::new(AtomicBool::new(false));
    let devices = |simulation: &Simulation| {
        let devices = machine::devices(&config, simulation);
        let (there, screen) = (there.clone(), devices.screen.clone());
        let (panics, camera) = (panics.clone(), devices.camera.clone());
        let missing = || device::Error {
            kind: Kind::NotFound,
            operation: "open",
            errno: None,
            target: "a screen".into(),
        };
        Devices {
            screen: Arc::new(move || if there.load(Relaxed) { screen() } else { Err(missing()) }),
            camera: Arc::new(move |position| {
                camera(position)
                    .map(|camera| -> Box<dyn Camera> { Box::new(Nervous { camera, panics: panics.clone() }) })
            }),
            ..devices
        }
    };
    let start = Instant::now();
    let lobby = house.kiosk_of(config.clone(), PixelLayout::XRGB8888, devices).await;
    let wanted = |fault: &Value| fault["active"] == true && fault["code"] == "SCREEN_OPEN";
    house.until("lobby/fault/screen", wanted).await;
    let reported = start.elapsed();
    house.desire("lobby", json!({ "room": "r", "members": ["lobby"], "object-fit": "fill" })).await;
    let mut changes = lobby.simulation.glass.changes();
    changes.mark_unchanged();
    let start = Instant::now();
    there.store(true, Relaxed);
    changes.changed().await.expect("the screen lives");
    let healed = Some(start.elapsed());
    house.until_cleared("lobby/fault/screen").await;
    let screen =
        Row { code: "SCREEN_OPEN", made: "absent at start, there later", reported, healed, lost: None };

    house.until("lobby/reported", |reported| reported["tiles"][0]["state"] == "live").await;
    let start = Instant::now();
    panics.store(true, Relaxed);
    let wanted = |fault: &Value| fault["active"] == true && fault["code"] == "INTERNAL";
    house.until("lobby/fault/camera-front", wanted).await;
    let reported = start.elapsed();
    changes.mark_unchanged();
    changes.changed().await.expect("the screen lives");
    let healed = Some(start.elapsed());
    house.until_cleared("lobby/fault/camera-front").await;
    let made = "the camera's session panics, and begins anew";
    let session = Row { code: "INTERNAL", made, reported, healed, lost: None };
    house.close().await;
    vec![screen, session]
}

/// A camera whose driver panics when it is told to.
struct Nervous {
    camera: Box<dyn Camera>,
    panics: Arc<AtomicBool>,
}

impl Camera for Nervous {
    fn mode(&self) -> &device::CameraMode {
        self.camera.mode()
    }

    fn capture(&mut self, frame: &mut parlor::media::frame::Frame) -> Result<(), device::Error> {
        assert!(!self.panics.swap(false, Relaxed), "as the test wants it");
        self.camera.capture(frame)
    }
}

/// A member that vanishes without a word, and comes back: a program of its own, killed.
async fn members() -> Vec<Row> {
    let mut house = House::open().await;
    let lobby = house.kiosk("lobby").await;
    let eyes = Eyes::on(&lobby);
    let directory = support::TempDir::new("faults");
    let config = format!(
        "id = 'ward'\nbroker.address = '127.0.0.1:{}'\nlink.bind = ['127.0.0.1:0']\n\
         camera.front = {{ device = 'sim', width = 320, height = 240, rate_hz = 15 }}\n\
         screen = {{ device = 'sim', width = 640, height = 360 }}\n\
         sound = {{ microphone = 'none', speaker = 'none' }}\n",
        house.port()
    );
    let config = directory.write("kiosk.toml", &config);
    let start_ward = || {
        let mut ward = std::process::Command::new(env!("CARGO_BIN_EXE_parlor"));
        support::Process::start(ward.args(["run", "--config"]).arg(&config))
    };
    let mut ward = start_ward();
    let mut scene = Scene { house, lobby, eyes };
    scene.room(json!({})).await;
    scene.eyes.moves(OTHER).await;
    let missing = scene.eyes.missing(OWN);

    let start = Instant::now();
    ward.kill();
    scene.fault("tile-ward", "TILE_STALLED").await;
    let stalled = start.elapsed();
    scene.fault("peer-ward", "PEER_LOST").await;
    let lost = start.elapsed();
    let start = Instant::now();
    let _ward = start_ward();
    scene.eyes.moves(OTHER).await;
    let healed = Some(start.elapsed());
    scene.house.until_cleared("lobby/fault/tile-ward").await;
    scene.house.until_cleared("lobby/fault/peer-ward").await;
    let missing = Some(scene.eyes.missing(OWN) - missing);
    scene.close().await;
    let made = "a member is killed, and started again";
    vec![
        Row { code: "TILE_STALLED", made, reported: stalled, healed, lost: missing },
        Row { code: "PEER_LOST", made, reported: lost, healed, lost: missing },
    ]
}

/// The line to the broker is cut for longer than a session lives, while a call runs.
async fn broker() -> Vec<Row> {
    let line = Arc::new(Mutex::new(None));
    let house = House::open().await;
    let cut = Line::to(house.port()).await.expect("a line");
    *line.lock().expect("no panic") = Some(cut.port);
    let mut scene = Scene::in_house(house, |config| {
        let port = line.lock().expect("no panic").expect("a port");
        config.broker = Broker::plain("127.0.0.1", port);
    })
    .await;
    let missing = scene.eyes.missing(OTHER);
    cut.set_whole(false);
    scene.house.until("lobby/state", |state| state["state"] == "offline").await;
    sleep(Duration::from_secs(60)).await;
    scene.eyes.moves(OTHER).await;
    let start = Instant::now();
    cut.set_whole(true);
    scene.house.until("lobby/state", |state| state["state"] != "offline").await;
    let healed = start.elapsed();
    // It was said with its true time: when it was, not when it could be heard.
    let record = scene.house.until("lobby/error", |error| error["code"] == "BROKER_UNREACHABLE").await;
    let info = scene.house.next("lobby/stats").await;
    let age = info["up_ms"].as_u64().expect("a time") - record["up_ms"].as_u64().expect("a time");
    assert!(age >= 60_000, "{record}");
    let lost = Some(scene.eyes.missing(OTHER) - missing);
    scene.close().await;
    let made = "the line to the broker is cut for a minute in a call; said when it is whole again";
    vec![Row { code: "BROKER_UNREACHABLE", made, reported: healed, healed: Some(healed), lost }]
}

/// A relay that refuses, and one that is away.
async fn relay() -> Vec<Row> {
    let mut coturn = Coturn::start();
    let mut rows = Vec::new();
    for (code, made, credential) in [
        ("TURN_AUTH", "the relay knows another credential", "wrong"),
        ("TURN_UNREACHABLE", "the relay is away at the start, and comes back", Coturn::USER.1),
    ] {
        let mut house = House::open().await;
        let mut config = house.configuration("lobby");
        let url = format!("turn:127.0.0.1:{}", coturn.port);
        config.link.ice_servers = vec![IceServer {
            url,
            username: Coturn::USER.0.into(),
            credential: credential.into(),
            credential_file: None,
            ca_file: None,
        }];
        if code == "TURN_UNREACHABLE" {
            coturn.kill();
        }
        let start = Instant::now();
        let _lobby = house.kiosk_with(config, PixelLayout::XRGB8888).await;
        let wanted = |fault: &Value| fault["active"] == true && fault["code"] == code;
        house.until("lobby/fault/relay-1", wanted).await;
        let reported = start.elapsed();
        let mut healed = None;
        if code == "TURN_UNREACHABLE" {
            let start = Instant::now();
            coturn.restart();
            house.until_cleared("lobby/fault/relay-1").await;
            healed = Some(start.elapsed());
        }
        rows.push(Row { code, made, reported, healed, lost: None });
        house.close().await;
    }
    rows
}

/// A screen that takes its time.
async fn work() -> Vec<Row> {
    let mut scene = Scene::open().await;
    let slow = Arc::new(AtomicBool::new(true));
    let start = Instant::now();
    let sleepy = slow.clone();
    scene.lobby.simulation.glass.watch(move |_| {
        if sleepy.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(150));
        }
    });
    scene.fault("tile-ward", "TILE_OVER_BUDGET").await;
    let reported = start.elapsed();
    let start = Instant::now();
    slow.store(false, Relaxed);
    scene.house.until_cleared("lobby/fault/tile-ward").await;
    let healed = Some(start.elapsed());
    scene.close().await;
    let made = "the screen takes 150 ms for each picture";
    vec![Row { code: "TILE_OVER_BUDGET", made, reported, healed, lost: None }]
}

/// What is wrong with what is said.
async fn words() -> Vec<Row> {
    let mut scene = Scene::open().await;
    let mut rows = vec![scene.flood().await];
    let stranger = "lobby/signal/stranger";
    let hello = r#"{"room":"r","session":"00112233445566778899aabbccddeeff","seq":1,"kind":"hello"}"#;
    let member = r#"{"room":"r","members":["lobby","ward","a b"],"object-fit":"fill"}"#;
    let twice = r#"{"room":"r","members":["lobby","ward","ward"],"object-fit":"fill"}"#;
    let others = r#"{"room":"r","members":["ward"]}"#;
    let large = json!({ "room": "r", "members": ["lobby"], "x": "x".repeat(70_000) }).to_string();
    for (code, made, topic, payload, retained) in [
        ("SIGNAL_REFUSED", "a stranger signals; held for 5 s", stranger, hello, false),
        ("CMD_UNKNOWN", "a command that is none", "lobby/cmd/dance", "{}", false),
        ("CMD_INVALID", "arguments that are none", "lobby/cmd/snapshot", r#"{"width":"wide"}"#, false),
        ("MEMBER_INVALID", "a member whose id is none", "lobby/desired", member, true),
        ("MEMBER_DUPLICATE", "a member twice", "lobby/desired", twice, true),
        ("DOCUMENT_INVALID", "a document that is no JSON", "lobby/desired", "{", true),
        ("DOCUMENT_TOO_LARGE", "a document of 70 kB", "lobby/desired", &large, true),
        ("NOT_A_MEMBER", "a document without this kiosk", "lobby/desired", others, true),
    ] {
        let missing = scene.eyes.missing(OTHER);
        let start = Instant::now();
        scene.house.publish_raw(topic, payload, retained).await;
        scene.house.until_error("lobby", |error| error["code"] == code).await;
        if topic == "lobby/desired" {
            scene.fault("document", code).await;
        }
        let held = Duration::from_secs(if code == "SIGNAL_REFUSED" { 5 } else { 0 });
        let reported = start.elapsed().saturating_sub(held);
        let lost = Some(scene.eyes.missing(OTHER) - missing);
        rows.push(Row { code, made, reported, healed: None, lost });
        if topic == "lobby/desired" {
            let start = Instant::now();
            scene.room(json!({})).await;
            scene.house.until_cleared("lobby/fault/document").await;
            rows.last_mut().expect("just put").healed = Some(start.elapsed());
            scene.eyes.moves(OTHER).await;
        }
    }
    scene.close().await;
    rows
}
