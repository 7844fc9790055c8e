//! A broker, kiosks, and a controller that sees everything: the ground the endpoint tests stand on.

// Each test crate uses its own part of this.
#![allow(dead_code)]

use parlor::config::{Authorize, Broker, Camera, Codec, Config, Link, Room, SIMULATED, Screen, Sound};
use parlor::geometry::{Rotation, Size};
use parlor::kiosk;
use parlor::link::mqtt::{self, MqttEvent};
use parlor::machine::{self, Simulation};
use parlor::media::canvas::{Canvas, PixelLayout, Rgb};
use parlor::media::sound::RATE_HZ;
use parlor::room::message::{Incoming, MemberId, Subscription};
use parlor::room::{Position, Publication};
use parlor::sim::network::Network;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Far more than anything here takes; these machines are shared.
const LIMIT: Duration = Duration::from_secs(30);

pub struct House {
    broker: parlor::sim::broker::Broker,
    publish: mpsc::Sender<Publication>,
    heard: mpsc::Receiver<MqttEvent>,
    /// The last payload of each topic.
    last: BTreeMap<String, bytes::Bytes>,
    /// Every event, by its topic.
    events: Vec<(String, Value)>,
    /// Every offer of a kiosk to another.
    offers: Vec<Value>,
    /// Every error record, by its topic.
    errors: Vec<(String, Value)>,
    stop: watch::Sender<bool>,
    kiosks: Vec<JoinHandle<anyhow::Result<kiosk::End>>>,
}

pub struct Kiosk {
    pub simulation: Simulation,
}

impl Kiosk {
    /// Hears what the speaker plays, from now on.
    pub fn ear(&self) -> Ear {
        let heard: Arc<Mutex<VecDeque<f32>>> = Arc::default();
        let ear = Ear { heard: heard.clone() };
        self.simulation.air.listen(move |block, _| {
            let mut heard = heard.lock().expect("no panic");
            heard.extend(block);
            let surplus = heard.len().saturating_sub(Ear::REMEMBERED);
            heard.drain(..surplus);
        });
        ear
    }

    /// Speaks a steady tone into the microphone.
    pub fn hum(&self, hertz: f32, amplitude: f32) {
        let mut at = 0_u32;
        self.simulation.air.speak(move |block, _| {
            for sample in block {
                *sample = amplitude * (std::f32::consts::TAU * hertz * at as f32 / RATE_HZ as f32).sin();
                // Whole periods of every whole number of hertz.
                at = (at + 1) % RATE_HZ;
            }
        });
    }
}

/// Remembers what was played last.
pub struct Ear {
    heard: Arc<Mutex<VecDeque<f32>>>,
}

impl Ear {
    /// Half a second.
    const REMEMBERED: usize = RATE_HZ as usize / 2;

    /// Frequency in hertz and level in decibels of full scale of the last half second.
    fn tone(&self) -> (f32, f32) {
        let heard: Vec<f32> = self.heard.lock().expect("no panic").iter().copied().collect();
        let power = heard.iter().map(|sample| sample * sample).sum::<f32>() / heard.len().max(1) as f32;
        let rises = heard.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
        (2.0 * rises as f32, 10.0 * power.max(1e-10).log10())
    }

    /// Waits until what is heard is as wanted.
    pub async fn until(&self, wanted: impl Fn(f32, f32) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while {
            let (hertz, level) = self.tone();
            assert!(Instant::now() < deadline, "{hertz} Hz at {level} dB is heard");
            !wanted(hertz, level)
        } {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl House {
    pub async fn open() -> Self {
        let broker = tokio::task::spawn_blocking(|| parlor::sim::broker::start(0)).await;
        let broker = broker.expect("no panic").expect("a broker");
        let (publish, publications) = mpsc::channel(64);
        let (told, heard) = mpsc::channel(1024);
        let settings = mqtt::Settings {
            host: "127.0.0.1".into(),
            port: broker.port,
            tls: None,
            id: "controller".into(),
            password: None,
            prefix: "parlor/1".into(),
            will: publication("controller/state", "{}", true),
            subscriptions: vec![Subscription { topic: "#".into(), retain_handling_never: false }],
        };
        tokio::spawn(mqtt::run(settings, publications, told));
        let (stop, _) = watch::channel(false);
        Self {
            broker,
            publish,
            heard,
            last: BTreeMap::new(),
            events: Vec::new(),
            offers: Vec::new(),
            errors: Vec::new(),
            stop,
            kiosks: Vec::new(),
        }
    }

    pub fn configuration(&self, id: &str) -> Config {
        let camera = Camera::upright(SIMULATED, Size::new(320, 240), 15);
        Config {
            id: MemberId::parse(id).expect("an id"),
            prefix: "parlor/1".into(),
            broker: Broker::plain("127.0.0.1", self.broker.port),
            cameras: BTreeMap::from([(Position::Front, camera.clone()), (Position::Back, camera)]),
            screen: Screen {
                device: SIMULATED.into(),
                rotation: Rotation::None,
                flip: false,
                width: 640,
                height: 360,
                font: None,
            },
            sound: Sound {
                microphone: SIMULATED.into(),
                speaker: SIMULATED.into(),
                // They would take a steady tone for noise.
                echo_cancellation: false,
                noise_suppression: false,
                gain_control: false,
            },
            authorize: Authorize::default(),
            room: Room::default(),
            link: Link { bind: vec![([127, 0, 0, 1], 0).into()], ..Link::default() },
            codec: Codec::Software,
            problem: None,
        }
    }

    pub async fn kiosk(&mut self, id: &str) -> Kiosk {
        self.kiosk_with(self.configuration(id), PixelLayout::XRGB8888).await
    }

    pub async fn kiosk_with(&mut self, config: Config, layout: PixelLayout) -> Kiosk {
        let simulated = config.clone();
        self.kiosk_of(config, layout, |simulation| machine::devices(&simulated, simulation)).await
    }

    /// Starts a kiosk with devices of the test's own.
    pub async fn kiosk_of(
        &mut self,
        config: Config,
        layout: PixelLayout,
        devices: impl FnOnce(&Simulation) -> kiosk::Devices,
    ) -> Kiosk {
        let simulation = Simulation::new(&config, layout);
        let devices = devices(&simulation);
        self.start(config, simulation, devices)
    }

    /// Starts a kiosk whose connections go over `network`.
    pub async fn kiosk_on(&mut self, config: Config, network: Network) -> Kiosk {
        let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
        let simulation = Simulation { network: Some(network), ..simulation };
        let devices = machine::devices(&config, &simulation);
        self.start(config, simulation, devices)
    }

    fn start(&mut self, config: Config, simulation: Simulation, devices: kiosk::Devices) -> Kiosk {
        // Nobody talks until the test says so.
        simulation.air.speak(|_, _| {});
        let mut stopped = self.stop.subscribe();
        self.kiosks.push(tokio::spawn(async move {
            let stop = async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            kiosk::run(config, devices, stop).await
        }));
        Kiosk { simulation }
    }

    /// Where the broker listens.
    pub fn port(&self) -> u16 {
        self.broker.port
    }

    pub async fn desire(&self, id: &str, document: Value) {
        self.publish_raw(&format!("{id}/desired"), &document.to_string(), true).await;
    }

    pub async fn clear(&self, id: &str) {
        self.publish_raw(&format!("{id}/desired"), "", true).await;
    }

    pub async fn publish_raw(&self, topic: &str, payload: &str, retained: bool) {
        self.publish.send(publication(topic, payload, retained)).await.expect("the controller runs");
    }

    /// Waits until the last document on `topic` is as wanted.
    pub async fn until(&mut self, topic: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let value = |payload: &bytes::Bytes| serde_json::from_slice::<Value>(payload).ok();
        if let Some(value) = self.last.get(topic).and_then(value).filter(&wanted) {
            return value;
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            let message = self.hear(topic, deadline).await;
            if message.topic == topic
                && let Some(value) = value(&message.payload).filter(&wanted)
            {
                return value;
            }
        }
    }

    /// Waits for the empty payload that says "healed".
    pub async fn until_cleared(&mut self, topic: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.last.get(topic).is_some_and(|payload| payload.is_empty()) {
            self.hear(topic, deadline).await;
        }
    }

    pub async fn until_error(&mut self, id: &str, wanted: impl Fn(&Value) -> bool) {
        self.last.remove(&format!("{id}/error"));
        self.until(&format!("{id}/error"), wanted).await;
    }

    /// Waits for an event that this kiosk says, or has said.
    pub async fn until_event(&mut self, id: &str, wanted: impl Fn(&Value) -> bool) {
        let topic = format!("{id}/event");
        let deadline = Instant::now() + LIMIT;
        while !self.events.iter().any(|(said, event)| *said == topic && wanted(event)) {
            self.hear(&topic, deadline).await;
        }
    }

    /// The offers that kiosks have made to one another so far.
    pub fn offers(&mut self) -> &[Value] {
        self.listen();
        &self.offers
    }

    /// How often this kiosk has raised `code` so far, and how often it was healed.
    pub fn raised_and_healed(&mut self, id: &str, code: &str) -> (usize, usize) {
        self.listen();
        let topic = format!("{id}/error");
        let records = self.errors.iter().filter(|(said, record)| *said == topic && record["code"] == code);
        let (raised, healed): (Vec<_>, Vec<_>) = records.partition(|(_, record)| record["active"] == true);
        (raised.len(), healed.len())
    }

    /// Hears all that was said so far.
    pub fn listen(&mut self) {
        while let Ok(heard) = self.heard.try_recv() {
            self.note(heard);
        }
    }

    /// The operator's snapshot of the screen: the file.
    pub async fn snapshot(&self, id: &str) -> Vec<u8> {
        let file =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{id}-{}.png", self.broker.port));
        self.ctl(&["snapshot", id, file.to_str().expect("a name in UTF-8")]).await.expect("a snapshot");
        std::fs::read(file).expect("the file was written")
    }

    /// Waits until the screen, seen from afar, looks like this.
    pub async fn shows(&self, kiosk: &Kiosk, wanted: &[&str]) {
        let glass = &kiosk.simulation.glass;
        let mut changes = glass.changes();
        let look = || glass.look(|canvas| text(canvas, &["lobby", "ward"]));
        let seen = tokio::time::timeout(LIMIT, async {
            while look() != wanted {
                changes.changed().await.expect("the screen lives as long as the test");
            }
        });
        if seen.await.is_err() {
            panic!("the screen shows\n{}\nnot\n{}", look().join("\n"), wanted.join("\n"));
        }
    }

    /// Waits until this pixel of the screen has this colour.
    pub async fn frames(&self, kiosk: &Kiosk, (x, y): (u32, u32), colour: Rgb) {
        let glass = &kiosk.simulation.glass;
        let mut changes = glass.changes();
        let seen = tokio::time::timeout(LIMIT, async {
            while glass.look(|canvas| canvas.pixel(x, y)) != colour {
                changes.changed().await.expect("the screen lives as long as the test");
            }
        });
        seen.await.unwrap_or_else(|_| panic!("{:?} at {x}, {y}", glass.look(|canvas| canvas.pixel(x, y))));
    }

    /// The next document on `topic`.
    pub async fn next(&mut self, topic: &str) -> Value {
        self.last.remove(topic);
        self.until(topic, |_| true).await
    }

    /// What `parlor ctl` says; the error is what it says when it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut ctl = tokio::process::Command::new(env!("CARGO_BIN_EXE_parlor"));
        ctl.args(["ctl", "--broker", &format!("127.0.0.1:{}", self.broker.port)]).args(arguments);
        let output = ctl.output().await.expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Ends all kiosks: each must say goodbye.
    pub async fn close(mut self) {
        self.stop.send_replace(true);
        for kiosk in std::mem::take(&mut self.kiosks) {
            let end = tokio::time::timeout(LIMIT, kiosk).await.expect("ends in time");
            assert_eq!(end.expect("no panic").expect("no error"), kiosk::End::Stopped);
        }
        self.until("lobby/state", |state| state["state"] == "offline").await;
    }

    async fn hear(&mut self, waiting_for: &str, deadline: Instant) -> Incoming {
        loop {
            let heard = tokio::time::timeout_at(deadline, self.heard.recv()).await;
            let heard =
                heard.unwrap_or_else(|_| panic!("nothing fitting on {waiting_for}; last: {:#?}", self.last));
            if let Some(message) = self.note(heard.expect("the controller runs")) {
                return message;
            }
        }
    }

    fn note(&mut self, heard: MqttEvent) -> Option<Incoming> {
        let MqttEvent::Message(message) = heard else { return None };
        self.last.insert(message.topic.clone(), message.payload.clone());
        if message.topic.ends_with("/event") {
            let event = serde_json::from_slice(&message.payload).expect("events are JSON");
            self.events.push((message.topic.clone(), event));
        }
        if message.topic.ends_with("/error") {
            let record = serde_json::from_slice(&message.payload).expect("errors are JSON");
            self.errors.push((message.topic.clone(), record));
        }
        if message.topic.contains("/signal/") {
            let signal: Value = serde_json::from_slice(&message.payload).expect("signals are JSON");
            self.offers.extend((signal["kind"] == "offer").then_some(signal));
        }
        Some(message)
    }
}

fn publication(topic: &str, payload: &str, retained: bool) -> Publication {
    Publication {
        topic: topic.into(),
        payload: payload.to_owned().into(),
        retained,
        qos: 1,
        expiry_s: None,
        correlation: None,
    }
}

/// The screen as two rows of twenty: whose camera shows there. A small letter is the front camera of that kiosk, a
/// capital its back camera, a dot none. Looked at is the upper third of each row, clear of numbers and names.
fn text(canvas: &Canvas, kiosks: &[&str]) -> Vec<String> {
    let size = canvas.logical_size();
    let cell = |row: u32, column: u32| {
        let (x, y) = (size.width * (2 * column + 1) / 40, size.height / 2 * row + size.height / 6);
        let pixel = canvas.pixel(x, y);
        let [red, green, blue] = [pixel.red, pixel.green, pixel.blue].map(f32::from);
        let luma = 0.299 * red + 0.587 * green + 0.114 * blue;
        let (cb, cr) = (0.564 * (blue - luma), 0.713 * (red - luma));
        if cb.hypot(cr) < 15.0 {
            return '.';
        }
        let turn = cr.atan2(cb) / std::f32::consts::TAU;
        let cameras = kiosks.iter().flat_map(|id| {
            let letter = id.chars().next().expect("a name");
            [(Position::Front, letter), (Position::Back, letter.to_ascii_uppercase())]
                .map(|(position, letter)| (f32::from(machine::hue(id, position)) / 256.0, letter))
        });
        let off = |hue: f32| ((turn - hue).rem_euclid(1.0)).min((hue - turn).rem_euclid(1.0));
        cameras
            .min_by(|(one, _), (other, _)| off(*one).total_cmp(&off(*other)))
            .map_or('?', |(_, letter)| letter)
    };
    (0..2).map(|row| (0..20).map(|column| cell(row, column)).collect()).collect()
}
